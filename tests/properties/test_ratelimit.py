"""The token bucket against a bucket that counts in fractions."""

from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.domain.ratelimit import RateLimit, TokenBucket, Verdict


@settings(deadline=None, max_examples=300)
@given(
    rate=st.integers(1, 1000),
    burst=st.integers(1, 50),
    start_s=st.integers(0, 10**6),
    pauses=st.lists(st.one_of(st.just(0), st.integers(0, 12), st.integers(0, 400)), max_size=150),
)
def test_the_bucket_is_exact_but_for_its_half_token_of_slack(
    rate: int, burst: int, start_s: int, pauses: list[int]
) -> None:
    """Pauses are thirds of a token's time, so that no command arrives on the edge of the slack itself."""
    bucket, limit = TokenBucket(), RateLimit(float(rate), burst)
    now_s, owed = Fraction(start_s), Fraction(0)
    for pause in pauses:
        passed_s = Fraction(pause, 3 * rate)
        now_s += passed_s
        owed = max(owed - passed_s * rate, Fraction(0)) + 1
        verdict = bucket.take(limit, now_s=float(now_s))
        if owed <= burst:
            assert verdict is Verdict.WITHIN
        elif owed > 2 * burst + Fraction(1, 2):
            assert verdict is Verdict.FAR_OVER
            owed -= 1  # not counted
        elif owed > burst + Fraction(1, 2):
            assert verdict is (Verdict.OVER if owed <= 2 * burst + Fraction(1, 2) else Verdict.FAR_OVER)


@settings(deadline=None, max_examples=200)
@given(
    rate=st.floats(0.5, 1000),
    burst=st.integers(1, 50),
    pauses=st.lists(st.floats(0, 3), min_size=1, max_size=150),
)
def test_no_more_than_a_burst_and_the_rate_passes_in_any_stretch_of_time(
    rate: float, burst: int, pauses: list[float]
) -> None:
    bucket, limit = TokenBucket(), RateLimit(rate, burst)
    now_s, passed_at_s = 0.0, []
    for pause in pauses:
        now_s += pause / rate
        if bucket.take(limit, now_s=now_s) is Verdict.WITHIN:
            passed_at_s.append(now_s)
    for first in range(len(passed_at_s)):
        for last in range(first, len(passed_at_s)):
            stretch_s = passed_at_s[last] - passed_at_s[first]
            assert last - first + 1 <= burst + stretch_s * rate + 0.5 + 1e-6
