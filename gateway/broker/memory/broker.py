"""The broker in memory: a publish is delivered, and appended, in the call that makes it."""

import heapq
import random
import string
import time
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import msgspec

from gateway.broker.contract import (
    DELIVERY_ONLY,
    EPOCH_LETTERS,
    IDEMPOTENCY_WINDOW_S,
    BrokerError,
    Published,
    PublishOptions,
    Receiver,
)
from gateway.broker.outcome import Outcome
from gateway.domain.stream import HistoryRange, Stream, StreamPage
from gateway.domain.windows import Sample, Window, with_statistics
from gateway.protocol.messages import Join, Leave, Publication

_SWEPT_AT_ONCE: Final = 4
"""Streams, windows and keys that a call looks at to forget what has expired; it adds three at most, so none pile up."""


def random_epoch() -> str:
    """Return a new epoch."""
    return "".join(random.choices(string.ascii_letters, k=EPOCH_LETTERS))  # noqa: S311 - a name, not a secret


class _WindowOf(NamedTuple):
    channel: str


class _Expiry:
    """When something may have expired; ordered by time alone."""

    __slots__ = ("at_s", "subject")

    def __init__(self, at_s: float, subject: str | _WindowOf | tuple[str, str]) -> None:
        self.at_s = at_s
        self.subject = subject

    def __lt__(self, other: "_Expiry") -> bool:
        return self.at_s < other.at_s


class MemoryBroker:
    """Hands a publication over in the call that publishes it."""

    def __init__(
        self, *, monotonic: Callable[[], float] = time.monotonic, new_epoch: Callable[[], str] = random_epoch
    ) -> None:
        self._monotonic = monotonic
        self._new_epoch = new_epoch
        self._receiver: Receiver | None = None
        self._channels: set[str] = set()
        self._streams: dict[str, Stream] = {}
        self._windows: dict[str, Window] = {}
        self._results: dict[tuple[str, str], tuple[float, Outcome[Published]]] = {}
        # When to look at a stream (by its channel), a window or a result (by its key) again, soonest first.
        self._expiries: list[_Expiry] = []
        # Outcomes hold no state once settled, so all immediate successes share one: 0.2 µs less for a publish.
        self._published = Outcome.of(Published())
        self._done = Outcome.of(None)

    def start(self, receiver: Receiver) -> None:
        """Begin to hand publications over to *receiver*."""
        self._receiver = receiver

    def publish(
        self, channel: str, publication: Publication, *, accepted_at_s: float, options: PublishOptions = DELIVERY_ONLY
    ) -> Outcome[Published]:
        """Hand *publication* over at once, if this node is subscribed to *channel*."""
        if self._receiver is None:
            return _stopped()
        if options is not DELIVERY_ONLY:
            return self._publish_with(options, channel, publication, accepted_at_s)
        if channel in self._channels:
            self._receiver.receive(channel, publication, "", accepted_at_s)
        return self._published

    def subscribe(self, channel: str) -> Outcome[None]:
        """Hand over *channel* from now on."""
        if self._receiver is None:
            return _stopped()
        if channel in self._channels:
            raise AssertionError(f"subscribed twice to {channel!r}")
        self._channels.add(channel)
        return self._done

    def unsubscribe(self, channel: str) -> Outcome[None]:
        """Hand over nothing more of *channel*."""
        self._channels.discard(channel)
        return self._done

    def announce(self, channel: str, event: Join | Leave) -> Outcome[None]:
        """Hand *event* over at once, if this node is subscribed to *channel*."""
        if self._receiver is None:
            return _stopped()
        if channel in self._channels:
            self._receiver.receive_event(channel, event)
        return self._done

    def history(self, channel: str, wanted: HistoryRange, *, meta_ttl_s: float) -> Outcome[StreamPage]:
        """Read the stream of *channel*."""
        if self._receiver is None:
            return _stopped()
        now_s = self._monotonic()
        self._sweep(now_s)
        stream = self._stream(channel, now_s=now_s)
        stream.touch(meta_ttl_s, now_s=now_s)
        return Outcome.of(stream.read(wanted, now_s=now_s))

    def remove_history(self, channel: str) -> Outcome[None]:
        """Forget the publications of *channel*'s stream."""
        if self._receiver is None:
            return _stopped()
        stream = self._streams.get(channel)
        if stream is not None:
            stream.remove()
        return self._done

    async def stop(self) -> None:
        """Hand over nothing more."""
        self._receiver = None
        self._channels.clear()
        self._streams.clear()
        self._windows.clear()
        self._results.clear()
        self._expiries.clear()

    def _publish_with(
        self, options: PublishOptions, channel: str, publication: Publication, accepted_at_s: float
    ) -> Outcome[Published]:
        now_s = self._monotonic()
        self._sweep(now_s)
        key = (channel, options.idempotency_key)
        if options.idempotency_key:
            expires_at_s, first = self._results.get(key, (0.0, self._published))
            if now_s < expires_at_s:
                return Outcome.of(Published(first.result().position, is_suppressed=True))
        outcome = self._append_and_deliver(options, channel, publication, accepted_at_s, now_s)
        if options.idempotency_key:
            self._results[key] = now_s + IDEMPOTENCY_WINDOW_S, outcome
            heapq.heappush(self._expiries, _Expiry(now_s + IDEMPOTENCY_WINDOW_S, key))
        return outcome

    def _append_and_deliver(
        self, options: PublishOptions, channel: str, publication: Publication, accepted_at_s: float, now_s: float
    ) -> Outcome[Published]:
        position, epoch = None, ""
        stream = self._stream(channel, now_s=now_s) if options.stream is not None else None
        if stream is not None and stream.is_outdated(publication.version, options.version_epoch):
            return Outcome.of(Published(stream.position, is_suppressed=True, is_outdated=True))
        if options.sample is not None:
            publication = self._measure(channel, publication, options.sample, now_s=now_s)
        if stream is not None and options.stream is not None:
            publication = stream.append(publication, options.stream, version_epoch=options.version_epoch, now_s=now_s)
            position, epoch = stream.position, stream.epoch
        if channel in self._channels and self._receiver is not None:
            self._receiver.receive(channel, publication, epoch, accepted_at_s)
        return Outcome.of(Published(position))

    def _measure(self, channel: str, publication: Publication, sample: Sample, *, now_s: float) -> Publication:
        window = self._windows.get(channel)
        if window is None:
            window = self._windows[channel] = Window()
            heapq.heappush(self._expiries, _Expiry(now_s + sample.window.ttl_s, _WindowOf(channel)))
        data = with_statistics(bytes(publication.data), window.add(sample, now_s=now_s))
        return msgspec.structs.replace(publication, data=msgspec.Raw(data))

    def _stream(self, channel: str, *, now_s: float) -> Stream:
        """Return the stream of *channel*; a new one, in a new epoch, when there is none or its meta has expired."""
        stream = self._streams.get(channel)
        if stream is None or now_s >= stream.meta_expires_at_s:
            is_watched = stream is not None
            stream = self._streams[channel] = Stream(self._new_epoch())
            if not is_watched:
                heapq.heappush(self._expiries, _Expiry(now_s, channel))
        return stream

    def _sweep(self, now_s: float) -> None:
        """Forget a few of the streams, windows and results whose time is over."""
        for _ in range(_SWEPT_AT_ONCE):
            if not self._expiries or self._expiries[0].at_s > now_s:
                return
            expired = heapq.heappop(self._expiries).subject
            if isinstance(expired, str):
                self._look_at(expired, now_s)
            elif isinstance(expired, _WindowOf):
                self._look_at_window(expired, now_s)
            else:
                self._results.pop(expired, None)

    def _look_at(self, channel: str, now_s: float) -> None:
        stream = self._streams[channel]
        stream.expire(now_s=now_s)
        if now_s >= stream.meta_expires_at_s:
            del self._streams[channel]
            return
        # Once the publications have gone, what is left to wait for is the meta's end.
        next_s = stream.expires_at_s if len(stream) else stream.meta_expires_at_s
        heapq.heappush(self._expiries, _Expiry(next_s, channel))

    def _look_at_window(self, place: _WindowOf, now_s: float) -> None:
        expires_at_s = self._windows[place.channel].expires_at_s
        if now_s >= expires_at_s:
            del self._windows[place.channel]
        else:
            heapq.heappush(self._expiries, _Expiry(expires_at_s, place))


def _stopped() -> Outcome[Any]:
    outcome: Outcome[Any] = Outcome()
    outcome.fail(BrokerError("the broker is not running"))
    return outcome
