"""`redis`: where the server is, how this node gets in, and how long it has patience."""

import re
from typing import Annotated, Any, Final, Self
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from pydantic import ConfigDict, Field, model_validator

from gateway.settings import Limit, Seconds, ServerTLSSettings, Settings, Size

_DEFAULT_PORT: Final = 6379
_UNIX: Final = "unix:"
_TCP: Final = re.compile(r"(\[[0-9a-fA-F:.]+(%\w+)?\]|[^\s:@/\[\]]+):([0-9]{1,5})")
_HIGHEST_PORT: Final = 65535

PositiveSeconds = Annotated[Seconds, Field(gt=0)]


class RedisTLSSettings(ServerTLSSettings):
    """`redis.tls`: TLS to the server."""

    enabled: bool = False
    """Speak TLS; a `rediss://` address switches it on, too."""


class RedisSettings(Settings):
    """`redis`: the server behind `broker.type = "redis"`."""

    # An address or a password must not come back in the text of an error.
    model_config = ConfigDict(hide_input_in_errors=True)

    address: str = f"127.0.0.1:{_DEFAULT_PORT}"
    """`host:port`, `[IPv6]:port`, `unix:/path`, or a URL: `redis://user:password@host:port/db`, `rediss://…` (TLS),
    `unix:///path?db=1`. A URL's user, password and database count as if they stood in their own keys."""
    user: str = ""
    """ACL user; empty: the default user."""
    password: Annotated[str, Field(repr=False)] = ""
    """Password of the user; empty: none is sent."""
    db: Limit = 0
    """Number of the database."""
    tls: RedisTLSSettings = RedisTLSSettings()
    prefix: Annotated[str, Field(pattern=r"^[-a-zA-Z0-9_.:/]{1,64}$")] = "gateway"
    """How the names of all keys and channels begin; gateways that share a server each need their own."""
    connect_timeout_s: PositiveSeconds = 1.0
    """How long connecting and logging in may take; a subscribe waits as long for a link that was lost, and when it has
    been away for longer, fails at once (error 100)."""
    timeout_s: PositiveSeconds = 2.0
    """How long the server may take to answer; below the 5 s after which SDKs give a command up."""
    watchdog_interval_s: PositiveSeconds = 1.0
    """How often each connection is probed; one that shows no sign of life between two probes is replaced."""
    reconnect_min_delay_s: PositiveSeconds = 0.05
    """Upper bound of the first, random, wait before connecting again; each further one is doubled."""
    reconnect_max_delay_s: PositiveSeconds = 5.0
    """Upper bound of all waits."""
    unsubscribe_grace_s: Seconds = 1.0
    """How long a channel stays subscribed on the server after the last subscriber of this node has left."""
    queue_max_size: Size = 16 * 1024 * 1024
    """Bytes of commands that may wait for their answers (error 100 beyond)."""

    @model_validator(mode="before")
    @classmethod
    def _take_apart(cls, values: Any) -> Any:
        """Reduce the address to its place. Done before anything is checked, so that no message shows a password."""
        if not isinstance(values, dict) or not isinstance(values.get("address"), str):
            return values
        address = values["address"]
        if "://" not in address:
            _check_place(address)
            return values
        return _merge(values, _parts_of(address))

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if self.tls.enabled and self.address.startswith(_UNIX):
            message = "tls.enabled: there is no TLS on a Unix socket"
            raise ValueError(message)
        if self.user and not self.password:
            message = f"user {self.user!r} needs a password"
            raise ValueError(message)
        if self.reconnect_max_delay_s < self.reconnect_min_delay_s:
            message = "reconnect_max_delay is shorter than reconnect_min_delay"
            raise ValueError(message)
        return self


def _check_place(address: str) -> None:
    """Raise for what is neither `host:port` nor `unix:/path`; the text is not repeated, it may hold a password."""
    if address.startswith(f"{_UNIX}/"):
        return
    match = _TCP.fullmatch(address)
    if match is None or not 1 <= int(match[3]) <= _HIGHEST_PORT:
        raise ValueError("address: neither host:port, [IPv6]:port, unix:/path nor a redis://, rediss:// or unix:// URL")


def _parts_of(url: str) -> dict[str, Any]:
    """Return what *url* says, under the names of the settings.

    Raises:
        ValueError: if it can't be understood; the text is not repeated.
    """
    try:
        parts = urlsplit(url)
        port = parts.port or _DEFAULT_PORT
        query = parse_qs(parts.query, strict_parsing=bool(parts.query))
    except ValueError:
        raise ValueError("address: not a valid URL (a / or # in a password is written %2F or %23)") from None
    if parts.fragment or set(query) - {"db"}:
        raise ValueError("address: a URL may end in ?db=<number> and in nothing else (# in a password is %23)")
    place, path_db = _place_of(parts, port)
    found: dict[str, Any] = {"address": place}
    databases = {text for text in [path_db, *query.get("db", [])] if text}
    if databases:
        if len(databases) > 1 or not (number := databases.pop()).isdecimal():
            raise ValueError("address: the database of a URL is one number")
        found["db"] = int(number)
    if parts.username:
        found["user"] = unquote(parts.username)
    if parts.password:
        found["password"] = unquote(parts.password)
    if parts.scheme != "unix":
        found["tls"] = parts.scheme == "rediss"
    return found


def _place_of(parts: SplitResult, port: int) -> tuple[str, str]:
    """Return the address in a URL, and the database in its path."""
    match parts.scheme:
        case "unix" if parts.path and not parts.hostname:
            return f"{_UNIX}{unquote(parts.path)}", ""
        case "redis" | "rediss" if parts.hostname:
            host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
            place = f"{host}:{port}"
            _check_place(place)
            return place, parts.path.strip("/")
        case "redis" | "rediss" | "unix":
            raise ValueError("address: redis:// and rediss:// URLs name a host, unix:// URLs a path and no host")
        case _:
            raise ValueError("address: a URL begins with redis://, rediss:// or unix://")


def _merge(values: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """Lay what the URL says beside the other keys.

    Raises:
        ValueError: if a key says something else.
    """
    for name in ("user", "password", "db"):
        given = values.get(name)
        if given and name in found and given != found[name]:
            raise ValueError(f"{name}: the address says something else; say it once")
    merged = values | found
    tls = values.get("tls", {})
    if "tls" in found and isinstance(tls, dict | RedisTLSSettings):
        table = dict(tls)
        if "enabled" in table and isinstance(tls, dict) and table["enabled"] is not found["tls"]:
            scheme = "rediss" if found["tls"] else "redis"
            raise ValueError(f"tls.enabled: the address says something else, since it begins with {scheme}://")
        merged["tls"] = tls if not found["tls"] else table | {"enabled": True}
    elif "tls" in found:
        merged["tls"] = tls
    return merged
