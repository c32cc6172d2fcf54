"""The short way and the frame cutting of gateway/transport/websocket.py against plain websockets, the oracle.

The oracle is the library's own `ServerProtocol` with nothing on top but an assembler of fragments and a UTF-8 check.
Both get the same streams; what they hand on, what they answer, how they close and in which order must be the same,
wherever the reads are cut.
"""

import itertools
import zlib
from collections.abc import Sequence
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from websockets.extensions import Extension
from websockets.extensions.permessage_deflate import PerMessageDeflate, ServerPerMessageDeflateFactory
from websockets.frames import CloseCode, Frame, Opcode
from websockets.http11 import Request, Response
from websockets.protocol import CLOSED, OPEN
from websockets.server import ServerProtocol

from gateway.domain.counts import Lost
from gateway.protocol.codes import Disconnect
from gateway.transport.core import make_negotiator
from gateway.transport.ports import Peer, WebSocketSettings
from gateway.transport.websocket import DECOMPRESSED_FACTOR, WebSocketConnection
from tests.support.frames import BINARY, CLOSE, CONT, DEFLATE, PING, PONG, TEXT, UPGRADE, closing, deflated, frame

LIMIT: Final = 300
"""Message limit of both: above the reach of control frames, and small enough that oversize is common."""
GONE: Final = Disconnect(3503, "force disconnect")

Journal = list[tuple[Any, ...]]


class Recorder:
    """What one side did, in order; bytes written one after the other are one entry."""

    def __init__(self) -> None:
        self.journal: Journal = []

    def wrote(self, data: bytes) -> None:
        if self.journal and self.journal[-1][0] == "wrote":
            data = self.journal.pop()[1] + data
        self.journal.append(("wrote", data))

    def ended(self) -> None:
        self.journal.append(("ended",))

    # The Peer.

    def receive(self, payload: bytes, *, is_text: bool) -> None:
        self.journal.append(("text" if is_text else "binary", payload))

    def frame_pong(self) -> None:
        self.journal.append(("pong",))

    def disconnect(self, disconnect: Disconnect) -> None:
        raise AssertionError(f"nobody asked for {disconnect}")

    def tell_gap(self, channel: str) -> None:
        raise AssertionError(f"nobody is subscribed to {channel!r}")

    def closed(self, *, code: int, reason: str, by: str) -> None:
        self.journal.append(("closed", code, reason, by))


class Ours:
    """Our connection, opened, on a transport that records."""

    def __init__(self, *, compression: bool) -> None:
        self.recorder = Recorder()
        self.settings = WebSocketSettings(message_size_limit=LIMIT, compression=compression)
        self.queue_max_bytes = 1 << 20
        deflate = ServerPerMessageDeflateFactory(server_no_context_takeover=True, client_no_context_takeover=True)
        self.negotiator = make_negotiator(extensions=[deflate] if compression else [], subprotocols=[])
        stub: Any = self
        self._connection = WebSocketConnection(self, stub)
        self._connection.connection_made(stub)
        headers = DEFLATE if compression else ""
        self._connection.data_received(f"GET / HTTP/1.1\r\nHost: x\r\n{UPGRADE}{headers}\r\n".encode())
        assert (self._connection.compression_window_bits is not None) is compression
        self.recorder.journal.clear()

    def feed(self, data: bytes) -> None:
        self._connection.data_received(data)

    def close(self) -> None:
        self._connection.close(GONE)

    # The Acceptor.

    def opened(self) -> None: ...

    def gone(self, connection: object, lost: Lost | None = None) -> None: ...

    def failed(self, response: Response, address: str) -> None:
        pass

    def refuse(self, request: Request, address: str) -> Response | None:
        del request, address
        return None

    def accept(self, request: Request, connection: WebSocketConnection) -> Peer:
        del request, connection
        return self.recorder

    # The event loop and the transport.

    def call_later(self, delay_s: float, callback: object) -> None: ...

    def abort(self) -> None: ...

    def is_closing(self) -> bool:
        return False

    def write(self, data: bytes) -> None:
        self.recorder.wrote(data)

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.recorder.ended()

    def get_extra_info(self, name: str) -> None:
        del name

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...


class _OracleCore(ServerProtocol):
    def fail(self, code: CloseCode | int, reason: str = "") -> None:
        """Leave the reason of 1009 empty (protocol.md 1.2)."""
        super().fail(code, "" if code == CloseCode.MESSAGE_TOO_BIG else reason)

    def recv_frame(self, frame: Frame) -> None:
        """Take a Close frame between fragments for one, where the library sees a broken message (RFC 6455 5.4)."""
        if frame.opcode is Opcode.CLOSE:
            self.current_size = None
        super().recv_frame(frame)


class Oracle:
    """Plain websockets, given one frame after the other, so that each is answered before the next is looked at."""

    def __init__(self, *, compression: bool) -> None:
        self.recorder = Recorder()
        self._limit = LIMIT * DECOMPRESSED_FACTOR if compression else LIMIT
        self._core = _OracleCore(state=OPEN)
        deflate = PerMessageDeflate(
            remote_no_context_takeover=True,
            local_no_context_takeover=True,
            remote_max_window_bits=15,
            local_max_window_bits=15,
        )
        self._core.extensions = list[Extension]([deflate]) if compression else []
        self._whole: list[Frame] = []
        self._has_peer = True

    def feed(self, data: bytes) -> None:
        if self._core.state is CLOSED:
            return
        # Control frames do not count against the size of a message that they interrupt, which the library forgets. And
        # it lets a byte pass when a fragment unpacks to exactly what was left: 0 is "no limit" to zlib. See `_take`.
        is_control = bool(data) and bool(data[0] & 0x08)
        self._core.max_message_size = None if is_control or self._core.extensions else self._limit
        self._core.receive_data(data)
        for event in self._core.events_received():
            assert isinstance(event, Frame)
            self._take(event)
        self._flush()

    def close(self) -> None:
        self._has_peer = False
        if self._core.state is OPEN:
            self._core.send_close(GONE.code, GONE.reason)
            self._flush()

    def _take(self, event: Frame) -> None:
        if event.opcode is Opcode.PONG and self._has_peer:
            self.recorder.frame_pong()
        if event.opcode not in {Opcode.TEXT, Opcode.BINARY, Opcode.CONT}:
            return
        self._whole.append(event)
        if sum(len(part.data) for part in self._whole) > self._limit:
            self._core.fail(CloseCode.MESSAGE_TOO_BIG)
            return
        if not event.fin:
            return
        whole, self._whole = self._whole, []
        payload = b"".join(bytes(part.data) for part in whole)
        is_text = whole[0].opcode is Opcode.TEXT
        if not self._has_peer:
            return
        if is_text and not _is_utf8(payload):
            self._core.fail(CloseCode.INVALID_DATA, "invalid UTF-8")
            return
        self.recorder.receive(payload, is_text=is_text)

    def _flush(self) -> None:
        for data in self._core.data_to_send():
            if data:
                self.recorder.wrote(data)
            else:
                self.recorder.ended()
        if self._core.state is OPEN or not self._has_peer:
            return
        self._has_peer = False
        received, sent = self._core.close_rcvd, self._core.close_sent
        assert sent is not None
        if received is None:
            self.recorder.closed(code=sent.code, reason=sent.reason, by="server")
        else:
            self.recorder.closed(code=received.code, reason=received.reason, by="client")


def _is_utf8(payload: bytes) -> bool:
    try:
        payload.decode()
    except UnicodeDecodeError:
        return False
    return True


# Streams.

masks = st.sampled_from([b"\0\0\0\0", b"\xff\0\xff\0"]) | st.binary(min_size=4, max_size=4)
lengths = st.sampled_from([None, None, None, 8])
closes = st.one_of(
    st.just(b""),
    st.builds(closing, st.integers(0, 5000) | st.sampled_from([1000, 1001, 1005, 3000, 4999]), st.binary(max_size=9)),
    st.binary(max_size=130),
)


def payloads(*sizes: int) -> st.SearchStrategy[bytes]:
    """Payloads of any content, some of one of *sizes*."""
    return st.one_of(
        st.text(max_size=20).map(str.encode),
        st.binary(max_size=20),
        st.builds(lambda size, byte: byte * size, st.sampled_from(sizes), st.sampled_from([b"a", b"\x81", b"\xff"])),
        st.text(min_size=1, max_size=6).map(lambda text: text.encode()[:-1]),  # often cut inside a character
        # Payloads that look like frames: whoever loses a boundary takes them for such.
        st.builds(frame, st.sampled_from([TEXT, CLOSE, PING]), st.binary(max_size=8), mask=st.just(b"\0\0\0\0")),
    )


SMALL = payloads(0, 1, 2, 125, 126, 127, LIMIT // 2)
ANY_SIZE = payloads(0, 1, 2, 125, 126, 127, LIMIT - 1, LIMIT, LIMIT + 1, 5 * LIMIT)
control_frames = st.builds(
    frame, st.sampled_from([PING, PONG]), SMALL.map(lambda payload: payload[:125]), mask=masks, length_bytes=lengths
)
# Broken frames are not too big as well: which of both is said first is nobody's promise.
odd_frames = st.one_of(
    st.builds(
        frame,
        st.integers(0, 15),
        SMALL,
        fin=st.booleans(),
        rsv=st.sampled_from([0, 0, 0, 4, 2, 1, 7]),
        mask=st.none() | masks,
        length_bytes=lengths,
    ),
    st.builds(frame, st.just(CLOSE), closes, mask=masks),
)


@st.composite
def fragmented(draw: st.DrawFn, sizes: st.SearchStrategy[bytes], *, unpacked: int, compression: bool) -> list[bytes]:
    """Draw a message in pieces, with control frames between them."""
    payload, opcode = draw(sizes), draw(st.sampled_from([TEXT, BINARY]))
    is_compressed = compression and draw(st.booleans())
    if is_compressed:
        payload = deflated((payload * draw(st.sampled_from([1, 19, 20, 21])))[:unpacked])
    cuts = sorted(draw(st.lists(st.integers(0, len(payload)), min_size=1, max_size=4)))
    stream: list[bytes] = []
    for index, piece in enumerate(cut(payload, *cuts)):
        rsv = 4 if is_compressed and not index else 0
        stream.append(frame(CONT if index else opcode, piece, fin=index == len(cuts), rsv=rsv, mask=draw(masks)))
        if index < len(cuts):
            stream += draw(st.lists(control_frames, max_size=2))
    return stream


def _compressed(opcode: int, byte: bytes, size: int) -> bytes:
    return frame(opcode, deflated(byte * size), rsv=4)


def _good_streams(
    sizes: st.SearchStrategy[bytes], *, unpacked: int, compression: bool
) -> st.SearchStrategy[list[bytes]]:
    """Frames in their right order; compressed messages have up to *unpacked* bytes in them."""
    singles = [
        st.builds(frame, st.sampled_from([TEXT, BINARY]), sizes, mask=masks, length_bytes=lengths),
        control_frames,
    ]
    if compression:
        contents = st.integers(0, unpacked) | st.just(unpacked)
        singles.append(
            st.builds(_compressed, st.sampled_from([TEXT, BINARY]), st.sampled_from([b"z", b"\xfe"]), contents)
        )
    part = st.one_of(*singles).map(lambda each: [each])
    part |= fragmented(sizes, unpacked=unpacked, compression=compression)
    return st.lists(part, max_size=6).map(lambda parts: [each for part in parts for each in part])


def streams(*, compression: bool) -> st.SearchStrategy[list[bytes]]:
    """Frames that are mostly good: messages may be too big, and at most one frame is broken."""
    # The oracle knows one limit only. With compression that is the one for unpacked messages, ten times as high, and
    # what travels stays below its own.
    sizes = SMALL if compression else ANY_SIZE
    before = _good_streams(sizes, unpacked=10 * LIMIT + 1, compression=compression)
    after = _good_streams(sizes, unpacked=LIMIT, compression=compression)
    return st.builds(lambda *parts: list(itertools.chain(*parts)), before, st.lists(odd_frames, max_size=1), after)


def cut(data: bytes, *places: int) -> list[bytes]:
    bounds = [0, *sorted(places), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(bounds)]


def journal_of(side: Ours | Oracle, pieces: Sequence[bytes | None]) -> Journal:
    """Feed *pieces* to *side*, which closes by itself where a piece is `None`."""
    for piece in pieces:
        if piece is None:
            side.close()
        else:
            side.feed(piece)
    return side.recorder.journal


def explain(frames: Sequence[bytes], where: str) -> str:
    return f"{where}; frames: {[each[:24].hex(' ') + (' …' if len(each) > 24 else '') for each in frames]}"


common = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.mark.parametrize("compression", [False, True])
@given(data=st.data())
@common
def test_a_stream_cut_at_every_byte_means_what_plain_websockets_says(data: st.DataObject, *, compression: bool) -> None:
    frames = data.draw(streams(compression=compression))
    expected = journal_of(Oracle(compression=compression), frames)
    stream = b"".join(frames)
    # Every single cut of a short stream, an even sample of a long one: the work grows with the square.
    for place in range(0, len(stream) + 1, max(1, len(stream) // 150)):
        ours = journal_of(Ours(compression=compression), cut(stream, place))
        assert ours == expected, explain(frames, f"cut at {place}")


@pytest.mark.parametrize("compression", [False, True])
@given(data=st.data())
@common
def test_a_stream_cut_at_random_places_means_the_same(data: st.DataObject, *, compression: bool) -> None:
    frames = data.draw(streams(compression=compression))
    expected = journal_of(Oracle(compression=compression), frames)
    stream = b"".join(frames)
    places = data.draw(st.lists(st.integers(0, len(stream)), max_size=12))
    ours = journal_of(Ours(compression=compression), cut(stream, *places))
    assert ours == expected, explain(frames, f"cut at {sorted(places)}")


@pytest.mark.parametrize("compression", [False, True])
@given(data=st.data())
@common
def test_a_stream_one_byte_at_a_time_means_the_same(data: st.DataObject, *, compression: bool) -> None:
    frames = data.draw(streams(compression=compression))
    expected = journal_of(Oracle(compression=compression), frames)
    stream = b"".join(frames)
    ours = journal_of(Ours(compression=compression), [stream[at : at + 1] for at in range(len(stream))])
    assert ours == expected, explain(frames, "byte by byte")


@pytest.mark.parametrize("compression", [False, True])
@given(data=st.data())
@common
def test_a_server_that_closes_at_any_byte_keeps_the_frames_apart(data: st.DataObject, *, compression: bool) -> None:
    # Nothing too big and nothing broken: what a closing server makes of such is nobody's promise.
    frames = data.draw(_good_streams(SMALL, unpacked=10 * LIMIT, compression=compression))
    frames += data.draw(st.lists(st.builds(frame, st.just(CLOSE), st.just(closing(3503))), max_size=1))
    stream = b"".join(frames)
    place = data.draw(st.integers(0, len(stream)))
    later = data.draw(st.integers(place, len(stream)))
    bounds = [sum(map(len, frames[:count])) for count in range(1, len(frames))]
    expected = journal_of(
        Oracle(compression=compression),
        [
            *cut(stream[:place], *(bound for bound in bounds if bound < place)),
            None,
            *cut(stream[place:], *(bound - place for bound in bounds if bound > place)),
        ],
    )
    ours = journal_of(Ours(compression=compression), [stream[:place], None, stream[place:later], stream[later:]])
    assert ours == expected, explain(frames, f"closed at {place}, then cut at {later}")


@given(payload=st.binary(max_size=2000))
@settings(max_examples=50, deadline=None)
def test_the_frames_of_these_tests_are_compressed_as_the_rfc_says(payload: bytes) -> None:
    inflate = zlib.decompressobj(wbits=-15)
    assert inflate.decompress(deflated(payload) + b"\x00\x00\xff\xff") == payload
