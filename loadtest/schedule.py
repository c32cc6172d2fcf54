"""When things are to happen: arrivals of publications (open model), connects of a ramp. Pure; times are microseconds.

In the open model a publication has an intended time, whatever the servers are doing, and its latency counts from there.
A load that waits for answers before it sends the next (the closed model) sends nothing while a server stalls, so one
publication feels the stall instead of all those that users would have sent meanwhile: *coordinated omission*.
"""

import heapq
import random
from collections.abc import Iterator, Sequence
from typing import Final

_US: Final = 1_000_000


class Arrivals:
    """The intended times of several publishers, each with a rate of its own, merged in order."""

    def __init__(
        self, rates: Sequence[float], *, begin_us: int, end_us: int, is_poisson: bool, chance: random.Random
    ) -> None:
        """Publisher i of *rates* sends so many times a second, evenly from a time of its own on, or at random."""
        self._end_us = end_us
        self._is_poisson = is_poisson
        self._chance = chance
        self._gaps_us = [_US / rate if rate > 0 else 0.0 for rate in rates]
        self._heap = [
            (begin_us + self._first_us(gap_us), number) for number, gap_us in enumerate(self._gaps_us) if gap_us
        ]
        heapq.heapify(self._heap)

    @property
    def next_us(self) -> float | None:
        """When the next one is intended; `None` after the last."""
        return self._heap[0][0] if self._heap and self._heap[0][0] < self._end_us else None

    def due(self, now_us: int) -> Iterator[tuple[int, int]]:
        """Take out whatever is intended by *now_us*: publisher and intended time."""
        heap = self._heap
        while heap and heap[0][0] <= now_us and heap[0][0] < self._end_us:
            at_us, number = heap[0]
            heapq.heapreplace(heap, (at_us + self._gap_us(number), number))
            yield number, int(at_us)

    def _gap_us(self, number: int) -> float:
        gap_us = self._gaps_us[number]
        return self._chance.expovariate(1 / gap_us) if self._is_poisson else gap_us

    def _first_us(self, gap_us: float) -> float:
        return self._chance.expovariate(1 / gap_us) if self._is_poisson else self._chance.uniform(0, gap_us)


def ramp(count: int, duration_s: float) -> list[float]:
    """Return when each of *count* is its turn, evenly over *duration_s*, in seconds from its begin."""
    return [duration_s * number / count for number in range(count)]
