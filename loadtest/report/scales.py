"""From values to places on an axis, and where its ticks are."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

_STEPS: Final = (1, 2, 5, 10)
_TIME_STEPS_S: Final = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 28800, 86400)
_FEW_DECADES: Final = 2


class Scale(Protocol):
    """Places values between 0 and 1."""

    @property
    def ticks(self) -> Sequence[tuple[float, str]]:
        """Values to mark, and what to write there."""

    def place(self, value: float) -> float:
        """Return where *value* is; beyond the ends it is the end."""


@dataclass(frozen=True, kw_only=True)
class Linear:
    """From *low* to *high* in even steps."""

    low: float
    high: float
    ticks: Sequence[tuple[float, str]]

    def place(self, value: float) -> float:
        """Return where *value* is."""
        return min(1.0, max(0.0, (value - self.low) / (self.high - self.low)))


@dataclass(frozen=True, kw_only=True)
class Logarithmic:
    """From *low* to *high*, both above 0, a decade as wide as the next."""

    low: float
    high: float
    ticks: Sequence[tuple[float, str]]

    def place(self, value: float) -> float:
        """Return where *value* is."""
        if value <= self.low:
            return 0.0
        return min(1.0, math.log(value / self.low) / math.log(self.high / self.low))


def linear(most: float, text: Callable[[float], str], *, steps: int = 4) -> Linear:
    """Return a scale from 0 that holds *most*, and ends with a tick."""
    step = _nice_step(max(most, 1e-9) / steps)
    count = max(1, math.ceil(most / step - 1e-9))
    values = [step * number for number in range(count + 1)]
    return Linear(low=0.0, high=values[-1], ticks=[(value, text(value)) for value in values])


def counting(most: float, text: Callable[[float], str]) -> Linear:
    """Return a scale from 0 for what comes in whole numbers: no tick stands between two."""
    return linear(max(most, 4.0), text)


def logarithmic(least: float, most: float, text: Callable[[float], str]) -> Logarithmic:
    """Return a scale of whole decades around *least* and *most*; where they are few, with ticks at 2 and 5."""
    first, last = math.floor(math.log10(least)), math.ceil(math.log10(max(most, least)))
    last = max(last, first + 1)
    between = (1, 2, 5) if last - first <= _FEW_DECADES else (1,)
    values = [factor * 10.0**decade for decade in range(first, last) for factor in between] + [10.0**last]
    return Logarithmic(low=10.0**first, high=10.0**last, ticks=[(value, text(value)) for value in values])


def elapsed(end_s: float, *, ticks: int) -> Linear:
    """Return a scale of time from 0 to *end_s*, with about as many *ticks* as asked for."""
    step = next((step for step in _TIME_STEPS_S if end_s / step <= ticks), _TIME_STEPS_S[-1])
    unit, name = next(((size, name) for size, name in ((3600, "h"), (60, "min")) if step >= size), (1, "s"))
    values = [step * number for number in range(int(end_s // step) + 1)]
    return Linear(low=0.0, high=max(end_s, 1.0), ticks=[(value, f"{value / unit:g} {name}") for value in values])


def nines(most: int) -> Linear:
    """Return the scale of HdrHistogram's curve, on which each further nine of a percentile is as wide as the last.

    Its values are `depth` of a percentile: 0 for 0 %, 1 for 90 %, 2 for 99 %, to *most*.
    """
    names = ["0 %", "90 %", *(f"99{'.' * (nine > 2)}{'9' * (nine - 2)} %" for nine in range(2, most + 1))]  # noqa: PLR2004
    return Linear(low=0.0, high=float(most), ticks=list(enumerate(names[: most + 1])))


def depth(percent: float) -> float:
    """Return how many nines *percent* has."""
    return abs(math.log10(1 - percent / 100))


def _nice_step(about: float) -> float:
    size = 10.0 ** math.floor(math.log10(about))
    return next(step * size for step in _STEPS if step * size >= about * (1 - 1e-9))
