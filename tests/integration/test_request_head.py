"""What a request's head may be: its size to the byte, its time, its form; and how long a socket lives without one."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import NamedTuple

import pytest
import pytest_asyncio

from tests.support.frames import TEXT, UPGRADE, Received, frame, parse_server_frames
from tests.support.nodes import RunningNode, running_node
from tests.support.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

LIMIT = 300
INIT = "/connection/init"
ECHO = "/ws/echo:x"
TABLE = {"http_server": {"head_size_limit": LIMIT, "head_timeout": "400ms"}}
_SEEN = [0]
PATIENCE_S = 9
"""More than uvicorn's five seconds for an idle kept-alive connection; only a failing test waits so long."""


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="shared")
async def _shared() -> AsyncIterator[RunningNode]:
    async with running_node(TABLE) as running:
        yield running


@pytest.fixture
def node(shared: RunningNode) -> RunningNode:
    """One node for all; what it counted and logged for the test before is forgotten."""
    shared.node.counts.connections_refused.clear()
    shared.node.counts.connections_accepted.clear()
    _SEEN[0] = len(shared.events)
    return shared


class Answer(NamedTuple):
    """What came back: the status lines' codes, all of the bytes, and how it ended."""

    statuses: list[int]
    data: bytes
    end: str


def request(size: int = 0, *, target: str = INIT, headers: str = "", version: str = "1.1") -> bytes:
    """Build a GET whose head is *size* bytes long; 0: as long as it needs to be."""
    start = f"GET {target} HTTP/{version}\r\nHost: x\r\n{headers}"
    fill = size - len(start) - len("X: \r\n\r\n")
    assert not size or fill >= 0, f"no head with these headers is as short as {size}"
    return (start + (f"X: {'a' * fill}\r\n" if size else "") + "\r\n").encode()


def statuses_of(data: bytes) -> list[int]:
    return [int(part[:3]) for part in data.split(b"HTTP/1.1 ")[1:]]


class Socket:
    """A TCP connection to the node that sends piece by piece, each as a read of its own."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer
        self.data = b""

    async def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.writer.write(piece)
            for _ in range(3):  # the node is in this loop: now it has read
                await asyncio.sleep(0)

    async def receive(self, marker: bytes, count: int = 1) -> None:
        """Read until *marker* has come *count* times."""
        async with asyncio.timeout(PATIENCE_S):
            while self.data.count(marker) < count:
                more = await self._reader.read(65536)
                assert more, f"closed after {self.data!r}"
                self.data += more

    async def rest(self) -> Answer:
        """Read to the end, or until patience is over."""
        end = "closed"
        try:
            async with asyncio.timeout(PATIENCE_S):
                while more := await self._reader.read(65536):
                    self.data += more
        except TimeoutError:
            end = "left open"
        except ConnectionResetError:
            end = "reset"
        return Answer(statuses_of(self.data), self.data, end)


@contextlib.asynccontextmanager
async def opened(node: RunningNode) -> AsyncIterator[Socket]:
    reader, writer = await asyncio.open_connection("127.0.0.1", node.port)
    try:
        yield Socket(reader, writer)
    finally:
        writer.transport.abort()


async def talk(node: RunningNode, *pieces: bytes) -> Answer:
    async with opened(node) as socket:
        await socket.send(*pieces)
        return await socket.rest()


def refusals(node: RunningNode) -> tuple[dict[str, int], list[str]]:
    """Return the refusals of *node*, as counted and as logged."""
    logged = [event["reason"] for event in node.events[_SEEN[0] :] if event["event"] == "refused"]
    return dict(node.node.counts.connections_refused), logged


# Size.

CLOSE = "Connection: close\r\n"


def whole(data: bytes) -> list[bytes]:
    return [data]


def halves(data: bytes) -> list[bytes]:
    return [data[: len(data) // 2], data[len(data) // 2 :]]


def bytewise(data: bytes) -> list[bytes]:
    return [bytes([byte]) for byte in data]


def before_the_last_byte(data: bytes) -> list[bytes]:
    return [data[:-1], data[-1:]]


@pytest.mark.parametrize("cut", [whole, halves, bytewise, before_the_last_byte])
@pytest.mark.parametrize(("size", "status"), [(LIMIT - 1, 200), (LIMIT, 200), (LIMIT + 1, 431)])
async def test_a_head_of_the_limit_passes_and_one_byte_more_is_431(
    node: RunningNode, cut: Callable[[bytes], list[bytes]], size: int, status: int
) -> None:
    pieces = cut(request(size, headers=CLOSE))
    answer = await talk(node, *pieces)
    assert (answer.statuses, answer.end) == ([status], "closed")
    refused = 1 if status == 431 else 0
    assert refusals(node) == ({"head_size": 1} if refused else {}, ["head_size"] * refused)


async def test_a_refused_head_is_answered_with_a_sentence_and_the_promise_to_close(node: RunningNode) -> None:
    answer = await talk(node, request(LIMIT + 1))
    head, _, body = answer.data.partition(b"\r\n\r\n")
    assert head.split(b"\r\n") == [
        b"HTTP/1.1 431 Request Header Fields Too Large",
        b"Content-Type: text/plain; charset=utf-8",
        b"Connection: close",
        b"Content-Length: 31",
    ]
    assert body == b"The request head is too large.\n"


@pytest.mark.parametrize("cut", [whole, halves, bytewise])
@pytest.mark.parametrize(("size", "status"), [(LIMIT, 200), (LIMIT + 1, 431)])
async def test_the_limit_is_the_same_for_the_second_request_of_a_connection(
    node: RunningNode, cut: Callable[[bytes], list[bytes]], size: int, status: int
) -> None:
    async with opened(node) as socket:
        await socket.send(request(LIMIT))
        await socket.receive(b"{}")
        await socket.send(*cut(request(size, headers=CLOSE)))
        answer = await socket.rest()
    assert (answer.statuses, answer.end) == ([200, status], "closed")


@pytest.mark.parametrize("size", [LIMIT + 1, 5000])
async def test_the_limit_holds_for_a_request_that_comes_in_one_read_with_the_one_before(
    node: RunningNode, size: int
) -> None:
    answer = await talk(node, request(LIMIT) + request(size, headers=CLOSE))
    assert answer.statuses[-1] == 431, answer
    assert refusals(node) == ({"head_size": 1}, ["head_size"])


@pytest.mark.parametrize("cut_at", [0, 1, 2, 3, 4])
async def test_a_body_is_not_counted_as_head_wherever_a_read_ends(node: RunningNode, cut_at: int) -> None:
    """*cut_at* bytes of the blank line at the head's end come in the read that brings the body."""
    head = request(headers="Content-Length: 400\r\n")
    end = len(head) - cut_at
    async with opened(node) as socket:
        await socket.send(head[:end], head[end:] + b"b" * 400)
        await socket.receive(b"{}")  # a 431 has none, and fails here
        await socket.send(request(headers=CLOSE))
        answer = await socket.rest()
    assert (answer.statuses, answer.end) == ([200, 200], "closed")
    assert refusals(node) == ({}, [])


async def test_who_sends_a_head_without_end_reads_431_and_sees_no_reset(node: RunningNode) -> None:
    """What the node has not read when it closes makes the kernel reset, and a reset may eat the answer."""
    async with opened(node) as socket:
        socket.writer.write(b"GET / HTTP/1.1\r\nX: " + b"a" * 3_000_000)
        answer = await socket.rest()
    assert (answer.statuses, answer.end) == ([431], "closed")


async def test_an_upgrade_has_the_same_limit(node: RunningNode) -> None:
    async with opened(node) as socket:
        await socket.send(request(LIMIT, target=ECHO, headers=UPGRADE))
        await socket.receive(b"\r\n\r\n")
        assert statuses_of(socket.data) == [101]
    assert (await talk(node, request(LIMIT + 1, target=ECHO, headers=UPGRADE))).statuses == [431]


# Time.


PARTS_OF_A_HEAD = [
    pytest.param([b"G"], id="one-byte"),
    pytest.param([request(target=ECHO, headers=UPGRADE)[:-1]], id="all-but-the-last-byte"),
    pytest.param([b"\r\n", b"G"], id="blank-line-and-byte"),
]


@pytest.mark.parametrize(
    "pieces", [pytest.param([], id="nothing"), pytest.param([b"\r\n"] * 3, id="blank-lines"), *PARTS_OF_A_HEAD]
)
async def test_a_first_head_that_does_not_arrive_in_time_is_408(node: RunningNode, pieces: list[bytes]) -> None:
    answer = await talk(node, *pieces)
    assert (answer.statuses, answer.end) == ([408], "closed")
    assert answer.data.endswith(b"\r\n\r\nThe request head did not arrive in time.\n")
    assert refusals(node) == ({"head_timeout": 1}, ["head_timeout"])


@pytest.mark.parametrize("pieces", PARTS_OF_A_HEAD)
async def test_a_second_head_that_does_not_arrive_in_time_is_408(node: RunningNode, pieces: list[bytes]) -> None:
    async with opened(node) as socket:
        await socket.send(request())
        await socket.receive(b"{}")
        await socket.send(*pieces)
        answer = await socket.rest()
    assert (answer.statuses, answer.end) == ([200, 408], "closed")
    assert refusals(node) == ({"head_timeout": 1}, ["head_timeout"])


async def test_a_kept_alive_connection_without_a_further_request_is_closed_in_time(node: RunningNode) -> None:
    """Whatever else comes instead of one: a blank line begins no request, and a body that nobody reads is none."""
    instead = {
        "nothing": (request(), []),
        "a blank line": (request(), [b"\r\n"]),
        "a body's byte": (request(headers="Content-Length: 1000\r\n"), [b"x"]),
    }

    async def end_after(first: bytes, pieces: list[bytes]) -> str:
        async with opened(node) as socket:
            await socket.send(first)
            await socket.receive(b"{}")
            await socket.send(*pieces)
            return (await socket.rest()).end

    ends = await asyncio.gather(*(end_after(*each) for each in instead.values()))
    assert dict(zip(instead, ends, strict=True)) == dict.fromkeys(instead, "closed")


async def test_a_head_that_drips_is_cut_by_the_time_it_began_not_by_the_last_byte(node: RunningNode) -> None:
    async with opened(node) as socket:
        await socket.send(request())
        await socket.receive(b"{}")
        dripping = asyncio.create_task(socket.rest())
        began_s = asyncio.get_running_loop().time()
        sent = 0
        while not dripping.done() and sent < 400:
            with contextlib.suppress(ConnectionError):
                await socket.send(b"GET / HTTP/1.1\r\n"[sent : sent + 1] or b"a")
            sent += 1
            await asyncio.wait({dripping}, timeout=0.02)
        answer = await dripping
    assert answer.statuses == [200, 408]
    assert asyncio.get_running_loop().time() - began_s >= 0.4, "not before its time"


async def test_the_time_of_one_head_does_not_run_on_into_the_connection(node: RunningNode) -> None:
    async with opened(node) as upgraded, opened(node) as kept:
        await upgraded.send(request(target=ECHO, headers=UPGRADE))
        await upgraded.receive(b"\r\n\r\n")
        upgraded.data = b""
        await kept.send(request())
        await kept.receive(b"{}")
        slow = asyncio.create_task(talk(node, b"G"))  # its 408 tells that the time is over, for these two as well
        assert (await slow).statuses == [408]
        await upgraded.send(frame(TEXT, b"still here"))
        await upgraded.receive(b"still here")
        assert parse_server_frames(upgraded.data) == [Received(0x80 | TEXT, b"still here")]
        await kept.send(request())
        await kept.receive(b"{}", 2)


# Form.

UPGRADE_1_0 = request(target="/connection/websocket", headers=UPGRADE, version="1.0")


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",  # who speaks TLS to a plain port
        b"hello\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET / HTTP/1.1\r\nX: a\x00b\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
        b"GET \xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
    ids=lambda data: repr(data[:20]),
)
async def test_malformed_http_is_400_and_counted_once(node: RunningNode, data: bytes) -> None:
    answer = await talk(node, data)
    assert answer.statuses[-1:] == [400]
    assert answer.end == "closed"
    assert refusals(node) == ({"malformed": 1}, ["malformed"])


async def test_an_upgrade_over_http_1_0_is_not_upgraded(node: RunningNode) -> None:
    """RFC 6455 4.1: "the HTTP version MUST be at least 1.1"."""
    answer = await talk(node, UPGRADE_1_0)
    assert (answer.statuses, answer.end) == ([426], "closed")
    assert node.node.counts.connections_accepted == {}


@pytest.mark.parametrize("cut", [whole, halves, bytewise])
async def test_an_upgrade_after_a_kept_alive_request_is_upgraded(
    node: RunningNode, cut: Callable[[bytes], list[bytes]]
) -> None:
    async with opened(node) as socket:
        await socket.send(request())
        await socket.receive(b"{}")
        socket.data = b""
        await socket.send(*cut(request(target=ECHO, headers=UPGRADE)))
        await socket.receive(b"\r\n\r\n")
        assert statuses_of(socket.data) == [101]
        socket.data = b""
        await socket.send(frame(TEXT, b"hi"))
        await socket.receive(b"hi")
        assert parse_server_frames(socket.data) == [Received(0x80 | TEXT, b"hi")]
        assert node.node.counts.connections_accepted == {"websocket": 1}
    await until(lambda: len(node.node.connections) == 0, "the connection is gone")


async def test_an_upgrade_to_something_else_is_answered_as_a_plain_request(node: RunningNode) -> None:
    headers = "Connection: Upgrade, close\r\nUpgrade: h2c\r\n"
    answer = await talk(node, request(headers=headers))
    assert (answer.statuses, answer.end) == ([200], "closed")
