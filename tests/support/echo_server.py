"""A server that sends every message back as it came, on the gateway's own listener and WebSocket connection.

`python tests/support/echo_server.py [--compression]` listens on a free port of the loopback, prints the port on a line
of its own and serves until it is ended.
"""

import argparse
import asyncio
from typing import Final

import uvloop
from starlette.responses import PlainTextResponse
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.http11 import Request, Response

from gateway.domain.counts import Lost
from gateway.protocol import codes
from gateway.protocol.codes import Disconnect
from gateway.protocol.framing import BINARY, TEXT, DeflateFraming, Framing, WebSocketFraming
from gateway.transport.core import make_negotiator
from gateway.transport.http import RequestHeadSettings
from gateway.transport.listener import Listener, bind
from gateway.transport.ports import ClosedBy, WebSocketSettings
from gateway.transport.websocket import WebSocketConnection

_MESSAGE_LIMIT: Final = 32 * 1024 * 1024  # Autobahn's longest have 16 MiB
_QUEUE_LIMIT: Final = 64 * 1024 * 1024


class EchoPeer:
    """Sends back what comes, and goes when the client does not read."""

    def __init__(self, connection: WebSocketConnection, *, text: Framing, binary: Framing) -> None:
        self._connection = connection
        self._text = text
        self._binary = binary

    def receive(self, payload: bytes, *, is_text: bool) -> None:
        framing = self._text if is_text else self._binary
        if not self._connection.offer(framing.frame(payload)):
            self.disconnect(codes.SLOW)

    def disconnect(self, disconnect: Disconnect) -> None:
        self._connection.close(disconnect)

    def tell_gap(self, channel: str) -> None:
        raise AssertionError(f"nobody subscribes here, not even to {channel!r}")

    def frame_pong(self) -> None:
        """Nobody waits for pongs here."""

    def closed(self, *, code: int, reason: str, by: ClosedBy) -> None:
        """Nothing is kept that would have to go."""


class OpenGate:
    """Lets everybody in, at every path."""

    queue_max_bytes = _QUEUE_LIMIT

    def __init__(self, *, compression: bool) -> None:
        self.settings = WebSocketSettings(message_size_limit=_MESSAGE_LIMIT, compression=compression)
        # As the node offers it (gateway/transport/acceptor.py).
        deflate = ServerPerMessageDeflateFactory(server_no_context_takeover=True, client_no_context_takeover=True)
        self.negotiator = make_negotiator(extensions=[deflate] if compression else [], subprotocols=[])

    def opened(self) -> None:
        """Sockets are not counted."""

    def gone(self, connection: object, lost: Lost | None = None) -> None:
        """The same."""

    def refuse(self, request: Request, address: str) -> Response | None:
        """Refuse nobody."""

    def failed(self, response: Response, address: str) -> None:
        """The client has its answer."""

    def accept(self, request: Request, connection: WebSocketConnection) -> EchoPeer:
        del request
        bits = connection.compression_window_bits
        if bits is None:
            return EchoPeer(connection, text=WebSocketFraming(TEXT), binary=WebSocketFraming(BINARY))
        least = self.settings.compression_min_size
        return EchoPeer(
            connection,
            text=DeflateFraming(TEXT, window_bits=bits, min_bytes=least),
            binary=DeflateFraming(BINARY, window_bits=bits, min_bytes=least),
        )


async def serve(*, compression: bool) -> None:
    gate, loop = OpenGate(compression=compression), asyncio.get_running_loop()
    listener = Listener(
        bind("127.0.0.1", 0, backlog=128),
        PlainTextResponse("Only WebSockets here.\n", status_code=426),
        head=RequestHeadSettings(),
        refused=lambda *_: None,
        make_connection=lambda address: WebSocketConnection(gate, loop, address=address),
    )
    print(listener.address[1], flush=True)  # noqa: T201 - whoever starts this reads it
    await listener.serve()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--compression", action="store_true", help="offer permessage-deflate")
    uvloop.run(serve(compression=parser.parse_args().compression))
