"""What subscribers may ask for beyond the ordinary: patches, numbers for names, filters (protocol.md 2.8)."""

import json
from typing import Any, Final

import msgspec
import pytest

from gateway.messaging.publishing import Extras
from gateway.protocol.fossil import patched
from tests.support.conversations import Client, House, house

HISTORY: Final = {"history_size": 10, "history_ttl": "60s", "force_recovery": True}
OPEN: Final = {"allow_subscribe_for_client": True, "allow_publish_for_client": True}
NAMESPACES: Final = {
    "channel": {
        "namespaces": [
            {"name": "fossil", **OPEN, **HISTORY, "allowed_delta_types": ["fossil"], "delta_publish": True},
            {"name": "marked", **OPEN, **HISTORY, "allowed_delta_types": ["fossil"]},
            {"name": "free", **OPEN, "allowed_delta_types": ["fossil"], "delta_publish": True},
            {"name": "never", **OPEN, "delta_publish": True},
            {"name": "tags", **OPEN, **HISTORY, "allow_tags_filter": True},
            {"name": "short", **OPEN, "allow_channel_compaction": True, "join_leave": True, "presence": True,
             "force_push_join_leave": True},
            {"name": "all", **OPEN, **HISTORY, "allowed_delta_types": ["fossil"], "delta_publish": True,
             "allow_tags_filter": True, "allow_channel_compaction": True},
        ]
    }
}  # fmt: skip
TEXT: Final = '{"text": "hello world, this is a long enough message to make a delta useful", "n": %d}'


async def subscribe(client: Client, channel: str, **wishes: Any) -> dict[str, Any]:
    [reply] = await client.ask({"id": 2, "subscribe": {"channel": channel, **wishes}})
    answer: dict[str, Any] = reply.get("subscribe") or reply
    return answer


def publish(node: House, channel: str, number: int, **extras: Any) -> None:
    outcome = node.services.publisher.publish(
        node.channel(channel), msgspec.Raw(TEXT.encode() % number), None, Extras(**extras)
    )
    assert not hasattr(outcome, "code")


async def pubs(node: House, client: Client) -> list[dict[str, Any]]:
    await node.settle()
    return [value["push"]["pub"] for value in client.take_values()]


def put_together(publications: list[dict[str, Any]], value: str = "") -> list[str]:
    """Apply what is a patch, as SDKs do; `*` before a value says that it was one."""
    made = []
    for each in publications:
        value = patched(value.encode(), each["data"].encode()).decode() if each.get("delta") else each["data"]
        made.append(("*" if each.get("delta") else "") + str(json.loads(value)["n"]))
    return made


async def test_example_40() -> None:
    async with house(NAMESPACES) as node:
        client = await node.connect()
        reply = await subscribe(client, "fossil:x", delta="fossil")
        assert reply == {"recoverable": True, "epoch": reply["epoch"], "positioned": True, "delta": True}
        publish(node, "fossil:x", 0)
        publish(node, "fossil:x", 1)
        first, second = await pubs(node, client)
        assert (first["data"], first.get("delta")) == (TEXT % 0, None)
        assert second == {"data": second["data"], "offset": 2, "delta": True}
        assert len(second["data"]) < 25
        assert put_together([first, second]) == ["0", "*1"]
        assert node.counts.ledger("fossil").patched == 1


@pytest.mark.parametrize(
    ("channel", "wishes", "granted"),
    [
        ("fossil:x", {"delta": "fossil"}, True),
        ("fossil:x", {}, None),
        ("never:x", {"delta": "fossil"}, None),
    ],
)
async def test_patches_are_for_those_who_ask_where_they_are_allowed(
    channel: str,
    wishes: dict[str, Any],
    granted: bool | None,  # noqa: FBT001 - a table's column
) -> None:
    async with house(NAMESPACES) as node:
        client = await node.connect()
        assert (await subscribe(client, channel, **wishes)).get("delta") == granted
        for number in range(3):
            publish(node, channel, number)
        found = await pubs(node, client)
        assert [each.get("delta", False) for each in found] == [False, *[bool(granted)] * 2]
        assert all(isinstance(each["data"], str if granted else dict) for each in found)


async def test_an_unknown_delta_ends_the_connection() -> None:
    async with house(NAMESPACES) as node:
        client = await node.connect()
        await client.ask({"id": 2, "subscribe": {"channel": "fossil:x", "delta": "rsync"}})
        assert client.closing == (3501, "bad request")


async def test_only_what_its_publisher_has_marked_is_a_patch() -> None:
    async with house(NAMESPACES) as node:
        client = await node.connect()
        await subscribe(client, "marked:x", delta="fossil")
        for number, is_patchable in enumerate([False, False, True, False, True]):
            publish(node, "marked:x", number, is_patchable=is_patchable)
        assert put_together(await pubs(node, client)) == ["0", "1", "*2", "3", "*4"]


async def test_who_comes_later_gets_its_first_in_full_and_disturbs_nobody() -> None:
    async with house(NAMESPACES) as node:
        first, second = await node.connect(), await node.connect()
        await subscribe(first, "free:x", delta="fossil")
        publish(node, "free:x", 0)
        assert put_together(await pubs(node, first)) == ["0"]
        await subscribe(second, "free:x", delta="fossil")
        publish(node, "free:x", 1)
        publish(node, "free:x", 2)
        assert put_together(await pubs(node, first), TEXT % 0) == ["*1", "*2"]
        assert put_together(await pubs(node, second)) == ["1", "*2"]
        publish(node, "free:x", 3)
        assert put_together(await pubs(node, first), TEXT % 2) == put_together(await pubs(node, second), TEXT % 2)
        # The last one is a patch that both share, so it was made once.
        assert node.counts.ledger("free").patched == 4


async def test_who_recovers_gets_patches_at_once() -> None:
    async with house(NAMESPACES) as node:
        other, client = await node.connect(), await node.connect()
        epoch = (await subscribe(other, "fossil:x", delta="fossil"))["epoch"]
        for number in range(4):
            publish(node, "fossil:x", number)
        reply = await subscribe(client, "fossil:x", delta="fossil", recover=True, offset=1, epoch=epoch)
        recovered = reply["publications"]
        assert (reply["recovered"], reply["delta"]) == (True, True)
        assert put_together(recovered) == ["1", "*2", "*3"]
        publish(node, "fossil:x", 4)
        assert put_together(await pubs(node, client), TEXT % 3) == ["*4"]


async def test_who_recovers_nothing_may_have_no_value_and_gets_one_in_full() -> None:
    async with house(NAMESPACES) as node:
        other, client = await node.connect(), await node.connect()
        epoch = (await subscribe(other, "fossil:x", delta="fossil"))["epoch"]
        publish(node, "fossil:x", 0)
        reply = await subscribe(client, "fossil:x", delta="fossil", recover=True, offset=1, epoch=epoch)
        assert (reply["recovered"], "publications" in reply) == (True, False)
        publish(node, "fossil:x", 1)
        assert put_together(await pubs(node, client)) == ["1"]


async def test_without_patches_who_has_recovered_and_who_has_not_share_what_is_encoded() -> None:
    async with house(NAMESPACES) as node:
        other, client = await node.connect(), await node.connect()
        epoch = (await subscribe(other, "tags:x"))["epoch"]
        publish(node, "tags:x", 0)
        await node.settle()
        await other.ask({"id": 3, "unsubscribe": {"channel": "tags:x"}})
        assert (await subscribe(client, "tags:x", recover=True, offset=0, epoch=epoch))["recovered"]
        await subscribe(other, "tags:x")
        local = node.hub.get("tags:x")
        assert local is not None
        assert [len(group) for group in local.all_groups()] == [2]


async def test_line_ends_in_a_payload_are_in_what_patches_are_made_of() -> None:
    async with house(NAMESPACES) as node:
        client = await node.connect()
        await subscribe(client, "free:x", delta="fossil")
        pretty = [b'{\r\n  "n": %d,\n  "text": "' % number + b"x" * 80 + b'"\n}' for number in range(3)]
        for payload in pretty:
            node.services.publisher.publish(node.channel("free:x"), payload, None)
        value, got = b"", []
        for each in await pubs(node, client):
            value = patched(value, each["data"].encode()) if each.get("delta") else each["data"].encode()
            got.append(value)
        assert got == pretty


async def test_a_filter_hides_what_does_not_match_also_of_what_is_recovered() -> None:
    wanted = {"key": "k", "cmp": "eq", "val": "1"}
    async with house(NAMESPACES) as node:
        client, late, later = await node.connect(), await node.connect(), await node.connect()
        epoch = (await subscribe(client, "tags:x", tf=wanted))["epoch"]
        for number, tag in enumerate("121213"):
            publish(node, "tags:x", number, tags={"k": tag})
        assert [each["data"]["n"] for each in await pubs(node, client)] == [0, 2, 4]
        reply = await subscribe(late, "tags:x", tf=wanted, recover=True, offset=1, epoch=epoch)
        assert ([each["offset"] for each in reply["publications"]], reply["offset"]) == ([3, 5], 1)
        reply = await subscribe(later, "tags:x", tf=wanted, recover=True, offset=5, epoch=epoch)
        # Nothing of it is left, so the client goes on from the top, and not from where it was.
        assert (reply["recovered"], reply.get("publications"), reply["offset"]) == (True, None, 6)
        book = node.counts.ledger("tags")
        assert (book.due, book.delivered, book.filtered) == (6, 3, 3)


async def test_filters_and_patches_go_together() -> None:
    async with house(NAMESPACES) as node:
        client = await node.connect()
        await subscribe(client, "all:x", delta="fossil", tf={"key": "k", "cmp": "eq", "val": "1"})
        for number, tag in enumerate("1211"):
            publish(node, "all:x", number, tags={"k": tag})
            await node.settle()
        assert put_together(await pubs(node, client)) == ["0", "*2", "*3"]


async def test_a_number_stands_for_the_channel_where_that_was_agreed() -> None:
    async with house(NAMESPACES) as node:
        client, other = await node.connect("1"), await node.connect("2")
        [reply, joined] = await client.ask({"id": 2, "subscribe": {"channel": "short:x", "flag": 1}})
        number = reply["subscribe"]["id"]
        assert number > 0
        assert joined == {"push": {"id": number, "join": {"info": {"user": "1", "client": client.id}}}}
        [reply, _] = await other.ask({"id": 2, "subscribe": {"channel": "short:x"}})
        assert "id" not in reply["subscribe"]
        await node.settle()
        assert [set(each["push"]) for each in client.take_values()] == [{"id", "join"}]
        node.publish("short:x", b"7")
        await node.settle()
        assert client.take_values() == [{"push": {"id": number, "pub": {"data": 7}}}]
        assert other.take_values() == [{"push": {"channel": "short:x", "pub": {"data": 7}}}]
        await other.ask({"id": 3, "unsubscribe": {"channel": "short:x"}})
        await node.settle()
        assert [set(each["push"]) for each in client.take_values()] == [{"id", "leave"}]


@pytest.mark.parametrize(("channel", "flag"), [("short:x", 0), ("short:x", 2), ("free:x", 1)])
async def test_else_channels_keep_their_names(channel: str, flag: int) -> None:
    async with house(NAMESPACES) as node:
        client = await node.connect()
        client.send({"id": 2, "subscribe": {"channel": channel, "flag": flag}})
        await node.settle()
        reply, *_ = client.take_values()
        assert "id" not in reply["subscribe"]


async def test_no_two_channels_ever_have_one_number() -> None:
    async with house(NAMESPACES) as node:
        client = await node.connect()
        numbers = []
        for name in ("short:a", "short:b", "short:a"):
            client.send(
                {"id": 2, "subscribe": {"channel": name, "flag": 1}}, {"id": 3, "unsubscribe": {"channel": name}}
            )
            await node.settle()
            numbers += [value["subscribe"]["id"] for value in client.take_values() if "subscribe" in value]
        assert len(set(numbers)) == 3
