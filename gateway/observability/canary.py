"""A message that a node sends to itself through its broker: the only proof that what it publishes also arrives.

Links may be up and answer their probes while nothing comes through: a subscriber that is deaf looks healthy from both
ends. Whether a canary is overdue is judged by the loop's own time (`heartbeats`), for it may have come back already and
wait to be read by a loop that was held up.
"""

from typing import Final

RETRY_S: Final = 0.5
"""How soon the next one is sent behind one that could not be."""
_SHORTEST_S: Final = 0.5
_LONGEST_S: Final = 2.5
_IN_A_GRACE: Final = 4


def interval_of(grace_s: float) -> float:
    """Return how often canaries are sent so that a few of them go within a grace."""
    return min(max(grace_s / _IN_A_GRACE, _SHORTEST_S), _LONGEST_S)


class Canary:
    """Says when to send the next one, and whether they come back: within *interval_s*, or they are missing."""

    def __init__(self, *, interval_s: float) -> None:
        self.interval_s = interval_s
        self.round_trip_s: float | None = None
        """How long the last one that came back was on its way, `None` before there was one."""
        self._number = 0
        self._sent_at_s = 0.0
        self._missing_since_s: float | None = None
        self._reason = ""
        self._back_at_s: float | None = None

    def is_due(self, loop_s: float) -> bool:
        """Tell whether to send one."""
        wait_s = RETRY_S if self._reason else self.interval_s
        return not self._number or loop_s - self._sent_at_s >= wait_s

    def sent(self, *, loop_s: float) -> int:
        """Take note that one is being sent, and return its number."""
        self._number += 1
        self._sent_at_s = loop_s
        self._reason = ""
        if self._missing_since_s is None:
            self._missing_since_s = loop_s
        return self._number

    def failed(self, number: int, reason: str) -> None:
        """Take note of why one could not be sent; of those before the last nobody wants to know."""
        if number == self._number:
            self._reason = reason

    def came_back(self, *, now_s: float, round_trip_s: float) -> None:
        """Take note that one is back, whichever; *now_s* is of a monotonic clock."""
        self.round_trip_s = round_trip_s
        self._back_at_s = now_s
        self._missing_since_s = None
        self._reason = ""

    def age_s(self, now_s: float) -> float | None:
        """Return how long ago one came back, `None` if none ever did."""
        return None if self._back_at_s is None else now_s - self._back_at_s

    def missing_for_s(self, loop_s: float) -> float:
        """Return how long none has come back of those that were sent."""
        return 0.0 if self._missing_since_s is None else loop_s - self._missing_since_s

    def trouble(self, loop_s: float) -> str | None:
        """Say what is wrong, `None` if nothing is."""
        if self._reason:
            return f"what this node publishes does not come back to it: {self._reason}"
        if self.missing_for_s(loop_s) >= self.interval_s:
            return "what this node publishes does not come back to it"
        return None if self._back_at_s is not None else "its first message to itself has not come back yet"
