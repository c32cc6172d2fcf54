"""Commands that come beside a stream, on nodes of one bus."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from typing import Any

import pytest

from gateway.broker.memory.control import MemoryBus
from gateway.messaging.emulation import Carried, Emulation
from gateway.messaging.port import EMULATED
from gateway.protocol.emulation import EmulationRequest
from tests.support.administrations import Office
from tests.support.conversations import ANONYMOUS, Client, House, house
from tests.support.waiting import until

PING = {"id": 2, "rpc": {"method": "ping"}}


class Node:
    """A house in a cluster, to which commands can be brought."""

    def __init__(self, built: House, name: str) -> None:
        self.house = built
        self.cluster = Office(built, name=name, survey_timeout_s=0.05).cluster
        self.emulation = Emulation(built.services, self.cluster)

    async def bring(self, session: str, node: str, *commands: str | Mapping[str, Any]) -> Carried:
        lines = [each if isinstance(each, str) else json.dumps(each) for each in commands]
        return await self.emulation.carry(EmulationRequest(node, session, "\n".join(lines).encode()))


@pytest.fixture
async def nodes() -> AsyncIterator[list[Node]]:
    bus = MemoryBus()
    async with AsyncExitStack() as stack:
        built = [
            Node(await stack.enter_async_context(house(ANONYMOUS, bus=bus, node_id=f"uid {name}")), name)
            for name in ("a", "b")
        ]
        running = [asyncio.create_task(node.cluster.run()) for node in built]
        await asyncio.sleep(0)
        yield built
        for node in built:
            node.cluster.stop()
        await asyncio.gather(*running)


async def connected(node: Node) -> tuple[Client, str]:
    """Open a stream and return it with the secret of its session."""
    client = node.house.open(EMULATED)
    [reply] = await client.ask({"id": 1, "connect": {}})
    assert reply["connect"]["node"] == node.cluster.uid
    return client, reply["connect"]["session"]


async def test_the_reply_tells_a_secret_that_is_not_the_clients_id(nodes: list[Node]) -> None:
    client, secret = await connected(nodes[0])
    assert secret not in {"", client.id}
    [reply] = await nodes[0].house.open().ask({"id": 1, "connect": {}})
    assert not {"session", "node"} & set(reply["connect"])


@pytest.mark.parametrize("at", [0, 1], ids=["here", "at another node"])
async def test_commands_reach_the_session_in_their_order(nodes: list[Node], at: int) -> None:
    client, session = await connected(nodes[0])
    subscribe = {"id": 2, "subscribe": {"channel": "a"}}
    publishes = [{"id": number, "publish": {"channel": "a", "data": number}} for number in range(3, 60)]
    carried = [nodes[at].bring(session, "uid a", each) for each in [subscribe, *publishes]]
    assert await asyncio.gather(*carried) == [Carried.ARRIVED] * 58
    await nodes[0].house.settle()
    told = client.take_values()
    assert [each["id"] for each in told if "id" in each] == list(range(2, 60))
    assert [each["push"]["pub"]["data"] for each in told if "push" in each] == list(range(3, 60))


@pytest.mark.parametrize("at", [0, 1], ids=["here", "at another node"])
@pytest.mark.parametrize("session", ["", "nobody's", "uid a"])
async def test_nobody_is_told_which_sessions_there_are(nodes: list[Node], at: int, session: str) -> None:
    client, _ = await connected(nodes[0])
    assert await nodes[at].bring(session, "uid a", PING) is Carried.ARRIVED
    assert await nodes[at].bring(client.id, "uid a", PING) is Carried.ARRIVED
    assert client.take() == []


@pytest.mark.parametrize("at", [0, 1], ids=["here", "at another node"])
async def test_commands_that_are_none_end_their_session_and_their_sender_is_told_nothing(
    nodes: list[Node], at: int
) -> None:
    client, session = await connected(nodes[0])
    assert await nodes[at].bring(session, "uid a", "no JSON") is Carried.ARRIVED
    assert client.take_values() == [{"push": {"disconnect": {"code": 3501, "reason": "bad request"}}}]
    assert client.closing == (3501, "bad request")
    assert await nodes[at].bring(session, "uid a", PING) is Carried.ARRIVED


@pytest.mark.parametrize("at", [0, 1], ids=["here", "at another node"])
async def test_a_pong_comes_beside_the_stream_too(nodes: list[Node], at: int) -> None:
    client, session = await connected(nodes[0])
    for seconds in (13, 25):
        await nodes[0].house.advance(seconds)
        assert client.take() == ["{}"]
        assert await nodes[at].bring(session, "uid a", "{}") is Carried.ARRIVED
    await nodes[at].bring(session, "uid a", "{}")
    assert client.closing == (3501, "bad request"), "one that nobody asked for"


async def test_a_node_that_nobody_knows_is_none(nodes: list[Node]) -> None:
    _, session = await connected(nodes[0])
    for uid in ("", "uid c", "a"):
        assert await nodes[1].bring(session, uid, PING) is Carried.NO_SUCH_NODE
    nodes[0].cluster.stop()
    await until(lambda: nodes[1].cluster.node("uid a") is None, "the goodbye")
    assert await nodes[1].bring(session, "uid a", PING) is Carried.NO_SUCH_NODE


async def test_a_node_that_does_not_answer_is_not_waited_for(nodes: list[Node]) -> None:
    client, session = await connected(nodes[0])
    nodes[0].house.engine.control.stop()
    assert await nodes[1].bring(session, "uid a", PING) is Carried.NO_ANSWER
    assert client.take() == []


async def test_a_session_is_forgotten_with_its_connection(nodes: list[Node]) -> None:
    client, session = await connected(nodes[0])
    connections = nodes[0].house.services.connections
    assert connections.in_session(session) is client.conversation
    client.go()
    assert connections.in_session(session) is None
