"""What the backend's answers mean: JSON to verdicts, as protocol.md 8 has them.

`null` is taken for absent, since many backends write all their fields; only what an rpc returns may be `null`. Fields
that are not known are ignored. A payload in base64 wins over its twin.
"""

import base64
import binascii
from collections.abc import Callable
from typing import Annotated, Any, Final, Generic, TypeVar

import msgspec
from msgspec import Meta, Raw, Struct

from gateway.domain.identity import Grant, Identity, overrides_of
from gateway.protocol.closing import closing_with
from gateway.protocol.codec import MalformedFrameError
from gateway.protocol.codes import Disconnect, ErrorCode
from gateway.protocol.json_codec import decode_repairing, has_deeper_nesting, is_json, on_one_line
from gateway.protocol.messages import MAX_VERSION, NOTHING, Int64, Uint32, payload
from gateway.protocol.server_api import SubscriptionOverrides

_AROUND_PAYLOADS: Final = 4
"""How deep payloads lie in an answer: `result`, `subs`, the channel, `info`."""
_NULL: Final = b"null"

WireT = TypeVar("WireT", bound=Struct)
VerdictT = TypeVar("VerdictT")


class UnusableAnswerError(Exception):
    """An answer that is none; the text says why, for the log, and holds nothing of it."""


# What they say.


class ConnectVerdict(Struct, frozen=True):
    """Who a client is, and what it is told."""

    identity: Identity
    data: Raw = NOTHING


class RefreshVerdict(Struct, frozen=True):
    """How long a connection or a subscription may go on: until *expires_at_s* in Unix seconds, 0 for ever."""

    is_expired: bool = False
    expires_at_s: int = 0
    info: Raw | None = None
    """What others are told from now on; `None`: the same as before."""
    meta: Raw | None = None
    """What the backend is told from now on; `None`: the same as before."""


class PublishVerdict(Struct, frozen=True):
    """What is published, and how."""

    data: Raw = NOTHING
    """Instead of what the client sent; `NOTHING`: just that."""
    tags: dict[str, str] = {}
    skips_history: bool = False
    idempotency_key: str = ""
    version: int = 0
    version_epoch: str = ""
    is_patchable: bool = False


# As it comes.


class _Error(Struct):
    code: Uint32 = 0
    message: str | None = None
    temporary: bool | None = None


class _Disconnect(Struct):
    code: Uint32 = 0
    reason: str | None = None


class _Answer(Struct, Generic[WireT]):
    result: WireT | None = None
    error: _Error | None = None
    disconnect: _Disconnect | None = None


class _SubscribeResult(Struct):
    info: Raw = NOTHING
    b64info: str | None = None
    data: Raw = NOTHING
    b64data: str | None = None
    expire_at: Int64 | None = None
    override: SubscriptionOverrides | None = None


class _Sub(_SubscribeResult):
    cache_recover: bool | None = None


class _ConnectResult(Struct):
    user: str | None = None
    expire_at: Int64 | None = None
    info: Raw = NOTHING
    b64info: str | None = None
    data: Raw = NOTHING
    b64data: str | None = None
    channels: list[str] | None = None
    subs: dict[str, _Sub | None] | None = None
    meta: Raw = NOTHING


class _RefreshResult(Struct):
    expired: bool | None = None
    expire_at: Int64 | None = None
    info: Raw = NOTHING
    b64info: str | None = None
    meta: Raw = NOTHING


class _PublishResult(Struct):
    data: Raw = NOTHING
    b64data: str | None = None
    skip_history: bool | None = None
    tags: dict[str, str] | None = None
    idempotency_key: str | None = None
    delta: bool | None = None
    version: Annotated[int, Meta(ge=0)] | None = None
    version_epoch: str | None = None


class _RPCResult(Struct):
    data: Raw = NOTHING
    b64data: str | None = None


# From the one to the other.


class Reader(Generic[VerdictT]):
    """Reads the answers to one kind of event."""

    def __init__(self, wire: type[WireT], verdict: Callable[[WireT], VerdictT], *, may_be_empty: bool = False) -> None:
        """Read results by *verdict*; *may_be_empty* tells that an answer without one has a meaning, too."""
        self._may_be_empty = may_be_empty
        self._decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(_Answer[wire])  # type: ignore[valid-type]
        self._verdict: Callable[[Any], VerdictT] = verdict

    def read(self, body: bytes, *, max_depth: int) -> VerdictT | ErrorCode | Disconnect | None:
        """Return the verdict, or how the client is refused; `None` if the backend says neither, and may.

        Raises:
            UnusableAnswerError: for anything else.
        """
        answer = self._decoded(body, max_depth=max_depth)
        if answer.disconnect is not None:
            return _disconnect(answer.disconnect)
        if answer.error is not None:
            return _error(answer.error)
        if answer.result is None and not self._may_be_empty:
            raise UnusableAnswerError("it has no result, error or disconnect")
        return None if answer.result is None else self._verdict(answer.result)

    def _decoded(self, body: bytes, *, max_depth: int) -> _Answer[Any]:
        if has_deeper_nesting(body, limit=max_depth + _AROUND_PAYLOADS):
            raise UnusableAnswerError(f"its payloads are nested more than {max_depth} deep")
        try:
            body.isascii() or body.decode()
            return decode_repairing(self._decoder, body)
        except UnicodeDecodeError as error:
            raise UnusableAnswerError(f"it is not UTF-8: {error.reason} at byte {error.start}") from None
        except MalformedFrameError as error:
            raise UnusableAnswerError(f"it is no answer to this event: {error}") from None


def _error(told: _Error) -> ErrorCode:
    if not told.code:
        raise UnusableAnswerError("its error has no code")
    return ErrorCode(told.code, told.message or "", temporary=bool(told.temporary))


def _disconnect(told: _Disconnect) -> Disconnect:
    """Return what ends the connection, with the words that go with the code where the backend's can't be told."""
    try:
        return closing_with(told.code, told.reason or "")
    except ValueError as error:
        try:
            return closing_with(told.code, "")
        except ValueError:
            raise UnusableAnswerError(str(error)) from None


def _connect(result: _ConnectResult) -> ConnectVerdict:
    grants = {channel: Grant(channel) for channel in result.channels or ()}
    grants |= {channel: _grant(channel, sub or _Sub()) for channel, sub in (result.subs or {}).items()}
    identity = Identity(
        user=result.user or "",
        info=_told_to_all(result),
        expires_at_s=result.expire_at or 0,
        grants=tuple(grants.values()),
        meta=_plain(result.meta),
    )
    return ConnectVerdict(identity, _payload(result))


def _grant(channel: str, sub: _Sub) -> Grant:
    granted = _subscribe(sub)
    return msgspec.structs.replace(granted, channel=channel, recovers_cache=bool(sub.cache_recover))


def _subscribe(result: _SubscribeResult) -> Grant:
    return Grant(
        channel="",
        info=_told_to_all(result),
        data=_payload(result),
        expires_at_s=result.expire_at or 0,
        overrides=overrides_of(result.override),
    )


def _refresh(result: _RefreshResult) -> RefreshVerdict:
    info, meta = _told_to_all(result), _plain(result.meta)
    return RefreshVerdict(
        is_expired=bool(result.expired),
        expires_at_s=result.expire_at or 0,
        info=None if info is NOTHING else info,
        meta=None if meta is NOTHING else meta,
    )


def _publish(result: _PublishResult) -> PublishVerdict:
    version = result.version or 0
    if version > MAX_VERSION:
        raise UnusableAnswerError(f"its version is above {MAX_VERSION}")
    return PublishVerdict(
        data=_payload(result),
        tags=result.tags or {},
        skips_history=bool(result.skip_history),
        idempotency_key=result.idempotency_key or "",
        version=version,
        version_epoch=result.version_epoch or "",
        is_patchable=bool(result.delta),
    )


def _rpc(result: _RPCResult) -> Raw:
    if not result.b64data and bytes(result.data) == _NULL:
        return Raw(_NULL)
    return _payload(result)


def _payload(result: _SubscribeResult | _ConnectResult | _PublishResult | _RPCResult) -> Raw:
    """Return what one client is told, or what is published: JSON, or any bytes that came in base64."""
    return payload(_unpacked("b64data", result.b64data)) if result.b64data else _plain(result.data)


def _told_to_all(result: _SubscribeResult | _ConnectResult | _RefreshResult) -> Raw:
    """Return what others are told of a client, of whom each must be able to carry it: JSON."""
    if not result.b64info:
        return _plain(result.info)
    unpacked = _unpacked("b64info", result.b64info)
    if unpacked and not is_json(unpacked):
        raise UnusableAnswerError("its b64info is not JSON in base64")
    return payload(on_one_line(unpacked))


def _plain(data: Raw) -> Raw:
    """Return *data*, which is JSON, on a line of its own; it refers to the whole answer, so it is copied."""
    text = bytes(data)
    return NOTHING if not text or text == _NULL else Raw(on_one_line(text))


def _unpacked(name: str, text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise UnusableAnswerError(f"its {name} is not base64") from None


CONNECT: Final[Reader[ConnectVerdict]] = Reader(_ConnectResult, _connect, may_be_empty=True)
REFRESH: Final[Reader[RefreshVerdict]] = Reader(_RefreshResult, _refresh, may_be_empty=True)
SUBSCRIBE: Final[Reader[Grant]] = Reader(_SubscribeResult, _subscribe)
PUBLISH: Final[Reader[PublishVerdict]] = Reader(_PublishResult, _publish)
RPC: Final[Reader[Raw]] = Reader(_RPCResult, _rpc)
