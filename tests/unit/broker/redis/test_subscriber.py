"""The subscriber over a wire that the test holds the other end of, and at random over a real server."""

import asyncio
import functools
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.broker.contract import BrokerError
from gateway.broker.outcome import Outcome
from gateway.broker.redis.counts import Journal
from gateway.broker.redis.endpoint import Endpoint
from gateway.broker.redis.settings import RedisSettings
from gateway.broker.redis.subscriber import Subscriber
from tests.support.held_wire import HeldWire
from tests.support.redis_engines import QUICK
from tests.support.redis_servers import RedisServer, fresh_prefix
from tests.support.waiting import until


class Bench:
    def __init__(self, *, grace_s: float = 60.0, timeout_s: float = 60.0) -> None:
        self.now_s = 100.0
        self.received: list[tuple[bytes, bytes]] = []
        self.resumed: list[tuple[list[bytes], float]] = []
        self.journal = Journal()
        chosen = RedisSettings(unsubscribe_grace_s=grace_s, timeout_s=timeout_s)
        self.subscriber = Subscriber(Endpoint(chosen), chosen, journal=self.journal, monotonic=self.clock)
        self.subscriber.on_resumed = lambda names, interrupted_s: self.resumed.append((names, interrupted_s))
        self.wire = HeldWire(self.journal.counts)

    def clock(self) -> float:
        # The loop's own time passes, too, for what waits on its timers.
        return self.now_s + asyncio.get_running_loop().time()

    def open(self, *, heard_at_s: float = 0.0) -> None:
        self.wire = HeldWire(self.journal.counts)
        self.wire.heard_at_s = heard_at_s
        self.wire.attach(self.subscriber)
        self.subscriber.opened(self.wire)

    def subscribe(self, *names: bytes) -> list[Outcome[None]]:
        return [self.subscriber.subscribe(name, functools.partial(self.receive, name)) for name in names]

    def receive(self, name: bytes, data: bytes) -> None:
        self.received.append((name, data))

    def confirm(self, *names: bytes, kind: bytes = b"subscribe") -> bytes:
        return b"".join(
            b"*3\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n:1\r\n" % (len(kind), kind, len(name), name) for name in names
        )

    def message(self, name: bytes, data: bytes) -> bytes:
        return b"*3\r\n$7\r\nmessage\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n" % (len(name), name, len(data), data)

    def hear(self, *replies: bytes) -> None:
        heard_at_s = self.wire.heard_at_s
        self.wire.data_received(b"".join(replies))
        self.wire.heard_at_s = heard_at_s

    async def written(self) -> list[tuple[bytes, ...]]:
        await asyncio.sleep(0)
        return self.wire.commands()

    @property
    def known(self) -> set[bytes]:
        return set(self.subscriber._names)  # noqa: SLF001


@asynccontextmanager
async def opened(**times: float) -> AsyncIterator[Bench]:
    bench = Bench(**times)
    bench.open()
    yield bench
    bench.subscriber.stop()
    assert not bench.known
    assert not bench.subscriber._to_ask  # noqa: SLF001


def settled(outcomes: Sequence[Outcome[Any]]) -> list[bool]:
    return [outcome.is_settled and outcome.error is None for outcome in outcomes]


async def test_what_a_turn_subscribes_to_is_asked_for_at_once_and_confirmed_one_by_one() -> None:
    async with opened() as bench:
        outcomes = bench.subscribe(b"a", b"b", b"c")
        assert await bench.written() == [(b"SUBSCRIBE", b"a", b"b", b"c")]
        bench.hear(bench.confirm(b"a", b"c"), bench.message(b"a", b"1"))
        assert settled(outcomes) == [True, False, True]
        bench.hear(bench.confirm(b"b"), bench.message(b"x", b"2"), bench.message(b"b", b"3"))
        assert settled(outcomes) == [True, True, True]
        assert bench.received == [(b"a", b"1"), (b"b", b"3")]
        assert bench.resumed == []
        assert bench.journal.counts.messages == 3


async def test_the_answer_to_an_earlier_request_confirms_nothing() -> None:
    async with opened(grace_s=0.0) as bench:
        [first] = bench.subscribe(b"a")
        assert await bench.written() == [(b"SUBSCRIBE", b"a")]
        bench.subscriber.unsubscribe(b"a")
        await until(lambda: bool(bench.wire.written))
        assert await bench.written() == [(b"UNSUBSCRIBE", b"a")]
        [second] = bench.subscribe(b"a")
        assert await bench.written() == [(b"SUBSCRIBE", b"a")]
        bench.hear(bench.confirm(b"a"), bench.confirm(b"a", kind=b"unsubscribe"))
        assert settled([second]) == [False]
        bench.hear(bench.confirm(b"a"))
        assert settled([first, second]) == [True, True]


async def test_who_comes_back_in_the_grace_is_confirmed_at_once_and_missed_the_time_between() -> None:
    async with opened() as bench:
        bench.subscribe(b"a")
        await bench.written()
        bench.hear(bench.confirm(b"a"))
        bench.subscriber.unsubscribe(b"a")
        bench.hear(bench.message(b"a", b"unwanted"))
        assert settled(bench.subscribe(b"a")) == [True]
        bench.hear(bench.message(b"a", b"wanted"))
        assert bench.received == [(b"a", b"wanted")]
        assert await bench.written() == []


async def test_names_that_nobody_wants_back_leave_together_and_are_forgotten() -> None:
    async with opened(grace_s=0.01) as bench:
        bench.subscribe(b"a", b"b", b"c")
        await bench.written()
        bench.hear(bench.confirm(b"a", b"b", b"c"))
        for name in (b"a", b"b", b"unknown", b"a"):
            bench.subscriber.unsubscribe(name)
        await until(lambda: bool(bench.wire.written))
        assert await bench.written() == [(b"UNSUBSCRIBE", b"a", b"b")]
        assert bench.known == {b"a", b"b", b"c"}, "an answer is still to come"
        bench.hear(bench.confirm(b"a", b"b", kind=b"unsubscribe"))
        assert bench.known == {b"c"}


async def test_one_that_was_never_asked_for_leaves_without_a_word() -> None:
    bench = Bench(grace_s=0.0, timeout_s=0.01)
    [outcome] = bench.subscribe(b"a")
    bench.subscriber.unsubscribe(b"a")
    await until(lambda: outcome.is_settled)
    await until(lambda: not bench.known, "it is forgotten")
    bench.open()
    assert await bench.written() == []
    bench.subscriber.stop()


async def test_a_name_whose_grace_was_over_before_its_confirmation_leaves_after_it() -> None:
    bench = Bench(grace_s=0.0)
    [outcome] = bench.subscribe(b"a")
    bench.subscriber.unsubscribe(b"a")
    await until(lambda: not bench.subscriber._graces)  # noqa: SLF001
    bench.open()
    assert await bench.written() == [(b"SUBSCRIBE", b"a")]
    bench.hear(bench.confirm(b"a"))
    assert settled([outcome]) == [True]
    await until(lambda: bool(bench.wire.written))
    assert await bench.written() == [(b"UNSUBSCRIBE", b"a")]
    bench.hear(bench.confirm(b"a", kind=b"unsubscribe"))
    assert not bench.known
    bench.subscriber.stop()


async def test_subscribing_while_the_link_is_down_waits_for_it() -> None:
    bench = Bench()
    outcomes = bench.subscribe(b"a", b"b")
    await asyncio.sleep(0)
    bench.open()
    assert await bench.written() == [(b"SUBSCRIBE", b"a", b"b")]
    bench.hear(bench.confirm(b"a", b"b"))
    assert settled(outcomes) == [True, True]
    assert bench.resumed == []
    bench.subscriber.stop()


@pytest.mark.parametrize("is_up", [False, True])
async def test_a_subscription_that_is_not_confirmed_in_time_fails_and_leaves_nothing_behind(*, is_up: bool) -> None:
    bench = Bench(grace_s=0.0, timeout_s=0.01)
    if is_up:
        bench.open()
    [outcome] = bench.subscribe(b"a")
    await until(lambda: outcome.is_settled)
    assert isinstance(outcome.error, BrokerError)
    if is_up:
        await until(lambda: len(bench.wire.written) == 2)
        assert await bench.written() == [(b"SUBSCRIBE", b"a"), (b"UNSUBSCRIBE", b"a")]
        bench.hear(bench.message(b"a", b"1"), bench.confirm(b"a"), bench.confirm(b"a", kind=b"unsubscribe"))
    await until(lambda: not bench.known)
    assert bench.received == []
    bench.subscriber.stop()


async def test_after_an_outage_all_that_is_wanted_is_asked_for_and_told_once_for_each_read() -> None:
    async with opened() as bench:
        bench.subscribe(b"a", b"b", b"left", b"c")
        await bench.written()
        bench.hear(bench.confirm(b"a", b"b", b"left"))
        bench.subscriber.unsubscribe(b"left")
        now_s = bench.clock()
        bench.wire.heard_at_s = now_s - 10.0
        bench.wire.connection_lost(None)
        assert bench.known == {b"a", b"b", b"c"}
        late = bench.subscribe(b"d")
        bench.open()
        assert await bench.written() == [(b"SUBSCRIBE", b"a", b"b", b"c", b"d")]
        bench.hear(bench.confirm(b"a", b"b"), bench.message(b"a", b"1"), bench.confirm(b"c", b"d"))
        assert settled(late) == [True]
        assert [names for names, _ in bench.resumed] == [[b"a", b"b"]], "c and d were not received before"
        assert 10.0 <= bench.resumed[0][1] < 20.0


async def test_who_was_interrupted_twice_was_so_since_the_first_time() -> None:
    async with opened() as bench:
        bench.subscribe(b"a", b"b")
        await bench.written()
        bench.hear(bench.confirm(b"a", b"b"))
        bench.wire.heard_at_s = bench.clock() - 50.0
        bench.wire.connection_lost(None)
        bench.open()
        bench.hear(bench.confirm(b"a"))
        bench.wire.heard_at_s = bench.clock() - 5.0
        bench.wire.connection_lost(None)
        bench.open()
        bench.hear(bench.confirm(b"a"))
        bench.hear(bench.confirm(b"b"))
        assert [(names, interrupted_s // 5) for names, interrupted_s in bench.resumed] == [
            ([b"a"], 10),
            ([b"a"], 1),
            ([b"b"], 10),
        ]


async def test_who_is_received_again_is_told_before_the_next_message() -> None:
    async with opened() as bench:
        bench.subscribe(b"a")
        await bench.written()
        bench.hear(bench.confirm(b"a"))
        bench.wire.connection_lost(None)
        bench.open()
        order: list[str] = []
        bench.subscriber.on_resumed = lambda names, _: order.append(f"resumed {names}")
        bench.subscriber.unsubscribe(b"a")
        bench.subscriber.subscribe(b"a", lambda data: order.append(f"message {data!r}"))
        bench.subscriber.on_resumed([], 0.0)
        bench.hear(bench.confirm(b"a"), bench.message(b"a", b"1"))
        assert order == ["resumed []", "message b'1'"], "who came anew was not interrupted"
        bench.wire.connection_lost(None)
        bench.open()
        bench.hear(bench.confirm(b"a"), bench.message(b"a", b"2"))
        assert order[2:] == ["resumed [b'a']", "message b'2'"]


async def test_a_refusal_gives_the_connection_up_and_what_waits_goes_on_waiting() -> None:
    async with opened() as bench:
        [outcome] = bench.subscribe(b"a")
        await bench.written()
        bench.hear(b"-NOPERM No permissions to access a channel\r\n")
        assert bench.wire.reason == "NOPERM No permissions to access a channel"
        assert not outcome.is_settled
        bench.open()
        assert await bench.written() == [(b"SUBSCRIBE", b"a")]


@pytest.mark.parametrize("data", [b"+what\r\n", b":1\r\n", b"*0\r\n", b"*1\r\n$7\r\nmessage\r\n", b"$-1\r\n"])
async def test_a_reply_of_an_unknown_kind_gives_the_connection_up(data: bytes) -> None:
    async with opened() as bench:
        bench.hear(b"+PONG\r\n", b"*2\r\n$4\r\npong\r\n$0\r\n\r\n")
        assert not bench.wire.closed.is_set(), "pongs are expected"
        bench.hear(data)
        assert bench.wire.reason == "an unknown reply"


async def test_many_names_go_in_few_commands_of_bounded_size() -> None:
    async with opened() as bench:
        short, long = [b"%d" % number for number in range(2500)], [b"%0300d" % number for number in range(500)]
        bench.subscribe(*short, *long)
        commands = await bench.written()
        assert [len(command) - 1 for command in commands] == [1000, 1000, 712, 219, 69]
        assert [name for command in commands for name in command[1:]] == short + long
        assert max(sum(map(len, command)) for command in commands) < 66_000


async def test_no_more_names_are_asked_for_than_answers_fit_into_the_servers_buffer() -> None:
    async with opened() as bench:
        names = [b"%d" % number for number in range(25_000)]
        outcomes = bench.subscribe(*names)
        asked = [name for command in await bench.written() for name in command[1:]]
        assert asked == names[:10_000]
        for start in range(0, 25_000, 5000):
            bench.hear(bench.confirm(*names[start : start + 5000]))
            asked += [name for command in await bench.written() for name in command[1:]]
            assert asked == names[: start + 15_000]
        assert all(settled(outcomes))


async def test_subscribing_twice_is_the_callers_mistake() -> None:
    async with opened() as bench:
        bench.subscribe(b"a")
        with pytest.raises(AssertionError, match="subscribed twice to b'a'"):
            bench.subscribe(b"a")


async def test_stopping_fails_who_waits_and_who_comes_later() -> None:
    bench = Bench()
    bench.open()
    [waiting, confirmed] = bench.subscribe(b"a", b"b")
    await bench.written()
    bench.hear(bench.confirm(b"b"))
    bench.subscriber.unsubscribe(b"b")
    bench.subscriber.stop()
    bench.subscriber.stop()
    [late] = bench.subscribe(b"c")
    assert [str(each.error) for each in (waiting, confirmed, late)] == [
        "the broker is not running",
        "None",
        "the broker is not running",
    ]


# Whatever is wanted and lost in whatever order, in the end the server has exactly what is wanted.

names = st.sampled_from([b"a", b"b", b"c"])
steps = st.one_of(
    st.tuples(st.just("toggle"), names),
    st.tuples(st.just("toggle"), names),
    st.tuples(st.sampled_from(["cut", "turn", "pause", "settle"]), st.just(b"")),
)


@given(script=st.lists(steps, max_size=25))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_in_the_end_the_server_has_what_is_wanted(
    shared_redis: RedisServer, script: list[tuple[str, bytes]]
) -> None:
    prefix = fresh_prefix().encode()
    chosen = RedisSettings(address=shared_redis.location, **QUICK | {"unsubscribe_grace_s": 0.003})
    subscriber = Subscriber(Endpoint(chosen), chosen, journal=Journal())
    wanted: dict[bytes, Outcome[None]] = {}
    received: set[bytes] = set()
    running = asyncio.create_task(subscriber.run())
    async with shared_redis.client() as client:
        for step, name in script:
            if step == "toggle" and wanted.pop(prefix + name, None) is not None:
                subscriber.unsubscribe(prefix + name)
            elif step == "toggle":
                wanted[prefix + name] = subscriber.subscribe(prefix + name, received.add)
            elif step == "cut":
                await client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")  # type: ignore[no-untyped-call]
            elif step == "settle":
                await until(lambda: all(outcome.is_settled for outcome in wanted.values()))
            else:
                await asyncio.sleep(0.004 if step == "pause" else 0)
        for outcome in wanted.values():
            await outcome.wait()
        await until(lambda: set(subscriber._names) == set(wanted))  # noqa: SLF001
        await until(lambda: subscriber.trouble is None)
        for name in wanted:
            while name not in received:
                await client.publish(name, name)
                await asyncio.sleep(0.001)
        channels = await client.execute_command("PUBSUB", "CHANNELS", prefix + b"*")  # type: ignore[no-untyped-call]
        assert set(channels) == set(wanted)
    subscriber.stop()
    await running


async def test_a_link_that_has_been_away_for_longer_than_connecting_takes_is_not_waited_for() -> None:
    bench = Bench()
    [early] = bench.subscribe(b"early")
    bench.now_s += 1.5  # `connect_timeout` is a second
    [late] = bench.subscribe(b"late")
    patient = bench.subscriber.subscribe(b"patient", lambda _: None, is_patient=True)
    assert [each.is_settled for each in (early, late, patient)] == [False, True, False]
    assert isinstance(late.error, BrokerError)
    assert bench.known == {b"early", b"patient"}
    bench.open()
    [again] = bench.subscribe(b"late")
    assert not again.is_settled, "it is asked for, now that there is a link"
    bench.subscriber.stop()
