"""Who is subscribed on this node, and at which edge they come and go."""

import msgspec
import pytest

from gateway.domain.channels import Channel, Channels, ChannelSettings, Namespace
from gateway.domain.counts import Counts
from gateway.domain.hub import Hub, LocalChannel
from gateway.protocol.codes import Disconnect
from gateway.protocol.framing import BINARY, TEXT, WebSocketFraming
from gateway.protocol.messages import Publication
from gateway.protocol.variants import PlainVariant

CHANNELS = Channels(ChannelSettings(namespaces=[Namespace(name="chat")]))
FIRST = PlainVariant("first", text=WebSocketFraming(TEXT), binary=WebSocketFraming(BINARY))
SECOND = PlainVariant("second", text=WebSocketFraming(TEXT), binary=WebSocketFraming(BINARY))


class Reader:
    """A subscriber that takes everything."""

    def __init__(self) -> None:
        self.taken: list[bytes] = []

    def offer(self, data: bytes) -> bool:
        self.taken.append(data)
        return True

    def dismiss(self, disconnect: Disconnect) -> None:
        raise AssertionError(disconnect)

    def tell_gap(self, channel: str) -> None:
        raise AssertionError(channel)


def channel(name: str) -> Channel:
    resolved = CHANNELS.resolve(name)
    assert isinstance(resolved, Channel)
    return resolved


def deliver(local: LocalChannel) -> None:
    """Flush as the fan-out does."""
    batch, local.pending = local.pending, []
    for variant, group in local.groups.items():
        for subscriber in group:
            subscriber.offer(variant.publications(local.channel.name, batch))


def members(hub: Hub, name: str) -> dict[str, list[object]]:
    local = hub.get(name)
    assert local is not None
    return {variant.name: list(group) for variant, group in local.groups.items()}


@pytest.fixture
def hub() -> Hub:
    return Hub(ledger=Counts().ledger, flush=deliver)


def test_a_channel_is_there_as_long_as_somebody_is_subscribed(hub: Hub) -> None:
    one, two = Reader(), Reader()
    assert (hub.get("x"), len(hub), list(hub)) == (None, 0, [])
    hub.join(channel("x"), one, FIRST)
    hub.join(channel("x"), two, SECOND)
    local = hub.get("x")
    assert local is not None
    assert (len(hub), list(hub), len(local)) == (1, [local], 2)
    hub.leave("x", one, FIRST)
    assert hub.get("x") is local
    hub.leave("x", two, SECOND)
    assert (hub.get("x"), len(hub), list(hub)) == (None, 0, [])


def test_subscribers_are_grouped_by_what_they_can_share(hub: Hub) -> None:
    one, two, three = Reader(), Reader(), Reader()
    for reader, variant in ((one, FIRST), (two, SECOND), (three, FIRST)):
        hub.join(channel("x"), reader, variant)
    assert members(hub, "x") == {"first": [one, three], "second": [two]}
    hub.leave("x", two, SECOND)
    assert members(hub, "x") == {"first": [one, three]}


def test_joining_twice_counts_once(hub: Hub) -> None:
    reader = Reader()
    hub.join(channel("x"), reader, FIRST)
    hub.join(channel("x"), reader, FIRST)
    assert members(hub, "x") == {"first": [reader]}


@pytest.mark.parametrize("name", ["x", "y"])
def test_who_was_not_there_leaves_no_trace(hub: Hub, name: str) -> None:
    one, two = Reader(), Reader()
    hub.join(channel("x"), one, FIRST)
    hub.leave(name, two, FIRST)
    hub.leave(name, one, SECOND)
    assert members(hub, "x") == {"first": [one]}
    assert len(hub) == 1


def test_subscriptions_are_counted_by_namespace(hub: Hub) -> None:
    one, two = Reader(), Reader()
    assert hub.subscriptions() == {}
    for name, reader, variant in (
        ("x", one, FIRST),
        ("y", one, FIRST),
        ("chat:x", one, FIRST),
        ("chat:x", two, SECOND),
        ("$chat:y", two, SECOND),
    ):
        hub.join(channel(name), reader, variant)
    assert hub.subscriptions() == {"": 2, "chat": 3}


def test_a_channel_is_booked_in_the_ledger_of_its_namespace() -> None:
    counts = Counts()
    hub = Hub(ledger=counts.ledger)
    hub.join(channel("chat:x"), Reader(), FIRST)
    local = hub.get("chat:x")
    assert local is not None
    assert local.ledger is counts.ledgers["chat"]
    assert list(counts.ledgers) == ["chat"]


def test_a_newcomer_gets_nothing_of_a_batch_that_was_begun_before(hub: Hub) -> None:
    old, new = Reader(), Reader()
    hub.join(channel("x"), old, FIRST)
    local = hub.get("x")
    assert local is not None
    local.pending.append(Publication(data=msgspec.Raw(b"1")))
    hub.join(channel("x"), new, FIRST)
    assert (len(old.taken), new.taken, local.pending) == (1, [], [])
    local.pending.append(Publication(data=msgspec.Raw(b"2")))
    deliver(local)
    assert (len(old.taken), len(new.taken)) == (2, 1)


def test_who_has_left_gets_nothing_of_what_waits(hub: Hub) -> None:
    stays, leaves = Reader(), Reader()
    for reader in (stays, leaves):
        hub.join(channel("x"), reader, FIRST)
    local = hub.get("x")
    assert local is not None
    local.pending.append(Publication(data=msgspec.Raw(b"1")))
    hub.leave("x", leaves, FIRST)
    deliver(local)
    assert (len(stays.taken), leaves.taken) == (1, [])


def test_a_newcomer_is_subscribed_although_his_coming_drove_the_last_other_one_out() -> None:
    """The flush before a join may find the only subscriber too slow, and dismissing it empties the channel."""
    slow, new = Reader(), Reader()

    def dismiss_the_slow(local: LocalChannel) -> None:
        local.pending.clear()
        emptied.leave(local.channel.name, slow, FIRST)

    emptied = Hub(ledger=Counts().ledger, flush=dismiss_the_slow)
    emptied.join(channel("x"), slow, FIRST)
    local = emptied.get("x")
    assert local is not None
    local.pending.append(Publication(data=msgspec.Raw(b"1")))
    emptied.join(channel("x"), new, FIRST)
    assert members(emptied, "x") == {"first": [new]}
