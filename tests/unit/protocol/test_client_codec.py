import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from gateway.protocol.client_codec import ClientJSONCodec, ReceivedPublication
from gateway.protocol.codec import MalformedFrameError
from gateway.protocol.json_codec import JSONCodec
from gateway.protocol.messages import (
    NOTHING,
    ClientInfo,
    Command,
    ConnectResult,
    HistoryResult,
    Join,
    PresenceResult,
    PresenceStatsResult,
    Publication,
    PublishRequest,
    Push,
    Reply,
    RPCResult,
    SubscribeRequest,
    SubscribeResult,
)

CODEC, SERVER = ClientJSONCodec(), JSONCodec()
ANN = ClientInfo("ann", "c1", conn_info=Raw(b'{"n": 1}'))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@pytest.mark.parametrize(
    ("reply", "field"),
    [
        (Reply(1, connect=ConnectResult("c1", ping=25, pong=True)), "connect"),
        (Reply(2, subscribe=SubscribeResult(publications=[Publication(Raw(b"1"), ANN, 1)])), "subscribe"),
        (Reply(3, history=HistoryResult([Publication(Raw(b"1"), tags={"a": "b"}, version=3)], "e", 9)), "history"),
        (Reply(4, presence=PresenceResult({"c1": ANN})), "presence"),
        (Reply(5, presence_stats=PresenceStatsResult(2, 1)), "presence_stats"),
        (Reply(6, rpc=RPCResult(Raw(b"[]"))), "rpc"),
    ],
)
def test_what_the_server_writes_the_client_reads(reply: Reply, field: str) -> None:
    (message,) = CODEC.decode(SERVER.reply(reply))
    assert message.id == reply.id
    assert SERVER.reply(reply) == SERVER.reply(Reply(message.id, **{field: getattr(message, field)}))


@given(st.lists(json_values, min_size=1, max_size=5))
def test_publications_arrive_as_they_were_published(values: list[Any]) -> None:
    texts = [json.dumps(value, ensure_ascii=False).encode("utf-8", "replace") for value in values]
    frame = SERVER.join([SERVER.publication("c", Publication(Raw(text), offset=7)) for text in texts])
    pushes = [message.push for message in CODEC.decode(frame)]
    assert [push.channel for push in pushes if push] == ["c"] * len(values)
    publications = [push.pub for push in pushes if push]
    assert [bytes(each.data) for each in publications if each] == texts
    assert [each.json() for each in publications if each] == [json.loads(text) for text in texts]


def test_pings_pushes_and_replies_may_share_a_frame() -> None:
    frame = SERVER.join([SERVER.ping, SERVER.published(3), SERVER.push(Push("c", join=Join(ANN)))])
    ping, reply, push = CODEC.decode(frame)
    assert (ping.id, ping.push, reply.id, reply.publish is not None) == (0, None, 3, True)
    assert push.push is not None
    assert push.push.join == Join(ANN)


def test_left_out_sentences_and_fields_of_the_future_are_read() -> None:
    error, push = CODEC.decode(b'{"id":1,"error":{"code":5}}\n{"push":{"unsubscribe":{"code":2000},"new":1},"new":2}')
    assert error.error is not None
    assert (error.error.code, error.error.message) == (5, "")
    assert push.push is not None
    assert push.push.unsubscribe is not None
    assert push.push.unsubscribe.reason == ""


def test_half_an_emoji_costs_only_itself() -> None:
    (message,) = CODEC.decode(rb'{"push":{"channel":"c","pub":{"data":"\ud83d"}}}')
    assert message.push is not None
    assert isinstance(message.push.pub, ReceivedPublication)
    assert message.push.pub.json() == "\ufffd"


@pytest.mark.parametrize("frame", [b"x", b"[1]", b'{"id":-"1"}', b'{"push":[]}', b"{}\n{", b"[" * 100_000])
def test_anything_else_is_malformed(frame: bytes) -> None:
    with pytest.raises(MalformedFrameError):
        CODEC.decode(frame)


@given(json_values)
def test_what_the_client_writes_the_server_reads(value: Any) -> None:
    try:
        data = CODEC.payload(value)
    except UnicodeEncodeError:
        return  # a lone surrogate is no text
    commands = [Command(1, publish=PublishRequest("c", data)), Command(2, subscribe=SubscribeRequest("c", offset=3))]
    first, second = SERVER.decode(CODEC.join([CODEC.encode(command) for command in commands]))
    assert (first.id, second.subscribe) == (1, commands[1].subscribe)
    assert first.publish is not None
    assert json.loads(bytes(first.publish.data)) == value


@pytest.mark.parametrize("text", [b"{}", b' {"a" : [1.0]} ', b'"\xc3\xbc"', b"null"])
def test_bytes_are_json_text_already(text: bytes) -> None:
    assert (bytes(CODEC.payload(text)), bytes(CODEC.payload(Raw(text)))) == (text, text)


def test_a_line_end_in_a_payload_does_not_end_the_command() -> None:
    encoded = CODEC.encode(Command(1, publish=PublishRequest("c", CODEC.payload(b'{\r\n"a":\n1}'))))
    assert encoded == b'{"id":1,"publish":{"channel":"c","data":{"a":1}}}'


@pytest.mark.parametrize("wrong", [b"no json", b"{", b"\xff", object(), {1: object()}])
def test_what_json_cannot_hold_is_refused(wrong: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        CODEC.payload(wrong)


def test_a_publication_shows_what_is_in_it() -> None:
    assert repr(ReceivedPublication(Raw(b'{"a": 1}'), offset=3)) == "<Publication 3 b'{\"a\": 1}'>"


def test_no_data_is_no_payload() -> None:
    assert CODEC.payload(NOTHING) is NOTHING
    assert CODEC.payload(b"") is NOTHING
