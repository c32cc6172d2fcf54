"""What each command of the client protocol does; numbers in comments are sections of protocol.md."""

import base64
from typing import Any

import pytest

from gateway.messaging.port import DUPLEX_WITH_OWN_PINGS
from tests.support.conversations import ANONYMOUS, INSECURE, House, at, house, token

RPC = {"rpc": {"method": "ping"}}
ERRORS = {
    100: {"code": 100, "message": "internal server error", "temporary": True},
    102: {"code": 102, "message": "unknown channel"},
    103: {"code": 103, "message": "permission denied"},
    105: {"code": 105, "message": "already subscribed"},
    106: {"code": 106, "message": "limit exceeded"},
    107: {"code": 107, "message": "bad request"},
    108: {"code": 108, "message": "not available"},
    109: {"code": 109, "message": "token expired"},
    110: {"code": 110, "message": "expired"},
    111: {"code": 111, "message": "too many requests", "temporary": True},
}
BAD_REQUEST = (3501, "bad request")
INVALID_TOKEN = (3500, "invalid token")


def error(number: int, code: int) -> dict[str, Any]:
    return {"id": number, "error": ERRORS[code]}


def ok(number: int, method: str, **fields: Any) -> dict[str, Any]:
    return {"id": number, method: fields}


def connected(client: str, **fields: Any) -> dict[str, Any]:
    """Return the reply to the first command; fields of the value None are left out."""
    result = {"client": client, "version": "v", **fields, "ping": 25, "pong": True}
    return {"id": 1, "connect": {name: value for name, value in result.items() if value is not None}}


# Connect (3.1, 5.2).


@pytest.mark.parametrize(
    ("request_", "fields"),
    [
        ({"token": token("42")}, {}),
        ({"token": token("42"), "name": "js", "version": "5", "data": {"x": 1}, "headers": {"a": "b"}, "new": 1}, {}),
        ({"token": token("")}, {}),
        ({"token": token("42", exp=at(100))}, {"expires": True, "ttl": 100}),
        ({"token": token("42", exp=at(100), expire_at=at(7))}, {"expires": True, "ttl": 7}),
        ({"token": token("42", exp=at(100), expire_at=0)}, {}),
        ({"token": token("42", exp=at(10**9))}, {"expires": True, "ttl": 365 * 86400}),
        ({"token": token("42", channels=["a", "$private"])}, {"subs": {"a": {}, "$private": {}}}),
        ({"token": token("42", subs={"a": {"data": {"d": 1}}}, channels=["b"])}, {"subs": {"a": {"data": {"d": 1}}}}),
        ({"token": token("42", channels=["closed:x"])}, {"subs": {"closed:x": {}}}),
        ({"token": token("42"), "subs": {"a": {}, "closed:x": {}, "$private": {}}}, {"subs": {"a": {}}}),
    ],
    ids=[
        "plain",
        "unknown fields are ignored",
        "anonymous token",
        "exp",
        "expire_at wins over exp",
        "expire_at 0 never expires",
        "ttl is capped at a year",
        "channels",
        "subs win over channels",
        "a token may grant what is closed",
        "asked for, as far as allowed without a token",
    ],
)
async def test_a_good_connect_is_answered(request_: dict[str, Any], fields: dict[str, Any]) -> None:
    async with house() as node:
        client = node.open()
        assert await client.ask({"id": 1, "connect": request_}) == [connected(client.id, **fields)]
        assert client.channels == set(fields.get("subs", ()))


@pytest.mark.parametrize(
    ("shown", "answer"),
    [
        ("a.b.c", INVALID_TOKEN),
        ("x", INVALID_TOKEN),
        (token("42", key="another secret, also of 32 bytes or more"), INVALID_TOKEN),
        (token(42), INVALID_TOKEN),
        (token("42", channel="a"), INVALID_TOKEN),
        (token("42", subs={"a": {"b64info": "§"}}), INVALID_TOKEN),
        (token("42", exp=at(0)), 109),
        (token("42", nbf=at(60)), 109),
        (token("42", expire_at=at(-1)), 110),
        (token("42", channels=["a", "nope:x"]), 102),
        (token("42", b64info="§"), 100),
        (token("42", channels=["binary:x"]), 108),
        ("", BAD_REQUEST),
    ],
    ids=[
        "garbage",
        "no dots",
        "wrong key",
        "numeric sub",
        "channel claim",
        "bad base64 in subs",
        "exp passed",
        "nbf ahead",
        "expire_at passed",
        "unknown namespace",
        "bad b64info",
        "binary channel for a JSON client",
        "no token",
    ],
)
async def test_a_bad_connect_is_answered_or_disconnected(shown: str, answer: int | tuple[int, str]) -> None:
    async with house() as node:
        client = node.open()
        replies = await client.ask({"id": 1, "connect": {"token": shown} if shown else {}})
        if isinstance(answer, int):
            assert (replies, client.closing) == ([error(1, answer)], None)
        else:
            assert (replies, client.closing) == ([], answer)
        assert len(node.services.interest) == 0


@pytest.mark.parametrize("shown", [token("42", exp=at(0)), token("42", channels=["nope:x"])])
async def test_after_a_connect_error_nothing_is_answered_and_the_close_follows_soon(shown: str) -> None:
    # 3.1, 5; 10, 2.
    async with house() as node:
        client = node.open()
        client.send({"id": 1, "connect": {"token": shown}}, {"id": 2, "subscribe": {"channel": "a"}})
        await node.settle()
        assert [reply["id"] for reply in client.take_values()] == [1]
        assert await client.ask({"id": 3, "connect": {"token": token()}}, "{}") == []
        assert client.closing is None
        await node.advance(1.2)
        assert client.closing == (3502, "stale")


@pytest.mark.parametrize(
    "first",
    [
        {"id": 1, "subscribe": {"channel": "a"}},
        {"connect": {"token": token()}},
        {"id": 0, "connect": {"token": token()}},
        "{}",
        {"id": 1},
        {"send": {"data": 1}},
        "",
        "\n",
        "{",
        '{"id":"1","connect":{}}',
        '{"id":-1,"connect":{}}',
        "[]",
        '{"id":1,"connect":{"token":' + "[" * 200 + "]" * 200 + "}}",
        b"\xff",
    ],
)
async def test_a_first_command_that_is_no_connect_violates_the_protocol(first: Any) -> None:
    async with house() as node:
        client = node.open()
        client.send(first)
        await node.settle()
        assert (client.take(), client.closing) == ([], BAD_REQUEST)


@pytest.mark.parametrize(
    "second",
    [
        {"id": 2, "connect": {"token": token()}},
        {"id": 2, "foo": {}},
        {"id": 2, "ping": {}},
        "{}",
        {"subscribe": {"channel": "a"}},
        {"id": 2, "subscribe": {}},
        {"id": 2, "subscribe": {"channel": ""}},
        {"id": 2, "unsubscribe": {}},
        {"id": 2, "publish": {"data": 1}},
        {"id": 2, "presence": {}},
        {"id": 2, "presence_stats": {}},
        {"id": 2, "history": {}},
        {"id": 2, "refresh": {}},
        {"id": 2, "sub_refresh": {}},
        "{}\n\n{}",
    ],
)
async def test_a_command_that_violates_the_protocol_ends_the_connection(second: Any) -> None:
    async with house() as node:
        client = await node.connect()
        client.send(second)
        await node.settle()
        assert (client.take(), client.closing) == ([], BAD_REQUEST)


async def test_a_client_that_never_connects_is_dropped_at_the_stale_deadline() -> None:
    async with house() as node:
        client = node.open()
        await node.advance(9.9)
        assert client.closing is None
        await node.advance(0.3)
        assert client.closing == (3502, "stale")


async def test_an_authentication_that_takes_too_long_is_stale_too() -> None:
    async with house(makes_verifier_slow=True) as node:
        client = node.open()
        client.send({"id": 1, "connect": {"token": token()}})
        await node.advance(10.2)
        assert client.closing == (3502, "stale")


@pytest.mark.parametrize(
    ("table", "shown", "answer"),
    [
        ({"allow_anonymous_connect_without_token": True}, "", None),
        ({"disallow_anonymous_connection_tokens": True}, token(""), (3507, "permission denied")),
        ({"disallow_anonymous_connection_tokens": True}, token("42"), None),
        ({"insecure_skip_token_signature_verify": True}, token("42", key="x" * 32), None),
    ],
)
async def test_the_options_of_connecting(table: dict[str, Any], shown: str, answer: tuple[int, str] | None) -> None:
    async with house({"client": table}) as node:
        client = node.open()
        replies = await client.ask({"id": 1, "connect": {"token": shown}})
        assert client.closing == answer
        assert replies == ([] if answer else [connected(client.id)])


async def test_the_server_time_is_told_when_asked_for() -> None:
    async with house({"client": {"connect_include_server_time": True}}) as node:
        client = node.open()
        (reply,) = await client.ask({"id": 1, "connect": {"token": token()}})
        assert reply["connect"]["time"] == at(0) * 1000


async def test_a_user_has_as_many_connections_as_the_limit_and_not_one_more() -> None:
    async with house({"client": {"user_connection_limit": 2, "allow_anonymous_connect_without_token": True}}) as node:
        first, _second, _other = await node.connect("42"), await node.connect("42"), await node.connect("43")
        for _ in range(3):
            await node.connect("")
        refused = node.open()
        assert await refused.ask({"id": 1, "connect": {"token": token("42")}}) == []
        assert refused.closing == (3504, "connection limit")
        first.go()
        await node.connect("42")


async def test_connections_of_a_user_that_come_together_are_all_counted() -> None:
    async with house({"client": {"user_connection_limit": 1}}, makes_verifier_slow=True) as node:
        clients = [node.open() for _ in range(3)]
        for client in clients:
            client.send({"id": 1, "connect": {"token": token("42")}})
        await node.settle()
        node.verifier.gate.set()
        await node.settle()
        assert [client.closing for client in clients] == [None, (3504, "connection limit"), (3504, "connection limit")]


async def test_more_server_side_channels_than_the_limit_end_the_connection() -> None:
    async with house({"client": {"channel_limit": 2}}) as node:
        await node.connect("1", channels=["a", "b"])
        client = node.open()
        assert await client.ask({"id": 1, "connect": {"token": token("2", channels=["a", "b", "c"])}}) == []
        assert client.closing == (3505, "channel limit")


async def test_an_unknown_namespace_among_the_channels_asked_for_violates_the_protocol() -> None:
    # 3.3
    async with house() as node:
        client = node.open()
        client.send({"id": 1, "connect": {"token": token(), "subs": {"nope:x": {}}}})
        await node.settle()
        assert client.closing == BAD_REQUEST


async def test_nobody_is_ever_subscribed_to_the_empty_channel() -> None:
    async with house() as node:
        client = node.open()
        await client.ask({"id": 1, "connect": {"token": token(), "subs": {"": {}}}})
        assert client.channels == set()
        granted = node.open()
        await granted.ask({"id": 1, "connect": {"token": token(channels=[""])}})
        assert granted.channels == set()


async def test_a_client_with_transport_pings_is_told_of_none() -> None:
    async with house() as node:
        client = node.open(DUPLEX_WITH_OWN_PINGS)
        replies = await client.ask({"id": 1, "connect": {"token": token()}})
        assert replies == [{"id": 1, "connect": {"client": client.id, "version": "v"}}]
        await node.advance(12.7)
        assert (client.take(), client.transport.pings) == ([], 1)
        client.conversation.frame_pong()
        client.conversation.frame_pong()
        await node.advance(24)
        assert client.closing is None
        await node.advance(9.5)
        assert client.closing == (3012, "no pong")


# Personal channels (3.3, 6.1).


@pytest.mark.parametrize(("namespace", "channel"), [("", "#42"), ("users", "users:#42")])
async def test_each_user_is_subscribed_to_the_personal_channel(namespace: str, channel: str) -> None:
    option = {"enabled": True, "personal_channel_namespace": namespace}
    table = {"client": {"subscribe_to_user_personal_channel": option, "allow_anonymous_connect_without_token": True}}
    async with house(table) as node:
        client = node.open()
        replies = await client.ask({"id": 1, "connect": {"token": token("42")}})
        assert replies == [connected(client.id, subs={channel: {}})]
        node.publish(channel, b'"yours"')
        await node.settle()
        assert client.take_values() == [{"push": {"channel": channel, "pub": {"data": "yours"}}}]
        anonymous = await node.connect("")
        assert anonymous.channels == set()
        refreshed = await client.ask({"id": 2, "refresh": {"token": token("42", exp=at(100))}})
        assert refreshed == [ok(2, "refresh", expires=True, ttl=100)]


# Pings (3.2).


async def test_the_first_ping_comes_between_half_an_interval_and_a_whole_one_by_chance() -> None:
    for chance, due_s in ((0.0, 12.5), (0.5, 18.75), (0.999, 24.98)):
        async with house() as node:
            node.random = chance
            client = await node.connect()
            await node.advance(due_s - 0.1)
            assert client.take() == []
            await node.advance(0.3)
            assert client.take() == ["{}"]


async def test_only_a_pong_counts_as_an_answer() -> None:
    async with house() as node:
        client = await node.connect()
        await node.advance(12.7)
        assert client.take() == ["{}"]
        client.send("{}")
        await node.advance(25)
        assert client.take() == ["{}"]
        await node.advance(7.5)
        assert await client.ask({"id": 2, **RPC}) == [ok(2, "rpc")]
        await node.advance(0.8)
        assert client.closing == (3012, "no pong")


@pytest.mark.parametrize("pong", ["{}", {"id": 0}, {"subscribe": {"channel": "a"}}])
async def test_one_pong_for_each_ping_and_no_more(pong: Any) -> None:
    # 10, 3: a command with id 0 counts as a pong, whatever it holds.
    async with house() as node:
        client = await node.connect()
        await node.advance(12.7)
        assert client.take() == ["{}"]
        client.send(pong)
        assert (client.closing, client.channels) == (None, set())
        client.send(pong)
        assert client.closing == BAD_REQUEST


# Subscribe (3.4).


@pytest.mark.parametrize(
    ("channel", "code"),
    [
        ("a", None),
        ("open:a", None),
        ("users:a", None),
        ("closed:a", 103),
        ("nope:a", 102),
        (":a", 102),
        ("$a", 103),
        ("$nope:a", 102),
        ("é", 107),
        ("a\tb", 107),
        ("x" * 255, None),
        ("x" * 256, 107),
        ("nope:" + "x" * 256, 107),
        ("regex:abc", None),
        ("regex:ABC", 107),
        ("limited:room#42", None),
        ("limited:room#41,42", None),
        ("limited:#42", None),
        ("limited:room#43", 103),
        ("limited:room#42#43", 103),
        ("limited:room", 103),
        ("users:room#43", None),
        ("binary:a", 108),
        ("object:a", None),
        ("any:a", None),
    ],
)
async def test_who_may_subscribe_to_what(channel: str, code: int | None) -> None:
    async with house() as node:
        client = await node.connect("42")
        answer = ok(2, "subscribe") if code is None else error(2, code)
        assert await client.ask({"id": 2, "subscribe": {"channel": channel}}) == [answer]
        assert client.channels == (set() if code else {channel})
        assert client.closing is None


@pytest.mark.parametrize(
    ("channel", "code"),
    [("open:a", None), ("users:a", 103), ("limited:room#", 103), ("limited:room#42", 103), ("closed:a", 103)],
)
async def test_what_an_anonymous_client_may_subscribe_to(channel: str, code: int | None) -> None:
    async with house(ANONYMOUS) as node:
        client = await node.connect("")
        answer = ok(2, "subscribe") if code is None else error(2, code)
        assert await client.ask({"id": 2, "subscribe": {"channel": channel}}) == [answer]


async def test_a_channel_is_subscribed_once_and_the_limit_counts_server_side_ones() -> None:
    async with house({"client": {"channel_limit": 3}}) as node:
        client = await node.connect("42", channels=["s"])
        replies = await client.ask(
            {"id": 2, "subscribe": {"channel": "a"}},
            {"id": 3, "subscribe": {"channel": "a"}},
            {"id": 4, "subscribe": {"channel": "s"}},
            {"id": 5, "subscribe": {"channel": "b"}},
            {"id": 6, "subscribe": {"channel": "c"}},
            {"id": 7, "subscribe": {"channel": "a"}},
            {"id": 8, "unsubscribe": {"channel": "s"}},
            {"id": 9, "subscribe": {"channel": "c"}},
        )
        assert replies == [
            ok(2, "subscribe"),
            error(3, 105),
            error(4, 105),
            ok(5, "subscribe"),
            error(6, 106),
            error(7, 105),
            ok(8, "unsubscribe"),
            ok(9, "subscribe"),
        ]
        assert node.counts.limit_hits == {"channel_limit": 1}


@pytest.mark.parametrize("channel", ["$a", "closed:a", "$closed:a", "limited:room#43"])
@pytest.mark.parametrize(
    ("claims", "fields"),
    [
        ({}, {}),
        ({"exp": at(60)}, {"expires": True, "ttl": 60}),
        ({"exp": at(60), "expire_at": 0}, {}),
        ({"data": {"hello": 1}}, {"data": {"hello": 1}}),
        ({"b64data": base64.b64encode(b'{"b": 64}').decode(), "data": 1}, {"data": {"b": 64}}),
        ({"client": "client-1"}, {}),
    ],
    ids=["bare", "exp", "expire_at 0", "data", "b64data", "client"],
)
async def test_a_subscription_token_opens_any_channel(
    channel: str, claims: dict[str, Any], fields: dict[str, Any]
) -> None:
    async with house() as node:
        client = await node.connect("42")
        shown = token("42", channel=channel, **claims)
        replies = await client.ask({"id": 2, "subscribe": {"channel": channel, "token": shown}})
        assert replies == [ok(2, "subscribe", **fields)]


@pytest.mark.parametrize(
    ("shown", "answer"),
    [
        (token("42", channel="$a", exp=at(0)), 109),
        (token("42", channel="$a", expire_at=at(-1)), 110),
        (token("42", channel="$a", key="x" * 32), 103),
        ("garbage", 103),
        (token("42"), 103),
        (token(42, channel="$a"), 103),
        (token("42", channel="$b"), INVALID_TOKEN),
        (token("43", channel="$a"), INVALID_TOKEN),
        (token("", channel="$a"), INVALID_TOKEN),
        (token("42", channel="$a", client="another"), INVALID_TOKEN),
    ],
    ids=[
        "expired",
        "expire_at passed",
        "wrong key",
        "garbage",
        "no channel",
        "numeric sub",
        "other channel",
        "other user",
        "anonymous",
        "other client",
    ],
)
async def test_a_bad_subscription_token(shown: str, answer: int | tuple[int, str]) -> None:
    async with house() as node:
        client = await node.connect("42")
        replies = await client.ask({"id": 2, "subscribe": {"channel": "$a", "token": shown}}, {"id": 3, **RPC})
        if isinstance(answer, int):
            assert (replies, client.closing) == ([error(2, answer), ok(3, "rpc")], None)
        else:
            assert (replies, client.closing) == ([], answer)


async def test_the_unread_wishes_of_newer_clients_do_not_matter() -> None:
    async with house() as node:
        client = await node.connect()
        request = {"channel": "a", "flag": 1, "delta": "fossil", "positioned": True, "data": {"x": 1}}
        assert await client.ask({"id": 2, "subscribe": request}) == [ok(2, "subscribe")]


# Unsubscribe (3.5).


async def test_an_unsubscribe_always_succeeds() -> None:
    async with house() as node:
        client = await node.connect("42", "a", channels=["s"])
        replies = await client.ask(
            *(
                {"id": number, "unsubscribe": {"channel": name}}
                for number, name in enumerate(["a", "a", "s", "nope:x"], 3)
            )
        )
        assert replies == [ok(number, "unsubscribe") for number in (3, 4, 5, 6)]
        assert client.channels == set()


# Publish (3.5).


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        ({"channel": "a", "data": {"x": 1}}, None),
        ({"channel": "a", "data": None}, None),
        ({"channel": "a", "data": ""}, None),
        ({"channel": "a"}, 107),
        ({"channel": "closed:a", "data": 1}, 103),
        ({"channel": "nope:a", "data": 1}, 102),
        ({"channel": "x" * 256, "data": 1}, 107),
        ({"channel": "é", "data": 1}, 107),
        ({"channel": "subscribers:a", "data": 1}, 103),
        ({"channel": "object:a", "data": {"x": 1}}, None),
        ({"channel": "object:a", "data": [1]}, 107),
        ({"channel": "object:a", "data": "{"}, 107),
        ({"channel": "any:a", "data": 1}, None),
        ({"channel": "any:a"}, 107),
        ({"channel": "binary:a"}, None),
    ],
)
async def test_who_may_publish_what(request_: dict[str, Any], code: int | None) -> None:
    async with house() as node:
        client = await node.connect("42")
        answer = ok(2, "publish") if code is None else error(2, code)
        assert await client.ask({"id": 2, "publish": request_}) == [answer]


async def test_a_subscriber_may_publish_where_only_subscribers_may_until_it_unsubscribes() -> None:
    async with house() as node:
        client = await node.connect("42", "subscribers:a")
        publish = {"publish": {"channel": "subscribers:a", "data": 1}}
        replies = await client.ask(
            {"id": 3, **publish}, {"id": 4, "unsubscribe": {"channel": "subscribers:a"}}, {"id": 5, **publish}
        )
        assert replies == [ok(3, "publish"), ok(4, "unsubscribe"), error(5, 103)]


@pytest.mark.parametrize(("channel", "code"), [("open:a", None), ("users:a", 103), ("subscribers:a", 103)])
async def test_what_an_anonymous_client_may_publish(channel: str, code: int | None) -> None:
    async with house(ANONYMOUS) as node:
        client = await node.connect("")
        answer = ok(2, "publish") if code is None else error(2, code)
        assert await client.ask({"id": 2, "publish": {"channel": channel, "data": 1}}) == [answer]


@pytest.mark.parametrize(
    ("sent", "received"),
    [
        ('{"t": "<b>&é"  , "n":1.0}', '{"t": "<b>&é"  , "n":1.0}'),
        ("null", "null"),
        ('{"b":1,"a":1e2,"b":2}', '{"b":1,"a":1e2,"b":2}'),
        ('{"r":\r1}', '{"r":1}'),
        ('"\\n\\u00e9"', '"\\n\\u00e9"'),
    ],
)
async def test_the_data_of_a_publication_passes_through_untouched(sent: str, received: str) -> None:
    async with house() as node:
        client = await node.connect("42", "a")
        await client.ask('{"id":3,"publish":{"channel":"a","data":' + sent + "}}")
        client.send('{"id":4,"publish":{"channel":"a","data":' + sent + "}}")
        await node.settle()
        push = '{"push":{"channel":"a","pub":{"data":%s,"info":{"user":"42","client":"%s"}}}}'
        assert client.take() == ['{"id":4,"publish":{}}', push % (received, client.id)]


async def test_a_publication_tells_who_published_it() -> None:
    async with house() as node:
        client = await node.connect("42", info={"name": "Alice"})
        shown = token("42", channel="a", info={"role": "admin"})
        await client.ask({"id": 2, "subscribe": {"channel": "a", "token": shown}})
        replies = await client.ask({"id": 3, "publish": {"channel": "a", "data": 1}})
        info = {"user": "42", "client": client.id, "conn_info": {"name": "Alice"}, "chan_info": {"role": "admin"}}
        assert replies == [ok(3, "publish"), {"push": {"channel": "a", "pub": {"data": 1, "info": info}}}]
        other = await node.connect("43", "a")
        # Not subscribed there, the publisher is known by its connection alone.
        await client.ask({"id": 4, "unsubscribe": {"channel": "a"}}, {"id": 5, "publish": {"channel": "a", "data": 2}})
        del info["chan_info"]
        assert other.take_values() == [{"push": {"channel": "a", "pub": {"data": 2, "info": info}}}]


async def test_a_binary_channel_is_no_place_for_a_json_subscriber_but_for_a_json_publisher() -> None:
    async with house() as node:
        client, plain = await node.connect(), await node.connect_plain("43", "binary:a")
        assert await client.ask({"id": 2, "subscribe": {"channel": "binary:a"}}) == [error(2, 108)]
        assert await client.ask({"id": 3, "publish": {"channel": "binary:a", "data": [1]}}) == [ok(3, "publish")]
        assert plain.take() == [b"[1]"]


async def test_a_json_subscriber_of_an_unchecked_channel_is_disconnected_by_what_is_no_json() -> None:
    async with house() as node:
        client, other = await node.connect("42", "any:a"), await node.connect("43", "any:b")
        node.publish("any:a", b"\x93NUMPY")
        await node.settle()
        assert (client.take(), client.closing) == ([], (3506, "inappropriate protocol"))
        assert other.closing is None
        book = node.counts.ledger("any")
        assert (book.due, book.delivered, dict(book.dropped)) == (1, 0, {"not_json": 1})


async def test_several_requests_in_one_command_are_looked_at_in_the_fixed_order() -> None:
    # 2.1
    async with house() as node:
        client = await node.connect()
        both = {"id": 2, "publish": {"channel": "a", "data": 1}, "subscribe": {"channel": "a"}}
        assert await client.ask(both) == [ok(2, "subscribe")]
        both = {"id": 3, "rpc": {"method": "ping"}, "publish": {"channel": "closed:a", "data": 1}}
        assert await client.ask(both) == [error(3, 103)]
        both = {"id": 4, "unsubscribe": {"channel": "a"}, "publish": {"channel": "a", "data": 1}}
        assert await client.ask(both) == [ok(4, "unsubscribe")]


# What is not there, rpc, send.


@pytest.mark.parametrize("method", ["presence", "presence_stats", "history"])
@pytest.mark.parametrize(("channel", "code"), [("a", 108), ("nope:a", 102)])
async def test_features_that_no_namespace_has_are_not_available(method: str, channel: str, code: int) -> None:
    async with house() as node:
        client = await node.connect("42", "a")
        assert await client.ask({"id": 3, method: {"channel": channel}}) == [error(3, code)]


@pytest.mark.parametrize(
    ("method", "reply"), [("ping", ok(2, "rpc")), ("getThing", error(2, 108)), ("", error(2, 108))]
)
async def test_rpc(method: str, reply: dict[str, Any]) -> None:
    async with house() as node:
        client = await node.connect()
        assert await client.ask({"id": 2, "rpc": {"method": method, "data": {"id": 1}}}) == [reply]


@pytest.mark.parametrize("command", [{"send": {"data": {"x": 1}}}, {"id": 2, "send": {"data": 1}}])
async def test_a_send_has_nobody_to_take_it(command: dict[str, Any]) -> None:
    async with house() as node:
        client = await node.connect()
        assert await client.ask(command) == []
        assert client.closing == (3508, "not available")


# Rate limit.


async def test_a_client_over_its_rate_is_refused_and_far_over_it_disconnected() -> None:
    async with house({"client": {"command_rate": 10, "command_burst": 3}}) as node:
        client = await node.connect()
        replies = await client.ask(*({"id": number, **RPC} for number in range(2, 8)))
        assert replies == [ok(2, "rpc"), ok(3, "rpc"), ok(4, "rpc"), error(5, 111), error(6, 111), error(7, 111)]
        assert client.closing is None
        assert await client.ask({"id": 8, **RPC}) == []
        assert client.closing == (3013, "too many requests")
        assert node.counts.limit_hits == {"command_rate": 4}


async def test_a_client_that_waits_may_go_on_and_pongs_cost_nothing() -> None:
    async with house({"client": {"command_rate": 1, "command_burst": 1}}) as node:
        client = await node.connect()
        assert await client.ask({"id": 2, **RPC}, {"id": 3, **RPC}) == [ok(2, "rpc"), error(3, 111)]
        await node.advance(12.7)
        assert client.take() == ["{}"]
        assert await client.ask("{}", {"id": 4, **RPC}) == [ok(4, "rpc")]


# Refresh (3.7).


@pytest.mark.parametrize(
    ("shown", "answer"),
    [
        (token("42", exp=at(600)), {"expires": True, "ttl": 600}),
        (token("42"), {}),
        (token("42", exp=at(0)), (3005, "connection expired")),
        (token("42", expire_at=at(-5)), (3005, "connection expired")),
        (token("42", key="x" * 32), INVALID_TOKEN),
        ("garbage", INVALID_TOKEN),
        (token("43", exp=at(600)), INVALID_TOKEN),
        (token("", exp=at(600)), INVALID_TOKEN),
        ("", BAD_REQUEST),
        (token("42", exp=at(600), channels=["a"]), (3010, "insufficient state")),
    ],
    ids=[
        "new expiry",
        "without exp",
        "expired",
        "expire_at passed",
        "wrong key",
        "garbage",
        "other user",
        "anonymous",
        "empty",
        "other channels",
    ],
)
async def test_refresh(shown: str, answer: dict[str, Any] | tuple[int, str]) -> None:
    async with house() as node:
        client = await node.connect("42", exp=at(100))
        replies = await client.ask({"id": 2, "refresh": {"token": shown}})
        if isinstance(answer, dict):
            assert (replies, client.closing) == ([ok(2, "refresh", **answer)], None)
        else:
            assert (replies, client.closing) == ([], answer)


async def test_a_connection_that_is_not_refreshed_ends_after_the_grace() -> None:
    async with house({"client": {"ping_interval": "1h"}}) as node:
        client = await node.connect("42", exp=at(100))
        await node.advance(124.8)
        assert client.closing is None
        await node.advance(0.4)
        assert client.closing == (3005, "connection expired")


@pytest.mark.parametrize(("claims", "lives_on"), [({"exp": at(300)}, False), ({}, True)])
async def test_a_refreshed_connection_lives_until_the_new_expiry(claims: dict[str, Any], *, lives_on: bool) -> None:
    # 10, 8: a token without exp clears the old expiry.
    async with house({"client": {"ping_interval": "1h"}}) as node:
        client = await node.connect("42", exp=at(100))
        await node.advance(110)
        await client.ask({"id": 2, "refresh": {"token": token("42", **claims)}})
        await node.advance(214.8)
        assert client.closing is None
        await node.advance(0.4)
        assert client.closing == (None if lives_on else (3005, "connection expired"))


async def test_a_refresh_replaces_what_others_see_of_the_client() -> None:
    async with house() as node:
        client = await node.connect("42", "a", info={"name": "Alice"}, exp=at(100))
        await client.ask({"id": 3, "refresh": {"token": token("42", info={"name": "Bob"})}})
        replies = await client.ask({"id": 4, "publish": {"channel": "a", "data": 1}})
        assert replies[1]["push"]["pub"]["info"]["conn_info"] == {"name": "Bob"}


async def test_a_refresh_with_the_channels_of_the_first_token_is_fine() -> None:
    async with house() as node:
        client = await node.connect("42", channels=["a", "b"], exp=at(100))
        await client.ask({"id": 2, "unsubscribe": {"channel": "a"}})
        shown = token("42", channels=["b", "a"], exp=at(200))
        assert await client.ask({"id": 3, "refresh": {"token": shown}}) == [ok(3, "refresh", expires=True, ttl=200)]


# Sub refresh (3.7; 10, 1).


async def _with_expiring_subscription(node: House) -> Any:
    client = await node.connect("42")
    shown = token("42", channel="$a", exp=at(60))
    assert await client.ask({"id": 2, "subscribe": {"channel": "$a", "token": shown}}) == [
        ok(2, "subscribe", expires=True, ttl=60)
    ]
    return client


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        ({"channel": "$a", "token": token("42", channel="$a", exp=at(90))}, {"expires": True, "ttl": 90}),
        ({"channel": "$a", "token": token("42", channel="$a")}, {}),
        ({"channel": "b", "token": token("42", channel="b")}, 103),
        ({"channel": "$a"}, 107),
        ({"channel": "$a", "token": token("42", channel="$a", exp=at(0))}, 109),
        ({"channel": "$a", "token": token("42", channel="$a", expire_at=at(-1))}, 110),
        ({"channel": "$a", "token": "garbage"}, INVALID_TOKEN),
        ({"channel": "$a", "token": token("42", channel="$a", key="x" * 32)}, INVALID_TOKEN),
        ({"channel": "$a", "token": token("42", channel="$b")}, INVALID_TOKEN),
        ({"channel": "$a", "token": token("43", channel="$a")}, INVALID_TOKEN),
        ({"channel": "$a", "token": token("42", channel="$a", client="another")}, INVALID_TOKEN),
    ],
    ids=[
        "new expiry",
        "without exp",
        "not subscribed",
        "no token",
        "expired",
        "expire_at passed",
        "garbage",
        "wrong key",
        "other channel",
        "other user",
        "other client",
    ],
)
async def test_sub_refresh(request_: dict[str, Any], answer: Any) -> None:
    async with house() as node:
        client = await _with_expiring_subscription(node)
        replies = await client.ask({"id": 3, "sub_refresh": request_})
        if isinstance(answer, dict):
            assert (replies, client.closing) == ([ok(3, "sub_refresh", **answer)], None)
        elif isinstance(answer, int):
            assert (replies, client.closing) == ([error(3, answer)], None)
        else:
            assert (replies, client.closing) == ([], answer)


EXPIRED_PUSH = {"push": {"channel": "$a", "unsubscribe": {"code": 2501, "reason": "subscription expired"}}}


@pytest.mark.parametrize("refreshes_in_vain", [False, True])
async def test_a_subscription_that_is_not_refreshed_ends_after_the_grace(*, refreshes_in_vain: bool) -> None:
    async with house({"client": {"ping_interval": "1h"}}) as node:
        client = await _with_expiring_subscription(node)
        if refreshes_in_vain:
            # 10, 1: an expired token keeps the old expiry.
            shown = token("42", channel="$a", exp=at(-1))
            assert await client.ask({"id": 3, "sub_refresh": {"channel": "$a", "token": shown}}) == [error(3, 109)]
        await node.advance(84.8)
        assert client.take() == []
        await node.advance(0.4)
        assert client.take_values() == [EXPIRED_PUSH]
        assert (client.channels, client.closing) == (set(), None)
        node.publish("$a", b"1")
        await node.settle()
        assert client.take() == []
        again = token("42", channel="$a", exp=at(600))
        replies = await client.ask({"id": 4, "subscribe": {"channel": "$a", "token": again}})
        assert [reply["id"] for reply in replies] == [4]


@pytest.mark.parametrize(("claims", "after"), [({"exp": at(200)}, [EXPIRED_PUSH]), ({}, [])])
async def test_a_refreshed_subscription_lives_until_the_new_expiry(claims: dict[str, Any], after: list[Any]) -> None:
    async with house({"client": {"ping_interval": "1h"}}) as node:
        client = await _with_expiring_subscription(node)
        await client.ask({"id": 3, "sub_refresh": {"channel": "$a", "token": token("42", channel="$a", **claims)}})
        await node.advance(224.8)
        assert client.take() == []
        await node.advance(0.4)
        assert client.take_values() == after


# Insecure mode (6.3).


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        ({"subscribe": {"channel": "closed:a"}}, None),
        ({"subscribe": {"channel": "limited:room#43"}}, None),
        ({"publish": {"channel": "closed:a", "data": 1}}, None),
        ({"subscribe": {"channel": "$a"}}, 103),
        ({"subscribe": {"channel": "nope:a"}}, 102),
        ({"subscribe": {"channel": "binary:a"}}, 108),
        ({"presence": {"channel": "closed:a"}}, 108),
        ({"history": {"channel": "closed:a"}}, 108),
    ],
)
async def test_an_insecure_server_checks_no_permission_but_everything_else(
    command: dict[str, Any], answer: int | None
) -> None:
    async with house(INSECURE) as node:
        client = await node.connect("")
        (method,) = command
        assert await client.ask({"id": 2, **command}) == [ok(2, method) if answer is None else error(2, answer)]


@pytest.mark.parametrize(
    ("shown", "answer"),
    [
        ("garbage", INVALID_TOKEN),
        (token("42", key="x" * 32), INVALID_TOKEN),
        (token("42", exp=at(0)), 109),
        (token("42", exp=at(100)), None),
        (token("42", exp=at(100), channels=["a"]), None),
    ],
)
async def test_an_insecure_server_verifies_tokens_but_lets_no_connection_expire(
    shown: str, answer: int | tuple[int, str] | None
) -> None:
    async with house(INSECURE, {"client": {"ping_interval": "1h"}}) as node:
        client = node.open()
        replies = await client.ask({"id": 1, "connect": {"token": shown}})
        if isinstance(answer, tuple):
            assert (replies, client.closing) == ([], answer)
        elif answer:
            assert replies == [error(1, answer)]
        else:
            subs: dict[str, Any] = {"subs": {channel: {} for channel in client.channels}} if client.channels else {}
            result = {"client": client.id, "version": "v", **subs, "ping": 3600, "pong": True}
            assert replies == [{"id": 1, "connect": result}]
            await node.advance(200)
            assert client.closing is None
            channels = sorted(client.channels)
            refreshed = await client.ask({"id": 2, "refresh": {"token": token("42", exp=at(900), channels=channels)}})
            assert refreshed == [ok(2, "refresh")]
            await node.advance(1000)
            assert client.closing is None
