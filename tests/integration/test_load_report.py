"""The report of a load test, in a real browser."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import Browser

from loadtest.reporting import write_report
from tests.support.browsers import running_browser
from tests.support.load_runs import RUN

_CHARTS = 9


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with running_browser() as launched:
        yield launched


@pytest.mark.parametrize(("width", "shown"), [(1280, "large"), (400, "small")])
@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_a_report_opens_without_a_complaint_asks_nobody_and_fits(
    browser: Browser, tmp_path: Path, width: int, shown: str, scheme: str
) -> None:
    page_file, _ = write_report(RUN, name="run", folder=tmp_path)
    context = await browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme="dark" if scheme == "dark" else "light"
    )
    page = await context.new_page()
    complaints: list[str] = []
    requests: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))

    await page.goto(page_file.as_uri())

    assert complaints == []
    assert [url for url in requests if not url.startswith("data:")] == [page_file.as_uri()]
    assert await page.locator(".verdict").text_content() == "failed"
    assert await page.locator(f"figure .{shown} svg:visible").count() == _CHARTS
    assert await page.locator("figure div svg:visible").count() == _CHARTS
    for chart in await page.locator(f"figure .{shown} svg").all():
        assert await chart.locator("path.line").count() >= 1
        assert await chart.locator("text.tick").count() >= 4
    boxes = [await line.bounding_box() for line in await page.locator(f"figure .{shown} path.line").all()]
    assert max(box["width"] for box in boxes if box) > width / 3 - 30
    assert await page.evaluate("document.documentElement.scrollWidth - window.innerWidth") == 0
    background = await page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == ("rgb(22, 24, 26)" if scheme == "dark" else "rgb(251, 251, 250)")
