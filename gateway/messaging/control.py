"""What the nodes of a system tell each other: tagged MessagePack maps.

Nodes of several versions may run together: an unknown kind of message and an unknown field are ignored, a missing field
has its default. So a field is never given a new meaning, and a new one must have a default.
"""

from typing import Final

import msgspec

from gateway.domain.identity import Overrides
from gateway.protocol import codes
from gateway.protocol.codes import Disconnect
from gateway.protocol.messages import StreamPosition


class Figures(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a node is doing: what it has moved since it started, and how much waits.

    Who has two of them knows rates: the difference, divided by that of the node's uptime.
    """

    messages_in: int = 0
    bytes_in: int = 0
    messages_out: int = 0
    bytes_out: int = 0
    dropped: int = 0
    """Deliveries that no transport took."""
    cpu_s: float = 0.0
    """What the process has used of a processor."""
    queued: int = 0
    """Deliveries that wait for the end of the loop turn."""
    outbox_bytes: int = 0
    """What waits in all transports for clients to read it."""
    congested: int = 0
    """Connections that it waits for."""
    loop_lag_s: float = 0.0
    """How late the event loop has been at most, lately."""
    trouble: str = ""
    """What keeps the broker from working."""
    unready: str = ""
    """Why the node should get no new connections."""


NO_FIGURES: Final = Figures()
"""Those of a node that announces none, since it is of an older version."""


class NodeInfo(msgspec.Struct, frozen=True, omit_defaults=True):
    """A node as the others know it (protocol.md 7, `info`): its counts as last announced, *uptime_s* at that time."""

    uid: str
    name: str = ""
    version: str = ""
    num_clients: int = 0
    num_users: int = 0
    num_subs: int = 0
    num_channels: int = 0
    uptime_s: float = 0.0
    figures: Figures = NO_FIGURES


class Announce(msgspec.Struct, frozen=True, tag="announce"):
    """Here I am; sent at start, at intervals, and to a node that has just turned up."""

    node: NodeInfo
    sent_at_unix_s: float = 0.0
    """When, on the sender's clock; 0: it does not say."""


class Goodbye(msgspec.Struct, frozen=True, tag="goodbye"):
    """I am going; do not wait for me."""

    uid: str


class _Order(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is to be done, on every node, to the connections of *user*; "" means the anonymous ones.

    *client* and *session*, unless empty, narrow it to one connection.
    """

    user: str
    client: str = ""
    session: str = ""

    def concerns(self, user: str, *, client: str, session: str) -> bool:
        """Tell whether the connection with this user, client id and session id is meant."""
        return user == self.user and self.client in {"", client} and self.session in {"", session}


class DisconnectUser(_Order, frozen=True, omit_defaults=True, tag="disconnect"):
    """End connections, but for the clients in *whitelist*."""

    whitelist: tuple[str, ...] = ()
    disconnect: Disconnect = codes.FORCE_DISCONNECT
    older_than: tuple[float, str] | None = None
    """Spare those that were opened later than this, in Unix seconds, and of the same moment those with higher ids."""

    def concerns(self, user: str, *, client: str, session: str) -> bool:
        """Tell whether the connection with this user, client id and session id is meant."""
        return client not in self.whitelist and super().concerns(user, client=client, session=session)


class UnsubscribeUser(_Order, frozen=True, omit_defaults=True, kw_only=True, tag="unsubscribe"):
    """End subscriptions to *channel*."""

    channel: str


class SubscribeUser(_Order, frozen=True, omit_defaults=True, kw_only=True, tag="subscribe"):
    """Make server-side subscriptions to *channel*; *expires_at_s* is in Unix seconds, 0 means never.

    *info* and *data* hold the payload as it goes to clients, empty when absent.
    """

    channel: str
    info: bytes = b""
    data: bytes = b""
    expires_at_s: int = 0
    overrides: Overrides = Overrides()
    recover_since: StreamPosition | None = None


class RefreshUser(_Order, frozen=True, omit_defaults=True, tag="refresh"):
    """Let connections expire at *expires_at_s* (Unix seconds, 0 means never), or at once if *is_expired*.

    *info*, unless empty, replaces what is told of the connection.
    """

    is_expired: bool = False
    expires_at_s: int = 0
    info: bytes = b""


Order = DisconnectUser | UnsubscribeUser | SubscribeUser | RefreshUser


class SurveyRequest(msgspec.Struct, frozen=True, tag="ask"):
    """Please answer *op*, which *sender* knows as its survey *number*."""

    sender: str
    number: int
    op: str
    params: bytes


class SurveyAnswer(msgspec.Struct, frozen=True, tag="answer"):
    """What *sender* answers to survey *number*; `None`: it does not know that *op*, or failed at it."""

    sender: str
    number: int
    data: bytes | None


Message = Announce | Goodbye | Order | SurveyRequest | SurveyAnswer

encode: Final = msgspec.msgpack.Encoder().encode
_decoder: Final[msgspec.msgpack.Decoder[Message]] = msgspec.msgpack.Decoder(Message)


def decode(message: bytes) -> Message | None:
    """Return what *message* says; `None` if that is nothing that this version knows."""
    try:
        return _decoder.decode(message)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
