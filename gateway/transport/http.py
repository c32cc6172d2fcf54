"""uvicorn's HTTP protocol with two guards that it lacks: a limit on the request head's size, and one on its time.

Without them a client could open sockets that never finish a request, or send headers that never end.
"""

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateway.settings import Seconds, Settings, Size


class RequestHeadSettings(Settings):
    """What the head of a request may take; part of the table `http_server`."""

    head_size_limit: Size = 16384
    """Longest request head, in bytes: request line and headers (431 beyond)."""
    head_timeout_s: Seconds = 10.0
    """How long a client may take to send a request head (408 beyond)."""


class GuardedHTTPProtocol(HttpToolsProtocol):
    """Cuts clients whose request head is slow or boundless; *refused* is told the reason."""

    def __init__(self, *, head: RequestHeadSettings, refused: Callable[[str], None], **uvicorns_own: Any) -> None:
        super().__init__(**uvicorns_own)
        self._settings = head
        self._refused = refused
        self._is_in_head = True
        self._head_bytes = 0
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn types it
        """Begin to wait for the first head."""
        super().connection_made(transport)
        self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count what belongs to a head that is not complete yet."""
        if self._is_in_head:
            end = data.find(b"\r\n\r\n")
            self._head_bytes += len(data) if end < 0 else end + 4
            if self._head_bytes > self._settings.head_size_limit:
                self._refuse("head_size", HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "The request head is too large.")
                return
        super().data_received(data)

    def on_message_begin(self) -> None:
        """Begin to wait for a further head of a kept-alive connection; its idle time is uvicorn's affair."""
        super().on_message_begin()
        if self._head_timer is None:
            self._start_timer()

    def on_headers_complete(self) -> None:
        """Stop waiting."""
        self._is_in_head = False
        self._stop_timer()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """What comes next is the head of another request."""
        self._is_in_head = True
        self._head_bytes = 0
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP."""
        self._refused("malformed")
        super().send_400_response(msg)

    def _should_upgrade(self) -> bool:
        # RFC 6455 4.1: "the HTTP version MUST be at least 1.1"
        return super()._should_upgrade() and self.scope["http_version"] == "1.1"

    def _start_timer(self) -> None:
        self._head_timer = self.loop.call_later(
            self._settings.head_timeout_s,
            self._refuse,
            "head_timeout",
            HTTPStatus.REQUEST_TIMEOUT,
            "The request head did not arrive in time.",
        )

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _refuse(self, reason: str, status: HTTPStatus, text: str) -> None:
        self._stop_timer()
        self._is_in_head = False
        if self.transport.is_closing():
            return
        self._refused(reason)
        body = f"{text}\n".encode()
        head = (
            f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: text/plain; charset=utf-8\r\n"
            f"Connection: close\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()
