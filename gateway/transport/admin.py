"""The WebSocket of the admin page, on the internal port: who is let in has shown its session before the upgrade."""

import asyncio
import http
from collections.abc import Callable
from typing import Final, Protocol

from websockets.datastructures import Headers, MultipleValuesError
from websockets.http11 import Request, Response

from gateway.domain.counts import Lost
from gateway.messaging.admins import Admins, Credentials
from gateway.messaging.conversation import Conversation
from gateway.protocol.framing import Framing
from gateway.protocol.variants import TapVariant
from gateway.transport.acceptor import Upgraded
from gateway.transport.core import make_negotiator
from gateway.transport.ports import WebSocketSettings

ADMIN_PATH: Final = "/admin/connection/websocket"
_NOT_LOGGED_IN: Final = "Log in first: /admin on this port.\n"


class RequestHeaders(Protocol):
    """The headers of a request, by name in any case."""

    def get(self, key: str, /) -> str | None:
        """Return the one header of that name, `None` if there is none."""


class AdminGate:
    """Decides about upgrade requests on the internal port and begins the conversation of those it lets in.

    *framing* is how texts become what the transport takes.
    *is_from_own_page* tells whether a page of this server made a request, *credentials* whose session it shows.
    """

    def __init__(
        self,
        admins: Admins,
        settings: WebSocketSettings,
        framing: Framing,
        *,
        queue_max_bytes: int,
        max_depth: int,
        is_from_own_page: Callable[[RequestHeaders], bool],
        credentials: Callable[[RequestHeaders], Credentials | None],
    ) -> None:
        self.settings = settings
        self.queue_max_bytes = queue_max_bytes
        self.negotiator = make_negotiator(extensions=[], subprotocols=[])
        self._admins = admins
        self._variant = TapVariant(framing, max_depth=max_depth)
        self._is_from_own_page = is_from_own_page
        self._credentials = credentials
        self._sockets = 0
        self._emptied = asyncio.Event()
        self._emptied.set()

    def opened(self) -> None:
        """Count a socket that wants to be a WebSocket."""
        self._sockets += 1
        self._emptied.clear()

    def gone(self, connection: object, lost: Lost | None = None) -> None:
        """Count it out, and what of its outbox is *lost*."""
        del connection
        if lost is not None:
            self._admins.counts.outboxes_lost[lost] += 1
        self._sockets -= 1
        if not self._sockets:
            self._emptied.set()

    async def emptied(self) -> None:
        """Wait until no socket is left."""
        await self._emptied.wait()

    def refuse(self, request: Request, address: str) -> Response | None:
        """Return the response for a request that may not become a WebSocket, else `None`."""
        if request.path.partition("?")[0] != ADMIN_PATH:
            return self._refusal(
                404, "path", address, f"There is no WebSocket endpoint at this path; try {ADMIN_PATH}.\n"
            )
        headers = _Single(request.headers)
        if not self._is_from_own_page(headers):
            return self._refusal(403, "origin", address, "Only the admin page of this server may connect here.\n")
        if self._credentials(headers) is None:
            return self._refusal(401, "session", address, _NOT_LOGGED_IN)
        if not self._admins.is_open:
            return self._refusal(503, "shutting_down", address, "This node is going down.\n")
        if self._admins.is_full:
            return self._refusal(503, "connection_limit", address, "Too many admin pages are open.\n")
        return None

    def failed(self, response: Response, address: str) -> None:
        """Count a handshake that breaks the rules of RFC 6455."""
        self._admins.note_refused("handshake", status=response.status_code, address=address)

    def accept(self, request: Request, connection: Upgraded) -> Conversation:
        """Begin the conversation of a connection that is open now."""
        credentials = self._credentials(_Single(request.headers))
        if credentials is None:
            raise AssertionError("who has no session was refused, in this turn")
        return self._admins.converse(connection, self._variant, credentials)

    def _refusal(self, status: int, reason: str, address: str, text: str) -> Response:
        self._admins.note_refused(reason, status=status, address=address)
        return self.negotiator.reject(http.HTTPStatus(status), text)


class _Single:
    """A request's headers, of which one that comes twice is none."""

    def __init__(self, headers: Headers) -> None:
        self._headers = headers

    def get(self, key: str, /) -> str | None:
        try:
            return self._headers.get(key)
        except MultipleValuesError:
            return None
