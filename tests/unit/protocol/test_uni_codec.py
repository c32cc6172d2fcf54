"""The encoding of clients that only listen: what they say once, and what they are told."""

import json

import pytest
from msgspec import Raw

from gateway.protocol import codes
from gateway.protocol.codec import MalformedFrameError
from gateway.protocol.framing import TEXT, WebSocketFraming
from gateway.protocol.json_codec import JSONCodec
from gateway.protocol.messages import (
    ClientInfo,
    Command,
    ConnectRequest,
    ConnectResult,
    Join,
    Publication,
    Push,
    RefreshResult,
    Reply,
    SubscribeRequest,
    SubscribeResult,
)
from gateway.protocol.uni_codec import UniCodec
from gateway.protocol.variants import UniVariant
from tests.support.conversations import read_frames

CODEC, WRAPPED = UniCodec(max_depth=5), JSONCodec(max_depth=5)
PUSHES = [
    Push(channel="c", join=Join(ClientInfo("u", "c"))),
    Push(channel="c", unsubscribe=codes.SERVER_UNSUBSCRIBE),
    Push(refresh=RefreshResult(expires=True, ttl=5)),
    Push(disconnect=codes.SHUTDOWN),
]


@pytest.mark.parametrize(
    ("frame", "request_"),
    [
        (b"{}", ConnectRequest()),
        (b"", ConnectRequest()),
        (b" \r\n", ConnectRequest()),
        (
            b'{\n "token": "t",\n "name": "x", "subs": {"a": {"recover": true, "offset": 1}}, "more": [1]\n}\n',
            ConnectRequest(token="t", name="x", subs={"a": SubscribeRequest(recover=True, offset=1)}),
        ),
        (b'{"data":{"a": 1.0}}', ConnectRequest(data=Raw(b'{"a": 1.0}'))),
        (b'{"name":"\\ud83d"}', ConnectRequest(name="\ufffd")),
    ],
)
def test_what_is_said_is_one_bare_request_over_as_many_lines_as_it_likes(
    frame: bytes, request_: ConnectRequest
) -> None:
    assert CODEC.decode(frame) == [Command(1, connect=request_)]


@pytest.mark.parametrize(
    "frame",
    [
        b"null",
        b"[]",
        b"1",
        b"{",
        b"{}{}",
        b"{}\n{}",
        b"\xff",
        b'{"name":"\xff"}',
        b'{"token":1}',
        b'{"data":[[[[[1]]]]]}',
    ],
    ids=repr,
)
def test_all_else_is_malformed(frame: bytes) -> None:
    with pytest.raises(MalformedFrameError):
        CODEC.decode(frame)


def test_the_reply_to_connect_is_a_push_without_what_such_a_client_can_not_use() -> None:
    result = ConnectResult(
        client="c",
        version="v",
        data=Raw(b"1"),
        subs={"a": SubscribeResult(epoch="e", positioned=True)},
        expires=True,
        ttl=9,
        ping=25,
        pong=True,
        session="s",
        node="n",
        time=7,
    )
    assert CODEC.reply(Reply(1, connect=result)) == (
        b'{"connect":{"client":"c","version":"v","data":1,"subs":{"a":{"epoch":"e","positioned":true}},'
        b'"expires":true,"ttl":9,"ping":25,"session":"s","time":7}}'
    )
    assert CODEC.reply(Reply(1, connect=ConnectResult(client="c"))) == b'{"connect":{"client":"c"}}'


def test_pushes_are_what_others_get_wrapped() -> None:
    for push in PUSHES:
        assert json.loads(WRAPPED.push(push)) == {"push": json.loads(CODEC.push(push))}
    publication = Publication(Raw(b'{"a":\n"\\n"}'), offset=3)
    assert CODEC.publication("c", publication) == b'{"channel":"c","pub":{"data":{"a":"\\n"},"offset":3}}'
    assert CODEC.ping == b"{}"


@pytest.mark.parametrize(
    ("joins", "frames"),
    [(False, ["1", "2", "3"]), (True, ["1\n2\n3"])],
)
def test_on_a_websocket_each_push_is_a_frame_unless_told_otherwise(*, joins: bool, frames: list[str]) -> None:
    variant = UniVariant("json", CODEC, WebSocketFraming(TEXT), joins_messages=joins)
    assert read_frames(variant.messages([b"1", b"2", b"3"])) == frames
    assert (variant.transport, variant.needs_json) == ("uni_websocket", True)
