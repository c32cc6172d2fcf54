"""Honest health: what a node says of itself while its broker, its memory or its tasks are not what they should be."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect

from tests.support.black_hole import BlackHole, black_hole
from tests.support.crowds import metrics
from tests.support.nodes import RunningNode, running_node
from tests.support.processes import ask, serving
from tests.support.redis_servers import RedisServer, redis_server
from tests.support.waiting import until

NOT_BACK = "what this node publishes does not come back to it"
# A grace this short makes canaries go every half second.
SHORT = {"health": {"broker_grace": "1s"}}
PATIENCE_S = 20


async def verbose(node: RunningNode) -> tuple[int, dict[str, Any]]:
    answer = await ask(f"{node.internal_url}/readyz?verbose")
    return answer.status, json.loads(answer.text)


async def says(node: RunningNode, status: int, reason: str | None = None) -> dict[str, Any]:
    """Wait until `/readyz` answers *status* with *reason* in its reason, and return all that it says."""
    said: tuple[int, dict[str, Any]] = (0, {})
    try:
        async with asyncio.timeout(PATIENCE_S):
            while said[0] != status or (reason or "") not in (said[1]["reason"] or ""):
                await asyncio.sleep(0.02)
                said = await verbose(node)
    except TimeoutError:
        raise AssertionError(f"never said {status} {reason!r}, but {said}") from None
    return said[1]


@asynccontextmanager
async def on_redis(*tables: dict[str, Any]) -> AsyncIterator[tuple[RunningNode, RedisServer, BlackHole]]:
    """Run a node whose links to a Redis of its own go through a black hole, and wait until it is ready."""
    async with redis_server() as server, black_hole(server.address) as link:
        redis = {"broker": {"type": "redis"}, "redis": {"address": link.location, "reconnect_max_delay": "200ms"}}
        async with running_node(redis, SHORT, *tables) as node:
            await says(node, 200)
            yield node, server, link


@asynccontextmanager
async def staying_client(node: RunningNode) -> AsyncIterator[ClientConnection]:
    """A client that must be there, and be served, when the block ends."""
    async with connect(node.client_url, compression=None) as client:
        await client.send('{"id":1,"connect":{}}\n{"id":2,"subscribe":{"channel":"lobby:a"}}')
        await told(client, '"id":2,"subscribe"')
        yield client
        await client.send('{"id":3,"publish":{"channel":"lobby:a","data":1}}')
        await told(client, '"id":3,"publish"', '"pub"')


async def told(client: ClientConnection, *expected: str) -> None:
    """Read until all of *expected* have come."""
    lines = ""
    async with asyncio.timeout(PATIENCE_S):
        while not all(each in lines for each in expected):
            lines += str(await client.recv())


def carries_a_message(data: bytes) -> bool:
    return b"$7\r\nmessage\r\n" in data


def only_what_is_published(link: BlackHole) -> None:
    """Redis answers every PING, on every link; publications never come."""
    link.lose(carries_a_message)


def all_of_the_subscribing_link(link: BlackHole) -> None:
    """The link is replaced again and again, in vain."""
    link.swallow(b"gateway-subscribe")


@pytest.mark.parametrize("lose", [only_what_is_published, all_of_the_subscribing_link])
async def test_a_node_that_hears_nothing_is_unready_after_the_grace_and_keeps_its_clients(
    lose: Callable[[BlackHole], None],
) -> None:
    async with on_redis() as (node, server, link), staying_client(node):
        lose(link)
        said = await says(node, 503)
        assert await server.execute("PING")
        assert said["reason"] == said["broker"] == said["checks"]["broker"]
        assert said["canary"]["age_s"] >= 1.0
        assert (await ask(f"{node.internal_url}/livez")).status == 200
        assert len(node.node.connections) == 1
        link.heal()
        said = await says(node, 200)
        await until(lambda: node.node.engine.trouble is None, "the links")
        assert said["broker"] == "ok"
        # A machine that is slow to start has told the same of the start.
        *_, lost, back = [each for each in node.events if each["event"] in {"broker lost", "broker back"}]
        assert (lost["event"], lost["level"], back["event"]) == ("broker lost", "warning", "broker back")


async def test_a_deaf_subscriber_is_found_although_redis_answers_every_ping() -> None:
    async with on_redis() as (node, _, link):
        before = node.node.redis_counts
        assert before is not None
        connects = before.connects.total()
        only_what_is_published(link)
        said = await says(node, 503)
        assert (said["reason"], said["checks"]["node"]) == (NOT_BACK, "ok")
        assert (before.connects.total(), node.node.engine.trouble) == (connects, None)
        link.heal()
        await says(node, 200)


async def test_a_subscriber_that_is_killed_is_back_before_anybody_calls_the_node_unready() -> None:
    async with on_redis({"health": {"broker_grace": "10s"}}) as (node, server, _), staying_client(node):
        reasons: list[str | None] = []
        counts = node.node.redis_counts
        assert counts is not None
        for round_ in range(2, 5):
            assert await server.execute("CLIENT", "KILL", "TYPE", "pubsub") > 0
            while counts.connects["subscribe"] < round_ or node.node.engine.trouble:
                reasons.append((await verbose(node))[1]["reason"])
        assert set(reasons) <= {None}
        age_s = (await verbose(node))[1]["canary"]["age_s"]
        async with asyncio.timeout(PATIENCE_S):
            while (await verbose(node))[1]["canary"]["age_s"] >= age_s:
                pass


async def test_a_redis_that_became_a_replica_makes_the_node_unready_until_it_is_none_any_more() -> None:
    async with on_redis() as (node, server, _), staying_client(node):
        await server.execute("REPLICAOF", "127.0.0.1", "1")
        said = await says(node, 503, "READONLY")
        assert said["checks"]["node"] == "ok"
        await server.execute("REPLICAOF", "NO", "ONE")
        await says(node, 200)


async def test_a_node_whose_grace_never_ends_stays_ready_and_says_what_is_wrong() -> None:
    async with on_redis({"health": {"broker_grace": "never"}}) as (node, _, link):
        all_of_the_subscribing_link(link)
        await until(lambda: not node.node.is_broker_up, "the trouble")
        status, said = await verbose(node)
        assert (status, said["reason"]) == (200, None)
        assert said["checks"]["broker"] == f"tolerated for ever: {said['broker']}"
        assert (await ask(f"{node.internal_url}/readyz")).status == 200
        link.heal()


async def test_a_node_that_never_had_a_broker_has_started_and_is_unready_at_once() -> None:
    redis = {"broker": {"type": "redis"}, "redis": {"address": "127.0.0.1:1"}, "health": {"broker_grace": "never"}}
    async with running_node(redis) as node:
        said = await says(node, 503, "127.0.0.1:1")
        assert said["canary"] == {"age_s": None, "round_trip_s": None}
        for path in ("/startupz", "/livez"):
            assert (await ask(f"{node.internal_url}{path}")).status == 200


async def test_a_node_above_its_memory_watermark_is_unready_and_serves_on() -> None:
    async with running_node({"health": {"memory_watermark": 1_000_000}}) as node:
        said = await says(node, 503, "health.memory_watermark is 1 MiB")
        assert said["checks"] == {"node": "ok", "memory": said["reason"], "broker": "ok"}
        async with staying_client(node):
            pass
        assert (await ask(f"{node.internal_url}/livez")).status == 200


async def test_what_the_canary_measures_can_be_scraped() -> None:
    async with redis_server() as server:
        environment = {"GATEWAY_BROKER__TYPE": "redis", "GATEWAY_REDIS__ADDRESS": server.location}
        async with serving("--dev", environment=environment) as process:
            seen: dict[str, float] = {}
            async with asyncio.timeout(PATIENCE_S):
                while "gateway_broker_canary_age_seconds" not in seen:
                    seen = await metrics(process)
            assert 0 <= seen["gateway_broker_canary_age_seconds"] < PATIENCE_S
            assert 0 < seen["gateway_broker_canary_round_trip_seconds"] < PATIENCE_S
            assert seen["gateway_alive"] == 1


# Life.

WATCHFUL = {"health": {"heartbeat_timeout": "200ms"}, "node": {"announce_interval": "200ms"}}


async def dead_because(node: RunningNode) -> str:
    """Wait until `/livez` answers 503 and return what it says."""
    async with asyncio.timeout(PATIENCE_S):
        while (answer := await ask(f"{node.internal_url}/livez")).status != 503:
            pass
    return answer.text


def task(name: str) -> asyncio.Task[Any]:
    return next(each for each in asyncio.all_tasks() if each.get_name() == name)


@pytest.mark.parametrize("name", ["timer wheel", "presence", "position check"])
async def test_a_task_that_has_died_is_named(name: str) -> None:
    async with running_node() as node:
        assert (await ask(f"{node.internal_url}/livez")).text == "ok\n"
        task(name).cancel()
        assert await dead_because(node) == f"{name}: has ended\n"
        said = json.loads((await ask(f"{node.internal_url}/livez?verbose")).text)
        assert (said["alive"], said["tasks"][name], said["tasks"]["cluster"]) == (False, "has ended", "ok")


async def test_a_task_that_hangs_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running_node(WATCHFUL) as node:
        assert (await ask(f"{node.internal_url}/livez")).text == "ok\n"
        monkeypatch.setattr("gateway.runtime.TICK_S", 3600.0)  # its next turn
        assert (await dead_because(node)).startswith("timer wheel: silent for ")


async def test_a_link_whose_task_has_died_is_named() -> None:
    async with on_redis({"health": {"heartbeat_timeout": "100ms"}, "redis": {"timeout": "100ms"}}) as (node, _, _link):
        task("redis subscribe").cancel()
        assert (await dead_because(node)).startswith("redis subscribe link: silent for ")


async def test_a_reload_that_shortens_intervals_does_not_blame_tasks_for_the_long_turn_they_are_in() -> None:
    long = {"presence_update_interval": "1h", "presence_ttl": "2h", "channel_position_check_delay": "1h"}
    async with running_node({"client": long}) as running:
        node = running.node
        client = node.config.client.model_copy(
            update={"presence_update_interval_s": 27.0, "channel_position_check_delay_s": 40.0}
        )
        node.reload(node.config.model_copy(update={"client": client}))
        heartbeats = node.vitals.heartbeats
        heartbeats.look(200.0)
        assert {name: heartbeats.states[name] for name in ("presence", "position check")} == {
            "presence": "ok",
            "position check": "ok",
        }
