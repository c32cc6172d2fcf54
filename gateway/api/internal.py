"""The internal port: health and metrics."""

from collections.abc import Callable

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from gateway.observability.metrics.text import Page


def internal_app(
    *,
    unready_because: Callable[[], str | None],
    broker_trouble: Callable[[], str | None],
    render_metrics: Callable[[str], Page],
) -> Starlette:
    """Return the application of the internal port.

    *unready_because* says in a few words why the node should get no new connections, or `None` when it should;
    *broker_trouble* what keeps its broker from working, which for a while is no reason; *render_metrics* writes the
    metrics in the form that an `Accept` header asks for.
    """

    async def livez(_request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(request: Request) -> Response:
        reason = unready_because()
        status = 503 if reason else 200
        if "verbose" in request.query_params:
            return JSONResponse({"ready": reason is None, "reason": reason, "broker": broker_trouble() or "ok"}, status)
        return PlainTextResponse(f"{reason or 'ok'}\n", status)

    async def metrics(request: Request) -> Response:
        page = render_metrics(request.headers.get("accept", ""))
        return Response(page.body, headers={"Content-Type": page.content_type})

    return Starlette(routes=[Route("/livez", livez), Route("/readyz", readyz), Route("/metrics", metrics)])
