"""Every code that a client may see, with its sentence; protocol.md section 4 is the source.

Three families that never mix: an *error* answers one command and the connection lives on, an *unsubscribe* ends one
subscription, a *disconnect* ends the connection. The tables are checked against protocol.md by a test.
"""

from typing import Final

import msgspec


class ErrorCode(msgspec.Struct, frozen=True, omit_defaults=True):
    """The error of a reply (protocol.md 4.1). *temporary* tells the SDK that a retry may succeed."""

    code: int
    message: str
    temporary: bool = False


class Disconnect(msgspec.Struct, frozen=True):
    """Why the server ends a connection (protocol.md 4.2); the code decides whether the client comes back.

    The reason is never empty and never parses as JSON: centrifuge-js would read either as leave to reconnect (1.2).
    """

    code: int
    reason: str


class Unsubscribed(msgspec.Struct, frozen=True, omit_defaults=True):
    """Why the server ends a subscription (protocol.md 4.3); from 2500 on the SDK subscribes again at once."""

    code: int
    reason: str


INTERNAL_ERROR: Final = ErrorCode(100, "internal server error", temporary=True)
UNAUTHORIZED: Final = ErrorCode(101, "unauthorized")
UNKNOWN_CHANNEL: Final = ErrorCode(102, "unknown channel")
PERMISSION_DENIED: Final = ErrorCode(103, "permission denied")
METHOD_NOT_FOUND: Final = ErrorCode(104, "method not found")
ALREADY_SUBSCRIBED: Final = ErrorCode(105, "already subscribed")
LIMIT_EXCEEDED: Final = ErrorCode(106, "limit exceeded")
BAD_REQUEST: Final = ErrorCode(107, "bad request")
NOT_AVAILABLE: Final = ErrorCode(108, "not available")
TOKEN_EXPIRED: Final = ErrorCode(109, "token expired")
EXPIRED: Final = ErrorCode(110, "expired")
TOO_MANY_REQUESTS: Final = ErrorCode(111, "too many requests", temporary=True)
UNRECOVERABLE_POSITION: Final = ErrorCode(112, "unrecoverable position")
CONCURRENT_PAGINATION: Final = ErrorCode(113, "concurrent pagination", temporary=True)

ERRORS: Final = (
    INTERNAL_ERROR,
    UNAUTHORIZED,
    UNKNOWN_CHANNEL,
    PERMISSION_DENIED,
    METHOD_NOT_FOUND,
    ALREADY_SUBSCRIBED,
    LIMIT_EXCEEDED,
    BAD_REQUEST,
    NOT_AVAILABLE,
    TOKEN_EXPIRED,
    EXPIRED,
    TOO_MANY_REQUESTS,
    UNRECOVERABLE_POSITION,
    CONCURRENT_PAGINATION,
)

CONNECTION_CLOSED: Final = Disconnect(3000, "connection closed")
SHUTDOWN: Final = Disconnect(3001, "shutdown")
SERVER_ERROR: Final = Disconnect(3004, "internal server error")
CONNECTION_EXPIRED: Final = Disconnect(3005, "connection expired")
SUBSCRIPTION_EXPIRED: Final = Disconnect(3006, "subscription expired")
SLOW: Final = Disconnect(3008, "slow")
WRITE_ERROR: Final = Disconnect(3009, "write error")
INSUFFICIENT_STATE: Final = Disconnect(3010, "insufficient state")
FORCE_RECONNECT: Final = Disconnect(3011, "force reconnect")
NO_PONG: Final = Disconnect(3012, "no pong")
RATE_EXCEEDED: Final = Disconnect(3013, "too many requests")
STATE_INVALIDATED: Final = Disconnect(3014, "state invalidated")
INVALID_TOKEN: Final = Disconnect(3500, "invalid token")
PROTOCOL_VIOLATED: Final = Disconnect(3501, "bad request")
STALE: Final = Disconnect(3502, "stale")
FORCE_DISCONNECT: Final = Disconnect(3503, "force disconnect")
CONNECTION_LIMIT: Final = Disconnect(3504, "connection limit")
CHANNEL_LIMIT: Final = Disconnect(3505, "channel limit")
INAPPROPRIATE_PROTOCOL: Final = Disconnect(3506, "inappropriate protocol")
ANONYMOUS_REFUSED: Final = Disconnect(3507, "permission denied")
SEND_NOT_AVAILABLE: Final = Disconnect(3508, "not available")
TOO_MANY_ERRORS: Final = Disconnect(3509, "too many errors")

DISCONNECTS: Final = (
    CONNECTION_CLOSED,
    SHUTDOWN,
    SERVER_ERROR,
    CONNECTION_EXPIRED,
    SUBSCRIPTION_EXPIRED,
    SLOW,
    WRITE_ERROR,
    INSUFFICIENT_STATE,
    FORCE_RECONNECT,
    NO_PONG,
    RATE_EXCEEDED,
    STATE_INVALIDATED,
    INVALID_TOKEN,
    PROTOCOL_VIOLATED,
    STALE,
    FORCE_DISCONNECT,
    CONNECTION_LIMIT,
    CHANNEL_LIMIT,
    INAPPROPRIATE_PROTOCOL,
    ANONYMOUS_REFUSED,
    SEND_NOT_AVAILABLE,
    TOO_MANY_ERRORS,
)

SERVER_UNSUBSCRIBE: Final = Unsubscribed(2000, "server unsubscribe")
UNSUBSCRIBED_INSUFFICIENT_STATE: Final = Unsubscribed(2500, "insufficient state")
UNSUBSCRIBED_EXPIRED: Final = Unsubscribed(2501, "subscription expired")
UNSUBSCRIBED_STATE_INVALIDATED: Final = Unsubscribed(2502, "state invalidated")

UNSUBSCRIBES: Final = (
    SERVER_UNSUBSCRIBE,
    UNSUBSCRIBED_INSUFFICIENT_STATE,
    UNSUBSCRIBED_EXPIRED,
    UNSUBSCRIBED_STATE_INVALIDATED,
)
