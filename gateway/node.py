"""The composition root: starts, drains and stops the parts of a node in order; `parts` builds them.

A node's life: bind → build → serve → (signal) unready → take no new connections → close clients → flush → stop.
"""

import asyncio
import os
import random
import signal
import socket
import uuid
from collections.abc import Coroutine, Iterable
from typing import Any, Final, TypeVar

import structlog

from gateway import __version__
from gateway.api.internal import internal_app
from gateway.api.public import public_app
from gateway.broker.contract import BrokerError, Engine, EngineError
from gateway.broker.redis.counts import RedisCounts
from gateway.broker.redis.engine import RedisEngine
from gateway.config import Config
from gateway.domain.connections import Connections
from gateway.domain.counts import Counts
from gateway.domain.hub import Hub
from gateway.domain.wheel import TimerWheel
from gateway.messaging.cluster import Cluster
from gateway.messaging.control import DisconnectUser
from gateway.messaging.conversation import Conversation
from gateway.messaging.intake import Intake
from gateway.messaging.orders import LocalOrders
from gateway.messaging.services import Services
from gateway.observability.health import Change, Readiness
from gateway.observability.metrics import make_registry, render
from gateway.parts import TICK_S, Clock, Spawn, Surroundings, make_engine, make_services
from gateway.protocol import codes
from gateway.protocol.json_codec import JSONCodec
from gateway.transport.acceptor import CLIENT_PATH, PLAIN_PATH, Gate, WebSocketVariants
from gateway.transport.listener import Listener, bind, tls_context
from gateway.transport.websocket import WebSocketConnection

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
_NEVER_STARTED: Final = "starting"
_DRAINING: Final = "draining"


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
        self._readiness = Readiness(_NEVER_STARTED, grace_s=config.health.broker_grace_s)
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
        self._engine: Engine | None = None
        self._services: Services | None = None
        self._cluster: Cluster | None = None
        self._fault: EngineError | None = None

    # What the node runs on, once it runs.

    @property
    def engine(self) -> Engine:
        """What carries its publications."""
        return _there(self._engine)

    @property
    def services(self) -> Services:
        """What its conversations share."""
        return _there(self._services)

    @property
    def cluster(self) -> Cluster:
        """Itself among the others."""
        return _there(self._cluster)

    # What metrics and health read.

    @property
    def is_ready(self) -> bool:
        """Whether new connections should be sent here."""
        return self._readiness.reason(now_s=self._clock.monotonic()) is None

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
        return self._services.fanout.queued if self._services is not None else 0

    @property
    def is_broker_up(self) -> bool:
        """Whether the broker works."""
        return self._readiness.trouble is None

    @property
    def redis_counts(self) -> RedisCounts | None:
        """What the Redis engine has counted; `None` on another engine."""
        return self._engine.counts if isinstance(self._engine, RedisEngine) else None

    def nodes(self) -> int:
        """Count the nodes of the cluster that are known, this one included."""
        return len(self.cluster.info())

    def presence_entries(self) -> int:
        """Count the subscriptions that are kept in a channel's presence."""
        return len(self.services.presences)

    def connection_count(self) -> int:
        """Count open connections."""
        return len(self.connections)

    # Life.

    async def run(self) -> None:
        """Serve until `stop` is called, then drain; returns when all is released.

        Raises:
            EngineError: if what it should run on is none that it can work with; the node has stopped then.
        """
        loop = asyncio.get_running_loop()
        engine = self._engine = make_engine(self.config, clock=self._clock, log=self._log)
        async with asyncio.TaskGroup() as tasks:
            commands: set[asyncio.Task[None]] = set()

            def spawn(coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
                task = tasks.create_task(coroutine, name="command")
                commands.add(task)
                task.add_done_callback(commands.discard)
                return task

            services = self._services = self._make_services(engine, spawn, loop)
            cluster = self._cluster = Cluster(
                engine.control,
                LocalOrders(services),
                self.config.node,
                name=self.config.node.name or default_name(),
                version=self.version,
                log=self._log,
                monotonic=self._clock.monotonic,
            )
            engine.broker.start(services.intake)
            cluster.start()
            gate = self._make_gate(services)
            public, internal = self._make_listeners(gate, loop)
            serving = [
                tasks.create_task(public.serve(), name="public port"),
                tasks.create_task(internal.serve(), name="internal port"),
            ]
            holding = tasks.create_task(self._hold(engine), name="engine")
            announcing = tasks.create_task(cluster.run(), name="cluster")
            background = [
                tasks.create_task(self._tick(services.wheel, engine), name="timer wheel"),
                tasks.create_task(services.presences.run(), name="presence"),
                tasks.create_task(self._check_positions(services.intake), name="position check"),
            ]
            await public.started()
            await internal.started()
            self._readiness.own_reason = None
            self._note_trouble(engine)
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
            # Of the commands that still wait the clients have gone, so nobody waits for what they would say.
            for task in (*background, *commands):
                task.cancel()
            cluster.stop()
            await announcing  # its goodbye goes out before the engine stops
            await engine.stop()
            await holding
        self._log.info("stopped")
        if self._fault is not None:
            raise self._fault

    async def started(self) -> None:
        """Wait until the node serves."""
        await self._started.wait()

    def stop(self) -> None:
        """Begin to drain; a second time does nothing."""
        self._stopping.set()

    async def _hold(self, engine: Engine) -> None:
        """Hold the engine's links, and stop the node if it turns out to be none that it can work with."""
        try:
            await engine.run()
        except EngineError as error:
            self._fault = error
            self.stop()

    async def _check_positions(self, intake: Intake) -> None:
        delay_s = self.config.client.channel_position_check_delay_s
        while delay_s:
            await asyncio.sleep(delay_s / intake.rounds)
            intake.check()

    def _note_trouble(self, engine: Engine) -> None:
        now_s = self._clock.monotonic()
        change = self._readiness.note(engine.trouble, now_s=now_s)
        if change is Change.LOST:
            self._log.warning("broker lost", reason=engine.trouble)
        elif change is Change.BACK:
            self._log.info("broker back", seconds=round(now_s - self._readiness.since_s, 3))
            self.services.presences.renew_all()  # it may have lost what it knew

    async def _tick(self, wheel: TimerWheel[Conversation], engine: Engine) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            self._note_trouble(engine)
            for conversation in wheel.advance(self._clock.monotonic()):
                conversation.tick()

    async def _drain(self, gate: Gate, public: Listener) -> None:
        """Send everybody away and wait until their sockets have gone."""
        self._readiness.own_reason = _DRAINING
        gate.is_open = False
        self._log.info("draining", connections=len(self.connections))
        public.stop_accepting()
        self.services.fanout.flush()  # what was accepted in this turn goes out before the goodbyes
        for conversation in self.connections:
            conversation.disconnect(codes.SHUTDOWN)
        await gate.emptied()
        await self.services.presences.taken()

    async def _disconnect_others(self, user: str, client: str) -> None:
        order = DisconnectUser(user, whitelist=(client,), disconnect=codes.CONNECTION_LIMIT)
        try:
            await self.cluster.carry_out(order)
        except BrokerError as error:
            self._log.warning("other connections of a user not ended", user=user, reason=str(error))

    def _report_key_set(self, reason: str) -> None:
        self.counts.key_set_failures += 1
        self._log.warning("key set not fetched", reason=reason)

    # Parts.

    def _make_services(self, engine: Engine, spawn: Spawn, loop: asyncio.AbstractEventLoop) -> Services:
        surroundings = Surroundings(
            counts=self.counts,
            hub=self.hub,
            connections=self.connections,
            log=self._log,
            clock=self._clock,
            random=random.random,
            new_id=lambda: str(uuid.uuid4()),
            spawn=spawn,
            call_soon=loop.call_soon,
            call_later=loop.call_later,
            report_key_set=self._report_key_set,
            disconnect_others=lambda user, client: spawn(self._disconnect_others(user, client)),
        )
        return make_services(self.config, engine, surroundings)

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
                unready_because=lambda: self._readiness.reason(now_s=self._clock.monotonic()),
                broker_trouble=lambda: self._readiness.trouble,
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


PartT = TypeVar("PartT")


def _there(part: PartT | None) -> PartT:
    if part is None:
        raise AssertionError("the node does not run yet")
    return part


def default_name() -> str:
    """Return the name of a node that was given none."""
    return f"{socket.gethostname()}-{os.getpid()}"


def address_text(address: Any) -> str:
    """Write a socket's address the way a URL does."""
    if isinstance(address, str):
        return f"unix:{address}"
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
