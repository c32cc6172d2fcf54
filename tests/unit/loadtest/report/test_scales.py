import pytest

from loadtest import quantities
from loadtest.report import scales


@pytest.mark.parametrize(
    ("most", "ticks"),
    [(3.9, [0, 1, 2, 3, 4]), (4, [0, 1, 2, 3, 4]), (87, [0, 50, 100]), (200, [0, 50, 100, 150, 200])],
)
def test_a_linear_scale_ends_with_a_tick_at_or_above_the_most(most: float, ticks: list[float]) -> None:
    scale = scales.linear(most, str)
    assert [value for value, _ in scale.ticks][: len(ticks)] == pytest.approx(ticks)
    assert scale.high >= most


def test_counts_have_no_ticks_between_whole_numbers() -> None:
    assert [text for _, text in scales.counting(1, quantities.short).ticks] == ["0", "1", "2", "3", "4"]


def test_a_logarithmic_scale_has_whole_decades_and_more_ticks_where_they_are_few() -> None:
    assert scales.logarithmic(1500, 90_000, quantities.duration).ticks == [
        (1000, "1 ms"),
        (2000, "2 ms"),
        (5000, "5 ms"),
        (10_000, "10 ms"),
        (20_000, "20 ms"),
        (50_000, "50 ms"),
        (100_000, "100 ms"),
    ]
    assert [text for _, text in scales.logarithmic(900, 2e6, quantities.duration).ticks] == [
        "100 µs",
        "1 ms",
        "10 ms",
        "100 ms",
        "1 s",
        "10 s",
    ]
    assert scales.logarithmic(10, 10, quantities.duration).high == 100


def test_a_logarithmic_scale_places_by_ratio() -> None:
    scale = scales.logarithmic(1, 10_000, str)
    assert [scale.place(value) for value in (0, 1, 100, 10_000, 1e6)] == pytest.approx([0, 0, 0.5, 1, 1])


@pytest.mark.parametrize(
    ("end_s", "texts"),
    [
        (4, ["0 s", "1 s", "2 s", "3 s", "4 s"]),
        (28, ["0 s", "5 s", "10 s", "15 s", "20 s", "25 s"]),
        (200, ["0 min", "1 min", "2 min", "3 min"]),
        (4 * 3600, ["0 h", "1 h", "2 h", "3 h", "4 h"]),
    ],
)
def test_time_is_marked_in_round_steps(end_s: float, texts: list[str]) -> None:
    assert [text for _, text in scales.elapsed(end_s, ticks=6).ticks] == texts


def test_each_nine_of_a_percentile_is_as_wide_as_the_last() -> None:
    scale = scales.nines(4)
    assert [text for _, text in scale.ticks] == ["0 %", "90 %", "99 %", "99.9 %", "99.99 %"]
    assert [scale.place(scales.depth(percent)) for percent in (0, 90, 99, 99.9, 99.99)] == pytest.approx(
        [0, 0.25, 0.5, 0.75, 1]
    )
