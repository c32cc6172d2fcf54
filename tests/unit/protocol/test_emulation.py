"""What comes beside a stream: an envelope around commands, in both encodings, and whatever strangers send instead."""

import contextlib
import json
from typing import Any

import pytest
from centrifuge.protocol import client_pb2
from hypothesis import given
from hypothesis import strategies as st

from gateway.protocol.codec import MalformedFrameError
from gateway.protocol.emulation import EmulationRequest, decode_emulation_json, decode_emulation_protobuf

OFFICIAL: Any = client_pb2  # its classes are made at run time
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


@given(TEXT, TEXT, TEXT)
def test_json_is_read_as_it_was_written_and_the_commands_are_a_string_in_it(node: str, session: str, data: str) -> None:
    body = json.dumps({"session": session, "node": node, "data": data, "more": [1]}).encode()
    assert decode_emulation_json(body) == EmulationRequest(node, session, data.encode())


@given(TEXT, TEXT, st.binary(max_size=60))
def test_protobuf_is_read_as_the_official_writer_writes_it(node: str, session: str, data: bytes) -> None:
    body = OFFICIAL.EmulationRequest(node=node, session=session, data=data).SerializeToString()
    assert decode_emulation_protobuf(body) == EmulationRequest(node, session, data)


def test_half_an_emoji_among_the_commands_is_no_reason_to_refuse_them() -> None:
    told = decode_emulation_json(rb'{"session":"s","node":"n","data":"{\"x\":\"\ud83d\"}"}')
    assert told.data == '{"x":"\ufffd"}'.encode()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"x"',
        b"\xff",
        b'{"session":1}',
        b'{"node":null}',
        b'{"data":{"id":1}}',
        b'{"data":"\xff"}',
        b'{"data":"x"',
        b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
    ids=lambda body: repr(body[:20]),
)
def test_what_is_no_request_in_json_is_malformed(body: bytes) -> None:
    with pytest.raises(MalformedFrameError):
        decode_emulation_json(body)


@pytest.mark.parametrize(
    "body",
    [b"\x0a", b"\x0a\x05n", b"\x08\x01", b"\x1a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", b"\x0a\x01\xff", b"\x0b"],
    ids=repr,
)
def test_what_is_no_request_in_protobuf_is_malformed(body: bytes) -> None:
    with pytest.raises(MalformedFrameError):
        decode_emulation_protobuf(body)


@given(st.binary(max_size=100))
def test_any_bytes_are_a_request_or_malformed(body: bytes) -> None:
    for decode in (decode_emulation_json, decode_emulation_protobuf):
        with contextlib.suppress(MalformedFrameError):
            assert isinstance(decode(body), EmulationRequest)
