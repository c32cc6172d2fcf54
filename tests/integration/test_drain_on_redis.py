"""A node that stops leaves no ghosts: everybody hears at once that its clients have left."""

import json

from websockets.asyncio.client import connect

from gateway.broker.contract import PresenceStats
from tests.support.nodes import running_node
from tests.support.redis_servers import redis_server

ROOM = {
    "channel": {
        "namespaces": [
            {
                "name": "room",
                "allow_subscribe_for_client": True,
                "allow_subscribe_for_anonymous": True,
                "presence": True,
                "join_leave": True,
                "force_push_join_leave": True,
            }
        ]
    }
}
CLIENTS = 20


async def test_the_leaves_of_a_node_that_stops_are_told_before_it_has_stopped() -> None:
    async with redis_server() as server:
        redis = {"broker": {"type": "redis"}, "redis": {"address": server.location}}
        async with (
            running_node(ROOM, redis) as staying,
            connect(staying.client_url, compression=None, max_queue=None) as watcher,
        ):
            await watcher.send('{"id":1,"connect":{}}\n{"id":2,"subscribe":{"channel":"room:1"}}')
            lines: list[str] = []

            async def read_until(count: int, kind: str) -> None:
                while sum(f'"{kind}"' in line for line in lines) < count:
                    frame = await watcher.recv()
                    assert isinstance(frame, str)
                    lines.extend(frame.split("\n"))

            async with running_node(ROOM, redis) as stopping:
                clients = [await connect(stopping.client_url, compression=None, max_queue=None) for _ in range(CLIENTS)]
                for client in clients:
                    await client.send('{"id":1,"connect":{}}\n{"id":2,"subscribe":{"channel":"room:1"}}')
                await read_until(CLIENTS + 1, "join")
            # It has stopped; nothing more can come from it.
            presence = await staying.node.engine.presence.stats("room:1").wait()
            assert presence == PresenceStats(clients=1, users=1)
            await read_until(CLIENTS, "leave")
            left = {json.loads(line)["push"]["leave"]["info"]["client"] for line in lines if '"leave"' in line}
            assert len(left) == CLIENTS
            for client in clients:
                await client.close()
