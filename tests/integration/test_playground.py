"""The playground of a dev node, in a real browser."""

import shutil
from collections.abc import AsyncIterator
from typing import Protocol

import pytest
from playwright.async_api import (
    Browser,
    ConsoleMessage,
    Error,
    Page,
    WebSocketRoute,
    async_playwright,
    expect,
)

_CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome")
_CHROMIUM_ARGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
# Generous, since it only bounds a failing test: reconnecting waits for its backoff.
_PATIENCE_MS = 15_000

expect.set_options(timeout=_PATIENCE_MS)


class _DevNode(Protocol):
    url: str


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    path = next(filter(None, map(shutil.which, _CHROMIUM_NAMES)), None)
    if path is None:
        pytest.fail("There is no Chromium on this machine: run tests/support/install-tools.")
    async with async_playwright() as playwright:
        launched = await playwright.chromium.launch(executable_path=path, args=_CHROMIUM_ARGS)
        try:
            yield launched
        finally:
            await launched.close()


class _Complaints:
    """Whatever the pages reported as an error: exceptions, CSP violations, failed requests."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def watch(self, page: Page) -> None:
        page.on("console", self._heard_console)
        page.on("pageerror", self._heard_exception)

    def _heard_console(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self.seen.append(message.text)

    def _heard_exception(self, error: Error) -> None:
        self.seen.append(str(error))


@pytest.fixture
def complaints() -> _Complaints:
    return _Complaints()


async def _open_page(browser: Browser, node: _DevNode, complaints: _Complaints, *, width: int = 1280) -> Page:
    """Open the playground as a visitor of its own and return it once it is subscribed."""
    context = await browser.new_context(viewport={"width": width, "height": 860})
    page = await context.new_page()
    complaints.watch(page)
    await page.goto(f"{node.url}/")
    await _expect_state(page, "connected")
    return page


async def _expect_state(page: Page, state: str) -> None:
    await expect(page.locator("#status")).to_have_attribute("data-state", state)


async def _say(page: Page, name: str, text: str) -> None:
    await page.fill("#chat-name", name)
    await page.fill("#chat-text", text)
    await page.press("#chat-text", "Enter")


async def _click(page: Page, button: str, *, times: int) -> None:
    for _ in range(times):
        await page.click(button)


async def test_two_pages_chat_and_markup_stays_text(browser: Browser, node: _DevNode, complaints: _Complaints) -> None:
    ada = await _open_page(browser, node, complaints)
    grace = await _open_page(browser, node, complaints)
    markup = "<b>bold</b><img src=x onerror=alert(1)>"

    await _say(ada, "Ada", "Anybody here?")
    await expect(grace.locator("#chat-list li p")).to_have_text(["Anybody here?"])
    await _say(grace, "Grace <i>", markup)

    for page in (ada, grace):
        await expect(page.locator("#chat-list li p")).to_have_text(["Anybody here?", markup])
        await expect(page.locator("#chat-list li b")).to_have_text(["Ada", "Grace <i>"])
    await expect(ada.locator("#chat-list li.mine p")).to_have_text(["Anybody here?"])
    await expect(grace.locator("#chat-list li.mine p")).to_have_text([markup])
    await expect(ada.locator("#latency")).to_contain_text("ms")
    assert complaints.seen == []


async def test_the_counter_converges_after_interleaved_clicks(
    browser: Browser, node: _DevNode, complaints: _Complaints
) -> None:
    first = await _open_page(browser, node, complaints)
    second = await _open_page(browser, node, complaints)

    # Not one page after the other: each click is made before the other page's last one is known.
    for _ in range(5):
        await _click(first, "#counter-up", times=2)
        await _click(second, "#counter-down", times=1)
        await _click(second, "#counter-up", times=3)

    late = await _open_page(browser, node, complaints)
    for page in (first, second, late):
        await expect(page.locator("#counter-value")).to_have_text("20")
    await _click(late, "#counter-down", times=21)
    for page in (first, second, late):
        await expect(page.locator("#counter-value")).to_have_text("−1")  # noqa: RUF001 (a true minus sign)
    assert complaints.seen == []


async def test_a_page_of_400_pixels_needs_no_horizontal_scrolling(
    browser: Browser, node: _DevNode, complaints: _Complaints
) -> None:
    page = await _open_page(browser, node, complaints, width=400)

    await _say(page, "N" * 32, "x" * 300)
    await expect(page.locator("#chat-list li")).to_have_count(1)
    await page.click("#frames summary")
    await expect(page.locator("#frame-list li").first).to_be_visible()

    surplus = await page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
    assert surplus == 0
    for control in ("#chat-send", "#counter-down", "#counter-up"):
        await expect(page.locator(control)).to_be_visible()
    assert complaints.seen == []


async def test_a_keyboard_is_enough(browser: Browser, node: _DevNode, complaints: _Complaints) -> None:
    page = await _open_page(browser, node, complaints)

    await page.focus("#chat-name")
    await page.keyboard.press("Tab")
    await page.keyboard.type("Typed")
    await page.keyboard.press("Tab")
    await page.keyboard.press("Space")
    await expect(page.locator("#chat-list li p")).to_have_text(["Typed"])
    await page.focus("#counter-down")
    await page.keyboard.press("Enter")
    await page.keyboard.press("Tab")
    await page.keyboard.press("Space")
    await page.keyboard.press("Space")
    await expect(page.locator("#counter-value")).to_have_text("1")
    assert complaints.seen == []


async def test_a_terminal_disconnect_is_told_and_waits_for_the_reader(
    browser: Browser, node: _DevNode, complaints: _Complaints
) -> None:
    page = await _open_page(browser, node, complaints)
    await _disconnect_first_of_two(page, code=3503, reason="force disconnect")
    await page.reload()

    await _expect_state(page, "stopped")
    await expect(page.locator("#problems")).to_contain_text("force disconnect (code 3503)")
    await page.click("#connect-again")
    await _expect_state(page, "connected")
    await expect(page.locator("#problems")).to_be_empty()
    assert complaints.seen == []


async def test_a_shutdown_is_survived_without_the_reader(
    browser: Browser, node: _DevNode, complaints: _Complaints
) -> None:
    page = await _open_page(browser, node, complaints)
    await _disconnect_first_of_two(page, code=3001, reason="shutdown")
    await page.reload()

    await _expect_state(page, "connected")
    await _say(page, "Ada", "Back again")
    await expect(page.locator("#chat-list li p")).to_have_text(["Back again"])
    await expect(page.locator("#frame-list")).to_contain_text("Back again")
    assert complaints.seen == []


async def _disconnect_first_of_two(page: Page, *, code: int, reason: str) -> None:
    """Close the next connection of *page* with *code*; later ones reach the node."""
    pending = [(code, reason)]

    async def answer(socket: WebSocketRoute) -> None:
        if pending:
            close_code, close_reason = pending.pop()
            await socket.close(code=close_code, reason=close_reason)
        else:
            socket.connect_to_server()

    await page.route_web_socket("**/connection/websocket", answer)
