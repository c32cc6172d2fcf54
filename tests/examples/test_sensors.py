"""The streams of sensors.toml on three nodes, and a processor of one's own."""

import asyncio
import json
import tomllib
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from websockets.asyncio.client import connect

from tests.examples import sensors
from tests.support.extensions import on_the_path, write_distribution
from tests.support.nodes import RunningNode, running_node
from tests.support.redis_servers import RedisServer, running_redis
from tests.support.waiting import until

HERE = Path(__file__).parent
CONFIG = tomllib.loads((HERE / "sensors.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with running_redis() as server:
        yield server


@pytest.fixture
async def nodes(redis: RedisServer) -> AsyncIterator[list[RunningNode]]:
    async with AsyncExitStack() as stack:
        where = {"redis": {"address": redis.location}}
        yield [await stack.enter_async_context(running_node(CONFIG, where, is_development=False)) for _ in range(3)]


async def of(values: list[float]) -> AsyncIterator[float]:
    for value in values:
        yield value
        await asyncio.sleep(0)


async def test_sensor_values_in_and_statistics_out_on_three_nodes(nodes: list[RunningNode]) -> None:
    values = [float(value) for value in np.random.default_rng(1).normal(21, 0.5, 30).round(2)]
    heard: list[list[dict[str, Any]]] = [[] for _ in nodes]
    async with asyncio.TaskGroup() as group:
        listening = [
            group.create_task(
                sensors.listen(node.ws_url, lambda message, each=each: each.append(json.loads(message))),  # type: ignore[misc]
                name=f"listener {node.port}",
            )
            for node, each in zip(nodes, heard, strict=True)
        ]
        await until(lambda: all(node.node.hub.get(sensors.CHANNEL) for node in nodes), "all listen")
        # A third of the sensors at each node, all at once.
        senders = [
            group.create_task(sensors.send(node.ws_url, of(values[number::3])), name=f"sensor {number}")
            for number, node in enumerate(nodes)
        ]
        await until(lambda: all(len(each) >= len(values) for each in heard), f"everything: {heard}")
        await asyncio.gather(*senders)
        for task in listening:
            task.cancel()
    assert heard[0] == heard[1] == heard[2], "all nodes hand out the same, in the same order"
    order = [message["data"] for message in heard[0]]
    assert sorted(order) == sorted(values)
    for at, message in enumerate(heard[0]):
        window = np.array(order[max(at - 9, 0) : at + 1])
        expected: dict[str, Any] = {"count": len(window)}
        if len(window) > 1:
            expected |= {"mean": window.mean(), "std": window.std(), "min": window.min(), "max": window.max()}
        assert message["statistics"] == pytest.approx(expected, rel=1e-12)
        assert abs(message["server_time"] - nodes[0].clock.unix()) < 60


async def test_what_is_no_number_is_refused_and_counts_nowhere(nodes: list[RunningNode]) -> None:
    url = f"{nodes[0].ws_url}/ws/sensors:attic"
    async with connect(url) as websocket:
        for text in ("NaN", '"21"', "null", "[21]", '{"value":"21"}', '{"other":21}', "1e999"):
            await websocket.send(text)
            assert json.loads(await websocket.recv()) == {"error": {"code": 107, "message": "bad request"}}
        await websocket.send('{"value": 21.50, "sensor":"north"}')
        message = await websocket.recv(decode=False)
    assert message.startswith(b'{"value": 21.50, "sensor":"north","server_time":')
    assert message.endswith(b',"statistics":{"count":1}}')


async def test_values_are_scaled(nodes: list[RunningNode]) -> None:
    sent = ['{"source":"hall","value":21}', '{"value":-0.25,"more":1}', "21"]
    async with connect(f"{nodes[1].ws_url}/ws/scaled:hall") as websocket:
        received = []
        for each in sent:
            await websocket.send(each)
            received.append(await websocket.recv())
    assert received == [
        '{"source":"hall","value":42.0,"processed":true}',
        '{"source":"unknown","value":-0.5,"processed":true}',
        '{"error":{"code":107,"message":"bad request"}}',
    ]


async def test_a_processor_of_ones_own(tmp_path: Path) -> None:
    write_distribution(tmp_path, {"gateway.processors": {"fahrenheit": "fahrenheit:Fahrenheit"}})
    weather = {
        "name": "weather",
        "allow_subscribe_for_client": True,
        "allow_subscribe_for_anonymous": True,
        "allow_publish_for_client": True,
        "allow_publish_for_anonymous": True,
        "processors": ["fahrenheit", "statistics"],
        "statistics_field": "fahrenheit",
        "processor_options": {"fahrenheit": {"digits": 1}},
    }
    with on_the_path(tmp_path), on_the_path(HERE):
        async with (
            running_node({"channel": {"namespaces": [weather]}}) as node,
            connect(f"{node.ws_url}/ws/weather:roof") as websocket,
        ):
            heard = []
            for text in ('{"celsius": 21.50}', '{"celsius": 10}', '{"kelvin": 300}'):
                await websocket.send(text)
                heard.append(await websocket.recv())
    figures = '{"count":2,"mean":60.35,"std":10.350000000000001,"min":50.0,"max":70.7}'
    assert heard == [
        '{"celsius": 21.50,"fahrenheit":70.7,"statistics":{"count":1}}',
        f'{{"celsius": 10,"fahrenheit":50.0,"statistics":{figures}}}',
        '{"error":{"code":107,"message":"bad request"}}',
    ]
