"""The circuit breaker: who is let through, and when."""

from typing import Any

import pytest
from pydantic import ValidationError

from gateway.proxies.breaker import Breaker, BreakerState
from gateway.proxies.settings import BreakerSettings

SETTINGS = BreakerSettings(failures=3, pause_s=1.0, max_pause_s=5.0)


def opened(*, at_s: float = 100.0, spread: float = 0.0, settings: BreakerSettings = SETTINGS) -> Breaker:
    breaker = Breaker(settings)
    for _ in range(settings.failures):
        permit = breaker.admit(now_s=at_s)
        assert permit is not None
        breaker.failed(permit, now_s=at_s, random=spread)
    assert breaker.state is BreakerState.OPEN
    return breaker


def test_it_opens_at_the_limit_of_failures_in_a_row_and_no_sooner() -> None:
    breaker = Breaker(SETTINGS)
    for outcomes, state in (("ff", BreakerState.CLOSED), ("sff", BreakerState.CLOSED), ("f", BreakerState.OPEN)):
        for outcome in outcomes:
            permit = breaker.admit(now_s=0)
            assert permit is not None
            if outcome == "f":
                breaker.failed(permit, now_s=0, random=0)
            else:
                breaker.succeeded(permit)
        assert breaker.state is state
    assert breaker.openings == 1


def test_zero_failures_never_open_it() -> None:
    breaker = Breaker(BreakerSettings(failures=0))
    for _ in range(1000):
        permit = breaker.admit(now_s=0)
        assert permit is not None
        breaker.failed(permit, now_s=0, random=0)
    assert breaker.state is BreakerState.CLOSED


@pytest.mark.parametrize(("spread", "pause_s"), [(0.0, 0.5), (0.5, 0.75), (0.999, 0.9995)])
def test_the_pause_is_spread_over_its_second_half(spread: float, pause_s: float) -> None:
    breaker = opened(at_s=100.0, spread=spread)
    assert breaker.admit(now_s=100.0 + pause_s - 0.001) is None
    assert breaker.admit(now_s=100.0 + pause_s + 0.001) is not None


def test_one_call_tries_again_and_no_other_meanwhile() -> None:
    breaker = opened()
    trial = breaker.admit(now_s=101.0)
    assert trial is not None
    assert breaker.state is BreakerState.HALF_OPEN
    assert breaker.admit(now_s=200.0) is None
    breaker.succeeded(trial)
    assert breaker.state is BreakerState.CLOSED
    assert breaker.admit(now_s=200.0) is not None


def test_each_trial_that_fails_doubles_the_pause_up_to_the_longest() -> None:
    breaker, now_s = opened(at_s=0.0), 0.0
    for pause_s in (0.5, 1.0, 2.0, 2.5, 2.5):
        assert breaker.refuses(now_s=now_s + pause_s - 0.001)
        now_s += pause_s
        trial = breaker.admit(now_s=now_s)
        assert trial is not None
        breaker.failed(trial, now_s=now_s, random=0.0)
    assert breaker.openings == 6


def test_a_trial_that_succeeds_makes_the_next_pause_short_again() -> None:
    breaker = opened(at_s=0.0)
    for at_s, succeeds in ((0.5, False), (2.0, True)):
        trial = breaker.admit(now_s=at_s)
        assert trial is not None
        if succeeds:
            breaker.succeeded(trial)
        else:
            breaker.failed(trial, now_s=at_s, random=0.0)
    for _ in range(3):
        permit = breaker.admit(now_s=10.0)
        assert permit is not None
        breaker.failed(permit, now_s=10.0, random=0.0)
    assert breaker.refuses(now_s=10.499)
    assert not breaker.refuses(now_s=10.5)


def test_a_trial_that_nobody_waits_for_makes_room_for_the_next() -> None:
    breaker = opened()
    trial = breaker.admit(now_s=101.0)
    assert trial is not None
    breaker.abandoned(trial)
    assert breaker.admit(now_s=101.0) is not None


@pytest.mark.parametrize("verdict", ["succeeded", "failed", "abandoned"])
def test_what_began_before_it_opened_moves_nothing_afterwards(verdict: str) -> None:
    breaker = Breaker(SETTINGS)
    permits = [breaker.admit(now_s=0) for _ in range(4)]
    for permit in permits[:3]:
        assert permit is not None
        breaker.failed(permit, now_s=0, random=0.0)
    late = permits[3]
    assert late is not None
    trial = breaker.admit(now_s=1.0)
    assert trial is not None
    arguments: dict[str, Any] = {"now_s": 1.0, "random": 0.0} if verdict == "failed" else {}
    getattr(breaker, verdict)(late, **arguments)
    assert breaker.state is BreakerState.HALF_OPEN
    assert breaker.admit(now_s=1.0) is None, "the trial is still under way"


def test_a_pause_above_the_longest_is_refused() -> None:
    with pytest.raises(ValidationError, match="max_pause is shorter than pause"):
        BreakerSettings(pause_s=2.0, max_pause_s=1.0)
