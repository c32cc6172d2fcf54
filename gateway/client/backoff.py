"""How long to wait between attempts to connect, and when to give up. No clock: times come in."""

import random
from collections.abc import Iterator
from enum import StrEnum
from typing import Final

import msgspec

from gateway.client.errors import InvalidArgumentError

SHARED_CHANCE: Final = random.Random()  # noqa: S311 - it spreads waiting times, no more
"""What clients use that are given no other: one for each would take 2.5 KB of its own."""


class Jitter(StrEnum):
    """How chance spreads the waiting times of many clients."""

    FULL = "full"
    """Anything between 0 and the growing limit: a herd comes back evenly spread."""
    CLASSIC = "classic"
    """The growing limit itself and up to a tenth more."""


class Backoff(msgspec.Struct, frozen=True, kw_only=True):
    """Exponential waiting: the limit of attempt n (from 0) is `min(cap_s, base_s * factor**n)`."""

    base_s: float = 1.0
    factor: float = 1.5
    cap_s: float = 60.0
    jitter: Jitter = Jitter.FULL
    stable_after_s: float = 10.0
    """How long a connection must have been up for the waiting to start from *base_s* again."""
    max_retries: int | None = None
    """Attempts in a row after which the client gives up; `None`: never."""

    def __post_init__(self) -> None:
        """Refuse what can't work."""
        if self.base_s <= 0 or self.cap_s < self.base_s or self.factor < 1:
            raise InvalidArgumentError("a backoff that does not grow", to_do="use 0 < base_s <= cap_s and factor >= 1")
        if self.stable_after_s < 0 or (self.max_retries is not None and self.max_retries < 0):
            raise InvalidArgumentError("a negative backoff setting", to_do="use 0 or more")


def delays(backoff: Backoff, chance: random.Random) -> Iterator[float]:
    """Yield how long to wait before each further attempt, in seconds; ends after `max_retries`."""
    attempt, limit_s = 0, backoff.base_s
    while backoff.max_retries is None or attempt < backoff.max_retries:
        if backoff.jitter is Jitter.FULL:
            yield chance.uniform(0, limit_s)
        else:
            yield limit_s * (1 + chance.uniform(0, 0.1))
        attempt += 1
        limit_s = min(backoff.cap_s, limit_s * backoff.factor)  # a power would overflow one day


class Attempts:
    """Counts attempts in a row; one that led to a connection which stayed up ends the row."""

    __slots__ = ("_backoff", "_chance", "_delays", "_up_since_s", "retries")

    def __init__(self, backoff: Backoff, chance: random.Random) -> None:
        self.retries = 0
        """How many retries this row has had."""
        self._backoff = backoff
        self._chance = chance
        self._delays = delays(backoff, chance)
        self._up_since_s: float | None = None

    def succeeded(self, *, now_s: float) -> None:
        """Note that a connection is up."""
        self._up_since_s = now_s

    def failed(self, *, now_s: float) -> float | None:
        """Note that the attempt failed or the connection ended; return how long to wait, `None` to give up."""
        up_since_s, self._up_since_s = self._up_since_s, None
        if up_since_s is not None and now_s - up_since_s >= self._backoff.stable_after_s:
            self._delays = delays(self._backoff, self._chance)
            self.retries = 0
        delay_s = next(self._delays, None)
        if delay_s is not None:
            self.retries += 1
        return delay_s
