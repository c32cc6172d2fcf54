"""An ASGI server's WebSocket as a transport, against a server that is strict about the specification."""

import asyncio
from http import HTTPStatus
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from gateway.domain.counts import Lost
from gateway.protocol.codes import Disconnect
from gateway.protocol.framing import BINARY, TEXT
from gateway.transport.acceptor import Gate
from gateway.transport.asgi import ASGIWebSocket, PayloadFraming, path_within, payloads
from gateway.transport.core import make_negotiator
from gateway.transport.ports import WebSocketSettings
from tests.support.asgi_servers import StrictServer
from tests.support.waiting import until

ACCEPTED: dict[str, Any] = {"type": "websocket.accept", "subprotocol": None, "headers": []}
BYE = Disconnect(3001, "shutdown")
QUEUE_MAX_BYTES = 100


def text(payload: str) -> bytes:
    return PayloadFraming(TEXT).frame(payload.encode())


def sent_text(payload: str) -> dict[str, Any]:
    return {"type": "websocket.send", "text": payload}


def sent_close(code: int, reason: str) -> dict[str, Any]:
    return {"type": "websocket.close", "code": code, "reason": reason}


class FakeGate:
    """Lets everybody in but for one path, and is the peer of its one connection."""

    settings = WebSocketSettings(message_size_limit=16, close_timeout_s=0.05)
    queue_max_bytes = QUEUE_MAX_BYTES

    def __init__(self) -> None:
        self.negotiator = make_negotiator(extensions=[], subprotocols=[Subprotocol("centrifuge-json")])
        self.sockets: list[str] = []
        self.lost: list[Lost | None] = []
        self.requests: list[Request] = []
        self.heard: list[tuple[Any, ...]] = []
        self.connection: ASGIWebSocket | None = None

    @property
    def open_connection(self) -> ASGIWebSocket:
        assert self.connection is not None, "not accepted"
        return self.connection

    # The gate.

    def opened(self) -> None:
        self.sockets.append("opened")

    def gone(self, connection: object, lost: Lost | None = None) -> None:
        del connection
        self.sockets.append("gone")
        self.lost.append(lost)

    def refuse(self, request: Request, address: str) -> Response | None:
        del address
        self.requests.append(request)
        if request.path != "/full":
            return None
        response = self.negotiator.reject(HTTPStatus.SERVICE_UNAVAILABLE, "Come back later.\n")
        response.headers["Retry-After"] = "1"
        return response

    def accept(self, request: Request, connection: ASGIWebSocket) -> "FakeGate":
        self.requests.append(request)
        self.connection = connection
        return self

    # The peer.

    def receive(self, payload: bytes, *, is_text: bool) -> None:
        self.heard.append(("message", payload, is_text))

    def frame_pong(self) -> None:
        self.heard.append(("pong",))

    def disconnect(self, disconnect: Disconnect) -> None:
        self.heard.append(("disconnect", disconnect))
        self.open_connection.close(disconnect)

    def tell_gap(self, channel: str) -> None:
        self.heard.append(("gap", channel))

    def closed(self, *, code: int, reason: str, by: str) -> None:
        self.heard.append(("closed", code, reason, by))


@pytest.fixture
def gate() -> FakeGate:
    return FakeGate()


def connect(gate: FakeGate, path: str = "/", **scope: Any) -> StrictServer:
    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        await ASGIWebSocket(cast("Gate", gate), scope, receive, send).run()

    return StrictServer(app, path, **scope)


async def opened(gate: FakeGate, **scope: Any) -> StrictServer:
    server = connect(gate, **scope)
    await until(lambda: gate.connection is not None, "the connection is accepted")
    return server


@given(st.lists(st.one_of(st.text(), st.binary())))
def test_joined_payloads_are_taken_apart_as_they_were_put_together(parts: list[str | bytes]) -> None:
    frames = [
        PayloadFraming(TEXT).frame(part.encode()) if isinstance(part, str) else PayloadFraming(BINARY).frame(part)
        for part in parts
    ]

    assert list(payloads(b"".join(frames))) == parts


@pytest.mark.parametrize(
    ("path", "root_path", "within"),
    [
        ("/ws/a", "", "/ws/a"),
        ("/live/ws/a", "/live", "/ws/a"),  # Starlette's and uvicorn's way
        ("/ws/a", "/live", "/ws/a"),  # the older way, in which the server takes the root path off
        ("/live/ws/a", "/live/", "/ws/a"),
        ("/lively/ws", "/live", "/lively/ws"),
        ("/live", "/live", ""),
        ("/ws", "/", "/ws"),
        ("/a/b/ws", "/a/b", "/ws"),
    ],
)
def test_a_path_is_read_below_where_the_application_is_mounted(path: str, root_path: str, within: str) -> None:
    assert path_within({"path": path, "root_path": root_path}) == within


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        ([], None),
        (["centrifuge-json"], "centrifuge-json"),
        (["chat", "centrifuge-json"], "centrifuge-json"),
        (["chat"], None),
    ],
)
async def test_the_first_subprotocol_that_is_known_is_chosen(
    gate: FakeGate, offered: list[str], chosen: str | None
) -> None:
    server = await opened(gate, subprotocols=offered)

    assert server.sent == [ACCEPTED | {"subprotocol": chosen}]
    await server.cancel()


async def test_the_gate_sees_the_request_as_a_listener_of_its_own_would_show_it(gate: FakeGate) -> None:
    headers = [(b"origin", b"https://a.example"), (b"x-name", "J\xf6rg".encode("latin-1"))]
    scope = {"root_path": "/live", "query_string": b"a=b%20c", "headers": headers}
    server = connect(gate, "/live/ws/news a?é", **scope)
    await server.told(1)

    request = gate.requests[0]
    assert request.path == "/ws/news%20a%3F%C3%A9?a=b%20c"
    assert list(request.headers.raw_items()) == [("origin", "https://a.example"), ("x-name", "J\xf6rg")]
    assert gate.open_connection.peer_address == "192.0.2.7"
    await server.cancel()


async def test_a_client_without_an_address_has_an_empty_one(gate: FakeGate) -> None:
    server = await opened(gate, client=None)

    assert gate.open_connection.peer_address == ""
    await server.cancel()


async def test_a_refusal_is_a_response_where_the_server_can_do_that(gate: FakeGate) -> None:
    server = connect(gate, "/full", extensions={"websocket.http.response": {}})
    await server.ended()

    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"retry-after", b"1")]
    assert server.sent == [
        {"type": "websocket.http.response.start", "status": 503, "headers": headers},
        {"type": "websocket.http.response.body", "body": b"Come back later.\n", "more_body": False},
    ]
    assert gate.sockets == ["opened", "gone"]


@pytest.mark.parametrize("extensions", [{}, {"extensions": None}, {"extensions": {"tls": {}}}])
async def test_elsewhere_a_refusal_is_a_close_before_the_acceptance(gate: FakeGate, extensions: dict[str, Any]) -> None:
    server = connect(gate, "/full", **extensions)
    await server.ended()

    assert server.sent == [sent_close(1008, "")]


async def test_a_client_that_goes_before_the_handshake_is_let_go(gate: FakeGate) -> None:
    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        assert (await receive())["type"] == "websocket.connect"
        await ASGIWebSocket(cast("Gate", gate), scope, receive, send).run()

    server = StrictServer(app)
    server.leave(1006)
    await server.ended()

    assert (server.sent, gate.heard, gate.sockets) == ([], [], ["opened", "gone"])


async def test_a_client_that_goes_in_the_handshake_is_let_go(gate: FakeGate) -> None:
    server = connect(gate)
    server.is_cut = True
    await server.ended()

    assert (gate.heard, gate.sockets) == ([], ["opened", "gone"])


@pytest.mark.parametrize(
    ("message", "heard"),
    [
        ({"text": "hi"}, (b"hi", True)),
        ({"text": "hi", "bytes": None}, (b"hi", True)),
        ({"text": ""}, (b"", True)),
        ({"text": "é"}, ("é".encode(), True)),
        ({"bytes": b"\x00\xff"}, (b"\x00\xff", False)),
        ({"bytes": b"", "text": None}, (b"", False)),
        ({"text": "x" * 16}, (b"x" * 16, True)),
    ],
)
async def test_messages_come_whole_and_of_their_kind(
    gate: FakeGate, message: dict[str, Any], heard: tuple[bytes, bool]
) -> None:
    server = await opened(gate)
    server.give({"type": "websocket.receive", **message})
    await until(lambda: bool(gate.heard), "the message")

    assert gate.heard == [("message", *heard)]
    await server.cancel()


@pytest.mark.parametrize(
    ("message", "code", "reason"),
    [
        ({"text": "x" * 17}, 1009, ""),
        ({"bytes": b"x" * 17}, 1009, ""),
        ({"text": "é" * 9}, 1009, ""),
        ({"text": "\ud800"}, 1007, "invalid UTF-8"),
    ],
)
async def test_a_message_that_breaks_the_rules_ends_the_connection(
    gate: FakeGate, message: dict[str, Any], code: int, reason: str
) -> None:
    server = await opened(gate)
    server.give({"type": "websocket.receive", **message})
    server.say("too late")
    await server.ended()

    assert gate.heard == [("closed", code, reason, "server")]
    assert server.sent == [ACCEPTED, sent_close(code, reason)]


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ({"code": 1000, "reason": "bye"}, (1000, "bye", "client")),
        ({"code": 1001}, (1001, "", "client")),
        ({"code": 1000, "reason": None}, (1000, "", "client")),
        ({"code": 1012, "reason": ""}, (1012, "", "client")),
        ({"code": 1006, "reason": ""}, (1006, "", "network")),
        ({"code": 1005}, (1005, "", "network")),
        ({}, (1005, "", "network")),
    ],
)
async def test_the_peer_is_told_once_how_a_client_went(
    gate: FakeGate, message: dict[str, Any], told: tuple[int, str, str]
) -> None:
    server = await opened(gate)
    server.give({"type": "websocket.disconnect", **message})
    await server.ended()

    assert gate.heard == [("closed", *told)]
    assert (server.sent, gate.sockets) == ([ACCEPTED], ["opened", "gone"])


async def test_what_is_offered_is_sent_in_order_and_apart(gate: FakeGate) -> None:
    server = await opened(gate)
    offer = gate.open_connection.offer

    assert offer(text("a") + text("é") + PayloadFraming(BINARY).frame(b"\xff"))
    assert offer(text("b"))
    await server.told(5)
    assert offer(text("c"))
    await server.told(6)

    binary = {"type": "websocket.send", "bytes": b"\xff"}
    assert server.sent == [ACCEPTED, sent_text("a"), sent_text("é"), binary, sent_text("b"), sent_text("c")]
    await server.cancel()


async def test_the_queue_of_a_slow_reader_is_bounded_and_answers(gate: FakeGate) -> None:
    server = await opened(gate)
    server.is_taking.clear()
    connection, message = gate.open_connection, text("x" * 15)
    assert (connection.room, len(message)) == (QUEUE_MAX_BYTES, 20)

    assert [connection.offer(message) for _ in range(6)] == [True] * 5 + [False]
    assert connection.room == 0
    await asyncio.sleep(0)  # the writer waits with the first in its hands, which still counts
    assert not connection.offer(message)

    server.is_taking.set()
    await server.told(6)
    assert connection.room == QUEUE_MAX_BYTES
    await server.cancel()


async def test_an_empty_queue_takes_any_one_message(gate: FakeGate) -> None:
    server = await opened(gate)
    server.is_taking.clear()
    large = "x" * 1000

    assert gate.open_connection.offer(text(large))
    assert not gate.open_connection.offer(text(""))
    server.is_taking.set()
    assert await server.texts(1) == [large]
    await server.cancel()


async def test_a_close_goes_out_behind_what_was_offered_and_nothing_behind_it(gate: FakeGate) -> None:
    server = await opened(gate)
    connection = gate.open_connection
    connection.offer(text("last"))
    connection.dismiss(BYE)
    connection.offer(text("nobody reads this"))
    connection.dismiss(BYE)
    connection.close(Disconnect(1000, "another"))
    await server.ended()

    assert server.sent == [ACCEPTED, sent_text("last"), sent_close(3001, "shutdown")]
    assert gate.heard == [("disconnect", BYE)]
    assert gate.sockets == ["opened", "gone"]


async def test_a_client_that_does_not_read_is_left_at_the_close_timeout(gate: FakeGate) -> None:
    server = await opened(gate)
    server.is_taking.clear()
    gate.open_connection.offer(text("never taken"))
    gate.open_connection.close(BYE)
    await server.ended()

    assert (server.sent, gate.sockets) == ([ACCEPTED], ["opened", "gone"])


async def test_a_client_that_goes_while_it_is_written_to_is_let_go(gate: FakeGate) -> None:
    server = await opened(gate)
    server.is_cut = True
    gate.open_connection.offer(text("nobody reads this"))
    await server.ended()

    assert gate.heard == [("closed", 1006, "", "network")]


async def test_a_client_that_goes_while_it_does_not_read_is_let_go(gate: FakeGate) -> None:
    server = await opened(gate)
    server.is_taking.clear()
    gate.open_connection.offer(text("never taken"))
    server.leave(1001)
    await server.ended()

    assert gate.heard == [("closed", 1001, "", "client")]


async def test_a_paused_client_waits_in_the_server(gate: FakeGate) -> None:
    server = await opened(gate)
    server.say("first")
    await until(lambda: bool(gate.heard), "the first message")
    gate.open_connection.pause_reading()
    gate.open_connection.pause_reading()
    for number in range(5):
        server.say(f"{number}")
    gate.open_connection.offer(text("heard"))
    assert await server.texts(1) == ["heard"]
    assert gate.heard == [("message", b"first", True)]
    assert server.unread == 4, "one `receive` was under way when the pause came, and no other one"

    gate.open_connection.resume_reading()
    gate.open_connection.resume_reading()
    await until(lambda: len(gate.heard) == 6, "the rest")
    assert gate.heard[1:] == [("message", b"%d" % number, True) for number in range(5)]
    await server.cancel()


async def test_a_paused_client_can_be_sent_away(gate: FakeGate) -> None:
    server = await opened(gate)
    gate.open_connection.pause_reading()
    gate.open_connection.close(BYE)
    await server.ended()

    assert server.sent == [ACCEPTED, sent_close(3001, "shutdown")]


async def test_the_server_pings_so_a_ping_counts_as_answered(gate: FakeGate) -> None:
    server = await opened(gate)
    gate.open_connection.ping()
    gate.open_connection.tell_gap("news")

    assert gate.heard == [("pong",), ("gap", "news")]
    assert server.sent == [ACCEPTED]
    await server.cancel()


async def test_once_it_has_ended_nothing_reaches_the_peer(gate: FakeGate) -> None:
    server = await opened(gate)
    server.leave()
    await server.ended()
    gate.heard.clear()
    connection = gate.open_connection
    connection.ping()
    connection.tell_gap("news")
    connection.dismiss(BYE)

    assert gate.heard == []


async def test_a_cancel_of_the_server_ends_everything_and_is_passed_on(gate: FakeGate) -> None:
    server = await opened(gate)
    await server.cancel()

    assert gate.heard == [("closed", 1006, "", "network")]
    assert gate.sockets == ["opened", "gone"]
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("asgi")]
