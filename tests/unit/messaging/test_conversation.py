"""Order, waiting, failing and leaving: what holds for every kind of client."""

import asyncio
from typing import Any

import pytest

from gateway.broker.contract import BrokerError, Published
from gateway.broker.memory.broker import MemoryBroker
from gateway.broker.outcome import Outcome
from gateway.domain.session import State
from gateway.messaging.handlers import Request
from gateway.messaging.port import DUPLEX, EMULATED, Terms
from gateway.protocol import codes
from gateway.protocol.messages import Publication
from tests.support.conversations import ANONYMOUS, ManualBroker, at, house, token

RPC = {"rpc": {"method": "ping"}}
INTERNAL = {"code": 100, "message": "internal server error", "temporary": True}


def ok(number: int, method: str) -> dict[str, Any]:
    return {"id": number, method: {}}


# Order.


async def test_several_commands_of_a_frame_are_handled_and_answered_in_order() -> None:
    async with house() as node:
        client = await node.connect()
        replies = await client.ask(
            {"id": 2, "subscribe": {"channel": "a"}},
            {"id": 3, "publish": {"channel": "a", "data": 1}},
            {"id": 4, **RPC},
            {"id": 5, "unsubscribe": {"channel": "a"}},
            {"id": 6, "subscribe": {"channel": "a"}},
        )
        assert [reply["id"] for reply in replies] == [2, 3, 4, 5, 6]
        assert not any("error" in reply for reply in replies)


async def test_what_a_frame_asks_for_and_nothing_delays_is_answered_in_one_write() -> None:
    async with house() as node:
        client = await node.connect()
        client.transport.take_frames()
        client.send(
            {"id": 2, "publish": {"channel": "a", "data": 1}},
            {"id": 3, **RPC},
            {"id": 4, "unsubscribe": {"channel": "a"}},
        )
        assert client.transport.take_frames() == [
            ['{"id":2,"publish":{}}\n{"id":3,"rpc":{}}\n{"id":4,"unsubscribe":{}}']
        ]


async def test_connect_and_subscribe_in_one_frame_are_answered_in_order() -> None:
    async with house() as node:
        client = node.open()
        replies = await client.ask(
            {"id": 1, "connect": {"token": token()}},
            {"id": 2, "subscribe": {"channel": "a"}},
            {"id": 3, "publish": {"channel": "a", "data": 1}},
        )
        assert [reply.get("id") for reply in replies] == [1, 2, 3, None]
        assert replies[3]["push"]["pub"]["data"] == 1


async def test_commands_behind_a_slow_authentication_wait_and_are_answered_in_order() -> None:
    async with house(makes_verifier_slow=True) as node:
        client = node.open()
        first = await client.ask({"id": 1, "connect": {"token": token()}}, {"id": 2, **RPC})
        second = await client.ask({"id": 3, "subscribe": {"channel": "a"}}, {"id": 4, **RPC})
        assert (first, second) == ([], [])
        node.verifier.gate.set()
        await node.settle()
        replies = client.take_values()
        assert [reply["id"] for reply in replies] == [1, 2, 3, 4]
        assert "connect" in replies[0]
        assert replies[1:] == [ok(2, "rpc"), ok(3, "subscribe"), ok(4, "rpc")]


async def test_commands_behind_a_slow_subscribe_wait_and_are_answered_in_order() -> None:
    broker = ManualBroker("subscribe")
    async with house(broker=broker) as node:
        client = await node.connect()
        assert await client.ask({"id": 2, "subscribe": {"channel": "a"}}, {"id": 3, **RPC}) == []
        assert await client.ask({"id": 4, "publish": {"channel": "a", "data": 1}}) == []
        broker.settle()
        await node.settle()
        replies = client.take_values()
        assert replies[:3] == [ok(2, "subscribe"), ok(3, "rpc"), ok(4, "publish")]
        assert [reply["push"]["pub"]["data"] for reply in replies[3:]] == [1]


async def test_an_unsubscribe_waits_for_the_subscribe_before_it() -> None:
    broker = ManualBroker("subscribe")
    async with house(broker=broker) as node:
        client = await node.connect()
        client.send({"id": 2, "subscribe": {"channel": "a"}}, {"id": 3, "unsubscribe": {"channel": "a"}})
        await node.settle()
        broker.settle()
        await node.settle()
        assert client.take_values() == [ok(2, "subscribe"), ok(3, "unsubscribe")]
        assert client.channels == set()
        assert broker.calls == [("subscribe", "a"), ("unsubscribe", "a")]


async def test_no_publication_overtakes_the_reply_of_its_subscribe_even_when_the_next_command_waits() -> None:
    broker = ManualBroker("subscribe")
    async with house(broker=broker) as node:
        client = await node.connect()
        client.send({"id": 2, "subscribe": {"channel": "a"}}, {"id": 3, "subscribe": {"channel": "b"}})
        await node.settle()
        broker.settle()
        await node.settle()
        node.publish("a", b"1")
        await node.settle()
        assert client.take_values() == [ok(2, "subscribe"), {"push": {"channel": "a", "pub": {"data": 1}}}]
        broker.settle()


async def test_no_publication_overtakes_the_reply_of_the_connect_that_subscribed_to_it() -> None:
    broker = ManualBroker("subscribe")
    async with house(broker=broker) as node:
        client = node.open()
        client.send({"id": 1, "connect": {"token": token(channels=["a"])}}, {"id": 2, "subscribe": {"channel": "b"}})
        await node.settle()
        broker.settle()
        await node.settle()
        node.publish("a", b"1")
        await node.settle()
        replies = client.take_values()
        assert [sorted(reply) for reply in replies] == [["connect", "id"], ["push"]]
        broker.settle()


async def test_a_reply_that_is_ready_is_written_although_the_next_command_waits() -> None:
    broker = ManualBroker("subscribe")
    async with house(broker=broker) as node:
        client = await node.connect()
        client.send(
            {"id": 2, "subscribe": {"channel": "closed:a"}}, {"id": 3, **RPC}, {"id": 4, "subscribe": {"channel": "b"}}
        )
        await node.settle()
        assert [reply["id"] for reply in client.take_values()] == [2, 3]
        broker.settle()


async def test_replies_come_before_the_pushes_of_the_same_turn() -> None:
    async with house() as node:
        client = await node.connect("42", "a")
        node.publish("a", b'"before"')
        client.send({"id": 3, **RPC}, {"id": 4, "publish": {"channel": "a", "data": "own"}})
        node.publish("a", b'"after"')
        await node.settle()
        replies = client.take_values()
        assert replies[:2] == [ok(3, "rpc"), ok(4, "publish")]
        assert [reply["push"]["pub"]["data"] for reply in replies[2:]] == ["before", "own", "after"]


async def test_publications_of_a_turn_are_one_write_for_each_connection() -> None:
    async with house() as node:
        clients = [await node.connect("42", "a") for _ in range(2)]
        for number in range(20):
            node.publish("a", b"%d" % number)
        await node.settle()
        for client in clients:
            (frames,) = client.transport.take_frames()
            assert [str(frame).count("\n") + 1 for frame in frames] == [16, 4]


async def test_an_unsubscribed_client_gets_nothing_after_the_reply() -> None:
    async with house() as node:
        client = await node.connect("42", "a")
        node.publish("a", b"1")
        client.send({"id": 3, "unsubscribe": {"channel": "a"}})
        node.publish("a", b"2")
        await node.settle()
        node.publish("a", b"3")
        await node.settle()
        assert client.take_values() == [ok(3, "unsubscribe")]


async def test_a_newcomer_gets_what_comes_after_its_reply_and_nothing_of_the_batch_before() -> None:
    async with house() as node:
        early, late = await node.connect("1", "a"), await node.connect("2")
        late.send({"id": 2, "subscribe": {"channel": "a"}})
        node.publish("a", b"1")
        await node.settle()
        node.publish("a", b"2")
        await node.settle()
        assert [each["push"]["pub"]["data"] for each in early.take_values()] == [1, 2]
        replies = late.take_values()
        assert replies[0] == ok(2, "subscribe")
        assert [each["push"]["pub"]["data"] for each in replies[1:]] == [2]


# Publishes that the broker has not settled.


async def test_publishes_are_answered_in_order_and_before_the_replies_of_later_commands() -> None:
    broker = ManualBroker("publish")
    async with house(broker=broker) as node:
        client = await node.connect()
        client.send(
            {"id": 2, "publish": {"channel": "a", "data": 1}},
            {"id": 3, "publish": {"channel": "closed:a", "data": 1}},
            {"id": 4, "publish": {"channel": "a", "data": 2}},
            {"id": 5, **RPC},
            {"id": 6, "publish": {"channel": "a", "data": 3}},
            {"id": 7, "subscribe": {"channel": "a"}},
        )
        await node.settle()
        assert client.take_values() == []
        broker.settle()
        await node.settle()
        assert client.take_values() == [
            ok(2, "publish"),
            {"id": 3, "error": {"code": 103, "message": "permission denied"}},
        ]
        broker.settle()
        await node.settle()
        broker.settle()
        await node.settle()
        assert client.take_values() == [ok(4, "publish"), ok(5, "rpc"), ok(6, "publish"), ok(7, "subscribe")]


async def test_a_publish_that_the_broker_refuses_is_answered_with_a_temporary_error() -> None:
    broker = ManualBroker("publish")
    async with house(broker=broker) as node:
        client = await node.connect()
        client.send({"id": 2, "publish": {"channel": "a", "data": 1}}, {"id": 3, **RPC})
        broker.settle(BrokerError("down"))
        await node.settle()
        assert client.take_values() == [{"id": 2, "error": INTERNAL}, ok(3, "rpc")]


async def test_a_stopped_broker_answers_publishes_with_a_temporary_error_at_once() -> None:
    async with house() as node:
        client = await node.connect()
        await node.broker.stop()
        assert await client.ask({"id": 2, "publish": {"channel": "a", "data": 1}}) == [{"id": 2, "error": INTERNAL}]


async def test_a_refusal_by_the_rate_limit_is_answered_in_command_order_too() -> None:
    broker = ManualBroker("publish")
    async with house({"client": {"command_rate": 1, "command_burst": 1}}, broker=broker) as node:
        client = await node.connect()
        client.send({"id": 2, "publish": {"channel": "a", "data": 1}}, {"id": 3, **RPC})
        await node.settle()
        broker.settle()
        await node.settle()
        assert [reply["id"] for reply in client.take_values()] == [2, 3]


async def test_publications_unsettled_when_their_client_goes_harm_nobody() -> None:
    broker = ManualBroker("publish")
    async with house(broker=broker) as node:
        client = await node.connect()
        client.send({"id": 2, "publish": {"channel": "a", "data": 1}}, {"id": 3, **RPC})
        await node.settle()
        client.go()
        broker.settle()
        await node.settle()
        assert client.take() == []


# Subscribing takes a while.


async def test_a_client_that_goes_while_its_subscribe_is_confirmed_leaves_no_interest_behind() -> None:
    broker = ManualBroker("subscribe")
    async with house(broker=broker) as node:
        client = await node.connect()
        client.send({"id": 2, "subscribe": {"channel": "a"}}, {"id": 3, "subscribe": {"channel": "b"}})
        await node.settle()
        client.go()
        broker.settle()
        await node.settle()
        assert broker.calls == [("subscribe", "a"), ("unsubscribe", "a")]
        assert (len(node.services.interest), len(node.hub)) == (0, 0)
        assert client.take() == []


async def test_a_client_that_goes_while_its_server_side_subscriptions_are_confirmed_leaves_none_behind() -> None:
    broker = ManualBroker("subscribe")
    async with house(broker=broker) as node:
        client = node.open()
        client.send({"id": 1, "connect": {"token": token(channels=["a", "b"])}})
        await node.settle()
        broker.settle()
        await node.settle()
        client.go()
        while broker.waiting:
            broker.settle()
            await node.settle()
        assert sorted(broker.calls) == sorted((what, name) for what in ("subscribe", "unsubscribe") for name in "ab")
        assert len(node.services.interest) == 0


async def test_a_client_that_goes_while_its_token_is_checked_is_forgotten() -> None:
    async with house(makes_verifier_slow=True) as node:
        client = node.open()
        await client.ask({"id": 1, "connect": {"token": token(channels=["a"])}})
        client.go()
        node.verifier.gate.set()
        await node.settle()
        assert client.take() == []
        assert (len(node.services.connections), len(node.services.interest)) == (0, 0)


async def test_a_failed_subscribe_is_a_temporary_error_and_the_client_may_try_again() -> None:
    broker = ManualBroker("subscribe")
    async with house(broker=broker) as node:
        client = await node.connect()
        client.send({"id": 2, "subscribe": {"channel": "a"}})
        await node.settle()
        broker.settle(BrokerError("down"))
        await node.settle()
        assert client.take_values() == [{"id": 2, "error": INTERNAL}]
        assert client.channels == set()
        broker.held.clear()
        assert await client.ask({"id": 3, "subscribe": {"channel": "a"}}) == [ok(3, "subscribe")]


async def test_server_side_subscriptions_are_all_or_none() -> None:
    broker = ManualBroker("subscribe")
    async with house(broker=broker) as node:
        client = node.open()
        client.send({"id": 1, "connect": {"token": token(channels=["a", "b"])}})
        await node.settle()
        broker.settle()
        await node.settle()
        while broker.waiting:
            broker.settle(BrokerError("down") if broker.waiting[0][0] == "b" else None)
            await node.settle()
        assert (len(node.services.interest), len(node.hub), client.channels) == (0, 0, set())
        assert client.take_values() == [{"id": 1, "error": INTERNAL}]


async def test_two_first_subscribers_wait_for_one_confirmation_and_both_get_all() -> None:
    broker = ManualBroker("subscribe")
    async with house(broker=broker) as node:
        clients = [await node.connect(), await node.connect()]
        for client in clients:
            client.send({"id": 2, "subscribe": {"channel": "a"}})
        await node.settle()
        broker.settle()
        await node.settle()
        node.publish("a", b"1")
        await node.settle()
        for client in clients:
            assert client.take_values() == [ok(2, "subscribe"), {"push": {"channel": "a", "pub": {"data": 1}}}]
        assert [call for call in broker.calls if call[0] == "subscribe"] == [("subscribe", "a")]


async def test_the_last_one_to_leave_a_channel_cancels_the_interest() -> None:
    broker = ManualBroker()
    async with house(broker=broker) as node:
        first, last = await node.connect("1", "a"), await node.connect("2", "a")
        await first.ask({"id": 3, "unsubscribe": {"channel": "a"}})
        assert ("unsubscribe", "a") not in broker.calls
        last.go()
        assert broker.calls[-1] == ("unsubscribe", "a")


# A line that gets long.


async def test_a_long_line_of_waiting_commands_stops_the_reading_and_then_it_goes_on() -> None:
    broker = ManualBroker("subscribe")
    async with house(broker=broker) as node:
        client = await node.connect()
        client.send({"id": 2, "subscribe": {"channel": "a"}})
        for number in range(3, 258):
            client.send({"id": number, **RPC})
        assert client.transport.is_reading
        client.send({"id": 258, **RPC})
        assert not client.transport.is_reading
        await node.settle()
        broker.settle()
        await node.settle()
        assert client.transport.is_reading
        assert [reply["id"] for reply in client.take_values()] == list(range(2, 259))


async def test_a_long_line_of_unsettled_publishes_stops_the_reading_too() -> None:
    broker = ManualBroker("publish")
    async with house(broker=broker) as node:
        client = await node.connect()
        for number in range(2, 2002):
            client.send({"id": number, "publish": {"channel": "a", "data": 1}})
        assert not client.transport.is_reading
        while broker.waiting:
            broker.settle()
        await node.settle()
        assert client.transport.is_reading
        assert [reply["id"] for reply in client.take_values()] == list(range(2, 2002))


# Pings while something waits.


@pytest.mark.parametrize("held", ["subscribe", "publish"])
async def test_a_pong_counts_although_a_command_before_it_waits_for_the_broker(held: Any) -> None:
    broker = ManualBroker(held)
    async with house(broker=broker) as node:
        client = await node.connect()
        request = {"channel": "a"} | ({"data": 1} if held == "publish" else {})
        client.send({"id": 2, held: request}, {"id": 3, **RPC})
        await node.advance(12.6)
        assert client.take_values() == [{}]
        client.send("{}")
        await node.advance(8.1)
        assert client.closing is None
        broker.settle()
        await node.settle()
        assert client.take_values() == [ok(2, held), ok(3, "rpc")]


# Faults of ours.


async def test_an_exception_in_a_command_ends_that_client_only_and_is_logged() -> None:
    class ExplosiveBroker(MemoryBroker):
        def publish(self, channel: str, publication: Publication, **rest: Any) -> Outcome[Published]:
            if b"explode" in bytes(publication.data):
                raise RuntimeError("a broker's own fault")
            return super().publish(channel, publication, **rest)

    async with house(broker=ExplosiveBroker()) as node:
        node.expected_errors = 1
        culprit, other = await node.connect("1", "timed:a"), await node.connect("2", "timed:a")
        culprit.send({"id": 3, **RPC}, {"id": 4, "publish": {"channel": "timed:a", "data": {"explode": 1}}})
        await node.settle()
        assert culprit.take_values() == [ok(3, "rpc")]
        assert culprit.closing == (3004, "internal server error")
        (error,) = node.errors
        assert (error["event"], error["client"]) == ("command failed", culprit.id)
        assert "a broker's own fault" in error["exception"]
        assert await other.ask({"id": 3, **RPC}) == [ok(3, "rpc")]
        assert other.closing is None


async def test_an_exception_in_a_command_that_waited_ends_that_client_only_and_the_line_with_it() -> None:
    async with house(makes_verifier_slow=True) as node:
        node.expected_errors = 1

        async def explode(token: str, *, unix_s: float) -> Any:
            del token, unix_s
            raise RuntimeError("the keys' own fault")

        node.verifier.connection = explode  # type: ignore[method-assign]
        client = node.open()
        assert await client.ask({"id": 1, "connect": {"token": token()}}, {"id": 2, **RPC}) == []
        assert client.closing == (3004, "internal server error")
        assert [error["event"] for error in node.errors] == ["command failed"]


async def test_an_exception_when_something_is_due_ends_that_client_only() -> None:
    """All deadlines are looked at by one task; whatever one of them meets must not stop it for the others."""
    async with house() as node:
        node.expected_errors = 1
        culprit, other = await node.connect("1"), await node.connect("2")

        def explode(data: bytes) -> bool:
            raise RuntimeError(f"no room for {len(data)} bytes, and no word of it")

        culprit.transport.offer = explode  # type: ignore[method-assign]
        await node.advance(25.0)
        assert culprit.closing == (3004, "internal server error")
        assert other.take_values() == [{}]
        assert [error["event"] for error in node.errors] == ["command failed"]


# Slow readers.


async def test_a_reader_whose_transport_is_full_is_dismissed_and_the_others_get_everything() -> None:
    async with house() as node:
        first, slow, last = [await node.connect(str(number), "a") for number in range(3)]
        slow.transport.is_full = True
        node.publish("a", b"1")
        node.publish("a", b"2")
        await node.settle()
        assert slow.closing == (3008, "slow")
        assert node.counts.disconnects == {3008: 1}
        for client in (first, last):
            assert [each["push"]["pub"]["data"] for each in client.take_values()] == [1, 2]
        book = node.counts.ledger("")
        assert (book.due, book.delivered, dict(book.dropped)) == (6, 4, {"slow": 2})


async def test_a_client_too_slow_for_its_replies_is_dismissed() -> None:
    async with house() as node:
        client = await node.connect()
        client.transport.is_full = True
        client.send({"id": 2, **RPC})
        assert client.closing == (3008, "slow")


async def test_a_disconnect_whose_last_replies_find_the_transport_full_is_counted_and_told_once() -> None:
    async with house() as node:
        client = await node.connect()
        client.transport.is_full = True
        client.send({"id": 2, **RPC}, {"id": 3, "connect": {}})
        await node.settle()
        assert client.closing == (3008, "slow")
        assert node.counts.disconnects == {3008: 1}
        assert [event["event"] for event in node.events].count("closed") == 1


async def test_nothing_is_written_after_a_close_although_more_was_due_in_the_same_tick() -> None:
    async with house() as node:
        client = await node.connect()
        for number, channel in enumerate(["a", "b"], start=2):
            shown = token(channel=channel, exp=at(5))
            await client.ask({"id": number, "subscribe": {"channel": channel, "token": shown}})
        client.transport.is_full = True
        node.now_s += 40
        client.conversation.tick()
        assert client.closing == (3008, "slow")


async def test_a_newcomer_whose_join_dismisses_the_only_other_subscriber_gets_what_follows() -> None:
    broker = ManualBroker()
    async with house(broker=broker) as node:
        slow, newcomer = await node.connect("1", "a"), await node.connect("2")
        slow.transport.is_full = True
        newcomer.send({"id": 2, "subscribe": {"channel": "a"}})
        # The flush of this publication is due in the turn in which the newcomer joins, and comes after it.
        node.publish("a", b"1")
        await node.settle()
        node.publish("a", b"2")
        await node.settle()
        assert slow.closing == (3008, "slow")
        values = newcomer.take_values()
        assert values[0] == ok(2, "subscribe")
        assert [each["push"]["pub"]["data"] for each in values[1:]] == [2]


# The end.


async def test_a_client_that_goes_is_counted_and_logged_as_its_own_doing() -> None:
    async with house() as node:
        client = await node.connect("42", "a")
        client.go()
        assert (node.counts.closes_by_peer, dict(node.counts.disconnects)) == (1, {})
        assert client.conversation.session.state is State.CLOSED
        closed = node.events[-1]
        assert (closed["event"], closed["user"], closed["code"], closed["by"]) == ("closed", "42", 1006, "network")


async def test_commands_after_a_disconnect_are_not_handled() -> None:
    async with house() as node:
        client = await node.connect()
        client.send({"id": 2, **RPC}, {"id": 3, "foo": {}}, {"id": 4, "subscribe": {"channel": "a"}})
        await node.settle()
        assert client.take_values() == [ok(2, "rpc")]
        assert client.closing == (3501, "bad request")
        assert client.channels == set()


async def test_a_disconnect_while_a_command_waits_drops_those_behind_it() -> None:
    broker = ManualBroker("subscribe")
    async with house(broker=broker) as node:
        client = await node.connect()
        client.send({"id": 2, "subscribe": {"channel": "a"}}, {"id": 3, "publish": {"channel": "a", "data": 1}})
        await node.settle()
        client.send("no JSON")
        assert client.closing == (3501, "bad request")
        broker.settle()
        await node.settle()
        assert client.take() == []
        assert ("publish", "a") not in broker.calls


async def test_a_handler_that_fails_after_its_client_was_sent_away_writes_nothing() -> None:
    proceed = asyncio.Event()

    async def late(request: Request) -> str:
        del request
        await proceed.wait()
        raise RuntimeError("too late")

    async with house(ANONYMOUS, handlers={"echo": late}) as node:
        node.expected_errors = 1
        client = node.open_plain("echo:a")
        assert await client.ask("1") == []
        client.transport.dismiss(codes.SHUTDOWN)
        proceed.set()
        await node.settle()
        assert client.closing == (1001, "shutdown")
        assert client.take() == []


# Beside the transport, and to a transport that has no words for an end.


async def test_what_comes_beside_the_transport_waits_in_line_up_to_a_bound() -> None:
    async with house(broker=ManualBroker("subscribe")) as node:
        client = node.open(EMULATED)
        await client.ask({"id": 1, "connect": {"token": token()}})
        client.send({"id": 2, "subscribe": {"channel": "a"}})
        await node.settle()
        pings = b"\n".join([b'{"id":3,"rpc":{"method":"ping"}}'] * 255)
        for _ in range(2):
            client.conversation.receive_apart(pings)
        assert client.closing is None
        for _ in range(2):
            client.conversation.receive_apart(b'{"id":4,"rpc":{"method":"ping"}}')
        assert client.closing is None
        client.conversation.receive_apart(b'{"id":4,"rpc":{"method":"ping"}}')
        assert client.closing == (3013, "too many requests")
        node.broker.settle()  # type: ignore[attr-defined]


async def test_long_commands_that_wait_are_bounded_by_their_bytes() -> None:
    async with house(broker=ManualBroker("subscribe")) as node:
        client = node.open(EMULATED)
        await client.ask({"id": 1, "connect": {"token": token()}})
        client.send({"id": 2, "subscribe": {"channel": "a"}})
        await node.settle()
        for _ in range(8):
            client.conversation.receive_apart(b'{"id":3,"rpc":{"method":"ping"}}'.ljust(65536))
        assert client.closing is None
        client.conversation.receive_apart(b'{"id":3,"rpc":{"method":"ping"}}')
        assert client.closing == (3013, "too many requests")
        node.broker.settle()  # type: ignore[attr-defined]


async def test_who_is_to_go_is_not_heard_any_more_beside_its_transport() -> None:
    async with house() as node:
        client = node.open(EMULATED)
        await client.ask({"id": 1, "connect": {"token": token()}})
        client.conversation.stop_listening()
        client.conversation.receive_apart(b'{"id":2,"rpc":{"method":"ping"}}')
        await node.settle()
        assert client.take() == []


@pytest.mark.parametrize("terms", [DUPLEX, EMULATED], ids=["WebSocket", "stream"])
async def test_the_last_message_says_why_where_the_transport_can_not(terms: Terms) -> None:
    async with house() as node:
        client = node.open(terms)
        await client.ask({"id": 1, "connect": {"token": token()}})
        before = client.conversation.traffic.bytes_out
        client.send({"id": 2, "rpc": {"method": "ping"}}, {"id": 3, "foo": {}})
        last = [{"push": {"disconnect": {"code": 3501, "reason": "bad request"}}}] if terms.tells_end else []
        writes = client.transport.writes[-1 - len(last) :]
        assert client.take_values() == [{"id": 2, "rpc": {}}, *last]
        assert client.closing == (3501, "bad request")
        assert client.conversation.traffic.bytes_out - before == sum(map(len, writes))


async def test_a_slow_client_of_a_stream_is_told_so_behind_all_that_waits() -> None:
    async with house() as node:
        client = node.open(EMULATED)
        await client.ask({"id": 1, "connect": {"token": token()}})
        client.transport.is_full = True
        client.send({"id": 2, "rpc": {"method": "ping"}})
        assert client.take_values() == [{"push": {"disconnect": {"code": 3008, "reason": "slow"}}}]
