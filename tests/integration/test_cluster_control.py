"""Three nodes that are one system over a real Redis."""

import asyncio
import contextlib
import io
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from gateway.broker.contract import BrokerError
from gateway.broker.redis.engine import RedisEngine
from gateway.broker.redis.settings import RedisSettings
from gateway.messaging.cluster import Cluster, ClusterSettings
from gateway.messaging.control import DisconnectUser, Order, RefreshUser, SubscribeUser, UnsubscribeUser
from gateway.messaging.survey import ActiveChannels, ConnectedClients
from gateway.observability.logs import Format, LogSettings, make_logger
from gateway.protocol.messages import ClientInfo, Join, Leave, Publication
from tests.support.local_sessions import FakeSessions, Someone
from tests.support.redis_servers import RedisServer, redis_server
from tests.support.waiting import PATIENCE_S, until

ANN = Someone("ann", "c1", "s1", ("news", "room:1"))
BOB = Someone("bob", "c2", "s2", ("news",))
CAT = Someone("cat", "c3", "s3", ("news", "room:2"))
# Announcements this far apart can't be missed three times on a busy machine; a survey of the living ends by itself.
SETTINGS = ClusterSettings(announce_interval_s=2.0, survey_timeout_s=5.0)
IMPATIENT = ClusterSettings(announce_interval_s=2.0, survey_timeout_s=1.0)


class Deaf:
    """A receiver of an engine whose channels nobody uses."""

    def receive(self, channel: str, publication: Publication, epoch: str, accepted_at_s: float | None) -> None:
        raise AssertionError(f"nobody publishes here: {channel} {publication} {epoch} {accepted_at_s}")

    def receive_event(self, channel: str, event: Join | Leave) -> None:
        raise AssertionError(f"nobody joins here: {channel} {event}")

    def resume(self, channels: object, *, interrupted_s: float) -> None:
        raise AssertionError(f"no channel is subscribed here: {channels} {interrupted_s}")


class Member:
    """A node that runs, as far as the others notice."""

    def __init__(self, server: RedisServer, name: str, settings: ClusterSettings, *present: Someone) -> None:
        redis = RedisSettings(address=server.location, reconnect_max_delay_s=0.1)
        self.engine = RedisEngine(redis, node_id=f"uid {name}")
        self.sessions = FakeSessions(*present)
        log = make_logger(LogSettings(format=Format.JSON), node=name, stream=io.StringIO())
        self.cluster = Cluster(self.engine.control, self.sessions, settings, name=name, version="1.0", log=log)
        self.engine.broker.start(Deaf())
        self.cluster.start()
        self._tasks = [
            asyncio.create_task(self.engine.run(), name=f"engine of {name}"),
            asyncio.create_task(self.cluster.run(), name=f"cluster of {name}"),
        ]

    def knows(self) -> list[str]:
        return [node.name for node in self.cluster.info()]

    async def die(self) -> None:
        """Go without a goodbye."""
        await self.engine.stop()
        await self.stop()

    async def stop(self) -> None:
        """Say goodbye and go; a second time does nothing."""
        self.cluster.stop()
        await self._tasks[1]
        await self.engine.stop()
        await self._tasks[0]


@asynccontextmanager
async def member(server: RedisServer, name: str, settings: ClusterSettings, *present: Someone) -> AsyncIterator[Member]:
    member = Member(server, name, settings, *present)
    try:
        yield member
    finally:
        await member.stop()


@pytest.fixture
async def server() -> AsyncIterator[RedisServer]:
    async with redis_server() as server:
        yield server


@pytest.fixture
async def members(server: RedisServer) -> AsyncIterator[list[Member]]:
    """Three nodes that know each other."""
    async with AsyncExitStack() as stack:
        places = [("a", SETTINGS, ANN), ("b", IMPATIENT, BOB), ("c", SETTINGS, CAT)]
        members = [await stack.enter_async_context(member(server, *each)) for each in places]
        await all_known(members)
        yield members


async def all_known(members: list[Member]) -> None:
    await until(lambda: all(each.knows() == ["a", "b", "c"] for each in members), "that all know each other")


async def test_all_is_asked_and_done_everywhere(members: list[Member]) -> None:
    a, b, c = members
    assert await b.cluster.channels("*") == ActiveChannels({"news": 3, "room:1": 1, "room:2": 1}, [])
    everybody = {each.client: ClientInfo(each.user, each.client) for each in (ANN, BOB, CAT)}
    assert await c.cluster.clients("news") == ConnectedClients(everybody, [])
    orders: list[Order] = [
        DisconnectUser("cat", whitelist=("other",)),
        UnsubscribeUser("cat", channel="news"),
        SubscribeUser("cat", channel="new", info=b"\x00\xff"),
        RefreshUser("cat", expires_at_s=1_700_000_000),
    ]
    for order in orders:
        await a.cluster.carry_out(order)
    await until(lambda: len(b.sessions.orders) == len(c.sessions.orders) == 4, "the orders")
    assert [each.sessions.orders for each in members] == [orders, orders, orders]
    assert [each.sessions.concerned for each in members] == [[[]] * 4, [[]] * 4, [["c3"]] * 4]


async def test_a_node_that_dies_silently_is_named_by_a_survey(members: list[Member]) -> None:
    _, b, c = members
    dead = b.cluster.info()[2]
    await c.die()
    found = await b.cluster.channels("*")
    assert found.channels == {"news": 2, "room:1": 1}
    assert [node.uid for node in found.silent] == [dead.uid]


async def test_a_node_that_leaves_is_forgotten_by_all(members: list[Member]) -> None:
    a, b, c = members
    await c.stop()
    await until(lambda: a.knows() == b.knows() == ["a", "b"], "the goodbye")
    assert await a.cluster.channels("room:*") == ActiveChannels({"room:1": 1}, [])


async def test_after_an_outage_of_redis_all_are_one_system_again(members: list[Member], server: RedisServer) -> None:
    a, b, c = members
    server.kill()
    await until(lambda: a.engine.trouble is not None, "the outage")
    with pytest.raises(BrokerError):
        await a.cluster.carry_out(DisconnectUser("bob"))
    assert a.sessions.orders == [DisconnectUser("bob")]
    partial = await a.cluster.channels("*")
    assert partial.channels == {"news": 1, "room:1": 1}
    assert [node.name for node in partial.silent] == ["b", "c"]
    await asyncio.to_thread(server.restart, keep_data=False)
    await until(lambda: all(each.engine.trouble is None for each in members), "the end of the outage")
    await all_known(members)
    # Messages may still be lost while the last subscriptions come back.
    async with asyncio.timeout(PATIENCE_S):
        while not all(RefreshUser("ann") in each.sessions.orders for each in (b, c)):
            with contextlib.suppress(BrokerError):
                await a.cluster.carry_out(RefreshUser("ann"))
            await asyncio.sleep(0.01)
        while (found := await b.cluster.channels("news")).silent:
            pass
    assert found.channels == {"news": 3}
