"""A token bucket, kept as one number: the time at which it will be full again."""

from enum import Enum, auto

import msgspec


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
    """Counts the commands of one connection against a `RateLimit`.

    A refused command counts too, down to one more burst: who goes on against the refusals ends up `FAR_OVER`.
    """

    __slots__ = ("_full_at_s",)

    def __init__(self) -> None:
        self._full_at_s = 0.0

    def take(self, limit: RateLimit, *, now_s: float) -> Verdict:
        """Count one command that arrives at *now_s*."""
        full_at_s = max(self._full_at_s, now_s) + 1.0 / limit.rate
        owed = (full_at_s - now_s) * limit.rate
        # Half a token of slack keeps float rounding from refusing the last command of an exact burst.
        if owed <= limit.burst + 0.5:
            self._full_at_s = full_at_s
            return Verdict.WITHIN
        if owed <= 2 * limit.burst + 0.5:
            self._full_at_s = full_at_s
            return Verdict.OVER
        return Verdict.FAR_OVER
