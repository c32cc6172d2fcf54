"""Streams on one node of a system, and their clients' commands at any of them: no session sticks to a node."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.support.clusters import Cluster, running_cluster, three_nodes
from tests.support.crowds import errors_of
from tests.support.redis_servers import RedisServer
from tests.support.streams import HTTP_STREAM, SSE, RawStream, connected
from tests.support.waiting import PATIENCE_S

pytestmark = pytest.mark.asyncio(loop_scope="module")

TABLE: dict[str, Any] = {
    "http_stream": {"enabled": True},
    "sse": {"enabled": True},
    "node": {"announce_interval": "1s", "survey_timeout": "500ms"},
}
PING = '{"id":9,"rpc":{"method":"ping"}}'


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def system(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[RedisServer, Cluster]]:
    """Three nodes that live as long as this module's tests."""
    async with three_nodes(tmp_path_factory.mktemp("nodes"), TABLE) as (redis, cluster):
        await cluster.is_ready()
        yield redis, cluster


async def bring(http: httpx.AsyncClient, address: str, stream: RawStream, *commands: str, node: str = "") -> int:
    """Send commands to the node at *address*; returns the status of the answer."""
    told = stream.connected
    body = {"session": told["session"], "node": node or told["node"], "data": "\n".join(commands)}
    return (await http.post(f"http://{address}/emulation", json=body)).status_code


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(timeout=PATIENCE_S) as client:
        yield client


@pytest.mark.parametrize("path", [HTTP_STREAM, SSE])
async def test_commands_at_another_node_are_carried_out_in_their_order(
    system: tuple[RedisServer, Cluster], http: httpx.AsyncClient, path: str
) -> None:
    here, there, elsewhere = system[1].addresses
    channel = f"order{path}"
    async with connected(f"http://{here}", path=path) as stream, connected(f"http://{elsewhere}", path=path) as other:
        subscribe = json.dumps({"id": 2, "subscribe": {"channel": channel}})
        assert await bring(http, there, stream, subscribe) == 204
        assert await bring(http, here, other, subscribe) == 204
        assert "subscribe" in await stream.message()
        assert "subscribe" in await other.message()
        for number in range(200):
            publish = json.dumps({"id": 3 + number, "publish": {"channel": channel, "data": number}})
            assert await bring(http, (there, elsewhere)[number // 100], stream, publish) == 204
        replies = [each for each in [await stream.message() for _ in range(400)] if "id" in each]
        assert [each["id"] for each in replies] == list(range(3, 203))
        pushed = [(await other.message())["push"]["pub"] for _ in range(200)]
        assert [(each["data"], each["offset"]) for each in pushed] == [(each, each + 1) for each in range(200)]


async def test_commands_that_go_to_all_nodes_at_once_all_arrive(
    system: tuple[RedisServer, Cluster], http: httpx.AsyncClient
) -> None:
    addresses = system[1].addresses
    async with connected(f"http://{addresses[0]}") as stream:
        pings = [json.dumps({"id": 2 + number, "rpc": {"method": "ping"}}) for number in range(90)]
        bringing = [bring(http, addresses[number % 3], stream, ping) for number, ping in enumerate(pings)]
        assert await asyncio.gather(*bringing) == [204] * 90
        assert sorted([(await stream.message())["id"] for _ in range(90)]) == list(range(2, 92))


async def test_strangers_learn_nothing_of_sessions_but_of_nodes(
    system: tuple[RedisServer, Cluster], http: httpx.AsyncClient
) -> None:
    here, there, _ = system[1].addresses
    async with connected(f"http://{here}") as stream:
        for address in (here, there):
            assert await bring(http, address, stream, PING, node="0b5b8f3e-0000-4000-8000-000000000000") == 404
            body = {"session": "no such session", "node": stream.connected["node"], "data": PING}
            assert (await http.post(f"http://{address}/emulation", json=body)).status_code == 204
        assert await bring(http, there, stream, PING) == 204
        assert await stream.message() == {"id": 9, "rpc": {}}
        assert await bring(http, there, stream, "{") == 204
        assert await stream.rest() == [{"push": {"disconnect": {"code": 3501, "reason": "bad request"}}}]


async def test_a_node_that_hangs_is_500_and_one_that_has_gone_is_404(
    system: tuple[RedisServer, Cluster], http: httpx.AsyncClient, tmp_path: Path
) -> None:
    redis, cluster = system
    table = TABLE | {"broker": {"type": "redis"}, "redis": {"address": redis.location, "prefix": "chaos"}}
    async with running_cluster(tmp_path, table) as joined:
        (node,) = joined.nodes
        async with connected(f"http://{node.address}") as stream:
            async with asyncio.timeout(PATIENCE_S):
                while (status := await bring(http, cluster.addresses[0], stream, PING)) == 404:
                    pass  # the others have not heard of it yet
            assert status == 204
            assert await stream.message() == {"id": 9, "rpc": {}}
            node.send(signal.SIGSTOP)
            assert await bring(http, cluster.addresses[0], stream, PING) == 500
            node.send(signal.SIGKILL)
            await node.ended()
            async with asyncio.timeout(PATIENCE_S):
                while (status := await bring(http, cluster.addresses[0], stream, PING)) == 500:
                    pass
            assert status == 404


async def test_while_redis_hangs_commands_for_another_node_are_500_and_for_the_own_one_204(
    system: tuple[RedisServer, Cluster], http: httpx.AsyncClient
) -> None:
    redis, cluster = system
    here, there, _ = cluster.addresses
    async with connected(f"http://{here}") as stream:
        redis.freeze()
        try:
            assert await bring(http, there, stream, PING) == 500
            assert await bring(http, here, stream, PING) == 204
            assert await stream.message() == {"id": 9, "rpc": {}}
        finally:
            redis.thaw()
    await cluster.is_ready()
    assert [line for node in cluster.nodes for line in errors_of(node) if '"level":"error"' in line] == []
