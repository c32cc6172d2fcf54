"""What `gateway.broker.contract` promises, kept by every broker: one suite, one list of factories."""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import NamedTuple

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.broker.contract import Broker, BrokerError, Published, PublishOptions
from gateway.broker.memory.broker import MemoryBroker
from gateway.broker.redis.settings import RedisSettings
from gateway.domain.stream import HistoryRange, StreamOptions, StreamPage
from gateway.domain.windows import Deviation, Sample, WindowOptions
from gateway.protocol.messages import ClientInfo, Join, Leave, PatchablePublication, Publication, StreamPosition
from tests.support.redis_engines import running_engine
from tests.support.redis_servers import RedisServer, fresh_prefix

DEADLINE_S = 10.0


class Recorder:
    """A receiver that remembers, and wakes whoever waits for a number of publications."""

    def __init__(self) -> None:
        self.received: list[tuple[str, bytes]] = []
        self.publications: list[Publication] = []
        self.epochs: list[str] = []
        self.accepted_at_s: list[float | None] = []
        self.events: list[tuple[str, Join | Leave]] = []
        self._arrived = asyncio.Event()

    def receive(self, channel: str, publication: Publication, epoch: str, accepted_at_s: float | None) -> None:
        self.received.append((channel, bytes(publication.data)))
        self.publications.append(publication)
        self.epochs.append(epoch)
        self.accepted_at_s.append(accepted_at_s)
        self._arrived.set()

    def receive_event(self, channel: str, event: Join | Leave) -> None:
        self.events.append((channel, event))

    def resume(self, channels: Sequence[str], *, interrupted_s: float) -> None:
        raise AssertionError(f"{channels} were interrupted for {interrupted_s} s")

    async def wait_for(self, count: int) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while len(self.received) < count:
                self._arrived.clear()
                await self._arrived.wait()


Advance = Callable[[float], Awaitable[None]]


class Bench:
    """A started broker, its receiver, and a way to let time pass for both."""

    def __init__(self, broker: Broker, advance: Advance) -> None:
        self.broker = broker
        self.advance = advance
        self.receiver = Recorder()
        broker.start(self.receiver)

    async def publish(self, channel: str, *payloads: bytes) -> None:
        outcomes = [self.broker.publish(channel, publication(data), accepted_at_s=1.0) for data in payloads]
        for outcome in outcomes:
            assert isinstance(await outcome.wait(), Published)

    async def subscribe(self, channel: str) -> None:
        await self.broker.subscribe(channel).wait()

    async def unsubscribe(self, channel: str) -> None:
        await self.broker.unsubscribe(channel).wait()


def publication(data: bytes) -> Publication:
    return Publication(data=msgspec.Raw(data))


@asynccontextmanager
async def memory_bench(_: RedisServer) -> AsyncIterator[Bench]:
    ahead_s = 0.0

    async def advance(seconds: float) -> None:
        nonlocal ahead_s
        ahead_s += seconds

    bench = Bench(MemoryBroker(monotonic=lambda: time.monotonic() + ahead_s), advance)
    yield bench
    await bench.broker.stop()


@asynccontextmanager
async def redis_bench(server: RedisServer) -> AsyncIterator[Bench]:
    prefix = fresh_prefix()

    async def advance(seconds: float) -> None:
        await server.advance(seconds, f"{prefix}:")

    async with running_engine(RedisSettings(address=server.location, prefix=prefix)) as engine:
        yield Bench(engine.broker, advance)


FACTORIES: dict[str, Callable[[RedisServer], AbstractAsyncContextManager[Bench]]] = {
    "memory": memory_bench,
    "redis": redis_bench,
}


@pytest.fixture(params=FACTORIES)
async def bench(request: pytest.FixtureRequest, shared_redis: RedisServer) -> AsyncIterator[Bench]:
    async with FACTORIES[request.param](shared_redis) as bench:
        yield bench


async def test_what_is_published_after_the_confirmation_arrives(bench: Bench) -> None:
    await bench.subscribe("a")
    await bench.publish("a", b"1")
    await bench.receiver.wait_for(1)
    assert bench.receiver.received == [("a", b"1")]


async def test_other_channels_do_not_arrive(bench: Bench) -> None:
    await bench.subscribe("a")
    await bench.publish("b", b"1")
    await bench.publish("a", b"2")
    await bench.receiver.wait_for(1)
    assert bench.receiver.received == [("a", b"2")]


async def test_publishing_into_a_channel_that_nobody_wants_succeeds(bench: Bench) -> None:
    await bench.publish("a", b"1")
    assert bench.receiver.received == []


async def test_a_channel_keeps_the_order_in_which_one_node_publishes(bench: Bench) -> None:
    payloads = [b"%d" % number for number in range(200)]
    await bench.subscribe("a")
    await bench.publish("a", *payloads)
    await bench.receiver.wait_for(len(payloads))
    assert bench.receiver.received == [("a", payload) for payload in payloads]


async def test_a_publication_arrives_whole(bench: Bench) -> None:
    info = ClientInfo("42", "client", msgspec.Raw(b'{"n": 1}'), msgspec.Raw(b"[1.0]"))
    sent = Publication(data=msgspec.Raw(b'{"t": "<b>&\xc3\xa9"  , "n":1.0}'), info=info, tags={"k": "v"})
    await bench.subscribe("a")
    before_s = time.monotonic()
    await bench.broker.publish("a", sent, accepted_at_s=before_s).wait()
    await bench.receiver.wait_for(1)
    assert [msgspec.json.encode(each) for each in bench.receiver.publications] == [msgspec.json.encode(sent)]
    assert bench.receiver.accepted_at_s == [before_s]


@pytest.mark.parametrize("data", [b"", b"\x00\xff\xfe", b"x" * 100_000], ids=["empty", "binary", "large"])
async def test_any_bytes_are_carried(bench: Bench, data: bytes) -> None:
    await bench.subscribe("a")
    await bench.publish("a", data)
    await bench.receiver.wait_for(1)
    assert bench.receiver.received == [("a", data)]


@pytest.mark.parametrize("name", ["}x{", "a b", "é", "$a:b#c", "x" * 255, "*"])
async def test_any_channel_name_is_carried_and_is_no_pattern(bench: Bench, name: str) -> None:
    await bench.subscribe(name)
    await bench.publish("other", b"0")
    await bench.publish(name, b"1")
    await bench.receiver.wait_for(1)
    assert bench.receiver.received == [(name, b"1")]


async def test_nothing_arrives_after_the_unsubscribe(bench: Bench) -> None:
    await bench.subscribe("a")
    await bench.subscribe("b")
    await bench.unsubscribe("a")
    await bench.publish("a", b"1")
    await bench.publish("b", b"2")
    await bench.receiver.wait_for(1)
    assert bench.receiver.received == [("b", b"2")]


async def test_a_subscribe_right_behind_an_unsubscribe_wins(bench: Bench) -> None:
    await bench.subscribe("a")
    unsubscribed = bench.broker.unsubscribe("a")
    subscribed = bench.broker.subscribe("a")
    await unsubscribed.wait()
    await subscribed.wait()
    await bench.publish("a", b"1")
    await bench.receiver.wait_for(1)
    assert bench.receiver.received == [("a", b"1")]


async def test_an_unsubscribe_right_behind_a_subscribe_wins(bench: Bench) -> None:
    subscribed = bench.broker.subscribe("a")
    unsubscribed = bench.broker.unsubscribe("a")
    await subscribed.wait()
    await unsubscribed.wait()
    await bench.subscribe("b")
    await bench.publish("a", b"1")
    await bench.publish("b", b"2")
    await bench.receiver.wait_for(1)
    assert bench.receiver.received == [("b", b"2")]


async def test_a_stopped_broker_fails_what_it_is_asked_and_hands_over_nothing(bench: Bench) -> None:
    await bench.subscribe("a")
    await bench.broker.stop()
    with pytest.raises(BrokerError):
        await bench.publish("a", b"1")
    with pytest.raises(BrokerError):
        await bench.subscribe("b")
    assert bench.receiver.received == []


async def test_stopping_twice_is_stopping_once(bench: Bench) -> None:
    await bench.broker.stop()
    await bench.broker.stop()
    with pytest.raises(BrokerError):
        await bench.subscribe("a")


# Streams.

STREAM = PublishOptions(stream=StreamOptions(size=5, ttl_s=300.0, meta_ttl_s=600.0))
ALL = HistoryRange(limit=-1)


async def append(bench: Bench, *payloads: bytes, options: PublishOptions = STREAM) -> list[Published]:
    outcomes = [bench.broker.publish("a", publication(data), accepted_at_s=1.0, options=options) for data in payloads]
    return [await outcome.wait() for outcome in outcomes]


async def history(bench: Bench, wanted: HistoryRange = ALL) -> StreamPage:
    return await bench.broker.history("a", wanted, meta_ttl_s=600.0).wait()


def payloads(page: StreamPage) -> list[tuple[int, bytes]]:
    return [(each.offset, bytes(each.data)) for each in page.publications]


async def test_an_unknown_stream_gets_an_epoch_and_keeps_it(bench: Bench) -> None:
    page = await history(bench)
    assert page.publications == []
    assert page.position.offset == 0
    assert page.position.epoch.isalpha()
    assert (await history(bench)).position == page.position
    [first] = await append(bench, b"1")
    assert first == Published(StreamPosition(1, page.position.epoch))


async def test_offsets_are_delivered_kept_and_told_to_the_publisher_alike(bench: Bench) -> None:
    await bench.subscribe("a")
    results = await append(bench, b"1", b"2", b"3")
    await bench.receiver.wait_for(3)
    page = await history(bench)
    epoch = page.position.epoch
    assert [result.position for result in results] == [StreamPosition(n, epoch) for n in (1, 2, 3)]
    delivered = [(each.offset, bytes(each.data), each.epoch) for each in bench.receiver.publications]
    assert delivered == [(1, b"1", epoch), (2, b"2", ""), (3, b"3", "")]
    assert payloads(page) == [(1, b"1"), (2, b"2"), (3, b"3")]
    assert page.position == StreamPosition(3, epoch)


async def test_a_stream_keeps_its_last_publications(bench: Bench) -> None:
    await append(bench, *[b"%d" % number for number in range(1, 10)])
    assert payloads(await history(bench)) == [(n, b"%d" % n) for n in (5, 6, 7, 8, 9)]
    assert payloads(await history(bench, HistoryRange(limit=2, is_reverse=True))) == [(9, b"9"), (8, b"8")]
    since_seven = HistoryRange(limit=-1, since=StreamPosition(7, ""))
    assert payloads(await history(bench, since_seven)) == [(8, b"8"), (9, b"9")]


async def test_what_is_published_without_history_has_no_offset_and_moves_nothing(bench: Bench) -> None:
    await bench.subscribe("a")
    await append(bench, b"1")
    await bench.publish("a", b"beside")
    await append(bench, b"2")
    await bench.receiver.wait_for(3)
    epoch = (await history(bench)).position.epoch
    delivered = [(each.offset, bytes(each.data)) for each in bench.receiver.publications]
    assert delivered == [(1, b"1"), (0, b"beside"), (2, b"2")]
    assert bench.receiver.epochs == [epoch, "", epoch]
    assert payloads(await history(bench)) == [(1, b"1"), (2, b"2")]


async def test_removing_history_keeps_the_position(bench: Bench) -> None:
    await append(bench, b"1", b"2")
    before = (await history(bench)).position
    await bench.broker.remove_history("a").wait()
    assert (await history(bench)) == StreamPage([], before)
    await append(bench, b"3")
    assert payloads(await history(bench)) == [(3, b"3")]


async def test_removing_an_unknown_history_is_a_success(bench: Bench) -> None:
    outcome = bench.broker.remove_history("nobody")
    await outcome.wait()
    assert outcome.error is None


async def test_a_repeated_key_publishes_nothing_and_gets_the_first_result(bench: Bench) -> None:
    await bench.subscribe("a")
    once = PublishOptions(stream=STREAM.stream, idempotency_key="k")
    [first, repeat] = await append(bench, b"1", b"2", options=once)
    await append(bench, b"3")
    await bench.receiver.wait_for(2)
    assert repeat == Published(first.position, is_suppressed=True)
    assert payloads(await history(bench)) == [(1, b"1"), (2, b"3")]
    assert [data for _, data in bench.receiver.received] == [b"1", b"3"]


async def test_a_key_counts_for_its_channel_alone(bench: Bench) -> None:
    options = PublishOptions(idempotency_key="k")
    for channel in ("a", "b"):
        result = await bench.broker.publish(channel, publication(b"1"), accepted_at_s=1.0, options=options).wait()
        assert not result.is_suppressed


@pytest.mark.parametrize("make", [Publication, PatchablePublication])
@pytest.mark.parametrize("stream", [None, STREAM.stream])
async def test_what_may_be_sent_as_a_patch_stays_so(
    bench: Bench, make: type[Publication], stream: StreamOptions | None
) -> None:
    await bench.subscribe("a")
    options = PublishOptions(stream=stream)
    await bench.broker.publish("a", make(data=msgspec.Raw(b"1")), accepted_at_s=1.0, options=options).wait()
    await bench.receiver.wait_for(1)
    found = bench.receiver.publications
    if stream is not None:
        found = found + (await bench.broker.history("a", HistoryRange(limit=1), meta_ttl_s=60.0).wait()).publications
    assert {type(each) for each in found} == {make}


async def test_a_version_that_comes_too_late_is_dropped(bench: Bench) -> None:
    await bench.subscribe("a")

    async def publish(version: int, epoch: str = "") -> Published:
        versioned = Publication(data=msgspec.Raw(b"%d" % version), version=version)
        options = PublishOptions(stream=STREAM.stream, version_epoch=epoch)
        return await bench.broker.publish("a", versioned, accepted_at_s=1.0, options=options).wait()

    # Nanoseconds: neighbours that a double can't tell apart.
    assert not (await publish(1795206807660453001)).is_suppressed
    late = await publish(1795206807660453000)
    assert late.is_suppressed
    assert late.is_outdated
    assert late.position is not None
    assert late.position.offset == 1
    assert (await publish(1795206807660453001)).is_suppressed
    assert not (await publish(1795206807660453002)).is_suppressed
    assert not (await publish(7, "another epoch")).is_suppressed
    await bench.receiver.wait_for(3)
    assert [each.offset for each in bench.receiver.publications] == [1, 2, 3]


async def test_publications_go_first_and_the_position_goes_with_its_meta(bench: Bench) -> None:
    [first] = await append(bench, b"1")
    assert first.position is not None
    await bench.advance(299.0)
    assert payloads(await history(bench)) == [(1, b"1")]
    await bench.advance(2.0)
    assert await history(bench) == StreamPage([], first.position)
    await bench.advance(599.0)
    assert await history(bench) == StreamPage([], first.position), "a read keeps the position"
    await bench.advance(601.0)
    page = await history(bench)
    assert page.position.offset == 0
    assert page.position.epoch != first.position.epoch
    assert (await append(bench, b"2"))[0].position == StreamPosition(1, page.position.epoch)


@pytest.mark.parametrize("stream", [None, STREAM.stream], ids=["without history", "with history"])
async def test_a_key_is_forgotten_after_its_window(bench: Bench, stream: StreamOptions | None) -> None:
    once = PublishOptions(stream=stream, idempotency_key="k")
    results = await append(bench, b"1", options=once)
    await bench.advance(299.0)
    results += await append(bench, b"2", options=once)
    await bench.advance(2.0)
    results += await append(bench, b"3", options=once)
    assert [result.is_suppressed for result in results] == [False, True, False]


@pytest.mark.parametrize("is_reverse", [False, True])
@pytest.mark.parametrize("since", [None, 0, 1, 4, 5, 7, 9, 10, 2**63 - 1])
@pytest.mark.parametrize("limit", [-1, 0, 1, 3, 100])
async def test_a_range_is_cut_from_what_is_kept(bench: Bench, since: int | None, limit: int, is_reverse: bool) -> None:  # noqa: FBT001
    await append(bench, *[b"%d" % number for number in range(1, 10)])
    wanted = HistoryRange(limit, StreamPosition(since, "") if since is not None else None, is_reverse)
    kept = list(range(5, 10))
    if is_reverse:
        expected = [offset for offset in reversed(kept) if since is None or offset < since]
    else:
        expected = [offset for offset in kept if since is None or offset > since]
    expected = expected if limit < 0 else expected[:limit]
    assert payloads(await history(bench, wanted)) == [(offset, b"%d" % offset) for offset in expected]


# Statistics.

WINDOW = WindowOptions(size=3, deviation=Deviation.POPULATION, ttl_s=600.0)
SPREAD = WindowOptions(size=3, deviation=Deviation.SAMPLE, ttl_s=600.0)


async def measure(
    bench: Bench,
    *numbers: float,
    stream: StreamOptions | None = STREAM.stream,
    window: WindowOptions = WINDOW,
    key: str = "",
    version: int = 0,
) -> list[Published]:
    results = []
    for number in numbers:
        sent = Publication(data=msgspec.Raw(b'{"n":%d}' % number), version=version)
        options = PublishOptions(stream, key, sample=Sample(float(number), window))
        results.append(await bench.broker.publish("a", sent, accepted_at_s=1.0, options=options).wait())
    return results


FIGURES = [
    b'{"n":1,"statistics":{"count":1}}',
    b'{"n":2,"statistics":{"count":2,"mean":1.5,"std":0.5,"min":1.0,"max":2.0}}',
    b'{"n":6,"statistics":{"count":3,"mean":3.0,"std":2.160246899469287,"min":1.0,"max":6.0}}',
    b'{"n":4,"statistics":{"count":3,"mean":4.0,"std":1.632993161855452,"min":2.0,"max":6.0}}',
]


@pytest.mark.parametrize("stream", [None, STREAM.stream], ids=["without history", "with history"])
async def test_statistics_of_the_last_numbers_are_put_beside_each(bench: Bench, stream: StreamOptions | None) -> None:
    await bench.subscribe("a")
    await measure(bench, 1, 2, 6, 4, stream=stream)
    await bench.receiver.wait_for(4)
    assert [bytes(each.data) for each in bench.receiver.publications] == FIGURES
    assert [each.offset for each in bench.receiver.publications] == ([1, 2, 3, 4] if stream else [0] * 4)
    assert bench.receiver.accepted_at_s == [1.0] * 4
    assert payloads(await history(bench)) == (list(enumerate(FIGURES, 1)) if stream else [])


async def test_a_sample_is_spread_by_one_less(bench: Bench) -> None:
    await measure(bench, 1, 3, window=SPREAD)
    figures = b'{"n":3,"statistics":{"count":2,"mean":2.0,"std":1.4142135623730951,"min":1.0,"max":3.0}}'
    assert payloads(await history(bench))[-1] == (2, figures)


async def test_a_repeat_counts_once(bench: Bench) -> None:
    await measure(bench, 1, 1, 1, key="k")
    await measure(bench, 2)
    assert payloads(await history(bench)) == list(enumerate(FIGURES[:2], 1))


async def test_a_version_that_comes_too_late_does_not_count(bench: Bench) -> None:
    await measure(bench, 1, 6, 6, version=5)
    await measure(bench, 2, version=6)
    assert payloads(await history(bench)) == list(enumerate(FIGURES[:2], 1))


async def test_what_has_no_number_leaves_the_window_alone(bench: Bench) -> None:
    await measure(bench, 1)
    await append(bench, b"beside")
    await measure(bench, 2)
    assert payloads(await history(bench)) == [(1, FIGURES[0]), (2, b"beside"), (3, FIGURES[1])]


async def test_removing_history_keeps_the_window(bench: Bench) -> None:
    await measure(bench, 1)
    await bench.broker.remove_history("a").wait()
    await measure(bench, 2)
    assert payloads(await history(bench)) == [(2, FIGURES[1])]


async def test_a_window_is_as_large_as_the_publish_says(bench: Bench) -> None:
    await measure(bench, 1, 2, 6)
    await measure(bench, 4, window=WindowOptions(2, Deviation.POPULATION, 600.0))
    assert b'"count":2,"mean":5.0' in payloads(await history(bench))[-1][1]
    await measure(bench, 5, window=WindowOptions(100, Deviation.POPULATION, 600.0))
    assert b'"count":3,"mean":5.0' in payloads(await history(bench))[-1][1], "what a smaller one has dropped is gone"


async def test_each_channel_has_a_window_of_its_own(bench: Bench) -> None:
    await measure(bench, 1)
    options = PublishOptions(STREAM.stream, sample=Sample(9.0, WINDOW))
    await bench.broker.publish("b", publication(b'{"n":9}'), accepted_at_s=1.0, options=options).wait()
    await measure(bench, 2)
    assert payloads(await history(bench)) == list(enumerate(FIGURES[:2], 1))


async def test_a_window_goes_when_its_time_is_over(bench: Bench) -> None:
    await bench.subscribe("a")
    await measure(bench, 1, stream=None)
    await bench.advance(599.0)
    await measure(bench, 2, stream=None)
    await bench.advance(601.0)
    await measure(bench, 1, stream=None)
    await bench.receiver.wait_for(3)
    assert [data for _, data in bench.receiver.received] == [FIGURES[0], FIGURES[1], FIGURES[0]]


# Whatever is done, in whatever order, all brokers tell the same story.


class Publish(NamedTuple):
    channel: int
    stream: StreamOptions | None
    key: str
    version: int
    version_epoch: str
    sample: Sample | None


class Read(NamedTuple):
    channel: int
    wanted: HistoryRange


class Remove(NamedTuple):
    channel: int


class Subscribe(NamedTuple):
    channel: int


class Unsubscribe(NamedTuple):
    channel: int


class Wait(NamedTuple):
    seconds: float


Step = Publish | Read | Remove | Subscribe | Unsubscribe | Wait
SYNC = "the end"

channels = st.integers(0, 1)
streams = st.builds(StreamOptions, st.sampled_from([1, 3]), st.sampled_from([60.0, 150.0]), st.just(600.0))
positions = st.builds(StreamPosition, st.integers(0, 6), st.just(""))
ranges = st.builds(HistoryRange, st.sampled_from([-1, 0, 1, 2]), st.none() | positions, st.booleans())
numbers = st.floats(allow_nan=False, allow_infinity=False).map(lambda number: number + 0.0)
windows = st.builds(
    WindowOptions, st.sampled_from([2, 3, 7]), st.sampled_from(Deviation), st.sampled_from([60.0, 600.0])
)
steps: st.SearchStrategy[Step] = st.one_of(
    st.builds(
        Publish,
        channels,
        st.none() | streams,
        st.sampled_from(["", "", "k", "l"]),
        st.sampled_from([0, 0, 1, 2, 3]),
        st.sampled_from(["", "x"]),
        st.none() | st.builds(Sample, numbers | st.integers(-5, 5).map(float), windows),
    ),
    st.builds(Read, channels, ranges),
    st.builds(Remove, channels),
    st.builds(Subscribe, channels),
    st.builds(Unsubscribe, channels),
    st.builds(Wait, st.sampled_from([100.0, 250.0, 550.0])),
)


class Story:
    """Carries out steps on one broker and writes down what comes of them, epochs in the order of their appearance."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.lines: list[object] = []
        self._prefix = fresh_prefix()
        self._subscribed: set[str] = set()
        self._epochs: dict[str, int] = {"": 0}
        self._told = len(bench.receiver.received)

    async def tell(self, script: Sequence[Step]) -> list[object]:
        await self.bench.subscribe(self._prefix + SYNC)
        for number, step in enumerate(script):
            await self._carry_out(number, step)
            # What is on its way would be lost by an unsubscribe or told later than the next step.
            await self._settle()
        for channel in self._subscribed | {self._prefix + SYNC}:
            await self.bench.unsubscribe(channel)
        return self.lines

    async def _carry_out(self, number: int, step: Step) -> None:
        broker = self.bench.broker
        channel = "" if isinstance(step, Wait) else f"{self._prefix}.{step.channel}"
        match step:
            case Publish(_, stream, key, version, version_epoch, sample):
                sent = Publication(data=msgspec.Raw(b'{"at":%d}' % number), version=version)
                options = PublishOptions(stream, key, version_epoch, sample)
                result = await broker.publish(channel, sent, accepted_at_s=1.0, options=options).wait()
                self.lines.append((result.is_suppressed, self._position(result.position)))
            case Read(_, wanted):
                page = await broker.history(channel, wanted, meta_ttl_s=400.0).wait()
                self.lines.append(
                    ([self._publication(each) for each in page.publications], self._position(page.position))
                )
            case Remove():
                await broker.remove_history(channel).wait()
            case Subscribe() if channel not in self._subscribed:
                self._subscribed.add(channel)
                await broker.subscribe(channel).wait()
            case Unsubscribe() if channel in self._subscribed:
                self._subscribed.remove(channel)
                await broker.unsubscribe(channel).wait()
            case Wait(seconds):
                await self.bench.advance(seconds)
            case _:
                pass  # subscribing twice and unsubscribing from nothing are the caller's mistakes

    async def _settle(self) -> None:
        receiver = self.bench.receiver
        await self.bench.publish(self._prefix + SYNC, b"")
        while not receiver.received[self._told :] or receiver.received[-1][0] != self._prefix + SYNC:
            await receiver.wait_for(len(receiver.received) + 1)
        for at in range(self._told, len(receiver.received) - 1):
            channel = receiver.received[at][0].removeprefix(self._prefix)
            self.lines.append((channel, self._publication(receiver.publications[at]), self._epoch(receiver.epochs[at])))
        self._told = len(receiver.received)

    def _epoch(self, epoch: str) -> int:
        return self._epochs.setdefault(epoch, len(self._epochs))

    def _position(self, position: StreamPosition | None) -> tuple[int, int] | None:
        return None if position is None else (position.offset, self._epoch(position.epoch))

    def _publication(self, publication: Publication) -> tuple[int, bytes, int, int]:
        return publication.offset, bytes(publication.data), publication.version, self._epoch(publication.epoch)


@pytest.fixture
async def all_benches(shared_redis: RedisServer) -> AsyncIterator[dict[str, Bench]]:
    async with AsyncExitStack() as stack:
        yield {name: await stack.enter_async_context(make(shared_redis)) for name, make in FACTORIES.items()}


@given(script=st.lists(steps, max_size=12))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_all_brokers_tell_the_same_story(all_benches: dict[str, Bench], script: list[Step]) -> None:
    expected = await Story(all_benches["memory"]).tell(script)
    for name, bench in all_benches.items():
        assert (name, await Story(bench).tell(script)) == (name, expected)


alike = st.builds(lambda base, steps: [base + step for step in steps], numbers, st.lists(st.floats(-1, 1), min_size=2))


@given(
    measured=st.lists(numbers, min_size=2, max_size=12) | alike.filter(lambda each: all(map(math.isfinite, each))),
    deviation=st.sampled_from(Deviation),
)
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_all_brokers_come_to_the_same_figures(
    all_benches: dict[str, Bench], measured: list[float], deviation: Deviation
) -> None:
    channel, window = fresh_prefix(), WindowOptions(5, deviation, 600.0)
    stream = StreamOptions(size=100, ttl_s=300.0, meta_ttl_s=600.0)
    told = {}
    for name, bench in all_benches.items():
        for number in measured:
            options = PublishOptions(stream, sample=Sample(number + 0.0, window))
            bench.broker.publish(channel, publication(b'{"n":1}'), accepted_at_s=1.0, options=options)
        # Reading goes over a link of its own, and this publish behind the others.
        await bench.broker.publish(
            channel, publication(b"{}"), accepted_at_s=1.0, options=PublishOptions(stream)
        ).wait()
        told[name] = payloads(await bench.broker.history(channel, ALL, meta_ttl_s=600.0).wait())
    assert len(told["memory"]) == len(measured) + 1
    for name in all_benches:
        assert (name, told[name]) == (name, told["memory"])
