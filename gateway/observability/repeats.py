"""A limit on repeated log lines, so that whoever can cause a line can't fill a disk with it.

Of each event so many lines a second are written, and one more that says how many were not. What a client does once it
is known who it is goes unlimited: such lines are no more than its connections and subscriptions, and name their user.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, MutableMapping
from typing import Any, Final

import structlog

_WINDOW_S: Final = 1.0
_REPEATS: Final = "repeats not written"
_STEPS: Final = frozenset({"debug", "info"})
"""Levels of the steps of a life; what is worse has its limit, whoever it is about."""


class Repeats:
    """A processor that drops the lines of an event beyond *limit* a second; 0 drops none.

    Give it the *log* that its own lines go to before anything is logged.
    """

    log: structlog.typing.FilteringBoundLogger

    def __init__(self, limit: int, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._limit = limit
        self._monotonic = monotonic
        self._ends_at_s = 0.0
        self._written: dict[str, int] = {}
        self._dropped: dict[str, tuple[str, int]] = {}
        """Of each event the level of the first line that was not written, and how many were not."""

    def __call__(self, _logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        """Return *event* as it is, or drop it."""
        name = event["event"]
        if not self._limit or ("user" in event and method in _STEPS) or name == _REPEATS:
            return event
        now_s = self._monotonic()
        if now_s >= self._ends_at_s:
            self.tell()
            self._ends_at_s = now_s + _WINDOW_S
        # A library says the same in ever other words.
        key = str(event.get("source", name))
        written = self._written.get(key, 0)
        if written < self._limit:
            self._written[key] = written + 1
            return event
        if not self._dropped:
            with contextlib.suppress(RuntimeError):  # in a thread, or before the loop runs, the next line tells
                asyncio.get_running_loop().call_later(_WINDOW_S, self.tell)
        level, lines = self._dropped.get(key, (method, 0))
        self._dropped[key] = level, lines + 1
        raise structlog.DropEvent

    def tell(self) -> None:
        """Write how many lines were dropped, and begin to count anew."""
        dropped, self._dropped = self._dropped, {}
        self._written = {}
        for name, (level, lines) in dropped.items():
            # At their own level, so that whoever would have read them reads this.
            getattr(self.log, level)(_REPEATS, of=name, lines=lines)
