"""Publishing over a node's server API, from threads, loops and the command line."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import httpx
import pytest

from gateway.cli import main
from gateway.protocol import codes
from gateway.protocol.codes import ErrorCode
from gateway.publisher import (
    AsyncPublisher,
    Publisher,
    PublisherError,
    PublishRejectedError,
    Receipt,
    UnavailableError,
)
from tests.support.nodes import RunningNode, running_node
from tests.support.processes import run

KEY = "a key of the tests"
TABLE: dict[str, Any] = {
    "http_api": {
        "key": KEY,
        "keys": [{"name": "page", "key": "reader", "scopes": ["read"]}],
        "body_size_limit": 10_000,
    },
    "channel": {
        "namespaces": [
            {"name": "chat", "history_size": 10, "history_ttl": 60},
            {"name": "objects", "publication_data_format": "json_object"},
            {"name": "bytes", "publication_data_format": "binary", "history_size": 10, "history_ttl": 60},
        ]
    },
}


class SyncHand:
    """A publisher of threads, called from a loop."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher

    async def publish(self, channel: str, data: Any, **extras: Any) -> Receipt:
        return await asyncio.to_thread(self._publisher.publish, channel, data, **extras)

    async def broadcast(self, channels: Sequence[str], data: Any, **extras: Any) -> list[Receipt]:
        return await asyncio.to_thread(self._publisher.broadcast, channels, data, **extras)

    async def close(self) -> None:
        self._publisher.close()


Hand = SyncHand | AsyncPublisher


def make_hand(kind: str, url: str, *, key: str = KEY, timeout_s: float = 10) -> Hand:
    if kind == "sync":
        return SyncHand(Publisher.over_http(url, key=key, timeout_s=timeout_s))
    return AsyncPublisher.over_http(url, key=key, timeout_s=timeout_s)


@pytest.fixture(params=["sync", "async"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def node() -> AsyncIterator[RunningNode]:
    async with running_node(TABLE) as running:
        yield running


@pytest.fixture
async def hand(kind: str, node: RunningNode) -> AsyncIterator[Hand]:
    made = make_hand(kind, node.internal_url)
    yield made
    await made.close()


async def history(node: RunningNode, channel: str) -> list[dict[str, Any]]:
    async with httpx.AsyncClient(base_url=node.internal_url, headers={"X-API-Key": KEY}) as http:
        response = await http.post("/api/history", json={"channel": channel, "limit": -1})
    found: list[dict[str, Any]] = response.json()["result"]["publications"]
    return found


async def test_what_is_published_is_there_with_its_offset_and_all_that_was_asked_for(
    node: RunningNode, hand: Hand
) -> None:
    first = await hand.publish("chat:a", {"text": "hi"}, tags={"k": "v"})
    assert first == Receipt(1, first.epoch)
    assert first.epoch != ""
    once = await hand.publish("chat:a", 2, idempotency_key="two")
    assert await hand.publish("chat:a", 2, idempotency_key="two") == once == Receipt(2, first.epoch)
    assert await hand.publish("chat:a", 3, version=2**64 - 1, version_epoch="e") == Receipt(3, first.epoch)
    assert await hand.publish("chat:a", 4, version=5, version_epoch="e") == Receipt(3, first.epoch)
    assert await hand.publish("plain", None) == Receipt()
    assert [each["data"] for each in await history(node, "chat:a")] == [{"text": "hi"}, 2, 3]


async def test_bytes_go_out_as_they_are(node: RunningNode, hand: Hand) -> None:
    await hand.publish("bytes:a", b"\x93NUMPY")
    await hand.publish("bytes:a", b' {"a" : 1.0} ')
    await hand.publish("chat:a", b' {"a" : 1.0} ')
    assert [each.get("b64data") or each["data"] for each in await history(node, "bytes:a")] == ["k05VTVBZ", {"a": 1.0}]


async def test_a_broadcast_goes_to_all_in_order(node: RunningNode, hand: Hand) -> None:
    receipts = await hand.broadcast(["chat:a", "plain", "chat:b"], 1, idempotency_key="x")
    assert [receipt.offset for receipt in receipts] == [1, 0, 1]
    assert await hand.broadcast([], 1) == []
    with pytest.raises(PublishRejectedError, match="'nope:x'"):
        await hand.broadcast(["chat:a", "nope:x"], 2)
    assert [each["data"] for each in await history(node, "chat:a")] == [1, 2]


@pytest.mark.parametrize(
    ("channel", "data", "error", "text"),
    [
        ("nope:x", 1, codes.UNKNOWN_CHANNEL, "the namespace of 'nope:x' is not configured"),
        ("objects:x", 1, codes.BAD_REQUEST, "it takes JSON objects"),
        ("objects:x", b"\xff", codes.BAD_REQUEST, "it takes JSON objects"),
        ("", 1, codes.BAD_REQUEST, "a channel has a name"),
        ("a", object(), codes.BAD_REQUEST, "the data can't be written as JSON"),
        ("a", "x" * 10_000, codes.LIMIT_EXCEEDED, "it is too long"),
    ],
)
async def test_what_will_not_do_is_refused_with_the_reason(
    hand: Hand, channel: str, data: Any, error: ErrorCode, text: str
) -> None:
    with pytest.raises(PublishRejectedError, match=text) as refused:
        await hand.publish(channel, data)
    assert refused.value.error == error


@pytest.mark.parametrize(
    ("key", "error", "text"),
    [
        ("wrong", codes.UNAUTHORIZED, "does not know the key"),
        ("", codes.UNAUTHORIZED, "does not know the key"),
        ("reader", codes.PERMISSION_DENIED, "has not the scope 'publish'"),
    ],
)
async def test_a_key_that_opens_nothing_is_told(
    node: RunningNode, kind: str, key: str, error: ErrorCode, text: str
) -> None:
    hand = make_hand(kind, node.internal_url, key=key)
    with pytest.raises(PublishRejectedError, match=text) as refused:
        await hand.publish("a", 1)
    assert refused.value.error == error
    assert key not in str(refused.value) or not key
    await hand.close()


TRANSPORT_MODE: dict[str, Any] = {"http_api": {"error_mode": "transport"}}


@pytest.mark.parametrize(
    ("channel", "error", "text"),
    [
        ("nope:a", codes.UNKNOWN_CHANNEL, "the namespace of 'nope:a' is not configured"),
        ("objects:a", codes.BAD_REQUEST, "it takes JSON objects"),
    ],
)
async def test_a_node_that_answers_by_statuses_is_understood(
    kind: str, channel: str, error: ErrorCode, text: str
) -> None:
    async with running_node(TABLE, TRANSPORT_MODE) as node:
        hand = make_hand(kind, node.internal_url)
        with pytest.raises(PublishRejectedError, match=text) as refused:
            await hand.publish(channel, 1)
        assert refused.value.error == error
        await hand.close()


async def test_a_port_without_the_api_is_told(node: RunningNode, kind: str) -> None:
    hand = make_hand(kind, node.url)
    with pytest.raises(PublishRejectedError, match="there is no server API"):
        await hand.publish("a", 1)
    await hand.close()


@pytest.mark.parametrize("url", ["", "127.0.0.1:9000", "ws://a", "http://", "http://a:b"])
def test_what_is_no_url_is_refused_at_once(url: str) -> None:
    for make in (Publisher.over_http, AsyncPublisher.over_http):
        with pytest.raises(PublisherError, match="is no URL"):
            make(url, key=KEY)
    with pytest.raises(PublisherError, match="printable ASCII"):
        Publisher.over_http("http://a", key="k\n")


class Stub:
    """A server that answers each request with the next of *answers*, and closes without one for `None`."""

    def __init__(self, *answers: bytes | None) -> None:
        self.requests: list[bytes] = []
        self._answers = list(answers)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        self.requests.append(await reader.readexactly(length))
        answer = self._answers.pop(0)
        if answer is not None:
            status, _, body = answer.partition(b" ")
            writer.write(
                b"HTTP/1.1 %s X\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % (status, len(body)) + body
            )
        writer.close()
        await writer.wait_closed()


DONE = b'200 {"result":{"offset":7,"epoch":"e"}}'
AWAY = b'200 {"error":{"code":100,"message":"internal server error"}}'


@pytest.mark.parametrize(
    ("answers", "with_key", "without"),
    [
        ([DONE], Receipt(7, "e"), Receipt(7, "e")),
        ([None, DONE], Receipt(7, "e"), "may have been published"),
        ([AWAY, DONE], Receipt(7, "e"), "may have been published"),
        ([b"502 gone", DONE], Receipt(7, "e"), "status 502"),
        ([b'500 {"code":100,"message":"internal server error"}', DONE], Receipt(7, "e"), "status 500"),
        ([None, AWAY], "may have been published", "may have been published"),
        ([b"200 <html>", DONE], "this is no server API", "this is no server API"),
        ([b'200 {"result":[]}', DONE], "this is no server API", "this is no server API"),
    ],
)
async def test_only_what_has_a_key_is_sent_a_second_time(
    kind: str, answers: list[bytes | None], with_key: Receipt | str, without: Receipt | str
) -> None:
    for key, expected in (("k", with_key), ("", without)):
        stub = Stub(*answers)
        server = await asyncio.start_server(stub.serve, "127.0.0.1", 0)
        hand = make_hand(kind, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        async with server:
            if isinstance(expected, Receipt):
                assert await hand.publish("a", 1, idempotency_key=key) == expected
            else:
                with pytest.raises(PublisherError, match=expected):
                    await hand.publish("a", 1, idempotency_key=key)
            await hand.close()
        assert len(set(stub.requests)) == 1
        assert len(stub.requests) <= (2 if key else 1)


async def test_a_broadcast_that_one_channel_did_not_get_names_that_one(kind: str) -> None:
    failed = b'{"error":{"code":100,"message":"internal server error"}}'
    stub = Stub(b'200 {"result":{"responses":[{"result":{}},' + failed + b',{"result":{}}]}}')
    server = await asyncio.start_server(stub.serve, "127.0.0.1", 0)
    async with server:
        hand = make_hand(kind, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        with pytest.raises(UnavailableError, match=r"channel 'b': .*internal server error") as away:
            await hand.broadcast(["a", "b", "c"], 1)
        assert (away.value.channels, away.value.may_be_published) == (("b",), True)
        await hand.close()


async def test_nobody_there_has_published_nothing(kind: str) -> None:
    server = await asyncio.start_server(lambda _reader, _writer: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    hand = make_hand(kind, f"http://127.0.0.1:{port}")
    with pytest.raises(UnavailableError, match="nothing was published: try again") as away:
        await hand.publish("a", 1, idempotency_key="k")
    assert not away.value.may_be_published
    await hand.close()


async def test_a_node_that_does_not_answer_costs_the_timeout(kind: str) -> None:
    is_over = asyncio.Event()

    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()
        await writer.wait_closed()
        is_over.set()

    server = await asyncio.start_server(mute, "127.0.0.1", 0)
    async with server:
        hand = make_hand(kind, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", timeout_s=0.2)
        with pytest.raises(UnavailableError, match="it may have been published"):
            await hand.publish("a", 1)
        await hand.close()
        await is_over.wait()


async def test_after_a_close_it_publishes_again(hand: Hand) -> None:
    await hand.publish("chat:a", 1)
    await hand.close()
    await hand.close()
    assert (await hand.publish("chat:a", 2)).offset == 2


def test_another_event_loop_is_told_whose_it_is() -> None:
    async def publish(publisher: AsyncPublisher) -> None:
        with pytest.raises(PublisherError):
            await publisher.publish("a", 1)

    publisher = AsyncPublisher.over_http("http://127.0.0.1:1", key=KEY)
    asyncio.run(publish(publisher))

    async def again() -> None:
        with pytest.raises(PublisherError, match="belongs to the event loop"):
            await publisher.publish("a", 1)

    asyncio.run(again())


# The command line.


async def test_the_command_line_calls_every_method(node: RunningNode) -> None:
    environment = {"GATEWAY_API_URL": node.internal_url, "GATEWAY_API_KEY": KEY}
    published = await run("publish", "chat:a", '{"a": 1}', environment=environment)
    assert (published.code, published.out, published.err) == (0, "", "")
    assert [each["data"] for each in await history(node, "chat:a")] == [{"a": 1}]
    info = await run("api", "info", environment=environment)
    assert [each["uid"] for each in json.loads(info.out)["nodes"]] == [node.node.cluster.uid]
    as_client = await run("publish", "chat:a", "2", "--url", f"{node.ws_url}/nowhere", environment=environment)
    assert (as_client.code, "/nowhere" in as_client.err or "404" in as_client.err) == (1, True), as_client.err
    batch = await run("api", "batch", '{"commands":[{"nope":{}}]}', "--api", node.internal_url, "--key", KEY)
    assert json.loads(batch.out) == {"replies": [{"error": {"code": 104, "message": "not found"}}]}


def command(*arguments: str) -> int:
    """Run one `gateway` command in this process."""
    try:
        return main(arguments)
    except SystemExit as end:  # argparse's own way
        return int(end.code or 0)


async def test_the_command_line_says_what_went_wrong(node: RunningNode, capsys: pytest.CaptureFixture[str]) -> None:
    where = ("--api", node.internal_url)
    key = ("--key", KEY)
    unknown = "unknown channel (102): the namespace of 'nope:a' is not configured (channel.namespaces has chat, …)"
    cases: list[tuple[tuple[str, ...], int, str]] = [
        (("api", "publish", '{"channel":"nope:a","data":1}', *where, *key), 1, unknown.partition("has ")[0]),
        (("api", "info", *where), 1, "no key, or a wrong one"),
        (("api", "info", "--api", node.url, *key), 1, "there is no server API"),
        (("api", "info", "[]", *where, *key), 1, "Expected `object`, got `array`"),
        (("api", "info", "{", *where, *key), 2, "'{' is no JSON"),
        (("api", "nope", *where, *key), 2, "invalid choice: 'nope'"),
        (("api", "info", "--api", "http://127.0.0.1:1", *key), 1, "http://127.0.0.1:1/api/info: "),
        (("api", "info", "--api", "nonsense", *key), 1, "nonsense/api/info: "),
        (("publish", "nope:a", "1", *where, *key), 1, "the namespace of 'nope:a' is not configured"),
        (("publish", "a", "1", *where), 1, "does not know the key"),
        (("publish", "a", "1", "--api", "nonsense", *key), 1, "is no URL of a node's server API"),
    ]
    for arguments, code, text in cases:
        ended = await asyncio.to_thread(command, *arguments)
        said = capsys.readouterr()
        assert (ended, said.out, text in said.err) == (code, "", True), (arguments, ended, said)
        assert "Traceback" not in said.err


async def test_the_command_line_understands_a_node_that_answers_by_statuses(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with running_node(TABLE, TRANSPORT_MODE) as node:
        call = ("api", "publish", '{"channel":"nope:a","data":1}', "--api", node.internal_url, "--key", KEY)
        assert await asyncio.to_thread(command, *call) == 1
    assert capsys.readouterr().err.startswith("unknown channel (102): the namespace of 'nope:a' is not configured")


async def test_the_command_line_is_not_confused_by_another_server(capsys: pytest.CaptureFixture[str]) -> None:
    stub = Stub(b'200 {"error":"what?"}')
    server = await asyncio.start_server(stub.serve, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        assert await asyncio.to_thread(command, "api", "info", "--api", url) == 1
    assert "this is no server API, but something else" in capsys.readouterr().err
