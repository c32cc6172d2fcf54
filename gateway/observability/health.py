"""Whether new connections should be sent to a node: what it says of itself, and what its engine does."""


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
        self._grace_s = grace_s
        self._has_worked = False
        self._since_s = 0.0

    def note(self, trouble: str | None, *, now_s: float) -> float | None:
        """Take note of what the engine says; returns how long it did not work when it is back."""
        was_in_trouble, self.trouble = self.trouble is not None, trouble
        if trouble is None:
            self._has_worked = True
            return now_s - self._since_s if was_in_trouble else None
        if not was_in_trouble:
            self._since_s = now_s
        return None

    def reason(self, *, now_s: float) -> str | None:
        """Say why no new connections should come, `None` if they should."""
        if self.own_reason is not None or self.trouble is None:
            return self.own_reason
        is_in_grace = self._has_worked and now_s - self._since_s < self._grace_s
        return None if is_in_grace else self.trouble
