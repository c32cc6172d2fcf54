"""The admin page in a real browser, and at its doors without one."""

import asyncio
import contextlib
import itertools
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

import httpx
import jwt
import pytest
import websockets
from playwright.async_api import Browser, Page, expect

from gateway.api.admin import pages
from gateway.api.admin.sessions import COOKIE
from gateway.api.keys import HTTPAPISettings
from gateway.client import Client
from gateway.messaging.control import Figures, NodeInfo
from tests.support.browsers import Complaints, running_browser
from tests.support.clusters import redis_table
from tests.support.nodes import SECRET, RunningNode, running_node
from tests.support.redis_servers import redis_server
from tests.support.waiting import until

KEY = "a key of the tests, long and random"
OPEN = {
    "allow_subscribe_for_client": True,
    "allow_publish_for_client": True,
    "allow_subscribe_for_anonymous": True,
    "allow_publish_for_anonymous": True,
}
TABLE: dict[str, Any] = {
    "node": {"name": "node <1>", "announce_interval": "500ms"},
    "http_api": {
        "keys": [
            {"name": "ops", "key": KEY},
            {"name": "reader", "key": "a key that only reads", "scopes": ["read"]},
        ]
    },
    "channel": {
        "namespaces": [
            {"name": "news", **OPEN, "history_size": 10, "history_ttl": "1m", "presence": True, "join_leave": True},
            {"name": "lobby", **OPEN},
            {"name": "binary", **OPEN, "publication_data_format": "binary"},
        ]
    },
}
MARKUP = "<img src=x onerror=alert(1)>"
# Generous, since it only bounds a failing test.
expect.set_options(timeout=15_000)


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with running_browser() as browser:
        yield browser


@pytest.fixture
async def served() -> AsyncIterator[RunningNode]:
    async with running_node(TABLE) as node:
        yield node


def token(user: str) -> str:
    """Return a connection token of *user*."""
    return jwt.encode({"sub": user}, SECRET, algorithm="HS256")


class Visitor:
    """Somebody with a browser."""

    def __init__(self, page: Page, node: RunningNode) -> None:
        self.page = page
        self.base = f"{node.internal_url}/admin"
        self.host = node.internal_url
        self.complaints = Complaints(page)

    async def log_in(self, key: str = KEY) -> None:
        await self.page.goto(self.base)
        await self.page.fill("#key", key)
        await self.page.press("#key", "Enter")

    async def open(self, path: str) -> None:
        await self.page.goto(self.base + path)
        await expect(self.page.locator("#status")).to_have_attribute("data-state", "connected")

    def is_content(self) -> None:
        """Check that no page complained and none asked anything of another host."""
        assert self.complaints.seen == []
        assert [url for url in self.complaints.requests if not url.startswith(self.host)] == []


@asynccontextmanager
async def visiting(browser: Browser, node: RunningNode, *, width: int = 1280) -> AsyncIterator[Visitor]:
    """Log somebody in."""
    context = await browser.new_context(viewport={"width": width, "height": 900})
    try:
        visitor = Visitor(await context.new_page(), node)
        await visitor.log_in()
        await expect(visitor.page.locator("#status")).to_have_attribute("data-state", "connected")
        yield visitor
    finally:
        await context.close()


# In the browser.


async def test_who_logs_in_sees_figures_move_and_who_logs_out_does_not(browser: Browser, served: RunningNode) -> None:
    async with visiting(browser, served) as ops, Client(served.client_url) as client, client.subscribe("lobby:1"):
        page = ops.page
        await expect(page.locator(".node h2")).to_have_text(["node <1>"])
        await expect(page.locator('.node [data-field="clients"]')).to_have_text("1")
        await expect(page.locator('.node [data-field="state"]')).to_have_text("ready")
        async with asyncio.TaskGroup() as tasks:
            load = tasks.create_task(_publish_for_ever(client, "lobby:1"))
            await expect(page.locator('[data-total="messages_in"]')).not_to_have_text("0/s")
            await expect(page.locator('[data-total="messages_out"]')).not_to_have_text("0/s")
            await expect(page.locator(".chart .area").first).to_have_attribute("d", re.compile(r"^M.+L.+Z$"))
            load.cancel()
        await expect(page.locator('[data-total="messages_in"]')).to_have_text("0/s")

        await page.click("text=Log out")
        await expect(page.locator("#key")).to_be_visible()
        await page.goto(f"{ops.base}/channels")
        await expect(page).to_have_url(f"{ops.base}/login")
        await until(lambda: served.node.admin_connection_count() == 0)
        ops.is_content()


async def _publish_for_ever(client: Client, channel: str) -> None:
    with contextlib.suppress(asyncio.CancelledError):
        for number in itertools.count():
            await client.publish(channel, {"n": number})
            await asyncio.sleep(0.01)


async def test_a_channel_is_found_tapped_and_published_to(browser: Browser, served: RunningNode) -> None:
    async with (
        visiting(browser, served) as ops,
        Client(served.client_url, token=token("ann")) as client,
        client.subscribe("news:today") as news,
    ):
        page = ops.page
        await ops.open("/channels")
        await page.fill("#pattern", "tod")
        await page.press("#pattern", "Enter")
        await expect(page.locator("#channels tbody tr")).to_have_text(["news:today1"])
        await page.click("text=news:today")
        await expect(page.locator("#presence-list")).to_contain_text("ann")

        await page.click("#tap")
        await expect(page.locator("#tap-state")).to_contain_text("Watching")
        await client.publish("news:today", {"price": "1.50"})
        await expect(page.locator("#tap-list code")).to_have_text(['{"price":"1.50"}'])

        await page.fill("#publish-data", '{"from": "ops", "n": 1.50}')
        await page.click("#publish-form button")
        await expect(page.locator("#publish-result")).to_contain_text("Published to news:today, at offset 2")
        received = [await anext(news.__aiter__()) for _ in range(2)]
        assert [bytes(each.data) for each in received] == [b'{"price":"1.50"}', b'{"from": "ops", "n": 1.50}']
        await expect(page.locator("#tap-list code").first).to_have_text('{"from": "ops", "n": 1.50}')

        await page.click("#history-again")
        await expect(page.locator("#history-list code")).to_have_text(
            ['{"from": "ops", "n": 1.50}', '{"price":"1.50"}']
        )
        await page.fill("#publish-data", "no JSON")
        await page.click("#publish-form button")
        await expect(page.locator("#publish-result")).to_contain_text("Not published: bad request (code 107)")
        await page.click("#tap")
        await expect(page.locator("#tap-state")).to_have_text("Stopped after 2.")
        ops.is_content()


async def test_a_tap_that_is_left_while_much_comes_says_so_for_good(browser: Browser, served: RunningNode) -> None:
    async with visiting(browser, served) as ops, Client(served.client_url, token=token("ann")) as ann:
        await ops.open("/channel?name=lobby:busy")
        await ops.page.click("#tap")
        await expect(ops.page.locator("#tap-state")).to_contain_text("Watching")

        async def flood() -> None:
            while True:
                await ann.publish("lobby:busy", 1)

        flooding = asyncio.create_task(flood())
        await expect(ops.page.locator("#tap-list")).to_contain_text("1")
        await ops.page.click("#tap")
        # Its timers run in their order: whatever the page still had to draw is drawn then.
        await ops.page.evaluate("new Promise((drawn) => setTimeout(drawn, 200))")
        flooding.cancel()
        await asyncio.wait([flooding])
        await expect(ops.page.locator("#tap")).to_have_text("Watch")
        assert (await ops.page.inner_text("#tap-state")).startswith("Stopped after ")


async def test_a_connection_is_found_and_ended(browser: Browser, served: RunningNode) -> None:
    async with (
        visiting(browser, served) as ops,
        Client(served.client_url, token=token("ann")) as ann,
        Client(served.client_url, token=token("bob")) as bob,
        ann.subscribe("news:1"),
        bob.subscribe("news:2"),
    ):
        page = ops.page
        await ops.open("/connections?user=ann")
        row = page.locator("#connections tbody tr")
        await expect(row).to_have_count(1)
        await expect(row).to_contain_text("127.0.0.1")
        await expect(row).to_contain_text("news:1")
        await page.fill("#user", "")
        await page.fill("#channel", "news:2")
        await page.press("#channel", "Enter")
        await expect(row).to_contain_text("bob")

        await row.locator("button").click()
        await expect(page.locator("#ending-whom")).to_contain_text("bob")
        await page.keyboard.press("Escape")
        await expect(page.locator("#ending")).to_be_hidden()
        assert len(served.node.connections) == 2, "who changes his mind ends nothing"

        await row.locator("button").click()
        await page.fill("#ending-reason", "enough")
        await page.click("#ending button.danger")
        await expect(page.locator("#empty")).to_be_visible()
        await until(lambda: len(served.node.connections) == 1)
        ended = [event for event in served.events if event["event"] == "closed" and event.get("user") == "bob"]
        assert [(event["code"], event["reason"]) for event in ended] == [(3503, "enough")]
        acted = [event for event in served.events if event["event"] == "admin acted"]
        assert [(event["action"], event["user"], event["whom"]) for event in acted] == [("disconnect", "ops", "bob")]
        ops.is_content()


async def test_whatever_clients_call_themselves_is_text(browser: Browser, served: RunningNode) -> None:
    channel = f"lobby:{MARKUP}"
    async with (
        visiting(browser, served) as ops,
        Client(served.client_url, token=token(MARKUP)) as client,
        client.subscribe(channel),
    ):
        page = ops.page
        await ops.open("/channels")
        await page.click(f"text={channel}")
        await expect(page.locator("#channel-title")).to_have_text(channel)
        await expect(page.locator("#presence-list")).to_contain_text(MARKUP)
        await page.click("#tap")
        await expect(page.locator("#tap-state")).to_contain_text("Watching")
        await client.publish(channel, {"text": f"</code><script>alert(1)</script>{MARKUP}"})
        await expect(page.locator("#tap-list")).to_contain_text(MARKUP)
        await expect(page.locator("#tap-list")).to_contain_text(f"by {MARKUP}")
        await ops.open(f"/connections?user={quote(MARKUP)}")
        await expect(page.locator("#connections tbody tr")).to_have_count(1)
        await expect(page.locator("#connections tbody")).to_contain_text(channel)
        await page.locator("#connections tbody button").click()
        await expect(page.locator("#ending-whom")).to_contain_text(MARKUP)
        await ops.open("/publish?channel=" + quote(f'">{MARKUP}'))
        await expect(page.locator("#publish-channel")).to_have_value(f'">{MARKUP}')
        await ops.open("/channel?name=" + quote("binary:b"))
        await page.click("#tap")
        await expect(page.locator("#tap-state")).to_contain_text("Watching")
        await _publish_bytes(served, "binary:b", b"\xff\x00")
        await expect(page.locator("#tap-list code")).to_have_text(["/wA="])
        assert await page.evaluate("document.querySelectorAll('img, script:not([type=module])').length") == 0
        ops.is_content()


async def _publish_bytes(node: RunningNode, channel: str, data: bytes) -> None:
    async with websockets.connect(f"{node.ws_url}/ws/{channel}") as socket:
        await socket.send(data)
        assert await socket.recv() == data


async def test_a_session_that_is_over_leads_to_the_login(browser: Browser, served: RunningNode) -> None:
    async with visiting(browser, served) as ops:
        served.clock.ahead_s += 13 * 3600
        await expect(ops.page).to_have_url(f"{ops.base}/login")
        await expect(ops.page.locator("#key")).to_be_visible()


async def test_a_key_that_is_taken_away_takes_its_pages_along(browser: Browser, served: RunningNode) -> None:
    async with visiting(browser, served) as ops:
        served.node.api_keys.change(HTTPAPISettings(key="another key"))
        await expect(ops.page).to_have_url(f"{ops.base}/login")


async def test_a_login_at_one_node_holds_at_all_and_reaches_the_connections_of_all(browser: Browser) -> None:
    async with (
        redis_server() as redis,
        running_node(TABLE, redis_table(redis.location)) as one,
        running_node(TABLE, redis_table(redis.location), {"node": {"name": "node2"}}) as other,
        visiting(browser, one) as ops,
        Client(other.client_url, token=token("ann")) as ann,
        ann.subscribe("news:1"),
    ):
        await expect(ops.page.locator(".node h2")).to_have_text(["node <1>", "node2"])
        await ops.page.goto(f"{other.internal_url}/admin")
        await expect(ops.page.locator("#status")).to_have_attribute("data-state", "connected")

        await ops.open("/channel?name=news:1")
        await ops.page.click("#tap")
        await expect(ops.page.locator("#tap-state")).to_contain_text("Watching")
        await ann.publish("news:1", {"from": "the other node"})
        await expect(ops.page.locator("#tap-list")).to_contain_text("the other node")
        await ops.open("/connections")
        await expect(ops.page.locator("#connections tbody tr")).to_contain_text("on node2")
        await ops.page.locator("#connections tbody button").click()
        await ops.page.click("#ending button.danger")
        await until(lambda: len(other.node.connections) == 0)


async def test_a_page_whose_node_has_stopped_says_so_and_tries_again(browser: Browser) -> None:
    async with running_node(TABLE) as node, visiting(browser, node) as ops:
        node.node.stop()
        await expect(ops.page.locator("#problems")).to_contain_text("The connection failed")
        await expect(ops.page.locator("#problems")).to_contain_text("This page reconnects by itself")
        closed = [event for event in node.events if event["event"] == "closed"]
        assert [(event["user"], event["code"]) for event in closed] == [("ops", 3001)]


async def test_charts_go_on_after_the_node_of_a_page_has_been_restarted(browser: Browser) -> None:
    """The numbers of points begin anew then, far below those that the page has seen."""
    async with visited_and_gone(browser) as (ops, port), running_node(TABLE, {"http_server": {"internal_port": port}}):
        await expect(ops.page.locator("#status")).to_have_attribute("data-state", "connected")
        await expect(ops.page.locator(".node .chart-scale").first).to_contain_text("at most")


@asynccontextmanager
async def visited_and_gone(browser: Browser) -> AsyncIterator[tuple[Visitor, int]]:
    """Have a page of a node that has run for long and is gone now; give its port, too."""
    async with contextlib.AsyncExitStack() as stack:
        async with running_node(TABLE) as node:
            port = node.node.internal_address[1]
            for number in range(1_000):
                another = NodeInfo("another", "another", "1", uptime_s=number, figures=Figures(cpu_s=number + 1))
                node.node.trends.note(another, now_s=0)
            ops = await stack.enter_async_context(visiting(browser, node))
            await expect(ops.page.locator(".node .chart-scale").first).to_contain_text("at most")
        await expect(ops.page.locator("#status")).not_to_have_attribute("data-state", "connected")
        yield ops, port


@pytest.mark.parametrize("path", ["", "/channels", "/channel?name=lobby:" + "long-" * 40, "/connections", "/publish"])
async def test_a_page_of_400_pixels_needs_no_horizontal_scrolling(
    browser: Browser, served: RunningNode, path: str
) -> None:
    channel = "lobby:" + "long-" * 40
    async with (
        visiting(browser, served, width=400) as ops,
        Client(served.client_url, token=token("u" * 120)) as client,
        client.subscribe(channel),
    ):
        await ops.open(path)
        await client.publish(channel, "x" * 300)
        marks = {
            "": ".node",
            "/channels": "#channels tr",
            "/connections": "#connections tr",
            "/publish": "#publish-form",
        }
        await expect(ops.page.locator(marks.get(path, "#presence-list li")).last).to_be_visible()
        assert await ops.page.evaluate("document.documentElement.scrollWidth - window.innerWidth") == 0
        ops.is_content()


# At the doors.


def _browser_headers(node: RunningNode, **more: str) -> dict[str, str]:
    return {"Origin": node.internal_url, "Sec-Fetch-Site": "same-origin", **more}


async def _log_in(http: httpx.AsyncClient, node: RunningNode, key: str, **headers: str) -> httpx.Response:
    return await http.post("/admin/login", data={"key": key}, headers=_browser_headers(node, **headers))


@pytest.fixture
async def http(served: RunningNode) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=served.internal_url) as http:
        yield http


async def test_the_cookie_is_kept_from_scripts_and_other_sites(http: httpx.AsyncClient, served: RunningNode) -> None:
    response = await _log_in(http, served, KEY)
    assert (response.status_code, response.headers["location"]) == (303, "/admin")
    attributes = response.headers["set-cookie"].split("; ")[1:]
    assert set(attributes) == {"HttpOnly", "Max-Age=43200", "Path=/admin", "SameSite=strict"}
    behind_tls = await _log_in(http, served, KEY, Origin=served.internal_url.replace("http:", "https:"))
    assert "Secure" in behind_tls.headers["set-cookie"].split("; ")


async def test_no_answer_lets_scripts_of_elsewhere_in(http: httpx.AsyncClient, served: RunningNode) -> None:
    await _log_in(http, served, KEY)
    for path in ("/admin", "/admin/login", "/admin/channels", "/admin/channel?name=x"):
        headers = (await http.get(path)).headers
        if "content-security-policy" in headers:
            policy = headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["cache-control"] == "no-store"
    assert (await http.get("/admin/static/page.js")).status_code == 200
    assert (await http.get("/admin/static/session.js")).status_code == 200
    assert (await http.get("/admin/static/../pages.py")).status_code == 404


@pytest.mark.parametrize(
    ("key", "headers", "status", "reason"),
    [
        ("a guess", {}, 403, "wrong_key"),
        ("", {}, 403, "wrong_key"),
        ("ü\udcff", {}, 403, "wrong_key"),
        ("a key that only reads", {}, 403, "missing_scope"),
        (KEY, {"Origin": "http://evil.example"}, 403, "cross_site"),
        (KEY, {"Origin": "null"}, 403, "cross_site"),
        (KEY, {"Sec-Fetch-Site": "cross-site"}, 403, "cross_site"),
    ],
)
async def test_a_login_that_fails_is_counted_and_logged_without_the_key(
    http: httpx.AsyncClient, served: RunningNode, key: str, headers: dict[str, str], status: int, reason: str
) -> None:
    body = b"key=" + quote(key, errors="surrogatepass").encode()
    response = await http.post("/admin/login", content=body, headers=_browser_headers(served) | headers)
    assert response.status_code == status
    assert "set-cookie" not in response.headers
    assert dict(served.node.counts.admin_logins) == {reason: 1}
    [event] = [event for event in served.events if event["event"] == "admin login refused"]
    assert (event["reason"], event["address"]) == (reason, "127.0.0.1")
    assert not key or key not in str(served.events)


async def test_guessing_is_limited_even_when_the_guess_is_right(http: httpx.AsyncClient, served: RunningNode) -> None:
    statuses = [(await _log_in(http, served, f"guess {number}")).status_code for number in range(6)]
    assert statuses == [403] * 5 + [429]
    response = await _log_in(http, served, KEY)
    assert response.status_code == 429
    assert response.headers["retry-after"] == "10"
    served.clock.ahead_s += 10
    assert (await _log_in(http, served, KEY)).status_code == 303


async def test_guesses_that_come_at_the_same_time_are_limited_as_well(
    http: httpx.AsyncClient, served: RunningNode
) -> None:
    """Forms whose ends are held back until all of them have been begun."""
    begun = asyncio.Semaphore(0)
    may_end = asyncio.Event()

    async def body(number: int) -> AsyncIterator[bytes]:
        yield b"key=guess"
        begun.release()
        await may_end.wait()
        yield b"%d" % number

    async def guess(number: int) -> int:
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        content = body(number)
        return (await http.post("/admin/login", content=content, headers=_browser_headers(served) | form)).status_code

    async with asyncio.TaskGroup() as tasks:
        guesses = [tasks.create_task(guess(number)) for number in range(20)]
        for _ in guesses:
            await begun.acquire()
        await http.get("/admin/session")
        may_end.set()
    statuses = [each.result() for each in guesses]
    assert (statuses.count(403), statuses.count(429)) == (5, 15)


@pytest.mark.parametrize("stays", [False, True])
async def test_a_login_that_never_comes_to_its_end_leaves_no_traceback(
    served: RunningNode, monkeypatch: pytest.MonkeyPatch, *, stays: bool
) -> None:
    if stays:
        monkeypatch.setattr(pages, "_FORM_TIMEOUT_S", 0.1)
    reader, writer = await asyncio.open_connection("127.0.0.1", served.node.internal_address[1])
    host = served.internal_url.removeprefix("http://")
    head = f"POST /admin/login HTTP/1.1\r\nHost: {host}\r\nOrigin: http://{host}\r\nContent-Length: 100\r\n\r\n"
    writer.write(f"{head}key=".encode())
    await writer.drain()
    if stays:
        assert (await reader.readline()).startswith(b"HTTP/1.1 400 ")
    writer.close()
    await writer.wait_closed()
    await until(lambda: dict(served.node.counts.admin_logins) == {"incomplete": 1})
    assert [event for event in served.events if event["level"] == "error"] == []


async def test_logging_out_needs_a_page_of_this_server(http: httpx.AsyncClient, served: RunningNode) -> None:
    await _log_in(http, served, KEY)
    response = await http.post("/admin/logout", headers={"Origin": "http://evil.example"})
    assert response.status_code == 403
    assert (await http.get("/admin/session")).status_code == 204


async def test_the_websocket_wants_a_session_and_a_page_of_this_server(
    http: httpx.AsyncClient, served: RunningNode
) -> None:
    cookie = (await _log_in(http, served, KEY)).cookies[COOKIE]
    url = served.internal_url.replace("http", "ws") + "/admin/connection/websocket"
    good = {"Origin": served.internal_url, "Cookie": f"{COOKIE}={cookie}"}
    refused: list[tuple[dict[str, str], int]] = [
        ({"Origin": served.internal_url}, 401),
        ({"Cookie": good["Cookie"]}, 403),
        (good | {"Origin": "http://evil.example"}, 403),
        (good | {"Cookie": f"{COOKIE}={cookie[:-1]}"}, 401),
        (good | {"Sec-Fetch-Site": "cross-site"}, 403),
    ]
    for headers, status in refused:
        with pytest.raises(websockets.InvalidStatus) as refusal:
            await websockets.connect(url, additional_headers=headers)
        assert refusal.value.response.status_code == status, headers
    with pytest.raises(websockets.InvalidStatus) as refusal:
        await websockets.connect(served.internal_url.replace("http", "ws") + "/connection/websocket")
    assert refusal.value.response.status_code == 404
    async with websockets.connect(url, additional_headers=good) as socket:
        await socket.send('{"id":1,"connect":{"token":"session"}}')
        assert '"connect"' in str(await socket.recv())
        assert served.node.admin_connection_count() == 1
        await http.post("/admin/logout", headers=_browser_headers(served))
        with pytest.raises(websockets.ConnectionClosed) as closed:
            await socket.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 3500


async def test_without_a_key_the_page_says_how_to_get_one(node: RunningNode) -> None:
    async with httpx.AsyncClient(base_url=node.internal_url, follow_redirects=True) as http:
        page = await http.get("/admin")
    assert "[[http_api.keys]]" in page.text
    assert "<form" not in page.text


async def test_the_page_can_be_switched_off() -> None:
    async with (
        running_node(TABLE, {"admin": {"enabled": False}}) as node,
        httpx.AsyncClient(base_url=node.internal_url) as http,
    ):
        assert (await http.get("/admin")).status_code == 404
