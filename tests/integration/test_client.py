"""The Python client against real nodes: what an application built on it sees."""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import jwt
import pytest
import pytest_asyncio
import trustme

from gateway.client import (
    Backoff,
    Client,
    ClientError,
    ClientEvent,
    ClientSettings,
    ClosedError,
    Connected,
    Disconnected,
    DisconnectedError,
    InvalidArgumentError,
    Joined,
    Left,
    Published,
    PublishRejectedError,
    QueueFullError,
    Reconnecting,
    RejectedError,
    State,
    StreamPosition,
    Subscribed,
    SubscribeRejectedError,
    SubscriptionEvent,
    SubscriptionSettings,
    UnauthorizedError,
)
from tests.support.nodes import A_DAY_S, SECRET, RunningNode, running_node
from tests.support.waiting import PATIENCE_S, until
from tests.unit.client.manual_timers import ManualTimers

FOR_USERS: dict[str, Any] = {"allow_subscribe_for_client": True, "allow_publish_for_subscriber": True}
STREAM: dict[str, Any] = {
    "history_size": 5,
    "history_ttl": "300s",
    "force_recovery": True,
    "allow_history_for_subscriber": True,
}
PRESENCE: dict[str, Any] = {
    "presence": True,
    "join_leave": True,
    "allow_presence_for_subscriber": True,
}
TABLES: dict[str, Any] = {
    "client": {
        "allow_anonymous_connect_without_token": False,
        "subscribe_to_user_personal_channel": {"enabled": True},
        "command_rate": 0,
    },
    "channel": {
        "without_namespace": STREAM,
        "namespaces": [
            {"name": "chat", **FOR_USERS, **STREAM, **PRESENCE},
            {"name": "plain", **FOR_USERS},
            {"name": "closed"},
        ],
    },
}
# Only what a test waits for: nothing here is about the times themselves.
QUICK = ClientSettings(backoff=Backoff(base_s=0.02, cap_s=0.1))

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def node() -> AsyncIterator[RunningNode]:
    """A node that wants tokens; each test leaves it without connections."""
    async with running_node(TABLES) as running:
        yield running


def token(user: str = "ann", *, ttl_s: float = A_DAY_S, **claims: Any) -> str:
    return jwt.encode({"sub": user, "exp": int(time.time() + ttl_s), **claims}, SECRET, "HS256")


async def test_what_is_published_arrives_with_who_published_it(node: RunningNode) -> None:
    async with (
        Client(node.client_url, token=token()) as ann,
        Client(node.client_url, token=token("bob")) as bob,
        ann.subscribe("chat:talk") as heard,
        bob.subscribe("chat:talk"),
    ):
        name = bob.id
        await bob.publish("chat:talk", {"text": "hello ü"})
        await bob.publish("chat:talk", b'{"as":  "it is"}')
        first, second = await anext(heard), await anext(heard)
    assert (first.json(), bytes(second.data)) == ({"text": "hello ü"}, b'{"as":  "it is"}')
    assert first.info is not None
    assert (first.info.user, first.info.client) == ("bob", name)
    assert (second.offset, heard.position.offset) == (2, 2)


async def test_the_states_and_events_of_a_life(node: RunningNode) -> None:
    events: list[ClientEvent] = []
    client = Client(node.client_url, token=token(), on_event=events.append, settings=QUICK)
    assert client.state is State.NEW
    async with client:
        assert client.state is State.CONNECTED
        client.abort()
        assert client.state is State.CONNECTING
        await client.connected()
    assert client.state is State.CLOSED
    kinds = [type(each) for each in events if not isinstance(each, Subscribed | Published)]
    assert [each for each in kinds if each.__name__ in {"Connected", "Reconnecting", "Disconnected"}] == [
        Connected,
        Reconnecting,
        Connected,
        Disconnected,
    ]
    assert events[-1] == Disconnected(0, "closed by this side")


async def test_nothing_is_left_behind(node: RunningNode) -> None:
    before = asyncio.all_tasks()
    async with Client(node.client_url, token=token()) as client:
        client.subscribe("plain:x")
        assert len(asyncio.all_tasks() - before) == 1
    assert asyncio.all_tasks() == before
    await until(lambda: len(node.node.connections) == 0)


async def test_an_error_in_the_block_comes_out_as_it_is(node: RunningNode) -> None:
    with pytest.raises(KeyError, match="mine"):
        async with Client(node.client_url, token=token()):
            raise KeyError("mine")


async def test_subscribed_means_confirmed_and_history_presence_and_stats_are_there(node: RunningNode) -> None:
    async with Client(node.client_url, token=token()) as client, client.subscribe("chat:room"):
        for number in range(7):
            await client.publish("chat:room", number)
        page = await client.history("chat:room", limit=-1)
        assert [each.json() for each in page.publications] == [2, 3, 4, 5, 6]
        since = StreamPosition(3, page.epoch)
        newer = await client.history("chat:room", limit=2, since=since)
        older = await client.history("chat:room", limit=10, since=StreamPosition(5, page.epoch), is_reverse=True)
        assert [each.offset for each in newer.publications] == [4, 5]
        assert [each.offset for each in older.publications] == [4, 3]
        assert (await client.history("chat:room")).offset == 7
        present = await client.presence("chat:room")
        assert {name: info.user for name, info in present.items()} == {client.id: "ann"}
        stats = await client.presence_stats("chat:room")
        assert (stats.num_clients, stats.num_users) == (1, 1)


async def test_what_was_missed_comes_after_a_reconnect_once_and_in_order(node: RunningNode) -> None:
    events: list[SubscriptionEvent] = []
    async with (
        Client(node.client_url, token=token(), settings=QUICK) as reader,
        reader.subscribe("chat:missed", on_event=events.append) as missed,
        Client(node.client_url, token=token("bob")) as writer,
        writer.subscribe("chat:missed"),
    ):
        await writer.publish("chat:missed", 1)
        reader.abort()
        for number in (2, 3, 4):
            await writer.publish("chat:missed", number)
        assert [(await anext(missed)).json() for _ in range(4)] == [1, 2, 3, 4]
    told = [each for each in events if isinstance(each, Subscribed)]
    assert [(each.was_recovering, each.recovered, each.may_have_missed) for each in told] == [
        (False, False, False),
        (True, True, False),
    ]


async def test_more_than_the_history_holds_is_told_as_missing(node: RunningNode) -> None:
    events: list[SubscriptionEvent] = []
    timers = ManualTimers()
    async with (
        Client(node.client_url, token=token(), timers=timers) as reader,
        reader.subscribe("chat:long", on_event=events.append) as missed,
        Client(node.client_url, token=token("bob")) as writer,
        writer.subscribe("chat:long"),
    ):
        await writer.publish("chat:long", 0)
        assert (await anext(missed)).json() == 0
        reader.abort()
        await until(lambda: any(wait_s <= 1 for wait_s in timers.waits), "it waits to reconnect")
        for number in range(1, 9):
            await writer.publish("chat:long", number)
        timers.advance(1)
        await missed.confirmed()
        await writer.publish("chat:long", "new")
        assert (await anext(missed)).json() == "new"
    told = [each for each in events if isinstance(each, Subscribed)]
    assert [(each.recovered, each.may_have_missed) for each in told] == [(False, False), (False, True)]
    assert told[-1].position.offset == 9


async def test_a_stored_position_goes_on_in_another_client(node: RunningNode) -> None:
    async with Client(node.client_url, token=token()) as writer, writer.subscribe("chat:kept") as kept:
        for number in range(3):
            await writer.publish("chat:kept", number)
        assert (await anext(kept)).json() == 0
        stored = kept.position
    async with Client(node.client_url, token=token()) as reader:
        wishes = SubscriptionSettings(since=stored)
        async with reader.subscribe("chat:kept", settings=wishes) as kept:
            assert [(await anext(kept)).json() for _ in range(2)] == [1, 2]


async def test_joins_and_leaves_of_others(node: RunningNode) -> None:
    events: list[SubscriptionEvent] = []
    async with Client(node.client_url, token=token()) as ann:
        wishes = SubscriptionSettings(join_leave=True)
        async with ann.subscribe("chat:door", on_event=events.append, settings=wishes):
            async with Client(node.client_url, token=token("bob")) as bob, bob.subscribe("chat:door"):
                name = bob.id
            await until(lambda: any(isinstance(each, Left) for each in events))
    seen = [
        (type(each), each.info.user) for each in events if isinstance(each, Joined | Left) and each.info.client == name
    ]
    assert seen == [(Joined, "bob"), (Left, "bob")]


async def test_a_personal_channel_comes_with_the_clients_events(node: RunningNode) -> None:
    events: list[ClientEvent] = []
    async with Client(node.client_url, token=token("eve"), on_event=events.append):
        subscribed = [each.channel for each in events if isinstance(each, Subscribed)]
    assert subscribed == ["#eve"]


async def test_rpc_says_when_there_is_none(node: RunningNode) -> None:
    async with Client(node.client_url, token=token()) as client:
        with pytest.raises(RejectedError) as refusal:
            await client.rpc("nothing", {"a": 1})
    assert refusal.value.code in {104, 108}


# Errors.


@pytest.mark.parametrize(
    ("bad", "code"),
    [("", 3501), ("a.b.c", 3500), (token(ttl_s=-100), 109), (token(expire_at=int(time.time()) - 100), 110)],
    ids=["none", "garbage", "expired", "expire_at"],
)
async def test_who_may_not_in_is_told_so(node: RunningNode, bad: str, code: int) -> None:
    with pytest.raises(ClientError) as refusal:
        async with Client(node.client_url, token=bad):
            raise AssertionError("it let a stranger in")
    assert refusal.value.code == code
    assert code == 3501 or isinstance(refusal.value, UnauthorizedError)
    assert "token" in str(refusal.value)


@pytest.mark.parametrize(
    ("channel", "code"), [("closed:x", 103), ("nowhere:x", 102), ("$chat:x", 103), ("chat:" + "x" * 300, 107)]
)
async def test_a_channel_that_cannot_be_had_says_why(node: RunningNode, channel: str, code: int) -> None:
    async with Client(node.client_url, token=token()) as client:
        with pytest.raises(SubscribeRejectedError) as refusal:
            async with client.subscribe(channel):
                raise AssertionError("it let this client in")
        assert (refusal.value.channel, refusal.value.code) == (channel, code)
        with pytest.raises(PublishRejectedError) as refusal_:
            await client.publish(channel, 1)
        assert (refusal_.value.channel, refusal_.value.code) == (channel, code)
        assert client.state is State.CONNECTED


@pytest.mark.parametrize("data", [object(), b"no json", b"", {"x": {1, object()}}, "x" * 70_000])
async def test_what_cannot_be_published_is_not_sent(node: RunningNode, data: Any) -> None:
    async with Client(node.client_url, token=token()) as client, client.subscribe("plain:x"):
        with pytest.raises((InvalidArgumentError, PublishRejectedError)):
            await client.publish("plain:x", data)
        await client.publish("plain:x", "it still works")


@pytest.mark.parametrize("address", ["", "http://example.com", "ws://", "example.com", []])
async def test_an_address_that_is_none_is_refused(address: Any) -> None:
    with pytest.raises(InvalidArgumentError):
        Client(address)


async def test_a_channel_must_have_a_name(node: RunningNode) -> None:
    async with Client(node.client_url, token=token()) as client:
        with pytest.raises(InvalidArgumentError):
            client.subscribe("")
        with pytest.raises(InvalidArgumentError):
            await client.publish("", 1)


async def test_a_closed_client_does_nothing_more(node: RunningNode) -> None:
    async with Client(node.client_url, token=token()) as client:
        subscription = client.subscribe("plain:x")
        await subscription.confirmed()
    assert [each async for each in subscription] == []
    with pytest.raises(ClosedError):
        await client.publish("plain:x", 1)
    with pytest.raises(ClosedError):
        client.subscribe("plain:y")
    with pytest.raises(ClosedError):
        await client.connected()


# Tokens.


async def test_tokens_are_fetched_when_they_are_needed_and_when_they_end(node: RunningNode) -> None:
    fetched: list[str] = []

    async def fetch() -> str:
        fetched.append(token(ttl_s=2 if len(fetched) < 2 else 600))
        return fetched[-1]

    events: list[ClientEvent] = []
    async with Client(node.client_url, token=fetch, on_event=events.append) as client, client.subscribe("plain:x"):
        name = client.id
        await until(lambda: len(fetched) == 3, "the second token ends")
        await client.publish("plain:x", 1)
        assert client.id == name, "it was disconnected, where a refresh should have kept it"


async def test_an_expired_token_is_replaced_by_a_fetched_one(node: RunningNode) -> None:
    tokens = [token(ttl_s=-100), token()]

    async def fetch() -> str:
        return tokens.pop(0)

    async with Client(node.client_url, token=fetch, settings=QUICK) as client:
        assert client.state is State.CONNECTED


async def test_a_token_function_that_fails_is_called_again_and_one_that_gives_up_ends_it(node: RunningNode) -> None:
    outcomes: list[Any] = [OSError("down"), None, 7, token()]
    events: list[ClientEvent] = []

    async def fetch() -> str:
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome  # type: ignore[no-any-return]

    async with Client(node.client_url, token=fetch, settings=QUICK, on_event=events.append):
        reasons = [each.reason for each in events if isinstance(each, Reconnecting)]
    assert [reason[:26] for reason in reasons] == [
        "down",
        "no token: InvalidArgumentE",
        "no token: InvalidArgumentE",
    ]

    async def give_up() -> str:
        raise UnauthorizedError("logged out", to_do="log in again")

    with pytest.raises(UnauthorizedError, match="logged out"):
        async with Client(node.client_url, token=give_up):
            raise AssertionError("it had no token")


async def test_a_private_channel_gets_its_token_and_another_when_that_ends(node: RunningNode) -> None:
    fetched: list[str] = []

    async def fetch(channel: str) -> str:
        fetched.append(channel)
        return token(channel=channel, ttl_s=2 if len(fetched) < 2 else 600)

    async with Client(node.client_url, token=token()) as client, client.subscribe("$chat:x", token=fetch) as private:
        await until(lambda: len(fetched) == 2, "the first token ends")
        await client.publish("$chat:x", 1)
        assert (await anext(private)).json() == 1
    assert fetched == ["$chat:x"] * 2


# Offline.


async def test_publications_wait_for_the_connection(node: RunningNode) -> None:
    async with Client(node.client_url, token=token(), settings=QUICK) as client, client.subscribe("chat:wait") as heard:
        client.abort()
        await asyncio.gather(*(client.publish("chat:wait", number) for number in range(5)))
        assert [(await anext(heard)).json() for _ in range(5)] == list(range(5))


async def test_a_client_that_does_not_wait_is_told_at_once(node: RunningNode) -> None:
    settings = ClientSettings(backoff=Backoff(base_s=60), offline_wait_s=0)
    async with Client(node.client_url, token=token(), settings=settings) as client:
        client.abort()
        with pytest.raises(DisconnectedError, match="not connected"):
            await client.publish("plain:x", 1)


async def test_what_waits_too_long_or_is_too_much_fails(node: RunningNode) -> None:
    settings = ClientSettings(backoff=Backoff(base_s=60, cap_s=60), offline_wait_s=0.05, queue_max_bytes=500)
    async with Client(node.client_url, token=token(), settings=settings) as client:
        client.abort()
        publishing = [client.publish("plain:x", "x" * 100) for _ in range(10)]
        outcomes = await asyncio.gather(*publishing, return_exceptions=True)
    kinds = [type(each) for each in outcomes]
    assert (set(kinds[:3]), set(kinds[3:])) == ({DisconnectedError}, {QueueFullError})


async def test_a_cancelled_publication_is_not_sent_later(node: RunningNode) -> None:
    async with (
        Client(node.client_url, token=token(), settings=QUICK) as client,
        client.subscribe("chat:cancel") as heard,
    ):
        client.abort()
        publishing = asyncio.create_task(client.publish("chat:cancel", "cancelled"))
        await asyncio.sleep(0)
        publishing.cancel()
        await client.publish("chat:cancel", "sent")
        assert (await anext(heard)).json() == "sent"


# Getting there.


async def test_addresses_are_tried_in_turn(node: RunningNode) -> None:
    async with asyncio.timeout(PATIENCE_S):
        async with Client(["ws://127.0.0.1:1/x", node.client_url], token=token(), settings=QUICK) as client:
            assert client.state is State.CONNECTED


async def test_only_a_connection_that_stayed_up_ends_the_row_of_attempts(node: RunningNode) -> None:
    events: list[ClientEvent] = []
    timers = ManualTimers()
    async with Client(node.client_url, token=token(), timers=timers, on_event=events.append) as client:

        async def lose_after(up_s: float) -> int:
            timers.advance(up_s)
            events.clear()
            client.abort()
            await until(lambda: any(isinstance(each, Reconnecting) for each in events))
            (lost,) = [each for each in events if isinstance(each, Reconnecting)]
            timers.advance(lost.delay_s)
            await client.connected()
            return lost.attempt

        assert [await lose_after(up_s) for up_s in (1, 1, 9, 11, 1)] == [1, 2, 3, 1, 2]


async def test_it_gives_up_after_as_many_retries_as_it_was_told() -> None:
    events: list[ClientEvent] = []
    settings = ClientSettings(backoff=Backoff(base_s=0.001, cap_s=0.001, max_retries=3))
    with pytest.raises(DisconnectedError, match="gave up after 3 retries"):
        async with Client("ws://127.0.0.1:1/x", settings=settings, on_event=events.append):
            raise AssertionError("nobody is there")
    assert [each.attempt for each in events if isinstance(each, Reconnecting)] == [1, 2, 3]


async def test_entering_can_be_cut_short_and_leaves_nothing() -> None:
    before = asyncio.all_tasks()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05), Client("ws://127.0.0.1:1/x"):
            raise AssertionError("nobody is there")
    assert asyncio.all_tasks() == before


async def test_tls_wants_a_certificate_that_it_trusts(tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    for part in certificate.cert_chain_pems:
        part.write_to_path(tmp_path / "cert.pem", append=True)
    files = {"cert_pem_file": str(tmp_path / "cert.pem"), "key_pem_file": str(tmp_path / "key.pem")}
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    async with running_node({"http_server": {"tls": {"enabled": True, **files}}}) as node:
        address = node.client_url.replace("ws:", "wss:")
        async with Client(address, settings=ClientSettings(tls=trusting)) as client, client.subscribe("x") as heard:
            await client.publish("x", "y" * 20_000)
            assert (await anext(heard)).json() == "y" * 20_000
        with pytest.raises(DisconnectedError, match="trusts the server's certificate"):
            async with Client(address):
                raise AssertionError("it trusted a stranger")


async def test_an_http_server_without_upgrade_is_not_asked_again(node: RunningNode) -> None:
    with pytest.raises(DisconnectedError) as refusal:
        async with Client(f"{node.ws_url}/no/such/place"):
            raise AssertionError("nothing is there")
    assert refusal.value.code == 404
