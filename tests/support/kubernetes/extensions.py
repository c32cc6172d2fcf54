"""What a cluster has beside its control plane, as processes of this machine that Services lead to: DNS, metrics."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from tests.support.kubernetes.cluster import Cluster
from tests.support.kubernetes.machine import HOST
from tests.support.kubernetes.node_settings import DNS

_NAMESPACE: Final = "kube-system"
_METRICS: Final = (
    "--metric-resolution=10s",
    "--kubelet-request-timeout=5s",
    "--kubelet-preferred-address-types=InternalIP",
)


def start_services(cluster: Cluster) -> None:
    """Start the cluster's DNS and metrics-server."""
    corefile = cluster.folder / "Corefile"
    zones = f"kubernetes cluster.local in-addr.arpa ip6.arpa {{\n  kubeconfig {cluster.kubeconfig}\n }}"
    corefile.write_text(f".:53 {{\n bind {HOST}\n errors\n {zones}\n cache 5\n}}\n", encoding="utf-8")
    cluster.start("coredns", [cluster.programs / "coredns", "-conf", corefile])
    cluster.apply(*_service("kube-dns", {"dns": (53, 53, "UDP"), "dns-tcp": (53, 53, "TCP")}, address=DNS))
    authority = f"--kubelet-certificate-authority={cluster.credentials.authority}"
    metrics = Extension("metrics-server", "metrics.k8s.io", port=24443)
    start_extension(cluster, metrics, [*_METRICS, authority, f"--kubeconfig={cluster.kubeconfig}"])


class Extension(NamedTuple):
    """A program that serves a group of the API."""

    program: str
    group: str
    port: int
    version: str = "v1beta1"


def start_extension(cluster: Cluster, extension: Extension, options: Sequence[str]) -> None:
    """Start one as a process of this machine, and wait until the API has its group."""
    program, group, port, version = extension
    login = cluster.kubeconfig
    cluster.start(
        program,
        [
            cluster.programs / program,
            f"--authentication-kubeconfig={login}",
            f"--authorization-kubeconfig={login}",
            f"--secure-port={port}",
            f"--bind-address={HOST}",
            f"--cert-dir={cluster.folder / program}",
            *options,
        ],
    )
    cluster.apply(*_service(program, {"https": (443, port, "TCP")}), _registration(extension))
    cluster.until_it_answers(program, f"/apis/{group}/{version}")


def stop_extension(cluster: Cluster, extension: Extension) -> None:
    """End one, and take its group from the API."""
    cluster.kubectl("delete", "apiservice", f"{extension.version}.{extension.group}")
    cluster.stop(extension.program)


def _registration(extension: Extension) -> dict[str, Any]:
    spec = {
        "group": extension.group,
        "version": extension.version,
        "service": {"name": extension.program, "namespace": _NAMESPACE},
        "insecureSkipTLSVerify": True,
        "groupPriorityMinimum": 100,
        "versionPriority": 100,
    }
    name = f"{extension.version}.{extension.group}"
    return {"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": name}, "spec": spec}


def _service(
    name: str, ports: Mapping[str, tuple[int, int, str]], *, address: str = ""
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a Service that leads to this machine; each port is its own, ours, and the protocol."""
    labels = {"kubernetes.io/service-name": name}
    own = [{"name": key, "port": port, "protocol": kind} for key, (port, _, kind) in ports.items()]
    ours = [{"name": key, "port": port, "protocol": kind} for key, (_, port, kind) in ports.items()]
    service: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": _NAMESPACE},
        "spec": {"ports": own} | ({"clusterIP": address} if address else {}),
    }
    slices = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": name, "namespace": _NAMESPACE, "labels": labels},
        "addressType": "IPv4",
        "ports": ours,
        "endpoints": [{"addresses": [HOST], "conditions": {"ready": True}}],
    }
    return service, slices
