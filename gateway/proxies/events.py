"""What the backend is told of an event, field by field as protocol.md 8 has it.

A field that equals its default is left out.
"""

from enum import StrEnum

from msgspec import Raw, Struct

from gateway.protocol.messages import NOTHING


class Kind(StrEnum):
    """What the backend can be asked about."""

    CONNECT = "connect"
    REFRESH = "refresh"
    SUBSCRIBE = "subscribe"
    PUBLISH = "publish"
    SUB_REFRESH = "sub_refresh"
    RPC = "rpc"


class Event(Struct, omit_defaults=True, frozen=True):
    """What all events tell: whose they are, what carries it, and how it encodes."""

    client: str
    transport: str
    protocol: str
    encoding: str
    """How payloads stand in the event: `json`, or `binary` for base64."""


class ConnectEvent(Event, frozen=True):
    """Somebody without a token wants to connect, and have the channels back that it had before."""

    data: Raw = NOTHING
    b64data: str = ""
    name: str = ""
    version: str = ""
    channels: list[str] = []


class RefreshEvent(Event, frozen=True):
    """A connection expires."""

    user: str
    meta: Raw = NOTHING


class SubscribeEvent(Event, frozen=True):
    """A client wants to subscribe, and has no token for it."""

    user: str
    channel: str
    data: Raw = NOTHING
    b64data: str = ""
    meta: Raw = NOTHING


class PublishEvent(Event, frozen=True):
    """A client wants to publish."""

    user: str
    channel: str
    data: Raw = NOTHING
    b64data: str = ""
    meta: Raw = NOTHING


class SubRefreshEvent(Event, frozen=True):
    """A subscription expires."""

    user: str
    channel: str
    meta: Raw = NOTHING


class RPCEvent(Event, frozen=True):
    """A client calls a method of the backend."""

    user: str
    method: str = ""
    data: Raw = NOTHING
    b64data: str = ""
    meta: Raw = NOTHING
