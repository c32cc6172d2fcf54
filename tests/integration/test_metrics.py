"""What is documented is exposed, and the other way round: nodes go through everything, and their pages are read."""

import asyncio
import json
import socket
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
import pytest_asyncio
import trustme
from msgspec import Raw
from prometheus_client.parser import text_string_to_metric_families
from websockets.asyncio.client import ClientConnection, connect

from gateway.broker.redis.envelope import Envelope
from gateway.broker.redis.keys import Keys
from gateway.observability.metrics import FAMILIES
from gateway.protocol.codes import ErrorCode
from gateway.protocol.messages import Publication
from tests.support.backends import backend
from tests.support.nodes import SECRET, RunningNode, running_node
from tests.support.processes import ask
from tests.support.promtool import complaints, find_promtool
from tests.support.redis_servers import RedisServer, redis_server

_PATIENCE_S = 20
ALLOW: dict[str, Any] = {
    f"allow_{what}_for_{whom}": True
    for what in ("subscribe", "publish", "history", "presence")
    for whom in ("client", "anonymous")
}
STREAM = {"history_size": 100, "history_ttl": "1h", "force_recovery": True}
TABLE: dict[str, Any] = {
    "client": {
        "command_rate": 50,
        "command_burst": 50,
        "ping_interval": "1s",
        "pong_timeout": "900ms",
        "queue_max_size": 65_536,
        "connection_limit": 100,
        "channel_position_check_delay": "200ms",
        "subscribe_to_user_personal_channel": {"enabled": True, "single_connection": True},
    },
    "channel": {
        "without_namespace": ALLOW,
        "namespaces": [
            {"name": "st", **ALLOW, **STREAM},
            {"name": "room", **ALLOW, "presence": True, "join_leave": True, "force_push_join_leave": True},
            {
                "name": "patched",
                **ALLOW,
                "allow_tags_filter": True,
                "allowed_delta_types": ["fossil"],
                "delta_publish": True,
            },
            {"name": "any", **ALLOW, "publication_data_format": "any"},
        ],
    },
    "http_server": {"trusted_proxies": ["127.0.0.1"]},
    "http_api": {"key": "a key of the tests"},
    "node": {"announce_interval": "200ms"},
    "websocket": {"close_timeout": "200ms"},
    "shutdown": {"grace": "1s"},
    "drain": {"window": "5s"},
}
QUICK = {
    "watchdog_interval": "300ms",
    "timeout": "1s",
    "connect_timeout": "500ms",
    "reconnect_min_delay": "5ms",
    "reconnect_max_delay": "50ms",
    "unsubscribe_grace": "50ms",
}
ZERO = {
    "gateway_deliveries_queued": "a scrape comes between two turns of the loop, when nothing waits",
    "gateway_duplicates_total": "a publication has to overtake the read of its stream, which is a matter of luck",
}
"""What may stay 0 in all that is done here."""
ADD_UNHEARD = """
local offset = redis.call('HINCRBY', KEYS[1], 'o', 1)
return redis.call('XADD', KEYS[2], offset .. '-0', 'd', ARGV[1])
"""
"""Adds to a stream what no node is told of, in one step: who reads between two would find the first as a loss."""


class Pages:
    """What all scrapes together have shown."""

    def __init__(self) -> None:
        self.greatest: dict[str, float] = {}
        self.types: dict[str, str] = {}
        self.fullest = ""
        """The longest page of all."""

    async def read(self, node: RunningNode) -> dict[tuple[str, ...], float]:
        """Scrape *node* and return the samples of its own families, by name and labels' values."""
        answer = await ask(f"{node.internal_url}/metrics")
        assert answer.status == 200
        self.fullest = max(self.fullest, answer.text, key=len)
        found: dict[tuple[str, ...], float] = {}
        for family in text_string_to_metric_families(answer.text):
            if not family.name.startswith("gateway_"):
                continue
            exposed = f"{family.name}_total" if family.type == "counter" else family.name
            self.types[exposed] = family.type
            for sample in family.samples:
                found[sample.name, *(value for _, value in sorted(sample.labels.items()))] = sample.value
                self.greatest[exposed] = max(self.greatest.get(exposed, 0), sample.value)
        return found

    async def show(
        self,
        node: RunningNode,
        condition: Callable[[dict[tuple[str, ...], float]], bool],
        *,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> None:
        """Scrape *node* until *condition* holds, and do something *meanwhile*, before each look."""
        async with asyncio.timeout(_PATIENCE_S):
            while True:
                meanwhile()
                if condition(await self.read(node)):
                    return
                await asyncio.sleep(0.05)


def has(*wanted: str) -> Callable[[dict[tuple[str, ...], float]], bool]:
    """Return whether a sample with this name and these labels is above 0."""
    return lambda found: any(
        name[: len(wanted)] == wanted or (name[0] == wanted[0] and set(wanted[1:]) <= set(name[1:]))
        for name, value in found.items()
        if value
    )


class Client:
    """A client that answers pings, and remembers what it was told."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.lines: list[dict[str, Any]] = []
        self.reading = asyncio.create_task(self._read())
        self._numbers = iter(range(1, 10_000))

    async def _read(self) -> None:
        async for frame in self.socket:
            for line in str(frame).split("\n"):
                value = json.loads(line)
                self.lines.append(value)
                if not value:
                    await self.socket.send("{}")

    async def ask(self, **request: Any) -> dict[str, Any]:
        number = next(self._numbers)
        await self.socket.send(json.dumps({"id": number, **request}))
        async with asyncio.timeout(_PATIENCE_S):
            while True:
                for line in self.lines:
                    if line.get("id") == number:
                        return line
                await asyncio.sleep(0.005)

    async def heard(self, count: int) -> None:
        """Wait for so many publications."""
        async with asyncio.timeout(_PATIENCE_S):
            while sum("pub" in line.get("push", {}) for line in self.lines) < count:  # noqa: ASYNC110 - no event tells
                await asyncio.sleep(0.005)


@asynccontextmanager
async def client(node: RunningNode, user: str = "", *, tls: ssl.SSLContext | None = None, **more: Any) -> Any:
    url = node.client_url.replace("ws://", "wss://") if tls else node.client_url
    headers = more.pop("headers", {})
    async with connect(url, compression=None, max_queue=None, ssl=tls, additional_headers=headers) as raw:
        made = Client(raw)
        shown = {"token": jwt.encode({"sub": user}, SECRET, "HS256")} if user else {}
        assert "connect" in await made.ask(connect={**shown, **more})
        try:
            yield made
        finally:
            made.reading.cancel()


async def call(node: RunningNode, method: str, body: dict[str, Any], *, key: str = "a key of the tests") -> int:
    async with httpx.AsyncClient(timeout=_PATIENCE_S) as http:
        answer = await http.post(f"{node.internal_url}/api/{method}", json=body, headers={"X-API-Key": key})
        return answer.status_code


# What is done; each step waits for what it should show.

Step = Callable[[RunningNode, RunningNode, RedisServer, Pages], Awaitable[None]]


async def ordinary_life(node: RunningNode, other: RunningNode, _redis: RedisServer, pages: Pages) -> None:
    headers = {"X-Forwarded-For": "no address"}
    async with client(node, "ann", name="js", version="1.0", headers=headers) as ann, client(other) as bob:
        for each in (ann, bob):
            for channel in ("st:a", "room:a", "x"):
                assert "subscribe" in await each.ask(subscribe={"channel": channel})
        for number in range(3):
            for each in (ann, bob):
                assert "publish" in await each.ask(publish={"channel": "st:a", "data": number})
        await ann.heard(6)
        await bob.heard(6)
        await ann.ask(presence={"channel": "room:a"})
        await ann.ask(history={"channel": "st:a", "limit": 5})
        assert "error" in await ann.ask(publish={"channel": "nope:a", "data": 1})
        await pages.show(node, has("gateway_ping_pong_seconds_count"))
        await pages.show(node, has("gateway_presence_entries"))
        await pages.show(node, has("gateway_node_lag_seconds_count"))
        async with client(node) as late:
            reply = await late.ask(subscribe={"channel": "st:a"})
            epoch = reply["subscribe"]["epoch"]
            await late.ask(unsubscribe={"channel": "st:a"})
            reply = await late.ask(subscribe={"channel": "st:a", "recover": True, "epoch": epoch, "offset": 1})
            assert reply["subscribe"]["recovered"]
        await pages.show(node, has("gateway_closes_by_peer_total"))
        assert await call(node, "unsubscribe", {"user": "ann", "channel": "x"}) == 200
        await pages.show(node, has("gateway_unsubscribes_total"))
        assert await call(node, "channels", {}) == 200
        assert await call(node, "channels", {}, key="wrong") == 401
        for _ in range(2):
            body = {"channel": "st:a", "data": 1, "idempotency_key": "one"}
            assert await call(node, "publish", body) == 200
        await pages.show(node, has("gateway_publishes_suppressed_total"))


async def patches_and_filters(node: RunningNode, _other: RunningNode, _redis: RedisServer, pages: Pages) -> None:
    async with client(node) as ann, client(node) as bob:
        assert (await ann.ask(subscribe={"channel": "patched:a", "delta": "fossil"}))["subscribe"]["delta"]
        nothing = {"key": "a", "cmp": "ex"}
        assert "subscribe" in await bob.ask(subscribe={"channel": "patched:a", "tf": nothing})
        for number in range(2):
            await ann.ask(publish={"channel": "patched:a", "data": {"text": "x" * 100, "n": number}})
        await pages.show(node, has("gateway_patches_total"))
        await pages.show(node, has("gateway_deliveries_filtered_total"))


async def strangers(node: RunningNode, _other: RunningNode, _redis: RedisServer, pages: Pages) -> None:
    assert (await ask(f"{node.url}/nope")).status == 404
    with pytest.raises(Exception, match="404"):
        async with connect(f"{node.ws_url}/nope"):
            pass
    async with connect(node.client_url, compression=None) as raw:
        await raw.send(json.dumps({"id": 1, "connect": {"token": "no.token.atall"}}))
        await raw.wait_closed()
    async with client(node) as eager:
        for _ in range(60):
            await eager.socket.send(json.dumps({"id": 9, "rpc": {"method": "ping"}}))
        await pages.show(node, has("gateway_limit_hits_total", "command_rate"))


async def slow_reader(node: RunningNode, _other: RunningNode, _redis: RedisServer, pages: Pages) -> None:
    """It reads nothing; what waits for it is seen while it waits, and when it overflows."""
    narrow = socket.socket()
    narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    narrow.settimeout(0)
    await asyncio.get_running_loop().sock_connect(narrow, ("127.0.0.1", node.port))
    reader, writer = await asyncio.open_connection(sock=narrow, limit=1024)
    try:
        key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13"
        head = f"GET /ws/x HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{key}\r\n\r\n"
        writer.write(head.encode())
        assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
        transport: Any = writer.transport
        transport.pause_reading()
        channel = node.node.services.channels.resolve("x")
        assert not isinstance(channel, ErrorCode)

        def publish() -> None:
            node.node.services.publisher.publish(channel, Raw(b'"%b"' % (b"x" * 1_000_000)), None)

        book, published = node.node.counts.ledger(channel.namespace), 0
        before = book.delivered

        def fill() -> None:
            """Publish one more once the kernel has taken all before it."""
            nonlocal published
            is_waiting = any(each.transport.waiting for each in node.node.connections)
            if book.delivered == before + published and not is_waiting:
                published += 1
                publish()

        # The kernel takes some megabytes, then the outbox one message, and the next is too much.
        await pages.show(node, has("gateway_outbox_bytes"), meanwhile=fill)
        assert pages.greatest["gateway_connections_congested"] == 1
        await pages.show(node, has("gateway_deliveries_dropped_total", "slow"), meanwhile=publish)
        await pages.show(node, has("gateway_outboxes_lost_total", "timeout"))
    finally:
        writer.transport.abort()


async def admin(node: RunningNode, other: RunningNode, redis: RedisServer, pages: Pages) -> None:
    del other, redis
    headers = {"Origin": node.internal_url}
    async with httpx.AsyncClient(base_url=node.internal_url, headers=headers) as http:
        login = await http.post("/admin/login", data={"key": TABLE["http_api"]["key"]})
    url = node.internal_url.replace("http", "ws") + "/admin/connection/websocket"
    headers["Cookie"] = login.headers["set-cookie"].split(";")[0]
    async with connect(url, additional_headers=headers, compression=None):
        await pages.show(node, has("gateway_admin_connections"))
        await pages.show(node, has("gateway_admin_logins_total", "accepted"))


async def outage(node: RunningNode, other: RunningNode, redis: RedisServer, pages: Pages) -> None:
    async with client(node, "ann") as ann, client(other, "bob") as bob:
        for each in (ann, bob):
            await each.ask(subscribe={"channel": "st:b"})
            await each.ask(subscribe={"channel": "room:a"})
        await bob.ask(publish={"channel": "st:b", "data": 1})
        await ann.heard(1)
        await redis.execute("SCRIPT", "FLUSH")
        await bob.ask(publish={"channel": "st:b", "data": 2})
        await pages.show(other, has("gateway_redis_repeated_total"))
        keys = Keys("gateway").of("st:b")
        await redis.execute("PUBLISH", keys.name, b"no envelope")
        await pages.show(node, has("gateway_redis_undecodable_total"))
        await redis.execute("PUBLISH", Keys("gateway").control, b"nobody\n\xc1")
        await pages.show(node, has("gateway_control_messages_ignored_total"))
        await redis.execute("CLIENT", "KILL", "TYPE", "pubsub")
        await pages.show(node, has("gateway_interruptions_total"))
        # Once this has come, nothing is read any more; then a publication that never came, and one behind it.
        await bob.ask(publish={"channel": "st:b", "data": 3})
        await ann.heard(3)
        body = Envelope("a node that is not there").encode(Publication(data=Raw(b"4")), 0.0)
        await redis.execute("EVAL", ADD_UNHEARD, "2", keys.meta, keys.stream, body)
        await bob.ask(publish={"channel": "st:b", "data": 5})
        await pages.show(node, has("gateway_caught_up_total"))
        await pages.show(node, has("gateway_stream_gaps_total"))
        await redis.execute("FLUSHALL")
        await pages.show(node, has("gateway_positions_lost_total"))
        await redis.execute("SET", keys.stream, "no stream")
        await bob.ask(publish={"channel": "st:b", "data": 6})
        await pages.show(other, has("gateway_redis_refused_total"))
        await asyncio.to_thread(redis.kill)
        await ann.ask(unsubscribe={"channel": "room:a"})
        await pages.show(node, has("gateway_presence_failures_total"))
        await pages.show(node, has("gateway_redis_errors_total", "unreachable"))
        await asyncio.to_thread(redis.restart, keep_data=False)
        await pages.show(node, has("gateway_broker_up"))


@asynccontextmanager
async def keys_that_nobody_serves() -> AsyncIterator[RunningNode]:
    key_set = {"client": {"token": {"jwks_public_endpoint": "http://127.0.0.1:1/keys"}}}
    async with running_node(TABLE, key_set) as node:
        yield node


async def key_set(pages: Pages) -> None:
    from cryptography.hazmat.primitives.asymmetric import ed25519  # noqa: PLC0415 - for this one token

    token = jwt.encode({"sub": "1"}, ed25519.Ed25519PrivateKey.generate(), "EdDSA", headers={"kid": "k"})
    async with keys_that_nobody_serves() as node, connect(node.client_url, compression=None) as raw:
        await raw.send(json.dumps({"id": 1, "connect": {"token": token}}))
        await pages.show(node, has("gateway_key_set_failures_total"))


async def tls_and_drain(folder: Path, pages: Pages) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    certificate.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    certificate.private_key_pem.write_to_path(folder / "key.pem")
    trust = ssl.create_default_context()
    authority.configure_trust(trust)
    files = {"cert_pem_file": str(folder / "cert.pem"), "key_pem_file": str(folder / "key.pem")}
    async with (
        running_node(TABLE, {"http_server": {"tls": {"enabled": True, **files}}}) as node,
        client(node, tls=trust),
        client(node, tls=trust),
    ):
        await pages.read(node)
        node.node.drain()
        await pages.show(node, has("gateway_drain_sent_away_total"))


async def proxies(pages: Pages) -> None:
    """One call hangs and another waits behind it; a backend that is not there is left in peace."""
    nowhere = {"name": "nowhere", "endpoint": "http://127.0.0.1:1/", "breaker": {"failures": 1, "pause": "30s"}}
    async with backend({"/": b""}) as server:
        rpc = {
            "proxy": {"endpoint": server.url(), "concurrency_limit": 1, "timeout": "30s"},
            "without_namespace": {"proxy_enabled": True},
            "namespaces": [{"name": "nowhere", "proxy_enabled": True, "proxy_name": "nowhere"}],
        }
        async with (
            running_node(TABLE, {"proxies": [nowhere], "rpc": rpc}) as node,
            client(node) as ann,
            client(node) as bob,
            client(node) as eve,
        ):
            calls = [asyncio.create_task(each.ask(rpc={"method": "m"})) for each in (ann, bob)]
            await eve.ask(rpc={"method": "nowhere:m"})
            await pages.show(node, has("gateway_proxy_breaker_state"))
            await pages.show(node, has("gateway_proxy_calls_in_flight"))
            await pages.show(node, has("gateway_proxy_calls_waiting"))
            for call in calls:
                call.cancel()


async def everything(folder: Path) -> Pages:
    pages = Pages()
    async with redis_server(persistent=True) as redis:
        tables = (TABLE, {"broker": {"type": "redis"}, "redis": {"address": redis.location, **QUICK}})
        async with running_node(*tables) as node, running_node(*tables) as other:
            for step in (ordinary_life, patches_and_filters, strangers, slow_reader, admin, outage):
                await step(node, other, redis, pages)
    await key_set(pages)
    await proxies(pages)
    await tls_and_drain(folder, pages)
    return pages


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pages(tmp_path_factory: pytest.TempPathFactory) -> Pages:
    return await everything(tmp_path_factory.mktemp("certificate"))


@pytest.mark.timeout(180)
@pytest.mark.asyncio(loop_scope="module")
async def test_every_documented_metric_is_seen_with_a_value_and_nothing_else_is_exposed(pages: Pages) -> None:
    documented = {family.exposed_name: str(family.kind) for family in FAMILIES}
    assert pages.types == documented
    assert {name for name in documented if name not in pages.greatest} == set(), "no sample at all"
    assert {name for name in documented if not pages.greatest.get(name)} <= set(ZERO)


@pytest.mark.timeout(180)
@pytest.mark.asyncio(loop_scope="module")
async def test_promtool_has_nothing_against_what_is_exposed(pages: Pages) -> None:
    promtool = await asyncio.to_thread(find_promtool)
    if promtool is None:
        pytest.skip("there is no promtool, and no Debian package to take it from")
    assert await asyncio.to_thread(complaints, promtool, pages.fullest) == ""


def test_no_name_is_documented_twice() -> None:
    assert [name for name, times in Counter(each.exposed_name for each in FAMILIES).items() if times > 1] == []
