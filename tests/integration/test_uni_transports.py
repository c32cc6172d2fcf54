"""Clients that only listen, on real sockets: over a WebSocket, over events, over lines."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol
from urllib.parse import quote

import httpx
import jwt
import pytest
import pytest_asyncio
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Close

from tests.support.frames import PING, TEXT, frame, raw_client
from tests.support.nodes import SECRET, RunningNode, running_node
from tests.support.streams import UNI_HTTP_STREAM, UNI_SSE, RawStream, get, post, raw_stream
from tests.support.waiting import PATIENCE_S, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

UNI_WEBSOCKET = "/connection/uni_websocket"
UUID = "[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
STREAM = {"allow_subscribe_for_client": True, "history_size": 10, "history_ttl": "1h", "force_recovery": True}
TABLES: dict[str, Any] = {
    "uni_websocket": {"enabled": True},
    "uni_sse": {"enabled": True},
    "uni_http_stream": {"enabled": True},
    "http_api": {"key": "key"},
    "channel": {"namespaces": [{"name": "st", **STREAM}]},
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def node() -> AsyncIterator[RunningNode]:
    """A node for the tests that change nothing about it."""
    async with running_node(TABLES) as running:
        yield running


class Listener(Protocol):
    """A client that only listens."""

    async def line(self) -> str:
        """Return the next message."""

    async def message(self) -> Any:
        """Return it as a value."""

    async def rest(self) -> list[Any]:
        """Return all messages that still come; fails if there is no end."""


class SocketListener:
    """One on a WebSocket, where each message is a frame."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.close: Close | None = None

    async def line(self) -> str:
        async with asyncio.timeout(PATIENCE_S):
            return await self.socket.recv(decode=True)

    async def message(self) -> Any:
        return json.loads(await self.line())

    async def rest(self) -> list[Any]:
        messages = []
        while True:
            try:
                messages.append(await self.message())
            except ConnectionClosed as closed:
                self.close = closed.rcvd
                return messages


@asynccontextmanager
async def on_websocket(node: RunningNode, request: str) -> AsyncIterator[Listener]:
    async with connect(node.ws_url + UNI_WEBSOCKET, compression=None) as socket:
        await socket.send(request)
        yield SocketListener(socket)


@asynccontextmanager
async def on_websocket_by_query(node: RunningNode, request: str) -> AsyncIterator[Listener]:
    async with connect(f"{node.ws_url}{UNI_WEBSOCKET}?cf_connect={quote(request)}", compression=None) as socket:
        yield SocketListener(socket)


def on_events(node: RunningNode, request: str) -> AbstractAsyncContextManager[RawStream]:
    return raw_stream(node.url, get(UNI_SSE, request))


def on_posted_events(node: RunningNode, request: str) -> AbstractAsyncContextManager[RawStream]:
    return raw_stream(node.url, post(UNI_SSE, request.encode()))


def on_lines(node: RunningNode, request: str) -> AbstractAsyncContextManager[RawStream]:
    return raw_stream(node.url, post(UNI_HTTP_STREAM, request.encode()))


WAYS: dict[str, Any] = {
    "uni_websocket": on_websocket,
    "uni_websocket by query": on_websocket_by_query,
    "uni_sse": on_events,
    "uni_sse posted": on_posted_events,
    "uni_http_stream": on_lines,
}
all_ways = pytest.mark.parametrize("way", WAYS)


async def call(node: RunningNode, method: str, **fields: Any) -> Any:
    async with httpx.AsyncClient(base_url=node.internal_url, headers={"X-API-Key": "key"}) as http:
        return (await http.post(f"/api/{method}", json=fields)).json()


def token(user: str, **claims: Any) -> str:
    return jwt.encode({"sub": user, **claims}, SECRET, "HS256")


@all_ways
async def test_example_43_goes_as_the_protocol_says(node: RunningNode, way: str) -> None:
    user, channel = f"user of {way}", f"st:{way.replace(' ', '-')}"
    request = json.dumps({"token": token(user), "subs": {channel: {}}})
    async with WAYS[way](node, request) as listener:
        line = await listener.line()
        found = re.fullmatch(
            f'{{"connect":{{"client":"({UUID})","version":"gateway [^"]+","subs":{{"{channel}":'
            f'{{"recoverable":true,"epoch":"([A-Za-z]{{8}})","positioned":true}}}},"ping":25,"session":"({UUID})"}}}}',
            line,
        )
        assert found is not None, line
        client, epoch, session = found.groups()
        assert client != session
        await call(node, "publish", channel=channel, data={"n": 1})
        assert await listener.line() == (
            f'{{"channel":"{channel}","pub":{{"data":{{"n":1}},"offset":1,"epoch":"{epoch}"}}}}'
        )
        [found_there] = (await call(node, "connections", user=user))["result"]["connections"]
        assert (found_there["transport"], found_there["channels"]) == (way.split(maxsplit=1)[0], [channel])
        await call(node, "disconnect", user=user, session="another")
        await call(node, "disconnect", user=user, session=session, disconnect={"code": 4503, "reason": "gone"})
        assert await listener.rest() == [{"disconnect": {"code": 4503, "reason": "gone"}}]
        if isinstance(listener, SocketListener):
            assert listener.close == Close(4503, "gone")
    await until(lambda: len(node.node.connections) == 0)


@all_ways
async def test_who_may_not_connect_is_told_so_by_a_disconnect(node: RunningNode, way: str) -> None:
    for request, code in (
        (json.dumps({"token": "a.b.c"}), 3500),
        (json.dumps({"token": token("42", exp=1)}), 3005),
        (json.dumps({"token": token("42", channels=["nope:x"])}), 3004),
        ("no JSON", 3501),
        ('{"id":1,"connect":{}}{', 3501),
    ):
        async with WAYS[way](node, request) as listener:
            [told] = await listener.rest()
            assert told["disconnect"]["code"] == code, request
            if isinstance(listener, SocketListener):
                assert listener.close is not None
                assert listener.close.code == code


@pytest.mark.parametrize("request_", [get(UNI_SSE), post(UNI_SSE, b""), post(UNI_HTTP_STREAM, b"")])
async def test_a_stream_may_be_asked_for_without_a_word(node: RunningNode, request_: bytes) -> None:
    async with raw_stream(node.url, request_) as stream:
        assert stream.status == 200
        assert list(await stream.message()) == ["connect"]
        assert stream.headers["x-accel-buffering"] == "no"


async def test_there_is_no_way_to_send_more(node: RunningNode) -> None:
    off = {"http_stream": {"enabled": False}, "sse": {"enabled": False}}
    async with running_node(TABLES, off) as alone, httpx.AsyncClient(base_url=alone.url) as http:
        assert (await http.post("/emulation", content=b"{}")).status_code == 404
    async with on_lines(node, "{}") as listener, httpx.AsyncClient(base_url=node.url) as http:
        told = (await listener.message())["connect"]
        command = '{"id":2,"subscribe":{"channel":"st:a"}}'
        body = {"session": told["session"], "node": node.node.services.node_id, "data": command}
        assert (await http.post("/emulation", json=body)).status_code == 204
        [conversation] = node.node.connections
        assert conversation.session.subscriptions == {}
    async with on_websocket(node, "{}") as listener:
        await listener.message()
        assert isinstance(listener, SocketListener)
        await listener.socket.send(command)
        await (await listener.socket.ping())
        [conversation] = node.node.connections
        assert (conversation.session.subscriptions, conversation.has_gone()) == ({}, False)


@pytest.mark.parametrize("way", ["uni_websocket", "uni_sse", "uni_http_stream"])
async def test_pings_are_empty_objects_and_no_stream_has_to_answer(way: str) -> None:
    pings = {"client": {"ping_interval": "2s", "pong_timeout": "1s"}}
    async with running_node(TABLES, pings) as node, WAYS[way](node, "{}") as listener:
        await listener.message()
        for _ in range(3):
            node.clock.ahead_s += 2
            assert await listener.line() == "{}"


async def test_a_socket_is_pinged_by_frames_as_well_which_it_has_to_answer() -> None:
    pings = {"client": {"ping_interval": "2s", "pong_timeout": "1s"}}
    async with running_node(TABLES, pings) as node, raw_client(node.ws_url + UNI_WEBSOCKET) as client:
        client.send(frame(TEXT, b"{}"))
        assert b'"connect"' in (await client.receive()).payload
        node.clock.ahead_s += 2
        assert (await client.receive()).payload == b"{}"
        assert await client.receive() == (0x80 | PING, b"")
        node.clock.ahead_s += 1
        assert (await client.receive()).payload == b'{"disconnect":{"code":3012,"reason":"no pong"}}'
        assert Close.parse((await client.receive()).payload) == Close(3012, "no pong")


@pytest.mark.parametrize("joins", [False, True])
async def test_pushes_share_a_frame_where_the_configuration_says_so(*, joins: bool) -> None:
    tables = {"uni_websocket": {"join_push_messages": joins}}
    request = json.dumps({"token": token("42", channels=["a", "b"])})
    async with running_node(TABLES, tables) as node, on_websocket(node, request) as listener:
        await listener.message()
        commands = [{"publish": {"channel": name, "data": name}} for name in "aba"]
        await call(node, "batch", commands=commands, parallel=True)
        lines: list[str] = []
        frames = 0
        while len(lines) < 3:
            lines += (await listener.line()).split("\n")
            frames += 1
        assert [json.loads(line)["channel"] for line in lines] in (["a", "a", "b"], ["a", "b", "a"])
        assert frames <= 2 if joins else frames == 3


async def test_pages_of_foreign_origins_may_not_listen() -> None:
    async with running_node(TABLES, {"client": {"allowed_origins": ["https://a.example"]}}) as node:
        for request in (get, lambda path, _, headers: post(path, b"{}", headers)):
            for path in (UNI_SSE, UNI_HTTP_STREAM):
                async with raw_stream(node.url, request(path, "{}", "Origin: https://b.example\r\n")) as stream:
                    assert stream.status == 403
        with pytest.raises(InvalidStatus) as refused:
            await connect(node.ws_url + UNI_WEBSOCKET, origin="https://b.example")  # type: ignore[arg-type]
        assert refused.value.response.status_code == 403
        async with raw_stream(node.url, get(UNI_SSE, "{}", "Origin: https://a.example\r\n")) as stream:
            assert (stream.status, stream.headers["access-control-allow-origin"]) == (200, "https://a.example")
        async with httpx.AsyncClient(base_url=node.url, headers={"Origin": "https://a.example"}) as http:
            assert (await http.options(UNI_HTTP_STREAM)).status_code == 204
            assert (await http.options(UNI_SSE)).status_code == 405
            assert (await http.get(UNI_HTTP_STREAM)).status_code == 405


async def test_limits_hold_and_each_way_is_counted_by_its_name() -> None:
    async with (
        running_node(TABLES, {"client": {"connection_limit": 3}}) as node,
        on_websocket(node, "{}") as a,
        on_events(node, "{}") as b,
        on_lines(node, "{}") as c,
    ):
        for listener in (a, b, c):
            await listener.message()
        for path in (UNI_SSE, UNI_HTTP_STREAM):
            async with raw_stream(node.url, post(path, b"{}")) as refused:
                assert refused.status == 503
        with pytest.raises(InvalidStatus):
            await connect(node.ws_url + UNI_WEBSOCKET)
        accepted = {"uni_websocket": 1, "uni_sse": 1, "uni_http_stream": 1}
        assert (node.node.counts.connections_accepted, node.node.counts.connections_refused) == (
            accepted,
            {"connection_limit": 3},
        )
        node.node.stop()
        for listener in (a, b, c):
            assert (await listener.rest())[-1] == {"disconnect": {"code": 3001, "reason": "shutdown"}}


async def test_what_is_off_is_not_there() -> None:
    async with running_node() as node:
        for path in (UNI_SSE, UNI_HTTP_STREAM):
            async with raw_stream(node.url, post(path, b"{}")) as stream:
                assert stream.status == 404
        with pytest.raises(InvalidStatus) as refused:
            await connect(node.ws_url + UNI_WEBSOCKET)
        assert refused.value.response.status_code == 404
    moved = {"uni_websocket": {"handler_prefix": "/listen"}, "uni_sse": {"handler_prefix": "/events"}}
    async with running_node(TABLES, moved) as node, httpx.AsyncClient(base_url=node.url) as http:
        async with connect(f"{node.ws_url}/listen?cf_connect=%7B%7D") as socket:
            assert '"connect"' in await socket.recv(decode=True)
        assert (await http.get("/listen")).status_code == 426
        assert (await http.post(UNI_SSE)).status_code == 404


async def test_a_reader_that_stops_is_cut_by_bytes() -> None:
    tables = {"client": {"queue_max_size": 100_000}, "websocket": {"close_timeout": "200ms"}}
    async with running_node(TABLES, tables) as node:
        request = post(UNI_SSE, json.dumps({"token": token("42", channels=["a"])}).encode())
        async with raw_stream(node.url, request, receive_buffer=4096) as slow:
            await slow.message()
            for _ in range(1000):
                await call(node, "publish", channel="a", data="x" * 50_000)
                if not len(node.node.connections):
                    break
            assert node.node.counts.disconnects == {3008: 1}
            assert dict(node.node.counts.ledger("").dropped) == {"slow": 1}
            await slow.is_cut()
