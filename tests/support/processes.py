"""The gateway as processes of their own, started and stopped by id, and plain HTTP requests to what they serve."""

import asyncio
import contextlib
import http.client
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, NamedTuple
from urllib.parse import urlsplit

GATEWAY = (sys.executable, "-m", "gateway")
# Generous, since they only bound a failing test.
_START_TIMEOUT_S = 30
_STOP_TIMEOUT_S = 15


class Answer(NamedTuple):
    """An HTTP response. Names of headers are in small letters."""

    status: int
    headers: dict[str, str]
    text: str


async def ask(url: str, *, method: str = "GET", headers: Mapping[str, str] | None = None) -> Answer:
    """Send one plain HTTP request and return what comes back, whatever its status."""

    def exchange() -> Answer:
        parts = urlsplit(url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=_START_TIMEOUT_S)
        with contextlib.closing(connection):
            path = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
            connection.request(method, path, headers=dict(headers or {}))
            response = connection.getresponse()
            named = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, named, response.read().decode())

    return await asyncio.to_thread(exchange)


class Finished(NamedTuple):
    """What a command that has ended left behind."""

    code: int
    out: str
    err: str


async def run(*arguments: str, environment: Mapping[str, str] | None = None) -> Finished:
    """Run one `gateway` command to its end."""
    return await run_program(*GATEWAY, *arguments, environment=environment)


async def run_program(
    *command: str, environment: Mapping[str, str] | None = None, timeout_s: float = _START_TIMEOUT_S
) -> Finished:
    """Run one command to its end; it is killed, and the test fails, if that takes too long."""
    process = await _start(command, environment)
    try:
        async with asyncio.timeout(timeout_s):
            out, err = await process.communicate()
    except TimeoutError:
        process.kill()
        out, err = await process.communicate()
        raise AssertionError(f"{command} did not end; it said {out!r} and {err!r}") from None
    return Finished(_code(process), out.decode(), err.decode())


class ServingProcess:
    """A `gateway serve` that has started."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.out = ""
        self.lines: list[str] = []
        """What it wrote to standard error so far."""
        self._process = process
        self._written = asyncio.Condition()
        self._readers = [asyncio.create_task(self._read_out()), asyncio.create_task(self._read_lines())]

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.returncode is None

    @property
    def events(self) -> list[dict[str, Any]]:
        """What it has logged so far; lines that are no JSON are left out, `lines` has them."""
        found = []
        for line in self.lines:
            with contextlib.suppress(json.JSONDecodeError):
                found.append(json.loads(line))
        return found

    async def logged(self, event: str) -> dict[str, Any]:
        """Wait for the line of *event* and return it."""
        try:
            async with asyncio.timeout(_START_TIMEOUT_S), self._written:
                while not (found := [each for each in self.events if each.get("event") == event]):
                    if self._readers[1].done():
                        raise AssertionError(f"it ended without {event!r} and wrote {self.lines}")
                    await self._written.wait()
        except TimeoutError:
            raise AssertionError(f"no {event!r} in {self.lines}") from None
        return found[0]

    @property
    def address(self) -> str:
        """The public address as the log names it."""
        return str(self._started["public"])

    @property
    def internal_url(self) -> str:
        """The address of health checks and metrics."""
        return f"http://{self._started['internal']}"

    @property
    def _started(self) -> dict[str, Any]:
        return next(each for each in self.events if each.get("event") == "started")

    def send(self, signum: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(signum)

    async def ended(self, *, patience_s: float = _STOP_TIMEOUT_S) -> int:
        """Wait until it has ended and return its exit code, which is negative when a signal ended it."""
        try:
            async with asyncio.timeout(patience_s):
                await self._process.wait()
                await asyncio.gather(*self._readers)
        except TimeoutError:
            raise AssertionError(f"it does not end; it wrote {self.lines}") from None
        return _code(self._process)

    async def stop(self) -> int:
        """Ask it to stop, wait until it has, and return its exit code."""
        if self._process.returncode is None:
            self.send(signal.SIGTERM)
        return await self.ended()

    async def release(self) -> None:
        """End it in any case."""
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()
        await asyncio.gather(*self._readers)

    async def _read_out(self) -> None:
        stream = _stream(self._process.stdout)
        while data := await stream.read(65536):
            self.out += data.decode()

    async def _read_lines(self) -> None:
        stream = _stream(self._process.stderr)
        while line := await stream.readline():
            async with self._written:
                self.lines.append(line.decode().rstrip("\n"))
                self._written.notify_all()
        async with self._written:
            self._written.notify_all()


@asynccontextmanager
async def serving(*arguments: str, environment: Mapping[str, str] | None = None) -> AsyncIterator[ServingProcess]:
    """Run `gateway serve` with *arguments* on free ports (unless they name others) until the block ends.

    A process that the block has not ended itself is stopped with SIGTERM and must exit with 0.
    """
    ports = [] if "--port" in arguments else ["--port", "0"]
    ports += [] if "--internal-port" in arguments else ["--internal-port", "0"]
    process = ServingProcess(await _start((*GATEWAY, "serve", *arguments, *ports), environment))
    try:
        await process.logged("started")
        yield process
        if process.is_running:
            code = await process.stop()
            assert code == 0, f"it exited with {code} and wrote {process.lines}"
    finally:
        await process.release()


async def _start(command: tuple[str, ...], environment: Mapping[str, str] | None) -> asyncio.subprocess.Process:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
    return await asyncio.create_subprocess_exec(
        *command,
        env=clean | dict(environment or {}),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


def _stream(stream: asyncio.StreamReader | None) -> asyncio.StreamReader:
    if stream is None:
        raise AssertionError("every process here is started with pipes")
    return stream


def _code(process: asyncio.subprocess.Process) -> int:
    if process.returncode is None:
        raise AssertionError("asked for the exit code of a process that runs")
    return process.returncode
