"""A timer wheel: deadlines of many connections at the cost of one timer.

An entry is due at the end of the slot that its deadline lies in, so never early, and late by less than one resolution
beside the time between two calls of `advance`. It stands in one slot at most; a deadline that moves further out costs
nothing, since the entry is looked at when its old slot comes and put back then.
"""

from typing import Generic, Protocol, TypeVar

NEVER = float("inf")
"""The deadline of an entry that waits for nothing."""


class Timed(Protocol):
    """Something with a next deadline."""

    deadline_s: float
    wheel_slot: int | None
    """Where the wheel has put the entry; the wheel's own, `None` at birth."""


EntryT = TypeVar("EntryT", bound=Timed)


class TimerWheel(Generic[EntryT]):
    """Deadlines by slots of *resolution_s*."""

    def __init__(self, *, now_s: float, resolution_s: float = 0.1) -> None:
        self._resolution_s = resolution_s
        self._slots: dict[int, set[EntryT]] = {}
        self._next_slot = int(now_s / resolution_s)

    def __len__(self) -> int:
        return sum(len(slot) for slot in self._slots.values())

    def watch(self, entry: EntryT) -> None:
        """Make sure that `advance` gives out *entry* once its present deadline has passed."""
        if entry.deadline_s == NEVER:
            return
        slot = max(int(entry.deadline_s / self._resolution_s) + 1, self._next_slot)
        if entry.wheel_slot is not None:
            if entry.wheel_slot <= slot:
                return
            self.forget(entry)
        entry.wheel_slot = slot
        self._slots.setdefault(slot, set()).add(entry)

    def forget(self, entry: EntryT) -> None:
        """Drop *entry*, so that the wheel keeps nothing of a closed connection alive."""
        if entry.wheel_slot is not None:
            self._slots.get(entry.wheel_slot, set()).discard(entry)
            entry.wheel_slot = None

    def advance(self, now_s: float) -> list[EntryT]:
        """Return the entries whose deadline has passed; the caller gives each a new deadline and calls `watch`."""
        last = int(now_s / self._resolution_s)
        due: list[EntryT] = []
        passed = sorted(slot for slot in self._slots if slot <= last)
        self._next_slot = max(self._next_slot, last + 1)
        for slot in passed:
            for entry in self._slots.pop(slot):
                entry.wheel_slot = None
                if entry.deadline_s <= now_s:
                    due.append(entry)
                else:
                    self.watch(entry)
        return due
