"""A node as a process: its ports, and the order in which it starts, drains and stops.

A node's life: bind → build → serve → (signal) unready → grace → take no new connections → send clients away, at a pace
→ flush → stop.
"""

import asyncio
import os
import signal
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import structlog
from starlette.types import ASGIApp

from gateway.admin import Admin
from gateway.api.counting import CountedApp
from gateway.api.internal import internal_app
from gateway.api.public import public_app
from gateway.config import Config, ConfigError
from gateway.messaging.services import Services
from gateway.observability.metrics import NodeMetrics
from gateway.observability.metrics.text import render
from gateway.parts import Clock
from gateway.protocol.framing import TEXT, WebSocketFraming
from gateway.reload import Commit, LivePart, Plan
from gateway.runtime import Runtime
from gateway.transport.acceptor import Gate, WebSocketVariants
from gateway.transport.admission import Admission
from gateway.transport.certificate import Certificate, ListenError
from gateway.transport.forwarded import Proxies
from gateway.transport.http_clients import HTTPClients
from gateway.transport.listener import Listener, bind
from gateway.transport.paths import websocket_routes
from gateway.transport.websocket import WebSocketConnection

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
_GATE: Final = (
    "plain.default_channel",
    "websocket.message_size_limit",
    "websocket.close_timeout",
)
"""What is decided about a WebSocket that comes, or stays with it."""
_PROXIES: Final = ("http_server.trusted_proxies", "http_server.forwarded_header")


class Node(Runtime):
    """One gateway process. Build it, then `run` it; `drain` and `stop` may be called from a signal handler."""

    def __init__(
        self,
        config: Config,
        log: structlog.typing.FilteringBoundLogger,
        *,
        clock: Clock | None = None,
        read_config: Callable[[], Config] | None = None,
    ) -> None:
        """Bind the addresses, so that a port in use is found before anything else happens.

        *read_config* reads the configuration anew, from where this one came, when a reload is asked for.

        Raises:
            ListenError: if an address, certificate or key can't be used.
        """
        super().__init__(config, log, clock=clock)
        self._started = asyncio.Event()
        self._read_config = read_config
        self._reload_wanted = asyncio.Event()
        server = config.http_server
        self._certificate = Certificate(server.tls) if server.tls.enabled else None
        if self._certificate is not None:
            self.live_parts.append(_live_certificate(self._certificate))
        self._public_socket = bind(server.address, server.port, backlog=server.backlog)
        try:
            self._internal_socket = bind(server.internal_address, server.internal_port, backlog=128)
        except BaseException:
            self._public_socket.close()
            raise

    @property
    def public_address(self) -> Any:
        """The address that clients connect to, as bound."""
        return self._public_socket.getsockname()

    @property
    def internal_address(self) -> Any:
        """The address of health checks and metrics, as bound."""
        return self._internal_socket.getsockname()

    @property
    def certificate_expires_at_unix_s(self) -> float | None:
        """When the certificate of the public port expires; `None` without TLS."""
        return self._certificate.expires_at_unix_s if self._certificate is not None else None

    # Life.

    async def run(self) -> None:
        """Serve until `drain` or `stop` is called, then part with the clients; returns when all is released.

        Raises:
            EngineError: if what it should run on is none that it can work with; the node has stopped then.
        """
        async with self.running() as services, asyncio.TaskGroup() as tasks:
            admission = Admission(self.config.client, services)
            gate = self._make_gate(services, admission)
            admin = self._make_admin() if self.config.admin.enabled else None
            public, internal = self._make_listeners(gate, admission, admin, asyncio.get_running_loop())
            serving = tasks.create_task(public.serve(), name="public port")
            tasks.create_task(internal.serve(), name="internal port")
            background = [tasks.create_task(self._reload_when_asked(), name="reload")]
            if admin is not None:
                background.append(tasks.create_task(admin.check(), name="admin sessions"))
            await public.started()
            await internal.started()
            self.begin_serving()
            self._started.set()
            self._log.info("started", public=address_text(public.address), internal=address_text(internal.address))
            await self.stopping.wait()
            for task in background:
                task.cancel()
            admission.on_shut = public.stop_accepting
            await self.part_with_clients(admission, has_grace=True)
            public.stop()
            await serving
            if admin is not None:
                await admin.close()
            internal.stop()
        self._log.info("stopped")
        if self.fault is not None:
            raise self.fault

    async def started(self) -> None:
        """Wait until the node serves."""
        await self._started.wait()

    @property
    def is_rereadable(self) -> bool:
        """Whether the configuration can be read again."""
        return self._read_config is not None

    def ask_for_reload(self) -> None:
        """Have the configuration read again, soon; several wishes may become one. A signal handler may call this."""
        self._reload_wanted.set()

    async def reread(self) -> Plan:
        """Read the configuration again, from where it came, and put in force what can change while the node runs.

        Raises:
            ConfigError: nothing has changed then.
        """
        if self._read_config is None:
            raise ConfigError(["there is no source that the configuration could be read from again"])
        return self.reload(await asyncio.to_thread(self._read_config))

    async def _reload_when_asked(self) -> None:
        while True:
            await self._reload_wanted.wait()
            self._reload_wanted.clear()
            try:
                await self.reread()
            except ConfigError as error:
                for fault in error.faults:
                    self._log.error("not reloaded", fault=fault)

    # Parts.

    def _make_gate(self, services: Services, admission: Admission) -> Gate:
        config = self.config
        variants = WebSocketVariants(
            max_depth=config.json_.max_depth,
            uni=config.uni_websocket,
            compression_min_bytes=config.websocket.compression_min_size,
        )
        gate = Gate(config.websocket, config.plain, config.uni_websocket, admission, services, variants)
        self.live_parts += [
            LivePart(("client",), lambda now: partial(admission.reconfigure, now.client)),
            LivePart(_GATE, lambda now: partial(gate.reconfigure, now.websocket, now.plain)),
        ]
        return gate

    def _make_http_clients(self, pages: ASGIApp, admission: Admission) -> HTTPClients:
        """Return all that is served over HTTP on the public port, and keep it in step with the configuration."""
        clients = self.with_http_clients(pages, admission, is_own_server=True)
        self.live_parts.append(
            LivePart(("websocket.close_timeout",), lambda now: partial(clients.reconfigure, now.http_clients))
        )
        return clients

    def _make_admin(self) -> Admin:
        return Admin(self, framing=WebSocketFraming(TEXT), clock=self._clock, log=self._log)

    def _make_listeners(
        self, gate: Gate, admission: Admission, admin: Admin | None, loop: asyncio.AbstractEventLoop
    ) -> tuple[Listener, Listener]:
        config = self.config
        paths = websocket_routes(config.uni_websocket, has_plain=config.plain.enabled)

        def refused(reason: str, status: int | None, address: str) -> None:
            self.counts.connections_refused[reason] += 1
            self._log.info("refused", reason=reason, status=status, address=address)

        def malformed() -> None:
            self.counts.forwarded_malformed += 1

        proxies = Proxies(config.http_server, malformed=malformed)
        self.live_parts.append(LivePart(_PROXIES, lambda now: partial(proxies.reconfigure, now.http_server)))
        pages = public_app(
            websocket_paths=paths,
            has_playground=config.playground.enabled,
            has_init=config.connection_init.enabled,
        )
        public = Listener(
            self._public_socket,
            CountedApp(self._make_http_clients(pages, admission), self.counts.requests, port="public"),
            head=config.http_server,
            refused=refused,
            context=self._certificate.context if self._certificate is not None else None,
            make_connection=lambda address: WebSocketConnection(gate, loop, address=address),
            proxies=proxies,
            has_proxy_headers=config.http_server.proxy_protocol,
        )
        metrics = NodeMetrics(self.counts, self)
        internal = Listener(
            self._internal_socket,
            CountedApp(
                self.with_api(
                    internal_app(
                        self.vitals,
                        render_metrics=lambda accept: render(metrics.snapshot(), accept),
                        admin=admin.routes() if admin is not None else (),
                    ),
                    is_public=False,
                ),
                self.counts.requests,
                port="internal",
            ),
            head=config.http_server,
            refused=refused,
            make_connection=_admin_connections(admin, loop) if admin is not None else None,
            proxies=proxies,
        )
        return public, internal


def _admin_connections(admin: Admin, loop: asyncio.AbstractEventLoop) -> Callable[[str], WebSocketConnection]:
    return lambda address: WebSocketConnection(admin.gate, loop, address=address)


def _live_certificate(certificate: Certificate) -> LivePart:
    def prepare(now: Config) -> Commit | None:
        try:
            return certificate.prepare(now.http_server.tls)
        except ListenError as error:
            raise ConfigError([f"http_server.tls: {error}"]) from error

    keys = ("http_server.tls.cert_pem_file", "http_server.tls.key_pem_file")
    return LivePart(keys, prepare, reads_files=True)


async def run_until_signalled(node: Node) -> None:
    """Run *node* until SIGTERM or SIGINT, which drain it; a second signal ends the process at once. SIGHUP reloads."""
    loop = asyncio.get_running_loop()

    def handle(signum: int) -> None:
        loop.remove_signal_handler(signum)
        for other in _SIGNALS:
            loop.remove_signal_handler(other)
            loop.add_signal_handler(other, os._exit, 128 + other)
        node.drain()

    for signum in _SIGNALS:
        loop.add_signal_handler(signum, handle, signum)
    # Without a file there is nothing that could have changed, and a terminal that is closed ends the node.
    if node.is_rereadable:
        loop.add_signal_handler(signal.SIGHUP, node.ask_for_reload)
    await node.run()


def address_text(address: Any) -> str:
    """Write a socket's address the way a URL does."""
    if isinstance(address, str):
        return f"unix:{address}"
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
