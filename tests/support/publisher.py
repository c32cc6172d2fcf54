"""A client that publishes without waiting, and keeps the books of what became of each publication."""

import asyncio
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from tests.support.oracle import Fate, Sent
from tests.support.sdk_client import Answered, Client, Message, Push

_TICK_S: Final = 0.02
_OUTSTANDING: Final = 512
"""Publications that may wait for their answer; beyond that the publisher waits itself."""


def sent_at_s(data: str) -> float:
    """Return when a publisher's payload was sent."""
    return float(data.rpartition("@")[2])


class Publisher(Client):
    """Publishes into *channels*, *per_second* in all, many at a time and without waiting for the answers."""

    # A publish that takes long is its caller's business: no SDK drops the connection for it.
    reply_timeout_s = 30.0

    def __init__(
        self, name: str, channels: Sequence[str], addresses: Sequence[str], *, start: int = 0, per_second: float
    ) -> None:
        super().__init__(name, addresses, start=start)
        self.sent: list[Sent] = []
        self.is_paused = False
        """Whether it only publishes when told to."""
        self._channels = channels
        self._per_second = per_second
        self._marked_at_s = 0.0
        self._marked = 0
        self._numbers = itertools.count(1)

    async def run(self) -> None:
        """Be connected, and publish all the while."""
        async with asyncio.TaskGroup() as tasks:
            publishing = tasks.create_task(self._publish_steadily(), name=f"{self.name} publishes")
            await super().run()
            publishing.cancel()

    def publish(self, channels: Iterable[str]) -> list[Sent]:
        """Publish once into each of *channels*, all in one frame; raises `ConnectionError` when not connected."""
        now_s, batch = self._loop.time(), []
        commands: list[tuple[dict[str, Any], Answered]] = []
        for channel in channels:
            number = next(self._numbers)
            data = f"{self.name}/{number}@{now_s:.4f}"
            sent = Sent(channel, data, f"{self.name}.{self.connections}", number, now_s)
            batch.append(sent)
            commands.append(({"publish": {"channel": channel, "data": data}}, self._settling(sent)))
        self._send(commands)
        self.sent += batch
        return batch

    def mark(self, at_s: float) -> None:
        """Take the time until something that is sent after *at_s* is acknowledged."""
        self._marked_at_s = at_s
        self._marked = len(self.sent)

    def resumed_after_s(self) -> float | None:
        """Return how long after the mark the first acknowledgement came; `None`: not yet."""
        later = itertools.islice(self.sent, self._marked, None)
        settled = (each.settled_at_s for each in later if each.fate is Fate.ACKNOWLEDGED)
        return next((at_s - self._marked_at_s for at_s in settled), None)

    @property
    def is_going(self) -> bool:
        """Whether what was marked has come."""
        return self.resumed_after_s() is not None

    @property
    def refused(self) -> int:
        """How many of what was sent since the mark were refused."""
        return sum(each.fate is Fate.REFUSED for each in itertools.islice(self.sent, self._marked, None))

    @property
    def is_settled(self) -> bool:
        """Whether it knows as much of every publication as it ever will."""
        return not self._asked

    async def publish_surely(self, channel: str) -> str:
        """Publish until it is acknowledged, and return the payload that was."""
        waits = self._waits()
        while True:
            if self.client_id:
                (sent,) = self.publish([channel])
                while sent.fate is Fate.SENT:  # noqa: ASYNC110 - its fate tells nobody
                    await asyncio.sleep(0.005)
                if sent.fate is Fate.ACKNOWLEDGED:
                    return sent.data
            await asyncio.sleep(next(waits))

    def _greet(self) -> Iterator[tuple[dict[str, Any], Answered]]:
        return iter(())

    def _push(self, push: Push) -> None:
        raise AssertionError(f"{self.name} subscribes to nothing and was sent {push}")

    def _gone(self, code: int) -> None:
        pass  # the publications that this leaves open learn it by themselves

    def _settling(self, sent: Sent) -> Answered:
        def settle(reply: Message | None) -> None:
            sent.settled_at_s = self._loop.time()
            if reply is None:
                sent.fate = Fate.UNKNOWN
            elif reply.error is None:
                sent.fate = Fate.ACKNOWLEDGED
            else:
                sent.fate, sent.error = Fate.REFUSED, reply.error.code

        return settle

    async def _publish_steadily(self) -> None:
        owed, channels = 0.0, itertools.cycle(self._chance.sample(self._channels, len(self._channels)))
        while True:
            await asyncio.sleep(_TICK_S)
            if self.is_paused or not self.client_id or len(self._asked) > _OUTSTANDING:
                continue
            owed += self._per_second * _TICK_S
            batch, owed = int(owed), owed % 1
            if batch:
                self.publish(itertools.islice(channels, batch))
