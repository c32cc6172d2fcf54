"""The load test with a cluster of its own, to which it does harm."""

import shutil

import pytest

from tests.support.loads import Loaded, load, sets

pytestmark = pytest.mark.skipif(shutil.which("redis-server") is None, reason="there is no redis-server")

_CLUSTER = ["mixed", "--cluster", *sets(clients=90, plateau_s=8, backoff_base_s=0.2, backoff_cap_s=2)]


def _assert_nothing_lost(loaded: Loaded) -> None:
    found = loaded.results.verification
    assert loaded.finished.code == 0, loaded.finished
    assert (found.lost, found.duplicated, found.reordered, found.unrestored) == (0, 0, 0, 0)
    assert found.delivered > 0
    assert loaded.results.ledger.is_agreed is not False, loaded.results.ledger


@pytest.mark.timeout(120)
async def test_nothing_is_lost_when_a_node_dies_and_redis_is_started_anew() -> None:
    loaded = await load(*_CLUSTER, "--chaos", "kill:node1@2s", "--chaos", "restart:redis@5s", brief=False)
    _assert_nothing_lost(loaded)
    kill, restart = loaded.results.chaos
    assert (kill.action, restart.action) == ("kill:node1", "restart:redis")
    assert kill.clients_hit >= 20
    assert kill.clients_recovered_after_s is not None
    assert restart.publishing_recovered_after_s is not None
    assert loaded.results.verification.recovered >= 20
    assert [server.name for server in loaded.results.target.servers] == ["redis", "node1", "node2", "node3"]


@pytest.mark.timeout(120)
async def test_nothing_is_lost_when_a_link_is_cut_a_node_drains_and_one_comes_back() -> None:
    chaos = ["--chaos", "cut:node2@1s+1s", "--chaos", "drain:node1@3s", "--chaos", "restart:node3@5s+500ms"]
    loaded = await load(*_CLUSTER, *chaos, brief=False)
    _assert_nothing_lost(loaded)
    cut, drain, restart = loaded.results.chaos
    assert (cut.clients_hit, cut.publishing_recovered_after_s is not None) == (0, True)
    assert drain.clients_hit >= 20
    assert restart.clients_hit >= 20
    assert None not in (drain.clients_recovered_after_s, restart.clients_recovered_after_s)


@pytest.mark.long
@pytest.mark.timeout(120)
async def test_a_node_that_hangs_is_felt_in_the_latency_and_loses_nothing() -> None:
    loaded = await load(*_CLUSTER, "--chaos", "stop:node1@3s+1s", "--assert", "max>0.5s", brief=False)
    _assert_nothing_lost(loaded)
