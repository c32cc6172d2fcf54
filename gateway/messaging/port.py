"""The port between a session and the bytes below it; a WebSocket, a stream or a test's recorder stands behind it."""

from typing import Final, Protocol

import msgspec

from gateway.domain.subscriber import Subscriber
from gateway.protocol.codes import Disconnect


class Terms(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a conversation has to know of its kind of transport; all else is behind the port."""

    uses_transport_pings: bool = False
    """Pings are the transport's own, and not of the protocol."""
    expects_pongs: bool = True
    """Pings are answered, in one way or the other."""
    has_session_id: bool = False
    """The client is told a secret by which the conversation can be found: commands come beside the transport."""
    tells_end: bool = False
    """The last message says why the conversation ends, since the transport has no word for that."""


DUPLEX: Final = Terms()
"""Those of a WebSocket."""
DUPLEX_WITH_OWN_PINGS: Final = Terms(uses_transport_pings=True)
EMULATED: Final = Terms(has_session_id=True, tells_end=True)
"""Those of a stream to the client, beside which it sends its commands (protocol.md 1.5)."""


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

    def close(self, disconnect: Disconnect, last: bytes = b"") -> None:
        """Tell the peer why, behind what was offered and the *last* message, if there is one, and close.

        What the peer does not read in time is thrown away.
        """

    def pause_reading(self) -> None:
        """Take nothing more from the peer for now; idempotent."""

    def resume_reading(self) -> None:
        """Take from the peer again; idempotent."""
