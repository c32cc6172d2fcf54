"""The server API's calls and errors (protocol.md section 7) as typed, slotted values, and what a caller needs for them.

They are the same in a request over HTTP, in a batch, and in a program that runs inside a node. A field that equals its
default is left out on the wire, unless its class says otherwise; `null` is taken for absent where that is the default.
Fields marked NEWER in protocol.md are ignored until the feature that reads them is there.
"""

from enum import StrEnum
from typing import Annotated, Final

from msgspec import Meta, Raw, Struct

from gateway.protocol import codes
from gateway.protocol.codes import ErrorCode
from gateway.protocol.messages import NOTHING, Int64, StreamPosition

MAX_CONNECTIONS_LIMIT: Final = 1000
"""How many connections one page may have."""

_Int32 = Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)]
_Version = Annotated[int, Meta(ge=0)]


class Scope(StrEnum):
    """What the holder of a key may do; `admin` includes the others."""

    PUBLISH = "publish"
    READ = "read"
    ADMIN = "admin"


class APIError(Struct, frozen=True):
    """Why a call was not carried out, as its caller is told (protocol.md 7)."""

    code: int
    message: str


INTERNAL_ERROR: Final = APIError(100, "internal server error")
UNKNOWN_CHANNEL: Final = APIError(102, "unknown channel")
PERMISSION_DENIED: Final = APIError(103, "permission denied")
NOT_FOUND: Final = APIError(104, "not found")
BAD_REQUEST: Final = APIError(107, "bad request")
NOT_AVAILABLE: Final = APIError(108, "not available")
TOO_MANY_REQUESTS: Final = APIError(111, "too many requests")
UNRECOVERABLE_POSITION: Final = APIError(112, "unrecoverable position")
CONFLICT: Final = APIError(113, "conflict")

API_ERRORS: Final = (
    INTERNAL_ERROR,
    UNKNOWN_CHANNEL,
    PERMISSION_DENIED,
    NOT_FOUND,
    BAD_REQUEST,
    NOT_AVAILABLE,
    TOO_MANY_REQUESTS,
    UNRECOVERABLE_POSITION,
    CONFLICT,
)
_BY_CODE: Final = {error.code: error for error in API_ERRORS}


class Refusal(Struct, frozen=True):
    """A call that was not carried out: what its caller is told, and in a few words what was wrong."""

    error: APIError
    reason: str


def refusal(error: ErrorCode, reason: str) -> Refusal:
    """Return *error*, one that a client would get, in the words of the server API."""
    return Refusal(_BY_CODE.get(error.code, INTERNAL_ERROR), reason)


class PublishCall(Struct, omit_defaults=True, gc=False):
    """Publish into a channel. *b64data*, bytes as base64, is used instead of *data* when there is any."""

    channel: str = ""
    data: Raw = NOTHING
    b64data: str = ""
    skip_history: bool = False
    tags: dict[str, str] | None = None
    idempotency_key: str = ""
    version: _Version = 0
    version_epoch: str = ""
    delta: bool = False


class BroadcastCall(Struct, omit_defaults=True, gc=False):
    """Publish the same into several channels."""

    channels: list[str] = []
    data: Raw = NOTHING
    b64data: str = ""
    skip_history: bool = False
    tags: dict[str, str] | None = None
    idempotency_key: str = ""
    version: _Version = 0
    version_epoch: str = ""
    delta: bool = False


class Override(Struct, frozen=True, omit_defaults=True):
    """What one option of a channel is for one subscription."""

    value: bool = False


class SubscriptionOverrides(Struct, frozen=True, omit_defaults=True):
    """What a subscription has otherwise than its channel's options say (protocol.md 5.2)."""

    presence: Override | None = None
    join_leave: Override | None = None
    force_push_join_leave: Override | None = None
    force_positioning: Override | None = None
    force_recovery: Override | None = None


class SubscribeCall(Struct, omit_defaults=True):
    """Subscribe the connections of a user; *client* or *session* narrow it to one of them.

    *expire_at* is in Unix seconds, 0 means never.
    """

    user: str = ""
    channel: str = ""
    client: str = ""
    session: str = ""
    info: Raw = NOTHING
    b64info: str = ""
    data: Raw = NOTHING
    b64data: str = ""
    expire_at: Int64 = 0
    recover_since: StreamPosition | None = None
    override: SubscriptionOverrides | None = None


class UnsubscribeCall(Struct, omit_defaults=True):
    """Unsubscribe the connections of a user from a channel."""

    user: str = ""
    channel: str = ""
    client: str = ""
    session: str = ""


class DisconnectReason(Struct, frozen=True, omit_defaults=True):
    """What clients are told; the code decides whether they come back (protocol.md 4.2)."""

    code: _Int32 = codes.FORCE_DISCONNECT.code
    reason: str = ""


class DisconnectCall(Struct, omit_defaults=True):
    """Disconnect a user, but for the clients in *whitelist*."""

    user: str = ""
    client: str = ""
    session: str = ""
    whitelist: list[str] | None = None
    disconnect: DisconnectReason | None = None


class RefreshCall(Struct, omit_defaults=True):
    """Change when the connections of a user expire, in Unix seconds; 0 means never, *expired* means now.

    *info*, if there is any, replaces what is told of them.
    """

    user: str = ""
    client: str = ""
    session: str = ""
    expired: bool = False
    expire_at: Int64 = 0
    info: Raw = NOTHING
    b64info: str = ""


class PresenceCall(Struct, omit_defaults=True):
    """Ask who is in a channel."""

    channel: str = ""


class PresenceStatsCall(Struct, omit_defaults=True):
    """Ask how many are in a channel."""

    channel: str = ""


class HistoryCall(Struct, omit_defaults=True):
    """Read a channel's stream: *limit* 0 wants its position alone, a negative one all that is kept."""

    channel: str = ""
    limit: _Int32 = 0
    since: StreamPosition | None = None
    reverse: bool = False


class HistoryRemoveCall(Struct, omit_defaults=True):
    """Forget the publications of a channel's stream; its position stays."""

    channel: str = ""


class InfoCall(Struct):
    """Ask which nodes there are."""


class ChannelsCall(Struct, omit_defaults=True):
    """Ask which channels have subscribers, of all or of those whose names match a glob."""

    pattern: str = ""


class RPCCall(Struct, omit_defaults=True):
    """Call one of the handlers that clients may call, too."""

    method: str = ""
    params: Raw = NOTHING


class ConnectionsCall(Struct, omit_defaults=True):
    """Ask which connections there are: of a user ("" for the anonymous), in a channel, or all.

    They come in the order of their client ids, a page at a time: give the last page's *cursor* to get the next one.
    """

    user: str | None = None
    channel: str = ""
    client: str = ""
    transport: str = ""
    node: str = ""
    limit: Annotated[int, Meta(ge=1, le=MAX_CONNECTIONS_LIMIT)] = 100
    cursor: str = ""


class DrainCall(Struct, omit_defaults=True):
    """Have a node send its clients away and stop; *node* is its name or uid, empty for the one that is asked."""

    node: str = ""


class BatchCommand(Struct, omit_defaults=True, gc=False):
    """One call of a batch: exactly one of these."""

    publish: PublishCall | None = None
    broadcast: BroadcastCall | None = None
    subscribe: SubscribeCall | None = None
    unsubscribe: UnsubscribeCall | None = None
    disconnect: DisconnectCall | None = None
    refresh: RefreshCall | None = None
    presence: PresenceCall | None = None
    presence_stats: PresenceStatsCall | None = None
    history: HistoryCall | None = None
    history_remove: HistoryRemoveCall | None = None
    info: InfoCall | None = None
    channels: ChannelsCall | None = None
    rpc: RPCCall | None = None
    connections: ConnectionsCall | None = None
    drain: DrainCall | None = None


class BatchCall(Struct, omit_defaults=True, gc=False):
    """Carry out several calls, one after the other, or at the same time if *parallel*."""

    commands: list[BatchCommand] = []
    parallel: bool = False
