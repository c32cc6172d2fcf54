"""The node's own subscribers: which channel has whom, grouped by what they can share.

A channel collects what arrives during one loop turn in `pending`; the fan-out takes the batch at the turn's end. Who
joins or leaves does so at a batch's edge: a newcomer never gets a part of a batch, and who has left gets none of it.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping

from gateway.domain.channels import Channel
from gateway.domain.counts import Dropped, Ledger
from gateway.domain.subscriber import Subscriber, Traffic
from gateway.domain.track import Latecomer, Track
from gateway.protocol.messages import Join, Leave, Publication
from gateway.protocol.variants import ProtocolVariant, Variant


class Group(dict[Subscriber, None]):
    """The subscribers of a channel that share a variant, in the order they came, and what each of them was written.

    Since all of a group get the same, one count serves all: what a subscriber got is the count when it leaves less the
    count when it joined, at no cost for a delivery.
    """

    __slots__ = ("sent",)

    def __init__(self) -> None:
        super().__init__()
        self.sent = Traffic()


class LocalChannel:
    """A channel with at least one subscriber on this node, or one who is about to be."""

    __slots__ = ("accepted_at_s", "channel", "events", "groups", "ledger", "pending", "track", "watchers")

    def __init__(self, channel: Channel, ledger: Ledger) -> None:
        self.channel = channel
        self.ledger = ledger
        self.groups: dict[Variant, Group] = {}
        self.pending: list[Publication] = []
        self.accepted_at_s: float | None = None
        """When the first pending publication that this node has accepted was, on the clock of the fan-out."""
        self.track: Track | None = None if channel.stream is None else Track()
        """This node's place in the stream. A channel without history has one, too, while somebody is positioned in it:
        its epoch tells whether the broker has lost everything."""
        self.events: list[Join | Leave] = []
        """Who came and went during this turn."""
        self.watchers: dict[str, tuple[Subscriber, ProtocolVariant]] | None = None
        """Those who are told about that, by client id."""

    def __len__(self) -> int:
        return sum(map(len, self.groups.values()))

    @property
    def is_deserted(self) -> bool:
        """Whether nobody is here, nor on the way."""
        track = self.track
        return not self.groups and (track is None or not (track.newcomers or track.latecomers))

    def count_clients(self) -> int:
        """Count all who are here, those who wait for their edge included, but not those who only look on."""
        late = self.track.latecomers if self.track is not None else []
        here = sum(len(group) for variant, group in self.groups.items() if not variant.is_tap)
        return here + sum(not each.variant.is_tap for each in late)

    def subscribers(self) -> list[Subscriber]:
        """Return a copy of all who are here, those who wait for their edge included."""
        late = self.track.latecomers if self.track is not None else []
        return [each for group in self.groups.values() for each in group] + [each.subscriber for each in late]


class Hub:
    """Channels with local subscribers."""

    def __init__(self, *, ledger: Callable[[str], Ledger], flush: Callable[[LocalChannel], None] | None = None) -> None:
        self._channels: dict[str, LocalChannel] = {}
        self._ledger = ledger
        self.flush = flush

    def __len__(self) -> int:
        return len(self._channels)

    def __iter__(self) -> Iterator[LocalChannel]:
        """Iterate over a copy, so that channels may come and go meanwhile."""
        return iter(list(self._channels.values()))

    def get(self, channel: str) -> LocalChannel | None:
        """Return *channel* if somebody here is subscribed to it."""
        return self._channels.get(channel)

    def join(self, channel: Channel, subscriber: Subscriber, variant: Variant) -> Traffic:
        """Deliver to *subscriber* what arrives from now on; returns what its group was written before."""
        local = self._channels.get(channel.name)
        if local is not None:
            self.flush_pending(local)
        return _enter(self._open(channel), subscriber, variant)

    def join_after(
        self,
        channel: Channel,
        subscriber: Subscriber,
        variant: Variant,
        *,
        after: int,
        joined: Callable[[Traffic], None],
    ) -> None:
        """Deliver to *subscriber* what comes above the offset *after*, in a channel that it announced itself in.

        *joined* gets what its group was written before: now, or when this node has received as much as that.
        """
        local = self._channels[channel.name]
        self.flush_pending(local)
        if local.track is None:
            raise AssertionError("a channel that somebody was expected in has a track")
        if after > local.track.offset:
            local.track.wait(Latecomer(after, subscriber, variant, joined))
        else:
            joined(_enter(local, subscriber, variant))

    def admit(self, local: LocalChannel) -> None:
        """Let those join for whom the position of *local* has come far enough; flush before."""
        if local.track is not None:
            for each in local.track.arrived():
                each.joined(_enter(local, each.subscriber, each.variant))

    def expect(self, channel: Channel) -> LocalChannel:
        """Keep what is delivered in *channel*, for one who is about to join; `forget` it when it has, or gave up."""
        local = self._open(channel)
        if local.track is None:
            local.track = Track()
        local.track.newcomers += 1
        return local

    def forget(self, local: LocalChannel) -> None:
        """Expect one less in *local*."""
        track = local.track
        if track is None:
            raise AssertionError("a channel that somebody was expected in has a track")
        track.newcomers -= 1
        if not track.newcomers:
            track.forget_recent()
        self._close_deserted(local)

    def leave(self, channel: str, subscriber: Subscriber, variant: Variant, *, because: Dropped) -> Traffic:
        """Deliver nothing more of *channel* to *subscriber*; returns what its group has been written until now.

        What has come for it in this turn is dropped, for the reason that it leaves *because* of. Does nothing if it was
        not there.
        """
        local = self._channels.get(channel)
        if local is None:
            return Traffic()
        sent, group = Traffic(), local.groups.get(variant)
        if group is not None and subscriber in group:
            sent = group.sent
            if local.pending:
                local.ledger.leave(len(local.pending), because)
            del group[subscriber]
            if not group:
                del local.groups[variant]
        elif local.track is not None:
            local.track.drop(subscriber)
        self._close_deserted(local)
        return sent

    def sent(self, channel: str, subscriber: Subscriber, variant: Variant) -> Traffic | None:
        """Return what the group of *subscriber* has been written in *channel* until now; `None` if it is not there."""
        local = self._channels.get(channel)
        group = local.groups.get(variant) if local is not None else None
        return group.sent if group is not None and subscriber in group else None

    def flush_pending(self, local: LocalChannel) -> None:
        """Write what waits in *local*, so that who joins next starts after it; it may send subscribers away."""
        if local.pending and self.flush is not None:
            self.flush(local)

    def watch(self, channel: str, client_id: str, subscriber: Subscriber, variant: ProtocolVariant) -> None:
        """Tell *subscriber*, who has joined *channel*, who else comes and goes."""
        local = self._channels[channel]
        if local.watchers is None:
            local.watchers = {}
        local.watchers[client_id] = subscriber, variant

    def unwatch(self, channel: str, client_id: str) -> None:
        """Tell it no longer; does nothing if it was not told."""
        local = self._channels.get(channel)
        if local is not None and local.watchers is not None:
            local.watchers.pop(client_id, None)
            if not local.watchers:
                local.watchers = None

    def subscriptions(self) -> Mapping[str, int]:
        """Count the subscriptions of each namespace."""
        counts: defaultdict[str, int] = defaultdict(int)
        # A node may have as many channels as clients, and each scrape asks for this: no call that can be spared.
        for local in self._channels.values():
            namespace = local.channel.namespace
            for group in local.groups.values():
                counts[namespace] += len(group)
            if local.track is not None:
                counts[namespace] += len(local.track.latecomers)
        return counts

    def _open(self, channel: Channel) -> LocalChannel:
        local = self._channels.get(channel.name)
        if local is None:
            local = self._channels[channel.name] = LocalChannel(channel, self._ledger(channel.namespace))
        return local

    def _close_deserted(self, local: LocalChannel) -> None:
        if local.is_deserted and self._channels.get(local.channel.name) is local:
            del self._channels[local.channel.name]


def _enter(local: LocalChannel, subscriber: Subscriber, variant: Variant) -> Traffic:
    group = local.groups.get(variant)
    if group is None:
        group = local.groups[variant] = Group()
    group[subscriber] = None
    return group.sent
