"""When canaries are sent and when they are missing; times are those of the loop, unless they say otherwise."""

import pytest

from gateway.observability.canary import Canary, interval_of

INTERVAL_S = 2.0
NOT_BACK = "what this node publishes does not come back to it"
NOT_YET = "its first message to itself has not come back yet"


def healthy(at_s: float = 0.0) -> Canary:
    """Return a canary whose first message came back at once."""
    canary = Canary(interval_s=INTERVAL_S)
    canary.sent(loop_s=at_s)
    canary.came_back(now_s=1000.0, round_trip_s=0.01)
    return canary


@pytest.mark.parametrize(
    ("grace_s", "interval_s"), [(0.0, 0.5), (1.0, 0.5), (4.0, 1.0), (10.0, 2.5), (60.0, 2.5), (float("inf"), 2.5)]
)
def test_a_few_go_within_a_grace(grace_s: float, interval_s: float) -> None:
    assert interval_of(grace_s) == interval_s


def test_before_the_first_one_is_back_there_is_no_proof() -> None:
    canary = Canary(interval_s=INTERVAL_S)
    assert (canary.is_due(0.0), canary.trouble(0.0), canary.age_s(1000.0)) == (True, NOT_YET, None)
    canary.sent(loop_s=0.0)
    assert (canary.is_due(0.1), canary.trouble(0.1), canary.trouble(2.0)) == (False, NOT_YET, NOT_BACK)
    canary.came_back(now_s=1000.0, round_trip_s=0.3)
    assert (canary.trouble(2.0), canary.age_s(1001.5), canary.round_trip_s) == (None, 1.5, 0.3)


def test_the_next_one_goes_after_an_interval() -> None:
    canary = healthy()
    assert [canary.is_due(at_s) for at_s in (0.0, 1.9, 2.0)] == [False, False, True]


def test_one_that_is_not_back_within_the_interval_is_missing_until_one_is() -> None:
    canary = healthy()
    canary.sent(loop_s=2.0)
    assert [canary.trouble(at_s) for at_s in (2.0, 3.9, 4.0)] == [None, None, NOT_BACK]
    canary.sent(loop_s=4.0)
    assert (canary.trouble(4.5), canary.missing_for_s(4.5)) == (NOT_BACK, 2.5)
    canary.came_back(now_s=1004.5, round_trip_s=0.5)
    assert (canary.trouble(4.5), canary.missing_for_s(4.5)) == (None, 0.0)


def test_one_that_could_not_be_sent_is_trouble_at_once_and_tried_again_soon() -> None:
    canary = healthy()
    canary.failed(canary.sent(loop_s=2.0), "not connected")
    assert canary.trouble(2.0) == f"{NOT_BACK}: not connected"
    assert [canary.is_due(at_s) for at_s in (2.4, 2.5)] == [False, True]


def test_the_fate_of_one_before_the_last_is_no_news() -> None:
    canary = healthy()
    old = canary.sent(loop_s=2.0)
    canary.sent(loop_s=4.0)
    canary.failed(old, "it did not come back before the next one was sent")
    assert canary.trouble(4.0) == NOT_BACK
    assert not canary.is_due(4.5)
