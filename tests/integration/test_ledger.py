"""The ledger on running nodes: every way in which a delivery can end has its own reason, and nothing goes missing."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from msgspec import Raw
from websockets.asyncio.client import ClientConnection, connect

from gateway.domain.counts import Dropped
from gateway.messaging.conversation import Conversation
from gateway.protocol import codes
from gateway.protocol.codes import ErrorCode
from tests.support.ledger import Book, assert_books_balance, imbalances, read_books
from tests.support.nodes import RunningNode, running_node
from tests.support.redis_servers import redis_server
from tests.support.waiting import until

ALL: dict[str, Any] = {
    f"allow_{what}_for_{whom}": True for what in ("subscribe", "publish") for whom in ("client", "anonymous")
}
TABLE: dict[str, Any] = {
    "channel": {
        "without_namespace": ALL,
        "namespaces": [{"name": "any", **ALL, "publication_data_format": "any"}],
    },
    "client": {"queue_max_size": 65_536},
}
REDIS_STREAMS: dict[str, Any] = {
    "channel": {"without_namespace": {**ALL, "history_size": 1000, "history_ttl": "1h", "force_recovery": True}}
}


def publish(node: RunningNode, channel: str, data: bytes = b"{}") -> None:
    resolved = node.node.services.channels.resolve(channel)
    assert not isinstance(resolved, ErrorCode)
    node.node.services.publisher.publish(resolved, Raw(data), None)


@asynccontextmanager
async def subscriber(node: RunningNode, channel: str) -> AsyncIterator[tuple[ClientConnection, Conversation]]:
    """Connect a client and subscribe it; yields it with its conversation, the only one of the node."""
    async with connect(node.client_url, compression=None, max_queue=None) as client:
        await client.send(f'{{"id":1,"connect":{{}}}}\n{{"id":2,"subscribe":{{"channel":"{channel}"}}}}')
        await until(lambda: any(channel in each.session.subscriptions for each in node.node.connections), channel)
        [conversation] = node.node.connections
        yield client, conversation


# Faults. Each ends when its deliveries are decided.


async def reads_too_slowly(node: RunningNode) -> None:
    narrow = socket.socket()
    narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    narrow.settimeout(0)
    await asyncio.get_running_loop().sock_connect(narrow, ("127.0.0.1", node.port))
    reader, writer = await asyncio.open_connection(sock=narrow, limit=1024)
    try:
        key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13"
        head = f"GET /ws/x HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{key}\r\n\r\n"
        writer.write(head.encode())
        assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
        transport: Any = writer.transport
        transport.pause_reading()
        while len(node.node.connections):
            publish(node, "x", b'"%b"' % (b"x" * 1_000_000))
            await asyncio.sleep(0.01)
    finally:
        writer.transport.abort()


async def gets_what_its_encoding_can_not_carry(node: RunningNode) -> None:
    async with subscriber(node, "any:a") as (client, _):
        publish(node, "any:a", b"\xff")
        await client.wait_closed()


async def unsubscribes_in_the_same_turn(node: RunningNode) -> None:
    async with subscriber(node, "x") as (client, _):
        await client.send('{"id":3,"publish":{"channel":"x","data":{}}}\n{"id":4,"unsubscribe":{"channel":"x"}}')
        await until(lambda: node.node.hub.get("x") is None, "its leaving")


async def is_disconnected_in_the_same_turn(node: RunningNode) -> None:
    async with subscriber(node, "x") as (client, conversation):
        publish(node, "x")
        conversation.disconnect(codes.FORCE_DISCONNECT)
        await client.wait_closed()


async def goes_in_the_same_turn(node: RunningNode) -> None:
    async with subscriber(node, "x") as (_, conversation):
        publish(node, "x")
        conversation.closed(code=1006, reason="", by="network")


async def is_sent_away_in_the_same_turn(node: RunningNode) -> None:
    async with subscriber(node, "x") as (client, conversation):
        publish(node, "x")
        conversation.disconnect(codes.SHUTDOWN)
        await client.wait_closed()


FAULTS: dict[Dropped, Callable[[RunningNode], Awaitable[None]]] = {
    Dropped.SLOW: reads_too_slowly,
    Dropped.NOT_JSON: gets_what_its_encoding_can_not_carry,
    Dropped.UNSUBSCRIBED: unsubscribes_in_the_same_turn,
    Dropped.DISCONNECTED: is_disconnected_in_the_same_turn,
    Dropped.CLOSED: goes_in_the_same_turn,
    Dropped.SHUTDOWN: is_sent_away_in_the_same_turn,
}


def test_a_book_that_misses_a_delivery_or_has_one_too_many_is_found() -> None:
    good = Book(due=6, delivered=1, filtered=2, queued=1, dropped={"slow": 2})
    books = {"good": good, "lost": Book(due=2, delivered=1), "doubled": Book(due=1, delivered=2)}
    assert [line.partition(":")[0] for line in imbalances(books)] == ["namespace 'lost'", "namespace 'doubled'"]


def test_there_is_a_fault_for_every_reason() -> None:
    assert set(FAULTS) == set(Dropped)


@pytest.mark.parametrize("reason", Dropped)
async def test_a_fault_shows_under_its_own_reason_and_no_other(reason: Dropped) -> None:
    async with running_node(TABLE) as node:
        await FAULTS[reason](node)
        [books] = await assert_books_balance([node.internal_url])
        [book] = books.values()
        assert book.dropped == {reason: 1}
        assert book.due == book.delivered + 1


async def test_what_a_client_has_not_read_of_its_last_is_told_when_the_network_goes() -> None:
    async with running_node(TABLE) as node:
        reader, writer = await asyncio.open_connection("127.0.0.1", node.port, limit=1024)
        key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13"
        head = f"GET /ws/x HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{key}\r\n\r\n"
        writer.write(head.encode())
        assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
        transport: Any = writer.transport
        transport.pause_reading()
        publish(node, "x", b'"%b"' % (b"x" * 64_000_000))
        await until(lambda: node.node.census().congested == 1, "something that waits")
        writer.transport.abort()
        await until(lambda: not len(node.node.connections), "its end")
        assert node.node.counts.outboxes_lost == {"network": 1}
        assert node.node.counts.ledger("").dropped == {}


async def test_what_the_broker_takes_comes_to_every_node_that_has_a_subscriber() -> None:
    async with redis_server() as server:
        tables = (REDIS_STREAMS, {"broker": {"type": "redis"}, "redis": {"address": server.location}})
        async with (
            running_node(*tables) as one,
            running_node(*tables) as two,
            running_node(*tables) as bystander,
            subscriber(one, "a") as (ann, _),
            subscriber(two, "a") as (bob, _),
        ):
            for number in range(50):
                for client in (ann, bob):
                    await client.send(json.dumps({"id": number + 9, "publish": {"channel": "a", "data": number}}))
            await until(lambda: all(each.node.counts.ledger("").received == 100 for each in (one, two)))
            books = await assert_books_balance(each.internal_url for each in (one, two))
            assert books == [{"": Book(accepted=50, received=100, due=100, delivered=100)}] * 2
            assert await read_books(bystander.internal_url) == {}
