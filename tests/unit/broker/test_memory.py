"""What the memory broker adds to the contract (tests/contracts/test_broker.py): it answers within the call."""

import msgspec
import pytest

from gateway.broker.contract import BrokerError, Published
from gateway.broker.memory import MemoryBroker
from gateway.protocol.messages import Publication


class _Receiver:
    def __init__(self) -> None:
        self.received: list[tuple[str, Publication, float | None]] = []

    def receive(self, channel: str, publication: Publication, accepted_at_s: float | None) -> None:
        self.received.append((channel, publication, accepted_at_s))


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
    assert receiver.received == [("a", publication, 2.5)]
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
