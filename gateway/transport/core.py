"""What the gateway asks of websockets' sans-I/O core: handshakes, and all frames but plain data."""

import logging
from collections.abc import Sequence
from typing import Final

from websockets.datastructures import Headers
from websockets.extensions import ServerExtensionFactory
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

MESSAGE_TOO_BIG: Final = 1009
MASKED: Final = 0x80  # the bit of a frame's second byte (RFC 6455 5.2)
DATA_OPCODES: Final = (0x0, 0x1, 0x2)
MAX_CONTROL_LENGTH: Final = 125
_FIN: Final = 0x80
_RSV1: Final = 0x40
_CONTROL_OPCODES: Final = (0x8, 0x9, 0xA)

# The core's own log lines would double ours.
SILENT: Final = logging.getLogger("gateway.transport.websockets")
SILENT.addHandler(logging.NullHandler())
SILENT.propagate = False
SILENT.setLevel(logging.CRITICAL)


def is_acceptable(first: int, second: int, length: int, *, has_extensions: bool) -> bool:
    """Tell whether a frame that begins with the bytes *first* and *second* may come from a client (RFC 6455 5.2, 5.5).

    Its place among the fragments of a message is not judged here, nor its mask and payload.
    """
    opcode = first & 0x0F
    if not second & MASKED or first & 0x30:
        return False
    if opcode in _CONTROL_OPCODES:
        return bool(first & _FIN) and not first & _RSV1 and length <= MAX_CONTROL_LENGTH
    return opcode in DATA_OPCODES and (not first & _RSV1 or has_extensions)


def make_negotiator(
    *, extensions: Sequence[ServerExtensionFactory], subprotocols: Sequence[Subprotocol]
) -> ServerProtocol:
    """Return a core that only answers handshakes.

    `accept` reads its arguments and leaves the result in attributes, so one object serves all connections, one after
    the other; a connection gets a core of its own when it first needs one (2 KB and 40 µs saved for those that never
    do).
    """
    return _Negotiator(extensions=extensions, subprotocols=subprotocols, logger=SILENT)


class _Negotiator(ServerProtocol):
    """The library's rules but for one: protocol.md 1.2 lets the client's order win, and unknown offers pass."""

    def select_subprotocol(self, subprotocols: Sequence[Subprotocol]) -> Subprotocol | None:
        known = self.available_subprotocols or ()
        return next((offered for offered in subprotocols if offered in known), None)


class Core(ServerProtocol):
    """The library's protocol but for two things."""

    def fail(self, code: int, reason: str = "") -> None:
        """Fail the connection (RFC 6455 7.1.7)."""
        # protocol.md 1.2: too big is said with an empty reason.
        super().fail(code, "" if code == MESSAGE_TOO_BIG else reason)

    def recv_frame(self, frame: Frame) -> None:
        """Take a frame."""
        # RFC 6455 5.4: "Control frames MAY be injected in the middle of a fragmented message", a Close frame too.
        if frame.opcode is Opcode.CLOSE:
            self.current_size = None
        super().recv_frame(frame)


def parse_request(data: bytes) -> Request:
    """Read the request that uvicorn's seam writes: its parser has checked every part, so that cutting is enough."""
    head, _, _ = data.partition(b"\r\n\r\n")
    request_line, *lines = head.decode("latin-1").split("\r\n")
    method, path, protocol = request_line.split(" ", 2)
    headers = Headers()
    for line in lines:
        name, _, value = line.partition(": ")
        headers[name] = value.strip()
    return Request(path, headers, method, protocol)
