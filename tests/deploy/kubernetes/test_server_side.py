"""What a real API server says of the manifests: it takes them all, and warns of nothing."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.test_kubernetes_files import COMPONENTS, OVERLAYS, built_with
from tests.support.kubernetes.cluster import Cluster
from tests.support.kubernetes.installation import remove
from tests.support.kubernetes.programs import definitions
from tests.support.kubernetes.report import Report
from tests.support.waiting import eventually

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(1200)]

_FOREIGN = ("podmonitors.monitoring.coreos.com", "prometheusrules", "httproutes.gateway.networking.k8s.io")


@pytest.fixture(scope="module")
def knowing(cluster: Cluster) -> Cluster:
    """The cluster, when it knows the kinds of Prometheus Operator and of the Gateway API."""
    for folder in definitions():
        cluster.kubectl("apply", "--server-side", "--filename", str(folder))
    eventually(lambda: all(cluster.run("get", kind).returncode == 0 for kind in _FOREIGN), lambda: str(_FOREIGN))
    return cluster


def said(cluster: Cluster, manifests: list[dict[str, Any]]) -> str:
    """Return what the server has against them, as a whole and without making any; their namespace must be there."""
    done = cluster.run(
        "apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", "-", text=yaml.safe_dump_all(manifests)
    )
    return done.stderr


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_server_takes_every_manifest_and_warns_of_nothing(
    knowing: Cluster, overlay: str, tmp_path: Path, report: Report
) -> None:
    manifests = built_with(tmp_path, overlay, *COMPONENTS)
    [namespace] = [each for each in manifests if each["kind"] == "Namespace"]
    knowing.apply(namespace)
    try:
        assert said(knowing, manifests) == ""
    finally:
        remove(knowing, "gateway")
    report.add(
        f"`{overlay}` with all components, validated by the server, in a namespace that enforces `restricted`",
        f"{len(manifests)} objects taken, no warning",
    )


def test_pod_security_would_have_warned(knowing: Cluster, tmp_path: Path) -> None:
    """The check before has teeth: one field less, and the same server warns and refuses the pods."""
    manifests = built_with(tmp_path, "production")
    [namespace] = [each for each in manifests if each["kind"] == "Namespace"]
    [deployment] = [each for each in manifests if each["kind"] == "Deployment"]
    deployment["spec"]["template"]["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = True
    knowing.apply(namespace)
    try:
        assert 'would violate PodSecurity "restricted' in said(knowing, [deployment])
    finally:
        remove(knowing, "gateway")
