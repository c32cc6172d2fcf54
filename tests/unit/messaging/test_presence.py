"""What the presence store is told of this node's clients, when, and what becomes of its failures."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from gateway.broker.contract import BrokerError
from gateway.broker.memory.broker import MemoryBroker
from gateway.broker.memory.presence import MemoryPresence
from gateway.broker.outcome import Outcome
from gateway.domain.channels import Channel, Channels, ChannelSettings, Namespace
from gateway.domain.counts import Counts
from gateway.domain.session import Features, Subscription
from gateway.domain.wheel import NEVER
from gateway.messaging.presence import Presences
from gateway.protocol.messages import ClientInfo, Join, Leave
from tests.support.waiting import until

TTL_S = 60.0
CHANNELS = Channels(
    ChannelSettings(namespaces=[Namespace(name="told", join_leave=True), Namespace(name="silent", presence=True)])
)
PRESENT = Features(is_present=True)
ANNOUNCED = Features(is_announced=True)
BOTH = Features(is_present=True, is_announced=True)
NEITHER = Features()


class Store(MemoryPresence):
    """Notes what it is told. While it is *held* nothing is settled; with an *error* all fails."""

    def __init__(self) -> None:
        super().__init__(MemoryBroker())
        self.told: list[Any] = []
        self.error: BrokerError | None = None
        self.is_held = False
        self.waiting: list[Outcome[None]] = []

    def announce(self, channel: str, event: Join | Leave) -> Outcome[None]:
        return self._note("announce", channel, event)

    def add(self, channel: str, info: ClientInfo, *, ttl_s: float) -> Outcome[None]:
        return self._note("add", channel, info.client, ttl_s)

    def remove(self, channel: str, info: ClientInfo, *, is_told: bool) -> Outcome[None]:
        return self._note("remove", channel, info.client, is_told)

    def renew(self, channel: str, infos: Sequence[ClientInfo], *, ttl_s: float, is_told: bool) -> Outcome[None]:
        return self._note("renew", channel, [info.client for info in infos], ttl_s, is_told)

    def _note(self, *told: Any) -> Outcome[None]:
        self.told.append(told)
        outcome: Outcome[None] = Outcome()
        if self.is_held:
            self.waiting.append(outcome)
        elif self.error is not None:
            outcome.fail(self.error)
        else:
            outcome.succeed(None)
        return outcome

    def take(self) -> list[Any]:
        told, self.told = self.told, []
        return told


def subscription(name: str, client: str, features: Features = PRESENT) -> Subscription:
    channel = CHANNELS.resolve(name)
    assert isinstance(channel, Channel)
    info = ClientInfo("42", client)
    return Subscription(channel, info=info, is_server_side=False, expires_at_s=NEVER, features=features)


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def counts() -> Counts:
    return Counts()


def presences(store: Store, counts: Counts, *, interval_s: float = 27.0) -> Presences:
    return Presences(store, counts, interval_s=interval_s, ttl_s=TTL_S)


INFO = ClientInfo("42", "a")


@pytest.mark.parametrize(
    ("features", "on_joining", "on_leaving"),
    [
        (NEITHER, [], []),
        (PRESENT, [], [("remove", "x", "a", False)]),
        (ANNOUNCED, [("announce", "x", Join(INFO))], [("announce", "x", Leave(INFO))]),
        # The removal tells, in the same step.
        (BOTH, [("announce", "x", Join(INFO))], [("remove", "x", "a", True)]),
        (Features(is_positioned=True, is_watching=True), [], []),
    ],
    ids=["neither", "present", "announced", "present and announced", "other features"],
)
def test_what_is_told_when_a_client_comes_and_goes(
    store: Store, counts: Counts, features: Features, on_joining: list[Any], on_leaving: list[Any]
) -> None:
    known, one = presences(store, counts), subscription("x", "a", features)
    known.joined(one)
    assert (store.take(), len(known)) == (on_joining, int(features.is_present))
    assert known.local("x") == ({"a": INFO} if features.is_present else {})
    known.left(one)
    assert (store.take(), len(known), known.local("x")) == (on_leaving, 0, {})


def test_who_is_on_the_way_is_entered_but_not_kept_and_who_gives_up_is_taken_out_in_silence(
    store: Store, counts: Counts
) -> None:
    known, one = presences(store, counts), subscription("told:x", "a", BOTH)
    known.add(one)
    assert len(known) == 0
    known.give_up(one)
    assert store.take() == [("add", "told:x", "a", TTL_S), ("remove", "told:x", "a", False)]


def test_what_is_told_of_a_client_later_is_what_is_known_later(store: Store, counts: Counts) -> None:
    known, one = presences(store, counts), subscription("x", "a")
    known.joined(one)
    one.info = ClientInfo("42", "a", chan_info=one.info.chan_info)
    assert known.local("x")["a"] is one.info


# Renewal.


def test_each_channel_is_renewed_with_all_its_clients_at_once(store: Store, counts: Counts) -> None:
    known = presences(store, counts)
    for name, client in (("told:x", "a"), ("silent:y", "a"), ("told:x", "b")):
        known.joined(subscription(name, client))
    store.take()
    known.renew_all()
    assert store.take() == [
        ("renew", "told:x", ["a", "b"], TTL_S, True),
        ("renew", "silent:y", ["a"], TTL_S, False),
    ]


@pytest.mark.parametrize(("name", "features", "is_told"), [("told:x", PRESENT, True), ("silent:x", BOTH, False)])
def test_whether_ghosts_are_told_of_is_the_namespaces_to_say_not_a_tokens(
    store: Store, counts: Counts, name: str, features: Features, *, is_told: bool
) -> None:
    known = presences(store, counts)
    known.joined(subscription(name, "a", features))
    store.take()
    known.renew([name])
    assert store.take() == [("renew", name, ["a"], TTL_S, is_told)]


def test_who_has_left_is_renewed_no_more(store: Store, counts: Counts) -> None:
    known = presences(store, counts)
    first, second = subscription("x", "a"), subscription("x", "b")
    for one in (first, second):
        known.joined(one)
    known.left(first)
    store.take()
    known.renew_all()
    assert store.take() == [("renew", "x", ["b"], TTL_S, False)]
    known.left(second)
    store.take()
    known.renew_all()
    assert store.take() == []


async def test_an_interval_renews_every_channel_once_in_slices(store: Store, counts: Counts) -> None:
    known = presences(store, counts, interval_s=0.004)
    names = [f"channel {number}" for number in range(40)]
    for name in names:
        known.joined(subscription(name, "a"))
    renewing = asyncio.create_task(known.run(), name="presence")
    await until(lambda: len(store.told) >= 3 * len(names), "three rounds of renewals")
    renewing.cancel()
    rounds = [[told[1] for told in store.told[start : start + len(names)]] for start in (0, 40, 80)]
    assert sorted(rounds[0]) == sorted(names)
    assert rounds[0] == rounds[1] == rounds[2]
    # Not all at once: they come in another order than they were made.
    assert rounds[0] != names


# Failures.


@pytest.mark.parametrize(
    "fail",
    [
        lambda known: known.give_up(subscription("x", "b")),
        lambda known: known.joined(subscription("x", "b", ANNOUNCED)),
        lambda known: known.left(subscription("x", "a")),
        lambda known: known.left(subscription("x", "b", ANNOUNCED)),
        lambda known: known.renew(["x"]),
    ],
    ids=["giving up", "joining", "leaving", "leaving where only events are told", "renewing"],
)
def test_what_the_store_did_not_take_is_counted_once(
    store: Store, counts: Counts, fail: Callable[[Presences], None]
) -> None:
    known = presences(store, counts)
    known.joined(subscription("x", "a"))
    assert counts.presence_failures == 0
    store.error = BrokerError("down")
    fail(known)
    assert counts.presence_failures == 1


def test_a_client_that_the_store_does_not_take_is_its_own_to_tell(store: Store, counts: Counts) -> None:
    store.error = BrokerError("down")
    assert presences(store, counts).add(subscription("x", "a")).error is store.error
    assert counts.presence_failures == 0


# The end.


@pytest.mark.parametrize("error", [None, BrokerError("down")])
async def test_a_node_that_stops_waits_until_its_leaves_are_taken_or_refused(
    store: Store, counts: Counts, error: BrokerError | None
) -> None:
    known, ones = presences(store, counts), [subscription("x", client, BOTH) for client in ("a", "b")]
    for one in ones:
        known.joined(one)
    await known.taken()
    store.is_held = True
    for one in ones:
        known.left(one)
    stopping = asyncio.create_task(known.taken(), name="stopping")
    for outcome in store.waiting:
        await asyncio.sleep(0)
        assert not stopping.done()
        if error is None:
            outcome.succeed(None)
        else:
            outcome.fail(error)
    await stopping
    assert counts.presence_failures == (0 if error is None else 2)
