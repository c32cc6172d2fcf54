"""The server API as an application: the hot methods straight from ASGI, the others and the documentation by FastAPI.

The documentation (OpenAPI at `/openapi.json`, a page at `/docs`) is made from the typed calls and results, of the hot
methods, too. The page's script and style come with a package, so that it works where there is no internet, and under a
policy that lets nothing come from elsewhere.
"""

from collections.abc import Awaitable, Callable
from functools import cache
from importlib.resources import files
from typing import Any, Final

from fastapi import FastAPI, Request, Security
from fastapi.openapi.utils import get_openapi
from fastapi.security import APIKeyHeader, APIKeyQuery, HTTPBearer
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway import __version__
from gateway.api.counting import ROUTED_PATH
from gateway.api.examples import EXAMPLES
from gateway.api.requests import ERROR_MODE_HEADER, KEY_HEADER, KEY_PARAMETER
from gateway.api.schemas import components, reference
from gateway.api.server import HOT, PREFIX, REASON_HEADER, STATUSES, Answer, ServerAPI, respond
from gateway.messaging.batches import BATCH, METHODS
from gateway.protocol import server_results
from gateway.protocol.messages import Empty, RPCResult
from gateway.protocol.server_api import APIError, BatchCall
from gateway.protocol.server_results import BatchResult

_PAGE: Final = files("gateway.api") / "docs"
_ASSETS: Final = files("fastapi_swagger") / "resources"
_DOCS: Final = "/docs"
_SCHEMA: Final = "/openapi.json"
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS: Final = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}
_HOT_PATHS: Final = {f"{PREFIX}{name}": name for name in HOT}
_RESULTS: Final[dict[str, type[Any]]] = {
    "publish": server_results.PublishResult,
    "broadcast": server_results.BroadcastResult,
    "presence": server_results.PresenceResult,
    "presence_stats": server_results.PresenceStatsResult,
    "history": server_results.ReadHistory,
    "info": server_results.InfoResult,
    "channels": server_results.ChannelsResult,
    "rpc": RPCResult,
    "connections": server_results.ConnectionsResult,
    "drain": server_results.DrainResult,
}
"""What methods answer with, where it is not `{}`."""
_ABOUT: Final = f"""\
Publish to clients, act on their connections, ask who is where. Every call is a `POST` of a JSON object to
`{PREFIX}<method>`, with a key (`http_api.keys`) in one of the ways below. The answer is `200` with `{{"result": …}}` or
`{{"error": {{"code": …, "message": …}}}}`; what was wrong is said in the header `{REASON_HEADER}`. With the header
`{ERROR_MODE_HEADER}: transport`, or `http_api.error_mode = "transport"`, an error is a status of its own with
`{{"code": …, "message": …}}`. Unknown fields are ignored.
"""


class APIApplication:
    """Serves the paths of the API, and hands all others to *rest*; with *has_documentation* also `/docs`."""

    def __init__(self, api: ServerAPI, rest: ASGIApp, *, has_documentation: bool) -> None:
        self._api = api
        self._rest = rest
        self._own = _framework(api, has_documentation=has_documentation)
        self._has_documentation = has_documentation

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._rest(scope, receive, send)
            return
        path: str = scope["path"]
        root: str = scope.get("root_path", "")
        if root:  # mounted in another application
            path = path.removeprefix(root)
        name = _HOT_PATHS.get(path)
        if name is not None and scope["method"] == "POST":
            scope[ROUTED_PATH] = path
            await respond(send, await self._api.answer(name, scope, receive))
        elif path.startswith(PREFIX) or (self._has_documentation and _is_documentation(path)):
            await self._own(scope, receive, send)
        else:
            await self._rest(scope, receive, send)


def _is_documentation(path: str) -> bool:
    return path in {_DOCS, _SCHEMA} or path.startswith(f"{_DOCS}/")


def _framework(api: ServerAPI, *, has_documentation: bool) -> FastAPI:
    app = FastAPI(
        title="gateway",
        version=__version__,
        description=_ABOUT,
        openapi_url=_SCHEMA if has_documentation else None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        exception_handlers={404: _plain, 405: _plain},
    )
    app.state.api = api
    # They document how a key is shown; `ServerAPI` reads it.
    shown = [
        Security(APIKeyHeader(name=KEY_HEADER, scheme_name="header", auto_error=False)),
        Security(HTTPBearer(scheme_name="bearer", auto_error=False)),
        Security(APIKeyQuery(name=KEY_PARAMETER, scheme_name="query", auto_error=False)),
    ]
    for name in (*METHODS, BATCH):
        call = METHODS[name].call if name in METHODS else BatchCall
        app.add_api_route(
            f"{PREFIX}{name}",
            _endpoint(name),
            methods=["POST"],
            operation_id=name,
            summary=_sentence(call),
            description=_description(name, call),
            dependencies=shown,
            response_class=Response,
            responses=_responses(name),
            openapi_extra={"requestBody": _request_body(name, call)},
        )
    if has_documentation:
        app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]  # FastAPI's documented way to extend it
        app.add_route(_DOCS, _page)
        app.add_route(f"{_DOCS}/{{name}}", _asset)
    return app


@cache
def _endpoint(name: str) -> Callable[[Request], Awaitable[Response]]:
    """Return what answers *name* in any application: FastAPI remembers an endpoint, and all it refers to, for good."""

    async def endpoint(request: Request) -> Response:
        api: ServerAPI = request.app.state.api
        answer: Answer = await api.answer(name, request.scope, request.receive)
        response = Response(answer.body, answer.status)
        response.raw_headers.extend(answer.headers)
        return response

    return endpoint


async def _plain(_request: Request, error: Any) -> Response:
    help_text = {404: f"No such method: there is {', '.join((*METHODS, BATCH))}.\n", 405: "Calls are sent by POST.\n"}
    return PlainTextResponse(help_text[error.status_code], error.status_code, error.headers)


# The documentation.


async def _page(_request: Request) -> Response:
    return Response((_PAGE / "page.html").read_bytes(), media_type="text/html", headers=_HEADERS)


async def _asset(request: Request) -> Response:
    name = request.path_params["name"]
    kinds = {
        "start.js": (_PAGE, "text/javascript"),
        "swagger-ui-bundle.js": (_ASSETS, "text/javascript"),
        "swagger-ui.css": (_ASSETS, "text/css"),
        "favicon-32x32.png": (_ASSETS, "image/png"),
    }
    if name not in kinds:
        return PlainTextResponse("No such file.\n", 404)
    folder, kind = kinds[name]
    return Response((folder / name).read_bytes(), media_type=kind, headers=_HEADERS)


def _openapi(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema is None:
        schema = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        calls = [method.call for method in METHODS.values()]
        types: list[type[Any]] = [BatchCall, BatchResult, APIError, Empty, *calls, *_RESULTS.values()]
        schema.setdefault("components", {})["schemas"] = components(types)
        app.openapi_schema = schema
    return app.openapi_schema


def _sentence(call: type[Any]) -> str:
    return (call.__doc__ or "").splitlines()[0].partition(".")[0].partition(":")[0]


def _description(name: str, call: type[Any]) -> str:
    scope = METHODS[name].scope.value if name in METHODS else None
    needs = f"Needs the scope `{scope}`." if scope else "Each command needs the scope of its own method."
    text = " ".join((call.__doc__ or "").split()).replace("*", "`")
    return f"{text}\n\n{needs}"


def _request_body(name: str, call: type[Any]) -> dict[str, Any]:
    examples = {title: {"value": value} for title, value in EXAMPLES[name].items()}
    schema = reference(call)
    return {"required": True, "content": {"application/json": {"schema": schema, "examples": examples}}}


def _responses(name: str) -> dict[int | str, dict[str, Any]]:
    error = reference(APIError)
    if name == BATCH:
        schema: dict[str, Any] = reference(BatchResult)
    else:
        result = reference(_RESULTS.get(name, Empty))
        schema = {
            "oneOf": [
                {"type": "object", "properties": {"result": result}, "required": ["result"]},
                {"type": "object", "properties": {"error": error}, "required": ["error"]},
            ]
        }
    text = {"text/plain": {"schema": {"type": "string"}}}
    responses: dict[int | str, dict[str, Any]] = {
        200: {"description": "Carried out, or refused", "content": {"application/json": {"schema": schema}}},
        400: {"description": "No call: not JSON, or of other types", "content": dict(text)},
        401: {"description": "No key, or a wrong one"},
        413: {"description": "Too long", "content": dict(text)},
    }
    if name != BATCH:
        responses[403] = {"description": "The key has not the scope", "content": dict(text)}
        for status in sorted(set(STATUSES.values())):
            response = responses.setdefault(status.value, {"description": "Error mode `transport`", "content": {}})
            response["content"]["application/json"] = {"schema": error}
    return responses
