"""How a connection ended, and what follows from it (protocol.md 3.1, 4.1, 4.2). Pure."""

from enum import Enum, auto
from typing import Final

import msgspec

from gateway.client.errors import (
    ClientError,
    ClosedError,
    DisconnectedError,
    RejectedError,
    UnauthorizedError,
    advice,
)
from gateway.protocol import codes


class Kind(Enum):
    """Who ended it, which says what the code means."""

    CLOSE = auto()
    """A Close frame of the server: a code of protocol.md 4.2, or the WebSocket's own below 3000."""
    ERROR = auto()
    """An error reply to connect, or to a refresh."""
    HTTP = auto()
    """An answer to the upgrade that is no upgrade: an HTTP status."""
    NETWORK = auto()
    """Nobody said a word: refused, reset, silent, timed out, unintelligible."""
    CERTIFICATE = auto()
    """The server's certificate is not trusted: the cause, in words."""
    LOCAL = auto()
    """This side, on purpose."""


class Fate(Enum):
    """What a client does next."""

    RETRY = auto()
    RETRY_WITH_NEW_TOKEN = auto()
    RETRY_AFRESH = auto()
    """With a new token, and with no position: the server says that both are void."""
    STOP = auto()


class Ending(msgspec.Struct, frozen=True):
    """Why there is no connection (any more)."""

    kind: Kind
    reason: str
    code: int = 0
    is_temporary: bool = False

    def __str__(self) -> str:
        """Write it for a person."""
        return f"{self.reason} [{self.code}]" if self.code else self.reason


CLOSED_HERE: Final = Ending(Kind.LOCAL, "closed by this side")

_MESSAGE_TOO_BIG: Final = 1009
_FIRST_CUSTOM: Final = 4000
_FIRST_TERMINAL: Final = 500
_BEYOND_CUSTOM: Final = 5000
_LAST_RESERVED_ERROR: Final = 99
_BUSY_STATUSES: Final = (408, 425, 429)
_SERVER_ERRORS: Final = 500
_UNAUTHORIZED: Final = {
    Kind.ERROR: (codes.UNAUTHORIZED.code, codes.TOKEN_EXPIRED.code, codes.EXPIRED.code),
    Kind.CLOSE: (codes.INVALID_TOKEN.code, codes.ANONYMOUS_REFUSED.code, codes.CONNECTION_EXPIRED.code),
    Kind.HTTP: (401, 403),
}


def may_reconnect(code: int) -> bool:
    """Tell whether the close *code* lets a client come back (protocol.md 4.2)."""
    if code < codes.CONNECTION_CLOSED.code:
        return code != _MESSAGE_TOO_BIG
    return code >= _BEYOND_CUSTOM or code % 1000 < _FIRST_TERMINAL


def is_retriable(error: codes.ErrorCode) -> bool:
    """Tell whether an SDK repeats what was answered with *error*, the expired token (109) aside."""
    return error.temporary or error.code <= _LAST_RESERVED_ERROR


def fate(ending: Ending) -> Fate:
    """Decide what a client of the client protocol does after *ending*."""
    match ending.kind:
        case Kind.CLOSE:
            if ending.code == codes.STATE_INVALIDATED.code:
                return Fate.RETRY_AFRESH
            if ending.code == codes.CONNECTION_EXPIRED.code:
                return Fate.RETRY_WITH_NEW_TOKEN
            return Fate.RETRY if may_reconnect(ending.code) else Fate.STOP
        case Kind.ERROR:
            if ending.code == codes.TOKEN_EXPIRED.code:
                return Fate.RETRY_WITH_NEW_TOKEN
            return Fate.RETRY if ending.is_temporary or ending.code <= _LAST_RESERVED_ERROR else Fate.STOP
        case Kind.HTTP:
            is_busy = ending.code >= _SERVER_ERRORS or ending.code in _BUSY_STATUSES
            return Fate.RETRY if is_busy else Fate.STOP
        case Kind.NETWORK:
            return Fate.RETRY
        case Kind.LOCAL | Kind.CERTIFICATE:
            return Fate.STOP


def error_of(ending: Ending, *, channel: str = "") -> ClientError:
    """Make the exception for those who are told that *ending* was the last."""
    if ending.kind is Kind.LOCAL:
        return ClosedError(ending.reason, to_do="make a new one", channel=channel)
    if ending.code in _UNAUTHORIZED.get(ending.kind, ()):
        to_do = "give a token that the server accepts" if ending.kind is Kind.HTTP else advice(ending.code)
        return UnauthorizedError(f"not authorized: {ending.reason}", to_do=to_do, channel=channel, code=ending.code)
    match ending.kind:
        case Kind.ERROR:
            return RejectedError(ending.reason, to_do=advice(ending.code), channel=channel, code=ending.code)
        case Kind.HTTP:
            to_do = "correct the address: an HTTP server answered there without upgrading"
        case Kind.CLOSE:
            to_do = advice(ending.code)
        case Kind.CERTIFICATE:
            to_do = "give a tls context that trusts the server's certificate"
        case _:
            to_do = "see whether the server runs and can be reached"
    return DisconnectedError(f"disconnected: {ending.reason}", to_do=to_do, channel=channel, code=ending.code)
