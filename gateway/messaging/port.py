"""The port between a session and the bytes below it; a WebSocket, a stream or a test's recorder stands behind it."""

from typing import Protocol

from gateway.domain.subscriber import Subscriber
from gateway.protocol.codes import Disconnect


class Transport(Subscriber, Protocol):
    """What a session writes to. Nothing above it knows whether it is a WebSocket, a stream or something else.

    `offer`, `dismiss` and `tell_gap` are those of `Subscriber`; the last two come back as the conversation's
    `disconnect` and `tell_gap`.
    """

    @property
    def is_congested(self) -> bool:
        """Whether bytes wait for the client to read them."""

    @property
    def peer_address(self) -> str:
        """Where the client comes from, without a port; empty when that is unknown."""

    @property
    def waiting(self) -> int:
        """How many."""

    @property
    def room(self) -> int:
        """How many bytes `offer` takes at least, now."""

    def ping(self) -> None:
        """Send a ping of the transport's own (a WebSocket Ping frame), if it has such a thing."""

    def close(self, disconnect: Disconnect) -> None:
        """Tell the peer why, behind what was offered, and close; what it does not read in time is thrown away."""

    def pause_reading(self) -> None:
        """Take nothing more from the peer for now; idempotent."""

    def resume_reading(self) -> None:
        """Take from the peer again; idempotent."""
