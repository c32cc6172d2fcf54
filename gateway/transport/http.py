"""uvicorn's HTTP protocol with two guards that it lacks: a limit on the request head's size, and one on its time.

Without them a client could open sockets that never finish a request, or send headers that never end. While no response
is under way, whatever a client sends has to become a complete head in time; uvicorn's own timer only covers silence.
"""

import asyncio
import contextlib
import functools
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateway.settings import Seconds, Settings, Size
from gateway.transport.forwarded import Proxies
from gateway.transport.responses import WRITER, JoinedWriter

_END_OF_HEAD: Final = b"\r\n\r\n"
_LINGER_S: Final = 5.0
"""How long a refused client may take to read why, before the socket is cut."""


Refused = Callable[[str, int | None, str], None]
"""Takes note of a refusal: why, with which status, if there was an answer, and whom."""


class RequestHeadSettings(Settings):
    """What the head of a request may take; part of the table `http_server`."""

    head_size_limit: Size = 16384
    """Longest request head, in bytes: request line and headers (431 beyond)."""
    head_timeout_s: Seconds = 10.0
    """How long a client may take to send a request head (408 beyond)."""


class GuardedHTTPProtocol(HttpToolsProtocol):
    """Cuts clients whose request head is slow or boundless; *refused* is told the reason, the status and the address.

    Where there are *proxies*, the address of each request is what they say. *source* is what a PROXY header said.
    """

    def __init__(
        self,
        *,
        head: RequestHeadSettings,
        refused: Refused,
        proxies: Proxies | None = None,
        source: str | None = None,
        **uvicorns_own: Any,
    ) -> None:
        super().__init__(**uvicorns_own)
        self._proxies = proxies
        self._source = source
        self._settings = head
        self._refused = refused
        self._is_refused = False
        self._is_in_head = True
        self._head_bytes = 0  # of the head that is not complete yet, as read
        self._head_tail = b""  # its last bytes, in which its end may have begun
        self._parsed_bytes = 0  # of the head that is being parsed, as far as its parts are known
        self._timer: asyncio.TimerHandle | None = None
        self._unanswered: list[Any] = []
        """uvicorn's cycles of the requests whose responses are not complete, oldest first."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn types it
        """Begin to wait for the first head."""
        super().connection_made(transport)
        if self._source is not None:
            self.client = self._source, 0
        self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting, and tell all whose responses are not complete: uvicorn tells the last one only."""
        self._stop_timer()
        for cycle in self._give_up():
            cycle.transport.lost(is_orderly=exc is None, was_congested=self.flow.write_paused)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count what belongs to a head that is not complete yet, and time it."""
        if self._is_refused:
            return
        if self._is_in_head and not self._fits_head(data):
            self._refuse("head_size", HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "The request head is too large.")
            return
        super().data_received(data)
        # A head that came as a whole, as most do, costs no timer: its response is under way now.
        cycle: Any = self.cycle  # None before the first request, which uvicorn's annotation leaves out
        if (cycle is None or cycle.response_complete) and self._timer is None and self._is_still_here():
            self._start_timer()

    def on_message_begin(self) -> None:
        """Begin to measure a head by its parts: several may come in one read."""
        self._parsed_bytes = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """Measure the request line."""
        self._parsed_bytes += len(url)
        super().on_url(url)

    def on_headers_complete(self) -> None:
        """Stop waiting."""
        self._is_in_head = False
        self._stop_timer()
        if self._is_refused:
            return
        size = self._parsed_bytes + len(self.parser.get_method()) + len(b"  HTTP/1.1\r\n\r\n")
        for name, value in self.headers:
            size += len(name) + len(value) + len(b": \r\n")
        if size > self._settings.head_size_limit:
            self._refuse("head_size", HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "The request head is too large.")
            return
        if any(each.transport.when_lost is not None for each in self._unanswered):
            # It would wait for ever, and the socket unread, so that a client that goes would not be noticed.
            self._refuse("behind_stream", HTTPStatus.BAD_REQUEST, "The response before this one does not end.")
            return
        if self._proxies is not None and self._proxies.are_there:
            address = self._proxies.client_of(self._peer, self.headers)
            if address != self._peer:
                self.scope["client"] = address, 0
        before: Any = self.cycle
        super().on_headers_complete()
        cycle: Any = self.cycle
        # An upgrade has no cycle, and the answer to HEAD nothing behind its head.
        if cycle is not before and self.scope["method"] != "HEAD":
            scope: Any = self.scope
            scope[WRITER] = cycle.transport = JoinedWriter(self.transport)
            self._unanswered = [each for each in self._unanswered if not each.response_complete]
            self._unanswered.append(cycle)

    def on_body(self, body: bytes) -> None:
        """Take a part of the body, unless nobody is there to read it."""
        if not self._is_refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """What comes next is the head of another request."""
        self._is_in_head = True
        self._head_bytes = 0
        self._head_tail = b""
        if not self._is_refused:
            super().on_message_complete()

    def handle_websocket_upgrade(self) -> None:
        """Hand the connection over, and tell where it comes from if that is not what the socket says."""
        told = self.scope["client"]
        if told is not None and (self._source is not None or told is not self.client):
            seam: Any = self.ws_protocol_class
            self.ws_protocol_class = functools.partial(seam, address=told[0])  # type: ignore[assignment]  # uvicorn calls it
        super().handle_websocket_upgrade()

    @property
    def _peer(self) -> str:
        """Where the connection comes from; empty for a Unix socket."""
        return self.client[0] if self.client is not None else ""

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP."""
        self._refuse("malformed", HTTPStatus.BAD_REQUEST, msg)

    def _should_upgrade(self) -> bool:
        # RFC 6455 4.1: "the HTTP version MUST be at least 1.1"
        return not self._is_refused and super()._should_upgrade() and self.scope["http_version"] == "1.1"

    def _fits_head(self, data: bytes) -> bool:
        joined = self._head_tail + data
        end = joined.find(_END_OF_HEAD)
        self._head_bytes += len(data) if end < 0 else end + len(_END_OF_HEAD) - len(self._head_tail)
        self._head_tail = joined[-(len(_END_OF_HEAD) - 1) :]
        return self._head_bytes <= self._settings.head_size_limit

    def _is_still_here(self) -> bool:
        """Tell whether the connection is open and has not been handed over to another protocol."""
        return not self.transport.is_closing() and self.transport.get_protocol() is self

    def _give_up(self) -> list[Any]:
        """Let no request be answered any more; returns those that were waiting for it."""
        waiting, self._unanswered = [each for each in self._unanswered if not each.response_complete], []
        for cycle in waiting:
            cycle.disconnected = True
            cycle.message_event.set()
            cycle.transport.sever()
        return waiting

    def _start_timer(self) -> None:
        self._timer = self.loop.call_later(
            self._settings.head_timeout_s,
            self._refuse,
            "head_timeout",
            HTTPStatus.REQUEST_TIMEOUT,
            "The request head did not arrive in time.",
        )

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _refuse(self, reason: str, status: HTTPStatus, text: str) -> None:
        """Say why and end the connection, without a reset that would take the answer with it."""
        self._stop_timer()
        if self._is_refused or self.transport.is_closing():
            return
        self._is_refused = True
        if any(each.response_started and not each.response_complete for each in self._unanswered):
            # In the midst of a response nothing can be said.
            self._refused(reason, None, self._peer)
            self.transport.abort()
            return
        self._refused(reason, status.value, self._peer)
        self._give_up()
        body = f"{text}\n".encode()
        head = (
            f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: text/plain; charset=utf-8\r\n"
            f"Connection: close\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        if self.transport.can_write_eof():
            with contextlib.suppress(OSError):  # it has gone already, which asyncio's own transport says here
                self.transport.write_eof()
            self._timer = self.loop.call_later(_LINGER_S, self.transport.abort)
        else:
            self.transport.close()
