"""A real backend over HTTP and a real node: every event by every kind of answer, and what others feel of a bad one."""

import asyncio
import base64
import contextlib
import gzip
import io
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import jwt
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from gateway.asgi import create_app
from gateway.client import Client, ClientSettings, ProtobufCodec, RejectedError
from gateway.config import development, load, merge
from gateway.observability.logs import make_logger
from tests.support.asgi_servers import served
from tests.support.backends import CUSTOM, INTERNAL, OUT, HTTPServer, answer, backend
from tests.support.nodes import A_DAY_S, SECRET, RunningNode, running_node
from tests.support.streams import HTTP_STREAM, SSE, emulate, post, raw_stream
from tests.support.waiting import until

EVENTS: Final = ("connect", "refresh", "subscribe", "publish", "sub_refresh", "rpc")
NOT_FOUND: Final = {"code": 404, "message": "nobody there"}
MAPPED: Final = [
    {"status_code": 404, "to_error": NOT_FOUND},
    {"status_code": 403, "to_disconnect": {"code": 4903, "reason": "go away"}},
]


def tables(server: HTTPServer, **settings: Any) -> dict[str, Any]:
    """Return a configuration in which *server* is asked about everything, each event at a path of its name."""
    proxy = {
        "timeout": "10s",
        "http": {"status_to_code_transforms": MAPPED, "response_size_limit": 10_000},
        "breaker": {"failures": 0},
        **settings,
    }
    at = {event: {"endpoint": server.url(f"/{event}"), **proxy} for event in EVENTS}
    asked = {f"{event}_proxy_enabled": True for event in ("subscribe", "publish", "sub_refresh")}
    return {
        "client": {
            "allow_anonymous_connect_without_token": False,
            "proxy": {event: {"enabled": True, **at[event]} for event in ("connect", "refresh")},
        },
        "channel": {
            "proxy": {event: at[event] for event in ("subscribe", "publish", "sub_refresh")},
            "namespaces": [
                {"name": "asked", **asked},
                {"name": "open", "allow_subscribe_for_client": True, "allow_publish_for_client": True},
            ],
        },
        "rpc": {"proxy": at["rpc"], "without_namespace": {"proxy_enabled": True}},
    }


class House:
    """A node, and the backend that it asks."""

    def __init__(self, server: HTTPServer, node: RunningNode) -> None:
        self.server = server
        self.node = node

    def calls(self, event: str) -> dict[str, int]:
        """Return what became of the calls about *event*."""
        counts = self.node.node.counts.proxy(event, "default")
        return {str(outcome): number for outcome, number in counts.calls.items()}

    def lines(self, event: str) -> list[dict[str, Any]]:
        """Return what was logged as *event*."""
        return [each for each in self.node.events if each["event"] == event]


@asynccontextmanager
async def house(answers: Mapping[str, Any], **settings: Any) -> AsyncIterator[House]:
    async with backend(answers) as server, running_node(tables(server, **settings)) as node:
        yield House(server, node)


class Talk:
    """A client that speaks one command at a time."""

    def __init__(self, socket: ClientConnection) -> None:
        self.pushes: list[Any] = []
        self._socket = socket
        self._number = 0

    async def ask(self, **request: Any) -> Any:
        """Return what a command is answered, or the code and reason with which the connection was closed."""
        self._number += 1
        try:
            await self._socket.send(json.dumps({"id": self._number, **request}))
            while (said := json.loads(await self._socket.recv())).pop("id", None) != self._number:
                if said:
                    self.pushes.append(said["push"])
                else:
                    await self._socket.send("{}")
        except ConnectionClosed as closed:
            return (closed.rcvd.code, closed.rcvd.reason) if closed.rcvd is not None else None
        return said


def token(**claims: Any) -> str:
    return jwt.encode({"sub": "42", **claims}, SECRET, algorithm="HS256")


@asynccontextmanager
async def talking(node: RunningNode, **claims: Any) -> AsyncIterator[Talk]:
    """Connect by a token."""
    async with connect(node.client_url, compression=None) as socket:
        talk = Talk(socket)
        assert "connect" in await talk.ask(connect={"token": token(**claims)})
        yield talk


async def told(house: House, event: str) -> Any:
    """Bring *event* about, and return what its client is told: a reply, a push, a closing, or `None` for nothing."""
    node = house.node
    if event == "connect":
        async with connect(node.client_url, compression=None) as socket:
            reply = await Talk(socket).ask(connect={})
            return {"connect": {}} if "connect" in reply else reply
    expires_at_s = int(node.clock.unix() + A_DAY_S)
    async with talking(node, **({"exp": expires_at_s} if event == "refresh" else {})) as talk:
        match event:
            case "rpc":
                return await talk.ask(rpc={"method": "m", "data": 1})
            case "publish":
                return await talk.ask(publish={"channel": "asked:x", "data": 1})
            case "subscribe":
                return await talk.ask(subscribe={"channel": "asked:x"})
            case "sub_refresh":
                shown = token(channel="asked:x", exp=expires_at_s)
                assert await talk.ask(subscribe={"channel": "asked:x", "token": shown}) == {"subscribe": {}}
            case _:
                assert event == "refresh"
        before = house.calls(event)
        node.clock.ahead_s += A_DAY_S + 1
        await until(lambda: house.calls(event) != before, f"a call about {event}")
        said = await talk.ask(rpc={"method": "ping"})
        return said if isinstance(said, tuple) else next(iter(talk.pushes), None)


ENDED: Final = {
    "refresh": (3005, "connection expired"),
    "sub_refresh": {"channel": "asked:x", "unsubscribe": {"code": 2501, "reason": "subscription expired"}},
}


def unanswered(event: str) -> Any:
    """Return what a client is told where the backend says nothing that could be used."""
    return None if event in ENDED else {"error": INTERNAL}


@pytest.mark.parametrize("event", EVENTS)
async def test_every_event_by_every_answer_that_is_one(event: str) -> None:
    nothing = (3501, "bad request") if event == "connect" else {"error": INTERNAL}
    cases: list[tuple[str, Any, Any]] = [
        ("result", {"result": {}}, None if event in ENDED else {event: {}}),
        ("error", {"error": NOT_FOUND}, ENDED.get(event, {"error": NOT_FOUND})),
        ("temporary error", {"error": CUSTOM}, None if event in ENDED else {"error": CUSTOM}),
        ("disconnect", {"disconnect": OUT}, (4501, "unauthorized")),
        ("mapped to an error", answer(b"<html>", status=404), ENDED.get(event, {"error": NOT_FOUND})),
        ("mapped to a disconnect", answer(b"", status=403), (4903, "go away")),
        ("nothing", {}, ENDED.get(event, nothing)),
    ]
    async with house({}) as built:
        for name, said, expected in cases:
            built.server.answers[f"/{event}"] = said
            assert (name, await told(built, event)) == (name, expected)


def closed_before(_: object) -> None:
    raise ConnectionResetError


def closed_amid(writer: asyncio.StreamWriter) -> None:
    writer.write(CUT_OFF)
    writer.close()


GZIP: Final = gzip.compress(b'{"result":{}}')
CUT_OFF: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"
CHUNK: Final = b"2710\r\n%b\r\n" % (b" " * 10_000)
NO_ANSWERS: Final[dict[str, tuple[Any, str]]] = {
    "500": (answer(b"oops", status=500), "status"),
    "302": (b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n", "status"),
    "HTML": (answer(b"<html>It works!</html>"), "unusable"),
    "empty": (answer(b""), "unusable"),
    "more": (answer(b'{"result":{}} and more'), "unusable"),
    "compressed": (
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%b" % (len(GZIP), GZIP),
        "unusable",
    ),
    "huge": (answer({"result": {"data": "x" * 20_000}}), "too_long"),
    "huge in chunks": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + 5 * CHUNK, "too_long"),
    "closed before": (closed_before, "unreachable"),
    "closed amid": (closed_amid, "unreachable"),
    "no HTTP": (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "unreachable"),
    "a long header": (b"HTTP/1.1 200 OK\r\nX: %b\r\n\r\n" % (b"x" * 100_000), "unreachable"),
}


@pytest.mark.parametrize("event", EVENTS)
async def test_every_event_by_every_answer_that_is_none(event: str) -> None:
    async with house({}) as built:
        for name, (said, outcome) in NO_ANSWERS.items():
            built.server.answers[f"/{event}"] = said
            before = built.calls(event).get(outcome, 0)
            assert (name, await told(built, event)) == (name, unanswered(event))
            assert (name, built.calls(event).get(outcome, 0)) == (name, before + 1)
        assert {each.path for each in built.server.asked} == {f"/{event}"}
        lines = built.lines("proxy failed")
        assert {(line["about"], line["proxy"], line["level"]) for line in lines} == {(event, "default", "warning")}
        assert [line["outcome"] for line in lines] == [outcome for _, outcome in NO_ANSWERS.values()]
        assert "It works" not in json.dumps(built.node.events)


@pytest.mark.parametrize("event", EVENTS)
async def test_every_event_by_a_backend_that_is_slow_or_not_there(event: str) -> None:
    async with house({}, timeout="50ms") as built:
        for said in (b"", CUT_OFF):
            built.server.answers[f"/{event}"] = said
            assert await told(built, event) == unanswered(event)
        await built.server.stop()
        assert await told(built, event) == unanswered(event)
        assert built.calls(event) == {"timeout": 2, "unreachable": 1}


# protocol.md 9: example 46, and the custom error of 36.


async def test_the_exchange_of_the_protocols_example() -> None:
    said = (
        b'{"result":{"user":"77","info":{"nm":"Bob"},"data":{"hello":1},"channels":["plain"],'
        b'"expire_at":4102444800,"meta":{"m":1}}}'
    )
    async with house({"/connect": answer(said)}) as built, connect(built.node.client_url, compression=None) as client:
        await client.send('{"id":1,"connect":{"data":{"x":1},"name":"js","version":"1","subs":{"plain":{}}}}')
        reply = str(await client.recv())
        values = json.loads(reply)["connect"]
        assert reply == (
            f'{{"id":1,"connect":{{"client":"{values["client"]}","version":"{values["version"]}",'
            '"data":{"hello":1},"subs":{"plain":{}},"ping":25,"pong":true}}'
        )
        (asked,) = built.server.asked
        assert asked.body.decode() == (
            f'{{"client":"{values["client"]}","transport":"websocket","protocol":"json","encoding":"json",'
            '"data":{"x":1},"name":"js","version":"1","channels":["plain"]}'
        )


async def test_the_custom_error_of_the_protocols_example() -> None:
    async with house({"/rpc": {"error": CUSTOM}}) as built, connect(built.node.client_url, compression=None) as client:
        await client.send(json.dumps({"id": 1, "connect": {"token": token()}}))
        await client.recv()
        await client.send('{"id":2,"rpc":{"method":"getThing","data":{"id":1}}}')
        assert await client.recv() == '{"id":2,"error":{"code":1000,"message":"custom","temporary":true}}'


# What is sent.


async def test_listed_headers_are_forwarded_and_what_the_client_emulates_can_not_take_their_place() -> None:
    settings = {
        "http_headers": ["Cookie", "X-User-Id", "X-Twice"],
        "emulated_headers": ["Authorization", "X-Bad"],
        "http": {"static_headers": {"X-Key": "of the node", "Authorization": "static"}},
    }
    given = [("Cookie", "a=b; c=d"), ("X-Twice", "1"), ("X-Twice", "2"), ("X-Other", "no")]
    emulated = {"authorization": "Bearer x", "X-User-Id": "forged", "X-Bad": "a\r\nX-User-Id: 1", "Cookie": "forged"}
    answers: dict[str, Any] = {"/connect": {"result": {}}, "/rpc": {"result": {}}}
    async with (
        house(answers, **settings) as built,
        connect(built.node.client_url, compression=None, additional_headers=given) as socket,
    ):
        talk = Talk(socket)
        await talk.ask(connect={"headers": emulated})
        await talk.ask(rpc={"method": "m"})
        assert [each.path for each in built.server.asked] == ["/connect", "/rpc"]
        for asked in built.server.asked:
            names = ("cookie", "x-twice", "x-user-id", "authorization", "x-bad", "x-other", "x-key")
            assert {name: asked.header(name) for name in names} == {
                "cookie": ["a=b; c=d"],
                "x-twice": ["1", "2"],
                "x-user-id": [],
                "authorization": ["Bearer x"],
                "x-bad": [],
                "x-other": [],
                "x-key": ["of the node"],
            }
            assert asked.header("content-type") == ["application/json"]
            assert asked.header("host") == [f"127.0.0.1:{built.server.port}"]


@pytest.mark.parametrize("path", [HTTP_STREAM, SSE])
async def test_clients_without_a_websocket_are_asked_about_by_their_own_request(path: str) -> None:
    transport = path.removeprefix("/connection/")
    on = {name: {"enabled": True} for name in ("http_stream", "sse")}
    async with backend({"/connect": {"result": {"user": "77"}}, "/rpc": {"result": {"data": 1}}}) as server:
        async with running_node(tables(server, http_headers=["Cookie"]), on) as node:
            asking = post(path, b'{"id":1,"connect":{}}', "Cookie: name=Zo\u00eb\r\n")
            async with raw_stream(node.url, asking) as stream:
                stream.connected = (await stream.message())["connect"]
                await emulate(node.url, stream, {"id": 2, "rpc": {"method": "m"}})
                assert await stream.message() == {"id": 2, "rpc": {"data": 1}}
        assert [(each.event["transport"], each.header("cookie")) for each in server.asked] == [
            (transport, ["name=Zo\u00eb"]),
            (transport, ["name=Zo\u00eb"]),
        ]


async def test_a_node_inside_an_application_asks_as_well() -> None:
    async with backend({"/connect": {"result": {"user": "77"}}}) as server:
        config = load(base=merge(development(), tables(server, http_headers=["Cookie"])))
        async with (
            served(create_app(config, log=make_logger(config.log, node="test", stream=io.StringIO()))) as application,
            connect(f"{application.ws_url}/connection/websocket", additional_headers={"Cookie": "a=b"}) as socket,
        ):
            assert "connect" in await Talk(socket).ask(connect={})
        assert [each.header("cookie") for each in server.asked] == [["a=b"]]


async def test_cookies_that_the_backend_sets_for_one_user_go_to_no_other() -> None:
    setting = b"HTTP/1.1 200 OK\r\nSet-Cookie: session=secret; Path=/\r\nContent-Length: 13\r\n\r\n" + b'{"result":{}}'
    async with house({"/rpc": setting}) as built:
        for _ in range(2):
            async with talking(built.node) as talk:
                assert await talk.ask(rpc={"method": "m"}) == {"rpc": {}}
        assert [each.header("cookie") for each in built.server.asked] == [[], []]


async def test_connections_are_used_again_and_one_that_was_closed_meanwhile_is_replaced() -> None:
    def last(writer: asyncio.StreamWriter) -> None:
        writer.write(answer({"result": {}}))
        writer.close()

    async with house({"/rpc": {"result": {}}}) as built, talking(built.node) as talk:
        server = built.server
        for _ in range(5):
            assert await talk.ask(rpc={"method": "m"}) == {"rpc": {}}
        assert server.connections == 1
        server.answers["/rpc"] = last
        assert await talk.ask(rpc={"method": "m"}) == {"rpc": {}}
        await until(lambda: server.open == 0)
        server.answers["/rpc"] = {"result": {}}
        assert await talk.ask(rpc={"method": "m"}) == {"rpc": {}}
        assert server.connections == 2


async def test_protobuf_clients_send_and_get_any_bytes_in_binary_encoding() -> None:
    answers = {"/rpc": {"result": {"b64data": base64.b64encode(b"\x93NUMPY\n").decode()}}}
    settings = ClientSettings(codec=ProtobufCodec())
    async with house(answers, binary_encoding=True) as built:
        async with Client(built.node.client_url, token=token(), settings=settings) as client:
            assert bytes(await client.rpc("m", b"\x00\xff")) == b"\x93NUMPY\n"
        (asked,) = built.server.about("/rpc")
        assert (asked["protocol"], asked["encoding"], asked["b64data"]) == ("protobuf", "binary", "AP8=")


async def test_without_it_what_is_no_json_is_a_bad_request_and_never_in_the_body() -> None:
    settings = ClientSettings(codec=ProtobufCodec())
    async with house({"/rpc": {"result": {"data": 1}}}) as built:
        async with Client(built.node.client_url, token=token(), settings=settings) as client:
            assert bytes(await client.rpc("m", b'{"a": 1}')) == b"1"
            for data in (b"\x00\xff", b'1,"user":"root"', b"{"):
                with pytest.raises(RejectedError) as refused:
                    await client.rpc("m", data)
                assert refused.value.code == 107
        assert [each["data"] for each in built.server.about("/rpc")] == [{"a": 1}]


# What others feel of a bad backend.


async def test_the_breaker_opens_while_the_backend_is_down_and_closes_when_it_is_back() -> None:
    breaker = {"failures": 3, "pause": "5s", "max_pause": "60s"}
    async with house({"/rpc": {"result": {}}}, breaker=breaker) as built, talking(built.node) as talk:
        await built.server.stop()
        for _ in range(6):
            assert await talk.ask(rpc={"method": "m"}) == {"error": INTERNAL}
        assert built.calls("rpc") == {"unreachable": 3, "refused": 3}
        await built.server.start()
        assert await talk.ask(rpc={"method": "m"}) == {"error": INTERNAL}, "it is left in peace for a while"
        assert built.server.asked == []
        built.node.clock.ahead_s += 5.1
        assert await talk.ask(rpc={"method": "m"}) == {"rpc": {}}
        assert await talk.ask(rpc={"method": "m"}) == {"rpc": {}}
        assert (len(built.lines("proxy breaker opened")), len(built.lines("proxy breaker closed"))) == (1, 1)
        assert len(built.lines("proxy failed")) == 3


async def test_a_backend_that_hangs_delays_nobody_else() -> None:
    async with house({"/rpc": b"", "/publish": {"result": {}}}) as built, contextlib.AsyncExitStack() as stack:
        talks = [await stack.enter_async_context(talking(built.node)) for _ in range(16)]
        hanging = [asyncio.create_task(talk.ask(rpc={"method": "m"})) for talk in talks]
        await until(lambda: len(built.server.about("/rpc")) == 16)
        other = await stack.enter_async_context(talking(built.node))
        assert await other.ask(subscribe={"channel": "open:x"}) == {"subscribe": {}}
        assert await other.ask(publish={"channel": "open:x", "data": 1}) == {"publish": {}}
        assert await other.ask(publish={"channel": "asked:x", "data": 1}) == {"publish": {}}
        assert not any(task.done() for task in hanging)
        for task in hanging:
            task.cancel()


async def test_calls_beyond_the_limits_wait_or_are_refused_and_no_task_piles_up() -> None:
    limits = {"concurrency_limit": 2, "waiting_limit": 3}
    async with house({"/rpc": b""}, **limits) as built, contextlib.AsyncExitStack() as stack:
        talks = [await stack.enter_async_context(talking(built.node)) for _ in range(8)]
        tasks = [asyncio.create_task(talk.ask(rpc={"method": "m"})) for talk in talks]
        (proxy,) = [proxy for (kind, _), proxy in built.node.node.proxies if kind == "rpc"]
        await until(lambda: sum(task.done() for task in tasks) == 3)
        assert [task.result() for task in tasks if task.done()] == [{"error": INTERNAL}] * 3
        await until(lambda: len(built.server.about("/rpc")) == 2)
        assert (proxy.in_flight, proxy.waiting) == (2, 3)
        for task in tasks:
            task.cancel()


class Late:
    """Answers when it is let."""

    def __init__(self, value: Any) -> None:
        self.gate = asyncio.Event()
        self._value = value

    async def __call__(self, writer: asyncio.StreamWriter) -> None:
        await self.gate.wait()
        writer.write(answer(self._value))


async def test_a_client_that_goes_while_the_backend_is_asked_leaves_nothing_behind() -> None:
    late = Late({"result": {"user": "77", "channels": ["open:x"]}})
    async with house({"/connect": late.__call__}) as built:
        node = built.node.node
        async with connect(built.node.client_url, compression=None) as socket:
            await socket.send('{"id":1,"connect":{}}')
            await until(lambda: len(built.server.asked) == 1)
        await until(lambda: len(node.connections) == 0)
        late.gate.set()
        await until(lambda: built.calls("connect") == {"result": 1})
        assert (len(node.hub), node.connections.users) == (0, 0)


async def test_a_node_that_drains_waits_for_what_the_backend_is_asked() -> None:
    late = Late({"result": {"data": "in time"}})
    async with house({"/rpc": late.__call__}) as built, talking(built.node) as talk:
        asking = asyncio.create_task(talk.ask(rpc={"method": "m"}))
        await until(lambda: len(built.server.asked) == 1)
        built.node.node.drain()
        await until(lambda: bool(built.lines("draining")))
        late.gate.set()
        assert await asking == {"rpc": {"data": "in time"}}
        assert await talk.ask(rpc={"method": "ping"}) == (3001, "shutdown")


async def test_a_node_that_stops_gives_up_what_is_still_under_way() -> None:
    async with backend({"/rpc": b""}) as server:
        async with running_node(tables(server)) as node, talking(node) as talk:
            built = House(server, node)
            asking = asyncio.create_task(talk.ask(rpc={"method": "m"}))
            await until(lambda: len(server.asked) == 1)
            node.node.stop()
            assert await asking == (3001, "shutdown")
        await until(lambda: server.open == 0)
        assert built.calls("rpc") == {"cancelled": 1}
