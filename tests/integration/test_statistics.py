"""One window for a channel of three nodes: statistics in the offsets' order, live, in the history and recovered."""

import asyncio
import json
import random
from collections import deque
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect

from gateway.domain.windows import Deviation, describe, with_statistics
from tests.support.nodes import RunningNode, running_node
from tests.support.redis_servers import redis_server

EACH = 60
WINDOW = 7
EVERYTHING: dict[str, Any] = {
    "allow_subscribe_for_client": True,
    "allow_subscribe_for_anonymous": True,
    "allow_publish_for_client": True,
    "allow_publish_for_anonymous": True,
    "allow_history_for_client": True,
    "allow_history_for_anonymous": True,
}
MEASURED = EVERYTHING | {
    "name": "measured",
    "processors": ["statistics"],
    "statistics_window": WINDOW,
    "statistics_std": "sample",
    "history_size": 1000,
    "history_ttl": "10m",
    "force_recovery": True,
}
CHANNEL = "measured:hall"


class Client:
    """A client of the client protocol that keeps what is pushed to it."""

    def __init__(self, websocket: ClientConnection) -> None:
        self.pushed: list[dict[str, Any]] = []
        self._websocket = websocket
        self._number = 0

    async def ask(self, **command: Any) -> dict[str, Any]:
        """Send a command and return its reply; what is pushed meanwhile is kept."""
        self._number += 1
        await self._websocket.send(json.dumps({"id": self._number, **command}))
        while True:
            for line in str(await self._websocket.recv()).split("\n"):
                message = json.loads(line)
                self._keep(message)
                if message.get("id") == self._number:
                    assert "error" not in message, message
                    return dict(message)

    async def hear(self, count: int) -> None:
        """Read until *count* publications have been pushed."""
        while len(self.pushed) < count:
            for line in str(await self._websocket.recv()).split("\n"):
                self._keep(json.loads(line))

    def _keep(self, message: dict[str, Any]) -> None:
        if "pub" in message.get("push", {}):
            self.pushed.append(message["push"]["pub"])


@pytest.fixture
async def nodes() -> AsyncIterator[list[RunningNode]]:
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(redis_server())
        table = {
            "broker": {"type": "redis"},
            "redis": {"address": server.location},
            "channel": {"namespaces": [MEASURED]},
            "client": {"history_max_publication_limit": 1000, "command_rate": 0},
        }
        yield [await stack.enter_async_context(running_node(table)) for _ in range(3)]


async def test_the_statistics_are_in_the_order_of_the_offsets_whichever_node_a_value_came_to(
    nodes: list[RunningNode],
) -> None:
    chance = random.Random(5)
    async with AsyncExitStack() as stack:
        clients = [Client(await stack.enter_async_context(connect(node.client_url))) for node in nodes]
        for client in clients:
            await client.ask(connect={})
            await client.ask(subscribe={"channel": CHANNEL})

        async def publish(client: Client, who: int) -> None:
            for number in range(EACH):
                value = chance.uniform(-1, 1) * 10.0 ** chance.randint(-9, 9)
                await client.ask(publish={"channel": CHANNEL, "data": {"who": who, "number": number, "value": value}})

        async with asyncio.TaskGroup() as group:
            for who, client in enumerate(clients):
                group.create_task(publish(client, who), name=f"publisher {who}")
        for client in clients:
            async with asyncio.timeout(15):
                await client.hear(3 * EACH)
        told = [[{"offset": each["offset"], "data": each["data"]} for each in client.pushed] for client in clients]
        page = await clients[0].ask(history={"channel": CHANNEL, "limit": -1})
        late = Client(await stack.enter_async_context(connect(nodes[2].client_url)))
        await late.ask(connect={})
        caught_up = await late.ask(subscribe={"channel": CHANNEL, "recover": True, "offset": 0, "epoch": ""})

    assert told[0] == told[1] == told[2]
    assert [each["offset"] for each in told[0]] == list(range(1, 3 * EACH + 1))
    assert [{"offset": each["offset"], "data": each["data"]} for each in page["history"]["publications"]] == told[0]
    assert caught_up["subscribe"]["recovered"] is True
    assert [each["data"] for each in caught_up["subscribe"]["publications"]] == [each["data"] for each in told[0]]
    switches = sum(one["data"]["who"] != next_["data"]["who"] for one, next_ in zip(told[0], told[0][1:], strict=False))
    assert switches > EACH, "the publishers took turns"
    window: deque[float] = deque(maxlen=WINDOW)
    for each in told[0]:
        window.append(each["data"]["value"])
        expected = json.loads(with_statistics(b"{}", describe(window, Deviation.SAMPLE)))["statistics"]
        assert each["data"]["statistics"] == expected
