"""Whether the tasks that a node lives by still turn: a task that has died or hangs is named, a busy loop blames nobody.

A task counts its turns, and somebody looks at the counts now and then. How long one has stood still is measured in the
loop's own time, which goes on with the looks and, while the loop is held up, hardly at all: what is late because the
loop was late is as late as everything else, and needs a turn of the loop and no restart.
"""

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

LOOKS_EVERY_S: Final = 0.25
"""How often somebody looks, at heartbeats as at all else that a node's health is read from."""
_LONGEST_STEP_S: Final = 2 * LOOKS_EVERY_S


class LoopTime:
    """A clock that nearly stands still while the event loop does."""

    def __init__(self, *, now_s: float) -> None:
        self.now_s = 0.0
        """Seconds that the loop has been turning."""
        self._seen_at_s = now_s

    def advance(self, now_s: float) -> float:
        """Take note that the loop turns at *now_s*, of a monotonic clock, and return the loop's time."""
        self.now_s += min(max(now_s - self._seen_at_s, 0.0), _LONGEST_STEP_S)
        self._seen_at_s = now_s
        return self.now_s


class _Group(NamedTuple):
    turns: Callable[[], Mapping[str, int]]
    slowest_turn_s: Callable[[], float]


class Heartbeats:
    """Who is watched, and who has been silent for longer than *limit_s* beyond what its turns may take."""

    def __init__(self, *, limit_s: float) -> None:
        self.limit_s = limit_s
        self._groups: list[_Group] = []
        self._ended: dict[str, Callable[[], bool]] = {}
        self._last: dict[str, tuple[int, float]] = {}
        self._states: dict[str, str] = {}

    def watch(self, turns: Callable[[], Mapping[str, int]], slowest_turn_s: Callable[[], float]) -> None:
        """Watch those whose names *turns* gives with how often each has turned; who is not in there is not watched."""
        self._groups.append(_Group(turns, slowest_turn_s))

    def watch_end(self, name: str, has_ended: Callable[[], bool]) -> None:
        """Watch that *name* has not ended."""
        self._ended[name] = has_ended

    def look(self, loop_s: float) -> None:
        """Look at all counts; *loop_s* is the loop's own time."""
        last, self._last = self._last, {}
        states = {name: "has ended" if has_ended() else "ok" for name, has_ended in self._ended.items()}
        for turns, slowest_turn_s in self._groups:
            for name, count in turns().items():
                seen, at_s = last.get(name, (count, loop_s))
                self._last[name] = (count, loop_s if count != seen else at_s)
                silent_s = loop_s - self._last[name][1]
                if states.setdefault(name, "ok") == "ok" and silent_s > self.limit_s + slowest_turn_s():
                    states[name] = f"silent for {silent_s:.0f} s"
        self._states = states

    @property
    def states(self) -> Mapping[str, str]:
        """What is known of each task: `ok`, or what is wrong with it."""
        return self._states

    def fault(self) -> str | None:
        """Say which tasks are dead or hang, `None` if none is."""
        faults = [f"{name}: {state}" for name, state in self._states.items() if state != "ok"]
        return "; ".join(faults) or None
