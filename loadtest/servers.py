"""The servers that a run measures: those that the user names, or its own, on free ports, for as long as it lasts."""

import asyncio
import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import IO, Final

from loadtest.relay import Relay
from loadtest.results import Server

_START_TIMEOUT_S: Final = 30.0
_STOP_TIMEOUT_S: Final = 20.0
_LOOKS_EVERY_S: Final = 0.05
_CLUSTER_NODES: Final = 3
_LAST_LINES: Final = 5
_CONFIG: Final = """\
[http_server]
address = "127.0.0.1"
port = 0
internal_port = 0
[client]
command_rate = 0
[client.token]
hmac_secret_key = "{secret}"
[http_api]
key = "{api_key}"
[log]
format = "json"
level = "info"
[shutdown]
grace = "0s"
[drain]
window = "2s"
[[channel.namespaces]]
name = "load"
allow_subscribe_for_client = true
allow_publish_for_client = true
history_size = 10000
history_ttl = "10m"
force_recovery = true
[[channel.namespaces]]
name = "live"
allow_subscribe_for_client = true
allow_publish_for_client = true
[[channel.namespaces]]
name = "last"
allow_subscribe_for_client = true
allow_publish_for_client = true
history_size = 1
history_ttl = "10m"
force_recovery = true
force_recovery_mode = "cache"
"""


class ServerError(Exception):
    """Why a server can't be had, in one sentence."""


class Process:
    """A server that was started here, or that the user has named."""

    def __init__(
        self, server: Server, *, start: Sequence[str] = (), environment: Mapping[str, str] | None = None
    ) -> None:
        """*start* is the command that starts it anew; empty: it can't be."""
        self.server = server
        self.pid = server.pid
        self._start = start
        self._environment = dict(environment or {})
        self._child: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None

    @property
    def name(self) -> str:
        """What the user calls it."""
        return self.server.name

    @property
    def log(self) -> str:
        """What it has written, if it was started here."""
        if self._log is None:
            return ""
        self._log.seek(0)
        return self._log.read().decode(errors="replace")

    def start(self) -> None:
        """Start it; raises `ServerError` where that is not known, or fails."""
        if not self._start:
            raise ServerError(f"{self.name}: nobody has said how to start it; name its command as `start`")
        clean = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
        if self._log is None:
            self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed in `end`
        try:
            # Not by asyncio, which kills its children when its loop is closed: a server that the user has named and
            # that was started anew stays.
            self._child = subprocess.Popen(  # noqa: S603 - the user's own command, or ours
                self._start,
                env=clean | self._environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._log,
                start_new_session=True,  # a Ctrl-C is for the coordinator
            )
        except OSError as error:
            raise ServerError(f"{self.name} did not start: {self._start[0]}: {error.strerror}") from None
        self.pid = self._child.pid

    def signal(self, signum: signal.Signals) -> None:
        """Send it a signal; raises `ServerError` where there is nobody."""
        if self.pid is None:
            raise ServerError(f"{self.name}: its process id is not known; name it as `pid`")
        try:
            os.kill(self.pid, signum)
        except OSError as error:
            raise ServerError(f"{self.name} (process {self.pid}): {error.strerror}") from None

    async def kill(self) -> None:
        """Crash it, and wait until it is gone."""
        self.signal(signal.SIGKILL)
        if self._child is not None:
            await asyncio.to_thread(self._child.wait)

    def check(self) -> None:
        """Raise `ServerError` if it was started here and has ended."""
        if self._child is not None and self._child.poll() is not None:
            last = " | ".join(self.log.splitlines()[-_LAST_LINES:])
            raise ServerError(f"{self.name} ended with {self._child.returncode}: {last}")

    async def end(self) -> None:
        """Stop it, if it was started here."""
        child = self._child
        if child is not None and child.poll() is None:
            child.send_signal(signal.SIGCONT)
            child.terminate()
            try:
                await asyncio.to_thread(child.wait, _STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                child.kill()
                await asyncio.to_thread(child.wait)
        if self._log is not None:
            self._log.close()

    def rename(self, server: Server, start: Sequence[str]) -> None:
        """Know it by what has become known once it runs."""
        self.server = server
        self._start = start


class Servers:
    """All servers of a run."""

    def __init__(self, processes: Sequence[Process]) -> None:
        self.processes = {process.name: process for process in processes}
        self.links: dict[str, Relay] = {}
        """By the name of the node that each carries to Redis."""
        self.is_own = False
        self.hmac_secret = ""
        self.api_key = ""
        self.api_urls: list[str] = []

    @property
    def described(self) -> list[Server]:
        """What results tell of them."""
        return [process.server for process in self.processes.values()]

    @property
    def addresses(self) -> list[str]:
        """Where clients connect to."""
        return [server.address for server in self.described if server.address]


@asynccontextmanager
async def own_servers(*, is_cluster: bool) -> AsyncIterator[Servers]:
    """Run one node, or three on a Redis of their own, on free ports, until the block ends.

    Raises:
        ServerError: if they do not start.
    """
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="loadtest-")))
        servers = Servers([])
        servers.is_own = True
        servers.hmac_secret, servers.api_key = secrets.token_hex(32), secrets.token_hex(16)
        config = folder / "gateway.toml"
        config.write_text(_CONFIG.format(secret=servers.hmac_secret, api_key=servers.api_key), encoding="utf-8")
        if is_cluster:
            redis = _redis(folder)
            servers.processes[redis.name] = redis
            stack.push_async_callback(redis.end)
            redis.start()
            await _until(redis, (folder / "redis.sock").exists)
        for number in range(1, 1 + (_CLUSTER_NODES if is_cluster else 1)):
            name = f"node{number}"
            environment = {"GATEWAY_NODE__NAME": name}
            if is_cluster:
                relay = servers.links[name] = await stack.enter_async_context(Relay(folder / "redis.sock"))
                environment |= {"GATEWAY_BROKER__TYPE": "redis", "GATEWAY_REDIS__ADDRESS": f"redis://{relay.address}"}
            node = Process(
                Server(name=name),
                start=_node_command(config),
                environment=environment,
            )
            servers.processes[name] = node
            stack.push_async_callback(node.end)
            node.start()
        for process in servers.processes.values():
            if process.name != "redis":
                await _learn(process, config)
                servers.api_urls.append(process.server.metrics.replace("/metrics", "/api"))
        yield servers


def _node_command(config: Path) -> list[str]:
    return [sys.executable, "-m", "gateway", "serve", "--config", str(config)]


def _redis(folder: Path) -> Process:
    program = shutil.which("redis-server")
    if program is None:
        raise ServerError("--cluster needs redis-server, which is not on the path: apt-get install redis-server")
    # What it has acknowledged survives a kill of its process: it is in the kernel's hands by then.
    options = ["--port", "0", "--unixsocket", str(folder / "redis.sock"), "--dir", str(folder)]
    options += ["--save", "", "--appendonly", "yes", "--loglevel", "warning"]
    return Process(Server(name="redis"), start=[program, *options])


async def _learn(node: Process, config: Path) -> None:
    """Wait until *node* serves, and learn its ports; started anew it takes the same."""
    found: dict[str, str] = {}

    def has_started() -> bool:
        for line in node.log.splitlines():
            with contextlib.suppress(json.JSONDecodeError):
                event = json.loads(line)
                if event.get("event") == "started":
                    found.update(public=event["public"], internal=event["internal"])
        return bool(found)

    await _until(node, has_started)
    server = Server(
        name=node.name,
        address=f"ws://{found['public']}/connection/websocket",
        metrics=f"http://{found['internal']}/metrics",
        pid=node.pid,
    )
    ports = [address.rpartition(":")[2] for address in (found["public"], found["internal"])]
    command = [*_node_command(config), "--port", ports[0], "--internal-port", ports[1]]
    node.rename(server, command)


async def _until(process: Process, is_there: Callable[[], bool]) -> None:
    try:
        async with asyncio.timeout(_START_TIMEOUT_S):
            while not is_there():
                process.check()
                await asyncio.sleep(_LOOKS_EVERY_S)
    except TimeoutError:
        raise ServerError(f"{process.name} is not ready after {_START_TIMEOUT_S:.0f} s") from None
