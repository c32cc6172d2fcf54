"""A circuit breaker: leaves a backend that fails in peace, and finds out when it is back.

Theory of operation. Time and randomness come in by argument; nothing here waits.

                 failures in a row reach their limit
        CLOSED ──────────────────────────────────────▶ OPEN
           ▲                                            │ the pause is over, and somebody asks
           │ the trial succeeds                         ▼
           └──────────────────────────────────────── HALF_OPEN ──the trial fails──▶ OPEN, for twice as long

A call is let through by a permit, and tells with it how it went. Permits are of one term, and each change of state
begins another: what calls say that began in an earlier term is history and moves nothing, so neither can stragglers
reopen a breaker that has closed, nor the one success that was under way close one that has opened. In HALF_OPEN one
call at a time is let through, the trial. One that ends without a verdict, because it was given up, makes room for the
next.
"""

from enum import Enum

from gateway.proxies.settings import BreakerSettings


class BreakerState(Enum):
    """Whether calls are let through."""

    CLOSED = 0
    HALF_OPEN = 1
    OPEN = 2


class Breaker:
    """Decides which calls are made."""

    def __init__(self, settings: BreakerSettings) -> None:
        self.state = BreakerState.CLOSED
        self.openings = 0
        """How often it has opened."""
        self._settings = settings
        self._term = 0
        self._failures = 0
        self._retry_at_s = 0.0
        self._is_trying = False
        self._pause_s = settings.pause_s

    def refuses(self, *, now_s: float) -> bool:
        """Tell whether `admit` would refuse a call now."""
        match self.state:
            case BreakerState.CLOSED:
                return False
            case BreakerState.OPEN:
                return now_s < self._retry_at_s
            case BreakerState.HALF_OPEN:
                return self._is_trying

    def admit(self, *, now_s: float) -> int | None:
        """Return a permit for one call, `None` if it must not be made.

        Give it back, by `succeeded`, `failed` or `abandoned`.
        """
        if self.refuses(now_s=now_s):
            return None
        if self.state is BreakerState.OPEN:
            self._enter(BreakerState.HALF_OPEN)
        self._is_trying = self.state is BreakerState.HALF_OPEN
        return self._term

    def succeeded(self, permit: int) -> None:
        """Take note that the backend has answered."""
        if permit != self._term:
            return
        self._failures = 0
        if self.state is BreakerState.HALF_OPEN:
            self._pause_s = self._settings.pause_s
            self._enter(BreakerState.CLOSED)

    def failed(self, permit: int, *, now_s: float, random: float) -> None:
        """Take note that it has not. *random* in [0, 1) spreads the trials of many nodes over half a pause."""
        if permit != self._term or not self._settings.failures:
            return
        self._failures += 1
        if self.state is BreakerState.HALF_OPEN or self._failures >= self._settings.failures:
            self._retry_at_s = now_s + self._pause_s * (1 + random) / 2
            self._pause_s = min(self._pause_s * 2, self._settings.max_pause_s)
            self.openings += 1
            self._enter(BreakerState.OPEN)

    def abandoned(self, permit: int) -> None:
        """Take note that nobody knows."""
        if permit == self._term:
            self._is_trying = False

    def _enter(self, state: BreakerState) -> None:
        self.state = state
        self._term += 1
        self._failures = 0
        self._is_trying = False
