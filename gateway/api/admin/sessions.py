"""Sessions of the admin page: a signed cookie that every node can read and none has to remember.

A session is signed with a secret that follows from the key it was opened with. So every node that has the key takes it,
and a key that is changed or taken away ends the sessions that were opened with it, and no others.
"""

import hashlib
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final

import msgspec
from itsdangerous import BadData, URLSafeSerializer
from pydantic import Field

from gateway.settings import Seconds, Settings

COOKIE: Final = "gateway_admin"
_SALT: Final = "gateway admin session"
_MAX_COOKIE_LENGTH: Final = 4096


class AdminSettings(Settings):
    """`admin`: the page for operators at `/admin` of the internal port."""

    enabled: bool = True
    """Serve it. Without a key of scope `admin` in `http_api` nobody can log in, so there is only the way in to see."""
    session_ttl_s: Annotated[Seconds, Field(ge=60)] = 43200.0
    """How long a login lasts."""


class Ticket(msgspec.Struct, frozen=True, array_like=True):
    """A login: with the key of which name, which one it is, and until when it lasts (Unix seconds)."""

    key: str
    session: str
    expires_at_s: int


class Sessions:
    """Signs sessions and reads them. *keys* returns what stands for each key that may log in now, by its name."""

    def __init__(self, keys: Callable[[], Mapping[str, bytes]], *, ttl_s: float, new_id: Callable[[], str]) -> None:
        self._keys = keys
        self._new_id = new_id
        self.ttl_s = ttl_s

    @property
    def has_keys(self) -> bool:
        """Whether anybody can log in."""
        return bool(self._keys())

    def open(self, key: str, *, unix_s: float) -> str:
        """Return the cookie of a new session of the holder of *key*, which must be one of the keys."""
        ticket = Ticket(key, self._new_id(), int(unix_s + self.ttl_s))
        signed: str = _signer(self._keys()[key]).dumps(msgspec.to_builtins(ticket))
        return signed

    def read(self, cookie: str | None, *, unix_s: float) -> Ticket | None:
        """Return the session that *cookie* is of; `None` if it is forged, over, or of a key that is no more."""
        if not cookie or len(cookie) > _MAX_COOKIE_LENGTH:
            return None
        for name, secret in self._keys().items():
            ticket = _verified(cookie, secret)
            if ticket is not None and ticket.key == name:
                return ticket if unix_s < ticket.expires_at_s else None
        return None


def cookie_of(header: str | None) -> str | None:
    """Return the session's cookie out of a request's `Cookie` header, if it has one."""
    for part in (header or "").split(";"):
        name, _, value = part.strip().partition("=")
        if name == COOKIE:
            return value
    return None


def _signer(secret: bytes) -> URLSafeSerializer:
    return URLSafeSerializer(secret, salt=_SALT, signer_kwargs={"key_derivation": "hmac", "digest_method": _sha256})


def _sha256(data: bytes = b"") -> Any:
    return hashlib.sha256(data)


def _verified(cookie: str, secret: bytes) -> Ticket | None:
    try:
        return msgspec.convert(_signer(secret).loads(cookie), Ticket)
    except (BadData, msgspec.ValidationError, ValueError):
        return None
