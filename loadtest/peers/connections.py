"""A WebSocket of the load side: the upgrade, the greeting of its dialect, answers to pings."""

import asyncio
from collections.abc import Sequence
from typing import cast

from loadtest.peers.dialects import Dialect, Exchange
from loadtest.peers.frames import BINARY, CLOSE, PING, PONG, TEXT, Frame, client_frame, split_frames, upgrade_request


class ConnectionFailedError(Exception):
    """Why a connection was not opened, in one sentence."""


class Connection(asyncio.Protocol):
    """A WebSocket to *address* that is open once its greeting is over; what else arrives is left alone."""

    def __init__(self, address: tuple[str, int], path: str, greeting: Sequence[Exchange], dialect: Dialect) -> None:
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._request = upgrade_request(path, host=f"{address[0]}:{address[1]}")
        self._greeting = list(greeting)
        self.closed: str | None = None
        """Why the server has closed it; `None` while it is open."""
        self._dialect = dialect
        self._is_upgraded = False
        self._rest = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the WebSocket."""
        # uvloop's transports are none by inheritance.
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(self._request)

    def connection_lost(self, exc: Exception | None) -> None:
        """Note why, and tell whoever waits for the opening."""
        self.closed = self.closed or (f"the server closed it ({exc})" if exc else "the server closed it")
        self._fail(self.closed)

    def data_received(self, data: bytes) -> None:
        """Take what arrives, frame by frame."""
        data = self._rest + data
        if not self._is_upgraded:
            head, found, data = data.partition(b"\r\n\r\n")
            if not found:
                self._rest = head
                return
            status, _, _ = head.partition(b"\r\n")
            if not status.startswith(b"HTTP/1.1 101"):
                self._fail(f"the server answered {status.decode(errors='replace')!r}")
                self.abort()
                return
            self._is_upgraded = True
            self._go_on()
        frames, self._rest = split_frames(data)
        for frame in frames:
            self._take(frame)

    def send(self, message: bytes) -> None:
        """Send a text message; one to a connection that is gone is dropped."""
        self._write(TEXT, message)

    def abort(self) -> None:
        """Close it without a word."""
        if self._transport is not None:
            self._transport.abort()

    def _write(self, opcode: int, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(client_frame(opcode, data))

    def _take(self, frame: Frame) -> None:
        if frame.opcode == PING:
            self._write(PONG, frame.payload)
        elif frame.opcode == CLOSE:
            code, reason = int.from_bytes(frame.payload[:2]), frame.payload[2:].decode(errors="replace")
            self.closed = f"the server closed it with {code} {reason}".rstrip()
            self._write(CLOSE, frame.payload[:2])
        elif frame.opcode in (TEXT, BINARY):
            if self._greeting and frame.payload.startswith(self._greeting[0].until):
                del self._greeting[0]
                self._go_on()
            elif self._dialect.ping and self._dialect.ping in frame.payload.split(b"\n"):
                self.send(self._dialect.pong)

    def _go_on(self) -> None:
        """Say what is next in the greeting, which is over when there is nothing to wait for."""
        while self._greeting:
            if self._greeting[0].say:
                self.send(self._greeting[0].say)
            if self._greeting[0].until:
                return
            del self._greeting[0]
        if not self.opened.done():
            self.opened.set_result(None)

    def _fail(self, reason: str) -> None:
        if not self.opened.done():
            self.opened.set_exception(ConnectionFailedError(reason))
