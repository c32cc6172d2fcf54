"""A WebSocket connection: an asyncio protocol around websockets' sans-I/O core, with a short way past it.

Theory of operation. This class keeps the frame boundaries. Whole, final, masked, unextended data frames, which is
nearly everything that clients send, are unmasked here and handed on (0.6 µs instead of 9). Every other whole frame
goes to the core: control frames, fragments, compressed ones. What the core must judge by its header alone (no mask,
reserved bits, a bad opcode, an overlong control frame) is handed over together with all that follows, for good, so
that the two can never disagree about where a frame begins: a guess there would let a client's payload be parsed as
frames.

Writing never passes the core, except for its own answers: frames of the server are built once for many connections.

    connecting ──handshake──▶ open ──close() or a Close frame──▶ ending ──EOF──▶ closed
"""

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from websockets.extensions import Extension
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame, Opcode
from websockets.protocol import CLOSED, OPEN
from websockets.server import ServerProtocol

try:
    from websockets.speedups import apply_mask
except ImportError:  # no C compiler and no wheel for this platform
    from websockets.utils import apply_mask

from gateway.domain.counts import Lost
from gateway.protocol.codes import Disconnect
from gateway.transport.core import (
    DATA_OPCODES,
    MASKED,
    MAX_CONTROL_LENGTH,
    MESSAGE_TOO_BIG,
    SILENT,
    Core,
    is_acceptable,
    parse_request,
)
from gateway.transport.ports import Acceptor, Peer

_TEXT_FRAME: Final = 0x81  # FIN, no reserved bits, opcode 1 (RFC 6455 5.2)
_BINARY_FRAME: Final = 0x82
_WHOLE_DATA_FRAMES: Final = (_TEXT_FRAME, _BINARY_FRAME)
_MIN_HEADER: Final = 2
_LENGTH_16: Final = 126
_LENGTH_64: Final = 127
_PING: Final = b"\x89\x00"
_INVALID_DATA: Final = 1007
_SWITCHING_PROTOCOLS: Final = 101
_ABNORMAL: Final = 1006
DECOMPRESSED_FACTOR: Final = 10
"""A compressed message may grow to this many times the message limit (protocol.md 1.2)."""


class WebSocketConnection(asyncio.Protocol):
    """One client's socket after the upgrade. It implements the Transport port."""

    __slots__ = (
        "_abort_timer",
        "_acceptor",
        "_address",
        "_buffer",
        "_extensions",
        "_is_core_only",
        "_is_ending",
        "_is_reading_paused",
        "_loop",
        "_made_core",
        "_message",
        "_message_is_text",
        "_message_limit",
        "_message_size",
        "_needed",
        "_peer",
        "_queue_limit",
        "_transport",
        "is_congested",
    )

    def __init__(self, acceptor: Acceptor, loop: asyncio.AbstractEventLoop, *, address: str = "") -> None:
        """*address* is where the client comes from, if that is not what the socket says."""
        self._acceptor = acceptor
        self._address = address
        self._loop = loop
        self._message_limit = acceptor.settings.message_size_limit
        self._queue_limit = acceptor.queue_max_bytes
        self._made_core: ServerProtocol | None = None
        self._abort_timer: asyncio.TimerHandle | None = None
        self._extensions: Sequence[Extension] = ()
        self._peer: Peer | None = None
        self._transport: Any = None
        self._buffer: bytearray | None = None
        self._needed = 0
        self._message: bytearray | None = None  # what fragments have brought so far
        self._message_is_text = False
        self._message_size = 0  # the same, as it came over the wire
        self._is_core_only = False
        self._is_ending = False
        self.is_congested = False
        self._is_reading_paused = False

    @property
    def compression_window_bits(self) -> int | None:
        """The window that was negotiated for what the server compresses; `None` without compression."""
        for extension in self._extensions:
            if isinstance(extension, PerMessageDeflate):
                return extension.local_max_window_bits
        return None

    @property
    def peer_address(self) -> str:
        """Where the client comes from: the host, without the port; empty if that is a Unix socket."""
        if self._address:
            return self._address
        name = self._transport.get_extra_info("peername")
        return name[0] if isinstance(name, tuple) else ""

    # asyncio's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take over the socket from the HTTP server."""
        self._transport = transport
        # With no slack, `pause_writing` tells the moment from which on something waits, and `offer` need not ask
        # before.
        self._transport.set_write_buffer_limits(high=0)
        self._acceptor.opened()

    def connection_lost(self, exc: Exception | None) -> None:
        """Let everything go."""
        del exc
        peer, self._peer = self._peer, None
        if peer is not None:
            peer.closed(code=_ABNORMAL, reason="", by="network")
        self._buffer = None
        if self._abort_timer is not None:
            self._abort_timer.cancel()
        lost = None
        if self.is_congested:
            lost = Lost.TIMEOUT if self._is_ending else Lost.NETWORK
        self._acceptor.gone(self, lost)

    def pause_writing(self) -> None:
        """Note that the kernel takes no more for now: from here on `offer` looks at what waits."""
        self.is_congested = True

    def resume_writing(self) -> None:
        """Note that the kernel takes data again."""
        self.is_congested = False

    def data_received(self, data: bytes) -> None:
        """Cut what came into frames and hand them on."""
        if self._peer is None and self._made_core is None:
            if not self._is_ending:  # else the handshake was refused
                self._handshake(data)
            return
        if self._is_core_only:
            if self._buffer is not None:  # a frame was under way when this side closed
                data = bytes(self._buffer) + data
                self._buffer = None
            self._feed_core(data)
            return
        if self._buffer is not None:
            self._buffer += data
            if len(self._buffer) < self._needed:
                return
            data = bytes(self._buffer)
            self._buffer = None
        self._take_frames(data)

    def _take_frames(self, data: bytes) -> None:  # noqa: C901 - one loop on purpose: a call more costs 0.1 µs a frame
        position, end = 0, len(data)
        while end - position >= _MIN_HEADER:
            first, second = data[position], data[position + 1]
            length = second & 0x7F
            payload_at = position + 6
            if length == _LENGTH_16:
                payload_at = position + 8
                length = int.from_bytes(data[position + 2 : position + 4], "big")
            elif length == _LENGTH_64:
                payload_at = position + 14
                length = int.from_bytes(data[position + 2 : position + 10], "big")
            if end < payload_at - 4:
                self._keep(data, position, payload_at - 4)  # the mask, which a broken frame has not, is not waited for
                return
            frame_end = payload_at + length
            is_short_way = (
                first in _WHOLE_DATA_FRAMES
                and self._message is None
                and second & MASKED
                and length <= self._message_limit
            )
            if not is_short_way and not self._may_continue(first, second, length):
                self._is_core_only = True
            elif end < frame_end:
                self._keep(data, position, frame_end)
                return
            elif is_short_way:
                payload = apply_mask(data[payload_at:frame_end], data[payload_at - 4 : payload_at])
                self._deliver(payload, is_text=first == _TEXT_FRAME)
                position = frame_end
            else:
                self._feed_whole(data[position:frame_end], length)
                position = frame_end
            if self._is_core_only:  # for good: by this frame's header, or because it ended the connection
                if position < end:
                    self._feed_core(data[position:])
                return
        if position < end:
            self._keep(data, position, position + _MIN_HEADER)

    def _feed_whole(self, frame: bytes, length: int) -> None:
        if frame[0] & 0x0F in DATA_OPCODES:
            self._message_size += length
        self._feed_core(frame)

    def _keep(self, data: bytes, position: int, needed_end: int) -> None:
        """Keep the begun frame at *position* until it reaches *needed_end*.

        In a bytearray: joining bytes would make a frame that comes in many small reads cost the square of its length.
        """
        self._buffer = bytearray(data[position:])
        self._needed = needed_end - position

    def _may_continue(self, first: int, second: int, length: int) -> bool:
        """Tell whether the core can take this frame whole; false when its header decides (RFC 6455 5.2, 5.5)."""
        if not is_acceptable(first, second, length, has_extensions=bool(self._extensions)):
            return False
        if first & 0x0F in DATA_OPCODES and self._message_size + length > self._message_limit:
            self._core.fail(MESSAGE_TOO_BIG)
            return False
        return True

    def _deliver(self, payload: bytes, *, is_text: bool) -> None:
        peer = self._peer
        if peer is None:
            return  # this side has said goodbye and ignores what still comes (protocol.md 1.2)
        if is_text:
            # Neither the core nor the JSON decoder checks UTF-8 inside payloads, and browsers close on a bad one:
            # without this one client could cut off all others.
            try:
                payload.isascii() or payload.decode()
            except UnicodeDecodeError:
                self._fail(_INVALID_DATA, "invalid UTF-8")
                return
        peer.receive(payload, is_text=is_text)

    # The core's side.

    @property
    def _core(self) -> ServerProtocol:
        """The library's protocol of this connection, from the handshake on."""
        core = self._made_core
        if core is None:
            limit = self._message_limit * DECOMPRESSED_FACTOR if self._extensions else self._message_limit
            # The core would count a control frame between fragments against the message; what came in over the wire has
            # been measured here by then.
            core = self._made_core = Core(state=OPEN, max_size=limit + MAX_CONTROL_LENGTH, logger=SILENT)
            core.extensions = list(self._extensions)
        return core

    def _handshake(self, data: bytes) -> None:
        """Answer the upgrade request, which the HTTP server has read and writes here anew, whole and well formed."""
        request = parse_request(data)
        negotiator = self._acceptor.negotiator
        response = self._acceptor.refuse(request, self.peer_address)
        if response is None:
            response = negotiator.accept(request)
            if response.status_code != _SWITCHING_PROTOCOLS:
                self._acceptor.failed(response, self.peer_address)
                negotiator.handshake_exc = None  # its traceback would keep this connection alive
        self._transport.write(response.serialize())
        if response.status_code == _SWITCHING_PROTOCOLS:
            self._extensions = tuple(negotiator.extensions)
            self._peer = self._acceptor.accept(request, self)
        else:
            self._end_soon()
            self._close_writing()

    def _feed_core(self, data: bytes) -> None:
        core = self._core
        if core.state is CLOSED:
            return
        core.receive_data(data)
        for event in core.events_received():
            if isinstance(event, Frame):
                self._take_core_frame(event)
        self._write_core_output()

    def _take_core_frame(self, frame: Frame) -> None:
        match frame.opcode:
            case Opcode.PONG:
                if self._peer is not None:
                    self._peer.frame_pong()
            case Opcode.TEXT | Opcode.BINARY | Opcode.CONT:
                self._take_core_data(frame)
            case Opcode.PING | Opcode.CLOSE:
                pass  # the core has answered

    def _take_core_data(self, frame: Frame) -> None:
        """Put fragments together; the core has seen to their order."""
        if self._message is None:
            self._message = bytearray(frame.data)
            self._message_is_text = frame.opcode is Opcode.TEXT
        else:
            self._message += frame.data
        if self._extensions and len(self._message) > self._message_limit * DECOMPRESSED_FACTOR:
            self._core.fail(MESSAGE_TOO_BIG)
        elif frame.fin:
            payload, self._message, self._message_size = bytes(self._message), None, 0
            self._deliver(payload, is_text=self._message_is_text)

    def _write_core_output(self) -> None:
        core, transport = self._core, self._transport
        for data in core.data_to_send():
            if data:
                transport.write(data)
            else:
                self._close_writing()
        if core.close_expected() or core.state is CLOSED:
            self._end_soon()

    def _close_writing(self) -> None:
        """Say that nothing more comes.

        Not by close(), where it can be helped: with unread input the kernel would reset the connection, and the answer
        that explains the end would be lost with it.
        """
        if not self._transport.can_write_eof():
            self._transport.close()  # TLS has no half-close
            return
        try:
            self._transport.write_eof()
        except OSError:
            # A peer that closed and went is found out by asyncio's own transport here. What follows has to go on all
            # the same: who is still subscribed when it takes nothing any more would fail the fan-out for everybody.
            self._transport.abort()

    def _end_soon(self) -> None:
        """Tell our side now, and cut the socket later if the peer does not."""
        if self._is_ending:
            return
        self._is_ending = self._is_core_only = True
        self._abort_timer = self._loop.call_later(self._acceptor.settings.close_timeout_s, self._transport.abort)
        self.resume_reading()
        peer, self._peer = self._peer, None
        if peer is None:
            return
        received, sent = self._core.close_rcvd, self._core.close_sent
        if received is not None:
            peer.closed(code=received.code, reason=received.reason, by="client")
        elif sent is not None:
            peer.closed(code=sent.code, reason=sent.reason, by="server")

    def _fail(self, code: int, reason: str) -> None:
        self._core.fail(code, reason)
        self._write_core_output()

    # The Transport port.

    def offer(self, data: bytes) -> bool:
        """Write *data*, unless more than the queue may hold waits already; an empty queue takes any one message."""
        if self.is_congested:
            waiting = self._transport.get_write_buffer_size()
            if waiting and waiting + len(data) > self._queue_limit:
                return False
        self._transport.write(data)
        return True

    def dismiss(self, disconnect: Disconnect) -> None:
        """End the connection through its peer, which has more to take apart than a socket."""
        if self._peer is not None:
            self._peer.disconnect(disconnect)

    @property
    def waiting(self) -> int:
        """What waits, beyond what the kernel has taken."""
        return int(self._transport.get_write_buffer_size())

    @property
    def room(self) -> int:
        """What the queue takes now, though an empty one takes any one message."""
        return self._queue_limit - int(self._transport.get_write_buffer_size())

    def tell_gap(self, channel: str) -> None:
        """Have the peer told that publications of *channel* are lost."""
        if self._peer is not None:
            self._peer.tell_gap(channel)

    def ping(self) -> None:
        """Send a Ping frame."""
        self._transport.write(_PING)

    def close(self, disconnect: Disconnect, last: bytes = b"") -> None:
        """Send a Close frame behind what was offered, and wait for the peer's, up to the close time-out."""
        self._peer = None
        if self._core.state is OPEN:
            if last:
                self._transport.write(last)
            self._core.send_close(disconnect.code, disconnect.reason)
            self._write_core_output()

    def pause_reading(self) -> None:
        """Let the peer's data wait in the kernel."""
        if not self._is_reading_paused and not self._transport.is_closing():
            self._is_reading_paused = True
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Read on."""
        if self._is_reading_paused:
            self._is_reading_paused = False
            if not self._transport.is_closing():
                self._transport.resume_reading()
