"""deploy/compose as it is, on free ports and with secrets of its own: a copy of the files, and what runs by them."""

import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx

from tests.support.container_engine import ROOT, ContainerEngine
from tests.support.load_process import Load
from tests.support.waiting import eventually

RUNNABLE: Final = ("balancer", "gateway", "redis", "prometheus", "alertmanager")
"""All but Grafana, for which there is no image where none can be pulled."""
_PORTS: Final = ("HTTPS_PORT", "ADMIN_PORT", "PROMETHEUS_PORT", "ALERTMANAGER_PORT")


class ComposeStack:
    """What `make up` starts."""

    def __init__(self, engine: ContainerEngine, image: str, folder: Path) -> None:
        self.engine = engine
        self.project = f"gateway-test-{uuid.uuid4().hex[:8]}"
        for name in ("compose", "prometheus", "grafana"):
            ignored = shutil.ignore_patterns("secrets", "targets", "__pycache__")
            shutil.copytree(ROOT / "deploy" / name, folder / name, ignore=ignored)
        (folder / "prometheus" / "targets").mkdir()
        self.folder = folder
        self.secrets = folder / "compose" / "secrets"
        self._ports = {name: str(port) for name, port in zip(_PORTS, _free_ports(len(_PORTS)), strict=True)}
        self._environment = self._ports | {"GATEWAY_IMAGE": image} | engine.images.environment
        if engine.images.services:
            self._environment["NOFILE"] = "20000"

    # Compose.

    def compose(self, *arguments: str) -> str:
        """Run Compose on this project."""
        return self.engine.compose(*self._command, *arguments, environment=self._environment)

    @property
    def _command(self) -> Sequence[str]:
        return ("--project-name", self.project, "--file", str(self.folder / "compose" / "compose.yaml"))

    def command(self, *arguments: str) -> list[str]:
        """Return a command line that does the same, for others to run."""
        program, environment = self.engine.compose_command
        told = {**environment, **self._environment}
        return ["env", *(f"{name}={value}" for name, value in told.items()), *program, *self._command, *arguments]

    def up(self, *services: str) -> None:
        """Start services and wait until they are healthy."""
        self.compose("up", "--detach", "--wait", "--no-build", "--pull", "missing", *services)

    def containers(self, service: str) -> list[str]:
        """Name the running containers of a service, in their numbers' order."""
        lines = self.compose("ps", "--format", "json", service).splitlines()
        rows = [json.loads(line) for line in lines if line.startswith("{")]
        names = [str(row["Name"]) for row in rows if row["State"] == "running"]
        return sorted(names, key=lambda name: int(name.rpartition("-")[2]))

    def inspect(self, container: str) -> dict[str, Any]:
        """Return what the engine knows of a container."""
        found: dict[str, Any] = json.loads(self.engine.run("inspect", container).stdout)[0]
        return found

    @property
    def front(self) -> str:
        """The name of the network that the balancer and the nodes are in."""
        return f"{self.project}_front"

    @property
    def host_address(self) -> str:
        """Where containers reach this machine."""
        [network] = json.loads(self.engine.run("network", "inspect", self.front).stdout)
        return str(network["IPAM"]["Config"][0]["Gateway"])

    def ask_redis(self, *words: str) -> str:
        """Carry out a command on Redis as its operator, and return what it says."""
        [redis] = self.containers("redis")
        login = ("--user", "operator", "--pass", self.secret("redis_operator_password"), "--no-auth-warning")
        return self.engine.run("exec", redis, "redis-cli", *login, *words).stdout.strip()

    def log_of(self, service: str) -> list[dict[str, Any]]:
        """Return what all nodes, or another service that logs JSON, have logged."""
        lines = self.compose("logs", "--no-log-prefix", service).splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    # What it serves.

    def url_of(self, container: str) -> str:
        """Return where one node takes clients, without the balancer."""
        address = self.inspect(container)["NetworkSettings"]["Networks"][self.front]["IPAddress"]
        return f"ws://{address}:8000/connection/websocket"

    @property
    def client_url(self) -> str:
        """Where clients connect to."""
        return f"wss://localhost:{self._ports['HTTPS_PORT']}/connection/websocket"

    @property
    def site(self) -> str:
        """The same for browsers and HTTP."""
        return f"https://localhost:{self._ports['HTTPS_PORT']}"

    @property
    def admin_url(self) -> str:
        """The internal port of any node."""
        return f"http://127.0.0.1:{self._ports['ADMIN_PORT']}"

    @property
    def prometheus_url(self) -> str:
        """Prometheus."""
        return f"http://127.0.0.1:{self._ports['PROMETHEUS_PORT']}"

    @property
    def alertmanager_url(self) -> str:
        """Alertmanager."""
        return f"http://127.0.0.1:{self._ports['ALERTMANAGER_PORT']}"

    @property
    def trust(self) -> ssl.SSLContext:
        """What a client that trusts its made-up authority needs."""
        return ssl.create_default_context(cafile=str(self.secrets / "ca.pem"))

    def make_secrets(self) -> None:
        """Make those that are missing, as `make up` does."""
        done = subprocess.run([self.folder / "compose" / "make-secrets"], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    def secret(self, name: str) -> str:
        """Return a secret."""
        return (self.secrets / name).read_text(encoding="utf-8").strip()

    def write_secret(self, name: str, text: str) -> None:
        """Change a secret as an operator must: the same file, since that is what is mounted."""
        with (self.secrets / name).open("r+", encoding="utf-8") as file:
            file.write(text)
            file.truncate()

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return what Prometheus answers now."""
        answer = httpx.get(f"{self.prometheus_url}/api/v1/query", params={"query": expression}, timeout=30).json()
        assert answer["status"] == "success", (expression, answer)
        found: list[dict[str, Any]] = answer["data"]["result"]
        return found

    def value(self, expression: str) -> float | None:
        """Return the one figure that Prometheus answers."""
        found = self.query(expression)
        return float(found[0]["value"][1]) if found else None

    # Load.

    def start_load(self, path: Path, *arguments: str, target: str = "") -> Load:
        """Begin a load test whose results go to *path*, through the balancer unless another target is named."""
        command = [sys.executable, "-m", "loadtest", "run", *arguments, "--target", target or self.client_url]
        command += ["--lines", "--i-own-this-target"]
        command += ["--hmac-secret", self.secret("token_key"), "--results", str(path), "--workers", "1"]
        environment = os.environ | {"SSL_CERT_FILE": str(self.secrets / "ca.pem")}
        return Load(command, environment, path)


@contextmanager
def compose_stack(
    engine: ContainerEngine, image: str, folder: Path, *, prepare: Callable[[ComposeStack], None] = lambda _: None
) -> Iterator[ComposeStack]:
    """Run everything until the block ends; *prepare* may change the copied files before."""
    stack = ComposeStack(engine, image, folder)
    prepare(stack)
    stack.make_secrets()
    try:
        stack.up(*RUNNABLE)
        eventually(lambda: is_served(stack), lambda: stack.compose("logs", "--tail", "20"))
        yield stack
    finally:
        stack.compose("down", "--volumes", "--timeout", "1")


def is_served(stack: ComposeStack) -> bool:
    """Whether the balancer leads to a node."""
    try:
        return httpx.get(f"{stack.site}/", verify=stack.trust).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
