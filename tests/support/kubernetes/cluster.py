"""A Kubernetes cluster on this machine: a control plane of plain processes, nodes that are namespaces of the kernel.

Kubernetes' own programs, etcd, CoreDNS, metrics-server, containerd and CNI's bridge: what is tried on it is tried on
the real thing. What it lacks is a network plugin that enforces network policies, and controllers of Ingress and of
the Gateway API.
"""

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import yaml

from tests.support.kubernetes import machine
from tests.support.kubernetes.credentials import Credentials
from tests.support.kubernetes.machine import address_of
from tests.support.kubernetes.node_settings import (
    containerd_settings,
    kubelet_settings,
    network_settings,
    proxy_settings,
)
from tests.support.waiting import eventually

_TIMEOUT_S: Final = 300
_STOP_TIMEOUT_S: Final = 20
_RUN_NODE: Final = Path(__file__).with_name("run-node")


class Cluster:
    """What runs, and how to ask it."""

    def __init__(self, folder: Path, programs: Path) -> None:
        self.folder = folder
        self.programs = programs
        self.credentials = Credentials(folder / "pki")
        self.kubeconfig = self.credentials.kubeconfig(folder / "admin.conf", "admin", group="system:masters")
        self.started_in_s = 0.0
        """How long it took until all nodes were ready."""
        self._processes: dict[str, tuple[subprocess.Popen[bytes], signal.Signals]] = {}

    @property
    def environment(self) -> Mapping[str, str]:
        """What a shell needs to have `kubectl` that speaks with this cluster."""
        path = f"{self.programs}:{os.environ['PATH']}"
        return os.environ | {"KUBECONFIG": str(self.kubeconfig), "PATH": path, "NO_PROXY": "*", "no_proxy": "*"}

    def run(self, *arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
        """Run `kubectl`, whatever comes of it."""
        return subprocess.run(
            [str(self.programs / "kubectl"), *arguments],
            env=self.environment,
            input=text,
            capture_output=True,
            text=True,
            check=False,
            timeout=_TIMEOUT_S,
        )

    def begin(self, *arguments: str) -> subprocess.Popen[str]:
        """Begin a `kubectl` that takes its time; what it says comes in one stream."""
        command = [str(self.programs / "kubectl"), *arguments]
        return subprocess.Popen(
            command, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def kubectl(self, *arguments: str, text: str = "") -> str:
        """Run `kubectl` and return what it printed; it must succeed."""
        done = self.run(*arguments, text=text)
        assert done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr or done.stdout}"
        return done.stdout

    def apply(self, *objects: Mapping[str, Any]) -> None:
        """Create or change objects."""
        self.kubectl("apply", "--server-side", "-f", "-", text=yaml.safe_dump_all([dict(each) for each in objects]))

    def get(self, *what: str) -> dict[str, Any]:
        """Return an object, or those of a kind."""
        found: dict[str, Any] = json.loads(self.kubectl("get", *what, "--output", "json"))
        return found

    # What runs.

    def start(self, name: str, command: Sequence[str | Path], *, end_by: signal.Signals = signal.SIGTERM) -> None:
        """Start a process of the cluster."""
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                ["nice", *command],
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env=self.environment,
                start_new_session=True,
            )
        self._processes[name] = process, end_by

    def log_of(self, name: str) -> str:
        """Return the last lines that a process has written."""
        path = self.folder / f"{name}.log"
        return "\n".join(path.read_text(errors="replace").splitlines()[-10:]) if path.exists() else ""

    def is_running(self, name: str) -> bool:
        """Whether a process has not ended."""
        return self._processes[name][0].poll() is None

    def until_it_answers(self, name: str, path: str) -> None:
        """Wait until the API has *path*, which the process *name* serves."""

        def answers() -> bool:
            assert self.is_running(name), self.log_of(name)
            return self.run("get", f"--raw={path}").returncode == 0

        eventually(answers, lambda: self.log_of(name))

    def stop(self, name: str) -> None:
        """End a process."""
        process, end_by = self._processes.pop(name)
        if process.poll() is None:
            process.send_signal(end_by)
            try:
                process.wait(timeout=_STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def stop_all(self) -> None:
        """End everything, what depends on others first."""
        for name in reversed(list(self._processes)):
            self.stop(name)

    # Nodes.

    def start_node(self, number: int, images: Path) -> None:
        """Start a node with *images* on it."""
        name, address, folder = f"n{number}", address_of(number), self.folder / f"n{number}"
        for part in ("run", "kubelet", "cni"):
            (folder / part).mkdir(parents=True)
        (folder / "images.tar").symlink_to(images)
        self.credentials.kubeconfig(folder / "kubeconfig", f"system:node:{name}", name, address, group="system:nodes")
        certificate, key = self.credentials.issue(f"kubelet-{name}", name, address)
        self.credentials.kubeconfig(folder / "proxy.conf", "system:kube-proxy")
        (folder / "containerd.toml").write_text(containerd_settings(folder), encoding="utf-8")
        (folder / "cni" / "10-bridge.conflist").write_text(
            json.dumps(network_settings(number, folder)), encoding="utf-8"
        )
        kubelet = kubelet_settings(folder, address, self.credentials.authority, certificate, key)
        (folder / "kubelet.yaml").write_text(yaml.safe_dump(kubelet), encoding="utf-8")
        (folder / "proxy.yaml").write_text(yaml.safe_dump(proxy_settings(folder, name, address)), encoding="utf-8")
        command: list[str | Path] = [_RUN_NODE, name, address, machine.namespace_of(number), folder, self.programs]
        # Gone at once with all that runs there, as a machine whose plug is pulled.
        self.start(name, command, end_by=signal.SIGKILL)

    def cut(self, number: int) -> None:
        """Take a node's link away."""
        machine.ip("link", "set", machine.link_of(number), "down")

    def heal(self, number: int) -> None:
        """Give it back."""
        machine.ip("link", "set", machine.link_of(number), "up")
        machine.ip("route", "replace", machine.pods_of(number), "via", address_of(number))

    def is_ready(self, number: int) -> bool:
        """Whether the control plane holds a node for ready."""
        found = self.run("get", "node", f"n{number}", "--output", "json")
        if found.returncode:
            return False
        conditions = json.loads(found.stdout)["status"].get("conditions", [])
        return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def process_of(pod: str) -> int:
    """Return the process id, on this machine, of the gateway in a pod."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                told = (folder / "environ").read_bytes().split(b"\0")
                if f"GATEWAY_NODE__NAME={pod}".encode() in told and b"serve" in (folder / "cmdline").read_bytes():
                    return int(folder.name)
    raise AssertionError(f"no process of {pod}")


def freeze(pod: str) -> None:
    """Stop a pod's gateway where it stands."""
    os.kill(process_of(pod), signal.SIGSTOP)
