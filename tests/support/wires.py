"""How an exchange that is written in JSON travels: in which encoding, over which transport."""

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Final, Protocol

import httpx
import pytest
from centrifuge.protocol import client_pb2
from msgspec import UNSET
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.frames import Close, CloseCode
from websockets.typing import Subprotocol

from gateway.protocol.client_codec import ReceivedPush, ServerMessage
from gateway.protocol.client_protobuf_codec import ClientProtobufCodec
from gateway.protocol.codec import MalformedFrameError
from gateway.protocol.json_codec import JSONCodec
from gateway.protocol.messages import Push, Reply
from tests.support.nodes import RunningNode

DEADLINE_S: Final = 15.0
_OFFICIAL: Any = client_pb2  # its classes are made at run time
_JSON, _PROTOBUF = JSONCodec(), ClientProtobufCodec()
_RESULTS = (
    *("connect", "subscribe", "unsubscribe", "publish", "presence", "presence_stats", "history", "rpc"),
    *("refresh", "sub_refresh", "error"),
)
_UUID: Final = "[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
_ADDRESS: Final = re.compile(f',"session":"({_UUID})","node":"({_UUID})"')
_CONNECTED: Final = re.compile(r'\{"id":\d+,"connect":')
_DISCONNECTED: Final = re.compile(r'\{"push":\{"disconnect":\{"code":(\d+),"reason":"([^"]*)"\}\}\}')


class Encoding(Protocol):
    """What lines of a script are written in."""

    is_binary: bool

    def can_carry(self, commands: Sequence[str]) -> bool:
        """Tell whether these lines can be said at all."""

    def frame(self, commands: Sequence[str]) -> bytes:
        """Put lines into one frame."""

    def lines(self, frame: bytes) -> list[str]:
        """Return what a frame says, as JSON has it."""

    def take(self, received: bytearray) -> list[str]:
        """Take the whole messages that begin a stream out of it."""


class InJSON:
    """As they are written."""

    is_binary = False

    def can_carry(self, commands: Sequence[str]) -> bool:
        """Tell that all can be said, nonsense too."""
        del commands
        return True

    def frame(self, commands: Sequence[str]) -> bytes:
        """Put them behind each other."""
        return "\n".join(commands).encode()

    def lines(self, frame: bytes) -> list[str]:
        """Cut a frame into its lines."""
        return frame.decode().split("\n")

    def take(self, received: bytearray) -> list[str]:
        """Take lines, each of which has an end on a stream."""
        *lines, rest = bytes(received).split(b"\n")
        received[:] = rest
        return [line.decode() for line in lines]


class InProtobuf:
    """Commands are read as the server reads JSON, and what comes is written as it writes JSON; between is Protobuf."""

    is_binary = True

    def can_carry(self, commands: Sequence[str]) -> bool:
        """Tell whether they are commands: what is no JSON on purpose can't be said in Protobuf."""
        try:
            return bool(_JSON.decode("\n".join(commands).encode()))
        except MalformedFrameError:
            return False

    def frame(self, commands: Sequence[str]) -> bytes:
        """Encode them."""
        return _PROTOBUF.join([_PROTOBUF.encode(each) for each in _JSON.decode("\n".join(commands).encode())])

    def lines(self, frame: bytes) -> list[str]:
        """Decode a frame."""
        return [_in_json(message).decode() for message in _PROTOBUF.decode(frame)]

    def take(self, received: bytearray) -> list[str]:
        """Take messages, each of which has its length before it."""
        end = position = 0
        while position < len(received):
            size = shift = 0
            while position < len(received):
                byte, position = received[position], position + 1
                size, shift = size | (byte & 127) << shift, shift + 7
                if byte < 128:
                    break
            else:
                break
            position += size
            if position > len(received):
                break
            end = position
        whole = bytes(received[:end])
        del received[:end]
        return self.lines(whole) if whole else []


def _in_json(message: ServerMessage) -> bytes:
    if message.push is not None:
        return _push_in_json(message.push)
    results = {name: value for name in _RESULTS if (value := getattr(message, name)) is not None}
    return _JSON.reply(Reply(message.id, **results)) if results else _JSON.ping


def _push_in_json(push: ReceivedPush) -> bytes:
    if push.pub is not None:
        return _JSON.publication(push.channel, push.pub)
    kinds = ("join", "leave", "subscribe", "unsubscribe", "disconnect", "refresh")
    said = Push(channel=push.channel)
    for kind in kinds:
        body = getattr(push, kind)
        setattr(said, kind, UNSET if body is None else body)
    return _JSON.push(said)


class EndedError(Exception):
    """The server has ended the connection, with this code and reason."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code} {reason}")
        self.code = code
        self.reason = reason


class Talker(Protocol):
    """A client of a script."""

    async def send(self, commands: Sequence[str]) -> None:
        """Say these in one go."""

    async def receive(self) -> list[str]:
        """Return the lines that come next.

        Raises:
            EndedError: if nothing does.
        """


class Wire(Protocol):
    """A transport in an encoding."""

    encoding: Encoding

    def open(self, node: RunningNode) -> AbstractAsyncContextManager[Talker]:
        """Connect to *node*."""


# WebSocket.


class WebSocketWire:
    """Frames of a WebSocket."""

    def __init__(self, encoding: Encoding) -> None:
        self.encoding = encoding
        self._subprotocols = [Subprotocol("centrifuge-protobuf")] if encoding.is_binary else None

    @asynccontextmanager
    async def open(self, node: RunningNode) -> AsyncIterator[Talker]:
        """Connect to *node*."""
        async with connect(
            node.client_url,
            subprotocols=self._subprotocols,
            compression=None,
            ping_interval=None,
            open_timeout=DEADLINE_S,
        ) as socket:
            yield _WebSocketTalker(socket, self.encoding)


class _WebSocketTalker:
    def __init__(self, socket: ClientConnection, encoding: Encoding) -> None:
        self._socket = socket
        self._encoding = encoding

    async def send(self, commands: Sequence[str]) -> None:
        await self._socket.send(self._encoding.frame(commands), text=not self._encoding.is_binary)

    async def receive(self) -> list[str]:
        try:
            async with asyncio.timeout(DEADLINE_S):
                frame = await self._socket.recv()
        except ConnectionClosed as closed:
            told = closed.rcvd or Close(CloseCode.ABNORMAL_CLOSURE, "cut without a Close frame")
            raise EndedError(told.code, told.reason) from None
        assert isinstance(frame, bytes) is self._encoding.is_binary, "JSON travels in text frames, Protobuf in binary"
        return self._encoding.lines(frame if isinstance(frame, bytes) else frame.encode())


# Streams.


class InEvents(InJSON):
    """JSON in server-sent events."""

    def take(self, received: bytearray) -> list[str]:
        """Take events, of which each has one line of data; before the first is an empty line."""
        if received.startswith(b"\r\n"):
            del received[:2]
        *events, rest = bytes(received).split(b"\n\n")
        received[:] = rest
        assert all(event.startswith(b"data: ") and b"\n" not in event for event in events), events
        return [event.removeprefix(b"data: ").decode() for event in events]


class StreamWire:
    """A stream from the server, which begins with what the client says first; the rest of that goes to `/emulation`."""

    def __init__(self, encoding: Encoding, path: str, *, method: str = "POST") -> None:
        self.encoding = encoding
        self._path = path
        self._method = method

    @asynccontextmanager
    async def open(self, node: RunningNode) -> AsyncIterator[Talker]:
        """Prepare to connect to *node*, which is done by what is sent first."""
        async with httpx.AsyncClient(base_url=node.url, timeout=DEADLINE_S) as http:
            talker = StreamTalker(http, self.encoding, self._path, self._method)
            try:
                yield talker
            finally:
                await talker.close()


class StreamTalker:
    """Speaks over a stream and beside it; *emulate_at* is the node that commands go to, unless it is the same."""

    def __init__(self, http: httpx.AsyncClient, encoding: Encoding, path: str, method: str) -> None:
        self.session = self.node = ""
        """What the connect reply says, once it is there."""
        self.emulate_at = ""
        self._http = http
        self._encoding = encoding
        self._path = path
        self._method = method
        self._response: httpx.Response | None = None
        self._parts: AsyncIterator[bytes] | None = None
        self._received = bytearray()
        self._kept: list[str] = []

    async def send(self, commands: Sequence[str]) -> None:
        """Begin the stream with *commands*, or send them beside it."""
        data = self._encoding.frame(commands)
        if self._response is None:
            await self._begin(data)
            return
        assert self.session, "without a session there is nobody to send to"
        response = await self._http.post(f"{self.emulate_at}/emulation", **self._emulated(data))
        assert (response.status_code, response.content) == (204, b"")

    async def _begin(self, data: bytes) -> None:
        headers = {"Content-Type": "application/octet-stream"} if self._encoding.is_binary else {}
        given = {"params": {"cf_connect": data.decode()}} if self._method == "GET" else {"content": data}
        request = self._http.build_request(self._method, self._path, headers=headers, **given)
        self._response = await self._http.send(request, stream=True)
        assert self._response.status_code == 200
        self._parts = self._response.aiter_bytes()

    def _emulated(self, data: bytes) -> dict[str, Any]:
        if not self._encoding.is_binary:
            return {"json": {"session": self.session, "node": self.node, "data": data.decode()}}
        request = _OFFICIAL.EmulationRequest(session=self.session, node=self.node, data=data)
        return {"content": request.SerializeToString(), "headers": {"Content-Type": "application/octet-stream"}}

    async def receive(self) -> list[str]:
        """Return the lines that come next, without what the connect reply says of session and node."""
        lines = [self._noted(line) for line in await self._next_lines()]
        ended = _DISCONNECTED.fullmatch(lines[-1])
        if ended is None:
            return lines
        if len(lines) > 1:
            self._kept = lines[-1:]
            return lines[:-1]
        with pytest.raises(StopAsyncIteration):  # the goodbye is the last that comes
            pytest.fail(f"behind the goodbye came {await self._next_part()!r}")
        assert not self._received
        raise EndedError(int(ended[1]), ended[2])

    async def _next_lines(self) -> list[str]:
        lines, self._kept = self._kept, []
        while not lines:
            self._received += await self._next_part()
            lines = self._encoding.take(self._received)
        return lines

    async def _next_part(self) -> bytes:
        assert self._parts is not None, "nothing was sent yet"
        async with asyncio.timeout(DEADLINE_S):
            return await anext(self._parts)

    def _noted(self, line: str) -> str:
        if not _CONNECTED.match(line):
            return line
        found = _ADDRESS.search(line)
        assert found is not None, f"no session and node: {line}"
        self.session, self.node = found.groups()
        return line.replace(found[0], "")

    async def close(self) -> None:
        """Go."""
        if self._response is not None:
            await self._response.aclose()
