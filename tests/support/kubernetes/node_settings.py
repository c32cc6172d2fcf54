"""The configuration of a node: containerd, its network plugin, kubelet and kube-proxy."""

from pathlib import Path
from typing import Any, Final

from tests.support.kubernetes import machine

DNS: Final = "10.96.0.10"
PAUSE: Final = "localhost/gateway-tests/pause:latest"
"""The image that holds a pod's namespaces."""


def containerd_settings(folder: Path) -> str:
    return f"""
version = 2
root = "{folder}/containerd"
state = "{folder}/run/state"
[grpc]
address = "{folder}/run/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{PAUSE}"
restrict_oom_score_adj = true
disable_apparmor = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "{folder}/cni"
"""


def network_settings(number: int, folder: Path) -> dict[str, Any]:
    addresses = {
        "type": "host-local",
        "dataDir": f"{folder}/addresses",
        "ranges": [[{"subnet": machine.pods_of(number)}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    bridge = {"type": "bridge", "bridge": "cni0", "isGateway": True, "hairpinMode": True, "ipam": addresses}
    ports = {"type": "portmap", "capabilities": {"portMappings": True}}
    return {"cniVersion": "0.4.0", "name": "trial", "plugins": [bridge, ports]}


def kubelet_settings(folder: Path, address: str, authority: Path, certificate: Path, key: Path) -> dict[str, Any]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": address,
        "authentication": {
            "x509": {"clientCAFile": str(authority)},
            "webhook": {"enabled": True},
            "anonymous": {"enabled": False},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(certificate),
        "tlsPrivateKeyFile": str(key),
        "cgroupDriver": "cgroupfs",
        "failSwapOn": False,
        "failCgroupV1": False,
        "containerRuntimeEndpoint": f"unix://{folder}/run/containerd.sock",
        "clusterDNS": [DNS],
        "clusterDomain": "cluster.local",
        "nodeStatusUpdateFrequency": "4s",
        "evictionHard": {"nodefs.available": "1%", "imagefs.available": "1%", "memory.available": "50Mi"},
        "imageGCHighThresholdPercent": 100,
        "podLogsDir": f"{folder}/logs",
        "resolvConf": "/etc/resolv.conf",
    }


def proxy_settings(folder: Path, name: str, address: str) -> dict[str, Any]:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "clientConnection": {"kubeconfig": f"{folder}/proxy.conf"},
        "clusterCIDR": machine.PODS,
        "hostnameOverride": name,
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        "healthzBindAddress": f"{address}:10256",
        "metricsBindAddress": f"{address}:10249",
    }
