"""A gateway as the overlay for development has it, in a namespace of its own, and what can be seen of it."""

import contextlib
import os
import secrets
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import yaml

from tests.support.container_engine import ROOT
from tests.support.kubernetes.cluster import Cluster
from tests.support.load_process import Load
from tests.support.waiting import eventually

MANIFESTS: Final = ROOT / "deploy" / "kubernetes"
SECRETS: Final = ("token_key", "api_key", "redis_password")
_NODES: Final = "app.kubernetes.io/component=node"
_PATIENCE_S: Final = 180


class Installation:
    """What `kubectl apply -k` made of an overlay."""

    def __init__(self, cluster: Cluster, namespace: str, folder: Path) -> None:
        self.cluster = cluster
        self.namespace = namespace
        shutil.copytree(MANIFESTS, folder / "kubernetes")
        self._overlay = folder / "kubernetes" / "overlays" / "development"
        self.change("kustomization.yaml", "namespace: gateway", f"namespace: {namespace}")
        self.keys = {name: secrets.token_hex(32) for name in SECRETS}

    def kubectl(self, *arguments: str) -> str:
        """Run `kubectl` in this namespace."""
        return self.cluster.kubectl("--namespace", self.namespace, *arguments)

    def get(self, *what: str) -> dict[str, Any]:
        """Return an object of this namespace, or those of a kind."""
        return self.cluster.get("--namespace", self.namespace, *what)

    # Its files.

    def change(self, name: str, old: str, new: str) -> None:
        """Change a file of the overlay."""
        path = self._overlay / name
        text = path.read_text(encoding="utf-8")
        assert old in text, f"{old!r} is not in {name}"
        path.write_text(text.replace(old, new), encoding="utf-8")

    def add(self, *components: str, patches: Sequence[Mapping[str, Any]] = ()) -> None:
        """Add components and patches to the overlay."""
        path = self._overlay / "kustomization.yaml"
        text = yaml.safe_load(path.read_text(encoding="utf-8"))
        text["components"] += [f"../../components/{name}" for name in components]
        text["patches"] += [dict(patch) for patch in patches]
        path.write_text(yaml.safe_dump(text), encoding="utf-8")

    def leave_replicas_alone(self) -> None:
        """Say no more how many nodes there are, since an autoscaler does."""
        path = self._overlay / "kustomization.yaml"
        text = yaml.safe_load(path.read_text(encoding="utf-8"))
        del text["replicas"]
        path.write_text(yaml.safe_dump(text), encoding="utf-8")

    def apply(self) -> None:
        """Have the cluster be as the overlay says."""
        self.cluster.kubectl("apply", "--kustomize", str(self._overlay))

    def apply_namespace(self) -> None:
        """Create its namespace, as the overlay has it."""
        path = self._overlay / "namespace.yaml"
        manifest = yaml.safe_load(path.read_text(encoding="utf-8"))
        manifest["metadata"]["name"] = self.namespace
        self.cluster.kubectl("apply", "--filename", "-", text=yaml.safe_dump(manifest))

    def create_secret(self, name: str = "gateway") -> None:
        """Give it its keys and passwords."""
        values = [f"--from-literal={key}={value}" for key, value in self.keys.items()]
        self.kubectl("create", "secret", "generic", name, *values)

    # Its nodes.

    def pods(self) -> list[dict[str, Any]]:
        """Return the gateway's pods that are not on their way out, oldest first."""
        found = self.get("pods", "--selector", _NODES)["items"]
        staying = [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]
        return sorted(staying, key=lambda pod: str(pod["metadata"]["creationTimestamp"]))

    def ready(self) -> list[str]:
        """Return the names of those that are ready."""
        return [name_of(pod) for pod in self.pods() if is_ready(pod)]

    def until_ready(self, count: int) -> None:
        """Wait until as many nodes are there, and all of them ready."""
        eventually(lambda: len(self.ready()) == len(self.pods()) == count, self.described, patience_s=_PATIENCE_S)

    def until_rolled_out(self) -> None:
        """Wait for the end of a rollout, the last clients of the old nodes included."""
        self.kubectl("rollout", "status", "deployment/gateway", f"--timeout={_PATIENCE_S}s")
        eventually(
            lambda: len(self.get("pods", "--selector", _NODES)["items"]) == len(self.pods()),
            self.described,
            patience_s=_PATIENCE_S,
        )

    def described(self) -> str:
        """Return how its pods stand and what happened, for people."""
        return self.kubectl("get", "pods", "--output", "wide") + self.kubectl(
            "get", "events", "--sort-by", ".lastTimestamp"
        )

    def events(self, pod: str) -> list[str]:
        """Return what Kubernetes tells of a pod."""
        found = self.get("events", "--field-selector", f"involvedObject.name={pod}")["items"]
        return [str(event["message"]) for event in found]

    # What it serves.

    @property
    def address(self) -> str:
        """Where its Service is."""
        return str(self.get("service", "gateway")["spec"]["clusterIP"])

    def start_load(self, path: Path, *arguments: str) -> Load:
        """Begin a load test against its Service, whose results go to *path*."""
        command = [sys.executable, "-m", "loadtest", "run", *arguments]
        command += ["--target", f"ws://{self.address}/connection/websocket", "--lines", "--i-own-this-target"]
        command += ["--hmac-secret", self.keys["token_key"], "--results", str(path), "--workers", "1"]
        return Load(command, os.environ, path)


@contextmanager
def installed(
    cluster: Cluster,
    namespace: str,
    folder: Path,
    *,
    replicas: int = 3,
    prepare: Callable[[Installation], None] = lambda _: None,
) -> Iterator[Installation]:
    """Install a gateway of *replicas* nodes and a Redis, and take all of it away after.

    What *prepare* changes of the files is applied with them.
    """
    made = Installation(cluster, namespace, folder)
    made.change("kustomization.yaml", "count: 2", f"count: {replicas}")
    prepare(made)
    add_volume(cluster, namespace)
    try:
        made.apply_namespace()
        made.create_secret()
        made.apply()
        made.until_ready(replicas)
        yield made
    finally:
        remove(cluster, namespace)


def add_volume(cluster: Cluster, name: str) -> None:
    """Have a volume for one claim, on the node that no test harms."""
    folder = cluster.folder / "volumes" / name
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    node = {"key": "kubernetes.io/hostname", "operator": "In", "values": ["n3"]}
    cluster.apply(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": name},
            "spec": {
                "capacity": {"storage": "1Gi"},
                "accessModes": ["ReadWriteOnce"],
                "local": {"path": str(folder)},
                "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [node]}]}},
            },
        }
    )


def remove(cluster: Cluster, namespace: str) -> None:
    """Delete a namespace, its pods at once, and its volume."""
    cluster.run("delete", "pods", "--all", "--namespace", namespace, "--grace-period=0", "--force")
    cluster.kubectl("delete", "namespace", namespace, "--ignore-not-found", "--timeout=120s")
    cluster.kubectl("delete", "persistentvolume", namespace, "--ignore-not-found")


def name_of(item: Mapping[str, Any]) -> str:
    """Return an object's name."""
    return str(item["metadata"]["name"])


def is_ready(pod: Mapping[str, Any]) -> bool:
    """Whether a pod gets new clients."""
    conditions = pod["status"].get("conditions", [])
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def restarts(pod: Mapping[str, Any]) -> int:
    """Return how often a pod's container was started again."""
    return sum(int(each["restartCount"]) for each in pod["status"].get("containerStatuses", []))


def last_words(pod: Mapping[str, Any]) -> str:
    """Return what a pod's container said when it ended, as Kubernetes keeps it; nothing if it runs."""
    for status in pod["status"].get("containerStatuses", []):
        for state in (status["state"], status["lastState"]):
            with contextlib.suppress(KeyError):
                return str(state["terminated"]["message"])
    return ""
