"""What a session wants done by whoever drives it, and what time it is."""

from typing import TYPE_CHECKING, Final

from gateway.client.endings import Ending

if TYPE_CHECKING:
    from gateway.client.membership import Membership

NEVER: Final = float("inf")


class Agenda:
    """Shared by the parts of one session; its driver reads it after each call."""

    __slots__ = ("ending", "now_s", "wake_at_s", "wants_ping", "wants_tokens")

    def __init__(self) -> None:
        self.now_s = 0.0
        self.wake_at_s = NEVER
        """When to call `tick`, at the latest."""
        self.ending: Ending | None = None
        """Set: this connection has to be ended."""
        self.wants_ping = False
        """Whether the server should show that it is there."""
        self.wants_tokens: list[Membership | None] = []
        """For whom a token has to be fetched; `None`: for the connection."""

    def wake_by(self, at_s: float) -> None:
        """Have `tick` called by then."""
        self.wake_at_s = min(self.wake_at_s, at_s)
