"""A response that does not end, as a session's transport: what is offered goes out at once, for as long as one reads.

Two ways to the same end. On the node's own HTTP server a stream writes to the socket itself, in chunks that are made
once for all who get them: no task runs and nothing is copied for a publication (tests/benchmarks/http_streams has what
the other way costs), and what waits is what the socket has not taken, to the byte. On any other ASGI server it hands
over what waits in its own queue, part by part, to `send`.

    opening ──head──▶ open ──close()──▶ ending ──all is written, or the time is over──▶ over
                        └─────────────────the client has gone──────────────────────────┘
"""

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from typing import Any

from gateway.domain.counts import Lost
from gateway.protocol import codes
from gateway.protocol.codes import Disconnect
from gateway.protocol.stream_variants import LAST_CHUNK, chunk
from gateway.transport.ports import ClosedBy, Peer
from gateway.transport.requests import Headers, Receive, Scope, Send
from gateway.transport.responses import WRITER, JoinedWriter


class Stream(ABC):
    """One client's stream. It implements the Transport port; what the client sends comes by other ways.

    *address* is the client's. More than *queue_max_bytes* never wait, and at the end what was offered has
    *close_timeout_s* to get out.
    """

    __slots__ = ("_address", "_close_timeout_s", "_is_ending", "_peer", "_queue_max_bytes", "lost")

    def __init__(self, *, address: str, queue_max_bytes: int, close_timeout_s: float) -> None:
        self._address = address
        self._queue_max_bytes = queue_max_bytes
        self._close_timeout_s = close_timeout_s
        self._peer: Peer | None = None
        self._is_ending = False
        self.lost: Lost | None = None
        """How it came that some of what was offered was not written, if that is so."""

    @abstractmethod
    async def run(self, headers: Headers, preamble: bytes, converse: Callable[["Stream"], Peer], said: bytes) -> None:
        """Answer with *headers* and *preamble*, and return when the response is over.

        `converse` makes the peer, which takes what the client has *said* in its request.
        """

    @abstractmethod
    def _write(self, data: bytes) -> None:
        """Have *data* written, behind all that waits."""

    @abstractmethod
    def _end(self, last: bytes) -> None:
        """Have *last* written, and then the response ended."""

    def _begin(self, converse: Callable[["Stream"], Peer], said: bytes) -> None:
        peer = self._peer = converse(self)
        peer.receive(said, is_text=True)

    def _tell_closed(self, by: ClosedBy) -> None:
        peer, self._peer = self._peer, None
        if peer is not None:
            told = codes.CONNECTION_CLOSED
            peer.closed(code=told.code, reason=told.reason, by=by)

    # The Transport port.

    @property
    def peer_address(self) -> str:
        """Where the client comes from."""
        return self._address

    @property
    @abstractmethod
    def waiting(self) -> int:
        """How many bytes wait for the client to read on."""

    @property
    def is_congested(self) -> bool:
        """Whether any do."""
        return self.waiting > 0

    @property
    def room(self) -> int:
        """What the queue takes now, though an empty one takes any one message."""
        return self._queue_max_bytes - self.waiting

    def offer(self, data: bytes) -> bool:
        """Write *data*, unless more than the queue may hold waits already; an empty queue takes any one message."""
        waiting = self.waiting
        if waiting and waiting + len(data) > self._queue_max_bytes:
            return False
        if not self._is_ending:
            self._write(data)
        return True

    def dismiss(self, disconnect: Disconnect) -> None:
        """End the stream through its peer, which has more to take apart."""
        if self._peer is not None:
            self._peer.disconnect(disconnect)

    def tell_gap(self, channel: str) -> None:
        """Have the peer told that publications of *channel* are lost."""
        if self._peer is not None:
            self._peer.tell_gap(channel)

    def close(self, disconnect: Disconnect, last: bytes = b"") -> None:
        """End the response behind what was offered and *last*, which has to say why: a response can't."""
        del disconnect
        self._peer = None
        if not self._is_ending:
            self._is_ending = True
            self._end(last)

    def ping(self) -> None:  # noqa: B027 - that is all there is to do
        """Do nothing: a response has no pings of its own."""

    def pause_reading(self) -> None:  # noqa: B027 - the same
        """Do nothing: nothing is read from a client here."""

    def resume_reading(self) -> None:  # noqa: B027 - the same
        """Do nothing, for the same reason."""


class SocketStream(Stream):
    """A stream on the node's own HTTP server, which has put the response's writer into the *scope*."""

    __slots__ = ("_out", "_receive", "_send", "_timer", "_writer")

    def __init__(self, scope: Scope, receive: Receive, send: Send, **limits: Any) -> None:
        super().__init__(**limits)
        self._writer: JoinedWriter = scope[WRITER]
        self._out: JoinedWriter | asyncio.Transport = self._writer
        self._receive = receive
        self._send = send
        self._timer: asyncio.TimerHandle | None = None

    async def run(self, headers: Headers, preamble: bytes, converse: Callable[[Stream], Peer], said: bytes) -> None:
        """Answer and wait for the end, in the one task that the server has made for the request."""
        writer = self._writer
        if writer.is_closing():
            return
        writer.when_lost = self._lost
        # With no slack `send`, and `lost`, know to the byte whether something waits.
        writer.transport.set_write_buffer_limits(high=0)
        try:
            await self._send({"type": "http.response.start", "status": 200, "headers": headers})
            if writer.is_closing():
                return  # it had to wait for a response before it, and has gone meanwhile
            if preamble:
                writer.keep(chunk(preamble))
            self._begin(converse, said)
            # A connect that waits for nobody is answered within the turn, and goes out with the head.
            await asyncio.sleep(0)
            if not writer.is_closing():
                writer.flush()
                self._out = writer.transport
            while (await self._receive())["type"] != "http.disconnect":
                pass
        finally:
            self._lost(is_orderly=False)  # if it was not the client who ended it

    def _write(self, data: bytes) -> None:
        self._out.write(data)

    def _end(self, last: bytes) -> None:
        # The connection ends with the response: who comes back after a goodbye opens another one.
        self._out.write(last + LAST_CHUNK)
        transport = self._writer.transport
        transport.close()
        self._timer = asyncio.get_running_loop().call_later(self._close_timeout_s, transport.abort)

    def _lost(self, *, is_orderly: bool) -> None:
        """Take note that the connection is no more; a second time does nothing."""
        writer = self._writer
        if writer.when_lost is None:
            return
        writer.when_lost = None
        if writer.was_congested:
            self.lost = Lost.TIMEOUT if self._is_ending else Lost.NETWORK
        if self._timer is not None:
            self._timer.cancel()
        self._tell_closed("client" if is_orderly else "network")

    @property
    def waiting(self) -> int:
        """What the socket has not taken."""
        return self._writer.transport.get_write_buffer_size()


class ServerStream(Stream):
    """A stream on somebody else's ASGI server; what that buffers on top (uvicorn: 64 KiB) is the server's to bound."""

    __slots__ = ("_is_wanted", "_outbox", "_patience", "_receive", "_send", "_waiting_bytes")

    def __init__(self, _scope: Scope, receive: Receive, send: Send, **limits: Any) -> None:
        super().__init__(**limits)
        self._receive = receive
        self._send = send
        self._outbox: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._is_wanted = asyncio.Event()  # by the writer: there is something to write
        self._patience = asyncio.timeout(None)
        """How long the writer has got; for ever until the end is near."""

    async def run(self, headers: Headers, preamble: bytes, converse: Callable[[Stream], Peer], said: bytes) -> None:
        """Answer, write what is offered, and watch for the client's end meanwhile."""
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        try:
            async with asyncio.TaskGroup() as tasks:
                with contextlib.suppress(TimeoutError):
                    async with self._patience:
                        # The first part takes the head along, even if it is empty.
                        self._outbox.append(preamble)
                        self._waiting_bytes += len(preamble)
                        self._begin(converse, said)
                        watching = tasks.create_task(self._watch(), name="stream watcher")
                        try:
                            await self._write_on()
                        finally:
                            watching.cancel()
        finally:
            if self._waiting_bytes:
                self.lost = Lost.TIMEOUT if self._is_ending else Lost.NETWORK
            self._tell_closed("network")

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._tell_closed("client")
        self._patience.reschedule(asyncio.get_running_loop().time())

    async def _write_on(self) -> None:
        """Write what is offered until the end is written, or the server says that nobody reads."""
        outbox = self._outbox
        with contextlib.suppress(OSError):  # what `send` raises once the client has gone (ASGI, HTTP 2.4)
            while True:
                while outbox:
                    await self._send({"type": "http.response.body", "body": outbox[0], "more_body": True})
                    self._waiting_bytes -= len(outbox.popleft())
                if self._is_ending:
                    await self._send({"type": "http.response.body", "body": b"", "more_body": False})
                    return
                self._is_wanted.clear()
                await self._is_wanted.wait()

    def _write(self, data: bytes) -> None:
        self._outbox.append(data)
        self._waiting_bytes += len(data)
        self._is_wanted.set()

    def _end(self, last: bytes) -> None:
        self._write(last)
        self._patience.reschedule(asyncio.get_running_loop().time() + self._close_timeout_s)

    @property
    def waiting(self) -> int:
        """What waits here, beyond what the server has taken."""
        return self._waiting_bytes
