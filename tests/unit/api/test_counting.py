"""Requests are counted under the path of their route, which nobody can invent."""

from collections import Counter
from collections.abc import MutableMapping
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route, Router

from gateway.api.counting import CountedApp


async def answer(_request: Request) -> Response:
    return PlainTextResponse("ok")


async def pages(_scope: Any, _receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 304, "headers": []})
    await send({"type": "http.response.body", "body": b""})


APP = Starlette(
    routes=[
        Route("/livez", answer),
        Route("/ws/{channel:path}", answer),
        Mount("/pages", pages),
        Mount("/api", Router(routes=[Route("/publish", answer, methods=["POST"])])),
    ]
)


@pytest.mark.parametrize(
    ("method", "path", "counted"),
    [
        ("GET", "/livez", ("/livez", "GET", 200)),
        ("HEAD", "/livez", ("/livez", "HEAD", 200)),
        ("POST", "/livez", ("/livez", "POST", 405)),
        ("PROPFIND", "/livez", ("/livez", "other", 405)),
        ("GET", "/ws/a", ("/ws/{channel:path}", "GET", 200)),
        ("GET", "/ws/b/c", ("/ws/{channel:path}", "GET", 200)),
        ("GET", "/pages/x.js", ("/pages", "GET", 304)),
        ("POST", "/api/publish", ("/api/publish", "POST", 200)),
        ("GET", "/api/none", ("/api", "GET", 404)),
        ("GET", "/wp-login.php", ("other", "GET", 404)),
    ],
)
@pytest.mark.parametrize("root", ["", "/realtime"])
async def test_a_request_is_counted_by_the_route_that_served_it(
    root: str, method: str, path: str, counted: tuple[str, str, int]
) -> None:
    requests: Counter[tuple[str, str, str, int]] = Counter()
    scope = {
        "type": "http",
        "method": method,
        "path": root + path,
        "root_path": root,
        "headers": [],
        "query_string": b"",
    }
    sent: list[MutableMapping[str, Any]] = []

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    await CountedApp(APP, requests, port="public")(scope, receive, send)
    assert requests == {("public", *counted): 1}
    assert sent[0]["status"] == counted[2]


async def test_what_is_no_request_passes_uncounted() -> None:
    requests: Counter[tuple[str, str, str, int]] = Counter()
    seen = []

    async def app(scope: MutableMapping[str, Any], _receive: Any, _send: Any) -> None:
        seen.append(scope["type"])

    async def send(_message: MutableMapping[str, Any]) -> None:
        """Take nothing."""

    await CountedApp(app, requests, port="public")({"type": "lifespan"}, None, send)
    assert (seen, requests) == (["lifespan"], {})
