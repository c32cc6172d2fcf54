"""The engine on Redis as a whole: the links, and what works on them."""

import asyncio
import random
import time
from collections.abc import Callable

from gateway.broker.contract import EngineError
from gateway.broker.redis.broker import RedisBroker, random_epoch
from gateway.broker.redis.control import RedisControl
from gateway.broker.redis.counts import Journal, RedisCounts, Report, Trouble, unheard
from gateway.broker.redis.endpoint import Endpoint
from gateway.broker.redis.keys import Keys
from gateway.broker.redis.link import Link
from gateway.broker.redis.presence import RedisPresence
from gateway.broker.redis.probe import NotYetError, Probe
from gateway.broker.redis.reads import Reads
from gateway.broker.redis.scripts import PUBLISH
from gateway.broker.redis.settings import RedisSettings
from gateway.broker.redis.subscriber import Subscriber
from gateway.broker.redis.supervisor import backoff


class RedisEngine:
    """What a node runs on when it is one of many.

    *node_id* is drawn anew for each life of a node. *report* takes events: `redis link lost` and `redis link restored`
    with the `link`, `redis login refused`, and `redis refused` and `redis undecodable` with a `subject`, these once a
    minute for each.

    Raises:
        EngineError: for a certificate or key that can't be read.
    """

    def __init__(
        self,
        settings: RedisSettings,
        *,
        node_id: str,
        report: Report = unheard,
        monotonic: Callable[[], float] = time.monotonic,
        new_epoch: Callable[[], str] = random_epoch,
        rng: random.Random | None = None,
    ) -> None:
        endpoint, keys, journal = Endpoint(settings), Keys(settings.prefix), Journal(report, monotonic=monotonic)
        self.counts: RedisCounts = journal.counts
        self._endpoint = endpoint
        self._settings = settings
        self._report = report
        self._rng = rng or random.Random()  # noqa: S311 - spreads reconnects, guards nothing
        self._probe = Probe(endpoint)
        self._link = Link(endpoint, settings, [PUBLISH], journal=journal, monotonic=monotonic, rng=self._rng)
        self._subscriber = Subscriber(endpoint, settings, journal=journal, monotonic=monotonic, rng=self._rng)
        self._reads = Reads(endpoint, settings, journal=journal, monotonic=monotonic, rng=self._rng)
        self.broker = RedisBroker(
            self._link, self._subscriber, self._reads, keys, node_id=node_id, journal=journal, new_epoch=new_epoch
        )
        self.presence = RedisPresence(self._reads, self.broker, keys)
        self.control = RedisControl(self._link, self._subscriber, keys, node_id)
        self._not_yet: str | None = f"{endpoint.label}: not connected yet"
        self._probes = 0
        self._login_changed = asyncio.Event()
        self._stopped = asyncio.Event()
        self._ended = asyncio.Event()
        self._ended.set()

    @property
    def trouble(self) -> str | None:
        """What keeps it from working right now: why the first link that is down is down."""
        return self._not_yet or self._link.trouble or self._subscriber.trouble or self._reads.trouble

    @property
    def turns(self) -> dict[str, int]:
        """How often the probe, and once that has succeeded each link, has turned."""
        if self._not_yet is not None:
            return {"redis probe": self._probes}
        return {
            "redis publish link": self._link.turns,
            "redis subscribe link": self._subscriber.turns,
            "redis read link": self._reads.turns,
        }

    @property
    def slowest_turn_s(self) -> float:
        """The longest wait, before another attempt or between two probes, and an attempt."""
        settings = self._settings
        wait_s = max(settings.reconnect_max_delay_s, settings.watchdog_interval_s)
        return wait_s + settings.connect_timeout_s + 2 * settings.timeout_s

    def change_login(self, *, user: str, password: str) -> None:
        """Log in with these from the next connection on; those that are open stay as they are.

        They are tried at once, and `redis login refused` is reported if the server does not take them, so that this is
        known before the next connection needs them.
        """
        self._endpoint.change_login(user=user, password=password)
        self._login_changed.set()

    async def run(self) -> None:
        """Hold the links up until `stop` is called or this is cancelled.

        Raises:
            EngineError: before it has worked once, for a fault of the configuration; the text names the key.
        """
        self._ended.clear()
        fault: BaseException | None = None
        try:
            async with asyncio.TaskGroup() as group:
                working = group.create_task(self._work(), name="redis engine")
                await self._stopped.wait()
                working.cancel()
        except* EngineError as faults:
            fault = faults.exceptions[0]  # raised from here, it would be wrapped again
        finally:
            self._ended.set()
        if fault is not None:
            raise fault

    async def stop(self) -> None:
        """Release everything; what waits for an outcome gets `BrokerError`. Idempotent."""
        await self.broker.stop()
        self._stopped.set()
        await self._ended.wait()

    async def _work(self) -> None:
        await self._become_usable()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._link.run(), name="redis publish link")
            group.create_task(self._subscriber.run(), name="redis subscribe link")
            group.create_task(self._reads.run(), name="redis read link")
            group.create_task(self._try_changed_logins(), name="redis login")

    async def _try_changed_logins(self) -> None:
        while True:
            await self._login_changed.wait()
            self._login_changed.clear()
            try:
                await self._probe.run()
            except EngineError as fault:
                self._report("redis login refused", reason=str(fault))
            except NotYetError:
                pass  # its links find out when they come back, and tell

    async def _become_usable(self) -> None:
        """Probe the server until it will do."""
        for delay_s in backoff(self._settings, self._rng):
            self._probes += 1
            try:
                await self._probe.run()
            except NotYetError as reason:
                self.counts.errors["probe", Trouble.UNREACHABLE] += 1
                if str(reason) != self._not_yet:
                    self._not_yet = str(reason)
                    self._report("redis link lost", link="probe", reason=self._not_yet)
            else:
                self._not_yet = None
                return
            await asyncio.sleep(delay_s)
