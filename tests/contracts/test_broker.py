"""What `gateway.broker.contract` promises, kept by every broker: one suite, one list of factories."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable

import msgspec
import pytest

from gateway.broker.contract import Broker, BrokerError, Published, PublishOptions
from gateway.broker.memory import MemoryBroker
from gateway.domain.stream import HistoryRange, StreamOptions, StreamPage
from gateway.protocol.messages import ClientInfo, Publication, StreamPosition

FACTORIES: dict[str, Callable[[], Broker]] = {"memory": MemoryBroker}
DEADLINE_S = 10.0


class Recorder:
    """A receiver that remembers, and wakes whoever waits for a number of publications."""

    def __init__(self) -> None:
        self.received: list[tuple[str, bytes]] = []
        self.publications: list[Publication] = []
        self.accepted_at_s: list[float | None] = []
        self._arrived = asyncio.Event()

    def receive(self, channel: str, publication: Publication, accepted_at_s: float | None) -> None:
        self.received.append((channel, bytes(publication.data)))
        self.publications.append(publication)
        self.accepted_at_s.append(accepted_at_s)
        self._arrived.set()

    async def wait_for(self, count: int) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while len(self.received) < count:
                self._arrived.clear()
                await self._arrived.wait()


class Bench:
    """A started broker and its receiver."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
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


@pytest.fixture(params=FACTORIES)
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    bench = Bench(FACTORIES[request.param]())
    yield bench
    await bench.broker.stop()


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
    assert [(each.offset, bytes(each.data)) for each in bench.receiver.publications] == [
        (1, b"1"),
        (0, b"beside"),
        (2, b"2"),
    ]
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
    assert late.position is not None
    assert late.position.offset == 1
    assert (await publish(1795206807660453001)).is_suppressed
    assert not (await publish(1795206807660453002)).is_suppressed
    assert not (await publish(7, "another epoch")).is_suppressed
    await bench.receiver.wait_for(3)
    assert [each.offset for each in bench.receiver.publications] == [1, 2, 3]
