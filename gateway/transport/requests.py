"""An HTTP request of a client without a WebSocket: what its head says, its body, bounded, and the way to answer it."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, MutableMapping, Sequence
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import parse_qs

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = Sequence[tuple[bytes, bytes]]

_BINARY: Final = b"application/octet-stream"


class UnreadableError(Exception):
    """A request that does not say what it should; *status* says why, the text is one line for whoever sent it."""

    def __init__(self, status: HTTPStatus, text: str) -> None:
        super().__init__(text)
        self.status = status


class Request:
    """One request and the way to answer it."""

    __slots__ = (
        "_asked_for",
        "_size",
        "address",
        "cors",
        "is_binary",
        "is_persistent",
        "method",
        "origins",
        "receive",
        "scope",
        "send",
    )

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        self.receive = receive
        self.send = send
        self.method: str = scope["method"]
        client = scope.get("client")
        self.address = str(client[0]) if client else ""
        """Where it comes from."""
        self.origins: list[str] = []
        """The pages that made it, which should be one at most."""
        self.is_binary = False
        """Whether its body is said to be no text, and so Protobuf (protocol.md 1.5)."""
        self.is_persistent = scope.get("http_version") == "1.1"
        """Whether its connection is one of HTTP/1 that may live on."""
        self.cors: Headers = ()
        """Headers that let the page read the answer."""
        self._size = 0
        self._asked_for = b""
        self._read_headers()

    def _read_headers(self) -> None:
        for name, value in self.scope["headers"]:
            if name == b"origin":
                self.origins.append(value.decode("latin-1"))
            elif name == b"content-type":
                self.is_binary = value.partition(b";")[0].strip().lower() == _BINARY
            elif name == b"content-length":
                self._size = int(value) if value.isdigit() else 0
            elif name == b"connection" and b"close" in value.lower():
                self.is_persistent = False
            elif name == b"access-control-request-headers":
                self._asked_for = value

    def headers(self) -> Iterator[tuple[str, str]]:
        """Iterate over its headers; each byte of them is a character."""
        for name, value in self.scope["headers"]:
            yield name.decode("latin-1"), value.decode("latin-1")

    def allow_origin(self) -> None:
        """Let the page that made the request read what is answered."""
        if not self.origins:
            return
        cors = [
            (b"access-control-allow-origin", self.origins[0].encode("latin-1")),
            (b"access-control-allow-credentials", b"true"),
        ]
        if self._asked_for:
            cors.append((b"access-control-allow-headers", self._asked_for))
        self.cors = cors

    def parameter(self, name: str) -> bytes | None:
        """Return the value of *name* in the query, `None` if it is not there."""
        values = parse_qs(self.scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True).get(name)
        return None if values is None else values[0].encode()

    async def body(self, *, limit: int, timeout_s: float) -> bytes:
        """Read the whole body.

        Raises:
            UnreadableError: if it is longer than *limit*, takes longer, or its sender has gone before its end.
        """
        body, has_more = bytearray(), self._size <= limit
        try:
            async with asyncio.timeout(timeout_s):
                while has_more and len(body) <= limit:
                    message = await self.receive()
                    if message["type"] != "http.request":
                        raise UnreadableError(HTTPStatus.BAD_REQUEST, "the request ended before its body did")
                    body += message.get("body", b"")
                    has_more = message.get("more_body", False)
        except TimeoutError:
            raise UnreadableError(HTTPStatus.REQUEST_TIMEOUT, "the body did not arrive in time") from None
        if self._size > limit or len(body) > limit:
            raise UnreadableError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body is longer than {limit} bytes")
        return bytes(body)

    async def answer(self, status: HTTPStatus, text: str = "", headers: Headers = ()) -> None:
        """Answer with one line of *text*, or with nothing."""
        body = f"{text}\n".encode() if text else b""
        described: Headers = ()
        if text:
            described = (
                (b"content-type", b"text/plain; charset=utf-8"),
                (b"content-length", b"%d" % len(body)),
            )
        start = {"type": "http.response.start", "status": status.value, "headers": [*described, *self.cors, *headers]}
        await self.send(start)
        await self.send({"type": "http.response.body", "body": body})

    async def answer_unreadable(self, error: UnreadableError) -> None:
        """Say what is wrong with the request."""
        # Who takes too long over a body would take as long over what follows it.
        headers: Headers = ((b"connection", b"close"),) if error.status is HTTPStatus.REQUEST_TIMEOUT else ()
        await self.answer(error.status, str(error), headers)
