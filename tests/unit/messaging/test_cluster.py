"""Nodes on one bus: who knows whom, what is done everywhere, what is asked of all."""

import asyncio
import contextlib
import io
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from gateway.broker.contract import BrokerError
from gateway.broker.memory.control import MemoryBus, MemoryControl
from gateway.messaging.cluster import Cluster, ClusterSettings
from gateway.messaging.control import (
    Announce,
    DisconnectUser,
    Figures,
    NodeInfo,
    Order,
    RefreshUser,
    SubscribeUser,
    SurveyAnswer,
    UnsubscribeUser,
    encode,
)
from gateway.messaging.survey import ActiveChannels, ConnectedClients, Survey
from gateway.observability.logs import Format, LogSettings, make_logger
from gateway.protocol.messages import ClientInfo
from tests.support.local_sessions import FakeSessions, Someone
from tests.support.waiting import PATIENCE_S, until

ANN = Someone("ann", "c1", "s1", ("room:1", "news"))
BOB = Someone("bob", "c2", "s2", ("room:2", "news"))
ANN_AGAIN = Someone("ann", "c3", "s3", ("news",))


class Member:
    """A node: its cluster, its connections, its log."""

    def __init__(self, system: "System", name: str, *present: Someone, **settings: float) -> None:
        self.figures = Figures()
        self.control = MemoryControl(system.bus, f"uid {name}")
        self.sessions = FakeSessions(*present)
        self._log = io.StringIO()
        self.cluster = Cluster(
            self.control,
            self.sessions,
            ClusterSettings.model_validate(settings),
            name=name,
            version="1.0",
            log=make_logger(LogSettings(format=Format.JSON), node=name, stream=self._log),
            monotonic=system.monotonic,
            figures=lambda: self.figures,
        )
        self.cluster.start()

    @property
    def uid(self) -> str:
        return self.cluster.uid

    @property
    def events(self) -> list[tuple[str, str]]:
        lines = [json.loads(line) for line in self._log.getvalue().splitlines()]
        return [(line["event"], line.get("uid", "")) for line in lines]

    def knows(self) -> list[str]:
        return [node.name for node in self.cluster.info()]


class System:
    """A bus, a time, and the nodes that run."""

    def __init__(self) -> None:
        self.bus = MemoryBus()
        self.now_s = 1000.0
        self._running: list[tuple[Member, asyncio.Task[None]]] = []

    def monotonic(self) -> float:
        return self.now_s

    async def join(self, name: str, *present: Someone, **settings: float) -> Member:
        """Start a node, which has announced itself when this returns; nothing happens by time for an hour."""
        member = Member(
            self, name, *present, **({"announce_interval_s": 3600.0, "survey_timeout_s": 3600.0} | settings)
        )
        self._running.append((member, asyncio.create_task(member.cluster.run(), name=name)))
        await asyncio.sleep(0)
        return member

    async def leave(self, member: Member) -> None:
        """Stop a node in an orderly way."""
        member.cluster.stop()
        for each, task in self._running:
            if each is member:
                await task

    async def end(self) -> None:
        for member, task in self._running:
            member.cluster.stop()
            await task


@asynccontextmanager
async def running_system() -> AsyncIterator[System]:
    system = System()
    try:
        yield system
    finally:
        await system.end()


@pytest.fixture
async def system() -> AsyncIterator[System]:
    async with running_system() as system:
        yield system


# Who is there.


async def test_a_newcomer_knows_all_and_is_known_to_all_at_once(system: System) -> None:
    members = [await system.join(name) for name in "cab"]
    assert [member.knows() for member in members] == [["a", "b", "c"]] * 3


async def test_a_node_alone_knows_itself(system: System) -> None:
    member = await system.join("a", ANN, BOB, ANN_AGAIN)
    system.now_s += 5
    assert member.cluster.info() == [NodeInfo("uid a", "a", "1.0", 3, 2, 5, 3, 5.0)]


async def test_counts_are_told_with_each_announcement(system: System) -> None:
    a = await system.join("a")
    b = await system.join("b", ANN, announce_interval_s=0.01)
    b.sessions.present.append(BOB)
    system.now_s += 1
    expected = NodeInfo("uid b", "b", "1.0", 2, 2, 4, 3, 1.0)
    await until(lambda: expected in a.cluster.info(), f"{expected} among {a.cluster.info()}")


async def test_a_node_that_says_goodbye_is_forgotten_at_once(system: System) -> None:
    a, b = await system.join("a"), await system.join("b")
    await system.leave(b)
    assert a.knows() == ["a"]
    assert a.events == [("node joined", "uid b"), ("node left", "uid b")]


async def test_a_node_that_goes_without_a_word_is_forgotten_after_three_announcements(system: System) -> None:
    a, b = await system.join("a"), await system.join("b")
    b.control.stop()
    system.now_s += 3.5 * 3600
    assert a.knows() == ["a", "b"]
    system.now_s += 1
    assert a.knows() == ["a"]
    assert a.events == [("node joined", "uid b"), ("node silent", "uid b")]


async def test_a_node_that_has_said_goodbye_does_not_turn_up_again(system: System) -> None:
    a = await system.join("a")
    await system.leave(a)
    b = await system.join("b")
    assert b.knows() == ["b"]


async def test_a_node_that_cannot_get_out_tries_again_soon(system: System) -> None:
    a = await system.join("a")
    member = Member(system, "b", announce_interval_s=PATIENCE_S + 1.0)
    member.control.stop()
    task = asyncio.create_task(member.cluster.run(), name="b")
    await asyncio.sleep(0)
    assert a.knows() == ["a"]
    member.control.start(lambda _: None)
    await until(lambda: a.knows() == ["a", "b"], "the announcement")
    member.control.stop()
    member.cluster.stop()
    await task  # and a goodbye that does not get out is no failure


async def test_what_is_not_understood_is_counted_and_harms_nothing(system: System) -> None:
    a, b = await system.join("a"), await system.join("b")
    for message in (b"", b"\x81\xa4type\xa7unknown"):
        b.control.send(message)
    b.control.send(encode(SurveyAnswer("uid b", 99, b"")))
    assert a.cluster.counts.control_ignored == 2
    assert a.knows() == ["a", "b"]


# What is done everywhere.

ORDERS: list[tuple[Order, list[list[str]]]] = [
    (DisconnectUser("ann"), [["c1"], ["c3"]]),
    (DisconnectUser("ann", whitelist=("c3",)), [["c1"], []]),
    (UnsubscribeUser("bob", channel="news"), [["c2"], []]),
    (SubscribeUser("ann", client="c3", channel="new", info=b"{}"), [[], ["c3"]]),
    (RefreshUser("ann", session="s1", is_expired=True), [["c1"], []]),
    (DisconnectUser(""), [[], []]),
    (DisconnectUser("nobody"), [[], []]),
]


@pytest.mark.parametrize(("order", "concerned"), ORDERS, ids=lambda each: repr(each)[:40])
async def test_an_order_is_carried_out_on_every_node(system: System, order: Order, concerned: list[list[str]]) -> None:
    a = await system.join("a", ANN, BOB)
    b = await system.join("b", ANN_AGAIN)
    await a.cluster.carry_out(order)
    assert [a.sessions.orders, b.sessions.orders] == [[order], [order]]
    assert [a.sessions.concerned, b.sessions.concerned] == [[concerned[0]], [concerned[1]]]


async def test_orders_of_one_node_arrive_in_their_order(system: System) -> None:
    a, b = await system.join("a"), await system.join("b")
    orders = [order for order, _ in ORDERS]
    for order in orders:
        await a.cluster.carry_out(order)
    assert b.sessions.orders == orders


async def test_an_order_that_did_not_get_out_fails_and_was_carried_out_here(system: System) -> None:
    a = await system.join("a", ANN)
    a.control.stop()
    with pytest.raises(BrokerError):
        await a.cluster.carry_out(DisconnectUser("ann"))
    assert a.sessions.concerned == [["c1"]]


async def test_a_fault_in_carrying_out_stays_on_its_node(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = await system.join("a"), await system.join("b")

    def fail(order: Order) -> None:
        raise ValueError(order)

    monkeypatch.setattr(b.sessions, "disconnect", fail)
    await a.cluster.carry_out(DisconnectUser("ann"))
    await a.cluster.carry_out(RefreshUser("ann"))
    assert b.sessions.orders == [RefreshUser("ann")]
    assert ("control message failed", "") in b.events


# What is asked of all.


def count(sessions: FakeSessions) -> Callable[[bytes], bytes]:
    return lambda params: params + b"%d" % len(sessions.present)


async def counting(system: System, name: str, *present: Someone, **settings: float) -> Member:
    member = await system.join(name, *present, **settings)
    member.cluster.register("count", count(member.sessions))
    return member


async def test_a_survey_brings_the_answers_of_all_nodes(system: System) -> None:
    a = await counting(system, "a", ANN, BOB)
    b = await counting(system, "b", ANN_AGAIN)
    for asking in (a, b):
        survey = await asking.cluster.survey("count", b"n=", read=bytes)
        assert survey == Survey({"uid a": b"n=2", "uid b": b"n=1"}, [])


async def test_a_question_to_one_node_is_answered_by_that_one_alone(system: System) -> None:
    a, b, c = (
        await counting(system, "a", survey_timeout_s=0.05),
        await counting(system, "b", BOB),
        await counting(system, "c"),
    )
    own, other, mute = a.cluster.info()
    assert await a.cluster.survey("count", b"", read=bytes, of=other) == Survey({b.cluster.uid: b"1"}, [])
    assert await a.cluster.survey("count", b"", read=bytes, of=own) == Survey({a.cluster.uid: b"0"}, [])
    c.control.stop()
    assert await a.cluster.survey("count", b"", read=bytes, of=mute) == Survey({}, [mute])


async def test_a_survey_of_a_node_alone_is_its_own_answer(system: System) -> None:
    a = await counting(system, "a", ANN)
    assert await a.cluster.survey("count", b"", read=bytes) == Survey({"uid a": b"1"}, [])


async def test_a_node_that_died_silently_is_named_after_the_timeout(system: System) -> None:
    a, b = await counting(system, "a", survey_timeout_s=0.02), await counting(system, "b", BOB)
    dead = b.cluster.info()[1]
    b.control.stop()
    assert await a.cluster.survey("count", b"", read=bytes) == Survey({"uid a": b"0"}, [dead])


async def test_nobody_waits_for_a_node_that_cannot_answer(system: System) -> None:
    a, b, c = await counting(system, "a"), await system.join("b"), await counting(system, "c")
    b_info, c_info = b.cluster.info()[1], c.cluster.info()[2]

    def fail(_: bytes) -> bytes:
        raise ValueError

    b.cluster.register("odd", fail)
    a.cluster.register("odd", lambda _: b"a")
    assert await a.cluster.survey("count", b"", read=bytes) == Survey({"uid a": b"0", "uid c": b"0"}, [b_info])
    assert await a.cluster.survey("odd", b"", read=bytes) == Survey({"uid a": b"a"}, [b_info, c_info])
    assert ("survey failed", "") in b.events


async def test_an_op_that_nobody_knows_is_answered_by_nobody(system: System) -> None:
    a, b = await system.join("a"), await system.join("b")
    assert await a.cluster.survey("nothing", b"", read=bytes) == Survey({}, [a.cluster.info()[0], b.cluster.info()[1]])


async def test_nobody_waits_for_a_node_that_says_goodbye_meanwhile(system: System) -> None:
    a, mute, c = await counting(system, "a"), await system.join("b"), await counting(system, "c")
    with swallowing(mute):
        asking = asyncio.create_task(a.cluster.survey("count", b"", read=bytes))
        await asyncio.sleep(0)
        await system.leave(mute)
        assert await asking == Survey({"uid a": b"0", "uid c": b"0"}, [])
    assert c.knows() == ["a", "c"]


@contextlib.contextmanager
def swallowing(member: Member) -> Any:
    """Let a node hear nothing while it can still send."""
    member.control.stop()
    member.control.start(lambda _: None)
    yield


async def test_a_survey_that_did_not_get_out_is_over_at_once(system: System) -> None:
    a, b = await counting(system, "a", ANN), await counting(system, "b")
    other = b.cluster.info()[1]
    a.control.stop()
    assert await a.cluster.survey("count", b"", read=bytes) == Survey({"uid a": b"1"}, [other])


async def test_surveys_at_the_same_time_do_not_mix(system: System) -> None:
    a, b = await counting(system, "a", survey_timeout_s=0.05), await counting(system, "b", BOB)
    surveys = await asyncio.gather(
        *[each.cluster.survey("count", b"%d:" % n, read=bytes) for n in range(9) for each in (a, b)]
    )
    assert surveys == [Survey({"uid a": b"%d:0" % n, "uid b": b"%d:1" % n}, []) for n in range(9) for _ in "ab"]


async def test_how_long_questions_took_is_counted_by_what_was_asked(system: System) -> None:
    a, _ = await counting(system, "a"), await counting(system, "b", BOB)
    await a.cluster.survey("count", b"", read=bytes)
    await a.cluster.channels()
    await a.cluster.channels()
    durations = a.cluster.counts.survey_durations
    assert {op: sum(histogram.buckets) for op, histogram in durations.items()} == {"count": 1, "channels": 2}


@pytest.mark.parametrize(("behind_s", "lag_s"), [(0.0, 0.0), (2.0, 2.0), (-3.0, 0.0)])
async def test_the_way_of_an_announcement_is_timed_by_the_two_clocks(
    system: System, behind_s: float, lag_s: float
) -> None:
    a = await system.join("a")
    a.cluster.unix = lambda: 1000.0 + behind_s
    sender = MemoryControl(system.bus, "uid b")
    sender.start(lambda _: None)
    sender.send(encode(Announce(NodeInfo("uid b", "b"), 1000.0)))
    sender.send(encode(Announce(NodeInfo("uid b", "b"))))  # of a version that does not say when
    await until(lambda: a.knows() == ["a", "b"])
    lags = a.cluster.counts.node_lag
    assert (sum(lags.buckets), lags.total) == (1, lag_s)


async def test_a_cancelled_survey_leaves_nothing_behind(system: System) -> None:
    a, mute = await counting(system, "a"), await system.join("b")
    with swallowing(mute):
        asking = asyncio.create_task(a.cluster.survey("count", b"", read=bytes))
        await asyncio.sleep(0)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
    assert a.cluster._open == {}  # noqa: SLF001 - nothing else would show it
    mute.control.send(encode(SurveyAnswer(mute.uid, 1, b"")), to=a.uid)
    assert (a.events, a.cluster.counts.control_ignored) == ([("node joined", "uid b")], 0)


async def test_two_handlers_of_one_op_are_a_mistake(system: System) -> None:
    a = await system.join("a")
    with pytest.raises(AssertionError, match="two handlers for 'channels'"):
        a.cluster.register("channels", bytes)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("", {"news": 3, "room:1": 1, "room:2": 1}),
        ("*", {"news": 3, "room:1": 1, "room:2": 1}),
        ("room:*", {"room:1": 1, "room:2": 1}),
        ("room:[13]", {"room:1": 1}),
        ("n?ws", {"news": 3}),
        ("news\n", {}),
        ("NEWS", {}),
        ("room", {}),
    ],
)
async def test_channels_are_those_of_all_nodes(system: System, pattern: str, expected: dict[str, int]) -> None:
    a = await system.join("a", ANN, BOB)
    await system.join("b", ANN_AGAIN)
    assert await a.cluster.channels(pattern) == ActiveChannels(expected, [])


async def test_clients_of_a_channel_are_those_of_all_nodes(system: System) -> None:
    a = await system.join("a", ANN, BOB)
    b = await system.join("b", ANN_AGAIN)
    everybody = {each.client: ClientInfo(each.user, each.client) for each in (ANN, BOB, ANN_AGAIN)}
    assert await a.cluster.clients("news") == ConnectedClients(everybody, [])
    assert await b.cluster.clients("room:1") == ConnectedClients({"c1": everybody["c1"]}, [])


async def test_a_partial_list_of_channels_names_who_is_missing(system: System) -> None:
    a, b = await system.join("a", ANN, survey_timeout_s=0.02), await system.join("b", BOB)
    dead = b.cluster.info()[1]
    b.control.stop()
    assert await a.cluster.channels("*") == ActiveChannels({"room:1": 1, "news": 1}, [dead])
    assert await a.cluster.clients("news") == ConnectedClients({"c1": ClientInfo("ann", "c1")}, [dead])


# How everybody is doing.


async def test_figures_travel_with_announcements_and_all_of_them_are_noted(system: System) -> None:
    a = await system.join("a")
    noted: list[NodeInfo] = []
    a.cluster.announced = noted.append
    b = await system.join("b", ANN, announce_interval_s=0.01)
    b.figures = Figures(messages_in=5, cpu_s=0.5)

    expected = NodeInfo("uid b", "b", "1.0", 1, 1, 2, 2, 0.0, b.figures)
    await until(lambda: expected in noted, f"{expected} among {noted}")


async def test_its_own_announcements_are_noted_too(system: System) -> None:
    a = await system.join("a")
    noted: list[NodeInfo] = []
    a.cluster.announced = noted.append
    await system.join("b")
    assert [node.uid for node in noted if node.uid == a.uid], "to the newcomer at least"


async def test_what_was_announced_can_be_had_without_counting_anew(system: System) -> None:
    a = await system.join("a", ANN)
    b = await system.join("b")
    a.sessions.present.append(BOB)
    assert [(node.name, node.num_clients) for node in a.cluster.announced_nodes()] == [("a", 1), ("b", 0)]
    assert [(node.name, node.num_clients) for node in a.cluster.info()] == [("a", 2), ("b", 0)]
    await system.leave(b)
    assert [node.name for node in a.cluster.announced_nodes()] == ["a"]


async def test_a_node_that_fell_silent_is_named_with_the_time_since(system: System) -> None:
    a = await system.join("a")
    await system.join("b")
    [b] = [node for node in a.cluster.info() if node.name == "b"]
    system.now_s += 4 * 3600
    assert a.cluster.silent() == [(b, 4 * 3600.0)]
