"""A container engine for tests: the user's own Docker if it runs, or one that is started for the tests and ended after.

The user's Docker pulls the public images. The one that is started here pulls nothing: its base images are made of
Debian's packages (`mmdebstrap`), and Compose, where it is missing, is built from its Go module. Both are kept in the
user's cache folder.
"""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from tests.support.go_programs import GoProgram, UnavailableError, built
from tests.support.promtool import CACHE

ROOT: Final = Path(__file__).parents[2]
_SUITE: Final = "trixie"
_PYTHON: Final = "ca-certificates,python3,python3-venv,python3-pip"
_SERVICES: Final = "ca-certificates,redis-server,haproxy,prometheus,prometheus-alertmanager"
# What the public images have and packages don't: folders that volumes take their owners from, and a shorter name.
_SERVICES_FILE: Final = """
FROM localhost/gateway-tests/services-base
RUN mkdir -p /data /prometheus /alertmanager && chown 999:1000 /data && \\
    chown 65534:65534 /prometheus /alertmanager && ln -s /usr/bin/prometheus-alertmanager /usr/local/bin/alertmanager
"""
_COMPOSE: Final = GoProgram("docker-compose", "github.com/docker/compose/v2", "v2.40.3", "cmd")
_START_TIMEOUT_S: Final = 60
_TIMEOUT_S: Final = 600
# What a machine without any says of its rules is nothing, which would restore nothing.
_NO_RULES: Final = """
*filter
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
COMMIT
"""
_LINKS: Final = Path("/sys/class/net")
_SYSTEM_CERTIFICATES: Final = Path("/etc/ssl/certs/ca-certificates.crt")


class Images(NamedTuple):
    """What containers are made from; empty: what the files under test name."""

    python: str = ""
    services: str = ""

    @property
    def environment(self) -> dict[str, str]:
        """The variables of compose.yaml that name them."""
        services = ("HAPROXY_IMAGE", "REDIS_IMAGE", "PROMETHEUS_IMAGE", "ALERTMANAGER_IMAGE")
        found = dict.fromkeys(services, self.services) | {"PYTHON_IMAGE": self.python}
        return {name: image for name, image in found.items() if image}


class ContainerEngine:
    """Docker, and Compose."""

    def __init__(self, docker: str, *, host: str = "") -> None:
        self.images = Images()
        self._docker = docker
        self._own_environment = {"DOCKER_BUILDKIT": "1"} | ({"DOCKER_HOST": host} if host else {})
        self._environment = os.environ | self._own_environment
        self._compose: Sequence[str] = ()

    def run(self, *arguments: str, text: str = "", check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run `docker` with *arguments*; its output is in the exception if it fails."""
        return self._call([self._docker, *arguments], self._environment, text=text, check=check)

    def command(self, *arguments: str) -> list[str]:
        """Return a command line that does what `run` would, for others to run."""
        told = [f"{name}={value}" for name, value in self._own_environment.items()]
        return ["env", *told, self._docker, *arguments]

    def compose(self, *arguments: str, environment: Mapping[str, str], check: bool = True) -> str:
        """Run Compose and return what it printed, the lines about its progress included."""
        program, own = self.compose_command
        done = self._call([*program, *arguments], {**os.environ, **own, **environment}, check=check)
        return done.stdout + done.stderr

    @property
    def compose_command(self) -> tuple[Sequence[str], Mapping[str, str]]:
        """Compose as a command line, and what its environment has to say."""
        if not self._compose:
            self._compose = self._find_compose()
        return self._compose, self._own_environment

    def build(self, tag: str, *, arguments: Mapping[str, str] | None = None) -> None:
        """Build the gateway's image, as the README says it."""
        options = ["--file", "deploy/Containerfile", "--tag", tag]
        if self.images.python:
            # Behind a proxy with an authority of its own only the host's network and certificates lead to an index.
            options += ["--network", "host", "--build-arg", f"BASE={self.images.python}"]
            if _SYSTEM_CERTIFICATES.exists():
                options += ["--secret", f"id=ca,src={_SYSTEM_CERTIFICATES}"]
        for name, value in (arguments or {}).items():
            options += ["--build-arg", f"{name}={value}"]
        self.run("build", *options, str(ROOT))

    def make_images(self) -> None:
        """Make the base images of Debian's packages."""
        self.run("import", _tar("python", _PYTHON), "localhost/gateway-tests/python")
        self.run("import", _tar("services", _SERVICES), "localhost/gateway-tests/services-base")
        self.run("build", "--tag", "localhost/gateway-tests/services", "-", text=_SERVICES_FILE)
        self.images = Images("localhost/gateway-tests/python", "localhost/gateway-tests/services")

    def _find_compose(self) -> list[str]:
        if self.run("compose", "version", check=False).returncode == 0:
            return [self._docker, "compose"]
        return [str(built(_COMPOSE))]

    @staticmethod
    def _call(
        command: Sequence[str], environment: Mapping[str, str], *, text: str = "", check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=dict(environment),
            input=text,
            capture_output=True,
            text=True,
            check=False,
            timeout=_TIMEOUT_S,
        )
        if check and done.returncode:
            raise AssertionError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return done


@contextmanager
def container_engine() -> Iterator[ContainerEngine]:
    """Hand out an engine until the block ends.

    Raises:
        UnavailableError: if there is none and none can be started.
    """
    own = shutil.which("docker")
    if own is not None and (engine := ContainerEngine(own)).run("info", check=False).returncode == 0:
        yield engine
        return
    with _own_daemon() as engine:
        engine.make_images()
        yield engine


@contextmanager
def _own_daemon() -> Iterator[ContainerEngine]:
    """Run a daemon whose socket, data and processes are apart from any other's."""
    path = f"/usr/bin:/usr/sbin:{os.environ['PATH']}"
    daemon, docker = shutil.which("dockerd", path=path), shutil.which("docker", path=path)
    if daemon is None or docker is None or shutil.which("mmdebstrap") is None:
        raise UnavailableError("no Docker runs here, and to start one dockerd, docker and mmdebstrap are needed")
    if os.geteuid() != 0:
        raise UnavailableError("no Docker runs here, and starting one takes root")
    folder = Path(tempfile.mkdtemp(prefix="gateway-docker-"))
    links, rules = {link.name for link in _LINKS.iterdir()}, _output("iptables-save")
    socket = folder / "docker.sock"
    options = [f"--host=unix://{socket}", f"--data-root={folder}/data", f"--exec-root={folder}/run"]
    options += [f"--pidfile={folder}/pid", "--default-ulimit=nofile=20000:20000"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([daemon, *options], stdout=log, stderr=log)
    try:
        engine = ContainerEngine(docker, host=f"unix://{socket}")
        deadline = time.monotonic() + _START_TIMEOUT_S
        while engine.run("info", check=False).returncode:
            if process.poll() is not None or time.monotonic() > deadline:
                last = (folder / "log").read_text().strip().splitlines()[-1:]
                raise UnavailableError(f"dockerd does not start: {' '.join(last)}")
            time.sleep(0.2)
        yield engine
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(timeout=_START_TIMEOUT_S)
        # A daemon leaves its bridges and rules behind; this machine shall be as it was.
        for link in sorted({link.name for link in _LINKS.iterdir()} - links):
            if link.startswith(("docker", "br-")):
                _output("ip", "link", "delete", link)
        _output("iptables-restore", text=rules or _NO_RULES)
        shutil.rmtree(folder, ignore_errors=True)


def _output(*command: str, text: str = "") -> str:
    """Return what a command of the system prints, nothing if it fails or is missing."""
    try:
        done = subprocess.run(
            command, input=text, capture_output=True, text=True, check=False, timeout=_START_TIMEOUT_S
        )
    except FileNotFoundError:
        return ""
    return done.stdout


def _tar(name: str, packages: str) -> str:
    """Return a root file system with *packages*, made once."""
    found = CACHE / f"{name}-{_SUITE}.tar"
    if not found.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        unfinished = found.with_suffix(f".{os.getpid()}")
        command = ["mmdebstrap", "--variant=minbase", f"--include={packages}", "--format=tar", _SUITE, str(unfinished)]
        made = subprocess.run(command, cwd=CACHE, capture_output=True, text=True, check=False, timeout=2 * _TIMEOUT_S)
        if made.returncode:
            last = " ".join(made.stderr.strip().splitlines()[-3:])
            raise UnavailableError(f"Debian's packages for {name} can't be had: {last}")
        unfinished.replace(found)
    return str(found)
