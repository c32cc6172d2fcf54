"""The token bucket at its edges; tests/properties has its model."""

import pytest

from gateway.domain.ratelimit import RateLimit, TokenBucket, Verdict

WITHIN, OVER, FAR_OVER = Verdict.WITHIN, Verdict.OVER, Verdict.FAR_OVER


def verdicts(limit: RateLimit, *times_s: float) -> list[Verdict]:
    bucket = TokenBucket()
    return [bucket.take(limit, now_s=now_s) for now_s in times_s]


@pytest.mark.parametrize("burst", [1, 2, 600])
@pytest.mark.parametrize("rate", [0.1, 1.0, 3.0, 300.0])
@pytest.mark.parametrize("start_s", [0.0, 0.1, 1e7])
def test_a_burst_passes_one_more_is_over_and_a_second_burst_on_top_is_far_over(
    burst: int, rate: float, start_s: float
) -> None:
    given = verdicts(RateLimit(rate, burst), *[start_s] * (2 * burst + 3))
    assert given == [WITHIN] * burst + [OVER] * burst + [FAR_OVER] * 3


@pytest.mark.parametrize("rate", [1.0, 10.0, 300.0])
def test_a_steady_client_at_the_rate_is_never_refused(rate: float) -> None:
    times_s = [1e6 + index / rate for index in range(5000)]
    assert set(verdicts(RateLimit(rate, 1), *times_s)) == {WITHIN}


def test_tokens_come_back_one_by_one() -> None:
    limit = RateLimit(10.0, 3)
    assert verdicts(limit, 0, 0, 0, 0.1, 0.2, 0.3) == [WITHIN] * 6
    assert verdicts(limit, 0, 0, 0, 0, 0.1) == [WITHIN] * 3 + [OVER] * 2
    assert verdicts(limit, 0, 0, 0, 0, 0.2) == [WITHIN] * 3 + [OVER, WITHIN]


def test_a_bucket_never_holds_more_than_a_burst() -> None:
    assert verdicts(RateLimit(10.0, 3), *[0.0] * 3, *[1000.0] * 4) == [WITHIN] * 6 + [OVER]


def test_who_goes_on_at_twice_the_rate_ends_far_over_and_who_pauses_is_forgiven() -> None:
    limit = RateLimit(10.0, 5)
    times_s = [index / 20 for index in range(40)]
    given = verdicts(limit, *times_s, 10.0)
    order = sorted(set(given[:-1]), key=given.index)
    assert order == [WITHIN, OVER, FAR_OVER]
    assert given[-1] is WITHIN


def test_what_was_far_over_does_not_count() -> None:
    limit = RateLimit(1.0, 1)
    assert verdicts(limit, *[0.0] * 100, 1.0, 2.0, 4.0) == [WITHIN, OVER] + [FAR_OVER] * 98 + [OVER, OVER, WITHIN]


def test_a_flood_that_is_refused_keeps_nobody_out() -> None:
    """Under ten times the rate a node goes on admitting at its rate; refusals that counted would starve everybody."""
    bucket, limit = TokenBucket(), RateLimit(rate=10, burst=10)
    admitted = sum(bucket.admit(limit, now_s=step / 100) for step in range(1000))
    assert admitted == 10 + 10 * 10
