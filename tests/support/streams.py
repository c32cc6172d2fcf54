"""A client of the HTTP transports that is nothing but a socket: it reads when the test says so, and chunk by chunk."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Self
from urllib.parse import quote

import httpx

from tests.support.frames import raw_socket
from tests.support.waiting import PATIENCE_S

HTTP_STREAM, SSE = "/connection/http_stream", "/connection/sse"
UNI_SSE, UNI_HTTP_STREAM = "/connection/uni_sse", "/connection/uni_http_stream"


def post(path: str, body: bytes, headers: str = "") -> bytes:
    """Build a request with a body."""
    return f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode() + body


def get(path: str, said: str | None = None, headers: str = "") -> bytes:
    """Build a request for an event stream whose query has what is *said*."""
    query = "" if said is None else f"?cf_connect={quote(said)}"
    return f"GET {path}{query} HTTP/1.1\r\nHost: x\r\n{headers}\r\n".encode()


class EndedError(Exception):
    """The response is over."""


class RawStream:
    """A response as it comes over a socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.status = 0
        self.headers: dict[str, str] = {}
        self.connected: dict[str, Any] = {}
        """What the connect reply, or push, says."""
        self._lines: list[str] = []
        self._rest = b""

    async def read_head(self) -> Self:
        """Read status and headers."""
        async with asyncio.timeout(PATIENCE_S):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        status, *lines = head.split("\r\n")[:-2]
        self.status = int(status.split(" ")[1])
        for line in lines:
            name, _, value = line.partition(": ")
            self.headers[name.lower()] = value
        return self

    async def chunk(self) -> bytes:
        """Return the next chunk as it is; the last one raises `EndedError`."""
        async with asyncio.timeout(PATIENCE_S):
            size = int((await self.reader.readuntil(b"\r\n"))[:-2], 16)
            data = await self.reader.readexactly(size + 2)
        assert data.endswith(b"\r\n")
        if not size:
            raise EndedError
        return data[:-2]

    async def text(self) -> str:
        """Return the body of a response that has a length."""
        async with asyncio.timeout(PATIENCE_S):
            return (await self.reader.readexactly(int(self.headers.get("content-length", 0)))).decode()

    async def line(self) -> str:
        """Return the next message; of an event stream, the data of the next event."""
        end = b"\n\n" if "content-type" in self.headers else b"\n"
        while not self._lines:
            self._rest += await self.chunk()
            *lines, self._rest = self._rest.removeprefix(b"\r\n").split(end)
            self._lines = [line.decode().removeprefix("data: ") for line in lines]
        return self._lines.pop(0)

    async def message(self) -> Any:
        """Return the next message as a value."""
        return json.loads(await self.line())

    async def rest(self) -> list[Any]:
        """Return all messages that still come; fails if the response does not end."""
        messages = []
        while True:
            try:
                messages.append(await self.message())
            except EndedError:
                return messages

    async def is_cut(self) -> None:
        """Return when the connection has ended, whatever came before."""
        async with asyncio.timeout(PATIENCE_S):
            while await self.reader.read(65536):
                pass

    def leave(self) -> None:
        """Go without a word."""
        self.writer.transport.abort()


@asynccontextmanager
async def raw_stream(url: str, request: bytes, *, receive_buffer: int | None = None) -> AsyncIterator[RawStream]:
    """Send *request* to *url* (http://host:port) over a socket, and read the head of what is answered."""
    async with raw_socket(url, receive_buffer=receive_buffer, limit=2**20) as (reader, writer):
        writer.write(request)
        yield await RawStream(reader, writer).read_head()


@asynccontextmanager
async def connected(
    url: str,
    *commands: Mapping[str, Any],
    path: str = HTTP_STREAM,
    token: str = "",
    receive_buffer: int | None = None,
) -> AsyncIterator[RawStream]:
    """Open a stream with a connect command, and *commands* behind it."""
    first = {"id": 1, "connect": {"token": token} if token else {}}
    body = "\n".join(json.dumps(each) for each in (first, *commands)).encode()
    async with raw_stream(url, post(path, body), receive_buffer=receive_buffer) as stream:
        assert stream.status == 200, stream.status
        stream.connected = (await stream.message())["connect"]
        yield stream


async def emulate(url: str, stream: RawStream, *commands: Mapping[str, Any]) -> int:
    """Send *commands* beside *stream* to the node at *url*; returns the status of the answer."""
    told = stream.connected
    data = "\n".join(json.dumps(each) for each in commands)
    body = {"session": told["session"], "node": told["node"], "data": data}
    async with httpx.AsyncClient(timeout=PATIENCE_S) as http:
        return (await http.post(f"{url}/emulation", json=body)).status_code
