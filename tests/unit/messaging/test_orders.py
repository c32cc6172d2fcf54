"""What an order of the cluster does to the connections of a node, and to which of them."""

from typing import Any, Final

import msgspec
import pytest

from gateway.broker.contract import BrokerError, PublishOptions
from gateway.broker.memory.broker import MemoryBroker
from gateway.domain.identity import Overrides
from gateway.domain.stream import StreamOptions
from gateway.messaging.cluster import LocalCounts
from gateway.messaging.control import DisconnectUser, Order, RefreshUser, SubscribeUser, UnsubscribeUser
from gateway.messaging.orders import LocalOrders
from gateway.protocol import codes
from gateway.protocol.codes import Disconnect
from gateway.protocol.messages import ClientInfo, Publication, StreamPosition
from tests.support.conversations import ANONYMOUS, Client, House, ManualBroker, at, house, token

STREAM: Final = PublishOptions(StreamOptions(size=10, ttl_s=60.0, meta_ttl_s=600.0))
TABLE: Final[dict[str, Any]] = {
    "client": {"channel_limit": 3},
    "channel": {
        "without_namespace": {"allow_subscribe_for_client": True, "allow_subscribe_for_anonymous": True},
        "namespaces": [
            {"name": "closed"},
            {"name": "binary", "publication_data_format": "binary"},
            {"name": "stream", "history_size": 10, "history_ttl": 60, "force_recovery": True},
        ],
    },
}
FORCED: Final = (3503, "force disconnect")


def carry_out(node: House, order: Order) -> None:
    orders = LocalOrders(node.services)
    match order:
        case DisconnectUser():
            orders.disconnect(order)
        case UnsubscribeUser():
            orders.unsubscribe(order)
        case SubscribeUser():
            orders.subscribe(order)
        case RefreshUser():
            orders.refresh(order)


async def done(node: House, order: Order, *clients: Client) -> list[list[Any]]:
    """Carry *order* out and return what each of *clients* is told."""
    carry_out(node, order)
    await node.settle()
    return [client.take_values() for client in clients]


# Whom an order concerns.


@pytest.mark.parametrize(
    ("order", "ends"),
    [
        (DisconnectUser("42"), {"42a", "42b", "plain"}),
        (DisconnectUser(""), {"nobody"}),
        (DisconnectUser("44"), set()),
        (DisconnectUser("42", client="client-2"), {"42b"}),
        (DisconnectUser("43", client="client-2"), set()),
        (DisconnectUser("42", session="s"), set()),
        (DisconnectUser("42", whitelist=("client-1", "client-3")), {"42b", "plain"}),
        (DisconnectUser("42", client="client-1", whitelist=("client-1",)), set()),
    ],
    ids=[
        "all of a user",
        "the anonymous, and none that has not said who it is",
        "nobody has it",
        "one of them",
        "one, but of another user",
        "a session that none has",
        "all but some",
        "one that is spared",
    ],
)
async def test_whom_an_order_concerns(order: DisconnectUser, ends: set[str]) -> None:
    async with house(TABLE, ANONYMOUS, broker=MemoryBroker()) as node:
        clients = {
            "42a": await node.connect("42"),
            "42b": await node.connect("42"),
            "43": await node.connect("43"),
            "nobody": await node.connect(""),
            "plain": await node.connect_plain("42"),
            "opened": node.open(),
        }
        carry_out(node, order)
        assert {name for name, client in clients.items() if client.closing is not None} == ends


async def test_a_disconnect_tells_the_code_and_reason_it_was_given() -> None:
    async with house(TABLE, broker=MemoryBroker()) as node:
        one, other = await node.connect("42"), await node.connect("43")
        carry_out(node, DisconnectUser("42"))
        carry_out(node, DisconnectUser("43", disconnect=Disconnect(4100, "go")))
        assert (one.closing, other.closing) == (FORCED, (4100, "go"))


# Unsubscribe.


async def test_an_unsubscribe_is_told_with_code_2000_and_only_to_who_was_there() -> None:
    async with house(TABLE, broker=MemoryBroker()) as node:
        inside, outside = await node.connect("42", "x", "y"), await node.connect("42", "y")
        server_side = await node.connect("42", channels=["x"])
        push = {"push": {"channel": "x", "unsubscribe": {"code": 2000, "reason": "server unsubscribe"}}}
        told = await done(node, UnsubscribeUser("42", channel="x"), inside, outside, server_side)
        assert told == [[push], [], [push]]
        assert [client.channels for client in (inside, outside, server_side)] == [{"y"}, {"y"}, set()]
        assert node.counts.unsubscribes == {2000: 2}


@pytest.mark.parametrize(("channel", "closing"), [("lobby", (1000, "server unsubscribe")), ("x", None)])
async def test_an_unsubscribe_ends_the_connection_of_a_plain_client_in_that_channel(
    channel: str, closing: tuple[int, str] | None
) -> None:
    async with house(TABLE, broker=MemoryBroker()) as node:
        client = await node.connect_plain("42")
        carry_out(node, UnsubscribeUser("42", channel=channel))
        assert client.closing == closing


# Subscribe.


@pytest.mark.parametrize(
    ("order", "push"),
    [
        (SubscribeUser("42", channel="closed:x"), {}),
        (SubscribeUser("42", channel="closed:x", data=b'{"d":1}'), {"data": {"d": 1}}),
        (
            SubscribeUser("42", channel="closed:x", overrides=Overrides(force_positioning=True)),
            {"positioned": True, "epoch": "e"},
        ),
        (
            SubscribeUser("42", channel="stream:x"),
            {"recoverable": True, "positioned": True, "epoch": "e", "offset": 3},
        ),
    ],
    ids=["any channel", "data", "overrides", "a stream"],
)
async def test_a_subscription_is_made_and_told(order: SubscribeUser, push: dict[str, Any]) -> None:
    async with house(TABLE, broker=MemoryBroker(new_epoch=lambda: "e")) as node:
        client = await node.connect("42")
        for _ in range(3):
            node.broker.publish("stream:x", Publication(msgspec.Raw(b"1")), accepted_at_s=0.0, options=STREAM)
        told = await done(node, order, client)
        assert told == [[{"push": {"channel": order.channel, "subscribe": push}}]]
        assert client.conversation.session.subscriptions[order.channel].is_server_side
        node.publish(order.channel)
        await node.settle()
        assert client.take_values() == [{"push": {"channel": order.channel, "pub": {"data": {}}}}]


async def test_a_subscription_that_recovers_gets_what_was_missed_behind_the_push() -> None:
    async with house(TABLE, broker=MemoryBroker(new_epoch=lambda: "e")) as node:
        client, lost = await node.connect("42"), await node.connect("43")
        for number in range(1, 4):
            node.broker.publish("stream:x", Publication(msgspec.Raw(b"%d" % number)), accepted_at_s=0.0, options=STREAM)
        features = {"recoverable": True, "positioned": True, "epoch": "e"}
        order = SubscribeUser("42", channel="stream:x", recover_since=StreamPosition(1, "e"))
        assert await done(node, order, client) == [
            [
                {"push": {"channel": "stream:x", "subscribe": {**features, "offset": 1}}},
                *({"push": {"channel": "stream:x", "pub": {"data": each, "offset": each}}} for each in (2, 3)),
            ]
        ]
        order = SubscribeUser("43", channel="stream:x", recover_since=StreamPosition(1, "other"))
        told = [{"push": {"channel": "stream:x", "subscribe": {**features, "offset": 3}}}]
        assert await done(node, order, lost) == [told]


async def test_what_others_see_of_an_ordered_subscription_is_what_the_order_says() -> None:
    async with house(TABLE, broker=MemoryBroker()) as node:
        client = await node.connect("42", info={"i": 1})
        await done(node, SubscribeUser("42", channel="x", info=b'{"c":1}'), client)
        assert list(LocalOrders(node.services).clients("x")) == [
            ClientInfo("42", client.id, msgspec.Raw(b'{"i":1}'), msgspec.Raw(b'{"c":1}'))
        ]


@pytest.mark.parametrize("is_server_side", [False, True])
async def test_a_subscription_that_is_there_is_told_again_and_not_made_again(*, is_server_side: bool) -> None:
    async with house(TABLE, broker=ManualBroker()) as node:
        client, broker = await node.connect("42", **({"channels": ["x"]} if is_server_side else {})), node.broker
        assert isinstance(broker, ManualBroker)
        if not is_server_side:
            await client.ask({"id": 2, "subscribe": {"channel": "x"}})
        push = {"push": {"channel": "x", "subscribe": {"data": 1}}}
        assert await done(node, SubscribeUser("42", channel="x", data=b"1"), client) == [[push]]
        assert broker.calls == [("subscribe", "x")]
        assert client.conversation.session.subscriptions["x"].is_server_side is is_server_side


async def test_a_subscription_that_expires_takes_the_connection_along() -> None:
    async with house(TABLE, {"client": {"ping_interval": 10_000}}, broker=MemoryBroker()) as node:
        client = await node.connect("42")
        await done(node, SubscribeUser("42", channel="x", expires_at_s=at(10)), client)
        await node.advance(34.5)
        assert client.closing is None
        await node.advance(1.0)
        assert client.closing == (3006, "subscription expired")


async def test_a_subscription_beyond_the_channel_limit_ends_the_connection() -> None:
    async with house(TABLE, broker=MemoryBroker()) as node:
        full, free = await node.connect("42", "a", "b", "c"), await node.connect("42", "a", "b")
        await done(node, SubscribeUser("42", channel="d"), full, free)
        assert (full.closing, free.closing) == ((3505, "channel limit"), None)
        assert free.channels == {"a", "b", "d"}
        assert node.counts.limit_hits == {"channel_limit": 1}


@pytest.mark.parametrize("channel", ["nope:x", "binary:x"])
async def test_a_channel_that_a_client_can_not_be_in_changes_nothing(channel: str) -> None:
    async with house(TABLE, broker=MemoryBroker()) as node:
        client = await node.connect("42")
        assert await done(node, SubscribeUser("42", channel=channel), client) == [[]]
        assert (client.closing, client.channels) == (None, set())
        warned = [event["event"] for event in node.events if event["level"] == "warning"]
        assert warned == (["order names an unknown channel"] if channel == "nope:x" else [])


async def test_a_plain_client_stays_in_its_one_channel() -> None:
    async with house(TABLE, broker=MemoryBroker()) as node:
        client = await node.connect_plain("42")
        assert await done(node, SubscribeUser("42", channel="x"), client) == [[]]
        assert (client.closing, client.channels) == (None, {"lobby"})


async def test_a_broker_that_fails_leaves_an_ordered_subscription_undone_and_the_client_connected() -> None:
    async with house(TABLE, broker=ManualBroker("subscribe")) as node:
        client, broker = await node.connect("42"), node.broker
        assert isinstance(broker, ManualBroker)
        await done(node, SubscribeUser("42", channel="x"), client)
        broker.settle(BrokerError("down"))
        await node.settle()
        assert (client.take(), client.closing, client.channels) == ([], None, set())
        failed = [event for event in node.events if event["event"] == "ordered subscription failed"]
        assert [(event["client"], event["channel"]) for event in failed] == [(client.id, "x")]


# Orders and commands that are under way.


async def test_an_order_to_subscribe_waits_for_the_clients_own_subscribe() -> None:
    async with house(TABLE, broker=ManualBroker("subscribe")) as node:
        client, broker = await node.connect("42"), node.broker
        assert isinstance(broker, ManualBroker)
        client.send({"id": 2, "subscribe": {"channel": "x"}})
        await node.settle()
        carry_out(node, SubscribeUser("42", channel="x"))
        client.send({"id": 3, "rpc": {"method": "ping"}})
        await node.settle()
        assert client.take() == []
        broker.settle()
        await node.settle()
        assert client.take_values() == [
            {"id": 2, "subscribe": {}},
            {"push": {"channel": "x", "subscribe": {}}},
            {"id": 3, "rpc": {}},
        ]
        assert broker.calls == [("subscribe", "x")]
        assert not client.conversation.session.subscriptions["x"].is_server_side


async def test_a_clients_own_subscribe_waits_for_an_ordered_one() -> None:
    async with house(TABLE, broker=ManualBroker("subscribe")) as node:
        client, broker = await node.connect("42"), node.broker
        assert isinstance(broker, ManualBroker)
        carry_out(node, SubscribeUser("42", channel="x"))
        client.send({"id": 2, "subscribe": {"channel": "x"}})
        await node.settle()
        assert client.take() == []
        broker.settle()
        await node.settle()
        assert client.take_values() == [
            {"push": {"channel": "x", "subscribe": {}}},
            {"id": 2, "error": {"code": 105, "message": "already subscribed"}},
        ]


@pytest.mark.parametrize("goes", ["before it begins", "while it waits"])
async def test_a_client_that_goes_leaves_nothing_of_an_ordered_subscription(goes: str) -> None:
    async with house(TABLE, broker=ManualBroker("subscribe")) as node:
        client, broker = await node.connect("42"), node.broker
        assert isinstance(broker, ManualBroker)
        carry_out(node, SubscribeUser("42", channel="x"))
        if goes == "while it waits":
            await node.settle()
        client.go()
        await node.settle()
        while broker.waiting:
            broker.settle()
        await node.settle()
        assert (len(node.services.interest), len(node.hub), client.take()) == (0, 0, [])


# Refresh.


@pytest.mark.parametrize(
    ("order", "push", "ends_after_s"),
    [
        (RefreshUser("42", expires_at_s=at(50)), {"expires": True, "ttl": 50}, 75.0),
        (RefreshUser("42"), {}, None),
        (RefreshUser("42", expires_at_s=at(-5)), {"expires": True, "ttl": 1}, 20.0),
    ],
    ids=["another expiry", "none", "one that is over"],
)
async def test_a_refresh_is_told_and_moves_the_end(
    order: RefreshUser, push: dict[str, Any], ends_after_s: float | None
) -> None:
    async with house(TABLE, {"client": {"ping_interval": 10_000}}, broker=MemoryBroker()) as node:
        client, plain = await node.connect("42", exp=at(100)), await node.connect_plain("42", exp=at(100))
        assert await done(node, order, client, plain) == [[{"push": {"refresh": push}}], []]
        await node.advance((ends_after_s or 500.0) - 0.5)
        assert (client.closing, plain.closing) == (None, None)
        await node.advance(1.0)
        if ends_after_s is not None:
            assert (client.closing, plain.closing) == ((3005, "connection expired"), (1008, "token expired"))


@pytest.mark.parametrize("order", [RefreshUser("42", is_expired=True), RefreshUser("42", is_expired=True, info=b"1")])
async def test_a_refresh_may_end_connections_at_once(order: RefreshUser) -> None:
    async with house(TABLE, broker=MemoryBroker()) as node:
        client, plain = await node.connect("42"), await node.connect_plain("42")
        assert await done(node, order, client) == [[]]
        assert (client.closing, plain.closing) == ((3005, "connection expired"), (1008, "token expired"))


@pytest.mark.parametrize(("info", "seen"), [(b"", b'{"i":1}'), (b'{"i":2}', b'{"i":2}')])
async def test_a_refresh_may_change_what_others_see(info: bytes, seen: bytes) -> None:
    async with house(TABLE, broker=MemoryBroker()) as node:
        client = await node.connect("42", info={"i": 1})
        await client.ask({"id": 2, "subscribe": {"channel": "x"}})
        await done(node, RefreshUser("42", info=info), client)
        assert list(LocalOrders(node.services).clients("x")) == [ClientInfo("42", client.id, msgspec.Raw(seen))]


# What the cluster asks.


async def test_what_is_here() -> None:
    async with house(TABLE, ANONYMOUS, broker=MemoryBroker()) as node:
        clients = [await node.connect("42", "x", "y"), await node.connect("42", "x"), await node.connect("")]
        node.open()
        orders = LocalOrders(node.services)
        assert dict(orders.channels()) == {"x": 2, "y": 1}
        assert list(orders.clients("x")) == [ClientInfo("42", each.id) for each in clients[:2]]
        assert list(orders.clients("z")) == []
        assert orders.counts() == LocalCounts(clients=4, users=1, subscriptions=3, channels=2)


# A user's connections, one at a time (6.3, `single_connection`).


def personal(*, is_single: bool) -> dict[str, Any]:
    channel = {"enabled": True, "personal_channel_namespace": "", "single_connection": is_single}
    return {"client": {"subscribe_to_user_personal_channel": channel}}


@pytest.mark.parametrize("is_single", [False, True])
async def test_each_new_connection_of_a_user_ends_the_others_once_it_is_connected(*, is_single: bool) -> None:
    async with house(TABLE, ANONYMOUS, personal(is_single=is_single), broker=ManualBroker("subscribe")) as node:
        client, broker = node.open(), node.broker
        assert isinstance(broker, ManualBroker)
        client.send({"id": 1, "connect": {"token": token("42")}})
        await node.settle()
        assert node.singles == []
        broker.settle()
        await node.settle()
        assert node.singles == ([("42", client.conversation.age_rank)] if is_single else [])
        assert client.channels == {"#42"}


async def test_of_the_connections_of_a_user_the_youngest_stays_whoever_orders_what() -> None:
    async with house(TABLE, ANONYMOUS) as node:
        clients = [await node.connect("42") for _ in range(3)]
        node.now_s += 1.0
        youngest = await node.connect("42")
        # Those of the same moment order each other's end as well: one order stands above the other.
        for client in [*clients, youngest]:
            order = DisconnectUser("42", disconnect=codes.CONNECTION_LIMIT, older_than=client.conversation.age_rank)
            LocalOrders(node.services).disconnect(order)
        assert [client.closing for client in clients] == [(3504, "connection limit")] * 3
        assert youngest.closing is None


@pytest.mark.parametrize("refused", ["anonymous", "a broker that fails", "plain"])
async def test_who_has_no_personal_channel_ends_nobody(refused: str) -> None:
    async with house(TABLE, ANONYMOUS, personal(is_single=True), broker=ManualBroker("subscribe")) as node:
        broker = node.broker
        assert isinstance(broker, ManualBroker)
        if refused == "plain":
            broker.held.clear()
            await node.connect_plain("42")
        else:
            client = node.open()
            client.send({"id": 1, "connect": {"token": token("42" if refused != "anonymous" else "")}})
            await node.settle()
            while broker.waiting:
                broker.settle(BrokerError("down"))
            await node.settle()
        assert node.singles == []
