"""The broker on Redis: publications go out in batches and come back over the subscriber; the server keeps streams."""

import functools
import random
import string
from collections.abc import Callable
from typing import Any, Final

from gateway.broker.contract import (
    DELIVERY_ONLY,
    IDEMPOTENCY_WINDOW_S,
    BrokerError,
    Published,
    PublishOptions,
    Receiver,
)
from gateway.broker.outcome import Outcome
from gateway.broker.redis.counts import Journal
from gateway.broker.redis.envelope import JOIN, LEAVE, PLAIN, Envelope, EnvelopeError, decode_entry, encode_info
from gateway.broker.redis.keys import ChannelKeys, Keys
from gateway.broker.redis.link import Link
from gateway.broker.redis.reads import Reads
from gateway.broker.redis.scripts import HISTORY, PUBLISH, Argument, pack_range
from gateway.broker.redis.subscriber import Subscriber
from gateway.domain.stream import HistoryRange, StreamPage
from gateway.domain.windows import Sample
from gateway.protocol.messages import Join, Leave, Publication, StreamPosition

SEEN_CHANNELS: Final = 65536
"""Of how many channels a node remembers the last position."""
_WINDOW_MS: Final = round(IDEMPOTENCY_WINDOW_S * 1000)
_LARGE_PAGE: Final = 1000
_FIELDS: Final = 2
"""Of an entry without statistics, names and values."""
_UNSEEN: Final = ("", 0)
_OUTDATED: Final = 2
# Two letters for each of 2,048 numbers, so that an epoch of 44 random bits costs a quarter of `random.choices`. Each
# publish into a stream brings one along, in case the stream has to begin anew.
_PAIRS: Final = [first + second for first in string.ascii_letters for second in string.ascii_letters][:2048]


def random_epoch() -> str:
    """Return a new epoch."""
    bits = random.getrandbits(44)
    return _PAIRS[bits & 2047] + _PAIRS[bits >> 11 & 2047] + _PAIRS[bits >> 22 & 2047] + _PAIRS[bits >> 33]


class RedisBroker:
    """Carries publications through Redis on three links, which somebody else runs."""

    def __init__(
        self,
        link: Link,
        subscriber: Subscriber,
        reads: Reads,
        keys: Keys,
        *,
        node_id: str,
        journal: Journal,
        new_epoch: Callable[[], str] = random_epoch,
    ) -> None:
        self._link = link
        self._subscriber = subscriber
        self._reads = reads
        self._keys = keys
        self._envelope = Envelope(node_id)
        self._counts = journal.counts
        self._journal = journal
        self._new_epoch = new_epoch
        self._receiver: Receiver | None = None
        # Epoch and top that were last seen of a stream, to notice when Redis falls behind them.
        self._seen: dict[str, tuple[str, int]] = {}
        self._published = Published()
        self._done = Outcome.of(None)

    def start(self, receiver: Receiver) -> None:
        """Begin to hand publications over to *receiver*."""
        self._receiver = receiver
        self._subscriber.on_resumed = self._resumed

    def publish(
        self, channel: str, publication: Publication, *, accepted_at_s: float, options: PublishOptions = DELIVERY_ONLY
    ) -> Outcome[Published]:
        """Send *publication*; settled when Redis has carried it out."""
        if self._receiver is None:
            return _stopped()
        try:
            body = self._envelope.encode(publication, accepted_at_s)
        except EnvelopeError as error:
            return _failed(error)
        keys = self._keys.of(channel)
        sample = options.sample
        if options.stream is None and not options.idempotency_key and sample is None:
            return self._link.call(keys.pack_publish(PLAIN, body), self._take_published, channel)
        stream, version = options.stream, publication.version
        seen_epoch, seen_top = self._seen.get(channel, _UNSEEN)
        packed = PUBLISH.pack(
            _publish_keys(keys, options),
            (
                self._new_epoch(),
                seen_epoch,
                seen_top,
                keys.name,
                body,
                0 if stream is None else stream.size,
                0 if stream is None else round(stream.ttl_s * 1000),
                0 if stream is None else round(stream.meta_ttl_s * 1000),
                f"{version:020d}" if version else "",
                options.version_epoch,
                _WINDOW_MS,
                *(() if sample is None else _pack_sample(sample)),
            ),
        )
        return self._link.call(packed, self._take_position, channel, PUBLISH)

    def subscribe(self, channel: str) -> Outcome[None]:
        """Receive *channel* from Redis."""
        if self._receiver is None:
            return _stopped()
        return self._subscriber.subscribe(self._keys.of(channel).name, functools.partial(self._receive, channel))

    def unsubscribe(self, channel: str) -> Outcome[None]:
        """Hand over nothing more of *channel*; Redis is told a little later."""
        self._subscriber.unsubscribe(self._keys.of(channel).name)
        return self._done

    def announce(self, channel: str, event: Join | Leave) -> Outcome[None]:
        """Send *event* to every node that is subscribed to *channel*, in order with this node's publications."""
        if self._receiver is None:
            return _stopped()
        try:
            body = encode_info(event.info)
        except EnvelopeError as error:
            return _failed(error)
        kind = JOIN if isinstance(event, Join) else LEAVE
        return self._link.call(self._keys.of(channel).pack_publish(kind, body), _take_nothing, channel)

    def history(self, channel: str, wanted: HistoryRange, *, meta_ttl_s: float) -> Outcome[StreamPage]:
        """Read the stream of *channel*."""
        if self._receiver is None:
            return _stopped()
        keys = self._keys.of(channel)
        seen_epoch, seen_top = self._seen.get(channel, _UNSEEN)
        args: list[Argument] = [self._new_epoch(), seen_epoch, seen_top, round(meta_ttl_s * 1000), *pack_range(wanted)]
        return self._reads.evaluate(
            HISTORY,
            [keys.stream, keys.meta],
            args,
            parse=functools.partial(self._take_page, channel),
            values=wanted.limit if 0 <= wanted.limit < _LARGE_PAGE else _LARGE_PAGE,
        )

    def remove_history(self, channel: str) -> Outcome[None]:
        """Forget the publications of *channel*'s stream."""
        if self._receiver is None:
            return _stopped()
        return self._reads.call("DEL", self._keys.of(channel).stream, parse=lambda _: None)

    async def stop(self) -> None:
        """Hand over nothing more and close the links."""
        self._receiver = None
        self._link.stop()
        self._subscriber.stop()
        self._reads.stop()

    def _receive(self, channel: str, message: bytes) -> None:
        receiver = self._receiver
        if receiver is None:
            return
        try:
            content, epoch, accepted_at_s = self._envelope.decode(message)
        except EnvelopeError as error:
            self._note_foreign(channel, error)
            return
        if isinstance(content, Publication):
            if epoch:
                self._note_position(channel, epoch, content.offset)
            receiver.receive(channel, content, epoch, accepted_at_s)
        else:
            receiver.receive_event(channel, content)

    def _resumed(self, names: list[bytes], interrupted_s: float) -> None:
        channels = [channel for channel in map(self._keys.channel_of, names) if channel is not None]
        if channels and self._receiver is not None:
            self._receiver.resume(channels, interrupted_s=interrupted_s)

    def _take_published(self, _channel: str, _receivers: Any) -> Published:
        return self._published

    def _take_position(self, channel: str, reply: Any) -> Published:
        offset, epoch, is_suppressed = reply
        if not epoch:
            return Published(is_suppressed=bool(is_suppressed))
        position = StreamPosition(offset, epoch.decode())
        if not is_suppressed:  # the result of an earlier publish tells of earlier times
            self._note_position(channel, position.epoch, offset)
        return Published(position, bool(is_suppressed), is_suppressed == _OUTDATED)

    def _take_page(self, channel: str, reply: Any) -> StreamPage:
        epoch_text, top, entries = reply
        epoch = epoch_text.decode()
        try:
            publications = [
                decode_entry(entry_id, fields[1], epoch, fields[3] if len(fields) > _FIELDS else b"")
                for entry_id, fields in entries
            ]
        except EnvelopeError as error:
            # A page without it would look whole.
            self._note_foreign(channel, error)
            raise
        self._note_position(channel, epoch, top)
        return StreamPage(publications, StreamPosition(top, epoch))

    def _note_position(self, channel: str, epoch: str, offset: int) -> None:
        seen = self._seen
        last_epoch, last_offset = seen.get(channel, _UNSEEN)
        if epoch == last_epoch and offset <= last_offset:
            return
        if len(seen) >= SEEN_CHANNELS and channel not in seen:
            del seen[next(iter(seen))]
        seen[channel] = epoch, offset

    def _note_foreign(self, channel: str, error: EnvelopeError) -> None:
        self._counts.undecodable += 1
        self._journal.report_seldom("redis undecodable", channel, error=str(error))


def _publish_keys(keys: ChannelKeys, options: PublishOptions) -> list[bytes]:
    named = [keys.stream, keys.meta]
    if options.sample is not None:
        named.append(keys.window)
    if options.idempotency_key:
        named.append(keys.result(options.idempotency_key))
    return named


def _pack_sample(sample: Sample) -> tuple[Argument, ...]:
    window = sample.window
    return repr(sample.number), window.size - 1, round(window.ttl_s * 1000), window.deviation.value


def _take_nothing(_subject: str, _reply: Any) -> None:
    """Return nothing: a PUBLISH tells how many received it on this server, which says little."""


def _failed(error: BrokerError) -> Outcome[Any]:
    outcome: Outcome[Any] = Outcome()
    outcome.fail(error)
    return outcome


def _stopped() -> Outcome[Any]:
    return _failed(BrokerError("the broker is not running"))
