"""Reads of streams: as many as the broker can answer, not as many as there are clients; and never stale."""

from typing import Final

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.broker.contract import BrokerError, PublishOptions
from gateway.broker.outcome import Outcome
from gateway.domain.channels import Channel, Channels, ChannelSettings, Namespace
from gateway.domain.recovery import RecoveryMode, recover
from gateway.domain.stream import HistoryRange, StreamOptions, StreamPage
from gateway.messaging.reading import StreamReader
from gateway.protocol.messages import Join, Leave, Publication, StreamPosition
from tests.support.delayed_broker import DelayedBroker

SIZE: Final = 20
STREAM: Final = PublishOptions(StreamOptions(size=SIZE, ttl_s=60.0, meta_ttl_s=600.0))
CHANNELS: Final = Channels(
    ChannelSettings(namespaces=[Namespace(name="stream", history_size=SIZE, history_ttl_s=60.0)])
)
TOP: Final = HistoryRange()
ALL: Final = HistoryRange(limit=-1)
LIMIT: Final = 5

Page = Outcome[StreamPage]


class Nobody:
    """A receiver where nothing arrives, since nothing is subscribed."""

    def receive(self, channel: str, publication: Publication, epoch: str, accepted_at_s: float | None) -> None:
        raise AssertionError((channel, publication, epoch, accepted_at_s))

    def receive_event(self, channel: str, event: Join | Leave) -> None:
        raise AssertionError((channel, event))

    def resume(self, channels: object, *, interrupted_s: float) -> None:
        raise AssertionError((channels, interrupted_s))


class Streams(DelayedBroker):
    """A broker with streams whose reads the test moves on."""

    def __init__(self) -> None:
        super().__init__(monotonic=lambda: 0.0, new_epoch=lambda: "e")
        self.start(Nobody())

    def grow(self, name: str = "stream:x", *, by: int = 1) -> None:
        for _ in range(by):
            self.publish(name, Publication(data=msgspec.Raw(b"1")), accepted_at_s=0.0, options=STREAM)

    def finish_read(self) -> None:
        """Carry out the oldest read and answer it."""
        self.carry_out()
        self.answer()

    @property
    def is_asked(self) -> int:
        return len(self.asked)


@pytest.fixture
def broker() -> Streams:
    return Streams()


@pytest.fixture
def reader(broker: Streams) -> StreamReader:
    return StreamReader(broker, recovery_limit=LIMIT)


def channel(name: str = "stream:x") -> Channel:
    resolved = CHANNELS.resolve(name)
    assert isinstance(resolved, Channel)
    return resolved


def offsets(page: Page) -> tuple[list[int], int]:
    """Return what was found, and the top."""
    found = page.result()
    return [each.offset for each in found.publications], found.position.offset


def test_a_read_that_nobody_shares_is_as_the_brokers(broker: Streams, reader: StreamReader) -> None:
    broker.grow(by=3)
    pages = [
        reader.page(channel(), TOP),
        reader.page(channel(), HistoryRange(limit=2, is_reverse=True)),
        reader.page(channel(), ALL),
        reader.since(channel(), 1),
    ]
    assert broker.is_asked == 4
    broker.settle()
    assert [offsets(page) for page in pages] == [([], 3), ([3, 2], 3), ([1, 2, 3], 3), ([2, 3], 3)]


@pytest.mark.parametrize("asks_since", [False, True])
def test_a_thousand_who_ask_at_once_cost_two_reads(broker: Streams, reader: StreamReader, *, asks_since: bool) -> None:
    broker.grow(by=9)

    def ask() -> Page:
        return reader.since(channel(), 6) if asks_since else reader.page(channel(), ALL)

    first, *others = [ask() for _ in range(1000)]
    assert (broker.is_asked, first.is_settled) == (1, False)
    broker.finish_read()
    assert first.is_settled
    assert not any(page.is_settled for page in others)
    assert broker.is_asked == 1
    broker.finish_read()
    assert {tuple(offsets(page)[0]) for page in others} == {(7, 8, 9) if asks_since else tuple(range(1, 10))}
    # One list for all of them, not a thousand.
    assert len({id(page.result().publications) for page in others}) == 1
    assert (broker.reads, broker.is_asked) == (2, 0)


@pytest.mark.parametrize("asks_since", [False, True])
def test_who_asks_while_a_read_is_on_its_way_back_gets_what_is_published_before_the_question(
    broker: Streams, reader: StreamReader, *, asks_since: bool
) -> None:
    def ask() -> Page:
        return reader.since(channel(), 0) if asks_since else reader.page(channel(), ALL)

    early = ask()
    broker.carry_out()
    broker.grow()
    late = ask()
    broker.settle()
    assert (offsets(early), offsets(late)) == (([], 0), ([1], 1))


def test_channels_and_ranges_do_not_wait_for_each_other(broker: Streams, reader: StreamReader) -> None:
    for page in ((channel("stream:x"), TOP), (channel("stream:y"), TOP), (channel("stream:x"), ALL)):
        reader.page(*page)
    reader.since(channel("stream:x"), 0)
    assert broker.is_asked == 4


# Reading what follows an offset.


def test_those_who_ask_from_different_offsets_share_a_read(broker: Streams, reader: StreamReader) -> None:
    broker.grow(by=9)
    reader.since(channel(), 9)
    pages = [reader.since(channel(), offset) for offset in (5, 9, 7, 4, 5, 50)]
    broker.settle()
    found = [([6, 7, 8, 9], 9), ([], 9), ([8, 9], 9), ([5, 6, 7, 8, 9], 9), ([6, 7, 8, 9], 9), ([], 9)]
    assert [offsets(page) for page in pages] == found
    assert broker.reads == 2
    # Those with the same offset share one page.
    assert pages[0].result() is pages[4].result()


def test_one_who_is_too_far_behind_costs_the_others_one_more_read_and_no_recovery(
    broker: Streams, reader: StreamReader
) -> None:
    broker.grow(by=9)
    reader.since(channel(), 9)
    far, near, at_the_bound, beyond = (reader.since(channel(), offset) for offset in (0, 8, 4, 3))
    broker.finish_read()
    broker.finish_read()
    assert offsets(far) == ([1, 2, 3, 4, 5], 9)
    assert offsets(beyond) == ([4, 5], 9)
    assert [each.is_settled for each in (near, at_the_bound)] == [False, False]
    broker.settle()
    assert [offsets(each) for each in (near, at_the_bound)] == [([9], 9), ([5, 6, 7, 8, 9], 9)]
    assert broker.reads == 3


def test_who_waits_for_a_full_page_is_served_before_those_who_came_meanwhile(
    broker: Streams, reader: StreamReader
) -> None:
    broker.grow(by=9)
    reader.since(channel(), 0)
    far, near = (reader.since(channel(), offset) for offset in (0, 8))
    broker.finish_read()
    new = reader.since(channel(), 7)
    broker.settle()
    assert [offsets(each) for each in (far, near, new)] == [([1, 2, 3, 4, 5], 9), ([9], 9), ([8, 9], 9)]
    assert broker.reads == 4


def test_nobody_is_kept_waiting_by_those_who_are_far_behind_and_come_again_and_again(
    broker: Streams, reader: StreamReader
) -> None:
    broker.grow(by=9)
    reader.since(channel(), 0)
    waiting = [reader.since(channel(), offset) for offset in (0, 8)]
    for _ in range(3):
        broker.finish_read()
        waiting.append(reader.since(channel(), 0))  # too far behind for anything
    assert [each.is_settled for each in waiting[:2]] == [True, True]


# Failures.


@pytest.mark.parametrize("asks_since", [False, True])
def test_a_failure_reaches_all_whom_the_read_was_for_and_nobody_else(
    broker: Streams, reader: StreamReader, *, asks_since: bool
) -> None:
    def ask() -> Page:
        return reader.since(channel(), 0) if asks_since else reader.page(channel(), ALL)

    first, second, third = ask(), ask(), ask()
    broker.fail_read()
    assert [str(first.error), second.is_settled, third.is_settled] == ["cut", False, False]
    broker.fail_read()
    assert [str(each.error) for each in (second, third)] == ["cut", "cut"]
    assert broker.is_asked == 0
    later = ask()
    broker.grow()
    broker.settle()
    assert offsets(later) == ([1], 1)


async def test_a_broker_that_has_stopped_fails_every_read_at_once() -> None:
    stopped = Streams()
    reader = StreamReader(stopped, recovery_limit=LIMIT)
    waiting = [reader.page(channel(), ALL), reader.page(channel(), ALL), reader.since(channel(), 0)]
    await stopped.stop()
    while stopped.asked:
        stopped.fail_read()
    assert [type(page.error) for page in waiting] == [BrokerError] * 3


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.sampled_from(["grow", "grow_much", "carry_out", "answer", "fail", "top", "all"])
        | st.tuples(st.just("since"), st.integers(0, 30)),
        min_size=5,
        max_size=60,
    )
)
def test_whatever_is_asked_when_is_answered_rightly_and_never_with_an_older_page(
    steps: list[str | tuple[str, int]],
) -> None:
    broker = Streams()
    reader = StreamReader(broker, recovery_limit=LIMIT)
    asked: list[tuple[str, int, int, Page]] = []
    for step in steps:
        match step:
            case "grow" | "grow_much":
                broker.grow(by=1 if step == "grow" else 12)
            case "carry_out" | "answer":
                getattr(broker, step)()
            case "fail":
                broker.fail_read()
            case "top" | "all":
                page = reader.page(channel(), TOP if step == "top" else ALL)
                asked.append((step, 0, broker.top("stream:x").offset, page))
            case str():
                raise AssertionError(step)
            case (_, offset):
                page = reader.since(channel(), offset)
                asked.append(("since", offset, broker.top("stream:x").offset, page))
    broker.settle()
    for what, offset, top_then, page in asked:
        assert page.is_settled
        if page.error is None:
            found, top = offsets(page)
            assert top >= top_then, f"{what} was asked at {top_then} and answered of {top}"
            _check_page(what, offset, page.result(), found, top)


def _check_page(what: str, offset: int, page: StreamPage, found: list[int], top: int) -> None:
    kept = range(max(top - SIZE, 0) + 1, top + 1)
    match what:
        case "top":
            assert found == []
        case "all":
            assert found == list(kept)
        case _:
            missed = list(range(offset + 1, top + 1))
            may_recover = offset <= top and len(missed) <= LIMIT
            recovered = recover(RecoveryMode.STREAM, StreamPosition(offset, "e"), page)
            assert recovered.is_recovered is may_recover
            assert recovered.publications == (page.publications if may_recover else [])
            assert found == [each for each in kept if each > offset][: len(found)]
