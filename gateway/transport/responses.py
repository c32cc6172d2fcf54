"""A response's head and the first part of its body in one write, and streams that write for themselves.

uvicorn writes the head when the application starts its response, and each write is a send() of the kernel: two for a
short answer, which is most of what one costs (tests/benchmarks/api). ASGI lets a server keep the head until the first
part of the body comes.
"""

import asyncio
from typing import Final, Protocol

WRITER: Final = "gateway.writer"
"""Where an application finds the writer of its response, in the scope."""
_INTERIM: Final = b"HTTP/1.1 1"


class Loss(Protocol):
    """Takes note that a connection is no more."""

    def __call__(self, *, is_orderly: bool) -> None:
        """*is_orderly* tells that the client has closed it, and nothing has cut it."""


class JoinedWriter:
    """Stands between one response and its *transport*; it is given the head in one write, as uvicorn does it."""

    __slots__ = ("_head", "_is_begun", "_is_severed", "transport", "was_congested", "when_lost")

    def __init__(self, transport: asyncio.Transport) -> None:
        self.transport = transport
        self._head = b""
        self._is_begun = self._is_severed = False
        self.when_lost: Loss | None = None
        """Told when the connection goes while this response is not complete."""
        self.was_congested = False
        """Whether something waited for the client then, beyond what the transport may buffer without a word."""

    def write(self, data: bytes) -> None:
        """Keep the head; write what follows behind it."""
        if self._is_severed:
            return
        if self._is_begun:
            head, self._head = self._head, b""
            self.transport.write(head + data if head else data)
        elif data.startswith(_INTERIM):  # 100 Continue, which the client waits for
            self.transport.write(data)
        else:
            self._is_begun = True
            self._head = data

    def keep(self, data: bytes) -> None:
        """Keep *data* as well, which follows the head."""
        self._head += data

    def flush(self) -> None:
        """Write what is kept."""
        if self._head:
            self.write(b"")

    def is_closing(self) -> bool:
        """Tell whether nothing can be written any more."""
        return self._is_severed or self.transport.is_closing()

    def sever(self) -> None:
        """Write nothing more: what goes out from now on is not this response."""
        self._is_severed = True

    def close(self) -> None:
        """Close the transport, behind a head that nothing has followed."""
        self.flush()
        self.transport.close()

    def lost(self, *, is_orderly: bool, was_congested: bool) -> None:
        """Take note that the connection is no more."""
        self.was_congested = was_congested
        if self.when_lost is not None:
            self.when_lost(is_orderly=is_orderly)
