import json
import math
import statistics
from collections import deque
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.windows import Deviation, Sample, Statistics, Window, WindowOptions, describe, with_statistics

POPULATION = WindowOptions(size=10, deviation=Deviation.POPULATION, ttl_s=60.0)
LARGEST = 1.7976931348623157e308
numbers = st.floats(allow_nan=False, allow_infinity=False).map(lambda number: number + 0.0)


def taken(window: Window, *values: float, options: WindowOptions = POPULATION, now_s: float = 0.0) -> Statistics:
    return [window.add(Sample(value, options), now_s=now_s) for value in values][-1]


@pytest.mark.parametrize(
    ("values", "deviation", "expected"),
    [
        ([5.0], Deviation.POPULATION, Statistics(1)),
        ([5.0], Deviation.SAMPLE, Statistics(1)),
        ([1.0, 3.0], Deviation.POPULATION, Statistics(2, 2.0, 1.0, 1.0, 3.0)),
        ([1.0, 3.0], Deviation.SAMPLE, Statistics(2, 2.0, math.sqrt(2), 1.0, 3.0)),
        ([0.0, 0.0, 0.0], Deviation.SAMPLE, Statistics(3, 0.0, 0.0, 0.0, 0.0)),
        ([0.1] * 10, Deviation.POPULATION, Statistics(10, 0.1, 0.0, 0.1, 0.1)),
        ([2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0], Deviation.POPULATION, Statistics(8, 5.0, 2.0, 2.0, 9.0)),
        # A mean that no double is: what it was rounded by does not show in the deviation.
        ([1e16, 1e16 + 2], Deviation.POPULATION, Statistics(2, 1e16, 1.0, 1e16, 1e16 + 2)),
        ([1e16, 1.0, -1e16, 1.0], Deviation.POPULATION, Statistics(4, 0.5, 1e16 / math.sqrt(2), -1e16, 1e16)),
        # Squares and sums that no double is.
        ([1e200, 3e200], Deviation.POPULATION, Statistics(2, 2e200, 1e200, 1e200, 3e200)),
        ([1e-200, 3e-200], Deviation.POPULATION, Statistics(2, 2e-200, 1e-200, 1e-200, 3e-200)),
        ([LARGEST] * 3, Deviation.SAMPLE, Statistics(3, LARGEST, 0.0, LARGEST, LARGEST)),
        ([LARGEST, -LARGEST], Deviation.POPULATION, Statistics(2, 0.0, LARGEST, -LARGEST, LARGEST)),
        ([LARGEST, -LARGEST], Deviation.SAMPLE, Statistics(2, 0.0, LARGEST, -LARGEST, LARGEST)),
        ([5e-324, 5e-324], Deviation.SAMPLE, Statistics(2, 5e-324, 0.0, 5e-324, 5e-324)),
    ],
)
def test_what_is_said_of_a_window(values: list[float], deviation: Deviation, expected: Statistics) -> None:
    assert describe(deque(values), deviation) == expected


def test_a_window_slides() -> None:
    window, three = Window(), WindowOptions(3, Deviation.POPULATION, 60.0)
    told = [taken(window, value, options=three) for value in (1.0, 2.0, 6.0, 4.0)]
    assert [(each.count, each.mean, each.min, each.max) for each in told] == [
        (1, None, None, None),
        (2, 1.5, 1.0, 2.0),
        (3, 3.0, 1.0, 6.0),
        (3, 4.0, 2.0, 6.0),
    ]


def test_a_window_that_was_left_alone_begins_anew() -> None:
    window = Window()
    taken(window, 1.0, now_s=0.0)
    assert taken(window, 2.0, now_s=59.9).count == 2
    assert taken(window, 3.0, now_s=119.9) == Statistics(1)


def test_a_smaller_window_drops_what_is_beyond_it_and_a_larger_one_does_not_bring_it_back() -> None:
    window = Window()
    taken(window, 1.0, 2.0, 3.0, 4.0)
    assert taken(window, 5.0, options=WindowOptions(2, Deviation.POPULATION, 60.0)).mean == 4.5
    assert taken(window, 6.0).mean == 5.0


def test_nothing_drifts_over_a_million_values_of_mixed_magnitude() -> None:
    size, count = 10, 1_000_000
    source = np.random.default_rng(7)
    values = source.normal(size=count) * 10.0 ** source.integers(-12, 13, size=count)
    views = np.lib.stride_tricks.sliding_window_view(values, size)
    window, found = Window(), np.empty((count, 4))
    for at, value in enumerate(values.tolist()):
        told = window.add(Sample(value, POPULATION), now_s=0.0)
        found[at] = told.mean or 0.0, told.std or 0.0, told.min or 0.0, told.max or 0.0
    mean, std, low, high = found[size - 1 :].T
    spread = views.std(axis=1)
    assert (np.abs(mean - views.mean(axis=1)) <= 1e-12 * spread).all()
    assert (np.abs(std - spread) <= 1e-12 * spread).all()
    assert (low == views.min(axis=1)).all()
    assert (high == views.max(axis=1)).all()


@given(st.lists(st.floats(-1e150, 1e150).map(lambda number: number + 0.0), min_size=2, max_size=30))
def test_the_mean_is_the_double_next_to_the_exact_one_and_the_deviation_close(values: list[float]) -> None:
    told = describe(deque(values), Deviation.POPULATION)
    exact = [Fraction(value) for value in values]
    assert told.mean is not None
    assert told.std is not None
    mean: Fraction = sum(exact, Fraction(0)) / len(exact)
    spread = float(statistics.pstdev(exact))
    scale = max(map(abs, values))
    assert abs(Fraction(told.mean) - mean) <= Fraction(scale) * Fraction(2) ** -52 + Fraction(5e-324)
    assert abs(told.std - spread) <= 1e-15 * scale + 5e-324


@given(st.lists(numbers, min_size=2, max_size=12), st.sampled_from(Deviation))
def test_whatever_is_measured_can_be_written_and_lies_where_it_must(values: list[float], deviation: Deviation) -> None:
    told = describe(deque(values), deviation)
    written = json.loads(with_statistics(b'{"value":1}', told))["statistics"]
    assert written == {"count": len(values), "mean": told.mean, "std": told.std, "min": told.min, "max": told.max}
    assert all(math.isfinite(written[name]) for name in ("mean", "std", "min", "max"))
    assert (written["min"], written["max"]) == (min(values), max(values))
    assert min(values) <= written["mean"] <= max(values)
    assert written["std"] >= 0


@pytest.mark.parametrize(
    ("data", "told", "expected"),
    [
        (b'{"value": 1.50}', Statistics(1), b'{"value": 1.50,"statistics":{"count":1}}'),
        (b"{}", Statistics(1), b'{"statistics":{"count":1}}'),
        (
            b'{"a":[1]}',
            Statistics(2, 0.1, 1e16, -0.5, 1e-7),
            b'{"a":[1],"statistics":{"count":2,"mean":0.1,"std":1e16,"min":-0.5,"max":1e-7}}',
        ),
    ],
)
def test_statistics_are_put_behind_what_is_there(data: bytes, told: Statistics, expected: bytes) -> None:
    assert with_statistics(data, told) == expected
