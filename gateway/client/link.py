"""One WebSocket, seen from the client: an asyncio protocol around websockets' sans-I/O core, with a short way past it.

Theory of operation. The core does the handshake and is dropped then: an idle connection holds no core (5 KB saved).
From there on this class keeps the frame boundaries. Whole, final, unmasked, unextended data frames, which is nearly
everything that a server sends, are handed on from here; every other whole frame goes to a second core, made when the
first such frame comes. What the core must judge by its header alone is handed over with all that follows, for good, so
that the two never disagree about where a frame begins.

    connecting ──TCP, TLS──▶ upgrading ──101──▶ open ──close(), Close frame, EOF, abort()──▶ ended
"""

import asyncio
import os
from collections.abc import Callable
from typing import Any, Final, Protocol

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidHandshake
from websockets.frames import Frame, Opcode
from websockets.protocol import CLOSED, OPEN
from websockets.typing import Subprotocol
from websockets.uri import WebSocketURI

try:
    from websockets.speedups import apply_mask
except ImportError:  # no C compiler and no wheel for this platform
    from websockets.utils import apply_mask

from gateway.client.endings import CLOSED_HERE, Ending, Kind
from gateway.client.settings import LinkSettings

_TEXT_FRAME: Final = 0x81  # FIN, no reserved bits, opcode 1 (RFC 6455 5.2)
_BINARY_FRAME: Final = 0x82
_PING_FRAME: Final = 0x89
_DATA_OPCODES: Final = (0x0, 0x1, 0x2)
_CONTROL_OPCODES: Final = (0x8, 0x9, 0xA)
_MIN_HEADER: Final = 2
_FIN: Final = 0x80
_MASKED: Final = 0x80
_RESERVED: Final = 0x70
_MAX_LENGTH_7: Final = 125
_LENGTH_16: Final = 126
_LENGTH_64: Final = 127
_MAX_LENGTH_16: Final = 65535
_MAX_HEAD_BYTES: Final = 16384
_SWITCHING_PROTOCOLS: Final = 101
_NORMAL_CLOSURE: Final = 1000
_INVALID_DATA: Final = 1007
_MESSAGE_TOO_BIG: Final = 1009


class LinkPeer(Protocol):
    """What a link tells. Nothing comes before `opened`, and nothing after `ended`."""

    def opened(self) -> None:
        """Note that the server has upgraded."""

    def receive(self, payload: bytes, *, is_text: bool) -> None:
        """Take one message; text is known to be UTF-8."""

    def ended(self, ending: Ending) -> None:
        """Note that the link has ended; called once, also for one that never opened."""


class Link(asyncio.Protocol):
    """One connection to one address, from the upgrade request on."""

    __slots__ = (
        "_buffer",
        "_core",
        "_end_timer",
        "_gone",
        "_handshake",
        "_is_core_only",
        "_is_lost",
        "_is_open",
        "_limit",
        "_loop",
        "_message",
        "_message_is_text",
        "_needed",
        "_peer",
        "_settings",
        "_time",
        "_transport",
        "_uri",
        "heard_at_s",
    )

    def __init__(
        self,
        uri: WebSocketURI,
        peer: LinkPeer,
        settings: LinkSettings,
        *,
        time: Callable[[], float],
        subprotocol: str = "",
    ) -> None:
        self.heard_at_s = time()
        """When anything last came, of whatever kind."""
        self._peer: LinkPeer | None = peer
        self._uri = uri
        self._settings = settings
        self._time = time
        self._limit = settings.receive_max_bytes
        self._loop = asyncio.get_running_loop()
        self._transport: Any = None
        offered = [Subprotocol(subprotocol)] if subprotocol else None
        self._handshake: ClientProtocol | None = ClientProtocol(uri, subprotocols=offered)
        self._core: ClientProtocol | None = None
        self._end_timer: asyncio.TimerHandle | None = None
        self._gone: asyncio.Future[None] | None = None  # made for who waits
        self._buffer: bytearray | None = None
        self._needed = 0
        self._message: bytearray | None = None  # what fragments have brought so far
        self._message_is_text = False
        self._is_core_only = False
        self._is_lost = False
        self._is_open = False

    @property
    def waiting_bytes(self) -> int:
        """How much waits for the network."""
        return int(self._transport.get_write_buffer_size()) if self._transport is not None else 0

    def send(self, payload: bytes, *, is_text: bool = True) -> None:
        """Send one message; it is lost without a word if the link is not open, which the peer knows."""
        if self._is_open:
            self._write(_TEXT_FRAME if is_text else _BINARY_FRAME, payload)

    def ping(self) -> None:
        """Send a Ping frame: the server answers, and `heard_at_s` moves."""
        if self._is_open:
            self._write(_PING_FRAME, b"")

    def close(self, ending: Ending = CLOSED_HERE) -> None:
        """Say goodbye and end as *ending* says; the server's own goodbye is waited for, up to `close_timeout_s`."""
        if not self._is_open:
            self.abort(ending)
            return
        self._end(ending)
        core = self._need_core()
        if core.state is OPEN:
            core.send_close(_NORMAL_CLOSURE)
        self._flush_core()

    def abort(self, ending: Ending) -> None:
        """End at once, as *ending* says."""
        self._end(ending)
        if self._transport is not None:
            self._transport.abort()

    async def gone(self) -> None:
        """Wait until nothing is left of it; call it after it has ended. Cancelling harms nobody."""
        if self._transport is None or self._is_lost:
            return
        if self._gone is None:
            self._gone = self._loop.create_future()
        await asyncio.shield(self._gone)

    # asyncio's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the upgrade."""
        self._transport = transport
        handshake = self._handshake
        if self._peer is None or handshake is None:
            self._transport.abort()  # given up while it was being made
            return
        request = handshake.connect()
        request.headers.update(self._settings.headers)
        handshake.send_request(request)
        for data in handshake.data_to_send():
            self._transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """Let everything go."""
        if self._end_timer is not None:
            self._end_timer.cancel()
        self._end(Ending(Kind.NETWORK, str(exc) if exc else "the connection was closed without a word", 1006))
        self._handshake = self._core = self._buffer = self._message = None
        self._is_lost = True
        if self._gone is not None:
            self._gone.set_result(None)

    def data_received(self, data: bytes) -> None:
        """Cut what came into frames and hand them on."""
        self.heard_at_s = self._time()
        if self._is_core_only:
            self._feed_core(data)
            return
        if self._buffer is not None:
            self._buffer += data
            if len(self._buffer) < self._needed:
                return
            data = bytes(self._buffer)
            self._buffer = None
        if self._handshake is not None:
            self._upgrade(data)
        else:
            self._take_frames(data)

    # The upgrade.

    def _upgrade(self, data: bytes) -> None:
        head, found, rest = data.partition(b"\r\n\r\n")
        if not found:
            self._buffer, self._needed = bytearray(data), 0
            if len(data) > _MAX_HEAD_BYTES:
                self.abort(Ending(Kind.NETWORK, "no end of the response's head"))
            return
        handshake, self._handshake = self._handshake, None
        if handshake is None:
            raise AssertionError("upgraded twice")
        status = _status_of(head)
        if status != _SWITCHING_PROTOCOLS:
            ending = Ending(Kind.HTTP, "the server did not upgrade", status) if status else _NOT_HTTP
            self.abort(ending)
            return
        handshake.receive_data(head + found)
        error = handshake.handshake_exc
        if error is not None:
            handshake.handshake_exc = None  # its traceback would keep this link alive
            sentence = str(error) if isinstance(error, InvalidHandshake) else "not an upgrade"
            self.abort(Ending(Kind.NETWORK, sentence))
            return
        self._is_open = True
        if self._peer is not None:
            self._peer.opened()
        if rest:
            self._take_frames(rest)

    # Frames.

    def _take_frames(self, data: bytes) -> None:  # noqa: C901 - one loop: a call more costs 0.1 µs a frame
        position, end = 0, len(data)
        while end - position >= _MIN_HEADER:
            first, second = data[position], data[position + 1]
            length, payload_at = second & 0x7F, position + 2
            if length == _LENGTH_16:
                payload_at = position + 4
                length = int.from_bytes(data[position + 2 : payload_at], "big")
            elif length == _LENGTH_64:
                payload_at = position + 10
                length = int.from_bytes(data[position + 2 : payload_at], "big")
            if end < payload_at:
                self._keep(data, position, payload_at)
                return
            frame_end = payload_at + length
            is_data = first in (_TEXT_FRAME, _BINARY_FRAME) and self._message is None and length <= self._limit
            if second & _MASKED or not (is_data or self._may_continue(first, length)):
                self._is_core_only = True
            elif end < frame_end:
                self._keep(data, position, frame_end)
                return
            elif is_data:
                self._deliver(data[payload_at:frame_end], is_text=first == _TEXT_FRAME)
                position = frame_end
            else:
                self._feed_core(data[position:frame_end])
                position = frame_end
            if self._is_core_only:  # for good: by this frame's header, or because it ended the connection
                if position < end:
                    self._feed_core(data[position:])
                return
        if position < end:
            self._keep(data, position, position + _MIN_HEADER)

    def _keep(self, data: bytes, position: int, needed_end: int) -> None:
        """Keep the begun frame at *position* until it reaches *needed_end*."""
        self._buffer = bytearray(data[position:])
        self._needed = needed_end - position

    def _may_continue(self, first: int, length: int) -> bool:
        """Tell whether the core can take this frame whole; false when its header decides (RFC 6455 5.2, 5.5)."""
        opcode = first & 0x0F
        if first & _RESERVED:
            return False
        if opcode in _CONTROL_OPCODES:
            return bool(first & _FIN) and length <= _MAX_LENGTH_7
        if opcode not in _DATA_OPCODES:
            return False
        if len(self._message or b"") + length > self._limit:
            self._fail(_MESSAGE_TOO_BIG, "message too big")
            return False
        return True

    def _deliver(self, payload: bytes, *, is_text: bool) -> None:
        if self._peer is None:
            return  # this side has said goodbye
        if is_text:
            try:
                payload.isascii() or payload.decode()
            except UnicodeDecodeError:
                self._fail(_INVALID_DATA, "invalid UTF-8")
                return
        self._peer.receive(payload, is_text=is_text)

    def _write(self, first: int, payload: bytes) -> None:
        length = len(payload)
        if length <= _MAX_LENGTH_7:
            header = bytes((first, _MASKED | length))
        elif length <= _MAX_LENGTH_16:
            header = bytes((first, _MASKED | _LENGTH_16, length >> 8, length & 0xFF))
        else:
            header = bytes((first, _MASKED | _LENGTH_64)) + length.to_bytes(8, "big")
        mask = os.urandom(4)  # RFC 6455 5.3: "derived from a strong source of entropy"
        self._transport.write(b"".join((header, mask, apply_mask(payload, mask))))

    # The core's side.

    def _need_core(self) -> ClientProtocol:
        core = self._core
        if core is None:
            # The core would count a control frame between fragments against the message.
            core = self._core = _Core(self._uri, state=OPEN, max_size=self._limit + _MAX_LENGTH_7)
        return core

    def _feed_core(self, data: bytes) -> None:
        core = self._need_core()
        if core.state is CLOSED:
            return
        core.receive_data(data)
        for event in core.events_received():
            if isinstance(event, Frame) and event.opcode in _DATA_OPCODES:
                self._take_fragment(event)
        self._flush_core()

    def _take_fragment(self, frame: Frame) -> None:
        """Put fragments together; the core has seen to their order."""
        if self._message is None:
            self._message = bytearray(frame.data)
            self._message_is_text = frame.opcode is Opcode.TEXT
        else:
            self._message += frame.data
        if frame.fin:
            payload, self._message = bytes(self._message), None
            self._deliver(payload, is_text=self._message_is_text)

    def _flush_core(self) -> None:
        """Write the core's answers, and follow it where it ends the connection."""
        core, transport = self._need_core(), self._transport
        for data in core.data_to_send():
            if data:
                transport.write(data)
        if core.close_rcvd is not None:
            self._end(Ending(Kind.CLOSE, core.close_rcvd.reason or "no reason given", core.close_rcvd.code))
            transport.close()
        elif core.close_expected() or core.state is CLOSED:
            sent = core.close_sent
            self._end(Ending(Kind.NETWORK, f"this side gave up: {sent.reason}" if sent else "broken", 1006))
            if self._end_timer is None:
                self._end_timer = self._loop.call_later(self._settings.close_timeout_s, transport.abort)

    def _fail(self, code: int, reason: str) -> None:
        self._need_core().fail(code, reason)
        self._is_core_only = True
        self._flush_core()

    def _end(self, ending: Ending) -> None:
        self._is_open = False
        peer, self._peer = self._peer, None
        if peer is not None:
            peer.ended(ending)


class _Core(ClientProtocol):
    """The library's protocol but for one thing."""

    def recv_frame(self, frame: Frame) -> None:
        """Take a frame."""
        # RFC 6455 5.4 lets control frames come between fragments. The library takes a Close frame there for an error.
        if frame.opcode is Opcode.CLOSE:
            self.current_size = None
        super().recv_frame(frame)


_NOT_HTTP: Final = Ending(Kind.NETWORK, "no HTTP server answers there")


def _status_of(head: bytes) -> int:
    """Return the status of a response, 0 if it is none."""
    version, _, rest = head.partition(b" ")
    status = rest[:3]
    return int(status) if version in (b"HTTP/1.1", b"HTTP/1.0") and status.isdigit() else 0
