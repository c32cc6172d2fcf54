import random

import pytest

from loadtest.schedule import Arrivals, ramp


def _all(arrivals: Arrivals) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    while (next_us := arrivals.next_us) is not None:
        found += arrivals.due(int(next_us) + 1)
    return found


def test_each_publisher_keeps_its_rate_and_times_come_in_order() -> None:
    arrivals = Arrivals([10, 0, 5], begin_us=1_000_000, end_us=11_000_000, is_poisson=False, chance=random.Random(1))
    found = _all(arrivals)
    assert [sum(number == who for number, _ in found) for who in range(3)] == [100, 0, 50]
    times = [at_us for _, at_us in found]
    assert times == sorted(times)
    assert times[0] >= 1_000_000
    assert times[-1] < 11_000_000


def test_random_arrivals_have_the_rate_on_average() -> None:
    arrivals = Arrivals([1000], begin_us=0, end_us=10_000_000, is_poisson=True, chance=random.Random(1))
    assert len(_all(arrivals)) == pytest.approx(10_000, rel=0.05)


def test_what_is_late_keeps_its_intended_time() -> None:
    arrivals = Arrivals([10], begin_us=0, end_us=1_000_000, is_poisson=False, chance=random.Random(1))
    first = arrivals.next_us
    assert first is not None
    intended = [at_us for _, at_us in arrivals.due(500_000)]
    assert intended == [int(first) + 100_000 * step for step in range(len(intended))]
    assert len(intended) in (4, 5)


def test_a_ramp_spreads_its_turns_evenly_from_its_begin() -> None:
    assert ramp(4, 2.0) == [0.0, 0.5, 1.0, 1.5]
    assert ramp(3, 0.0) == [0.0, 0.0, 0.0]
