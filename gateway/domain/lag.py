"""How late a loop is that should come around at even intervals."""

from typing import Final

from gateway.domain.counts import Histogram

_WINDOW_S: Final = 15.0


class Lag:
    """All lags as a histogram, and the greatest of the last fifteen to thirty seconds."""

    def __init__(self) -> None:
        self.all = Histogram()
        self._ends_at_s = 0.0
        self._greatest = self._greatest_before = 0.0

    def note(self, lag_s: float, *, now_s: float) -> None:
        """Take one lag."""
        self._move_on(now_s)
        self.all.observe(lag_s)
        self._greatest = max(self._greatest, lag_s)

    def recent_s(self, *, now_s: float) -> float:
        """Return the greatest lag of lately."""
        self._move_on(now_s)
        return max(self._greatest, self._greatest_before)

    def _move_on(self, now_s: float) -> None:
        if now_s < self._ends_at_s:
            return
        # After a longer silence nothing of before is recent.
        self._greatest_before = self._greatest if now_s < self._ends_at_s + _WINDOW_S else 0.0
        self._greatest = 0.0
        self._ends_at_s = now_s + _WINDOW_S
