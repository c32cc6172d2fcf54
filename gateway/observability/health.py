"""Whether new connections should be sent to a node: what it says of itself, and what its engine does."""

from enum import Enum, auto
from typing import Final

_WORTH_TELLING_S: Final = 0.5
"""How long an engine must be in trouble before anybody is told: a start, or a link that is replaced, is none."""


class Change(Enum):
    """What an operator should hear about the engine."""

    LOST = auto()
    BACK = auto()


class Readiness:
    """Why a node is not ready, decided from what is noted here; times are of one monotonic clock.

    An engine in trouble makes a node unready at once before it has ever worked, and after a grace later on: connections
    that are there stay in any case, and a short outage should not send everybody to nodes with the same outage.
    """

    def __init__(self, reason: str, *, grace_s: float) -> None:
        self.own_reason: str | None = reason
        """What the node itself has against new connections: it starts, or drains."""
        self.trouble: str | None = None
        """What keeps the engine from working, as last noted."""
        self.grace_s = grace_s
        """How long trouble is no reason once the engine has worked."""
        self._has_worked = False
        self._is_told = False
        self.since_s = 0.0
        """Since when the engine is, or was last, in trouble."""

    def note(self, trouble: str | None, *, now_s: float) -> Change | None:
        """Take note of what the engine says, a few times a second; returns what is worth telling."""
        was_in_trouble, self.trouble = self.trouble is not None, trouble
        if trouble is None:
            self._has_worked = True
            was_told, self._is_told = self._is_told, False
            return Change.BACK if was_told else None
        if not was_in_trouble:
            self.since_s = now_s
        if self._is_told or now_s - self.since_s < _WORTH_TELLING_S:
            return None
        self._is_told = True
        return Change.LOST

    def reason(self, *, now_s: float) -> str | None:
        """Say why no new connections should come, `None` if they should."""
        if self.own_reason is not None or self.trouble is None:
            return self.own_reason
        is_in_grace = self._has_worked and now_s - self.since_s < self.grace_s
        return None if is_in_grace else self.trouble
