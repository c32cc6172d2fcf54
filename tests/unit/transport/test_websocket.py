"""gateway/transport/websocket.py on a transport, a loop and a gate made of nothing but lists."""

import errno
from collections.abc import Callable
from typing import Any

import pytest
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.frames import Close
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from gateway.domain.counts import Lost
from gateway.protocol.codes import Disconnect
from gateway.transport.core import make_negotiator
from gateway.transport.ports import Peer, WebSocketSettings
from gateway.transport.websocket import WebSocketConnection
from tests.support.frames import (
    BINARY,
    CLOSE,
    CONT,
    DEFLATE,
    MASK,
    PING,
    PONG,
    TEXT,
    UPGRADE,
    closing,
    deflated,
    fragments,
    frame,
    parse_server_frames,
    server_frame,
)

EURO = "€".encode()
TOO_BIG = server_frame(CLOSE, closing(1009))  # with an empty reason (protocol.md 1.2)
GONE = Disconnect(3503, "force disconnect")


class FakeTransport:
    """asyncio's transport: what is written is kept, and *waiting* is what its buffer claims to hold."""

    def __init__(self, *, has_half_close: bool = True) -> None:
        self.written = bytearray()
        self.steps: list[str] = []
        self.waiting = 0
        self._high_water = 65536  # asyncio's own
        self._has_half_close = has_half_close
        self._is_closing = False
        self.is_reset = False
        """Whether the peer has cut the connection, as far as the kernel knows."""

    def get_extra_info(self, name: str) -> object:
        return {"peername": ("203.0.113.7", 50000)}.get(name)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        del low
        self._high_water = 65536 if high is None else high

    def fill(self, waiting: int, connection: WebSocketConnection) -> None:
        """Have *waiting* bytes in the buffer, and call what asyncio calls then."""
        self.waiting = waiting
        if waiting > self._high_water:
            connection.pause_writing()

    def write(self, data: bytes) -> None:
        assert "eof" not in self.steps, "asyncio raises RuntimeError for a write after write_eof"
        self.written += data

    def can_write_eof(self) -> bool:
        return self._has_half_close

    def write_eof(self) -> None:
        assert self._has_half_close, "asyncio raises NotImplementedError on TLS"
        self.steps.append("eof")
        if self.is_reset:
            raise OSError(errno.ENOTCONN, "Transport endpoint is not connected")

    def close(self) -> None:
        self._is_closing = True
        self.steps.append("close")

    def abort(self) -> None:
        self._is_closing = True
        self.steps.append("abort")

    def is_closing(self) -> bool:
        return self._is_closing

    def get_write_buffer_size(self) -> int:
        return self.waiting

    def pause_reading(self) -> None:
        self.steps.append("pause")

    def resume_reading(self) -> None:
        self.steps.append("resume")


class FakeLoop:
    """An event loop whose time the test moves."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self._timers: list[tuple[float, Callable[[], None]]] = []

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> None:
        self._timers.append((self.now_s + delay_s, callback))

    def advance(self, seconds: float) -> None:
        self.now_s += seconds
        due = [timer for timer in self._timers if timer[0] <= self.now_s]
        self._timers = [timer for timer in self._timers if timer not in due]
        for _, callback in due:
            callback()


class FakePeer:
    """What the connection hands its messages to: a journal."""

    def __init__(self) -> None:
        self.journal: list[tuple[Any, ...]] = []
        self.on_message: Callable[[], None] = lambda: None

    def receive(self, payload: bytes, *, is_text: bool) -> None:
        self.journal.append(("text" if is_text else "binary", payload))
        self.on_message()

    def frame_pong(self) -> None:
        self.journal.append(("pong",))

    def disconnect(self, disconnect: Disconnect) -> None:
        self.journal.append(("disconnect", disconnect))

    def tell_gap(self, channel: str) -> None:
        self.journal.append(("gap", channel))

    def closed(self, *, code: int, reason: str, by: str) -> None:
        self.journal.append(("closed", code, reason, by))


class FakeGate:
    """An acceptor that lets everybody in, unless it is given a status to refuse with."""

    def __init__(self, settings: WebSocketSettings, *, queue_max_bytes: int = 1000, refuses_with: int = 0) -> None:
        self.settings = settings
        self.queue_max_bytes = queue_max_bytes
        deflate = ServerPerMessageDeflateFactory(server_no_context_takeover=True, client_no_context_takeover=True)
        self.negotiator = make_negotiator(
            extensions=[deflate] if settings.compression else [],
            subprotocols=[Subprotocol("centrifuge-json"), Subprotocol("centrifuge-protobuf")],
        )
        self.peer = FakePeer()
        self.sockets = 0
        self.lost: list[Lost | None] = []
        self.requests: list[str] = []
        self._refuses_with = refuses_with

    def opened(self) -> None:
        self.sockets += 1

    def gone(self, connection: object, lost: Lost | None = None) -> None:
        del connection
        self.sockets -= 1
        self.lost.append(lost)

    def failed(self, response: Response, address: str) -> None:
        pass

    def refuse(self, request: Request, address: str) -> Response | None:
        del request, address
        return self.negotiator.reject(self._refuses_with, "not here\n") if self._refuses_with else None

    def accept(self, request: Request, connection: WebSocketConnection) -> Peer:
        del connection
        self.requests.append(request.path)
        return self.peer


class Wire:
    """A connection, and both of its sides."""

    def __init__(
        self,
        *,
        limit: int = 65536,
        compression: bool = False,
        queue_max_bytes: int = 1000,
        has_half_close: bool = True,
        refuses_with: int = 0,
        gate: FakeGate | None = None,
    ) -> None:
        settings = WebSocketSettings(message_size_limit=limit, compression=compression, close_timeout_s=5.0)
        self.gate = gate or FakeGate(settings, queue_max_bytes=queue_max_bytes, refuses_with=refuses_with)
        self.transport = FakeTransport(has_half_close=has_half_close)
        self.loop = FakeLoop()
        loop: Any = self.loop
        transport: Any = self.transport
        self.connection = WebSocketConnection(self.gate, loop)
        self.connection.connection_made(transport)

    def request(self, headers: str = "") -> bytes:
        """Send the upgrade request and return the response."""
        self.connection.data_received(f"GET /ws/x HTTP/1.1\r\nHost: x\r\n{UPGRADE}{headers}\r\n".encode())
        return self.take()

    def send(self, *data: bytes) -> None:
        self.connection.data_received(b"".join(data))

    def lose(self) -> None:
        """The client ends its half; asyncio then closes the rest, unless it is told to keep it."""
        self.connection.eof_received()
        self.connection.connection_lost(None)

    def take(self) -> bytes:
        """Return what was written since the last time."""
        written = bytes(self.transport.written)
        self.transport.written.clear()
        return written

    @property
    def journal(self) -> list[tuple[Any, ...]]:
        return self.gate.peer.journal

    @property
    def steps(self) -> list[str]:
        return self.transport.steps

    def assert_failed(self, code: int) -> None:
        """The server has sent nothing but a Close frame with *code*, has ended its half and told the peer once."""
        (only,) = parse_server_frames(self.take())
        assert only.first_byte == 0x80 | CLOSE
        close = Close.parse(only.payload)
        assert close.code == code
        assert self.steps == ["eof"]
        assert self.journal[-1] == ("closed", code, close.reason, "server")
        assert [entry[0] for entry in self.journal].count("closed") == 1


def open_wire(*, limit: int = 65536, compression: bool = False, has_half_close: bool = True, queue: int = 1000) -> Wire:
    wire = Wire(limit=limit, compression=compression, has_half_close=has_half_close, queue_max_bytes=queue)
    response = wire.request(DEFLATE if compression else "")
    assert response.startswith(b"HTTP/1.1 101 ")
    assert (b"permessage-deflate" in response) is compression
    return wire


# Messages.


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65535, 65536, 70000])
def test_a_whole_message_arrives_in_every_form_of_its_length(opcode: int, size: int) -> None:
    wire, payload = open_wire(limit=70000), b"x" * size
    wire.send(frame(opcode, payload))
    assert wire.journal == [("text" if opcode == TEXT else "binary", payload)]
    assert wire.take() == b""


@pytest.mark.parametrize("length_bytes", [2, 8])
def test_a_length_in_a_longer_form_than_needed_is_read(length_bytes: int) -> None:
    wire = open_wire()
    wire.send(frame(TEXT, b"short", length_bytes=length_bytes), frame(TEXT, b"next"))
    assert wire.journal == [("text", b"short"), ("text", b"next")]


def test_every_mask_is_taken_off() -> None:
    wire = open_wire()
    for mask in (b"\0\0\0\0", b"\xff\xff\xff\xff", MASK, b"\x00\x01\x00\x01"):
        wire.send(frame(BINARY, bytes(range(256)), mask=mask))
    assert wire.journal == [("binary", bytes(range(256)))] * 4


def test_many_frames_in_one_read_arrive_in_order() -> None:
    wire = open_wire()
    wire.send(*(frame(TEXT, b"%d" % number) for number in range(100)))
    assert wire.journal == [("text", b"%d" % number) for number in range(100)]


MIXED = (
    frame(TEXT, b"whole"),
    frame(PING, b"?"),
    frame(TEXT, b"a" * 200, fin=False),
    frame(PONG, b"!"),
    frame(CONT, b"b", fin=False),
    frame(PING),
    frame(CONT, EURO),
    frame(BINARY, b"\xff" * 300, length_bytes=8),
)
MIXED_JOURNAL = [("text", b"whole"), ("pong",), ("text", b"a" * 200 + b"b" + EURO), ("binary", b"\xff" * 300)]
MIXED_ANSWERS = server_frame(PONG, b"?") + server_frame(PONG)


def test_where_reads_are_cut_changes_nothing() -> None:
    stream = b"".join(MIXED)
    for cut in range(len(stream) + 1):
        wire = open_wire()
        wire.send(stream[:cut])
        wire.send(stream[cut:])
        assert (wire.journal, wire.take()) == (MIXED_JOURNAL, MIXED_ANSWERS), f"cut at byte {cut}"


def test_a_client_that_sends_one_byte_at_a_time_is_understood() -> None:
    wire = open_wire()
    for byte in b"".join(MIXED):
        wire.send(bytes([byte]))
    assert (wire.journal, wire.take()) == (MIXED_JOURNAL, MIXED_ANSWERS)


# Fragments.


@pytest.mark.parametrize("pieces", [(b"a", b"b"), (b"", b"", b""), (b"", b"x"), (b"x", b""), (b"a", b"b", b"c" * 70)])
@pytest.mark.parametrize(("opcode", "kind"), [(TEXT, "text"), (BINARY, "binary")])
def test_a_message_in_fragments_arrives_whole(opcode: int, kind: str, pieces: tuple[bytes, ...]) -> None:
    wire = open_wire()
    wire.send(*fragments(opcode, *pieces), frame(TEXT, b"next"))
    assert wire.journal == [(kind, b"".join(pieces)), ("text", b"next")]


def test_control_frames_between_fragments_are_answered_at_once() -> None:
    wire = open_wire()
    first, middle, last = fragments(TEXT, b"a", b"b", b"c")
    wire.send(first, frame(PING, b"1"), middle, frame(PONG), frame(PING, b"2"))
    assert wire.journal == [("pong",)]
    assert wire.take() == server_frame(PONG, b"1") + server_frame(PONG, b"2")
    wire.send(last)
    assert wire.journal == [("pong",), ("text", b"abc")]


# What breaks the protocol.

BROKEN = {
    "a continuation without a beginning": frame(CONT, b"x"),
    "an unfinished continuation without a beginning": frame(CONT, b"x", fin=False),
    "a continuation after a whole message's fragments": b"".join([*fragments(TEXT, b"a", b"b"), frame(CONT, b"c")]),
    "a new text inside a fragmented message": frame(TEXT, b"a", fin=False) + frame(TEXT, b"b"),
    "a new binary inside a fragmented message": frame(TEXT, b"a", fin=False) + frame(BINARY, b"b"),
    "a second beginning": frame(BINARY, b"a", fin=False) + frame(BINARY, b"b", fin=False),
    "RSV2": frame(TEXT, b"x", rsv=2),
    "RSV3": frame(BINARY, b"x", rsv=1),
    "all RSV bits": frame(BINARY, b"", rsv=7),
    "RSV1 on a ping": frame(PING, rsv=4),
    "RSV2 on a pong": frame(PONG, rsv=2),
    "RSV3 on a close": frame(CLOSE, closing(1000), rsv=1),
    "RSV1 on a continuation": frame(TEXT, b"a", fin=False) + frame(CONT, b"b", rsv=4),
    "a text without a mask": frame(TEXT, b"x", mask=None),
    "a ping without a mask": frame(PING, mask=None),
    "a close without a mask": frame(CLOSE, closing(1000), mask=None),
    "a fragmented ping": frame(PING, b"x", fin=False),
    "a fragmented pong": frame(PONG, fin=False),
    "a fragmented close": frame(CLOSE, closing(1000), fin=False),
    "a ping of 126 bytes": frame(PING, b"x" * 126),
    "a pong of 126 bytes": frame(PONG, b"x" * 126),
    "a close of 126 bytes": frame(CLOSE, closing(1000, b"x" * 124)),
    "a close of one byte": frame(CLOSE, b"\x03"),
    **{f"opcode {opcode:#x}": frame(opcode, b"x") for opcode in (3, 4, 5, 6, 7, 0xB, 0xC, 0xD, 0xE, 0xF)},
    **{
        f"close code {code}": frame(CLOSE, closing(code, "x"))
        for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535)
    },
}


@pytest.mark.parametrize("compression", [False, True])
@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_frame_ends_the_connection_with_1002_and_nothing_after_it_counts(
    name: str, *, compression: bool
) -> None:
    wire = open_wire(compression=compression)
    wire.send(BROKEN[name], frame(TEXT, b"not any more"), frame(PING))
    wire.send(frame(TEXT, b"nor this"))
    wire.assert_failed(1002)
    assert ("text", b"not any more") not in wire.journal


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_frame_one_byte_at_a_time_ends_the_same_way(name: str) -> None:
    wire = open_wire()
    for byte in BROKEN[name]:
        wire.send(bytes([byte]))
    wire.assert_failed(1002)


def test_what_was_whole_before_a_broken_frame_arrives() -> None:
    wire = open_wire()
    wire.send(frame(TEXT, b"good"), frame(PING, b"1"), frame(3))
    assert wire.journal[0] == ("text", b"good")
    answers = parse_server_frames(wire.take())
    assert [answer.first_byte for answer in answers] == [0x80 | PONG, 0x80 | CLOSE]


def test_rsv1_without_the_extension_is_1002() -> None:
    wire = open_wire()
    wire.send(frame(TEXT, deflated(b"x"), rsv=4), frame(TEXT, b"not any more"))
    wire.assert_failed(1002)


# Size.


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("limit", [10, 125, 126, 65535, 65536])
def test_a_message_at_the_limit_arrives_and_one_byte_more_is_1009_without_a_reason(opcode: int, limit: int) -> None:
    wire = open_wire(limit=limit)
    wire.send(frame(opcode, b"x" * limit))
    assert [len(entry[1]) for entry in wire.journal] == [limit]
    wire.send(frame(opcode, b"x" * (limit + 1)))
    assert wire.take() == TOO_BIG
    assert wire.steps == ["eof"]
    assert wire.journal[1:] == [("closed", 1009, "", "server")]


@pytest.mark.parametrize("size", [11, 200, 70000, 2**63])
def test_the_announced_size_alone_is_too_much(size: int) -> None:
    """No byte of the payload has to come, so none has to be kept."""
    width = 0 if size <= 125 else 2 if size <= 65535 else 8
    short = {0: size, 2: 126, 8: 127}[width]
    header = bytes((0x82, 0x80 | short)) + (size.to_bytes(width, "big") if width else b"") + MASK
    wire = open_wire(limit=10)
    wire.send(header)
    assert (wire.take(), wire.steps, wire.journal) == (TOO_BIG, ["eof"], [("closed", 1009, "", "server")])


@pytest.mark.parametrize(
    ("pieces", "fits"),
    [
        ((b"12345", b"67890"), True),
        ((b"12345", b"67890", b""), True),
        ((b"12345", b"67890", b"1"), False),
        ((b"12345", b"678901"), False),
        ((b"12345678901", b""), False),
        ((b"", b"", b"12345678901"), False),
    ],
)
def test_fragments_count_together(pieces: tuple[bytes, ...], *, fits: bool) -> None:
    wire = open_wire(limit=10)
    wire.send(*fragments(TEXT, *pieces), frame(PING, b"1"))
    if fits:
        assert (wire.journal, wire.take()) == ([("text", b"".join(pieces))], server_frame(PONG, b"1"))
    else:
        assert (wire.journal, wire.take(), wire.steps) == ([("closed", 1009, "", "server")], TOO_BIG, ["eof"])


def test_control_frames_between_fragments_do_not_count_against_the_size() -> None:
    wire = open_wire(limit=65536)
    first, last = fragments(TEXT, b"x" * 65530, b"y" * 6)
    wire.send(first, frame(PING, b"?" * 10), frame(PONG, b"!" * 125), last)
    assert wire.journal == [("pong",), ("text", b"x" * 65530 + b"y" * 6)]
    assert wire.take() == server_frame(PONG, b"?" * 10)


def test_a_control_frame_may_be_longer_than_the_message_limit() -> None:
    wire = open_wire(limit=10)
    wire.send(frame(PING, b"x" * 125))
    assert wire.take() == server_frame(PONG, b"x" * 125)


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param(frame(TEXT, b"x" * 11, rsv=4), id="RSV1"),
        pytest.param(frame(TEXT, b"x" * 11, rsv=2), id="RSV2"),
        pytest.param(frame(CONT, b"x" * 11), id="a continuation without a beginning"),
        pytest.param(frame(PING, b"x" * 126), id="a ping of 126 bytes"),
        pytest.param(frame(PING, b"x" * 70000), id="a ping of 70000 bytes"),
        pytest.param(frame(BINARY, b"x" * 11, mask=None), id="no mask"),
        pytest.param(frame(TEXT, b"x", fin=False) + frame(TEXT, b"x" * 11), id="a second beginning"),
    ],
)
def test_what_is_broken_and_too_big_at_once_is_one_of_both_and_1009_has_no_reason(broken: bytes) -> None:
    wire = open_wire(limit=10)
    wire.send(broken)
    (answer,) = parse_server_frames(wire.take())
    close = Close.parse(answer.payload)
    assert close.code in {1002, 1009}
    assert (close.reason == "") is (close.code == 1009), close
    assert wire.journal == [("closed", close.code, close.reason, "server")]


# UTF-8.

BAD_TEXTS = [b"\xff", b"ok \xc0\xaf", EURO[:2], b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\x80", b"a" * 200 + b"\xfe"]


@pytest.mark.parametrize("text", BAD_TEXTS, ids=repr)
def test_text_that_is_not_utf8_ends_the_connection_with_1007(text: bytes) -> None:
    wire = open_wire()
    wire.send(frame(TEXT, b"good"), frame(TEXT, text), frame(TEXT, b"not any more"), frame(PING))
    wire.assert_failed(1007)
    assert wire.journal[:-1] == [("text", b"good")]


@pytest.mark.parametrize("text", BAD_TEXTS, ids=repr)
def test_bad_utf8_over_fragments_is_1007(text: bytes) -> None:
    wire = open_wire()
    wire.send(*fragments(TEXT, *(bytes([byte]) for byte in text), b""), frame(PING))
    wire.assert_failed(1007)


def test_a_character_split_over_fragments_is_good() -> None:
    wire = open_wire()
    wire.send(*fragments(TEXT, EURO[:1], EURO[1:2], EURO[2:] + "𝄞".encode()[:2], "𝄞".encode()[2:]))
    assert wire.journal == [("text", "€𝄞".encode())]


def test_bytes_need_not_be_utf8() -> None:
    wire = open_wire()
    wire.send(frame(BINARY, b"\xff\xfe"), *fragments(BINARY, b"\xff", b"\xc0"))
    assert wire.journal == [("binary", b"\xff\xfe"), ("binary", b"\xff\xc0")]


@pytest.mark.parametrize("reason", [b"\xff", EURO[:2], b"ok\xed\xa0\x80"])
def test_a_close_reason_that_is_not_utf8_is_1007(reason: bytes) -> None:
    wire = open_wire()
    wire.send(frame(CLOSE, closing(1000, reason)))
    wire.assert_failed(1007)


# Compression.


def test_compressed_messages_arrive_between_plain_ones() -> None:
    wire = open_wire(compression=True)
    long = b"compress me " * 50
    wire.send(
        frame(TEXT, b"plain"),
        frame(TEXT, deflated(long), rsv=4),
        *fragments(BINARY, deflated(long)[:5], deflated(long)[5:9], deflated(long)[9:], rsv=4),
        *fragments(TEXT, b"in ", b"pieces"),
        frame(TEXT, deflated(b""), rsv=4),
        frame(BINARY, b"plain"),
    )
    assert wire.journal == [
        ("text", b"plain"),
        ("text", long),
        ("binary", long),
        ("text", b"in pieces"),
        ("text", b""),
        ("binary", b"plain"),
    ]


def test_the_limit_holds_for_what_travels_and_ten_times_it_for_what_it_becomes() -> None:
    wire = open_wire(limit=100, compression=True)
    wire.send(frame(TEXT, deflated(b"x" * 1000), rsv=4))
    assert wire.journal == [("text", b"x" * 1000)]


EDGE = deflated(b"x" * 1000)
BOMBS = {
    "one byte too much": frame(TEXT, deflated(b"x" * 1001), rsv=4),
    "a thousand times too much": frame(TEXT, deflated(b"x" * 100000)[:100], rsv=4),
    "in fragments": b"".join(fragments(BINARY, *(bytes([byte]) for byte in deflated(b"x" * 1001)), rsv=4)),
    # zlib takes a limit of 0 for none, so what is left of the limit must never be what it is told.
    "more behind a fragment that fills the limit": frame(TEXT, EDGE + b"\0\0\xff\xff", fin=False, rsv=4)
    + frame(CONT, deflated(b"x" * 50000)),
    "a byte held back by zlib": frame(TEXT, deflated(b"x" * 1001), fin=False, rsv=4) + frame(CONT),
    "not compressed": frame(TEXT, b"x" * 101),
    "a fragment that is not compressed": b"".join(fragments(TEXT, b"x" * 50, b"x" * 51)),
    "too long before it is unpacked": frame(BINARY, deflated(bytes(range(256))), rsv=4),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_compressed_message_that_grows_too_big_is_1009_without_a_reason(name: str) -> None:
    wire = open_wire(limit=100, compression=True)
    wire.send(BOMBS[name], frame(PING))
    assert (wire.take(), wire.steps, wire.journal) == (TOO_BIG, ["eof"], [("closed", 1009, "", "server")])


def test_what_can_not_be_unpacked_is_1002() -> None:
    wire = open_wire(compression=True)
    wire.send(frame(TEXT, b"\xff\xff\xff\xff", rsv=4))
    wire.assert_failed(1002)


def test_bad_utf8_hidden_by_compression_is_1007() -> None:
    wire = open_wire(compression=True)
    wire.send(frame(TEXT, deflated(b"\xff\xff"), rsv=4))
    wire.assert_failed(1007)


@pytest.mark.parametrize(
    ("headers", "bits"),
    [
        ("", None),
        (DEFLATE, 15),
        ("Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=10\r\n", 10),
        ("Sec-WebSocket-Extensions: permessage-brotli\r\n", None),
    ],
)
def test_the_negotiated_window_is_known(headers: str, bits: int | None) -> None:
    wire = Wire(compression=True)
    wire.request(headers)
    assert wire.connection.compression_window_bits == bits


def test_what_one_connection_negotiates_is_not_the_next_ones() -> None:
    gate = FakeGate(WebSocketSettings(compression=True))
    with_it, without, with_it_again = Wire(gate=gate), Wire(gate=gate), Wire(gate=gate)
    for wire, headers in ((with_it, DEFLATE), (without, ""), (with_it_again, DEFLATE)):
        wire.request(headers)
    with_it.send(*fragments(TEXT, b"in ", b"pieces"))
    with_it.send(frame(TEXT, deflated(b"first"), rsv=4)[:4])
    with_it_again.send(frame(TEXT, deflated(b"second"), rsv=4))
    with_it.send(frame(TEXT, deflated(b"first"), rsv=4)[4:])
    without.send(frame(TEXT, deflated(b"third"), rsv=4))
    (refused,) = parse_server_frames(without.take())
    assert Close.parse(refused.payload).code == 1002
    assert [entry for entry in gate.peer.journal if entry[0] == "text"] == [
        ("text", b"in pieces"),
        ("text", b"second"),
        ("text", b"first"),
    ]


# Ping and pong.


@pytest.mark.parametrize("payload", [b"", b"x", b"\x00\xff\xfe", b"x" * 125])
def test_a_ping_is_answered_with_its_payload(payload: bytes) -> None:
    wire = open_wire()
    wire.send(frame(PING, payload))
    assert (wire.take(), wire.journal) == (server_frame(PONG, payload), [])


def test_a_pong_is_handed_on_and_not_answered() -> None:
    wire = open_wire()
    wire.send(frame(PONG), frame(PONG, b"unasked"))
    assert (wire.take(), wire.journal) == (b"", [("pong",), ("pong",)])


def test_the_server_pings_with_an_empty_frame() -> None:
    wire = open_wire()
    wire.connection.ping()
    assert wire.take() == server_frame(PING)


# The client closes.


@pytest.mark.parametrize(
    ("payload", "code", "reason"),
    [
        (b"", 1005, ""),
        (closing(1000), 1000, ""),
        (closing(1000, "bye €"), 1000, "bye €"),
        (closing(1001, "x" * 123), 1001, "x" * 123),
        *((closing(code), code, "") for code in (1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014)),
        *((closing(code, "own"), code, "own") for code in (3000, 3999, 4000, 4999)),
    ],
)
def test_a_close_is_echoed_and_told_once(payload: bytes, code: int, reason: str) -> None:
    wire = open_wire()
    wire.send(frame(TEXT, b"last words"), frame(CLOSE, payload), frame(TEXT, b"too late"), frame(PING))
    assert wire.journal == [("text", b"last words"), ("closed", code, reason, "client")]
    assert wire.take() == server_frame(CLOSE, payload)
    assert wire.steps == ["eof"]
    wire.lose()
    assert len(wire.journal) == 2
    assert wire.gate.sockets == 0


def test_a_client_that_closes_and_resets_the_connection_has_left_when_the_call_returns() -> None:
    wire = open_wire()
    wire.transport.is_reset = True
    wire.send(frame(CLOSE, closing(1000)))
    assert wire.journal == [("closed", 1000, "", "client")]
    assert wire.steps == ["eof", "abort"]


def test_a_client_that_closes_and_keeps_its_socket_is_cut_at_the_time_out() -> None:
    wire = open_wire()
    wire.send(frame(CLOSE, closing(1000)))
    wire.loop.advance(4.9)
    assert wire.steps == ["eof"]
    wire.loop.advance(0.2)
    assert wire.steps == ["eof", "abort"]


# The server closes.


def test_the_server_closes_and_waits_for_the_answer() -> None:
    wire = open_wire()
    wire.connection.close(GONE)
    assert (wire.take(), wire.steps) == (server_frame(CLOSE, closing(3503, "force disconnect")), [])
    wire.send(frame(CLOSE, closing(3503, "force disconnect")))
    assert (wire.take(), wire.steps) == (b"", ["eof"])
    wire.lose()
    assert wire.journal == []  # it was the peer's own doing
    assert wire.gate.sockets == 0


def test_closing_twice_says_it_once() -> None:
    wire = open_wire()
    wire.connection.close(GONE)
    wire.connection.close(Disconnect(3001, "shutdown"))
    assert wire.take() == server_frame(CLOSE, closing(3503, "force disconnect"))


def test_nothing_that_comes_after_the_servers_close_counts() -> None:
    wire = open_wire()
    wire.connection.close(GONE)
    wire.take()
    wire.send(frame(TEXT, b"x"), *fragments(TEXT, b"a", b"b"), frame(PONG), frame(BINARY, b"\xff" * 1000))
    assert (wire.take(), wire.journal, wire.steps) == (b"", [], [])


@pytest.mark.parametrize(
    "late", [frame(TEXT, b"\xff"), b"".join(fragments(TEXT, EURO[:1], b"x"))], ids=["whole", "in fragments"]
)
def test_bad_utf8_after_the_servers_close_is_ignored(late: bytes) -> None:
    """protocol.md 1.2: the server waits for the peer's Close, ignoring anything else that arrives."""
    wire = open_wire()
    wire.connection.close(GONE)
    wire.send(late)
    assert wire.steps == []


def test_a_client_that_never_answers_the_close_is_cut_at_the_time_out() -> None:
    wire = open_wire()
    wire.connection.close(GONE)
    wire.loop.advance(4.9)
    assert wire.steps == []
    wire.loop.advance(0.2)
    assert wire.steps == ["abort"]


@pytest.mark.parametrize("half", [1, 2, 3, 7, 8, 20, 205])
def test_a_close_while_a_frame_is_half_received_keeps_the_frames_apart(half: int) -> None:
    """The rest of the frame holds what looks like a Close frame, which must not be taken for one."""
    wire = open_wire()
    whole = frame(BINARY, frame(CLOSE, closing(1000)) * 25, mask=b"\0\0\0\0")
    assert len(whole) == 208
    wire.send(whole[:half])
    wire.connection.close(GONE)
    wire.take()
    wire.send(whole[half:])
    assert (wire.take(), wire.steps, wire.journal) == (b"", [], [])
    wire.send(frame(CLOSE, closing(3503)))
    assert wire.steps == ["eof"]


def test_a_peer_that_closes_from_within_a_message_gets_no_other() -> None:
    wire = open_wire()
    wire.gate.peer.on_message = lambda: wire.connection.close(GONE)
    wire.send(frame(TEXT, b"1"), frame(TEXT, b"2"), frame(BINARY, b"3")[:4])
    wire.send(frame(BINARY, b"3")[4:], frame(TEXT, b"4"), frame(CLOSE, closing(3503)))
    assert wire.journal == [("text", b"1")]
    assert wire.take() == server_frame(CLOSE, closing(3503, "force disconnect"))
    assert wire.steps == ["eof"]


def test_a_peer_that_closes_from_within_a_fragmented_message_gets_no_other() -> None:
    wire = open_wire()
    wire.gate.peer.on_message = lambda: wire.connection.close(GONE)
    wire.send(*fragments(TEXT, b"1", b"2"), frame(TEXT, b"3"), frame(PING, b"?"), frame(CLOSE))
    assert wire.journal == [("text", b"12")]
    assert wire.take() == server_frame(CLOSE, closing(3503, "force disconnect")) + server_frame(PONG, b"?")


def test_both_sides_close_at_once() -> None:
    wire = open_wire()
    wire.connection.close(GONE)
    wire.send(frame(CLOSE, closing(1000, "bye")))
    assert parse_server_frames(wire.take()) == parse_server_frames(
        server_frame(CLOSE, closing(3503, "force disconnect"))
    )
    assert (wire.steps, wire.journal) == (["eof"], [])


def test_to_dismiss_goes_through_the_peer() -> None:
    wire = open_wire()
    wire.connection.dismiss(Disconnect(3008, "slow"))
    assert (wire.journal, wire.take()) == ([("disconnect", Disconnect(3008, "slow"))], b"")
    wire.connection.close(GONE)
    wire.connection.dismiss(Disconnect(3008, "slow"))
    assert len(wire.journal) == 1


# The socket ends.


@pytest.mark.parametrize("before", [b"", frame(TEXT, b"half")[:5], frame(TEXT, b"a", fin=False)])
@pytest.mark.parametrize("has_eof", [False, True])
def test_a_connection_lost_without_a_close_is_1006_by_the_network(before: bytes, *, has_eof: bool) -> None:
    wire = open_wire()
    wire.send(before)
    if has_eof:
        wire.lose()
    else:
        wire.connection.connection_lost(ConnectionResetError())
    assert (wire.journal, wire.take(), wire.gate.sockets) == ([("closed", 1006, "", "network")], b"", 0)


def test_a_time_out_that_comes_after_the_end_harms_nobody() -> None:
    wire = open_wire()
    wire.connection.close(GONE)
    wire.connection.connection_lost(None)
    wire.loop.advance(10)
    assert (wire.journal, wire.gate.sockets) == ([], 0)


def test_a_socket_that_ends_before_its_request_leaves_nothing() -> None:
    wire = Wire()
    wire.connection.connection_lost(None)
    assert (wire.journal, wire.gate.sockets, wire.gate.requests) == ([], 0, [])


def test_tls_has_no_half_close_so_the_transport_is_closed_behind_the_close_frame() -> None:
    wire = open_wire(has_half_close=False)
    wire.send(frame(CLOSE, closing(1000)), frame(PING))
    assert (wire.take(), wire.steps) == (server_frame(CLOSE, closing(1000)), ["close"])
    broken = open_wire(has_half_close=False)
    broken.send(frame(3))
    assert broken.steps == ["close"]
    waiting = open_wire(has_half_close=False)
    waiting.connection.close(GONE)
    assert waiting.steps == []


# Back pressure.


@pytest.mark.parametrize(
    ("waiting", "size", "is_taken"),
    [
        (0, 1000, True),
        (0, 1001, True),  # an empty queue takes any one message
        (0, 10**6, True),
        (1, 999, True),
        (1, 1000, False),
        (900, 100, True),
        (900, 101, False),
        (1000, 0, True),
        (1000, 1, False),
        (1, 10**6, False),
        (5000, 1, False),
    ],
)
def test_a_congested_queue_takes_up_to_its_limit_and_not_a_byte_more(
    waiting: int, size: int, *, is_taken: bool
) -> None:
    wire = open_wire(queue=1000)
    wire.connection.pause_writing()
    wire.transport.waiting = waiting
    assert wire.connection.offer(b"x" * size) is is_taken
    assert len(wire.take()) == (size if is_taken else 0)


def test_the_queue_is_looked_at_from_the_pause_to_the_resume() -> None:
    wire = open_wire(queue=1000)
    wire.transport.waiting = 1000
    wire.connection.pause_writing()
    assert not wire.connection.offer(b"x")
    wire.connection.resume_writing()
    wire.transport.waiting = 0
    assert wire.connection.offer(b"x")


@pytest.mark.parametrize("queue", [1, 100, 1000])
def test_a_queue_limit_below_asyncios_own_high_water_mark_holds_too(queue: int) -> None:
    """asyncio calls pause_writing above 64 KiB only; `queue_max_size` may be set lower."""
    wire = open_wire(queue=queue)
    wire.transport.fill(queue, wire.connection)
    assert not wire.connection.offer(b"x")


@pytest.mark.parametrize("has_said_goodbye", [True, False])
def test_an_end_while_something_waits_is_told_and_how_it_came(*, has_said_goodbye: bool) -> None:
    wire = open_wire()
    wire.transport.fill(500, wire.connection)
    if has_said_goodbye:
        wire.connection.close(GONE)
    wire.connection.connection_lost(None)
    assert wire.gate.lost == [Lost.TIMEOUT if has_said_goodbye else Lost.NETWORK]


def test_an_end_when_all_is_written_loses_nothing() -> None:
    wire = open_wire()
    wire.transport.fill(500, wire.connection)
    wire.transport.fill(0, wire.connection)
    wire.connection.resume_writing()
    wire.connection.connection_lost(None)
    assert wire.gate.lost == [None]


# Reading.


def test_reading_is_paused_and_resumed_once() -> None:
    wire = open_wire()
    wire.connection.resume_reading()
    wire.connection.pause_reading()
    wire.connection.pause_reading()
    wire.connection.resume_reading()
    wire.connection.resume_reading()
    assert wire.steps == ["pause", "resume"]


def test_closing_reads_on_since_the_answer_has_to_be_read() -> None:
    wire = open_wire()
    wire.connection.pause_reading()
    wire.connection.close(GONE)
    assert wire.steps == ["pause", "resume"]


def test_reading_is_left_alone_once_the_transport_closes() -> None:
    wire = open_wire()
    wire.transport.close()
    wire.connection.pause_reading()
    wire.connection.resume_reading()
    assert wire.steps == ["close"]
    other = open_wire()
    other.connection.pause_reading()
    other.transport.close()
    other.connection.resume_reading()
    assert other.steps == ["pause", "close"]


# The handshake.


def test_an_upgrade_opens_the_connection() -> None:
    wire = Wire()
    response = wire.request()
    assert response.startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
    # RFC 6455 1.3: the answer to the sample nonce
    assert b"\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" in response
    assert b"Sec-WebSocket-Protocol" not in response
    assert (wire.gate.requests, wire.gate.sockets) == (["/ws/x"], 1)


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        ("centrifuge-json", "centrifuge-json"),
        ("centrifuge-protobuf, centrifuge-json", "centrifuge-protobuf"),
        ("centrifuge-json, centrifuge-protobuf", "centrifuge-json"),
        ("chat, centrifuge-protobuf", "centrifuge-protobuf"),
        ("chat, superchat", None),
    ],
)
def test_the_clients_first_known_subprotocol_wins_and_unknown_ones_pass(offered: str, chosen: str | None) -> None:
    response = Wire().request(f"Sec-WebSocket-Protocol: {offered}\r\n")
    assert response.startswith(b"HTTP/1.1 101 ")
    assert (f"\r\nSec-WebSocket-Protocol: {chosen}\r\n".encode() in response) is (chosen is not None)
    assert (b"Sec-WebSocket-Protocol" in response) is (chosen is not None)


@pytest.mark.parametrize(
    "late",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(frame(TEXT, b"x"), id="a text"),
        pytest.param(frame(PING, b"x"), id="a ping"),
        pytest.param(frame(CLOSE, closing(1000)), id="a close"),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", id="another request"),
    ],
)
@pytest.mark.parametrize("status", [403, 404, 503])
def test_a_refused_request_gets_its_response_and_is_cut_at_the_time_out(status: int, late: bytes) -> None:
    wire = Wire(refuses_with=status)
    response = wire.request()
    assert response.startswith(f"HTTP/1.1 {status} ".encode())
    assert response.endswith(b"\r\n\r\nnot here\n")
    assert (wire.steps, wire.gate.requests) == (["eof"], [])
    wire.send(late)
    wire.loop.advance(5)
    assert (wire.take(), wire.steps, wire.journal) == (b"", ["eof", "abort"], [])


@pytest.mark.parametrize(
    ("wrong", "status"),
    [
        (("Sec-WebSocket-Version: 13", "Sec-WebSocket-Version: 8"), 400),
        (("Upgrade: websocket", "Upgrade: tea"), 426),
        (("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Key: short"), 400),
    ],
)
def test_a_request_that_is_no_upgrade_is_refused(wrong: tuple[str, str], status: int) -> None:
    wire = Wire()
    wire.send(f"GET /ws HTTP/1.1\r\nHost: x\r\n{UPGRADE}\r\n".replace(*wrong).encode())
    assert wire.take().startswith(f"HTTP/1.1 {status} ".encode())
    assert wire.gate.requests == []
