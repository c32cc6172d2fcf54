"""The one way of a publication into the broker: data format, processors, publish."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Final, NamedTuple

import msgspec

from gateway.broker.contract import DELIVERY_ONLY, Broker, Published, PublishOptions
from gateway.broker.outcome import Outcome
from gateway.domain.channels import Channel, DataFormat
from gateway.domain.counts import Counts
from gateway.domain.windows import Sample
from gateway.messaging.processors import (
    NotProcessableError,
    Pipeline,
    Processed,
    ProcessorFactory,
    installed_processors,
)
from gateway.protocol import codes
from gateway.protocol.codes import ErrorCode
from gateway.protocol.json_codec import has_deeper_nesting, is_json
from gateway.protocol.messages import NOTHING, ClientInfo, PatchablePublication, Publication

_BLANKS: Final = b" \t\r\n"
_NO_TAGS: Final[dict[str, str]] = {}
_TAKEN: Final = {
    DataFormat.JSON_OBJECT: "takes JSON objects",
    DataFormat.BINARY: "takes bytes",
    DataFormat.ANY: "takes anything but nothing",
}


class Extras(NamedTuple):
    """What a publisher other than a client may ask for (protocol.md 7)."""

    idempotency_key: str = ""
    version: int = 0
    """0 for none, at most `messages.MAX_VERSION`."""
    version_epoch: str = ""
    tags: dict[str, str] = _NO_TAGS
    skips_history: bool = False
    is_patchable: bool = False
    """Send it as a patch where subscribers have asked for that; `delta` in protocol.md 7."""


class Draft(NamedTuple):
    """A publication that only has to be carried to a broker."""

    channel: Channel
    publication: Publication
    accepted_at_s: float
    options: PublishOptions


class Drafter:
    """Checks what is published, and makes drafts of it. Permission was decided before.

    A processor's own fault is told to *report* with the channel's name, and error 100 for the publisher; without
    *report*, it is raised.
    """

    def __init__(
        self,
        *,
        monotonic: Callable[[], float],
        unix: Callable[[], float],
        max_depth: int,
        processors: Mapping[str, ProcessorFactory] | None = None,
        report: Callable[[str, Exception], None] | None = None,
    ) -> None:
        self._monotonic = monotonic
        self._unix = unix
        self._max_depth = max_depth
        self._processors = processors if processors is not None else installed_processors()
        self._report = report
        self._pipelines: dict[str, Pipeline] = {}

    def refuse(self, channel: Channel, data: bytes | msgspec.Raw, *, is_checked: bool) -> ErrorCode | None:
        """Say why the content of a publication will not do, or `None` (the data rule of protocol.md 3.5).

        *is_checked* tells that *data* came as a payload out of valid JSON, so that it need not be parsed again.
        """
        data_format = channel.options.publication_data_format
        if is_checked and not data_format:
            return codes.BAD_REQUEST if data is NOTHING else None
        payload = bytes(data)
        if data_format is DataFormat.BINARY:
            return None
        if data_format is DataFormat.ANY:
            return None if payload else codes.BAD_REQUEST
        if not is_checked and (has_deeper_nesting(payload, limit=self._max_depth) or not is_json(payload)):
            return codes.BAD_REQUEST
        if not payload or (data_format is DataFormat.JSON_OBJECT and not payload.lstrip(_BLANKS).startswith(b"{")):
            return codes.BAD_REQUEST
        return None

    def draft(
        self, channel: Channel, data: bytes | msgspec.Raw, info: ClientInfo | None = None, extras: Extras | None = None
    ) -> Draft | ErrorCode:
        """Return *data*, which `refuse` had nothing against, as a draft, or say that a processor can't work on it."""
        content = self._content(channel, data, info, extras)
        return content if isinstance(content, ErrorCode) else Draft(channel, content[0], self._monotonic(), content[1])

    def describe(self, channel: Channel) -> str:
        """Say what *channel* takes, to somebody who gave it something else."""
        options = channel.options
        takes = _TAKEN.get(options.publication_data_format, "takes JSON")
        if options.publication_data_format not in {DataFormat.BINARY, DataFormat.ANY}:
            takes += f", nested at most {self._max_depth} deep"
        if options.processors:
            takes += f", that its processors understand ({', '.join(options.processors)})"
        return f"it {takes}, and this is something else"

    def forget_pipelines(self) -> None:
        """Make all processors anew, when they are needed next: their options have changed."""
        self._pipelines.clear()

    def _content(
        self, channel: Channel, data: bytes | msgspec.Raw, info: ClientInfo | None, extras: Extras | None
    ) -> tuple[Publication, PublishOptions] | ErrorCode:
        stream = None if extras is not None and extras.skips_history else channel.stream
        sample = None
        if channel.options.processors:
            processed = self._process(channel, bytes(data))
            if isinstance(processed, ErrorCode):
                return processed
            data, number = processed
            if number is not None and channel.window is not None:
                sample = Sample(number, channel.window)
        payload = data if isinstance(data, msgspec.Raw) else msgspec.Raw(data)
        make = PatchablePublication if channel.options.delta_publish else Publication
        if extras is None:
            publication = make(data=payload, info=info)
            is_plain = stream is None and sample is None
            options = DELIVERY_ONLY if is_plain else PublishOptions(stream, sample=sample)
        else:
            key, version, epoch, tags, _, is_patchable = extras
            make = PatchablePublication if is_patchable else make
            publication = make(data=payload, info=info, tags=tags, version=version)
            is_plain = stream is None and sample is None and not key
            options = DELIVERY_ONLY if is_plain else PublishOptions(stream, key, epoch, sample)
        return publication, options

    def _process(self, channel: Channel, data: bytes) -> Processed | ErrorCode:
        pipeline = self._pipelines.get(channel.namespace)
        if pipeline is None:
            pipeline = self._pipelines[channel.namespace] = Pipeline(channel.options, self._processors)
        try:
            return pipeline.run(data, unix_s=self._unix())
        except NotProcessableError:
            return codes.BAD_REQUEST
        except Exception as error:
            if self._report is None:
                raise
            self._report(channel.name, error)
            return codes.INTERNAL_ERROR


class Publisher(Drafter):
    """A drafter with the broker that its drafts are for; the rest of its arguments is a drafter's."""

    def __init__(
        self,
        broker: Broker,
        counts: Counts,
        *,
        monotonic: Callable[[], float],
        unix: Callable[[], float],
        max_depth: int,
        processors: Mapping[str, ProcessorFactory] | None = None,
        report: Callable[[str, Exception], None] | None = None,
    ) -> None:
        super().__init__(monotonic=monotonic, unix=unix, max_depth=max_depth, processors=processors, report=report)
        self._broker = broker
        self._counts = counts
        self._ledgers = counts.ledgers

    def publish(
        self, channel: Channel, data: bytes | msgspec.Raw, info: ClientInfo | None, extras: Extras | None = None
    ) -> Outcome[Published] | ErrorCode:
        """Publish *data*, which `refuse` had nothing against, or say that a processor can't work on it."""
        content = self._content(channel, data, info, extras)
        if isinstance(content, ErrorCode):
            return content
        publication, options = content
        # Not by `ledger`, whose call would cost as much again as the count.
        book = self._ledgers.get(channel.namespace)
        if book is None:
            book = self._counts.ledger(channel.namespace)
        book.published += 1
        outcome = self._broker.publish(channel.name, publication, accepted_at_s=self._monotonic(), options=options)
        if extras is not None and (extras.idempotency_key or extras.version):
            outcome.then(partial(self._note_suppressed, channel.namespace))
        return outcome

    def carry(self, draft: Draft) -> Outcome[Published]:
        """Hand *draft* to the broker."""
        channel, publication, accepted_at_s, options = draft
        self._counts.ledger(channel.namespace).published += 1
        outcome = self._broker.publish(channel.name, publication, accepted_at_s=accepted_at_s, options=options)
        if options.idempotency_key or publication.version:
            outcome.then(partial(self._note_suppressed, channel.namespace))
        return outcome

    def _note_suppressed(self, namespace: str, outcome: Outcome[Published]) -> None:
        if outcome.error is None and outcome.result().is_suppressed:
            reason = "version" if outcome.result().is_outdated else "idempotency_key"
            self._counts.suppressed[namespace, reason] += 1
