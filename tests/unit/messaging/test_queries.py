"""history, presence and presence_stats: who may ask, and what is answered (protocol.md 3.5)."""

from itertools import combinations, product
from typing import Any, Final

import msgspec
import pytest

from gateway.broker.contract import PublishOptions
from gateway.broker.memory.broker import MemoryBroker
from gateway.domain.stream import StreamOptions
from gateway.protocol.messages import Publication
from tests.support.conversations import ANONYMOUS, INSECURE, Client, house

STREAM: Final = PublishOptions(StreamOptions(size=10, ttl_s=60.0, meta_ttl_s=600.0))
OPEN: Final = {"allow_subscribe_for_client": True, "allow_subscribe_for_anonymous": True}
KEPT: Final = {"history_size": 10, "history_ttl": 60, "presence": True}
WHO: Final = ("client", "subscriber", "anonymous")


def _namespace(*who: str) -> dict[str, Any]:
    allowed = {f"allow_{what}_for_{each}": True for what in ("history", "presence") for each in who}
    return {"name": "-".join(["kept", *who]), **OPEN, **KEPT, **allowed}


COMBINATIONS: Final = [who for count in range(4) for who in combinations(WHO, count)]
ALLOWED: Final = {f"allow_{what}_for_client": True for what in ("history", "presence")}
TABLE: Final[dict[str, Any]] = {
    "channel": {
        "namespaces": [
            *(_namespace(*who) for who in COMBINATIONS),
            {"name": "off", **OPEN, **ALLOWED},
        ]
    },
    "client": {"history_max_publication_limit": 4},
}
DENIED: Final = {"code": 103, "message": "permission denied"}
NOT_AVAILABLE: Final = {"code": 108, "message": "not available"}
METHODS: Final = ("history", "presence", "presence_stats")


async def answered(client: Client, method: str, **request: Any) -> dict[str, Any]:
    (reply,) = await client.ask({"id": 9, method: request})
    assert reply.pop("id") == 9
    return dict(reply)


@pytest.mark.parametrize("is_subscribed", [False, True])
@pytest.mark.parametrize("user", ["42", ""])
@pytest.mark.parametrize("table", [ANONYMOUS, INSECURE], ids=["as configured", "insecure"])
async def test_who_may_ask(table: dict[str, Any], user: str, *, is_subscribed: bool) -> None:
    may, expected = {}, {}
    async with house(TABLE, table, broker=MemoryBroker()) as node:
        client = await node.connect(user)
        for who, method in product(COMBINATIONS, METHODS):
            channel = f"{'-'.join(['kept', *who])}:x"
            if is_subscribed and channel not in client.channels:
                await client.ask({"id": 2, "subscribe": {"channel": channel}})
            answer = await answered(client, method, channel=channel)
            assert method in answer or answer == {"error": DENIED}
            may[who, method] = method in answer
            is_open = "client" in who or ("subscriber" in who and is_subscribed)
            expected[who, method] = table is INSECURE or (is_open and (user != "" or "anonymous" in who))
    assert may == expected


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("table", [{}, INSECURE], ids=["as configured", "insecure"])
async def test_what_nobody_keeps_nobody_may_ask_for(method: str, table: dict[str, Any]) -> None:
    async with house(TABLE, table, broker=MemoryBroker()) as node:
        assert await answered(await node.connect(), method, channel="off:x") == {"error": NOT_AVAILABLE}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("channel", "error"),
    [
        ("nope:x", {"code": 102, "message": "unknown channel"}),
        ("off:§", {"code": 107, "message": "bad request"}),
        ("kept-client:" + "x" * 255, {"code": 107, "message": "bad request"}),
    ],
)
async def test_a_channel_that_is_none(method: str, channel: str, error: dict[str, Any]) -> None:
    async with house(TABLE, broker=MemoryBroker()) as node:
        assert await answered(await node.connect(), method, channel=channel) == {"error": error}


@pytest.mark.parametrize("method", METHODS)
async def test_asking_for_no_channel_violates_the_protocol(method: str) -> None:
    async with house(TABLE, broker=MemoryBroker()) as node:
        client = await node.connect()
        assert await client.ask({"id": 2, method: {}}) == []
        assert client.closing == (3501, "bad request")


@pytest.mark.parametrize("method", METHODS)
async def test_a_broker_that_does_not_answer_is_an_internal_error(method: str) -> None:
    async with house(TABLE, broker=MemoryBroker()) as node:
        client = await node.connect()
        await node.engine.stop()
        answer = await answered(client, method, channel="kept-client:x")
        assert answer == {"error": {"code": 100, "message": "internal server error", "temporary": True}}


# history. The stream holds 1 to 6 in epoch "e", and 4 publications are the most that a client gets.


@pytest.mark.parametrize(
    ("request_", "offsets"),
    [
        ({}, []),
        ({"limit": 0}, []),
        ({"limit": 2}, [1, 2]),
        ({"limit": 4}, [1, 2, 3, 4]),
        ({"limit": 5}, [1, 2, 3, 4]),
        ({"limit": -1}, [1, 2, 3, 4]),
        ({"limit": -(2**31)}, [1, 2, 3, 4]),
        ({"limit": 2, "reverse": True}, [6, 5]),
        ({"limit": 9, "since": {"offset": 4, "epoch": "e"}}, [5, 6]),
        ({"limit": 9, "since": {"offset": 4}}, [5, 6]),
        ({"limit": 9, "since": {"offset": 6, "epoch": "e"}}, []),
        ({"limit": 9, "since": {"offset": 99, "epoch": "e"}}, []),
        ({"limit": 9, "since": {}}, [1, 2, 3, 4]),
        ({"limit": 9, "since": {"offset": 3}, "reverse": True}, [2, 1]),
        ({"limit": 1, "since": {"offset": 3}, "reverse": True}, [2]),
        ({"limit": 9, "since": {"offset": 3, "epoch": "other"}}, {"code": 112, "message": "unrecoverable position"}),
        ({"limit": 0, "since": {"offset": 3, "epoch": "other"}}, {"code": 112, "message": "unrecoverable position"}),
        ({"limit": 9, "since": {"epoch": "e"}, "reverse": True}, {"code": 107, "message": "bad request"}),
    ],
)
async def test_a_page_of_the_history(request_: dict[str, Any], offsets: list[int] | dict[str, Any]) -> None:
    async with house(TABLE, broker=MemoryBroker(new_epoch=lambda: "e")) as node:
        for number in range(1, 7):
            publication = Publication(data=msgspec.Raw(b"%d" % number))
            node.broker.publish("kept-client:x", publication, accepted_at_s=0.0, options=STREAM)
        answer = await answered(await node.connect(), "history", channel="kept-client:x", **request_)
        if isinstance(offsets, dict):
            assert answer == {"error": offsets}
        else:
            first = {1: {"epoch": "e"}}  # the stream's first publication tells the epoch (2.3)
            found = [{"data": each, "offset": each, **first.get(each, {})} for each in offsets]
            assert answer == {"history": {"publications": found, "epoch": "e", "offset": 6}}


async def test_a_stream_that_nobody_has_published_to_gets_an_epoch_by_being_asked_for() -> None:
    async with house(TABLE, broker=MemoryBroker(new_epoch=lambda: "e")) as node:
        client = await node.connect()
        asked = [await answered(client, "history", channel="kept-client:x", limit=1) for _ in range(2)]
        assert asked == [{"history": {"publications": [], "epoch": "e", "offset": 0}}] * 2


# presence.


async def test_presence_tells_every_connection_and_counts_its_user_once() -> None:
    async with house(TABLE, ANONYMOUS, broker=MemoryBroker()) as node:
        channel = "kept-client:x"
        clients = [await node.connect(user) for user in ("42", "42", "43", "")]
        asking = await node.connect("99")
        for client in clients:
            await client.ask({"id": 2, "subscribe": {"channel": channel}})
        found = (await answered(asking, "presence", channel=channel))["presence"]["presence"]
        users = zip(clients, ("42", "42", "43", ""), strict=True)
        assert found == {client.id: {"user": user, "client": client.id} for client, user in users}
        stats = await answered(asking, "presence_stats", channel=channel)
        assert stats == {"presence_stats": {"num_clients": 4, "num_users": 3}}
        clients[0].send({"id": 3, "unsubscribe": {"channel": channel}})
        clients[2].go()
        clients[3].go()
        stats = await answered(asking, "presence_stats", channel=channel)
        assert stats == {"presence_stats": {"num_clients": 1, "num_users": 1}}
