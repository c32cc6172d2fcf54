"""Redis engines for tests, run in this event loop."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from msgspec import Raw

from gateway.broker.redis.engine import RedisEngine
from gateway.broker.redis.settings import RedisSettings
from gateway.protocol.messages import Join, Leave, Publication
from tests.support.waiting import until

# Links that fail fast and come back fast: what production waits seconds for takes tenths here.
QUICK: dict[str, Any] = {
    "watchdog_interval_s": 0.4,
    "timeout_s": 1.0,
    "connect_timeout_s": 0.5,
    "reconnect_min_delay_s": 0.005,
    "reconnect_max_delay_s": 0.05,
    "unsubscribe_grace_s": 0.05,
}


class Received:
    """A receiver that remembers."""

    def __init__(self) -> None:
        self.publications: list[tuple[str, bytes]] = []
        self.offsets: list[tuple[str, int]] = []
        self.epochs: list[str] = []
        self.events: list[tuple[str, Join | Leave]] = []
        self.resumed: list[str] = []
        self.interrupted_s: list[float] = []

    def receive(self, channel: str, publication: Publication, epoch: str, accepted_at_s: float | None) -> None:
        del accepted_at_s
        self.publications.append((channel, bytes(publication.data)))
        self.offsets.append((channel, publication.offset))
        self.epochs.append(epoch)

    def receive_event(self, channel: str, event: Join | Leave) -> None:
        self.events.append((channel, event))

    def resume(self, channels: Sequence[str], *, interrupted_s: float) -> None:
        self.resumed += channels
        self.interrupted_s.append(interrupted_s)


class Reports:
    """Remembers what an engine reports."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, Any]]] = []

    def __call__(self, event: str, **fields: Any) -> None:
        self.lines.append((event, fields))

    def of(self, event: str) -> list[dict[str, Any]]:
        """Return the fields of all reports of *event*."""
        return [fields for each, fields in self.lines if each == event]


def publication(data: bytes) -> Publication:
    """Return a publication of *data* alone."""
    return Publication(data=Raw(data))


@asynccontextmanager
async def running_engine(
    settings: RedisSettings, *, is_awaited: bool = True, **options: Any
) -> AsyncIterator[RedisEngine]:
    """Run an engine until the block ends; it is entered when all links are up, unless told otherwise.

    A task that it leaves behind fails the test.
    """
    before = asyncio.all_tasks()
    engine = RedisEngine(settings, **{"node_id": "node", **options})
    running = asyncio.create_task(engine.run(), name="engine")
    try:
        if is_awaited:
            await until(lambda: engine.trouble is None or running.done(), f"the engine is up: {engine.trouble}")
            if running.done():
                running.result()
        yield engine
    finally:
        await engine.stop()
        await running
    left = [task for task in asyncio.all_tasks() - before if task.get_name().startswith("redis")]
    assert not left, f"left behind: {left}"
