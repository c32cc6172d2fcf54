"""The node's interest in channels at the broker.

"Subscribed" means that the broker has confirmed. All who join a channel at the same time wait for the one confirmation;
that one of them gives up, or leaves, changes nothing for the others.
"""

from gateway.broker.contract import Broker
from gateway.broker.outcome import Outcome


class _Entry:
    """One subscription at the broker, and how many here want it."""

    __slots__ = ("confirmation", "holders")

    def __init__(self, confirmation: Outcome[None]) -> None:
        self.confirmation = confirmation
        self.holders = 0


class Interest:
    """Which channels this node wants from the broker: counted, so that the first asks and the last one out cancels."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._entries: dict[str, _Entry] = {}

    def __len__(self) -> int:
        return len(self._entries)

    async def acquire(self, *channels: str) -> None:
        """Want *channels*, and return when the broker has confirmed them all. Each needs one `release` afterwards.

        The broker is asked for all of them at once. If that fails or is cancelled, nothing is left behind.

        Raises:
            BrokerError: if the broker could not subscribe to one of them.
        """
        entries = [(channel, self._hold(channel)) for channel in channels]
        try:
            for _, entry in entries:
                await entry.confirmation.wait()
        except BaseException:
            for channel, entry in entries:
                self._give_back(channel, entry)
            raise

    def release(self, *channels: str) -> None:
        """Want *channels* no longer; when nobody here does, the broker is told."""
        for channel in channels:
            self._give_back(channel, self._entries[channel])

    def _hold(self, channel: str) -> _Entry:
        entry = self._entries.get(channel)
        if entry is None or entry.confirmation.error is not None:
            entry = self._entries[channel] = _Entry(self._broker.subscribe(channel))
        entry.holders += 1
        return entry

    def _give_back(self, channel: str, entry: _Entry) -> None:
        entry.holders -= 1
        if entry.holders or self._entries.get(channel) is not entry:
            return
        del self._entries[channel]
        if entry.confirmation.error is None:
            self._broker.unsubscribe(channel)
