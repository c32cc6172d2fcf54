"""The servers of one measurement as processes: started on a free port, read while they run, ended by their ids."""

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import string
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, assert_never

from loadtest.peers.catalogue import SERVERS, DebianPackages, NodePackages, Peer, PythonPackages, ThisCheckout

HOST: Final = "127.0.0.1"
_START_TIMEOUT_S: Final = 30
_STOP_TIMEOUT_S: Final = 15
_PAUSE_S: Final = 0.05
_LAST_WORDS: Final = 40
_KILOBYTE: Final = 1000
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


class ServerError(Exception):
    """Why a server does not run, in one sentence."""


class Server:
    """A process with its children, listening on a port of this machine."""

    def __init__(self, process: asyncio.subprocess.Process, port: int, log: Path) -> None:
        self.port = port
        self._process = process
        self._log = log

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        return HOST, self.port

    def cpu_s(self) -> float:
        """Return the CPU time that it has taken so far."""
        return sum(map(_cpu_s, self._pids()))

    def memory_kb(self) -> float:
        """Return what it holds in memory."""
        return sum(map(_memory_bytes, self._pids())) / _KILOBYTE

    async def listens(self) -> None:
        """Wait until it takes connections.

        Raises:
            ServerError: if it ends instead, or does not within half a minute.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_START_TIMEOUT_S):
                while self._process.returncode is None:
                    with contextlib.suppress(OSError):
                        _, writer = await asyncio.open_connection(*self.address)
                        writer.close()
                        return
                    await asyncio.sleep(_PAUSE_S)
        last = self._log.read_text(encoding="utf-8", errors="replace").split()[-_LAST_WORDS:]
        raise ServerError(f"the server did not start: {' '.join(last) or 'it said nothing'}")

    async def end(self) -> None:
        """Have it end, by force if it does not, and its children with it."""
        if self._process.returncode is None:
            self._process.terminate()
        try:
            async with asyncio.timeout(_STOP_TIMEOUT_S):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
        # It leads a group of its own, so what is left there is its own, too.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def _pids(self) -> list[int]:
        pids = [self._process.pid]
        for pid in pids:  # it grows: children have children
            with contextlib.suppress(OSError):
                pids += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split())
        return pids


@asynccontextmanager
async def running(command: Sequence[str], port: int, folder: Path, **environment: str) -> AsyncIterator[Server]:
    """Run *command*, which listens on *port*, until the block ends.

    Raises:
        ServerError: if it does not start.
    """
    log = folder / f"{port}.log"
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
    with log.open("wb") as stream:
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                env=clean | environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                start_new_session=True,  # a Ctrl-C is for us, who end it in order; and it leads a group
            )
        except OSError as error:
            raise ServerError(f"{command[0]}: {(error.strerror or 'failed').lower()}") from None
    server = Server(process, port, log)
    try:
        await server.listens()
        yield server
    finally:
        await server.end()


@asynccontextmanager
async def redis(folder: Path) -> AsyncIterator[Server]:
    """Run a redis-server that keeps nothing until the block ends.

    Raises:
        ServerError: if there is none on the path, or it does not start.
    """
    program = shutil.which("redis-server")
    if program is None:
        raise ServerError("it needs redis-server: apt-get install redis-server")
    port = free_port()
    options = ["--bind", HOST, "--port", str(port), "--save", "", "--dir", str(folder), "--loglevel", "warning"]
    async with running([program, *options], port, folder) as server:
        yield server


def peer_command(
    peer: Peer, installed: Path, *, port: int, redis_port: int | None, folder: Path
) -> tuple[list[str], Mapping[str, str]]:
    """Return how *peer* is started on *port*: the command, and what is added to the environment."""
    script = SERVERS / peer.script
    match peer.needs:
        case PythonPackages():
            # -P: the script's folder is no place to import from, its name may be that of a package.
            ports = [str(each) for each in (port, redis_port) if each is not None]
            return [str(installed / "bin" / "python"), "-P", str(script), *ports], {}
        case NodePackages():
            # Node.js looks for packages where the script is.
            copy = installed / peer.script
            shutil.copyfile(script, copy)
            return ["node", str(copy), str(port)], {"NODE_ENV": "production"}
        case DebianPackages():
            module = next(installed.glob("usr/lib/nginx/modules/ngx_nchan_module.so"), "")
            template = string.Template(script.read_text(encoding="utf-8"))
            config = folder / "nginx.conf"
            config.write_text(template.substitute(port=port, folder=folder, module=module), encoding="utf-8")
            nginx = str(installed / "usr" / "sbin" / "nginx")
            return [nginx, "-p", str(folder), "-c", str(config), "-e", str(folder / "error.log")], {}
        case ThisCheckout():
            command = [sys.executable, "-m", "gateway", "serve", "--config", str(script), "--port", str(port)]
            if redis_port is None:
                return command, {}
            broker = {"GATEWAY_BROKER__TYPE": "redis", "GATEWAY_REDIS__ADDRESS": f"redis://{HOST}:{redis_port}"}
            return command, broker
        case _:
            assert_never(peer.needs)


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.create_server((HOST, 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def _cpu_s(pid: int) -> float:
    """Return the CPU time of all threads of a process, to the nanosecond (/proc counts in hundredths of a second)."""
    # clock_getcpuclockid(3) as Linux computes it: the inverted process id above three bits that name the clock.
    try:
        return time.clock_gettime((~pid << 3) | 2)
    except OSError:
        return 0.0


def _memory_bytes(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * _PAGE_BYTES
    except OSError:
        return 0
