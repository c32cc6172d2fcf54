"""What the server API answers (protocol.md section 7); `server_api` has what it is asked."""

from msgspec import Raw, Struct

from gateway.protocol.messages import NOTHING, ClientInfo, Empty, RPCResult
from gateway.protocol.server_api import APIError


class PublishResult(Struct, omit_defaults=True, gc=False):
    """Where the publication is in the channel's stream; nothing in a channel without history."""

    offset: int = 0
    epoch: str = ""


class PublishReply(Struct, omit_defaults=True, gc=False):
    """What became of one publication of a broadcast."""

    result: PublishResult | None = None
    error: APIError | None = None


class BroadcastResult(Struct):
    """What became of each publication, in the order of the channels."""

    responses: list[PublishReply]


class PresenceResult(Struct):
    """Who is in a channel, by client id."""

    presence: dict[str, ClientInfo]


class PresenceStatsResult(Struct):
    """How many are in a channel, each number written even when zero."""

    num_clients: int
    num_users: int


class StoredPublication(Struct, omit_defaults=True):
    """A publication of a stream; what is no JSON comes as *b64data*."""

    data: Raw = NOTHING
    b64data: str = ""
    info: ClientInfo | None = None
    offset: int = 0
    tags: dict[str, str] = {}


class ReadHistory(Struct):
    """A page of a stream and the stream's top, each written even when zero."""

    publications: list[StoredPublication]
    epoch: str
    offset: int


class NodeMetrics(Struct, frozen=True):
    """How a node is doing, between its last two announcements: what it moves in an *interval*, given in seconds."""

    interval: float
    items: dict[str, float]


class NodeResult(Struct, omit_defaults=True):
    """A node, its counts as last announced; *uptime* in seconds."""

    uid: str
    name: str
    version: str
    num_clients: int
    num_users: int
    num_subs: int
    num_channels: int
    uptime: int
    metrics: NodeMetrics | None = None


class InfoResult(Struct):
    """The nodes of the system, in the order of their names."""

    nodes: list[NodeResult]


class SilentNode(Struct):
    """A node that did not answer in time, so that what it knows is missing."""

    uid: str
    name: str


class ChannelResult(Struct, gc=False):
    """How many connections a channel has."""

    num_clients: int


class ChannelsResult(Struct, omit_defaults=True):
    """The channels with subscribers; those on the *silent* nodes are missing."""

    channels: dict[str, ChannelResult]
    silent: list[SilentNode] = []


class ConnectionResult(Struct, omit_defaults=True):
    """A connection; *connected_at* is in Unix seconds, and the counts are of messages from and publications to it."""

    client: str
    user: str
    node: str
    transport: str
    connected_at: float
    channels: list[str]
    info: Raw = NOTHING
    address: str = ""
    messages_in: int = 0
    bytes_in: int = 0
    messages_out: int = 0
    bytes_out: int = 0


class ConnectionsResult(Struct, omit_defaults=True):
    """A page of connections, and what to ask with for the next one if there is one."""

    connections: list[ConnectionResult]
    cursor: str = ""
    silent: list[SilentNode] = []


class DrainResult(Struct):
    """The node that drains now."""

    uid: str
    name: str


class BatchReply(Struct, omit_defaults=True, gc=False):
    """What became of one call: its result under its method's name, or an error."""

    error: APIError | None = None
    publish: PublishResult | None = None
    broadcast: BroadcastResult | None = None
    subscribe: Empty | None = None
    unsubscribe: Empty | None = None
    disconnect: Empty | None = None
    refresh: Empty | None = None
    presence: PresenceResult | None = None
    presence_stats: PresenceStatsResult | None = None
    history: ReadHistory | None = None
    history_remove: Empty | None = None
    info: InfoResult | None = None
    channels: ChannelsResult | None = None
    rpc: RPCResult | None = None
    connections: ConnectionsResult | None = None
    drain: DrainResult | None = None


class BatchResult(Struct, omit_defaults=True, gc=False):
    """What became of each call, in their order."""

    replies: list[BatchReply] = []
