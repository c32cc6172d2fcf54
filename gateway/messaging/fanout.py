"""From the broker to the subscribers of this node: encode once, write once.

What arrives for a channel during one turn of the event loop is one batch: encoded once for each variant, joined, and
written to every subscriber as the same bytes object. The kernel's send is most of the cost of a delivery, so fewer,
larger writes are what makes a gateway cheap (tests/benchmarks: with 32 publications in flight a delivery costs a
tenth).
"""

from collections.abc import Callable
from typing import Final, NamedTuple

from gateway.domain.counts import Counts, Ledger
from gateway.domain.hub import Group, Hub, LocalChannel, Subscriber, Traffic
from gateway.protocol import codes
from gateway.protocol.json_codec import is_json
from gateway.protocol.messages import Publication

DROPPED_SLOW: Final = "slow"
DROPPED_NOT_JSON: Final = "not_json"


class _Batch(NamedTuple):
    """What one channel brought in one turn, for one group of subscribers that share its bytes."""

    ledger: Ledger
    group: Group
    size: int
    data: bytes

    def count_sent(self) -> None:
        """Note what every member of the group was written; who refused it must have left by now."""
        sent = self.group.sent
        self.group.sent = Traffic(sent.messages + self.size, sent.size + len(self.data))


class Fanout:
    """Receives from the broker and writes to the hub's subscribers, once a loop turn.

    *call_soon* is the event loop's: what it is given runs in the next turn, after all that was read in this one.
    """

    def __init__(
        self,
        hub: Hub,
        counts: Counts,
        *,
        monotonic: Callable[[], float],
        call_soon: Callable[[Callable[[], None]], object],
    ) -> None:
        self._hub = hub
        self._counts = counts
        self._monotonic = monotonic
        self._call_soon = call_soon
        self._dirty: list[LocalChannel] = []
        self._condemned: list[Subscriber] = []
        hub.flush = self.flush_channel

    @property
    def queued(self) -> int:
        """How many deliveries wait for the end of the turn."""
        return sum(len(local.pending) * len(local) for local in self._dirty)

    def receive(self, channel: str, publication: Publication, accepted_at_s: float | None) -> None:
        """Take one publication; it is written at the end of this turn."""
        local = self._hub.get(channel)
        if local is None:
            return  # the last subscriber has left, and the broker has not heard of it yet
        if not local.pending:
            if not self._dirty:
                self._call_soon(self.flush)
            self._dirty.append(local)
        local.pending.append(publication)
        if accepted_at_s is not None:
            local.accepted_at_s.append(accepted_at_s)

    def flush(self) -> None:
        """Write what this turn has brought: one write for each connection, however many channels it is in."""
        dirty, self._dirty = self._dirty, []
        batches = [batch for local in dirty if local.pending for batch in self._take(local)]
        if len(batches) <= 1:
            for batch in batches:
                self._write(batch)
        else:
            self._write_joined(batches)
        self._dismiss_condemned()

    def flush_channel(self, local: LocalChannel) -> None:
        """Write what waits for one channel, ahead of the turn's end: who joins next starts after it."""
        for batch in self._take(local):
            self._write(batch)
        self._dismiss_condemned()

    def _take(self, local: LocalChannel) -> list[_Batch]:
        """Take what waits for one channel and encode it, once for each variant in use."""
        publications, local.pending = local.pending, []
        accepted, local.accepted_at_s = local.accepted_at_s, []
        local.ledger.received += len(publications)
        batches = []
        for variant, group in local.groups.items():
            due = len(group) * len(publications)
            local.ledger.due += due
            if variant.needs_json and local.channel.options.is_unchecked and not _all_json(publications):
                local.ledger.dropped[DROPPED_NOT_JSON] += due
                self._condemned.extend(group)
                continue
            data = variant.publications(local.channel.name, publications)
            batches.append(_Batch(local.ledger, group, len(publications), data))
        if accepted:
            now_s = self._monotonic()
            for accepted_at_s in accepted:
                self._counts.publish_to_write.observe(now_s - accepted_at_s)
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
        taken = len(batch.group) - refused
        batch.ledger.delivered += taken * batch.size
        if refused:
            batch.ledger.dropped[DROPPED_SLOW] += refused * batch.size
        self._counts.messages_out += taken * batch.size
        self._counts.bytes_out += taken * len(batch.data)

    def _dismiss_condemned(self) -> None:
        """Disconnect who can't be told what came: only in namespaces with `publication_data_format = "any"`."""
        condemned, self._condemned = self._condemned, []
        for subscriber in condemned:
            subscriber.dismiss(codes.INAPPROPRIATE_PROTOCOL)


def _all_json(batch: list[Publication]) -> bool:
    return all(is_json(bytes(publication.data)) for publication in batch)
