"""The official Python SDK against a node that wants tokens: what an application built on it sees."""

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator
from typing import Any

import jwt
import pytest
import pytest_asyncio
from centrifuge import (
    CentrifugeError,
    Client,
    ClientEventHandler,
    ClientState,
    ReplyError,
    Subscription,
    SubscriptionEventHandler,
    SubscriptionState,
)
from websockets.asyncio.client import connect

from tests.support.nodes import A_DAY_S, SECRET, RunningNode, running_node
from tests.support.waiting import PATIENCE_S, until

FOR_USERS = {"allow_subscribe_for_client": True, "allow_publish_for_subscriber": True}
TABLES: dict[str, Any] = {
    "client": {
        "allow_anonymous_connect_without_token": False,
        "subscribe_to_user_personal_channel": {"enabled": True},
        "command_rate": 0,
    },
    "channel": {
        "without_namespace": {},
        "namespaces": [
            {"name": "chat", **FOR_USERS},
            {"name": "locked", "allow_publish_for_subscriber": True},
            {"name": "binary", **FOR_USERS, "publication_data_format": "binary"},
        ],
    },
}

pytestmark = pytest.mark.asyncio(loop_scope="module")


def token(user: str, *, ttl_s: float = A_DAY_S, **claims: Any) -> str:
    return jwt.encode({"sub": user, "exp": int(time.time() + ttl_s), **claims}, SECRET, "HS256")


class Journal(ClientEventHandler):
    """What the SDK told the application about its connection."""

    def __init__(self) -> None:
        self.events: list[tuple[Any, ...]] = []

    async def on_connecting(self, ctx: Any) -> None:
        self.events.append(("connecting", ctx.code, ctx.reason))

    async def on_connected(self, ctx: Any) -> None:
        self.events.append(("connected",))
        assert ctx.client

    async def on_disconnected(self, ctx: Any) -> None:
        self.events.append(("disconnected", ctx.code, ctx.reason))

    async def on_error(self, ctx: Any) -> None:
        self.events.append(("error", str(ctx.error)))

    async def on_subscribed(self, ctx: Any) -> None:
        self.events.append(("subscribed", ctx.channel, ctx.data))

    async def on_unsubscribed(self, ctx: Any) -> None:
        self.events.append(("unsubscribed", ctx.channel))

    async def on_publication(self, ctx: Any) -> None:
        self.events.append(("publication", ctx.channel, ctx.pub.data))

    def named(self, *names: str) -> list[tuple[Any, ...]]:
        return [event for event in self.events if event[0] in names]


class SubscriptionJournal(SubscriptionEventHandler):
    """What the SDK told the application about one subscription."""

    def __init__(self) -> None:
        self.publications: list[Any] = []
        self.events: list[tuple[Any, ...]] = []

    async def on_subscribed(self, ctx: Any) -> None:
        self.events.append(("subscribed", ctx.data))

    async def on_unsubscribed(self, ctx: Any) -> None:
        self.events.append(("unsubscribed", ctx.code, ctx.reason))

    async def on_publication(self, ctx: Any) -> None:
        self.publications.append((ctx.pub.data, ctx.pub.info.user if ctx.pub.info else None))


@contextlib.asynccontextmanager
async def started(url: str, **options: Any) -> AsyncIterator[tuple[Client, Journal]]:
    """Start an SDK client, and see it off at the end."""
    journal = Journal()
    client = Client(url, events=journal, proxy=None, min_reconnect_delay=0.02, max_reconnect_delay=0.1, **options)
    await client.connect()
    try:
        yield client, journal
    finally:
        await client.disconnect()
        await until(lambda: not client._background_tasks, "the SDK's tasks end")  # noqa: SLF001 - it offers no wait


async def subscribe(client: Client, channel: str, **options: Any) -> tuple[Subscription, SubscriptionJournal]:
    journal = SubscriptionJournal()
    subscription = client.new_subscription(channel, events=journal, **options)
    await subscription.subscribe()
    await subscription.ready()
    return subscription, journal


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def strict_node() -> AsyncIterator[RunningNode]:
    """A node that lets nobody in without a token; its clock is not moved."""
    async with running_node(TABLES) as running:
        yield running


async def test_two_users_chat(strict_node: RunningNode) -> None:
    url = strict_node.client_url
    async with started(url, token=token("alice")) as (alice, _), started(url, token=token("bob")) as (bob, _):
        at_alice, alices = await subscribe(alice, "chat:room")
        at_bob, bobs = await subscribe(bob, "chat:room")
        await at_alice.publish({"text": "Hello world!"})
        await at_bob.publish({"text": "κόσμε"})
        expected = [({"text": "Hello world!"}, "alice"), ({"text": "κόσμε"}, "bob")]
        await until(lambda: len(alices.publications) == len(bobs.publications) == 2, "both messages at both")
        assert alices.publications == bobs.publications == expected
        await at_bob.unsubscribe()
        await at_alice.publish({"text": "still here?"})
        await until(lambda: len(alices.publications) == 3, "the third message")
        assert (bobs.publications, bobs.events[-1][:2]) == (expected, ("unsubscribed", 0))


async def test_two_hundred_publications_arrive_in_order(strict_node: RunningNode) -> None:
    url = strict_node.client_url
    async with started(url, token=token("alice")) as (alice, _), started(url, token=token("bob")) as (bob, _):
        at_alice, alices = await subscribe(alice, "chat:room")
        _, bobs = await subscribe(bob, "chat:room")
        async with asyncio.TaskGroup() as tasks:
            for number in range(200):
                tasks.create_task(at_alice.publish({"n": number}))
        await until(lambda: len(bobs.publications) == len(alices.publications) == 200, "200 publications")
        assert bobs.publications == alices.publications == [({"n": number}, "alice") for number in range(200)]


@pytest.mark.parametrize(
    ("shown", "code", "reason"),
    [
        pytest.param("garbage", 3500, "invalid token", id="garbage"),
        pytest.param(jwt.encode({"sub": "eve"}, "y" * 32, "HS256"), 3500, "invalid token", id="other key"),
        pytest.param(token("eve", channel="chat:room"), 3500, "invalid token", id="a subscription token"),
        pytest.param("", 3501, "bad request", id="none"),
        pytest.param(token("eve", expire_at=1), 110, "expired", id="a connection that has ended"),
        pytest.param(token("eve", channels=["nope:x"]), 102, "unknown channel", id="an unknown channel"),
    ],
)
async def test_a_refused_token_ends_in_disconnected_for_good(
    strict_node: RunningNode, shown: str, code: int, reason: str
) -> None:
    async with started(strict_node.client_url, token=shown) as (client, journal):
        await until(lambda: client.state is ClientState.DISCONNECTED, "the end of the connection")
        assert journal.events[1:] == [("disconnected", code, reason)]


async def test_an_expired_token_makes_the_sdk_fetch_a_new_one(strict_node: RunningNode) -> None:
    asked: list[int] = []

    async def get_token() -> str:
        asked.append(1)
        return token("alice", ttl_s=-5 if len(asked) == 1 else 600)

    async with started(strict_node.client_url, get_token=get_token) as (client, journal):
        await client.ready(PATIENCE_S)
        assert len(asked) == 2
        assert [event[0] for event in journal.named("connected", "disconnected")] == ["connected"]


# Subscriptions.


@pytest.mark.parametrize("channel", ["locked:room", "$chat:room"])
async def test_a_subscription_token_opens_what_is_closed_without_it(strict_node: RunningNode, channel: str) -> None:
    async def get_token(wanted: str) -> str:
        return token("alice", channel=wanted, data={"welcome": 1}, info={"role": "admin"})

    async with started(strict_node.client_url, token=token("alice")) as (alice, _):
        subscription, journal = await subscribe(alice, channel, get_token=get_token)
        await subscription.publish({"n": 1})
        await until(lambda: bool(journal.publications), "the publication")
        assert (journal.events, journal.publications) == ([("subscribed", {"welcome": 1})], [({"n": 1}, "alice")])


@pytest.mark.parametrize(
    ("channel", "code", "reason"),
    [
        ("locked:room", 103, "permission denied"),
        ("$chat:room", 103, "permission denied"),
        ("nope:x", 102, "unknown channel"),
        ("chat:é", 107, "bad request"),
        ("binary:x", 108, "not available"),
    ],
)
async def test_a_subscription_that_is_refused_ends_unsubscribed(
    strict_node: RunningNode, channel: str, code: int, reason: str
) -> None:
    async with started(strict_node.client_url, token=token("alice")) as (alice, _):
        journal = SubscriptionJournal()
        subscription = alice.new_subscription(channel, events=journal)
        await subscription.subscribe()
        with pytest.raises(CentrifugeError):
            await subscription.ready()
        assert subscription.state is SubscriptionState.UNSUBSCRIBED
        await until(lambda: bool(journal.events), "the event")
        assert journal.events == [("unsubscribed", code, reason)]
        assert alice.state is ClientState.CONNECTED


async def test_another_users_subscription_token_ends_the_connection(strict_node: RunningNode) -> None:
    async with started(strict_node.client_url, token=token("alice")) as (alice, journal):
        stolen = alice.new_subscription("locked:room", token=token("bob", channel="locked:room"))
        await stolen.subscribe()
        await until(lambda: alice.state is ClientState.DISCONNECTED, "the end of the connection")
        assert journal.events[-1] == ("disconnected", 3500, "invalid token")


async def test_a_publish_without_permission_raises_and_the_client_stays(strict_node: RunningNode) -> None:
    async with started(strict_node.client_url, token=token("alice")) as (alice, _):
        await alice.ready()
        with pytest.raises(ReplyError) as refused:
            await alice.publish("chat:room", {"n": 1})  # for subscribers only
        assert refused.value.code == 103
        assert alice.state is ClientState.CONNECTED


# Server-side subscriptions.


async def test_claims_and_the_personal_channel_subscribe_on_the_servers_side(strict_node: RunningNode) -> None:
    url = strict_node.client_url
    subs = {"chat:news": {"data": {"greeting": "hi"}}, "chat:room": {}}
    async with started(url, token=token("alice", subs=subs)) as (alice, journal):
        await until(lambda: len(journal.named("subscribed")) == 3, "three subscriptions")
        assert sorted(journal.named("subscribed"), key=str) == [
            ("subscribed", "#alice", None),
            ("subscribed", "chat:news", {"greeting": "hi"}),
            ("subscribed", "chat:room", None),
        ]
        await alice.publish("chat:room", {"n": 1})
        async with started(url, token=token("bob", channels=["chat:news"])) as (bob, _):
            await bob.publish("chat:news", {"n": 2})
            await until(lambda: len(journal.named("publication")) == 2, "two publications")
        assert journal.named("publication") == [
            ("publication", "chat:room", {"n": 1}),
            ("publication", "chat:news", {"n": 2}),
        ]


async def test_a_personal_channel_is_its_users_alone() -> None:
    personal: dict[str, Any] = {
        "client": {"subscribe_to_user_personal_channel": {"personal_channel_namespace": "personal"}},
        "channel": {
            "namespaces": [{"name": "personal", "allow_publish_for_client": True, "allow_user_limited_channels": True}]
        },
    }
    async with running_node(TABLES, personal) as node:
        url = node.client_url
        async with (
            started(url, token=token("alice")) as (alice, alices),
            started(url, token=token("bob")) as (bob, bobs),
        ):
            await until(lambda: bool(alices.named("subscribed") and bobs.named("subscribed")), "both subscribed")
            await bob.publish("personal:#alice", {"for": "alice"})
            await alice.publish("personal:#bob", {"for": "bob"})
            await until(lambda: bool(alices.named("publication") and bobs.named("publication")), "both publications")
            assert alices.named("publication") == [("publication", "personal:#alice", {"for": "alice"})]
            assert bobs.named("publication") == [("publication", "personal:#bob", {"for": "bob"})]


# Time, and nodes that come and go.


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


async def test_a_client_reconnects_after_a_restart_and_goes_on_receiving() -> None:
    here = {"http_server": {"port": free_port()}}
    async with contextlib.AsyncExitStack() as stack:
        async with running_node(TABLES, here) as node:
            url = node.client_url
            alice, alices = await stack.enter_async_context(started(url, token=token("alice")))
            bob, _ = await stack.enter_async_context(started(url, token=token("bob", channels=["chat:news"])))
            at_alice, received = await subscribe(alice, "chat:room")
            at_bob, _ = await subscribe(bob, "chat:room")
            await at_bob.publish({"n": 1})
            await until(lambda: len(received.publications) == 1, "the first publication")
        await until(lambda: ("connecting", 3001, "shutdown") in alices.events, "the news of the shutdown")
        async with running_node(TABLES, here):
            await at_alice.ready(PATIENCE_S)
            await at_bob.ready(PATIENCE_S)
            await at_bob.publish({"n": 2})
            await until(lambda: len(received.publications) == 2, "the second publication")
            assert received.publications == [({"n": 1}, "bob"), ({"n": 2}, "bob")]
            assert alices.named("connected", "disconnected") == [("connected",), ("connected",)]
            await stack.aclose()


async def test_a_connection_outlives_its_token_when_the_sdk_refreshes_it() -> None:
    """The SDK asks for a new token after a second or two of its own time; the rest happens on the node's clock."""
    tokens: list[str] = []

    async def get_token() -> str:
        tokens.append(token("alice", ttl_s=600 if tokens else 1.99))
        return tokens[-1]

    async with running_node(TABLES) as node, started(node.client_url, get_token=get_token) as (alice, journal):
        subscription, received = await subscribe(alice, "chat:room")
        await until(lambda: len(tokens) == 2, "the SDK asks for a second token")
        await subscription.publish({"n": 1})  # answered behind the refresh
        async with connect(node.client_url) as silent:
            node.clock.ahead_s += 60  # beyond the first token and its delay of 25 s
            await silent.wait_closed()  # as stale: the node has looked at what is due
        await subscription.publish({"n": 2})
        await until(lambda: len(received.publications) == 2, "the publications")
        assert journal.named("connected", "connecting", "disconnected")[1:] == [("connected",)]


async def test_a_connection_that_is_not_refreshed_ends_after_its_delay_and_comes_back_with_a_new_token() -> None:
    """The SDK's own timer for the refresh lies a minute ahead; the node's clock is moved past it."""
    tokens: list[str] = []

    async def get_token() -> str:
        tokens.append(token("alice", ttl_s=600 if tokens else 60))
        return tokens[-1]

    async with running_node(TABLES) as node, started(node.client_url, get_token=get_token) as (alice, journal):
        await alice.ready()
        node.clock.ahead_s += 60 + 25 + 1
        await until(lambda: ("connecting", 3005, "connection expired") in journal.events, "the end of the connection")
        # The first attempt shows the old token and is told 109, the second a new one.
        await until(lambda: len(journal.named("connected")) == 2, "the second connection")
        assert len(tokens) == 2
