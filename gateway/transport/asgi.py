"""A client's WebSocket as an ASGI server hands it over: payloads instead of frames, `receive` and `send` for a socket.

The server keeps the handshake, the frames, compression and pings (ASGI has no message for any of them), and this side
what it promises its clients: who may connect, the longest message, a bounded outbox, the protocol's closing codes.

    connecting ──accept──▶ open ──close() or a fault of the peer's──▶ ending ──outbox and close are sent──▶ over
                             └────────────────the server says that the peer has gone───────────────────────┘
"""

import asyncio
import contextlib
import struct
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from typing import Any, Final
from urllib.parse import quote

from websockets.datastructures import Headers
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from gateway.domain.counts import Lost
from gateway.protocol.codes import Disconnect
from gateway.protocol.framing import TEXT, Framing
from gateway.transport.acceptor import Gate, Variants
from gateway.transport.admin import AdminGate
from gateway.transport.core import MESSAGE_TOO_BIG
from gateway.transport.ports import ClosedBy, Peer

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_HEADER: Final = struct.Struct(">BI")
_INVALID_DATA: Final = 1007
_NO_CODE: Final = 1005
_ABNORMAL: Final = 1006
_POLICY_VIOLATION: Final = 1008
_RESPONSE_EXTENSION: Final = "websocket.http.response"
_SERVERS_OWN_HEADERS: Final = ("connection", "content-length", "date")


class PayloadFraming:
    """Payloads behind their kind and their length, so that those of a batch can be told apart again."""

    def __init__(self, opcode: int = TEXT) -> None:
        self._opcode = opcode

    def frame(self, payload: bytes) -> bytes:
        """Put kind and length before *payload*."""
        return _HEADER.pack(self._opcode, len(payload)) + payload


def payloads(frames: bytes) -> Iterator[str | bytes]:
    """Take apart what `PayloadFraming` has made, joined or not: text as text, each payload copied once."""
    view, position = memoryview(frames), 0
    while position < len(frames):
        opcode, length = _HEADER.unpack_from(frames, position)
        position += _HEADER.size
        payload = view[position : position + length]
        yield str(payload, "utf-8") if opcode == TEXT else bytes(payload)
        position += length


class PayloadVariants(Variants):
    """Variants whose bytes are payloads; all ASGI connections of a node share them."""

    def _framing(self, opcode: int, window_bits: int | None) -> Framing:
        del window_bits  # there is none: the server compresses, or not
        return PayloadFraming(opcode)


class ASGIWebSocket:
    """One client's WebSocket on an ASGI server. It implements the Transport port.

    Build it for a scope of type `websocket` and `run` it. What waits for a slow reader is bounded here by the gate's
    `queue_max_bytes`; what the server buffers on top (uvicorn: 64 KiB) is the server's to bound.
    """

    compression_window_bits: int | None = None

    def __init__(self, gate: Gate | AdminGate, scope: Scope, receive: Receive, send: Send) -> None:
        self._gate = gate
        self._scope = scope
        self._receive = receive
        self._send = send
        self._peer: Peer | None = None
        self._outbox: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._closing: Disconnect | None = None
        self._is_wanted = asyncio.Event()  # by the writer: there is something to write
        self._may_read = asyncio.Event()
        self._may_read.set()
        self._patience = asyncio.timeout(None)
        """How long the writer has got; for ever until the end is near."""

    @property
    def peer_address(self) -> str:
        """Where the client comes from, as the server tells: behind a proxy it is the server that has to trust it."""
        client = self._scope.get("client")
        return str(client[0]) if client else ""

    # The server's side.

    async def run(self) -> None:
        """Answer the handshake and serve the client until it has gone or was sent away."""
        self._gate.opened()
        try:
            if await self._is_let_in():
                await self._serve()
        finally:
            lost = None
            if self._waiting_bytes:
                lost = Lost.TIMEOUT if self._closing is not None else Lost.NETWORK
            self._gate.gone(self, lost)

    async def _is_let_in(self) -> bool:
        message = await self._receive()
        if message["type"] != "websocket.connect":
            return False  # it has gone already
        response = self._gate.refuse(_request_of(self._scope), self.peer_address)
        offered = [Subprotocol(each) for each in self._scope.get("subprotocols", ())]
        try:
            if response is not None:
                await self._refuse(response)
            else:
                chosen = self._gate.negotiator.select_subprotocol(offered)
                await self._send({"type": "websocket.accept", "subprotocol": chosen, "headers": []})
        except OSError:
            return False
        return response is None

    async def _refuse(self, response: Response) -> None:
        """Answer with *response* where the server can do that; elsewhere a refusal is always a 403."""
        if _RESPONSE_EXTENSION not in (self._scope.get("extensions") or {}):
            await self._send({"type": "websocket.close", "code": _POLICY_VIOLATION, "reason": ""})
            return
        headers = [
            (name.lower().encode("latin-1"), value.encode("latin-1"))
            for name, value in response.headers.raw_items()
            if name.lower() not in _SERVERS_OWN_HEADERS
        ]
        start = {"type": f"{_RESPONSE_EXTENSION}.start", "status": response.status_code, "headers": headers}
        await self._send(start)
        await self._send({"type": f"{_RESPONSE_EXTENSION}.body", "body": response.body or b"", "more_body": False})

    async def _serve(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            with contextlib.suppress(TimeoutError):
                async with self._patience:
                    self._peer = self._gate.accept(_request_of(self._scope), self)
                    reading = tasks.create_task(self._read(), name="asgi websocket reader")
                    try:
                        await self._write()
                    finally:
                        reading.cancel()
                        self._tell_closed(_ABNORMAL, "", by="network")

    async def _read(self) -> None:
        while True:
            message = await self._receive()
            if message["type"] == "websocket.disconnect":
                code = message.get("code") or _NO_CODE
                # Servers say one of these two when no Close frame came.
                by: ClosedBy = "network" if code in (_NO_CODE, _ABNORMAL) else "client"
                self._tell_closed(code, message.get("reason") or "", by=by)
                self._patience.reschedule(asyncio.get_running_loop().time())
                return
            await self._may_read.wait()
            self._deliver(message)

    def _deliver(self, message: Message) -> None:
        peer, text = self._peer, message.get("text")
        if peer is None:  # this side has closed
            return
        try:
            payload = text.encode() if text is not None else bytes(message.get("bytes") or b"")
        except UnicodeEncodeError:
            self._fail(_INVALID_DATA, "invalid UTF-8")
            return
        if len(payload) > self._gate.settings.message_size_limit:
            self._fail(MESSAGE_TOO_BIG, "")  # protocol.md 1.2: too big is said with an empty reason
        else:
            peer.receive(payload, is_text=text is not None)

    async def _write(self) -> None:
        """Write what is offered until the close that follows it is written, or the server says that nobody reads."""
        outbox = self._outbox
        try:
            while True:
                while outbox:
                    for payload in payloads(outbox[0]):
                        kind = "text" if isinstance(payload, str) else "bytes"
                        await self._send({"type": "websocket.send", kind: payload})
                    self._waiting_bytes -= len(outbox.popleft())
                if self._closing is not None:
                    code, reason = self._closing.code, self._closing.reason
                    await self._send({"type": "websocket.close", "code": code, "reason": reason})
                    return
                self._is_wanted.clear()
                await self._is_wanted.wait()
        except OSError:  # what `send` raises once the client has gone (ASGI 3, spec version 2.4)
            return

    def _fail(self, code: int, reason: str) -> None:
        self._tell_closed(code, reason, by="server")
        self._end(Disconnect(code, reason))

    def _tell_closed(self, code: int, reason: str, *, by: ClosedBy) -> None:
        peer, self._peer = self._peer, None
        if peer is not None:
            peer.closed(code=code, reason=reason, by=by)

    def _end(self, disconnect: Disconnect) -> None:
        if self._closing is None:
            self._closing = disconnect
            self._is_wanted.set()
            self._may_read.set()
            loop = asyncio.get_running_loop()
            self._patience.reschedule(loop.time() + self._gate.settings.close_timeout_s)

    # The Transport port.

    def offer(self, data: bytes) -> bool:
        """Queue *data*, unless more than the queue may hold waits already; an empty queue takes any one message."""
        if self._waiting_bytes and self._waiting_bytes + len(data) > self._gate.queue_max_bytes:
            return False
        if self._closing is None:
            self._outbox.append(data)
            self._waiting_bytes += len(data)
            self._is_wanted.set()
        return True

    def dismiss(self, disconnect: Disconnect) -> None:
        """End the connection through its peer, which has more to take apart than a socket."""
        if self._peer is not None:
            self._peer.disconnect(disconnect)

    @property
    def is_congested(self) -> bool:
        """Whether something waits here."""
        return bool(self._waiting_bytes)

    @property
    def waiting(self) -> int:
        """What waits, beyond what the server has taken."""
        return self._waiting_bytes

    @property
    def room(self) -> int:
        """What the queue takes now, though an empty one takes any one message."""
        return self._gate.queue_max_bytes - self._waiting_bytes

    def tell_gap(self, channel: str) -> None:
        """Have the peer told that publications of *channel* are lost."""
        if self._peer is not None:
            self._peer.tell_gap(channel)

    def ping(self) -> None:
        """Take the server's word that the client is there.

        ASGI can't send a Ping frame. The servers do, by themselves (uvicorn every 20 s), and end a connection whose
        client does not answer; so each ping counts as answered here.
        """
        if self._peer is not None:
            self._peer.frame_pong()

    def close(self, disconnect: Disconnect, last: bytes = b"") -> None:
        """Close behind what was offered; what is not written within the close time-out is thrown away."""
        self._peer = None
        if last:
            self._outbox.append(last)
            self._waiting_bytes += len(last)
        self._end(disconnect)

    def pause_reading(self) -> None:
        """Let the peer's data wait in the server, which bounds it."""
        self._may_read.clear()

    def resume_reading(self) -> None:
        """Read on."""
        self._may_read.set()


def path_within(scope: Scope) -> str:
    """Return the path of a request below the place at which the application is mounted.

    ASGI lets `path` begin with `root_path`, and servers and frameworks differ in whether it does.
    """
    path, root = str(scope["path"]), str(scope.get("root_path", "")).rstrip("/")
    return path[len(root) :] if root and f"{path}/".startswith(f"{root}/") else path


def _request_of(scope: Scope) -> Request:
    """Write the request down again the way the gate reads it."""
    headers = Headers((name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"])
    # What the client offers is in a field of its own, and a server need not repeat it among the headers.
    if scope.get("subprotocols") and "Sec-WebSocket-Protocol" not in headers:
        headers["Sec-WebSocket-Protocol"] = ", ".join(scope["subprotocols"])
    target = quote(path_within(scope))
    query = scope.get("query_string", b"").decode("latin-1")
    return Request(f"{target}?{query}" if query else target, headers)
