"""Clients that have nothing but a WebSocket, written the way a user of the `websockets` package would write them."""

import asyncio
import contextlib
import io
import json
import time
from collections.abc import AsyncIterator, Awaitable
from typing import Any

import jwt
import numpy as np
import pytest
import pytest_asyncio
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosedError, InvalidStatus
from websockets.frames import Close

from tests.support.nodes import A_DAY_S, SECRET, RunningNode, running_node
from tests.support.waiting import PATIENCE_S, until

BAD_REQUEST = {"error": {"code": 107, "message": "bad request"}}
DENIED = {"error": {"code": 103, "message": "permission denied"}}
CLOSED_TO_STRANGERS = {"client": {"allow_anonymous_connect_without_token": False}}
FOR_USERS: dict[str, Any] = {"allow_subscribe_for_client": True, "allow_publish_for_client": True}
NAMESPACES = [
    {"name": "lobby", **FOR_USERS},
    {"name": "read", "allow_subscribe_for_client": True},
    {"name": "closed"},
    {"name": "users", "allow_user_limited_channels": True},
]

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def node() -> AsyncIterator[RunningNode]:
    """A node in development mode; each test leaves it without connections."""
    async with running_node() as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def strict_node() -> AsyncIterator[RunningNode]:
    """A node that lets nobody in without a token."""
    async with running_node(CLOSED_TO_STRANGERS, {"channel": {"namespaces": NAMESPACES}}) as running:
        yield running


def token(user: str = "alice", **claims: Any) -> str:
    return jwt.encode({"sub": user, "exp": int(time.time() + A_DAY_S), **claims}, SECRET, "HS256")


async def login(websocket: ClientConnection, user: str) -> None:
    await websocket.send(json.dumps({"token": token(user)}))
    assert json.loads(await websocket.recv()) == {"status": "authenticated", "user": user}


async def subscribed(node: RunningNode, count: int) -> None:
    """Wait until *count* clients are subscribed: an anonymous one is not told."""
    await until(lambda: sum(number for _, number in node.node.subscriptions()) == count, f"{count} subscriptions")


async def closed(websocket: ClientConnection) -> Close | None:
    """Return how the server closes."""
    with contextlib.suppress(ConnectionClosedError):
        async with asyncio.timeout(PATIENCE_S):
            while True:
                await websocket.recv()
    assert websocket.protocol.close_rcvd_then_sent, "the server closes first"
    return websocket.protocol.close_rcvd


@contextlib.asynccontextmanager
async def subscribers(node: RunningNode, path: str, count: int) -> AsyncIterator[list[ClientConnection]]:
    async with contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(connect(node.ws_url + path)) for _ in range(count)]
        await subscribed(node, count)
        yield clients


# Ten lines.


@pytest.mark.parametrize("message", ["Hello world!", "", "κόσμε 🎉", '{"a": 1}', b"bytes", b"", b"\x00\xff" * 500])
async def test_a_message_is_echoed_as_it_came(node: RunningNode, message: str | bytes) -> None:
    async with connect(f"{node.ws_url}/ws/echo:hello") as websocket:
        await websocket.send(message)
        assert await websocket.recv() == message


async def test_two_clients_broadcast_to_each_other_with_the_server_time(node: RunningNode) -> None:
    async with subscribers(node, "/ws/lobby:room", 2) as (alice, bob):
        before = time.time()
        await alice.send('{"text": "Hello world!"}')
        seen = [json.loads(await alice.recv()), json.loads(await bob.recv())]
        after = time.time()
        await bob.send('"Hi!"')
        answers = [json.loads(await alice.recv()), json.loads(await bob.recv())]
    assert seen[0] == seen[1] == {"text": "Hello world!", "server_time": seen[0]["server_time"]}
    # Unix seconds with microseconds: rounding may take half a microsecond away.
    assert before - 1e-6 <= seen[0]["server_time"] <= after + 1e-6
    assert round(seen[0]["server_time"], 6) == seen[0]["server_time"]
    assert answers[0] == answers[1] == {"data": "Hi!", "server_time": answers[0]["server_time"]}


async def test_the_server_time_is_the_nodes_clock() -> None:
    async with running_node() as node, subscribers(node, "/ws/lobby:room", 1) as (alice,):
        node.clock.ahead_s = 20
        before = time.time()
        await alice.send("{}")
        assert before + 20 <= json.loads(await alice.recv())["server_time"] + 1e-6


@pytest.mark.parametrize("text", ['{"b":1.0, "a" : [ 1e3 ]}', "1", '"text"', "null", "[]", ' {"x":\n1}', '"\\ud83d"'])
async def test_subscribers_get_a_publication_byte_for_byte(node: RunningNode, text: str) -> None:
    async with subscribers(node, "/ws/news", 2) as clients:
        await clients[0].send(text)
        assert [await client.recv() for client in clients] == [text, text]


@pytest.mark.parametrize("text", ["", "hello", "{", '{"a":1}{"b":2}', "NaN", "[" * 200 + "]" * 200, "'x'"])
async def test_text_that_is_not_json_gets_an_error_and_the_connection_lives(node: RunningNode, text: str) -> None:
    async with subscribers(node, "/ws/news", 1) as (alice,):
        await alice.send(text)
        assert json.loads(await alice.recv()) == BAD_REQUEST
        await alice.send("1")
        assert await alice.recv() == "1"


# Tokens.


async def test_a_client_that_shows_a_token_first_is_let_in(strict_node: RunningNode) -> None:
    url = f"{strict_node.ws_url}/ws/lobby:room"
    async with connect(url) as alice, connect(url) as bob:
        await login(alice, "alice")
        await login(bob, "bob")
        await alice.send('{"n": 1}')
        assert [await alice.recv(), await bob.recv()] == ['{"n": 1}'] * 2


async def test_an_anonymous_client_may_show_a_token_too(node: RunningNode) -> None:
    async with connect(f"{node.ws_url}/ws/news") as alice:
        await login(alice, "alice")
        await alice.send("1")
        assert await alice.recv() == "1"
        await alice.send('{"token": "only the first message is a token"}')
        assert await alice.recv() == '{"token": "only the first message is a token"}'


@pytest.mark.parametrize(
    ("first", "reason"),
    [
        pytest.param("Hello world!", "token missing", id="not JSON"),
        pytest.param("{}", "token missing", id="no token"),
        pytest.param('["token"]', "token missing", id="no object"),
        pytest.param(b'{"token": "x"}', "token missing", id="not text"),
        pytest.param('{"token": "a.b.c"}', "token invalid", id="garbage"),
        pytest.param('{"token": 42}', "token invalid", id="a number"),
        pytest.param('{"token": ""}', "token missing", id="empty"),
        pytest.param('{"token": null}', "token missing", id="null"),
        pytest.param({"token": jwt.encode({"sub": "alice"}, "x" * 32, "HS256")}, "token invalid", id="other key"),
        pytest.param({"token": jwt.encode({"sub": 42}, SECRET, "HS256")}, "token invalid", id="the user is a number"),
        pytest.param({"token": token(exp=1)}, "token expired", id="expired"),
        pytest.param({"token": token(nbf=2**40)}, "token expired", id="not yet valid"),
    ],
)
async def test_a_bad_first_message_is_closed_with_1008_and_its_reason(
    strict_node: RunningNode, first: Any, reason: str
) -> None:
    async with connect(f"{strict_node.ws_url}/ws/lobby:room") as websocket:
        await websocket.send(json.dumps(first) if isinstance(first, dict) else first)
        assert await closed(websocket) == Close(1008, reason)


async def test_a_bad_token_is_refused_even_where_none_is_needed(node: RunningNode) -> None:
    async with connect(f"{node.ws_url}/ws/news") as websocket:
        await websocket.send('{"token": "a.b.c"}')
        assert await closed(websocket) == Close(1008, "token invalid")


async def test_a_client_that_never_authenticates_is_dropped_after_ten_seconds() -> None:
    async with running_node(CLOSED_TO_STRANGERS) as node, connect(f"{node.ws_url}/ws") as silent:
        await until(lambda: len(node.node.connections) == 1)
        node.clock.ahead_s += 9
        async with connect(f"{node.ws_url}/ws/news") as alice:  # a whole exchange, in which the node's timers run
            await login(alice, "alice")
            node.clock.ahead_s += 1.2
            assert await closed(silent) == Close(1013, "authentication timeout")
            await alice.send("1")
            assert await alice.recv() == "1"
        closings = [event for event in node.events if event["event"] == "closed" and event["code"] == 1013]
        assert len(closings) == 1


# Binary.


def npy(array: np.ndarray[Any, Any]) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.getvalue()


@pytest.mark.parametrize(
    "array",
    [
        np.arange(12, dtype=np.float32).reshape(3, 4),
        np.array(3.14),
        np.zeros((0, 5), dtype=np.int8),
        np.array(["κόσμε", "x"]),
        np.array([True, False]),
        np.arange(1000, dtype=">i8")[::-1],
        np.asfortranarray(np.eye(20, dtype=np.complex128)),
    ],
    ids=lambda array: f"{array.dtype}{array.shape}",
)
async def test_numpy_arrays_travel_as_npy(node: RunningNode, array: np.ndarray[Any, Any]) -> None:
    async with subscribers(node, "/ws/binary:arrays", 2) as (alice, bob):
        await alice.send(npy(array))
        for client in (alice, bob):
            message = await client.recv()
            assert isinstance(message, bytes)
            received = np.load(io.BytesIO(message), allow_pickle=False)
            assert (received.dtype, received.shape) == (array.dtype, array.shape)
            np.testing.assert_array_equal(received, array)


async def test_a_large_array_travels_once_the_limits_are_raised() -> None:
    array = np.random.default_rng(1).random((1024, 1024))  # 8 MB
    limits = {"websocket": {"message_size_limit": 10_000_000}, "client": {"queue_max_size": 20_000_000}}
    async with (
        running_node(limits) as node,
        connect(f"{node.ws_url}/ws/binary:arrays", max_size=None) as alice,
        connect(f"{node.ws_url}/ws/binary:arrays", max_size=None) as bob,
    ):
        await subscribed(node, 2)
        await alice.send(npy(array))
        for client in (bob, alice):
            message = await client.recv(decode=False)
            np.testing.assert_array_equal(np.load(io.BytesIO(message), allow_pickle=False), array)


async def test_without_raised_limits_it_is_1009(node: RunningNode) -> None:
    async with subscribers(node, "/ws/binary:arrays", 2) as (alice, bob):
        await alice.send(npy(np.zeros(65536)))
        assert await closed(alice) == Close(1009, "")
        await bob.send(b"still here")
        assert await bob.recv() == b"still here"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        pytest.param("/ws/binary:arrays", "plain text", id="text that is no JSON where bytes are published"),
        pytest.param("/ws/news", b'{"valid": "json"}', id="bytes where JSON is published"),
        pytest.param("/ws/lobby:x", b"\x93NUMPY", id="bytes where a processor runs"),
    ],
)
async def test_the_wrong_kind_of_message_gets_an_error_and_nobody_else_hears_it(
    node: RunningNode, path: str, message: str | bytes
) -> None:
    async with subscribers(node, path, 2) as (alice, bob):
        await alice.send(message)
        assert json.loads(await alice.recv()) == BAD_REQUEST
        good: str | bytes = b"\x00" if "binary" in path else "1"
        await alice.send(good)
        assert str(good).strip("b'") in str(await bob.recv())  # the first that bob hears


async def test_json_text_in_a_binary_namespace_is_published_and_arrives_as_binary(node: RunningNode) -> None:
    """A text message must be JSON, whatever the namespace; a binary one delivers bytes."""
    async with subscribers(node, "/ws/binary:arrays", 1) as (alice,):
        await alice.send('{"shape": [3]}')
        assert await alice.recv() == b'{"shape": [3]}'


# Channels.


@pytest.mark.parametrize(
    ("path", "channel"),
    [
        ("/ws", "lobby"),
        ("/ws/", "lobby"),
        ("/ws/news", "news"),
        ("/ws/lobby:room", "lobby:room"),
        ("/ws/a/b/c", "a/b/c"),
        ("/ws/%6eews", "news"),
        ("/ws/lobby%3Aroom", "lobby:room"),
        ("/ws/a%2Fb", "a/b"),
        ("/ws/100%25", "100%"),
        ("/ws/with%20blank", "with blank"),
        ("/ws?channel=news", "news"),
        ("/ws?channel=lobby:room", "lobby:room"),
        ("/ws?channel=lobby%3Aroom", "lobby:room"),
        ("/ws/news?channel=other", "news"),
        ("/ws?other=x", "lobby"),
    ],
)
async def test_the_channel_is_the_rest_of_the_path_or_a_parameter(node: RunningNode, path: str, channel: str) -> None:
    seen = len(node.events)
    async with subscribers(node, path, 1):
        events = node.events[seen:]
        assert [event["channel"] for event in events if event["event"] == "subscribed"] == [channel]


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/ws/nope:x", "unknown channel"),
        ("/ws?channel=nope:x", "unknown channel"),
        ("/ws/$secret", "permission denied"),
        ("/ws/%24lobby:x", "permission denied"),
        ("/ws/caf%C3%A9", "bad request"),
        (f"/ws/{'x' * 256}", "bad request"),
        ("/ws/closed:x", "permission denied"),
        ("/ws/users:room%23bob", "permission denied"),
    ],
)
async def test_an_unknown_or_forbidden_channel_is_closed_with_1008_and_the_reason(
    strict_node: RunningNode, path: str, reason: str
) -> None:
    async with connect(strict_node.ws_url + path) as websocket:
        await websocket.send(json.dumps({"token": token("alice")}))
        assert await closed(websocket) == Close(1008, reason)


async def test_a_publication_that_is_not_allowed_gets_103_and_the_connection_lives(strict_node: RunningNode) -> None:
    async with connect(f"{strict_node.ws_url}/ws/read:only") as alice:
        await login(alice, "alice")
        for _ in range(2):
            await alice.send("1")
            assert json.loads(await alice.recv()) == DENIED


@pytest.mark.parametrize("path", ["/", "/wsx", "/socket", "/connection"])
async def test_another_path_is_no_websocket(node: RunningNode, path: str) -> None:
    with pytest.raises(InvalidStatus) as refused:
        await connect(node.ws_url + path)
    assert refused.value.response.status_code in {403, 404}


# Order.


async def test_five_thousand_messages_reach_twenty_subscribers_in_order_without_a_gap() -> None:
    count, expected = 5000, [str(number) for number in range(5000)]

    async def receive_all(websocket: ClientConnection) -> list[str | bytes]:
        return [await websocket.recv() for _ in range(count)]

    unlimited = {"client": {"command_rate": 0, "queue_max_size": 50_000_000}}
    async with running_node(unlimited) as node, subscribers(node, "/ws/news", 20) as clients:
        receiving: list[Awaitable[list[str | bytes]]] = [asyncio.ensure_future(receive_all(each)) for each in clients]
        for text in expected:
            await clients[0].send(text)
        async with asyncio.timeout(50):
            for received in receiving:
                assert await received == expected
        ledger = node.node.counts.ledger("")
        assert (ledger.due, ledger.delivered, dict(ledger.dropped)) == (count * 20, count * 20, {})
