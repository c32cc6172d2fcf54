"""Time that passes only when a test says so."""

import heapq
import itertools
from collections.abc import Callable


class _Call:
    def __init__(self, callback: Callable[[], object]) -> None:
        self.callback: Callable[[], object] | None = callback

    def cancel(self) -> None:
        self.callback = None


class ManualTimers:
    """The `Timers` of a client, moved forward by `advance`."""

    def __init__(self, now_s: float = 1000.0) -> None:
        self._now_s = now_s
        self._numbers = itertools.count()
        self._due: list[tuple[float, int, _Call]] = []

    def time(self) -> float:
        return self._now_s

    def call_at(self, when: float, callback: Callable[[], object], /) -> _Call:
        call = _Call(callback)
        heapq.heappush(self._due, (when, next(self._numbers), call))
        return call

    @property
    def waits(self) -> list[float]:
        """How long each call that is still wanted has to wait, the nearest first."""
        return sorted(when - self._now_s for when, _, call in self._due if call.callback is not None)

    def advance(self, seconds: float) -> None:
        """Let time pass, and make the calls that are due, each at its own time."""
        end_s = self._now_s + seconds
        while self._due and self._due[0][0] <= end_s:
            when, _, call = heapq.heappop(self._due)
            self._now_s = max(self._now_s, when)
            callback, call.callback = call.callback, None
            if callback is not None:
                callback()
        self._now_s = end_s
