"""The composition root: builds the parts of a node, starts, drains and stops them in order. Nothing else builds parts.

A node's life: bind → build → serve → (signal) unready → take no new connections → close clients → flush → stop.
"""

import asyncio
import os
import random
import signal
import socket
import time
import uuid
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Final, NamedTuple

import structlog

from gateway import __version__
from gateway.api.internal import internal_app
from gateway.api.public import public_app
from gateway.auth.tokens import TokenSettings, TokenVerifier
from gateway.broker.contract import Broker
from gateway.broker.memory import MemoryBroker
from gateway.config import BrokerType, Config
from gateway.domain.channels import Channels
from gateway.domain.connections import Connections
from gateway.domain.counts import Counts
from gateway.domain.hub import Hub
from gateway.domain.ratelimit import RateLimit
from gateway.domain.wheel import TimerWheel
from gateway.messaging.conversation import Conversation, Services
from gateway.messaging.fanout import Fanout
from gateway.messaging.handlers import HANDLERS
from gateway.messaging.publishing import Publisher
from gateway.messaging.subscriptions import Interest
from gateway.observability.metrics import make_registry, render
from gateway.protocol import codes
from gateway.protocol.json_codec import JSONCodec
from gateway.transport.acceptor import CLIENT_PATH, PLAIN_PATH, Gate, WebSocketVariants
from gateway.transport.listener import Listener, bind, tls_context
from gateway.transport.websocket import WebSocketConnection

_TICK_S: Final = 0.1
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
_NEVER_STARTED: Final = "starting"
_DRAINING: Final = "draining"


class Clock(NamedTuple):
    """What a node takes its time from; tests give it one that they can move."""

    monotonic: Callable[[], float] = time.monotonic
    unix: Callable[[], float] = time.time


class Node:
    """One gateway process. Build it, then `run` it; `stop` may be called from a signal handler."""

    def __init__(
        self, config: Config, log: structlog.typing.FilteringBoundLogger, *, clock: Clock | None = None
    ) -> None:
        """Bind the addresses, so that a port in use is found before anything else happens.

        Raises:
            ListenError: if an address, certificate or key can't be used.
        """
        self.config = config
        self.counts = Counts()
        self.connections: Connections[Conversation] = Connections()
        self.hub = Hub(ledger=self.counts.ledger)
        self.version = __version__
        self._log = log
        self._clock = clock or Clock()
        self._unready_because: str | None = _NEVER_STARTED
        self._stopping = asyncio.Event()
        self._started = asyncio.Event()
        server = config.http_server
        self._context = tls_context(server.tls)
        self._public_socket = bind(server.address, server.port, backlog=server.backlog)
        try:
            self._internal_socket = bind(server.internal_address, server.internal_port, backlog=128)
        except BaseException:
            self._public_socket.close()
            raise
        self._fanout: Fanout | None = None

    # What metrics and health read.

    @property
    def is_ready(self) -> bool:
        """Whether new connections should be sent here."""
        return self._unready_because is None

    @property
    def public_address(self) -> Any:
        """The address that clients connect to, as bound."""
        return self._public_socket.getsockname()

    @property
    def internal_address(self) -> Any:
        """The address of health checks and metrics, as bound."""
        return self._internal_socket.getsockname()

    def subscriptions(self) -> Iterable[tuple[str, int]]:
        """Count subscriptions by namespace."""
        return self.hub.subscriptions().items()

    def users(self) -> int:
        """Count the users who are connected here."""
        return self.connections.users

    def channels(self) -> int:
        """Count the channels with local subscribers."""
        return len(self.hub)

    def queued(self) -> int:
        """Count the deliveries that wait for the end of the loop turn."""
        return self._fanout.queued if self._fanout else 0

    def connection_count(self) -> int:
        """Count open connections."""
        return len(self.connections)

    # Life.

    async def run(self) -> None:
        """Serve until `stop` is called, then drain; returns when all is released."""
        loop = asyncio.get_running_loop()
        broker = self._make_broker()
        async with asyncio.TaskGroup() as tasks:
            commands: set[asyncio.Task[None]] = set()

            def spawn(coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
                task = tasks.create_task(coroutine, name="command")
                commands.add(task)
                task.add_done_callback(commands.discard)
                return task

            services = self._make_services(broker, spawn)
            self._fanout = Fanout(self.hub, self.counts, monotonic=self._clock.monotonic, call_soon=loop.call_soon)
            broker.start(self._fanout)
            gate = self._make_gate(services)
            public, internal = self._make_listeners(gate, loop)
            serving = [
                tasks.create_task(public.serve(), name="public port"),
                tasks.create_task(internal.serve(), name="internal port"),
            ]
            ticking = tasks.create_task(self._tick(services.wheel), name="timer wheel")
            await public.started()
            await internal.started()
            self._unready_because = None
            self._started.set()
            self._log.info("started", public=address_text(public.address), internal=address_text(internal.address))
            await self._stopping.wait()
            try:
                async with asyncio.timeout(self.config.shutdown.timeout_s):
                    await self._drain(gate, public)
            except TimeoutError:
                self._log.warning("shutdown timed out", sockets=gate.sockets)
            public.stop()
            await serving[0]
            internal.stop()
            ticking.cancel()
            for command in commands:  # its client has gone, so nobody waits for what it would say
                command.cancel()
            await broker.stop()
        self._log.info("stopped")

    async def started(self) -> None:
        """Wait until the node serves."""
        await self._started.wait()

    def stop(self) -> None:
        """Begin to drain; a second time does nothing."""
        self._stopping.set()

    async def _tick(self, wheel: TimerWheel[Conversation]) -> None:
        while True:
            await asyncio.sleep(_TICK_S)
            for conversation in wheel.advance(self._clock.monotonic()):
                conversation.tick()

    async def _drain(self, gate: Gate, public: Listener) -> None:
        """Send everybody away and wait until their sockets have gone."""
        self._unready_because = _DRAINING
        gate.is_open = False
        self._log.info("draining", connections=len(self.connections))
        public.stop_accepting()
        if self._fanout is not None:
            self._fanout.flush()  # what was accepted in this turn goes out before the goodbyes
        for conversation in self.connections:
            conversation.disconnect(codes.SHUTDOWN)
        await gate.emptied()

    def _report_key_set(self, reason: str) -> None:
        self.counts.key_set_failures += 1
        self._log.warning("key set not fetched", reason=reason)

    # Parts.

    def _make_broker(self) -> Broker:
        match self.config.broker.type:
            case BrokerType.MEMORY:
                return MemoryBroker(monotonic=self._clock.monotonic)

    def _make_services(self, broker: Broker, spawn: Any) -> Services:
        client, channel = self.config.client, self.config.channel
        personal = client.subscribe_to_user_personal_channel
        checks = not client.insecure_skip_token_signature_verify

        def verifier(settings: TokenSettings) -> TokenVerifier:
            return TokenVerifier(settings, is_signature_checked=checks, report=self._report_key_set)

        connection_tokens = subscription_tokens = verifier(client.token)
        if client.subscription_token.enabled:
            subscription_tokens = verifier(client.subscription_token)
        return Services(
            session=client,
            is_insecure=client.insecure,
            is_anonymous_allowed=client.allow_anonymous_connect_without_token,
            refuses_anonymous_tokens=client.disallow_anonymous_connection_tokens,
            includes_server_time=client.connect_include_server_time,
            user_connection_limit=client.user_connection_limit,
            personal_namespace=personal.personal_channel_namespace if personal.enabled else None,
            max_channel_length=channel.max_length,
            rate_limit=RateLimit(client.command_rate, client.command_burst) if client.command_rate else None,
            version=f"gateway {__version__}",
            channels=Channels(channel),
            connection_tokens=connection_tokens,
            subscription_tokens=subscription_tokens,
            hub=self.hub,
            interest=Interest(broker),
            broker=broker,
            publisher=Publisher(
                broker,
                self.counts,
                monotonic=self._clock.monotonic,
                unix=self._clock.unix,
                max_depth=self.config.json_.max_depth,
            ),
            handlers=dict(HANDLERS),
            connections=self.connections,
            wheel=TimerWheel(now_s=self._clock.monotonic(), resolution_s=_TICK_S),
            counts=self.counts,
            log=self._log,
            monotonic=self._clock.monotonic,
            unix=self._clock.unix,
            random=random.random,
            new_id=lambda: str(uuid.uuid4()),
            spawn=spawn,
        )

    def _make_gate(self, services: Services) -> Gate:
        config = self.config
        variants = WebSocketVariants(
            JSONCodec(max_depth=config.json_.max_depth),
            compression_min_bytes=config.websocket.compression_min_size,
        )
        return Gate(config.websocket, config.client, config.plain, services, variants)

    def _make_listeners(self, gate: Gate, loop: asyncio.AbstractEventLoop) -> tuple[Listener, Listener]:
        config = self.config
        paths = [CLIENT_PATH] + ([PLAIN_PATH, f"{PLAIN_PATH}/{{channel:path}}"] if config.plain.enabled else [])

        def refused(reason: str, status: int) -> None:
            self.counts.connections_refused[reason] += 1
            self._log.info("refused", reason=reason, status=status)

        public = Listener(
            self._public_socket,
            public_app(
                websocket_paths=paths,
                has_playground=config.playground.enabled,
                has_init=config.connection_init.enabled,
            ),
            head=config.http_server,
            refused=refused,
            context=self._context,
            make_connection=lambda: WebSocketConnection(gate, loop),
        )
        registry = make_registry(self.counts, self)
        internal = Listener(
            self._internal_socket,
            internal_app(
                unready_because=lambda: self._unready_because,
                render_metrics=lambda: render(registry),
            ),
            head=config.http_server,
            refused=refused,
        )
        return public, internal


async def run_until_signalled(node: Node) -> None:
    """Run *node* until SIGTERM or SIGINT; a second signal ends the process at once."""
    loop = asyncio.get_running_loop()

    def handle(signum: int) -> None:
        loop.remove_signal_handler(signum)
        for other in _SIGNALS:
            loop.remove_signal_handler(other)
            loop.add_signal_handler(other, os._exit, 128 + other)
        node.stop()

    for signum in _SIGNALS:
        loop.add_signal_handler(signum, handle, signum)
    await node.run()


def default_name() -> str:
    """Return the name of a node that was given none."""
    return f"{socket.gethostname()}-{os.getpid()}"


def address_text(address: Any) -> str:
    """Write a socket's address the way a URL does."""
    if isinstance(address, str):
        return f"unix:{address}"
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
