"""How fast a node that stops parts with its clients, so that those it parts with do not come back all at once."""

from collections.abc import Callable
from typing import Final

from gateway.domain.ratelimit import RateLimit, TokenBucket

LEAST_RATE: Final = 10.0
"""Clients a second that may go in any case: so few are no herd, and a node with few clients is quick."""
MOST_IN_A_SECOND: Final = 1.5
"""How many times the rate may go in any one second."""

# What was missed while the loop was held up is made good at this many times the rate, after a burst of what the rate
# gives in a quarter of a second: together 1.5 times the rate in a second.
_CATCHING_UP: Final = 1.25
_BURST_S: Final = 0.25


class Pace:
    """Says when how many of *clients* go; times are of one monotonic clock, *random* returns numbers from 0 up to 1.

    The window is cut into as many equal parts as there are clients, and one of them goes at a random moment of each. So
    all have gone when the window ends; in no second do more than `MOST_IN_A_SECOND` times the rate go, not even when
    nobody has asked for a while, and then it may take longer. Without a window all go at once.
    """

    def __init__(self, clients: int, *, window_s: float, now_s: float, random: Callable[[], float]) -> None:
        self.rate = max(clients / window_s, LEAST_RATE) if window_s else float("inf")
        """Clients a second."""
        self._began_at_s = now_s
        self._random = random
        self._part = 0
        self._limit = RateLimit(_CATCHING_UP * self.rate, int(_BURST_S * self.rate - 0.5)) if window_s else None
        self._bucket = TokenBucket()
        self.next_at_s = now_s
        """When the next one goes, if nothing holds it up."""
        if window_s:
            self._set_next()

    def due(self, waiting: int, *, now_s: float) -> int:
        """Return how many of the *waiting* go now; they count as gone."""
        if self._limit is None:
            return waiting
        going = 0
        while going < waiting and self.next_at_s <= now_s and self._bucket.admit(self._limit, now_s=now_s):
            going += 1
            self._part += 1
            self._set_next()
        return going

    def _set_next(self) -> None:
        self.next_at_s = self._began_at_s + (self._part + self._random()) / self.rate
