"""A broker behind a network that the test drives: deliveries and reads are under way until the test moves them on."""

from collections import deque
from collections.abc import Callable

from gateway.broker.contract import BrokerError, Receiver
from gateway.broker.memory.broker import MemoryBroker
from gateway.broker.outcome import Outcome
from gateway.domain.stream import HistoryRange, StreamPage
from gateway.protocol.messages import Join, Leave, Publication, StreamPosition

_Delivery = tuple[str, Publication, str, float | None]


class DelayedBroker(MemoryBroker):
    """A memory broker whose deliveries wait in one line, and whose reads are carried out and answered in two steps.

    What it loses keeps to the contract: a loss of acknowledged publications begins a new epoch.
    """

    def __init__(self, *, monotonic: Callable[[], float], new_epoch: Callable[[], str]) -> None:
        super().__init__(monotonic=monotonic, new_epoch=new_epoch)
        self.deliveries: deque[_Delivery] = deque()
        self.asked: deque[tuple[str, HistoryRange, float, Outcome[StreamPage]]] = deque()
        self.read: deque[tuple[Outcome[StreamPage], StreamPage]] = deque()
        self.is_cut = False
        self.reads = 0
        self._real: Receiver | None = None

    def start(self, receiver: Receiver) -> None:
        self._real = receiver
        super().start(self)

    # As the memory broker's receiver.

    def receive(self, channel: str, publication: Publication, epoch: str, accepted_at_s: float | None) -> None:
        if not self.is_cut:
            self.deliveries.append((channel, publication, epoch, accepted_at_s))

    def receive_event(self, channel: str, event: Join | Leave) -> None:
        if not self.is_cut and self._real is not None:
            self._real.receive_event(channel, event)

    def resume(self, channels: object, *, interrupted_s: float) -> None:
        raise AssertionError(f"a broker in memory is never interrupted: {channels}, {interrupted_s}")

    # What the test moves on.

    def deliver(self) -> None:
        """Hand over the oldest delivery that is under way."""
        if self.deliveries and self._real is not None:
            self._real.receive(*self.deliveries.popleft())

    def carry_out(self) -> None:
        """Read the oldest page that is asked for; its answer is under way then."""
        if self.asked:
            channel, wanted, meta_ttl_s, outcome = self.asked.popleft()
            self.reads += 1
            self.read.append((outcome, super().history(channel, wanted, meta_ttl_s=meta_ttl_s).result()))

    def answer(self) -> None:
        """Answer the oldest read that was carried out."""
        if self.read:
            outcome, page = self.read.popleft()
            outcome.succeed(page)

    def fail_read(self) -> None:
        """Fail the oldest read that is asked for."""
        if self.asked:
            self.asked.popleft()[3].fail(BrokerError("cut"))

    def cut(self) -> None:
        """Lose what is under way to the node, and all that comes until `restore`."""
        self.is_cut = True
        self.deliveries.clear()

    def swallow(self) -> None:
        """Lose the oldest delivery without anybody noticing."""
        if self.deliveries:
            self.deliveries.popleft()

    def restore(self) -> None:
        """Be back, and say so."""
        if self.is_cut and self._real is not None:
            self.is_cut = False
            self._real.resume(sorted(self._channels), interrupted_s=1.0)

    def flush_data(self) -> None:
        """Forget all streams."""
        self._streams.clear()
        self._expiries.clear()

    def lose_data(self) -> None:
        """Forget all streams, as a server that restarts empty does: its links break, too."""
        self.cut()
        self.flush_data()

    def top(self, channel: str) -> StreamPosition:
        """Return where the stream of *channel* is, for an oracle."""
        return super().history(channel, HistoryRange(), meta_ttl_s=3600.0).result().position

    def settle(self) -> None:
        """Move everything on until nothing is under way."""
        while self.deliveries or self.asked or self.read:
            self.deliver()
            self.carry_out()
            self.answer()

    # The broker.

    def history(self, channel: str, wanted: HistoryRange, *, meta_ttl_s: float) -> Outcome[StreamPage]:
        outcome: Outcome[StreamPage] = Outcome()
        self.asked.append((channel, wanted, meta_ttl_s, outcome))
        return outcome

    async def stop(self) -> None:
        while self.asked:
            self.fail_read()
        while self.read:
            self.answer()
        await super().stop()
