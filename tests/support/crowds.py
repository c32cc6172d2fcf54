"""Many clients at once, cheap enough that one test process can be thousands of them."""

import asyncio
import json
import resource
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from tests.support.frames import CLOSE, PATIENCE_S, TEXT, UPGRADE, frame
from tests.support.processes import ServingProcess, ask


def raise_descriptor_limit(needed: int) -> None:
    """Let this process have *needed* open files; fails where the system does not let it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < needed:
        assert hard >= needed, f"this needs {needed} open files, the hard limit is {hard}"
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def upgrade(path: str, headers: str = "") -> bytes:
    """Build an upgrade request."""
    return f"GET {path} HTTP/1.1\r\nHost: x\r\n{UPGRADE}{headers}\r\n".encode()


def text(*messages: Any) -> bytes:
    """Build one text frame for each of *messages*."""
    return b"".join(frame(TEXT, json.dumps(message).encode()) for message in messages)


class Member(asyncio.Protocol):
    """One client of a crowd: sends *opening*, and once it is upgraded *first*; notes what comes, answers Close."""

    def __init__(self, opening: bytes = b"", first: bytes = b"") -> None:
        self.status: int | None = None
        self.head = b""
        self.closing: tuple[int, str] | None = None
        self.payloads: list[bytes] = []
        self.leftover = bytearray()
        """What came and is no whole frame (no whole head before the upgrade)."""
        self.error: Exception | None = None
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.data_bytes = 0
        """Bytes of data frames, headers included."""
        self.transport: Any = None
        self.heard: Callable[[Member], None] | None = None
        self._opening = opening
        self._first = first

    @property
    def lines(self) -> list[Any]:
        """What came, as values."""
        return [json.loads(line) for payload in self.payloads for line in payload.split(b"\n")]

    def send(self, data: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(data)

    def abort(self) -> None:
        self.transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        if self._opening:
            self.transport.write(self._opening)

    def data_received(self, data: bytes) -> None:
        self.leftover += data
        if self.status is None:
            head, found, rest = bytes(self.leftover).partition(b"\r\n\r\n")
            if not found:
                return
            self.head, self.status, self.leftover = head, int(head[9:12]), bytearray(rest)
            if self.status == 101:
                self.send(self._first)
        if self.status == 101:
            self._take_frames()
        if self.heard is not None:
            self.heard(self)

    def _take_frames(self) -> None:
        data, position = self.leftover, 0
        while len(data) - position >= 2:
            first, short = data[position], data[position + 1]
            width = {126: 2, 127: 8}.get(short, 0)
            start = position + 2 + width
            size = int.from_bytes(data[position + 2 : start], "big") if width else short
            if len(data) < start + size:
                break
            payload = bytes(data[start : start + size])
            if first == 0x80 | CLOSE:
                self.closing = int.from_bytes(payload[:2], "big"), payload[2:].decode()
                self.send(frame(CLOSE, payload[:2]))
            else:
                self.payloads.append(payload)
                self.data_bytes += start + size - position
            position = start + size
        del data[:position]

    def connection_lost(self, exc: Exception | None) -> None:
        self.error = exc
        if not self.gone.done():
            self.gone.set_result(None)


async def gather_crowd(
    process: ServingProcess, openings: Iterable[tuple[bytes, bytes]], *, at_once: int = 100
) -> list[Member]:
    """Connect one `Member` for each (opening, first), *at_once* at a time."""
    host, port = process.address.rsplit(":", 1)
    loop = asyncio.get_running_loop()
    members: list[Member] = []
    waiting = list(openings)

    async def join(opening: bytes, first: bytes) -> Member:
        return (await loop.create_connection(lambda: Member(opening, first), host, int(port)))[1]

    for begin in range(0, len(waiting), at_once):
        members += await asyncio.gather(*(join(*each) for each in waiting[begin : begin + at_once]))
    return members


async def all_gone(members: Sequence[Member], *, patience_s: float = 30) -> None:
    """Wait until every one of *members* is disconnected."""
    _, open_ones = await asyncio.wait([each.gone for each in members], timeout=patience_s)
    assert not open_ones, f"{len(open_ones)} of {len(members)} are still connected after {patience_s} s"


async def all_heard(members: Iterable[Member], condition: Callable[[Member], bool], what: str) -> None:
    """Wait until *condition* holds for every one of *members*; it is looked at when something has come."""
    missing = {each for each in members if not condition(each)}
    if not missing:
        return
    done = asyncio.Event()

    def hear(member: Member) -> None:
        if condition(member):
            missing.discard(member)
            member.heard = None
            if not missing:
                done.set()

    for each in missing:
        each.heard = hear
    try:
        async with asyncio.timeout(3 * PATIENCE_S):
            await done.wait()
    except TimeoutError:
        one = next(iter(missing))
        raise AssertionError(f"{len(missing)} never had {what}; one: {one.payloads[-3:]}, {one.closing}") from None


async def metrics(process: ServingProcess) -> dict[str, float]:
    """Return the metrics of a node as `name{labels}` to value."""
    answer = await ask(f"{process.internal_url}/metrics")
    lines = [line.rpartition(" ") for line in answer.text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}


def errors_of(process: ServingProcess) -> list[str]:
    """Return what *process* has logged beyond the information level, and what is no log line at all."""
    return [line for line in process.lines if '"level":"info"' not in line and '"level":"debug"' not in line]
