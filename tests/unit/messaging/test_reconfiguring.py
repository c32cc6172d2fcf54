"""A reload while clients are connected: they stay, and what is decided from then on is decided by the new rules."""

from typing import Any, Final

import pytest

from gateway.domain.stream import HistoryRange
from tests.support.conversations import ALLOW_ALL, SECRET, ManualBroker, house, token

ROOM: Final = {"name": "room", "allow_subscribe_for_client": True}
STREAM: Final = {"history_size": 10, "history_ttl": 60}
UNKNOWN: Final = {"code": 102, "message": "unknown channel"}
DENIED: Final = {"code": 103, "message": "permission denied"}
PUBLISH: Final = {"id": 7, "publish": {"channel": "room:a", "data": {}}}
SUBSCRIBE: Final = {"id": 8, "subscribe": {"channel": "room:a"}}


def namespaces(*tables: dict[str, Any]) -> dict[str, Any]:
    return {"channel": {"namespaces": list(tables)}}


@pytest.mark.parametrize(
    ("request_", "option", "answer"),
    [
        (PUBLISH, {"allow_publish_for_subscriber": True}, {"id": 7, "publish": {}}),
        ({"id": 7, "presence": {"channel": "room:a"}}, {"presence": True, "allow_presence_for_client": True}, None),
        ({"id": 7, "history": {"channel": "room:a"}}, STREAM | {"allow_history_for_client": True}, None),
    ],
)
async def test_what_a_subscriber_may_do_follows_the_namespace(
    request_: dict[str, Any], option: dict[str, Any], answer: dict[str, Any] | None
) -> None:
    async with house(namespaces(ROOM)) as node:
        client = await node.connect("42", "room:a")
        before = await client.ask(request_)
        assert [each.get("error") for each in before] in ([DENIED], [{"code": 108, "message": "not available"}])
        node.reload(namespaces(ROOM | option))
        after = [each for each in await client.ask(request_) if "id" in each]
        assert after == [answer] if answer else "error" not in after[0], after
        node.reload(namespaces(ROOM))
        assert await client.ask(request_) == before
        assert (client.closing, client.channels) == (None, {"room:a"})


async def test_who_is_in_a_channel_that_may_not_be_joined_any_more_stays_in_it() -> None:
    async with house(namespaces(ROOM)) as node:
        client = await node.connect("42", "room:a")
        node.reload(namespaces({"name": "room"}))
        node.publish("room:a", b"1")
        await node.settle()
        assert client.take_values() == [{"push": {"channel": "room:a", "pub": {"data": 1}}}]
        newcomer = await node.connect("43")
        assert await newcomer.ask(SUBSCRIBE) == [{"id": 8, "error": DENIED}]


async def test_subscribers_of_a_namespace_that_is_gone_stay_and_may_do_nothing_there() -> None:
    async with house(namespaces(ROOM | ALLOW_ALL)) as node:
        client = await node.connect("42", "room:a")
        outsider = await node.connect("43")
        node.reload(namespaces())
        node.publish("room:a", b"1")  # by a node that knows it still
        await node.settle()
        assert client.take_values() == [{"push": {"channel": "room:a", "pub": {"data": 1}}}]
        assert await client.ask(PUBLISH) == [{"id": 7, "error": DENIED}]
        assert await outsider.ask(PUBLISH) == [{"id": 7, "error": UNKNOWN}]
        assert await outsider.ask(SUBSCRIBE) == [{"id": 8, "error": UNKNOWN}]
        assert await client.ask({"id": 9, "unsubscribe": {"channel": "room:a"}}) == [{"id": 9, "unsubscribe": {}}]
        assert await client.ask(SUBSCRIBE) == [{"id": 8, "error": UNKNOWN}]


async def test_subscribers_of_a_namespace_that_comes_back_have_it_again() -> None:
    async with house(namespaces(ROOM | ALLOW_ALL)) as node:
        client = await node.connect("42", "room:a")
        node.reload(namespaces())
        node.reload(namespaces(ROOM | ALLOW_ALL))
        assert [each for each in await client.ask(PUBLISH) if "id" in each] == [{"id": 7, "publish": {}}]


@pytest.mark.parametrize(("before", "after"), [({}, STREAM), (STREAM, {}), (STREAM, STREAM | {"history_size": 1})])
async def test_delivery_goes_on_when_a_history_begins_ends_or_shrinks(
    before: dict[str, Any], after: dict[str, Any]
) -> None:
    async with house(namespaces(ROOM | ALLOW_ALL | before)) as node:
        client, publisher = await node.connect("42", "room:a"), await node.connect("43")
        for number, table in enumerate((before, after, before, after)):
            node.reload(namespaces(ROOM | ALLOW_ALL | table))
            for part in range(3):
                message = {"channel": "room:a", "data": [number, part]}
                assert await publisher.ask({"id": 5, "publish": message}) == [{"id": 5, "publish": {}}]
        pushed = [each["push"]["pub"]["data"] for each in client.take_values()]
        assert pushed == [[number, part] for number in range(4) for part in range(3)]
        kept = await node.broker.history("room:a", HistoryRange(limit=-1), meta_ttl_s=60).wait()
        assert len(kept.publications) <= (after or before)["history_size"]


async def test_what_a_subscription_has_was_granted_when_it_was_made() -> None:
    """Presence, join and leave, recovery: the next subscription has them, or not, by the new rules."""
    async with house(namespaces(ROOM | {"presence": True})) as node:
        early = await node.connect("42", "room:a")
        node.reload(namespaces(ROOM))
        late = await node.connect("43", "room:a")
        assert set(node.services.presences.local("room:a")) == {early.id}
        assert await early.ask({"id": 9, "unsubscribe": {"channel": "room:a"}}) == [{"id": 9, "unsubscribe": {}}]
        assert node.services.presences.local("room:a") == {}
        assert late.closing is None


@pytest.mark.parametrize("with_history", [{}, STREAM])
async def test_a_new_data_format_has_subscribers_come_again_before_anything_reaches_them(
    with_history: dict[str, Any],
) -> None:
    table = ROOM | ALLOW_ALL | with_history
    async with house(namespaces(table)) as node:
        client, plain = await node.connect("42", "room:a"), await node.connect_plain("43", "room:a")
        node.publish("room:a", b"1")  # in the turn of the reload, so by the old rules
        node.reload(namespaces(table | {"publication_data_format": "binary"}))
        node.publish("room:a", b"\x00\xff")
        await node.settle()
        told = {"push": {"channel": "room:a", "unsubscribe": {"code": 2500, "reason": "insufficient state"}}}
        assert client.take_values() == [{"push": {"channel": "room:a", "pub": {"data": 1}}}, told]
        assert (plain.take(), plain.closing) == (["1"], (1000, "insufficient state"))
        assert await client.ask(SUBSCRIBE) == [{"id": 8, "error": {"code": 108, "message": "not available"}}]
        assert len(node.hub) == 0


async def test_who_joins_while_the_namespace_changes_is_in_by_the_new_rules() -> None:
    broker = ManualBroker("subscribe")
    async with house(namespaces(ROOM), broker=broker) as node:
        client = await node.connect("42")
        client.send(SUBSCRIBE)
        await node.settle()
        node.reload(namespaces(ROOM | {"allow_publish_for_subscriber": True}))
        broker.settle()
        await node.settle()
        assert client.take_values() == [{"id": 8, "subscribe": {}}]
        assert [each for each in await client.ask(PUBLISH) if "id" in each] == [{"id": 7, "publish": {}}]


async def test_who_joins_while_the_data_format_changes_has_to_ask_again() -> None:
    broker = ManualBroker("subscribe")
    async with house(namespaces(ROOM | ALLOW_ALL), broker=broker) as node:
        client = await node.connect("42")
        client.send(SUBSCRIBE)
        await node.settle()
        node.reload(namespaces(ROOM | ALLOW_ALL | {"publication_data_format": "binary"}))
        broker.settle()
        await node.settle()
        assert client.take_values() == [
            {"id": 8, "error": {"code": 100, "message": "internal server error", "temporary": True}}
        ]
        assert (client.channels, len(node.hub)) == (set(), 0)


async def test_processors_are_made_anew() -> None:
    async with house(namespaces(ROOM | ALLOW_ALL | {"processors": ["scale"], "scale_factor": 2.0})) as node:
        client = await node.connect("42", "room:a")
        publish = {"id": 7, "publish": {"channel": "room:a", "data": {"source": "s", "value": 3}}}
        first = next(each for each in await client.ask(publish) if "push" in each)
        node.reload(namespaces(ROOM | ALLOW_ALL | {"processors": ["scale"], "scale_factor": 10.0}))
        second = next(each for each in await client.ask(publish) if "push" in each)
        assert [each["push"]["pub"]["data"]["value"] for each in (first, second)] == [6, 30]


async def test_tokens_are_checked_with_the_new_keys_and_old_connections_stay() -> None:
    async with house() as node:
        client = await node.connect("42")
        other = "another secret of the tests, as long as that"
        node.reload({"client": {"token": {"hmac_secret_key": other}}})
        refused = node.open()
        await refused.ask({"id": 1, "connect": {"token": token("43", key=SECRET)}})
        assert refused.closing == (3500, "invalid token")
        replies = await node.open().ask({"id": 1, "connect": {"token": token("43", key=other)}})
        assert "connect" in replies[0]
        assert client.closing is None


async def test_a_verifier_whose_settings_have_not_changed_is_kept_with_what_it_fetched() -> None:
    async with house() as node:
        before = node.services.connection_tokens
        node.reload({"client": {"command_rate": 5}})
        assert node.services.connection_tokens is before


async def test_rates_hold_from_the_next_command_on() -> None:
    async with house() as node:
        client = await node.connect("42")
        node.reload({"client": {"command_rate": 1, "command_burst": 1}})
        assert await client.ask({"id": 5, "rpc": {"method": "ping"}}) == [{"id": 5, "rpc": {}}]
        (reply,) = await client.ask({"id": 6, "rpc": {"method": "ping"}})
        assert reply["error"]["code"] == 111


async def test_a_plain_client_stays_with_its_handler() -> None:
    async with house(namespaces(ROOM | ALLOW_ALL | {"handler": "echo"})) as node:
        client = await node.connect_plain("42", "room:a")
        node.reload(namespaces())
        assert await client.ask('"hello"') == ["hello"]
        assert node.services.handlers.names == {"echo"}


async def test_a_reload_looks_only_at_what_has_changed() -> None:
    async with house(namespaces(ROOM, {"name": "other", "allow_subscribe_for_client": True})) as node:
        client = await node.connect("42", "room:a", "other:a")
        kept = {name: each.channel for name, each in client.conversation.session.subscriptions.items()}
        node.reload(namespaces(ROOM, {"name": "other"}))
        now = {name: each.channel for name, each in client.conversation.session.subscriptions.items()}
        assert (now["room:a"] is kept["room:a"], now["other:a"] is kept["other:a"]) == (True, False)
        assert node.hub.get("other:a").channel is now["other:a"]  # type: ignore[union-attr]  # it is there
