"""The peer "websockets": `broadcast()` of the websockets library, called with the port to listen on.

After https://websockets.readthedocs.io/en/stable/topics/performance.html: uvloop, and `broadcast()` as "the most
efficient way to send a message to many clients". No compression: it is 50 of 64 KiB of each connection
(https://websockets.readthedocs.io/en/stable/topics/memory.html), and it would be made anew for every connection.
"""

import sys

import uvloop
from websockets.asyncio.server import ServerConnection, broadcast, serve

subscribers: set[ServerConnection] = set()


async def handle(connection: ServerConnection) -> None:
    """Keep a subscriber until it goes; hand on what a publisher says."""
    if connection.request is not None and connection.request.path == "/subscribe":
        subscribers.add(connection)
        try:
            await connection.wait_closed()
        finally:
            subscribers.discard(connection)
        return
    async for message in connection:
        broadcast(subscribers, message)


async def main() -> None:
    """Serve until the process is ended."""
    async with serve(handle, "127.0.0.1", int(sys.argv[1]), compression=None, backlog=4096) as server:
        await server.serve_forever()


uvloop.run(main())
