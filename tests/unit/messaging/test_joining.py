"""What a new subscription has, what it learns of its stream, and that whoever does not get in leaves nothing."""

import itertools
from collections.abc import Iterator
from itertools import product
from types import SimpleNamespace
from typing import Any, Final, cast

import msgspec
import pytest

from gateway.broker.contract import BrokerError, PublishOptions
from gateway.broker.memory.broker import MemoryBroker
from gateway.broker.memory.presence import MemoryPresence
from gateway.broker.outcome import Outcome
from gateway.domain.channels import Channel, Channels, ChannelSettings, Namespace
from gateway.domain.identity import Overrides
from gateway.domain.session import Features
from gateway.domain.stream import StreamOptions
from gateway.messaging.conversation import Conversation
from gateway.messaging.joining import granted_features
from gateway.protocol.messages import ClientInfo, Publication, SubscribeRequest
from tests.support.conversations import Client, FakeTransport, House, ManualBroker, house, token
from tests.support.delayed_broker import DelayedBroker

BOTH: Final = (False, True)
MAYBE: Final = (None, False, True)
HISTORY: Final = {"history_size": 5, "history_ttl_s": 60.0}

# Features: options of the namespace x overrides of a token x wishes of the client (protocol.md 3.4, 9).


def features(
    options: dict[str, Any],
    *,
    user: str = "42",
    is_insecure: bool = False,
    over: dict[str, bool | None] | None = None,
    **wishes: Any,
) -> Features:
    """Return what a subscription has; *options* are those of its namespace."""
    channels = Channels(ChannelSettings(namespaces=[Namespace.model_validate({"name": "chat", **options})]))
    channel = channels.resolve("chat:x")
    assert isinstance(channel, Channel)
    asking = SimpleNamespace(session=SimpleNamespace(user=user), services=SimpleNamespace(is_insecure=is_insecure))
    request = SubscribeRequest(channel="chat:x", **wishes)
    return granted_features(cast("Conversation", asking), channel, request, Overrides(**(over or {})))


@pytest.mark.parametrize("has_history", BOTH)
def test_who_recovers_and_who_is_positioned(*, has_history: bool) -> None:
    table, expected = {}, {}
    options_of = [
        (force, allow, allow_position, may_read)
        for force, allow, allow_position, may_read in product(BOTH, repeat=4)
        if has_history or not (force or allow)
    ]
    for options, over, recoverable, positioned in product(options_of, MAYBE, BOTH, BOTH):
        force, allow, allow_position, may_read = options
        given = {
            "force_recovery": force,
            "allow_recovery": allow,
            "allow_positioning": allow_position,
            "allow_history_for_subscriber": may_read,
            **(HISTORY if has_history else {}),
        }
        case = (*options, over, recoverable, positioned)
        found = features(given, over={"force_recovery": over}, recoverable=recoverable, positioned=positioned)
        table[case] = (found.is_recoverable, found.is_positioned)
        is_forced = force if over is None else over
        reads = may_read and has_history
        recovers = has_history and (is_forced or (recoverable and (allow or reads)))
        expected[case] = (recovers, recovers or (positioned and (allow_position or reads)))
    assert table == expected


@pytest.mark.parametrize(
    ("force", "over", "is_positioned"),
    [(False, None, False), (True, None, True), (True, False, False), (False, True, True), (False, False, False)],
)
@pytest.mark.parametrize("has_history", BOTH)
def test_a_position_may_be_forced_with_and_without_history(
    force: bool,  # noqa: FBT001 - a column of the table
    over: bool | None,  # noqa: FBT001 - the same
    is_positioned: bool,  # noqa: FBT001 - the same
    *,
    has_history: bool,
) -> None:
    options = {"force_positioning": force, **(HISTORY if has_history else {})}
    found = features(options, over={"force_positioning": over})
    assert found == Features(is_positioned=is_positioned)


@pytest.mark.parametrize("is_insecure", BOTH)
@pytest.mark.parametrize("user", ["", "42"])
@pytest.mark.parametrize("allows_anonymous", BOTH)
def test_who_may_read_the_history_may_have_what_it_wishes(
    user: str, *, is_insecure: bool, allows_anonymous: bool
) -> None:
    options = {**HISTORY, "allow_history_for_subscriber": True, "allow_history_for_anonymous": allows_anonymous}
    found = features(options, user=user, is_insecure=is_insecure, recoverable=True)
    may = bool(user) or is_insecure or allows_anonymous
    assert found == Features(is_recoverable=may, is_positioned=may)


@pytest.mark.parametrize("over", MAYBE)
@pytest.mark.parametrize("option", BOTH)
def test_presence_is_the_namespaces_or_the_tokens(*, option: bool, over: bool | None) -> None:
    assert features({"presence": option}, over={"presence": over}).is_present is (option if over is None else over)


def test_who_is_announced_and_who_watches() -> None:
    table, expected = {}, {}
    for case in product(BOTH, BOTH, MAYBE, MAYBE, BOTH, BOTH, ["", "42"], BOTH):
        join_leave, force_push, over_join_leave, over_push, wishes, may_read, user, is_insecure = case
        found = features(
            {"join_leave": join_leave, "force_push_join_leave": force_push, "allow_presence_for_subscriber": may_read},
            user=user,
            is_insecure=is_insecure,
            over={"join_leave": over_join_leave, "force_push_join_leave": over_push},
            join_leave=wishes,
        )
        table[case] = (found.is_announced, found.is_watching)
        is_on = join_leave if over_join_leave is None else over_join_leave
        is_pushed = force_push if over_push is None else over_push
        watches = is_pushed or (wishes and (is_insecure or (may_read and user != "")))
        expected[case] = (is_on, is_on and watches)
    assert table == expected


# On the way in.

STREAM: Final = PublishOptions(StreamOptions(size=50, ttl_s=60.0, meta_ttl_s=600.0))
TABLE: Final[dict[str, Any]] = {
    "channel": {
        "namespaces": [
            {
                "name": "stream",
                "allow_subscribe_for_client": True,
                "history_size": 50,
                "history_ttl": 60,
                "force_recovery": True,
                "presence": True,
                "allow_presence_for_client": True,
            },
            {"name": "present", "allow_subscribe_for_client": True, "presence": True, "join_leave": True},
            {
                "name": "cache",
                "allow_subscribe_for_client": True,
                "history_size": 1,
                "history_ttl": 60,
                "force_recovery": True,
                "force_recovery_mode": "cache",
                "auto_cache_recover": True,
            },
        ]
    },
}
ERROR: Final = {"code": 100, "message": "internal server error", "temporary": True}
UNRECOVERABLE: Final = {"code": 112, "message": "unrecoverable position"}


def delayed() -> DelayedBroker:
    letters = itertools.count()
    return DelayedBroker(monotonic=lambda: 0.0, new_epoch=lambda: f"e{next(letters)}")


def publish(broker: MemoryBroker, *numbers: int, channel: str = "stream:x") -> None:
    for number in numbers:
        broker.publish(channel, Publication(data=msgspec.Raw(b"%d" % number)), accepted_at_s=0.0, options=STREAM)


def left(node: House, client: Client) -> dict[str, Any]:
    """Return what there is of *client* and its channels."""
    present = [name for name in ("stream:x", "present:x") if node.services.presence_store.presence(name).result()]
    return {
        "subscriptions": client.channels,
        "interest": len(node.services.interest),
        "hub": len(node.hub),
        "renewed": len(node.services.presences),
        "present": present,
    }


NOTHING_LEFT: Final = {"subscriptions": set(), "interest": 0, "hub": 0, "renewed": 0, "present": []}


def subscribe(number: int, channel: str = "stream:x", **fields: Any) -> dict[str, Any]:
    return {"id": number, "subscribe": {"channel": channel, **fields}}


@pytest.mark.parametrize(
    ("room", "recovers"), [(1_000_000, True), (2 * 3 * 201, True), (2 * 3 * 201 - 2, False), (0, False), (-5, False)]
)
async def test_no_more_is_recovered_than_half_of_what_the_transport_takes(
    monkeypatch: pytest.MonkeyPatch, room: int, *, recovers: bool
) -> None:
    """Three publications of one byte each; each counts 200 bytes more."""
    async with house(TABLE, broker=MemoryBroker(new_epoch=lambda: "e")) as node:
        publish(node.broker, 1, 2, 3, 4)
        client = await node.connect()
        monkeypatch.setattr(FakeTransport, "room", room)
        (reply,) = await client.ask(subscribe(2, recover=True, offset=1, epoch="e"))
        told = {"recoverable": True, "positioned": True, "epoch": "e", "was_recovering": True}
        publications = [{"data": number, "offset": number} for number in (2, 3, 4)]
        missed = {"recovered": True, "offset": 1, "publications": publications}
        assert reply["subscribe"] == told | (missed if recovers else {"offset": 4})
        [((_, recovered, _), times)] = node.counts.recoveries.items()
        assert (recovered, times) == ("yes" if recovers else "no", 1)


async def test_an_error_instead_of_an_unrecovered_subscription_leaves_nothing() -> None:
    async with house(TABLE, broker=MemoryBroker(new_epoch=lambda: "e")) as node:
        publish(node.broker, 1)
        client = await node.connect()
        wish: dict[str, Any] = {"recover": True, "offset": 1, "epoch": "other"}
        assert await client.ask(subscribe(2, **wish, flag=2)) == [{"id": 2, "error": UNRECOVERABLE}]
        assert left(node, client) == NOTHING_LEFT
        (reply,) = await client.ask(subscribe(3, **wish, flag=1))
        assert reply["subscribe"] | {"offset": 1, "was_recovering": True} == reply["subscribe"]


@pytest.mark.parametrize("count", [0, 1, 3])
async def test_every_newcomer_gets_the_latest_publication_where_the_namespace_says_so(count: int) -> None:
    async with house(TABLE, broker=MemoryBroker(new_epoch=lambda: "e")) as node:
        publish(node.broker, *range(1, count + 1), channel="cache:x")
        client = await node.connect()
        (reply,) = await client.ask(subscribe(2, "cache:x"))
        told = {"recoverable": True, "positioned": True, "epoch": "e", "was_recovering": True}
        latest: dict[str, Any] = {"data": count, "offset": count}
        if count == 1:
            latest["epoch"] = "e"
        assert reply["subscribe"] == told | ({"recovered": True, "publications": [latest]} if count else {})


class HeldReads(ManualBroker):
    """Holds subscriptions, then reads."""

    def history(self, channel: str, *args: Any, **options: Any) -> Outcome[Any]:
        read = super().history
        return self._hold(channel, lambda: read(channel, *args, **options))


async def _wait(node: House, client: Client, *, for_: str) -> HeldReads:
    """Let *client* subscribe as far as that, and return what it waits for."""
    broker = node.broker
    assert isinstance(broker, HeldReads)
    client.send(subscribe(2))
    await node.settle()
    if for_ == "the read":
        broker.settle()
        await node.settle()
    assert len(broker.waiting) == 1
    return broker


@pytest.mark.parametrize("end", ["goes", "is cancelled"])
@pytest.mark.parametrize("for_", ["the confirmation", "the read"])
async def test_who_goes_while_it_waits_leaves_nothing(for_: str, end: str) -> None:
    async with house(TABLE, broker=HeldReads("subscribe")) as node:
        client = await node.connect()
        broker = await _wait(node, client, for_=for_)
        if end == "goes":
            client.go()
        else:
            for task in list(node.tasks):
                task.cancel()
            await node.settle()
        while broker.waiting:
            broker.settle()
            await node.settle()
        assert left(node, client) == NOTHING_LEFT
        assert client.take() == []


@pytest.mark.parametrize("for_", ["the confirmation", "the read"])
async def test_a_broker_that_fails_is_told_and_nothing_is_left_but_another_try(for_: str) -> None:
    async with house(TABLE, broker=HeldReads("subscribe")) as node:
        client = await node.connect()
        broker = await _wait(node, client, for_=for_)
        broker.settle(BrokerError("down"))
        await node.settle()
        assert client.take_values() == [{"id": 2, "error": ERROR}]
        assert left(node, client) == NOTHING_LEFT
        client.send(subscribe(3))
        for _ in range(2):
            await node.settle()
            broker.settle()
        await node.settle()
        (reply,) = client.take_values()
        assert reply["id"] == 3
        assert client.channels == {"stream:x"}


@pytest.mark.parametrize("channel", ["stream:x", "present:x"])
async def test_a_presence_store_that_fails_is_told_and_nothing_is_left(
    monkeypatch: pytest.MonkeyPatch, channel: str
) -> None:
    def fail(*_: Any, **__: Any) -> Outcome[None]:
        outcome: Outcome[None] = Outcome()
        outcome.fail(BrokerError("down"))
        return outcome

    async with house(TABLE, broker=MemoryBroker()) as node:
        client = await node.connect()
        monkeypatch.setattr(MemoryPresence, "add", fail)
        assert await client.ask(subscribe(2, channel)) == [{"id": 2, "error": ERROR}]
        assert left(node, client) == NOTHING_LEFT


async def test_a_presence_entry_is_there_before_the_reply_and_gone_with_who_did_not_get_in() -> None:
    async with house(TABLE, broker=delayed()) as node:
        client, broker = await node.connect(), node.broker
        assert isinstance(broker, DelayedBroker)
        client.send(subscribe(2))
        await node.settle()
        info = {client.id: ClientInfo("42", client.id)}
        assert node.services.presence_store.presence("stream:x").result() == info
        broker.fail_read()
        await node.settle()
        assert node.services.presence_store.presence("stream:x").result() == {}
        assert client.take_values() == [{"id": 2, "error": ERROR}]


@pytest.mark.parametrize("fails", ["stream:a", "stream:b"])
async def test_of_the_channels_of_a_connect_all_are_joined_or_none(fails: str) -> None:
    async with house(TABLE, broker=delayed()) as node:
        client, broker = node.open(), node.broker
        assert isinstance(broker, DelayedBroker)
        connect = {"token": token(channels=["stream:a", "stream:b", "present:x"])}
        client.send({"id": 1, "connect": connect})
        await node.settle()
        assert [asked[0] for asked in broker.asked] == ["stream:a", "stream:b"]
        while broker.asked:
            if broker.asked[0][0] == fails:
                broker.fail_read()
            else:
                broker.carry_out()
                broker.answer()
        await node.settle()
        assert client.take_values() == [{"id": 1, "error": ERROR}]
        assert left(node, client) == NOTHING_LEFT


@pytest.mark.parametrize("comes_first", [False, True])
@pytest.mark.parametrize("recovers", [False, True])
async def test_what_comes_in_the_turn_in_which_the_page_does_is_not_missed(
    *, recovers: bool, comes_first: bool
) -> None:
    wish: dict[str, Any] = {"recover": True, "epoch": "e0"} if recovers else {}
    async with house(TABLE, broker=delayed()) as node:
        broker = node.broker
        assert isinstance(broker, DelayedBroker)
        old, new = await node.connect(), await node.connect("43")
        old.send(subscribe(2))
        await node.settle()
        broker.settle()
        await node.settle()
        new.send(subscribe(2, **wish))
        await node.settle()
        broker.carry_out()
        publish(broker, 1)
        for move in (broker.deliver, broker.answer) if comes_first else (broker.answer, broker.deliver):
            move()
        await node.settle()
        (reply,) = new.take_values()
        told = {"recoverable": True, "positioned": True, "epoch": "e0"}
        missed = {"was_recovering": True, "recovered": True, "publications": [{"data": 1, "offset": 1, "epoch": "e0"}]}
        assert reply["subscribe"] == told | (missed if recovers else {"offset": 1})
        assert broker.reads == 2


# Node and stream do not fit.


FORGETFUL: Final = {"broker": {"catch_up_max_size": 1}}
"""Of a node that keeps a single publication for newcomers."""


async def _pass_by(node: House, broker: DelayedBroker, numbers: Iterator[int]) -> None:
    """Have three publications delivered between a read of the stream and its answer."""
    broker.carry_out()
    publish(broker, next(numbers), next(numbers), next(numbers))
    while broker.deliveries:
        broker.deliver()
    broker.answer()
    await node.settle()


@pytest.mark.parametrize("misfits", [1, 7])
async def test_a_page_that_the_node_has_outrun_is_read_again(misfits: int) -> None:
    async with house(TABLE, FORGETFUL, broker=delayed()) as node:
        broker, numbers = node.broker, itertools.count(1)
        assert isinstance(broker, DelayedBroker)
        old, new = await node.connect(), await node.connect("43")
        old.send(subscribe(2))
        await node.settle()
        broker.settle()
        await node.settle()
        reads = broker.reads
        new.send(subscribe(2))
        await node.settle()
        for _ in range(misfits):
            await _pass_by(node, broker, numbers)
            assert (new.take(), len(broker.asked)) == ([], 1)
        broker.settle()
        await node.settle()
        (reply,) = new.take_values()
        assert reply["subscribe"]["offset"] == misfits * 3
        assert broker.reads == reads + misfits + 1
        publish(broker, 99)
        broker.settle()
        await node.settle()
        assert [value["push"]["pub"]["data"] for value in new.take_values()] == [99]


async def test_a_page_that_never_fits_is_an_error_and_leaves_nothing() -> None:
    async with house(TABLE, FORGETFUL, broker=delayed()) as node:
        broker, numbers = node.broker, itertools.count(1)
        assert isinstance(broker, DelayedBroker)
        old, new = await node.connect(), await node.connect("43")
        old.send(subscribe(2))
        await node.settle()
        broker.settle()
        await node.settle()
        new.send(subscribe(2))
        await node.settle()
        while broker.asked:
            await _pass_by(node, broker, numbers)
        assert new.take_values() == [{"id": 2, "error": ERROR}]
        assert broker.reads == 1 + 8
        old.go()
        assert left(node, new) == NOTHING_LEFT


async def test_a_page_of_before_an_interruption_is_read_again() -> None:
    async with house(TABLE, broker=delayed()) as node:
        client, broker = await node.connect(), node.broker
        assert isinstance(broker, DelayedBroker)
        client.send(subscribe(2))
        await node.settle()
        broker.carry_out()
        broker.cut()
        publish(broker, 1)
        broker.restore()
        broker.answer()
        await node.settle()
        assert client.take() == []
        broker.settle()
        await node.settle()
        (reply,) = client.take_values()
        assert reply["subscribe"]["offset"] == 1


@pytest.mark.parametrize("comes_back", [False, True])
async def test_an_epoch_that_only_one_of_the_two_knows_is_found_out(*, comes_back: bool) -> None:
    """The stream was emptied, and this node has not heard of it; the newcomer's page is of the new epoch."""
    async with house(TABLE, broker=delayed()) as node:
        broker = node.broker
        assert isinstance(broker, DelayedBroker)
        old, new = await node.connect(), await node.connect("43")
        old.send(subscribe(2))
        await node.settle()
        broker.settle()
        await node.settle()
        old.take()
        broker.flush_data()
        publish(broker, 1)
        broker.swallow()
        wish: dict[str, Any] = {"recover": True, "offset": 0, "epoch": "e0"} if comes_back else {}
        new.send(subscribe(2, **wish))
        for _ in range(6):
            await node.settle()
            broker.settle()
        await node.settle()
        (reply,) = new.take_values()
        told = {"recoverable": True, "positioned": True, "epoch": "e1", "offset": 1}
        assert reply["subscribe"] == told | ({"was_recovering": True} if comes_back else {})
        (push,) = old.take_values()
        assert push["push"]["unsubscribe"] == {"code": 2500, "reason": "insufficient state"}
