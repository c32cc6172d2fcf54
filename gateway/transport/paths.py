"""Where clients connect to on the public port."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Final

from pydantic import Field

from gateway.settings import Settings

CLIENT_PATH: Final = "/connection/websocket"
PLAIN_PATH: Final = "/ws"
CONNECT_PARAMETER: Final = "cf_connect"
"""Where the query has what a client says first, if it can say nothing else then (protocol.md 1.5, 1.6)."""
HandlerPath = Annotated[str, Field(pattern=r"^(/[^/?#{}%\s]+)+$")]
"""The path of an endpoint."""


class UniWebSocketSettings(Settings):
    """`uni_websocket`: a WebSocket for clients that only listen; its framing is as `websocket` says."""

    enabled: bool = False
    """Serve it."""
    handler_prefix: HandlerPath = "/connection/uni_websocket"
    """Its path."""
    join_push_messages: bool = False
    """Send what one loop turn brings in as few frames as it needs, a value a line; else each push is a frame."""


def is_plain(path: str) -> bool:
    """Tell whether *path* is one of the plain protocol."""
    return path == PLAIN_PATH or path.startswith(f"{PLAIN_PATH}/")


def websocket_routes(uni: UniWebSocketSettings, *, has_plain: bool) -> list[str]:
    """Return the paths of WebSockets, in the form in which routes have parameters."""
    plain = [PLAIN_PATH, f"{PLAIN_PATH}/{{channel:path}}"] if has_plain else []
    return [CLIENT_PATH, *plain, *([uni.handler_prefix] if uni.enabled else [])]


def collisions(paths: Mapping[str, str], *, has_plain: bool) -> Iterator[str]:
    """Say which of the *paths* that tables of the configuration want, by their names, are taken already."""
    taken = {CLIENT_PATH: "WebSocket clients"}
    for table, path in paths.items():
        owner = "plain" if has_plain and is_plain(path) else taken.setdefault(path, table)
        if owner != table:
            yield f"{table}.handler_prefix = {path!r}: is taken by {owner}"
