"""What stands between a proxy and the network: one exchange, and what may come of it."""

from collections.abc import Sequence
from typing import Protocol

import msgspec

Headers = Sequence[tuple[str, str]]
"""Names and values of HTTP headers, in order; a name may be there more than once."""


class Response(msgspec.Struct, frozen=True):
    """What a backend has answered, as it came."""

    status: int
    body: bytes


class BackendError(Exception):
    """No answer that could be used; the text says why, for the log."""


class UnreachableError(BackendError):
    """The backend could not be reached, or went away before its answer was whole."""


class TooLongError(BackendError):
    """It answered with more than may be read."""


class Backend(Protocol):
    """Takes events to the user's backend, any number at the same time."""

    async def post(self, body: bytes, headers: Headers) -> Response:
        """Send *body*, JSON, and return the answer, whatever its status.

        It is sent once: what it sets off may not be meant to happen twice. It waits as long as the caller does;
        cancelling gives the exchange up, and the backend may have had it or not.

        Raises:
            UnreachableError: no connection, or none until the end.
            TooLongError: the answer was longer than is read.
        """

    async def close(self) -> None:
        """Release all connections. Idempotent; what is under way fails with `UnreachableError`."""
