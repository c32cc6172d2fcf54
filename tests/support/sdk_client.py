"""A client that behaves as the official SDKs do: it keeps a connection up and matches replies to commands.

Its waiting times are shorter than the SDKs' own, all else is theirs (protocol.md 3 and 4).
"""

import asyncio
import itertools
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, ClassVar, Final

import msgspec

from tests.support.crowds import Member, upgrade
from tests.support.frames import TEXT, frame
from tests.support.oracle import Publication, Unsubscribed

_REPLY_TIMEOUT_S: Final = 5.0
_CLOSED_WITHOUT_A_WORD: Final = 1006
_TOKEN_EXPIRED: Final = 109
_NO_MASK: Final = bytes(4)  # a mask all the same (RFC 6455 5.3), and one that costs this process nothing


class Info(msgspec.Struct, frozen=True, gc=False):
    """Who joined, left, or is present."""

    client: str
    user: str = ""


class Event(msgspec.Struct, frozen=True, gc=False):
    """What is in a join or leave push."""

    info: Info


class Error(msgspec.Struct, frozen=True, gc=False):
    """An error reply."""

    code: int
    temporary: bool = False

    @property
    def may_retry(self) -> bool:
        """Whether an SDK tries again (protocol.md 4.1)."""
        return self.temporary or self.code < 100 or self.code == _TOKEN_EXPIRED


class Push(msgspec.Struct, frozen=True):
    """What a node says unasked."""

    channel: str = ""
    pub: Publication | None = None
    join: Event | None = None
    leave: Event | None = None
    unsubscribe: Unsubscribed | None = None


class _Connected(msgspec.Struct, frozen=True):
    client: str
    ping: int = 0


class _SubscribeResult(msgspec.Struct, frozen=True):
    epoch: str = ""
    offset: int = 0
    recovered: bool = False
    publications: list[Publication] = []


class HistoryResult(msgspec.Struct, frozen=True):
    """A page of a stream."""

    publications: list[Publication]
    epoch: str
    offset: int


class PresenceResult(msgspec.Struct, frozen=True):
    """Who is in a channel."""

    presence: dict[str, Info]


class Message(msgspec.Struct, frozen=True):
    """What a node says: the reply to command *id*, or a push."""

    id: int = 0
    error: Error | None = None
    connect: _Connected | None = None
    subscribe: _SubscribeResult | None = None
    history: HistoryResult | None = None
    presence: PresenceResult | None = None
    push: Push | None = None


_decode = msgspec.json.Decoder(Message).decode
# A publication comes to each listener in the same bytes: decoded once, it is one object in everybody's journal.
_decode_push = lru_cache(maxsize=4096)(_decode)
_encode = msgspec.json.encode
Answered = Callable[[Message | None], None]
"""What is done with a reply; `None`: the connection was lost first."""


def in_one_frame(commands: Iterable[Mapping[str, Any]]) -> bytes:
    """Build one frame that holds *commands*."""
    return frame(TEXT, b"\n".join(_encode(command) for command in commands), mask=_NO_MASK)


_PONG: Final = in_one_frame([{}])


def delays(chance: random.Random, *, least_s: float, most_s: float) -> Iterator[float]:
    """Yield how long to wait before each further attempt: ever longer, up to *most_s*, and never alike."""
    for attempt in itertools.count():
        longest_s = min(most_s, least_s * 2 ** min(attempt, 30))
        yield chance.uniform(least_s, max(least_s, longest_s))


class Client(ABC):
    """Keeps one connection up until `run` is cancelled, to the next of *addresses* (host:port) at each attempt.

    The list may change meanwhile. *start* says which of them comes first.
    """

    reply_timeout_s: ClassVar = _REPLY_TIMEOUT_S
    """How long a reply may take before the connection counts as lost."""

    def __init__(self, name: str, addresses: Sequence[str], *, start: int = 0) -> None:
        self.name = name
        self.client_id = ""
        """The id that the node gave; empty while not connected."""
        self.given_up: int | None = None
        """The code, of a disconnect or an error, after which an SDK does not come back."""
        self.connections = 0
        self._addresses = addresses
        self._next_address = start
        self._chance = random.Random(name)
        self._member: Member | None = None
        self._ids = itertools.count(1)
        self._asked: dict[int, tuple[Answered, float]] = {}
        self._heard_at_s = 0.0
        self.max_ping_delay_s = 10.0
        """How late a ping may be before the connection counts as lost; the SDKs' `maxServerPingDelay`."""
        self._ping_s = 0.0
        self._fault: Exception | None = None
        self._loop = asyncio.get_running_loop()

    @abstractmethod
    def _greet(self) -> Iterator[tuple[dict[str, Any], Answered]]:
        """Yield what goes out in one frame with the connect command."""

    @abstractmethod
    def _push(self, push: Push) -> None:
        """Take a push."""

    @abstractmethod
    def _gone(self, code: int) -> None:
        """Take note of a connection's end."""

    async def run(self) -> None:
        """Be connected, again and again; returns when an SDK would give up, fails on what no node may say."""
        waits = self._waits()
        while self.given_up is None:
            connections = self.connections
            await self._connect_once()
            if self._fault is not None:
                raise self._fault
            if self.connections > connections:
                waits = self._waits()
            await asyncio.sleep(next(waits))

    def cut(self) -> None:
        """Lose the connection, as a bad network does."""
        if self._member is not None:
            self._member.abort()

    async def ask(self, command: dict[str, Any]) -> Message:
        """Send *command* and return the reply; raises `ConnectionError` when the connection ends first."""
        answered: asyncio.Future[Message | None] = self._loop.create_future()
        self._send([(command, lambda reply: None if answered.done() else answered.set_result(reply))])
        reply = await answered
        if reply is None:
            raise ConnectionError(f"{self.name} lost its connection while it asked")
        return reply

    def _waits(self) -> Iterator[float]:
        return delays(self._chance, least_s=0.05, most_s=1.0)

    async def _connect_once(self) -> None:
        host, port = self._addresses[self._next_address % len(self._addresses)].rsplit(":", 1)
        self._next_address += 1
        connect: tuple[dict[str, Any], Answered] = ({"connect": {"name": "swarm"}}, self._connected)
        self._heard_at_s = self._loop.time()
        member = Member(upgrade("/connection/websocket"), self._frame([connect, *self._greet()]))
        member.heard = self._hear
        try:
            async with asyncio.timeout(_REPLY_TIMEOUT_S):
                await self._loop.create_connection(lambda: member, host, int(port))
        except (OSError, TimeoutError):
            self._forget_asked()
            return
        self._member = member
        try:
            await self._stay(member)
        finally:
            self._member = None
            member.abort()
            self._end(member.closing[0] if member.closing else _CLOSED_WITHOUT_A_WORD)

    async def _stay(self, member: Member) -> None:
        """Return when the connection has ended, or when nothing comes that should have come."""
        while not member.gone.done():
            await asyncio.wait({member.gone}, timeout=1.0)
            now_s = self._loop.time()
            oldest_s = next((asked_at_s for _, asked_at_s in self._asked.values()), now_s)
            if (
                now_s - self._heard_at_s > self._ping_s + self.max_ping_delay_s
                or now_s - oldest_s > self.reply_timeout_s
            ):
                return

    def _end(self, code: int) -> None:
        self.client_id = ""
        if 3500 <= code < 4000 or 4500 <= code < 5000:
            self.given_up = code
        self._gone(code)
        self._forget_asked()

    def _forget_asked(self) -> None:
        asked, self._asked = self._asked, {}
        for answered, _ in asked.values():
            answered(None)

    def _frame(self, commands: Iterable[tuple[dict[str, Any], Answered]]) -> bytes:
        now_s, numbered = self._loop.time(), []
        for command, answered in commands:
            number = next(self._ids)
            self._asked[number] = answered, now_s
            numbered.append({"id": number, **command})
        return in_one_frame(numbered)

    def _send(self, commands: Iterable[tuple[dict[str, Any], Answered]]) -> None:
        if self._member is None or not self.client_id:
            raise ConnectionError(f"{self.name} is not connected")
        self._member.send(self._frame(commands))

    def _hear(self, member: Member) -> None:
        self._heard_at_s = self._loop.time()
        payloads, member.payloads = member.payloads, []
        try:
            for payload in payloads:
                for line in payload.split(b"\n"):
                    self._take(line, member)
        except Exception as error:  # noqa: BLE001 - asyncio would only log it; `run` raises it
            self._fault = error
            member.abort()

    def _take(self, line: bytes, member: Member) -> None:
        if line == b"{}":
            member.send(_PONG)
            return
        try:
            message = _decode_push(line) if line.startswith(b'{"push"') else _decode(line)
        except msgspec.DecodeError as error:
            raise AssertionError(f"{self.name} was sent {line!r}") from error
        if message.push is not None:
            self._push(message.push)
            return
        if message.id not in self._asked:
            raise AssertionError(f"{self.name} did not ask, or had its answer: {message}")
        answered, _ = self._asked.pop(message.id)
        answered(message)

    def _connected(self, reply: Message | None) -> None:
        if reply is None:
            return
        if reply.connect is None:
            assert reply.error is not None, f"{self.name} asked to connect and was told {reply}"
            if not reply.error.may_retry:
                self.given_up = reply.error.code
            self.cut()
            return
        self.connections += 1
        self.client_id = reply.connect.client
        self._ping_s = reply.connect.ping
