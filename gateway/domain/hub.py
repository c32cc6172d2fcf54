"""The node's own subscribers: which channel has whom, grouped by what they can share.

A channel collects what arrives during one loop turn in `pending`; the fan-out takes the batch at the turn's end. Who
joins or leaves does so at a batch's edge: a newcomer never gets a part of a batch, and who has left gets none of it.
"""

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping

from gateway.domain.channels import Channel
from gateway.domain.counts import Dropped, Ledger
from gateway.domain.subscriber import NO_TRAFFIC, Subscriber, Traffic
from gateway.domain.track import Latecomer, Track
from gateway.protocol.messages import Join, Leave, Publication
from gateway.protocol.variants import ProtocolVariant, Variant


class Group(dict[Subscriber, Traffic]):
    """The subscribers of a channel that share a variant, in the order they came, and what each of them was written.

    Since all of a group get the same, one count serves all: what a subscriber got is the count when it leaves less the
    count when it joined, at no cost for a delivery. Who has come from another group has what to add to the count.
    """

    __slots__ = ("base", "sent")

    def __init__(self) -> None:
        super().__init__()
        self.sent = Traffic()
        self.base: Publication | None = None
        """What all of them have got last, where patches are sent: a patch is made of that and what comes next."""

    def sent_to(self, subscriber: Subscriber) -> Traffic:
        """Return what *subscriber* was written until now, on the count that it joined with."""
        sent, own = self.sent, self[subscriber]
        return sent if own is NO_TRAFFIC else Traffic(sent.messages + own.messages, sent.size + own.size)

    def take_over(self, newcomers: "Group") -> None:
        """Let all *newcomers* in, who have got the same last."""
        for subscriber in newcomers:
            then = newcomers.sent_to(subscriber)
            self[subscriber] = Traffic(then.messages - self.sent.messages, then.size - self.sent.size)


class LocalChannel:
    """A channel with at least one subscriber on this node, or one who is about to be."""

    __slots__ = (
        "accepted_at_s",
        "channel",
        "events",
        "groups",
        "ledger",
        "newcomers",
        "number",
        "pending",
        "track",
        "watchers",
    )

    def __init__(self, channel: Channel, ledger: Ledger, number: int) -> None:
        self.channel = channel
        self.ledger = ledger
        self.number = number
        """What this node's pushes name it by to those who have agreed to that; no two are ever alike."""
        self.groups: dict[Variant, Group] = {}
        self.newcomers: dict[Variant, Group] = {}
        """Where patches are sent: those who have nothing yet that the next one could be a patch of."""
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
        return sum(map(len, self.all_groups()))

    def all_groups(self) -> Iterable[Group]:
        """Return the groups, those of newcomers included."""
        return (*self.groups.values(), *self.newcomers.values()) if self.newcomers else self.groups.values()

    def parts(self) -> Iterable[tuple[Variant, Group]]:
        """Return the same with their variants."""
        return (*self.groups.items(), *self.newcomers.items()) if self.newcomers else self.groups.items()

    def place_of(self, subscriber: Subscriber, variant: Variant) -> dict[Variant, Group] | None:
        """Return in which groups that of *subscriber* is, the newcomers' or the others'; `None` if it is in none."""
        for groups in (self.groups, self.newcomers):
            if subscriber in groups.get(variant, ()):
                return groups
        return None

    def settle_newcomers(self) -> None:
        """Let those who have got what the others of their variant got last be as they are."""
        for variant, group in list(self.newcomers.items()):
            if group.base is not None:
                self.groups.setdefault(variant, Group()).take_over(group)
                self.groups[variant].base = group.base
                del self.newcomers[variant]

    @property
    def is_deserted(self) -> bool:
        """Whether nobody is here, nor on the way."""
        track = self.track
        return not (self.groups or self.newcomers) and (track is None or not (track.newcomers or track.latecomers))

    def count_clients(self) -> int:
        """Count all who are here, those who wait for their edge included, but not those who only look on."""
        late = self.track.latecomers if self.track is not None else []
        here = sum(len(group) for variant, group in self.groups.items() if not variant.is_tap)
        here += sum(map(len, self.newcomers.values()))
        return here + sum(not each.variant.is_tap for each in late)

    def subscribers(self) -> list[Subscriber]:
        """Return a copy of all who are here, those who wait for their edge included."""
        late = self.track.latecomers if self.track is not None else []
        return [each for group in self.all_groups() for each in group] + [each.subscriber for each in late]


class Hub:
    """Channels with local subscribers."""

    def __init__(self, *, ledger: Callable[[str], Ledger], flush: Callable[[LocalChannel], None] | None = None) -> None:
        self._channels: dict[str, LocalChannel] = {}
        self._numbers = itertools.count(1)
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

    def join(
        self, channel: Channel, subscriber: Subscriber, variant: Variant, base: Publication | None = None
    ) -> Traffic:
        """Deliver to *subscriber* what arrives from now on; returns what its group was written before.

        *base* is the last publication of the channel that it has got by other means, if that counts for its variant.
        """
        local = self._channels.get(channel.name)
        if local is not None:
            self.flush_pending(local)
        return _enter(self._open(channel), subscriber, variant, base)

    def join_after(
        self,
        channel: Channel,
        subscriber: Subscriber,
        variant: Variant,
        *,
        after: int,
        joined: Callable[[Traffic], None],
        base: Publication | None = None,
    ) -> None:
        """Deliver to *subscriber* what comes above the offset *after*, in a channel that it announced itself in.

        *joined* gets what its group was written before: now, or when this node has received as much as that.
        """
        local = self._channels[channel.name]
        self.flush_pending(local)
        if local.track is None:
            raise AssertionError("a channel that somebody was expected in has a track")
        if after > local.track.offset:
            local.track.wait(Latecomer(after, subscriber, variant, joined, base))
        else:
            joined(_enter(local, subscriber, variant, base))

    def admit(self, local: LocalChannel) -> None:
        """Let those join for whom the position of *local* has come far enough; flush before."""
        if local.track is not None:
            for each in local.track.arrived():
                each.joined(_enter(local, each.subscriber, each.variant, each.base))

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
        sent, groups = NO_TRAFFIC, local.place_of(subscriber, variant)
        if groups is not None:
            group = groups[variant]
            sent = group.sent_to(subscriber)
            if local.pending:
                local.ledger.leave(len(local.pending), because)
            del group[subscriber]
            if not group:
                del groups[variant]
        elif local.track is not None:
            local.track.drop(subscriber)
        self._close_deserted(local)
        return sent

    def sent(self, channel: str, subscriber: Subscriber, variant: Variant) -> Traffic | None:
        """Return what the group of *subscriber* has been written in *channel* until now; `None` if it is not there."""
        local = self._channels.get(channel)
        groups = local.place_of(subscriber, variant) if local is not None else None
        return groups[variant].sent_to(subscriber) if groups is not None else None

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
            for group in local.all_groups():
                counts[namespace] += len(group)
            if local.track is not None:
                counts[namespace] += len(local.track.latecomers)
        return counts

    def _open(self, channel: Channel) -> LocalChannel:
        local = self._channels.get(channel.name)
        if local is None:
            local = self._channels[channel.name] = LocalChannel(
                channel, self._ledger(channel.namespace), next(self._numbers)
            )
        return local

    def _close_deserted(self, local: LocalChannel) -> None:
        if local.is_deserted and self._channels.get(local.channel.name) is local:
            del self._channels[local.channel.name]


def _enter(local: LocalChannel, subscriber: Subscriber, variant: Variant, base: Publication | None) -> Traffic:
    groups, group = local.groups, local.groups.get(variant)
    if group is not None and group.base is not None and (base is None or bytes(base.data) != bytes(group.base.data)):
        groups, group = local.newcomers, local.newcomers.get(variant)
    if group is None:
        group = groups[variant] = Group()
        if groups is local.groups:
            group.base = base
    group[subscriber] = NO_TRAFFIC
    return group.sent
