"""WebSocket frames (RFC 6455, section 5.2), as far as a load generator needs them: unfragmented, never compressed."""

from typing import Final, NamedTuple

TEXT: Final = 0x1
BINARY: Final = 0x2
CLOSE: Final = 0x8
PING: Final = 0x9
PONG: Final = 0xA

_FIN: Final = 0x80
_MASKED: Final = 0x80
_NO_MASK: Final = bytes(4)
"""A mask of zeros is a mask, and spares the masking."""

_SHORT: Final = 126
_MEDIUM: Final = 65536


class Frame(NamedTuple):
    """One frame."""

    opcode: int
    payload: bytes


def client_frame(opcode: int, payload: bytes) -> bytes:
    """Return a final frame as a client sends it."""
    size = len(payload)
    if size < _SHORT:
        length = bytes([_MASKED | size])
    elif size < _MEDIUM:
        length = bytes([_MASKED | 126]) + size.to_bytes(2)
    else:
        length = bytes([_MASKED | 127]) + size.to_bytes(8)
    return bytes([_FIN | opcode]) + length + _NO_MASK + payload


def split_frames(data: bytes) -> tuple[list[Frame], bytes]:
    """Return the whole frames of a server's *data*, and the beginning of the next one."""
    frames = []
    position, end = 0, len(data)
    while end - position >= 2:  # noqa: PLR2004 - the shortest header
        short = data[position + 1]
        width = {126: 2, 127: 8}.get(short, 0)
        start = position + 2 + width
        size = int.from_bytes(data[position + 2 : start]) if width else short
        if end < start + size:
            break
        frames.append(Frame(data[position] & 0x0F, data[start : start + size]))
        position = start + size
    return frames, data[position:]


def upgrade_request(path: str, *, host: str) -> bytes:
    """Return the HTTP request that asks for a WebSocket; the key is the RFC's own example."""
    return (
        f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nOrigin: http://{host}\r\n\r\n"
    ).encode()
