"""What the health endpoints answer, from what a node says of itself."""

from collections.abc import Mapping
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from gateway.api.health import health_routes


class Said:
    """A node that says what it is told to."""

    def __init__(self, reason: str | None = None) -> None:
        self.reason = reason

    def unstarted_because(self) -> str | None:
        return self.reason

    def dead_because(self) -> str | None:
        return self.reason

    def unready_because(self) -> str | None:
        return self.reason

    def tasks(self) -> Mapping[str, str]:
        return {"cluster": self.reason or "ok"}

    def report(self) -> Mapping[str, Any]:
        return {"broker": "ok"}


async def get(health: Said, path: str) -> httpx.Response:
    transport = httpx.ASGITransport(Starlette(routes=health_routes(health)))
    async with httpx.AsyncClient(transport=transport, base_url="http://node") as client:
        return await client.get(path)


@pytest.mark.parametrize("path", ["/startupz", "/livez", "/readyz"])
async def test_an_answer_is_ok_or_the_reason(path: str) -> None:
    answers = [await get(Said(), path), await get(Said("silent for 31 s"), path)]
    assert [(each.status_code, each.text) for each in answers] == [(200, "ok\n"), (503, "silent for 31 s\n")]


@pytest.mark.parametrize(
    ("path", "good", "bad"),
    [
        (
            "/livez?verbose",
            {"alive": True, "reason": None, "tasks": {"cluster": "ok"}},
            {"alive": False, "reason": "x", "tasks": {"cluster": "x"}},
        ),
        (
            "/readyz?verbose=1",
            {"ready": True, "reason": None, "broker": "ok"},
            {"ready": False, "reason": "x", "broker": "ok"},
        ),
    ],
)
async def test_a_verbose_answer_has_the_same_status_and_says_more(
    path: str, good: Mapping[str, Any], bad: Mapping[str, Any]
) -> None:
    answers = [await get(Said(), path), await get(Said("x"), path)]
    assert [(each.status_code, each.json()) for each in answers] == [(200, good), (503, bad)]
