"""What is handed in becomes drafts of publications: named, checked and processed as a client's are, by the same code.

A draft is carried by a carrier: straight into Redis, or into the broker of a node in this process.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple, cast

import msgspec
from pydantic import BaseModel

from gateway.broker.contract import Broker, Published, PublishOptions
from gateway.broker.outcome import Outcome
from gateway.domain.channels import Channel, Channels, ChannelSettings, DataFormat
from gateway.domain.counts import Counts
from gateway.messaging.publishing import Publisher as NodePublisher
from gateway.protocol import codes
from gateway.protocol.codes import ErrorCode
from gateway.protocol.messages import Publication
from gateway.publisher.errors import PublishRejectedError

MAX_DEPTH: Final = 128
"""How deep JSON may nest, where no configuration says otherwise."""
_MAX_VERSION: Final = 2**64 - 1
_BYTES: Final = (bytes, bytearray, memoryview)
_FORMATS: Final = {
    DataFormat.JSON_OBJECT: "takes JSON objects",
    DataFormat.BINARY: "takes bytes",
    DataFormat.ANY: "takes anything but nothing",
}


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


class Draft(NamedTuple):
    """A publication that only has to be carried."""

    channel: Channel
    publication: Publication
    accepted_at_s: float
    options: PublishOptions


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
        self._max_depth = max_depth
        self._blotter = _Blotter()
        # Of a broker a publisher needs `publish` alone; its counts are the carrier's business.
        self._publisher = NodePublisher(
            cast("Broker", self._blotter), Counts(), monotonic=monotonic, unix=unix, max_depth=max_depth
        )

    def draft(self, names: Sequence[str], data: Any, extras: Extras) -> list[Draft]:
        """Return a draft for each channel of *names*, in order; all, or none.

        Bytes are taken as they are, everything else is written as JSON (pydantic models and dataclasses, too).

        Raises:
            PublishRejectedError: for the first channel that can't be published to like this.
        """
        if isinstance(names, str):
            raise PublishRejectedError(names, codes.BAD_REQUEST, "a broadcast takes a list of channels")
        if not names:
            return []
        tags = _check(names[0], extras)
        payload = _encode(names[0], data)
        is_binary = isinstance(data, _BYTES)
        return [self._draft(self._resolve(name), payload, extras, tags, is_binary=is_binary) for name in names]

    def _resolve(self, name: Any) -> Channel:
        if not isinstance(name, str) or not name:
            raise PublishRejectedError(name, codes.BAD_REQUEST, "a channel has a name")
        channel = self._channels.resolve(name)
        if isinstance(channel, ErrorCode):
            known = ", ".join(each for each in self._channels.namespaces if each) or "none"
            raise PublishRejectedError(
                name, channel, f"its namespace is not configured (channel.namespaces has {known})"
            )
        return channel

    def _draft(
        self, channel: Channel, payload: bytes, extras: Extras, tags: dict[str, str], *, is_binary: bool
    ) -> Draft:
        refusal = self._publisher.refuse(channel, payload, is_checked=False)
        if channel.options.publication_data_format is DataFormat.BINARY and not is_binary:
            refusal = codes.BAD_REQUEST
        try:
            outcome = refusal or self._publisher.publish(channel, payload, None)
        except Exception as error:
            reason = f"one of its processors failed: {type(error).__name__}: {error}"
            raise PublishRejectedError(channel.name, codes.INTERNAL_ERROR, reason.splitlines()[0]) from error
        if isinstance(outcome, ErrorCode):
            raise PublishRejectedError(channel.name, outcome, self._describe(channel))
        publication, accepted_at_s, options = self._blotter.take()
        if tags or extras.version:
            publication = msgspec.structs.replace(publication, tags=tags, version=extras.version)
        if extras.idempotency_key or extras.version_epoch:
            options = msgspec.structs.replace(
                options, idempotency_key=extras.idempotency_key, version_epoch=extras.version_epoch
            )
        return Draft(channel, publication, accepted_at_s, options)

    def _describe(self, channel: Channel) -> str:
        """Say what *channel* takes, to somebody who gave it something else."""
        options = channel.options
        takes = _FORMATS.get(options.publication_data_format, "takes JSON")
        if options.publication_data_format not in {DataFormat.BINARY, DataFormat.ANY}:
            takes += f", nested at most {self._max_depth} deep"
        if options.processors:
            takes += f", that its processors understand ({', '.join(options.processors)})"
        return f"it {takes}, and this is something else"


class _Blotter(threading.local):
    """Stands where a broker stands, and keeps what it is told to publish; for each thread its own."""

    def __init__(self) -> None:
        self._kept: tuple[Publication, float, PublishOptions] | None = None

    def publish(
        self, channel: str, publication: Publication, *, accepted_at_s: float, options: PublishOptions
    ) -> Outcome[Published]:
        del channel
        self._kept = publication, accepted_at_s, options
        return Outcome()

    def take(self) -> tuple[Publication, float, PublishOptions]:
        kept, self._kept = self._kept, None
        if kept is None:
            raise AssertionError("what is not refused is published")
        return kept


def _check(name: str, extras: Extras) -> dict[str, str]:
    """Return the tags; refuse what only a mistake in the calling program brings."""
    version: Any = extras.version
    if type(version) is not int or not 0 <= version <= _MAX_VERSION:
        raise PublishRejectedError(name, codes.BAD_REQUEST, f"a version is a number up to {_MAX_VERSION}")
    tags: Any = extras.tags or {}
    if not isinstance(tags, Mapping):
        raise PublishRejectedError(name, codes.BAD_REQUEST, "tags are a table of texts")
    texts = [extras.idempotency_key, extras.version_epoch, *tags, *tags.values()]
    if not all(isinstance(text, str) and _is_unicode(text) for text in texts):
        raise PublishRejectedError(name, codes.BAD_REQUEST, "keys and tags are texts")
    return dict(tags)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _encode(name: str, data: Any) -> bytes:
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
