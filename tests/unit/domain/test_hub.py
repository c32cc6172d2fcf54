"""Who is subscribed on this node, and at which edge they come and go."""

import msgspec
import pytest

from gateway.domain.channels import Channel, Channels, ChannelSettings, Namespace
from gateway.domain.counts import Counts, Dropped
from gateway.domain.hub import Hub, LocalChannel
from gateway.domain.subscriber import Traffic
from gateway.domain.track import Track
from gateway.protocol.codes import Disconnect
from gateway.protocol.framing import BINARY, TEXT, WebSocketFraming
from gateway.protocol.json_codec import JSONCodec
from gateway.protocol.messages import Publication, StreamPosition
from gateway.protocol.variants import PlainVariant, ProtocolVariant

CHANNELS = Channels(
    ChannelSettings(namespaces=[Namespace(name="chat"), Namespace(name="stream", history_size=9, history_ttl_s=60.0)])
)
JSON = ProtocolVariant("json", JSONCodec(), WebSocketFraming(TEXT), needs_json=True)
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
    hub.leave("x", one, FIRST, because=Dropped.UNSUBSCRIBED)
    assert hub.get("x") is local
    hub.leave("x", two, SECOND, because=Dropped.UNSUBSCRIBED)
    assert (hub.get("x"), len(hub), list(hub)) == (None, 0, [])


def test_subscribers_are_grouped_by_what_they_can_share(hub: Hub) -> None:
    one, two, three = Reader(), Reader(), Reader()
    for reader, variant in ((one, FIRST), (two, SECOND), (three, FIRST)):
        hub.join(channel("x"), reader, variant)
    assert members(hub, "x") == {"first": [one, three], "second": [two]}
    hub.leave("x", two, SECOND, because=Dropped.UNSUBSCRIBED)
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
    hub.leave(name, two, FIRST, because=Dropped.UNSUBSCRIBED)
    hub.leave(name, one, SECOND, because=Dropped.UNSUBSCRIBED)
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
    hub.leave("x", leaves, FIRST, because=Dropped.UNSUBSCRIBED)
    deliver(local)
    assert (len(stays.taken), leaves.taken) == (1, [])


def test_a_newcomer_is_subscribed_although_his_coming_drove_the_last_other_one_out() -> None:
    """The flush before a join may find the only subscriber too slow, and dismissing it empties the channel."""
    slow, new = Reader(), Reader()

    def dismiss_the_slow(local: LocalChannel) -> None:
        local.pending.clear()
        emptied.leave(local.channel.name, slow, FIRST, because=Dropped.UNSUBSCRIBED)

    emptied = Hub(ledger=Counts().ledger, flush=dismiss_the_slow)
    emptied.join(channel("x"), slow, FIRST)
    local = emptied.get("x")
    assert local is not None
    local.pending.append(Publication(data=msgspec.Raw(b"1")))
    emptied.join(channel("x"), new, FIRST)
    assert members(emptied, "x") == {"first": [new]}


# Newcomers, and those who know more of the stream than this node.


def tracked(local: LocalChannel | None) -> Track:
    assert local is not None
    assert local.track is not None
    return local.track


def expected_in(hub: Hub, name: str, *, at: int) -> LocalChannel:
    """Return a channel that somebody is expected in, on a node that has received it up to *at*."""
    local = hub.expect(channel(name))
    tracked(local).move(StreamPosition(at, "e"))
    return local


def test_a_channel_is_there_while_somebody_is_expected(hub: Hub) -> None:
    first, second = hub.expect(channel("stream:x")), hub.expect(channel("stream:x"))
    assert (first is second, hub.get("stream:x"), tracked(first).newcomers, len(first)) == (True, first, 2, 0)
    tracked(first).remember([Publication(offset=1)], limit=9)
    hub.forget(first)
    assert (hub.get("stream:x"), len(tracked(first).recent)) == (first, 1)
    hub.forget(first)
    assert (hub.get("stream:x"), len(tracked(first).recent)) == (None, 0)


def test_who_gives_up_takes_nobody_along(hub: Hub) -> None:
    reader = Reader()
    hub.join(channel("stream:x"), reader, FIRST)
    hub.forget(hub.expect(channel("stream:x")))
    assert members(hub, "stream:x") == {"first": [reader]}


@pytest.mark.parametrize(("name", "has_track"), [("stream:x", True), ("x", False)])
def test_a_channel_has_a_place_in_a_stream_if_it_has_one_or_somebody_is_positioned(
    hub: Hub, name: str, *, has_track: bool
) -> None:
    hub.join(channel(name), Reader(), FIRST)
    local = hub.get(name)
    assert local is not None
    assert (local.track is not None) is has_track
    hub.forget(hub.expect(channel(name)))
    assert local.track is not None


@pytest.mark.parametrize(("after", "is_late"), [(0, False), (4, False), (5, False), (6, True)])
def test_who_knows_more_of_the_stream_than_this_node_waits_at_the_edge(hub: Hub, after: int, *, is_late: bool) -> None:
    local, reader = expected_in(hub, "stream:x", at=5), Reader()
    joined: list[Traffic] = []
    hub.join_after(channel("stream:x"), reader, FIRST, after=after, joined=joined.append)
    hub.forget(local)
    assert joined == ([] if is_late else [Traffic()])
    assert members(hub, "stream:x") == ({} if is_late else {"first": [reader]})
    # Waiting counts as being there.
    assert (hub.get("stream:x"), local.subscribers(), hub.subscriptions()) == (local, [reader], {"stream": 1})


def test_a_latecomer_gets_nothing_below_its_edge_and_all_above_it(hub: Hub) -> None:
    old, new = Reader(), Reader()
    hub.join(channel("stream:x"), old, FIRST)
    local = expected_in(hub, "stream:x", at=5)
    joined: list[Traffic] = []
    hub.join_after(channel("stream:x"), new, FIRST, after=7, joined=joined.append)
    hub.forget(local)
    for offset in range(6, 10):
        local.pending.append(Publication(data=msgspec.Raw(b"%d" % offset), offset=offset))
        tracked(local).offset = offset
        if offset >= tracked(local).edge:
            hub.flush_pending(local)
            hub.admit(local)
    hub.flush_pending(local)
    assert (old.taken, new.taken) == (
        [b"\x81\x016\x81\x017", b"\x81\x018\x81\x019"],
        [b"\x81\x018\x81\x019"],
    )
    assert joined == [Traffic()]


def test_a_latecomer_who_leaves_is_gone_and_empties_the_channel(hub: Hub) -> None:
    local = expected_in(hub, "stream:x", at=5)
    early, late = Reader(), Reader()
    for reader in (early, late):
        hub.join_after(channel("stream:x"), reader, FIRST, after=6, joined=lambda _: None)
    hub.forget(local)
    assert hub.leave("stream:x", early, FIRST, because=Dropped.UNSUBSCRIBED) == Traffic()
    assert (hub.get("stream:x"), local.subscribers()) == (local, [late])
    hub.leave("stream:x", late, FIRST, because=Dropped.UNSUBSCRIBED)
    assert (hub.get("stream:x"), len(hub), hub.subscriptions()) == (None, 0, {})


def test_joining_and_leaving_tell_what_the_group_was_written(hub: Hub) -> None:
    one, two = Reader(), Reader()
    assert hub.join(channel("x"), one, FIRST) == Traffic(0, 0)
    local = hub.get("x")
    assert local is not None
    local.groups[FIRST].sent = Traffic(3, 30)
    assert hub.join(channel("x"), two, FIRST) == Traffic(3, 30)
    local.groups[FIRST].sent = Traffic(5, 50)
    assert [hub.leave("x", each, FIRST, because=Dropped.UNSUBSCRIBED) for each in (two, one, one)] == [
        Traffic(5, 50),
        Traffic(5, 50),
        Traffic(),
    ]


# Who is told of comings and goings.


def test_watchers_are_those_who_asked_and_are_still_here(hub: Hub) -> None:
    one, two = Reader(), Reader()
    for reader in (one, two):
        hub.join(channel("x"), reader, JSON)
    local = hub.get("x")
    assert local is not None
    assert local.watchers is None
    hub.watch("x", "c1", one, JSON)
    hub.watch("x", "c2", two, JSON)
    hub.unwatch("x", "c1")
    assert local.watchers == {"c2": (two, JSON)}
    hub.unwatch("x", "c2")
    assert local.watchers is None
    for name, client in (("x", "c2"), ("y", "c1")):
        hub.unwatch(name, client)
    assert local.watchers is None
