"""What a client reads and writes in Protobuf; tests/properties holds it against JSON and the official definitions."""

from typing import Any

import pytest
from msgspec import Raw

from gateway.protocol.client_protobuf_codec import ClientProtobufCodec
from gateway.protocol.codec import MalformedFrameError
from gateway.protocol.messages import NOTHING, ClientInfo, HistoryResult, PresenceStatsResult, Publication, Reply
from gateway.protocol.protobuf_codec import ProtobufCodec

CODEC, SERVER = ClientProtobufCodec(), ProtobufCodec()


def test_what_protobuf_leaves_out_is_zero_and_not_missing() -> None:
    [message] = CODEC.decode(SERVER.reply(Reply(1, history=HistoryResult([], "", 0))))
    assert message.history is not None
    assert (message.history.publications, message.history.epoch, message.history.offset) == ([], "", 0)
    [message] = CODEC.decode(SERVER.reply(Reply(1, presence_stats=PresenceStatsResult(0, 0))))
    assert message.presence_stats == PresenceStatsResult(0, 0)
    [message] = CODEC.decode(SERVER.publication("x", Publication(info=ClientInfo("", ""))))
    assert message.push is not None
    assert message.push.pub is not None
    assert message.push.pub.info == ClientInfo("", "")


def test_no_two_messages_share_what_was_left_out() -> None:
    frame = SERVER.reply(Reply(1, history=HistoryResult([], "", 0)))
    first, second = CODEC.decode(frame + frame)
    assert first.history is not None
    assert second.history is not None
    assert first.history.publications is not second.history.publications


def test_several_messages_and_a_ping_share_a_frame() -> None:
    frame = SERVER.published(7) + SERVER.ping + SERVER.publication("x", Publication(Raw(b"\x00\xff")))
    published, ping, pushed = CODEC.decode(frame)
    assert (published.id, published.publish is not None) == (7, True)
    assert (ping.id, ping.push) == (0, None)
    assert pushed.push is not None
    assert pushed.push.pub is not None
    assert bytes(pushed.push.pub.data) == b"\x00\xff"


@pytest.mark.parametrize(
    ("value", "payload"),
    [(b"\x00\xff", b"\x00\xff"), (Raw(b"x"), b"x"), ({"n": 1}, b'{"n":1}'), ("text", b'"text"'), (None, b"null")],
)
def test_bytes_go_as_they_are_and_the_rest_as_json(value: Any, payload: bytes) -> None:
    assert bytes(CODEC.payload(value)) == payload


def test_no_bytes_are_no_payload() -> None:
    assert CODEC.payload(b"") is NOTHING


@pytest.mark.parametrize("frame", [b"", b"\x02", b"\x02\x08", b"\x80", b"\x02\x08\x80", b"\x03\x0a\x01x", b"\x01\x0b"])
def test_a_frame_that_is_no_protobuf_is_malformed(frame: bytes) -> None:
    with pytest.raises(MalformedFrameError):
        CODEC.decode(frame)
