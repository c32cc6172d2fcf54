"""What a client may not do, at the last thing that is allowed and at the first that is not, on real sockets."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import jwt
import pytest
import pytest_asyncio
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Close

from tests.support.frames import BINARY, CLOSE, TEXT, closing, fragments, frame, raw_client
from tests.support.nodes import SECRET, RunningNode, running_node
from tests.support.waiting import PATIENCE_S, until

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def node() -> AsyncIterator[RunningNode]:
    """A node in development mode, for the tests that change nothing about it."""
    async with running_node() as running:
        yield running


class Stopped(float):
    """What a `MovableClock` is ahead by when its time stands still: added to the real time it gives itself."""

    def __radd__(self, other: float) -> float:
        return float(self)


def stop_time(node: RunningNode) -> None:
    """Keep the node's clock from moving, so that no bucket fills while the test runs."""
    node.clock.ahead_s = Stopped(node.clock.monotonic())


def token(user: str, **claims: Any) -> str:
    return jwt.encode({"sub": user, **claims}, SECRET, "HS256")


async def ask(websocket: ClientConnection, command_id: int, **request: Any) -> dict[str, Any]:
    """Send one command and return its reply; what is pushed meanwhile is dropped."""
    await websocket.send(json.dumps({"id": command_id, **request}))
    async with asyncio.timeout(PATIENCE_S):
        while True:
            for line in (await websocket.recv(decode=True)).split("\n"):
                reply: dict[str, Any] = json.loads(line)
                if reply.get("id") == command_id:
                    return reply


@contextlib.asynccontextmanager
async def session(node: RunningNode, *channels: str, connect_with: str = "") -> AsyncIterator[ClientConnection]:
    """Open a connection of the client protocol, subscribed to *channels*."""
    async with connect(node.client_url, max_size=None) as websocket:
        request = {"token": connect_with} if connect_with else {}
        assert "connect" in await ask(websocket, 1, connect=request)
        for number, channel in enumerate(channels, 2):
            assert "subscribe" in await ask(websocket, number, subscribe={"channel": channel})
        yield websocket


async def pushed(websocket: ClientConnection) -> list[Any]:
    """Return the data of the publications in the next frame that has any."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            messages = [json.loads(line) for line in (await websocket.recv(decode=True)).split("\n")]
            publications = [message["push"]["pub"]["data"] for message in messages if "push" in message]
            if publications:
                return publications


async def closed(websocket: ClientConnection) -> Close | None:
    """Return how the server closes."""
    with contextlib.suppress(ConnectionClosed):
        async with asyncio.timeout(PATIENCE_S):
            while True:
                await websocket.recv(decode=False)
    assert websocket.protocol.close_rcvd_then_sent, "the server closes first"
    return websocket.protocol.close_rcvd


async def refused(url: str) -> tuple[int, str | None]:
    """Return the status and `Retry-After` of an upgrade that is refused."""
    with pytest.raises(InvalidStatus) as error:
        await connect(url)
    return error.value.response.status_code, error.value.response.headers.get("Retry-After")


# Sizes.


@pytest.mark.parametrize("limit", [100, 65536, 200_000])
async def test_a_message_of_the_limit_passes_and_one_byte_more_is_1009(limit: int) -> None:
    async with running_node({"websocket": {"message_size_limit": limit}}) as node:
        url = f"{node.ws_url}/ws/echo:x"
        for parts in (["x" * limit], ["x" * (limit - 1), "x"], [b"x" * limit]):
            async with connect(url) as websocket:
                await websocket.send(parts[0] if len(parts) == 1 else parts)
                assert len(await websocket.recv()) == limit
        for parts in (["x" * (limit + 1)], ["x" * limit, "x"], [b"x" * (limit + 1)]):
            async with connect(url) as websocket:
                with contextlib.suppress(ConnectionClosed):
                    await websocket.send(parts[0] if len(parts) == 1 else parts)
                assert await closed(websocket) == Close(1009, "")


async def test_the_limit_holds_for_the_client_protocol_too(node: RunningNode) -> None:
    def command(size: int) -> str:
        head = '{"id":3,"publish":{"channel":"news","data":"'
        return head + "x" * (size - len(head) - 3) + '"}}'

    async with session(node, "news") as websocket:
        await websocket.send(command(65536))
        assert [len(data) for data in await pushed(websocket)] == [65536 - 47]
        await websocket.send(command(65537))
        assert await closed(websocket) == Close(1009, "")


# Counts.


async def test_one_channel_above_the_limit_is_106_and_leaving_one_makes_room() -> None:
    async with running_node({"client": {"channel_limit": 3}}) as node, session(node, "a", "b", "c") as websocket:
        refusal = {"id": 9, "error": {"code": 106, "message": "limit exceeded"}}
        assert await ask(websocket, 9, subscribe={"channel": "d"}) == refusal
        assert await ask(websocket, 10, unsubscribe={"channel": "a"}) == {"id": 10, "unsubscribe": {}}
        assert await ask(websocket, 11, subscribe={"channel": "d"}) == {"id": 11, "subscribe": {}}


@pytest.mark.parametrize(("count", "fits"), [(3, True), (4, False)])
async def test_one_channel_above_the_limit_in_a_token_is_3505(count: int, *, fits: bool) -> None:
    async with running_node({"client": {"channel_limit": 3}}) as node, connect(node.client_url) as websocket:
        shown = token("alice", channels=[f"c{number}" for number in range(count)])
        await websocket.send(json.dumps({"id": 1, "connect": {"token": shown}}))
        if fits:
            assert len(json.loads(await websocket.recv())["connect"]["subs"]) == count
        else:
            assert await closed(websocket) == Close(3505, "channel limit")


async def test_one_connection_of_a_user_above_the_limit_is_3504_and_leaving_makes_room() -> None:
    async with running_node({"client": {"user_connection_limit": 2}}) as node:
        alice = token("alice")
        async with session(node, "news", connect_with=alice) as first, contextlib.AsyncExitStack() as stack:
            async with session(node, connect_with=alice):
                async with connect(node.client_url) as third:
                    await third.send(json.dumps({"id": 1, "connect": {"token": alice}}))
                    assert await closed(third) == Close(3504, "connection limit")
                async with connect(f"{node.ws_url}/ws/lobby") as plain:
                    await plain.send(json.dumps({"token": alice}))
                    assert await closed(plain) == Close(1008, "connection limit")
                for _ in range(3):  # neither other users nor strangers are counted with her
                    await stack.enter_async_context(session(node))
                await stack.enter_async_context(session(node, connect_with=token("bob")))
            await stack.enter_async_context(session(node, connect_with=alice))
            await first.send('{"id":5,"publish":{"channel":"news","data":1}}')
            assert await pushed(first) == [1]


async def test_connections_of_a_user_that_come_together_are_all_counted() -> None:
    async with running_node({"client": {"user_connection_limit": 3}}) as node, contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(connect(node.client_url)) for _ in range(8)]
        command = json.dumps({"id": 1, "connect": {"token": token("alice")}})
        await asyncio.gather(*(client.send(command) for client in clients))
        await until(lambda: len(node.node.connections) == 3, "five connections gone")
        assert node.node.counts.disconnects == {3504: 5}


async def test_one_connection_above_the_nodes_limit_is_503_and_leaving_makes_room() -> None:
    async with running_node({"client": {"connection_limit": 2}}) as node, session(node):
        async with connect(f"{node.ws_url}/ws/news"):
            assert await refused(node.client_url) == (503, "1")
            assert await refused(f"{node.ws_url}/ws/news") == (503, "1")
        async with session(node):
            assert node.node.counts.connections_refused == {"connection_limit": 2}


async def test_one_connection_a_second_above_the_rate_is_503_until_time_passes() -> None:
    async with running_node({"client": {"connection_rate_limit": 3}}) as node:
        stop_time(node)
        async with session(node), session(node), session(node):
            assert await refused(node.client_url) == (503, "1")
            node.clock.ahead_s = Stopped(node.clock.monotonic() + 1)
            async with session(node):
                pass


# Rates.

OVER = {"code": 111, "message": "too many requests", "temporary": True}
RATE = {"client": {"command_rate": 5, "command_burst": 10}}


async def test_commands_up_to_the_burst_pass_the_next_are_111_and_far_over_it_is_3013() -> None:
    async with running_node(RATE) as node, session(node) as websocket:
        stop_time(node)
        replies = [await ask(websocket, number, rpc={"method": "ping"}) for number in range(2, 22)]
        assert replies[:10] == [{"id": number, "rpc": {}} for number in range(2, 12)]
        assert replies[10:] == [{"id": number, "error": OVER} for number in range(12, 22)]
        await websocket.send('{"id":22,"rpc":{"method":"ping"}}')
        assert await closed(websocket) == Close(3013, "too many requests")


async def test_after_a_pause_commands_pass_again() -> None:
    async with running_node(RATE) as node, session(node) as websocket:
        stop_time(node)
        replies = [await ask(websocket, number, rpc={"method": "ping"}) for number in range(2, 13)]
        assert replies[-1] == {"id": 12, "error": OVER}
        node.clock.ahead_s = Stopped(node.clock.monotonic() + 0.4)  # two commands' time: the refused one counted too
        assert await ask(websocket, 13, rpc={"method": "ping"}) == {"id": 13, "rpc": {}}
        assert await ask(websocket, 14, rpc={"method": "ping"}) == {"id": 14, "error": OVER}


async def test_plain_messages_up_to_the_burst_pass_the_next_are_111_and_far_over_it_is_1008() -> None:
    async with running_node(RATE) as node, connect(f"{node.ws_url}/ws/echo:x") as websocket:
        stop_time(node)
        for number in range(20):
            await websocket.send(str(number))
            answer = await websocket.recv()
            if number < 10:
                assert answer == str(number)
            else:
                assert json.loads(answer) == {"error": {"code": 111, "message": "too many requests"}}
        await websocket.send("20")
        assert await closed(websocket) == Close(1008, "rate limit")


# Time.


@pytest.mark.parametrize(
    ("path", "first", "end"),
    [
        ("/connection/websocket", {"id": 1, "connect": {"token": token("alice")}}, closing(3502, "stale")),
        ("/ws/news", {"token": token("alice")}, closing(1013, "authentication timeout")),
    ],
)
async def test_who_says_nothing_until_the_stale_delay_is_cut_and_who_has_a_moment_left_is_not(
    path: str, first: dict[str, Any], end: bytes
) -> None:
    table = {"client": {"allow_anonymous_connect_without_token": False, "stale_close_delay": "7s"}}
    async with running_node(table) as node:
        stop_time(node)
        began_s = node.clock.monotonic()
        async with raw_client(node.ws_url + path) as early:
            await until(lambda: len(node.node.connections) == 1, "the first")
            node.clock.ahead_s = Stopped(began_s + 0.3)
            async with raw_client(node.ws_url + path) as late:
                await until(lambda: len(node.node.connections) == 2, "the second")
                node.clock.ahead_s = Stopped(began_s + 7.2)  # 7 s and the wheel's resolution; the other has 0.1 s left
                assert (await early.receive()).payload == end
                late.send(frame(TEXT, json.dumps(first).encode()))
                assert (await late.receive()).first_byte == 0x80 | TEXT
                assert len(node.node.connections) == 1
                assert node.node.counts.disconnects == {int.from_bytes(end[:2], "big"): 1}


# The book of it all.

PING = {"rpc": {"method": "ping"}}
TIGHT = {
    "client": {"channel_limit": 2, "user_connection_limit": 1, "command_rate": 1, "command_burst": 4},
    "websocket": {"message_size_limit": 1000},
    "json": {"max_depth": 4},
}
HITS: dict[str, tuple[list[Any], dict[str, int], dict[tuple[str, int], int], dict[int, int]]] = {
    # what is sent after connect; limit hits, errors and disconnects that are counted
    "a message too big": (["x" * 1001], {}, {}, {1009: 1}),
    "a message that just fits": (["{" + " " * 998 + "}"], {}, {}, {3501: 1}),  # read, and so judged: no pong is due
    "commands up to the burst": ([PING] * 4, {}, {}, {}),
    "one command above": ([PING] * 5, {"command_rate": 1}, {("any", 111): 1}, {}),
    "twice the burst": ([PING] * 8, {"command_rate": 4}, {("any", 111): 4}, {}),
    "one above twice the burst": ([PING] * 9, {"command_rate": 5}, {("any", 111): 4}, {3013: 1}),
    "channels up to the limit": ([{"subscribe": {"channel": name}} for name in "ab"], {}, {}, {}),
    "one channel above": (
        [{"subscribe": {"channel": name}} for name in "abc"],
        {"channel_limit": 1},
        {("subscribe", 106): 1},
        {},
    ),
    "data as deep as allowed": ([{"publish": {"channel": "a", "data": [[]]}}], {}, {}, {}),
    "data one deeper": ([{"publish": {"channel": "a", "data": [[[]]]}}], {}, {}, {3501: 1}),
}


@pytest.mark.parametrize("name", HITS)
async def test_each_limit_is_counted_by_its_name_at_the_first_that_is_too_much(name: str) -> None:
    sent, hits, errors, disconnects = HITS[name]
    async with running_node(TIGHT) as node, session(node) as websocket:
        stop_time(node)
        commands = [each if isinstance(each, str) else json.dumps({"id": n, **each}) for n, each in enumerate(sent, 2)]
        for command in commands:
            await websocket.send(command)
        if disconnects:
            assert await closed(websocket) == Close(*next((code, REASONS[code]) for code in disconnects))
        else:
            got = 0
            async with asyncio.timeout(PATIENCE_S):
                while got < len(commands):
                    got += len((await websocket.recv(decode=True)).split("\n"))
        counts = node.node.counts
        assert (counts.limit_hits, counts.errors, counts.disconnects) == (hits, errors, disconnects)


REASONS = {1009: "", 3013: "too many requests", 3501: "bad request"}


async def test_limits_before_the_upgrade_and_at_connect_are_counted_by_their_names() -> None:
    table = {"client": {"user_connection_limit": 1, "connection_limit": 2, "channel_limit": 2}}
    async with running_node(table) as node:
        alice = token("alice")
        async with session(node, connect_with=alice):
            async with connect(node.client_url) as second:
                await second.send(json.dumps({"id": 1, "connect": {"token": alice}}))
                assert await closed(second) == Close(3504, "connection limit")
            async with connect(node.client_url) as third:
                await third.send(json.dumps({"id": 1, "connect": {"token": token("bob", channels=["a", "b", "c"])}}))
                assert await closed(third) == Close(3505, "channel limit")
            await until(lambda: len(node.node.connections) == 1, "alice alone")
            async with session(node):
                assert await refused(node.client_url) == (503, "1")
        assert node.node.counts.limit_hits == {"user_connection_limit": 1, "channel_limit": 1}
        assert node.node.counts.disconnects == {3504: 1, 3505: 1}
        assert node.node.counts.connections_refused == {"connection_limit": 1}
        (line,) = [event for event in node.events if event["event"] == "refused"]
        assert (line["reason"], line["status"]) == ("connection_limit", 503)


@pytest.mark.parametrize(("count", "is_over"), [(10, 0), (11, 1), (20, 10)])
async def test_plain_messages_over_the_rate_are_counted(count: int, is_over: int) -> None:
    async with running_node(RATE) as node, connect(f"{node.ws_url}/ws/echo:x") as websocket:
        stop_time(node)
        for number in range(count):
            await websocket.send(str(number))
            await websocket.recv()
        assert node.node.counts.limit_hits == ({"command_rate": is_over} if is_over else {})
        assert node.node.counts.errors == ({("plain", 111): is_over} if is_over else {})


# Readers that stop.

CHUNK = "x" * 60_000
COUNT = 250
"""15 MB: the kernel may swallow several before the process holds a byte."""
SLOW = {"client": {"queue_max_size": 200_000, "command_rate": 0}, "websocket": {"close_timeout": "200ms"}}


@pytest.mark.parametrize("compression", [False, True])
async def test_a_reader_that_stops_is_cut_with_3008_and_nobody_else_loses_anything(*, compression: bool) -> None:
    tables: list[dict[str, Any]] = [SLOW, {"websocket": {"compression": compression}}]
    commands = [{"id": 1, "connect": {}}, {"id": 2, "subscribe": {"channel": "news"}}]
    async with (
        running_node(*tables) as node,
        raw_client(node.client_url, receive_buffer=4096) as stopped,
        session(node, "news") as first,
        session(node, "news") as second,
        session(node) as publisher,
    ):
        stopped.send(*(frame(TEXT, json.dumps(command).encode()) for command in commands))
        await until(lambda: sum(number for _, number in node.node.subscriptions()) == 3, "three subscribers")

        async def receive_all(websocket: ClientConnection) -> list[int]:
            numbers: list[int] = []
            while len(numbers) < COUNT:
                numbers += [data["n"] for data in await pushed(websocket)]
            return numbers

        async with asyncio.TaskGroup() as tasks:
            receiving = [tasks.create_task(receive_all(each)) for each in (first, second)]
            for number in range(COUNT):
                data = {"n": number, "filler": CHUNK}
                reply = await ask(publisher, number + 2, publish={"channel": "news", "data": data})
                assert reply == {"id": number + 2, "publish": {}}
        assert [task.result() for task in receiving] == [list(range(COUNT))] * 2
        cut = [event for event in node.events if event["event"] == "closed"]
        assert [(event["code"], event["reason"], event["by"]) for event in cut] == [(3008, "slow", "server")]
        with contextlib.suppress(ConnectionResetError):
            await stopped.is_cut()
        ledger = node.node.counts.ledger("")
        assert dict(ledger.dropped) == {"slow": 1}  # it was cut at the first that did not fit
        assert ledger.due == ledger.delivered + 1
        assert node.node.counts.disconnects == {3008: 1}


async def test_a_reader_that_reads_on_in_time_finds_out_why() -> None:
    async with (
        running_node(SLOW, {"websocket": {"close_timeout": "60s"}}) as node,
        raw_client(f"{node.ws_url}/ws/news", receive_buffer=4096) as stopped,
        connect(f"{node.ws_url}/ws/news", max_queue=None) as publisher,
    ):
        await until(lambda: sum(number for _, number in node.node.subscriptions()) == 2, "two subscribers")
        for _ in range(COUNT):
            await publisher.send(f'"{CHUNK}"')
            assert len(await publisher.recv()) == len(CHUNK) + 2
        await until(lambda: node.node.counts.disconnects[1013] == 1, "the slow one is cut")
        received = await stopped.receive()
        while received.first_byte != 0x80 | CLOSE:
            received = await stopped.receive()
        assert received.payload == closing(1013, "slow")


# What one client must not do to the others.


async def test_text_that_is_not_utf8_costs_its_sender_alone(node: RunningNode) -> None:
    bad = b'{"id":3,"publish":{"channel":"news","data":"\xff"}}'
    async with session(node, "news") as reader, raw_client(node.client_url) as attacker:
        attacker.send(frame(TEXT, b'{"id":1,"connect":{}}'))
        await attacker.receive()
        attacker.send(frame(TEXT, bad))
        (answer,) = await attacker.rest()
        assert answer.payload[:2] == closing(1007)
        assert await ask(reader, 4, publish={"channel": "news", "data": 1}) == {"id": 4, "publish": {}}


@pytest.mark.parametrize("bad", [b"\xff", b"\xed\xa0\x80", b"\xc0\xaf", "€".encode()[:2]], ids=repr)
async def test_a_binary_frame_does_not_smuggle_bad_utf8_to_the_others(node: RunningNode, bad: bytes) -> None:
    """protocol.md 1.2: the opcode of a client's frame is not checked, so its text has to be."""
    async with session(node, "news") as reader, raw_client(node.client_url) as attacker:
        attacker.send(frame(BINARY, b'{"id":1,"connect":{}}'))
        await attacker.receive()
        attacker.send(frame(BINARY, b'{"id":2,"publish":{"channel":"news","data":"' + bad + b'"}}'))
        await attacker.receive()  # an error or a close
        assert await ask(reader, 4, publish={"channel": "news", "data": 1}) == {"id": 4, "publish": {}}


@pytest.mark.parametrize(("depth", "fits"), [(125, True), (126, True), (127, False), (1000, False), (30_000, False)])
async def test_json_as_deep_as_allowed_passes_and_one_deeper_is_3501(
    node: RunningNode, depth: int, *, fits: bool
) -> None:
    """`json.max_depth` is 128, and the command around the data is two of them."""
    deep = "[" * depth + "]" * depth
    async with session(node, "news") as reader, session(node) as writer:
        await writer.send(f'{{"id":2,"publish":{{"channel":"news","data":{deep}}}}}')
        if fits:
            assert json.loads(await writer.recv()) == {"id": 2, "publish": {}}
            assert json.dumps(await pushed(reader)) == f"[{deep}]"
        else:
            assert await closed(writer) == Close(3501, "bad request")
            assert await ask(reader, 4, publish={"channel": "news", "data": 1}) == {"id": 4, "publish": {}}


@pytest.mark.parametrize("path", ["/ws/news", "/ws/lobby:x"])
@pytest.mark.parametrize(("depth", "fits"), [(128, True), (129, False), (30_000, False)])
async def test_plain_json_as_deep_as_allowed_passes_and_one_deeper_is_107(
    node: RunningNode, path: str, depth: int, *, fits: bool
) -> None:
    async with connect(node.ws_url + path) as websocket:
        deep = "[" * depth + "]" * depth
        await websocket.send(deep)
        answer = await websocket.recv(decode=True)
        if fits:
            assert deep in answer
        else:
            assert json.loads(answer) == {"error": {"code": 107, "message": "bad request"}}
            await websocket.send("{}")
            assert "error" not in await websocket.recv(decode=True)


async def test_brackets_inside_strings_are_not_depth(node: RunningNode) -> None:
    async with connect(f"{node.ws_url}/ws/news") as websocket:
        text = json.dumps("[{" * 5000 + '\\"')
        await websocket.send(text)
        assert await websocket.recv() == text


@pytest.mark.parametrize("path", ["/connection/websocket", "/ws/news"])
async def test_a_client_that_sends_one_byte_at_a_time_is_served_and_holds_nobody_up(
    node: RunningNode, path: str
) -> None:
    sent = {
        "/ws/news": [b"1", b'"' + b"y" * 200 + b'"'],
        "/connection/websocket": [b'{"id":1,"connect":{}}', b'{"id":2,"rpc":{"method":"ping"}}'],
    }[path]
    async with raw_client(node.ws_url + path) as slow, connect(f"{node.ws_url}/ws/echo:x") as quick:
        for data in (frame(TEXT, sent[0]), *fragments(TEXT, sent[1][:20], sent[1][20:])):
            for byte in data:
                slow.send(bytes([byte]))
                await slow.writer.drain()
        await quick.send("meanwhile")
        assert await quick.recv() == "meanwhile"
        lines: list[bytes] = []
        while len(lines) < 2:  # replies may share a frame
            lines += (await slow.receive()).payload.split(b"\n")
        if path == "/ws/news":
            assert lines == sent
        else:
            assert [json.loads(line)["id"] for line in lines] == [1, 2]


async def test_a_client_that_never_finishes_its_frame_is_dropped_as_stale() -> None:
    async with running_node() as node, raw_client(node.client_url) as client:
        client.send(frame(TEXT, b'{"id":1,"connect":{}}')[:-1])
        await until(lambda: len(node.node.connections) == 1, "the connection")
        node.clock.ahead_s += 11
        answer = await client.receive()
        assert answer.payload == closing(3502, "stale")
