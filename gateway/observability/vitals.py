"""All that a node's health is read from, looked at a few times a second: heartbeats, the broker's canary, memory.

The looks are made by a timer of the event loop and by no task: one that watches tasks must not be one that can die.
"""

import contextlib
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from gateway.observability.canary import Canary, interval_of
from gateway.observability.health import Change, HealthSettings, Readiness
from gateway.observability.heartbeats import LOOKS_EVERY_S, Heartbeats, LoopTime
from gateway.observability.memory import Watermark, resident_bytes

Back = Callable[[str | None], None]
"""Told that a canary is back, or why it could not be sent."""


class Timer(Protocol):
    """What can be stopped before it goes off."""

    def cancel(self) -> None:
        """Stop it."""


class Engine(Protocol):
    """What a node's broker tells of itself."""

    @property
    def trouble(self) -> str | None:
        """Why it does not work, as far as it knows."""


class Vitals:
    """Watches one life of a node; *changed* hears when its broker is lost and back."""

    def __init__(
        self,
        settings: HealthSettings,
        *,
        monotonic: Callable[[], float],
        changed: Callable[[Change], None],
        measure: Callable[[], int] = resident_bytes,
    ) -> None:
        self.has_started = False
        """Whether it has served; it stays true."""
        self.readiness: Final = Readiness("starting", grace_s=settings.broker_grace_s)
        self.canary: Final = Canary(interval_s=interval_of(settings.broker_grace_s))
        self.heartbeats: Final = Heartbeats(limit_s=settings.heartbeat_timeout_s)
        self._monotonic = monotonic
        self._changed = changed
        self._measure = measure
        self._watermark = Watermark(settings.memory_watermark)
        self._loop_time = LoopTime(now_s=monotonic())
        self._engine: Engine | None = None
        self._echo: Callable[[Back], None] | None = None
        self._timer: Timer | None = None

    def change(self, settings: HealthSettings) -> None:
        """Go by *settings* from now on."""
        self.readiness.grace_s = settings.broker_grace_s
        self.canary.interval_s = interval_of(settings.broker_grace_s)
        self.heartbeats.limit_s = settings.heartbeat_timeout_s
        self._watermark = Watermark(settings.memory_watermark)

    def start(
        self, engine: Engine, echo: Callable[[Back], None], call_later: Callable[[float, Callable[[], None]], Timer]
    ) -> None:
        """Look now and from now on; *echo* sends a canary through *engine*."""
        self._engine, self._echo = engine, echo

        def again() -> None:
            self._timer = call_later(LOOKS_EVERY_S, again)
            self.look()

        again()

    def stop(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()

    def begin_serving(self) -> None:
        """Be started, and ready as far as the node itself is concerned."""
        self.has_started = True
        self.readiness.own_reason = None
        self.look()

    def look(self) -> None:
        """Look at everything."""
        now_s = self._monotonic()
        loop_s = self._loop_time.advance(now_s)
        self.heartbeats.look(loop_s)
        if self._watermark.limit_bytes:
            with contextlib.suppress(
                OSError
            ):  # no descriptor is left to read it by; the rest is looked at all the same
                self._watermark.note(self._measure())
        self.readiness.memory_trouble = self._watermark.trouble
        if self._engine is not None and self._echo is not None:
            self._send_canary(self._engine, self._echo, loop_s)
        self._note_broker(now_s)

    def _send_canary(self, engine: Engine, echo: Callable[[Back], None], loop_s: float) -> None:
        if engine.trouble is None and self.canary.is_due(loop_s):
            number, sent_at_s = self.canary.sent(loop_s=loop_s), self._monotonic()
            echo(lambda failure: self._take_back(number, sent_at_s, failure))

    def _take_back(self, number: int, sent_at_s: float, failure: str | None) -> None:
        now_s = self._monotonic()
        if failure is None:
            self.canary.came_back(now_s=now_s, round_trip_s=now_s - sent_at_s)
        else:
            self.canary.failed(number, failure)
        self._note_broker(now_s)

    def _note_broker(self, now_s: float) -> None:
        if self._engine is None:
            return
        trouble, for_s = self._engine.trouble, 0.0
        if trouble is None:
            trouble = self.canary.trouble(self._loop_time.now_s)
            for_s = self.canary.missing_for_s(self._loop_time.now_s)
        change = self.readiness.note(trouble, now_s=now_s, for_s=for_s)
        if change is not None:
            self._changed(change)

    # What is said.

    def dead_because(self) -> str | None:
        """Say which task is dead or hangs, `None` if none is."""
        return self.heartbeats.fault()

    def unready_because(self) -> str | None:
        """Say why no new connections should come, `None` if they should."""
        return self.readiness.reason(now_s=self._monotonic())

    def unstarted_because(self) -> str | None:
        """Say why the node has not started yet, `None` once it has."""
        return None if self.has_started else (self.readiness.own_reason or "starting")

    def tasks(self) -> Mapping[str, str]:
        """Say `ok` or what is wrong of each task that the node lives by."""
        return self.heartbeats.states

    def report(self) -> Mapping[str, Any]:
        """Say how every check of the node's readiness stands."""
        now_s, canary = self._monotonic(), self.canary
        return {
            "broker": self.readiness.trouble or "ok",
            "canary": {"age_s": _rounded(canary.age_s(now_s)), "round_trip_s": _rounded(canary.round_trip_s)},
            "checks": self.readiness.checks(now_s=now_s),
        }

    def canary_age_s(self) -> float | None:
        """Return how long ago a canary came back, `None` if none ever did."""
        return self.canary.age_s(self._monotonic())

    def canary_round_trip_s(self) -> float | None:
        """Return how long that one was on its way."""
        return self.canary.round_trip_s


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 6)
