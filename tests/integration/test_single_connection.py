"""One connection for each user in the whole cluster, also when several come at the same moment."""

import asyncio
from contextlib import AsyncExitStack

import jwt
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.support.nodes import SECRET, running_node
from tests.support.redis_servers import redis_server

SINGLE = {"client": {"subscribe_to_user_personal_channel": {"enabled": True, "single_connection": True}}}
TOKEN = jwt.encode({"sub": "42"}, SECRET, algorithm="HS256")
TABS = 6


async def close_code(tab: ClientConnection) -> int | None:
    try:
        while True:
            await tab.recv()
    except ConnectionClosed as closed:
        return closed.rcvd.code if closed.rcvd else None


async def test_of_tabs_that_come_together_on_two_nodes_exactly_one_stays() -> None:
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(redis_server())
        redis = {"broker": {"type": "redis"}, "redis": {"address": server.location}}
        nodes = [await stack.enter_async_context(running_node(SINGLE, redis)) for _ in range(2)]
        opening = [stack.enter_async_context(connect(nodes[n % 2].client_url, compression=None)) for n in range(TABS)]
        tabs = await asyncio.gather(*opening)
        await asyncio.gather(*(tab.send(f'{{"id":1,"connect":{{"token":"{TOKEN}"}}}}') for tab in tabs))
        ending = [asyncio.create_task(close_code(tab)) for tab in tabs]
        async with asyncio.timeout(15):
            while sum(task.done() for task in ending) < TABS - 1:
                await asyncio.wait(ending, return_when=asyncio.FIRST_COMPLETED, timeout=0.05)
        assert [task.result() for task in ending if task.done()] == [3504] * (TABS - 1)
        [staying] = [tab for tab, task in zip(tabs, ending, strict=True) if not task.done()]
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)
        await staying.send('{"id":2,"rpc":{"method":"ping"}}')
        assert '"id":2' in str(await staying.recv())
