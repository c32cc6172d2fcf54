"""What the memory broker adds to the contract (tests/contracts/test_broker.py): it answers within the call."""

from collections.abc import Sequence

import msgspec
import pytest

from gateway.broker.contract import BrokerError, Published, PublishOptions
from gateway.broker.memory.broker import MemoryBroker
from gateway.domain.stream import HistoryRange, StreamOptions
from gateway.domain.windows import Deviation, Sample, WindowOptions
from gateway.protocol.messages import Join, Leave, Publication, StreamPosition


class _Receiver:
    def __init__(self) -> None:
        self.received: list[tuple[str, Publication, str, float | None]] = []

    def receive(self, channel: str, publication: Publication, epoch: str, accepted_at_s: float | None) -> None:
        self.received.append((channel, publication, epoch, accepted_at_s))

    def receive_event(self, channel: str, event: Join | Leave) -> None:
        raise AssertionError(f"nobody joins or leaves here: {channel!r}, {event}")

    def resume(self, channels: Sequence[str], *, interrupted_s: float) -> None:
        raise AssertionError(f"nothing is interrupted here: {channels}, {interrupted_s}")


@pytest.fixture
def receiver() -> _Receiver:
    return _Receiver()


@pytest.fixture
def broker(receiver: _Receiver) -> MemoryBroker:
    broker = MemoryBroker()
    broker.start(receiver)
    return broker


def test_a_publication_is_handed_over_within_the_publish(broker: MemoryBroker, receiver: _Receiver) -> None:
    publication = Publication(data=msgspec.Raw(b"1"))
    assert broker.subscribe("a").is_settled
    outcome = broker.publish("a", publication, accepted_at_s=2.5)
    assert outcome.result() == Published()
    assert receiver.received == [("a", publication, "", 2.5)]
    assert receiver.received[0][1] is publication


def test_subscribing_twice_is_the_callers_mistake(broker: MemoryBroker) -> None:
    broker.subscribe("a")
    with pytest.raises(AssertionError, match="subscribed twice to 'a'"):
        broker.subscribe("a")


def test_unsubscribing_from_what_was_never_subscribed_does_nothing(broker: MemoryBroker) -> None:
    assert broker.unsubscribe("a").is_settled


def test_a_broker_that_was_not_started_fails_instead_of_raising() -> None:
    broker = MemoryBroker()
    publishing = broker.publish("a", Publication(), accepted_at_s=0.0)
    subscribing = broker.subscribe("a")
    for outcome in (publishing, subscribing):
        assert outcome.is_settled
        with pytest.raises(BrokerError, match="not running"):
            outcome.result()


STREAM = StreamOptions(size=10, ttl_s=60.0, meta_ttl_s=600.0)
ALL = HistoryRange(limit=-1)


class _Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def _streaming() -> tuple[MemoryBroker, _Clock]:
    clock, epochs = _Clock(), iter("ABCDEFGH")
    broker = MemoryBroker(monotonic=clock, new_epoch=lambda: next(epochs))
    broker.start(_Receiver())
    return broker, clock


def _publish(broker: MemoryBroker, channel: str, key: str = "") -> Published:
    options = PublishOptions(stream=STREAM, idempotency_key=key)
    return broker.publish(channel, Publication(), accepted_at_s=1.0, options=options).result()


def _offsets(broker: MemoryBroker, channel: str) -> tuple[str, int, list[int]]:
    page = broker.history(channel, ALL, meta_ttl_s=600.0).result()
    return page.position.epoch, page.position.offset, [each.offset for each in page.publications]


def test_publications_go_first_and_the_position_goes_with_its_meta() -> None:
    broker, clock = _streaming()
    _publish(broker, "a")
    clock.now_s += 60
    assert _offsets(broker, "a") == ("A", 1, [])
    clock.now_s += 599
    assert _offsets(broker, "a") == ("A", 1, []), "a read keeps the position"
    clock.now_s += 600
    assert _offsets(broker, "a") == ("B", 0, [])
    assert _publish(broker, "a").position == StreamPosition(1, "B")


def test_a_key_is_forgotten_after_its_window() -> None:
    broker, clock = _streaming()
    _publish(broker, "a", "k")
    clock.now_s += 299
    assert _publish(broker, "a", "k").is_suppressed
    clock.now_s += 1
    assert _publish(broker, "a", "k") == Published(StreamPosition(2, "A"))


def test_streams_and_keys_of_the_past_are_let_go() -> None:
    """10,000 channels that are used once each do not stay; whoever publishes next sweeps a few."""
    broker, clock = _streaming()
    epochs = iter(range(20_000))
    broker._new_epoch = lambda: str(next(epochs))  # noqa: SLF001
    for number in range(10_000):
        _publish(broker, f"channel {number}", f"key {number}")
        clock.now_s += 1
    # What is left are streams of the last 600 s and keys of the last 300 s, and a few that were not swept yet.
    assert len(broker._streams) <= 700  # noqa: SLF001
    assert len(broker._results) <= 400  # noqa: SLF001
    assert len(broker._expiries) <= 1100  # noqa: SLF001


def test_windows_of_the_past_are_let_go_and_those_in_use_stay() -> None:
    broker, clock = _streaming()
    window = WindowOptions(2, Deviation.POPULATION, 600.0)
    options = PublishOptions(sample=Sample(1.0, window))
    for number in range(10_000):
        for channel in ("busy", f"channel {number}"):
            broker.publish(channel, Publication(data=msgspec.Raw(b"{}")), accepted_at_s=1.0, options=options)
        clock.now_s += 1
    assert len(broker._windows) <= 700  # noqa: SLF001
    assert len(broker._expiries) <= 700  # noqa: SLF001
    receiver = _Receiver()
    broker.start(receiver)
    broker.subscribe("busy")
    broker.publish("busy", Publication(data=msgspec.Raw(b"{}")), accepted_at_s=1.0, options=options)
    [(_, publication, _, _)] = receiver.received
    assert b'"count":2' in bytes(publication.data)
