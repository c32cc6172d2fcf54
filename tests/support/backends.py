"""Backends that a gateway asks: a real one on a free port, and one without a network."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, NamedTuple

from gateway.proxies.port import BackendError, Headers, Response, UnreachableError
from gateway.proxies.settings import ProxySettings

INTERNAL: Final = {"code": 100, "message": "internal server error", "temporary": True}
"""What a client is told when the backend said nothing that could be used."""
CUSTOM: Final = {"code": 1000, "message": "custom", "temporary": True}
OUT: Final = {"code": 4501, "reason": "unauthorized"}
FAILURES: Final = (UnreachableError("refused"), Response(500, b""), Response(404, b""), Response(200, b"<html>"))


def proxied(path: str, **more: Any) -> dict[str, Any]:
    """Return the table of a proxy for a path of a `FakeBackend`."""
    return {"endpoint": f"http://backend{path}", **more}


class Asked(NamedTuple):
    """One request that came."""

    path: str
    headers: list[tuple[str, str]]
    """Names in lower case."""
    body: bytes

    @property
    def event(self) -> dict[str, Any]:
        event: dict[str, Any] = json.loads(self.body)
        return event

    def header(self, name: str) -> list[str]:
        return [value for each, value in self.headers if each == name]


def answer(value: Any, *, status: int = 200) -> bytes:
    """Return a whole HTTP response that holds *value*, as JSON unless it is bytes."""
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    return b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body)


Say = Callable[[asyncio.StreamWriter], Any]
"""Writes an answer; what it returns is awaited, if it can be."""


class HTTPServer:
    """A backend that answers each path as the test says: bytes as they are, else a whole answer as JSON."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.answers: dict[str, Any] = {}
        self.connections = 0
        """How many have come so far."""
        self.open = 0
        """How many of them are there."""
        self.port = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def url(self, path: str = "/") -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def about(self, path: str) -> list[dict[str, Any]]:
        """Return the events that came at *path*."""
        return [each.event for each in self.asked if each.path == path]

    async def start(self) -> None:
        """Listen, at the same port again if it has listened before."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Refuse connections, and cut those that are there."""
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        self.open += 1
        try:
            while not writer.is_closing():
                asked = await _request(reader)
                self.asked.append(asked)
                said = self.answers.get(asked.path, {})
                if callable(said):
                    coroutine = said(writer)
                    if asyncio.iscoroutine(coroutine):
                        await coroutine
                else:
                    writer.write(said if isinstance(said, bytes) else answer(said))
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self.open -= 1
            self._tasks.discard(task)
            writer.transport.abort()


async def _request(reader: asyncio.StreamReader) -> Asked:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    line, *lines = head.split("\r\n")[:-2]
    headers = [(name.lower(), value.strip()) for name, _, value in (each.partition(":") for each in lines)]
    method, path, _ = line.split(" ")
    assert method == "POST"
    size = int(next(value for name, value in headers if name == "content-length"))
    return Asked(path, headers, await reader.readexactly(size))


@asynccontextmanager
async def backend(answers: Mapping[str, Any] | None = None) -> AsyncIterator[HTTPServer]:
    """Run a backend that gives *answers* by path."""
    server = HTTPServer()
    server.answers.update(answers or {})
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


class FakeBackend:
    """A backend without a network, for all proxies of a node: answers by endpoint, when the test lets it."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {}
        """A value that is answered as JSON, a `Response`, or a `BackendError`, by path."""
        self.asked: list[Asked] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.closed: list[str] = []

    def make(self, settings: ProxySettings) -> "FakeEndpoint":
        return FakeEndpoint(self, settings.endpoint.removeprefix("http://backend"))

    def about(self, path: str) -> list[dict[str, Any]]:
        return [each.event for each in self.asked if each.path == path]


class FakeEndpoint:
    """One path of it."""

    def __init__(self, backend: FakeBackend, path: str) -> None:
        self._backend = backend
        self._path = path

    async def post(self, body: bytes, headers: Headers) -> Response:
        backend = self._backend
        backend.asked.append(Asked(self._path, [(name.lower(), value) for name, value in headers], body))
        await backend.gate.wait()
        said = backend.answers[self._path]
        if isinstance(said, BackendError):
            # A new one each time: one that a table holds would keep its traceback, and with that all of a test's house.
            raise type(said)(*said.args)
        return said if isinstance(said, Response) else Response(200, json.dumps(said).encode())

    async def close(self) -> None:
        self._backend.closed.append(self._path)
