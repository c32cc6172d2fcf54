"""Variants: what subscribers of one kind are sent for a batch."""

import json

import msgspec
import pytest
from websockets.frames import Frame, Opcode
from websockets.streams import StreamReader

from gateway.protocol.framing import BINARY, TEXT, WebSocketFraming
from gateway.protocol.json_codec import JSONCodec
from gateway.protocol.messages import Publication
from gateway.protocol.variants import BinaryPlainVariant, PlainVariant, ProtocolVariant

CODEC = JSONCodec()
PROTOCOL = ProtocolVariant("json", CODEC, WebSocketFraming(TEXT), needs_json=True)
PLAIN = PlainVariant("plain", text=WebSocketFraming(TEXT), binary=WebSocketFraming(BINARY))
BINARY_PLAIN = BinaryPlainVariant("plain", text=WebSocketFraming(TEXT), binary=WebSocketFraming(BINARY))


def parse(data: bytes) -> list[tuple[Opcode, bytes]]:
    reader = StreamReader()
    reader.feed_data(data)
    reader.feed_eof()
    frames = []
    while reader.buffer:
        with pytest.raises(StopIteration) as parsed:
            next(Frame.parse(reader.read_exact, mask=False))
        frame = parsed.value.value
        assert frame.fin
        frames.append((frame.opcode, bytes(frame.data)))
    return frames


def publications(*payloads: bytes) -> list[Publication]:
    return [Publication(data=msgspec.Raw(payload)) for payload in payloads]


@pytest.mark.parametrize(
    ("count", "frames"), [(0, []), (1, [1]), (2, [2]), (16, [16]), (17, [16, 1]), (40, [16, 16, 8])]
)
def test_a_batch_shares_frames_within_the_limits_and_in_order(count: int, frames: list[int]) -> None:
    batch = publications(*(b"%d" % index for index in range(count)))
    sent = parse(PROTOCOL.publications("c", batch))
    assert [(opcode, len(payload.split(b"\n"))) for opcode, payload in sent] == [(Opcode.TEXT, size) for size in frames]
    pushes = [json.loads(line) for _, payload in sent for line in payload.split(b"\n")]
    assert pushes == [{"push": {"channel": "c", "pub": {"data": index}}} for index in range(count)]


def test_a_message_above_the_limit_travels_alone() -> None:
    large = b'"%b"' % (b"x" * 70_000)
    sent = parse(PROTOCOL.publications("c", publications(b"1", large, b"2", b"3")))
    lines = [[json.loads(line)["push"]["pub"]["data"] for line in payload.split(b"\n")] for _, payload in sent]
    assert lines == [[1], [json.loads(large)], [2, 3]]


def test_replies_share_frames_like_publications() -> None:
    replies = [CODEC.published(index) for index in range(1, 18)]
    assert parse(PROTOCOL.messages(replies)) == [
        (Opcode.TEXT, b"\n".join(replies[:16])),
        (Opcode.TEXT, replies[16]),
    ]


@pytest.mark.parametrize(
    ("payload", "opcode"),
    [
        (b"{}", Opcode.TEXT),
        (b"", Opcode.TEXT),
        ("größer 😀".encode(), Opcode.TEXT),
        (b"\xff", Opcode.BINARY),
        (b"\xed\xa0\x80", Opcode.BINARY),
        (b"caf\xc3", Opcode.BINARY),
        (b"\x00", Opcode.TEXT),
    ],
    ids=repr,
)
def test_a_plain_client_gets_text_as_text_and_the_rest_as_binary(payload: bytes, opcode: Opcode) -> None:
    assert parse(PLAIN.message(payload)) == [(opcode, payload)]
    assert parse(PLAIN.text(payload)) == [(Opcode.TEXT, payload)]
    assert parse(PLAIN.binary(payload)) == [(Opcode.BINARY, payload)]


def test_a_plain_client_gets_each_publication_as_a_message_of_its_own_byte_for_byte() -> None:
    payloads = [b'{ "a" : 1.0 }', b"\xff\x00", b"[\n1\r\n]", b""]
    opcodes = [Opcode.TEXT, Opcode.BINARY, Opcode.TEXT, Opcode.TEXT]
    assert parse(PLAIN.publications("c", publications(*payloads))) == list(zip(opcodes, payloads, strict=True))


def test_in_a_namespace_of_binary_publications_everything_is_binary() -> None:
    payloads = [b'{"a":1}', b"\xff", b""]
    sent = parse(BINARY_PLAIN.publications("c", publications(*payloads)))
    assert sent == [(Opcode.BINARY, payload) for payload in payloads]


def test_only_the_client_protocol_in_json_needs_json() -> None:
    assert (PROTOCOL.needs_json, PLAIN.needs_json, BINARY_PLAIN.needs_json) == (True, False, False)
