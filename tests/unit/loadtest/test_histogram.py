import random

import pytest
from hdrh.histogram import HdrHistogram
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtest.histogram import HIGHEST_US, Histogram, HistogramError, merged

_VALUES = st.lists(st.integers(1, HIGHEST_US), max_size=50)


def _of(*values: int) -> Histogram:
    histogram = Histogram()
    for value in values:
        histogram.record(value)
    return histogram


@settings(deadline=None, max_examples=50)
@given(_VALUES)
def test_it_counts_in_the_buckets_of_hdrhistogram_and_is_read_by_it(values: list[int]) -> None:
    ours, theirs = _of(*values), HdrHistogram(1, HIGHEST_US, 3)
    for value in values:
        theirs.record_value(value)
    read = HdrHistogram.decode(ours.encode())
    assert read.get_total_count() == len(values)
    for percent in (0, 50, 90, 99, 99.9, 100):
        assert read.get_value_at_percentile(percent) == theirs.get_value_at_percentile(percent)


@settings(deadline=None, max_examples=50)
@given(_VALUES)
def test_it_reads_what_hdrhistogram_has_written(values: list[int]) -> None:
    theirs = HdrHistogram(1, HIGHEST_US, 3)
    for value in values:
        theirs.record_value(value)
    assert Histogram.decode(theirs.encode().decode()) == _of(*values)


@settings(deadline=None, max_examples=50)
@given(_VALUES, _VALUES)
def test_what_is_merged_is_what_one_would_have_counted(some: list[int], others: list[int]) -> None:
    assert merged([_of(*some).encode(), "", _of(*others).encode()]) == _of(*some, *others)


def test_percentiles_are_exact_to_three_digits() -> None:
    chance = random.Random(8)
    values = sorted(round(chance.lognormvariate(8, 2)) + 1 for _ in range(5000))
    histogram = _of(*values)
    for percent in (1, 50, 99, 99.9):
        exact = values[-int(-percent / 100 * len(values) // 1) - 1]
        assert histogram.percentile_us(percent) == pytest.approx(exact, rel=0.001)
    assert histogram.percentile_us(100) == values[-1]
    assert histogram.mean_us == pytest.approx(sum(values) / len(values), rel=0.001)


def test_what_is_out_of_range_counts_at_its_end() -> None:
    histogram = _of(-5, 0, HIGHEST_US * 10)
    assert histogram.count == 3
    assert histogram.percentile_us(50) == 0
    assert histogram.percentile_us(100) == HIGHEST_US


def test_an_empty_one_answers_zero() -> None:
    assert (Histogram().count, Histogram().percentile_us(99), Histogram().mean_us) == (0, 0, 0.0)
    assert Histogram.decode(Histogram().encode()) == Histogram()


def test_values_above_a_bound_are_counted() -> None:
    assert _of(10, 100, 100_000, 200_000).count_above(100) == 2


@pytest.mark.parametrize(
    "text", ["", "no base64!", "AAAA", _of(1).encode()[:-8], HdrHistogram(1, 1000, 2).encode().decode()]
)
def test_a_text_that_is_no_such_histogram_is_refused(text: str) -> None:
    with pytest.raises(HistogramError):
        Histogram.decode(text)
