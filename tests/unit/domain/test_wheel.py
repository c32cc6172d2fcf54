"""The timer wheel, case by case; tests/properties has its model."""

import pytest

from gateway.domain.wheel import NEVER, TimerWheel


class Entry:
    def __init__(self, deadline_s: float) -> None:
        self.deadline_s = deadline_s
        self.wheel_slot: int | None = None


def wheel_with(*deadlines_s: float, now_s: float = 100.0) -> tuple[TimerWheel[Entry], list[Entry]]:
    wheel: TimerWheel[Entry] = TimerWheel(now_s=now_s, resolution_s=1.0)
    entries = [Entry(deadline_s) for deadline_s in deadlines_s]
    for entry in entries:
        wheel.watch(entry)
    return wheel, entries


@pytest.mark.parametrize(
    ("deadline_s", "given_at_s"),
    [(100.0, 101.0), (100.5, 101.0), (101.0, 102.0), (105.25, 106.0), (99.0, 100.0), (0.0, 100.0)],
)
def test_an_entry_comes_once_at_the_end_of_its_slot(deadline_s: float, given_at_s: float) -> None:
    wheel, [entry] = wheel_with(deadline_s)
    given = [
        now_s for now_s in (100.0, 100.5, 101.0, 101.5, 102.0, 105.5, 106.0, 200.0) if entry in wheel.advance(now_s)
    ]
    assert given == [given_at_s]
    assert (len(wheel), entry.wheel_slot) == (0, None)


def test_who_waits_for_nothing_is_not_kept() -> None:
    wheel, [entry] = wheel_with(NEVER)
    assert (len(wheel), entry.wheel_slot, list(wheel.advance(1e6))) == (0, None, [])


def test_all_that_is_due_comes_after_a_long_pause() -> None:
    wheel, entries = wheel_with(101.0, 150.0, 199.0, 300.0)
    assert set(wheel.advance(200.0)) == set(entries[:3])
    assert len(wheel) == 1


def test_a_deadline_that_moved_out_is_kept_without_watching_again() -> None:
    wheel, [entry] = wheel_with(105.0)
    entry.deadline_s = 110.0
    assert list(wheel.advance(109.0)) == []
    assert list(wheel.advance(111.0)) == [entry]


def test_a_deadline_that_moved_nearer_counts_once_it_is_watched() -> None:
    wheel, [entry] = wheel_with(110.0)
    entry.deadline_s = 103.0
    wheel.watch(entry)
    assert len(wheel) == 1
    assert list(wheel.advance(104.0)) == [entry]
    assert list(wheel.advance(200.0)) == []


def test_a_deadline_that_was_given_up_lets_its_entry_go() -> None:
    wheel, [entry] = wheel_with(103.0)
    entry.deadline_s = NEVER
    assert list(wheel.advance(110.0)) == []
    assert (len(wheel), entry.wheel_slot) == (0, None)
    entry.deadline_s = 115.0
    wheel.watch(entry)
    assert list(wheel.advance(116.0)) == [entry]


def test_what_was_forgotten_never_comes() -> None:
    wheel, [gone, stays] = wheel_with(103.0, 103.0)
    wheel.forget(gone)
    wheel.forget(gone)
    assert len(wheel) == 1
    assert list(wheel.advance(104.0)) == [stays]
    wheel.forget(stays)
    assert len(wheel) == 0


def test_watching_twice_is_watching_once() -> None:
    wheel, [entry] = wheel_with(103.0)
    wheel.watch(entry)
    assert len(wheel) == 1
    assert list(wheel.advance(110.0)) == [entry]


def test_an_entry_may_be_watched_again_while_the_wheel_turns() -> None:
    wheel, entries = wheel_with(101.0, 102.0)
    given = []
    for entry in wheel.advance(103.0):
        given.append(entry)
        entry.deadline_s = 104.0
        wheel.watch(entry)
    assert set(given) == set(entries)
    assert len(given) == 2
    assert set(wheel.advance(105.0)) == set(entries)


def test_an_entry_that_stays_overdue_comes_once_a_slot_and_the_wheel_still_stops() -> None:
    wheel, [entry] = wheel_with(101.0)
    given = 0
    for due in wheel.advance(110.0):
        given += 1
        wheel.watch(due)
    assert 1 <= given <= 10
    assert list(wheel.advance(111.0)) == [entry]


def test_what_is_forgotten_while_the_wheel_turns_is_not_kept_for_later() -> None:
    wheel, [first, second] = wheel_with(103.0, 103.0)
    for entry in wheel.advance(104.0):
        other = second if entry is first else first
        other.deadline_s = 110.0
        wheel.forget(other)
    assert len(wheel) == 0
