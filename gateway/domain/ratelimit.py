"""A token bucket, kept as one number: the time at which it will be full again."""

from enum import Enum, auto
from typing import Final

import msgspec

_SLACK: Final = 0.5
"""Half a token, so that rounding does not refuse the last one of an exact burst."""


class Verdict(Enum):
    """What a command that arrives now gets."""

    WITHIN = auto()
    OVER = auto()
    FAR_OVER = auto()


class RateLimit(msgspec.Struct, frozen=True, gc=False):
    """*rate* commands a second with a burst of *burst*; a rate of 0 is no limit."""

    rate: float
    burst: int


class TokenBucket:
    """Counts what arrives against a `RateLimit`."""

    __slots__ = ("_full_at_s",)

    def __init__(self) -> None:
        self._full_at_s = 0.0

    def take(self, limit: RateLimit, *, now_s: float) -> Verdict:
        """Count one command of a connection that arrives at *now_s*.

        A refused command counts too, down to one more burst: who goes on against the refusals ends up `FAR_OVER`.
        """
        full_at_s, owed = self._after_one_more(limit, now_s)
        if owed <= limit.burst + _SLACK:
            self._full_at_s = full_at_s
            return Verdict.WITHIN
        if owed <= 2 * limit.burst + _SLACK:
            self._full_at_s = full_at_s
            return Verdict.OVER
        return Verdict.FAR_OVER

    def admit(self, limit: RateLimit, *, now_s: float) -> bool:
        """Take a token if there is one; who is refused costs those who come later nothing."""
        full_at_s, owed = self._after_one_more(limit, now_s)
        if owed > limit.burst + _SLACK:
            return False
        self._full_at_s = full_at_s
        return True

    def _after_one_more(self, limit: RateLimit, now_s: float) -> tuple[float, float]:
        """Return when the bucket would be full again, and how many tokens it would lack."""
        full_at_s = max(self._full_at_s, now_s) + 1.0 / limit.rate
        return full_at_s, (full_at_s - now_s) * limit.rate
