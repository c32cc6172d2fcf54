"""The server API's operations on one node: what they answer, and what clients see of them."""

import base64
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any, Final

import msgspec
import pytest
from msgspec.structs import replace

from gateway.broker.contract import BrokerError
from gateway.broker.memory.control import MemoryBus
from gateway.messaging.administration import Administration
from gateway.messaging.batches import METHODS, Batches
from gateway.messaging.control import Figures
from gateway.protocol.json_codec import is_json
from gateway.protocol.server_api import BatchCall, Refusal, Scope
from tests.support.administrations import Office
from tests.support.conversations import ALLOW_ALL, Client, House, ManualBroker, at, house

TABLE: Final[dict[str, Any]] = {
    "handlers": {"rpc_methods": ["echo"]},
    "channel": {
        "namespaces": [
            {
                "name": "chat",
                **ALLOW_ALL,
                "presence": True,
                "history_size": 5,
                "history_ttl": 300,
                "force_recovery": True,
                "force_push_join_leave": True,
            },
            {"name": "bare"},
            {"name": "object", "publication_data_format": "json_object"},
            {"name": "bytes", "publication_data_format": "binary", "history_size": 5, "history_ttl": 300},
            {"name": "timed", **ALLOW_ALL, "processors": ["scale"]},
        ],
    },
}


class Desk:
    """Calls operations by name, with JSON in and JSON out."""

    def __init__(self, node: House, *, name: str = "node1", survey_timeout_s: float = 1.0) -> None:
        self.node = node
        self.office = Office(node, name=name, survey_timeout_s=survey_timeout_s)
        self.notes: list[tuple[str, int]] = []
        """The calls of batches, with the codes of their errors, 0 for none."""

    async def call(self, method: str, /, **fields: Any) -> Any:
        """Return the result of a call as a value; for a refusal its code and reason."""
        kind = METHODS[method]
        call = msgspec.json.decode(msgspec.json.encode(fields), type=kind.call)
        result = await kind.carry_out(self.office.administration, call)
        if isinstance(result, Refusal):
            return result.error.code, result.reason
        return msgspec.json.decode(msgspec.json.encode(result))

    async def batch(self, *commands: Any, parallel: bool = False, scopes: frozenset[Scope] = frozenset(Scope)) -> Any:
        call = msgspec.json.decode(msgspec.json.encode({"commands": commands, "parallel": parallel}), type=BatchCall)
        batches = Batches(self.office.administration)
        result = await batches.carry_out(call, may=scopes.__contains__, note=self._note)
        return msgspec.json.decode(msgspec.json.encode(result))

    def _note(self, name: str, call: Any, refusal: Refusal | None) -> None:
        assert (call is None) == (not name)
        self.notes.append((name, refusal.error.code if refusal is not None else 0))


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    async with house(TABLE) as node:
        yield Desk(node)


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


# Publishing.


async def test_a_publication_gets_the_place_that_subscribers_see(desk: Desk) -> None:
    client = await desk.node.connect("42", "lobby")
    assert await desk.call("publish", channel="lobby", data={"a": 1}) == {}
    first = await desk.call("publish", channel="chat:a", data={"a": 1})
    assert first == {"offset": 1, "epoch": first["epoch"]}
    await desk.node.settle()
    assert client.take_values() == [{"push": {"channel": "lobby", "pub": {"data": {"a": 1}}}}]


async def test_extras_of_a_publication_are_obeyed(desk: Desk) -> None:
    publish = {"channel": "chat:a", "data": 1}
    epoch = (await desk.call("publish", **publish, tags={"k": "v"}))["epoch"]
    assert await desk.call("publish", **publish, skip_history=True) == {}
    once = await desk.call("publish", **publish, idempotency_key="one")
    assert once == {"offset": 2, "epoch": epoch}
    assert await desk.call("publish", **publish, idempotency_key="one") == once
    assert await desk.call("publish", **publish, version=2**64 - 1, version_epoch="e") == {"offset": 3, "epoch": epoch}
    late = await desk.call("publish", **publish, version=7, version_epoch="e")
    assert late == {"offset": 3, "epoch": epoch}
    page = await desk.call("history", channel="chat:a", limit=-1)
    assert page == {
        "publications": [
            {"data": 1, "offset": 1, "tags": {"k": "v"}},
            {"data": 1, "offset": 2},
            {"data": 1, "offset": 3},
        ],
        "epoch": epoch,
        "offset": 3,
    }


async def test_bytes_are_published_as_they_are_and_read_back_as_base64(desk: Desk) -> None:
    await desk.call("publish", channel="bytes:a", b64data=b64(b"\x93NUMPY\x00"))
    await desk.call("publish", channel="bytes:a", b64data=b64(b'{"a": 1}'))
    page = await desk.call("history", channel="bytes:a", limit=2)
    assert page["publications"] == [{"b64data": b64(b"\x93NUMPY\x00"), "offset": 1}, {"data": {"a": 1}, "offset": 2}]


async def test_a_broadcast_answers_for_each_channel_and_one_refusal_stops_no_other(desk: Desk) -> None:
    responses = (await desk.call("broadcast", channels=["chat:a", "plain", "nope:x", ""], data=1))["responses"]
    assert responses == [
        {"result": {"offset": 1, "epoch": responses[0]["result"]["epoch"]}},
        {"result": {}},
        {"error": {"code": 102, "message": "unknown channel"}},
        {"error": {"code": 107, "message": "bad request"}},
    ]


REFUSED: list[tuple[str, dict[str, Any], int, str]] = [
    ("publish", {"data": 1}, 107, "channel is empty"),
    (
        "publish",
        {"channel": "a"},
        107,
        "channel 'a': it takes JSON, nested at most 128 deep, and this is something else",
    ),
    ("publish", {"channel": "a", "b64data": "?"}, 107, "b64data is not base64"),
    ("publish", {"channel": "a", "b64data": "e30"}, 107, "b64data is not base64"),
    ("publish", {"channel": "a", "b64data": b64(b"{")}, 107, "channel 'a': it takes JSON, nested at most 128 deep, …"),
    ("publish", {"channel": "a", "data": 1, "version": 2**64}, 107, "version is above 18446744073709551615"),
    ("publish", {"channel": "object:a", "data": [1]}, 107, "channel 'object:a': it takes JSON objects, nested …"),
    ("publish", {"channel": "timed:a", "data": "x"}, 107, "channel 'timed:a': it takes JSON, … understand (scale), …"),
    ("publish", {"channel": "nope:a", "data": 1}, 102, "the namespace of 'nope:a' is not configured (…)"),
    ("broadcast", {"data": 1}, 107, "channels is empty: a broadcast needs at least one"),
    ("broadcast", {"channels": ["a"], "b64data": "?"}, 107, "b64data is not base64"),
    ("subscribe", {"user": "42"}, 107, "channel is empty"),
    ("subscribe", {"user": "42", "channel": "nope:x"}, 102, "the namespace of 'nope:x' is not configured (…)"),
    ("subscribe", {"channel": "a", "b64info": "?"}, 107, "b64info is not JSON in base64"),
    ("subscribe", {"channel": "a", "b64data": b64(b"\xff")}, 107, "b64data is not JSON in base64"),
    ("unsubscribe", {"user": "42"}, 107, "channel is empty"),
    ("unsubscribe", {"user": "42", "channel": "nope:x"}, 102, "the namespace of 'nope:x' is not configured (…)"),
    ("disconnect", {"disconnect": {"code": 1000}}, 107, "disconnect.code is 1000, and 3000 to 4999 are codes"),
    ("disconnect", {"disconnect": {"code": 5000}}, 107, "disconnect.code is 5000, and 3000 to 4999 are codes"),
    ("disconnect", {"disconnect": {"code": 4000, "reason": "1"}}, 107, "disconnect.reason is a text of at most 123 …"),
    ("disconnect", {"disconnect": {"code": 4000, "reason": "é" * 62}}, 107, "disconnect.reason is a text of at most …"),
    ("refresh", {"b64info": "?"}, 107, "b64info is not JSON in base64"),
    ("presence", {}, 107, "channel is empty"),
    ("presence", {"channel": "bare:a"}, 108, "the namespace of 'bare:a' has no presence = true"),
    ("presence_stats", {"channel": "bare:a"}, 108, "the namespace of 'bare:a' has no presence = true"),
    ("presence_stats", {"channel": "nope:a"}, 102, "the namespace of 'nope:a' is not configured (…)"),
    ("history", {"channel": "bare:a"}, 108, "the namespace of 'bare:a' has no history_size and history_ttl"),
    ("history", {"channel": "chat:a", "since": {"epoch": "old"}}, 112, "since.epoch is over, the stream's is …"),
    ("history", {"channel": "chat:a", "since": {}, "reverse": True}, 107, "since.offset is 0, and nothing is …"),
    ("history_remove", {"channel": "bare:a"}, 108, "the namespace of 'bare:a' has no history_size and history_ttl"),
    ("rpc", {"method": "nope"}, 104, "no handler 'nope' in handlers.rpc_methods"),
    ("connections", {"node": "nope"}, 104, "there is no node 'nope', by name or uid; there is node1"),
    ("drain", {"node": "nope"}, 104, "there is no node 'nope', by name or uid; there is node1"),
]


@pytest.mark.parametrize(("method", "fields", "code", "reason"), REFUSED)
async def test_what_will_not_do_is_refused_with_its_code_and_what_is_wrong(
    desk: Desk, method: str, fields: dict[str, Any], code: int, reason: str
) -> None:
    said_code, said = await desk.call(method, **fields)
    assert said_code == code
    position = 0
    for part in reason.split("…"):
        assert part in said[position:], said
        position = said.index(part, position) + len(part)


async def test_a_broker_that_is_away_is_error_100_for_all_that_needs_it() -> None:
    broker = ManualBroker("publish")
    async with house(TABLE, broker=broker) as node:
        desk = Desk(node)
        calls = [
            {"publish": {"channel": "lobby", "data": 1}},
            {"broadcast": {"channels": ["lobby"], "data": 1}},
        ]
        await broker.stop()
        broker.held.clear()
        internal = {"code": 100, "message": "internal server error"}
        assert await desk.batch(*calls) == {
            "replies": [{"error": internal}, {"broadcast": {"responses": [{"error": internal}]}}]
        }
        for method in ("history", "history_remove"):
            assert await desk.call(method, channel="chat:a") == (100, "the broker is not running")


# The connections of a user.


async def served(desk: Desk, method: str, client: Client, **fields: Any) -> list[Any]:
    """Carry out a call that answers `{}` and return what *client* is told."""
    assert await desk.call(method, **fields) == {}
    await desk.node.settle()
    return client.take_values()


async def test_a_user_is_subscribed_unsubscribed_refreshed_and_disconnected(desk: Desk) -> None:
    client = await desk.node.connect("42")
    told = await served(desk, "subscribe", client, user="42", channel="lobby", info={"i": 1}, data={"d": 1})
    assert told == [{"push": {"channel": "lobby", "subscribe": {"data": {"d": 1}}}}]
    assert client.conversation.session.subscriptions["lobby"].info.chan_info == msgspec.Raw(b'{"i":1}')
    unsubscribed = {"push": {"channel": "lobby", "unsubscribe": {"code": 2000, "reason": "server unsubscribe"}}}
    assert await served(desk, "unsubscribe", client, user="42", channel="lobby") == [unsubscribed]
    assert await served(desk, "unsubscribe", client, user="42", channel="lobby") == []
    refreshed = [{"push": {"refresh": {"expires": True, "ttl": 60}}}]
    assert await served(desk, "refresh", client, user="42", expire_at=at(60)) == refreshed
    assert await served(desk, "disconnect", client, user="42", whitelist=[client.id]) == []
    assert client.closing is None
    await served(desk, "disconnect", client, user="42", disconnect={"code": 4242, "reason": "sold"})
    assert client.closing == (4242, "sold")


@pytest.mark.parametrize(
    ("disconnect", "closing"),
    [
        (None, (3503, "force disconnect")),
        ({}, (3503, "force disconnect")),
        ({"code": 3000}, (3000, "connection closed")),
        ({"code": 3001}, (3001, "shutdown")),
        ({"code": 4999}, (4999, "force disconnect")),
        ({"code": 3500, "reason": "go"}, (3500, "go")),
    ],
)
async def test_a_disconnect_always_has_a_reason(desk: Desk, disconnect: Any, closing: tuple[int, str]) -> None:
    client = await desk.node.connect("42")
    await served(desk, "disconnect", client, user="42", disconnect=disconnect)
    assert client.closing == closing


async def test_overrides_change_one_subscription_and_recover_since_brings_what_was_missed(desk: Desk) -> None:
    client = await desk.node.connect("42")
    epoch = (await desk.call("publish", channel="chat:a", data=1))["epoch"]
    told = await served(
        desk,
        "subscribe",
        client,
        user="42",
        channel="chat:a",
        override={"presence": {"value": False}},
        recover_since={"offset": 0, "epoch": epoch},
    )
    assert told[0]["push"]["subscribe"] == {"recoverable": True, "epoch": epoch, "positioned": True}
    assert told[1]["push"]["pub"]["data"] == 1
    assert await desk.call("presence", channel="chat:a") == {"presence": {}}


async def test_acting_on_who_is_not_there_is_a_success(desk: Desk) -> None:
    for method in ("subscribe", "unsubscribe"):
        assert await desk.call(method, user="nobody", channel="lobby") == {}
    for method in ("disconnect", "refresh"):
        assert await desk.call(method, user="nobody") == {}


# Questions.


async def test_presence_and_its_numbers_are_told(desk: Desk) -> None:
    assert await desk.call("presence", channel="chat:a") == {"presence": {}}
    assert await desk.call("presence_stats", channel="chat:a") == {"num_clients": 0, "num_users": 0}
    client = await desk.node.connect("42", info={"name": "Ann"})
    await client.ask({"id": 2, "subscribe": {"channel": "chat:a"}})
    told = {client.id: {"user": "42", "client": client.id, "conn_info": {"name": "Ann"}}}
    assert await desk.call("presence", channel="chat:a") == {"presence": told}
    assert await desk.call("presence_stats", channel="chat:a") == {"num_clients": 1, "num_users": 1}


async def test_history_has_no_cap_and_can_be_removed(desk: Desk) -> None:
    calls = [{"publish": {"channel": "chat:a", "data": value}} for value in range(1, 5)]
    epoch = (await desk.batch(*calls))["replies"][0]["publish"]["epoch"]
    position = {"publications": [], "epoch": epoch, "offset": 4}
    assert await desk.call("history", channel="chat:a") == position

    async def values(**fields: Any) -> list[int]:
        page = await desk.call("history", channel="chat:a", **fields)
        return [each["data"] for each in page["publications"]]

    assert await values(limit=2) == [1, 2]
    assert await values(limit=2, reverse=True) == [4, 3]
    assert await values(limit=-1, since={"offset": 2, "epoch": epoch}) == [3, 4]
    assert await values(limit=1, since={"offset": 3}, reverse=True) == [2]
    assert await desk.call("history_remove", channel="chat:a") == {}
    assert await desk.call("history", channel="chat:a", limit=-1) == position


async def test_nodes_and_active_channels_are_told(desk: Desk) -> None:
    await desk.node.connect("42", "lobby", "news")
    await desk.node.connect("43", "lobby")
    desk.node.now_s += 2.5
    [node] = (await desk.call("info"))["nodes"]
    numbers = {"num_clients": 2, "num_users": 2, "num_subs": 3, "num_channels": 2, "uptime": 2}
    assert node == {"uid": "node", "name": "node1", "version": "1.0", **numbers}
    both = {"lobby": {"num_clients": 2}, "news": {"num_clients": 1}}
    assert await desk.call("channels") == {"channels": both}
    assert await desk.call("channels", pattern="n*") == {"channels": {"news": {"num_clients": 1}}}
    assert await desk.call("channels", pattern="[") == {"channels": {}}


async def test_how_a_node_is_doing_is_told_once_it_has_told_twice(desk: Desk) -> None:
    info = desk.office.cluster.info()[0]
    for uptime_s, messages_in, outbox_bytes in ((10.0, 100, 3), (14.0, 300, 7)):
        figures = Figures(messages_in=messages_in, outbox_bytes=outbox_bytes)
        desk.office.trends.note(replace(info, uptime_s=uptime_s, figures=figures), now_s=0.0)
    [node] = (await desk.call("info"))["nodes"]
    metrics = node["metrics"]
    assert metrics["interval"] == 1.0
    assert (metrics["items"]["messages_in"], metrics["items"]["outbox_bytes"]) == (50.0, 7)
    assert set(metrics["items"]) == {
        "messages_in",
        "messages_out",
        "bytes_in",
        "bytes_out",
        "dropped",
        "cpu",
        "outbox_bytes",
        "loop_lag_s",
    }


async def test_rpc_calls_what_clients_may_call(desk: Desk) -> None:
    assert await desk.call("rpc", method="ping") == {}
    assert await desk.call("rpc", method="echo", params={"a": [1]}) == {"data": {"a": [1]}}


async def test_a_node_drains_by_its_name_or_uid_or_without(desk: Desk) -> None:
    for fields in ({}, {"node": "node1"}, {"node": "node"}):
        assert await desk.call("drain", **fields) == {"uid": "node", "name": "node1"}
    assert desk.office.drains == 3


# Connections.


async def test_connections_are_found_by_user_channel_client_and_transport(desk: Desk) -> None:
    ann = await desk.node.connect("42", "lobby", "news", info={"name": "Ann"})
    bob = await desk.node.connect("43", "news")
    nobody = desk.node.open()

    async def found(**fields: Any) -> list[str]:
        page = await desk.call("connections", **fields)
        return [each["client"] for each in page["connections"]]

    page = await desk.call("connections", user="42")
    assert page == {
        "connections": [
            {
                "client": ann.id,
                "user": "42",
                "node": "node",
                "transport": "websocket",
                "connected_at": 1800000000.0,
                "channels": ["lobby", "news"],
                "info": {"name": "Ann"},
                "address": "192.0.2.1",
                "messages_in": 3,
                "bytes_in": ann.conversation.traffic.bytes_in,
                "bytes_out": ann.conversation.traffic.bytes_out,
            }
        ]
    }
    assert await found() == [ann.id, bob.id]
    assert await found(channel="news") == [ann.id, bob.id]
    assert await found(channel="lobby", user="43") == []
    assert await found(client=bob.id) == [bob.id]
    assert await found(transport="sse") == []
    assert await found(node="node1", user="43") == [bob.id]
    assert await found(user="") == []
    assert nobody.id not in await found()


async def test_a_connection_s_traffic_counts_what_it_was_sent_since_it_came(desk: Desk) -> None:
    async def sent() -> list[int]:
        page = await desk.call("connections", channel="news")
        return [each.get("messages_out", 0) for each in page["connections"]]

    await desk.node.connect("42", "news", "lobby")
    desk.node.publish("news")
    await desk.node.settle()
    await desk.node.connect("43", "news")
    desk.node.publish("news")
    desk.node.publish("lobby")
    await desk.node.settle()
    assert await sent() == [3, 1]


async def test_pages_of_connections_leave_nobody_out_and_name_nobody_twice(desk: Desk) -> None:
    ids = sorted([(await desk.node.connect(f"user-{n}")).id for n in range(7)])
    seen: list[str] = []
    cursor, sizes = "", []
    while True:
        page = await desk.call("connections", limit=3, cursor=cursor)
        seen += [each["client"] for each in page["connections"]]
        sizes.append(len(page["connections"]))
        cursor = page.get("cursor", "")
        if not cursor:
            break
    assert seen == ids
    assert sizes == [3, 3, 1]


async def test_three_nodes_answer_as_one_and_the_silent_one_is_named() -> None:
    bus = MemoryBus()
    async with AsyncExitStack() as stack:
        houses = [await stack.enter_async_context(house(TABLE, bus=bus, node_id=f"n{n}")) for n in range(3)]
        desks = [Desk(node, name=f"node{n}", survey_timeout_s=0.02) for n, node in enumerate(houses)]
        for each in desks:
            each.office.cluster._announce()  # noqa: SLF001 - what `run` does at its start
        ann, again = await houses[0].connect("ann", "lobby"), await houses[1].connect("ann", "lobby")
        await houses[2].connect("bob", "lobby")
        asking, _, mute = desks
        assert await asking.call("channels") == {"channels": {"lobby": {"num_clients": 3}}}
        found = (await desks[1].call("connections"))["connections"]
        assert [(each["client"], each["node"]) for each in found] == [(f"n{n}-client-1", f"n{n}") for n in range(3)]
        page = await asking.call("connections", limit=2)
        assert [each["user"] for each in page["connections"]] == ["ann", "ann"]
        rest = await asking.call("connections", limit=2, cursor=page["cursor"])
        assert [each["user"] for each in rest["connections"]] == ["bob"]
        assert await asking.call("drain", node="node1") == {"uid": "n1", "name": "node1"}
        assert [each.office.drains for each in desks] == [0, 1, 0]
        houses[2].engine.control.stop()
        silent = [{"uid": "n2", "name": "node2"}]
        assert await asking.call("channels") == {"channels": {"lobby": {"num_clients": 2}}, "silent": silent}
        assert (await asking.call("connections", user="bob")) == {"connections": [], "silent": silent}
        code, reason = await asking.call("drain", node="node2")
        assert (code, reason) == (100, "'node2' (n2) did not answer: it drains when it hears of it")
        assert mute.office.drains == 0
        assert await desks[1].call("disconnect", user="ann") == {}
        assert [ann.closing, again.closing] == [(3503, "force disconnect")] * 2


async def test_of_nodes_with_one_name_none_is_meant() -> None:
    bus = MemoryBus()
    async with AsyncExitStack() as stack:
        houses = [await stack.enter_async_context(house(TABLE, bus=bus, node_id=f"n{n}")) for n in range(2)]
        one, other = [Desk(node, name="twin") for node in houses]
        other.office.cluster._announce()  # noqa: SLF001 - as above
        assert await one.call("drain", node="twin") == (113, "2 nodes are called 'twin': name one by its uid")
        assert await one.call("drain", node="n1") == {"uid": "n1", "name": "twin"}


# Batches.


async def test_a_batch_answers_in_order_whatever_became_of_each(desk: Desk) -> None:
    commands: list[Any] = [
        {"publish": {"channel": "chat:a", "data": 1}},
        {"presence_stats": {"channel": "chat:a"}},
        {"nope": {}},
        {},
        {"broadcast": {"channels": ["plain", "nope:x"], "data": 1}},
        {"history": {"channel": "chat:a"}},
        {"publish": {"channel": "nope:x", "data": 1}},
        {"disconnect": {"user": "nobody"}},
    ]
    for parallel in (False, True):
        replies = (await desk.batch(*commands, parallel=parallel))["replies"]
        position = replies[0]["publish"]
        not_found, unknown = {"code": 104, "message": "not found"}, {"code": 102, "message": "unknown channel"}
        assert replies == [
            {"publish": position},
            {"presence_stats": {"num_clients": 0, "num_users": 0}},
            {"error": not_found},
            {"error": not_found},
            {"broadcast": {"responses": [{"result": {}}, {"error": unknown}]}},
            {"history": {"publications": [], **position}},
            {"error": unknown},
            {"disconnect": {}},
        ]
    codes = [0, 0, 104, 104, 0, 0, 102, 0]
    names = ["publish", "presence_stats", "", "", "broadcast", "history", "publish", "disconnect"]
    assert sorted(desk.notes) == sorted(2 * list(zip(names, codes, strict=True)))


async def test_an_empty_batch_has_no_replies(desk: Desk) -> None:
    assert await desk.batch() == {}


async def test_calls_of_a_batch_without_their_scope_are_refused_one_by_one(desk: Desk) -> None:
    publish: dict[str, Any] = {"publish": {"channel": "plain", "data": 1}}
    read: dict[str, Any] = {"channels": {}}
    denied = {"error": {"code": 103, "message": "permission denied"}}
    assert await desk.batch(publish, read, scopes=frozenset({Scope.PUBLISH})) == {"replies": [{"publish": {}}, denied]}
    told = {"replies": [denied, {"channels": {"channels": {}}}]}
    assert await desk.batch(publish, read, scopes=frozenset({Scope.READ})) == told


async def test_publications_of_a_batch_are_handed_over_together() -> None:
    broker = ManualBroker()
    async with house(TABLE, broker=broker) as node:
        office = Office(node)
        broker.held.add("publish")
        calls = [{"publish": {"channel": f"c{n}", "data": n}} for n in range(3)]
        batch = msgspec.json.decode(msgspec.json.encode({"commands": calls}), type=BatchCall)
        carrying = Batches(office.administration).carry_out(batch, may=lambda _: True, note=lambda *_: None)
        carrying.send(None)  # up to the first wait
        assert [channel for channel, _ in broker.waiting] == ["c0", "c1", "c2"]
        carrying.close()
        while broker.waiting:
            broker.settle(BrokerError("not needed"))


def test_every_method_is_an_operation_and_says_what_it_does() -> None:
    for method in METHODS.values():
        assert getattr(Administration, method.name) is method.carry_out
        assert is_json(msgspec.json.encode(method.call()))
        assert (method.call.__doc__ or "").split("\n")[0].endswith((".", ":"))
