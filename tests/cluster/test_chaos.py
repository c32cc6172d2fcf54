"""Three nodes and one Redis, of which something breaks while everybody publishes and listens."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.black_hole import BlackHole, black_hole
from tests.support.clusters import Cluster, read_streams, redis_table, running_cluster, three_nodes
from tests.support.listener import Listener
from tests.support.oracle import Refused, faults_where_data_survived, faults_where_data_was_lost
from tests.support.redis_servers import RedisServer, redis_server
from tests.support.swarm import Swarm, SwarmSize, first_of, left_out, running, swarming

FROZEN_S = 5.0
SHORT = SwarmSize(listeners=60, channels=10, publishers=3, per_second=300, restless=6)
FULL = SwarmSize(listeners=300, channels=30, publishers=6, per_second=240, restless=30)
FORMS = [
    pytest.param(SHORT, 1, id="short"),
    pytest.param(FULL, 2, id="full", marks=[pytest.mark.long, pytest.mark.timeout(240)]),
]
"""How large, and how often in a row."""


@dataclass(frozen=True)
class World:
    """All that can break. Node 0 reaches Redis through *link*."""

    redis: RedisServer
    link: BlackHole
    cluster: Cluster
    swarm: Swarm


Fault = Callable[[World], Awaitable[None]]


@asynccontextmanager
async def running_world(folder: Path, size: SwarmSize) -> AsyncIterator[World]:
    async with redis_server(persistent=True) as redis, black_hole(redis.address) as link:
        locations = [link.location, redis.location, redis.location]
        tables = map(redis_table, locations)
        async with running_cluster(folder, *tables) as cluster:
            await cluster.is_ready()  # or who comes to a node without its broker is sent away, as it should be
            async with swarming(cluster.addresses, size) as swarm:
                yield World(redis, link, cluster, swarm)


# Faults. Each ends when all that can be mended is mended, and marks that moment.


async def kill_redis(world: World) -> None:
    """Redis is away until every publisher was told so."""
    world.swarm.mark()
    await asyncio.to_thread(world.redis.kill)
    await world.swarm.is_refused()


async def restart_redis(world: World, *, keep_data: bool) -> None:
    await asyncio.to_thread(world.redis.restart, keep_data=keep_data)
    world.swarm.mark()


async def redis_is_killed(world: World) -> None:
    await kill_redis(world)
    await restart_redis(world, keep_data=True)


async def redis_freezes(world: World) -> None:
    world.redis.freeze()
    await asyncio.sleep(FROZEN_S)  # the fault itself
    world.redis.thaw()
    world.swarm.mark()


async def connections_are_cut(world: World, kind: str) -> None:
    """Three times, each time as soon as all are going again."""
    for _ in range(3):
        world.swarm.mark()
        await world.swarm.is_going()
        assert await world.redis.execute("CLIENT", "KILL", "TYPE", kind) > 0
        world.swarm.mark()


async def publishing_connections_are_cut(world: World) -> None:
    await connections_are_cut(world, "normal")


async def subscriber_connections_are_cut(world: World) -> None:
    await connections_are_cut(world, "pubsub")


async def all_connections_are_cut(world: World) -> None:
    await connections_are_cut(world, "normal")
    await connections_are_cut(world, "pubsub")


async def one_link_swallows_all(world: World) -> None:
    """The node behind it notices, and says so to its publishers; only then the link is cut."""
    world.swarm.mark()
    world.link.swallow()
    await world.swarm.is_refused(world.swarm.publishers[:1])
    assert world.link.swallowed_bytes > 0
    world.link.cut()
    world.swarm.mark()


async def node_is_killed(world: World) -> None:
    """The last of those that run."""
    await world.cluster.kill(sum(node.is_running for node in world.cluster.nodes) - 1)
    world.swarm.mark()


async def redis_is_killed_again_during_recovery(world: World) -> None:
    await redis_is_killed(world)
    await world.swarm.is_back_in_part()
    await redis_is_killed(world)


async def connections_are_cut_during_recovery(world: World) -> None:
    await redis_is_killed(world)
    await world.swarm.is_back_in_part()
    await world.redis.execute("CLIENT", "KILL", "TYPE", "pubsub")
    await world.redis.execute("CLIENT", "KILL", "TYPE", "normal")
    world.swarm.mark()


async def node_is_killed_during_recovery(world: World) -> None:
    await redis_is_killed(world)
    await world.swarm.is_back_in_part()
    await node_is_killed(world)


async def redis_loses_its_data(world: World) -> None:
    await kill_redis(world)
    await restart_redis(world, keep_data=False)


async def redis_is_emptied(world: World) -> None:
    """Nothing is disconnected by that."""
    await world.redis.execute("FLUSHALL")
    world.swarm.mark()


async def redis_loses_the_tail(world: World) -> None:
    """It comes back as it was before the last of what it acknowledged, as a replica does that was behind."""
    files, kept = world.redis.directory / "appendonlydir", world.redis.directory / "kept"
    await asyncio.to_thread(shutil.copytree, files, kept)
    world.swarm.mark()
    await world.swarm.is_going()
    await kill_redis(world)
    await asyncio.to_thread(shutil.rmtree, files)
    await asyncio.to_thread(shutil.move, kept, files)
    await restart_redis(world, keep_data=True)


async def redis_loses_its_data_twice(world: World) -> None:
    await redis_loses_its_data(world)
    await world.swarm.is_back_in_part()
    await redis_loses_its_data(world)


async def node_is_killed_after_the_data_are_lost(world: World) -> None:
    await redis_loses_its_data(world)
    await world.swarm.is_back_in_part()
    await node_is_killed(world)


DATA_SURVIVE: Mapping[str, Fault] = {
    each.__name__: each
    for each in (
        redis_is_killed,
        redis_freezes,
        publishing_connections_are_cut,
        subscriber_connections_are_cut,
        all_connections_are_cut,
        one_link_swallows_all,
        redis_is_killed_again_during_recovery,
        connections_are_cut_during_recovery,
        node_is_killed,
        node_is_killed_during_recovery,
    )
}
DATA_ARE_LOST: Mapping[str, Fault] = {
    each.__name__: each
    for each in (
        redis_loses_its_data,
        redis_is_emptied,
        redis_loses_the_tail,
        redis_loses_its_data_twice,
        node_is_killed_after_the_data_are_lost,
    )
}


async def suffer(world: World, fault: Fault, times: int, note: Callable[[str], None]) -> None:
    for _ in range(times):
        await fault(world)
        await world.swarm.is_going()
        note(world.swarm.resumption())


def broken_connections(world: World) -> list[str]:
    """Return who lost its connection although no node was killed: that must never come of what Redis does."""
    is_whole = all(node.is_running for node in world.cluster.nodes)
    return world.swarm.faults_of_connections() if is_whole else []


@pytest.mark.parametrize(("size", "times"), FORMS)
@pytest.mark.parametrize("fault", DATA_SURVIVE.values(), ids=DATA_SURVIVE)
async def test_where_data_survive_everybody_gets_everything_once_and_in_order(
    tmp_path: Path, fault: Fault, size: SwarmSize, times: int, note: Callable[[str], None]
) -> None:
    async with running_world(tmp_path, size) as world:
        await suffer(world, fault, times, note)
        await world.swarm.conclude()
        streams = await read_streams(world.redis, world.swarm.channels)
        violations = world.swarm.violations(faults_where_data_survived, streams)
        assert not violations, first_of(violations)
        assert broken_connections(world) == []
        note(world.swarm.volume())


@pytest.mark.parametrize(("size", "times"), FORMS)
@pytest.mark.parametrize("fault", DATA_ARE_LOST.values(), ids=DATA_ARE_LOST)
async def test_where_data_are_lost_everybody_is_told_and_goes_on(
    tmp_path: Path, fault: Fault, size: SwarmSize, times: int, note: Callable[[str], None]
) -> None:
    async with running_world(tmp_path, size) as world:
        await suffer(world, fault, times, note)
        going_since_s = asyncio.get_running_loop().time()
        await world.swarm.conclude()
        streams = await read_streams(world.redis, world.swarm.channels)
        violations = world.swarm.violations(faults_where_data_was_lost, streams, kept_since_s=going_since_s)
        assert not violations, first_of(violations)
        assert broken_connections(world) == []
        note(world.swarm.volume())


async def test_who_connects_while_redis_is_away_is_refused_in_time_and_subscribed_when_it_is_back(
    tmp_path: Path,
) -> None:
    """In time is before an SDK loses its patience and its connection: each of many channels, not only the first."""
    channels = [f"c{number}" for number in range(FULL.channels)]
    async with three_nodes(tmp_path) as (redis, cluster):
        listeners = [Listener(f"listener {n}", channels, cluster.addresses, start=n) for n in range(12)]
        await asyncio.to_thread(redis.kill)
        async with running(listeners):
            waiting = await left_out(listeners, was_refused_everywhere)
            assert [(each.name, each.connections) for each in waiting] == []
            await asyncio.to_thread(redis.restart, keep_data=True)
            waiting = await left_out(listeners, lambda each: each.is_subscribed)
            assert [(each.name, each.connections) for each in waiting] == []
            assert {each.connections for each in listeners} == {1}


def was_refused_everywhere(listener: Listener) -> bool:
    return all(any(isinstance(entry, Refused) for entry in journal) for journal in listener.journals.values())
