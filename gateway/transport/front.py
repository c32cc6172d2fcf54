"""Accepts the connections of a listening socket whose proxies begin each one with a PROXY header.

Theory of operation. The header comes before everything else, TLS included, so it has to be read before the event loop
gets the socket: a TLS record that came with it in one packet can't be put back. It is looked at in the kernel
(`MSG_PEEK`), and only what belongs to it is taken out. Then the loop gets the socket as if it had accepted it. Without
the PROXY protocol none of this runs: the listening socket is the loop's own.
"""

import asyncio
import errno
import socket
import ssl
from collections.abc import Callable
from typing import Final

from gateway.transport.proxy_header import LONGEST_2, HeaderReader, ProxyHeaderError

_ACCEPTS_A_TURN: Final = 128
_PAUSE_S: Final = 1.0
"""How long to accept nothing when there are no descriptors left, as asyncio does."""
_EXHAUSTED: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

Make = Callable[[str | None], asyncio.Protocol]
"""Makes the protocol of a connection, for the address that its header names, `None` where there is none."""


class ProxyFront:
    """The server of one listening socket; uvicorn stops it as it stops asyncio's.

    *trusts* tells, for the address of a peer, whether it is a proxy, whose header must come within *timeout_s*.
    *refused* is told the reason and the peer of each one that does not begin with a good one.
    """

    def __init__(
        self,
        listener: socket.socket,
        make: Make,
        *,
        trusts: Callable[[str], bool],
        timeout_s: float,
        refused: Callable[[str, str], None],
        context: ssl.SSLContext | None,
    ) -> None:
        listener.setblocking(False)  # noqa: FBT003 - that is how it is called
        self._listener = listener
        self._make = make
        self._trusts = trusts
        self._timeout_s = timeout_s
        self._refused = refused
        self._context = context
        self._loop = asyncio.get_running_loop()
        self._pause: asyncio.TimerHandle | None = None
        self._arriving: set[asyncio.Task[None]] = set()
        self._is_closed = False
        self._loop.add_reader(listener, self._accept)

    def close(self) -> None:
        """Accept nothing more; who is being let in still gets in."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._listener)
        self._listener.close()

    async def wait_closed(self) -> None:
        """Give up those who are not in yet, and wait until they have gone; a second time does nothing."""
        for task in self._arriving:
            task.cancel()
        if self._arriving:
            await asyncio.wait(self._arriving)

    # One connection.

    def _accept(self) -> None:
        for _ in range(_ACCEPTS_A_TURN):
            try:
                connection, address = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _EXHAUSTED:
                    raise
                self._loop.remove_reader(self._listener)
                self._pause = self._loop.call_later(_PAUSE_S, self._resume)
                return
            connection.setblocking(False)  # noqa: FBT003 - as above
            peer = address[0] if isinstance(address, tuple) else ""
            task = self._loop.create_task(self._let_in(connection, peer), name="arrival")
            self._arriving.add(task)
            task.add_done_callback(self._arriving.discard)

    def _resume(self) -> None:
        self._pause = None
        self._loop.add_reader(self._listener, self._accept)

    async def _let_in(self, connection: socket.socket, peer: str) -> None:
        """Read the header, if there must be one, and hand the socket over to the loop."""
        is_handed_over = False
        try:
            source = await self._read_header(connection) if self._trusts(peer) else None
            is_handed_over = True  # the loop closes it, whatever becomes of it
            await self._loop.connect_accepted_socket(lambda: self._make(source), connection, ssl=self._context)
        except ProxyHeaderError:
            self._refused("proxy_header", peer)
        except TimeoutError:
            if not is_handed_over:
                self._refused("proxy_header_timeout", peer)
        except OSError:
            pass  # it has gone, or its TLS handshake failed
        finally:
            if not is_handed_over:
                connection.close()

    async def _read_header(self, connection: socket.socket) -> str | None:
        reader = HeaderReader()
        async with asyncio.timeout(self._timeout_s):
            while not reader.is_complete:
                try:
                    waiting = connection.recv(LONGEST_2, socket.MSG_PEEK)
                except BlockingIOError:
                    await self._readable(connection)
                    continue
                if not waiting:
                    if not reader.has_begun:
                        raise ConnectionResetError("a balancer that looks whether somebody listens")
                    raise ProxyHeaderError("the connection ended within it")
                connection.recv(reader.feed(waiting))
        return reader.source

    async def _readable(self, connection: socket.socket) -> None:
        has_come = asyncio.Event()
        self._loop.add_reader(connection, has_come.set)
        try:
            await has_come.wait()
        finally:
            self._loop.remove_reader(connection)
