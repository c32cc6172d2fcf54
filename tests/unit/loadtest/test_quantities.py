import pytest

from loadtest import quantities


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.126, "0.13"), (3.0, "3"), (9.96, "9.96"), (12.34, "12.3"), (1234.5, "1,234"), (-2.5, "−2.5")],  # noqa: RUF001
)
def test_numbers_have_three_digits_or_so(value: float, text: str) -> None:
    assert quantities.rounded(value) == text


@pytest.mark.parametrize(
    ("us", "text"),
    [(0, "0 µs"), (850, "850 µs"), (12_340, "12.3 ms"), (1_500_000, "1.5 s"), (300e6, "5 min"), (9e9, "2.5 h")],
)
def test_times_have_the_unit_that_fits(us: float, text: str) -> None:
    assert quantities.duration(us) == text


@pytest.mark.parametrize(
    ("value", "text"), [(950, "950"), (1200, "1.2 k"), (35_000_000, "35 M"), (2_000_000_000, "2 G")]
)
def test_counts_for_little_room(value: float, text: str) -> None:
    assert quantities.short(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(512, "512 B"), (2048, "2 KiB"), (5 * 2**20, "5 MiB"), (3 * 2**41, "6,144 GiB")]
)
def test_sizes_have_the_unit_that_fits(value: float, text: str) -> None:
    assert quantities.size(value) == text
