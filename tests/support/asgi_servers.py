"""ASGI servers for tests: uvicorn on a free port of the loopback, and a strict one without sockets, moved by hand.

Both run in this event loop.
"""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn

from tests.support.waiting import until

Scope = dict[str, Any]
Message = dict[str, Any]


class _Uvicorn(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the tests."""
        yield


class Served:
    """An application that is being served, and where."""

    def __init__(self, address: str, server: uvicorn.Server) -> None:
        self.url = f"http://{address}"
        self.ws_url = f"ws://{address}"
        self._server = server

    def stop(self) -> None:
        """Ask the server to stop, as SIGTERM does."""
        self._server.should_exit = True


@asynccontextmanager
async def served(app: Any, *, ws: str = "auto", port: int = 0, **options: Any) -> AsyncIterator[Served]:
    """Serve *app* until the block ends, on a free port or on *port*; *ws* names uvicorn's WebSocket implementation."""
    listener = socket.create_server(("127.0.0.1", port))
    given: dict[str, Any] = {"lifespan": "on", "log_config": None, "timeout_graceful_shutdown": 5} | options
    with contextlib.closing(listener):
        server = _Uvicorn(uvicorn.Config(app, ws=ws, **given))
        async with _running(server, listener):
            yield Served(f"127.0.0.1:{listener.getsockname()[1]}", server)


@asynccontextmanager
async def _running(server: uvicorn.Server, listener: socket.socket) -> AsyncIterator[None]:
    running = asyncio.create_task(server.serve(sockets=[listener]), name="uvicorn")
    try:
        await until(lambda: server.started or running.done(), "uvicorn has started")
        if running.done():
            running.result()
        assert server.started, "uvicorn ended before it had started: the application's lifespan failed"
        yield
    finally:
        server.should_exit = True
        await running


class StrictServer:
    """One WebSocket connection of an ASGI server that knows the specification and nothing else.

    It fails the test for a message out of order, of another type or shape, and after the end.
    """

    def __init__(
        self,
        app: Callable[[Scope, Any, Any], Awaitable[None]],
        path: str = "/connection/websocket",
        **scope: Any,
    ) -> None:
        self.sent: list[Message] = []
        """What the application has sent."""
        self.scope: Scope = {
            "type": "websocket",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "scheme": "ws",
            "path": path,
            "query_string": b"",
            "root_path": "",
            "headers": [(b"host", b"test")],
            "client": ("192.0.2.7", 4711),
            "server": ("192.0.2.1", 80),
            "subprotocols": [],
        } | scope
        self.is_taking = asyncio.Event()
        """Whether `send` returns; cleared it is a client that does not read."""
        self.is_taking.set()
        self.is_cut = False
        """Whether `send` raises, as it does once the client has gone."""
        self._state = "connecting"
        self._coming: asyncio.Queue[Message] = asyncio.Queue()
        self.give({"type": "websocket.connect"})
        self._running = asyncio.ensure_future(app(self.scope, self._receive, self._send))

    # What a test does.

    def give(self, message: Message) -> None:
        """Have the application receive *message*."""
        self._coming.put_nowait(message)

    def say(self, text: str) -> None:
        """Have the client send a text message."""
        self.give({"type": "websocket.receive", "text": text})

    def leave(self, code: int = 1000, reason: str = "") -> None:
        """Have the client close."""
        self.give({"type": "websocket.disconnect", "code": code, "reason": reason})

    async def told(self, count: int) -> list[Message]:
        """Wait until the application has sent *count* messages, and return all it has."""
        await until(lambda: len(self.sent) >= count or self._running.done(), f"{count} messages; there are {self.sent}")
        return self.sent

    async def texts(self, count: int) -> list[str]:
        """Wait for *count* text messages behind the acceptance, and return them."""
        return [message["text"] for message in (await self.told(count + 1))[1:]]

    async def ended(self) -> None:
        """Wait until the application has returned."""
        await until(self._running.done, f"the application returns; it has sent {self.sent}")
        self._running.result()

    async def cancel(self) -> None:
        """Cancel the application, as servers do that stop."""
        self._running.cancel()
        await asyncio.wait([self._running])
        assert self._running.cancelled(), "a server's cancel was swallowed"

    @property
    def unread(self) -> int:
        """How many messages the application has not asked for."""
        return self._coming.qsize()

    # What the application calls.

    async def _receive(self) -> Message:
        return await self._coming.get()

    async def _send(self, message: Message) -> None:
        self._check(message)
        await self.is_taking.wait()
        if self.is_cut:
            raise ConnectionResetError("the client has gone")
        self.sent.append(message)

    def _check(self, message: Message) -> None:
        kind, state = message["type"], self._state
        allowed = {
            "connecting": {"websocket.accept", "websocket.close", "websocket.http.response.start"},
            "open": {"websocket.send", "websocket.close"},
            "refusing": {"websocket.http.response.body"},
            "over": set[str](),
        }[state]
        assert kind in allowed, f"{message} in the state {state}, behind {self.sent}"
        match kind:
            case "websocket.accept":
                assert message.get("subprotocol") in (None, *self.scope["subprotocols"])
                self._state = "open"
            case "websocket.send":
                text, data = message.get("text"), message.get("bytes")
                assert (text is None) != (data is None), f"either text or bytes: {message}"
                assert isinstance(text, str) or type(data) is bytes, f"of another type: {message}"
            case "websocket.close":
                assert isinstance(message.get("code", 1000), int)
                assert len((message.get("reason") or "").encode()) <= 123
                self._state = "over"
            case "websocket.http.response.start":
                assert "websocket.http.response" in self.scope.get("extensions", {}), "the server can't do that"
                assert all(name == name.lower() for name, _ in message["headers"])
                self._state = "refusing"
            case _:
                assert isinstance(message["body"], bytes)
                self._state = "refusing" if message.get("more_body") else "over"
