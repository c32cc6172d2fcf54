"""The event loop's lag: all of it, and the worst of lately."""

import pytest

from gateway.domain.lag import Lag


def test_every_lag_is_counted() -> None:
    lag = Lag()
    for value in (0.0001, 0.02, 0.7):
        lag.note(value, now_s=100.0)
    assert (sum(lag.all.buckets), lag.all.total) == (3, pytest.approx(0.7201))


@pytest.mark.parametrize(
    ("after_s", "expected"), [(0.0, 0.7), (14.9, 0.7), (15.0, 0.7), (29.9, 0.7), (30.0, 0.0), (3600.0, 0.0)]
)
def test_the_worst_is_remembered_for_a_while_and_no_longer(after_s: float, expected: float) -> None:
    lag = Lag()
    lag.note(0.7, now_s=100.0)
    assert lag.recent_s(now_s=100.0 + after_s) == expected


def test_while_it_is_noted_on_the_worst_of_before_goes_after_two_windows() -> None:
    lag = Lag()
    lag.note(0.7, now_s=100.0)
    seen = []
    for step in range(1, 50):
        lag.note(0.1, now_s=100.0 + step)
        seen.append(lag.recent_s(now_s=100.0 + step))
    assert seen[:29] == [0.7] * 29
    assert seen[29:] == [0.1] * 20
