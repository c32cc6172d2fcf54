"""The gateway inside somebody else's application, under uvicorn and under a strict server without sockets."""

import asyncio
import io
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any

import httpx
import pytest
from centrifuge import Client, PublicationContext, SubscriptionEventHandler
from fastapi import Depends, FastAPI
from starlette.applications import Starlette
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from gateway.api.keys import HTTPAPISettings
from gateway.asgi import GatewayApp, LifespanError, create_app
from gateway.config import development, load, merge
from gateway.observability.heartbeats import LOOKS_EVERY_S
from gateway.observability.logs import Format, Level, LogSettings, make_logger
from gateway.protocol import codes
from gateway.publisher import AsyncPublisher, PublishRejectedError, Receipt, UnavailableError, publisher_of
from tests.support.asgi_servers import Served, StrictServer, served
from tests.support.nodes import running_node
from tests.support.redis_servers import redis_server
from tests.support.streams import HTTP_STREAM, SSE, connected, emulate
from tests.support.waiting import until

OPEN = {
    "allow_subscribe_for_client": True,
    "allow_subscribe_for_anonymous": True,
    "allow_publish_for_client": True,
    "allow_publish_for_anonymous": True,
}
STREAMS: dict[str, Any] = {"history_size": 10, "history_ttl": 60, "force_recovery": True}
TABLES: dict[str, Any] = {
    "client": {"allowed_origins": ["https://a.example"]},
    "channel": {
        "namespaces": [
            {"name": "lobby", **OPEN, "processors": ["server_time"]},
            {"name": "raw", **OPEN},
            {"name": "binary", **OPEN, "publication_data_format": "binary"},
            {"name": "echo", **OPEN, "handler": "echo"},
            {"name": "objects", **OPEN, "publication_data_format": "json_object"},
            {"name": "chat", **OPEN, **STREAMS},
        ]
    },
}
SERVERS = [
    "websockets-sansio",
    pytest.param(
        "websockets",
        marks=[
            pytest.mark.filterwarnings("ignore:websockets.legacy is deprecated"),
            pytest.mark.filterwarnings("ignore:remove second argument of ws_handler"),
            pytest.mark.filterwarnings("ignore:.*WebSocketServerProtocol is deprecated"),
            pytest.mark.filterwarnings("ignore:The `websockets` implementation is deprecated"),
        ],
    ),
]


class Embedded:
    """A gateway in an application, and what it has logged."""

    def __init__(self, *tables: dict[str, Any]) -> None:
        values = development()
        for table in (TABLES, *tables):
            values = merge(values, table)
        self._log = io.StringIO()
        log = make_logger(LogSettings(level=Level.DEBUG, format=Format.JSON), node="test", stream=self._log)
        self.gateway = create_app(load(base=values), log=log)

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._log.getvalue().splitlines()]

    @asynccontextmanager
    async def living(self) -> AsyncIterator[GatewayApp]:
        """Run the lifespan alone; errors in the log and what is left behind fail the test."""
        async with self.gateway.lifespan():
            runtime = self.gateway.runtime
            yield self.gateway
        assert (len(runtime.connections), len(runtime.hub)) == (0, 0)
        assert not [event for event in self.events if event["level"] == "error"]


@pytest.fixture
def embedded() -> Embedded:
    return Embedded()


def application(gateway: GatewayApp) -> FastAPI:
    """Return an application with a route of its own, the gateway below a prefix, and its internal pages."""
    app = FastAPI(lifespan=gateway.lifespan)

    @app.post("/news")
    async def post_news(
        news: dict[str, Any], publisher: Annotated[AsyncPublisher, Depends(publisher_of(gateway.publisher))]
    ) -> Receipt:
        return await publisher.publish("chat:news", news)

    app.mount("/live", gateway)
    app.mount("/internal", gateway.internal)
    return app


@pytest.fixture(params=SERVERS)
async def server(request: pytest.FixtureRequest, embedded: Embedded) -> AsyncIterator[Served]:
    async with served(application(embedded.gateway), ws=request.param) as running:
        yield running


class Heard(SubscriptionEventHandler):
    def __init__(self) -> None:
        self.publications: list[Any] = []

    async def on_publication(self, ctx: PublicationContext) -> None:
        self.publications.append((ctx.pub.offset, ctx.pub.data))


async def test_routes_and_sockets_live_in_one_process(server: Served) -> None:
    client = Client(f"{server.ws_url}/live/connection/websocket", proxy=None)
    await client.connect()
    heard = Heard()
    subscription = client.new_subscription("chat:news", events=heard)
    await subscription.subscribe()
    await subscription.ready()

    async with httpx.AsyncClient(base_url=server.url, trust_env=False) as http:
        first = await http.post("/news", json={"text": "one"})
        await subscription.publish({"text": "two"})
        second = await http.post("/news", json={"text": "three"})
        ready = await http.get("/internal/readyz")
        metrics = await http.get("/internal/metrics")
        lost = await http.get("/live/ws")

    await until(lambda: len(heard.publications) == 3, f"three publications, not {heard.publications}")
    assert heard.publications == [(1, {"text": "one"}), (2, {"text": "two"}), (3, {"text": "three"})]
    epoch = first.json()[1]
    assert (first.json(), second.json()) == ([1, epoch, False], [3, epoch, False])
    assert (ready.status_code, ready.text) == (200, "ok\n")
    assert 'gateway_publications_received_total{namespace="chat"} 3.0' in metrics.text
    assert lost.status_code == 426
    await client.disconnect()
    await until(lambda: not client._background_tasks, "the SDK's tasks end")  # noqa: SLF001 - it offers no wait


async def test_clients_without_a_websocket_are_served_below_the_prefix(embedded: Embedded, server: Served) -> None:
    for path in (HTTP_STREAM, SSE):
        async with (
            connected(server.url, path=f"/live{path}") as stream,
            connected(server.url, path=f"/live{SSE}") as other,
        ):
            own = server.url + "/live"
            assert await emulate(own, stream, {"id": 2, "subscribe": {"channel": "raw:a"}}) == 204
            assert await stream.message() == {"id": 2, "subscribe": {}}
            assert await emulate(own, other, {"id": 2, "publish": {"channel": "raw:a", "data": 1}}) == 204
            assert await other.message() == {"id": 2, "publish": {}}
            assert (await stream.message())["push"]["pub"]["data"] == 1
            for conversation in embedded.gateway.runtime.connections:
                conversation.disconnect(codes.FORCE_RECONNECT)
            assert await stream.rest() == [{"push": {"disconnect": {"code": 3011, "reason": "force reconnect"}}}]
        await until(lambda: len(embedded.gateway.runtime.connections) == 0)
        async with connected(server.url, path=f"/live{path}") as stream:
            stream.leave()
            await until(lambda: len(embedded.gateway.runtime.connections) == 0)
    async with httpx.AsyncClient(base_url=server.url, trust_env=False) as http:
        assert (await http.post("/live/emulation", content=b"{}")).status_code == 404
        assert (await http.get(f"/live{HTTP_STREAM}")).status_code == 405
        refused = await http.post(f"/live{HTTP_STREAM}", headers={"Origin": "https://b.example"}, content=b"{}")
        assert refused.status_code == 403


async def test_the_admin_page_is_there_below_the_prefix(embedded: Embedded, server: Served) -> None:
    key = "a key of the tests"
    embedded.gateway.runtime.api_keys.change(HTTPAPISettings(key=key))
    async with httpx.AsyncClient(base_url=server.url, trust_env=False, headers={"Origin": server.url}) as http:
        login = await http.post("/internal/admin/login", data={"key": key})
        page = await http.get("/internal/admin")
        script = await http.get("/internal/admin/static/overview.js")
    assert (login.status_code, login.headers["location"]) == (303, "/internal/admin")
    assert "Path=/internal/admin" in login.headers["set-cookie"]
    assert (page.status_code, script.status_code) == (200, 200)
    assert '<script type="module" src="/internal/admin/static/overview.js">' in page.text
    headers = {"Origin": server.url, "Cookie": login.headers["set-cookie"].split(";")[0]}
    url = f"{server.ws_url}/internal/admin/connection/websocket"
    async with connect(url, additional_headers=headers, compression=None) as socket:
        await socket.send('{"id":1,"connect":{"token":"session"}}\n{"id":2,"rpc":{"method":"overview","data":{}}}')
        assert "connect" in json.loads(await socket.recv())
        overview = json.loads(await socket.recv())["rpc"]["data"]["result"]
        assert [each["node"]["num_clients"] for each in overview["nodes"]] == [0]
    with pytest.raises(InvalidStatus):
        await connect(url, additional_headers={"Origin": server.url})


async def test_a_stopping_server_sends_its_clients_away_with_its_own_code(server: Served) -> None:
    async with connect(f"{server.ws_url}/live/ws/raw:a", compression=None) as client:
        await client.send('{"a":1}')
        assert await client.recv() == '{"a":1}'
        server.stop()
        with pytest.raises(ConnectionClosed):
            await client.recv()
    assert client.close_code == 1012


@pytest.mark.parametrize(
    ("path", "headers", "status", "text"),
    [
        ("/live/nope", {}, 404, "There is no WebSocket endpoint at this path; try /connection/websocket"),
        ("/live/ws/raw:a", {"Origin": "https://b.example"}, 403, "This origin is not allowed here"),
        ("/live/connection/websocket", {"Origin": "null"}, 403, "This origin is not allowed here"),
    ],
)
async def test_who_may_not_connect_is_told_why_in_http(
    server: Served, embedded: Embedded, path: str, headers: dict[str, str], status: int, text: str
) -> None:
    with pytest.raises(InvalidStatus) as refused:
        await connect(server.ws_url + path, additional_headers=headers)

    response = refused.value.response
    assert (response.status_code, (response.body or b"")[: len(text)].decode()) == (status, text)
    assert sum(embedded.gateway.runtime.counts.connections_refused.values()) == 1


async def test_a_full_node_says_when_to_come_back() -> None:
    embedded = Embedded({"client": {"connection_limit": 1}})
    async with served(application(embedded.gateway)) as server, connect(f"{server.ws_url}/live/ws/raw:a"):
        with pytest.raises(InvalidStatus) as refused:
            await connect(f"{server.ws_url}/live/ws/raw:a")

    response = refused.value.response
    assert (response.status_code, response.headers["Retry-After"]) == (503, "1")
    assert [(event["reason"], event["status"]) for event in embedded.events if event["event"] == "refused"] == [
        ("connection_limit", 503)
    ]


# What a client says, and how many messages come back; the answers must be those of a node.
EXCHANGES: dict[str, tuple[str, list[tuple[str | bytes, int]]]] = {
    "connect and subscribe": (
        "/connection/websocket",
        [('{"id":1,"connect":{}}\n{"id":2,"subscribe":{"channel":"chat:a"}}', 2)],
    ),
    "publish": (
        "/connection/websocket",
        [
            ('{"id":1,"connect":{}}\n{"id":2,"subscribe":{"channel":"chat:a"}}', 2),
            ('{"id":3,"publish":{"channel":"chat:a","data":{"x": 1.0}}}', 2),
        ],
    ),
    "commands in a binary message": ("/connection/websocket", [(b'{"id":1,"connect":{}}', 1)]),
    "errors": (
        "/connection/websocket",
        [
            ('{"id":1,"connect":{}}', 1),
            ('{"id":2,"subscribe":{"channel":"nope:a"}}\n{"id":3,"publish":{"channel":"objects:a","data":1}}', 2),
        ],
    ),
    "not connected first": ("/connection/websocket", [('{"id":2,"subscribe":{"channel":"chat:a"}}', 0)]),
    "broken JSON": ("/connection/websocket", [("{", 0)]),
    "too long": ("/connection/websocket", [('"' + "x" * 65536, 0)]),
    "pong unasked": ("/connection/websocket", [('{"id":1,"connect":{}}', 1), ("{}", 0)]),
    "plain": ("/ws/raw:a", [('{"spelled" :  1.0}', 1), ("no JSON", 1), (b"no text", 1)]),
    "plain, the default channel": ("/ws", [("[1,\n2]", 1)]),
    "plain, a processor": ("/ws/lobby:a", [('{"x":1}', 1), ("1", 1)]),
    "plain, a channel by query": ("/ws?channel=raw:b", [('"é"', 1)]),
    "plain, a quoted channel": ("/ws/raw%3Aa%2Fb%3F", [("1", 1)]),
    "plain, binary": ("/ws/binary:a", [(b"\x93NUMPY\xff\x00", 1), (b"", 1), ("text", 1)]),
    "plain, a handler": ("/ws/echo:a", [("any text", 1), (b"\xff\xfe", 1)]),
    "plain, unknown channel": ("/ws/nope:a", [("", 0)]),
    "plain, bad token": ("/ws/raw:a", [('{"token":"a.b.c"}', 0)]),
}
VARYING = [
    (re.compile(r'"client":"[-0-9a-f]{36}"'), '"client":"…"'),
    (re.compile(r'"epoch":"\w{8}"'), '"epoch":"…"'),
    (re.compile(r'"server_time":[0-9.]+'), '"server_time":…'),
]


async def converse(url: str, exchange: list[tuple[str | bytes, int]]) -> list[Any]:
    """Hold one conversation; return the messages, taken apart, and how it ended if it did."""
    answers: list[Any] = []
    async with connect(url, compression=None) as client:
        try:
            for message, count in exchange:
                await client.send(message)
                wanted = len(answers) + count
                while len(answers) < wanted or not count:
                    answers += split(await client.recv())
        except ConnectionClosed as end:
            answers.append(end.rcvd and (end.rcvd.code, end.rcvd.reason))
    # A push may come before or behind the reply to what brought it about.
    return sorted(answers, key=str)


def split(frame: str | bytes) -> list[str | bytes]:
    if isinstance(frame, bytes):
        return [frame]
    for pattern, instead in VARYING:
        frame = pattern.sub(instead, frame)
    return list(frame.split("\n")) if '"push"' in frame or '"id"' in frame else [frame]


async def test_a_client_is_answered_as_a_node_answers(embedded: Embedded) -> None:
    async with running_node(TABLES) as node:
        expected = {name: await converse(node.ws_url + path, said) for name, (path, said) in EXCHANGES.items()}
    async with served(application(embedded.gateway)) as server:
        url = f"{server.ws_url}/live"
        answers = {name: await converse(url + path, said) for name, (path, said) in EXCHANGES.items()}

    assert all(expected.values()), "an exchange that shows nothing"
    assert answers == expected


async def speak(gateway: GatewayApp, **scope: Any) -> StrictServer:
    """Open a connection that has joined `chat:a`."""
    client = StrictServer(gateway, **scope)
    client.say('{"id":1,"connect":{}}')
    client.say('{"id":2,"subscribe":{"channel":"chat:a"}}')
    await client.told(3)
    return client


async def test_a_slow_reader_harms_itself_alone(embedded: Embedded) -> None:
    async with embedded.living() as gateway:
        slow, quick = await speak(gateway), await speak(gateway)
        slow.is_taking.clear()
        for number in range(20):
            await gateway.publisher.publish("chat:a", "x" * 100_000)
            await quick.told(4 + number)
        slow.is_taking.set()
        await slow.ended()

        assert slow.sent[-1] == {"type": "websocket.close", "code": 3008, "reason": "slow"}
        assert len(quick.sent) == 23
        ledger = gateway.runtime.counts.ledger("chat")
        assert (ledger.published, ledger.received) == (20, 20)
        assert ledger.due == ledger.delivered + sum(ledger.dropped.values())
        assert ledger.dropped == {"slow": 1}
        quick.leave()
        await quick.ended()


async def test_connections_share_what_is_encoded_for_them(embedded: Embedded) -> None:
    async with embedded.living() as gateway:
        clients = [await speak(gateway) for _ in range(3)]

        channel = gateway.runtime.hub.get("chat:a")
        assert channel is not None
        assert [len(group) for group in channel.groups.values()] == [3]
        for client in clients:
            client.leave()
            await client.ended()


async def test_who_is_left_at_the_end_is_sent_away(embedded: Embedded) -> None:
    async with embedded.living() as gateway:
        sdk, plain = await speak(gateway), StrictServer(gateway, "/ws/raw:a")
        plain.say("1")
        await plain.told(2)
    await sdk.ended()
    await plain.ended()

    assert sdk.sent[-1] == {"type": "websocket.close", "code": 3001, "reason": "shutdown"}
    assert plain.sent[-1] == {"type": "websocket.close", "code": 1001, "reason": "shutdown"}


async def test_a_drain_sends_everybody_away_and_leaves_the_application_running(embedded: Embedded) -> None:
    async with embedded.living() as gateway:
        clients = [await speak(gateway) for _ in range(3)]
        gateway.runtime.drain()
        for client in clients:
            await client.ended()
        late = StrictServer(gateway, "/connection/websocket")
        await late.ended()
        assert gateway.runtime.unready_because() == "draining"
        assert gateway.is_running
    assert [client.sent[-1]["code"] for client in clients] == [3001] * 3
    assert [message["type"] for message in late.sent] == ["websocket.close"]


async def test_a_plain_client_is_not_asked_for_pongs_that_asgi_does_not_carry() -> None:
    quick = Embedded({"client": {"ping_interval": "300ms", "pong_timeout": "100ms"}})
    async with quick.living() as gateway:
        plain, sdk = StrictServer(gateway, "/ws/raw:a"), await speak(gateway)
        await sdk.told(4)
        assert sdk.sent[3] == {"type": "websocket.send", "text": "{}"}
        await sdk.ended()

        assert sdk.sent[-1] == {"type": "websocket.close", "code": 3012, "reason": "no pong"}
        plain.say("1")
        assert await plain.texts(1) == ["1"]
        plain.leave()
        await plain.ended()


async def test_it_can_be_served_by_itself_and_more_than_once(embedded: Embedded) -> None:
    for _ in range(2):
        async with served(embedded.gateway) as server, connect(f"{server.ws_url}/ws/raw:a") as client:
            await client.send("1")
            assert await client.recv() == "1"
    assert not [event for event in embedded.events if event["level"] == "error"]


async def test_starlette_and_the_roots_path_do_too(embedded: Embedded) -> None:
    app = Starlette(lifespan=embedded.gateway.lifespan)
    app.mount("/", embedded.gateway)
    async with served(app, root_path="/behind/a/proxy") as server, connect(f"{server.ws_url}/ws/raw:a") as client:
        await client.send("1")
        assert await client.recv() == "1"


async def test_without_its_lifespan_every_use_says_what_is_missing(embedded: Embedded) -> None:
    gateway, sentence = embedded.gateway, "FastAPI(lifespan=gateway.lifespan)"
    uses: list[Callable[[], Any]] = [
        lambda: gateway({"type": "websocket", "path": "/ws"}, _never, _never),
        lambda: gateway.internal({"type": "http", "path": "/readyz"}, _never, _never),
        lambda: gateway.publisher.publish("raw:a", 1),
    ]

    assert not gateway.is_running
    for use in uses:
        with pytest.raises((LifespanError, UnavailableError)) as error:
            await use()
        assert sentence in str(error.value)
        assert "\n" not in str(error.value)


async def test_one_lifespan_at_a_time(embedded: Embedded) -> None:
    async with embedded.living() as gateway:
        with pytest.raises(LifespanError, match="runs already"):
            async with gateway.lifespan():
                raise AssertionError("two of them")


@pytest.mark.parametrize("end", [RuntimeError, asyncio.CancelledError])
async def test_a_lifespan_that_an_error_ends_leaves_no_timer_behind_that_looks_after_the_node(
    embedded: Embedded, end: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[None] = []

    async def fail() -> None:
        async with embedded.gateway.lifespan():
            monkeypatch.setattr(embedded.gateway.runtime.vitals, "look", lambda: looks.append(None))
            await until(lambda: bool(looks), "somebody looks")
            raise end

    with pytest.raises((ExceptionGroup, asyncio.CancelledError)):
        await fail()
    looks.clear()
    await asyncio.sleep(2 * LOOKS_EVERY_S)
    assert (looks, embedded.gateway.is_running) == ([], False)


async def test_a_lifespan_whose_end_is_cut_short_does_not_keep_the_next_one_from_running(
    embedded: Embedded, monkeypatch: pytest.MonkeyPatch
) -> None:
    parting = asyncio.Event()

    async def part_for_ever(*_: Any, **_options: Any) -> None:
        parting.set()
        await asyncio.Event().wait()

    async def live() -> None:
        async with embedded.gateway.lifespan():
            monkeypatch.setattr(embedded.gateway.runtime, "part_with_clients", part_for_ever)

    living = asyncio.create_task(live())
    await parting.wait()
    living.cancel()
    with pytest.raises(asyncio.CancelledError):
        await living
    async with embedded.living() as gateway:
        assert gateway.is_running


async def test_a_kind_of_scope_that_nobody_knows_is_refused(embedded: Embedded) -> None:
    with pytest.raises(AssertionError, match="webtransport"):
        await embedded.gateway({"type": "webtransport"}, _never, _never)


async def _never(*_: Any) -> Any:
    raise AssertionError("not called")


async def test_its_own_publisher_checks_as_a_node_does(embedded: Embedded) -> None:
    async with embedded.living() as gateway:
        with pytest.raises(PublishRejectedError, match="channel 'objects:a'") as refused:
            await gateway.publisher.broadcast(["chat:a", "objects:a"], 1)
        first = await gateway.publisher.publish("chat:a", 1, idempotency_key="k")
        again = await gateway.publisher.publish("chat:a", 2, idempotency_key="k")
        await gateway.publisher.close()
        both = await gateway.publisher.broadcast(["chat:a", "raw:a"], 3)

        assert refused.value.error.code == 107
        assert (first.offset, again) == (1, first._replace(is_suppressed=True))
        assert both == [Receipt(2, first.epoch), Receipt()]
        ledgers = gateway.runtime.counts
        assert (ledgers.ledger("chat").published, ledgers.ledger("raw").published) == (3, 1)


async def test_applications_on_one_redis_are_one_system() -> None:
    async with redis_server() as redis:
        tables = {
            "broker": {"type": "redis"},
            "redis": {"address": redis.location, "timeout": "300ms", "watchdog_interval": "100ms"},
        }
        async with Embedded(tables).living() as here, Embedded(tables).living() as there:
            await until(lambda: here.runtime.engine.trouble is there.runtime.engine.trouble is None, "Redis is reached")
            client = await speak(there)
            receipt = await here.publisher.publish("chat:a", {"x": 1})
            assert json.loads((await client.texts(3))[2])["push"]["pub"] == {
                "data": {"x": 1},
                "offset": receipt.offset,
                "epoch": receipt.epoch,
            }
            client.leave()
            await client.ended()

            redis.freeze()
            with pytest.raises(UnavailableError, match="channel 'chat:a'"):
                await here.publisher.publish("chat:a", {"x": 2})
            redis.thaw()


async def test_an_engine_that_is_none_takes_no_connections_and_says_why() -> None:
    async with redis_server(password="right") as redis:
        embedded = Embedded({"broker": {"type": "redis"}, "redis": {"address": redis.location, "password": "wrong"}})
        async with embedded.gateway.lifespan():
            gateway = embedded.gateway
            await until(lambda: gateway.runtime.fault is not None and not gateway.runtime.is_ready, "the fault is seen")
            client = StrictServer(gateway, extensions={"websocket.http.response": {}})
            await client.ended()

            assert client.sent[0]["status"] == 503
            assert "redis.password" in str(gateway.runtime.unready_because())
    assert [event["event"] for event in embedded.events if event["level"] == "error"] == ["no engine to run on"]
