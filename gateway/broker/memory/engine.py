"""The embedded engine as a whole."""

import asyncio
import time
from collections.abc import Callable, Mapping

from gateway.broker.memory.broker import MemoryBroker, random_epoch
from gateway.broker.memory.control import MemoryBus, MemoryControl
from gateway.broker.memory.presence import MemoryPresence


class MemoryEngine:
    """What one node runs on when it is alone.

    Nodes on the same *bus* hear each other's control messages; publications and presence stay on their node.
    """

    def __init__(
        self,
        bus: MemoryBus,
        *,
        node_id: str,
        monotonic: Callable[[], float] = time.monotonic,
        new_epoch: Callable[[], str] = random_epoch,
    ) -> None:
        self.broker = MemoryBroker(monotonic=monotonic, new_epoch=new_epoch)
        self.presence = MemoryPresence(self.broker, monotonic=monotonic)
        self.control = MemoryControl(bus, node_id)
        self.trouble: str | None = None
        self.turns: Mapping[str, int] = {}
        self.slowest_turn_s = 0.0
        self._stopped = asyncio.Event()

    async def run(self) -> None:
        """Wait for `stop`: there is no link to hold up."""
        await self._stopped.wait()

    async def stop(self) -> None:
        """Release everything. Idempotent."""
        self._stopped.set()
        self.control.stop()
        self.presence.stop()
        await self.broker.stop()
