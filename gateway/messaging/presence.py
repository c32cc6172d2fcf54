"""Who is in a channel: told to the presence store, renewed for the clients of this node, asked for by clients."""

import asyncio
from collections.abc import Iterable
from typing import Final
from zlib import crc32

from gateway.broker.contract import PresenceStore
from gateway.broker.outcome import Outcome
from gateway.domain.counts import Counts
from gateway.domain.session import Subscription
from gateway.protocol.messages import ClientInfo, Join, Leave

_SLICES: Final = 16
"""Parts in which one interval's renewals are sent, so that they do not come in one burst."""


class Presences:
    """The presence of this node's clients. The size of its registry is the gauge."""

    def __init__(self, store: PresenceStore, counts: Counts, *, interval_s: float, ttl_s: float) -> None:
        self._store = store
        self._counts = counts
        self.interval_s = interval_s
        self.ttl_s = ttl_s
        """How long what is entered or renewed from now on is kept."""
        self.turns = 0
        """How often `run` has looked whom to renew."""
        self.slowest_turn_s = 0.0
        """How long the turn takes that it is at: as long as the interval wanted when that began."""
        self._channels: dict[str, dict[str, Subscription]] = {}
        self._under_way = 0
        self._all_taken: asyncio.Event | None = None

    def __len__(self) -> int:
        return sum(len(entries) for entries in self._channels.values())

    def add(self, subscription: Subscription) -> Outcome[None]:
        """Enter a client who is about to join."""
        return self._store.add(subscription.channel.name, subscription.info, ttl_s=self.ttl_s)

    def give_up(self, subscription: Subscription) -> None:
        """Take out a client that was added and did not join after all; nobody was told of it."""
        self._watch(self._store.remove(subscription.channel.name, subscription.info, is_told=False))

    def joined(self, subscription: Subscription) -> None:
        """Keep a client that is in now, and tell others."""
        channel, features = subscription.channel.name, subscription.features
        if features.is_present:
            self._channels.setdefault(channel, {})[subscription.info.client] = subscription
        if features.is_announced:
            self._watch(self._store.announce(channel, Join(subscription.info)))

    def left(self, subscription: Subscription) -> None:
        """Take out a client that is not in any more, and tell others."""
        channel, features, info = subscription.channel.name, subscription.features, subscription.info
        if features.is_present:
            entries = self._channels[channel]
            del entries[info.client]
            if not entries:
                del self._channels[channel]
            self._watch(self._store.remove(channel, info, is_told=features.is_announced))
        elif features.is_announced:
            self._watch(self._store.announce(channel, Leave(info)))

    def local(self, channel: str) -> dict[str, ClientInfo]:
        """Return the clients of this node that are kept in the presence of *channel*, by id."""
        return {client: each.info for client, each in self._channels.get(channel, {}).items()}

    async def run(self) -> None:
        """Renew for ever, each channel once an interval."""
        while True:
            for part in range(_SLICES):
                self.slowest_turn_s = self.interval_s / _SLICES
                await asyncio.sleep(self.slowest_turn_s)
                self.turns += 1
                self.renew(name for name in list(self._channels) if crc32(name.encode()) % _SLICES == part)

    def renew_all(self) -> None:
        """Renew at once: the store may have lost what it knew."""
        self.renew(list(self._channels))

    def renew(self, channels: Iterable[str]) -> None:
        """Give the clients of this node in *channels* another lifetime."""
        for name in channels:
            subscriptions = self._channels[name].values()
            # The namespace decides whether ghosts are told of; a token's override is for its own client alone.
            is_told = next(iter(subscriptions)).channel.options.join_leave
            infos = [each.info for each in subscriptions]
            self._watch(self._store.renew(name, infos, ttl_s=self.ttl_s, is_told=is_told))

    async def taken(self) -> None:
        """Wait until the store has taken, or refused, all that it was told: the leaves of a node that stops."""
        self._all_taken = asyncio.Event()
        if self._under_way:
            await self._all_taken.wait()

    def _watch(self, outcome: Outcome[None]) -> None:
        """Count a failure: what was not taken mends itself by renewal and expiry."""
        self._under_way += 1
        outcome.then(self._note)

    def _note(self, outcome: Outcome[None]) -> None:
        self._under_way -= 1
        if outcome.error is not None:
            self._counts.presence_failures += 1
        if self._all_taken is not None and not self._under_way:
            self._all_taken.set()
