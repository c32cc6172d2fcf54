"""From the broker to the subscribers of a node: order, what is held, what is read again, and what is told when lost.

tests/properties/test_positions.py has the same in any order of events.
"""

import itertools
from typing import Any, Final

import msgspec
import pytest

from gateway.broker.contract import PublishOptions
from gateway.domain import track as track_module
from gateway.domain.stream import StreamOptions
from gateway.domain.track import Track
from gateway.protocol.messages import ClientInfo, Join, Leave, Publication
from tests.support.conversations import Client, House, house, token
from tests.support.delayed_broker import DelayedBroker

STREAM: Final = PublishOptions(StreamOptions(size=5, ttl_s=60.0, meta_ttl_s=600.0))
TABLE: Final[dict[str, Any]] = {
    "broker": {"catch_up_max_size": 5, "catch_up_retry_delay": 2},
    "channel": {
        "namespaces": [
            {
                "name": "stream",
                "allow_subscribe_for_client": True,
                "history_size": 5,
                "history_ttl": 60,
                "allow_positioning": True,
                "allow_recovery": True,
            },
            {"name": "bare", "allow_subscribe_for_client": True, "allow_positioning": True},
            {"name": "room", "allow_subscribe_for_client": True, "join_leave": True, "force_push_join_leave": True},
        ]
    },
}
LOST: Final = {"code": 2500, "reason": "insufficient state"}


@pytest.fixture(autouse=True)
def _payloads_alone_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounds are easier to read in bytes of payload; that each publication counts for more has a test of its own."""
    monkeypatch.setattr(track_module, "OVERHEAD_BYTES", 0)


class Desk:
    """A house whose broker the test moves step by step; publications hold their numbers, one byte each."""

    def __init__(self, house: House, broker: DelayedBroker) -> None:
        self.house = house
        self.broker = broker

    async def subscriber(self, channel: str = "stream:x", **wishes: Any) -> Client:
        client = await self.house.connect()
        client.send({"id": 2, "subscribe": {"channel": channel, **wishes}})
        await self.house.settle()
        self.broker.settle()
        await self.house.settle()
        assert [value["id"] for value in client.take_values() if "id" in value] == [2]
        return client

    async def server_side(self, channel: str) -> Client:
        client = self.house.open()
        positioned = {"override": {"force_positioning": {"value": True}}}
        client.send({"id": 1, "connect": {"token": token(subs={channel: positioned})}})
        await self.house.settle()
        self.broker.settle()
        await self.house.settle()
        assert client.channels == {channel}
        return client

    def publish(self, *numbers: int, channel: str = "stream:x", options: PublishOptions = STREAM) -> None:
        for number in numbers:
            publication = Publication(data=msgspec.Raw(b"%d" % number))
            self.broker.publish(channel, publication, accepted_at_s=self.house.now_s, options=options)

    def publish_past_the_history(self, number: int) -> None:
        self.publish(number, options=PublishOptions())

    def deliver(self, count: int = 1) -> None:
        for _ in range(count):
            self.broker.deliver()

    def lose(self, count: int = 1) -> None:
        for _ in range(count):
            self.broker.swallow()

    async def got(self, client: Client) -> list[Any]:
        """Return the numbers that *client* got since the last call, and what it was told instead."""
        await self.house.settle()
        pushes = [value["push"] for value in client.take_values()]
        return [push["pub"]["data"] if "pub" in push else push.get("unsubscribe", push) for push in pushes]

    def track(self, channel: str = "stream:x") -> Track:
        local = self.house.hub.get(channel)
        assert local is not None
        assert local.track is not None
        return local.track

    def logged(self, event: str) -> list[dict[str, Any]]:
        dull = ("event", "level", "time", "timestamp", "node")
        found = [each for each in self.house.events if each["event"] == event]
        return [{name: value for name, value in each.items() if name not in dull} for each in found]

    @property
    def counted(self) -> dict[str, float]:
        counts = self.house.counts
        duplicates = sum(ledger.duplicates for ledger in counts.ledgers.values())
        return {
            "gaps": counts.gaps,
            "caught_up": counts.caught_up,
            "positions_lost": counts.positions_lost,
            "duplicates": duplicates,
        }


def desk(house: House) -> Desk:
    assert isinstance(house.broker, DelayedBroker)
    return Desk(house, house.broker)


def delayed() -> DelayedBroker:
    letters = itertools.count()
    return DelayedBroker(monotonic=lambda: 0.0, new_epoch=lambda: f"e{next(letters)}")


async def test_what_follows_is_delivered_at_once_and_reads_nothing() -> None:
    async with house(TABLE, broker=delayed()) as node:
        here = desk(node)
        client = await here.subscriber()
        here.publish(1, 2)
        here.publish_past_the_history(3)
        here.publish(4)
        here.deliver(4)
        assert await here.got(client) == [1, 2, 3, 4]
        assert (len(here.broker.asked), here.counted["gaps"], here.track().offset) == (0, 0, 3)


async def test_nobody_here_means_nothing_to_do() -> None:
    async with house(TABLE, broker=delayed()) as node:
        node.intake.receive("stream:x", Publication(offset=1), "e0", None)
        node.intake.receive_event("stream:x", Join(ClientInfo("u", "c")))
        node.intake.resume(["stream:x"], interrupted_s=1.0)
        node.intake.check()
        assert (len(node.hub), len(desk(node).broker.asked)) == (0, 0)


async def test_a_gap_is_read_once_and_nobody_notices() -> None:
    async with house(TABLE, broker=delayed()) as node:
        here = desk(node)
        clients = [await here.subscriber(positioned=True, recoverable=True) for _ in range(3)]
        reads = here.broker.reads
        here.publish(1, 2, 3, 4)
        here.lose(2)
        here.deliver()
        assert await here.got(clients[0]) == []
        here.broker.carry_out()
        here.deliver()
        here.publish_past_the_history(5)
        here.publish(6)
        here.deliver(2)
        assert await here.got(clients[0]) == []
        here.broker.answer()
        # 5 has no place in the stream; it keeps the one in which it came.
        assert [await here.got(client) for client in clients] == [[1, 2, 3, 4, 5, 6]] * 3
        assert here.broker.reads == reads + 1
        assert here.counted == {"gaps": 1, "caught_up": 4, "positions_lost": 0, "duplicates": 2}


async def test_what_was_read_before_it_comes_is_dropped_and_counted() -> None:
    async with house(TABLE, broker=delayed()) as node:
        here = desk(node)
        here.publish(1, 2)
        client = await here.subscriber(positioned=True, recoverable=True)
        here.broker.deliveries.extend(
            ("stream:x", Publication(msgspec.Raw(b"0"), offset=each), "e0", None) for each in (1, 2)
        )
        here.publish(3)
        here.deliver(3)
        assert await here.got(client) == [3]
        assert here.counted == {"gaps": 0, "caught_up": 0, "positions_lost": 0, "duplicates": 2}


@pytest.mark.parametrize("after_s", [1.8, 2.0])
async def test_a_failed_read_is_tried_again_after_the_delay(after_s: float) -> None:
    async with house(TABLE, broker=delayed()) as node:
        here = desk(node)
        client = await here.subscriber(positioned=True, recoverable=True)
        here.publish(1, 2)
        here.lose()
        here.deliver()
        here.broker.fail_read()
        await node.advance(after_s)
        assert len(here.broker.asked) == (1 if after_s >= 2.0 else 0)
        await node.advance(2.0)
        here.broker.settle()
        assert await here.got(client) == [1, 2]
        assert here.counted["gaps"] == 1


async def test_when_all_have_left_a_failed_read_is_not_tried_again() -> None:
    async with house(TABLE, broker=delayed()) as node:
        here = desk(node)
        client = await here.subscriber(positioned=True, recoverable=True)
        here.publish(1, 2)
        here.lose()
        here.deliver()
        here.broker.fail_read()
        client.go()
        await node.advance(9.0)
        assert len(here.broker.asked) == 0
        assert node.later == []


async def test_who_knows_more_than_this_node_joins_in_the_middle_of_what_is_fetched() -> None:
    async with house(TABLE, broker=delayed()) as node:
        here = desk(node)
        old = await here.subscriber(positioned=True)
        here.publish(1, 2, 3)
        here.lose(3)
        new = await here.subscriber(positioned=True)
        here.publish(4, 5)
        here.lose()
        here.deliver()
        here.broker.settle()
        assert [await here.got(client) for client in (old, new)] == [[1, 2, 3, 4, 5], [4, 5]]


async def test_what_is_held_of_another_epoch_than_was_read_makes_the_stream_be_read_once_more() -> None:
    async with house(TABLE, broker=delayed()) as node:
        here = desk(node)
        client = await here.subscriber(positioned=True)
        here.broker.cut()
        here.broker.restore()
        here.broker.carry_out()
        here.broker.flush_data()
        here.publish(1)
        here.deliver()
        here.broker.answer()
        assert len(here.broker.asked) == 1
        here.broker.settle()
        assert await here.got(client) == [LOST]


async def test_what_came_before_a_loss_is_written_before_it_is_told() -> None:
    async with house(TABLE, broker=delayed()) as node:
        here = desk(node)
        client = await here.subscriber(positioned=True)
        here.publish(1, 2, 3, 4, 5, 6, 7, 8)
        here.deliver()
        here.lose()
        here.deliver(6)  # in the turn of the first one, and one more than may be held
        assert await here.got(client) == [1, LOST]


# What is held is bounded.


async def test_more_than_may_be_held_is_given_up_and_told_and_what_was_held_goes_out() -> None:
    async with house(TABLE, broker=delayed()) as node:
        here = desk(node)
        positioned, other = await here.subscriber(positioned=True, recoverable=True), await here.subscriber()
        here.publish(1, 2, 3, 4, 5, 6, 7, 8)
        here.lose(2)
        here.deliver(5)
        assert [await here.got(client) for client in (positioned, other)] == [[], []]
        here.deliver()
        assert [await here.got(client) for client in (positioned, other)] == [[LOST], [3, 4, 5, 6, 7, 8]]
        assert here.logged("position lost") == [
            {"channel": "stream:x", "offset": 0, "epoch": "e0", "new_offset": 2, "new_epoch": "e0"}
        ]
        # The answer to the read that was given up is nobody's.
        here.broker.settle()
        assert [await here.got(client) for client in (positioned, other)] == [[], []]
        assert here.counted == {"gaps": 1, "caught_up": 0, "positions_lost": 1, "duplicates": 0}
        assert (here.track().held, here.track().position.offset) == (None, 8)


async def test_a_hole_in_what_is_given_up_is_read_anew() -> None:
    async with house(TABLE, broker=delayed()) as node:
        here = desk(node)
        client = await here.subscriber()
        here.publish(1)
        here.deliver()
        here.publish(2, 3, 4, 5, 6, 7, 8, 9)
        here.lose()
        here.deliver(2)
        here.lose()
        here.deliver(3)
        assert await here.got(client) == [1]
        here.deliver()
        assert await here.got(client) == [3, 4]
        here.broker.settle()
        assert await here.got(client) == [5, 6, 7, 8, 9]
        assert here.counted["positions_lost"] == 1


# The broker's link was lost.


async def test_after_an_interruption_what_was_missed_is_read_or_told() -> None:
    async with house(TABLE, broker=delayed()) as node:
        here = desk(node)
        kept, bare = await here.subscriber(positioned=True), await here.subscriber("bare:x", positioned=True)
        plain, indifferent = await node.connect_plain(channel="bare:x"), await here.subscriber("bare:x")
        # Of this one nothing was ever heard, so nobody knows where to read from.
        unknown = await here.subscriber("stream:y")
        for client in (kept, bare, plain, indifferent, unknown):
            client.take()
        here.broker.cut()
        here.publish(1, 2)
        here.broker.restore()
        assert await here.got(kept) == []
        here.broker.settle()
        assert await here.got(kept) == [1, 2]
        assert await here.got(bare) == [LOST]
        assert [await here.got(client) for client in (indifferent, unknown)] == [[], []]
        assert plain.take_values() == [{"status": "gap"}]
        assert (node.counts.interruptions, node.counts.interrupted_s) == (1, 1.0)
        assert here.logged("subscriptions interrupted") == [{"channels": 3, "without_history": 2, "seconds": 1.0}]


async def test_an_interruption_while_the_stream_is_read_is_followed_by_another_read() -> None:
    async with house(TABLE, broker=delayed()) as node:
        here = desk(node)
        client = await here.subscriber(positioned=True)
        here.broker.cut()
        here.publish(1)
        here.broker.restore()
        here.broker.carry_out()
        here.broker.cut()
        here.publish(2)
        here.broker.restore()
        here.broker.answer()
        assert await here.got(client) == [1]
        assert len(here.broker.asked) == 1
        here.broker.settle()
        assert await here.got(client) == [2]


@pytest.mark.parametrize("loss", ["trimmed", "new epoch"])
async def test_what_the_stream_has_lost_is_told_to_everybody_whom_it_concerns(loss: str) -> None:
    async with house(TABLE, broker=delayed()) as node:
        here = desk(node)
        positioned, other = await here.subscriber(positioned=True), await here.subscriber()
        plain = await node.connect_plain(channel="stream:x")
        server_side = await here.server_side("stream:x")
        here.publish(1)
        here.deliver()
        assert [await here.got(client) for client in (positioned, other)] == [[1], [1]]
        here.broker.cut()
        if loss == "trimmed":
            here.publish(2, 3, 4, 5, 6, 7)
        else:
            here.broker.flush_data()
            here.publish(7)
        here.broker.restore()
        here.broker.settle()
        kept = [3, 4, 5, 6, 7] if loss == "trimmed" else []
        assert (await here.got(positioned), positioned.channels) == ([LOST], set())
        assert await here.got(other) == kept
        assert plain.take() == ["1", '{"status":"gap"}', *map(str, kept)]
        assert server_side.closing == (3010, "insufficient state")
        epoch = "e0" if loss == "trimmed" else "e1"
        position = {"new_offset": 7 if loss == "trimmed" else 1, "new_epoch": epoch}
        assert here.logged("position lost") == [{"channel": "stream:x", "offset": 1, "epoch": "e0", **position}]


async def test_positions_that_are_lost_together_are_two_lines_and_not_as_many_as_channels() -> None:
    async with house(TABLE, broker=delayed()) as node:
        here = desk(node)
        client = await node.connect("42")
        for number, name in enumerate(["stream:x", "stream:y", "stream:z"], start=2):
            client.send({"id": number, "subscribe": {"channel": name, "positioned": True}})
            await node.settle()
            here.broker.settle()
            await node.settle()
        here.broker.lose_data()
        here.broker.restore()
        here.broker.settle()
        assert [each["channel"] for each in here.logged("position lost")] == ["stream:x"]
        await node.advance(1.1)
        assert here.logged("more positions lost") == [{"channels": 2}]


# The position check.


async def test_a_quiet_stream_is_looked_at_the_second_time_and_read_if_something_was_missed() -> None:
    async with house(TABLE, broker=delayed()) as node:
        here = desk(node)
        client = await here.subscriber(positioned=True)
        here.publish(1, 2)
        here.deliver()
        here.lose()
        node.intake.check()
        assert len(here.broker.asked) == 0
        node.intake.check()
        assert len(here.broker.asked) == 1
        here.broker.settle()
        assert await here.got(client) == [1, 2]
        assert here.counted == {"gaps": 0, "caught_up": 1, "positions_lost": 0, "duplicates": 0}


@pytest.mark.parametrize("fails", [False, True])
async def test_a_look_that_fails_or_finds_nothing_new_changes_nothing(*, fails: bool) -> None:
    async with house(TABLE, broker=delayed()) as node:
        here = desk(node)
        client = await here.subscriber(positioned=True)
        for _ in range(2):
            node.intake.check()
        if fails:
            here.broker.fail_read()
        here.broker.settle()
        assert (here.track().held, await here.got(client)) == (None, [])
        assert here.broker.reads == (1 if fails else 2)
        assert here.counted == {"gaps": 0, "caught_up": 0, "positions_lost": 0, "duplicates": 0}


async def test_a_stream_that_is_being_read_or_has_no_place_known_is_not_looked_at() -> None:
    async with house(TABLE, broker=delayed()) as node:
        here = desk(node)
        await here.subscriber("stream:unknown")
        await here.subscriber("bare:x")
        await here.subscriber(positioned=True)
        here.broker.cut()
        here.broker.restore()
        asked = len(here.broker.asked)
        for _ in range(4):
            node.intake.check()
        assert (asked, len(here.broker.asked)) == (1, 1)


async def test_without_history_a_new_epoch_tells_that_the_broker_has_lost_everything() -> None:
    async with house(TABLE, broker=delayed()) as node:
        here = desk(node)
        client = await here.subscriber("bare:x", positioned=True)
        here.publish(1, channel="bare:x", options=PublishOptions())
        here.deliver()
        assert await here.got(client) == [1]
        here.broker.flush_data()
        for _ in range(2):
            node.intake.check()
        here.broker.settle()
        assert await here.got(client) == [LOST]


# Who comes and goes.


async def test_events_reach_those_who_watch_and_nobody_of_his_own_leaving() -> None:
    async with house(TABLE, broker=delayed()) as node:
        here = desk(node)
        watching, unaware = await here.subscriber("room:x"), await here.subscriber("stream:x")
        await here.got(watching)
        other = ClientInfo("43", "other")
        for channel in ("room:x", "stream:x"):
            node.intake.receive_event(channel, Join(other))
            node.intake.receive_event(channel, Leave(ClientInfo("42", watching.id)))
            node.intake.receive_event(channel, Leave(other))
        info = {"user": "43", "client": "other"}
        assert await here.got(watching) == [
            {"channel": "room:x", "join": {"info": info}},
            {"channel": "room:x", "leave": {"info": info}},
        ]
        assert await here.got(unaware) == []
