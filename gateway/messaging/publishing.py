"""The one way of a publication into the broker: data format, processors, publish."""

from collections.abc import Callable, Mapping
from typing import Final

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
from gateway.protocol.messages import NOTHING, ClientInfo, Publication

_BLANKS: Final = b" \t\r\n"


class Publisher:
    """Checks what is published and hands it to the broker. Permission was decided before.

    A processor's own fault is told to *report* with the channel's name, and error 100 for the publisher; without
    *report*, it is raised.
    """

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
        self._broker = broker
        self._counts = counts
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

    def publish(
        self, channel: Channel, data: bytes | msgspec.Raw, info: ClientInfo | None
    ) -> Outcome[Published] | ErrorCode:
        """Publish *data*, which `refuse` had nothing against, or say that a processor can't work on it."""
        options = DELIVERY_ONLY if channel.stream is None else PublishOptions(channel.stream)
        if channel.options.processors:
            processed = self._process(channel, bytes(data))
            if isinstance(processed, ErrorCode):
                return processed
            data, number = processed
            if number is not None and channel.window is not None:
                options = PublishOptions(channel.stream, sample=Sample(number, channel.window))
        payload = data if isinstance(data, msgspec.Raw) else msgspec.Raw(data)
        self._counts.ledger(channel.namespace).published += 1
        return self._broker.publish(
            channel.name, Publication(data=payload, info=info), accepted_at_s=self._monotonic(), options=options
        )

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
