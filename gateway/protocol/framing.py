"""How encoded messages become bytes of a transport, and the limits on joining them.

A frame that the server sends is the same for every client (RFC 6455 5.1: a server must not mask), so it is built once
for each variant of a publication and the same bytes object goes to every subscriber.
"""

import zlib
from collections.abc import Iterator, Sequence
from typing import Final, Protocol, runtime_checkable

TEXT: Final = 0x81
"""FIN and opcode 1 (RFC 6455 5.2)."""
BINARY: Final = 0x82
_FIN: Final = 0x80
_COMPRESSED: Final = 0x40
"""RSV1, which permessage-deflate sets on the first frame of a compressed message (RFC 7692 6)."""
_MAX_LENGTH_7: Final = 125
_MAX_LENGTH_16: Final = 65535

MAX_JOINED_MESSAGES: Final = 16
MAX_JOINED_BYTES: Final = 65536
"""What the reference joins at most, and so what SDKs were tried with (protocol.md 1.2)."""


PIECE_BYTES: Final = 131072
"""How much of a large payload is one piece: writing it takes the kernel some tens of microseconds."""


class Framing(Protocol):
    """Turns one payload into the bytes that a transport writes."""

    def frame(self, payload: bytes) -> bytes:
        """Wrap *payload* whole; the result may be sent to any number of clients."""


@runtime_checkable
class PiecewiseFraming(Framing, Protocol):
    """A framing whose payloads may be written piece by piece."""

    def pieces(self, payload: bytes) -> Iterator[bytes]:
        """Wrap *payload* in pieces of about `PIECE_BYTES`; nothing but control frames may be written in between."""


class WebSocketFraming:
    """Unmasked frames of one opcode, unfragmented but for `pieces`."""

    def __init__(self, opcode: int = TEXT) -> None:
        self._opcode = opcode
        self._short_headers = [frame_header(opcode, length) for length in range(_MAX_LENGTH_7 + 1)]

    def frame(self, payload: bytes) -> bytes:
        """Wrap *payload* in one frame."""
        length = len(payload)
        if length <= _MAX_LENGTH_7:
            return self._short_headers[length] + payload
        return frame_header(self._opcode, length) + payload

    def pieces(self, payload: bytes) -> Iterator[bytes]:
        """Wrap *payload* in fragments, between which control frames may be written."""
        return _fragments(self._opcode, payload)


class DeflateFraming:
    """The same with permessage-deflate and no context takeover, so that one compressed frame serves many clients.

    Payloads below *min_bytes* are sent as they are: RFC 7692 6 lets an endpoint choose for each message.
    """

    def __init__(self, opcode: int = TEXT, *, window_bits: int = 15, min_bytes: int = 128) -> None:
        self._opcode = opcode
        self._window_bits = window_bits
        self._min_bytes = min_bytes

    def frame(self, payload: bytes) -> bytes:
        """Compress *payload* on its own and wrap it in one frame."""
        if len(payload) < self._min_bytes:
            return frame_header(self._opcode, len(payload)) + payload
        deflate = zlib.compressobj(level=1, wbits=-self._window_bits)
        compressed = deflate.compress(payload) + deflate.flush(zlib.Z_SYNC_FLUSH)
        compressed = compressed[:-4]  # RFC 7692 7.2.1: remove the 4 octets 00 00 FF FF from the tail end
        return frame_header(self._opcode | _COMPRESSED, len(compressed)) + compressed

    def pieces(self, payload: bytes) -> Iterator[bytes]:
        """Wrap *payload* in fragments, uncompressed: compressing as much would hold up everybody else."""
        return _fragments(self._opcode, payload)


def _fragments(opcode: int, payload: bytes) -> Iterator[bytes]:
    """Cut *payload* into the frames of one message (RFC 6455 5.4): the first has the opcode, the last has FIN."""
    opcode &= ~_FIN
    for start in range(0, len(payload) or 1, PIECE_BYTES):
        piece = payload[start : start + PIECE_BYTES]
        fin = _FIN if start + PIECE_BYTES >= len(payload) else 0
        yield frame_header(fin | opcode, len(piece)) + piece
        opcode = 0


def frame_header(opcode: int, length: int) -> bytes:
    """Return the header of an unmasked frame (RFC 6455 5.2)."""
    if length <= _MAX_LENGTH_7:
        return bytes((opcode, length))
    if length <= _MAX_LENGTH_16:
        return bytes((opcode, 126, length >> 8, length & 0xFF))
    return bytes((opcode, 127)) + length.to_bytes(8, "big")


def batches(messages: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    """Cut *messages* into runs that may share a frame; a single message above the byte limit travels alone."""
    start = size = 0
    for index, message in enumerate(messages):
        if index > start and (index - start == MAX_JOINED_MESSAGES or size + len(message) > MAX_JOINED_BYTES):
            yield messages[start:index]
            start, size = index, 0
        size += len(message) + 1
    if start < len(messages):
        yield messages[start:]
