"""Prometheus in a cluster, which scrapes what the PodMonitor says, and the adapter that makes pods' metrics of it."""

from typing import Any, Final

import yaml

from tests.support.kubernetes.cluster import Cluster
from tests.support.kubernetes.extensions import Extension, start_extension, stop_extension
from tests.support.kubernetes.images import PROMETHEUS
from tests.support.kubernetes.installation import MANIFESTS, Installation

_RULES: Final = MANIFESTS / "components" / "autoscaling-connections" / "adapter.yaml"
_MONITOR: Final = MANIFESTS / "components" / "monitoring" / "pod-monitor.yaml"
_ADAPTER: Final = Extension("prometheus-adapter", "custom.metrics.k8s.io", port=24444)
_NAME: Final = "prometheus"
_LABELS: Final = {"app.kubernetes.io/name": _NAME}


def start_custom_metrics(gateway: Installation) -> None:
    """Have `custom.metrics.k8s.io` tell the metrics of a gateway's pods."""
    gateway.cluster.apply(*_manifests(gateway.namespace))
    gateway.kubectl("rollout", "status", f"deployment/{_NAME}", "--timeout=120s")
    address = gateway.get("service", _NAME)["spec"]["clusterIP"]
    options = [f"--prometheus-url=http://{address}:9090", f"--config={_RULES}", "--metrics-relist-interval=10s"]
    start_extension(gateway.cluster, _ADAPTER, [*options, f"--lister-kubeconfig={gateway.cluster.kubeconfig}"])


def stop_custom_metrics(cluster: Cluster) -> None:
    """End it."""
    stop_extension(cluster, _ADAPTER)


def _configuration(namespace: str) -> dict[str, Any]:
    """Return the scrape configuration that Prometheus Operator makes of the PodMonitor."""
    monitor = yaml.safe_load(_MONITOR.read_text(encoding="utf-8"))["spec"]
    [endpoint] = monitor["podMetricsEndpoints"]

    def label(name: str) -> str:
        return "__meta_kubernetes_pod_label_" + name.translate(str.maketrans("./-", "___"))

    kept = [
        {"source_labels": [label(name)], "regex": value, "action": "keep"}
        for name, value in monitor["selector"]["matchLabels"].items()
    ]
    kept.append(
        {"source_labels": ["__meta_kubernetes_pod_container_port_name"], "regex": endpoint["port"], "action": "keep"}
    )
    named = [
        {"source_labels": [source], "target_label": target}
        for source, target in (
            ("__meta_kubernetes_namespace", "namespace"),
            ("__meta_kubernetes_pod_name", "pod"),
            (label(monitor["jobLabel"]), "job"),
        )
    ]
    job = {
        "job_name": "trial",
        "honor_labels": endpoint["honorLabels"],
        "metrics_path": endpoint["path"],
        "scrape_interval": endpoint["interval"],
        "kubernetes_sd_configs": [{"role": "pod", "namespaces": {"names": [namespace]}}],
        "relabel_configs": kept + named,
    }
    return {"scrape_configs": [job]}


def _manifests(namespace: str) -> list[dict[str, Any]]:
    def made(kind: str, version: str = "v1", **parts: Any) -> dict[str, Any]:
        return {"apiVersion": version, "kind": kind, "metadata": {"name": _NAME, "namespace": namespace}, **parts}

    access = "rbac.authorization.k8s.io"
    container = {
        "name": _NAME,
        "image": PROMETHEUS,
        "imagePullPolicy": "Never",
        "command": ["prometheus", "--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/prometheus"],
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "readinessProbe": {"httpGet": {"path": "/-/ready", "port": 9090}, "periodSeconds": 1},
        "volumeMounts": [
            {"name": "config", "mountPath": "/etc/prometheus"},
            {"name": "data", "mountPath": "/prometheus"},
        ],
    }
    pod = {
        "serviceAccountName": _NAME,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 65534,
            "fsGroup": 65534,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [{"name": "config", "configMap": {"name": _NAME}}, {"name": "data", "emptyDir": {}}],
    }
    return [
        made("ServiceAccount"),
        made(
            "Role",
            f"{access}/v1",
            rules=[{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}],
        ),
        made(
            "RoleBinding",
            f"{access}/v1",
            roleRef={"apiGroup": access, "kind": "Role", "name": _NAME},
            subjects=[{"kind": "ServiceAccount", "name": _NAME, "namespace": namespace}],
        ),
        made("ConfigMap", data={"prometheus.yml": yaml.safe_dump(_configuration(namespace))}),
        made(
            "Deployment",
            "apps/v1",
            spec={"selector": {"matchLabels": _LABELS}, "template": {"metadata": {"labels": _LABELS}, "spec": pod}},
        ),
        made("Service", spec={"selector": _LABELS, "ports": [{"port": 9090}]}),
    ]
