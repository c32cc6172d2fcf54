"""Autoscalers follow the load up and down, by CPU and by connections, and nobody loses anything by it."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml

from loadtest.results import Results
from tests.support.kubernetes.cluster import Cluster
from tests.support.kubernetes.custom_metrics import start_custom_metrics, stop_custom_metrics
from tests.support.kubernetes.installation import Installation, installed
from tests.support.kubernetes.report import Report
from tests.support.loads import sets
from tests.support.waiting import eventually

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(1200)]

_FEWEST, _MOST = 2, 4
_PATIENCE_S = 240
# The overlay's waits are minutes, so that real autoscalers don't swing; these are seconds.
_PATCH = [
    {"op": "replace", "path": "/spec/minReplicas", "value": _FEWEST},
    {"op": "replace", "path": "/spec/maxReplicas", "value": _MOST},
    {"op": "replace", "path": "/spec/behavior/scaleDown/stabilizationWindowSeconds", "value": 15},
    {"op": "replace", "path": "/spec/behavior/scaleDown/policies/0/periodSeconds", "value": 15},
]
_BY_CONNECTIONS = {"op": "replace", "path": "/spec/metrics/1/pods/target/averageValue", "value": "50"}
_TARGET = {"kind": "HorizontalPodAutoscaler", "name": "gateway"}


def people(clients: int, rate: int) -> list[str]:
    """Return the scenario of people who talk until they are told to finish."""
    return sets(clients=clients, rate=rate, room_size=10, namespace="lobby", plateau_s=900, ramp_up_s=3)


def autoscaled(*components: str, patch: Sequence[Mapping[str, Any]]) -> Callable[[Installation], None]:
    """Return what has the overlay scale itself."""

    def prepare(gateway: Installation) -> None:
        gateway.add(*components, patches=[{"target": _TARGET, "patch": yaml.safe_dump(list(patch))}])
        gateway.leave_replicas_alone()

    return prepare


def stands(gateway: Installation) -> str:
    return gateway.kubectl("get", "hpa", "--output", "wide") + gateway.kubectl("describe", "hpa") + gateway.described()


def followed(gateway: Installation, folder: Path, *, loud: Sequence[str], quiet: Sequence[str]) -> Results:
    """See the nodes become as many as may be while *loud* runs and as few after its end.

    *quiet* comes when there are most, so that it is on all of them; what it saw is returned.
    """
    crowd = gateway.start_load(folder / "loud.json", "chat", *loud)
    with ExitStack() as stack:
        stack.callback(crowd.stop)
        eventually(lambda: len(gateway.ready()) == _MOST, lambda: stands(gateway), patience_s=_PATIENCE_S)
        talkers = gateway.start_load(folder / "quiet.json", "chat", *quiet)
        stack.callback(talkers.stop)
        talkers.reaches("plateau")
        assert crowd.finish().verification.lost == 0
        eventually(lambda: len(gateway.pods()) == _FEWEST, lambda: stands(gateway), patience_s=_PATIENCE_S)
        gateway.until_rolled_out()
        seen = talkers.finish()
    assert seen.verification.lost == seen.verification.duplicated == seen.verification.reordered == 0
    assert seen.verification.recovered > 0, "nobody was on the nodes that went"
    return seen


def sees(gateway: Installation) -> None:
    """Wait until the autoscaler has a figure for each of its metrics."""

    def has_all() -> bool:
        scaler = gateway.get("hpa", "gateway")
        known = [each["type"] for each in scaler["status"].get("currentMetrics") or []]
        return known == [each["type"] for each in scaler["spec"]["metrics"]]

    eventually(has_all, lambda: stands(gateway), patience_s=_PATIENCE_S)


def test_by_cpu(cluster: Cluster, tmp_path: Path, report: Report) -> None:
    prepare = autoscaled("autoscaling", patch=_PATCH)
    with installed(cluster, "by-cpu", tmp_path, replicas=_FEWEST, prepare=prepare) as gateway:
        sees(gateway)
        seen = followed(gateway, tmp_path, loud=people(100, 1000), quiet=people(60, 20))
    report.add_load("autoscaled by CPU, 2 → 4 → 2 nodes, as 100 loud clients came and went", seen)


def test_by_connections(cluster: Cluster, tmp_path: Path, report: Report) -> None:
    prepare = autoscaled("autoscaling", "autoscaling-connections", patch=[*_PATCH, _BY_CONNECTIONS])
    with installed(cluster, "by-connections", tmp_path, replicas=_FEWEST, prepare=prepare) as gateway:
        start_custom_metrics(gateway)
        try:
            sees(gateway)
            seen = followed(gateway, tmp_path, loud=people(300, 5), quiet=people(40, 5))
        finally:
            stop_custom_metrics(cluster)
    report.add_load("autoscaled by connections, 2 → 4 → 2 nodes, as 300 silent clients came and went", seen)
