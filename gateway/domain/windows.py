"""Statistics over the last numbers of a channel.

Nothing runs along that a number leaving the window would have to be taken out of again: each time all of the window is
counted anew, in two passes of exactly rounded sums. So nothing drifts, and the script that does the same on Redis
(`gateway.broker.redis.scripts`), step by step, comes to the same bits.
"""

import math
import operator
from collections import deque
from collections.abc import Iterable
from enum import StrEnum
from typing import Final

import msgspec

STATISTICS: Final = "statistics"
"""The field that is put beside a value."""
LARGE_EXPONENT: Final = 300
"""Beyond this power of two, up and down, squares may leave the range of doubles: numbers are brought below 1 first."""
_LARGE: Final = 2.0**LARGE_EXPONENT
_SMALL: Final = 2.0**-LARGE_EXPONENT
_TOP_EXPONENT: Final = 1024
_BELOW_ONE: Final = 1.0 - 2.0**-53


class Deviation(StrEnum):
    """What a standard deviation is divided by: the count, or one less."""

    POPULATION = "population"
    SAMPLE = "sample"


# Looking a member up on its enum costs as much as a call.
_POPULATION: Final = Deviation.POPULATION


class WindowOptions(msgspec.Struct, frozen=True, gc=False):
    """How a channel's window is kept: over how many numbers, and for how long after the last one."""

    size: int
    deviation: Deviation
    ttl_s: float


class Sample(msgspec.Struct, frozen=True, gc=False):
    """A number, finite, and the window that it goes into."""

    number: float
    window: WindowOptions


class Statistics(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """What is said of a window; of a single number the count alone."""

    count: int
    mean: float | None = None
    std: float | None = None
    min: float | None = None
    max: float | None = None


class Window:
    """The window of one channel. Times are of a monotonic clock."""

    __slots__ = ("_numbers", "expires_at_s")

    def __init__(self) -> None:
        self._numbers: deque[float] = deque()
        self.expires_at_s = 0.0

    def add(self, sample: Sample, *, now_s: float) -> Statistics:
        """Take a number in, let go what lies before the window, and return the window's statistics."""
        numbers, options = self._numbers, sample.window
        if now_s >= self.expires_at_s:
            numbers.clear()
        self.expires_at_s = now_s + options.ttl_s
        numbers.append(sample.number)
        while len(numbers) > options.size:
            numbers.popleft()
        return describe(numbers, options.deviation)


def describe(numbers: deque[float], deviation: Deviation) -> Statistics:
    """Return the statistics of one or more finite *numbers*, none of them `-0.0`.

    Mean and standard deviation are as good as doubles allow, whatever the numbers' magnitudes; the mean never lies
    outside of the numbers.
    """
    count = len(numbers)
    if count == 1:
        return Statistics(1)
    low, high = min(numbers), max(numbers)
    largest = max(-low, high)
    divisor = count if deviation is _POPULATION else count - 1
    if _SMALL <= largest < _LARGE or not largest:
        mean, std = _mean_and_std(numbers, low, high, count, divisor)
        return Statistics(count, mean, std, low, high)
    exponent = math.frexp(largest)[1]
    scaled = [math.ldexp(number, -exponent) for number in numbers]
    mean, std = _mean_and_std(scaled, min(scaled), max(scaled), count, divisor)
    if exponent == _TOP_EXPONENT:  # the deviation of a sample may be larger than the largest double
        std = min(std, _BELOW_ONE)
    return Statistics(count, math.ldexp(mean, exponent), math.ldexp(std, exponent), low, high)


def _mean_and_std(numbers: Iterable[float], low: float, high: float, count: int, divisor: int) -> tuple[float, float]:
    mean = math.fsum(numbers) / count
    if mean < low:  # by a rounding
        mean = low
    elif mean > high:
        mean = high
    deviations = [number - mean for number in numbers]
    # The sum of the deviations is what the mean was rounded by; taking it out makes up for that.
    rest = math.fsum(deviations)
    squares = math.fsum(map(operator.mul, deviations, deviations)) - rest * rest / count
    return mean, math.sqrt(squares / divisor) if squares > 0 else 0.0


_encode = msgspec.json.Encoder().encode
_NAME: Final = STATISTICS.encode()


def with_statistics(data: bytes, statistics: Statistics) -> bytes:
    """Return *data*, the text of a JSON object that has no such field, with *statistics* in it."""
    separator = b"" if data == b"{}" else b","
    return b'%b%b"%b":%b}' % (data[:-1], separator, _NAME, _encode(statistics))
