"""Many clients join and leave the same channels on three nodes at once, and Redis goes away in the middle."""

import asyncio
import itertools
import json
import random
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any, Final

import jwt
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.support.nodes import SECRET, RunningNode, running_node
from tests.support.redis_servers import RedisServer, redis_server
from tests.support.waiting import until

CHANNELS: Final = ("room:1", "room:2", "room:3", "stream:1", "stream:2")
CLIENTS_A_NODE: Final = 4
STEPS: Final = 25
PREFIX: Final = "joins"
_OPEN: Final = {"allow_subscribe_for_client": True, "allow_publish_for_client": True}
TABLE: Final[dict[str, Any]] = {
    "channel": {
        "namespaces": [
            {"name": "room", **_OPEN},
            {"name": "stream", **_OPEN, "history_size": 100, "history_ttl": 60, "force_recovery": True},
        ]
    },
    "client": {"command_rate": 0},
    "broker": {"type": "redis", "catch_up_retry_delay": "100ms"},
}


class Member:
    """A client that joins and leaves at random, and remembers what it was told."""

    def __init__(self, node: RunningNode, number: int, tasks: asyncio.TaskGroup) -> None:
        self.node = node
        self.name = f"client {number}"
        self.told: set[str] = set()
        self.got: defaultdict[str, list[Any]] = defaultdict(list)
        self.errors = 0
        self._tasks = tasks
        self._rng = random.Random(number)
        self._ids = itertools.count(1)
        self._replies: dict[int, dict[str, Any]] = {}
        self._socket: ClientConnection | None = None

    async def open(self) -> None:
        self._socket = await connect(self.node.client_url)
        self._tasks.create_task(self._read(self._socket), name=f"{self.name} reads")
        token = jwt.encode({"sub": self.name}, SECRET, algorithm="HS256")
        assert "connect" in await self._ask("connect", token=token)

    async def close(self) -> None:
        assert self._socket is not None
        await self._socket.close()
        self.told.clear()

    async def live(self, steps: int) -> None:
        for _ in range(steps):
            await self.step()

    async def live_until(self, event: asyncio.Event) -> None:
        while not event.is_set():
            await self.step()

    async def step(self) -> None:
        channel = self._rng.choice(CHANNELS)
        if self._rng.random() < 0.1:
            await self.close()
            await self.open()
        elif channel in self.told:
            await self._ask("unsubscribe", channel=channel)
        else:
            reply = await self._ask("subscribe", channel=channel)
            if "error" in reply:
                assert reply["error"]["code"] == 100, reply
                self.errors += 1

    async def publish(self, channel: str, data: Any) -> None:
        assert await self._ask("publish", channel=channel, data=data) == {"publish": {}}

    async def _ask(self, method: str, **request: Any) -> dict[str, Any]:
        number = next(self._ids)
        assert self._socket is not None
        # What is told is noted by the reader, in the order in which it comes.
        self._replies[number] = {"asked": request.get("channel")}
        await self._socket.send(json.dumps({"id": number, method: request}))
        await until(lambda: "asked" not in self._replies[number], f"the reply to {method} {request}")
        return self._replies.pop(number)

    async def _read(self, socket: ClientConnection) -> None:
        try:
            async for frame in socket:
                for line in str(frame).split("\n"):
                    self._take(socket, json.loads(line))
        except ConnectionClosed as end:
            raise AssertionError(f"{self.name} was disconnected: {end}") from end

    def _take(self, socket: ClientConnection, value: dict[str, Any]) -> None:
        if "id" in value:
            number = value.pop("id")
            channel = self._replies[number]["asked"]
            if "subscribe" in value:
                self.told.add(channel)
            elif "unsubscribe" in value:
                self.told.discard(channel)
            self._replies[number] = value
        elif "pub" in value.get("push", {}):
            assert socket is self._socket
            self.got[value["push"]["channel"]].append(value["push"]["pub"]["data"])
        elif "push" in value:
            assert value["push"]["unsubscribe"]["code"] == 2500, value
            self.told.discard(value["push"]["channel"])


@pytest.fixture
async def server() -> AsyncIterator[RedisServer]:
    async with redis_server() as server:
        yield server


@pytest.fixture
async def nodes(server: RedisServer) -> AsyncIterator[list[RunningNode]]:
    redis = {
        "address": server.location,
        "prefix": PREFIX,
        "timeout": "500ms",
        "reconnect_max_delay": "100ms",
        "unsubscribe_grace": "200ms",
    }
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(running_node(TABLE, {"redis": redis})) for _ in range(3)]


async def _channels_at(server: RedisServer) -> set[str]:
    names = [name.decode().removeprefix(f"{PREFIX}:") for name in await server.execute("PUBSUB", "CHANNELS")]
    return {name.partition("}:")[2] for name in names if name.startswith("{")}


async def _calm_down(server: RedisServer, nodes: list[RunningNode], members: list[Member]) -> None:
    """Wait until every node has read what it missed, and the server knows what is wanted, no more and no less."""
    found: set[str] = set()

    def wanted() -> set[str]:
        return set[str]().union(*(member.told for member in members))

    def is_reading() -> bool:
        locals_ = [local for node in nodes for local in node.node.hub]
        return any(local.track is not None and local.track.held is not None for local in locals_)

    async with asyncio.timeout(10):
        while True:
            found = await _channels_at(server)
            if found == wanted() and not is_reading() and all(node.node.is_broker_up for node in nodes):
                return
            await asyncio.sleep(0.02)


async def test_who_was_told_to_be_in_receives_from_every_node_and_nobody_else_is_subscribed(
    server: RedisServer, nodes: list[RunningNode]
) -> None:
    homes = [node for node in nodes for _ in range(CLIENTS_A_NODE)]
    async with asyncio.TaskGroup() as tasks:
        members = [Member(node, number, tasks) for number, node in enumerate(homes)]
        await asyncio.gather(*(member.open() for member in members))
        await asyncio.gather(*(member.live(STEPS) for member in members))
        is_back = asyncio.Event()
        living = [tasks.create_task(member.live_until(is_back), name=member.name) for member in members]
        await asyncio.to_thread(server.kill)
        await until(lambda: any(member.errors for member in members), "an error while Redis is away")
        await asyncio.to_thread(server.start)
        is_back.set()
        await asyncio.gather(*living)
        await asyncio.gather(*(member.live(STEPS) for member in members))
        await _calm_down(server, nodes, members)
        await _check_deliveries(nodes, members)
        for member in members:
            await member.close()
        await _calm_down(server, nodes, members)
        assert [(len(node.node.hub), len(node.node.services.interest)) for node in nodes] == [(0, 0)] * 3


async def _check_deliveries(nodes: list[RunningNode], members: list[Member]) -> None:
    """Publish in every channel from every node; who was told to be in gets all of it once, and nobody else any."""
    assert any(member.told for member in members)
    for member in members:
        member.got.clear()
    sent = [f"from node {number}" for number in range(len(nodes))]
    for node, data in zip(nodes, sent, strict=True):
        publisher = next(member for member in members if member.node is node)
        for channel in CHANNELS:
            await publisher.publish(channel, data)

    def is_complete() -> bool:
        return all(len(member.got[channel]) >= len(sent) for member in members for channel in member.told)

    await until(is_complete, "what was published from every node")
    got = {member.name: {channel: sorted(data) for channel, data in member.got.items() if data} for member in members}
    assert got == {member.name: dict.fromkeys(member.told, sent) for member in members}
