"""How many go when; times are seconds after the start of a monotonic clock."""

import pytest

from gateway.domain.drain import LEAST_RATE, Pace


def gone_by(pace: Pace, clients: int, *, until_s: float, step_s: float = 0.1, start_s: float = 0.0) -> list[int]:
    """Ask at every *step_s* and return how many went each time."""
    gone: list[int] = []
    steps = round((until_s - start_s) / step_s)
    for step in range(1, steps + 1):
        gone.append(pace.due(clients - sum(gone), now_s=start_s + step * step_s))
    return gone


@pytest.mark.parametrize("jitter", [0.0, 0.5, 0.999])
def test_clients_go_in_equal_numbers_over_the_window(jitter: float) -> None:
    pace = Pace(3000, window_s=30.0, now_s=0.0, random=lambda: jitter)
    gone = gone_by(pace, 3000, until_s=30.0)
    assert sum(gone) == 3000
    assert {abs(each - 10) for each in gone} <= {0, 1}


@pytest.mark.parametrize(("clients", "least_s", "most_s"), [(1, 0.0, 0.1), (20, 1.8, 2.0), (299, 29.7, 29.9)])
def test_few_clients_go_sooner(clients: int, least_s: float, most_s: float) -> None:
    chances = iter([0.999] * clients + [0.0])
    pace = Pace(clients, window_s=30.0, now_s=0.0, random=lambda: next(chances))
    times_s: list[float] = []
    while len(times_s) < clients:
        times_s.append(pace.next_at_s)
        assert pace.due(clients - len(times_s) + 1, now_s=pace.next_at_s) == 1
    assert pace.rate == LEAST_RATE
    assert least_s <= times_s[-1] <= most_s


def test_nobody_goes_before_the_moment_that_is_told() -> None:
    pace = Pace(100, window_s=10.0, now_s=5.0, random=lambda: 0.5)
    assert pace.next_at_s == 5.05
    assert [pace.due(100, now_s=now_s) for now_s in (5.0, 5.04, 5.05, 5.06)] == [0, 0, 1, 0]
    assert pace.next_at_s == pytest.approx(5.15)


def test_without_a_window_all_go_at_once() -> None:
    pace = Pace(5000, window_s=0.0, now_s=1.0, random=lambda: 0.5)
    assert (pace.next_at_s, pace.due(5000, now_s=1.0)) == (1.0, 5000)


def test_what_a_held_up_loop_has_missed_is_made_good_without_a_burst() -> None:
    """100 a second; after three seconds without a look, 150 go in the next second, and no more in any."""
    pace = Pace(1000, window_s=10.0, now_s=0.0, random=lambda: 0.5)
    gone = gone_by(pace, 1000, until_s=13.0, step_s=0.05, start_s=3.0)
    assert gone[0] <= 25
    assert sum(gone) == 1000
    assert max(sum(gone[start : start + 20]) for start in range(len(gone))) <= 150


def test_who_comes_later_goes_at_the_same_rate() -> None:
    pace = Pace(100, window_s=10.0, now_s=0.0, random=lambda: 0.5)
    assert sum(gone_by(pace, 100, until_s=10.0)) == 100
    assert sum(gone_by(pace, 50, until_s=12.0, start_s=10.0)) == 20
