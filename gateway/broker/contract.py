"""What every broker promises. One contract suite runs over all of them (tests/contracts)."""

from typing import Final, Protocol

import msgspec

from gateway.broker.outcome import Outcome
from gateway.domain.stream import HistoryRange, StreamOptions, StreamPage
from gateway.protocol.messages import Publication, StreamPosition

IDEMPOTENCY_WINDOW_S: Final = 300.0
"""How long an idempotency key is remembered (protocol.md 7)."""
EPOCH_LETTERS: Final = 8
"""Length of an epoch, which is random letters as the reference's is (protocol.md 3.6)."""


class BrokerError(Exception):
    """The broker could not do what it was asked. Temporary by nature: the client is told error 100 and may retry."""


class PublishOptions(msgspec.Struct, frozen=True):
    """What a publish asks for beyond delivery."""

    stream: StreamOptions | None = None
    """Append to the channel's stream; `None`: no offset, and the stream does not move."""
    idempotency_key: str = ""
    """Within `IDEMPOTENCY_WINDOW_S`, a repeat in the same channel publishes nothing and gets the first result."""
    version_epoch: str = ""
    """What `Publication.version` counts in: within one, a version that is not above the last is dropped."""


DELIVERY_ONLY: Final = PublishOptions()


class Published(msgspec.Struct, frozen=True, gc=False):
    """A publish that the broker has taken; *position* is there for a channel with a stream.

    *is_suppressed* tells that it was a repeat or came too late, and nobody was sent anything.
    """

    position: StreamPosition | None = None
    is_suppressed: bool = False


class Receiver(Protocol):
    """Where a broker hands over what was published, on this node or any other."""

    def receive(self, channel: str, publication: Publication, accepted_at_s: float | None) -> None:
        """Take one publication of a channel that this node is subscribed to.

        *accepted_at_s* is when this node accepted it, on its monotonic clock; `None` if another node did.
        """


class Broker(Protocol):
    """Carries publications of a channel from any node to every node that is subscribed to it, and keeps streams.

    Order: publications of one channel reach every receiver in one and the same order, and what one node publishes in a
    channel keeps its order. In a channel with a stream that order is the offsets', and append and delivery are one
    step: no offset is ever given to a publication that is not delivered, nor the other way round. A receiver gets each
    publication at most once from the broker; what it missed shows as a hole in the offsets and can be read from the
    stream while that keeps it.
    """

    def start(self, receiver: Receiver) -> None:
        """Begin to hand publications over to *receiver*. Call it once, before anything else."""

    def publish(
        self, channel: str, publication: Publication, *, accepted_at_s: float, options: PublishOptions = DELIVERY_ONLY
    ) -> Outcome[Published]:
        """Publish; settled once the broker has it, which may be before or after the receivers do.

        Fails with `BrokerError`; then it is unknown whether subscribers will see the publication.
        """

    def subscribe(self, channel: str) -> Outcome[None]:
        """Receive *channel* on this node. Settled when confirmed: whatever is published after that arrives.

        Fails with `BrokerError`, and then nothing is left behind. Subscribing twice is the caller's mistake.
        """

    def unsubscribe(self, channel: str) -> Outcome[None]:
        """Stop receiving *channel*. A `subscribe` that follows is carried out after it, in this order."""

    def history(self, channel: str, wanted: HistoryRange, *, meta_ttl_s: float) -> Outcome[StreamPage]:
        """Read the stream of *channel*, and keep its position for another *meta_ttl_s*.

        A stream that nobody has published to gets an epoch by this, at offset 0. Fails with `BrokerError`.
        """

    def remove_history(self, channel: str) -> Outcome[None]:
        """Forget the publications of *channel*'s stream; its position stays. Fails with `BrokerError`."""

    async def stop(self) -> None:
        """Hand over nothing more and release everything; what waits for an outcome gets `BrokerError`. Idempotent."""
