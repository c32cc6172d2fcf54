"""Presence in memory: who is in a channel is told, and changed, in the call that asks."""

import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from gateway.broker.contract import BrokerError, PresenceStats
from gateway.broker.memory.broker import MemoryBroker
from gateway.broker.outcome import Outcome
from gateway.protocol.messages import ClientInfo, Join, Leave

_KEPT_LIFETIMES: Final = 2
"""How long a channel that nobody renews is kept, in lifetimes: for one, whoever sweeps can still tell who left."""
_SWEPT_AT_ONCE: Final = 4
"""Channels that a call looks at to forget the abandoned; it adds one at most, so none pile up."""


class _Entry:
    __slots__ = ("expires_at_s", "info")

    def __init__(self, info: ClientInfo, expires_at_s: float) -> None:
        self.info = info
        self.expires_at_s = expires_at_s


class _Present:
    """Who is in one channel. Expired entries stay until they are swept, so that somebody can tell that they left."""

    __slots__ = ("_entries", "_soonest_s", "_users", "kept_until_s")

    def __init__(self) -> None:
        self.kept_until_s = 0.0
        self._entries: dict[str, _Entry] = {}
        self._users: dict[str, int] = {}
        # No entry expires before this, so that counting in a large channel rarely has to look at every entry.
        self._soonest_s = float("inf")

    def __len__(self) -> int:
        return len(self._entries)

    def enter(self, info: ClientInfo, *, expires_at_s: float) -> None:
        self.leave(info.client)
        self._entries[info.client] = _Entry(info, expires_at_s)
        self._users[info.user] = self._users.get(info.user, 0) + 1
        self._soonest_s = min(self._soonest_s, expires_at_s)

    def leave(self, client: str) -> bool:
        entry = self._entries.pop(client, None)
        if entry is None:
            return False
        left = self._users[entry.info.user] - 1
        if left:
            self._users[entry.info.user] = left
        else:
            del self._users[entry.info.user]
        return True

    def sweep(self, *, now_s: float) -> list[ClientInfo]:
        if now_s < self._soonest_s:
            return []
        expired = [entry.info for entry in self._entries.values() if entry.expires_at_s <= now_s]
        for info in expired:
            self.leave(info.client)
        self._soonest_s = min((entry.expires_at_s for entry in self._entries.values()), default=float("inf"))
        return expired

    def clients(self, *, now_s: float) -> dict[str, ClientInfo]:
        return {client: entry.info for client, entry in self._entries.items() if now_s < entry.expires_at_s}

    def stats(self, *, now_s: float) -> PresenceStats:
        if now_s < self._soonest_s:
            return PresenceStats(clients=len(self._entries), users=len(self._users))
        clients = self.clients(now_s=now_s).values()
        return PresenceStats(clients=len(clients), users=len({info.user for info in clients}))


class MemoryPresence:
    """Knows the clients of the node that runs on *broker*, and sends their events through it."""

    def __init__(self, broker: MemoryBroker, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._broker = broker
        self._monotonic = monotonic
        self._is_stopped = False
        # The channel that was renewed last comes last, so the abandoned are found at the front.
        self._channels: dict[str, _Present] = {}
        self._done = Outcome.of(None)

    def announce(self, channel: str, event: Join | Leave) -> Outcome[None]:
        """Hand *event* over at once, if this node is subscribed to *channel*."""
        return self._broker.announce(channel, event)

    def add(self, channel: str, info: ClientInfo, *, ttl_s: float) -> Outcome[None]:
        """Enter a client."""
        if self._is_stopped:
            return _stopped()
        self._enter(channel, [info], ttl_s=ttl_s)
        return self._done

    def remove(self, channel: str, info: ClientInfo, *, is_told: bool) -> Outcome[None]:
        """Take a client out; one that has expired, but of whom nobody has told, counts as in."""
        if self._is_stopped:
            return _stopped()
        present = self._find(channel, now_s=self._monotonic())
        if present is not None and present.leave(info.client):
            self._drop_if_empty(channel, present)
            if is_told:
                return self._broker.announce(channel, Leave(info))
        return self._done

    def renew(self, channel: str, infos: Sequence[ClientInfo], *, ttl_s: float, is_told: bool) -> Outcome[None]:
        """Give *infos* another lifetime and sweep *channel*."""
        if self._is_stopped:
            return _stopped()
        now_s = self._enter(channel, infos, ttl_s=ttl_s)
        present = self._find(channel, now_s=now_s)
        if present is not None:
            expired = present.sweep(now_s=now_s)
            self._drop_if_empty(channel, present)
            if is_told:
                for info in expired:
                    self._broker.announce(channel, Leave(info))
        return self._done

    def presence(self, channel: str) -> Outcome[dict[str, ClientInfo]]:
        """Return who is in *channel*."""
        if self._is_stopped:
            return _stopped()
        now_s = self._monotonic()
        present = self._find(channel, now_s=now_s)
        return Outcome.of({} if present is None else present.clients(now_s=now_s))

    def stats(self, channel: str) -> Outcome[PresenceStats]:
        """Count who is in *channel*."""
        if self._is_stopped:
            return _stopped()
        now_s = self._monotonic()
        present = self._find(channel, now_s=now_s)
        return Outcome.of(PresenceStats(0, 0) if present is None else present.stats(now_s=now_s))

    def stop(self) -> None:
        """Forget everybody; whatever is asked from now on fails with `BrokerError`."""
        self._is_stopped = True
        self._channels.clear()

    def _enter(self, channel: str, infos: Sequence[ClientInfo], *, ttl_s: float) -> float:
        now_s = self._monotonic()
        self._forget_abandoned(now_s)
        if infos:
            present = self._find(channel, now_s=now_s) or _Present()
            self._channels.pop(channel, None)
            self._channels[channel] = present
            present.kept_until_s = max(present.kept_until_s, now_s + _KEPT_LIFETIMES * ttl_s)
            for info in infos:
                present.enter(info, expires_at_s=now_s + ttl_s)
        return now_s

    def _find(self, channel: str, *, now_s: float) -> _Present | None:
        present = self._channels.get(channel)
        return present if present is not None and now_s < present.kept_until_s else None

    def _drop_if_empty(self, channel: str, present: _Present) -> None:
        if not present:
            del self._channels[channel]

    def _forget_abandoned(self, now_s: float) -> None:
        for _ in range(_SWEPT_AT_ONCE):
            oldest = next(iter(self._channels), None)
            if oldest is None or now_s < self._channels[oldest].kept_until_s:
                return
            del self._channels[oldest]


def _stopped() -> Outcome[Any]:
    outcome: Outcome[Any] = Outcome()
    outcome.fail(BrokerError("presence is not running"))
    return outcome
