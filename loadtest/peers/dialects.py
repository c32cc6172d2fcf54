"""How to speak to each kind of server: the greeting, a publication, the server's own pings.

Payloads are the same 100 bytes (or as many as are asked for) of JSON everywhere; what a server's protocol puts around
them is its own affair. Each carries its number behind a mark, by which it is found again in whatever arrives.
"""

import re
from dataclasses import dataclass
from typing import Final, NamedTuple

MARK: Final = b"@@"
_NUMBERED: Final = re.compile(rb"@@(\d{8})")
_WRAPPING: Final = b'{"p":"@@00000000"}'
SMALLEST_PAYLOAD: Final = len(_WRAPPING)


class Exchange(NamedTuple):
    """One step of a greeting: *say* a message, then wait for one that begins with *until*."""

    say: bytes
    until: bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Dialect:
    """What goes over a WebSocket before, around and between payloads; all of it text messages."""

    subscriber_path: str
    publisher_path: str
    subscriber_greeting: tuple[Exchange, ...] = ()
    publisher_greeting: tuple[Exchange, ...] = ()
    before: bytes = b""
    """What stands before the payload in a publication."""
    after: bytes = b""
    """What stands behind it."""
    ping: bytes = b""
    """A message of the server that wants an answer; empty: it has none of its own."""
    pong: bytes = b""

    def publication(self, payload: bytes) -> bytes:
        """Return the message that publishes *payload*."""
        return self.before + payload + self.after


BARE: Final = Dialect(subscriber_path="/subscribe", publisher_path="/publish")
"""The payload is the message, as with every server that has no protocol of its own."""

_CONNECT: Final = Exchange(b'{"id":1,"connect":{}}', b'{"id":1,"connect"')

CENTRIFUGO: Final = Dialect(
    subscriber_path="/connection/websocket",
    publisher_path="/connection/websocket",
    subscriber_greeting=(
        _CONNECT,
        Exchange(b'{"id":2,"subscribe":{"channel":"bench"}}', b'{"id":2,"subscribe"'),
    ),
    publisher_greeting=(_CONNECT,),
    before=b'{"id":3,"publish":{"channel":"bench","data":',
    after=b"}}",
    ping=b"{}",
    pong=b"{}",
)
"""The protocol of the Centrifugo SDKs, which the gateway speaks; each publication is answered."""

_OPEN: Final = Exchange(b"", b"0{")
_JOIN: Final = Exchange(b"40", b"40{")

SOCKET_IO: Final = Dialect(
    subscriber_path="/socket.io/?EIO=4&transport=websocket",
    publisher_path="/socket.io/?EIO=4&transport=websocket",
    # Joining the room is not answered; the warm-up shows who has.
    subscriber_greeting=(_OPEN, _JOIN, Exchange(b'42["subscribe"]', b"")),
    publisher_greeting=(_OPEN, _JOIN),
    before=b'42["publish",',
    after=b"]",
    ping=b"2",
    pong=b"3",
)
"""Engine.IO 4 with Socket.IO 5 in it (https://socket.io/docs/v4/socket-io-protocol/)."""


def payload(number: int, *, size: int) -> bytes:
    """Return the payload of *size* bytes that carries *number*."""
    filling = b"x" * (size - SMALLEST_PAYLOAD)
    return b'{"p":"%b%08d%b"}' % (MARK, number, filling)


def numbers(message: bytes) -> list[int]:
    """Return the numbers of the payloads in *message*, in order."""
    return [int(found) for found in _NUMBERED.findall(message)]
