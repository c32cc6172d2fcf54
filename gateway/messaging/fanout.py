"""From the intake to the subscribers of this node: encode once, write once.

What arrives for a channel during one turn of the event loop is one batch: encoded once for each variant, joined, and
written to every subscriber as the same bytes object. The kernel's send is most of the cost of a delivery, so fewer,
larger writes are what makes a gateway cheap (tests/benchmarks: with 32 publications in flight a delivery costs a
tenth).
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from gateway.domain.counts import Counts, Dropped, Flow, Histogram, Ledger
from gateway.domain.hub import Group, Hub, LocalChannel
from gateway.domain.selection import Selection
from gateway.domain.subscriber import Subscriber, Traffic
from gateway.protocol import codes
from gateway.protocol.json_codec import is_json
from gateway.protocol.messages import Join, Leave, Publication, Push
from gateway.protocol.variants import ProtocolVariant


class _Batch(NamedTuple):
    """What one channel brought in one turn, for one group of subscribers that share its bytes."""

    ledger: Ledger
    flow: Flow
    group: Group
    size: int
    data: bytes

    def count_sent(self) -> None:
        """Note what every member of the group was written; who refused it must have left by now."""
        sent = self.group.sent
        self.group.sent = Traffic(sent.messages + self.size, sent.size + len(self.data))


class Fanout:
    """Writes what the hub's channels bring to their subscribers, once a loop turn.

    *call_soon* is the event loop's: what it is given runs in the next turn, after all that was read in this one.
    *newcomers_max_bytes* bounds what is kept of a channel for those who are about to join it.
    """

    def __init__(
        self,
        hub: Hub,
        counts: Counts,
        *,
        monotonic: Callable[[], float],
        call_soon: Callable[[Callable[[], None]], object],
        newcomers_max_bytes: int = 16777216,
    ) -> None:
        self._hub = hub
        self._counts = counts
        self._monotonic = monotonic
        self._call_soon = call_soon
        self._newcomers_max_bytes = newcomers_max_bytes
        self._dirty: list[LocalChannel] = []
        self._condemned: list[Subscriber] = []
        self._unsettled: list[LocalChannel] = []
        """Channels whose newcomers are being written what makes them like the others."""
        self._accepted: list[tuple[Histogram, float]] = []
        """When that was accepted which is being written, and where to note how long that took."""
        hub.flush = self.flush_channel

    @property
    def queued(self) -> int:
        """How many deliveries wait for the end of the turn."""
        return sum(self.queued_by_namespace().values())

    def queued_by_namespace(self) -> Mapping[str, int]:
        """Count the deliveries that wait for the end of the turn."""
        counts: dict[str, int] = {}
        # One that was flushed ahead and got more since is in there twice.
        for local in set(self._dirty):
            namespace = local.channel.namespace
            counts[namespace] = counts.get(namespace, 0) + len(local.pending) * len(local)
        return counts

    def push(self, local: LocalChannel, publication: Publication, accepted_at_s: float | None) -> None:
        """Take one publication; it is written at the end of this turn."""
        if not local.pending:
            self._mark(local)
        local.pending.append(publication)
        if accepted_at_s is not None and local.accepted_at_s is None:
            local.accepted_at_s = accepted_at_s

    def push_event(self, local: LocalChannel, event: Join | Leave) -> None:
        """Take note that somebody came or went; it is written at the end of this turn, behind the publications."""
        if not local.events:
            self._mark(local)
        local.events.append(event)

    def _mark(self, local: LocalChannel) -> None:
        if not self._dirty:
            self._call_soon(self.flush)
        self._dirty.append(local)

    def flush(self) -> None:
        """Write what this turn has brought: one write for each connection, however many channels it is in."""
        if not self._dirty:
            return  # nothing came, or it was written ahead of the turn's end
        began_s = self._monotonic()
        dirty, self._dirty = self._dirty, []
        batches = [batch for local in dirty if local.pending for batch in self._take(local)]
        if len(batches) <= 1:
            for batch in batches:
                self._write(batch)
        else:
            self._write_joined(batches)
        for local in dirty:
            if local.events:
                self._write_events(local)
        self._note_written(began_s)
        self._settle_newcomers()
        self._dismiss_condemned()

    def flush_channel(self, local: LocalChannel) -> None:
        """Write what waits for one channel, ahead of the turn's end: who joins next starts after it."""
        began_s = self._monotonic()
        for batch in self._take(local):
            self._write(batch)
        self._note_written(began_s)
        self._settle_newcomers()
        self._dismiss_condemned()

    def _note_written(self, began_s: float) -> None:
        """Note how long it took to write, and how long the first of each batch had waited that this node has accepted.

        All others of a batch came in the same turn; to look at each would be a twentieth of what a publish costs.
        """
        now_s = self._monotonic()
        self._counts.fanout.observe(now_s - began_s)
        if self._accepted:
            accepted, self._accepted = self._accepted, []
            for histogram, accepted_at_s in accepted:
                histogram.observe(now_s - accepted_at_s)

    def _take(self, local: LocalChannel) -> list[_Batch]:
        """Take what waits for one channel and encode it, once for each variant in use."""
        publications, local.pending = local.pending, []
        accepted_at_s, local.accepted_at_s = local.accepted_at_s, None
        local.ledger.received += len(publications)
        if local.track is not None and local.track.newcomers:
            local.track.remember(publications, limit=self._newcomers_max_bytes)
        batches, count = [], len(publications)
        selection: Selection | None = None
        for variant, group in local.parts():
            due = len(group) * count
            # Noted now and not with what becomes of it, so that the books show it if a batch were ever lost.
            local.ledger.due += due
            if variant.needs_json and local.channel.options.is_unchecked and not _all_json(publications):
                local.ledger.dropped[Dropped.NOT_JSON] += due
                self._condemned.extend(group)
                continue
            if variant.is_common:
                place = local.number if variant.is_numbered else local.channel.name
                size, data = count, variant.publications(place, publications)
            else:
                selection = selection or Selection(local, publications)
                size, data = selection.encode(variant, group)
                local.ledger.filtered += len(group) * (count - size)
                if not size:
                    continue
            flow = self._counts.flow(variant.transport)
            batches.append(_Batch(local.ledger, flow, group, size, data))
        if local.newcomers:
            self._unsettled.append(local)
        if accepted_at_s is not None:
            self._accepted.append((local.ledger.publish_to_write, accepted_at_s))
        return batches

    def _write(self, batch: _Batch) -> None:
        """Write one batch to all of its group."""
        data = batch.data
        # The hot loop of the house: one call for each subscriber and batch, and nothing else.
        slow = [subscriber for subscriber in batch.group if not subscriber.offer(data)]
        self._book(batch, refused=len(slow))
        # Subscribers change the hub when they go, so they go after the group was walked.
        for subscriber in slow:
            subscriber.dismiss(codes.SLOW)
        batch.count_sent()

    def _write_joined(self, batches: list[_Batch]) -> None:
        """Write several batches; who is in several groups gets one write, since the kernel's send is what costs."""
        outgoing: dict[Subscriber, bytes] = {}
        for batch in batches:
            data = batch.data
            for subscriber in batch.group:
                waiting = outgoing.get(subscriber)
                outgoing[subscriber] = data if waiting is None else waiting + data
        slow = {subscriber for subscriber, data in outgoing.items() if not subscriber.offer(data)}
        for batch in batches:
            self._book(batch, refused=len(slow.intersection(batch.group)) if slow else 0)
        for subscriber in slow:
            subscriber.dismiss(codes.SLOW)
        for batch in batches:
            batch.count_sent()

    def _book(self, batch: _Batch, *, refused: int) -> None:
        ledger, flow, group, size, data = batch
        taken = len(group) - refused
        if refused:
            ledger.dropped[Dropped.SLOW] += refused * size
        deliveries, written = taken * size, taken * len(data)
        ledger.delivered += deliveries
        ledger.delivered_bytes += written
        flow.publications_out += deliveries
        flow.bytes_out += written

    def _write_events(self, local: LocalChannel) -> None:
        """Tell the channel's watchers who came and went; nobody is told of its own leaving."""
        events, local.events = local.events, []
        slow: set[Subscriber] = set()
        encoded: dict[tuple[ProtocolVariant, int], bytes] = {}
        for client_id, (subscriber, variant) in (local.watchers or {}).items():
            for index, event in enumerate(events):
                if isinstance(event, Leave) and event.info.client == client_id:
                    continue
                data = encoded.get((variant, index))
                if data is None:
                    data = encoded[variant, index] = variant.push(_event_push(local, variant, event))
                if subscriber in slow or not subscriber.offer(data):
                    slow.add(subscriber)
                    break
                flow = self._counts.flow(variant.transport)
                flow.events_out += 1
                flow.bytes_out += len(data)
        for subscriber in slow:
            subscriber.dismiss(codes.SLOW)

    def _settle_newcomers(self) -> None:
        """Let those be like the others who have just been written what makes them so."""
        if self._unsettled:
            unsettled, self._unsettled = self._unsettled, []
            for local in unsettled:
                local.settle_newcomers()

    def _dismiss_condemned(self) -> None:
        """Disconnect who can't be told what came: only in namespaces with `publication_data_format = "any"`."""
        condemned, self._condemned = self._condemned, []
        for subscriber in condemned:
            subscriber.dismiss(codes.INAPPROPRIATE_PROTOCOL)


def _event_push(local: LocalChannel, variant: ProtocolVariant, event: Join | Leave) -> Push:
    push = Push(id=local.number) if variant.is_numbered else Push(channel=local.channel.name)
    if isinstance(event, Join):
        push.join = event
    else:
        push.leave = event
    return push


def _all_json(batch: list[Publication]) -> bool:
    return all(is_json(bytes(publication.data)) for publication in batch)
