"""The swarm is right: cut off from one node in memory it notes everything once, and it notices what is not so."""

import asyncio
import random
from pathlib import Path

import pytest

from tests.support.black_hole import black_hole
from tests.support.clusters import running_cluster
from tests.support.oracle import Publication, faults_where_data_survived, faults_where_data_was_lost
from tests.support.swarm import Swarm, SwarmSize, first_of, swarming

SIZE = SwarmSize(listeners=20, channels=5, publishers=3, per_second=300)
RESTLESS = SIZE._replace(restless=10)


async def cut_connections(swarm: Swarm, chance: random.Random) -> None:
    """Cut a third of all clients off, twice, the second time while they come back."""
    for _ in range(2):
        for each in chance.sample(swarm.everybody, len(swarm.everybody) // 3):
            each.cut()
        swarm.mark()
        await swarm.is_going()


async def test_clients_that_are_cut_off_come_back_and_recover_all(tmp_path: Path) -> None:
    async with running_cluster(tmp_path, {}) as cluster, swarming(cluster.addresses, RESTLESS) as swarm:
        await cut_connections(swarm, random.Random(1))
        streams = await swarm.conclude()
        violations = swarm.violations(faults_where_data_survived, streams)
        assert not violations, first_of(violations)
        assert swarm.faults_of_connections() != []
        assert all(stream.top == len(stream.held) > 0 for stream in streams.values())


@pytest.mark.parametrize("fault", ["loss", "double", "disorder"])
async def test_one_publication_that_came_wrong_in_one_channel_of_one_client_is_noticed(
    tmp_path: Path, fault: str
) -> None:
    async with running_cluster(tmp_path, {}) as cluster, swarming(cluster.addresses, SIZE) as swarm:
        streams = await swarm.conclude()
        journal = swarm.listeners[3].journals["c2"]
        places = [index for index, entry in enumerate(journal) if isinstance(entry, Publication)]
        match fault:
            case "loss":
                del journal[places[1]]
            case "double":
                journal.insert(places[1], journal[places[1]])
            case _:
                journal[places[0]], journal[places[1]] = journal[places[1]], journal[places[0]]
        found = {(each.who, each.channel) for each in swarm.violations(faults_where_data_survived, streams)}
        assert found == {("listener 3", "c2")}


async def test_clients_that_find_all_data_gone_are_told_and_are_faultless_only_where_data_may_be_lost(
    tmp_path: Path,
) -> None:
    """They are moved to another node, which knows nothing of the first."""
    async with running_cluster(tmp_path, {}, {}) as cluster:
        addresses = cluster.addresses[:1]
        async with swarming(addresses, SIZE) as swarm:
            addresses[:] = cluster.addresses[1:]
            await cluster.kill(0)
            swarm.mark()
            await swarm.is_going()
            going_since_s = asyncio.get_running_loop().time()
            streams = await swarm.conclude()
            violations = swarm.violations(faults_where_data_was_lost, streams, kept_since_s=going_since_s)
            assert not violations, first_of(violations)
            noticed = swarm.violations(faults_where_data_survived, streams)
            in_journals = {(each.who, each.channel) for each in noticed if each.who.startswith("listener")}
            assert in_journals == {(each.name, channel) for each in swarm.listeners for channel in swarm.channels}
            assert any("was acknowledged and is not in the stream" in each.what for each in noticed)


async def test_clients_behind_a_black_hole_leave_it_and_recover_all(tmp_path: Path) -> None:
    """Only silence tells them; the SDKs' patience, 10 s beyond the ping, is shortened."""
    pings = {"client": {"ping_interval": "1s", "pong_timeout": "900ms"}}
    async with running_cluster(tmp_path, pings) as cluster:
        host, port = cluster.addresses[0].rsplit(":", 1)
        async with black_hole((host, int(port))) as proxy:
            addresses = [proxy.location, *cluster.addresses]
            async with swarming(addresses, SwarmSize(listeners=4, channels=2, publishers=2, per_second=100)) as swarm:
                for each in swarm.everybody:
                    each.max_ping_delay_s = 1.0
                proxy.swallow()
                swarm.mark()
                await swarm.is_going()
                streams = await swarm.conclude()
                violations = swarm.violations(faults_where_data_survived, streams)
                assert not violations, first_of(violations)
                assert proxy.swallowed_bytes > 0
