"""A node as its operators meet it: health, metrics, refusals before the upgrade, TLS."""

import asyncio
import json
import platform
import ssl
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import jwt
import pytest
import pytest_asyncio
import trustme
from prometheus_client.parser import text_string_to_metric_families
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from gateway import __version__
from gateway.observability.metrics import FAMILIES
from gateway.observability.metrics.text import OPEN_METRICS, PLAIN
from tests.support.nodes import SECRET, RunningNode, running_node
from tests.support.processes import Answer, ask

_PATIENCE_S = 20
_BY_ITSELF = (
    "gateway_event_loop_lag_seconds",
    "gateway_event_loop_lag_recent_max_seconds",
    "gateway_http_requests",
)
"""Families that change without anybody's doing, or by the scrape."""
_UNSTEADY = ("_bytes_total", "_sum", "_bucket", "_seconds")
"""The ends of the names of samples that depend on the machine's speed, or on how a message is spelt."""
HANDSHAKE = {
    "Host": "localhost",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version": "13",
}
Change = dict[str, str | list[str] | None]

# Starting and stopping a node costs 0.4 s, so tests that only look at one share it.
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="node")
async def _node() -> AsyncIterator[RunningNode]:
    """A running node in development mode, shared by the tests of this module."""
    async with running_node() as running:
        yield running


async def until(is_so: Callable[[], Awaitable[bool]]) -> None:
    """Wait for a condition that no event tells of."""
    async with asyncio.timeout(_PATIENCE_S):
        while not await is_so():  # noqa: ASYNC110 - nothing here could set an event
            await asyncio.sleep(0.01)


async def shake_hands(
    node: RunningNode, target: str = "/connection/websocket", change: Change | None = None, method: str = "GET"
) -> Answer:
    """Send an upgrade request as *change* has it (`None` leaves a header out) and return the whole answer."""
    headers: Change = {**HANDSHAKE, **(change or {})}
    lines = [f"{method} {target} HTTP/1.1"]
    for name, value in headers.items():
        values = value if isinstance(value, list) else [value]
        lines += [f"{name}: {each}" for each in values if each is not None]
    reader, writer = await asyncio.open_connection("127.0.0.1", node.port)
    try:
        async with asyncio.timeout(_PATIENCE_S):
            writer.write("\r\n".join([*lines, "", ""]).encode("latin-1"))
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            named = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
            body = await reader.readexactly(int(named.get("content-length", 0)))
            if "connection" in named and named["connection"] == "close":
                assert await reader.read() == b"", "the server said that it closes, and goes on"
    finally:
        writer.close()
    return Answer(int(head[0].split()[1]), named, body.decode())


@asynccontextmanager
async def client_of(node: RunningNode, token: str = "") -> AsyncIterator[ClientConnection]:
    async with connect(node.client_url, compression=None) as client:
        reply = await command(client, {"id": 1, "connect": {"token": token} if token else {}})
        assert "connect" in reply, reply
        yield client


async def command(client: ClientConnection, value: dict[str, Any]) -> dict[str, Any]:
    """Send one command and return the next thing that comes."""
    await client.send(json.dumps(value))
    async with asyncio.timeout(_PATIENCE_S):
        answer: dict[str, Any] = json.loads(await client.recv())
        return answer


def token_of(claims: dict[str, Any], secret: str = SECRET) -> str:
    return jwt.encode(claims, secret, algorithm="HS256")


# Health.


async def test_a_node_that_serves_is_alive_and_ready(node: RunningNode) -> None:
    for path in ("/livez", "/readyz", "/startupz"):
        answer = await ask(f"{node.internal_url}{path}")
        assert (answer.status, answer.text) == (200, "ok\n")
    verbose = await ask(f"{node.internal_url}/readyz?verbose")
    said = json.loads(verbose.text)
    assert 0 <= said["canary"].pop("round_trip_s") <= said["canary"].pop("age_s") + 1
    assert (verbose.status, said) == (
        200,
        {
            "ready": True,
            "reason": None,
            "broker": "ok",
            "canary": {},
            "checks": {"node": "ok", "memory": "ok", "broker": "ok"},
        },
    )
    alive = await ask(f"{node.internal_url}/livez?verbose")
    tasks = dict.fromkeys(["engine", "cluster", "timer wheel", "presence", "position check"], "ok")
    assert (alive.status, json.loads(alive.text)) == (200, {"alive": True, "reason": None, "tasks": tasks})


async def test_health_and_metrics_are_not_on_the_public_port(node: RunningNode) -> None:
    for path in ("/livez", "/readyz", "/startupz", "/metrics", "/health"):
        assert (await ask(f"{node.url}{path}")).status == 404


async def test_a_node_that_drains_is_alive_but_not_ready_and_takes_no_new_connections() -> None:
    async with running_node() as node:
        reader, writer = await asyncio.open_connection("127.0.0.1", node.port)
        kept_reader, kept_writer = await asyncio.open_connection("127.0.0.1", node.port)
        try:
            writer.write(_request_of(HANDSHAKE))
            assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
            # A request on a kept-alive connection, as proxies have it: it outlives the listening socket.
            kept_writer.write(b"GET /connection/init HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await kept_reader.readuntil(b"{}")).startswith(b"HTTP/1.1 200 ")
            node.node.stop()

            async def is_unready() -> bool:
                return (await ask(f"{node.internal_url}/readyz")).status == 503

            await until(is_unready)
            assert (await ask(f"{node.internal_url}/readyz")).text == "draining\n"
            verbose = await ask(f"{node.internal_url}/readyz?verbose")
            said = json.loads(verbose.text)
            assert (verbose.status, said["reason"], said["broker"]) == (503, "draining", "ok")
            assert said["checks"] == {"node": "draining", "memory": "ok", "broker": "ok"}
            assert (await ask(f"{node.internal_url}/startupz")).status == 200
            assert (await ask(f"{node.internal_url}/livez")).status == 200
            metrics = await ask(f"{node.internal_url}/metrics")
            assert "gateway_ready 0.0\n" in metrics.text
            assert "gateway_connections 0.0\n" in metrics.text
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection("127.0.0.1", node.port)
            kept_writer.write(_request_of(HANDSHAKE))
            refusal = await kept_reader.readuntil(b"\r\n\r\n")
            assert refusal.startswith(b"HTTP/1.1 503 ")
            assert b"\r\nRetry-After: 1\r\n" in refusal
        finally:
            writer.close()
            kept_writer.close()


def _request_of(headers: dict[str, str]) -> bytes:
    lines = ["GET /connection/websocket HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    return "\r\n".join(lines).encode()


# Metrics.


async def scrape(node: RunningNode) -> dict[tuple[str, ...], float]:
    """Return the node's own samples by name and labels' values, zeros, sizes and times left out."""
    answer = await ask(f"{node.internal_url}/metrics")
    assert (answer.status, answer.headers["content-type"]) == (200, PLAIN)
    found = list(text_string_to_metric_families(answer.text))
    assert {family.name for family in FAMILIES} <= {family.name for family in found}
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in found
        for sample in family.samples
        if family.name.startswith("gateway_") and family.name not in _BY_ITSELF
        if sample.value and not sample.name.endswith(_UNSTEADY)
    }


async def test_metrics_count_a_small_exchange_exactly() -> None:
    async with running_node() as node:
        idle = {
            ("gateway_build_info", "asyncio", platform.python_version(), __version__): 1,
            ("gateway_ready",): 1,
            ("gateway_alive",): 1,
            ("gateway_broker_up",): 1,
            ("gateway_nodes",): 1,
        }
        assert await scrape(node) == idle
        forged = token_of({"sub": "42"}, secret="not the secret of the node, but as long")
        async with client_of(node) as first, client_of(node, token_of({"sub": "42"})) as second:
            assert await command(first, {"id": 2, "subscribe": {"channel": "lobby:a"}}) == {"id": 2, "subscribe": {}}
            assert await command(second, {"id": 2, "subscribe": {"channel": "lobby:a"}}) == {"id": 2, "subscribe": {}}
            for number in range(3):
                await second.send(
                    json.dumps({"id": number + 3, "publish": {"channel": "lobby:a", "data": {"n": number}}})
                )
            for client, frames in ((first, 3), (second, 6)):
                received = 0
                while received < frames:
                    received += len(str(await client.recv()).splitlines())
            unknown = await command(first, {"id": 9, "publish": {"channel": "nope:a", "data": 1}})
            assert unknown == {"id": 9, "error": {"code": 102, "message": "unknown channel"}}
            async with connect(node.client_url, compression=None) as stranger:
                await stranger.send(json.dumps({"id": 1, "connect": {"token": forged}}))
                with pytest.raises(ConnectionClosed):
                    await stranger.recv()
            assert (await shake_hands(node, "/nope")).status == 404
            busy = {
                ("gateway_connections",): 2,
                # What the two give as their name, and what they came by: `json`, `websocket`.
                ("gateway_connections_by_client", "", "json", "websocket", ""): 2,
                ("gateway_users",): 1,
                ("gateway_channels",): 1,
                ("gateway_subscriptions", "lobby"): 2,
                ("gateway_connections_accepted_total", "websocket"): 3,
                ("gateway_connections_refused_total", "path"): 1,
                ("gateway_authenticated_total", "anonymous"): 1,
                ("gateway_authenticated_total", "user"): 1,
                ("gateway_subscribed_total", "lobby"): 2,
                ("gateway_disconnects_total", "3500"): 1,
                ("gateway_commands_total", "connect"): 3,
                ("gateway_commands_total", "subscribe"): 2,
                ("gateway_commands_total", "publish"): 4,
                ("gateway_errors_total", "102", "publish"): 1,
                ("gateway_token_failures_total", "signature"): 1,
                ("gateway_messages_received_total", "websocket"): 9,
                ("gateway_messages_sent_total", "publication", "websocket"): 6,
                ("gateway_messages_sent_total", "reply", "websocket"): 8,
                ("gateway_publications_accepted_total", "lobby"): 3,
                ("gateway_publications_received_total", "lobby"): 3,
                ("gateway_deliveries_due_total", "lobby"): 6,
                ("gateway_deliveries_total", "lobby"): 6,
                ("gateway_command_duration_seconds_count", "connect"): 3,
                ("gateway_command_duration_seconds_count", "subscribe"): 2,
                ("gateway_command_duration_seconds_count", "publish"): 1,
            }
            seen = await scrape(node)
            # Once for each turn of the loop that brought any of the three.
            assert 1 <= seen.pop(("gateway_publish_to_write_seconds_count", "lobby")) <= 3
            assert 1 <= seen.pop(("gateway_fanout_duration_seconds_count",)) <= 3
            assert seen == idle | busy

        async def has_closed() -> bool:
            return (await scrape(node)).get(("gateway_closes_by_peer_total",)) == 2

        await until(has_closed)
        gauges = {"gateway_connections", "gateway_users", "gateway_channels", "gateway_subscriptions"}
        assert [name for name in await scrape(node) if name[0] in gauges] == []


async def test_a_scraper_that_asks_for_open_metrics_gets_them(node: RunningNode) -> None:
    answer = await ask(f"{node.internal_url}/metrics", headers={"Accept": "application/openmetrics-text;version=1.0.0"})
    assert (answer.status, answer.headers["content-type"]) == (200, OPEN_METRICS)
    assert answer.text.endswith("\n# EOF\n")


async def test_a_malformed_handshake_is_counted_and_logged_as_refused() -> None:
    """`gateway_connections_refused`: "Upgrade requests that were refused"."""
    async with running_node() as node:
        assert (await shake_hands(node, change={"Sec-WebSocket-Key": None})).status == 400
        assert [name for name in await scrape(node) if name[0] == "gateway_connections_refused_total"]
        assert [event["status"] for event in node.events if event["event"] == "refused"] == [400]


# Plain HTTP on the public port.


async def test_the_warm_up_endpoint_is_there_when_it_is_enabled(node: RunningNode) -> None:
    answer = await ask(f"{node.url}/connection/init")
    assert (answer.status, answer.text) == (200, "{}")
    async with running_node({"connection_init": {"enabled": False}}) as without:
        assert (await ask(f"{without.url}/connection/init")).status == 404


@pytest.mark.parametrize(
    "path", ["/connection/websocket", "/connection/websocket?format=json", "/ws", "/ws/a", "/ws/a/b"]
)
async def test_a_websocket_endpoint_asks_for_an_upgrade(path: str, node: RunningNode) -> None:
    answer = await ask(f"{node.url}{path}")
    assert answer.status == 426
    assert answer.headers["upgrade"] == "websocket"
    assert answer.text == "This is a WebSocket endpoint: connect with a WebSocket client (ws:// or wss://).\n"


@pytest.mark.parametrize("path", ["/nope", "/connection", "/connection/websocket/x", "/wsx", "/playground/../../x"])
async def test_elsewhere_there_is_nothing_but_help(path: str, node: RunningNode) -> None:
    answer = await ask(f"{node.url}{path}")
    assert answer.status == 404
    assert answer.text.startswith("Nothing here. WebSocket clients connect to /connection/websocket or /ws")


async def test_the_help_names_paths_as_a_user_would_write_them(node: RunningNode) -> None:
    help_text = (await ask(f"{node.url}/nope")).text
    assert "/ws/<channel>" in help_text
    assert "{" not in help_text


async def test_without_the_plain_protocol_its_paths_are_nothing() -> None:
    async with running_node({"plain": {"enabled": False}}) as node:
        answer = await ask(f"{node.url}/ws")
        assert (answer.status, "/ws" in answer.text) == (404, False)
        upgrade = await shake_hands(node, "/ws/lobby:a")
        assert (upgrade.status, "/ws" in upgrade.text) == (404, False)


async def test_the_playground_is_there_in_development_only() -> None:
    async with running_node({"playground": {"enabled": False}}) as node:
        assert (await ask(f"{node.url}/")).status == 404
        assert (await ask(f"{node.url}/playground/index.html")).status == 404


# Handshakes.

MALFORMED: list[tuple[Change, str]] = [
    ({"Sec-WebSocket-Key": None}, "missing Sec-WebSocket-Key"),
    ({"Sec-WebSocket-Key": "short"}, "invalid Sec-WebSocket-Key"),
    ({"Sec-WebSocket-Key": [HANDSHAKE["Sec-WebSocket-Key"]] * 2}, "invalid Sec-WebSocket-Key"),
    ({"Sec-WebSocket-Version": None}, "missing Sec-WebSocket-Version"),
    ({"Sec-WebSocket-Version": "8"}, "invalid Sec-WebSocket-Version header: 8"),
    ({"Sec-WebSocket-Version": "thirteen"}, "invalid Sec-WebSocket-Version"),
    ({"Origin": ["https://a.example", "https://b.example"]}, "one Origin header"),
]


@pytest.mark.parametrize(("change", "words"), MALFORMED, ids=[row[1] for row in MALFORMED])
async def test_a_malformed_handshake_is_400_with_a_sentence(change: Change, words: str, node: RunningNode) -> None:
    answer = await shake_hands(node, change=change)
    assert answer.status == 400
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert words in answer.text
    assert answer.text.endswith(".\n")
    assert "Traceback" not in answer.text


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
async def test_an_upgrade_by_another_method_is_405_with_a_sentence(method: str, node: RunningNode) -> None:
    """RFC 6455 4.1 wants GET, RFC 9110 15.5.6 wants `Allow`."""
    answer = await shake_hands(node, method=method, change={"Content-Length": "0"})
    assert (answer.status, answer.headers["allow"]) == (405, "GET")
    assert f"unsupported HTTP method: {method}" in answer.text


@pytest.mark.parametrize("target", ["/", "/nope", "/connection/websocket/", "/wsx", "/connection/http_stream"])
async def test_an_upgrade_at_a_wrong_path_is_404_and_named_the_right_ones(target: str, node: RunningNode) -> None:
    answer = await shake_hands(node, target)
    assert (answer.status, answer.text) == (
        404,
        "There is no WebSocket endpoint at this path; try /connection/websocket or /ws/<channel>.\n",
    )


async def test_refused_upgrades_leave_nothing_behind() -> None:
    async with running_node() as node:
        for _ in range(20):
            assert (await shake_hands(node, "/nope")).status == 404
            assert (await shake_hands(node, change={"Sec-WebSocket-Key": None})).status == 400
        assert node.node.connection_count() == 0


ORIGINS: list[tuple[list[str], dict[str | None, int]]] = [
    ([], {None: 101, "http://localhost": 403, "null": 403}),
    (["*"], {"https://whoever.example": 101, "null": 101}),
    (
        ["HTTPS://Example.com", "https://b.example"],
        {
            None: 101,
            "https://example.com": 101,
            "HTTPS://EXAMPLE.com": 101,
            "https://b.example": 101,
            "http://example.com": 403,
            "https://example.com:8443": 403,
            "https://example.com.evil.example": 403,
            "https://app.example.com": 403,
            "": 403,
        },
    ),
    (
        ["https://*.example.com", "http://localhost:*"],
        {
            "https://app.example.com": 101,
            "https://a.b.example.com": 101,
            "http://localhost:5173": 101,
            "https://example.com": 403,
            "https://evilexample.com": 403,
            "http://app.example.com": 403,
            "https://localhost:5173": 403,
        },
    ),
]


@pytest.mark.parametrize(("allowed", "expected"), ORIGINS, ids=[", ".join(row[0]) for row in ORIGINS])
async def test_only_allowed_origins_get_in(allowed: list[str], expected: dict[str | None, int]) -> None:
    async with running_node({"client": {"allowed_origins": allowed}}) as node:
        answers = {origin: await shake_hands(node, change={"Origin": origin}) for origin in expected}
        assert {origin: answer.status for origin, answer in answers.items()} == expected
        refused = [answer.text for answer in answers.values() if answer.status == 403]
        assert set(refused) <= {"This origin is not allowed here (setting client.allowed_origins).\n"}
        logged = [(each["reason"], each["status"]) for each in node.events if each["event"] == "refused"]
        assert logged == [("origin", 403)] * len(refused)


async def test_beyond_the_connection_limit_it_is_503_until_somebody_leaves() -> None:
    async with running_node({"client": {"connection_limit": 2}}) as node:
        async with client_of(node), connect(f"{node.ws_url}/ws/lobby:a"):
            with pytest.raises(InvalidStatus) as caught:
                async with connect(node.client_url):
                    pass
            response = caught.value.response
            assert (response.status_code, response.headers["Retry-After"]) == (503, "1")
            assert response.body == b"No new connections at the moment: connection_limit.\n"
            assert ("gateway_connections_refused_total", "connection_limit") in await scrape(node)

        async def is_empty() -> bool:
            return node.node.connection_count() == 0

        await until(is_empty)
        async with client_of(node):
            pass


async def test_beyond_the_connection_rate_it_is_503_until_time_has_passed() -> None:
    async with running_node({"client": {"connection_rate_limit": 1}}) as node:
        statuses = [(await shake_hands(node)).status for _ in range(20)]
        refused = statuses.count(503)
        assert statuses[0] == 101
        assert refused > 0, "twenty connections took twenty seconds"
        answer = await shake_hands(node)
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        node.clock.ahead_s += 2
        assert (await shake_hands(node)).status == 101


async def test_sockets_that_never_speak_count_for_nothing_and_hold_up_nothing() -> None:
    async with running_node({"client": {"connection_limit": 1}}) as node:
        writers = [(await asyncio.open_connection("127.0.0.1", node.port))[1] for _ in range(5)]
        async with client_of(node):
            pass
        node.node.stop()
    for writer in writers:
        writer.close()


# Tokens on the wire (protocol.md 5.2, 5.3): the rows that need a whole node.


@pytest.mark.parametrize(
    ("claims", "answer"),
    [
        ({"sub": "1", "channels": ["nope:a"]}, {"code": 102, "message": "unknown channel"}),
        ({"sub": "1", "subs": {"nope:a": {}}}, {"code": 102, "message": "unknown channel"}),
        ({"sub": "1", "exp": 1}, {"code": 109, "message": "token expired"}),
        ({"sub": "1", "expire_at": 1}, {"code": 110, "message": "expired"}),
        ({"sub": "1", "b64info": "***"}, {"code": 100, "message": "internal server error", "temporary": True}),
        ({"sub": "1", "channel": "a"}, (3500, "invalid token")),
        ({"sub": 1}, (3500, "invalid token")),
    ],
)
async def test_a_connection_token_that_does_not_do_is_answered_as_specified(
    claims: dict[str, Any], answer: dict[str, Any] | tuple[int, str], node: RunningNode
) -> None:
    async with connect(node.client_url, compression=None) as client:
        assert await _answer(client, {"id": 1, "connect": {"token": token_of(claims)}}) == answer


async def test_no_token_and_no_other_way_in_is_3501() -> None:
    closed = {"client": {"allow_anonymous_connect_without_token": False}}
    async with running_node(closed) as node, connect(node.client_url, compression=None) as client:
        assert await _answer(client, {"id": 1, "connect": {"token": ""}}) == (3501, "bad request")


@pytest.mark.parametrize(
    ("claims", "channel", "answer"),
    [
        ({"channel": "nope:a"}, "nope:a", {"code": 102, "message": "unknown channel"}),
        ({"channel": "lobby:a", "exp": 1}, "lobby:a", {"code": 109, "message": "token expired"}),
        ({"channel": "lobby:a", "expire_at": 1}, "lobby:a", {"code": 110, "message": "expired"}),
        ({}, "lobby:a", {"code": 103, "message": "permission denied"}),
        ({"channel": "lobby:b"}, "lobby:a", (3500, "invalid token")),
        ({"channel": "lobby:a", "sub": "7"}, "lobby:a", (3500, "invalid token")),
        ({"channel": "lobby:a", "client": "x"}, "lobby:a", (3500, "invalid token")),
    ],
)
async def test_a_subscription_token_that_does_not_do_is_answered_as_specified(
    claims: dict[str, Any], channel: str, answer: dict[str, Any] | tuple[int, str], node: RunningNode
) -> None:
    async with client_of(node, token_of({"sub": "42"})) as client:
        token = token_of({"sub": "42"} | claims)
        assert await _answer(client, {"id": 2, "subscribe": {"channel": channel, "token": token}}) == answer


async def test_info_in_base64_that_is_no_json_breaks_no_frame_of_others(node: RunningNode) -> None:
    broken = token_of({"sub": "42", "b64info": "bm8ganNvbg=="})
    async with client_of(node) as listener:
        await command(listener, {"id": 2, "subscribe": {"channel": "lobby:a"}})
        async with connect(node.client_url, compression=None) as publisher:
            await publisher.send(json.dumps({"id": 1, "connect": {"token": broken}}))
            await publisher.send(json.dumps({"id": 2, "publish": {"channel": "lobby:a", "data": 1}}))
            await publisher.recv()
        ours = {"id": 3, "publish": {"channel": "lobby:a", "data": 2}}
        await listener.send(json.dumps(ours))
        seen: list[Any] = []
        async with asyncio.timeout(_PATIENCE_S):
            while {"id": 3, "publish": {}} not in seen:
                seen += [json.loads(line) for line in str(await listener.recv()).splitlines()]


async def _answer(client: ClientConnection, value: dict[str, Any]) -> Any:
    """Send a command and return the error that it gets, or the code and reason of the close."""
    try:
        return (await command(client, value))["error"]
    except ConnectionClosed as closed:
        if closed.rcvd is None:
            raise AssertionError("the server sent no Close frame") from closed
        return closed.rcvd.code, closed.rcvd.reason


# TLS.


class Chain:
    """A certificate by way of an intermediate authority, and a client that trusts the root alone."""

    def __init__(self, folder: Path) -> None:
        root = trustme.CA()
        leaf = root.create_child_ca().issue_cert("127.0.0.1")
        cert, key = folder / "chain.pem", folder / "key.pem"
        cert.write_bytes(b"".join(each.bytes() for each in leaf.cert_chain_pems))
        leaf.private_key_pem.write_to_path(key)
        table = {"enabled": True, "cert_pem_file": str(cert), "key_pem_file": str(key)}
        self.tables: dict[str, Any] = {"http_server": {"tls": table}}
        self.context = ssl.create_default_context()
        root.configure_trust(self.context)


@pytest.fixture
def chain(tmp_path: Path) -> Chain:
    return Chain(tmp_path)


async def test_tls_serves_the_whole_chain_and_both_protocols(chain: Chain) -> None:
    async with running_node(chain.tables) as node:
        base = f"wss://127.0.0.1:{node.port}"
        async with connect(f"{base}/connection/websocket", ssl=chain.context, compression=None) as client:
            assert "connect" in await command(client, {"id": 1, "connect": {}})
            assert await command(client, {"id": 2, "subscribe": {"channel": "lobby:a"}}) == {"id": 2, "subscribe": {}}
            async with connect(f"{base}/ws/lobby:a", ssl=chain.context, compression=None) as plain:
                await plain.send('{"n":1}')
                for receiver in (plain, client):
                    assert '"n":1' in str(await receiver.recv())
        assert (await ask(f"{node.internal_url}/readyz")).status == 200, "the internal port stays plain HTTP"


async def test_over_tls_a_large_message_arrives_whole(chain: Chain) -> None:
    large = "x" * 60_000
    async with running_node(chain.tables) as node:
        uri = f"wss://127.0.0.1:{node.port}/ws/echo:a"
        async with connect(uri, ssl=chain.context, compression=None) as client:
            for _ in range(20):
                await client.send(large)
            for _ in range(20):
                assert await client.recv() == large


async def test_over_tls_a_drained_client_is_told_why(chain: Chain) -> None:
    async with running_node(chain.tables) as node:
        uri = f"wss://127.0.0.1:{node.port}/connection/websocket"
        async with connect(uri, ssl=chain.context, compression=None) as client:
            await command(client, {"id": 1, "connect": {}})
            node.node.stop()
            with pytest.raises(ConnectionClosed) as caught:
                await client.recv()
            assert caught.value.rcvd is not None
            assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (3001, "shutdown")


async def test_tls_before_1_2_is_refused_by_the_server(chain: Chain) -> None:
    async with running_node(chain.tables) as node:
        for version in (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1):
            with pytest.raises((ssl.SSLError, ConnectionResetError)) as caught:
                await _speak(node, chain.context, version)
            assert getattr(caught.value, "reason", "") != "NO_PROTOCOLS_AVAILABLE", "this side did not even try"
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            await _speak(node, chain.context, version)


async def _speak(node: RunningNode, context: ssl.SSLContext, version: ssl.TLSVersion) -> None:
    context.set_ciphers("ALL:@SECLEVEL=0")  # else this side would refuse old versions by itself
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.maximum_version = version
        context.minimum_version = version
    assert await _has_tls(node, context)


async def test_who_speaks_plain_http_to_a_tls_port_harms_nobody(chain: Chain) -> None:
    async with running_node(chain.tables) as node:
        reader, writer = await asyncio.open_connection("127.0.0.1", node.port)
        writer.write(_request_of(HANDSHAKE))
        async with asyncio.timeout(_PATIENCE_S):
            assert b"101" not in await reader.read()
        writer.close()
        assert await _has_tls(node, chain.context)


async def _has_tls(node: RunningNode, context: ssl.SSLContext) -> bool:
    async with connect(f"wss://127.0.0.1:{node.port}/ws/echo:a", ssl=context, compression=None) as client:
        await client.send("hello")
        return await client.recv() == "hello"
