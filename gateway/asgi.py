"""The gateway inside an ASGI application: WebSockets beside the routes of FastAPI or Starlette, in one process.

    gateway = create_app(load(Path("gateway.toml"), environment=os.environ))
    app = FastAPI(lifespan=gateway.lifespan)
    app.mount("/realtime", gateway)     # ws://…/realtime/connection/websocket, ws://…/realtime/ws/<channel>

The ASGI server owns sockets, TLS, compression and WebSocket pings, so `http_server` and `websocket.compression` of the
configuration have no meaning here. Each of the server's worker processes is a node of its own: more than one needs
`broker.type = "redis"`.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

import structlog
from starlette.routing import Router
from starlette.types import ASGIApp

from gateway.admin import Admin
from gateway.api.internal import internal_app
from gateway.api.public import public_app
from gateway.broker.contract import BrokerError
from gateway.config import Config
from gateway.messaging.publishing import Draft
from gateway.observability.logs import make_logger
from gateway.observability.metrics import NodeMetrics
from gateway.observability.metrics.text import render
from gateway.parts import Clock
from gateway.publisher.asynchronous import AsyncPublisher
from gateway.publisher.desk import Desk, Receipt, receipt_of
from gateway.publisher.errors import UnavailableError
from gateway.runtime import Runtime, default_name
from gateway.transport.acceptor import Gate
from gateway.transport.admission import Admission
from gateway.transport.asgi import ASGIWebSocket, PayloadFraming, PayloadVariants, Receive, Scope, Send
from gateway.transport.paths import websocket_routes

_NOT_RUNNING: Final = (
    "the gateway does not run: give its lifespan to the application that it is mounted in, as in "
    "FastAPI(lifespan=gateway.lifespan)"
)


class LifespanError(Exception):
    """A gateway was used outside of its lifespan, or was given two at once."""


def create_app(config: Config, *, log: structlog.typing.FilteringBoundLogger | None = None) -> "GatewayApp":
    """Return the gateway as an ASGI application, to be mounted or to be served by itself.

    *log* takes its events; without one they are written as the configuration's table `log` says.
    """
    return GatewayApp(config, log or make_logger(config.log, node=config.node.name or default_name()))


class GatewayApp:
    """A node without ports: it lives as long as the application's `lifespan` does, and may live more than once."""

    def __init__(self, config: Config, log: structlog.typing.FilteringBoundLogger) -> None:
        self.publisher: Final = AsyncPublisher(Desk(config.channel, max_depth=config.json_.max_depth), _OwnNode(self))
        """Publishes through this node, whatever its engine is; with `publisher_of` a dependency of the routes."""
        self._config = config
        self._log = log
        self._life: _Life | None = None
        paths = websocket_routes(config.uni_websocket, has_plain=config.plain.enabled)
        self._pages = public_app(
            websocket_paths=paths, has_playground=config.playground.enabled, has_init=config.connection_init.enabled
        )
        self._own_lifespan = Router(lifespan=self.lifespan)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one WebSocket, one request, or, when nothing is around it, the server's lifespan."""
        match scope["type"]:
            case "websocket":
                await ASGIWebSocket(self._living.gate, scope, receive, send).run()
            case "http":
                pages = self._pages if self._life is None else self._life.public
                await pages(scope, receive, send)
            case "lifespan":
                await self._own_lifespan(scope, receive, send)
            case other:
                raise AssertionError(f"a scope of a kind that ASGI 3 does not have: {other!r}")

    async def internal(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve `/livez`, `/readyz`, `/metrics`, `/api`, `/docs` and `/admin`: mount it where only operators come."""
        admin = self._living.admin
        if scope["type"] == "websocket" and admin is not None:
            await ASGIWebSocket(admin.gate, scope, receive, send).run()
        else:
            await self._living.internal(scope, receive, send)

    @property
    def runtime(self) -> Runtime:
        """The node that runs now.

        Raises:
            LifespanError: outside of the lifespan.
        """
        return self._living.runtime

    @property
    def is_running(self) -> bool:
        """Whether there is one."""
        return self._life is not None

    @asynccontextmanager
    async def lifespan(self, _app: object = None) -> AsyncIterator[None]:
        """Run the node until the block ends, then send away who is left.

        An ASGI server that stops ends its WebSockets before it ends the lifespan, so clients usually see its own code
        (uvicorn: 1012), on which SDKs come back.

        Raises:
            EngineError: for a certificate or key that can't be read.
            LifespanError: if it runs already.
        """
        if self._life is not None:
            raise LifespanError("the gateway runs already: one application's lifespan starts it, and no other")
        runtime = Runtime(self._config, self._log)
        async with runtime.running() as services, asyncio.TaskGroup() as tasks:
            config = self._config
            variants = PayloadVariants(max_depth=config.json_.max_depth, uni=config.uni_websocket)
            admission = Admission(config.client, services)
            gate = Gate(config.websocket, config.plain, config.uni_websocket, admission, services, variants)
            admin = None
            if config.admin.enabled:
                admin = Admin(runtime, framing=PayloadFraming(), clock=Clock(), log=self._log)
            life = self._life = _Life(runtime, admission, gate, self._pages, admin)
            background = [tasks.create_task(self._watch(life), name="engine fault")]
            if admin is not None:
                background.append(tasks.create_task(admin.check(), name="admin sessions"))
            runtime.begin_serving()
            self._log.info("started", public="asgi")
            try:
                yield
            finally:
                for task in background:
                    task.cancel()
                try:
                    # Without a grace: the server takes nobody in any more.
                    await runtime.part_with_clients(life.admission, has_grace=False)
                    if admin is not None:
                        await admin.close()
                finally:  # a server that has lost its patience cancels that
                    self._life = None
        self._log.info("stopped")

    @property
    def _living(self) -> "_Life":
        if self._life is None:
            raise LifespanError(_NOT_RUNNING)
        return self._life

    async def _watch(self, life: "_Life") -> None:
        """Drain when asked to; take no connections once the engine turns out to be none.

        The application around it lives on in both cases.
        """
        runtime = life.runtime
        await runtime.stopping.wait()
        if runtime.fault is None:
            await runtime.part_with_clients(life.admission, has_grace=True)
            return
        life.admission.shut()
        runtime.readiness.own_reason = str(runtime.fault)
        self._log.error("no engine to run on", reason=str(runtime.fault))


class _Life:
    """What there is between the beginning and the end of one lifespan."""

    def __init__(self, runtime: Runtime, admission: Admission, gate: Gate, pages: ASGIApp, admin: Admin | None) -> None:
        self.runtime = runtime
        self.admission = admission
        self.gate = gate
        self.admin = admin
        metrics = NodeMetrics(runtime.counts, runtime)
        internal = internal_app(
            runtime.vitals,
            render_metrics=lambda accept: render(metrics.snapshot(), accept),
            admin=admin.routes() if admin is not None else (),
        )
        self.internal = runtime.with_api(internal, is_public=False)
        self.public = runtime.with_http_clients(pages, admission, is_own_server=False)


class _OwnNode:
    """Carries drafts into the broker of the node in this process."""

    def __init__(self, app: GatewayApp) -> None:
        self._app = app

    async def carry(self, drafts: Sequence[Draft]) -> list[Receipt]:
        if not self._app.is_running:
            raise UnavailableError([draft.channel.name for draft in drafts], _NOT_RUNNING, may_be_published=False)
        runtime = self._app.runtime
        outcomes = [runtime.services.publisher.carry(draft) for draft in drafts]
        receipts, failed, reason = [], [], ""
        for draft, outcome in zip(drafts, outcomes, strict=True):
            try:
                receipts.append(receipt_of(await outcome.wait()))
            except BrokerError as error:
                failed.append(draft.channel.name)
                reason = str(error)
        if failed:
            raise UnavailableError(failed, reason, may_be_published=True)
        return receipts

    async def close(self) -> None:
        """Do nothing: the lifespan ends the node."""
