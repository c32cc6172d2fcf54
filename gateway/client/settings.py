"""What a client can be told, checked at birth. Times are in seconds, sizes in bytes."""

import ssl
from collections.abc import Awaitable, Callable, Mapping
from enum import StrEnum
from typing import Any, Literal, Protocol

import msgspec

from gateway import __version__
from gateway.client.backoff import Backoff
from gateway.client.errors import InvalidArgumentError
from gateway.protocol.client_codec import ClientCodec, ClientJSONCodec
from gateway.protocol.messages import NOTHING, StreamPosition

TokenSource = Callable[[], Awaitable[str]]
"""Fetches a token. It may raise `UnauthorizedError`, which ends what the token is for; anything else is repeated."""


class Cancellable(Protocol):
    """What `Timers.call_at` returns."""

    def cancel(self) -> object:
        """Forget the call."""


class Timers(Protocol):
    """The part of an event loop that tells the time; a running loop is one."""

    def time(self) -> float:
        """Return the time in seconds, which never goes back."""

    def call_at(self, when: float, callback: Callable[[], object], /) -> Cancellable:
        """Call *callback* at *when*."""


class Overflow(StrEnum):
    """What happens when a subscription's buffer is full because nobody takes from it."""

    FAIL = "fail"
    """The subscription ends; what is in the buffer still comes, then `SlowConsumerError`."""
    DROP_NEW = "drop_new"
    """What comes is thrown away until there is room; a `Dropped` event stands in its place and counts."""


class LinkSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How to get to a server over a WebSocket."""

    tls: ssl.SSLContext | None = None
    """For `wss:` addresses; `None`: Python's default, which checks the certificate."""
    headers: Mapping[str, str] = {}
    """HTTP headers of the upgrade request."""
    local_address: str = ""
    """The address of this machine to connect from, such as `127.0.0.2`; empty: the system chooses. One address has some
    28,000 ports to one server, so who opens more connections needs several."""
    connect_timeout_s: float = 10.0
    """For everything up to the server's acceptance."""
    close_timeout_s: float = 2.0
    """How long the server may take to answer a Close frame."""
    receive_max_bytes: int = 64 * 1024 * 1024
    """The largest message that is accepted; one that recovers a long history is large."""
    send_max_bytes: int = 65536
    """The largest message that is sent. Must not be above the server's limit, which would end the connection."""
    queue_max_bytes: int = 1024 * 1024
    """How much may wait for the network, and how much for a connection."""

    def __post_init__(self) -> None:
        """Refuse what can't work."""
        _check_positive(self, "connect_timeout_s", "receive_max_bytes", "send_max_bytes", "queue_max_bytes")
        _check_not_negative(self, "close_timeout_s")
        for name, value in self.headers.items():
            if not name or not f"{name}{value}".isprintable() or not name.isascii():
                raise InvalidArgumentError(f"not a header: {name!r}", to_do="use printable text")


class ClientSettings(LinkSettings, frozen=True, kw_only=True):
    """How a client behaves; the defaults are those of the official SDKs where those have the setting."""

    name: str = "python"
    """What the server's metrics and logs call this client."""
    version: str = __version__
    data: Any = NOTHING
    """Sent with connect: any value that JSON can hold, or `msgspec.Raw`."""
    backoff: Backoff = Backoff()
    reply_timeout_s: float = 5.0
    max_ping_delay_s: float = 10.0
    """How late a ping may be before the connection counts as dead."""
    offline_wait_s: float = 5.0
    """How long a command may wait for a connection; 0: it fails at once."""
    codec: ClientCodec = ClientJSONCodec()
    """How it speaks: JSON, or `ProtobufCodec()`, in which payloads may be any bytes."""

    def __post_init__(self) -> None:
        """Refuse what can't work."""
        super().__post_init__()
        _check_positive(self, "reply_timeout_s", "max_ping_delay_s")
        _check_not_negative(self, "offline_wait_s")


class SubscriptionSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What a subscriber wishes for, and what it can hold."""

    recoverable: bool = True
    """Ask for recovery where the channel offers it; wishes that a server does not grant are ignored, not refused."""
    join_leave: bool = False
    """Ask for `Joined` and `Left`."""
    delta: Literal["", "fossil"] = ""
    """`fossil`: ask for patches where the channel offers them; publications are whole again when you get them."""
    data: Any = NOTHING
    """Sent with subscribe: any value that JSON can hold, or `msgspec.Raw`."""
    since: StreamPosition | None = None
    """Go on from here, which an earlier subscription's `position` was; `Subscribed.recovered` tells whether it did."""
    buffer_max_bytes: int = 4 * 1024 * 1024
    """How much may wait for an iterator. A publication counts its payload and 256 bytes; an empty buffer takes any."""
    overflow: Overflow = Overflow.FAIL

    def __post_init__(self) -> None:
        """Refuse what can't work."""
        _check_positive(self, "buffer_max_bytes")


def _check_positive(settings: msgspec.Struct, *names: str) -> None:
    for name in names:
        if not getattr(settings, name) > 0:
            raise InvalidArgumentError(f"{name} is {getattr(settings, name)!r}", to_do="use more than 0")


def _check_not_negative(settings: msgspec.Struct, *names: str) -> None:
    for name in names:
        if not getattr(settings, name) >= 0:
            raise InvalidArgumentError(f"{name} is {getattr(settings, name)!r}", to_do="use 0 or more")
