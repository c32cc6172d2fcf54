"""A node without its ports: engine, services, cluster and timers, started and stopped in order.

`node` gives it listeners of its own; inside somebody else's application it runs on that application's server.
"""

import asyncio
import os
import random
import socket
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final

import structlog
from starlette.types import ASGIApp

from gateway.api.application import APIApplication
from gateway.api.keys import KeyRing
from gateway.api.server import ServerAPI
from gateway.broker.contract import BrokerError, Engine, EngineError
from gateway.broker.redis.engine import RedisEngine
from gateway.broker.redis.settings import RedisSettings
from gateway.config import Config
from gateway.domain.wheel import TimerWheel
from gateway.figured import Figured, there
from gateway.messaging.administration import Administration
from gateway.messaging.cluster import Cluster
from gateway.messaging.control import DisconnectUser
from gateway.messaging.conversation import Conversation
from gateway.messaging.drain import Door
from gateway.messaging.emulation import Emulation
from gateway.messaging.intake import Intake
from gateway.messaging.orders import LocalOrders
from gateway.messaging.reconfiguring import put_in_force
from gateway.messaging.services import Services
from gateway.messaging.trends import Trends
from gateway.observability.health import Change
from gateway.observability.logs import is_adjustable, set_level
from gateway.parts import TICK_S, Clock, Spawn, Surroundings, check_certificates, make_engine, make_rules, make_services
from gateway.protocol import codes
from gateway.reload import Commit, LivePart, Plan, plan
from gateway.transport.admission import Admission
from gateway.transport.http_clients import HTTPClients

_RULES: Final = (
    "client",
    "channel.max_length",
    "channel.history_meta_ttl",
    "channel.without_namespace",
    "channel.namespaces",
    "channel.proxy",
    "handlers",
    "proxies",
    "rpc",
)
"""What is decided for each client; the characters that make up a channel's name are no such thing."""
_UNCHECKED_S: Final = 1.0
"""How often to look whether positions are to be checked, while they are not."""


class Runtime(Figured):
    """What runs behind the ports of one node; its figures are what metrics and health read."""

    def __init__(
        self, config: Config, log: structlog.typing.FilteringBoundLogger, *, clock: Clock | None = None
    ) -> None:
        super().__init__(config, clock or Clock())
        self.trends = Trends()
        """The last minutes of all nodes."""
        self.fault: EngineError | None = None
        """Why the engine is none that this node can work with."""
        self.stopping = asyncio.Event()
        """Set when the node should stop: somebody has asked for it, or there is such a fault."""
        self.api_keys = KeyRing(config.http_api)
        """Who may call the server API, and log in to what is built on it."""
        self.live_parts = [
            LivePart(_RULES, self._prepare_rules),
            LivePart(("health",), lambda now: partial(self.vitals.change, now.health)),
            LivePart(("http_api.key", "http_api.keys"), lambda now: partial(self.api_keys.change, now.http_api)),
            LivePart(("shutdown", "drain"), lambda _: None),  # read when the node stops
            LivePart(("redis.user", "redis.password"), lambda now: partial(self._change_redis_login, now.redis)),
        ]
        """All that can change while the node runs; a key that is in none of them needs a restart."""
        if is_adjustable(log):
            self.live_parts.append(LivePart(("log.level",), lambda now: partial(set_level, log, now.log.level)))
        self._log = log
        self._wheel_turns = self._position_checks = 0
        self._position_nap_s = 0.0
        self._surroundings: Surroundings | None = None
        self._administration: Administration | None = None
        self._emulation: Emulation | None = None

    # The server API.

    @property
    def administration(self) -> Administration:
        """The operations of the server API."""
        return there(self._administration)

    @property
    def emulation(self) -> Emulation:
        """The way of commands to clients' sessions on any node."""
        return there(self._emulation)

    def with_api(self, pages: ASGIApp, *, is_public: bool) -> ASGIApp:
        """Return *pages* with the server API before them, if the configuration wants it on that port."""
        settings = self.config.http_api
        if not settings.enabled or (is_public and not settings.public):
            return pages
        api = ServerAPI(
            self.administration,
            self.api_keys,
            settings,
            self.counts,
            log=self._log,
            monotonic=self._clock.monotonic,
            max_depth=self.config.json_.max_depth,
        )
        return APIApplication(api, pages, has_documentation=not is_public)

    def with_http_clients(self, pages: ASGIApp, admission: Admission, *, is_own_server: bool) -> HTTPClients:
        """Return all that clients are served over HTTP: their transports, and *pages* with the server API before them.

        *is_own_server* tells that the node's own HTTP server carries it, and not somebody else's.
        """
        return HTTPClients(
            self.config.http_clients,
            self.with_api(pages, is_public=True),
            admission,
            self.services,
            self.emulation,
            max_depth=self.config.json_.max_depth,
            is_own_server=is_own_server,
        )

    # A changed configuration.

    def reload(self, wanted: Config) -> Plan:
        """Put in force what of *wanted* can change while the node runs, all in this turn, and say what was done.

        Nobody is disconnected for it. Connections and subscriptions keep what they were given; what is decided from now
        on is decided by the new settings (`gateway.messaging.reconfiguring`). Call it while the node runs.

        Raises:
            ConfigError: nothing has changed then.
        """
        planned = plan(self.config, wanted, self.live_parts)
        changes = planned.prepare()
        self.config = planned.in_force
        for change in changes:
            change()
        if planned.needs_restart:
            self._log.warning("needs a restart", keys=planned.needs_restart)
        self._log.info("reloaded", changed=planned.changed)
        return planned

    def _prepare_rules(self, config: Config) -> Commit:
        rules = make_rules(config, there(self._surroundings), before=self.services)
        return partial(put_in_force, rules, self.services)

    def _change_redis_login(self, redis: RedisSettings) -> None:
        if isinstance(self.engine, RedisEngine):
            self.engine.change_login(user=redis.user, password=redis.password)

    # Life.

    def drain(self) -> None:
        """Ask the node to part with its clients in good order and stop; a second time does nothing."""
        self.stopping.set()

    def stop(self) -> None:
        """Ask it to stop without delay: no grace, no pace, also for a drain that is under way."""
        self.draining.hurry()
        self.stopping.set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Services]:
        """Run all parts until the block ends, which must have sent the clients away by then.

        Raises:
            EngineError: for a certificate or key of the engine that can't be read.
            ConfigError: for one of a proxy.
        """
        check_certificates(self.config)
        engine = self._engine = make_engine(self.config, clock=self._clock, log=self._log)
        async with asyncio.TaskGroup() as tasks:
            commands: set[asyncio.Task[None]] = set()

            def spawn(coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
                task = tasks.create_task(coroutine, name="command")
                commands.add(task)
                task.add_done_callback(commands.discard)
                return task

            services = self._services = self._make_services(engine, spawn, asyncio.get_running_loop())
            cluster = self._cluster = Cluster(
                engine.control,
                LocalOrders(services),
                self.config.node,
                name=self.config.node.name or default_name(),
                version=self.version,
                log=self._log,
                monotonic=self._clock.monotonic,
                figures=self.figures,
            )
            cluster.counts, cluster.unix = self.counts, self._clock.unix
            cluster.announced = lambda node: self.trends.note(node, now_s=self._clock.monotonic())
            self._emulation = Emulation(services, cluster)
            self._administration = Administration(services, cluster, engine.broker, self.trends, drain=self.drain)
            engine.broker.start(services.intake)
            cluster.start()
            holding = tasks.create_task(self._hold(engine), name="engine")
            announcing = tasks.create_task(cluster.run(), name="cluster")
            background = [
                tasks.create_task(self._tick(services.wheel), name="timer wheel"),
                tasks.create_task(services.presences.run(), name="presence"),
                tasks.create_task(self._check_positions(services.intake), name="position check"),
            ]
            self._watch([holding, announcing, *background])
            self.vitals.start(engine, self._echo, asyncio.get_running_loop().call_later)
            try:
                yield services
            finally:
                self.vitals.stop()
            # Of the commands that still wait the clients have gone, so nobody waits for what they would say.
            for task in (*background, *commands):
                task.cancel()
            await services.proxies.close()
            cluster.stop()
            await announcing  # its goodbye goes out before the engine stops
            await engine.stop()
            await holding

    def begin_serving(self) -> None:
        """Be ready, as far as this node itself is concerned."""
        self.vitals.begin_serving()

    async def part_with_clients(self, door: Door, *, has_grace: bool) -> None:
        """Be unready, and see all clients off; see `Drain.run`."""
        self.readiness.own_reason = "draining"
        config = self.config
        await self.draining.run(self.services, door, shutdown=config.shutdown, drain=config.drain, has_grace=has_grace)

    async def _hold(self, engine: Engine) -> None:
        """Hold the engine's links, and say so if it turns out to be none that this node can work with."""
        try:
            await engine.run()
        except EngineError as error:
            self.fault = error
            self.stop()

    async def _check_positions(self, intake: Intake) -> None:
        while True:
            delay_s = self.config.client.channel_position_check_delay_s
            self._position_nap_s = delay_s / intake.rounds or _UNCHECKED_S
            await asyncio.sleep(self._position_nap_s)
            self._position_checks += 1
            if delay_s:
                intake.check()

    def _note_broker(self, change: Change) -> None:
        if change is Change.LOST:
            self._log.warning("broker lost", reason=self.readiness.trouble)
        else:
            seconds = round(self._clock.monotonic() - self.readiness.since_s, 3)
            self._log.info("broker back", seconds=seconds)
            self.services.presences.renew_all()  # it may have lost what it knew

    def _echo(self, back: Callable[[str | None], None]) -> None:
        """Send a message to this node through the broker, and have *back* hear of it."""
        self.engine.control.echo().then(lambda echo: back(None if echo.error is None else str(echo.error)))

    def _watch(self, tasks: Iterable[asyncio.Task[None]]) -> None:
        """Have the node's long-lived tasks watched: that they turn, and that none has ended."""
        heartbeats, engine, cluster, presences = (
            self.vitals.heartbeats,
            self.engine,
            self.cluster,
            self.services.presences,
        )
        heartbeats.watch(lambda: engine.turns, lambda: engine.slowest_turn_s)
        heartbeats.watch(lambda: {"cluster": cluster.turns}, lambda: self.config.node.announce_interval_s)
        heartbeats.watch(lambda: {"presence": presences.turns}, lambda: presences.slowest_turn_s)
        heartbeats.watch(lambda: {"timer wheel": self._wheel_turns}, lambda: 0.0)
        heartbeats.watch(lambda: {"position check": self._position_checks}, lambda: self._position_nap_s)
        for task in tasks:
            heartbeats.watch_end(task.get_name(), task.done)

    async def _tick(self, wheel: TimerWheel[Conversation]) -> None:
        while True:
            due_s = self._loop_clock() + TICK_S
            await asyncio.sleep(TICK_S)
            now_s = self._loop_clock()
            self._lag.note(max(0.0, now_s - due_s), now_s=now_s)
            self._wheel_turns += 1
            self._turn(wheel)

    def _turn(self, wheel: TimerWheel[Conversation]) -> None:
        # Not in the loop above: its frame lives as long as the node, and would keep the last conversation as long.
        for conversation in wheel.advance(self._clock.monotonic()):
            conversation.tick()

    async def _disconnect_others(self, user: str, age_rank: tuple[float, str]) -> None:
        order = DisconnectUser(user, disconnect=codes.CONNECTION_LIMIT, older_than=age_rank)
        try:
            await self.cluster.carry_out(order)
        except BrokerError as error:
            self._log.warning("other connections of a user not ended", user=user, reason=str(error))

    def _report_key_set(self, reason: str) -> None:
        self.counts.key_set_failures += 1
        self._log.warning("key set not fetched", reason=reason)

    def _make_services(self, engine: Engine, spawn: Spawn, loop: asyncio.AbstractEventLoop) -> Services:
        around = self._surroundings = Surroundings(
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
            disconnect_others=lambda user, rank: spawn(self._disconnect_others(user, rank)),
        )
        return make_services(self.config, engine, around)


def default_name() -> str:
    """Return the name of a node that was given none."""
    return f"{socket.gethostname()}-{os.getpid()}"
