"""The client protocol on a stream: messages that can be told apart, in as few pieces as there are turns."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from gateway.protocol import codes
from gateway.protocol.codec import Codec
from gateway.protocol.json_codec import JSONCodec
from gateway.protocol.messages import Publication, Push
from gateway.protocol.protobuf_codec import ProtobufCodec
from gateway.protocol.stream_variants import LAST_CHUNK, StreamFraming, StreamVariant, chunk

TWO = [Publication(Raw(b"1")), Publication(Raw(b'{"a":\r\n2}'))]
BYE = Push(disconnect=codes.SHUTDOWN)


def variant(codec: Codec, *, is_chunked: bool = False, **between: Any) -> StreamVariant:
    framing = StreamFraming(is_chunked=is_chunked, **between)
    return StreamVariant(codec.name, codec, framing, transport="sse", needs_json=codec.name == "json")


@pytest.mark.parametrize(
    ("kind", "publications", "goodbye"),
    [
        (
            variant(JSONCodec(), tail=b"\n"),
            b'{"push":{"channel":"c","pub":{"data":1}}}\n{"push":{"channel":"c","pub":{"data":{"a":2}}}}\n',
            b'{"push":{"disconnect":{"code":3001,"reason":"shutdown"}}}\n',
        ),
        (
            variant(JSONCodec(), head=b"data: ", tail=b"\n\n"),
            (
                b'data: {"push":{"channel":"c","pub":{"data":1}}}\n\n'
                b'data: {"push":{"channel":"c","pub":{"data":{"a":2}}}}\n\n'
            ),
            b'data: {"push":{"disconnect":{"code":3001,"reason":"shutdown"}}}\n\n',
        ),
        (
            variant(ProtobufCodec()),
            b'\x0a\x22\x08\x12\x01c\x22\x03\x22\x011\x12\x22\x10\x12\x01c\x22\x0b\x22\x09{"a":\r\n2}',
            b"\x11\x22\x0f\x5a\x0d\x08\xb9\x17\x12\x08shutdown",
        ),
    ],
    ids=["lines", "events", "protobuf"],
)
def test_each_message_is_told_from_the_next(kind: StreamVariant, publications: bytes, goodbye: bytes) -> None:
    assert kind.publications("c", TWO) == publications
    assert kind.push(BYE) == goodbye


@given(st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=40))
def test_the_messages_of_a_turn_are_one_chunk(messages: list[bytes]) -> None:
    bare, chunked = (variant(JSONCodec(), tail=b"\n", is_chunked=each) for each in (False, True))
    assert chunked.messages(messages) == chunk(bare.messages(messages))


def test_nothing_is_no_chunk_since_an_empty_one_would_end_the_response() -> None:
    for is_chunked in (False, True):
        assert variant(JSONCodec(), head=b"data: ", tail=b"\n\n", is_chunked=is_chunked).messages([]) == b""
    assert chunk(b"x" * 26) == b"1a\r\n" + b"x" * 26 + b"\r\n"
    assert LAST_CHUNK == b"0\r\n\r\n"


def test_what_was_agreed_to_is_framed_in_the_same_way() -> None:
    variant = StreamVariant(
        "sse",
        JSONCodec(),
        StreamFraming(head=b"data: ", tail=b"\n\n", is_chunked=False),
        transport="sse",
        needs_json=True,
    )
    agreed = variant.agreed(is_patched=True, is_numbered=True)
    assert agreed is variant.agreed(is_patched=True, is_numbered=True)
    assert agreed.agreed(is_patched=False, is_numbered=False) is variant
    batch = [Publication(data=Raw(b"1")), Publication(data=Raw(b"2"))]
    assert agreed.publications(7, agreed.patches(batch, None)) == (
        b'data: {"push":{"id":7,"pub":{"data":"1"}}}\n\ndata: {"push":{"id":7,"pub":{"data":"2"}}}\n\n'
    )
    assert agreed.transport == "sse"
