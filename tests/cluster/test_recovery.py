"""Recovery under load: a thousand at once, and in the midst of a batch."""

import asyncio
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.support.clusters import three_nodes
from tests.support.listener import Listener
from tests.support.oracle import Publication, Subscribed, faults_where_data_survived
from tests.support.publisher import Publisher
from tests.support.redis_servers import RedisServer
from tests.support.swarm import Swarm, first_of, left_out, running
from tests.support.waiting import until

CHANNEL = "c"
MISSED = 50


async def calls_of_scripts(redis: RedisServer) -> int:
    """Return how often scripts and functions were called so far."""
    async with redis.client(decode_responses=True) as client:
        statistics = await client.info("commandstats")
    names = ("eval", "fcall")
    return sum(of["calls"] for name, of in statistics.items() if name.removeprefix("cmdstat_").startswith(names))


async def subscribed(listeners: list[Listener]) -> None:
    late = await left_out(listeners, lambda each: each.is_subscribed)
    assert not late, f"not subscribed: {[each.name for each in late]}"


@pytest.mark.parametrize(
    "count", [pytest.param(150, id="short"), pytest.param(1_000, id="full", marks=pytest.mark.long)]
)
async def test_all_who_come_back_at_once_recover_from_a_handful_of_reads(
    tmp_path: Path, count: int, note: Callable[[str], None]
) -> None:
    async with three_nodes(tmp_path) as (redis, cluster):
        listeners = [Listener(f"listener {n}", [CHANNEL], cluster.addresses, start=n) for n in range(count)]
        publisher = Publisher("publisher", [CHANNEL], cluster.addresses, per_second=0)
        swarm = Swarm([CHANNEL], listeners, [publisher])
        async with running([publisher]):
            await publisher.publish_surely(CHANNEL)
            async with running(listeners):
                await subscribed(listeners)
            last = publisher.publish([CHANNEL] * MISSED)[-1]
            assert await left_out([publisher], lambda each: each.is_settled) == []
            before = await calls_of_scripts(redis)
            async with running(listeners):
                late = await left_out(listeners, lambda each: each.has_all({CHANNEL: last.data}))
                assert not late, f"{len(late)} have not recovered: {late[0].journals[CHANNEL][-4:]}"
                calls = await calls_of_scripts(redis) - before
                note(f"{count} clients recovered {MISSED} publications each with {calls} calls of scripts")
                violations = swarm.violations(faults_where_data_survived, await swarm.conclude())
                assert not violations, first_of(violations)
        assert {len(publications_of(each)) for each in listeners} == {MISSED + 1}
        assert {replies_of(each)[1].recovered for each in listeners} == {True}
        assert 0 < calls <= 50


def publications_of(listener: Listener) -> list[Publication]:
    return [entry for entry in listener.journals[CHANNEL] if isinstance(entry, Publication)]


def replies_of(listener: Listener) -> list[Subscribed]:
    return [entry for entry in listener.journals[CHANNEL] if isinstance(entry, Subscribed)]


@pytest.mark.parametrize(
    "rounds", [pytest.param(100, id="short"), pytest.param(1_000, id="full", marks=pytest.mark.long)]
)
async def test_who_joins_while_a_batch_is_on_its_way_gets_each_of_it_once(tmp_path: Path, rounds: int) -> None:
    """Each round some leave, miss a batch, and come back amid another, which every node publishes a part of."""
    chance = random.Random(rounds)
    async with three_nodes(tmp_path) as (_, cluster):
        listeners = [Listener(f"listener {n}", [CHANNEL], cluster.addresses, start=n) for n in range(9)]
        publishers = [
            Publisher(f"publisher-{n}", [CHANNEL], cluster.addresses, start=n, per_second=0) for n in range(3)
        ]
        swarm = Swarm([CHANNEL], listeners, publishers)
        async with running(swarm.everybody):
            await asyncio.gather(*(each.publish_surely(CHANNEL) for each in publishers))
            await subscribed(listeners)
            for _ in range(rounds):
                await leave_and_join(swarm, chance)
            violations = swarm.violations(faults_where_data_survived, await swarm.conclude())
            assert not violations, first_of(violations)
            assert swarm.faults_of_connections() == []


async def leave_and_join(swarm: Swarm, chance: random.Random) -> None:
    leaving = chance.sample(swarm.listeners, chance.randint(1, len(swarm.listeners)))
    for each in leaving:
        each.leave(CHANNEL)
    actions: list[Callable[[], object]] = [partial(each.publish, [CHANNEL] * 5) for each in swarm.publishers]
    actions += [partial(each.join, CHANNEL) for each in leaving]
    chance.shuffle(actions)
    for act in actions:
        act()
        if chance.random() < 0.3:
            await asyncio.sleep(0)  # what was written so far goes out
    await until(lambda: all(each.is_subscribed for each in leaving), "the joins")
    await until(lambda: all(each.is_settled for each in swarm.publishers), "the acknowledgements")
