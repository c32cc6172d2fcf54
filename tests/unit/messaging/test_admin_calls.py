"""What the scripts of the admin page are answered."""

import io
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway.messaging.admin_calls import AdminCalls
from gateway.messaging.control import Figures, NodeInfo
from gateway.messaging.handlers import Request
from gateway.messaging.trends import Trends
from gateway.observability.logs import Format, LogSettings, make_logger
from tests.support.administrations import Office
from tests.support.conversations import House, house

STREAM = {"name": "news", "history_size": 10, "history_ttl": 60, "publication_data_format": "any"}
ALLOWED = {"allow_subscribe_for_client": True, "allow_publish_for_client": True}
TABLE: dict[str, Any] = {"channel": {"without_namespace": ALLOWED, "namespaces": [STREAM]}}


class FixedNodes:
    """Two nodes, and one that is silent."""

    def announced_nodes(self) -> list[NodeInfo]:
        return [NodeInfo("node", "node1", uptime_s=5.0, figures=Figures(messages_in=7)), NodeInfo("other")]

    def silent(self) -> list[tuple[NodeInfo, float]]:
        return [(NodeInfo("gone", "node3"), 12.5)]


class Page:
    """A page's script."""

    def __init__(self, node: House) -> None:
        self.node = node
        self.trends = Trends()
        self._log = io.StringIO()
        calls = AdminCalls(
            Office(node).administration,
            FixedNodes(),
            self.trends,
            monotonic=node.monotonic,
            log=make_logger(LogSettings(format=Format.JSON), node="node1", stream=self._log),
        )
        self._handlers = calls.handlers()

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._log.getvalue().splitlines()]

    async def call(self, method: str, **params: Any) -> Any:
        answer = await self._handlers[method](Request("", "ops", "client", json.dumps(params)))
        assert isinstance(answer, str)
        return json.loads(answer)


@pytest.fixture
async def page() -> AsyncIterator[Page]:
    async with house(TABLE) as node:
        yield Page(node)


async def test_the_overview_has_all_nodes_with_their_zeros_and_the_points_that_are_new(page: Page) -> None:
    for second in range(3):
        page.trends.note(NodeInfo("node", uptime_s=second, figures=Figures(messages_in=1 + second)), now_s=second)

    overview = (await page.call("overview", after=1))["result"]
    assert (overview["now_s"], overview["span_s"]) == (1000.0, 300.0)
    first, other = overview["nodes"]
    assert (first["node"]["name"], first["node"]["num_clients"], first["node"]["figures"]["messages_in"]) == (
        "node1",
        0,
        7,
    )
    assert [point["number"] for point in first["points"]] == [2]
    assert other["points"] == []
    assert set(other["node"]["figures"]) == set(Figures.__struct_fields__)
    assert [(each["node"]["name"], each["seconds"]) for each in overview["silent"]] == [("node3", 12.5)]


async def test_channels_are_found_by_a_part_of_their_name_the_busiest_first(page: Page) -> None:
    await page.node.connect("ann", "abc", "bcd", "xyz", "a*c")
    await page.node.connect("bob", "bcd")

    async def found(pattern: str) -> tuple[list[Any], int]:
        result = (await page.call("channels", pattern=pattern))["result"]
        return result["channels"], result["total"]

    assert await found("bc") == ([["bcd", 2], ["abc", 1]], 2)
    assert await found("b*") == ([["bcd", 2]], 1)
    assert await found("a[*]c") == ([["a*c", 1]], 1)
    assert (await found(""))[1] == 4
    assert await found("nothing") == ([], 0)


async def test_of_many_channels_some_are_shown_and_all_are_counted(page: Page) -> None:
    for part in range(3):
        await page.node.connect("ann", *(f"room-{part}-{number:03}" for number in range(100)))
    result = (await page.call("channels"))["result"]
    assert (len(result["channels"]), result["total"]) == (200, 300)
    assert result["channels"][0] == ["room-0-000", 1]


async def test_a_history_is_shown_as_taps_show_it(page: Page) -> None:
    for payload in ("eyJuIjogMS41MH0=", "/wA="):
        assert "result" in await page.call("publish", channel="news:1", b64data=payload)
    result = (await page.call("history", channel="news:1", limit=10))["result"]
    assert [each["data"] for each in result["publications"]] == [
        {"size": 11, "text": '{"n": 1.50}'},
        {"size": 2, "b64": "/wA="},
    ]
    assert (result["offset"], [each["offset"] for each in result["publications"]]) == (2, [1, 2])


async def test_connections_come_with_the_names_of_their_nodes(page: Page) -> None:
    ann = await page.node.connect("ann")
    result = (await page.call("connections", user="ann"))["result"]
    assert [(each["client"], result["names"][each["node"]]) for each in result["connections"]] == [(ann.id, "node1")]


async def test_what_was_done_is_logged_with_who_did_it_and_no_payload(page: Page) -> None:
    ann = await page.node.connect("ann")
    await page.call("publish", channel="lobby", b64data="InNlY3JldCI=")
    await page.call("disconnect", user="ann", client=ann.id)
    await page.call("history", channel="news:1")
    assert ann.closing == (3503, "force disconnect")
    acted = [{key: event[key] for key in event if key not in {"timestamp", "level", "node"}} for event in page.events]
    common = {"event": "admin acted", "scope": "admin", "user": "ops"}
    assert acted == [
        {**common, "action": "publish", "channel": "lobby"},
        {**common, "action": "disconnect", "whom": "ann", "client": ann.id},
    ]


@pytest.mark.parametrize(
    ("method", "params", "code", "said"),
    [
        ("publish", {"channel": "nope:1", "b64data": "e30="}, 102, "namespace"),
        ("publish", {"channel": "lobby", "b64data": "eA=="}, 107, "takes JSON"),
        ("publish", {"channel": 5}, 107, "str"),
        ("history", {"channel": "lobby"}, 108, "history_size"),
        ("connections", {"limit": 0}, 107, "limit"),
        ("overview", {"after": "x"}, 107, "int"),
        ("disconnect", {"user": "ann", "disconnect": {"code": 1}}, 107, "code"),
    ],
)
async def test_what_can_not_be_done_is_said(
    page: Page, method: str, params: dict[str, Any], code: int, said: str
) -> None:
    error = (await page.call(method, **params))["error"]
    assert error["code"] == code
    assert said in error["reason"]
