"""Sends a temperature a second to one node, and prints what another one hands out.

    python tests/examples/sensors.py ws://127.0.0.1:8001 ws://127.0.0.1:8002

Both nodes run with sensors.toml. A value is a WebSocket message, and so is what comes back.
"""

import asyncio
import json
import random
import sys
from collections.abc import AsyncIterator, Callable

from websockets.asyncio.client import ClientConnection, connect

CHANNEL = "sensors:hall"


async def measure() -> AsyncIterator[float]:
    """Yield a temperature a second."""
    while True:
        yield round(random.gauss(21, 0.5), 2)
        await asyncio.sleep(1)


async def send(node: str, values: AsyncIterator[float], *, channel: str = CHANNEL) -> None:
    """Send *values* to *node*."""
    async with connect(f"{node}/ws/{channel}") as websocket, asyncio.TaskGroup() as group:
        # Whoever sends hears the channel, too, and has to read it: unread messages hide the node's pings.
        group.create_task(drain(websocket), name="reading")
        async for value in values:
            await websocket.send(json.dumps(value))
        await websocket.close()


async def drain(websocket: ClientConnection) -> None:
    """Read what comes until the end, and forget it."""
    async for _ in websocket:
        pass


async def listen(node: str, take: Callable[[str | bytes], object], *, channel: str = CHANNEL) -> None:
    """Hand each message of the channel to *take*."""
    async with connect(f"{node}/ws/{channel}") as websocket:
        async for message in websocket:
            take(message)


async def main(sender: str, listener: str) -> None:
    """Do both until interrupted."""
    async with asyncio.TaskGroup() as group:
        group.create_task(listen(listener, print), name="listener")
        group.create_task(send(sender, measure()), name="sensor")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:3]))
