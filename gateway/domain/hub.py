"""The node's own subscribers: which channel has whom, grouped by what they can share.

A channel collects what arrives during one loop turn in `pending`; the fan-out takes the batch at the turn's end. Who
joins or leaves does so at a batch's edge: a newcomer never gets a part of a batch, and who has left gets none of it.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple, Protocol

from gateway.domain.channels import Channel
from gateway.domain.counts import Ledger
from gateway.protocol.codes import Disconnect
from gateway.protocol.messages import Publication
from gateway.protocol.variants import Variant


class Subscriber(Protocol):
    """Where publications go: the transport of a session."""

    def offer(self, data: bytes) -> bool:
        """Take *data* to write it soon; false when the reader is too slow, and nothing was taken."""

    def dismiss(self, disconnect: Disconnect) -> None:
        """End the connection."""


class Traffic(NamedTuple):
    """How much has been written, in messages and in bytes with their framing."""

    messages: int = 0
    size: int = 0


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
    """A channel with at least one subscriber on this node."""

    __slots__ = ("accepted_at_s", "channel", "groups", "ledger", "pending")

    def __init__(self, channel: Channel, ledger: Ledger) -> None:
        self.channel = channel
        self.ledger = ledger
        self.groups: dict[Variant, Group] = {}
        self.pending: list[Publication] = []
        self.accepted_at_s: list[float] = []
        """When each pending publication was accepted, on the clock of the fan-out."""

    def __len__(self) -> int:
        return sum(len(group) for group in self.groups.values())


class Hub:
    """Channels with local subscribers."""

    def __init__(self, *, ledger: Callable[[str], Ledger], flush: Callable[[LocalChannel], None] | None = None) -> None:
        self._channels: dict[str, LocalChannel] = {}
        self._ledger = ledger
        self.flush = flush

    def __len__(self) -> int:
        return len(self._channels)

    def __iter__(self) -> Iterator[LocalChannel]:
        return iter(self._channels.values())

    def get(self, channel: str) -> LocalChannel | None:
        """Return *channel* if somebody here is subscribed to it."""
        return self._channels.get(channel)

    def join(self, channel: Channel, subscriber: Subscriber, variant: Variant) -> Traffic:
        """Deliver to *subscriber* what arrives from now on; returns what its group was written before."""
        local = self._channels.get(channel.name)
        if local is not None and local.pending and self.flush is not None:
            self.flush(local)
            # The flush may have sent the last subscriber away, and the channel with it.
            local = self._channels.get(channel.name)
        if local is None:
            local = self._channels[channel.name] = LocalChannel(channel, self._ledger(channel.namespace))
        group = local.groups.get(variant)
        if group is None:
            group = local.groups[variant] = Group()
        group[subscriber] = None
        return group.sent

    def leave(self, channel: str, subscriber: Subscriber, variant: Variant) -> Traffic:
        """Deliver nothing more of *channel* to *subscriber*; returns what its group has been written until now.

        Does nothing if it was not there.
        """
        local = self._channels.get(channel)
        if local is None:
            return Traffic()
        group = local.groups.get(variant)
        if group is not None:
            group.pop(subscriber, None)
            if not group:
                del local.groups[variant]
        if not local.groups:
            del self._channels[channel]
        return group.sent if group is not None else Traffic()

    def subscriptions(self) -> Mapping[str, int]:
        """Count the subscriptions of each namespace."""
        counts: dict[str, int] = {}
        for local in self._channels.values():
            namespace = local.channel.namespace
            counts[namespace] = counts.get(namespace, 0) + len(local)
        return counts
