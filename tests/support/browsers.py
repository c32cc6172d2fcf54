"""A real browser for tests, and whatever its pages complain of."""

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import pytest
from playwright.async_api import Browser, ConsoleMessage, Error, Page, Request, async_playwright

_NAMES: Final = ("chromium", "chromium-browser", "google-chrome")
_ARGS: Final = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@asynccontextmanager
async def running_browser() -> AsyncIterator[Browser]:
    """Run the system's Chromium, headless, until the block ends."""
    path = next(filter(None, map(shutil.which, _NAMES)), None)
    if path is None:
        pytest.fail("There is no Chromium on this machine: run tests/support/install-tools.")
    async with async_playwright() as playwright:
        launched = await playwright.chromium.launch(executable_path=path, args=_ARGS)
        try:
            yield launched
        finally:
            await launched.close()


class Complaints:
    """Whatever a page reported as an error (exceptions, CSP violations, failed requests), and where it went."""

    def __init__(self, page: Page) -> None:
        self.seen: list[str] = []
        self.requests: list[str] = []
        page.on("console", self._heard_console)
        page.on("pageerror", self._heard_exception)
        page.on("request", self._saw_request)

    def _heard_console(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self.seen.append(message.text)

    def _heard_exception(self, error: Error) -> None:
        self.seen.append(str(error))

    def _saw_request(self, request: Request) -> None:
        self.requests.append(request.url)
