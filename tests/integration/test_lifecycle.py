"""From the first byte to the last: what the log says of a connection's life, and how a node under load says goodbye."""

import asyncio
import json
import signal
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, Literal

import jwt
import pytest

from tests.support.crowds import (
    Member,
    all_gone,
    all_heard,
    errors_of,
    gather_crowd,
    raise_descriptor_limit,
    text,
    upgrade,
)
from tests.support.frames import BINARY, CLOSE, TEXT, UPGRADE, RawClient, closing, frame, raw_client
from tests.support.nodes import SECRET, running_node
from tests.support.processes import serving
from tests.support.waiting import until

CLIENT_PATH = "/connection/websocket"
PAYLOAD_MARK = "MARK-OF-A-PAYLOAD"
TOKEN_MARK = "MARK-OF-A-TOKEN"
SHOULD_AUTHENTICATE = {"client": {"allow_anonymous_connect_without_token": False}}


def token(user: str, **claims: Any) -> str:
    return jwt.encode({"sub": user, **claims}, SECRET, "HS256")


class Stopped(float):
    """What a `MovableClock` is ahead by when its time stands still: added to the real time it gives itself."""

    def __radd__(self, other: float) -> float:
        return float(self)


class CountingClient:
    """A client that keeps its own book of what went through it."""

    def __init__(self, raw: RawClient) -> None:
        self._raw = raw
        self.messages_in = self.bytes_in = self.messages_out = self.bytes_out = 0

    def send(self, message: Any, *, opcode: int = TEXT) -> None:
        payload = message if isinstance(message, bytes) else json.dumps(message).encode()
        self.messages_in += 1
        self.bytes_in += len(payload)
        self._raw.send(frame(opcode, payload))

    def send_raw(self, data: bytes) -> None:
        """Send what is no message."""
        self._raw.send(data)

    async def receive(self, *expected: str) -> None:
        """Receive data frames until every one of *expected* has been in one of them."""
        missing = list(expected)
        while missing:
            received = await self._raw.receive()
            assert received.first_byte in {0x80 | TEXT, 0x80 | BINARY}, received
            size = len(received.payload)
            self.bytes_out += size + (2 if size < 126 else 4 if size < 65536 else 10)
            for line in received.payload.split(b"\n"):
                self.messages_out += is_publication(line)
                missing = [each for each in missing if each.encode() not in line]

    async def gone(self, *, answers: bool = True) -> None:
        """Read what is left: nothing but a Close frame may come, which is answered if this side has not sent one."""
        received = await self._raw.receive()
        assert received.first_byte == 0x80 | CLOSE
        if answers:
            self._raw.send(frame(CLOSE, received.payload[:2]))
        assert await self._raw.rest() == []

    def abort(self) -> None:
        self._raw.writer.transport.abort()

    @property
    def book(self) -> dict[str, int]:
        return {name: getattr(self, name) for name in ("messages_in", "bytes_in", "messages_out", "bytes_out")}


def is_publication(line: bytes) -> bool:
    """Tell a publication from a reply; the scripts below publish nothing but what has the mark or is an array."""
    try:
        value = json.loads(line)
    except ValueError:
        return line.startswith(b"\x93NUMPY")
    return "push" in value if {"id", "push"} & set(value) else PAYLOAD_MARK in json.dumps(value)


Event = dict[str, Any]
Script = Callable[[CountingClient], Awaitable[list[Event]]]
"""Lives a life up to its end, and returns the events between `accepted` and `closed` that it should have caused."""


def joined(user: str, channel: str) -> Event:
    return {"event": "subscribed", "user": user, "channel": channel}


def known(user: str, name: str) -> Event:
    return {"event": "authenticated", "user": user, "name": name}


async def json_life(client: CountingClient, user: str) -> list[Event]:
    shown = {"token": token(user, marker=TOKEN_MARK)} if user else {}
    client.send({"id": 1, "connect": {**shown, "name": "tester"}})
    await client.receive('"id":1')
    client.send({"id": 2, "subscribe": {"channel": "news"}})
    await client.receive('"id":2')
    client.send({"id": 3, "publish": {"channel": "news", "data": {"secret": PAYLOAD_MARK}}})
    await client.receive('"id":3', '"push"')
    client.send({"id": 4, "publish": {"channel": "news", "data": PAYLOAD_MARK * 20}})
    await client.receive('"id":4', '"push"')
    client.send({"id": 5, "unsubscribe": {"channel": "news"}})
    await client.receive('"id":5')
    client.send({"id": 6, "subscribe": {"channel": "old"}})
    await client.receive('"id":6')
    client.send({"id": 7, "publish": {"channel": "news", "data": PAYLOAD_MARK}})  # it is no longer in there
    await client.receive('"id":7')
    left = {"event": "unsubscribed", "user": user, "channel": "news"}
    return [known(user, "tester"), joined(user, "news"), left, joined(user, "old")]


async def json_user(client: CountingClient) -> list[Event]:
    return await json_life(client, "alice")


async def json_anonymous(client: CountingClient) -> list[Event]:
    return await json_life(client, "")


async def json_server_side(client: CountingClient) -> list[Event]:
    client.send({"id": 1, "connect": {"token": token("alice", channels=["news"], marker=TOKEN_MARK), "name": ""}})
    await client.receive('"id":1')
    client.send({"id": 2, "publish": {"channel": "news", "data": PAYLOAD_MARK}})
    await client.receive('"id":2', '"push"')
    return [known("alice", ""), joined("alice", "news")]


async def plain_user(client: CountingClient) -> list[Event]:
    client.send({"token": token("alice", marker=TOKEN_MARK)})
    await client.receive('"authenticated"')
    client.send({"secret": PAYLOAD_MARK})
    await client.receive(PAYLOAD_MARK)
    client.send(PAYLOAD_MARK.encode())  # no JSON
    await client.receive('"error"')
    return [known("alice", "plain"), joined("alice", "news")]


async def plain_anonymous(client: CountingClient) -> list[Event]:
    client.send({"secret": PAYLOAD_MARK})
    await client.receive(PAYLOAD_MARK)
    return [known("", "plain"), joined("", "news")]


async def plain_handler(client: CountingClient) -> list[Event]:
    """What a handler answers is a reply, not a publication."""
    client.send(b"not marked")
    client.send(b"\x00\xff", opcode=BINARY)
    for _ in range(2):
        await client.receive("")
    client.messages_out = 0
    return [known("", "plain")]


async def plain_binary(client: CountingClient) -> list[Event]:
    client.send(b"\x93NUMPY" + PAYLOAD_MARK.encode(), opcode=BINARY)
    await client.receive(PAYLOAD_MARK)
    return [known("", "plain"), joined("", "binary:a")]


KINDS: dict[str, tuple[str, str, Script, dict[str, Any]]] = {
    "json-user": (CLIENT_PATH, "json", json_user, SHOULD_AUTHENTICATE),
    "json-anonymous": (CLIENT_PATH, "json", json_anonymous, {}),
    "json-server-side": (CLIENT_PATH, "json", json_server_side, {}),
    "plain-user": ("/ws/news", "plain", plain_user, SHOULD_AUTHENTICATE),
    "plain-anonymous": ("/ws/news", "plain", plain_anonymous, {}),
    "plain-handler": ("/ws/echo:x", "plain", plain_handler, {}),
    "plain-binary": ("/ws/binary:a", "plain", plain_binary, {}),
}
Ending = Literal["client", "client-without-a-code", "server", "network"]

ENDINGS: dict[Ending, tuple[int, str, str]] = {
    "client": (1000, "bye", "client"),
    "client-without-a-code": (1005, "", "client"),
    "server": (1007, "invalid UTF-8", "server"),
    "network": (1006, "", "network"),
}


async def end(client: CountingClient, ending: Ending) -> None:
    match ending:
        case "client":
            client.send_raw(frame(CLOSE, closing(1000, "bye")))
            await client.gone(answers=False)
        case "client-without-a-code":
            client.send_raw(frame(CLOSE))
            await client.gone(answers=False)
        case "server":
            client.send_raw(frame(TEXT, b"\xff"))
            await client.gone()
        case "network":
            client.abort()


def bare(event: Event) -> Event:
    """Return *event* without what every line has."""
    assert event["node"] == "test"
    return {name: value for name, value in event.items() if name not in {"node", "level", "timestamp"}}


def secrets_of(lines: list[Any]) -> list[str]:
    """Return the lines that tell what was published or shown, in whatever spelling."""
    shown = [token("alice", marker=TOKEN_MARK), token("alice", channels=["news"], marker=TOKEN_MARK)]
    parts = {part for each in shown for part in each.split(".")[1:]} | {PAYLOAD_MARK, TOKEN_MARK}
    texts = [json.dumps(line) for line in lines]
    return [line for line in texts if any(part in line for part in parts)]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_life_is_logged_step_by_step_with_what_it_moved(kind: str) -> None:
    path, protocol, live, table = KINDS[kind]
    met, due = {}, {}
    async with running_node(table) as node:
        for ending, (code, reason, by) in ENDINGS.items():
            before = len(node.events)
            async with raw_client(node.ws_url + path) as raw:
                await until(lambda: len(node.node.connections) == 1, "the connection")
                (conversation,) = node.node.connections
                node.clock.ahead_s = Stopped(conversation.traffic.opened_at_s + 3.25)
                client = CountingClient(raw)
                steps = await live(client)
                await end(client, ending)
                await until(lambda: node.events[-1]["event"] == "closed", f"its end by {ending}")
            named = {"client": conversation.session.client_id}
            where = {"transport": "websocket", "protocol": protocol, "address": "127.0.0.1"}
            user = [step["user"] for step in steps][-1]
            life = node.events[before:]
            met[ending] = [bare(event) for event in life]
            due[ending] = [
                {"event": "accepted"} | where | named,
                *(step | named | (where if step["event"] == "authenticated" else {}) for step in steps),
                {"event": "closed", "user": user, "code": code, "reason": reason, "by": by, "seconds": 3.25}
                | named
                | client.book,
            ]
            assert {event["level"] for event in life} == {"info"}
        assert met == due
        assert secrets_of(node.events) == []


@pytest.mark.parametrize(
    ("kind", "last", "code", "reason"),
    [
        ("json-user", {"id": 9, "foo": {}}, 3501, "bad request"),
        ("json-user", {"id": 9, "send": {"data": PAYLOAD_MARK}}, 3508, "not available"),
        ("json-user", {"id": 9, "refresh": {"token": f"{TOKEN_MARK}.x.y"}}, 3500, "invalid token"),
        ("json-anonymous", PAYLOAD_MARK.encode(), 3501, "bad request"),
    ],
)
async def test_a_life_that_the_server_ends_is_logged_with_the_code_that_was_sent(
    kind: str, last: Any, code: int, reason: str
) -> None:
    path, _, live, table = KINDS[kind]
    async with running_node(table) as node, raw_client(node.ws_url + path) as raw:
        client = CountingClient(raw)
        await live(client)
        client.send(last)
        await client.gone()
        (end_of_it,) = [event for event in node.events if event["event"] == "closed"]
        met = {name: end_of_it[name] for name in ("code", "reason", "by", *client.book)}
        assert met == {"code": code, "reason": reason, "by": "server"} | client.book
        assert secrets_of(node.events) == []


REFUSED: dict[tuple[str, int], tuple[str, str]] = {
    ("path", 404): (f"/elsewhere/{PAYLOAD_MARK}", UPGRADE),
    ("origin", 403): (f"/ws/news?token={TOKEN_MARK}", UPGRADE + "Origin: https://evil.example\r\n"),
    ("handshake", 400): (CLIENT_PATH, UPGRADE.replace("dGhlIHNhbXBsZSBub25jZQ==", TOKEN_MARK)),
}


async def test_a_refusal_is_logged_with_its_reason_and_opens_nothing() -> None:
    async with running_node({"client": {"allowed_origins": []}}) as node:
        for (reason, status), (target, headers) in REFUSED.items():
            before = len(node.events)
            reader, writer = await asyncio.open_connection("127.0.0.1", node.port)
            writer.write(f"GET {target} HTTP/1.1\r\nHost: x\r\n{headers}\r\n".encode())
            async with asyncio.timeout(10):
                answer = await reader.read()
            writer.transport.abort()
            assert answer.startswith(b"HTTP/1.1 %d " % status)
            steps = [bare(event) for event in node.events[before:]]
            assert steps == [{"event": "refused", "reason": reason, "status": status, "address": "127.0.0.1"}]
        assert secrets_of(node.events) == []
        assert node.node.counts.connections_refused == {reason: 1 for reason, _ in REFUSED}
        assert node.node.counts.connections_accepted == {}


async def test_a_token_that_does_not_do_is_logged_by_its_cause_alone() -> None:
    async with running_node(SHOULD_AUTHENTICATE) as node:
        for shown in (TOKEN_MARK, f"{TOKEN_MARK}.{TOKEN_MARK}.{TOKEN_MARK}", token("alice", exp=1), token("bob")[:-2]):
            for path in (CLIENT_PATH, "/ws/news"):
                before = len(node.events)
                async with raw_client(node.ws_url + path) as raw:
                    message = {"id": 1, "connect": {"token": shown}} if path == CLIENT_PATH else {"token": shown}
                    raw.send(frame(TEXT, json.dumps(message).encode()))
                    await raw.receive()
                await until(lambda: node.events[-1]["event"] == "closed", "its end")
                steps = node.events[before:]
                assert [event["event"] for event in steps] == ["accepted", "token refused", "closed"]
                assert set(bare(steps[1])) == {"event", "client", "cause"}
                assert not [event for event in steps if shown.rpartition(".")[2] in json.dumps(event)]
        assert secrets_of(node.events) == []


# The end of a node.


async def test_a_node_that_is_terminated_under_load_tells_every_client_with_a_whole_close_frame() -> None:
    """500 clients, half of them plain, all in one channel; ten of them publish as fast as they are answered."""
    raise_descriptor_limit(4000)
    half, publishers = 250, 10
    hello = text({"id": 1, "connect": {}}, {"id": 2, "subscribe": {"channel": "news"}})
    openings = [(upgrade(CLIENT_PATH), hello)] * half + [(upgrade("/ws/news"), text({"first": 0}))] * half
    async with serving("--dev", environment={"GATEWAY_CLIENT__COMMAND_RATE": "0"}) as process:
        members = await gather_crowd(process, openings)
        speakers, plain = members[:half], members[half:]
        await all_heard(speakers, lambda each: any(b'"id":2' in part for part in each.payloads), "its subscription")
        await all_heard(plain, lambda each: bool(each.payloads), "its own first message")

        published: Counter[bool] = Counter()

        async def publish(member: Member, number: int) -> None:
            is_plain = member in plain
            while member.closing is None and not member.gone.done():
                published[is_plain] += 1
                data = {"by": number, "n": published[is_plain], "filler": "x" * 300}
                seen = len(member.payloads)
                member.send(text(data if is_plain else {"id": 9, "publish": {"channel": "news", "data": data}}))
                await until(
                    lambda: bool(member.closing) or len(member.payloads) > seen or member.gone.done(),  # noqa: B023
                    "an answer",
                )

        async with asyncio.TaskGroup() as tasks:
            for number in range(publishers):
                tasks.create_task(publish(members[number * len(members) // publishers], number))
            await until(lambda: published.total() > 100, "publishing under way")
            process.send(signal.SIGTERM)
            await all_gone(members)
        assert await process.ended() == 0
    assert Counter(each.closing for each in members) == {(3001, "shutdown"): half, (1001, "shutdown"): half}
    assert [each.error for each in members if each.error] == [], "nobody sees a reset"
    assert [bytes(each.leftover) for each in members if each.leftover] == [], "nobody gets half a frame"
    closed = [event for event in process.events if event["event"] == "closed"]
    assert Counter((event["code"], event["reason"], event["by"]) for event in closed) == {
        (3001, "shutdown", "server"): half,
        (1001, "shutdown", "server"): half,
    }
    assert sum(event["messages_out"] for event in closed) == sum(
        is_publication_of_load(line) for each in members for line in each.lines
    )
    assert sum(event["bytes_out"] for event in closed) == sum(each.data_bytes for each in members)
    assert errors_of(process) == []
    # How many of a flood's lines were left out is told up to a second later, which may be anywhere here.
    events = [event["event"] for event in process.events if event["event"] != "repeats not written"]
    assert events[-3:] == ["closed", "drained", "stopped"]


def is_publication_of_load(line: Any) -> bool:
    return "push" in line or "by" in line or "first" in line
