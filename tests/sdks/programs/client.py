"""centrifuge-python, told what to do by lines on standard input; takes what `client.go` takes."""

import asyncio
import json
import sys
from typing import Any

from centrifuge import Client, ClientEventHandler, DeltaType, SubscriptionEventHandler


def say(event: str, **more: Any) -> None:
    """Write one line."""
    sys.stdout.write(json.dumps({"event": event, **more}) + "\n")
    sys.stdout.flush()


class Connection(ClientEventHandler):
    """Says what becomes of the connection."""

    async def on_connected(self, ctx: Any) -> None:
        """Say so."""
        say("connected", client=ctx.client)

    async def on_disconnected(self, ctx: Any) -> None:
        """Say so."""
        say("disconnected", code=ctx.code, reason=ctx.reason)

    async def on_error(self, ctx: Any) -> None:
        """Say so."""
        say("error", message=str(ctx.error))


class Room(SubscriptionEventHandler):
    """Says what comes."""

    def __init__(self, *, is_binary: bool) -> None:
        self._is_binary = is_binary

    async def on_subscribed(self, ctx: Any) -> None:
        """Say so."""
        say("subscribed", recovered=ctx.recovered, wasRecovering=ctx.was_recovering)

    async def on_publication(self, ctx: Any) -> None:
        """Say so."""
        say("publication", data=json.loads(ctx.pub.data) if self._is_binary else ctx.pub.data, offset=ctx.pub.offset)

    async def on_join(self, ctx: Any) -> None:
        """Say so."""
        say("join", client=ctx.info.client)


async def main() -> None:
    """Connect, subscribe, and carry out what is asked."""
    given = json.loads(sys.argv[1])
    is_binary = given["codec"] == "protobuf"
    client = Client(
        given["endpoint"],
        events=Connection(),
        token=given["token"],
        use_protobuf=is_binary,
        min_reconnect_delay=0.05,
        max_reconnect_delay=0.5,
    )
    delta = DeltaType.FOSSIL if given["delta"] else None
    room = client.new_subscription(given["channel"], events=Room(is_binary=is_binary), delta=delta)
    await client.connect()
    await room.subscribe()

    def write(value: Any) -> Any:
        return json.dumps(value).encode() if is_binary else value

    def read(data: Any) -> Any:
        return json.loads(data) if is_binary else data

    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    while line := await lines.readline():
        command = json.loads(line)
        result: Any = None
        match command["do"]:
            case "publish":
                await room.publish(write(command["data"]))
            case "presence":
                result = list((await room.presence()).clients)
            case "stats":
                stats = await room.presence_stats()
                result = {"numClients": stats.num_clients, "numUsers": stats.num_users}
            case "history":
                result = [read(each.data) for each in (await room.history(limit=100)).publications]
            case _:
                result = read((await client.rpc("echo", write({"question": 1}))).data)
        say(command["do"], result=result)


if __name__ == "__main__":
    asyncio.run(main())
