"""The internal port: health, metrics and the admin page."""

from collections.abc import Callable, Sequence

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from gateway.api.health import Health, health_routes
from gateway.observability.metrics.text import Page


def internal_app(
    health: Health, *, render_metrics: Callable[[str], Page], admin: Sequence[BaseRoute] = ()
) -> Starlette:
    """Return the application of the internal port.

    *render_metrics* writes the metrics in the form that an `Accept` header asks for; *admin* is the admin page.
    """

    async def metrics(request: Request) -> Response:
        page = render_metrics(request.headers.get("accept", ""))
        return Response(page.body, headers={"Content-Type": page.content_type})

    return Starlette(routes=[*health_routes(health), Route("/metrics", metrics), *admin])
