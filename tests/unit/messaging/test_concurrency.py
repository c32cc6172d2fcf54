"""`client.concurrency`: what of one connection may wait at a time, and what keeps its order all the same."""

import json
from collections.abc import Sequence
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.conversations import Client, House, ManualBroker, house, token

SEVERAL: Final = {"client": {"concurrency": 3}}


def subscribe(number: int, channel: str) -> dict[str, Any]:
    return {"id": number, "subscribe": {"channel": channel}}


def ids(client: Client) -> list[int]:
    return [line["id"] for line in client.take_values() if "id" in line]


async def settle(node: House, broker: ManualBroker, *channels: str) -> None:
    """Confirm the subscriptions of *channels*, in this order."""
    for name in channels:
        for waiting in list(broker.waiting):
            if waiting[0] == name:
                broker.waiting.remove(waiting)
                waiting[1](None)
        await node.settle()


@pytest.mark.parametrize(("concurrency", "expected"), [(0, []), (1, []), (2, [3]), (3, [3])])
async def test_replies_overtake_each_other_only_where_that_is_asked_for(concurrency: int, expected: list[int]) -> None:
    broker = ManualBroker("subscribe")
    async with house({"client": {"concurrency": concurrency}}, broker=broker) as node:
        client = await node.connect()
        client.send(subscribe(2, "a"), {"id": 3, "rpc": {"method": "ping"}})
        await node.settle()
        assert ids(client) == expected
        await settle(node, broker, "a")
        assert ids(client) == [number for number in (2, 3) if number not in expected]


async def test_commands_of_one_channel_keep_their_order() -> None:
    broker = ManualBroker("subscribe")
    async with house(SEVERAL, broker=broker) as node:
        client = await node.connect()
        client.send(subscribe(2, "a"), {"id": 3, "publish": {"channel": "a", "data": 1}}, subscribe(4, "b"))
        client.send({"id": 5, "unsubscribe": {"channel": "a"}}, {"id": 6, "publish": {"channel": "c", "data": 1}})
        await node.settle()
        assert ids(client) == [6]
        await settle(node, broker, "b")
        assert ids(client) == [4]
        await settle(node, broker, "a")
        assert ids(client) == [2, 3, 5]
        assert client.channels == {"b"}


async def test_no_more_wait_at_a_time_than_may() -> None:
    broker = ManualBroker("subscribe")
    async with house(SEVERAL, broker=broker) as node:
        client = await node.connect()
        client.send(*(subscribe(number, name) for number, name in enumerate("abcd", 2)))
        await node.settle()
        assert [name for name, _ in broker.waiting] == ["a", "b", "c"]
        await settle(node, broker, "b")
        assert [name for name, _ in broker.waiting] == ["a", "c", "d"]
        await settle(node, broker, "d", "c", "a")
        assert ids(client) == [3, 5, 4, 2]


async def test_what_is_about_the_connection_waits_for_all_and_all_wait_for_it() -> None:
    broker = ManualBroker("subscribe")
    async with house(SEVERAL, broker=broker) as node:
        client = node.open()
        client.send({"id": 1, "connect": {"token": token("42")}}, subscribe(2, "a"), subscribe(3, "b"))
        client.send({"id": 4, "refresh": {"token": token("42")}}, subscribe(5, "c"))
        await node.settle()
        assert ids(client) == [1]
        assert [name for name, _ in broker.waiting] == ["a", "b"]
        await settle(node, broker, "b", "a")
        assert ids(client) == [3, 2, 4]
        await settle(node, broker, "c")
        assert ids(client) == [5]


async def test_the_channel_limit_holds() -> None:
    broker = ManualBroker("subscribe")
    async with house(SEVERAL, {"client": {"channel_limit": 2}}, broker=broker) as node:
        client = await node.connect()
        client.send(*(subscribe(number, name) for number, name in enumerate("abc", 2)))
        await node.settle()
        await settle(node, broker, "a", "c", "b")
        assert [line.get("error", {}).get("code") for line in client.take_values()] == [None, None, 106]
        assert client.channels == {"a", "c"}


async def test_one_that_goes_leaves_nothing() -> None:
    broker = ManualBroker("subscribe")
    async with house(SEVERAL, broker=broker) as node:
        client = await node.connect()
        client.send(*(subscribe(number, name) for number, name in enumerate("aabbcdef", 2)))
        await node.settle()
        client.go()
        await settle(node, broker, *"abcdef")


COMMANDS = st.lists(
    st.tuples(st.sampled_from(["subscribe", "unsubscribe", "publish"]), st.sampled_from("abc")), max_size=30
)


@given(COMMANDS, st.integers(0, 4), st.randoms(use_true_random=False))
@settings(max_examples=150, deadline=None)
async def test_each_channel_sees_what_it_would_without(
    commands: Sequence[tuple[str, str]], concurrency: int, chance: Any
) -> None:
    """Whatever the broker confirms first, the replies of one channel are those of one command after the other."""
    expected: dict[str, list[tuple[int, str]]] = {name: [] for name in "abc"}
    inside: set[str] = set()
    for number, (method, name) in enumerate(commands, 2):
        is_again = method == "subscribe" and name in inside
        expected[name].append((number, "error" if is_again else method))
        if method == "subscribe":
            inside.add(name)
        elif method == "unsubscribe":
            inside.discard(name)
    broker = ManualBroker("subscribe")
    async with house({"client": {"concurrency": concurrency}}, broker=broker) as node:
        client = await node.connect()
        for number, (method, name) in enumerate(commands, 2):
            client.send(
                json.dumps({"id": number, method: {"channel": name, **({"data": 1} if method == "publish" else {})}})
            )
        await node.settle()
        while broker.waiting:
            await settle(node, broker, chance.choice([name for name, _ in broker.waiting]))
        answers = [line for line in client.take_values() if "id" in line]
        told: dict[str, list[tuple[int, str]]] = {name: [] for name in "abc"}
        for line in answers:
            told[commands[line["id"] - 2][1]].append((line["id"], next(key for key in line if key != "id")))
        assert told == expected
        assert client.channels == inside
