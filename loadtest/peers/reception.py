"""What one subscriber has received: each number once and in order, or what went wrong instead."""

from collections.abc import Iterable
from typing import NamedTuple


class Faults(NamedTuple):
    """How often something went wrong."""

    lost: int = 0
    duplicated: int = 0
    reordered: int = 0


def total(faults: Iterable[Faults]) -> Faults:
    """Add up kind by kind."""
    return Faults(*map(sum, zip(Faults(), *faults, strict=True)))


class Reception:
    """Checks numbers that count up from *first*."""

    __slots__ = ("_duplicated", "_missing", "_reordered", "expected")

    def __init__(self, *, first: int = 1) -> None:
        self.expected = first
        """The next number; whoever receives a run of expected ones may simply count on."""
        self._missing: set[int] = set()
        self._duplicated = 0
        self._reordered = 0

    def take(self, numbers: Iterable[int]) -> None:
        """Note *numbers* as they came."""
        for number in numbers:
            if number >= self.expected:
                self._missing.update(range(self.expected, number))
                self.expected = number + 1
            elif number in self._missing:
                self._missing.remove(number)
                self._reordered += 1
            else:
                self._duplicated += 1

    def faults(self, last: int) -> Faults:
        """Return what is wrong once all numbers up to *last* have been sent and there was time for them to arrive."""
        lost = len(self._missing) + max(0, last + 1 - self.expected)
        return Faults(lost, self._duplicated, self._reordered)
