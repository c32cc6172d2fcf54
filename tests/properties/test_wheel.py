"""The timer wheel against a plain set of deadlines: never early, never late by a whole slot, once, and forgetful."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from gateway.domain.wheel import NEVER, TimerWheel

ROUNDING_S = 1e-6
DELAYS = st.one_of(st.floats(0, 2), st.floats(0, 100), st.sampled_from([0.0, 0.1, 0.2, 0.30000000000000004, 1.0]))


class Entry:
    def __init__(self) -> None:
        self.deadline_s = NEVER
        self.wheel_slot: int | None = None

    def __repr__(self) -> str:
        return f"Entry({self.deadline_s}, slot {self.wheel_slot})"


class Wheel(RuleBasedStateMachine):
    """The model: *watched* are the entries that must come once their deadline has passed, and since when.

    A deadline that lies in the past when it is watched counts from then on.
    """

    entries = Bundle("entries")

    @initialize(now_s=st.floats(0, 1e6), resolution_s=st.sampled_from([0.1, 0.25, 1.0]))
    def begin(self, now_s: float, resolution_s: float) -> None:
        self.now_s, self.resolution_s = now_s, resolution_s
        self.wheel: TimerWheel[Entry] = TimerWheel(now_s=now_s, resolution_s=resolution_s)
        self.watched: dict[Entry, float] = {}

    @rule(target=entries)
    def make(self) -> Entry:
        return Entry()

    @rule(entry=entries, delay_s=st.one_of(DELAYS, st.floats(-10, 0), st.just(NEVER)))
    def watch(self, entry: Entry, delay_s: float) -> None:
        entry.deadline_s = self.now_s + delay_s
        self.wheel.watch(entry)
        if entry.deadline_s == NEVER:
            self.watched.pop(entry, None)
        else:
            self.watched[entry] = self.now_s

    @rule(entry=entries, delay_s=DELAYS)
    def move_out(self, entry: Entry, delay_s: float) -> None:
        """A deadline that moves further out costs nothing: the wheel is not told."""
        entry.deadline_s += delay_s

    @rule(entry=entries)
    def forget(self, entry: Entry) -> None:
        self.wheel.forget(entry)
        self.watched.pop(entry, None)
        assert entry.wheel_slot is None

    @rule(step_s=st.one_of(st.floats(0, 1), st.floats(0, 30)))
    def advance(self, step_s: float) -> None:
        self.now_s += step_s
        given = list(self.wheel.advance(self.now_s))
        assert len(given) == len(set(given)), "given out twice"
        assert set(given) <= set(self.watched), "given out although nobody watches"
        for entry in given:
            assert entry.deadline_s <= self.now_s, "early"
            self.watched.pop(entry, None)
        for entry, since_s in self.watched.items():
            assert max(entry.deadline_s, since_s) + self.resolution_s > self.now_s - ROUNDING_S, "late"

    @rule()
    def turn_it_to_the_end(self) -> None:
        """Whoever is watched comes at last."""
        waiting = [entry for entry in self.watched if entry.deadline_s < NEVER]
        if waiting:
            self.advance(max(0.0, max(each.deadline_s for each in waiting) - self.now_s) + 2 * self.resolution_s)
            assert not set(self.watched) & set(waiting)

    @invariant()
    def keeps_each_watched_entry_once_and_no_other(self) -> None:
        if hasattr(self, "wheel"):
            assert len(self.wheel) >= len(self.watched)
            kept = [entry for slot in self.wheel._slots.values() for entry in slot]  # noqa: SLF001
            assert len(kept) == len(set(kept))
            assert set(self.watched) <= set(kept)
            assert all(entry.deadline_s == NEVER for entry in set(kept) - set(self.watched))


TestWheel = Wheel.TestCase
TestWheel.settings = settings(deadline=None, max_examples=150, stateful_step_count=40)
