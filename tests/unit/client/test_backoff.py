import itertools
import random
from typing import Any

import pytest

from gateway.client.backoff import Attempts, Backoff, Jitter, delays
from gateway.client.errors import InvalidArgumentError


class Chosen(random.Random):
    """Chance that always comes out at the same fraction of its range."""

    def __init__(self, fraction: float) -> None:
        super().__init__()
        self.fraction = fraction

    def uniform(self, a: float, b: float) -> float:
        return a + (b - a) * self.fraction


def limits(backoff: Backoff, count: int) -> list[float]:
    """The formula of the documentation, as an oracle."""
    return [min(backoff.cap_s, backoff.base_s * backoff.factor**attempt) for attempt in range(count)]


def first(backoff: Backoff, count: int, fraction: float) -> list[float]:
    return list(itertools.islice(delays(backoff, Chosen(fraction)), count))


def test_the_default_grows_from_one_second_by_half_up_to_a_minute() -> None:
    expected = [1.0, 1.5, 2.25, 3.375, 5.0625, 7.59375, 11.390625, 17.0859375, 25.62890625, 38.443359375, 57.6650390625]
    assert first(Backoff(), 13, 1.0) == [*expected, 60.0, 60.0]


@pytest.mark.parametrize("backoff", [Backoff(), Backoff(base_s=0.2, factor=3, cap_s=5), Backoff(base_s=2, factor=1)])
@pytest.mark.parametrize("fraction", [0.0, 0.25, 0.5, 1.0])
def test_full_jitter_lies_anywhere_below_the_limit(backoff: Backoff, fraction: float) -> None:
    expected = [limit * fraction for limit in limits(backoff, 12)]
    assert first(backoff, 12, fraction) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("fraction", [0.0, 0.5, 1.0])
def test_classic_jitter_adds_up_to_a_tenth(fraction: float) -> None:
    backoff = Backoff(jitter=Jitter.CLASSIC)
    expected = [limit * (1 + 0.1 * fraction) for limit in limits(backoff, 15)]
    assert first(backoff, 15, fraction) == pytest.approx(expected, rel=1e-12)


def test_no_number_of_attempts_overflows() -> None:
    assert next(itertools.islice(delays(Backoff(factor=10), Chosen(1.0)), 5000, None)) == 60.0


@pytest.mark.parametrize("retries", [0, 1, 4])
def test_after_max_retries_it_gives_up(retries: int) -> None:
    assert len(first(Backoff(max_retries=retries), 10, 0.5)) == retries


@pytest.mark.parametrize(
    "wrong",
    [{"base_s": 0}, {"base_s": 5, "cap_s": 4}, {"factor": 0.9}, {"stable_after_s": -1}, {"max_retries": -1}],
)
def test_a_backoff_that_cannot_work_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError):
        Backoff(**wrong)


def test_a_row_ends_only_with_a_connection_that_stayed_up() -> None:
    attempts, now_s = Attempts(Backoff(stable_after_s=10), Chosen(1.0)), 0.0

    def after_a_connection_of(up_s: float | None) -> tuple[float | None, int]:
        nonlocal now_s
        if up_s is not None:
            attempts.succeeded(now_s=now_s)
            now_s += up_s
        return attempts.failed(now_s=now_s), attempts.retries

    assert after_a_connection_of(None) == (1.0, 1)
    assert after_a_connection_of(9.5) == (1.5, 2)
    assert after_a_connection_of(0.0) == (2.25, 3)
    assert after_a_connection_of(10.0) == (1.0, 1)
    assert after_a_connection_of(None) == (1.5, 2)


def test_a_failed_attempt_does_not_count_the_connection_before_it_again() -> None:
    attempts = Attempts(Backoff(stable_after_s=10, max_retries=1), Chosen(1.0))
    attempts.succeeded(now_s=0)
    assert attempts.failed(now_s=100) == 1.0
    assert attempts.failed(now_s=200) is None
    assert attempts.retries == 1
