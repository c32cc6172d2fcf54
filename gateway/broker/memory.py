"""The embedded broker: one node, no network. It is also the verified fake of every test that needs a broker."""

from typing import Any

from gateway.broker.contract import BrokerError, Published, Receiver
from gateway.broker.outcome import Outcome
from gateway.protocol.messages import Publication


class MemoryBroker:
    """Hands a publication over in the call that publishes it."""

    def __init__(self) -> None:
        self._receiver: Receiver | None = None
        self._channels: set[str] = set()
        # Outcomes hold no state once settled, so all immediate successes share one: 0.2 µs less for a publish.
        self._published = Outcome.of(Published())
        self._done = Outcome.of(None)

    def start(self, receiver: Receiver) -> None:
        """Begin to hand publications over to *receiver*."""
        self._receiver = receiver

    def publish(self, channel: str, publication: Publication, *, accepted_at_s: float) -> Outcome[Published]:
        """Hand *publication* over at once, if this node is subscribed to *channel*."""
        if self._receiver is None:
            return _stopped()
        if channel in self._channels:
            self._receiver.receive(channel, publication, accepted_at_s)
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

    async def stop(self) -> None:
        """Hand over nothing more."""
        self._receiver = None
        self._channels.clear()


def _stopped() -> Outcome[Any]:
    outcome: Outcome[Any] = Outcome()
    outcome.fail(BrokerError("the broker is not running"))
    return outcome
