"""The plain client against a real node (README, "The plain protocol")."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import jwt
import pytest
import pytest_asyncio

from gateway.client import (
    Backoff,
    ClosedError,
    Connected,
    Disconnected,
    DisconnectedError,
    Gap,
    InvalidArgumentError,
    PlainClient,
    PlainEvent,
    PlainMessage,
    PlainSettings,
    QueueFullError,
    Reconnecting,
    Refused,
    State,
    UnauthorizedError,
)
from tests.support.black_hole import black_hole
from tests.support.nodes import A_DAY_S, SECRET, RunningNode, running_node
from tests.support.waiting import until
from tests.unit.client.manual_timers import ManualTimers

QUICK = PlainSettings(backoff=Backoff(base_s=0.02, cap_s=0.1))
STRICT: dict[str, Any] = {
    "client": {"allow_anonymous_connect_without_token": False},
    "channel": {
        "namespaces": [
            {"name": "lobby", "allow_subscribe_for_client": True, "allow_publish_for_client": True},
            {"name": "read", "allow_subscribe_for_client": True},
            {"name": "closed"},
        ]
    },
}

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def node() -> AsyncIterator[RunningNode]:
    """A node in development mode."""
    async with running_node() as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def strict_node() -> AsyncIterator[RunningNode]:
    """A node that lets nobody in without a token."""
    async with running_node(STRICT) as running:
        yield running


def token(user: str = "ann", *, ttl_s: float = A_DAY_S) -> str:
    return jwt.encode({"sub": user, "exp": int(time.time() + ttl_s)}, SECRET, "HS256")


async def subscribed(node: RunningNode, count: int) -> None:
    """Wait until *count* clients are subscribed: a stranger is not told."""
    await until(lambda: sum(each["event"] == "subscribed" for each in node.events) >= count)


async def test_json_text_and_bytes_arrive_as_they_were_sent(node: RunningNode) -> None:
    before = sum(each["event"] == "subscribed" for each in node.events)
    async with PlainClient(f"{node.ws_url}/ws/talk") as ann, PlainClient(f"{node.ws_url}/ws/binary:x") as bob:
        await subscribed(node, before + 2)
        await ann.send_json({"text": "ü"})
        await ann.send_text('{"as":  "it is"}')
        await bob.send_bytes(b"\x00\xff")
        first, second, third = await anext(ann), await anext(ann), await anext(bob)
    assert first.json() == {"text": "ü"}
    assert (second, second.text) == (PlainMessage(b'{"as":  "it is"}', is_text=True), '{"as":  "it is"}')
    assert third == PlainMessage(b"\x00\xff", is_text=False)


async def test_a_callback_takes_each_message_in_its_turn_and_there_is_nothing_to_iterate(node: RunningNode) -> None:
    came: list[PlainMessage] = []
    before = sum(each["event"] == "subscribed" for each in node.events)
    async with PlainClient(f"{node.ws_url}/ws/talk", on_message=came.append) as client:
        await subscribed(node, before + 1)
        await client.send_text("1")
        await client.send_text("2")
        await until(lambda: len(came) == 2)
        with pytest.raises(InvalidArgumentError, match="callback"):
            await anext(client)
    assert came == [PlainMessage(b"1", is_text=True), PlainMessage(b"2", is_text=True)]


async def test_who_has_a_task_for_it_runs_it_and_stops_it(node: RunningNode) -> None:
    client = PlainClient(f"{node.ws_url}/ws/talk")
    running = asyncio.create_task(client.run())
    await client.connected()
    client.stop()
    await running
    assert client.state is State.CLOSED


async def test_it_connects_from_the_address_it_is_told(node: RunningNode) -> None:
    settings = PlainSettings(local_address="127.0.0.9")
    async with PlainClient(f"{node.ws_url}/ws/talk", settings=settings):
        addresses = [each.get("address", "") for each in node.events if each["event"] == "accepted"]
    assert addresses[-1].startswith("127.0.0.9")


async def test_a_token_is_shown_and_a_refusal_is_an_event(strict_node: RunningNode) -> None:
    async with PlainClient(f"{strict_node.ws_url}/ws/read:x", token=token()) as client:
        assert client.user == "ann"
        await client.send_json(1)
        events = client.events()
        assert [await anext(events), await anext(events)] == [Connected("ann"), Refused(103, "permission denied")]


@pytest.mark.parametrize(
    ("path", "shown", "reason"),
    [
        ("lobby:x", "a.b.c", "token invalid"),
        ("lobby:x", token(ttl_s=-100), "token expired"),
        ("closed:x", token(), "permission denied"),
        ("nowhere:x", token(), "unknown channel"),
    ],
    ids=["invalid", "expired", "closed", "unknown"],
)
async def test_who_is_not_let_in_is_told_so(strict_node: RunningNode, path: str, shown: str, reason: str) -> None:
    with pytest.raises(UnauthorizedError, match=reason) as refusal:
        async with PlainClient(f"{strict_node.ws_url}/ws/{path}", token=shown):
            raise AssertionError("it was let in")
    assert refusal.value.code == 1008


async def test_an_expired_token_is_replaced(strict_node: RunningNode) -> None:
    tokens = [token(ttl_s=-100), token()]

    async def fetch() -> str:
        return tokens.pop(0)

    async with PlainClient(f"{strict_node.ws_url}/ws/lobby:x", token=fetch, settings=QUICK) as client:
        assert client.state is State.CONNECTED


async def test_it_comes_back_and_what_was_sent_meanwhile_waits(strict_node: RunningNode) -> None:
    events: list[PlainEvent] = []
    address = f"{strict_node.ws_url}/ws/lobby:back"
    async with PlainClient(address, token=token(), settings=QUICK, on_event=events.append) as client:
        client.abort()
        await client.send_json("after")
        assert (await anext(client)).json() == "after"
    assert [type(each) for each in events] == [Connected, Reconnecting, Connected, Disconnected]


async def test_without_a_connection_waiting_has_an_end_and_a_bound(strict_node: RunningNode) -> None:
    settings = PlainSettings(backoff=Backoff(base_s=60), offline_wait_s=0.02, queue_max_bytes=250)
    async with PlainClient(f"{strict_node.ws_url}/ws/lobby:x", token=token(), settings=settings) as client:
        client.abort()
        outcomes = await asyncio.gather(*(client.send_text("1" * 100) for _ in range(4)), return_exceptions=True)
    assert [type(each) for each in outcomes] == [DisconnectedError, DisconnectedError, QueueFullError, QueueFullError]


async def test_what_is_dropped_for_a_slow_reader_is_a_gap(node: RunningNode) -> None:
    settings = PlainSettings(buffer_max_bytes=1200)
    async with PlainClient(f"{node.ws_url}/ws/echo:x", settings=settings) as client:
        events = client.events()
        assert await anext(events) == Connected("")
        for number in range(10):
            await client.send_text(str(number))
        await until(lambda: client._has_dropped)  # noqa: SLF001 - it tells the reader alone
        kept = [await anext(client) for _ in range(4)]
        await client.send_text('"end"')
        assert [each.json() for each in kept] == [0, 1, 2, 3]
        assert await anext(events) == Gap()
        assert (await anext(client)).json() == "end"


async def test_a_half_open_link_is_pinged_and_left(node: RunningNode) -> None:
    events: list[PlainEvent] = []
    timers = ManualTimers()
    async with black_hole(("127.0.0.1", node.port)) as hole:
        client = PlainClient(f"ws://{hole.location}/ws/talk", on_event=events.append, timers=timers)
        async with client:
            timers.advance(30)
            await until(lambda: bool(timers.waits) and client._driver.heard_at_s == timers.time(), "it answers")  # noqa: SLF001
            hole.swallow()
            timers.advance(30)
            await until(lambda: hole.swallowed_bytes > 0, "it is pinged")
            timers.advance(10)
            await until(lambda: any(isinstance(each, Reconnecting) for each in events))
    assert [each.reason for each in events if isinstance(each, Reconnecting)] == ["no answer to a ping"]


@pytest.mark.parametrize("wrong", [object(), {1: object()}, "x" * 70_000])
async def test_what_cannot_be_sent_is_refused(node: RunningNode, wrong: Any) -> None:
    async with PlainClient(f"{node.ws_url}/ws/talk") as client:
        with pytest.raises(InvalidArgumentError):
            await client.send_json(wrong)


async def test_the_end_is_the_end(node: RunningNode) -> None:
    before = asyncio.all_tasks()
    async with PlainClient(f"{node.ws_url}/ws/talk") as client:
        pass
    assert [each async for each in client] == []
    with pytest.raises(ClosedError):
        await client.send_json(1)
    assert asyncio.all_tasks() == before
    assert repr(client) == "<PlainClient closed >"
