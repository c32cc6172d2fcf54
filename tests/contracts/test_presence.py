"""What `gateway.broker.contract.PresenceStore` promises, kept in memory and on Redis; and that both do the same."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import Raw

from gateway.broker.contract import BrokerError, Engine, PresenceStats
from gateway.broker.memory.control import MemoryBus
from gateway.broker.memory.engine import MemoryEngine
from gateway.broker.outcome import Outcome
from gateway.broker.redis.engine import RedisEngine
from gateway.broker.redis.settings import RedisSettings
from gateway.protocol.messages import ClientInfo, Join, Leave, Publication
from tests.support.redis_servers import RedisServer, fresh_prefix, running_redis
from tests.support.waiting import until

TTL_S = 60.0
Event = tuple[str, Join | Leave]


class Recorder:
    """A receiver that remembers joins and leaves."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def receive(self, channel: str, publication: Publication, epoch: str, accepted_at_s: float | None) -> None:
        raise AssertionError(f"nobody publishes here: {channel} {publication} {epoch} {accepted_at_s}")

    def receive_event(self, channel: str, event: Join | Leave) -> None:
        self.events.append((channel, event))

    def resume(self, channels: Sequence[str], *, interrupted_s: float) -> None:
        raise AssertionError(f"no link is lost here: {channels} {interrupted_s}")


class Bench:
    """A running engine that has subscribed to channel "a", and its time."""

    def __init__(self, engine: Engine, advance: Callable[[float], Awaitable[None]]) -> None:
        self.engine = engine
        self.store = engine.presence
        self.advance = advance
        self._receiver = Recorder()
        self._markers = itertools.count()
        engine.broker.start(self._receiver)

    async def add(self, *infos: ClientInfo, channel: str = "a", ttl_s: float = TTL_S) -> None:
        for outcome in [self.store.add(channel, info, ttl_s=ttl_s) for info in infos]:
            await outcome.wait()

    async def remove(self, info: ClientInfo, *, channel: str = "a", is_told: bool = True) -> None:
        await self.store.remove(channel, info, is_told=is_told).wait()

    async def renew(self, *infos: ClientInfo, channel: str = "a", ttl_s: float = TTL_S, is_told: bool = True) -> None:
        await self.store.renew(channel, infos, ttl_s=ttl_s, is_told=is_told).wait()

    async def presence(self, channel: str = "a") -> dict[str, ClientInfo]:
        return await self.store.presence(channel).wait()

    async def stats(self, channel: str = "a") -> PresenceStats:
        return await self.store.stats(channel).wait()

    async def heard(self) -> list[Event]:
        """Return, and forget, what the receiver has heard of all that is over by now; a sweep has no order."""
        marker = Join(ClientInfo("marker", str(next(self._markers))))
        await self.store.announce("a", marker).wait()
        events = self._receiver.events
        await until(lambda: ("a", marker) in events, "the marker")
        heard = [event for event in events if event != ("a", marker)]
        events.clear()
        return heard


@asynccontextmanager
async def memory_bench() -> AsyncIterator[Bench]:
    now_s = [1000.0]

    async def advance(seconds: float) -> None:
        now_s[0] += seconds

    engine = MemoryEngine(MemoryBus(), node_id="node", monotonic=lambda: now_s[0])
    async with running(engine):
        yield Bench(engine, advance)


@asynccontextmanager
async def redis_bench(server: RedisServer, prefix: str) -> AsyncIterator[Bench]:
    engine = RedisEngine(RedisSettings(address=server.location, prefix=prefix), node_id=fresh_prefix())
    async with running(engine):
        yield Bench(engine, lambda seconds: server.advance(seconds, prefix))


@asynccontextmanager
async def running(engine: Engine) -> AsyncIterator[None]:
    task = asyncio.create_task(engine.run(), name="engine")
    try:
        await until(lambda: engine.trouble is None, "the engine")
        yield
    finally:
        await engine.stop()
        await task


async def subscribed(bench: Bench) -> Bench:
    await bench.engine.broker.subscribe("a").wait()
    return bench


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with running_redis() as server:
        yield server


@pytest.fixture
def prefix() -> str:
    return fresh_prefix()


@pytest.fixture(params=["memory", "redis"])
async def bench(request: pytest.FixtureRequest, prefix: str) -> AsyncIterator[Bench]:
    if request.param == "memory":
        async with memory_bench() as bench:
            yield await subscribed(bench)
    else:
        async with redis_bench(request.getfixturevalue("server"), prefix) as bench:
            yield await subscribed(bench)


@pytest.fixture
async def nodes(server: RedisServer, prefix: str) -> AsyncIterator[list[Bench]]:
    """Two nodes on one Redis."""
    async with redis_bench(server, prefix) as first, redis_bench(server, prefix) as second:
        yield [await subscribed(first), await subscribed(second)]


def who(client: str, user: str = "42") -> ClientInfo:
    return ClientInfo(user, client)


def crowd(count: int, prefix: str = "client") -> list[ClientInfo]:
    return [who(f"{prefix} {number}", f"user {number % 100}") for number in range(count)]


def by_client(infos: list[ClientInfo]) -> dict[str, ClientInfo]:
    return {info.client: info for info in infos}


def left(*infos: ClientInfo) -> list[Event]:
    return [("a", Leave(info)) for info in infos]


def in_order(events: list[Event]) -> list[tuple[Any, ...]]:
    """Write events so that they can be compared whatever order a sweep took."""
    return sorted((channel, type(event).__name__, *spelled(event.info)) for channel, event in events)


def spelled(info: ClientInfo) -> tuple[str, str, bytes, bytes]:
    return info.user, info.client, bytes(info.conn_info), bytes(info.chan_info)


# Entering and leaving.


async def test_nobody_is_in_a_channel_at_first(bench: Bench) -> None:
    assert await bench.presence() == {}
    assert await bench.stats() == PresenceStats(0, 0)


@pytest.mark.parametrize(
    "info",
    [
        who("one"),
        ClientInfo("", "anonymous"),
        ClientInfo("1:2:\x00é", "c\x00:é", Raw(b'{"n": 1.0}'), Raw(b"[ 1 ]")),
        ClientInfo("12:", "3:", Raw(b"\x00\xff:\r\n"), Raw(b"x" * 10_000)),
    ],
    ids=["plain", "anonymous", "json", "binary"],
)
@pytest.mark.parametrize("channel", ["a", "}x{", "é \x00:", "x" * 255])
async def test_a_client_is_told_of_as_it_was_entered(bench: Bench, channel: str, info: ClientInfo) -> None:
    await bench.add(info, channel=channel)
    assert await bench.presence(channel) == {info.client: info}
    assert await bench.stats(channel) == PresenceStats(1, 1)


@pytest.mark.parametrize(
    ("users", "expected"),
    [
        (["1"], PresenceStats(1, 1)),
        (["1", "2"], PresenceStats(2, 2)),
        (["1", "1", "2"], PresenceStats(3, 2)),
        (["", "", "1"], PresenceStats(3, 2)),
        (["", ""], PresenceStats(2, 1)),
    ],
)
async def test_clients_and_the_users_behind_them_are_counted(
    bench: Bench, users: list[str], expected: PresenceStats
) -> None:
    infos = [who(f"c{number}", user) for number, user in enumerate(users)]
    await bench.add(*infos)
    assert await bench.stats() == expected
    for info in infos:
        await bench.remove(info)
    assert await bench.stats() == PresenceStats(0, 0)


async def test_a_channel_knows_its_own_clients_only(bench: Bench) -> None:
    await bench.add(who("one"), channel="a")
    await bench.add(who("two"), channel="b")
    assert (await bench.presence("a"), await bench.presence("b")) == ({"one": who("one")}, {"two": who("two")})


async def test_entering_again_replaces_and_counts_once(bench: Bench) -> None:
    await bench.add(who("one", "1"), who("two", "1"), who("one", "2"), who("one", "2"))
    assert await bench.presence() == {"one": who("one", "2"), "two": who("two", "1")}
    assert await bench.stats() == PresenceStats(2, 2)
    await bench.remove(who("one", "2"))
    assert await bench.stats() == PresenceStats(1, 1)


async def test_who_is_taken_out_is_told_of_once_and_only_if_asked(bench: Bench) -> None:
    one, two = ClientInfo("1", "one", Raw(b"\xff"), Raw(b"{}")), who("two")
    await bench.add(one, two)
    await bench.remove(one)
    await bench.remove(two, is_told=False)
    assert await bench.presence() == {}
    await bench.remove(one)
    await bench.remove(who("a stranger"))
    assert await bench.heard() == left(one)


async def test_adding_tells_nobody(bench: Bench) -> None:
    await bench.add(who("one"))
    await bench.renew(who("two"))
    assert await bench.heard() == []


async def test_events_are_heard_in_subscribed_channels_only(bench: Bench) -> None:
    await bench.store.announce("b", Join(who("one"))).wait()
    await bench.add(who("one"), channel="b")
    await bench.remove(who("one"), channel="b")
    await bench.store.announce("a", Join(who("one"))).wait()
    await bench.store.announce("a", Leave(who("one"))).wait()
    assert await bench.heard() == [("a", Join(who("one"))), ("a", Leave(who("one")))]


async def test_a_leave_does_not_overtake_its_join(bench: Bench) -> None:
    store, publish, large = bench.store, bench.engine.broker.publish, Publication(Raw(b"x" * 1_000_000))
    outcomes: list[Outcome[Any]] = []
    for client in ["one", "two", "one"]:
        info = who(client)
        await bench.add(info)
        # So much is published that the join takes its time.
        outcomes += [publish("b", large, accepted_at_s=0.0) for _ in range(12)]
        outcomes += [store.announce("a", Join(info)), store.remove("a", info, is_told=True)]
        for outcome in outcomes:
            await outcome.wait()
    told = [("a", event(who(client))) for client in ["one", "two", "one"] for event in (Join, Leave)]
    heard = await bench.heard()
    for client in ("one", "two"):
        own = [each for each in told if each[1].info.client == client]
        assert [each for each in heard if each[1].info.client == client] == own
    assert await bench.presence() == {}


async def test_requests_of_one_turn_are_carried_out_in_their_order(bench: Bench) -> None:
    info, store = who("one"), bench.store
    store.add("a", info, ttl_s=TTL_S)
    store.remove("a", info, is_told=False)
    await store.add("a", info, ttl_s=TTL_S).wait()
    assert await bench.presence() == {"one": info}


# Lifetimes.


async def test_who_is_not_renewed_is_not_shown_any_more_even_before_a_sweep(bench: Bench) -> None:
    await bench.add(who("old", "1"), who("both", "2"))
    await bench.advance(40)
    await bench.add(who("new", "2"))
    assert await bench.stats() == PresenceStats(3, 2)
    await bench.advance(30)
    assert await bench.presence() == {"new": who("new", "2")}
    assert await bench.stats() == PresenceStats(1, 1)
    assert await bench.heard() == []


async def test_a_sweep_tells_of_each_ghost_once(bench: Bench) -> None:
    ghosts = [ClientInfo("1", "one", Raw(b"[1]")), who("two")]
    await bench.add(*ghosts)
    await bench.advance(70)
    await bench.renew(who("three"))
    assert in_order(await bench.heard()) == in_order(left(*ghosts))
    await bench.renew(who("three"))
    for ghost in ghosts:
        await bench.remove(ghost)
    assert await bench.heard() == []
    assert await bench.presence() == {"three": who("three")}


async def test_a_sweep_that_is_not_to_be_told_is_not(bench: Bench) -> None:
    await bench.add(who("one"))
    await bench.advance(70)
    await bench.renew(is_told=False)
    await bench.renew(is_told=True)
    assert await bench.heard() == []


async def test_who_is_taken_out_too_late_is_still_told_of(bench: Bench) -> None:
    await bench.add(who("one"))
    await bench.advance(70)
    await bench.remove(who("one"))
    await bench.renew()
    assert await bench.heard() == left(who("one"))


async def test_who_is_renewed_lives_on(bench: Bench) -> None:
    await bench.add(who("one"), who("two"))
    for _ in range(5):
        await bench.advance(40)
        await bench.renew(who("one"))
    assert await bench.presence() == {"one": who("one")}
    assert await bench.heard() == left(who("two"))


async def test_a_renewal_comes_before_the_sweep(bench: Bench) -> None:
    await bench.add(who("one"))
    await bench.advance(70)
    await bench.renew(who("one"))
    assert await bench.presence() == {"one": who("one")}
    assert await bench.heard() == []


async def test_a_renewal_brings_what_is_told_of_a_client_up_to_date(bench: Bench) -> None:
    await bench.add(who("one", "1"))
    renewed = ClientInfo("2", "one", Raw(b"[2]"))
    await bench.renew(renewed)
    assert await bench.presence() == {"one": renewed}
    assert await bench.stats() == PresenceStats(1, 1)


async def test_a_longer_lifetime_is_not_cut_short_by_another_clients_shorter_one(bench: Bench) -> None:
    await bench.add(who("long"), ttl_s=600)
    await bench.add(who("short"), ttl_s=10)
    await bench.advance(100)
    assert await bench.presence() == {"long": who("long")}


async def test_a_channel_that_nobody_renews_vanishes_without_a_word(bench: Bench) -> None:
    await bench.add(who("one"), who("two"))
    await bench.advance(119)
    await bench.advance(2)
    await bench.renew(who("three"))
    assert await bench.heard() == []
    assert await bench.stats() == PresenceStats(1, 1)


async def test_large_channels_are_renewed_and_swept_whole(bench: Bench) -> None:
    stay, go = crowd(10_000, "stay"), crowd(2500, "go")
    await bench.renew(*stay, *go)
    assert await bench.presence() == by_client([*stay, *go])
    assert await bench.stats() == PresenceStats(12_500, 100)
    await bench.advance(40)
    await bench.renew(*stay)
    await bench.advance(40)
    await bench.renew()
    assert in_order(await bench.heard()) == in_order(left(*go))
    assert await bench.stats() == PresenceStats(10_000, 100)


async def test_who_is_taken_out_during_a_large_renewal_stays_out(bench: Bench) -> None:
    infos = crowd(3000)
    renewing = bench.store.renew("a", infos, ttl_s=TTL_S, is_told=True)
    removing = bench.store.remove("a", infos[-1], is_told=True)
    await renewing.wait()
    await removing.wait()
    assert await bench.stats() == PresenceStats(2999, 100)
    assert await bench.heard() == left(infos[-1])


# The end.


async def test_a_stopped_engine_fails_what_it_is_asked(bench: Bench) -> None:
    await bench.add(who("one"))
    await bench.engine.stop()
    store, one = bench.store, who("one")
    outcomes: list[Outcome[Any]] = [
        store.announce("a", Join(one)),
        store.add("a", one, ttl_s=TTL_S),
        store.remove("a", one, is_told=True),
        store.renew("a", [one], ttl_s=TTL_S, is_told=True),
        store.presence("a"),
        store.stats("a"),
    ]
    for outcome in outcomes:
        with pytest.raises(BrokerError):
            await outcome.wait()


# Both do the same.

_CLIENTS = st.builds(
    ClientInfo,
    user=st.sampled_from(["", "1", "2", "é:"]),
    client=st.sampled_from(["c1", "c2", "c3", "c4"]),
    conn_info=st.sampled_from([Raw(b""), Raw(b"{}"), Raw(b"\x00\xff")]),
)
_CHANNELS = st.sampled_from(["a", "a", "b"])
# Lifetimes and steps that never meet: time that passes on the server by itself, less than 300 s, decides nothing.
_LIFETIMES = st.sampled_from([1400.0, 3300.0])
_STEPS = st.sampled_from([1000.0, 2000.0, 5000.0])
_OPERATIONS = st.one_of(
    st.tuples(st.just("add"), _CHANNELS, _CLIENTS, _LIFETIMES),
    st.tuples(st.just("remove"), _CHANNELS, _CLIENTS, st.booleans()),
    st.tuples(st.just("renew"), _CHANNELS, st.lists(_CLIENTS, max_size=4), _LIFETIMES, st.booleans()),
    st.tuples(st.just("join"), _CHANNELS, _CLIENTS),
    st.tuples(st.just("leave"), _CHANNELS, _CLIENTS),
    st.tuples(st.just("advance"), _STEPS),
)


async def play(bench: Bench, operation: tuple[Any, ...]) -> None:
    match operation:
        case "add", channel, info, ttl_s:
            await bench.add(info, channel=channel, ttl_s=ttl_s)
        case "remove", channel, info, is_told:
            await bench.remove(info, channel=channel, is_told=is_told)
        case "renew", channel, infos, ttl_s, is_told:
            await bench.renew(*infos, channel=channel, ttl_s=ttl_s, is_told=is_told)
        case "join", channel, info:
            await bench.store.announce(channel, Join(info)).wait()
        case "leave", channel, info:
            await bench.store.announce(channel, Leave(info)).wait()
        case "advance", seconds:
            await bench.advance(seconds)
        case _:
            raise AssertionError(operation)


async def transcript(bench: Bench, operations: list[tuple[Any, ...]]) -> list[Any]:
    lines: list[Any] = []
    for operation in operations:
        await play(bench, operation)
        states = [(await bench.presence(channel), await bench.stats(channel)) for channel in ("a", "b")]
        lines.append((operation, states, in_order(await bench.heard())))
    return lines


@pytest.fixture
async def pair(server: RedisServer, prefix: str) -> AsyncIterator[tuple[Bench, Bench]]:
    async with memory_bench() as memory, redis_bench(server, prefix) as redis:
        yield await subscribed(memory), await subscribed(redis)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(operations=st.lists(_OPERATIONS, max_size=12))
async def test_memory_and_redis_tell_the_same_story(
    pair: tuple[Bench, Bench], operations: list[tuple[Any, ...]]
) -> None:
    # Long enough for all lifetimes: each story begins with empty channels.
    beginning: list[tuple[Any, ...]] = [("advance", 10_000.0), ("renew", "a", [], 1400.0, False)]
    stories = [await transcript(bench, beginning + operations) for bench in pair]
    assert stories[0] == stories[1]


# What Redis alone can show.


async def test_a_ghost_is_told_of_once_whichever_node_sweeps(nodes: list[Bench]) -> None:
    first, second = nodes
    ghosts = crowd(1500)
    await first.renew(*ghosts)
    await first.advance(70)
    outcomes = [node.store.renew("a", [], ttl_s=TTL_S, is_told=True) for node in nodes * 3]
    for outcome in outcomes:
        await outcome.wait()
    for node in nodes:
        assert in_order(await node.heard()) == in_order(left(*ghosts))
    assert await second.stats() == PresenceStats(0, 0)


async def test_every_node_sees_the_clients_of_all(nodes: list[Bench]) -> None:
    first, second = nodes
    await first.add(who("one", "1"))
    await second.add(who("two", "1"))
    for node in nodes:
        assert await node.presence() == by_client([who("one", "1"), who("two", "1")])
        assert await node.stats() == PresenceStats(2, 1)


async def keys_of(server: RedisServer, prefix: str) -> list[bytes]:
    return sorted(await server.execute("KEYS", f"{prefix}:*:a"))


async def test_an_emptied_redis_is_filled_again_by_renewals(
    nodes: list[Bench], server: RedisServer, prefix: str
) -> None:
    first, second = nodes
    await first.add(who("one", "1"), who("two", "1"))
    await second.add(who("three", "1"), who("four", ""))
    await server.execute("DEL", *await keys_of(server, prefix))
    await first.renew(who("one", "1"), who("two", "1"))
    await second.renew(who("three", "1"), who("four", ""))
    assert await first.stats() == PresenceStats(4, 2)
    await first.remove(who("one", "1"))
    await first.remove(who("two", "1"))
    await first.remove(who("three", "1"))
    assert await first.stats() == PresenceStats(1, 1)


@pytest.mark.parametrize("kind", ["p", "c", "u"])
async def test_a_channel_that_lost_one_of_its_keys_is_right_again_after_all_have_renewed(
    nodes: list[Bench], server: RedisServer, prefix: str, kind: str
) -> None:
    one, two = [who("one", "1")], [who("two", "1")]
    await nodes[0].renew(*one)
    await nodes[1].renew(*two)
    [lost] = [key for key in await keys_of(server, prefix) if f":{kind}:".encode() in key]
    await server.execute("DEL", lost)
    await nodes[0].stats()
    await nodes[0].renew(*one)
    await nodes[1].renew(*two)
    assert await nodes[0].presence() == by_client([*one, *two])
    assert await nodes[0].stats() == PresenceStats(2, 1)


async def test_every_key_of_a_channel_expires_and_an_empty_channel_has_none(
    nodes: list[Bench], server: RedisServer, prefix: str
) -> None:
    await nodes[0].add(who("one"), who("two"))
    await nodes[1].renew(who("one"))
    keys = await keys_of(server, prefix)
    assert len(keys) == 3
    for key in keys:
        assert 100_000 < await server.execute("PTTL", key) <= 120_000
    await nodes[0].remove(who("one"))
    await nodes[0].remove(who("two"))
    assert await keys_of(server, prefix) == []


async def test_foreign_data_under_a_key_fails_that_channel_alone(
    nodes: list[Bench], server: RedisServer, prefix: str
) -> None:
    await nodes[0].add(who("one"))
    keys = await keys_of(server, prefix)
    await server.execute("DEL", *keys)
    for key in keys:
        await server.execute("SET", key, "foreign", "PX", "60000")
    store = nodes[0].store
    asked: list[Outcome[Any]] = [store.add("a", who("one"), ttl_s=TTL_S), store.presence("a"), store.stats("a")]
    for outcome in asked:
        with pytest.raises(BrokerError, match="WRONGTYPE"):
            await outcome.wait()
    await nodes[0].add(who("one"), channel="b")
    assert await nodes[0].presence("b") == {"one": who("one")}


async def test_what_no_gateway_has_entered_is_refused_and_harms_nothing(
    nodes: list[Bench], server: RedisServer, prefix: str
) -> None:
    await nodes[0].add(who("one"))
    [clients] = [key for key in await keys_of(server, prefix) if b":c:" in key]
    for value in (b"nonsense", b"3:abc", b"99:a\x94"):
        await server.execute("HSET", clients, "one", value)
        with pytest.raises(BrokerError):
            await nodes[0].presence()
    with contextlib.suppress(BrokerError):
        await nodes[0].remove(who("one"))
    await nodes[0].add(who("two"), channel="b")
    assert await nodes[0].stats("b") == PresenceStats(1, 1)


@pytest.mark.parametrize("info", [ClientInfo("\ud800", "c"), ClientInfo("u", "\ud800")])
async def test_text_that_is_no_unicode_is_refused(nodes: list[Bench], info: ClientInfo) -> None:
    store = nodes[0].store
    outcomes = [
        store.add("a", info, ttl_s=TTL_S),
        store.remove("a", info, is_told=True),
        store.renew("a", [info], ttl_s=TTL_S, is_told=True),
    ]
    for outcome in outcomes:
        with pytest.raises(BrokerError):
            await outcome.wait()


async def test_a_renewal_of_ten_thousand_clients_is_split_and_goes_out_in_few_pipelines(
    nodes: list[Bench], server: RedisServer
) -> None:
    await server.execute("CONFIG", "RESETSTAT")
    await nodes[0].renew(*crowd(10_000))
    stats = await server.execute("INFO", "commandstats")
    # The first of a pipeline brings the text of the script along.
    assert (stats["cmdstat_eval"]["calls"], stats["cmdstat_evalsha"]["calls"]) == (4, 16)
