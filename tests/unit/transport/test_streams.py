"""A stream on somebody else's ASGI server, which is strict about the specification."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from gateway.domain.counts import Lost
from gateway.protocol.codes import Disconnect
from gateway.transport.ports import Peer
from gateway.transport.streams import ServerStream, Stream
from tests.support.waiting import until

BYE = Disconnect(3001, "shutdown")
HEADERS = ((b"x", b"y"),)
START = {"type": "http.response.start", "status": 200, "headers": HEADERS}
CLOSED = (3000, "connection closed")


def part(body: bytes, *, is_last: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": body, "more_body": not is_last}


class FakePeer:
    """Hears what a stream tells its peer; *says* is done when it hears what the client has said."""

    def __init__(self, says: Callable[[], object] = lambda: None) -> None:
        self.heard: list[Any] = []
        self._says = says

    def receive(self, payload: bytes, *, is_text: bool) -> None:
        self.heard.append(("said", payload, is_text))
        self._says()

    def frame_pong(self) -> None:
        raise AssertionError("a response has no pongs")

    def disconnect(self, disconnect: Disconnect) -> None:
        self.heard.append(("disconnect", disconnect))

    def tell_gap(self, channel: str) -> None:
        self.heard.append(("gap", channel))

    def closed(self, *, code: int, reason: str, by: str) -> None:
        self.heard.append(("closed", (code, reason), by))


class Served:
    """A stream that is being served, and the server."""

    def __init__(self, says: Callable[[Stream], object] = lambda _: None, *, preamble: bytes = b"") -> None:
        self.sent: list[Any] = []
        self.is_taking = asyncio.Event()
        self.is_taking.set()
        self.is_cut = False
        self._has_left = asyncio.Event()
        limits: dict[str, Any] = {"address": "192.0.2.1", "queue_max_bytes": 10, "close_timeout_s": 0.02}
        self.stream = ServerStream({}, self._receive, self._send, **limits)
        self.peer = FakePeer(lambda: says(self.stream))
        self.running = asyncio.ensure_future(self.stream.run(HEADERS, preamble, self._converse, b"hello"))

    def _converse(self, stream: Stream) -> Peer:
        assert stream is self.stream
        return self.peer

    def leave(self) -> None:
        self._has_left.set()

    async def _receive(self) -> Any:
        await self._has_left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        assert bool(self.sent) == (message["type"] == "http.response.body"), "one start, and that first"
        assert not (self.sent and self.sent[-1].get("more_body") is False), "nothing behind the end"
        await self.is_taking.wait()
        if self.is_cut:
            raise OSError("the client has gone")
        self.sent.append(message)

    async def has_sent(self, *messages: Any) -> None:
        await until(lambda: len(self.sent) >= len(messages), f"{messages} behind {self.sent}")
        assert self.sent == list(messages)


async def test_what_is_offered_goes_out_in_order_and_behind_it_the_end() -> None:
    served = Served(preamble=b"\r\n")
    await served.has_sent(START, part(b"\r\n"))
    assert served.peer.heard == [("said", b"hello", True)]
    assert served.stream.offer(b"1")
    assert served.stream.offer(b"2")
    await served.has_sent(START, part(b"\r\n"), part(b"1"), part(b"2"))
    served.stream.offer(b"3")
    served.stream.close(BYE, b"bye")
    served.stream.close(BYE, b"twice")
    assert served.stream.offer(b"late")
    await served.running
    assert served.sent[4:] == [part(b"3"), part(b"bye"), part(b"", is_last=True)]
    assert served.peer.heard[1:] == [], "who closes need not be told"
    assert served.stream.lost is None


async def test_an_end_before_the_beginning_is_over_is_an_end() -> None:
    served = Served(lambda stream: stream.close(BYE, b"bye"))
    await served.running
    assert served.sent == [START, part(b""), part(b"bye"), part(b"", is_last=True)]


async def test_no_more_waits_than_may_but_an_empty_queue_takes_any_one_message() -> None:
    served = Served()
    await served.has_sent(START, part(b""))
    stream = served.stream
    assert (stream.waiting, stream.is_congested, stream.room) == (0, False, 10)
    served.is_taking.clear()
    assert stream.offer(b"x" * 100)
    assert (stream.waiting, stream.is_congested, stream.room) == (100, True, -90)
    assert not stream.offer(b"y")
    served.is_taking.set()
    await until(lambda: not stream.is_congested)
    served.is_taking.clear()
    assert stream.offer(b"12345")
    assert stream.offer(b"67890")
    assert not stream.offer(b"1")
    served.leave()
    await served.running
    assert stream.lost is Lost.NETWORK
    assert served.peer.heard[1:] == [("closed", CLOSED, "client")]


async def test_a_client_that_has_gone_ends_it_at_once() -> None:
    served = Served()
    await served.has_sent(START, part(b""))
    served.leave()
    await served.running
    assert served.peer.heard[1:] == [("closed", CLOSED, "client")]
    assert served.stream.lost is None


async def test_a_server_that_says_so_when_it_is_written_ends_it_too() -> None:
    served = Served()
    await served.has_sent(START, part(b""))
    served.is_cut = True
    served.stream.offer(b"x")
    await served.running
    assert served.peer.heard[1:] == [("closed", CLOSED, "network")]
    assert served.stream.lost is Lost.NETWORK


async def test_what_is_not_taken_in_time_at_the_end_is_thrown_away() -> None:
    served = Served()
    await served.has_sent(START, part(b""))
    served.is_taking.clear()
    served.stream.close(BYE, b"bye")
    await served.running
    assert served.sent == [START, part(b"")]
    assert served.stream.lost is Lost.TIMEOUT
    assert served.peer.heard[1:] == []


async def test_a_server_that_stops_cancels_it_and_its_peer_learns_of_that() -> None:
    served = Served()
    await served.has_sent(START, part(b""))
    served.running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await served.running
    assert served.peer.heard[1:] == [("closed", CLOSED, "network")]


async def test_the_hub_reaches_the_peer_through_it() -> None:
    served = Served()
    served.stream.dismiss(BYE)
    served.stream.tell_gap("a")
    await served.has_sent(START, part(b""))
    served.stream.dismiss(BYE)
    served.stream.tell_gap("a")
    served.stream.ping()
    served.stream.pause_reading()
    served.stream.resume_reading()
    assert served.stream.peer_address == "192.0.2.1"
    assert served.peer.heard[1:] == [("disconnect", BYE), ("gap", "a")]
    served.stream.close(BYE)
    served.stream.dismiss(BYE)
    await served.running
    assert len(served.peer.heard) == 3
