"""The example as its users meet it: by REST, by WebSocket, in a browser, as a process of its own."""

import asyncio
import contextlib
import json
import os
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.async_api import Browser, Page, async_playwright, expect
from websockets.asyncio.client import ClientConnection, connect

from gateway.asgi import create_app
from gateway.config import load
from tests.examples.temperatures.app import HERE, make_app
from tests.support.asgi_servers import Served, served
from tests.support.redis_servers import redis_server
from tests.support.waiting import until

CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM_ARGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update")

expect.set_options(timeout=15_000)


@pytest.fixture
async def server() -> AsyncIterator[Served]:
    gateway = create_app(load(HERE / "gateway.toml", flags={"log.level": "warning"}))
    async with served(make_app(gateway)) as running:
        yield running


@pytest.fixture
async def http(server: Served) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=server.url, trust_env=False) as client:
        yield client


@pytest.fixture
async def page() -> AsyncIterator[Page]:
    """A page of a real browser; whatever it complains about fails the test."""
    path = next(filter(None, map(shutil.which, CHROMIUM_NAMES)), None)
    if path is None:
        pytest.fail("There is no Chromium on this machine: run tests/support/install-tools.")
    async with async_playwright() as playwright:
        browser: Browser = await playwright.chromium.launch(executable_path=path, args=CHROMIUM_ARGS)
        page = await browser.new_page(viewport={"width": 900, "height": 600})
        complaints: list[str] = []
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        try:
            yield page
        finally:
            await browser.close()
        assert [each for each in complaints if "WebSocket connection" not in each] == []


async def post(http: httpx.AsyncClient, sensor: str, celsius: float, **headers: str) -> dict[str, Any]:
    answer = await http.post("/readings", json={"sensor": sensor, "celsius": celsius}, headers=headers)
    assert answer.status_code == 202, answer.text
    body: dict[str, Any] = answer.json()
    return body


async def listen(url: str) -> ClientConnection:
    """Subscribe, as a dashboard does."""
    client = await connect(f"{url.replace('http', 'ws')}/realtime/connection/websocket", compression=None)
    await client.send('{"id":1,"connect":{}}\n{"id":2,"subscribe":{"channel":"sensors:all"}}')
    lines: list[str] = []
    while not any('"id":2,"subscribe"' in line for line in lines):
        lines += str(await client.recv()).split("\n")
    return client


async def test_a_reading_is_checked_processed_and_pushed(http: httpx.AsyncClient, server: Served) -> None:
    listener = await listen(server.url)

    assert await post(http, "roof", 21.5) == {"offset": 1, "is_repeated": False}
    publication = json.loads(await listener.recv())["push"]["pub"]

    assert publication["data"] == {
        "sensor": "roof",
        "celsius": 21.5,
        "server_time": publication["data"]["server_time"],
    }
    assert (publication["offset"], "info" in publication) == (1, False)
    await listener.close()


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"sensor": "roof"},
        {"sensor": "roof", "celsius": 61},
        {"sensor": "<b>", "celsius": 1},
        {"sensor": "roof", "celsius": "warm"},
    ],
)
async def test_what_is_no_reading_is_refused_and_pushed_to_nobody(
    http: httpx.AsyncClient, server: Served, body: dict[str, Any]
) -> None:
    listener = await listen(server.url)

    assert (await http.post("/readings", json=body)).status_code == 422
    await post(http, "next", 1)
    assert json.loads(await listener.recv())["push"]["pub"]["data"]["sensor"] == "next"
    await listener.close()


async def test_a_reading_that_is_sent_again_counts_once(http: httpx.AsyncClient) -> None:
    first = await post(http, "roof", 1, **{"Idempotency-Key": "k1"})
    again = await post(http, "roof", 1, **{"Idempotency-Key": "k1"})
    other = await post(http, "roof", 1, **{"Idempotency-Key": "k2"})

    assert [first, again, other] == [
        {"offset": 1, "is_repeated": False},
        {"offset": 1, "is_repeated": True},
        {"offset": 2, "is_repeated": False},
    ]


async def test_dashboards_may_listen_and_nothing_else(server: Served) -> None:
    listener = await listen(server.url)

    await listener.send('{"id":3,"publish":{"channel":"sensors:all","data":{"sensor":"x","celsius":0}}}')
    assert json.loads(await listener.recv()) == {"id": 3, "error": {"code": 103, "message": "permission denied"}}
    await listener.close()


async def test_a_dashboard_shows_what_came_before_and_what_comes(
    page: Page, http: httpx.AsyncClient, server: Served, tmp_path: Path
) -> None:
    for celsius in (20.5, 21, 20, 23.25):
        await post(http, "roof", celsius)
    await post(http, "cellar", 12)
    await page.goto(server.url)
    cards = page.locator("#sensors li")
    await expect(page.locator("#status")).to_have_text("live")
    await expect(cards.locator("h2")).to_have_text(["roof", "cellar"])
    await expect(cards.locator("output")).to_have_text(["23.3 °C", "12.0 °C"])

    await post(http, "cellar", 11.5)
    await post(http, "garden", -3)

    await expect(cards.locator("h2")).to_have_text(["roof", "cellar", "garden"])
    await expect(cards.locator("output")).to_have_text(["23.3 °C", "11.5 °C", "-3.0 °C"])
    await expect(page.locator("#empty")).to_be_hidden()
    points = [len((await line.get_attribute("points") or "").split()) for line in await cards.locator("polyline").all()]
    assert points == [4, 2, 1]
    await page.screenshot(path=os.environ.get("DASHBOARD_SCREENSHOT") or tmp_path / "dashboard.png")


async def test_a_dashboard_comes_back_with_the_server_and_misses_nothing(page: Page) -> None:
    async with redis_server() as redis, asyncio.timeout(50):
        flags = {"log.level": "warning", "broker.type": "redis", "redis.address": redis.location}
        gateway = create_app(load(HERE / "gateway.toml", flags=flags))
        async with served(make_app(gateway)) as server, httpx.AsyncClient(base_url=server.url, trust_env=False) as http:
            await until(lambda: gateway.runtime.engine.trouble is None, "Redis is reached")
            await post(http, "roof", 1)
            await page.goto(server.url)
            await expect(page.locator("#sensors output")).to_have_text(["1.0 °C"])
            port = int(server.url.rpartition(":")[2])
        await expect(page.locator("#status")).to_have_text("connecting")
        async with served(make_app(gateway), port=port) as server:
            await until(lambda: gateway.runtime.engine.trouble is None, "Redis is reached")
            async with httpx.AsyncClient(base_url=server.url, trust_env=False) as http:
                await post(http, "roof", 2)
            await expect(page.locator("#status")).to_have_text("live")
            await expect(page.locator("#sensors output")).to_have_text(["2.0 °C"])
            line = await page.locator("#sensors polyline").get_attribute("points")
            assert len((line or "").split()) == 2, "each reading once"


async def test_it_runs_as_its_first_lines_say() -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "uvicorn", "--port", "0", "tests.examples.temperatures.app:app"),
        cwd=HERE.parents[2],
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    lines: list[str] = []
    try:
        assert process.stderr is not None
        async with asyncio.timeout(30):
            while not any("Uvicorn running on" in line for line in lines):
                line = await process.stderr.readline()
                assert line, f"it ended and said {lines}"
                lines.append(line.decode())
        url = lines[-1].partition("running on ")[2].split()[0]
        async with httpx.AsyncClient(base_url=url, trust_env=False) as http:
            assert await post(http, "roof", 21.5) == {"offset": 1, "is_repeated": False}
            assert "Temperatures" in (await http.get("/")).text
        process.terminate()
        async with asyncio.timeout(15):
            rest = (await process.stderr.read()).decode()
            await process.wait()
        assert "Application shutdown complete" in rest
        assert "Traceback" not in rest
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
