"""Clients whose wishes the backend decides: what it is told, and what becomes of what it says."""

import base64
import json
from typing import Any

import pytest

from gateway.config import merge
from gateway.proxies.headers import ClientHeaders
from gateway.proxies.port import Response
from tests.support.backends import CUSTOM, FAILURES, INTERNAL, OUT, FakeBackend, proxied
from tests.support.conversations import ANONYMOUS, Client, House, at, house

PINGS: dict[str, Any] = {"version": "v", "ping": 25, "pong": True}
PATIENT: dict[str, Any] = {"client": {"pong_timeout": 0}}
CONNECT: dict[str, Any] = {"client": {"proxy": {"connect": proxied("/connect", enabled=True)}}}
RPC: dict[str, Any] = {"rpc": {"proxy": proxied("/rpc"), "without_namespace": {"proxy_enabled": True}}}


@pytest.fixture
def backend() -> FakeBackend:
    return FakeBackend()


async def connected(node: House, request: dict[str, Any] | None = None, **how: Any) -> tuple[Client, Any]:
    """Open a connection and return what its connect command was answered."""
    client = node.open(**how)
    replies = await client.ask({"id": 1, "connect": request or {}})
    return client, replies[0] if replies else None


# Connect.


async def test_the_backend_says_who_a_client_without_a_token_is(backend: FakeBackend) -> None:
    backend.answers["/connect"] = {
        "result": {"user": "77", "info": {"nm": "Bob"}, "data": {"hello": 1}, "channels": ["plain"], "meta": {"m": 1}}
    }
    async with house(CONNECT, backend=backend) as node:
        request = {"data": {"x": 1}, "name": "js", "version": "1", "subs": {"plain": {"recover": True}}}
        client, reply = await connected(node, request)
        told = {"client": client.id, "data": {"hello": 1}, "subs": {"plain": {"was_recovering": True}}, **PINGS}
        assert reply == {"id": 1, "connect": told}
        session = client.conversation.session
        assert session.user == "77"
        assert (bytes(session.info.conn_info), bytes(session.meta)) == (b'{"nm": "Bob"}', b'{"m": 1}')
        assert client.channels == {"plain"}
        assert backend.about("/connect") == [
            {
                "client": client.id,
                "transport": "websocket",
                "protocol": "json",
                "encoding": "json",
                "data": {"x": 1},
                "name": "js",
                "version": "1",
                "channels": ["plain"],
            }
        ]


async def test_who_shows_a_token_is_nothing_to_ask_about(backend: FakeBackend) -> None:
    async with house(CONNECT, backend=backend) as node:
        client = await node.connect("42")
        assert client.conversation.session.user == "42"
        bad = node.open()
        assert await bad.ask({"id": 1, "connect": {"token": "a.b.c"}}) == []
        assert bad.closing == (3500, "invalid token")
        assert backend.asked == []


@pytest.mark.parametrize(
    ("answer", "error", "closing"),
    [
        ({"error": CUSTOM}, CUSTOM, None),
        ({"disconnect": OUT}, None, (4501, "unauthorized")),
        ({}, None, (3501, "bad request")),
        ({"result": {"user": "1", "expire_at": at(0)}}, {"code": 110, "message": "expired"}, None),
        ({"result": {"subs": {"plain": {"expire_at": at(-1)}}}}, {"code": 110, "message": "expired"}, None),
        ({"result": {"channels": ["nope:x"]}}, {"code": 102, "message": "unknown channel"}, None),
        ({"result": {"b64data": base64.b64encode(b"\xff").decode()}}, INTERNAL, None),
        *((failure, INTERNAL, None) for failure in FAILURES),
    ],
)
async def test_the_backend_keeps_a_client_out(
    backend: FakeBackend, answer: Any, error: dict[str, Any] | None, closing: tuple[int, str] | None
) -> None:
    backend.answers["/connect"] = answer
    async with house(CONNECT, ANONYMOUS, backend=backend) as node:
        client, reply = await connected(node)
        assert reply == (None if error is None else {"id": 1, "error": error})
        assert client.closing == closing
        assert client.conversation.session.user == ""
        assert not client.channels


async def test_what_a_client_is_told_of_its_expiry(backend: FakeBackend) -> None:
    backend.answers["/connect"] = {"result": {"user": "1", "expire_at": at(100)}}
    async with house(CONNECT, backend=backend) as node:
        client, reply = await connected(node)
        assert reply["connect"] == {"client": client.id, "expires": True, "ttl": 100, **PINGS}


async def test_a_client_that_goes_while_it_is_asked_about_leaves_nothing_behind(backend: FakeBackend) -> None:
    backend.answers["/connect"] = {"result": {"user": "77", "channels": ["plain"]}}
    backend.gate.clear()
    async with house(CONNECT, backend=backend) as node:
        client = node.open()
        assert await client.ask({"id": 1, "connect": {}}) == []
        client.go()
        backend.gate.set()
        await node.settle()
        assert client.take() == []
        assert node.services.connections.count_of("77") == 0
        assert len(node.hub) == 0


async def test_headers_of_the_request_and_of_the_command_go_to_all_events_that_list_them(backend: FakeBackend) -> None:
    listed = {"http_headers": ["Cookie"], "emulated_headers": ["Authorization"]}
    tables = merge(
        {"client": {"proxy": {"connect": listed}}, "rpc": {"proxy": {"emulated_headers": ["Authorization"]}}},
        merge(CONNECT, RPC),
    )
    backend.answers |= {"/connect": {"result": {}}, "/rpc": {"result": {}}}
    async with house(tables, backend=backend) as node:
        proxies = node.services.proxies
        kept = proxies.kept_of_request([("Cookie", "a=b"), ("Authorization", "of the request"), ("X", "y")])
        assert kept == ClientHeaders((("cookie", "a=b"),))
        emulated = {"authorization": "Bearer x", "cookie": "forged", "X": "y"}
        client, _ = await connected(node, {"headers": emulated}, headers=kept)
        await client.ask({"id": 2, "rpc": {"method": "m"}})
        assert [each.headers for each in backend.asked] == [
            [("cookie", "a=b"), ("authorization", "Bearer x")],
            [("authorization", "Bearer x")],
        ]


async def test_a_subscription_of_the_connect_result_has_what_it_says(backend: FakeBackend) -> None:
    backend.answers["/connect"] = {
        "result": {
            "user": "77",
            "subs": {
                "plain": {"info": {"role": "a"}, "data": {"d": 1}, "expire_at": at(100)},
                "cache:x": {"cache_recover": True},
                "cache:y": {},
            },
        }
    }
    cache = {
        "name": "cache",
        "history_size": 1,
        "history_ttl": "1m",
        "force_recovery": True,
        "force_recovery_mode": "cache",
    }
    async with house(CONNECT, PATIENT, {"channel": {"namespaces": [cache]}}, backend=backend) as node:
        for channel in ("cache:x", "cache:y"):
            node.services.publisher.publish(node.channel(channel), b'{"v":1}', None)
        client, reply = await connected(node)
        subs = reply["connect"]["subs"]
        # Nobody refreshes a server-side subscription by a token, so nobody is told when it expires.
        assert subs["plain"] == {"data": {"d": 1}}
        assert [each["data"] for each in subs["cache:x"]["publications"]] == [{"v": 1}]
        assert "publications" not in subs["cache:y"]
        assert bytes(client.conversation.session.subscriptions["plain"].info.chan_info) == b'{"role": "a"}'
        await node.advance(126)
        assert client.closing == (3006, "subscription expired")


# rpc.


async def test_the_backend_answers_a_method_and_its_json_is_told_as_it_is_on_one_line(backend: FakeBackend) -> None:
    backend.answers["/rpc"] = Response(200, b'{"result": {"data": {"echo":\n {"id": 1.0} , "m": "getThing"}}}')
    async with house(RPC, backend=backend) as node:
        client = await node.connect("42")
        client.send('{"id":5,"rpc":{"method":"getThing","data":{"id":1}}}')
        await node.settle()
        assert client.take() == ['{"id":5,"rpc":{"data":{"echo": {"id": 1.0} , "m": "getThing"}}}']
        assert backend.about("/rpc") == [
            {
                "client": client.id,
                "transport": "websocket",
                "protocol": "json",
                "encoding": "json",
                "user": "42",
                "method": "getThing",
                "data": {"id": 1},
            }
        ]


@pytest.mark.parametrize(
    ("answer", "reply", "closing"),
    [
        ({"result": {}}, {"id": 2, "rpc": {}}, None),
        ({"result": {"data": None}}, {"id": 2, "rpc": {"data": None}}, None),
        ({"error": CUSTOM}, {"id": 2, "error": CUSTOM}, None),
        ({"disconnect": OUT}, None, (4501, "unauthorized")),
        ({}, {"id": 2, "error": INTERNAL}, None),
        ({"result": {"b64data": base64.b64encode(b"no JSON").decode()}}, {"id": 2, "error": INTERNAL}, None),
        *((failure, {"id": 2, "error": INTERNAL}, None) for failure in FAILURES),
    ],
)
async def test_what_becomes_of_a_call(
    backend: FakeBackend, answer: Any, reply: dict[str, Any] | None, closing: tuple[int, str] | None
) -> None:
    backend.answers["/rpc"] = answer
    async with house(RPC, backend=backend) as node:
        client = await node.connect("42")
        assert await client.ask({"id": 2, "rpc": {"method": "m"}}) == ([] if reply is None else [reply])
        assert client.closing == closing


NAMESPACES: dict[str, Any] = {
    "proxies": [{"name": "other", **proxied("/other")}],
    "rpc": {
        "proxy": proxied("/rpc"),
        "namespaces": [
            {"name": "sun", "proxy_enabled": True},
            {"name": "moon", "proxy_enabled": True, "proxy_name": "other"},
            {"name": "dark"},
        ],
    },
    "handlers": {"rpc_methods": ["echo"]},
}


@pytest.mark.parametrize(
    ("method", "answer"),
    [
        ("sun:rise", {"rpc": {"data": "/rpc"}}),
        ("sun:a:b", {"rpc": {"data": "/rpc"}}),
        ("moon:rise", {"rpc": {"data": "/other"}}),
        ("dark:x", {"error": {"code": 104, "message": "method not found"}}),
        ("mars:x", {"error": {"code": 104, "message": "method not found"}}),
        ("sun", {"error": {"code": 104, "message": "method not found"}}),
        ("", {"error": {"code": 104, "message": "method not found"}}),
        ("echo", {"rpc": {"data": 1}}),
        ("ping", {"rpc": {}}),
    ],
)
async def test_a_method_goes_where_its_namespace_says(
    backend: FakeBackend, method: str, answer: dict[str, Any]
) -> None:
    backend.answers |= {path: {"result": {"data": path}} for path in ("/rpc", "/other")}
    async with house(NAMESPACES, backend=backend) as node:
        client = await node.connect("42")
        assert await client.ask({"id": 2, "rpc": {"method": method, "data": 1}}) == [{"id": 2, **answer}]


async def test_without_a_namespace_handlers_come_first_and_the_backend_has_the_rest(backend: FakeBackend) -> None:
    backend.answers["/rpc"] = {"result": {"data": "backend"}}
    async with house(RPC, {"handlers": {"rpc_methods": ["echo"]}}, backend=backend) as node:
        client = await node.connect("42")
        methods = enumerate(["echo", "", "x"], start=2)
        calls = [{"id": number, "rpc": {"method": method, "data": 1}} for number, method in methods]
        assert [each["rpc"]["data"] for each in await client.ask(*calls)] == [1, "backend", "backend"]


async def test_commands_behind_a_call_wait_for_it(backend: FakeBackend) -> None:
    backend.answers["/rpc"] = {"result": {}}
    backend.gate.clear()
    async with house(RPC, backend=backend) as node:
        client = await node.connect("42")
        commands: list[dict[str, Any]] = [
            {"id": 2, "rpc": {"method": "m"}},
            {"id": 3, "publish": {"channel": "x", "data": 1}},
            {"id": 4, "rpc": {"method": "ping"}},
        ]
        assert await client.ask(*commands) == []
        assert len(backend.asked) == 1
        backend.gate.set()
        await node.settle()
        assert client.take_values() == [{"id": 2, "rpc": {}}, {"id": 3, "publish": {}}, {"id": 4, "rpc": {}}]


@pytest.mark.parametrize(("data", "encoded"), [({"a": 1}, "eyJhIjogMX0="), (None, "bnVsbA==")])
async def test_in_binary_encoding_payloads_are_base64(backend: FakeBackend, data: Any, encoded: str) -> None:
    backend.answers["/rpc"] = {"result": {"b64data": "MQ=="}}
    async with house({"rpc": {"proxy": {"binary_encoding": True}}}, RPC, backend=backend) as node:
        client = await node.connect("42")
        assert await client.ask({"id": 2, "rpc": {"method": "m", "data": data}}) == [{"id": 2, "rpc": {"data": 1}}]
        (asked,) = backend.about("/rpc")
        assert (asked["encoding"], asked["b64data"], "data" in asked) == ("binary", encoded, False)


@pytest.mark.parametrize("told", [{"m": [1]}, None], ids=["wanted", "not wanted"])
@pytest.mark.parametrize("by", ["token", "backend"])
async def test_the_meta_of_a_connection_is_told_where_it_is_wanted(backend: FakeBackend, told: Any, by: str) -> None:
    wanted = {"rpc": {"proxy": {"include_connection_meta": told is not None}}}
    backend.answers |= {"/connect": {"result": {"meta": {"m": [1]}}}, "/rpc": {"result": {}}}
    async with house(CONNECT, wanted, RPC, backend=backend) as node:
        if by == "token":
            client = await node.connect("42", meta={"m": [1]})
        else:
            client, reply = await connected(node)
            assert "meta" not in json.dumps(reply)
        await client.ask({"id": 2, "rpc": {"method": "m"}})
        assert backend.about("/rpc")[0].get("meta") == told
