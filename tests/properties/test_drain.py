"""Parting at a pace: everybody goes once, never too many in a second, and all within the window."""

import random
from bisect import bisect_right

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.domain.drain import LEAST_RATE, MOST_IN_A_SECOND, Pace


def play(clients: int, window_s: float, seed: int, pauses: list[float]) -> tuple[Pace, list[float]]:
    """Ask after each of *pauses*, then every 50 ms until all have gone; return when each one went."""
    pace = Pace(clients, window_s=window_s, now_s=100.0, random=random.Random(seed).random)
    went_at_s: list[float] = []
    now_s, waiting = 100.0, list(pauses)
    while len(went_at_s) < clients:
        now_s += waiting.pop(0) if waiting else 0.05
        due = pace.due(clients - len(went_at_s), now_s=now_s)
        went_at_s += [now_s - 100.0] * due
    return pace, went_at_s


def most_in_a_second(went_at_s: list[float]) -> int:
    """Return how many went in the busiest second, both of its ends included."""
    return max(
        bisect_right(went_at_s, at_s + 1.0) - number
        for number, at_s in enumerate(went_at_s)
        if not number or went_at_s[number - 1] < at_s
    )


@settings(deadline=None, max_examples=200)
@given(
    clients=st.integers(1, 3000),
    window_s=st.floats(0.5, 60.0),
    seed=st.integers(0, 10**6),
    naps=st.lists(st.floats(0.0, 0.2), max_size=100),
)
def test_who_is_asked_in_time_parts_with_all_within_the_window_and_evenly(
    clients: int, window_s: float, seed: int, naps: list[float]
) -> None:
    pace, went_at_s = play(clients, window_s, seed, naps)
    assert len(went_at_s) == clients
    assert pace.rate == max(clients / window_s, LEAST_RATE)
    assert most_in_a_second(went_at_s) <= MOST_IN_A_SECOND * pace.rate
    assert went_at_s[-1] <= clients / pace.rate + 0.2
    # At any time as many have gone as should have, but for one and for what 200 ms bring.
    for number, at_s in enumerate(went_at_s):
        assert number - 1 <= at_s * pace.rate <= number + 1 + 0.2 * pace.rate


@settings(deadline=None, max_examples=200)
@given(
    clients=st.integers(1, 2000),
    window_s=st.floats(0.5, 30.0),
    seed=st.integers(0, 10**6),
    stalls=st.lists(st.floats(0.0, 20.0), max_size=8),
)
def test_not_even_a_loop_that_was_held_up_sends_too_many_away_in_a_second(
    clients: int, window_s: float, seed: int, stalls: list[float]
) -> None:
    pace, went_at_s = play(clients, window_s, seed, stalls)
    assert len(went_at_s) == clients
    assert most_in_a_second(went_at_s) <= MOST_IN_A_SECOND * pace.rate
