"""What `gateway.broker.contract.Control` promises, kept in memory and on Redis; and that both do the same."""

import asyncio
import contextlib
import functools
import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.broker.contract import BrokerError, Engine
from gateway.broker.memory.control import MemoryBus, MemoryControl
from gateway.broker.memory.engine import MemoryEngine
from gateway.broker.redis.engine import RedisEngine
from gateway.broker.redis.settings import RedisSettings
from gateway.protocol.messages import Join, Leave, Publication
from tests.support.redis_servers import RedisServer, fresh_prefix, redis_server, running_redis
from tests.support.waiting import PATIENCE_S, until

MakeEngine = Callable[[str], Engine]
_names = itertools.count()


class Deaf:
    """A receiver: an engine's broker has to be started, and nothing comes through it here."""

    def receive(self, channel: str, publication: Publication, epoch: str, accepted_at_s: float | None) -> None:
        raise AssertionError(f"nobody publishes here: {channel} {publication} {epoch} {accepted_at_s}")

    def receive_event(self, channel: str, event: Join | Leave) -> None:
        raise AssertionError(f"nobody joins here: {channel} {event}")

    def resume(self, channels: object, *, interrupted_s: float) -> None:
        raise AssertionError(f"no channel is subscribed here: {channels} {interrupted_s}")


class Place:
    """A node's control, and what it has heard."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.control = engine.control
        self.node_id = engine.control.node_id
        self.heard: list[bytes] = []

    async def send(self, message: bytes, *, to: str | None = None) -> None:
        await self.control.send(message, to=to).wait()


@asynccontextmanager
async def place(make: MakeEngine, *, is_started: bool = True, is_up: bool = True) -> AsyncIterator[Place]:
    """Run an engine until the block ends; its node hears when the block begins, unless it is not started."""
    engine = make(f"node {next(_names)}")
    engine.broker.start(Deaf())
    place = Place(engine)
    if is_started:
        engine.control.start(place.heard.append)
    task = asyncio.create_task(engine.run(), name="engine")
    try:
        if is_up:
            await until(lambda: engine.trouble is None, "the engine")
        if is_started:
            # What it sends goes out once it hears.
            await place.send(b"hello", to="nobody")
        yield place
    finally:
        await engine.stop()
        await task


async def settle(places: list[Place]) -> None:
    """Wait until all that has been sent so far is heard; the markers are taken out again."""
    for sender in places:
        for receiver in places:
            if receiver is not sender:
                marker = f"marker {next(_names)}".encode()
                await sender.send(marker, to=receiver.node_id)
                await until(functools.partial(receiver.heard.__contains__, marker), "a marker")
                receiver.heard.remove(marker)


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with running_redis() as server:
        yield server


def on_bus() -> MakeEngine:
    bus = MemoryBus()
    return lambda node_id: MemoryEngine(bus, node_id=node_id)


def on_redis(server: RedisServer, prefix: str, *, timeout_s: float = 5.0) -> MakeEngine:
    settings = RedisSettings(address=server.location, prefix=prefix, timeout_s=timeout_s, reconnect_max_delay_s=0.05)
    return lambda node_id: RedisEngine(settings, node_id=node_id)


@pytest.fixture(params=["memory", "redis"])
def make(request: pytest.FixtureRequest) -> MakeEngine:
    return on_bus() if request.param == "memory" else on_redis(request.getfixturevalue("server"), fresh_prefix())


@pytest.fixture
async def places(make: MakeEngine) -> AsyncIterator[list[Place]]:
    """Three nodes."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(place(make)) for _ in range(3)]


async def test_a_message_to_all_is_heard_by_all_others(places: list[Place]) -> None:
    await places[0].send(b"1")
    await settle(places)
    assert [each.heard for each in places] == [[], [b"1"], [b"1"]]


async def test_a_message_to_one_is_heard_by_that_one(places: list[Place]) -> None:
    await places[0].send(b"1", to=places[2].node_id)
    await settle(places)
    assert [each.heard for each in places] == [[], [], [b"1"]]


async def test_a_message_to_oneself_or_to_nobody_is_heard_by_nobody(places: list[Place]) -> None:
    await places[0].send(b"1", to=places[0].node_id)
    await places[0].send(b"2", to="a node that has gone")
    await settle(places)
    assert [each.heard for each in places] == [[], [], []]


@pytest.mark.parametrize(
    "message", [b"", b"\n", b"a\nb\x00\xff", b"x" * 1_000_000], ids=["empty", "line", "any", "large"]
)
async def test_any_bytes_are_carried(places: list[Place], message: bytes) -> None:
    await places[0].send(message)
    await places[1].send(message, to=places[0].node_id)
    await settle(places)
    assert [each.heard for each in places] == [[message], [message], [message]]


async def test_what_one_node_sends_keeps_its_order_to_all_and_to_one(places: list[Place]) -> None:
    messages = [b"%d" % number for number in range(300)]
    outcomes = [
        places[0].control.send(message, to=places[1].node_id if int(message) % 3 else None) for message in messages
    ]
    for outcome in outcomes:
        await outcome.wait()
    await settle(places)
    assert places[1].heard == messages
    assert places[2].heard == messages[::3]


async def test_a_node_that_answers_while_it_receives_is_heard_after_what_it_answers(make: MakeEngine) -> None:
    async with place(make) as asking, place(make, is_started=False) as answering:
        control = answering.control

        def answer(message: bytes) -> None:
            control.send(b"to " + message)

        control.start(answer)
        await answering.send(b"I hear")
        async with place(make) as listening:
            await asking.send(b"question")
            await until(lambda: b"to question" in listening.heard, "the answer")
            assert listening.heard == [b"question", b"to question"]
            await until(lambda: b"to question" in asking.heard, "the answer")
            assert asking.heard == [b"I hear", b"to question"]


async def test_a_node_that_has_stopped_hears_nothing_and_cannot_send(places: list[Place]) -> None:
    gone, *others = places
    await gone.engine.stop()
    with pytest.raises(BrokerError):
        await gone.send(b"1")
    await others[0].send(b"2")
    await others[0].send(b"3", to=gone.node_id)
    await settle(others)
    assert [each.heard for each in places] == [[], [], [b"2"]]


async def test_what_is_sent_first_of_all_can_be_answered(make: MakeEngine) -> None:
    """A node that announces itself in the call after `start` hears what others say to that."""
    async with place(make) as old, place(make, is_started=False) as new:
        answers: list[bytes] = []
        new.control.start(answers.append)
        announcing = new.control.send(b"here I am")
        await until(lambda: bool(old.heard), "the announcement")
        assert old.heard == [b"here I am"]
        await announcing.wait()
        await old.send(b"welcome", to=new.node_id)
        await until(lambda: bool(answers), "the answer")
        assert answers == [b"welcome"]


# Both do the same.

_SENT = st.tuples(st.integers(0, 2), st.sampled_from([None, 0, 1, 2, 3]), st.binary(max_size=3))


@pytest.fixture
async def pair(server: RedisServer) -> AsyncIterator[list[list[Place]]]:
    async with AsyncExitStack() as stack:
        makes = [on_bus(), on_redis(server, fresh_prefix())]
        yield [[await stack.enter_async_context(place(make)) for _ in range(3)] for make in makes]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sent=st.lists(_SENT, max_size=20))
async def test_memory_and_redis_carry_the_same(
    pair: list[list[Place]], sent: list[tuple[int, int | None, bytes]]
) -> None:
    stories = []
    for places in pair:
        ids = [*(each.node_id for each in places), "nobody"]
        for sender, addressee, message in sent:
            # Between senders there is no order, so each names itself.
            named = b"%d:%b" % (sender, message)
            await places[sender].send(named, to=None if addressee is None else ids[addressee])
        await settle(places)
        # Each was sent after the last one was on its way, so all is in one order.
        stories.append([list(each.heard) for each in places])
        for each in places:
            each.heard.clear()
    assert stories[0] == stories[1]


async def test_an_echo_comes_back_and_no_other_node_hears_of_it(places: list[Place]) -> None:
    for _ in range(3):
        await places[0].control.echo().wait()
    await settle(places)
    assert [each.heard for each in places] == [[], [], []]


async def test_an_echo_of_a_node_that_does_not_listen_fails(make: MakeEngine) -> None:
    async with place(make, is_started=False) as silent:
        with pytest.raises(BrokerError):
            await silent.control.echo().wait()
    with pytest.raises(BrokerError):
        await silent.control.echo().wait()


# What each alone can show.


async def test_an_echo_that_is_overtaken_by_the_next_fails(server: RedisServer) -> None:
    async with place(on_redis(server, fresh_prefix())) as one:
        first, second = one.control.echo(), one.control.echo()
        assert isinstance(first.error, BrokerError)
        await second.wait()


async def test_an_echo_that_redis_does_not_take_fails_and_the_next_one_comes_back() -> None:
    async with redis_server() as server, place(on_redis(server, fresh_prefix(), timeout_s=0.05)) as one:
        server.kill()
        with pytest.raises(BrokerError):
            await one.control.echo().wait()
        await asyncio.to_thread(server.restart, keep_data=False)
        async with asyncio.timeout(PATIENCE_S):
            while True:
                # One that is sent before this node is subscribed again is taken and never comes back.
                with contextlib.suppress(BrokerError, TimeoutError):
                    async with asyncio.timeout(0.2):
                        await one.control.echo().wait()
                    break
                await asyncio.sleep(0.005)


def test_two_nodes_of_one_name_are_a_mistake() -> None:
    bus = MemoryBus()
    MemoryControl(bus, "node").start(lambda _: None)
    with pytest.raises(AssertionError, match="two nodes are called 'node'"):
        MemoryControl(bus, "node").start(lambda _: None)


async def test_a_redis_that_comes_late_is_waited_for() -> None:
    async with redis_server() as server:
        server.kill()
        prefix = fresh_prefix()
        async with place(on_redis(server, prefix, timeout_s=0.05), is_started=False, is_up=False) as waiting:
            waiting.control.start(waiting.heard.append)
            for message in (b"too early", b"still too early"):
                with pytest.raises(BrokerError):
                    await waiting.send(message)
            await asyncio.to_thread(server.restart, keep_data=False)
            async with place(on_redis(server, prefix)) as other:
                await hears(waiting, other)
                await asyncio.to_thread(server.restart, keep_data=False)
                waiting.heard.clear()
                await hears(waiting, other)


async def hears(receiver: Place, sender: Place) -> None:
    """Wait until *receiver* hears what *sender* sends, which may be lost as long as a link is down."""
    async with asyncio.timeout(PATIENCE_S):
        while not receiver.heard:
            with contextlib.suppress(BrokerError):
                await sender.send(b"1")
            await asyncio.sleep(0.005)
    assert set(receiver.heard) == {b"1"}


async def test_what_waits_for_redis_is_bounded_and_fails_at_the_end() -> None:
    async with redis_server() as server:
        server.kill()
        async with place(on_redis(server, fresh_prefix()), is_started=False, is_up=False) as waiting:
            waiting.control.start(waiting.heard.append)
            *held, beyond = [waiting.control.send(b"1") for _ in range(1001)]
            assert isinstance(beyond.error, BrokerError)
            assert {outcome.is_settled for outcome in held} == {False}
            await waiting.engine.stop()
            assert {type(outcome.error) for outcome in held} == {BrokerError}
            await until(lambda: waiting.control.send(b"1").is_settled, "the end of waiting")
            with pytest.raises(BrokerError):
                await waiting.send(b"1")


@pytest.mark.parametrize("foreign", [b"", b"no sender", b"\x00\xff"])
async def test_what_no_gateway_has_sent_is_not_handed_over(server: RedisServer, foreign: bytes) -> None:
    prefix = fresh_prefix()
    make = on_redis(server, prefix)
    async with place(make) as one, place(make) as two:
        await server.execute("PUBLISH", f"{prefix}:control", foreign)
        await settle([one, two])
        assert one.heard == []
