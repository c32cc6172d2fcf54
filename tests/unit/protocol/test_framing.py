"""Frames as the websockets library reads them, and the limits on joining."""

import zlib
from collections.abc import Sequence

import pytest
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame, Opcode
from websockets.streams import StreamReader

from gateway.protocol.framing import (
    BINARY,
    MAX_JOINED_BYTES,
    MAX_JOINED_MESSAGES,
    PIECE_BYTES,
    TEXT,
    DeflateFraming,
    WebSocketFraming,
    batches,
    frame_header,
)

SIZES = [0, 1, 124, 125, 126, 127, 128, 65534, 65535, 65536, 65537, 200_000]


def parse(data: bytes, *, window_bits: int | None = None) -> list[Frame]:
    """Read frames as a client of the websockets library does, with permessage-deflate if *window_bits* is given."""
    extension = None if window_bits is None else PerMessageDeflate(True, True, window_bits, 15)  # noqa: FBT003
    reader = StreamReader()
    reader.feed_data(data)
    reader.feed_eof()
    frames = []
    while reader.buffer:
        parsing = Frame.parse(reader.read_exact, mask=False, extensions=[extension] if extension else None)
        with pytest.raises(StopIteration) as parsed:
            next(parsing)
        frames.append(parsed.value.value)
    return frames


@pytest.mark.parametrize(("opcode", "expected"), [(TEXT, Opcode.TEXT), (BINARY, Opcode.BINARY)])
@pytest.mark.parametrize("size", SIZES)
def test_a_frame_is_read_back_whole(opcode: int, expected: Opcode, size: int) -> None:
    payload = bytes(index % 251 for index in range(size))
    data = WebSocketFraming(opcode).frame(payload)
    assert parse(data) == [Frame(expected, payload, fin=True)]
    assert data == Frame(expected, payload, fin=True).serialize(mask=False)


def test_frames_follow_each_other() -> None:
    framing = WebSocketFraming()
    payloads = [bytes([65 + index]) * size for index, size in enumerate(SIZES)]
    frames = parse(b"".join(map(framing.frame, payloads)))
    assert [bytes(frame.data) for frame in frames] == payloads


@pytest.mark.parametrize(
    ("length", "header"),
    [
        (0, "81 00"),
        (125, "81 7d"),
        (126, "81 7e 00 7e"),
        (65535, "81 7e ff ff"),
        (65536, "81 7f 00 00 00 00 00 01 00 00"),
        (2**40, "81 7f 00 00 01 00 00 00 00 00"),
    ],
)
def test_a_length_is_written_in_the_shortest_form(length: int, header: str) -> None:
    assert frame_header(TEXT, length).hex(" ") == header


@pytest.mark.parametrize("window_bits", range(9, 16))
@pytest.mark.parametrize("size", SIZES)
def test_a_compressed_frame_is_read_back_whole(window_bits: int, size: int) -> None:
    """The same 3000 bytes again and again: a match further back than the window would fail to decode."""
    period = b"".join(b"%d," % (index * 7919 % 104_729) for index in range(500))
    payload = (period * (size // len(period) + 1))[:size]
    framing = DeflateFraming(BINARY, window_bits=window_bits, min_bytes=0)
    frames = parse(framing.frame(payload), window_bits=window_bits)
    assert [(frame.opcode, bytes(frame.data), frame.fin, frame.rsv1) for frame in frames] == [
        (Opcode.BINARY, payload, True, False)
    ]


def test_a_compressed_frame_needs_nothing_of_those_before() -> None:
    """One frame serves many clients, whose connections have seen different things."""
    framing = DeflateFraming(min_bytes=0)
    first, second = framing.frame(b"abc" * 1000), framing.frame(b"abc" * 1000)
    assert first == second
    assert [bytes(frame.data) for frame in parse(second + first, window_bits=15)] == [b"abc" * 1000] * 2
    assert len(first) < 100


@pytest.mark.parametrize(("size", "is_compressed"), [(0, False), (127, False), (128, True), (129, True)])
def test_small_payloads_stay_as_they_are(size: int, is_compressed: bool) -> None:  # noqa: FBT001
    payload = b"a" * size
    data = DeflateFraming(min_bytes=128).frame(payload)
    assert bool(data[0] & 0x40) is is_compressed
    assert (data == WebSocketFraming().frame(payload)) is not is_compressed
    assert [bytes(frame.data) for frame in parse(data, window_bits=15)] == [payload]


def test_what_does_not_compress_is_still_read_back() -> None:
    payload = bytes(zlib.crc32(b"%d" % index) & 0xFF for index in range(70_000))
    assert [bytes(frame.data) for frame in parse(DeflateFraming().frame(payload), window_bits=15)] == [payload]


@pytest.mark.parametrize("framing", [WebSocketFraming, DeflateFraming])
@pytest.mark.parametrize(("opcode", "expected"), [(TEXT, Opcode.TEXT), (BINARY, Opcode.BINARY)])
@pytest.mark.parametrize("size", [0, 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES, 1_000_000])
def test_pieces_are_the_fragments_of_one_message(
    framing: type[WebSocketFraming | DeflateFraming], opcode: int, expected: Opcode, size: int
) -> None:
    payload = bytes(range(250)) * (size // 250 + 1)
    payload = payload[:size]
    pieces = list(framing(opcode).pieces(payload))
    assert max(map(len, pieces)) <= PIECE_BYTES + 10
    frames = [frame for piece in pieces for frame in parse(piece)]
    assert len(frames) == len(pieces), "a piece is a whole frame, so that a ping may follow it"
    assert [frame.opcode for frame in frames] == [expected] + [Opcode.CONT] * (len(frames) - 1)
    assert [frame.fin for frame in frames] == [False] * (len(frames) - 1) + [True]
    assert not any(frame.rsv1 for frame in frames)
    assert b"".join(bytes(frame.data) for frame in frames) == payload


def lengths(runs: Sequence[Sequence[bytes]]) -> list[list[int]]:
    return [[len(message) for message in run] for run in runs]


@pytest.mark.parametrize(
    ("sizes", "runs"),
    [
        ([], []),
        ([0], [[0]]),
        ([1] * 16, [[1] * 16]),
        ([1] * 17, [[1] * 16, [1]]),
        ([1] * 33, [[1] * 16, [1] * 16, [1]]),
        ([65536], [[65536]]),
        ([65537], [[65537]]),
        ([65535, 0], [[65535, 0]]),
        ([65536, 0], [[65536], [0]]),
        ([32767, 32768], [[32767, 32768]]),
        ([32768, 32768], [[32768], [32768]]),
        ([1, 65537, 1], [[1], [65537], [1]]),
        ([65537, 65537], [[65537], [65537]]),
        ([4095] * 16, [[4095] * 16]),
        ([4096] * 16, [[4096] * 15, [4096]]),
    ],
    ids=str,
)
def test_messages_are_joined_up_to_the_limits(sizes: list[int], runs: list[list[int]]) -> None:
    assert (MAX_JOINED_MESSAGES, MAX_JOINED_BYTES) == (16, 65536)
    assert lengths(list(batches([b"x" * size for size in sizes]))) == runs
