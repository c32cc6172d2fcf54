"""States and events, typed: a closed union for each, made for `match`.

Callbacks are plain functions, called in the turn of the event loop that brings the news, in order. They must not wait;
one that raises is reported to the event loop's exception handler, and nothing else suffers.
"""

from enum import StrEnum

from msgspec import Raw, Struct

from gateway.protocol.client_codec import ReceivedPublication
from gateway.protocol.messages import NOTHING, ClientInfo, StreamPosition


class State(StrEnum):
    """Where a client is: NEW, then CONNECTING and CONNECTED in turn, CLOSED in the end."""

    NEW = "new"
    CONNECTING = "connecting"
    CONNECTED = "connected"
    CLOSED = "closed"


class SubscriptionState(StrEnum):
    """Where a subscription is; it goes back to SUBSCRIBING with each lost connection, UNSUBSCRIBED is for good."""

    SUBSCRIBING = "subscribing"
    SUBSCRIBED = "subscribed"
    UNSUBSCRIBED = "unsubscribed"


class Connected(Struct, frozen=True):
    """The server has accepted this client, under the id *client*."""

    client: str
    data: Raw = NOTHING


class Reconnecting(Struct, frozen=True):
    """There is no connection; attempt number *attempt* in a row follows after *delay_s*."""

    code: int
    reason: str
    attempt: int
    delay_s: float


class Disconnected(Struct, frozen=True):
    """The client has ended, for good."""

    code: int
    reason: str


class MessageReceived(Struct, frozen=True):
    """The server sent something outside any channel."""

    data: Raw


class Subscribed(Struct, frozen=True):
    """The server has confirmed a subscription; what is published from *position* on follows."""

    channel: str
    position: StreamPosition
    was_recovering: bool
    """Whether this goes on from an earlier position: after a lost connection, or with `since`."""
    recovered: bool
    """Whether all that was published meanwhile follows now. False with *was_recovering*: something may be missing."""
    data: Raw = NOTHING

    @property
    def may_have_missed(self) -> bool:
        """Whether publications may be missing between what came before this event and what comes after it."""
        return self.was_recovering and not self.recovered


class Resubscribing(Struct, frozen=True):
    """The subscription is interrupted, and will be restored without further ado."""

    channel: str
    code: int
    reason: str


class Unsubscribed(Struct, frozen=True):
    """The subscription is over, for good."""

    channel: str
    code: int
    reason: str


class Published(Struct, frozen=True):
    """A publication in a channel that the server subscribed this client to."""

    channel: str
    publication: ReceivedPublication


class Joined(Struct, frozen=True):
    """A client has joined the channel."""

    channel: str
    info: ClientInfo


class Left(Struct, frozen=True):
    """A client has left the channel."""

    channel: str
    info: ClientInfo


class Dropped(Struct, frozen=True):
    """The buffer was full: *count* publications that came here in the order were thrown away (`Overflow.DROP_NEW`)."""

    channel: str
    count: int


SubscriptionEvent = Subscribed | Resubscribing | Unsubscribed | Joined | Left | Dropped
ClientEvent = Connected | Reconnecting | Disconnected | MessageReceived | Published | SubscriptionEvent
