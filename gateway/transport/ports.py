"""Between a WebSocket connection and what is above it: who decides about upgrades, who gets the messages."""

from typing import TYPE_CHECKING, Literal, Protocol

from websockets.http11 import Request, Response
from websockets.server import ServerProtocol

from gateway.domain.counts import Lost
from gateway.protocol.codes import Disconnect
from gateway.settings import Seconds, Settings, Size

if TYPE_CHECKING:
    from gateway.transport.websocket import WebSocketConnection

ClosedBy = Literal["client", "server", "network"]
"""Who ended a connection: it sent a Close frame, it broke the protocol (the server closed), or it just went away."""


class WebSocketSettings(Settings):
    """`websocket`: framing limits."""

    message_size_limit: Size = 65536
    """Longest message that a client may send, in bytes (close code 1009)."""
    compression: bool = False
    """Negotiate permessage-deflate, without context takeover; it costs CPU and memory, and pays for large texts."""
    compression_min_size: Size = 128
    """Shortest message that is compressed, in bytes."""
    close_timeout_s: Seconds = 5.0
    """How long a client may take to answer a Close frame before the socket is cut; also how long one of the HTTP
    transports may take to read what it was told last."""


class Peer(Protocol):
    """What a connection hands its messages to."""

    def receive(self, payload: bytes, *, is_text: bool) -> None:
        """Take one whole message."""

    def frame_pong(self) -> None:
        """Take a Pong frame."""

    def disconnect(self, disconnect: Disconnect) -> None:
        """End the connection from this side."""

    def tell_gap(self, channel: str) -> None:
        """Take note that publications of *channel* are lost."""

    def closed(self, *, code: int, reason: str, by: ClosedBy) -> None:
        """Take note of an end that this side's `disconnect` did not bring about."""


class Acceptor(Protocol):
    """Decides about upgrade requests."""

    settings: WebSocketSettings
    negotiator: ServerProtocol
    """Made by `make_negotiator`, once for all connections."""

    @property
    def queue_max_bytes(self) -> int:
        """How many bytes may wait for a client that reads too slowly."""

    def opened(self) -> None:
        """Take note of a socket that wants to be a WebSocket."""

    def gone(self, connection: object, lost: Lost | None = None) -> None:
        """Take note that it is closed; *connection* is what `accept` was given, if it came so far.

        *lost* tells how that came, if some of what the connection had taken was not written.
        """

    def refuse(self, request: Request, address: str) -> Response | None:
        """Return the HTTP response for a request from *address* that may not become a WebSocket, else `None`."""

    def failed(self, response: Response, address: str) -> None:
        """Take note of a handshake that breaks the rules of RFC 6455."""

    def accept(self, request: Request, connection: "WebSocketConnection") -> Peer:
        """Make the peer of a connection that is open now."""
