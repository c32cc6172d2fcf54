"""What is left out on the wire and what never is (protocol.md 2.1), and the order of fields."""

import msgspec
import pytest

from gateway.protocol.codes import ALREADY_SUBSCRIBED, INTERNAL_ERROR, SERVER_UNSUBSCRIBE
from gateway.protocol.json_codec import JSONCodec
from gateway.protocol.messages import (
    NOTHING,
    ClientInfo,
    Command,
    ConnectResult,
    Empty,
    Publication,
    Push,
    RefreshResult,
    Reply,
    RPCResult,
    StreamPosition,
    SubscribeResult,
)

CODEC = JSONCodec()
NULL = msgspec.Raw(b"null")


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        (Reply(id=1, unsubscribe=Empty()), '{"id":1,"unsubscribe":{}}'),
        (Reply(id=1, publish=Empty()), '{"id":1,"publish":{}}'),
        (Reply(id=1, subscribe=SubscribeResult()), '{"id":1,"subscribe":{}}'),
        (Reply(id=1, refresh=RefreshResult()), '{"id":1,"refresh":{}}'),
        (Reply(id=1, sub_refresh=RefreshResult()), '{"id":1,"sub_refresh":{}}'),
        (Reply(id=1, rpc=RPCResult()), '{"id":1,"rpc":{}}'),
        (Reply(id=1, rpc=RPCResult(data=NULL)), '{"id":1,"rpc":{"data":null}}'),
        (Reply(id=1, error=ALREADY_SUBSCRIBED), '{"id":1,"error":{"code":105,"message":"already subscribed"}}'),
        (
            Reply(id=1, error=INTERNAL_ERROR),
            '{"id":1,"error":{"code":100,"message":"internal server error","temporary":true}}',
        ),
        (Reply(id=1, connect=ConnectResult(client="c")), '{"id":1,"connect":{"client":"c"}}'),
        (
            Reply(
                id=1,
                connect=ConnectResult(
                    client="c",
                    version="v",
                    expires=True,
                    ttl=600,
                    data=NULL,
                    subs={"a": SubscribeResult(), "b": SubscribeResult(epoch="e", offset=2, positioned=True)},
                    ping=25,
                    pong=True,
                    session="s",
                    node="n",
                    time=1,
                ),
            ),
            (
                '{"id":1,"connect":{"client":"c","version":"v","expires":true,"ttl":600,"data":null,'
                '"subs":{"a":{},"b":{"epoch":"e","offset":2,"positioned":true}},'
                '"ping":25,"pong":true,"session":"s","node":"n","time":1}}'
            ),
        ),
        (
            Reply(
                id=2,
                subscribe=SubscribeResult(
                    recoverable=True,
                    epoch="zXVGmULz",
                    publications=[Publication(data=msgspec.Raw(b'{"n": 2}'), offset=2)],
                    recovered=True,
                    offset=1,
                    positioned=True,
                    was_recovering=True,
                ),
            ),
            (
                '{"id":2,"subscribe":{"recoverable":true,"epoch":"zXVGmULz",'
                '"publications":[{"data":{"n": 2},"offset":2}],"recovered":true,"offset":1,"positioned":true,'
                '"was_recovering":true}}'
            ),
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_reply_leaves_out_what_is_zero_but_never_its_own_key(reply: Reply, text: str) -> None:
    assert CODEC.reply(reply).decode() == text


@pytest.mark.parametrize(
    ("push", "text"),
    [
        (
            Push(channel="plain", unsubscribe=SERVER_UNSUBSCRIBE),
            '{"push":{"channel":"plain","unsubscribe":{"code":2000,"reason":"server unsubscribe"}}}',
        ),
        (Push(refresh=RefreshResult(expires=True, ttl=996)), '{"push":{"refresh":{"expires":true,"ttl":996}}}'),
        (Push(refresh=RefreshResult()), '{"push":{"refresh":{}}}'),
    ],
)
def test_a_push_is_wrapped_and_leaves_out_what_is_unset(push: Push, text: str) -> None:
    assert CODEC.push(push).decode() == text


@pytest.mark.parametrize(
    ("publication", "text"),
    [
        (Publication(), "{}"),
        (Publication(data=NULL), '{"data":null}'),
        (Publication(data=msgspec.Raw(b"0")), '{"data":0}'),
        (Publication(data=msgspec.Raw(b'""')), '{"data":""}'),
        (
            Publication(data=NULL, info=ClientInfo(user="", client="")),
            '{"data":null,"info":{"user":"","client":""}}',
        ),
        (
            Publication(data=NULL, info=ClientInfo("42", "c", conn_info=msgspec.Raw(b"{}"), chan_info=NULL)),
            '{"data":null,"info":{"user":"42","client":"c","conn_info":{},"chan_info":null}}',
        ),
        (
            Publication(data=NULL, offset=1, tags={"k": "v"}, epoch="fioiLpkC", version=5),
            '{"data":null,"offset":1,"tags":{"k":"v"},"epoch":"fioiLpkC","version":5}',
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_publication_leaves_out_what_is_zero_but_never_who_published(publication: Publication, text: str) -> None:
    assert CODEC.publication("ä\n", publication).decode() == f'{{"push":{{"channel":"ä\\n","pub":{text}}}}}'


@pytest.mark.parametrize("text", ['{"offset":0,"epoch":""}', "{}"])
def test_a_zero_that_was_sent_is_a_zero_that_was_left_out(text: str) -> None:
    assert msgspec.json.decode(text, type=StreamPosition) == StreamPosition()
    assert msgspec.json.encode(msgspec.json.decode(text, type=StreamPosition)) == b"{}"


def test_an_absent_payload_is_nothing_and_a_null_is_something() -> None:
    absent, null = CODEC.decode(b'{"id":1,"rpc":{}}\n{"id":2,"rpc":{"data":null}}')
    assert absent.rpc is not None
    assert null.rpc is not None
    assert absent.rpc.data is NOTHING
    assert bytes(null.rpc.data) == b"null"


def test_the_requests_of_a_command_stand_in_the_order_in_which_the_server_looks_at_them() -> None:
    assert Command.__struct_fields__ == (
        "id",
        "connect",
        "subscribe",
        "unsubscribe",
        "publish",
        "presence",
        "presence_stats",
        "history",
        "rpc",
        "send",
        "refresh",
        "sub_refresh",
    )
