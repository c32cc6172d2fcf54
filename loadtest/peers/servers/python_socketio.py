"""The peer "python-socketio": a room of the Socket.IO server for Python, called with the port to listen on.

After https://python-socketio.readthedocs.io/en/stable/server.html: the ASGI application on uvicorn with uvloop and
httptools, the WebSocket transport alone, no logs, no compression, no task for each event (`async_handlers`), and
orjson in the place of the standard library's json.
"""

import sys
from typing import Any

import orjson
import socketio
import uvicorn

ROOM = "bench"


class Json:
    """What python-socketio asks of a JSON package, by orjson."""

    @staticmethod
    def dumps(value: Any, **_: Any) -> str:
        """Encode."""
        return orjson.dumps(value).decode()

    @staticmethod
    def loads(text: str | bytes, **_: Any) -> Any:
        """Decode."""
        return orjson.loads(text)


server = socketio.AsyncServer(
    async_mode="asgi",
    transports=["websocket"],
    async_handlers=False,
    json=Json,
    http_compression=False,
    cors_allowed_origins="*",
    logger=False,
    engineio_logger=False,
)


@server.event
async def subscribe(sid: str) -> None:
    """Let a client listen."""
    await server.enter_room(sid, ROOM)


@server.event
async def publish(_: str, message: Any) -> None:
    """Hand on what a publisher says."""
    await server.emit("message", message, room=ROOM)


uvicorn.run(
    socketio.ASGIApp(server),
    host="127.0.0.1",
    port=int(sys.argv[1]),
    loop="uvloop",
    http="httptools",
    ws="websockets-sansio",
    ws_per_message_deflate=False,
    backlog=4096,
    log_level="warning",
    access_log=False,
)
