"""A small server of the Centrifugo protocol that errs on purpose: what a load test must find.

One channel is one stream. Each delivery is counted, those of recoveries too, and one in *every* of them is lost, comes
twice, or changes places with the next, as *fault* says. It can also do nothing at all for a while.
"""

import itertools
import json
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import StrEnum
from typing import Any

from websockets.asyncio.server import ServerConnection, broadcast, serve
from websockets.exceptions import ConnectionClosed


class Fault(StrEnum):
    """What it does wrong."""

    NONE = "none"
    LOSE = "lose"
    DOUBLE = "double"
    SWAP = "swap"


class FaultyServer:
    """Serves until its block ends; made by `faulty_server`."""

    def __init__(self, fault: Fault, *, every: int, errs_in_recovery: bool, stall_at: int, stall_s: float) -> None:
        self.url = ""
        self.faults = 0
        """How often it erred so far."""
        self.recovered = 0
        """Publications that recoveries brought."""
        self._fault = fault
        self._every = every
        self._errs_in_recovery = errs_in_recovery
        self._stall_at = stall_at
        self._stall_s = stall_s
        self._deliveries = 0
        self._publications = 0
        self._streams: dict[str, list[str]] = defaultdict(list)
        self._members: dict[str, dict[ServerConnection, list[str]]] = defaultdict(dict)  # with what waits to be swapped
        self._ids = itertools.count()

    async def handle(self, connection: ServerConnection) -> None:
        """Serve one client."""
        try:
            async for frame in connection:
                for line in str(frame).split("\n"):
                    command = json.loads(line)
                    if "id" in command:
                        await self._answer(connection, command)
        except ConnectionClosed:
            pass
        finally:
            for members in self._members.values():
                members.pop(connection, None)

    async def _answer(self, connection: ServerConnection, command: dict[str, Any]) -> None:
        reply: dict[str, Any] = {"id": command["id"]}
        if "connect" in command:
            reply["connect"] = {"client": f"c{next(self._ids)}", "version": "faulty", "ping": 25, "pong": True}
        elif "subscribe" in command:
            reply["subscribe"] = self._subscribe(connection, command["subscribe"])
        elif "unsubscribe" in command:
            self._members[command["unsubscribe"]["channel"]].pop(connection, None)
            reply["unsubscribe"] = {}
        else:
            reply["publish"] = {}
            self._publish(command["publish"])
        await connection.send(json.dumps(reply))

    def _subscribe(self, connection: ServerConnection, request: dict[str, Any]) -> dict[str, Any]:
        stream = self._streams[request["channel"]]
        self._members[request["channel"]][connection] = []
        result: dict[str, Any] = {"recoverable": True, "positioned": True, "epoch": "e", "offset": len(stream)}
        if request.get("recover"):
            since = request.get("offset", 0)
            publications = [{"data": json.loads(stream[n]), "offset": n + 1} for n in range(since, len(stream))]
            self.recovered += len(publications)
            if self._errs_in_recovery:
                publications = self._with_faults(publications)
            result |= {"recovered": True, "was_recovering": True, "offset": since, "publications": publications}
        return result

    def _with_faults(self, items: list[Any]) -> list[Any]:
        made: list[Any] = []
        for index, item in enumerate(items):
            if not self._errs(can_swap=index > 0):
                made.append(item)
            elif self._fault is Fault.DOUBLE:
                made += [item, item]
            elif self._fault is Fault.SWAP:
                made.insert(len(made) - 1, item)
        return made

    def _errs(self, *, can_swap: bool = True) -> bool:
        self._deliveries += 1
        if self._fault is Fault.NONE or self._deliveries % self._every:
            return False
        if self._fault is Fault.SWAP and not can_swap:
            self._deliveries -= 1  # the next one, then
            return False
        self.faults += 1
        return True

    def _publish(self, request: dict[str, Any]) -> None:
        self._publications += 1
        if self._publications == self._stall_at:
            time.sleep(self._stall_s)
        channel, data = request["channel"], json.dumps(request["data"])
        stream = self._streams[channel]
        stream.append(data)
        pub = {"data": request["data"], "offset": len(stream)}
        push = json.dumps({"push": {"channel": channel, "pub": pub}})
        for connection, held in self._members[channel].items():
            self._deliver(connection, held, push)

    def _deliver(self, connection: ServerConnection, held: list[str], push: str) -> None:
        pushes = [push, *held]
        held.clear()
        if not self._errs_in_recovery and self._errs():
            if self._fault is Fault.SWAP:
                held.append(push)
            pushes = {Fault.DOUBLE: [push, *pushes]}.get(self._fault, pushes[1:])
        for each in pushes:
            broadcast([connection], each)  # in this turn, so that the order is the one that was meant


@asynccontextmanager
async def faulty_server(
    fault: Fault = Fault.NONE,
    *,
    every: int = 10_000,
    errs_in_recovery: bool = False,
    stall_at: int = 0,
    stall_s: float = 0.0,
) -> AsyncIterator[FaultyServer]:
    """Run one on a free port; it does nothing for *stall_s* when publication number *stall_at* comes."""
    server = FaultyServer(fault, every=every, errs_in_recovery=errs_in_recovery, stall_at=stall_at, stall_s=stall_s)
    async with serve(server.handle, "127.0.0.1", 0, compression=None, ping_interval=None) as listener:
        port = next(iter(listener.sockets)).getsockname()[1]
        server.url = f"ws://127.0.0.1:{port}/connection/websocket"
        yield server
