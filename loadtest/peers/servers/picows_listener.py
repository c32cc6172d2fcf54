"""The peer "picows": a WebSocket library in Cython, called with the port to listen on.

After https://picows.readthedocs.io: uvloop; `send_reuse_external_bytearray`, which writes the frame's header before a
payload that is there once, so that no send copies it; a read buffer as large as the messages that are expected. picows
has no broadcast of its own, so a loop over the connections it is.
"""

import sys

import uvloop
from picows import WSFrame, WSListener, WSMsgType, WSTransport, WSUpgradeRequest, ws_create_server

HEADER_SPACE = 14

subscribers: set[WSTransport] = set()


class Subscriber(WSListener):
    """One who listens."""

    def on_ws_connected(self, transport: WSTransport) -> None:
        """Join."""
        subscribers.add(transport)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        """Leave."""
        subscribers.discard(transport)


class Publisher(WSListener):
    """One whose words are handed on."""

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:  # noqa: ARG002 - picows' signature
        """Send a message to all who listen."""
        if frame.msg_type == WSMsgType.TEXT:
            message = bytearray(HEADER_SPACE) + frame.get_payload_as_bytes()
            for subscriber in subscribers:
                subscriber.send_reuse_external_bytearray(WSMsgType.TEXT, message, HEADER_SPACE)


def listener(request: WSUpgradeRequest) -> WSListener:
    """Return who takes a connection's events."""
    return Subscriber() if request.path == b"/subscribe" else Publisher()


async def main() -> None:
    """Serve until the process is ended."""
    port = int(sys.argv[1])
    server = await ws_create_server(listener, "127.0.0.1", port, read_buffer_init_size=1024, backlog=4096)
    await server.serve_forever()


uvloop.run(main())
