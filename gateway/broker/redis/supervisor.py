"""Keeps one connection to Redis up: connects, logs in, watches it, and connects again when it is lost.

connecting ──logged in──▶ up ──lost, silent or overdue──▶ waiting ──▶ connecting
    └────────────refused, unreachable────────────────────────┘
"""

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, Protocol

import hiredis

from gateway.broker.redis.counts import Journal, Trouble
from gateway.broker.redis.endpoint import Endpoint, describe
from gateway.broker.redis.settings import RedisSettings
from gateway.broker.redis.wire import Handler, Wire

# A tick that comes this many intervals after the last one shows that this process was held up, not the server.
_HELD_UP: Final = 1.5


class User(Handler, Protocol):
    """What a supervised connection is for."""

    def greeting(self) -> Sequence[bytes]:
        """Return packed commands that every new connection begins with, after logging in."""

    def refuse(self, replies: Sequence[Any]) -> str | None:
        """Return why a connection that answered the greeting with *replies* is of no use, `None` if it is."""

    def opened(self, wire: Wire) -> None:
        """Use *wire* from now on."""

    def overdue(self, now_s: float) -> str | None:
        """Return why the connection should be given up although it shows signs of life, `None` to keep it."""

    def probe(self, now_s: float) -> None:
        """Send what the server must answer."""


def backoff(settings: RedisSettings, rng: random.Random) -> Iterator[float]:
    """Yield how long to wait before each next try, in seconds: random, below a bound that doubles up to a limit."""
    bound_s = settings.reconnect_min_delay_s
    while True:
        yield rng.uniform(0, bound_s)
        bound_s = min(2 * bound_s, settings.reconnect_max_delay_s)


class Supervisor:
    """Holds the connection of *user*, which is called *name* in messages and on the server."""

    def __init__(
        self,
        name: str,
        user: User,
        endpoint: Endpoint,
        settings: RedisSettings,
        *,
        journal: Journal,
        monotonic: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        self.trouble: str | None = f"{endpoint.label}: not connected yet"
        """Why there is no connection, `None` while there is one."""
        self.turns = 0
        """How often it has looked after the connection, or tried to get one."""
        self._name = name
        self._user = user
        self._endpoint = endpoint
        self._settings = settings
        self._journal = journal
        self._monotonic = monotonic
        self._rng = rng or random.Random()  # noqa: S311 - spreads reconnects, guards nothing
        self._stopped = asyncio.Event()
        self._wire: Wire | None = None
        self._lost_at_s: float | None = None

    async def run(self) -> None:
        """Hold the connection up until `stop` is called or this is cancelled."""
        async with asyncio.TaskGroup() as group:
            holding = group.create_task(self._hold(), name=f"redis {self._name}")
            await self._stopped.wait()
            holding.cancel()

    def stop(self) -> None:
        """Close the connection for good; `run` returns. Idempotent."""
        self.trouble = f"{self._endpoint.label}: stopped"
        self._stopped.set()
        if self._wire is not None:
            self._wire.drop("stopped")

    async def _hold(self) -> None:
        delays = backoff(self._settings, self._rng)
        while True:
            self.turns += 1
            wire = await self._open()
            if wire is not None:
                opened_at_s = self._monotonic()
                try:
                    trouble = await self._watch(wire)
                finally:
                    wire.drop("stopped")
                self._note(wire.reason, trouble)
                # A server that takes connections and drops them is not asked more often for that.
                if self._monotonic() - opened_at_s >= self._settings.reconnect_max_delay_s:
                    delays = backoff(self._settings, self._rng)
            await asyncio.sleep(next(delays))

    async def _open(self) -> Wire | None:
        """Return a connection that is ready, `None` if there is none to be had now."""
        wire: Wire | None = None
        try:
            async with asyncio.timeout(self._settings.connect_timeout_s):
                wire = await self._endpoint.connect(lambda: Wire(self._journal.counts, self._monotonic))
                refusal = await self._greet(wire)
        except OSError as error:
            refusal = describe(error)
        finally:
            if wire is not None and self._wire is not wire:
                wire.drop("not ready")
        if refusal is None:
            return wire
        self._note(refusal, Trouble.UNREACHABLE)
        return None

    async def _greet(self, wire: Wire) -> str | None:
        """Log in and say what the user wants said; return why the connection is of no use, if it is."""
        login, own = self._endpoint.greeting(f"gateway-{self._name}"), self._user.greeting()
        replies = await wire.exchange([*login, *own])
        for reply in replies[: len(login)]:
            if isinstance(reply, hiredis.ReplyError):
                return str(reply)
        refusal = self._user.refuse(replies[len(login) :])
        if refusal is None:
            self._up(wire)
        return refusal

    def _up(self, wire: Wire) -> None:
        self._wire = wire
        wire.attach(self._user)
        self._journal.counts.connects[self._name] += 1
        self.trouble = None
        if self._lost_at_s is not None:
            self._journal.report(
                "redis link restored", link=self._name, seconds=round(self._monotonic() - self._lost_at_s, 3)
            )
            self._lost_at_s = None
        self._user.opened(wire)

    def _note(self, reason: str, kind: Trouble) -> None:
        """Take note of what keeps the connection from being up; told once for each reason in a row."""
        self._journal.counts.errors[self._name, kind] += 1
        self._wire = None
        if self._lost_at_s is None:
            self._lost_at_s = self._monotonic()
        trouble = f"{self._endpoint.label}: {reason}"
        if trouble != self.trouble and not self._stopped.is_set():
            self.trouble = trouble
            self._journal.report("redis link lost", link=self._name, reason=trouble)

    async def _watch(self, wire: Wire) -> Trouble:
        """Return when *wire* is lost, and how; give it up when it shows no sign of life."""
        interval_s = self._settings.watchdog_interval_s
        probed_at_s: float | None = None
        ticked_at_s = self._monotonic()
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(interval_s):
                    await wire.closed.wait()
            if wire.closed.is_set():
                return Trouble.LOST
            self.turns += 1
            now_s = self._monotonic()
            was_held_up = now_s - ticked_at_s > _HELD_UP * interval_s
            ticked_at_s = now_s
            # What the server sent meanwhile may be waiting to be read, so nobody is judged by such a tick.
            if not was_held_up:
                if probed_at_s is not None and wire.heard_at_s < probed_at_s:
                    wire.drop(f"no sign of life for {now_s - wire.heard_at_s:.1f} s")
                    return Trouble.SILENT
                reason = self._user.overdue(now_s)
                if reason is not None:
                    wire.drop(reason)
                    return Trouble.OVERDUE
            self._user.probe(now_s)
            probed_at_s = now_s
