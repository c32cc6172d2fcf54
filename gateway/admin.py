"""The admin page of a running node, put together: its pages, its sessions, and the WebSocket that its scripts use."""

import asyncio
import contextlib
import uuid
from collections.abc import Sequence
from typing import Final

import structlog
from starlette.routing import BaseRoute

from gateway.api.admin.origins import RequestHeaders, is_from_own_page
from gateway.api.admin.pages import AdminPages, LoginLog
from gateway.api.admin.sessions import Sessions, cookie_of
from gateway.messaging.admin_calls import AdminCalls
from gateway.messaging.admins import Admins, Credentials
from gateway.parts import Clock
from gateway.protocol.framing import Framing
from gateway.protocol.server_api import Scope
from gateway.runtime import Runtime, default_name
from gateway.transport.admin import AdminGate

_CHECK_INTERVAL_S: Final = 5.0
"""How often it is looked whether sessions of connected admins still hold."""
_GOODBYE_TIMEOUT_S: Final = 1.0


class Admin:
    """The admin page of *runtime*, which must run already. `check` it for as long as it is served, then `close` it."""

    def __init__(
        self, runtime: Runtime, *, framing: Framing, clock: Clock, log: structlog.typing.FilteringBoundLogger
    ) -> None:
        config, (monotonic, unix) = runtime.config, clock
        self._unix = unix
        self._sessions = Sessions(
            lambda: runtime.api_keys.seals(Scope.ADMIN),
            ttl_s=config.admin.session_ttl_s,
            new_id=lambda: str(uuid.uuid4()),
        )
        calls = AdminCalls(
            runtime.administration,
            runtime.cluster,
            runtime.trends,
            monotonic=monotonic,
            announce_interval_s=config.node.announce_interval_s,
            log=log,
        )
        self._admins = Admins(runtime.services, calls.handlers())
        runtime.admins = self._admins
        self._pages = AdminPages(
            runtime.api_keys,
            self._sessions,
            node=config.node.name or default_name(),
            version=runtime.version,
            unix=unix,
            monotonic=monotonic,
            ended=self._admins.end,
            log=LoginLog(runtime.counts.admin_logins, log),
        )
        self.gate = AdminGate(
            self._admins,
            config.websocket,
            framing,
            queue_max_bytes=config.client.queue_max_size,
            max_depth=config.json_.max_depth,
            is_from_own_page=is_from_own_page,
            credentials=self._credentials,
        )

    def routes(self) -> Sequence[BaseRoute]:
        """Return what is served over HTTP."""
        return self._pages.routes()

    async def check(self) -> None:
        """Send admins away whose session has ended, for ever."""
        while True:
            await asyncio.sleep(_CHECK_INTERVAL_S)
            self._admins.check()

    async def close(self) -> None:
        """Send all admins away, and wait a little until they have gone."""
        self._admins.send_away()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_GOODBYE_TIMEOUT_S):
                await self.gate.emptied()

    def _credentials(self, headers: RequestHeaders) -> Credentials | None:
        cookie = cookie_of(headers.get("cookie"))
        ticket = self._sessions.read(cookie, unix_s=self._unix())
        if ticket is None:
            return None

        def still_hold() -> bool:
            return self._sessions.read(cookie, unix_s=self._unix()) is not None

        return Credentials(ticket.key, ticket.session, ticket.expires_at_s, still_hold)
