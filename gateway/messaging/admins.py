"""The clients of the admin page: conversations like all others, but for what they may do and where they are counted.

Who is let in has shown a session before the upgrade, so any token is taken for it. A subscription is a tap: it is made
in any channel whatever its options say, a private one too, and neither the channel's presence nor its subscribers hear
of it. All else is what every client gets: one outbox, the same limits, and a place in the books as a subscriber.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from gateway.auth.tokens import TokenSettings, TokenVerifier
from gateway.domain.connections import Connections
from gateway.domain.counts import Counts
from gateway.domain.identity import Grant, Identity, Overrides
from gateway.domain.session import SessionSettings
from gateway.messaging.commands import ClientConversation
from gateway.messaging.conversation import Conversation
from gateway.messaging.handlers import Handler, Handlers, HandlerSettings
from gateway.messaging.port import Transport
from gateway.messaging.services import Services
from gateway.protocol import codes
from gateway.protocol.variants import ProtocolVariant

MAX_ADMINS: Final = 100
"""Connections of admins that a node serves at the same time: pages that somebody has open."""
_UNSEEN: Final = Overrides(presence=False, join_leave=False, force_push_join_leave=False, force_recovery=False)
_SETTINGS: Final = SessionSettings(expired_close_delay_s=0.0)


class Credentials(NamedTuple):
    """What lets an admin in: its key's name, its session, until when (Unix seconds), and whether that still holds."""

    key: str
    session: str
    expires_at_s: int
    still_hold: Callable[[], bool]


class Admins:
    """The admins who are connected to this node, and what they have moved, apart from the clients and theirs.

    *calls* are what they may call by `rpc`.
    """

    def __init__(self, services: Services, calls: Mapping[str, Handler]) -> None:
        self.connections: Connections[Conversation] = Connections()
        self.counts = Counts()
        self._services = services
        self._log = services.log.bind(scope="admin")
        settings = HandlerSettings(rpc_methods=list(calls))
        self._handlers = Handlers(calls, settings, log=self._log)
        self.is_open = True
        """False once the node stops: nobody comes any more."""
        self._credentials: dict[str, tuple[ClientConversation, Credentials]] = {}

    @property
    def is_full(self) -> bool:
        """Whether there are as many as a node serves."""
        return len(self.connections) >= MAX_ADMINS

    def converse(self, transport: Transport, variant: ProtocolVariant, credentials: Credentials) -> ClientConversation:
        """Begin the conversation with an admin who has been let in."""
        client = ClientConversation(transport, variant, self._shared(credentials))
        self._forget_gone()
        self._credentials[client.session.client_id] = client, credentials
        self.counts.connections_accepted[variant.transport] += 1
        self._log.info(
            "accepted",
            client=client.session.client_id,
            transport=variant.transport,
            protocol=variant.name,
            address=transport.peer_address,
        )
        return client

    def note_refused(self, reason: str, *, status: int, address: str) -> None:
        """Count and log somebody who was not let in."""
        self.counts.connections_refused[reason] += 1
        self._log.info("refused", reason=reason, status=status, address=address)

    def check(self) -> None:
        """Send away those whose session has ended, and those who go by rules that are no more; call it now and then."""
        self._forget_gone()
        for client, credentials in list(self._credentials.values()):
            if not credentials.still_hold():
                client.disconnect(codes.INVALID_TOKEN)
            elif client.services.channels is not self._services.channels:
                client.disconnect(codes.FORCE_RECONNECT)

    def end(self, session: str) -> None:
        """Send away those of one session: its admin has logged out."""
        for client, credentials in list(self._credentials.values()):
            if credentials.session == session:
                client.disconnect(codes.INVALID_TOKEN)

    def send_away(self) -> None:
        """Send everybody away, and let nobody in any more: the node stops."""
        self.is_open = False
        for client in self.connections:
            client.disconnect(codes.SHUTDOWN)

    def _forget_gone(self) -> None:
        for client_id, (client, _) in list(self._credentials.items()):
            if client.has_gone():
                del self._credentials[client_id]

    def _shared(self, credentials: Credentials) -> Services:
        """Return what an admin shares with the clients, and what it has instead."""
        admission = _Admission(credentials)
        return dataclasses.replace(
            self._services,
            session=_SETTINGS,
            is_insecure=False,
            user_connection_limit=0,
            disconnect_others=None,
            personal_namespace=None,
            connection_tokens=admission,
            subscription_tokens=admission,
            handlers=self._handlers,
            connections=self.connections,
            counts=self.counts,
            log=self._log,
        )


class _Admission(TokenVerifier):
    """Takes any token for the session that has been checked already."""

    def __init__(self, credentials: Credentials) -> None:
        super().__init__(TokenSettings())
        self._identity = Identity(credentials.key, expires_at_s=credentials.expires_at_s)

    async def connection(self, token: str, *, unix_s: float) -> Identity:
        """Return who the session is of."""
        del token, unix_s
        return self._identity

    async def subscription(self, token: str, *, channel: str, user: str, client: str, unix_s: float) -> Grant:
        """Grant any channel, unseen."""
        del token, user, client, unix_s
        return Grant(channel, overrides=_UNSEEN)
