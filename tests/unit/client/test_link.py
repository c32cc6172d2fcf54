"""The link against bytes, whole and in pieces: RFC 6455 and what a broken server does."""

import asyncio
from collections.abc import Iterable
from typing import Any

import pytest
from websockets.frames import Close
from websockets.http11 import Request
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from gateway.client.endings import CLOSED_HERE, Ending, Kind
from gateway.client.link import Link
from gateway.client.settings import LinkSettings
from tests.support.frames import BINARY, CLOSE, CONT, PING, PONG, TEXT, closing, frame, server_frame
from tests.support.waiting import until


class Wire:
    """A transport that notes what is written."""

    def __init__(self) -> None:
        self.written = bytearray()
        self.is_closed = False
        self.is_aborted = False

    def write(self, data: bytes) -> None:
        self.written += data

    def close(self) -> None:
        self.is_closed = True

    def abort(self) -> None:
        self.is_aborted = True

    def get_write_buffer_size(self) -> int:
        return 17


class Peer:
    """Notes what the link tells."""

    def __init__(self) -> None:
        self.opened_times = 0
        self.messages: list[tuple[bytes, bool]] = []
        self.endings: list[Ending] = []

    def opened(self) -> None:
        self.opened_times += 1

    def receive(self, payload: bytes, *, is_text: bool) -> None:
        self.messages.append((payload, is_text))

    def ended(self, ending: Ending) -> None:
        self.endings.append(ending)


class Call:
    """A link and both its sides."""

    def __init__(self, address: str = "ws://example.com:81/path?x=1", **settings: Any) -> None:
        self.wire = Wire()
        self.peer = Peer()
        self.now_s = 5.0
        self.link = Link(parse_uri(address), self.peer, LinkSettings(**settings), time=lambda: self.now_s)

    def make(self) -> Request:
        """Have the socket connected, and return the request."""
        self.link.connection_made(self.wire)  # type: ignore[arg-type]
        server = ServerProtocol()
        server.receive_data(bytes(self.wire.written))
        (request,) = server.events_received()
        assert isinstance(request, Request)
        response = server.accept(request)
        self.response = response.serialize()
        self.wire.written.clear()
        return request

    def feed(self, *data: bytes) -> None:
        for each in data:
            self.link.data_received(each)

    def frames(self) -> list[tuple[int, bytes]]:
        """Return what was sent, unmasked; it must be masked whole frames."""
        found, position, data = [], 0, bytes(self.wire.written)
        while position < len(data):
            first, second = data[position], data[position + 1]
            assert second & 0x80, "a client must mask (RFC 6455 5.1)"
            length, start = second & 0x7F, position + 2
            width = {126: 2, 127: 8}.get(length, 0)
            if width:
                length, start = int.from_bytes(data[start : start + width], "big"), start + width
            mask, payload = data[start : start + 4], data[start + 4 : start + 4 + length]
            found.append((first, bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))))
            position = start + 4 + length
        return found

    def close_codes(self) -> list[int]:
        return [Close.parse(payload).code for first, payload in self.frames() if first == 0x80 | CLOSE]


def opened(**settings: Any) -> Call:
    call = Call(**settings)
    call.make()
    call.feed(call.response)
    assert call.peer.opened_times == 1
    return call


def in_pieces(data: bytes, size: int) -> Iterable[bytes]:
    return (data[start : start + size] for start in range(0, len(data), size))


# The upgrade.


async def test_it_asks_for_the_upgrade_with_the_users_headers() -> None:
    request = Call(headers={"X-Key": "k"}).make()
    assert request.path == "/path?x=1"
    assert (request.headers["Host"], request.headers["X-Key"]) == ("example.com:81", "k")


async def test_what_comes_with_the_response_is_not_lost() -> None:
    call = Call()
    call.make()
    call.feed(call.response + server_frame(TEXT, b"{}") + server_frame(TEXT, b"half")[:3])
    call.feed(server_frame(TEXT, b"half")[3:])
    assert call.peer.messages == [(b"{}", True), (b"half", True)]


@pytest.mark.parametrize("size", [1, 2, 7, 64])
async def test_the_response_may_come_in_pieces(size: int) -> None:
    call = Call()
    call.make()
    call.feed(*in_pieces(call.response + server_frame(TEXT, b"{}"), size))
    assert (call.peer.opened_times, call.peer.messages) == (1, [(b"{}", True)])


@pytest.mark.parametrize("status", [b"200 OK", b"401 Unauthorized", b"503 Service Unavailable"])
async def test_an_http_error_ends_it_with_its_status(status: bytes) -> None:
    call = Call()
    call.make()
    call.feed(b"HTTP/1.1 " + status + b"\r\nContent-Length: 3\r\n\r\nno!")
    assert call.peer.endings == [Ending(Kind.HTTP, "the server did not upgrade", int(status[:3]))]
    assert call.wire.is_aborted


@pytest.mark.parametrize(
    "response",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nno header\r\n\r\n",
        b"x" * 20_000,
    ],
    ids=lambda each: each[:40].decode(),
)
async def test_what_is_no_upgrade_ends_it(response: bytes) -> None:
    call = Call()
    call.make()
    call.feed(response)
    assert [each.kind for each in call.peer.endings] == [Kind.NETWORK]
    assert (call.wire.is_aborted, call.peer.opened_times) == (True, 0)


# Messages in.

EVERY_KIND = [
    (server_frame(TEXT, b"short"), [(b"short", True)]),
    (server_frame(BINARY, b"\x00\xff"), [(b"\x00\xff", False)]),
    (server_frame(TEXT, b"m" * 126), [(b"m" * 126, True)]),
    (server_frame(TEXT, b"l" * 70_000), [(b"l" * 70_000, True)]),
    (server_frame(TEXT), [(b"", True)]),
    (frame(TEXT, b"a", fin=False, mask=None) + server_frame(PING) + server_frame(CONT, b"b"), [(b"ab", True)]),
    (frame(BINARY, b"a", fin=False, mask=None) + server_frame(CONT, b"b"), [(b"ab", False)]),
    (server_frame(TEXT, "ü€😀".encode()), [("ü€😀".encode(), True)]),
]
STREAM = b"".join(data for data, _ in EVERY_KIND)
MESSAGES = [message for _, messages in EVERY_KIND for message in messages]


@pytest.mark.parametrize("size", [1, 2, 3, 5, 125, 4096, len(STREAM)])
async def test_messages_arrive_however_the_stream_is_cut(size: int) -> None:
    call = opened()
    call.feed(*in_pieces(STREAM, size))
    assert call.peer.messages == MESSAGES
    assert call.peer.endings == []


async def test_anything_that_comes_is_a_sign_of_life() -> None:
    call = opened()
    call.now_s = 9.0
    call.feed(server_frame(PING, b"x")[:1])
    assert call.link.heard_at_s == 9.0


async def test_a_ping_is_answered() -> None:
    call = opened()
    call.feed(server_frame(PING, b"beat"))
    assert call.frames() == [(0x80 | PONG, b"beat")]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frame(TEXT, b"masked"), 1002),
        (server_frame(TEXT, b"x", rsv=4), 1002),
        (server_frame(0x3, b"x"), 1002),
        (server_frame(CONT, b"x"), 1002),
        (server_frame(PING, b"x" * 126), 1002),
        (frame(PING, b"x", fin=False, mask=None), 1002),
        (server_frame(TEXT, b"\xff"), 1007),
        (frame(TEXT, b"\xc3", fin=False, mask=None) + server_frame(CONT, b"\x28"), 1007),
        (server_frame(TEXT, b"x" * 2001), 1009),
        (frame(TEXT, b"x" * 1500, fin=False, mask=None) + server_frame(CONT, b"x" * 1500), 1009),
        (frame(TEXT, b"x", fin=False, mask=None) + server_frame(TEXT, b"y"), 1002),
    ],
)
async def test_a_server_that_breaks_the_rules_is_told_and_left(data: bytes, code: int) -> None:
    call = opened(receive_max_bytes=2000)
    call.feed(data + server_frame(TEXT, b"ignored"))
    call.feed(server_frame(TEXT, b"ignored, too"))
    assert call.close_codes() == [code]
    assert [each.kind for each in call.peer.endings] == [Kind.NETWORK]
    assert (b"ignored", True) not in call.peer.messages
    call.link.connection_lost(None)


# The end.


@pytest.mark.parametrize(("code", "reason"), [(3503, "force disconnect"), (1001, ""), (4999, "bye")])
async def test_a_close_frame_ends_it_with_its_code(code: int, reason: str) -> None:
    call = opened()
    call.feed(server_frame(CLOSE, closing(code, reason)) + server_frame(TEXT, b"late"))
    assert call.peer.endings == [Ending(Kind.CLOSE, reason or "no reason given", code)]
    assert (call.close_codes(), call.wire.is_closed, call.peer.messages) == ([code], True, [])


async def test_a_close_frame_between_fragments_counts() -> None:
    call = opened()
    call.feed(frame(TEXT, b"half", fin=False, mask=None) + server_frame(CLOSE, closing(3001, "shutdown")))
    assert call.peer.endings == [Ending(Kind.CLOSE, "shutdown", 3001)]


@pytest.mark.parametrize(
    ("error", "reason"), [(None, "the connection was closed without a word"), (OSError("reset"), "reset")]
)
async def test_a_socket_that_ends_without_a_word(error: Exception | None, reason: str) -> None:
    call = opened()
    call.link.connection_lost(error)
    assert call.peer.endings == [Ending(Kind.NETWORK, reason, 1006)]
    await call.link.gone()


async def test_closing_says_goodbye_and_hears_no_more() -> None:
    call = opened()
    call.link.close()
    call.link.close()
    call.feed(server_frame(TEXT, b"late"))
    call.link.send(b"late, too")
    assert (call.close_codes(), call.peer.messages, call.peer.endings) == ([1000], [], [CLOSED_HERE])
    assert len(call.frames()) == 1
    call.feed(server_frame(CLOSE, closing(1000)))
    assert call.wire.is_closed
    call.link.connection_lost(None)
    assert call.peer.endings == [CLOSED_HERE]


async def test_closing_in_the_middle_of_a_frame_still_finds_the_answer_behind_it() -> None:
    call = opened()
    whole = server_frame(TEXT, b"x" * 50)
    call.feed(whole[:20])
    call.link.close()
    call.feed(whole[20:], server_frame(CLOSE, closing(1000)))
    assert call.wire.is_closed
    call.link.connection_lost(None)


async def test_a_goodbye_that_is_not_answered_is_enough_after_a_while() -> None:
    call = opened(close_timeout_s=0.01)
    call.link.close()
    gone = asyncio.create_task(call.link.gone())
    await until(lambda: call.wire.is_aborted)
    assert not gone.done()
    call.link.connection_lost(None)
    await gone


@pytest.mark.parametrize("is_made", [True, False])
async def test_closing_before_the_upgrade_needs_no_goodbye(*, is_made: bool) -> None:
    call = Call()
    if is_made:
        call.make()
    call.link.close()
    assert (call.peer.endings, call.wire.is_aborted) == ([CLOSED_HERE], is_made)
    if not is_made:
        call.link.connection_made(call.wire)  # type: ignore[arg-type]
        assert (bytes(call.wire.written), call.wire.is_aborted) == (b"", True)


# Messages out.


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536])
@pytest.mark.parametrize("is_text", [True, False])
async def test_messages_of_any_size_go_out_masked(size: int, *, is_text: bool) -> None:
    call = opened()
    call.link.send(b"x" * size, is_text=is_text)
    assert call.frames() == [(0x80 | (TEXT if is_text else BINARY), b"x" * size)]


async def test_each_mask_is_another() -> None:
    call = opened()
    for _ in range(3):
        call.link.send(b"x")
    masks = [bytes(call.wire.written[start + 2 : start + 6]) for start in (0, 7, 14)]
    assert len(set(masks)) == 3


async def test_a_ping_goes_out_while_it_is_open() -> None:
    call = Call()
    call.link.ping()
    call.make()
    call.feed(call.response)
    call.link.ping()
    assert call.frames() == [(0x80 | PING, b"")]
    assert call.link.waiting_bytes == 17
