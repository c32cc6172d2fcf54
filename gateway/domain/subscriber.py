"""Where publications go on this node: the port between the hub and the transports of sessions."""

from typing import Final, NamedTuple, Protocol

from gateway.protocol.codes import Disconnect


class Subscriber(Protocol):
    """The transport of a session, as the hub sees it."""

    def offer(self, data: bytes) -> bool:
        """Take *data* to write it soon; false when the reader is too slow, and nothing was taken."""

    def dismiss(self, disconnect: Disconnect) -> None:
        """End the connection."""

    def tell_gap(self, channel: str) -> None:
        """Have the session told that publications of *channel* are lost; it may leave the channel within the call."""


class Traffic(NamedTuple):
    """How much has been written, in messages and in bytes with their framing."""

    messages: int = 0
    size: int = 0


NO_TRAFFIC: Final = Traffic()
