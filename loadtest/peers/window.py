"""The window of a closed model: a new publication goes out when one has reached everybody."""


class Window:
    """Keeps *in_flight* publications under way to *subscribers* until *messages* have been sent.

    Publications are counted, not told apart: as many have arrived as fit into the deliveries so far.
    """

    __slots__ = ("_in_flight", "_messages", "_subscribers", "deliveries", "next_due", "sent")

    def __init__(self, *, messages: int, in_flight: int, subscribers: int) -> None:
        self.deliveries = 0
        """Whoever takes a delivery adds it here, and calls `advance` when there are `next_due`."""
        self.next_due = 0
        self.sent = 0
        self._messages = messages
        self._in_flight = in_flight
        self._subscribers = subscribers

    @property
    def is_complete(self) -> bool:
        """Whether everything has been sent and has arrived."""
        return self.deliveries >= self._messages * self._subscribers

    def advance(self) -> int:
        """Return how many publications are to be sent now; they count as sent."""
        arrived = self.deliveries // self._subscribers
        allowed = min(self._messages, arrived + self._in_flight)
        due, self.sent = max(0, allowed - self.sent), max(self.sent, allowed)
        first_missing = self.sent - self._in_flight + 1 if self.sent < self._messages else self._messages
        self.next_due = first_missing * self._subscribers
        return due
