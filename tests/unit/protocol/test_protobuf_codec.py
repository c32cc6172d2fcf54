"""The Protobuf encoding: framing, payloads byte for byte, and malformed frames."""

import msgspec
import pytest
from msgspec import Raw

from gateway.protocol.codec import MalformedFrameError
from gateway.protocol.messages import (
    ClientInfo,
    Command,
    ConnectRequest,
    ConnectResult,
    Empty,
    HistoryRequest,
    Publication,
    PublishRequest,
    Push,
    RefreshResult,
    Reply,
    StreamPosition,
    SubscribeRequest,
)
from gateway.protocol.protobuf_codec import ProtobufCodec
from gateway.protocol.protobuf_writing import encoded_varint

CODEC = ProtobufCodec()
PONG = Command()
CLIENT = "0f5a1c2e-8d1b-4c55-9d5e-0123456789ab"


def framed(content: bytes) -> bytes:
    assert len(content) < 128
    return bytes((len(content),)) + content


def publish(payload: bytes, channel: bytes = b"c") -> bytes:
    request = b"\x0a" + framed(channel) + b"\x12" + framed(payload)
    return framed(b"\x08\x01\x3a" + framed(request))


@pytest.mark.parametrize(
    ("frame", "commands"),
    [
        (b"\x00", [PONG]),
        (b"\x00\x00", [PONG, PONG]),
        (framed(b"\x08\x01\x22" + framed(b"\x0a\x01t")), [Command(id=1, connect=ConnectRequest(token="t"))]),
        (framed(b"\x08\xff\xff\xff\xff\x0f"), [Command(id=2**32 - 1)]),
        (framed(b"\x08\x01\x08\x02"), [Command(id=2)]),
        (publish(b"\xff\x00"), [Command(id=1, publish=PublishRequest("c", Raw(b"\xff\x00")))]),
        (publish(b""), [Command(id=1, publish=PublishRequest("c"))]),
        (publish(b"1") + b"\x00", [Command(id=1, publish=PublishRequest("c", Raw(b"1"))), PONG]),
        (framed(b"\x08\x01\x5a\x00"), [Command(id=1)]),
        (
            framed(b"\x52\x02\x38\x05\x52\x0b\x38" + b"\xff" * 9 + b"\x01"),
            [Command(history=HistoryRequest(limit=-1))],
        ),
        (
            framed(b"\x52\x04\x42\x02\x08\x05\x52\x05\x42\x03\x12\x01e"),
            [Command(history=HistoryRequest(since=StreamPosition(5, "e")))],
        ),
        (framed(b"\x22\x02\x1a\x00"), [Command(connect=ConnectRequest(subs={"": SubscribeRequest()}))]),
        (
            framed(b"\x22" + framed(b"\x1a" + framed(b"\x0a\x01a\x12\x02\x18\x01") + b"\x32\x06\x0a\x01h\x12\x01v")),
            [Command(connect=ConnectRequest(subs={"a": SubscribeRequest(recover=True)}, headers={"h": "v"}))],
        ),
        # What is unknown is skipped: a varint, eight bytes, bytes, four bytes.
        (framed(b"\xa0\x06\x80\x01\xa1\x06" + b"8" * 8 + b"\xa2\x06\x02xx\xa5\x06" + b"4" * 4), [PONG]),
    ],
)
def test_a_frame_is_read_as_its_commands(frame: bytes, commands: list[Command]) -> None:
    assert CODEC.decode(frame) == commands


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param(b"", id="empty frame"),
        pytest.param(b"\x05", id="length beyond the frame"),
        pytest.param(b"\x80", id="truncated length"),
        pytest.param(b"\xff" * 10 + b"\x01", id="length of eleven bytes"),
        pytest.param(framed(b"\x08"), id="no value"),
        pytest.param(framed(b"\x08\x80"), id="truncated varint"),
        pytest.param(framed(b"\x08" + b"\x80" * 10 + b"\x01"), id="varint of eleven bytes"),
        pytest.param(framed(b"\x08" + b"\xff" * 9 + b"\x02"), id="varint of 65 bits"),
        pytest.param(framed(b"\x0a\x01x"), id="bytes for a number"),
        pytest.param(framed(b"\x38\x01"), id="number for a message"),
        pytest.param(framed(b"\x3a\x05\x0a"), id="length beyond the command"),
        pytest.param(framed(b"\x3a\x03\x0a\x02a"), id="length beyond the message"),
        pytest.param(framed(b"\x3a\x03\x0a\x01\xff"), id="no UTF-8"),
        pytest.param(publish(b"1", b"\xff"), id="no UTF-8 in a publish"),
        pytest.param(framed(b"\x00\x00"), id="field zero"),
        pytest.param(framed(b"\xa3\x06\xa4\x06"), id="group"),
        pytest.param(framed(b"\xa6\x06"), id="wire type six"),
        pytest.param(framed(b"\xa2\x06\x05x"), id="unknown bytes beyond the message"),
        pytest.param(framed(b"\xa1\x06xxxx"), id="unknown eight bytes cut short"),
        pytest.param(framed(b"\x80\x80\x80\x80\x10\x00"), id="field number above all"),
        pytest.param(framed(b"\x2a" + framed(b"\x38" + b"\xff" * 9 + b"\x01")), id="offset of 64 bits"),
        pytest.param(b"\x00" + publish(b"1")[:-1], id="second command cut short"),
    ],
)
def test_a_malformed_frame_is_refused_whole(frame: bytes) -> None:
    with pytest.raises(MalformedFrameError):
        CODEC.decode(frame)


def test_as_many_commands_as_a_frame_holds_are_read() -> None:
    assert CODEC.decode(b"\x00" * 100_000) == [PONG] * 100_000


def test_the_example_of_the_protocol_is_written_byte_for_byte() -> None:
    result = ConnectResult(client=CLIENT, version="0.0.0 OSS", ping=5, pong=True)
    assert CODEC.reply(Reply(id=1, connect=result)) == (
        b"\x39\x08\x01\x2a\x35\x0a\x24" + CLIENT.encode() + b"\x12\x090.0.0 OSS\x38\x05\x40\x01"
    )
    publication = Publication(data=Raw(b'{"a": 1}'), offset=1, epoch="ijfhSfUJ")
    assert CODEC.publication("chat:pb", publication) == (
        b'\x23\x22\x21\x12\x07chat:pb\x22\x16\x22\x08{"a": 1}\x30\x01\x72\x08ijfhSfUJ'
    )
    assert CODEC.ping == b"\x00"


@pytest.mark.parametrize("command_id", [1, 127, 128, 2047, 2048, 2**32 - 1])
def test_the_fast_reply_to_a_publish_equals_the_general_one(command_id: int) -> None:
    assert CODEC.published(command_id) == CODEC.reply(Reply(id=command_id, publish=Empty()))


@pytest.mark.parametrize("command_id", [1, 127, 128, 20_000, 2**32 - 1])
@pytest.mark.parametrize("size", [1, 127, 128, 20_000])
def test_the_fast_way_reads_a_publish_like_the_general_one(command_id: int, size: int) -> None:
    frame = CODEC.published(command_id)[1:-2] + b"\x3a"  # the id's field
    channel = b"\x0a\x01c\x12"
    data = varint(size) + b"x" * size
    frame += varint(len(channel + data)) + channel + data
    whole = varint(len(frame)) + frame
    expected = Command(id=command_id, publish=PublishRequest("c", Raw(b"x" * size)))
    assert CODEC.decode(whole) == [expected]
    assert CODEC.decode(whole + b"\x00") == [expected, PONG]


def varint(value: int) -> bytes:
    encoded = b""
    while value > 127:
        encoded += bytes((value % 128 + 128,))
        value //= 128
    return encoded + bytes((value,))


def test_a_refresh_has_other_numbers_in_each_place() -> None:
    result = RefreshResult(expires=True, ttl=9)
    assert CODEC.reply(Reply(id=1, refresh=result)) == framed(b"\x08\x01\x72\x04\x18\x01\x20\x09")
    assert CODEC.reply(Reply(id=1, sub_refresh=result)) == framed(b"\x08\x01\x7a\x04\x08\x01\x10\x09")
    assert CODEC.push(Push(refresh=result)) == framed(b"\x22\x06\x62\x04\x08\x01\x10\x09")


def test_messages_share_a_frame_without_anything_between() -> None:
    assert CODEC.join([b"\x00", CODEC.published(1)]) == b"\x00" + CODEC.published(1)


def test_a_publishers_info_is_written_with_and_without_what_was_said_of_it() -> None:
    bare = Publication(data=Raw(b"1"), info=ClientInfo("u", "c"))
    assert b"\x2a\x06\x0a\x01u\x12\x01c" in CODEC.publication("x", bare)
    full = msgspec.structs.replace(bare, info=ClientInfo("", "c", Raw(b"2"), Raw(b"3")))
    assert b"\x2a\x09\x12\x01c\x1a\x012\x22\x013" in CODEC.publication("x", full)


def test_a_filter_that_nests_deeper_than_it_can_be_read_is_malformed() -> None:
    node = b""
    for _ in range(15_000):
        node = b"\x32" + encoded_varint(len(node)) + node  # FilterNode.nodes = 6
    request = b"\x6a" + encoded_varint(len(node)) + node  # SubscribeRequest.tf = 13
    command = b"\x08\x01\x2a" + encoded_varint(len(request)) + request
    frame = encoded_varint(len(command)) + command
    assert len(frame) < 65536
    with pytest.raises(MalformedFrameError):
        CODEC.decode(frame)
