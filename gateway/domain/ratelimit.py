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


# Looking a member up on its enum costs as much as a call, and this one is answered to every command.
_WITHIN: Final = Verdict.WITHIN


class RateLimit(msgspec.Struct, frozen=True, gc=False):
    """*rate* commands a second with a burst of *burst*; both at least 1."""

    rate: float
    burst: int
    interval_s: float = 0.0
    burst_s: float = 0.0
    """How far ahead of the clock a bucket may be: what *burst* commands take. Both follow from rate and burst."""

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "interval_s", 1.0 / self.rate)
        msgspec.structs.force_setattr(self, "burst_s", (self.burst + _SLACK) / self.rate)


class TokenBucket:
    """Counts what arrives against a `RateLimit`."""

    __slots__ = ("_full_at_s",)

    def __init__(self) -> None:
        self._full_at_s = 0.0

    def take(self, limit: RateLimit, *, now_s: float) -> Verdict:
        """Count one command of a connection that arrives at *now_s*.

        A refused command counts too, down to one more burst: who goes on against the refusals ends up `FAR_OVER`.
        """
        full_at_s = self._full_at_s
        full_at_s = max(full_at_s, now_s)
        full_at_s += limit.interval_s
        ahead_s = full_at_s - now_s
        if ahead_s <= limit.burst_s:
            self._full_at_s = full_at_s
            return _WITHIN
        if ahead_s <= limit.burst_s + limit.burst * limit.interval_s:
            self._full_at_s = full_at_s
            return Verdict.OVER
        return Verdict.FAR_OVER

    def admit(self, limit: RateLimit, *, now_s: float) -> bool:
        """Take a token if there is one; who is refused costs those who come later nothing."""
        full_at_s = max(self._full_at_s, now_s) + limit.interval_s
        if full_at_s - now_s > limit.burst_s:
            return False
        self._full_at_s = full_at_s
        return True
