import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from gateway.broker.contract import BrokerError
from gateway.broker.outcome import Outcome
from gateway.broker.redis.counts import Journal, RedisCounts, Trouble
from gateway.broker.redis.endpoint import Endpoint
from gateway.broker.redis.reads import Reads
from gateway.broker.redis.scripts import Script
from gateway.broker.redis.settings import RedisSettings
from tests.support.redis_engines import QUICK, Reports
from tests.support.redis_servers import RedisServer, fresh_prefix, redis_server
from tests.support.waiting import until

PUSH = Script("return redis.call('RPUSH', KEYS[1], ARGV[1])")
LENGTH = Script("return redis.call('LLEN', KEYS[1])")


class Bench:
    def __init__(self, address: str, **settings: Any) -> None:
        self.reports = Reports()
        journal = Journal(self.reports)
        self.counts: RedisCounts = journal.counts
        chosen = RedisSettings(address=address, **QUICK | settings)
        self.reads = Reads(Endpoint(chosen), chosen, journal=journal)
        self.key = fresh_prefix().encode()

    def push(self, value: str, *, values: int = 1) -> Outcome[Any]:
        return self.reads.evaluate(PUSH, [self.key], [value], parse=as_it_is, values=values)


@asynccontextmanager
async def running(address: str, **settings: Any) -> AsyncIterator[Bench]:
    bench = Bench(address, **settings)
    task = asyncio.create_task(bench.reads.run())
    try:
        yield bench
    finally:
        bench.reads.stop()
        await task


@pytest.fixture
async def bench(shared_redis: RedisServer) -> AsyncIterator[Bench]:
    async with running(shared_redis.location) as bench:
        yield bench


def as_it_is(reply: Any) -> Any:
    return reply


async def test_the_requests_of_a_turn_are_one_pipeline_in_their_order(bench: Bench) -> None:
    outcomes = [bench.push(str(number)) for number in range(50)]
    outcomes += [
        bench.reads.call("LRANGE", bench.key, 0, 1, parse=as_it_is),
        bench.reads.evaluate(LENGTH, [bench.key], [], parse=as_it_is),
        bench.reads.call("HGETALL", b"none", parse=as_it_is),
        bench.reads.call("PING", parse=as_it_is),
    ]
    replies = [await outcome.wait() for outcome in outcomes]
    assert replies == [*range(1, 51), [b"0", b"1"], 50, [], b"PONG"], "replies are raw"
    assert (bench.counts.reads, bench.counts.read_batches) == (54, 1)


async def test_large_reads_go_in_pipelines_of_few(bench: Bench) -> None:
    outcomes = [bench.push("x", values=values) for values in (1, 1000, 400, 400, 400, 1)]
    assert [await outcome.wait() for outcome in outcomes] == [1, 2, 3, 4, 5, 6]
    assert bench.counts.read_batches == 3


async def test_a_server_that_forgets_its_scripts_is_no_trouble(bench: Bench, shared_redis: RedisServer) -> None:
    for number in range(1, 10, 2):
        first, second = bench.push("x"), bench.push("y")
        assert [await first.wait(), await second.wait()] == [number, number + 1]
        await shared_redis.execute("SCRIPT", "FLUSH")


async def test_an_error_fails_its_request_alone(bench: Bench) -> None:
    def refuse(_: Any) -> None:
        raise ValueError("not that")

    def refuse_knowingly(_: Any) -> None:
        raise BrokerError("not that either")

    outcomes = [
        bench.push("x"),
        bench.reads.call("HGET", bench.key, "field", parse=as_it_is),
        bench.reads.call("NONSENSE", parse=as_it_is),
        bench.reads.call("PING", parse=refuse),
        bench.reads.call("PING", parse=refuse_knowingly),
        bench.push("y"),
    ]
    await until(lambda: all(outcome.is_settled for outcome in outcomes))
    errors = [str(outcome.error) for outcome in outcomes]
    assert errors[1] == "WRONGTYPE Operation against a key holding the wrong kind of value"
    assert "unknown command" in errors[2]
    assert errors[3:5] == ["a reply that makes no sense: not that", "not that either"]
    assert [errors[0], errors[5]] == ["None", "None"]
    assert all(isinstance(outcome.error, BrokerError) for outcome in outcomes[1:5])
    assert bench.counts.refused == 2
    assert [fields["error"] for fields in bench.reports.of("redis refused")] == [errors[1]]
    assert bench.reads.trouble is None


async def kill(server: RedisServer) -> Callable[[], None]:
    server.kill()
    return lambda: server.restart(keep_data=False)


async def freeze(server: RedisServer) -> Callable[[], None]:
    server.freeze()
    return server.thaw


@pytest.mark.parametrize(("fault", "reason"), [(kill, "connection refused"), (freeze, "no answer in time")])
async def test_a_server_that_is_away_fails_what_is_asked_and_is_noticed_when_it_is_back(
    fault: Any, reason: str
) -> None:
    async with redis_server() as server, running(server.location, timeout_s=0.1) as bench:
        assert await bench.push("x").wait() == 1
        heal = await fault(server)
        outcomes = [bench.push("x", values=1000) for _ in range(5)]
        await until(lambda: all(outcome.is_settled for outcome in outcomes))
        assert all(isinstance(outcome.error, BrokerError) for outcome in outcomes)
        await until(lambda: bench.reads.trouble == f"redis {server.location}: {reason}", str(bench.reads.trouble))
        heal()
        await until(lambda: bench.reads.trouble is None, "it is noticed without a request")
        assert await bench.push("x").wait() >= 1
        assert [fields["link"] for fields in bench.reports.of("redis link restored")] == ["read"]


async def test_who_has_waited_too_long_in_the_queue_is_not_asked_for_any_more() -> None:
    async with redis_server() as server, running(server.location, timeout_s=0.05) as bench:
        assert await bench.push("x").wait() == 1
        server.freeze()
        outcomes = [bench.push("x", values=1000) for _ in range(50)]
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        await until(lambda: all(outcome.is_settled for outcome in outcomes))
        assert loop.time() - began_s < 50 * 0.05, "they did not wait one behind the other"
        server.thaw()


async def test_a_full_queue_refuses_at_once(bench: Bench) -> None:
    small = Bench("127.0.0.1:1", queue_max_size=100)
    first, second, third = small.push("x" * 1000), small.push("y"), small.push("z" * 90)
    assert [first.is_settled, second.error is not None, third.error is not None] == [False, True, True]
    assert str(second.error) == "too much waits for Redis to answer"
    small.reads.stop()
    assert str(first.error) == "the broker is not running"
    assert bench.reads.trouble is None


async def test_stopping_fails_what_waits_and_what_comes_later() -> None:
    async with redis_server() as server:
        bench = Bench(server.location, timeout_s=10.0)
        task = asyncio.create_task(bench.reads.run())
        assert await bench.push("x").wait() == 1
        server.freeze()
        under_way = bench.push("x", values=1000)
        waiting = bench.push("x")
        for _ in range(5):
            await asyncio.sleep(0)
        bench.reads.stop()
        bench.reads.stop()
        late = bench.push("x")
        await task
        assert [str(each.error) for each in (under_way, waiting, late)] == ["the broker is not running"] * 3


async def test_a_cancel_ends_it_and_fails_what_was_under_way() -> None:
    async with redis_server() as server:
        bench = Bench(server.location, timeout_s=10.0)
        task = asyncio.create_task(bench.reads.run())
        server.freeze()
        under_way = bench.push("x")
        for _ in range(5):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert str(under_way.error) == "the broker is not running"


async def test_a_link_is_lost_once_however_often_it_can_not_be_had_again() -> None:
    async with redis_server() as server, running(server.location) as bench:
        await bench.push("1").wait()
        await asyncio.to_thread(server.kill)
        with pytest.raises(BrokerError):
            await bench.push("2").wait()
        await until(lambda: bench.counts.errors["read", Trouble.UNREACHABLE] >= 2, "it has tried again, twice")
        assert bench.counts.errors["read", Trouble.LOST] == 1
