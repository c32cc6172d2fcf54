"""A response's head and the first part of its body in one write.

uvicorn writes the head when the application starts its response, and each write is a send() of the kernel: two for a
short answer, which is most of what one costs (tests/benchmarks/api). ASGI lets a server keep the head until the first
part of the body comes.
"""

import asyncio
from typing import Final

_INTERIM: Final = b"HTTP/1.1 1"


class JoinedWriter:
    """Stands between one response and its *transport*; it is given the head in one write, as uvicorn does it."""

    __slots__ = ("_head", "_is_begun", "_transport")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._head = b""
        self._is_begun = False

    def write(self, data: bytes) -> None:
        """Keep the head; write what follows behind it."""
        if self._is_begun:
            head, self._head = self._head, b""
            self._transport.write(head + data if head else data)
        elif data.startswith(_INTERIM):  # 100 Continue, which the client waits for
            self._transport.write(data)
        else:
            self._is_begun = True
            self._head = data

    def is_closing(self) -> bool:
        """Tell whether the transport closes."""
        return self._transport.is_closing()

    def close(self) -> None:
        """Close the transport, behind a head that nothing has followed."""
        if self._head:
            self.write(b"")
        self._transport.close()
