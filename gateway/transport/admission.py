"""Who may connect to a node, and how many: origins and limits, alike for everything that comes from a client.

It is also the door that a drain shuts: what is in, by whatever transport, is counted here.
"""

import asyncio
import re
from collections.abc import Callable
from fnmatch import translate
from typing import Final

from pydantic import Field

from gateway.domain.addresses import AddressLimits
from gateway.domain.counts import Lost
from gateway.domain.ratelimit import RateLimit, TokenBucket
from gateway.messaging.conversation import Conversation
from gateway.messaging.services import Services
from gateway.settings import Limit, Settings, Size

FOREIGN_ORIGIN_TEXT: Final = "This origin is not allowed here (setting client.allowed_origins)."
"""What a page of an origin that is not allowed is told."""


class AdmissionSettings(Settings):
    """Who may connect; part of the table `client`."""

    allowed_origins: list[str] = Field(default=[])
    """Globs that the `Origin` header of a browser must match (`https://*.example.com`, `*`). Empty: no browser may
    connect. A request without the header always may."""
    connection_limit: Limit = 0
    """Connections of this node (503 with `Retry-After` beyond; 0: no limit)."""
    connection_rate_limit: Limit = 0
    """Connections a second that this node accepts, with a burst of as many (503 with `Retry-After`; 0: no limit)."""
    connection_limit_per_address: Limit = 0
    """Connections from one address on this node (503 with `Retry-After` beyond; 0: no limit). An IPv6 network of 64
    bits counts as one address. Behind a proxy, `http_server.trusted_proxies` tells addresses apart."""
    connection_rate_limit_per_address: Limit = 0
    """Connections a second from one address, with a burst of as many (503 with `Retry-After`; 0: no limit)."""
    user_connection_limit: Limit = 0
    """Connections of one user on this node (disconnect 3504; 0: no limit)."""
    queue_max_size: Size = 1048576
    """Bytes that may wait for a client that reads too slowly (disconnect 3008 beyond)."""


class Admission:
    """Decides who may connect to one node, and counts who is there."""

    def __init__(self, settings: AdmissionSettings, services: Services) -> None:
        self._services = services
        self._bucket = TokenBucket()
        self._addresses = AddressLimits()
        self.reconfigure(settings)
        self.is_open = True
        """False once it has been shut: new connections are refused with 503."""
        self.on_shut: Callable[[], None] | None = None
        """What else takes in new connections, and has to stop then: a listening socket, say."""
        self.sockets = 0
        """How many sockets are connections, or want to be."""
        self._emptied = asyncio.Event()
        self._emptied.set()

    def reconfigure(self, settings: AdmissionSettings) -> None:
        """Decide by these settings from now on; connections that are there keep the limits that they came with."""
        self.queue_max_bytes = settings.queue_max_size
        self._settings = settings
        limit = settings.connection_rate_limit
        self._rate = RateLimit(limit, limit) if limit else None
        self._addresses.reconfigure(
            count=settings.connection_limit_per_address, rate=settings.connection_rate_limit_per_address
        )
        self._origins = [re.compile(translate(glob.lower().replace("[", "[[]"))) for glob in settings.allowed_origins]

    def shut(self) -> None:
        """Let nobody in any more; a second time does nothing."""
        if self.is_open and self.on_shut is not None:
            self.on_shut()
        self.is_open = False

    def opened(self) -> None:
        """Count a socket that wants to be a connection."""
        self.sockets += 1
        self._emptied.clear()

    def gone(self, connection: object, lost: Lost | None = None) -> None:
        """Count it out, and what of its outbox is *lost*."""
        if lost is not None:
            self._services.counts.outboxes_lost[lost] += 1
        self.sockets -= 1
        self._addresses.leave(connection)
        if not self.sockets:
            self._emptied.set()

    async def emptied(self) -> None:
        """Wait until no socket is left."""
        await self._emptied.wait()

    def allows(self, origin: str | None) -> bool:
        """Tell whether a page of *origin* may connect; who names none is no browser, and may."""
        return origin is None or any(pattern.match(origin.lower()) for pattern in self._origins)

    def overload(self, address: str) -> str | None:
        """Return why nobody from *address* can be let in now, `None` if one can, who is counted as coming then."""
        if not self.is_open:
            return "shutting down"
        limit = self._settings.connection_limit
        if limit and len(self._services.connections) >= limit:
            return "connection_limit"
        now_s = self._services.monotonic()
        # One address alone must not use up what all share.
        own = self._addresses.refuse(address, now_s=now_s)
        if own is None and self._rate is not None and not self._bucket.admit(self._rate, now_s=now_s):
            return "connection_rate_limit"
        return own

    def enter(self, connection: object, address: str) -> None:
        """Count *connection* as one from *address*, until it is gone."""
        self._addresses.enter(connection, address)

    def note_accepted(self, conversation: Conversation) -> None:
        """Count and log a connection that is open now."""
        transport, address = conversation.variant.transport, conversation.transport.peer_address
        self._services.counts.connections_accepted[transport] += 1
        self._services.log.info(
            "accepted",
            client=conversation.session.client_id,
            transport=transport,
            protocol=conversation.variant.name,
            address=address,
        )

    def note_refused(self, reason: str, *, status: int, address: str) -> None:
        """Count and log one who was not let in."""
        self._services.counts.connections_refused[reason.replace(" ", "_")] += 1
        self._services.log.info("refused", reason=reason.replace(" ", "_"), status=status, address=address)


def overload_text(reason: str) -> str:
    """Say to one who can't be let in why that is."""
    return f"No new connections at the moment: {reason}."
