"""The control plane: etcd, the API server, the controllers and the scheduler."""

from pathlib import Path
from typing import Final

from tests.support.kubernetes import machine
from tests.support.kubernetes.cluster import Cluster
from tests.support.kubernetes.credentials import API_URL, Credentials
from tests.support.kubernetes.machine import HOST

_ETCD: Final = "http://127.0.0.1:22379"
_ETCD_PEERS: Final = "http://127.0.0.1:22380"
_SCHEDULER: Final = ("--secure-port=26259",)


def start_control_plane(cluster: Cluster) -> None:
    """Start it, and wait until the API answers."""
    programs, credentials = cluster.programs, cluster.credentials
    urls = f"--listen-client-urls={_ETCD} --advertise-client-urls={_ETCD} --listen-peer-urls={_ETCD_PEERS}"
    urls += f" --initial-advertise-peer-urls={_ETCD_PEERS} --initial-cluster=default={_ETCD_PEERS}"
    cluster.start("etcd", [programs / "etcd", "--data-dir=etcd", "--unsafe-no-fsync", *urls.split()])
    names = ("kubernetes", "kubernetes.default", "kubernetes.default.svc", HOST, "10.96.0.1", "127.0.0.1")
    certificate, key = credentials.issue("kube-apiserver", *names)
    account_key = credentials.issue("service-accounts")[1]
    admin, admin_key = credentials.issue("system:kube-apiserver-client", group="system:masters")
    authority = credentials.authority
    cluster.start(
        "kube-apiserver",
        [
            programs / "kube-apiserver",
            f"--etcd-servers={_ETCD}",
            f"--bind-address={HOST}",
            f"--advertise-address={HOST}",
            f"--secure-port={API_URL.rpartition(':')[2]}",
            f"--tls-cert-file={certificate}",
            f"--tls-private-key-file={key}",
            f"--client-ca-file={authority}",
            f"--service-account-key-file={account_key}",
            f"--service-account-signing-key-file={account_key}",
            "--service-account-issuer=https://kubernetes.default.svc",
            "--authorization-mode=Node,RBAC",
            f"--service-cluster-ip-range={machine.SERVICES}",
            "--kubelet-preferred-address-types=InternalIP",
            f"--kubelet-client-certificate={admin}",
            f"--kubelet-client-key={admin_key}",
            f"--kubelet-certificate-authority={authority}",
            f"--requestheader-client-ca-file={authority}",
            "--requestheader-allowed-names=system:kube-apiserver-client",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
            "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-username-headers=X-Remote-User",
            f"--proxy-client-cert-file={admin}",
            f"--proxy-client-key-file={admin_key}",
            # Services of the API's own extensions are processes of this machine, too.
            "--enable-aggregator-routing=true",
        ],
    )
    cluster.until_it_answers("kube-apiserver", "/readyz")
    more = {"kube-controller-manager": _controllers(credentials, account_key), "kube-scheduler": _SCHEDULER}
    for name, options in more.items():
        config = credentials.kubeconfig(cluster.folder / f"{name}.conf", f"system:{name}")
        own = [f"--{part}kubeconfig={config}" for part in ("", "authentication-", "authorization-")]
        cluster.start(name, [programs / name, *own, "--leader-elect=false", "--bind-address=127.0.0.1", *options])


def _controllers(credentials: Credentials, account_key: Path) -> list[str]:
    """Return the options of the controllers; where they wait for minutes by default they wait for seconds here."""
    return [
        "--secure-port=26257",
        f"--service-account-private-key-file={account_key}",
        f"--root-ca-file={credentials.authority}",
        "--use-service-account-credentials=true",
        f"--cluster-signing-cert-file={credentials.authority}",
        f"--cluster-signing-key-file={credentials.authority_key}",
        "--horizontal-pod-autoscaler-sync-period=5s",
        "--horizontal-pod-autoscaler-initial-readiness-delay=5s",
        "--horizontal-pod-autoscaler-cpu-initialization-period=10s",
        "--node-monitor-grace-period=16s",
    ]
