"""API keys: who may call the server API, and what (protocol.md 7).

Several keys may be good at the same time, so that they can be changed one after the other, and each has a name for the
logs, where the key itself never is.
"""

import hmac
from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated, Final, NamedTuple, Self

from pydantic import Field, model_validator

from gateway.protocol.server_api import Scope
from gateway.settings import Settings, Size, one_of, repeated

_ONLY_KEY: Final = "http_api.key"
"""The name of the key that has none."""


class ErrorMode(StrEnum):
    """How a call that was not carried out is answered."""

    REPLY = ""
    TRANSPORT = "transport"


class APIKeySettings(Settings):
    """`http_api.keys`: a key, and what it opens."""

    name: Annotated[str, Field(pattern=r"^[-\w.@/ ]{1,64}$")]
    """How logs and metrics call it."""
    key: Annotated[str, Field(min_length=1)]
    """The key itself: long and random."""
    scopes: list[Annotated[Scope, one_of(Scope)]] = Field(default=[Scope.ADMIN], min_length=1)
    """What it may do: `publish`, `read` (presence, history, info, channels, connections), `admin` (everything)."""


class HTTPAPISettings(Settings):
    """`http_api`: the server API, `/api/<method>` on the internal port. Without a key every call is refused (401)."""

    enabled: bool = True
    """Serve it."""
    public: bool = False
    """Serve it on the public port, too."""
    key: str = ""
    """Short for one key that may do everything."""
    keys: list[APIKeySettings] = Field(default=[])
    """The keys, each a table; several for rotation, or for programs that may do different things."""
    error_mode: Annotated[ErrorMode, one_of(ErrorMode)] = ErrorMode.REPLY
    """Empty: errors are answered with status 200 in the body; `transport`: with a status of their own."""
    body_size_limit: Size = 4194304
    """Longest request body, in bytes (413 beyond)."""

    @model_validator(mode="after")
    def _reject_twins(self) -> Self:
        twins = repeated(each.name for each in self.keys)
        if twins:
            message = f"each name once, please: {', '.join(twins)} is the name of more than one key"
            raise ValueError(message)
        keys = [each.key for each in self.keys] + ([self.key] if self.key else [])
        if len(set(keys)) < len(keys):
            message = "the same key is listed more than once"
            raise ValueError(message)
        return self


class KeyHolder(NamedTuple):
    """Who has shown a key: its name, and what it may do."""

    name: str
    scopes: frozenset[Scope]

    def may(self, scope: Scope) -> bool:
        """Tell whether the holder may do what needs *scope*."""
        return scope in self.scopes


class KeyRing:
    """Knows the holders of keys by what they show. `change` the keys at any time."""

    def __init__(self, settings: HTTPAPISettings) -> None:
        self._holders: list[tuple[bytes, KeyHolder]] = []
        self.change(settings)

    def change(self, settings: HTTPAPISettings) -> None:
        """Let the keys of *settings* be good from now on, and no others."""
        keys = [(each.key, KeyHolder(each.name, _all_of(each.scopes))) for each in settings.keys]
        if settings.key:
            keys.append((settings.key, KeyHolder(_ONLY_KEY, frozenset(Scope))))
        self._holders = [(key.encode(), holder) for key, holder in keys]

    def seals(self, scope: Scope) -> dict[str, bytes]:
        """Return something to sign with for each key that opens *scope*, by its name; it is as secret as the key."""
        return {holder.name: key for key, holder in self._holders if holder.may(scope)}

    def holder(self, shown: bytes) -> KeyHolder | None:
        """Return whose key *shown* is, `None` if it is nobody's.

        How long that takes tells nothing of what the keys are.
        """
        found = None
        for key, holder in self._holders:
            if hmac.compare_digest(key, shown):
                found = holder
        return found


def _all_of(scopes: Iterable[Scope]) -> frozenset[Scope]:
    named = frozenset(scopes)
    return frozenset(Scope) if Scope.ADMIN in named else named
