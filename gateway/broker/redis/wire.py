"""One connection to Redis: bytes in, replies out, and the moment at which it was last heard of."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Protocol, cast

import hiredis

from gateway.broker.redis.counts import RedisCounts


def pack(*parts: str | bytes | float) -> bytes:
    """Return a command as Redis reads it."""
    packed: bytes = hiredis.pack_command(parts)  # type: ignore[arg-type]  # its stub allows one part only
    return packed


class ReplyReader(Protocol):
    """Takes the replies that have come."""

    def read(self, reader: hiredis.Reader) -> None:
        """Take replies from *reader* until it returns `False`."""


class Handler(ReplyReader, Protocol):
    """What uses a connection, once it is ready, until it is lost."""

    def lost(self) -> None:
        """Take note that the connection is gone; no reply comes any more."""


class Wire(asyncio.Protocol):
    """A connection in RESP2. Make it with `Endpoint.connect`, `exchange` the greeting, then `attach` the handler."""

    def __init__(self, counts: RedisCounts, monotonic: Callable[[], float]) -> None:
        self.heard_at_s = monotonic()
        """When bytes came last."""
        self.reason = ""
        """Why it was lost."""
        self.closed = asyncio.Event()
        self._counts = counts
        self._monotonic = monotonic
        self._reader = hiredis.Reader()
        self._transport: asyncio.Transport | None = None
        self._handler: Handler | _Exchange | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Hand the replies in *data* over."""
        self.heard_at_s = self._monotonic()
        self._counts.bytes_in += len(data)
        if self._handler is None:
            self.drop("it speaks unasked")
            return
        self._reader.feed(data)
        try:
            self._handler.read(self._reader)
        except hiredis.ProtocolError:
            self.drop("it does not speak the Redis protocol")

    def connection_lost(self, exc: Exception | None) -> None:
        """Note the end."""
        self.drop(str(exc) if exc is not None else "the server closed the connection")

    def attach(self, handler: Handler) -> None:
        """Hand replies to *handler* from now on."""
        self._handler = handler

    def write(self, data: bytes) -> None:
        """Send *data*."""
        if self._transport is not None:
            self._counts.bytes_out += len(data)
            self._transport.write(data)

    def drop(self, reason: str) -> None:
        """Give the connection up; its handler hears of it in this call. Idempotent."""
        if self.closed.is_set():
            return
        self.reason = reason
        self.closed.set()
        handler, self._handler = self._handler, None
        if self._transport is not None:
            self._transport.abort()
            self._transport = None
        if handler is not None:
            handler.lost()

    async def exchange(self, commands: Sequence[bytes]) -> list[Any]:
        """Send packed *commands* and return their replies; a cancel leaves the connection unusable.

        Raises:
            ConnectionError: if it is lost meanwhile.
        """
        exchange = self._handler = _Exchange(len(commands))
        if self.closed.is_set():
            exchange.lost()
        self.write(b"".join(commands))
        await exchange.ended.wait()
        if len(exchange.replies) < len(commands):
            raise ConnectionError(self.reason)
        return exchange.replies


class _Exchange:
    """Collects a number of replies."""

    def __init__(self, count: int) -> None:
        self.replies: list[Any] = []
        self.ended = asyncio.Event()
        self._count = count

    def read(self, reader: hiredis.Reader) -> None:
        while len(self.replies) < self._count and (reply := reader.gets()) is not False:
            self.replies.append(reply)
        if len(self.replies) == self._count:
            self.ended.set()

    def lost(self) -> None:
        self.ended.set()
