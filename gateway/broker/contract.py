"""What an engine promises: a broker, a presence store and node-to-node control, in memory or on a server.

One contract suite runs over all engines (tests/contracts).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

import msgspec

from gateway.broker.outcome import Outcome
from gateway.domain.stream import HistoryRange, StreamOptions, StreamPage
from gateway.domain.windows import Sample
from gateway.protocol.messages import ClientInfo, Join, Leave, Publication, StreamPosition

IDEMPOTENCY_WINDOW_S: Final = 300.0
"""How long an idempotency key is remembered (protocol.md 7)."""
EPOCH_LETTERS: Final = 8
"""Length of an epoch, which is random letters as the reference's is (protocol.md 3.6)."""


class BrokerError(Exception):
    """The broker could not do what it was asked. Temporary by nature: the client is told error 100 and may retry."""


class EngineError(Exception):
    """The engine was found to be none that this node can work with, and only its operator can mend that."""


class PublishOptions(msgspec.Struct, frozen=True):
    """What a publish asks for beyond delivery."""

    stream: StreamOptions | None = None
    """Append to the channel's stream; `None`: no offset, and the stream does not move."""
    idempotency_key: str = ""
    """Within `IDEMPOTENCY_WINDOW_S`, a repeat in the same channel publishes nothing and gets the first result."""
    version_epoch: str = ""
    """What `Publication.version` counts in: within one, a version that is not above the last is dropped."""
    sample: Sample | None = None
    """Take this number into the channel's window and put the window's statistics into the publication, in the step that
    gives the offset: one window for all nodes, in the offsets' order. The data must be as `with_statistics` wants it. A
    publication that is suppressed changes no window."""


DELIVERY_ONLY: Final = PublishOptions()


class Published(msgspec.Struct, frozen=True, gc=False):
    """A publish that the broker has taken; *position* is there for a channel with a stream.

    *is_suppressed* tells that it was a repeat or came too late, and nobody was sent anything; *is_outdated* that it was
    the latter, by its version.
    """

    position: StreamPosition | None = None
    is_suppressed: bool = False
    is_outdated: bool = False


class Receiver(Protocol):
    """Where a broker hands over what came for the channels that this node is subscribed to, from any node."""

    def receive(self, channel: str, publication: Publication, epoch: str, accepted_at_s: float | None) -> None:
        """Take one publication of *channel*; *epoch* is what its offset counts in, "" outside a stream.

        *accepted_at_s* is when this node accepted it, on its monotonic clock; `None` if another node did.
        """

    def receive_event(self, channel: str, event: Join | Leave) -> None:
        """Take note that a client, of any node, has joined or left *channel*."""

    def resume(self, channels: Sequence[str], *, interrupted_s: float) -> None:
        """Take note that *channels* are received again, after a time in which publications may have been missed."""


class Broker(Protocol):
    """Carries publications of a channel from any node to every node that is subscribed to it, and keeps streams.

    Order: publications of one channel reach every receiver in one and the same order, and what one node publishes in a
    channel keeps its order. In a channel with a stream that order is the offsets', and append and delivery are one
    step: no offset is ever given to a publication that is not delivered, nor the other way round. A receiver gets each
    publication at most once from the broker; what it missed shows as a hole in the offsets and can be read from the
    stream while that keeps it. A broker that learns that it has lost publications it had acknowledged begins a new
    epoch, so that nobody takes the new ones for the old.
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


class PresenceStats(msgspec.Struct, frozen=True, gc=False):
    """How many are in a channel."""

    clients: int
    users: int


class PresenceStore(Protocol):
    """Knows which clients of all nodes are in a channel, and tells the channel's subscribers who came and went.

    An entry lives until it is removed, or until its node has not renewed it for its lifetime: so the clients of a node
    that died go, too. Every method fails with `BrokerError`.
    """

    def announce(self, channel: str, event: Join | Leave) -> Outcome[None]:
        """Send *event* to every node that is subscribed to *channel*, in order with this node's publications."""

    def add(self, channel: str, info: ClientInfo, *, ttl_s: float) -> Outcome[None]:
        """Enter a client, under its id. Settled when whoever asks from now on sees it."""

    def remove(self, channel: str, info: ClientInfo, *, is_told: bool) -> Outcome[None]:
        """Take a client out; if it was in, and *is_told*, its `Leave` is sent in the same step."""

    def renew(self, channel: str, infos: Sequence[ClientInfo], *, ttl_s: float, is_told: bool) -> Outcome[None]:
        """Give the clients of this node another lifetime, entering those that are missing, and sweep *channel*.

        Sweeping removes the entries of all nodes whose time is over; if *is_told*, the `Leave` of each is sent in the
        same step, so once, whoever sweeps. Who was swept although it is there, because its node could not renew it,
        comes back by the next renewal, without a second `Join`.
        """

    def presence(self, channel: str) -> Outcome[dict[str, ClientInfo]]:
        """Return who is in *channel*, by client id."""

    def stats(self, channel: str) -> Outcome[PresenceStats]:
        """Count the clients in *channel*, and the users behind them."""


class Control(Protocol):
    """Carries messages from node to node: at most once, and those of one node in the order in which it sent them."""

    node_id: str
    """How the other nodes address this one; drawn anew for each life of a node."""

    def start(self, receive: Callable[[bytes], None]) -> None:
        """Begin to hand over what other nodes send. Call it once, before anything else."""

    def send(self, message: bytes, *, to: str | None = None) -> Outcome[None]:
        """Send *message* to every other node, or to the node *to* alone; settled when it is on its way.

        A node that is not there gets nothing, and that is no failure. Fails with `BrokerError`.
        """

    def echo(self) -> Outcome[None]:
        """Send a message to this very node, on the way that publications take; settled when it has come back.

        Fails with `BrokerError` if it could not be sent, or when the next one is sent before it has come back.
        """


class Engine(Protocol):
    """What a node runs on. Start its parts, then `run` it."""

    @property
    def broker(self) -> Broker:
        """Publications and streams."""

    @property
    def presence(self) -> PresenceStore:
        """Who is where."""

    @property
    def control(self) -> Control:
        """Node to node."""

    @property
    def trouble(self) -> str | None:
        """What keeps it from working right now, in a few words for an operator; `None` when it works."""

    @property
    def turns(self) -> Mapping[str, int]:
        """How often each of the tasks that it lives by has turned so far; who stands still has died, or hangs."""

    @property
    def slowest_turn_s(self) -> float:
        """How long a turn of theirs may take while all is well with them, whatever the broker does."""

    async def run(self) -> None:
        """Hold the links up until `stop` is called or this is cancelled.

        Raises:
            EngineError: before it has worked once, for a fault that waiting does not mend (a wrong password).
        """

    async def stop(self) -> None:
        """Release everything; what waits for an outcome gets `BrokerError`. Idempotent."""
