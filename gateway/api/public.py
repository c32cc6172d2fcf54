"""The public port's plain HTTP: the playground, a warm-up endpoint, and help for who lost the way."""

from importlib.resources import files
from typing import Final

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route

from gateway.api.static import FreshFiles

_CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self' ws: wss:; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_PLAYGROUND: Final = files("gateway.api") / "playground"


def public_app(*, websocket_paths: list[str], has_playground: bool, has_init: bool) -> Starlette:
    """Return the application for requests on the public port that are no WebSocket."""
    routes: list[Route | Mount] = [Route(path, _upgrade_required) for path in websocket_paths]
    if has_init:
        routes.append(Route("/connection/init", _init))
    if has_playground:
        routes.append(Route("/", _playground))
        routes.append(Mount("/playground", FreshFiles(directory=str(_PLAYGROUND))))
    endpoints = " or ".join(path.replace("{channel:path}", "<channel>") for path in websocket_paths)
    help_text = f"Nothing here. WebSocket clients connect to {endpoints}.\n"

    async def not_found(_request: Request, _error: Exception) -> Response:
        return PlainTextResponse(help_text, 404)

    return Starlette(routes=routes, exception_handlers={404: not_found})


async def _upgrade_required(_request: Request) -> Response:
    text = "This is a WebSocket endpoint: connect with a WebSocket client (ws:// or wss://).\n"
    return PlainTextResponse(text, 426, headers={"Upgrade": "websocket", "Connection": "Upgrade"})


async def _init(_request: Request) -> Response:
    return JSONResponse({})


async def _playground(_request: Request) -> Response:
    page = (_PLAYGROUND / "index.html").read_bytes()
    headers = {
        "Content-Security-Policy": _CONTENT_SECURITY_POLICY,
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "no-cache",
    }
    return Response(page, media_type="text/html", headers=headers)
