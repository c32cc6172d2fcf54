"""WebSocket frames by hand, broken ones too, and a client that is nothing but a socket."""

import asyncio
import socket
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple
from urllib.parse import urlsplit

from websockets.frames import Close

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
MASK = b"\x37\xfa\x21\x3d"  # the mask of RFC 6455 5.7
PATIENCE_S = 10
"""Only bounds a failing test."""

UPGRADE = (
    "Connection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
DEFLATE = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"


class Received(NamedTuple):
    """A frame that the server sent."""

    first_byte: int
    payload: bytes


def mask_bytes(data: bytes, mask: bytes) -> bytes:
    return bytes(byte ^ mask[index % 4] for index, byte in enumerate(data)) if any(mask) else data


def frame(
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    rsv: int = 0,
    mask: bytes | None = MASK,
    length_bytes: int | None = None,
) -> bytes:
    """Build a client's frame; *length_bytes* (0, 2, 8) forces a form of the length that is longer than needed."""
    size = len(payload)
    if length_bytes is None:
        length_bytes = 0 if size <= 125 else 2 if size <= 65535 else 8
    short = {0: size, 2: 126, 8: 127}[length_bytes]
    head = bytes(((0x80 if fin else 0) | rsv << 4 | opcode, (0 if mask is None else 0x80) | short))
    head += size.to_bytes(length_bytes, "big") if length_bytes else b""
    return head + payload if mask is None else head + mask + mask_bytes(payload, mask)


def fragments(opcode: int, *payloads: bytes, rsv: int = 0) -> list[bytes]:
    """Build the frames of one message in pieces; *rsv* goes to the first of them."""
    last = len(payloads) - 1
    return [
        frame(CONT if index else opcode, payload, fin=index == last, rsv=0 if index else rsv)
        for index, payload in enumerate(payloads)
    ]


def closing(code: int, reason: str | bytes = b"") -> bytes:
    """Build the payload of a Close frame, allowed or not."""
    return code.to_bytes(2, "big") + (reason.encode() if isinstance(reason, str) else reason)


def deflated(payload: bytes) -> bytes:
    """Compress a message as RFC 7692 7.2.1 says, without context takeover."""
    deflate = zlib.compressobj(wbits=-15)
    return (deflate.compress(payload) + deflate.flush(zlib.Z_SYNC_FLUSH))[:-4]


def server_frame(opcode: int, payload: bytes = b"", *, rsv: int = 0) -> bytes:
    """Build what the server should have sent."""
    return frame(opcode, payload, rsv=rsv, mask=None)


def parse_server_frames(data: bytes) -> list[Received]:
    """Cut what the server sent into frames; it must be whole, unmasked frames and nothing else."""
    frames, position = [], 0
    while position < len(data):
        first, short = data[position], data[position + 1]
        width = {126: 2, 127: 8}.get(short, 0)
        start = position + 2 + width
        size = int.from_bytes(data[position + 2 : start], "big") if width else short
        assert short < 128, "a server must not mask (RFC 6455 5.1)"
        assert start + size <= len(data), f"the last frame is not whole: {data[position:]!r}"
        frames.append(Received(first, data[start : start + size]))
        position = start + size
    return frames


def close_code(received: Received) -> int:
    """Return the code of a Close frame that the server sent; 1005 if it has none."""
    assert received.first_byte == 0x80 | CLOSE, f"no Close frame: {received}"
    return Close.parse(received.payload).code


class RawClient:
    """A client that sends what it is told, byte for byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, response: bytes) -> None:
        self.response = response
        self._reader = reader
        self.writer = writer

    def send(self, *data: bytes) -> None:
        self.writer.write(b"".join(data))

    async def receive(self) -> Received:
        """Return the next frame."""
        async with asyncio.timeout(PATIENCE_S):
            first, short = await self._reader.readexactly(2)
            assert short < 128, "a server must not mask (RFC 6455 5.1)"
            width = {126: 2, 127: 8}.get(short, 0)
            size = int.from_bytes(await self._reader.readexactly(width), "big") if width else short
            return Received(first, await self._reader.readexactly(size))

    async def rest(self) -> list[Received]:
        """Return all frames up to the end of the server's half; fails if that end does not come."""
        async with asyncio.timeout(PATIENCE_S):
            return parse_server_frames(await self._reader.read())

    async def is_cut(self) -> None:
        """Return when the server has ended the connection, whatever came before."""
        async with asyncio.timeout(PATIENCE_S):
            while await self._reader.read(65536):
                pass


@asynccontextmanager
async def raw_socket(
    url: str, *, receive_buffer: int | None = None, limit: int = 65536
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Connect to the host and port of *url*; with a small *receive_buffer*, who stops reading really stops."""
    parts = urlsplit(url)
    sock = socket.socket()
    if receive_buffer is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    sock.setblocking(False)  # noqa: FBT003
    try:
        await asyncio.get_running_loop().sock_connect(sock, (parts.hostname, parts.port))
    except BaseException:
        sock.close()
        raise
    # The stream's own buffer is small then, too.
    reader, writer = await asyncio.open_connection(sock=sock, limit=limit if receive_buffer is None else 4096)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


@asynccontextmanager
async def raw_client(url: str, *, headers: str = "", receive_buffer: int | None = None) -> AsyncIterator[RawClient]:
    """Open a socket to *url*, a ws:// one, and upgrade it."""
    parts = urlsplit(url)
    async with raw_socket(url, receive_buffer=receive_buffer) as (reader, writer):
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        writer.write(f"GET {target} HTTP/1.1\r\nHost: {parts.netloc}\r\n{UPGRADE}{headers}\r\n".encode())
        async with asyncio.timeout(PATIENCE_S):
            response = await reader.readuntil(b"\r\n\r\n")
        yield RawClient(reader, writer, response)
