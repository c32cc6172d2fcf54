"""The messages of protocol.md section 2 as typed, slotted values.

One set of types serves every codec. Field names and order are the protocol's; a field that equals its default is left
out on the wire (2.1). `bytes` fields hold the payload exactly as it was received: raw JSON text in a JSON connection.
Fields marked NEWER in protocol.md join with the feature that reads them; until then they are ignored, as the protocol
asks.
"""

from typing import Annotated, Final

from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from gateway.protocol.codes import Disconnect, ErrorCode, Unsubscribed

Uint32 = Annotated[int, Meta(ge=0, le=2**32 - 1)]
# The protocol says 64 bits without a sign; msgspec checks bounds up to a signed 64-bit integer, and no offset gets
# there.
Uint64 = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Int64 = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]

MAX_VERSION: Final = 2**64 - 1
"""The highest version of a publication (protocol.md 7)."""
NOTHING: Final = Raw(b"")
"""A payload field that is absent. `null` is not absent: it arrives as the four bytes it is (2.1)."""


def payload(data: bytes) -> Raw:
    """Return *data* as a payload field, `NOTHING` if it is empty: the encoder leaves out that one object alone."""
    return Raw(data) if data else NOTHING


class FilterNode(Struct, omit_defaults=True, gc=False):
    """A condition on a publication's tags, or several joined by *op* (protocol.md 2.8, Tags filter)."""

    op: str = ""
    key: str = ""
    cmp: str = ""
    val: str = ""
    vals: list[str] = []
    nodes: list["FilterNode"] = []


class SubscribeRequest(Struct, omit_defaults=True, gc=False):
    """Join a channel, or say where to go on in it (protocol.md 2.5)."""

    channel: str = ""
    token: str = ""
    recover: bool = False
    epoch: str = ""
    offset: Uint64 = 0
    data: Raw = NOTHING
    positioned: bool = False
    recoverable: bool = False
    join_leave: bool = False
    delta: str = ""
    tf: FilterNode | None = None
    flag: Int64 = 0


class ConnectRequest(Struct, omit_defaults=True):
    """The first command of every connection (protocol.md 2.4)."""

    token: str = ""
    data: Raw = NOTHING
    subs: dict[str, SubscribeRequest] = {}
    name: str = ""
    version: str = ""
    headers: dict[str, str] = {}
    flag: Int64 = 0


class UnsubscribeRequest(Struct, omit_defaults=True, gc=False):
    """Leave a channel."""

    channel: str = ""


class PublishRequest(Struct, omit_defaults=True, gc=False):
    """Publish *data* into a channel."""

    channel: str = ""
    data: Raw = NOTHING


class PresenceRequest(Struct, omit_defaults=True, gc=False):
    """Ask who is in a channel."""

    channel: str = ""


class PresenceStatsRequest(Struct, omit_defaults=True, gc=False):
    """Ask how many are in a channel."""

    channel: str = ""


class StreamPosition(Struct, omit_defaults=True, gc=False, frozen=True):
    """A place in a channel's stream."""

    offset: Uint64 = 0
    epoch: str = ""


class HistoryRequest(Struct, omit_defaults=True, gc=False):
    """Read a channel's stream (protocol.md 3.5 says how *limit*, *since* and *reverse* combine)."""

    channel: str = ""
    limit: Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)] = 0
    since: StreamPosition | None = None
    reverse: bool = False


class RPCRequest(Struct, omit_defaults=True, gc=False):
    """Call a method of the backend."""

    data: Raw = NOTHING
    method: str = ""


class SendRequest(Struct, omit_defaults=True, gc=False):
    """A message to the server that wants no reply."""

    data: Raw = NOTHING


class RefreshRequest(Struct, omit_defaults=True, gc=False):
    """A new connection token."""

    token: str = ""


class SubRefreshRequest(Struct, omit_defaults=True, gc=False):
    """A new subscription token."""

    channel: str = ""
    token: str = ""


class Command(Struct, omit_defaults=True):
    """What a client sends. With id 0 and no *send* it is a pong, whatever else it holds (protocol.md 2.2)."""

    id: Uint32 = 0
    connect: ConnectRequest | None = None
    subscribe: SubscribeRequest | None = None
    unsubscribe: UnsubscribeRequest | None = None
    publish: PublishRequest | None = None
    presence: PresenceRequest | None = None
    presence_stats: PresenceStatsRequest | None = None
    history: HistoryRequest | None = None
    rpc: RPCRequest | None = None
    send: SendRequest | None = None
    refresh: RefreshRequest | None = None
    sub_refresh: SubRefreshRequest | None = None


class ClientInfo(Struct, omit_defaults=True, gc=False, frozen=True):
    """Who stands behind a connection; *user* and *client* are written even when empty (2.1)."""

    user: str
    client: str
    conn_info: Raw = NOTHING
    chan_info: Raw = NOTHING


class Publication(Struct, omit_defaults=True):
    """A message in a channel. *info* is there only when a client published it.

    With *delta*, which is set on the way to a client alone, *data* is a patch of the publication before (2.8).
    """

    data: Raw = NOTHING
    info: ClientInfo | None = None
    offset: int = 0
    tags: dict[str, str] = {}
    delta: bool = False
    epoch: str = ""
    version: int = 0


class PatchablePublication(Publication):
    """One that may be sent as a patch: its publisher, or its namespace, has asked for that."""


class SubscribeResult(Struct, omit_defaults=True):
    """What a subscriber may count on from now on (protocol.md 2.5, 3.6)."""

    expires: bool = False
    ttl: int = 0
    recoverable: bool = False
    epoch: str = ""
    publications: list[Publication] = []
    recovered: bool = False
    offset: int = 0
    positioned: bool = False
    data: Raw = NOTHING
    was_recovering: bool = False
    delta: bool = False
    id: int = 0
    """What pushes name the channel by, where the client has offered to understand that (2.8, Channel compaction)."""
    publish_debounce: int = 0
    """Milliseconds that the client should let pass between what it publishes here (2.8)."""


class ConnectResult(Struct, omit_defaults=True):
    """What a client learns of its connection (protocol.md 2.4, 3.1)."""

    client: str
    version: str = ""
    expires: bool = False
    ttl: int = 0
    data: Raw = NOTHING
    subs: dict[str, SubscribeResult] = {}
    ping: int = 0
    pong: bool = False
    session: str = ""
    node: str = ""
    time: int = 0


class ConnectPush(Struct, omit_defaults=True):
    """The same for a client that only listens (2.7); what it would answer, and where, is left out (1.6)."""

    client: str
    version: str = ""
    data: Raw = NOTHING
    subs: dict[str, SubscribeResult] = {}
    expires: bool = False
    ttl: int = 0
    ping: int = 0
    session: str = ""
    time: int = 0


class HistoryResult(Struct):
    """A page of a stream and the stream's top, each written even when zero (2.1)."""

    publications: list[Publication]
    epoch: str
    offset: int


class PresenceResult(Struct):
    """Who is in a channel, by client id (2.6)."""

    presence: dict[str, ClientInfo]


class PresenceStatsResult(Struct):
    """How many are in a channel, each number written even when zero (2.1)."""

    num_clients: int
    num_users: int


class Empty(Struct):
    """A result without fields; its key still has to be there, since SDKs look for it (2.1)."""


class RPCResult(Struct, omit_defaults=True, gc=False):
    """The answer of a backend method."""

    data: Raw = NOTHING


class RefreshResult(Struct, omit_defaults=True, gc=False):
    """Until when a refreshed connection or subscription lives; *ttl* in seconds, absent when it does not expire."""

    expires: bool = False
    ttl: int = 0


class Reply(Struct, omit_defaults=True):
    """The answer to one command: *error* or exactly one result, under the id that the client chose."""

    id: int
    error: ErrorCode | None = None
    connect: ConnectResult | None = None
    subscribe: SubscribeResult | None = None
    unsubscribe: Empty | None = None
    publish: Empty | None = None
    presence: PresenceResult | None = None
    presence_stats: PresenceStatsResult | None = None
    history: HistoryResult | None = None
    rpc: RPCResult | None = None
    refresh: RefreshResult | None = None
    sub_refresh: RefreshResult | None = None


class Join(Struct, frozen=True, gc=False):
    """A client has joined a channel (2.7)."""

    info: ClientInfo


class Leave(Struct, frozen=True, gc=False):
    """A client has left a channel (2.7)."""

    info: ClientInfo


class SubscribePush(Struct, omit_defaults=True):
    """A server-side subscription was made while the client was connected (2.7)."""

    recoverable: bool = False
    epoch: str = ""
    offset: int = 0
    positioned: bool = False
    data: Raw = NOTHING


class Push(Struct, omit_defaults=True):
    """What the server says unasked, publications aside: those are encoded by the codec's own, faster way.

    *id* stands for the channel where that was agreed.
    """

    channel: str = ""
    join: Join | UnsetType = UNSET
    leave: Leave | UnsetType = UNSET
    subscribe: SubscribePush | UnsetType = UNSET
    unsubscribe: Unsubscribed | UnsetType = UNSET
    disconnect: Disconnect | UnsetType = UNSET
    """The last message of a transport that has no closing codes of its own."""
    refresh: RefreshResult | UnsetType = UNSET
    id: int = 0
