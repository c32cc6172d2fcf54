"""Control in memory: nodes of one process that share a bus. In production there is one node on it, and it is alone."""

from collections import deque
from collections.abc import Callable

from gateway.broker.contract import BrokerError
from gateway.broker.outcome import Outcome


class MemoryBus:
    """Carries the messages of the nodes on it: all that one message goes to have it before the next one goes out.

    So a node that answers while it receives cannot make its answer overtake what it answers to.
    """

    def __init__(self) -> None:
        self._nodes: dict[str, Callable[[bytes], None]] = {}
        # Holds what is sent while a message is being handed over, and is empty again when that call returns.
        self._sent: deque[tuple[str, str | None, bytes]] = deque()
        self._is_delivering = False

    def attach(self, node_id: str, receive: Callable[[bytes], None]) -> None:
        """Hand over to *receive* what other nodes send from now on."""
        if node_id in self._nodes:
            raise AssertionError(f"two nodes are called {node_id!r}")
        self._nodes[node_id] = receive

    def detach(self, node_id: str) -> None:
        """Hand over nothing more to this node; a second time does nothing."""
        self._nodes.pop(node_id, None)

    def send(self, sender: str, message: bytes, *, to: str | None) -> None:
        """Hand *message* over to every node but *sender*, or to *to* alone."""
        self._sent.append((sender, to, message))
        if self._is_delivering:
            return
        self._is_delivering = True
        try:
            while self._sent:
                self._deliver(*self._sent.popleft())
        finally:
            self._is_delivering = False

    def _deliver(self, sender: str, to: str | None, message: bytes) -> None:
        addressed = list(self._nodes) if to is None else [to]
        for node_id in addressed:
            receive = self._nodes.get(node_id)
            if receive is not None and node_id != sender:
                receive(message)


class MemoryControl:
    """One node's place on a bus."""

    def __init__(self, bus: MemoryBus, node_id: str) -> None:
        self.node_id = node_id
        self._bus = bus
        self._is_running = False
        self._done = Outcome.of(None)

    def start(self, receive: Callable[[bytes], None]) -> None:
        """Begin to hand over what other nodes send."""
        self._bus.attach(self.node_id, receive)
        self._is_running = True

    def send(self, message: bytes, *, to: str | None = None) -> Outcome[None]:
        """Hand *message* over at once, or, out of a call that hands one over, right behind that."""
        if not self._is_running:
            return _failed()
        self._bus.send(self.node_id, message, to=to)
        return self._done

    def echo(self) -> Outcome[None]:
        """Settle at once: in memory nothing is on its way."""
        return self._done if self._is_running else _failed()

    def stop(self) -> None:
        """Leave the bus. Idempotent."""
        self._is_running = False
        self._bus.detach(self.node_id)


def _failed() -> Outcome[None]:
    failed: Outcome[None] = Outcome()
    failed.fail(BrokerError("control is not running"))
    return failed
