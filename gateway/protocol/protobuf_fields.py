"""The numbers and wire types of our messages' fields, as `client.proto` has them."""

import enum
from collections.abc import Callable
from typing import Any, Final

from msgspec import Struct

from gateway.protocol import messages
from gateway.protocol.codes import Disconnect, ErrorCode, Unsubscribed

VARINT: Final = 0
LENGTH: Final = 2


class Kind(enum.Enum):
    """What a field holds."""

    BOOL = enum.auto()
    UINT32 = enum.auto()
    UINT64 = enum.auto()
    INT32 = enum.auto()
    INT64 = enum.auto()
    STRING = enum.auto()
    BYTES = enum.auto()
    MESSAGE = enum.auto()
    REPEATED = enum.auto()
    STRINGS = enum.auto()
    MAP = enum.auto()


class Field:
    """One field: its name in our type, its *key* on the wire, and for messages and maps the *shape* within."""

    __slots__ = ("empty", "key", "kind", "name", "number", "shape", "tag", "wire")

    def __init__(self, name: str, number: int, kind: Kind, shape: "Shape | None" = None) -> None:
        self.name = name
        self.number = number
        self.kind = kind
        self.shape = shape
        is_varint = kind in {Kind.BOOL, Kind.UINT32, Kind.UINT64, Kind.INT32, Kind.INT64}
        self.wire = VARINT if is_varint else LENGTH
        self.tag = number << 3 | self.wire
        # The largest number is 16, so that no key is longer than two bytes.
        self.key = bytes((self.tag,)) if self.tag <= 0x7F else bytes((self.tag & 0x7F | 0x80, self.tag >> 7))  # noqa: PLR2004 - what one byte of a varint holds
        self.empty: Callable[[], Any] = str if shape is None else shape.make


class Shape:
    """The fields of one message."""

    __slots__ = ("by_name", "by_tag", "fields", "make", "numbers")

    def __init__(self, make: Callable[..., Any], *fields: Field) -> None:
        """*make* makes the message from what was there, by the fields' names."""
        self.make = make
        self.fields = fields
        self.by_tag = {field.tag: field for field in fields}
        self.by_name = {field.name: field for field in fields}
        self.numbers = {field.number for field in fields}


SHAPES: Final[dict[type[Struct], Shape]] = {}
"""The shape of each message type."""


def _shape(message: type[Struct], /, **fields: tuple[int, Kind] | tuple[int, Kind, type[Struct]]) -> None:
    made = []
    for name, (number, kind, *inner) in fields.items():
        shape = SHAPES[inner[0]] if inner else None
        if kind is Kind.MAP:
            value = Field("value", 2, Kind.STRING) if shape is None else Field("value", 2, Kind.MESSAGE, shape)
            shape = Shape(dict, Field("key", 1, Kind.STRING), value)
        made.append(Field(name, number, kind, shape))
    SHAPES[message] = Shape(message, *made)


_BOOL, _UINT32, _UINT64, _INT32, _INT64 = Kind.BOOL, Kind.UINT32, Kind.UINT64, Kind.INT32, Kind.INT64
_STRING, _BYTES, _MESSAGE, _REPEATED, _MAP = Kind.STRING, Kind.BYTES, Kind.MESSAGE, Kind.REPEATED, Kind.MAP

# protocol.md 2.3
_shape(ErrorCode, code=(1, _UINT32), message=(2, _STRING), temporary=(3, _BOOL))
_shape(Unsubscribed, code=(2, _UINT32), reason=(3, _STRING))
_shape(Disconnect, code=(1, _UINT32), reason=(2, _STRING))
_shape(messages.Empty)
_shape(messages.ClientInfo, user=(1, _STRING), client=(2, _STRING), conn_info=(3, _BYTES), chan_info=(4, _BYTES))
_shape(
    messages.Publication,
    data=(4, _BYTES),
    info=(5, _MESSAGE, messages.ClientInfo),
    offset=(6, _UINT64),
    tags=(7, _MAP),
    delta=(8, _BOOL),
    epoch=(14, _STRING),
    version=(16, _UINT64),
)
_shape(messages.StreamPosition, offset=(1, _UINT64), epoch=(2, _STRING))

SHAPES[messages.PatchablePublication] = SHAPES[messages.Publication]

# 2.4, 2.5 and 2.6: requests
_shape(
    messages.FilterNode,
    op=(1, _STRING),
    key=(2, _STRING),
    cmp=(3, _STRING),
    val=(4, _STRING),
    vals=(5, Kind.STRINGS),
)
_nodes = Field("nodes", 6, _REPEATED)
SHAPES[messages.FilterNode] = Shape(messages.FilterNode, *SHAPES[messages.FilterNode].fields, _nodes)
_nodes.shape = SHAPES[messages.FilterNode]  # the one message that holds others of its own kind
_shape(
    messages.SubscribeRequest,
    channel=(1, _STRING),
    token=(2, _STRING),
    recover=(3, _BOOL),
    epoch=(6, _STRING),
    offset=(7, _UINT64),
    data=(8, _BYTES),
    positioned=(9, _BOOL),
    recoverable=(10, _BOOL),
    join_leave=(11, _BOOL),
    delta=(12, _STRING),
    tf=(13, _MESSAGE, messages.FilterNode),
    flag=(14, _INT64),
)
_shape(
    messages.ConnectRequest,
    token=(1, _STRING),
    data=(2, _BYTES),
    subs=(3, _MAP, messages.SubscribeRequest),
    name=(4, _STRING),
    version=(5, _STRING),
    headers=(6, _MAP),
    flag=(7, _INT64),
)
_shape(messages.UnsubscribeRequest, channel=(1, _STRING))
_shape(messages.PublishRequest, channel=(1, _STRING), data=(2, _BYTES))
_shape(messages.PresenceRequest, channel=(1, _STRING))
_shape(messages.PresenceStatsRequest, channel=(1, _STRING))
_shape(
    messages.HistoryRequest,
    channel=(1, _STRING),
    limit=(7, _INT32),
    since=(8, _MESSAGE, messages.StreamPosition),
    reverse=(9, _BOOL),
)
_shape(messages.RPCRequest, data=(1, _BYTES), method=(2, _STRING))
_shape(messages.SendRequest, data=(1, _BYTES))
_shape(messages.RefreshRequest, token=(1, _STRING))
_shape(messages.SubRefreshRequest, channel=(1, _STRING), token=(2, _STRING))
_shape(
    messages.Command,
    id=(1, _UINT32),
    connect=(4, _MESSAGE, messages.ConnectRequest),
    subscribe=(5, _MESSAGE, messages.SubscribeRequest),
    unsubscribe=(6, _MESSAGE, messages.UnsubscribeRequest),
    publish=(7, _MESSAGE, messages.PublishRequest),
    presence=(8, _MESSAGE, messages.PresenceRequest),
    presence_stats=(9, _MESSAGE, messages.PresenceStatsRequest),
    history=(10, _MESSAGE, messages.HistoryRequest),
    send=(12, _MESSAGE, messages.SendRequest),
    rpc=(13, _MESSAGE, messages.RPCRequest),
    refresh=(14, _MESSAGE, messages.RefreshRequest),
    sub_refresh=(15, _MESSAGE, messages.SubRefreshRequest),
)

# The same sections: results
_shape(
    messages.SubscribeResult,
    expires=(1, _BOOL),
    ttl=(2, _UINT32),
    recoverable=(3, _BOOL),
    epoch=(6, _STRING),
    publications=(7, _REPEATED, messages.Publication),
    recovered=(8, _BOOL),
    offset=(9, _UINT64),
    positioned=(10, _BOOL),
    data=(11, _BYTES),
    was_recovering=(12, _BOOL),
    delta=(13, _BOOL),
    id=(14, _INT64),
    publish_debounce=(19, _UINT32),
)
_shape(
    messages.ConnectResult,
    client=(1, _STRING),
    version=(2, _STRING),
    expires=(3, _BOOL),
    ttl=(4, _UINT32),
    data=(5, _BYTES),
    subs=(6, _MAP, messages.SubscribeResult),
    ping=(7, _UINT32),
    pong=(8, _BOOL),
    session=(9, _STRING),
    node=(10, _STRING),
    time=(11, _INT64),
)
_shape(
    messages.HistoryResult,
    publications=(1, _REPEATED, messages.Publication),
    epoch=(2, _STRING),
    offset=(3, _UINT64),
)
_shape(messages.PresenceResult, presence=(1, _MAP, messages.ClientInfo))
_shape(messages.PresenceStatsResult, num_clients=(1, _UINT32), num_users=(2, _UINT32))
_shape(messages.RPCResult, data=(1, _BYTES))


def _refresh_result(expires: int, ttl: int) -> Shape:
    """Return the one type's shape, whose numbers differ between the results and the push."""
    return Shape(messages.RefreshResult, Field("expires", expires, _BOOL), Field("ttl", ttl, _UINT32))


REFRESH_RESULT: Final = _refresh_result(3, 4)
SUB_REFRESH_RESULT: Final = _refresh_result(1, 2)

# 2.2 and 2.7
_shape(
    messages.Reply,
    id=(1, _UINT32),
    error=(2, _MESSAGE, ErrorCode),
    connect=(5, _MESSAGE, messages.ConnectResult),
    subscribe=(6, _MESSAGE, messages.SubscribeResult),
    unsubscribe=(7, _MESSAGE, messages.Empty),
    publish=(8, _MESSAGE, messages.Empty),
    presence=(9, _MESSAGE, messages.PresenceResult),
    presence_stats=(10, _MESSAGE, messages.PresenceStatsResult),
    history=(11, _MESSAGE, messages.HistoryResult),
    rpc=(13, _MESSAGE, messages.RPCResult),
)
SHAPES[messages.Reply] = Shape(
    messages.Reply,
    *SHAPES[messages.Reply].fields,
    Field("refresh", 14, _MESSAGE, REFRESH_RESULT),
    Field("sub_refresh", 15, _MESSAGE, SUB_REFRESH_RESULT),
)
_shape(messages.Join, info=(1, _MESSAGE, messages.ClientInfo))
_shape(messages.Leave, info=(1, _MESSAGE, messages.ClientInfo))
_shape(
    messages.SubscribePush,
    recoverable=(1, _BOOL),
    epoch=(4, _STRING),
    offset=(5, _UINT64),
    positioned=(6, _BOOL),
    data=(7, _BYTES),
)
_shape(
    messages.Push,
    id=(1, _INT64),
    channel=(2, _STRING),
    join=(5, _MESSAGE, messages.Join),
    leave=(6, _MESSAGE, messages.Leave),
    unsubscribe=(7, _MESSAGE, Unsubscribed),
    subscribe=(9, _MESSAGE, messages.SubscribePush),
    disconnect=(11, _MESSAGE, Disconnect),
)
SHAPES[messages.Push] = Shape(
    messages.Push, *SHAPES[messages.Push].fields, Field("refresh", 12, _MESSAGE, SUB_REFRESH_RESULT)
)
