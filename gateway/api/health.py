"""What orchestrators and balancers ask a node: whether it has started, whether it lives, whether to send it clients."""

from collections.abc import Mapping
from typing import Any, Protocol

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route


class Health(Protocol):
    """What is asked of a node."""

    def unstarted_because(self) -> str | None:
        """Say why it has not started yet."""

    def dead_because(self) -> str | None:
        """Say which of its tasks is dead or hangs, so that only a restart helps."""

    def tasks(self) -> Mapping[str, str]:
        """Say `ok` or what is wrong of each task that it lives by."""

    def unready_because(self) -> str | None:
        """Say why no new connections should come."""

    def report(self) -> Mapping[str, Any]:
        """Say how each check of its readiness stands."""


def health_routes(health: Health) -> list[Route]:
    """Return `/startupz`, `/livez` and `/readyz`: 200, or 503 with the reason; `?verbose` says more of the last two."""

    async def startupz(_request: Request) -> Response:
        return _plain(health.unstarted_because())

    async def livez(request: Request) -> Response:
        reason = health.dead_because()
        if "verbose" in request.query_params:
            return _json({"alive": reason is None, "reason": reason, "tasks": health.tasks()}, reason)
        return _plain(reason)

    async def readyz(request: Request) -> Response:
        reason = health.unready_because()
        if "verbose" in request.query_params:
            return _json({"ready": reason is None, "reason": reason, **health.report()}, reason)
        return _plain(reason)

    return [Route("/startupz", startupz), Route("/livez", livez), Route("/readyz", readyz)]


def _status(reason: str | None) -> int:
    return 200 if reason is None else 503


def _plain(reason: str | None) -> Response:
    return PlainTextResponse(f"{reason or 'ok'}\n", _status(reason))


def _json(values: Mapping[str, Any], reason: str | None) -> Response:
    return JSONResponse(values, _status(reason))
