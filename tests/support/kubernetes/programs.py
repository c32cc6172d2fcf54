"""What a cluster is made of, and `kustomize`: each built from its module, once."""

import os
import shutil
from pathlib import Path
from typing import Final

from tests.support.go_programs import GoProgram, UnavailableError, built, files_of

VERSION: Final = "v1.34.4"
"""Of Kubernetes: the last minor version whose kubelet still takes cgroups of version 1."""
KUSTOMIZE: Final = GoProgram("kustomize", "sigs.k8s.io/kustomize/kustomize/v5", "v5.7.1")
_OWN: Final = (
    "kubectl",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
)
PROGRAMS: Final = (
    *(
        GoProgram(
            name,
            "k8s.io/kubernetes",
            VERSION,
            f"cmd/{name}",
            (f"k8s.io/component-base/version.gitVersion={VERSION}",),
        )
        for name in _OWN
    ),
    GoProgram("etcd", "go.etcd.io/etcd/server/v3", "v3.6.4"),
    GoProgram("coredns", "github.com/coredns/coredns", "v1.12.1"),
    GoProgram("metrics-server", "sigs.k8s.io/metrics-server", "v0.8.0", "cmd/metrics-server"),
    GoProgram("prometheus-adapter", "sigs.k8s.io/prometheus-adapter", "v0.12.0", "cmd/adapter"),
)
_FROM_PACKAGES: Final = {
    "containerd": "containerd",
    "ctr": "containerd",
    "ip": "iproute2",
    "nft": "nftables",
    "conntrack": "conntrack",
    "iptables": "iptables",
}
_CNI: Final = Path("/usr/lib/cni/bridge")
# Kinds that others than Kubernetes define: the module, its version, and the folder with the definitions.
_DEFINITIONS: Final = (
    ("github.com/prometheus-operator/prometheus-operator", "v0.83.0", "example/prometheus-operator-crd"),
    ("sigs.k8s.io/gateway-api", "v1.3.0", "config/crd/standard"),
)


def kustomize() -> list[str]:
    """Return a command that builds a folder of Kustomize.

    Raises:
        UnavailableError: if there is none and none can be built.
    """
    if found := shutil.which("kustomize"):
        return [found, "build"]
    if found := shutil.which("kubectl"):
        return [found, "kustomize"]
    return [str(built(KUSTOMIZE)), "build"]


def program_folder(folder: Path) -> Path:
    """Fill *folder* with all that a cluster needs, each by its plain name, and return it.

    Raises:
        UnavailableError: if something is missing and can't be had, or if this machine is none for it.
    """
    path = f"{os.environ['PATH']}:/usr/local/sbin:/usr/sbin:/sbin"
    missing = sorted({_FROM_PACKAGES[name] for name in _FROM_PACKAGES if shutil.which(name, path=path) is None})
    missing += [] if _CNI.exists() else ["containernetworking-plugins"]
    if missing:
        raise UnavailableError(f"a cluster needs these packages: {', '.join(missing)}")
    if os.geteuid() != 0:
        raise UnavailableError("a cluster of its own takes root")
    if not Path("/sys/fs/cgroup/memory").is_dir():
        raise UnavailableError(f"Kubernetes {VERSION} is tried on cgroups of version 1, which are not there")
    folder.mkdir()
    for program in PROGRAMS:
        (folder / program.name).symlink_to(built(program))
    return folder


def definitions() -> list[Path]:
    """Return the folders that define the kinds of Prometheus Operator and of the Gateway API."""
    return [files_of(module, version) / folder for module, version, folder in _DEFINITIONS]
