"""What every broker promises. One contract suite runs over all of them (tests/contracts)."""

from typing import Protocol

import msgspec

from gateway.broker.outcome import Outcome
from gateway.protocol.messages import Publication, StreamPosition


class BrokerError(Exception):
    """The broker could not do what it was asked. Temporary by nature: the client is told error 100 and may retry."""


class Published(msgspec.Struct, frozen=True, gc=False):
    """A publish that the broker has taken; *position* is there for a channel with a stream."""

    position: StreamPosition | None = None


class Receiver(Protocol):
    """Where a broker hands over what was published, on this node or any other."""

    def receive(self, channel: str, publication: Publication, accepted_at_s: float | None) -> None:
        """Take one publication of a channel that this node is subscribed to.

        *accepted_at_s* is when this node accepted it, on its monotonic clock; `None` if another node did.
        """


class Broker(Protocol):
    """Carries publications of a channel from any node to every node that is subscribed to it.

    Order: publications of one channel reach every receiver in one and the same order, and what one node publishes in a
    channel keeps its order. At most once without a stream; streams, positions and history are a further contract.
    """

    def start(self, receiver: Receiver) -> None:
        """Begin to hand publications over to *receiver*. Call it once, before anything else."""

    def publish(self, channel: str, publication: Publication, *, accepted_at_s: float) -> Outcome[Published]:
        """Publish; settled once the broker has it, which may be before or after the receivers do.

        Fails with `BrokerError`; then it is unknown whether subscribers will see the publication.
        """

    def subscribe(self, channel: str) -> Outcome[None]:
        """Receive *channel* on this node. Settled when confirmed: whatever is published after that arrives.

        Fails with `BrokerError`, and then nothing is left behind. Subscribing twice is the caller's mistake.
        """

    def unsubscribe(self, channel: str) -> Outcome[None]:
        """Stop receiving *channel*. A `subscribe` that follows is carried out after it, in this order."""

    async def stop(self) -> None:
        """Hand over nothing more and release everything; what waits for an outcome gets `BrokerError`. Idempotent."""
