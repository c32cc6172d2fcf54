"""Channels and lifetimes that the backend decides about: subscribe, publish, refresh and sub_refresh proxies."""

import asyncio
import base64
from typing import Any

import msgspec
import pytest

from gateway.protocol.messages import ClientInfo
from gateway.proxies.port import Response, UnreachableError
from tests.support.backends import CUSTOM, FAILURES, INTERNAL, OUT, FakeBackend, proxied
from tests.support.conversations import ALLOW_ALL, INSECURE, Client, House, ManualBroker, at, house, token

DENIED = {"code": 103, "message": "permission denied"}
REFUSED = {"code": 403, "message": "not yours"}
PATIENT: dict[str, Any] = {"client": {"pong_timeout": 0}}
REFRESH: dict[str, Any] = {"client": {"pong_timeout": 0, "proxy": {"refresh": proxied("/refresh", enabled=True)}}}
NAMESPACES: list[dict[str, Any]] = [
    {"name": "asked", "subscribe_proxy_enabled": True, "publish_proxy_enabled": True},
    {"name": "loose", **ALLOW_ALL, "subscribe_proxy_enabled": True, "publish_proxy_enabled": True},
    {"name": "limited", "subscribe_proxy_enabled": True, "allow_user_limited_channels": True},
    {"name": "expiring", "subscribe_proxy_enabled": True},
    {"name": "renewed", "subscribe_proxy_enabled": True, "sub_refresh_proxy_enabled": True},
    {"name": "present", "subscribe_proxy_enabled": True},
    {"name": "kept", "publish_proxy_enabled": True, "history_size": 10, "history_ttl": "1m"},
    {"name": "object", "publish_proxy_enabled": True, "publication_data_format": "json_object"},
    {"name": "bytes", "publish_proxy_enabled": True, "publication_data_format": "binary"},
    {"name": "named", "subscribe_proxy_enabled": True, "subscribe_proxy_name": "other"},
    {"name": "open", **ALLOW_ALL},
]
CHANNELS: dict[str, Any] = {
    "proxies": [{"name": "other", **proxied("/other")}],
    "channel": {
        "proxy": {each: proxied(f"/{each}") for each in ("subscribe", "publish", "sub_refresh")},
        "namespaces": NAMESPACES,
    },
}


@pytest.fixture
def backend() -> FakeBackend:
    backend = FakeBackend()
    backend.answers |= {
        path: {"result": {}} for path in ("/subscribe", "/publish", "/sub_refresh", "/refresh", "/other")
    }
    return backend


def subscribe(channel: str, number: int = 2, **more: Any) -> dict[str, Any]:
    return {"id": number, "subscribe": {"channel": channel, **more}}


def publish(channel: str, data: Any = 1, number: int = 3) -> dict[str, Any]:
    return {"id": number, "publish": {"channel": channel, "data": data}}


# Subscribe.


async def test_the_backend_learns_who_wants_to_subscribe_to_what(backend: FakeBackend) -> None:
    async with house(CHANNELS, backend=backend) as node:
        client = await node.connect("42")
        assert await client.ask(subscribe("asked:x", data={"a": 1})) == [{"id": 2, "subscribe": {}}]
        assert client.channels == {"asked:x"}
        assert backend.about("/subscribe") == [
            {
                "client": client.id,
                "transport": "websocket",
                "protocol": "json",
                "encoding": "json",
                "user": "42",
                "channel": "asked:x",
                "data": {"a": 1},
            }
        ]


@pytest.mark.parametrize(
    ("answer", "reply", "closing"),
    [
        ({"error": REFUSED}, {"error": REFUSED}, None),
        ({"error": CUSTOM}, {"error": CUSTOM}, None),
        ({"disconnect": OUT}, None, (4501, "unauthorized")),
        ({}, {"error": INTERNAL}, None),
        ({"result": {"expire_at": at(0)}}, {"error": {"code": 110, "message": "expired"}}, None),
        ({"result": {"b64data": base64.b64encode(b"\xff").decode()}}, {"error": INTERNAL}, None),
        *((failure, {"error": INTERNAL}, None) for failure in FAILURES),
    ],
)
@pytest.mark.parametrize("channel", ["asked:x", "loose:x"])
async def test_whom_the_backend_refuses_does_not_get_in_whatever_else_is_allowed(
    backend: FakeBackend, channel: str, answer: Any, reply: dict[str, Any] | None, closing: tuple[int, str] | None
) -> None:
    backend.answers["/subscribe"] = answer
    async with house(CHANNELS, INSECURE, backend=backend) as node:
        client = await node.connect("42")
        assert await client.ask(subscribe(channel)) == ([] if reply is None else [{"id": 2, **reply}])
        assert client.closing == closing
        assert not client.channels


async def test_what_the_backend_grants_is_what_the_subscription_has(backend: FakeBackend) -> None:
    backend.answers["/subscribe"] = {
        "result": {
            "info": {"role": "admin"},
            "data": {"hello": 1},
            "expire_at": at(60),
            "override": {"presence": {"value": True}},
        }
    }
    async with house(CHANNELS, backend=backend) as node:
        client = await node.connect("42")
        reply = {"expires": True, "ttl": 60, "data": {"hello": 1}}
        assert await client.ask(subscribe("present:x")) == [{"id": 2, "subscribe": reply}]
        present = await node.services.presence_store.presence("present:x").wait()
        assert present == {client.id: ClientInfo("42", client.id, chan_info=msgspec.Raw(b'{"role": "admin"}'))}


async def test_who_needs_no_asking_is_not_asked_about(backend: FakeBackend) -> None:
    async with house(CHANNELS, backend=backend) as node:
        client = await node.connect("42")
        cases: list[tuple[dict[str, Any], dict[str, Any]]] = [
            (subscribe("limited:x#41,42"), {"subscribe": {}}),
            (subscribe("limited:x#41"), {"error": DENIED}),
            (subscribe("$asked:x"), {"error": DENIED}),
            (subscribe("$asked:y", token=token("42", channel="$asked:y")), {"subscribe": {}}),
            (subscribe("asked:z", token=token("42", channel="asked:z")), {"subscribe": {}}),
            (subscribe("open:x"), {"subscribe": {}}),
            (subscribe("asked:z"), {"error": {"code": 105, "message": "already subscribed"}}),
        ]
        for command, reply in cases:
            assert await client.ask(command) == [{"id": 2, **reply}]
        assert backend.asked == []
        assert await client.ask(subscribe("limited:x")) == [{"id": 2, "subscribe": {}}]
        assert [each["channel"] for each in backend.about("/subscribe")] == ["limited:x"]


async def test_a_namespace_may_name_a_proxy_of_its_own(backend: FakeBackend) -> None:
    async with house(CHANNELS, backend=backend) as node:
        client = await node.connect("42")
        await client.ask(subscribe("named:x"))
        assert [each.path for each in backend.asked] == ["/other"]


async def test_no_one_gets_in_at_connect_where_the_backend_is_to_be_asked(backend: FakeBackend) -> None:
    async with house(CHANNELS, backend=backend) as node:
        client = node.open()
        wanted: dict[str, Any] = {"loose:x": {}, "open:x": {}}
        (reply,) = await client.ask({"id": 1, "connect": {"token": token("42"), "subs": wanted}})
        assert list(reply["connect"]["subs"]) == ["open:x"]
        assert backend.asked == []


@pytest.mark.parametrize("held", ["backend", "broker"])
async def test_a_client_that_goes_while_it_subscribes_leaves_nothing_behind(backend: FakeBackend, held: str) -> None:
    broker = ManualBroker("subscribe") if held == "broker" else ManualBroker()
    if held == "backend":
        backend.gate.clear()
    async with house(CHANNELS, backend=backend, broker=broker) as node:
        client = await node.connect("42")
        assert await client.ask(subscribe("asked:x")) == []
        client.go()
        backend.gate.set()
        while broker.waiting:
            broker.settle()
        await node.settle()
        assert client.take() == []
        assert (len(node.hub), len(node.services.interest)) == (0, 0)


# Publish.


async def publishing(node: House, *channels: str) -> tuple[Client, Client]:
    """Return a client, and another one that is in *channels* by tokens."""
    reader = await node.connect("1")
    for channel in channels:
        await reader.ask(subscribe(channel, token=token("1", channel=channel)))
    return await node.connect("42", info={"n": 1}), reader


async def test_what_the_backend_lets_pass_is_published_as_the_client_sent_it(backend: FakeBackend) -> None:
    async with house(CHANNELS, backend=backend) as node:
        client, reader = await publishing(node, "asked:x")
        client.send('{"id":3,"publish":{"channel":"asked:x","data":{"t": "é"  , "n":1.0}}}')
        await node.settle()
        assert client.take_values() == [{"id": 3, "publish": {}}]
        info = f'{{"user":"42","client":"{client.id}","conn_info":{{"n":1}}}}'
        assert reader.take() == [
            f'{{"push":{{"channel":"asked:x","pub":{{"data":{{"t": "é"  , "n":1.0}},"info":{info}}}}}}}'
        ]
        assert backend.about("/publish") == [
            {
                "client": client.id,
                "transport": "websocket",
                "protocol": "json",
                "encoding": "json",
                "user": "42",
                "channel": "asked:x",
                "data": {"t": "é", "n": 1.0},
            }
        ]


@pytest.mark.parametrize(
    ("answer", "reply", "closing"),
    [
        ({"error": REFUSED}, {"error": REFUSED}, None),
        ({"disconnect": OUT}, None, (4501, "unauthorized")),
        ({}, {"error": INTERNAL}, None),
        *((failure, {"error": INTERNAL}, None) for failure in FAILURES),
    ],
)
@pytest.mark.parametrize("channel", ["asked:x", "loose:x"])
async def test_what_the_backend_refuses_is_not_published_whatever_else_is_allowed(
    backend: FakeBackend, channel: str, answer: Any, reply: dict[str, Any] | None, closing: tuple[int, str] | None
) -> None:
    backend.answers["/publish"] = answer
    async with house(CHANNELS, INSECURE, backend=backend) as node:
        client, reader = await publishing(node, channel)
        reader.take()
        assert await client.ask(publish(channel)) == ([] if reply is None else [{"id": 3, **reply}])
        assert client.closing == closing
        assert reader.take() == []


async def test_the_backend_may_replace_the_data_and_say_how_it_is_published(backend: FakeBackend) -> None:
    async with house(CHANNELS, backend=backend) as node:
        client, reader = await publishing(node, "kept:x")
        reader.take()
        for result in (
            {"data": {"new": 1}, "tags": {"k": "v"}, "version": 5, "version_epoch": "e"},
            {"data": {"old": 1}, "version": 4, "version_epoch": "e"},
            {"idempotency_key": "once", "delta": True},
            {"idempotency_key": "once"},
            {"skip_history": True, "b64data": base64.b64encode(b'"b64"').decode(), "data": None},
        ):
            backend.answers["/publish"] = {"result": result}
            assert await client.ask(publish("kept:x", "sent")) == [{"id": 3, "publish": {}}]
        pubs = [each["push"]["pub"] for each in reader.take_values()]
        for each in pubs:
            del each["info"]
            each.pop("epoch", None)
        assert pubs == [
            {"data": {"new": 1}, "offset": 1, "tags": {"k": "v"}, "version": 5},
            {"data": "sent", "offset": 2},
            {"data": "b64"},
        ]


@pytest.mark.parametrize(
    ("channel", "data", "error"),
    [
        ("asked:x", msgspec.UNSET, {"code": 107, "message": "bad request"}),
        ("object:x", 5, {"code": 107, "message": "bad request"}),
        ("nope:x", 5, {"code": 102, "message": "unknown channel"}),
        ("asked:\x07", 5, {"code": 107, "message": "bad request"}),
    ],
)
async def test_what_can_not_be_published_is_nothing_to_ask_about(
    backend: FakeBackend, channel: str, data: Any, error: dict[str, Any]
) -> None:
    async with house(CHANNELS, backend=backend) as node:
        client = await node.connect("42")
        command = publish(channel, data)
        if data is msgspec.UNSET:
            del command["publish"]["data"]
        assert await client.ask(command) == [{"id": 3, "error": error}]
        assert backend.asked == []


@pytest.mark.parametrize("result", [{"data": 5}, {"b64data": base64.b64encode(b"{").decode()}])
async def test_data_of_the_backend_that_the_channel_does_not_take_is_an_error(
    backend: FakeBackend, result: Any
) -> None:
    backend.answers["/publish"] = {"result": result}
    async with house(CHANNELS, backend=backend) as node:
        client, reader = await publishing(node, "object:x")
        reader.take()
        assert await client.ask(publish("object:x", {"a": 1})) == [{"id": 3, "error": INTERNAL}]
        assert reader.take() == []
        (line,) = [each for each in node.events if each["event"] == "proxy failed"]
        assert line["reason"].startswith("it takes JSON objects")


async def test_replies_keep_the_order_of_the_commands_however_long_broker_and_backend_take(
    backend: FakeBackend,
) -> None:
    broker = ManualBroker("publish")
    backend.gate.clear()
    async with house(CHANNELS, backend=backend, broker=broker) as node:
        client = await node.connect("42")
        commands = [
            publish("open:x", number=2),
            publish("asked:x", number=3),
            publish("open:x", number=4),
            {"id": 5, "rpc": {"method": "ping"}},
        ]
        assert await client.ask(*commands) == []
        backend.gate.set()
        await node.settle()
        assert client.take_values() == []
        # The broker has the first two by now, and has answered neither.
        broker.settle()
        await node.settle()
        assert [each["id"] for each in client.take_values()] == [2]
        while broker.waiting:
            broker.settle()
        await node.settle()
        assert [each["id"] for each in client.take_values()] == [3, 4, 5]
        assert [call for call in broker.calls if call[0] == "publish"] == [
            ("publish", "open:x"),
            ("publish", "asked:x"),
            ("publish", "open:x"),
        ]


async def test_what_a_client_published_that_has_gone_is_not_published(backend: FakeBackend) -> None:
    backend.gate.clear()
    async with house(CHANNELS, backend=backend) as node:
        client, reader = await publishing(node, "asked:x")
        reader.take()
        assert await client.ask(publish("asked:x")) == []
        client.go()
        backend.gate.set()
        await node.settle()
        assert reader.take() == []


async def test_a_channel_whose_namespace_goes_while_the_backend_is_asked_is_unknown(backend: FakeBackend) -> None:
    backend.gate.clear()
    async with house(CHANNELS, backend=backend) as node:
        client = await node.connect("42")
        assert await client.ask(publish("asked:x")) == []
        node.reload({"channel": {"namespaces": [each for each in NAMESPACES if each["name"] != "asked"]}})
        backend.gate.set()
        await node.settle()
        assert client.take_values() == [{"id": 3, "error": {"code": 102, "message": "unknown channel"}}]


# Refresh.


async def test_the_backend_is_asked_when_a_connection_expires_and_the_client_knows_nothing_of_it(
    backend: FakeBackend,
) -> None:
    backend.answers["/refresh"] = {"result": {"expire_at": at(1000), "info": {"new": 1}}}
    async with house(CHANNELS, REFRESH, backend=backend) as node:
        client = node.open()
        (reply,) = await client.ask({"id": 1, "connect": {"token": token("42", exp=at(100))}})
        assert {"expires", "ttl"} & set(reply["connect"]) == set()
        await node.advance(99.5)
        assert backend.asked == []
        await node.advance(1)
        assert backend.about("/refresh") == [
            {"client": client.id, "transport": "websocket", "protocol": "json", "encoding": "json", "user": "42"}
        ]
        assert bytes(client.conversation.session.info.conn_info) == b'{"new": 1}'
        await node.advance(898)
        assert (len(backend.asked), client.closing) == (1, None)
        await node.advance(3)
        assert len(backend.asked) == 2


@pytest.mark.parametrize(
    ("answer", "closing"),
    [
        ({}, (3005, "connection expired")),
        ({"result": {"expired": True}}, (3005, "connection expired")),
        ({"result": {"expire_at": at(100)}}, (3005, "connection expired")),
        ({"error": REFUSED}, (3005, "connection expired")),
        ({"disconnect": OUT}, (4501, "unauthorized")),
        ({"result": {}}, None),
    ],
)
async def test_the_backend_ends_a_connection_or_lets_it_go_on_for_ever(
    backend: FakeBackend, answer: Any, closing: tuple[int, str] | None
) -> None:
    backend.answers["/refresh"] = answer
    async with house(REFRESH, backend=backend) as node:
        client = await node.connect("42", exp=at(100))
        await node.advance(101)
        assert client.closing == closing
        await node.advance(200)
        assert len(backend.asked) == 1


@pytest.mark.parametrize("answer", [*FAILURES, {"error": CUSTOM}])
async def test_while_the_backend_says_nothing_a_connection_goes_on_and_it_is_asked_each_minute(
    backend: FakeBackend, answer: Any
) -> None:
    backend.answers["/refresh"] = answer
    async with house(REFRESH, backend=backend) as node:
        client = await node.connect("42", exp=at(100))
        for asked in (1, 2, 3):
            await node.advance(101 if asked == 1 else 60)
            assert (len(backend.asked), client.closing) == (asked, None)
        backend.answers["/refresh"] = {}
        await node.advance(60)
        assert client.closing == (3005, "connection expired")


async def test_a_client_may_not_refresh_what_the_backend_refreshes(backend: FakeBackend) -> None:
    async with house(REFRESH, backend=backend) as node:
        client = await node.connect("42", exp=at(100))
        assert await client.ask({"id": 2, "refresh": {"token": token("42", exp=at(200))}}) == []
        assert client.closing == (3501, "bad request")


async def test_commands_do_not_wait_for_a_refresh(backend: FakeBackend) -> None:
    backend.gate.clear()
    async with house(CHANNELS, REFRESH, backend=backend) as node:
        client = await node.connect("42", exp=at(100))
        await node.advance(101)
        assert len(backend.asked) == 1
        client.take()
        assert await client.ask(publish("open:x")) == [{"id": 3, "publish": {}}]
        backend.gate.set()


async def test_a_plain_client_stays_as_long_as_the_backend_says(backend: FakeBackend) -> None:
    async with house(REFRESH, backend=backend) as node:
        client = await node.connect_plain("42", exp=at(100))
        await node.advance(101)
        assert backend.about("/refresh")[0]["protocol"] == "plain"
        assert client.closing is None
        backend.answers["/refresh"] = {}
        other = await node.connect_plain("43", exp=at(200))
        await node.advance(100)
        assert (client.closing, other.closing) == (None, (1008, "token expired"))


async def test_the_meta_that_a_refresh_brings_is_what_the_backend_is_told_next(backend: FakeBackend) -> None:
    backend.answers["/refresh"] = {"result": {"expire_at": at(200), "meta": {"n": 2}}}
    wanted = {"client": {"proxy": {"refresh": {"include_connection_meta": True}}}}
    async with house(wanted, REFRESH, backend=backend) as node:
        await node.connect("42", exp=at(100), meta={"n": 1})
        await node.advance(101)
        await node.advance(101)
        assert [each["meta"] for each in backend.about("/refresh")] == [{"n": 1}, {"n": 2}]


# sub_refresh.


async def expiring(node: House, channel: str = "renewed:x") -> tuple[Client, Any]:
    """Subscribe for 100 seconds, and return what the subscribe was answered."""
    client = await node.connect("42")
    (reply,) = await client.ask(subscribe(channel))
    return client, reply


async def test_the_backend_is_asked_when_a_subscription_expires(backend: FakeBackend) -> None:
    backend.answers["/subscribe"] = {"result": {"expire_at": at(100)}}
    backend.answers["/sub_refresh"] = {"result": {"expire_at": at(1000), "info": {"new": 1}}}
    async with house(CHANNELS, PATIENT, backend=backend) as node:
        client, reply = await expiring(node)
        assert reply == {"id": 2, "subscribe": {}}
        await node.advance(101)
        assert backend.about("/sub_refresh") == [
            {
                "client": client.id,
                "transport": "websocket",
                "protocol": "json",
                "encoding": "json",
                "user": "42",
                "channel": "renewed:x",
            }
        ]
        subscription = client.conversation.session.subscriptions["renewed:x"]
        assert bytes(subscription.info.chan_info) == b'{"new": 1}'
        await node.advance(890)
        assert len(backend.about("/sub_refresh")) == 1
        await node.advance(10)
        assert len(backend.about("/sub_refresh")) == 2


async def test_without_the_proxy_the_client_refreshes_and_is_told_when(backend: FakeBackend) -> None:
    backend.answers["/subscribe"] = {"result": {"expire_at": at(100)}}
    async with house(CHANNELS, PATIENT, backend=backend) as node:
        client, reply = await expiring(node, "expiring:x")
        assert reply == {"id": 2, "subscribe": {"expires": True, "ttl": 100}}
        renewal = token("42", channel="expiring:x", exp=at(300))
        replies = await client.ask({"id": 3, "sub_refresh": {"channel": "expiring:x", "token": renewal}})
        assert replies == [{"id": 3, "sub_refresh": {"expires": True, "ttl": 300}}]


UNSUBSCRIBED = {"push": {"channel": "renewed:x", "unsubscribe": {"code": 2501, "reason": "subscription expired"}}}


@pytest.mark.parametrize(
    ("answer", "pushes", "closing"),
    [
        ({}, [UNSUBSCRIBED], None),
        ({"result": {"expired": True}}, [UNSUBSCRIBED], None),
        ({"result": {"expire_at": at(50)}}, [UNSUBSCRIBED], None),
        ({"error": REFUSED}, [UNSUBSCRIBED], None),
        ({"disconnect": OUT}, [], (4501, "unauthorized")),
        ({"result": {}}, [], None),
        *((failure, [], None) for failure in FAILURES),
    ],
)
async def test_the_backend_ends_a_subscription_or_lets_it_go_on(
    backend: FakeBackend, answer: Any, pushes: list[Any], closing: tuple[int, str] | None
) -> None:
    backend.answers["/subscribe"] = {"result": {"expire_at": at(100)}}
    backend.answers["/sub_refresh"] = answer
    async with house(CHANNELS, PATIENT, backend=backend) as node:
        client, _ = await expiring(node)
        await node.advance(101)
        assert [each for each in client.take_values() if each] == pushes
        assert client.closing == closing
        assert client.channels == (set() if pushes or closing else {"renewed:x"})


async def test_the_end_of_a_server_side_subscription_is_the_connections(backend: FakeBackend) -> None:
    backend.answers["/sub_refresh"] = {}
    backend.answers["/connect"] = {"result": {"subs": {"renewed:x": {"expire_at": at(100)}}}}
    connect = {"client": {"proxy": {"connect": proxied("/connect", enabled=True)}}}
    async with house(CHANNELS, PATIENT, connect, backend=backend) as node:
        client = node.open()
        await client.ask({"id": 1, "connect": {}})
        await node.advance(101)
        assert client.closing == (3006, "subscription expired")


async def test_a_client_may_not_refresh_a_subscription_that_the_backend_refreshes(backend: FakeBackend) -> None:
    async with house(CHANNELS, backend=backend) as node:
        client, _ = await expiring(node)
        renewal = token("42", channel="renewed:x")
        assert await client.ask({"id": 3, "sub_refresh": {"channel": "renewed:x", "token": renewal}}) == []
        assert client.closing == (3501, "bad request")


async def test_a_subscription_that_ends_while_it_is_asked_about_is_not_touched(backend: FakeBackend) -> None:
    backend.answers["/subscribe"] = {"result": {"expire_at": at(100)}}
    backend.answers["/sub_refresh"] = {}
    async with house(CHANNELS, PATIENT, backend=backend) as node:
        client, _ = await expiring(node)
        backend.gate.clear()
        await node.advance(101)
        client.take()
        assert await client.ask({"id": 4, "unsubscribe": {"channel": "renewed:x"}}) == [{"id": 4, "unsubscribe": {}}]
        backend.gate.set()
        backend.answers["/subscribe"] = {"result": {}}
        assert await client.ask(subscribe("renewed:x", number=5)) == [{"id": 5, "subscribe": {}}]
        assert client.channels == {"renewed:x"}


# The plain protocol.


async def test_a_plain_client_is_asked_about_as_well(backend: FakeBackend) -> None:
    async with house(CHANNELS, backend=backend) as node:
        client = await node.connect_plain("42", "loose:x")
        client.send("1")
        await node.settle()
        assert client.take() == ["1"]
        backend.answers["/publish"] = {"result": {"data": {"new": 1}}}
        client.send("2")
        await node.settle()
        assert client.take() == ['{"new": 1}']
        backend.answers["/publish"] = {"error": REFUSED}
        client.send("3")
        await node.settle()
        assert client.take_values() == [{"error": {"code": 403, "message": "not yours"}}]
        backend.answers["/publish"] = {"disconnect": OUT}
        client.send("4")
        await node.settle()
        assert client.closing == (1008, "unauthorized")
        assert [each["protocol"] for each in backend.about("/subscribe")] == ["plain"]


@pytest.mark.parametrize(
    ("answer", "closing"),
    [
        ({"error": {"code": 403, "message": "x" * 500}}, (1008, "permission denied")),
        ({"disconnect": OUT}, (1008, "unauthorized")),
        ({"disconnect": {"code": 4000, "reason": "later"}}, (1008, "later")),
        (UnreachableError("refused"), (1011, "internal server error")),
    ],
)
async def test_a_plain_client_that_is_refused_is_closed(
    backend: FakeBackend, answer: Any, closing: tuple[int, str]
) -> None:
    backend.answers["/subscribe"] = answer
    async with house(CHANNELS, INSECURE, backend=backend) as node:
        client = node.open_plain("loose:x")
        assert await client.ask({"token": token("42")}) == []
        assert client.closing == closing
        assert not client.channels


async def test_where_there_is_a_connect_proxy_a_plain_client_needs_a_token(backend: FakeBackend) -> None:
    connect = {"client": {"proxy": {"connect": proxied("/connect", enabled=True)}}}
    async with house(connect, INSECURE, backend=backend) as node:
        client = node.open_plain("open:x")
        await node.settle()
        assert not client.channels
        assert await client.ask({"token": token("42")}) == [{"status": "authenticated", "user": "42"}]
        assert backend.asked == []


# A reload.


async def test_a_reload_changes_where_the_backend_is_and_calls_under_way_end_well(backend: FakeBackend) -> None:
    backend.gate.clear()
    backend.answers["/moved"] = {"error": REFUSED}
    async with house(CHANNELS, backend=backend) as node:
        client = await node.connect("42")
        assert await client.ask(publish("asked:x")) == []
        node.reload({"channel": {"proxy": {"publish": proxied("/moved")}}})
        await node.settle()
        assert "/publish" not in backend.closed
        backend.gate.set()
        await node.settle()
        assert client.take_values() == [{"id": 3, "publish": {}}]
        assert backend.closed == ["/publish"], "the others stay as they are"
        assert await client.ask(publish("asked:x")) == [{"id": 3, "error": REFUSED}]


async def test_what_clients_were_told_of_their_expiry_holds_across_a_reload(backend: FakeBackend) -> None:
    backend.answers["/subscribe"] = {"result": {"expire_at": at(100)}}
    async with house(CHANNELS, REFRESH, backend=backend) as node:
        client = await node.connect("42", exp=at(100))
        await client.ask(subscribe("renewed:x"))
        off = [dict(each, sub_refresh_proxy_enabled=False) for each in NAMESPACES]
        node.reload({"client": {"proxy": {"refresh": {"enabled": False}}}, "channel": {"namespaces": off}})
        late = await node.connect("43", exp=at(1000))
        # Nobody is there to be asked any more, so it is over; the SDK comes back under the new rules.
        await node.advance(101)
        assert client.closing == (3005, "connection expired")
        assert late.closing is None


async def test_a_fault_of_ours_in_a_refresh_ends_that_connection_alone(
    backend: FakeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(_: object) -> None:
        await asyncio.sleep(0)
        raise RuntimeError("a bug")

    monkeypatch.setattr("gateway.messaging.conversation.refresh_connection", fail)
    async with house(REFRESH, backend=backend) as node:
        node.expected_errors = 1
        client, other = await node.connect("42", exp=at(100)), await node.connect("43")
        await node.advance(101)
        assert (client.closing, other.closing) == ((3004, "internal server error"), None)


async def test_an_answer_of_the_wrong_size_changes_nothing_for_others(backend: FakeBackend) -> None:
    backend.answers["/subscribe"] = Response(200, b"{" * 1000)
    async with house(CHANNELS, backend=backend) as node:
        client = await node.connect("42")
        assert await client.ask(subscribe("asked:x")) == [{"id": 2, "error": INTERNAL}]
        assert await client.ask(subscribe("open:x")) == [{"id": 2, "subscribe": {}}]
