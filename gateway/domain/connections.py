"""The connections of this node, by client and by user."""

from collections.abc import Iterator, Mapping
from typing import Generic, NamedTuple, Protocol, TypeVar

from gateway.domain.session import Session


class HasSession(Protocol):
    """A connection, as far as the registry cares."""

    session: Session


class Kind(NamedTuple):
    """What connections are told apart by; *name* and *version* are what the client calls itself, if that is known."""

    transport: str
    protocol: str
    name: str
    version: str


class Census(NamedTuple):
    """The open connections at one moment."""

    kinds: Mapping[Kind, int]
    waiting_bytes: int
    """What waits in all transports for clients to read it."""
    congested: int
    """Connections that it waits for."""


ConnectionT = TypeVar("ConnectionT", bound=HasSession)


class Connections(Generic[ConnectionT]):
    """Every open connection, authenticated or not. The size of this registry is the gauge."""

    def __init__(self) -> None:
        self._by_client: dict[str, ConnectionT] = {}
        self._by_user: dict[str, set[ConnectionT]] = {}
        self._by_session: dict[str, ConnectionT] = {}

    def __len__(self) -> int:
        return len(self._by_client)

    def __iter__(self) -> Iterator[ConnectionT]:
        """Iterate over a copy, so that connections may go meanwhile."""
        return iter(list(self._by_client.values()))

    @property
    def users(self) -> int:
        """How many users have a connection here, the anonymous one not counted."""
        return len(self._by_user)

    def add(self, connection: ConnectionT) -> None:
        """Register a connection that has just been opened."""
        self._by_client[connection.session.client_id] = connection
        if connection.session.session_id:
            self._by_session[connection.session.session_id] = connection

    def identify(self, connection: ConnectionT) -> None:
        """File *connection* under its session's user, once it is known."""
        if connection.session.user:
            self._by_user.setdefault(connection.session.user, set()).add(connection)

    def remove(self, connection: ConnectionT) -> None:
        """Forget a connection; a second time does nothing."""
        self._by_client.pop(connection.session.client_id, None)
        self._by_session.pop(connection.session.session_id, None)
        user = connection.session.user
        siblings = self._by_user.get(user)
        if siblings is not None:
            siblings.discard(connection)
            if not siblings:
                del self._by_user[user]

    def in_session(self, session_id: str) -> ConnectionT | None:
        """Return the connection of that session id, which must not be empty; `None` if there is none."""
        return self._by_session.get(session_id)

    def of(self, user: str) -> list[ConnectionT]:
        """Return the connections of *user* on this node; for "" those without a user, known or not yet."""
        if user:
            return list(self._by_user.get(user, ()))
        return [each for each in self._by_client.values() if not each.session.user]

    def count_of(self, user: str) -> int:
        """Count the connections of *user* on this node."""
        return len(self._by_user.get(user, ()))
