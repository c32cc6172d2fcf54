"""Clients that are none of `gateway.client`: one that never reads, and a backend that publishes over HTTP."""

import asyncio
import contextlib
import http
import socket
from collections.abc import Callable
from typing import Final, cast
from urllib.parse import urlsplit

import msgspec
from websockets.frames import Frame, Opcode

from gateway.client import (
    DisconnectedError,
    PublishRejectedError,
    ReplyTimeoutError,
    UnansweredError,
)
from gateway.protocol.messages import Command, ConnectRequest, SubscribeRequest
from loadtest.scenario import ClientPlan
from loadtest.stage import Presence, Stage
from loadtest.stamps import now_us
from loadtest.watching import Watch

_ANSWER_TIMEOUT_S: Final = 5.0
_RECEIVE_BYTES: Final = 4096
_TRY_AGAIN_S: Final = 1.0
_HANGS_UP_AFTER_S: Final = 10.0


class DeafSeat:
    """A client that subscribes and never reads again; what is delivered to it does not arrive, and is not checked."""

    def __init__(self, number: int, plan: ClientPlan, stage: Stage) -> None:
        self.number = number
        self.plan = plan
        self._stage = stage
        self._presence = Presence(stage, number)
        self._connection: _DeafConnection | None = None
        self._is_leaving = False

    @property
    def is_ready(self) -> bool:
        """Whether the scenario has what it wants: a server may cut who does not read."""
        return True

    async def run(self) -> None:
        """Connect, again whenever the server has had enough, or after some seconds."""
        loop = asyncio.get_running_loop()
        while not self._is_leaving:
            self._presence.begin(1)
            gone: asyncio.Future[None] = loop.create_future()
            parts = urlsplit(self._address())
            address = self._stage.local_address(self.number)
            with contextlib.suppress(OSError):
                _, self._connection = await loop.create_connection(
                    lambda gone=gone: _DeafConnection(self._opening(), self._greeting(), self._came, gone),
                    parts.hostname or "",
                    parts.port or 80,
                    local_addr=(address, 0) if address else None,
                )
                # Who does not read is not told that the server has had enough, either.
                await asyncio.wait([gone], timeout=_HANGS_UP_AFTER_S)
                self._connection.abort()
                await gone
                self._stage.tally.errors["disconnected (never read)"] += 1
            self._presence.end(now_us())
            if not self._is_leaving:
                await asyncio.sleep(_TRY_AGAIN_S)

    def leave(self) -> None:
        """Go for good."""
        self._is_leaving = True
        if self._connection is not None:
            self._connection.abort()

    def abort(self) -> None:
        """Lose the connection."""
        if self._connection is not None:
            self._connection.abort()

    def watches(self) -> list[Watch]:
        """Return none."""
        return []

    def _came(self) -> None:
        self._stage.tally.connects += 1
        self._stage.endings += 1  # from now on something is on its way that does not arrive
        self._presence.gain(now_us())

    @property
    def _is_plain(self) -> bool:
        return self._stage.job.protocol == "plain"

    def _address(self) -> str:
        return self._stage.addresses(self.number, self._stage.channel(self.plan.subscribe[0]))[0]

    def _opening(self) -> bytes:
        parts = urlsplit(self._address())
        return (
            f"GET {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        ).encode()

    def _greeting(self) -> bytes:
        token = self._stage.token(self.number)
        if self._is_plain:
            return _frame(msgspec.json.encode({"token": token})) if token else b""
        commands = [Command(id=1, connect=ConnectRequest(token=token, name="loadtest"))]
        commands += [
            Command(id=2 + index, subscribe=SubscribeRequest(self._stage.channel(name)))
            for index, name in enumerate(self.plan.subscribe)
        ]
        return _frame(b"\n".join(map(msgspec.json.encode, commands)))


class _DeafConnection(asyncio.Protocol):
    def __init__(self, opening: bytes, greeting: bytes, came: Callable[[], None], gone: asyncio.Future[None]) -> None:
        self._opening = opening
        self._greeting = greeting
        self._came = came
        self._gone = gone
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the upgrade."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are no subclasses of it
        # A kernel takes megabytes for a process that does not read; the server is to feel it sooner.
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BYTES)
        self._transport.write(self._opening)

    def data_received(self, data: bytes) -> None:
        """Subscribe at the first answer, and read no more after the second."""
        del data
        if self._transport is None:
            return
        greeting, self._greeting = self._greeting, b""
        if greeting:
            self._transport.write(greeting)
        else:
            self._transport.pause_reading()
            self._came()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the seat."""
        del exc
        if not self._gone.done():
            self._gone.set_result(None)

    def abort(self) -> None:
        """End it."""
        if self._transport is not None:
            self._transport.abort()


class APISeat:
    """A backend that publishes through the server API (protocol.md 7), one call after the other, over one connection.

    Calls over several connections would overtake one another, and nobody could tell that from a server's fault.
    """

    acknowledges = True

    def __init__(self, number: int, plan: ClientPlan, stage: Stage) -> None:
        self.number = number
        self.plan = plan
        self._stage = stage
        urls = stage.access.api_urls
        self._url = urlsplit(urls[number % len(urls)])
        self._turn = asyncio.Lock()
        self._connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._leaving = asyncio.Event()

    @property
    def is_ready(self) -> bool:
        """Always: it connects when it has something to say."""
        return True

    @property
    def awaits(self) -> int:
        """Nothing: each publication is answered."""
        return 0

    def give_up(self) -> None:
        """Do nothing."""

    async def run(self) -> None:
        """Be there until `leave`."""
        self._stage.been_ready += 1
        self._stage.changed.set()
        await self._leaving.wait()
        self.abort()

    def leave(self) -> None:
        """Go."""
        self._leaving.set()

    def abort(self) -> None:
        """Lose the connection."""
        if self._connection is not None:
            self._connection[1].close()
            self._connection = None

    def watches(self) -> list[Watch]:
        """Return none."""
        return []

    async def publish(self, channel: str, number: int, payload: bytes) -> None:
        """Publish; raises `ClientError` as `Client.publish` does."""
        del number
        body = b'{"channel":%b,"data":%b}' % (msgspec.json.encode(channel), payload)
        async with self._turn:
            try:
                reader, writer = await self._connected()
            except OSError as error:
                raise DisconnectedError(str(error), to_do="wait", channel=channel) from None
            try:
                async with asyncio.timeout(_ANSWER_TIMEOUT_S):
                    writer.write(self._head(len(body)) + body)
                    status, answer = await _read_answer(reader)
            except TimeoutError:
                self.abort()
                raise ReplyTimeoutError("no answer", to_do="see the node's log", channel=channel) from None
            except (OSError, ValueError, LookupError, asyncio.IncompleteReadError) as error:
                self.abort()
                raise UnansweredError(str(error), to_do="wait", channel=channel) from None
            except BaseException:
                self.abort()  # the answer would be taken for that of the next call
                raise
        code = status if status != http.HTTPStatus.OK else _error_code(answer)
        if code:
            raise PublishRejectedError("publish", to_do="see the node's log", channel=channel, code=code)

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._connection is None or self._connection[0].at_eof():
            self.abort()
            self._connection = await asyncio.open_connection(self._url.hostname, self._url.port or 80)
        return self._connection

    def _head(self, length: int) -> bytes:
        return (
            f"POST {self._url.path}/publish HTTP/1.1\r\nHost: {self._url.netloc}\r\n"
            f"X-API-Key: {self._stage.access.api_key}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
        ).encode()


class _Error(msgspec.Struct):
    code: int = 0


class _Answer(msgspec.Struct):
    error: _Error | None = None


def _error_code(answer: bytes) -> int:
    try:
        error = msgspec.json.decode(answer, type=_Answer).error
    except msgspec.MsgspecError:
        return -1
    return error.code if error is not None else 0


async def _read_answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Read one response that says how long it is."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    lines = head.split("\r\n")
    fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    return int(lines[0].split()[1]), await reader.readexactly(int(fields["content-length"]))


def _frame(payload: bytes) -> bytes:
    return Frame(Opcode.TEXT, payload).serialize(mask=True)
