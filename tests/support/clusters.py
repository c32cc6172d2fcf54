"""Several `gateway serve` processes that are one system, and the streams as Redis holds them."""

import asyncio
import functools
import json
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any

import msgspec

from gateway.broker.redis.keys import ChannelKeys, Keys
from gateway.config import merge
from tests.support.crowds import errors_of
from tests.support.ledger import assert_books_balance
from tests.support.oracle import StreamAtEnd
from tests.support.processes import ServingProcess, ask, serving
from tests.support.redis_servers import RedisServer, redis_server
from tests.support.waiting import PATIENCE_S

_SHOWN_LINES = 30
_PREFIX = "chaos"
_EVERYTHING: dict[str, Any] = {
    "allow_subscribe_for_client": True,
    "allow_subscribe_for_anonymous": True,
    "allow_publish_for_client": True,
    "allow_publish_for_anonymous": True,
    "allow_history_for_client": True,
    "allow_history_for_anonymous": True,
}
STREAMS: Mapping[str, Any] = {
    "http_server": {"address": "127.0.0.1"},
    "client": {
        "allow_anonymous_connect_without_token": True,
        "command_rate": 0,
        "ping_interval": "5s",
        "pong_timeout": "4s",
        "history_max_publication_limit": 1_000,
        "recovery_max_publication_limit": 100_000,
    },
    # A node that ends at the end of a test waits for nobody.
    "shutdown": {"grace": 0},
    "drain": {"window": 0},
    # Nothing is trimmed and nothing expires in a test, so that what is missing was lost.
    "channel": {
        "without_namespace": _EVERYTHING | {"history_size": 100_000, "history_ttl": "1h", "force_recovery": True}
    },
}
"""Everybody may do everything, in channels whose streams keep all of it, on nodes that end without delay."""


def as_toml(table: Mapping[str, Any], path: str = "") -> str:
    """Write *table* as TOML; values are tables, strings, numbers, booleans and lists."""
    lines = [f"[{path}]"] if path else []
    lines += [f"{key} = {_value(value)}" for key, value in table.items() if not isinstance(value, Mapping)]
    below = [
        as_toml(value, f"{path}.{key}" if path else key) for key, value in table.items() if isinstance(value, Mapping)
    ]
    return "\n".join([*lines, *below]) + "\n"


def _value(value: Any) -> str:
    match value:
        case bool():
            return str(value).lower()
        case int() | float():
            return str(value)
        case str():
            return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
        case list():
            return "[" + ", ".join(map(_value, value)) + "]"
        case Mapping():
            return "{" + ", ".join(f"{key} = {_value(below)}" for key, below in value.items()) + "}"
        case _:
            raise AssertionError(f"not written here: {value!r}")


def redis_table(location: str) -> dict[str, Any]:
    """Return what makes a node one of those that share the Redis at *location* (host:port)."""
    return {"broker": {"type": "redis"}, "redis": {"address": location, "prefix": _PREFIX}}


async def read_streams(redis: RedisServer, channels: Sequence[str]) -> dict[str, StreamAtEnd]:
    """Read the streams of *channels* where they are, without the help of any node."""
    return {channel: await _read_stream(redis, Keys(_PREFIX).of(channel)) for channel in channels}


async def _read_stream(redis: RedisServer, keys: ChannelKeys) -> StreamAtEnd:
    epoch, top = await redis.execute("HMGET", keys.meta, "e", "o")
    held: dict[int, str] = {}
    for entry_id, fields in await redis.execute("XRANGE", keys.stream, "-", "+"):
        (body,) = fields.values()
        held[int(entry_id.partition(b"-")[0])] = json.loads(msgspec.msgpack.decode(body)[0])
    return StreamAtEnd(epoch.decode(), int(top), held)


class Cluster:
    """The nodes, dead ones included."""

    def __init__(self, nodes: Sequence[ServingProcess]) -> None:
        self.nodes = nodes
        self.addresses = [node.address for node in nodes]
        """Where clients connect to (host:port), in the order of the nodes."""

    async def kill(self, number: int) -> None:
        """End one node with SIGKILL, and wait until it has ended."""
        self.nodes[number].send(signal.SIGKILL)
        assert await self.nodes[number].ended() == -signal.SIGKILL

    async def is_ready(self) -> None:
        """Wait until every node that runs takes clients, and has its broker."""
        for node in self.nodes:
            async with asyncio.timeout(PATIENCE_S):
                while node.is_running and (await ask(f"{node.internal_url}/readyz")).status != HTTPStatus.OK:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)

    def warnings(self) -> str:
        """Return the last lines that each node has logged beyond the information level."""
        found = [f"node {n}: {line}" for n, node in enumerate(self.nodes) for line in errors_of(node)[-_SHOWN_LINES:]]
        return "\n".join(found) or "no node logged a warning"


@asynccontextmanager
async def running_cluster(folder: Path, *tables: Mapping[str, Any]) -> AsyncIterator[Cluster]:
    """Run one node for each of *tables*, which are laid over `STREAMS`, until the block ends.

    A node that the block has not ended itself must have books that add up, and end by itself then, with exit code 0.
    Whatever fails in the block brings the nodes' warnings along.
    """
    async with AsyncExitStack() as stack:
        files = [folder / f"node{number}.toml" for number in range(len(tables))]
        for number, (file, table) in enumerate(zip(files, tables, strict=True)):
            values = merge(merge(dict(STREAMS), {"node": {"name": f"node{number}"}}), table)
            file.write_text(as_toml(values), encoding="utf-8")
        async with asyncio.TaskGroup() as tasks:
            starting = [
                tasks.create_task(stack.enter_async_context(serving("--config", str(file))), name=file.name)
                for file in files
            ]
        cluster = Cluster([task.result() for task in starting])
        try:
            yield cluster
            await assert_books_balance(node.internal_url for node in cluster.nodes if node.is_running)
        except BaseException as error:
            error.add_note(cluster.warnings())
            raise


@asynccontextmanager
async def three_nodes(folder: Path, *tables: Mapping[str, Any]) -> AsyncIterator[tuple[RedisServer, Cluster]]:
    """Run three nodes on a Redis of their own; *tables* are laid over the settings of each."""
    async with redis_server(persistent=True) as redis:
        table = functools.reduce(merge, tables, redis_table(redis.location))
        async with running_cluster(folder, table, table, table) as cluster:
            yield redis, cluster
