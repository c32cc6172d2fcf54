"""Counts HTTP requests by port, path, method and status; a path is that of the route, so that nobody can invent one."""

from collections import Counter
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from starlette.routing import Mount

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"})
_OTHER: Final = "other"
ROUTED_PATH: Final = "gateway.path"
"""Where an application without routes writes which of its paths it serves, into the scope."""

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Any, Send], Awaitable[None]]


class CountedApp:
    """An application whose requests are counted in *requests*, as those of *port*."""

    def __init__(self, app: App, requests: Counter[tuple[str, str, str, int]], *, port: str) -> None:
        self._app = app
        self._requests = requests
        self._port = port

    async def __call__(self, scope: Scope, receive: Any, send: Send) -> None:
        """Serve one request and count it when its response begins."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        root = scope.get("root_path", "")

        def counted(message: Message) -> Awaitable[None]:
            if message["type"] == "http.response.start":
                method = scope["method"]
                named = method if method in _METHODS else _OTHER
                self._requests[self._port, _path(scope, root), named, message["status"]] += 1
            return send(message)

        await self._app(scope, receive, counted)


def _path(scope: Scope, root: str) -> str:
    """Return the path of the route that was found below *root*, with what mounted applications add to it."""
    route = scope.get("route")
    path = getattr(route, "path", None)
    if path is None:
        return str(scope.get(ROUTED_PATH, _OTHER))
    mounted = scope.get("root_path", "").removeprefix(root)
    return str(path) if isinstance(route, Mount) or not mounted else f"{mounted}{path}"
