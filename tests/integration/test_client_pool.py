"""The pool against a real node: lent once at a time, replaced when dead, left without a trace."""

import asyncio
import itertools
import random
from collections.abc import Iterator

import jwt
import pytest

from gateway.client import (
    Backoff,
    Client,
    ClientError,
    ClientSettings,
    ClosedError,
    DisconnectedError,
    InvalidArgumentError,
    Pool,
    PoolSettings,
    PoolTimeoutError,
    State,
    UnauthorizedError,
)
from tests.support.nodes import RunningNode, running_node
from tests.support.waiting import until

QUICK = ClientSettings(backoff=Backoff(base_s=0.01, cap_s=0.05))


def make(node: RunningNode, size: int) -> Pool:
    return Pool(node.client_url, settings=PoolSettings(size=size), client_settings=QUICK)


async def test_a_thousand_borrowers_are_all_served_while_connections_are_killed_at_random(node: RunningNode) -> None:
    chance = random.Random(5)
    in_use: set[Client] = set()
    outcomes: list[str] = []

    async def borrow(pool: Pool, number: int) -> None:
        async with pool.connection() as connection:
            assert connection not in in_use, "two have the same connection"
            in_use.add(connection)
            try:
                await connection.publish("news", number)
                outcomes.append("published")
            except DisconnectedError:
                outcomes.append("killed")
            finally:
                in_use.remove(connection)

    async def kill() -> None:
        while True:
            await asyncio.sleep(0.005)
            if in_use:
                chance.choice(sorted(in_use, key=id)).abort()

    async with make(node, 8) as pool, asyncio.TaskGroup() as tasks:
        killing = tasks.create_task(kill(), name="killer")
        async with asyncio.TaskGroup() as borrowing:
            for number in range(1000):
                borrowing.create_task(borrow(pool, number), name=f"borrower {number}")
        killing.cancel()
        statistics = pool.statistics
        assert (statistics.in_use, statistics.waiting) == (0, 0)
        assert statistics.idle + statistics.opening <= 16
        assert outcomes.count("published") + outcomes.count("killed") == 1000
        assert outcomes.count("published") > 500
        await until(lambda: pool.statistics.replaced >= outcomes.count("killed") > 0)
    await until(lambda: len(node.node.connections) == 0)


async def test_those_who_wait_are_served_in_their_order_and_lose_nothing_when_they_give_up(node: RunningNode) -> None:
    served: list[int] = []

    async def borrow(pool: Pool, number: int) -> None:
        async with pool.connection():
            served.append(number)

    async with make(node, 1) as pool:
        held = [await pool.acquire(), await pool.acquire()]
        waiting = [asyncio.create_task(borrow(pool, number), name=f"borrower {number}") for number in range(10)]
        await until(lambda: pool.statistics.waiting == 10)
        for each in waiting[1::3]:
            each.cancel()
        await until(lambda: pool.statistics.waiting == 7)
        for connection in held:
            pool.release(connection)
        await asyncio.gather(*waiting, return_exceptions=True)
        assert served == [0, 2, 3, 5, 6, 8, 9]
        assert (pool.statistics.idle, pool.statistics.overflow) == (2, 1)
        # The ten, the one that the second connection was opened for, and the first if that was still being opened.
        assert pool.statistics.waits in {11, 12}


async def test_waiting_has_an_end(node: RunningNode) -> None:
    async with make(node, 1) as pool:
        held = [await pool.acquire(), await pool.acquire()]
        with pytest.raises(PoolTimeoutError, match=r"within 0\.02 s \(2 in use"):
            await pool.acquire(0.02)
        assert pool.statistics.waiting == 0
        for connection in held:
            pool.release(connection)


async def test_a_connection_comes_back_without_its_subscriptions(node: RunningNode) -> None:
    async with make(node, 1) as pool:
        async with pool.connection() as connection:
            subscription = connection.subscribe("news")
            await subscription.confirmed()
        assert [each async for each in subscription] == []
        async with pool.connection() as same:
            assert same is connection
            async with same.subscribe("news") as again:
                await pool.publish("news", 1)
                assert (await anext(again)).json() == 1


async def test_a_pool_without_a_server_waits_and_begins_when_there_is_one() -> None:
    async with Pool("ws://127.0.0.1:1/x", settings=PoolSettings(size=2), client_settings=QUICK) as pool:
        with pytest.raises(PoolTimeoutError):
            await pool.publish("news", 1, timeout_s=0.1)
    addresses = ["ws://127.0.0.1:1/x"]
    async with running_node() as node:
        addresses.append(node.client_url)
        # A connection of the pool tries one address, so every second one fails.
        async with Pool(addresses[::-1], settings=PoolSettings(size=2), client_settings=QUICK) as pool:
            await pool.publish("news", 1)


async def test_a_pool_that_is_not_let_in_says_so() -> None:
    async with running_node({"client": {"allow_anonymous_connect_without_token": False}}) as node:
        bad = jwt.encode({"sub": "ann"}, "another secret, 32 bytes or more, too", "HS256")
        async with Pool(node.client_url, token=bad, settings=PoolSettings(size=2)) as pool:
            with pytest.raises(UnauthorizedError):
                await pool.acquire()
            with pytest.raises(UnauthorizedError):
                await pool.publish("news", 1)


async def test_a_pool_that_is_not_open_lends_nothing(node: RunningNode) -> None:
    pool = make(node, 1)
    with pytest.raises(ClosedError):
        await pool.acquire()
    async with pool:
        connection = await pool.acquire()
        with pytest.raises(InvalidArgumentError):
            await pool.__aenter__()
    assert connection.state is State.CLOSED
    pool.release(connection)
    with pytest.raises(ClosedError):
        await pool.acquire()


async def test_arguments_that_cannot_work_are_refused_when_it_is_made() -> None:
    with pytest.raises(InvalidArgumentError):
        Pool("http://example.com")


async def test_nothing_is_left_behind_whenever_it_is_closed(node: RunningNode) -> None:
    before = asyncio.all_tasks()
    for turns in turn_counts():
        async with make(node, 2) as pool:
            asking = asyncio.create_task(pool.acquire(), name="asker")
            for _ in range(turns):
                await asyncio.sleep(0)
        outcome = (await asyncio.gather(asking, return_exceptions=True))[0]
        assert isinstance(outcome, Client | ClientError)
        assert asyncio.all_tasks() == before
    await until(lambda: len(node.node.connections) == 0)


def turn_counts() -> Iterator[int]:
    return itertools.chain(range(15), range(15, 60, 5))
