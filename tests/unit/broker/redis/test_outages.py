"""Redis goes away, falls silent, refuses and comes back, under an engine that works."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any, NamedTuple

import pytest

from gateway.broker.contract import BrokerError, PublishOptions
from gateway.broker.redis.engine import RedisEngine
from gateway.broker.redis.settings import RedisSettings
from gateway.domain.stream import HistoryRange, StreamOptions
from tests.support.black_hole import BlackHole, black_hole
from tests.support.redis_engines import QUICK, Received, Reports, publication, running_engine
from tests.support.redis_servers import RedisServer, redis_server
from tests.support.waiting import until

STREAM = PublishOptions(StreamOptions(size=100, ttl_s=60.0, meta_ttl_s=600.0))
ALL = HistoryRange(limit=-1)
# A busy machine must not look like a lost server.
PATIENT: dict[str, Any] = {"watchdog_interval_s": 0.4, "timeout_s": 10.0, "connect_timeout_s": 1.0}


class Scene(NamedTuple):
    server: RedisServer
    between: BlackHole
    engine: RedisEngine
    received: Received
    reports: Reports

    async def publish(self, channel: str, data: bytes, options: PublishOptions = STREAM) -> None:
        await self.engine.broker.publish(channel, publication(data), accepted_at_s=0.0, options=options).wait()

    async def subscribe(self, *channels: str) -> None:
        for outcome in [self.engine.broker.subscribe(channel) for channel in channels]:
            await outcome.wait()

    async def subscribed(self) -> set[bytes]:
        return set(await self.server.execute("PUBSUB", "CHANNELS", "gateway:*"))


async def set_scene(stack: AsyncExitStack, *, server: dict[str, Any] | None = None, **values: Any) -> Scene:
    """Start a server, a proxy before it, and an engine that works through it."""
    redis = await stack.enter_async_context(redis_server(**server or {}))
    between = await stack.enter_async_context(black_hole(redis.address))
    # A connection that the proxy is still taking would outlive it.
    stack.push_async_callback(until, lambda: not any("accept" in repr(task.get_coro()) for task in asyncio.all_tasks()))
    reports = Reports()
    settings = RedisSettings(address=between.location, **QUICK | PATIENT | values)
    engine = await stack.enter_async_context(running_engine(settings, report=reports))
    received = Received()
    engine.broker.start(received)
    return Scene(redis, between, engine, received, reports)


Heal = Callable[[], Awaitable[Any]]


async def crash(scene: Scene) -> Heal:
    scene.server.kill()
    return lambda: asyncio.to_thread(scene.server.restart, keep_data=True)


async def freeze(scene: Scene) -> Heal:
    scene.server.freeze()

    async def thaw() -> None:
        scene.server.thaw()

    return thaw


async def fall_silent(scene: Scene) -> Heal:
    scene.between.swallow()

    async def cut() -> None:
        scene.between.cut()

    return cut


async def drop_clients(scene: Scene) -> Heal:
    async with scene.server.client() as client:
        for kind in ("pubsub", "normal"):
            await client.execute_command("CLIENT", "KILL", "TYPE", kind)  # type: ignore[no-untyped-call]

    async def nothing() -> None:
        """They may come back at once."""

    return nothing


@pytest.mark.parametrize("fault", [crash, freeze, fall_silent, drop_clients])
async def test_after_an_outage_everything_is_as_before_and_the_subscribers_know(
    fault: Callable[[Scene], Awaitable[Heal]],
) -> None:
    async with AsyncExitStack() as stack:
        scene = await set_scene(stack, server={"persistent": True})
        await scene.subscribe("a", "b", "gone")
        await scene.publish("a", b"1")
        await until(lambda: len(scene.received.publications) == 1)
        scene.engine.broker.unsubscribe("gone")
        heal = await fault(scene)
        under_way = scene.engine.broker.publish("a", publication(b"lost"), accepted_at_s=0.0, options=STREAM)
        await until(lambda: bool(scene.reports.of("redis link lost")))
        await until(lambda: under_way.is_settled)
        during = scene.engine.broker.subscribe("c")
        assert not during.is_settled
        await heal()
        await during.wait()
        await until(lambda: scene.engine.trouble is None, str(scene.engine.trouble))
        await until(lambda: set(scene.received.resumed) == {"a", "b"})
        assert all(0 < interrupted_s < 15 for interrupted_s in scene.received.interrupted_s)
        names = {name.partition(b"}:")[2] for name in await scene.subscribed()}
        assert names == {b"a", b"b", b"c"}
        scene.received.publications.clear()
        for channel in ("a", "b", "c"):
            await scene.publish(channel, b"after")
        await until(lambda: {channel for channel, data in scene.received.publications if data == b"after"} == {*"abc"})
        assert (await scene.engine.broker.history("b", ALL, meta_ttl_s=60.0).wait()).position.offset == 1
        lost, restored = scene.reports.of("redis link lost"), scene.reports.of("redis link restored")
        assert {fields["link"] for fields in lost} >= {"publish", "subscribe"}
        assert {fields["link"] for fields in restored} >= {"publish", "subscribe"}
        assert all(fields["reason"].startswith(f"redis {scene.between.location}: ") for fields in lost)
        assert all(0 < fields["seconds"] < 15 for fields in restored)


async def test_a_link_that_has_fallen_silent_is_found_and_what_waits_fails() -> None:
    async with AsyncExitStack() as stack:
        scene = await set_scene(stack)
        await scene.subscribe("a")
        scene.between.swallow()
        publishing = scene.engine.broker.publish("a", publication(b"1"), accepted_at_s=0.0)
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        await until(lambda: publishing.is_settled)
        assert isinstance(publishing.error, BrokerError)
        await until(
            lambda: {fields["link"] for fields in scene.reports.of("redis link lost")} == {"publish", "subscribe"}
        )
        # Two probes find it; the bound is for a machine with other things to do.
        assert loop.time() - began_s < PATIENT["timeout_s"]
        assert all("no sign of life for" in each["reason"] for each in scene.reports.of("redis link lost")[:2])
        await until(lambda: "no answer in time" in str(scene.engine.trouble), str(scene.engine.trouble))


async def test_a_master_that_becomes_a_replica_is_left_until_it_is_one_again() -> None:
    async with AsyncExitStack() as stack:
        master = await stack.enter_async_context(redis_server())
        scene = await set_scene(stack)
        await scene.publish("a", b"1")
        await scene.server.execute("REPLICAOF", *master.address)
        # No publication is needed to find it out: a plain one would go to the replica's own subscribers in silence.
        await until(lambda: "it is a replica" in str(scene.engine.trouble), str(scene.engine.trouble))
        publishing = scene.engine.broker.publish("a", publication(b"2"), accepted_at_s=0.0)
        assert isinstance(publishing.error, BrokerError)
        await scene.server.execute("REPLICAOF", "NO", "ONE")
        await until(lambda: scene.engine.trouble is None, str(scene.engine.trouble))
        await scene.publish("a", b"3")


async def test_a_publication_that_a_replica_refuses_gives_the_link_up() -> None:
    async with AsyncExitStack() as stack:
        master = await stack.enter_async_context(redis_server())
        scene = await set_scene(stack, watchdog_interval_s=10.0)
        await scene.server.execute("REPLICAOF", *master.address)
        with pytest.raises(BrokerError, match="READONLY"):
            await scene.publish("a", b"1")
        await until(lambda: "replica" in str(scene.engine.trouble), str(scene.engine.trouble))


async def test_a_server_without_memory_refuses_streams_and_carries_the_rest() -> None:
    async with AsyncExitStack() as stack:
        scene = await set_scene(stack)
        await scene.subscribe("a")
        await scene.publish("a", b"1")
        await scene.server.execute("CONFIG", "SET", "maxmemory-policy", "noeviction", "maxmemory", "1mb")
        for _ in range(2):
            with pytest.raises(BrokerError, match="OOM"):
                await scene.publish("a", b"2")
        with pytest.raises(BrokerError, match="OOM"):
            await scene.publish("new", b"2")
        with pytest.raises(BrokerError, match="OOM"):
            await scene.publish("a", b"2", PublishOptions(idempotency_key="k"))
        await scene.publish("a", b"plain", PublishOptions())
        page = await scene.engine.broker.history("a", ALL, meta_ttl_s=60.0).wait()
        assert [bytes(each.data) for each in page.publications] == [b"1"]
        await scene.server.execute("CONFIG", "SET", "maxmemory", "0")
        await scene.publish("a", b"3", PublishOptions(STREAM.stream, idempotency_key="k"))
        await until(lambda: len(scene.received.publications) == 3)
        assert scene.received.publications == [("a", b"1"), ("a", b"plain"), ("a", b"3")]
        assert scene.received.offsets == [("a", 1), ("a", 0), ("a", 2)]
        assert set(scene.engine.counts.connects.values()) == {1}
        assert [fields["subject"] for fields in scene.reports.of("redis refused")] == ["a", "new"]


async def test_a_node_that_reads_too_slowly_for_redis_learns_that_it_has_missed_something() -> None:
    """Redis drops a subscriber whose output buffer is full; what it had not sent is gone."""
    async with AsyncExitStack() as stack:
        scene = await set_scene(stack, server={"config": {"client-output-buffer-limit": "pubsub 100kb 0 0"}})
        await scene.subscribe("a")
        async with scene.server.client() as client:
            name = next(iter(await scene.subscribed()))
            # One message beyond the limit: Redis closes the connection instead of sending it.
            await client.publish(name, b"p" + b"x" * 200_000)
        await until(lambda: scene.received.resumed == ["a"])
        assert [fields["link"] for fields in scene.reports.of("redis link lost")] == ["subscribe"]
        await scene.publish("a", b"1")
        await until(lambda: scene.received.publications == [("a", b"1")])


async def test_emptied_data_are_a_new_epoch_and_never_silent() -> None:
    async with AsyncExitStack() as stack:
        scene = await set_scene(stack)
        await scene.subscribe("a")
        await scene.publish("a", b"1")
        await scene.publish("a", b"2")
        await asyncio.to_thread(scene.server.restart, keep_data=False)
        await until(lambda: scene.received.resumed == ["a"])
        await until(lambda: scene.engine.trouble is None)
        await scene.publish("a", b"3")
        await until(lambda: len(scene.received.publications) == 3)
        assert scene.received.offsets == [("a", 1), ("a", 2), ("a", 1)]
        assert len(set(scene.received.epochs)) == 2


async def test_a_subscription_fails_if_the_outage_outlasts_its_patience_and_leaves_nothing() -> None:
    async with AsyncExitStack() as stack:
        scene = await set_scene(stack, timeout_s=0.3, unsubscribe_grace_s=0.01)
        scene.server.kill()
        outcome = scene.engine.broker.subscribe("a")
        await until(lambda: outcome.is_settled)
        assert isinstance(outcome.error, BrokerError)
        await asyncio.to_thread(scene.server.restart, keep_data=False)
        await until(lambda: scene.engine.trouble is None)
        await scene.subscribe("b")
        assert {name.partition(b"}:")[2] for name in await scene.subscribed()} == {b"b"}
        await scene.subscribe("a")
        await scene.publish("a", b"1")
        await until(lambda: scene.received.publications == [("a", b"1")])
