"""Redis as the engine would meet it: whether it can be worked with, and whether it keeps what it is given."""

import asyncio
import statistics
import time
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from redis.exceptions import RedisError

from gateway.broker.contract import EngineError
from gateway.broker.redis.endpoint import FAILURES, Endpoint, close, describe
from gateway.broker.redis.probe import NotYetError, Probe
from gateway.config import Config
from gateway.doctor.finding import Finding, error, ok, warning

_PINGS: Final = 20
_SLOW_MS: Final = 5.0
_CLOCK_WARNING_S: Final = 1.0
_CLOCK_ERROR_S: Final = 30.0
_FEW_CLIENTS: Final = 50
_SMALL_BUFFER_BYTES: Final = 8 * 1048576
_MIB: Final = 1048576


class Server(NamedTuple):
    """What was read of a server."""

    label: str
    info: Mapping[str, str]
    """What INFO says; empty if the user may not ask."""
    ping_ms: float = 0.0
    """How long a PING takes, in the middle of many."""
    ahead_s: float = 0.0
    """How far its clock is ahead of ours."""
    pubsub_buffer_bytes: int | None = None
    """The hard limit of what waits for a slow subscriber, 0 without one; `None` if the user may not ask."""


async def examine_redis(config: Config) -> list[Finding]:
    """Connect, try what the engine needs, and look around."""
    settings = config.redis
    try:
        endpoint = Endpoint(settings)
        await Probe(endpoint).run()
    except EngineError as fault:
        return [error("redis", str(fault))]
    except NotYetError as fault:
        return [error("redis", str(fault), "start it, or mend redis.address: nodes wait for it, unready")]
    client = endpoint.client("gateway-doctor")
    try:
        async with asyncio.timeout(settings.connect_timeout_s + _PINGS * settings.timeout_s):
            server = await _look(client, endpoint.label)
    except FAILURES as fault:
        return [error("redis", f"{endpoint.label}: {describe(fault)}", "it was there a moment ago: look at its log")]
    finally:
        await close(client)
    has_history = any(each.history_size for each in (config.channel.without_namespace, *config.channel.namespaces))
    return list(check_server(server, has_history=has_history))


def check_server(server: Server, *, has_history: bool) -> Iterator[Finding]:
    """Judge *server*, on which some namespace *has_history*, or none."""
    version = server.info.get("redis_version", "of unknown version")
    yield ok("redis", f"{server.label}: Redis {version} lets this node do all it needs")
    yield from _speed_and_clock(server)
    if not server.info:
        yield ok("redis", "its user may not ask for more (INFO): look at eviction and persistence by hand")
        return
    yield from _eviction(server.info)
    yield from _persistence(server.info, has_history=has_history)
    yield from _replication(server.info)
    yield from _room(server)


def _speed_and_clock(server: Server) -> Iterator[Finding]:
    if server.ping_ms > _SLOW_MS:
        advice = "put it into the same zone; each publish waits for it"
        yield warning("redis", f"an answer takes {server.ping_ms:.1f} ms", advice)
    else:
        yield ok("redis", f"an answer takes {server.ping_ms:.1f} ms")
    text = f"the clock of Redis is {abs(server.ahead_s):.1f} s {'ahead of' if server.ahead_s > 0 else 'behind'} ours"
    advice = "synchronise both (chrony, systemd-timesyncd): tokens and presence expire by the clock"
    if abs(server.ahead_s) > _CLOCK_ERROR_S:
        yield error("clock", text, advice)
    elif abs(server.ahead_s) > _CLOCK_WARNING_S:
        yield warning("clock", text, advice)
    else:
        yield ok("clock", "that of Redis and ours agree within a second")


def _eviction(info: Mapping[str, str]) -> Iterator[Finding]:
    limit, policy = int(info.get("maxmemory", "0")), info.get("maxmemory_policy", "noeviction")
    if not limit:
        yield ok("redis", "no maxmemory, so nothing is evicted")
    elif policy == "noeviction":
        yield ok(
            "redis", f"maxmemory {limit // _MIB} MiB without eviction: when it is full, publishing fails and is told"
        )
    else:
        advice = "CONFIG SET maxmemory-policy noeviction: history and presence must not vanish one by one"
        yield warning("redis", f"maxmemory-policy {policy} evicts when {limit // _MIB} MiB are full", advice)


def _persistence(info: Mapping[str, str], *, has_history: bool) -> Iterator[Finding]:
    if info.get("aof_enabled") == "1":
        if info.get("aof_last_write_status", "ok") != "ok":
            yield error("redis", "its last write to the append-only file failed", "look at its disk")
        else:
            yield ok("redis", "the append-only file survives a restart")
    elif not has_history:
        yield ok("redis", "nothing is kept over a restart, and no namespace has history")
    elif info.get("rdb_last_bgsave_status", "ok") != "ok":
        yield error("redis", "its last snapshot failed", "look at its disk; with that it may refuse to write, too")
    else:
        advice = "appendonly yes: else a restart begins new epochs, and clients are told that history is lost"
        yield warning("redis", "no append-only file, and there are namespaces with history", advice)


def _replication(info: Mapping[str, str]) -> Iterator[Finding]:
    if info.get("role") != "master":
        yield error("redis", f"it is a {info.get('role', 'server of unknown role')}", "give the master's address")
    elif int(info.get("connected_slaves", "0")):
        advice = "min-replicas-to-write 1: else a failover may lose what was acknowledged"
        if int(info.get("min_slaves_good_slaves", "0")):
            yield ok("redis", f"{info['connected_slaves']} replicas, and writes wait for a good one")
        else:
            yield warning("redis", f"{info['connected_slaves']} replicas that no write waits for", advice)


def _room(server: Server) -> Iterator[Finding]:
    info = server.info
    left = int(info.get("maxclients", "0")) - int(info.get("connected_clients", "0"))
    if "maxclients" in info and left < _FEW_CLIENTS:
        yield warning(
            "redis", f"{left} more clients are let in", "raise maxclients: a node takes three, and one to start"
        )
    buffer = server.pubsub_buffer_bytes
    if buffer and buffer < _SMALL_BUFFER_BYTES:
        advice = "client-output-buffer-limit pubsub 32mb 8mb 60, or more: who falls behind is cut, and catches up"
        yield warning("redis", f"a subscriber is cut when {buffer // 1024} KiB wait for it", advice)


async def _look(client: Any, label: str) -> Server:
    took: list[float] = []
    for _ in range(_PINGS):
        began_s = time.perf_counter()
        await client.execute_command("PING")
        took.append(time.perf_counter() - began_s)
    sent_s = time.time()
    seconds, micros = await client.execute_command("TIME")
    ours_s = (sent_s + time.time()) / 2
    return Server(
        label,
        await _info(client),
        ping_ms=statistics.median(took) * 1000,
        ahead_s=int(seconds) + int(micros) / 1e6 - ours_s,
        pubsub_buffer_bytes=await _pubsub_buffer(client),
    )


async def _info(client: Any) -> dict[str, str]:
    try:
        text: bytes = await client.execute_command("INFO")
    except RedisError:
        return {}
    pairs = (line.partition(":") for line in text.decode("utf-8", "replace").splitlines())
    return {name: value.strip() for name, separator, value in pairs if separator}


async def _pubsub_buffer(client: Any) -> int | None:
    try:
        found = await client.execute_command("CONFIG", "GET", "client-output-buffer-limit")
        words = found[1].decode().split()
        return int(words[words.index("pubsub") + 1])
    except (RedisError, ValueError, IndexError):
        return None
