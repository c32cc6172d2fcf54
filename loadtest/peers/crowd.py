"""The load side, the same for every peer: subscribers that count and check, and a publisher with a window.

It must not be the bottleneck, so a delivery costs it as little as Python allows: all subscribers get the same bytes, so
what a chunk holds is found once and remembered for the next one that gets it; latencies are appended to an array and
looked at when all is over. What it costs is measured nevertheless, and told beside the servers' figures.
"""

import asyncio
import contextlib
import time
from array import array
from collections.abc import Sequence
from typing import Final, NamedTuple

from loadtest.peers.connections import Connection, ConnectionFailedError
from loadtest.peers.dialects import MARK, Dialect, numbers, payload
from loadtest.peers.frames import BINARY, TEXT, Frame
from loadtest.peers.reception import Faults, Reception, total
from loadtest.peers.window import Window

_CONNECT_TIMEOUT_S: Final = 60
_AT_ONCE: Final = 50
"""Connections under way at a time; no listener's backlog is shorter."""
_STALL_S: Final = 30
"""Nothing delivered for so long: the rest is lost."""
_STRAGGLERS_S: Final = 0.2
"""Time for what comes twice to come the second time."""
_WARM_UPS: Final = 20
_WARM_UP_PAUSE_S: Final = 0.05
_WARM_UP_NUMBER: Final = 0


class CrowdError(Exception):
    """Why the load could not be put on, in one sentence."""


class Outcome(NamedTuple):
    """What one run came to."""

    deliveries: int
    faults: Faults
    latencies_ns: Sequence[int]
    """From the send to the arrival, of each delivery, in no order."""
    elapsed_s: float
    cpu_s: float
    """What the load side itself took."""


class _Chunk(NamedTuple):
    """Bytes that came in one read and hold whole publications and nothing else."""

    data: bytes
    numbers: list[int]
    is_run: bool
    """Whether the numbers count up by one."""


class _Subscriber(Connection):
    """A connection that counts and checks what it receives."""

    def __init__(self, address: tuple[str, int], dialect: Dialect, crowd: "Crowd") -> None:
        super().__init__(address, dialect.subscriber_path, dialect.subscriber_greeting, dialect)
        self.reception = Reception()
        self.is_warm = False
        self._crowd = crowd
        self._found: list[int] = []
        self._is_all_found = True

    def data_received(self, data: bytes) -> None:
        crowd = self._crowd
        chunk = crowd.last_chunk
        if self._rest or data != chunk.data:
            chunk = self._look_into(data)
            if not chunk.numbers:
                return
        if chunk.is_run and chunk.numbers[0] == self.reception.expected:
            self.reception.expected += len(chunk.numbers)
        else:
            self.reception.take(chunk.numbers)
        crowd.note(chunk.numbers)

    def _look_into(self, data: bytes) -> _Chunk:
        is_begun = not self._rest and self._is_upgraded
        self._found, self._is_all_found = [], True
        super().data_received(data)
        found = self._found
        chunk = _Chunk(data, found, bool(found) and found == list(range(found[0], found[0] + len(found))))
        if found and is_begun and self._is_all_found and not self._rest:
            self._crowd.last_chunk = chunk
        return chunk

    def _take(self, frame: Frame) -> None:
        if frame.opcode in (TEXT, BINARY) and MARK in frame.payload:
            self.is_warm = True
            self._crowd.heard += 1
            self._found += filter(None, numbers(frame.payload))
        else:
            self._is_all_found = False
        super()._take(frame)


class Crowd:
    """Subscribers and a publisher, all connected to one server."""

    def __init__(self, address: tuple[str, int], dialect: Dialect, *, payload_bytes: int) -> None:
        self.last_chunk = _Chunk(b"", [], is_run=False)
        """What one subscriber found, for the next that receives the same."""
        self.heard = 0
        """Counts on with whatever arrives, warm-ups too: as long as it does, nothing has stalled."""
        self._address = address
        self._dialect = dialect
        self._payload_bytes = payload_bytes
        self._subscribers: list[_Subscriber] = []
        self._publisher = Connection(address, dialect.publisher_path, dialect.publisher_greeting, dialect)
        self._last_number = _WARM_UP_NUMBER
        self._sent_ns: dict[int, int] = {}
        self._latencies_ns = array("q")
        self._window = Window(messages=0, in_flight=1, subscribers=1)
        self._finished = asyncio.Event()

    async def connect(self, count: int) -> None:
        """Connect *count* subscribers and the publisher.

        Raises:
            CrowdError: if the server does not take one of them.
        """
        self._subscribers = [_Subscriber(self._address, self._dialect, self) for _ in range(count)]
        places = asyncio.Semaphore(_AT_ONCE)
        loop = asyncio.get_running_loop()

        async def open_one(connection: Connection) -> None:
            async with places:
                await loop.create_connection(lambda: connection, *self._address)
                await connection.opened

        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT_S), asyncio.TaskGroup() as tasks:
                for connection in (*self._subscribers, self._publisher):
                    tasks.create_task(open_one(connection), name="opening")
        except* (OSError, ConnectionFailedError) as group:
            raise CrowdError(f"a connection failed: {group.exceptions[0]}") from None
        except* TimeoutError:
            raise CrowdError(f"{count} connections took longer than {_CONNECT_TIMEOUT_S} s") from None

    async def warm_up(self) -> None:
        """Publish until every subscriber hears it, and a little more; compilers and buffers are then what they will be.

        Raises:
            CrowdError: if some never hear anything.
        """
        pause_s = _WARM_UP_PAUSE_S
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                while not all(each.is_warm for each in self._subscribers):
                    self._publish(_WARM_UP_NUMBER)
                    await asyncio.sleep(pause_s)
                    pause_s *= 2  # what a slow server has not served yet must not pile up before the first run
        except TimeoutError:
            deaf = sum(not each.is_warm for each in self._subscribers)
            raise CrowdError(f"{deaf} of {len(self._subscribers)} subscribers hear nothing") from None
        await asyncio.sleep(_STRAGGLERS_S)
        outcome = await self.run(_WARM_UPS, in_flight=1)
        if outcome.faults.lost:
            raise CrowdError(f"{outcome.faults.lost} deliveries of the warm-up did not come within {_STALL_S} s")

    async def run(self, messages: int, *, in_flight: int) -> Outcome:
        """Publish *messages*, *in_flight* at a time, and return what came of it once no more arrive.

        After a run that lost something there is no other: what comes late would be taken for the next one's.

        Raises:
            CrowdError: if the server closed a connection.
        """
        first = self._last_number + 1
        for each in self._subscribers:
            each.reception = Reception(first=first)
        self._sent_ns.clear()
        self._latencies_ns = array("q")
        self._window = window = Window(messages=messages, in_flight=in_flight, subscribers=len(self._subscribers))
        self._finished.clear()
        cpu_s, started_s = time.process_time(), time.perf_counter()
        self._advance()
        await self._until_finished()
        elapsed_s, cpu_s = time.perf_counter() - started_s, time.process_time() - cpu_s
        await asyncio.sleep(_STRAGGLERS_S)
        if closed := [each.closed for each in (*self._subscribers, self._publisher) if each.closed is not None]:
            raise CrowdError(f"{len(closed)} connections ended while it ran; of the first, {closed[0]}")
        faults = total(each.reception.faults(self._last_number) for each in self._subscribers)
        return Outcome(window.deliveries, faults, self._latencies_ns, elapsed_s, cpu_s)

    def close(self) -> None:
        """Close all connections."""
        for connection in (*self._subscribers, self._publisher):
            connection.abort()

    def note(self, found: list[int]) -> None:
        """Count the publications *found* by one subscriber."""
        self.heard += 1
        now_ns = time.perf_counter_ns()
        for number in found:
            # What comes of an earlier run counts as a fault of its subscriber, and has no place here.
            if (sent_ns := self._sent_ns.get(number)) is not None:
                self._latencies_ns.append(now_ns - sent_ns)
        window = self._window
        window.deliveries += len(found)
        if window.deliveries >= window.next_due:
            self._advance()

    def _advance(self) -> None:
        for _ in range(self._window.advance()):
            self._last_number += 1
            self._publish(self._last_number)
        if self._window.is_complete:
            self._finished.set()

    def _publish(self, number: int) -> None:
        message = self._dialect.publication(payload(number, size=self._payload_bytes))
        self._sent_ns[number] = time.perf_counter_ns()
        self._publisher.send(message)

    async def _until_finished(self) -> None:
        """Wait for the end of a run, which is there, too, when nothing is delivered any more."""
        seen = -1
        while seen < (seen := self.heard):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_STALL_S):
                    await self._finished.wait()
                return
