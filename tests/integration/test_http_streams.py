"""Clients without a WebSocket, on real sockets: what they are answered, how they end, what they can't do to others."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from typing import Any

import httpx
import jwt
import pytest
import pytest_asyncio
from websockets.asyncio.client import connect

from gateway.domain.counts import Lost
from gateway.messaging.commands import ClientConversation
from gateway.protocol import codes
from tests.support.nodes import SECRET, RunningNode, running_node
from tests.support.streams import HTTP_STREAM, SSE, RawStream, connected, emulate, get, post, raw_stream
from tests.support.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

HELLO = b'{"id":1,"connect":{}}'
SUBSCRIBE = {"id": 2, "subscribe": {"channel": "news"}}
PATHS = [HTTP_STREAM, SSE]
UUID = "[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
UNBUFFERED = {
    "x-accel-buffering": "no",
    "cache-control": "private, no-cache, no-store, must-revalidate, max-age=0",
    "pragma": "no-cache",
    "expire": "0",
    "connection": "keep-alive",
    "transfer-encoding": "chunked",
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def node() -> AsyncIterator[RunningNode]:
    """A node in development mode, for the tests that change nothing about it."""
    async with running_node({"http_api": {"key": "key"}}) as running:
        yield running


async def is_deserted(node: RunningNode) -> None:
    await until(lambda: len(node.node.connections) == 0, "the end of all connections")


async def ask(node: RunningNode, method: str, path: str, **given: Any) -> httpx.Response:
    async with httpx.AsyncClient(base_url=node.url, timeout=10) as http:
        return await http.request(method, path, **given)


async def call(node: RunningNode, method: str, **fields: Any) -> Any:
    async with httpx.AsyncClient(base_url=node.internal_url, headers={"X-API-Key": "key"}) as http:
        return (await http.post(f"/api/{method}", json=fields)).json()


def token(user: str) -> str:
    return jwt.encode({"sub": user}, SECRET, "HS256")


# What is answered.


async def test_example_42_goes_as_the_protocol_says(node: RunningNode) -> None:
    async with raw_stream(
        node.url, post(HTTP_STREAM, b'{"id":1,"connect":{"token":"%b"}}' % token("42").encode())
    ) as a:
        found = re.fullmatch(
            f'{{"id":1,"connect":{{"client":"({UUID})","version":"gateway [^"]+","ping":25,"pong":true,'
            f'"session":"({UUID})","node":"({UUID})"}}}}',
            await a.line(),
        )
        assert found is not None
        client, session, uid = found.groups()
        assert len({client, session, uid}) == 3
        commands = '{"id":2,"subscribe":{"channel":"plain"}}\n{"id":3,"publish":{"channel":"plain","data":{"a":1}}}'
        answer = await ask(node, "POST", "/emulation", json={"session": session, "node": uid, "data": commands})
        assert (answer.status_code, answer.content) == (204, b"")
        push = f'{{"push":{{"channel":"plain","pub":{{"data":{{"a":1}},"info":{{"user":"42","client":"{client}"}}}}}}}}'
        assert [await a.line() for _ in range(3)] == ['{"id":2,"subscribe":{}}', '{"id":3,"publish":{}}', push]
        await call(node, "disconnect", user="42")
        assert await a.line() == '{"push":{"disconnect":{"code":3503,"reason":"force disconnect"}}}'
        assert await a.rest() == []


async def test_the_first_byte_of_an_event_stream_is_its_empty_line_and_each_message_is_an_event(
    node: RunningNode,
) -> None:
    async with raw_stream(node.url, get(SSE, '{"id":1,"connect":{}}\n{"id":2,"rpc":{"method":"ping"}}')) as stream:
        assert stream.status == 200
        assert stream.headers.pop("date")
        assert stream.headers == UNBUFFERED | {"content-type": "text/event-stream; charset=utf-8"}
        body = b""
        while body.count(b"\n\n") < 2:
            body += await stream.chunk()
        connect_reply, rpc_reply = body.removeprefix(b"\r\n").removesuffix(b"\n\n").split(b"\n\n")
        assert body.startswith(b"\r\ndata: ")
        assert json.loads(connect_reply.removeprefix(b"data: "))["id"] == 1
        assert rpc_reply == b'data: {"id":2,"rpc":{}}'


async def test_a_stream_of_lines_says_that_nobody_may_hold_it_back(node: RunningNode) -> None:
    async with raw_stream(node.url, post(HTTP_STREAM, HELLO)) as stream:
        assert stream.headers.pop("date")
        assert stream.headers == UNBUFFERED


@pytest.mark.parametrize("headers", ["Connection: close\r\n", "Connection: Close, x\r\n"])
async def test_who_wants_no_connection_afterwards_is_not_told_of_one(node: RunningNode, headers: str) -> None:
    async with raw_stream(node.url, post(HTTP_STREAM, HELLO, headers)) as stream:
        assert stream.headers["connection"] == "close"


async def test_the_head_comes_although_the_connect_has_to_wait() -> None:
    """A client that waits for the answer of its request would otherwise wait for a key server, too."""
    async with running_node({"client": {"stale_close_delay": "1s"}}) as node:
        held = asyncio.Event()
        verifier = node.node.services.connection_tokens

        async def wait(*_: Any, **__: Any) -> None:
            await held.wait()

        object.__setattr__(verifier, "connection", wait)
        async with raw_stream(node.url, post(HTTP_STREAM, b'{"id":1,"connect":{"token":"x"}}')) as stream:
            assert stream.status == 200
            node.clock.ahead_s += 2
            assert await stream.rest() == [{"push": {"disconnect": {"code": 3502, "reason": "stale"}}}]


@pytest.mark.parametrize(
    ("method", "path", "status", "allow"),
    [
        ("GET", HTTP_STREAM, 405, "POST, OPTIONS"),
        ("HEAD", HTTP_STREAM, 405, "POST, OPTIONS"),
        ("PUT", HTTP_STREAM, 405, "POST, OPTIONS"),
        ("OPTIONS", HTTP_STREAM, 204, None),
        ("DELETE", SSE, 405, "GET, POST"),
        ("OPTIONS", SSE, 405, "GET, POST"),
        ("GET", SSE, 400, None),
        ("GET", "/emulation", 405, "POST, OPTIONS"),
        ("OPTIONS", "/emulation", 204, None),
        ("POST", "/emulation/", 404, None),
        ("POST", f"{HTTP_STREAM}/x", 404, None),
    ],
)
async def test_a_wrong_method_is_told_which_are_right(
    node: RunningNode, method: str, path: str, status: int, allow: str | None
) -> None:
    answer = await ask(node, method, path)
    assert (answer.status_code, answer.headers.get("allow")) == (status, allow)


CORS = {
    "access-control-allow-origin": "https://a.example",
    "access-control-allow-credentials": "true",
    "access-control-allow-headers": "content-type,x-y",
}
PREFLIGHT = {"access-control-allow-methods": "POST, OPTIONS", "access-control-max-age": "300"}


def cors_of(answer: httpx.Response) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if name.startswith("access-control-")}


async def test_pages_of_allowed_origins_may_read_answers_and_all_others_get_none() -> None:
    async with running_node({"client": {"allowed_origins": ["https://*.example"]}}) as node:
        asked = {"Origin": "https://a.example", "Access-Control-Request-Headers": "content-type,x-y"}
        for path in (HTTP_STREAM, "/emulation"):
            preflight = await ask(node, "OPTIONS", path, headers=asked)
            assert (preflight.status_code, cors_of(preflight)) == (204, CORS | PREFLIGHT)
        wrong = await ask(node, "POST", "/emulation", headers=asked, content=b"no JSON")
        assert (wrong.status_code, cors_of(wrong)) == (400, CORS)
        plain = {name: CORS[name] for name in list(CORS)[:2]}
        for path in PATHS:
            async with raw_stream(node.url, post(path, HELLO, "Origin: https://a.example\r\n")) as stream:
                assert stream.status == 200
                assert plain.items() <= stream.headers.items()
        for path in (*PATHS, "/emulation"):
            for method in ("POST", "OPTIONS", "GET"):
                for origin in ("https://evil.test", "null"):
                    refused = await ask(node, method, path, headers=asked | {"Origin": origin}, content=HELLO)
                    assert (refused.status_code, cors_of(refused)) == (403, {})
            async with raw_stream(node.url, post(path, HELLO, "Origin: https://a.example\r\n" * 2)) as twice:
                assert twice.status == 400
        async with raw_stream(node.url, post(HTTP_STREAM, HELLO)) as nobrowser:
            assert not [name for name in nobrowser.headers if name.startswith("access-control")]
        await is_deserted(node)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", 3501),
        (b"{", 3501),
        (b'{"id":1,"conn', 3501),
        (b'{"id":1,"connect":{}}\n\n{"id":2}', 3501),
        (b"\xff\xfe", 3501),
        (b'{"id":1,"connect":{"name":"\xff"}}', 3501),
        (b"[" * 5000, 3501),
        (b"\x00\x01\x02", 3501),
        (b"{}", 3501),
        (b'{"id":2,"subscribe":{"channel":"x"}}', 3501),
        (b'{"id":1,"connect":{"token":"x"}}', 3500),
    ],
    ids=repr,
)
async def test_what_is_no_connect_ends_the_stream_with_its_code(
    node: RunningNode, path: str, body: bytes, code: int
) -> None:
    async with raw_stream(node.url, post(path, body)) as stream:
        assert stream.status == 200
        [told] = await stream.rest()
        assert told["push"]["disconnect"]["code"] == code
        await stream.is_cut()


async def test_json_that_says_it_is_protobuf_is_read_as_protobuf(node: RunningNode) -> None:
    request = post(HTTP_STREAM, HELLO, "Content-Type: application/octet-stream; x=y\r\n")
    async with raw_stream(node.url, request) as stream:
        assert await stream.chunk() == b"\x16\x22\x14\x5a\x12\x08\xad\x1b\x12\x0bbad request".replace(
            b"\x16\x22\x14\x5a\x12", b"\x14\x22\x12\x5a\x10"
        )


@pytest.mark.parametrize("path", [*PATHS, "/emulation"])
async def test_a_body_of_the_limit_is_read_and_one_byte_more_is_413(node: RunningNode, path: str) -> None:
    body = b'{"id":1,"connect":{}}'.ljust(65536)
    for announced in (True, False):
        content: Any = body if announced else _in_pieces(body)
        async with httpx.AsyncClient(base_url=node.url, timeout=10) as http:
            async with http.stream("POST", path, content=content) as answer:
                assert answer.status_code == (404 if path == "/emulation" else 200)
            too_much: Any = body + b" " if announced else _in_pieces(body + b" ")
            answer = await http.post(path, content=too_much)
            assert (answer.status_code, answer.text) == (413, "the body is longer than 65536 bytes\n")
    await is_deserted(node)


async def _in_pieces(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), 10_000):
        yield body[start : start + 10_000]


@pytest.mark.parametrize("path", [*PATHS, "/emulation"])
async def test_a_body_that_does_not_come_is_not_waited_for(path: str) -> None:
    async with running_node({"client": {"stale_close_delay": "100ms"}}) as node:
        async with raw_stream(node.url, post(path, b"x" * 100)[:-1]) as stream:
            assert (stream.status, await stream.text()) == (408, "the body did not arrive in time\n")
            assert stream.headers["connection"] == "close"
            await stream.is_cut()
        if path != "/emulation":
            assert node.node.counts.connections_refused == {"body": 1}


@pytest.mark.parametrize("path", PATHS)
async def test_a_client_that_goes_before_its_request_is_whole_leaves_nothing(path: str) -> None:
    async with running_node() as node:
        _, writer = await asyncio.open_connection("127.0.0.1", node.port)
        writer.write(post(path, b"x" * 100)[:-1])
        await until(lambda: any(each["event"] == "started" for each in node.events))
        await writer.drain()
        writer.transport.abort()
        async with connected(node.url, path=path):
            await until(lambda: len(node.node.connections) == 1)


# How they are treated.


@pytest.mark.parametrize("path", PATHS)
async def test_a_client_that_has_gone_ends_its_session_at_once(node: RunningNode, path: str) -> None:
    async with connected(node.url, SUBSCRIBE, path=path) as stream:
        assert (await stream.message())["id"] == 2
        assert node.node.hub.get("news") is not None
        stream.leave()
        await is_deserted(node)
        assert node.node.hub.get("news") is None
    async with connected(node.url, path=path) as stream:
        stream.writer.write_eof()
        await is_deserted(node)
        await stream.is_cut()


@pytest.mark.parametrize("behind", [post("/emulation", b"{}"), post("/emulation", b"{}") * 3, b"no HTTP\r\n\r\n"])
async def test_who_sends_more_behind_its_request_is_cut_and_harms_nobody(node: RunningNode, behind: bytes) -> None:
    async with connected(node.url, SUBSCRIBE) as stream, connected(node.url, SUBSCRIBE) as other:
        await other.message()
        await stream.message()
        stream.writer.write(behind)
        await stream.is_cut()
        await until(lambda: len(node.node.connections) == 1)
        assert await emulate(node.url, other, {"id": 3, "publish": {"channel": "news", "data": 1}}) == 204
        assert (await other.message())["id"] == 3
        assert (await other.message())["push"]["pub"]["data"] == 1
    await is_deserted(node)


async def test_a_client_that_has_sent_more_with_its_request_is_missed_when_it_goes(node: RunningNode) -> None:
    """uvicorn tells only the last of several requests when their connection is lost."""
    async with raw_stream(node.url, post(HTTP_STREAM, HELLO) + post("/emulation", b"{}") * 2) as stream:
        await stream.message()
        stream.leave()
    await is_deserted(node)


@pytest.mark.parametrize("path", PATHS)
async def test_what_is_no_http_behind_a_request_is_answered_before_the_stream_begins(
    node: RunningNode, path: str
) -> None:
    for behind in (b"no HTTP\r\n\r\n", b"\x00" * 100):
        async with raw_stream(node.url, post(path, HELLO) + behind) as refused:
            assert refused.status == 400
            await refused.is_cut()
    await is_deserted(node)


async def test_half_a_request_behind_a_stream_is_not_waited_for_as_for_a_head() -> None:
    async with running_node({"http_server": {"head_timeout": "50ms"}}) as node, connected(node.url) as stream:
        stream.writer.write(b"GET / HTTP/1.1\r\n")
        async with raw_stream(node.url, b"GET / HTTP/1.1\r\n") as later:
            assert later.status == 408, "by when the other would have been cut as well"
        assert await emulate(node.url, stream, {"id": 3, "rpc": {"method": "ping"}}) == 204
        assert await stream.message() == {"id": 3, "rpc": {}}


async def test_streams_are_counted_and_found_as_what_they_are(node: RunningNode) -> None:
    def told(connections: Any) -> list[tuple[str, str, list[str]]]:
        found = connections["result"]["connections"]
        return [(each["transport"], each["address"], each["channels"]) for each in found]

    async with connected(node.url, SUBSCRIBE, token=token("ann")) as lines, connected(node.url, path=SSE) as events:
        await lines.message()
        assert told(await call(node, "connections", user="ann")) == [("http_stream", "127.0.0.1", ["news"])]
        assert told(await call(node, "connections", transport="sse")) == [("sse", "127.0.0.1", [])]
        assert (await call(node, "channels", pattern="news"))["result"]["channels"] == {"news": {"num_clients": 1}}
        metrics = (await ask_internal(node, "/metrics")).text
        for name in ("http_stream", "sse"):
            assert (
                f'gateway_connections_by_client{{transport="{name}",protocol="json",name="",version=""}} 1.0' in metrics
            )
            assert re.search(f'gateway_messages_sent_total{{transport="{name}",kind="reply"}} [1-9]', metrics), name
        assert 'path="/connection/http_stream",method="POST",status="200"' in metrics
        del events


async def ask_internal(node: RunningNode, path: str) -> httpx.Response:
    async with httpx.AsyncClient(base_url=node.internal_url) as http:
        return await http.get(path)


async def test_the_server_finds_a_connection_by_its_session(node: RunningNode) -> None:
    async with connected(node.url, token=token("bob")) as one, connected(node.url, token=token("bob")) as other:
        secret = one.connected["session"]
        await call(node, "subscribe", user="bob", channel="news", session=secret)
        assert await one.message() == {"push": {"channel": "news", "subscribe": {}}}
        await call(node, "disconnect", user="bob", session=secret)
        assert await one.rest() == [{"push": {"disconnect": {"code": 3503, "reason": "force disconnect"}}}]
        assert await emulate(node.url, other, {"id": 2, "rpc": {"method": "ping"}}) == 204
        assert await other.message() == {"id": 2, "rpc": {}}
        assert await emulate(node.url, one, {"id": 2, "rpc": {"method": "ping"}}) == 204, "nobody is told who is there"


async def test_pings_go_out_on_the_stream_and_pongs_come_beside_it() -> None:
    pings = {"client": {"ping_interval": "2s", "pong_timeout": "1s"}}
    async with running_node(pings) as node, connected(node.url) as stream:
        for _ in range(3):
            node.clock.ahead_s += 2
            assert await stream.message() == {}
            assert await emulate(node.url, stream, {}) == 204
        node.clock.ahead_s += 2
        assert await stream.message() == {}
        node.clock.ahead_s += 1
        assert await stream.rest() == [{"push": {"disconnect": {"code": 3012, "reason": "no pong"}}}]


async def test_limits_of_connections_count_streams_too() -> None:
    limits = {"connection_limit": 2, "connection_limit_per_address": 1}
    async with running_node({"client": limits}) as node, connected(node.url):
        for path in PATHS:
            async with raw_stream(node.url, post(path, HELLO)) as refused:
                assert (refused.status, refused.headers["retry-after"]) == (503, "1")
        assert node.node.counts.connections_refused == {"connection_limit_per_address": 2}
    async with running_node({"client": {"connection_limit": 1}}) as node, connected(node.url, path=SSE):
        async with raw_stream(node.url, post(HTTP_STREAM, HELLO)) as refused:
            assert refused.status == 503
            assert "connection_limit" in await refused.text()
        assert node.node.counts.connections_refused == {"connection_limit": 1}
    async with (
        running_node({"client": {"connection_rate_limit": 1}}) as node,
        connected(node.url),
        raw_stream(node.url, post(SSE, HELLO)) as refused,
    ):
        assert refused.status == 503


async def test_a_place_is_free_again_when_a_stream_has_ended() -> None:
    async with running_node({"client": {"connection_limit_per_address": 1}}) as node:
        for _ in range(3):
            async with connected(node.url) as stream:
                for conversation in node.node.connections:
                    conversation.disconnect(codes.FORCE_RECONNECT)
                await stream.is_cut()
            async with raw_stream(node.url, post(HTTP_STREAM, b"x" * 70_000)) as refused:
                assert refused.status == 413


async def test_a_transport_that_is_off_is_not_there() -> None:
    off = {"enabled": False}
    async with running_node({"http_stream": off, "sse": off}) as node:
        for path in (*PATHS, "/emulation"):
            assert (await ask(node, "POST", path, content=HELLO)).status_code == 404
    async with running_node({"http_stream": off}) as node:
        assert (await ask(node, "POST", HTTP_STREAM, content=HELLO)).status_code == 404
        assert (await ask(node, "POST", "/emulation", content=b"{}")).status_code == 404, "the node of the request"
        assert (await ask(node, "OPTIONS", "/emulation")).status_code == 204


async def test_paths_are_those_of_the_configuration() -> None:
    moved = {
        "http_stream": {"handler_prefix": "/a/stream", "max_request_body_size": 30},
        "sse": {"handler_prefix": "/a/events"},
        "emulation": {"handler_prefix": "/a/say", "max_request_body_size": 40},
    }
    async with (
        running_node(moved) as node,
        connected(node.url, path="/a/stream"),
        connected(node.url, path="/a/events"),
    ):
        assert (await ask(node, "POST", "/a/stream", content=b"x" * 31)).status_code == 413
        assert (await ask(node, "POST", "/a/say", content=b"x" * 41)).status_code == 413
        for path in (*PATHS, "/emulation"):
            assert (await ask(node, "POST", path, content=HELLO)).status_code == 404


# Who reads too slowly, and the end.


async def test_a_reader_that_stops_is_bounded_and_cut_while_others_are_served() -> None:
    """No more than the limit waits, in all of the node: what uvicorn would buffer is counted, too."""
    limit = 200_000
    tables = {"client": {"queue_max_size": limit, "command_rate": 0}, "websocket": {"close_timeout": "300ms"}}
    async with (
        running_node(tables) as node,
        connected(node.url, SUBSCRIBE, receive_buffer=4096) as slow,
        connected(node.url, SUBSCRIBE, path=SSE) as quick,
        connect(node.client_url) as publisher,
    ):
        await slow.message()
        await quick.message()
        [slow_one] = [each for each in node.node.connections if each.session.client_id == slow.connected["client"]]
        await publisher.send('{"id":1,"connect":{}}')
        await publisher.recv()
        waited, number = 0, 0
        while not slow_one.has_gone():
            number += 1
            data = json.dumps({"n": number, "x": "x" * 10_000})
            await publisher.send(f'{{"id":{number + 1},"publish":{{"channel":"news","data":{data}}}}}')
            await publisher.recv()
            assert (await quick.message())["push"]["pub"]["data"]["n"] == number
            waited = max(waited, slow_one.transport.waiting)
            assert number < 1000, "it is never cut"
        assert limit - 20_000 < waited <= limit
        ledger = node.node.counts.ledger("")
        assert (dict(ledger.dropped), ledger.delivered) == ({"slow": 1}, 2 * number - 1)
        [cut] = [each for each in node.events if each["event"] == "closed"]
        assert (cut["code"], cut["reason"], cut["by"]) == (3008, "slow", "server")
        await until(lambda: dict(node.node.counts.outboxes_lost) == {"timeout": 1}, "what waited is thrown away")
        await slow.is_cut()


async def test_a_slow_reader_that_reads_on_in_time_finds_out_why(node: RunningNode) -> None:
    async with connected(node.url, SUBSCRIBE, receive_buffer=4096) as slow:
        await slow.message()
        [conversation] = node.node.connections
        while conversation.transport.offer(b"%x\r\n%b\n\r\n" % (20_001, b'"' + b"x" * 19_998 + b'"')):
            pass
        conversation.disconnect(codes.SLOW)
        *_, last = await slow.rest()
        assert last == {"push": {"disconnect": {"code": 3008, "reason": "slow"}}}


async def test_commands_that_wait_in_line_are_bounded() -> None:
    """Nobody can stop the client's requests as a socket's reading is stopped, so too many end it."""
    async with running_node({"client": {"command_rate": 0}}) as node, connected(node.url) as stream:
        [conversation] = node.node.connections
        release = asyncio.Event()

        async def wait() -> None:
            await release.wait()

        assert isinstance(conversation, ClientConversation)
        conversation.carry_out(wait)
        await asyncio.sleep(0)
        pings = [{"id": number, "rpc": {"method": "ping"}} for number in range(2, 200)]
        statuses = [await emulate(node.url, stream, *pings) for _ in range(4)]
        assert statuses == [204] * 4
        release.set()
        assert await stream.rest() == [{"push": {"disconnect": {"code": 3013, "reason": "too many requests"}}}]


@pytest.mark.parametrize("path", PATHS)
async def test_a_node_that_stops_says_so_before_the_stream_ends(path: str) -> None:
    async with running_node() as node, connected(node.url, path=path) as stream:
        kept = await asyncio.open_connection("127.0.0.1", node.port)
        kept[1].write(b"GET /connection/init HTTP/1.1\r\nHost: x\r\n\r\n")
        await kept[0].readuntil(b"{}")
        node.node.stop()
        assert await stream.rest() == [{"push": {"disconnect": {"code": 3001, "reason": "shutdown"}}}]
        kept[1].write(post(path, HELLO))
        late = await RawStream(*kept).read_head()
        assert (late.status, late.headers["retry-after"]) == (503, "1")
        kept[1].close()


async def test_a_request_that_was_under_way_when_the_door_was_shut_is_turned_away() -> None:
    async with running_node() as node:
        _, writer = await asyncio.open_connection("127.0.0.1", node.port)
        request = post(HTTP_STREAM, HELLO)
        writer.write(request[:-1])
        async with connected(node.url) as stream:
            node.node.stop()
            await stream.is_cut()
        writer.write(request[-1:])
        answer = await RawStream(_, writer).read_head()
        assert answer.status == 503
        writer.close()


@pytest.mark.parametrize("path", PATHS)
async def test_a_stream_that_is_not_read_holds_a_node_up_no_longer_than_the_close_timeout(path: str) -> None:
    async with (
        running_node({"websocket": {"close_timeout": "200ms"}}) as node,
        connected(node.url, path=path, receive_buffer=4096) as slow,
    ):
        [conversation] = node.node.connections
        while conversation.transport.offer(b"x" * 100_000):
            pass
        node.node.stop()
        await until(lambda: node.node.counts.outboxes_lost[Lost.TIMEOUT] == 1)
        await slow.is_cut()


async def test_no_token_of_a_query_is_logged() -> None:
    async with running_node() as node:
        secret = jwt.encode({"sub": "42"}, SECRET, "HS256")
        said = json.dumps({"id": 1, "connect": {"token": secret}})
        async with raw_stream(node.url, get(SSE, said)) as stream:
            assert "connect" in await stream.message()
        for request in (get(SSE, said, "Origin: null\r\n"), get("/nowhere", said), get(SSE, said)[:-5] + b"\r\n\r\n"):
            async with raw_stream(node.url, request):
                pass
        await is_deserted(node)
        assert secret[-20:] not in json.dumps(node.events)
