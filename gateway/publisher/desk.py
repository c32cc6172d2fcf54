"""What is handed in becomes drafts of publications: named, checked and processed as a client's are, by the same code.

A draft is carried by a carrier: straight into Redis, or into the broker of a node in this process.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec
from pydantic import BaseModel

from gateway.broker.contract import Published
from gateway.domain.channels import Channel, Channels, ChannelSettings, DataFormat
from gateway.messaging import publishing
from gateway.messaging.publishing import Draft, Drafter
from gateway.protocol import codes
from gateway.protocol.codes import ErrorCode
from gateway.protocol.messages import MAX_VERSION
from gateway.publisher.errors import PublishRejectedError

MAX_DEPTH: Final = 128
"""How deep JSON may nest, where no configuration says otherwise."""
_BYTES: Final = (bytes, bytearray, memoryview)


class Receipt(NamedTuple):
    """What became of a publication; *offset* and *epoch* are there in a channel with history, else 0 and ""."""

    offset: int = 0
    epoch: str = ""
    is_suppressed: bool = False
    """Nobody was sent it: its idempotency key had been there before, or its version was not above the last."""


class Extras(NamedTuple):
    """What a publish may ask for."""

    idempotency_key: str = ""
    version: int = 0
    version_epoch: str = ""
    tags: Mapping[str, str] | None = None


class Desk:
    """Makes drafts; what may go into a channel, *settings* say. Threads may share it, if the processors can be."""

    def __init__(
        self,
        settings: ChannelSettings,
        *,
        max_depth: int = MAX_DEPTH,
        monotonic: Callable[[], float] = time.monotonic,
        unix: Callable[[], float] = time.time,
    ) -> None:
        self._channels = Channels(settings)
        self._drafter = Drafter(monotonic=monotonic, unix=unix, max_depth=max_depth)

    def draft(self, names: Sequence[str], data: Any, extras: Extras) -> list[Draft]:
        """Return a draft for each channel of *names*, in order; all, or none.

        Bytes are taken as they are, everything else is written as JSON (pydantic models and dataclasses, too).

        Raises:
            PublishRejectedError: for the first channel that can't be published to like this.
        """
        check_names(names)
        if not names:
            return []
        checked = check_extras(names[0], extras)
        payload = encode(names[0], data)
        is_binary = isinstance(data, _BYTES)
        return [self._draft(self._resolve(name), payload, checked, is_binary=is_binary) for name in names]

    def _resolve(self, name: Any) -> Channel:
        channel = self._channels.resolve(name)
        if isinstance(channel, ErrorCode):
            known = ", ".join(each for each in self._channels.namespaces if each) or "none"
            raise PublishRejectedError(
                name, channel, f"its namespace is not configured (channel.namespaces has {known})"
            )
        return channel

    def _draft(self, channel: Channel, payload: bytes, extras: publishing.Extras, *, is_binary: bool) -> Draft:
        refusal = self._drafter.refuse(channel, payload, is_checked=False)
        if channel.options.publication_data_format is DataFormat.BINARY and not is_binary:
            refusal = codes.BAD_REQUEST
        try:
            draft = refusal or self._drafter.draft(channel, payload, None, extras)
        except Exception as error:
            reason = f"one of its processors failed: {type(error).__name__}: {error}"
            raise PublishRejectedError(channel.name, codes.INTERNAL_ERROR, reason.splitlines()[0]) from error
        if isinstance(draft, ErrorCode):
            raise PublishRejectedError(channel.name, draft, self._drafter.describe(channel))
        return draft


def check_names(names: Any) -> None:
    """Refuse what is no list of names."""
    if isinstance(names, str):
        raise PublishRejectedError(names, codes.BAD_REQUEST, "a broadcast takes a list of channels")
    for name in names:
        if not isinstance(name, str) or not name:
            raise PublishRejectedError(name, codes.BAD_REQUEST, "a channel has a name")


def check_extras(name: str, extras: Extras) -> publishing.Extras:
    """Refuse what only a mistake in the calling program brings."""
    version: Any = extras.version
    if type(version) is not int or not 0 <= version <= MAX_VERSION:
        raise PublishRejectedError(name, codes.BAD_REQUEST, f"a version is a number up to {MAX_VERSION}")
    tags: Any = extras.tags or {}
    if not isinstance(tags, Mapping):
        raise PublishRejectedError(name, codes.BAD_REQUEST, "tags are a table of texts")
    texts = [extras.idempotency_key, extras.version_epoch, *tags, *tags.values()]
    if not all(isinstance(text, str) and _is_unicode(text) for text in texts):
        raise PublishRejectedError(name, codes.BAD_REQUEST, "keys and tags are texts")
    return publishing.Extras(extras.idempotency_key, version, extras.version_epoch, dict(tags))


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def encode(name: str, data: Any) -> bytes:
    """Return *data* as it is published in the channel *name*: bytes as they are, anything else as JSON."""
    if isinstance(data, _BYTES):
        return bytes(data)
    try:
        return msgspec.json.encode(data, enc_hook=_as_plain)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        reason = f"the data can't be written as JSON: {error}"
        raise PublishRejectedError(name, codes.BAD_REQUEST, reason.splitlines()[0]) from error


def _as_plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    raise TypeError(f"{type(value).__name__} is none of the types that JSON has")


def receipt_of(published: Published) -> Receipt:
    """Return what a publisher is told of *published*."""
    position = published.position
    if position is None:
        return Receipt(is_suppressed=published.is_suppressed)
    return Receipt(position.offset, position.epoch, published.is_suppressed)
