"""Protobuf over a WebSocket: negotiation, the official SDK, and JSON clients in the same channels."""

import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from centrifuge import Client, StreamPosition, SubscriptionEventHandler
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from gateway.client import Client as OwnClient
from gateway.client import ClientSettings, ProtobufCodec, SubscriptionSettings
from gateway.protocol.client_codec import ClientJSONCodec
from tests.support.nodes import RunningNode, running_node
from tests.support.waiting import until

OPEN = {
    "allow_subscribe_for_client": True,
    "allow_publish_for_client": True,
    "allow_history_for_subscriber": True,
    "allow_presence_for_subscriber": True,
}
TABLES: dict[str, Any] = {
    "client": {"insecure": True},
    "channel": {
        "without_namespace": OPEN,
        "namespaces": [
            {
                "name": "stream",
                **OPEN,
                "presence": True,
                "history_size": 10,
                "history_ttl": "300s",
                "force_recovery": True,
            },
            {
                "name": "patched",
                **OPEN,
                "history_size": 10,
                "history_ttl": "300s",
                "force_recovery": True,
                "allowed_delta_types": ["fossil"],
                "delta_publish": True,
            },
            {"name": "any", **OPEN, "publication_data_format": "any"},
            {"name": "binary", **OPEN, "publication_data_format": "binary"},
            {
                "name": "kept",
                **OPEN,
                "publication_data_format": "any",
                "history_size": 10,
                "history_ttl": "300s",
                "force_recovery": True,
                "allow_history_for_client": True,
            },
        ],
    },
}
PROTOBUF_CONNECT = b"\x04\x08\x01\x22\x00"

pytestmark = pytest.mark.asyncio(loop_scope="module")


class Journal(SubscriptionEventHandler):
    def __init__(self) -> None:
        self.payloads: list[Any] = []
        self.recovered: list[bool] = []

    async def on_subscribed(self, ctx: Any) -> None:
        self.recovered.append(ctx.recovered)

    async def on_publication(self, ctx: Any) -> None:
        self.payloads.append(ctx.pub.data)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def node() -> AsyncIterator[RunningNode]:
    async with running_node(TABLES) as running:
        yield running


@contextlib.asynccontextmanager
async def sdk(node: RunningNode) -> AsyncIterator[Client]:
    client = Client(node.client_url, use_protobuf=True, proxy=None)
    await client.connect()
    await client.ready()
    try:
        yield client
    finally:
        await client.disconnect()
        await until(lambda: not client._background_tasks, "the SDK's tasks end")  # noqa: SLF001 - it offers no wait


async def closing(socket: ClientConnection) -> AsyncIterator[str | bytes]:
    """Yield what comes until the server closes, whatever the code."""
    with contextlib.suppress(ConnectionClosed):
        while True:
            yield await socket.recv()


@contextlib.asynccontextmanager
async def json_subscriber(node: RunningNode, channel: str) -> AsyncIterator[ClientConnection]:
    async with connect(node.client_url, proxy=None) as socket:
        await socket.send('{"id":1,"connect":{}}')
        await socket.recv()
        await socket.send(json.dumps({"id": 2, "subscribe": {"channel": channel}}))
        assert json.loads(await socket.recv())["id"] == 2
        yield socket


@pytest.mark.parametrize(
    ("offered", "query", "chosen", "encoding"),
    [
        (["centrifuge-protobuf"], "", "centrifuge-protobuf", "protobuf"),
        (["x", "centrifuge-protobuf", "centrifuge-json"], "", "centrifuge-protobuf", "protobuf"),
        (["centrifuge-json", "centrifuge-protobuf"], "", "centrifuge-json", "json"),
        (["centrifuge-json"], "?format=protobuf", "centrifuge-json", "protobuf"),
        ([], "?cf_protocol=protobuf", None, "protobuf"),
        ([], "?format=protobuf", None, "protobuf"),
        ([], "?cf_protocol=json", None, "json"),
        (["x"], "", None, "json"),
    ],
)
async def test_the_encoding_is_what_the_subprotocol_or_the_query_says(
    node: RunningNode, offered: list[str], query: str, chosen: str | None, encoding: str
) -> None:
    subprotocols = [Subprotocol(each) for each in offered] or None
    async with connect(node.client_url + query, subprotocols=subprotocols, proxy=None) as socket:
        assert socket.subprotocol == chosen
        is_protobuf = encoding == "protobuf"
        await socket.send(PROTOBUF_CONNECT if is_protobuf else '{"id":1,"connect":{}}')
        answer = await socket.recv()
        assert isinstance(answer, bytes) is is_protobuf


async def test_a_malformed_frame_ends_the_connection(node: RunningNode) -> None:
    async with connect(node.client_url + "?format=protobuf", proxy=None) as socket:
        await socket.send(PROTOBUF_CONNECT)
        await socket.recv()
        await socket.send(b"\x05\x08")
        with pytest.raises(ConnectionClosed) as closed:
            await socket.recv()
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (3501, "bad request")


async def test_json_and_protobuf_subscribers_of_a_channel_get_each_others_publications(node: RunningNode) -> None:
    async with json_subscriber(node, "mixed") as socket, sdk(node) as client:
        journal = Journal()
        subscription = client.new_subscription("mixed", events=journal)
        await subscription.subscribe()
        await subscription.ready()
        await subscription.publish(b'{"n": 1.0}')
        assert b'"data":{"n": 1.0}' in str(await socket.recv()).encode()
        await socket.send('{"id":3,"publish":{"channel":"mixed","data":{"n": 2}}}')
        await until(lambda: journal.payloads == [b'{"n": 1.0}', b'{"n": 2}'], "both at the SDK")


async def test_bytes_end_the_json_subscriber_and_reach_the_protobuf_one(node: RunningNode) -> None:
    async with json_subscriber(node, "any:x") as socket, sdk(node) as client:
        journal = Journal()
        subscription = client.new_subscription("any:x", events=journal)
        await subscription.subscribe()
        await subscription.ready()
        await subscription.publish(b"\xff\x00")
        with pytest.raises(ConnectionClosed) as closed:
            await socket.recv()
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (3506, "inappropriate protocol")
        await until(lambda: journal.payloads == [b"\xff\x00"], "the bytes at the SDK")


async def test_bytes_are_refused_where_publications_are_json(node: RunningNode) -> None:
    async with sdk(node) as client:
        with pytest.raises(Exception, match="bad request"):
            await client.publish("mixed", b"\xff\x00")


async def test_the_sdk_subscribes_publishes_recovers_and_asks(node: RunningNode) -> None:
    async with sdk(node) as client, sdk(node) as other:
        journal = Journal()
        subscription = client.new_subscription("stream:s", events=journal)
        await subscription.subscribe()
        await subscription.ready()
        await subscription.publish(b'{"n":1}')
        await until(lambda: journal.payloads == [b'{"n":1}'], "the first publication")
        stats = await subscription.presence_stats()
        assert (stats.num_clients, stats.num_users) == (1, 1)
        assert len((await subscription.presence()).clients) == 1
        await client.disconnect()
        await other.publish("stream:s", b'{"n":2}')
        await client.connect()
        await until(lambda: journal.payloads == [b'{"n":1}', b'{"n":2}'], "what was missed")
        history = await subscription.history(limit=10)
        assert ([each.data for each in history.publications], history.offset) == ([b'{"n":1}', b'{"n":2}'], 2)
        later = await subscription.history(limit=10, since=StreamPosition(1, history.epoch))
        assert [each.data for each in later.publications] == [b'{"n":2}']
        assert journal.recovered == [False, True]


async def test_our_own_client_speaks_it_with_payloads_of_any_kind(node: RunningNode) -> None:
    settings = ClientSettings(codec=ProtobufCodec())
    async with (
        OwnClient(node.client_url, settings=settings) as client,
        client.subscribe("binary:own") as raw,
        client.subscribe("stream:own") as stream,
    ):
        await client.publish("binary:own", b"\x00\xff")
        await client.publish("stream:own", {"n": 1})
        assert bytes((await anext(raw)).data) == b"\x00\xff"
        assert (await anext(stream)).json() == {"n": 1}
        page = await client.history("stream:own", limit=10)
        assert [each.json() for each in page.publications] == [{"n": 1}]
        assert list(await client.presence("stream:own")) == [client.id]


@pytest.mark.parametrize(
    "commands",
    [
        ['{"id":1,"connect":{}}', '{"id":2,"history":{"channel":"kept:x","limit":5}}'],
        ['{"id":1,"connect":{}}', '{"id":2,"subscribe":{"channel":"kept:x","recover":true}}'],
        ['{"id":1,"connect":{"subs":{"kept:x":{"recover":true}}}}'],
    ],
    ids=["history", "subscribe", "connect"],
)
async def test_who_speaks_json_and_asks_for_what_is_none_is_told_so(node: RunningNode, commands: list[str]) -> None:
    """A stream keeps it for those who can read it; in a frame of JSON it would break the frame."""
    async with OwnClient(node.client_url, settings=ClientSettings(codec=ProtobufCodec())) as client:
        await client.publish("kept:x", b"\x00\xff")
        assert bytes((await client.history("kept:x", limit=1)).publications[0].data) == b"\x00\xff"
    async with connect(node.client_url, proxy=None) as socket:
        await socket.send("\n".join(commands))
        answers = [json.loads(frame) async for frame in closing(socket)]
        assert all(answer["id"] == 1 for answer in answers)
        assert (socket.close_code, socket.close_reason) == (3506, "inappropriate protocol")


@pytest.mark.parametrize("codec", [ClientJSONCodec(), ProtobufCodec()], ids=["json", "protobuf"])
async def test_our_own_client_gets_patches_and_recovers_them(
    node: RunningNode, codec: ClientJSONCodec | ProtobufCodec
) -> None:
    channel = f"patched:{codec.name}"
    values = [{"text": "é漢😀 long enough to be worth a patch " * 3, "n": number} for number in range(8)]
    wishes = SubscriptionSettings(delta="fossil")
    got = []
    async with OwnClient(node.client_url, settings=ClientSettings(codec=codec)) as client:
        async with client.subscribe(channel, settings=wishes) as subscription:
            for value in values[:4]:
                await client.publish(channel, json.dumps(value).encode())
            got += [(await anext(subscription)).json() for _ in range(4)]
            position = subscription.position
        for value in values[4:6]:
            await client.publish(channel, json.dumps(value).encode())
        again = SubscriptionSettings(delta="fossil", since=position)
        async with client.subscribe(channel, settings=again) as subscription:
            for value in values[6:]:
                await client.publish(channel, json.dumps(value).encode())
            got += [(await anext(subscription)).json() for _ in range(4)]
    assert got == values
    # Three live ones, one of the two that were recovered, and the two behind those.
    assert node.node.counts.ledger("patched").patched >= 5
