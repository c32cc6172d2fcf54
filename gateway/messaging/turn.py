"""The end of a loop turn: what many outcomes have left to write for one connection goes out at once."""

from collections.abc import Callable
from typing import Protocol


class Flushable(Protocol):
    """Something with replies that are ready."""

    def flush(self) -> None:
        """Write them; must not raise."""


class Turn:
    """Flushes those who ask for it when all that was read in this turn has been handled.

    *call_soon* is the event loop's: what it is given runs in the next turn. Who asks twice is flushed twice, the second
    time with nothing to write.
    """

    def __init__(self, *, call_soon: Callable[[Callable[[], None]], object]) -> None:
        self._call_soon = call_soon
        self._waiting: list[Flushable] = []

    def flush_at_end(self, one: Flushable) -> None:
        """Flush *one* at the end of this turn."""
        if not self._waiting:
            self._call_soon(self._flush)
        self._waiting.append(one)

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.flush()
