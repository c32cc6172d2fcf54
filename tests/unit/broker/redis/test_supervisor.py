import asyncio
import random
import time
from itertools import islice

import hypothesis
from hypothesis import strategies as st

from gateway.broker.redis.counts import Journal
from gateway.broker.redis.endpoint import Endpoint
from gateway.broker.redis.settings import RedisSettings
from gateway.broker.redis.subscriber import Subscriber
from gateway.broker.redis.supervisor import backoff
from tests.support.redis_engines import Reports
from tests.support.waiting import until


class Bounds(random.Random):
    """Randomness that remembers its bounds and always draws the lower."""

    def __init__(self) -> None:
        super().__init__()
        self.drawn: list[tuple[float, float]] = []

    def uniform(self, a: float, b: float) -> float:
        self.drawn.append((a, b))
        return a


def test_waits_are_random_below_a_bound_that_doubles_up_to_the_limit() -> None:
    bounds = Bounds()
    settings = RedisSettings(reconnect_min_delay_s=0.05, reconnect_max_delay_s=0.5)
    assert list(islice(backoff(settings, bounds), 6)) == [0.0] * 6
    assert bounds.drawn == [(0, 0.05), (0, 0.1), (0, 0.2), (0, 0.4), (0, 0.5), (0, 0.5)]


@hypothesis.given(seed=st.integers())
def test_a_wait_is_within_its_bounds(seed: int) -> None:
    waits = list(islice(backoff(RedisSettings(), random.Random(seed)), 20))
    assert all(0 <= wait_s <= min(0.05 * 2**number, 5.0) for number, wait_s in enumerate(waits))


async def test_a_server_that_takes_connections_and_drops_them_is_asked_ever_less_often() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)
        writer.write(b"+OK\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    bounds, reports = Bounds(), Reports()
    settings = RedisSettings(address=f"{host}:{port}")
    journal = Journal(reports)
    subscriber = Subscriber(Endpoint(settings), settings, journal=journal, rng=bounds)
    running = asyncio.create_task(subscriber.run())
    await until(lambda: len(bounds.drawn) >= 8)
    subscriber.stop()
    await running
    server.close()
    await server.wait_closed()
    assert [bound for _, bound in bounds.drawn][:8] == [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0]
    assert journal.counts.connects["subscribe"] >= 7, "they did come up"
    closed = {"link": "subscribe", "reason": f"redis {host}:{port}: the server closed the connection"}
    assert reports.of("redis link lost")[0] == closed
    assert subscriber.trouble == f"redis {host}:{port}: stopped"


async def test_the_same_trouble_is_told_once_however_often_it_is_tried() -> None:
    bounds, reports = Bounds(), Reports()
    settings = RedisSettings(address="127.0.0.1:1")
    subscriber = Subscriber(Endpoint(settings), settings, journal=Journal(reports), rng=bounds)
    running = asyncio.create_task(subscriber.run())
    await until(lambda: len(bounds.drawn) >= 5)
    subscriber.stop()
    await running
    reason = "redis 127.0.0.1:1: connection refused"
    assert reports.lines == [("redis link lost", {"link": "subscribe", "reason": reason})]


async def test_a_process_that_was_held_up_itself_does_not_blame_the_server() -> None:
    """Replies that came in time may not have been read yet when the tick comes late."""
    ahead_s, probes, answer = 0.0, 0, asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal probes
        while data := await reader.read(1000):
            if b"SETNAME" in data:
                writer.write(b"+OK\r\n")
                continue
            probes += 1
            await answer.wait()
            writer.write(b"+PONG\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    reports, settings = Reports(), RedisSettings(address=f"{host}:{port}", watchdog_interval_s=0.2)
    journal = Journal(reports)
    subscriber = Subscriber(Endpoint(settings), settings, journal=journal, monotonic=lambda: time.monotonic() + ahead_s)
    running = asyncio.create_task(subscriber.run())
    await until(lambda: probes == 1)
    ahead_s += 100.0
    sent = journal.counts.bytes_out
    await until(lambda: journal.counts.bytes_out > sent, "the late tick sends another probe")
    answer.set()
    await until(lambda: probes >= 4)
    subscriber.stop()
    await running
    server.close()
    await server.wait_closed()
    assert reports.lines == []
    assert journal.counts.connects["subscribe"] == 1
