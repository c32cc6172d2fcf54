"""What the Redis broker adds to the contract (tests/contracts/test_broker.py), on a real server."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from msgspec import Raw

from gateway.broker.contract import BrokerError, Published, PublishOptions
from gateway.broker.redis import broker as broker_module
from gateway.broker.redis.broker import RedisBroker, random_epoch
from gateway.broker.redis.engine import RedisEngine
from gateway.broker.redis.envelope import PLAIN, Envelope
from gateway.broker.redis.keys import ChannelKeys, Keys
from gateway.broker.redis.settings import RedisSettings
from gateway.domain.stream import HistoryRange, StreamOptions, StreamPage
from gateway.domain.windows import Deviation, Sample, WindowOptions
from gateway.protocol.messages import ClientInfo, Join, Leave, Publication, StreamPosition
from tests.support.redis_engines import QUICK, Received, Reports, publication, running_engine
from tests.support.redis_servers import RedisServer, fresh_prefix, redis_server
from tests.support.waiting import until

STREAM = PublishOptions(StreamOptions(size=100, ttl_s=60.0, meta_ttl_s=600.0))
ALL = HistoryRange(limit=-1)


class Node:
    """An engine with a receiver, and a redis-py connection to look behind it."""

    def __init__(self, engine: RedisEngine, client: Any, prefix: str, reports: Reports) -> None:
        self.engine = engine
        self.broker: RedisBroker = engine.broker
        self.received = Received()
        self.client = client
        self.keys = Keys(prefix)
        self.reports = reports
        self.broker.start(self.received)

    def of(self, channel: str) -> ChannelKeys:
        return self.keys.of(channel)

    async def publish(self, *payloads: bytes, options: PublishOptions = STREAM, version: int = 0) -> list[Published]:
        sent = [Publication(data=Raw(data), version=version) for data in payloads]
        outcomes = [self.broker.publish("a", each, accepted_at_s=1.0, options=options) for each in sent]
        return [await outcome.wait() for outcome in outcomes]

    async def history(self) -> StreamPage:
        return await self.broker.history("a", ALL, meta_ttl_s=600.0).wait()


@asynccontextmanager
async def running_node(server: RedisServer, *, prefix: str | None = None, node_id: str = "node") -> AsyncIterator[Node]:
    prefix, reports = prefix or fresh_prefix(), Reports()
    settings = RedisSettings(address=server.location, prefix=prefix, unsubscribe_grace_s=0.01)
    async with (
        running_engine(settings, node_id=node_id, report=reports) as engine,
        server.client() as client,
    ):
        yield Node(engine, client, prefix, reports)


@pytest.fixture
async def node(shared_redis: RedisServer) -> AsyncIterator[Node]:
    async with running_node(shared_redis) as node:
        yield node


def kept(page: StreamPage) -> list[tuple[int, bytes]]:
    return [(each.offset, bytes(each.data)) for each in page.publications]


# redis-py as the oracle of both per-message paths.


async def test_what_is_published_in_batches_is_what_a_redis_py_subscriber_reads(node: Node) -> None:
    name, count = node.of("a").name, 300
    async with node.client.pubsub() as listening:
        await listening.subscribe(name)
        await listening.get_message(timeout=5)
        for start in range(0, count, 50):
            await node.publish(*[b"%d" % number for number in range(start, start + 25)], options=PublishOptions())
            await node.publish(*[b"%d" % number for number in range(start + 25, start + 50)])
        read = [await listening.get_message(timeout=5) for _ in range(count)]
    contents = [Envelope("node").decode(each["data"])[0] for each in read]
    assert [bytes(each.data) for each in contents if isinstance(each, Publication)] == [b"%d" % n for n in range(count)]
    assert {each["channel"] for each in read} == {name}
    assert node.engine.counts.batches < count / 10


async def test_what_redis_py_publishes_is_what_the_subscriber_hands_over(node: Node) -> None:
    await node.broker.subscribe("a").wait()
    sent = Publication(data=Raw(b"\x00x"), info=ClientInfo("u", "c", Raw(b"1"), Raw(b"2")), tags={"k": "v"}, version=7)
    await node.client.publish(node.of("a").name, PLAIN + Envelope("another").encode(sent, 1.0))
    for number in range(200):
        await node.client.publish(
            node.of("a").name, PLAIN + Envelope("another").encode(publication(b"%d" % number), 1.0)
        )
    await until(lambda: len(node.received.publications) == 201)
    assert node.received.publications == [("a", b"\x00x"), *(("a", b"%d" % number) for number in range(200))]


# One publication is one command in and one message out for each node that listens.


async def test_a_hundred_publications_are_a_hundred_commands_and_messages() -> None:
    async with (
        redis_server() as server,
        running_node(server, prefix="p") as one,
        running_node(server, prefix="p") as other,
    ):
        for node in (one, other):
            await node.broker.subscribe("a").wait()
        before = await calls_of(one)
        await one.publish(*[b"x"] * 100, options=PublishOptions())
        await one.publish(*[b"x"] * 100)
        await until(lambda: all(len(node.received.publications) == 200 for node in (one, other)))
        after = await calls_of(one)
        made = {name: after[name] - before.get(name, 0) for name in ("evalsha", "publish", "xadd")}
        # The scripts' own PUBLISH counts, too.
        assert made == {"evalsha": 100, "publish": 200, "xadd": 100}
        assert one.engine.counts.messages == other.engine.counts.messages == 200


async def test_ten_thousand_channels_are_subscribed_in_a_few_commands() -> None:
    async with redis_server() as server, running_node(server) as node:
        before = await calls_of(node)
        outcomes = [node.broker.subscribe(f"channel {number}") for number in range(10_000)]
        for outcome in outcomes:
            await outcome.wait()
        after = await calls_of(node)
        assert after["subscribe"] - before.get("subscribe", 0) <= 30
        names = await node.client.execute_command("PUBSUB", "CHANNELS", f"{node.keys.prefix}:*")
        assert len(names) == 10_000
        for number in range(10_000):
            node.broker.unsubscribe(f"channel {number}")
        await until(lambda: not node.broker._subscriber._names)  # noqa: SLF001
        assert await node.client.execute_command("PUBSUB", "CHANNELS", f"{node.keys.prefix}:*") == []
        assert (await calls_of(node))["unsubscribe"] <= 30


async def calls_of(node: Node) -> dict[str, int]:
    found = await node.client.info("commandstats")
    return {name.removeprefix("cmdstat_"): fields["calls"] for name, fields in found.items()}


# Redis loses what it had acknowledged.

Loss = Callable[[Node, dict[bytes, bytes]], Awaitable[Any]]


async def empty(node: Node, _: dict[bytes, bytes]) -> None:
    await node.client.delete(node.of("a").stream, node.of("a").meta)


async def fall_back(node: Node, old: dict[bytes, bytes]) -> None:
    for key, dump in old.items():
        await node.client.restore(key, 0, dump, replace=True)


async def lose_the_meta(node: Node, _: dict[bytes, bytes]) -> None:
    await node.client.delete(node.of("a").meta)


async def lose_the_stream_and_fall_back(node: Node, old: dict[bytes, bytes]) -> None:
    await fall_back(node, old)
    await node.client.delete(node.of("a").stream)


async def fall_back_in_the_meta_alone(node: Node, old: dict[bytes, bytes]) -> None:
    await node.client.restore(node.of("a").meta, 0, old[node.of("a").meta], replace=True)


LOSSES = [empty, fall_back, lose_the_meta, lose_the_stream_and_fall_back, fall_back_in_the_meta_alone]


@pytest.mark.parametrize("finder", ["publish", "history"])
@pytest.mark.parametrize("loss", LOSSES)
async def test_lost_writes_begin_a_new_epoch(node: Node, loss: Loss, finder: str) -> None:
    await node.broker.subscribe("a").wait()
    await node.publish(b"1", b"2")
    old = {key: await node.client.dump(key) for key in (node.of("a").stream, node.of("a").meta)}
    before = (await node.publish(b"3", b"4", b"5"))[-1].position
    await loss(node, old)
    if finder == "history":
        page = await node.history()
        assert kept(page) == []
        assert page.position.offset == 0
        assert before is not None
        assert page.position.epoch != before.epoch
    [first, second] = await node.publish(b"new 1", b"new 2")
    assert first.position is not None
    assert before is not None
    epoch = first.position.epoch
    assert (before.offset, first.position.offset, second.position) == (5, 1, StreamPosition(2, epoch))
    assert epoch != before.epoch
    page = await node.history()
    assert (kept(page), page.position) == ([(1, b"new 1"), (2, b"new 2")], StreamPosition(2, epoch))
    await until(lambda: len(node.received.publications) == 7)
    assert node.received.offsets == [("a", offset) for offset in (1, 2, 3, 4, 5, 1, 2)]
    assert node.received.epochs == [before.epoch] * 5 + [epoch] * 2


@pytest.mark.parametrize("source", ["its own publishing", "receiving", "reading"])
async def test_a_node_notices_a_loss_by_what_it_has_seen_itself(shared_redis: RedisServer, source: str) -> None:
    prefix = fresh_prefix()
    async with running_node(shared_redis, prefix=prefix) as one, running_node(shared_redis, prefix=prefix) as other:
        if source == "receiving":
            await other.broker.subscribe("a").wait()
        await one.publish(b"1")
        old = {key: await one.client.dump(key) for key in (one.of("a").stream, one.of("a").meta)}
        publisher = other if source == "its own publishing" else one
        [last] = await publisher.publish(b"2")
        if source == "receiving":
            await until(lambda: len(other.received.publications) == 2)
        elif source == "reading":
            await other.history()
        await fall_back(one, old)
        [next_one] = await other.publish(b"3")
        assert last.position is not None
        assert next_one.position is not None
        assert next_one.position.offset == 1
        assert next_one.position.epoch != last.position.epoch


async def test_a_stream_ahead_of_its_meta_begins_anew_for_a_node_that_has_seen_nothing(
    shared_redis: RedisServer,
) -> None:
    prefix = fresh_prefix()
    for finder in ("publish", "history"):
        async with running_node(shared_redis, prefix=prefix) as one, running_node(shared_redis, prefix=prefix) as other:
            await one.publish(b"1", b"2", b"3")
            await one.client.hset(one.of("a").meta, "o", 1)
            if finder == "publish":
                assert [each.position.offset for each in await other.publish(b"x") if each.position] == [1]
            else:
                assert (await other.history()).position.offset == 0


async def test_a_version_outlives_a_loss_that_left_it() -> None:
    async with redis_server() as server, running_node(server) as node:
        await node.publish(b"1", version=5)
        old = {key: await node.client.dump(key) for key in (node.of("a").stream, node.of("a").meta)}
        await node.publish(b"2")
        await fall_back(node, old)
        [late] = await node.publish(b"late", version=5)
        assert late.is_suppressed
        assert late.position is not None
        assert late.position.offset == 0, "in the new epoch"
        assert [each.is_suppressed for each in await node.publish(b"new", version=6)] == [False]


async def test_what_was_seen_is_never_lowered_within_an_epoch_and_bounded(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker_module, "SEEN_CHANNELS", 3)
    seen = node.broker._seen  # noqa: SLF001
    [old] = await node.publish(b"1", options=PublishOptions(STREAM.stream, idempotency_key="k"))
    [_, last] = await node.publish(b"2", b"3")
    [again] = await node.publish(b"1", options=PublishOptions(STREAM.stream, idempotency_key="k"))
    assert (old.position, again.position) == (old.position, old.position)
    assert last.position is not None
    assert seen == {"a": (last.position.epoch, 3)}
    for channel in "bcde":
        await node.broker.history(channel, ALL, meta_ttl_s=60.0).wait()
    assert list(seen) == ["c", "d", "e"]


async def test_offsets_stay_exact_beyond_what_lua_prints(node: Node) -> None:
    await node.publish(b"1")
    await node.client.hset(node.of("a").meta, "o", 10**15)
    results = await node.publish(b"2", b"3", options=PublishOptions(STREAM.stream, idempotency_key="k"))
    assert [(each.position.offset, each.is_suppressed) for each in results if each.position] == [
        (10**15 + 1, False),
        (10**15 + 1, True),
    ]
    assert kept(await node.history()) == [(1, b"1"), (10**15 + 1, b"2")]


def test_epochs_are_eight_letters_and_do_not_repeat() -> None:
    epochs = {random_epoch() for _ in range(10_000)}
    assert len(epochs) == 10_000
    assert all(len(epoch) == 8 and epoch.isascii() and epoch.isalpha() for epoch in epochs)


# Windows.

ONE = Sample(1.0, WindowOptions(size=3, deviation=Deviation.POPULATION, ttl_s=600.0))


async def test_a_window_is_a_list_of_so_many_numbers_that_goes_with_its_time(node: Node) -> None:
    await node.publish(*[b"{}"] * 5, options=PublishOptions(STREAM.stream, sample=ONE))
    assert await node.client.lrange(node.of("a").window, 0, -1) == [b"1.0"] * 3
    assert 599_000 < await node.client.pttl(node.of("a").window) <= 600_000
    assert [len(fields) for _, fields in await node.client.xrange(node.of("a").stream)] == [2] * 5


async def test_what_is_no_number_in_a_window_is_left_out(node: Node) -> None:
    await node.client.rpush(node.of("a").window, "foreign", "3.0")
    await node.publish(b"{}", options=PublishOptions(STREAM.stream, sample=ONE))
    figures = b'{"statistics":{"count":2,"mean":2.0,"std":1.0,"min":1.0,"max":3.0}}'
    assert kept(await node.history()) == [(1, figures)]


async def test_a_page_with_foreign_statistics_is_no_page(node: Node) -> None:
    await node.publish(b"1")
    body = (await node.client.xrange(node.of("a").stream))[0][1][b"d"]
    await node.client.hset(node.of("a").meta, "o", 2)
    await node.client.xadd(node.of("a").stream, {"d": body, "t": "foreign"}, id="2-0")
    with pytest.raises(BrokerError, match="not an envelope"):
        await node.history()


async def test_losses_leave_the_window_alone(node: Node) -> None:
    options = PublishOptions(STREAM.stream, sample=ONE)
    await node.publish(b"{}", options=options)
    await empty(node, {})
    [result] = await node.publish(b"{}", options=options)
    assert result.position is not None
    assert result.position.offset == 1
    assert b'"count":2' in kept(await node.history())[0][1]


# Foreign data.


async def keys_of(node: Node) -> dict[bytes, bytes]:
    return {key: await node.client.dump(key) for key in await node.client.keys(f"{node.keys.prefix}:*")}


@pytest.mark.parametrize("place", ["stream", "meta", "result", "window"])
async def test_foreign_data_under_a_key_fails_its_channel_alone_and_is_left_alone(node: Node, place: str) -> None:
    of = node.of("a")
    key = of.result("k") if place == "result" else getattr(of, place)
    foreign = "hash" if place == "window" else "list"
    await (node.client.hset(key, "f", "foreign") if place == "window" else node.client.rpush(key, "foreign"))
    before = await keys_of(node)
    options = PublishOptions(STREAM.stream, idempotency_key="k", sample=ONE)
    with pytest.raises(BrokerError, match="WRONGTYPE"):
        await node.publish(b"1", options=options)
    if place in {"stream", "meta"}:
        with pytest.raises(BrokerError, match="WRONGTYPE"):
            await node.history()
    assert await keys_of(node) == before
    assert (await node.client.type(key)).decode() == foreign
    assert node.reports.of("redis refused")[0]["subject"] == "a"
    other = await node.broker.publish("b", publication(b"1"), accepted_at_s=1.0, options=STREAM).wait()
    assert other.position is not None
    assert node.engine.trouble is None
    await node.client.delete(key)
    assert [each.position.offset for each in await node.publish(b"2", options=options) if each.position] == [1]


async def test_foreign_messages_are_dropped_counted_and_reported_once(node: Node) -> None:
    await node.broker.subscribe("a").wait()
    for _ in range(3):
        await node.client.publish(node.of("a").name, "foreign")
    await node.publish(b"1", options=PublishOptions())
    await until(lambda: bool(node.received.publications))
    assert node.received.publications == [("a", b"1")]
    assert node.engine.counts.undecodable == 3
    assert [fields["subject"] for fields in node.reports.of("redis undecodable")] == ["a"]


async def test_a_page_with_a_foreign_entry_is_no_page(node: Node) -> None:
    await node.publish(b"1")
    await node.client.hset(node.of("a").meta, "o", 2)
    await node.client.xadd(node.of("a").stream, {"d": "foreign"}, id="2-0")
    with pytest.raises(BrokerError, match="not an envelope"):
        await node.history()
    assert node.engine.counts.undecodable == 1


async def test_a_foreign_entry_ahead_of_the_top_begins_a_new_epoch(node: Node) -> None:
    [first] = await node.publish(b"1")
    await node.client.xadd(node.of("a").stream, {"d": "foreign"})
    [second] = await node.publish(b"2")
    assert first.position is not None
    assert second.position is not None
    assert second.position.offset == 1
    assert second.position.epoch != first.position.epoch


# Order.


class OneAfterTheOther(Received):
    """Remembers publications and events in one list."""

    def __init__(self) -> None:
        super().__init__()
        self.all: list[object] = []

    def receive(self, channel: str, publication: Publication, epoch: str, accepted_at_s: float | None) -> None:
        self.all.append((bytes(publication.data), accepted_at_s))
        super().receive(channel, publication, epoch, accepted_at_s)

    def receive_event(self, channel: str, event: Join | Leave) -> None:
        self.all.append(event)
        super().receive_event(channel, event)


async def test_joins_and_leaves_keep_their_place_among_the_nodes_publications(shared_redis: RedisServer) -> None:
    prefix, info = fresh_prefix(), ClientInfo("u", "c", Raw(b"{}"))
    async with (
        running_node(shared_redis, prefix=prefix, node_id="one") as one,
        running_node(shared_redis, prefix=prefix, node_id="other") as other,
    ):
        here, there = OneAfterTheOther(), OneAfterTheOther()
        for node, receiver in ((one, here), (other, there)):
            node.broker.start(receiver)
            await node.broker.subscribe("a").wait()
        for number in range(10):
            one.broker.publish("a", publication(b"%d" % number), accepted_at_s=2.5, options=STREAM)
            one.broker.announce("a", Join(info))
            one.broker.publish("a", publication(b"plain %d" % number), accepted_at_s=3.5)
            one.broker.announce("a", Leave(info))
        await until(lambda: len(here.all) == len(there.all) == 40)
        for told, is_own in ((here, True), (there, False)):
            expected: list[object] = []
            for number in range(10):
                expected += [(b"%d" % number, 2.5 if is_own else None), Join(info)]
                expected += [(b"plain %d" % number, 3.5 if is_own else None), Leave(info)]
            assert told.all == expected


async def test_order_is_kept_while_redis_forgets_its_scripts() -> None:
    """Each channel gets what was accepted, in its order and once; what is refused its publisher was told of."""
    async with redis_server() as server, running_node(server) as node:
        channels = ["a", "b", "c"]
        for channel in channels:
            await node.broker.subscribe(channel).wait()
        accepted: dict[str, list[bytes]] = {channel: [] for channel in channels}
        failed = 0
        for batch in range(60):
            if batch % 3 == 0:
                await node.client.script_flush()
            outcomes = []
            for number in range(20):
                channel, data = channels[number % 3], b"%d.%d" % (batch, number)
                # With history by script, without by a plain PUBLISH that could overtake.
                options = STREAM if (batch + number) % 4 else PublishOptions()
                outcomes.append(
                    (channel, data, node.broker.publish(channel, publication(data), accepted_at_s=1.0, options=options))
                )
                if number % 7 == 0:
                    await asyncio.sleep(0)
            for channel, data, outcome in outcomes:
                try:
                    await outcome.wait()
                    accepted[channel].append(data)
                except BrokerError:
                    failed += 1
        await until(lambda: len(node.received.publications) == sum(map(len, accepted.values())))
        for channel in channels:
            assert [data for name, data in node.received.publications if name == channel] == accepted[channel]
            offsets = [offset for name, offset in node.received.offsets if name == channel and offset]
            assert offsets == list(range(1, len(offsets) + 1))
        assert node.engine.counts.repeated > 0
        assert failed < 60 * 20 / 2


# What can not be carried.


async def test_what_can_not_be_written_fails_alone(node: Node) -> None:
    for options in (PublishOptions(), STREAM):
        outcome = node.broker.publish("a", Publication(tags={"\ud800": ""}), accepted_at_s=1.0, options=options)
        assert isinstance(outcome.error, BrokerError)
    assert isinstance(node.broker.announce("a", Join(ClientInfo("\ud800", ""))).error, BrokerError)
    assert [each.position is None for each in await node.publish(b"1", options=PublishOptions())] == [True]


@pytest.mark.parametrize("channel", ["", "\0", "\ud800", "{", "}x{", "\r\n", "é" * 127, "x" * 5000])
async def test_any_text_names_a_channel_of_its_own(node: Node, channel: str) -> None:
    await node.broker.subscribe(channel).wait()
    await node.broker.publish("another", publication(b"0"), accepted_at_s=1.0, options=STREAM).wait()
    await node.broker.publish(channel, publication(b"1"), accepted_at_s=1.0, options=STREAM).wait()
    await until(lambda: bool(node.received.publications))
    assert node.received.publications == [(channel, b"1")]
    assert kept(await node.broker.history(channel, ALL, meta_ttl_s=60.0).wait()) == [(1, b"1")]


async def test_a_broker_that_was_not_started_fails_instead_of_raising() -> None:
    engine = RedisEngine(RedisSettings(**QUICK), node_id="node")
    broker, info = engine.broker, ClientInfo("u", "c")
    for outcome in (
        broker.publish("a", Publication(), accepted_at_s=0.0),
        broker.subscribe("a"),
        broker.announce("a", Join(info)),
        broker.history("a", ALL, meta_ttl_s=1.0),
        broker.remove_history("a"),
    ):
        assert str(outcome.error) == "the broker is not running"
    await broker.stop()


async def test_what_is_kept_is_what_was_sent(node: Node) -> None:
    info = ClientInfo("u", "c", Raw(b"\x00"), Raw(b""))
    sent = Publication(data=Raw(b"\xff\x00"), info=info, tags={"k": "é"}, version=3)
    await node.broker.publish("a", sent, accepted_at_s=1.0, options=STREAM).wait()
    page = await node.history()
    assert page.publications == [msgspec.structs.replace(sent, offset=1, epoch=page.position.epoch)]
