"""What is done to nodes and machines while hundreds talk: nothing is lost, and who need not be cut is not."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from loadtest.results import Results
from tests.support.kubernetes.cluster import Cluster, freeze
from tests.support.kubernetes.installation import Installation, installed, name_of, restarts
from tests.support.kubernetes.report import Report
from tests.support.loads import sets
from tests.support.waiting import eventually

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(1200)]

_PATIENCE_S = 180


@pytest.fixture(scope="module")
def gateway(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with installed(cluster, "rollouts", tmp_path_factory.mktemp("manifests")) as made:
        yield made


def people(clients: int) -> list[str]:
    """Return the scenario of people who talk until they are told to finish."""
    return sets(clients=clients, rate=100, room_size=10, namespace="lobby", plateau_s=900, ramp_up_s=3)


def on_machine(gateway: Installation, node: str) -> list[str]:
    return [name_of(pod) for pod in gateway.pods() if pod["spec"].get("nodeName") == node]


def test_the_nodes_are_on_different_machines(gateway: Installation) -> None:
    assert {pod["spec"]["nodeName"] for pod in gateway.pods()} == {"n1", "n2", "n3"}


def test_a_restart_of_all_nodes_under_500_clients_loses_nothing(
    gateway: Installation, results: Path, report: Report
) -> None:
    before = set(gateway.ready())
    load = gateway.start_load(results, "chat", *people(500))
    try:
        load.reaches("plateau")
        gateway.kubectl("rollout", "restart", "deployment/gateway")
        gateway.until_rolled_out()
        seen = load.finish()
    finally:
        load.stop()
    assert not before & set(gateway.ready())
    assert partings(seen) == {"disconnected (3001)"}, "somebody was not sent away but cut"
    assert seen.verification.lost == seen.verification.duplicated == seen.verification.reordered == 0
    assert seen.verification.recovered >= 500
    report.add_load("`kubectl rollout restart` of 3 nodes under 500 clients", seen, "all of them sent away by 3001")


def test_emptying_two_machines_waits_for_their_clients_and_loses_nothing(
    gateway: Installation, results: Path, report: Report
) -> None:
    load = gateway.start_load(results, "chat", *people(300))
    try:
        load.reaches("plateau")
        least = 3
        options = ("--ignore-daemonsets", "--delete-emptydir-data")
        gateway.kubectl("cordon", "n1", "n2")
        both = [gateway.cluster.begin("drain", node, *options) for node in ("n1", "n2")]
        while any(each.poll() is None for each in both):
            least = min(least, len(gateway.ready()))
            time.sleep(0.5)
        told = "".join(each.communicate()[0] for each in both)
        assert [each.returncode for each in both] == [0, 0], told
        assert "violate the pod's disruption budget" in told, "both went at once"
        assert least >= 2
        assert on_machine(gateway, "n1") == on_machine(gateway, "n2") == []
        gateway.until_ready(3)
        seen = load.finish()
    finally:
        load.stop()
        gateway.kubectl("uncordon", "n1", "n2")
    assert seen.verification.lost == seen.verification.duplicated == seen.verification.reordered == 0
    assert partings(seen) == {"disconnected (3001)"}
    report.add_load(
        "`kubectl drain` of two machines of three under 300 clients", seen, "the second waited for the first"
    )
    # Spread them again.
    gateway.kubectl("rollout", "restart", "deployment/gateway")
    gateway.until_rolled_out()


def test_a_machine_whose_link_is_cut_loses_nothing_and_its_node_is_replaced(
    gateway: Installation, results: Path, report: Report
) -> None:
    [lost] = on_machine(gateway, "n1")
    load = gateway.start_load(results, "chat", *people(300))
    try:
        load.reaches("plateau")
        gateway.cluster.cut(1)
        eventually(lambda: len(gateway.ready()) == 2, gateway.described, patience_s=_PATIENCE_S)
        eventually(
            lambda: len(gateway.ready()) == 3 and lost not in gateway.ready(),
            gateway.described,
            patience_s=_PATIENCE_S,
        )
        gateway.cluster.heal(1)
        eventually(lambda: gateway.cluster.is_ready(1), gateway.described, patience_s=_PATIENCE_S)
        seen = load.finish()
    finally:
        gateway.cluster.heal(1)
        load.stop()
    assert seen.verification.lost == seen.verification.duplicated == seen.verification.reordered == 0
    assert seen.verification.recovered > 0
    report.add_load("a machine's link cut and healed under 300 clients", seen, "its node was replaced on another")


def test_a_node_that_hangs_is_restarted(gateway: Installation, results: Path, report: Report) -> None:
    """The liveness probe is seen to fail, and the same pod to come back."""
    hanging = gateway.ready()[0]
    load = gateway.start_load(results, "chat", *people(100))
    try:
        load.reaches("plateau")
        freeze(hanging)
        eventually(
            lambda: any(name_of(pod) == hanging and restarts(pod) for pod in gateway.pods()),
            gateway.described,
            patience_s=_PATIENCE_S,
        )
        gateway.until_ready(3)
        seen = load.finish()
    finally:
        load.stop()
    told = gateway.events(hanging)
    assert any("Liveness probe failed" in message for message in told), told
    assert any("Readiness probe failed" in message for message in told), told
    assert seen.verification.lost == 0
    report.add_load("a node frozen (SIGSTOP) under 100 clients", seen, "unready, then restarted by the liveness probe")


def test_without_redis_all_are_unready_and_nobody_is_cut(gateway: Installation, results: Path, report: Report) -> None:
    """The readiness probe is seen to fail, and to pass again."""
    before = {name_of(pod): restarts(pod) for pod in gateway.pods()}
    load = gateway.start_load(results, "chat", *people(100), "--assert", "reconnects=0")
    try:
        load.reaches("plateau")
        gateway.kubectl("scale", "statefulset/redis", "--replicas=0")
        eventually(lambda: not gateway.ready(), gateway.described)
        reasons = [reason for name in before for reason in gateway.events(name)]
        assert any("Readiness probe failed: HTTP probe failed with statuscode: 503" in each for each in reasons), (
            reasons
        )
        gateway.kubectl("scale", "statefulset/redis", "--replicas=1")
        gateway.until_ready(3)
        seen = load.finish()
    finally:
        gateway.kubectl("scale", "statefulset/redis", "--replicas=1")
        load.stop()
    assert {name_of(pod): restarts(pod) for pod in gateway.pods()} == before
    assert seen.verification.lost == 0
    report.add_load("Redis taken away and given back under 100 clients", seen, "all nodes unready, then ready again")


def partings(seen: Results) -> set[str]:
    """Return how connections ended; a publication that crosses an end on the way has no answer, which is none."""
    kinds = {kind for second in seen.timeline for kind in second.errors}
    return {kind for kind in kinds if kind.startswith("disconnected")}
