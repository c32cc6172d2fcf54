"""The server API over HTTP, on a real node: keys, scopes, error modes, bad bodies, both ports, the documentation."""

import json
from collections.abc import AsyncIterator
from typing import Any, Final

import httpx
import pytest
import pytest_asyncio
from playwright.async_api import expect

from gateway.api.examples import EXAMPLES
from gateway.messaging.batches import BATCH, METHODS
from tests.support.asgi_servers import served
from tests.support.browsers import Complaints, running_browser
from tests.support.nodes import RunningNode, running_node

LIMIT: Final = 100_000
ADMIN: Final = {"X-API-Key": "a-secret"}
TABLE: Final[dict[str, Any]] = {
    "http_api": {
        "key": "only-secret",
        "keys": [
            {"name": "shop", "key": "p-secret", "scopes": ["publish"]},
            {"name": "page", "key": "r-secret", "scopes": ["read"]},
            {"name": "both", "key": "b-secret", "scopes": ["publish", "read"]},
            {"name": "boss", "key": "a-secret"},
        ],
        "body_size_limit": LIMIT,
    },
    "channel": {
        "namespaces": [
            {"name": "chat", "presence": True, "history_size": 5, "history_ttl": 300},
            {"name": "binary", "publication_data_format": "binary"},
        ]
    },
}
ALL: Final = (*METHODS, BATCH)
HARMLESS: Final[dict[str, dict[str, Any]]] = {name: {} for name in ALL} | {
    "drain": {"node": "nope"},
    "disconnect": {"user": "nobody"},
    "refresh": {"user": "nobody"},
}
"""A body for each method; that of most lacks something, which is an error in the answer and no other status."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def node() -> AsyncIterator[RunningNode]:
    async with running_node(TABLE, is_development=False) as node:
        yield node


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def http(node: RunningNode) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=node.internal_url) as client:
        yield client


pytestmark = pytest.mark.asyncio(loop_scope="module")


# Who may call what.


@pytest.mark.parametrize(
    ("key", "scopes"),
    [
        ("p-secret", {"publish"}),
        ("r-secret", {"read"}),
        ("b-secret", {"publish", "read"}),
        ("a-secret", {"publish", "read", "admin"}),
        ("only-secret", {"publish", "read", "admin"}),
        ("wrong", None),
        ("", None),
        ("A-SECRET", None),
    ],
)
async def test_a_key_opens_the_methods_of_its_scopes_however_it_is_shown(
    http: httpx.AsyncClient, key: str, scopes: set[str] | None
) -> None:
    forms: list[tuple[dict[str, str], dict[str, str]]] = [
        ({"X-API-Key": key}, {}),
        ({"Authorization": f"apikey {key}"}, {}),
        ({"Authorization": f"Bearer {key}"}, {}),
        ({"authorization": f"BEARER  {key}"}, {}),
        ({}, {"api_key": key}),
    ]
    for headers, query in forms:
        shown = {name: value.strip() for name, value in headers.items()}
        for name in ALL if "X-API-Key" in headers else ("publish", "info", BATCH):
            response = await http.post(f"/api/{name}", json=HARMLESS[name], headers=shown, params=query)
            if scopes is None:
                assert (response.status_code, response.content) == (401, b"")
                assert "content-type" not in response.headers
            elif name != BATCH and METHODS[name].scope not in scopes:
                scope = METHODS[name].scope.value
                assert response.status_code == 403
                assert response.text.endswith(f"may not call {name}: that needs the scope {scope!r}\n")
            else:
                assert response.status_code == 200
                assert set(response.json()) <= {"result", "error"}


@pytest.mark.parametrize(
    "headers",
    [{}, {"Authorization": "a-secret"}, {"Authorization": "Basic a-secret"}, {"Cookie": "api_key=a-secret"}],
)
async def test_a_key_that_is_shown_in_no_way_that_there_is_opens_nothing(
    http: httpx.AsyncClient, headers: dict[str, str]
) -> None:
    assert (await http.post("/api/info", json={}, headers=headers)).status_code == 401


async def test_a_batch_answers_what_its_key_may_not_do_in_its_place(http: httpx.AsyncClient) -> None:
    commands = [{"channels": {}}, {"publish": {"channel": "plain", "data": 1}}, {"drain": {}}]
    response = await http.post("/api/batch", json={"commands": commands}, headers={"X-API-Key": "p-secret"})
    denied = {"error": {"code": 103, "message": "permission denied"}}
    assert response.json() == {"replies": [denied, {"publish": {}}, denied]}


async def test_no_key_is_ever_logged_and_who_acts_on_others_is(node: RunningNode, http: httpx.AsyncClient) -> None:
    await http.post("/api/disconnect", json={"user": "nobody"}, headers=ADMIN)
    await http.post("/api/disconnect?api_key=nope-secret", json={"user": "nobody"})
    calls = [event for event in node.events if event["event"] == "api call" and event["method"] == "disconnect"]
    assert {"key": "boss", "user": "nobody", "error": None}.items() <= calls[-1].items()
    assert "secret" not in json.dumps(node.events)


# Statuses.


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS"])
async def test_any_method_but_post_is_405(http: httpx.AsyncClient, method: str) -> None:
    for name in ("publish", "info", "batch"):
        response = await http.request(method, f"/api/{name}", headers=ADMIN)
        assert (response.status_code, response.headers["allow"]) == (405, "POST")


@pytest.mark.parametrize("path", ["/api/nope", "/api/", "/api/publish/", "/api/publish/x", "/api/PUBLISH", "/api"])
async def test_an_unknown_method_is_404(http: httpx.AsyncClient, path: str) -> None:
    assert (await http.post(path, json={}, headers=ADMIN)).status_code == 404


TRANSPORT: list[tuple[str, dict[str, Any], int, dict[str, Any]]] = [
    ("publish", {"channel": "nope:x", "data": 1}, 404, {"code": 102, "message": "unknown channel"}),
    ("publish", {"data": 1}, 400, {"code": 107, "message": "bad request"}),
    ("presence", {"channel": "plain"}, 400, {"code": 108, "message": "not available"}),
    ("rpc", {"method": "nope"}, 404, {"code": 104, "message": "not found"}),
    (
        "history",
        {"channel": "chat:t", "since": {"epoch": "x"}},
        416,
        {"code": 112, "message": "unrecoverable position"},
    ),
]


@pytest.mark.parametrize(("method", "body", "status", "error"), TRANSPORT)
async def test_an_error_is_told_in_the_body_or_by_the_status_as_the_mode_is(
    http: httpx.AsyncClient, method: str, body: dict[str, Any], status: int, error: dict[str, Any]
) -> None:
    reply = await http.post(f"/api/{method}", json=body, headers=ADMIN)
    assert (reply.status_code, reply.json()) == (200, {"error": error})
    transport = await http.post(f"/api/{method}", json=body, headers=ADMIN | {"X-Centrifugo-Error-Mode": "transport"})
    assert (transport.status_code, transport.json()) == (status, error)
    assert reply.headers["x-error-reason"] == transport.headers["x-error-reason"] != ""
    assert reply.headers["content-type"] == transport.headers["content-type"] == "application/json"


async def test_the_transport_mode_can_be_configured() -> None:
    async with (
        running_node(TABLE, {"http_api": {"error_mode": "transport"}}, is_development=False) as node,
        httpx.AsyncClient(base_url=node.internal_url, headers=ADMIN) as http,
    ):
        response = await http.post("/api/publish", json={"data": 1})
        assert (response.status_code, response.json()) == (400, {"code": 107, "message": "bad request"})
        assert (await http.post("/api/publish", json={"channel": "a", "data": 1})).json() == {"result": {}}


# Bodies.


BODIES: list[tuple[str, bytes, int, str]] = [
    ("nothing", b"", 400, "the body is empty: send a JSON object, {} at least\n"),
    ("blanks", b" \n", 400, "the body is empty: send a JSON object, {} at least\n"),
    ("no JSON", b"channel=a", 400, "JSON is malformed"),
    ("truncated", b'{"channel":"a","data":{"x"', 400, "Input data was truncated\n"),
    ("more behind it", b"{} {}", 400, "JSON is malformed: trailing characters"),
    ("an array", b"[]", 400, "Expected `object`, got `array`\n"),
    ("null", b"null", 400, "Expected `object`, got `null`\n"),
    ("a wrong type", b'{"channel":5,"data":1}', 400, "Expected `str`, got `int` - at `$.channel`\n"),
    ("a wrong type in a batch", b'{"commands":[{"publish":{"channel":[]}}]}', 200, ""),
    ("tags that are no texts", b'{"channel":"a","data":1,"tags":{"k":1}}', 400, "Expected `str`, got `int`"),
    ("a negative version", b'{"channel":"a","data":1,"version":-1}', 400, "Expected `int` >= 0"),
    ("a broken version", b'{"channel":"a","data":1,"version":1.5}', 400, "Expected `int`, got `float`"),
    ("a huge version", b'{"channel":"a","data":1,"version":1%s}' % (b"0" * 4000), 200, '{"error":{"code":107'),
    ("no UTF-8", b'{"channel":"a","data":"\xff"}', 400, "not UTF-8: invalid start byte at byte 2"),
    ("UTF-16", '{"channel":"a","data":1}'.encode("utf-16"), 400, "not UTF-8"),
    ("a byte order mark", b'\xef\xbb\xbf{"channel":"a","data":1}', 400, "JSON is malformed"),
    ("nested too deep", b'{"channel":"a","data":%s1%s}' % (b"[" * 129, b"]" * 129), 400, "a payload is nested"),
    ("nested without an end", b'{"channel":"a","data":' + b"[" * 50_000, 400, ""),
    ("nested as deep as may be", b'{"channel":"a","data":%s1%s}' % (b"[" * 128, b"]" * 128), 200, ""),
    ("brackets in a string", b'{"channel":"a","data":"%s"}' % (b"[" * 50_000), 200, ""),
    ("numbers of any size", b'{"channel":"a","data":[1e999,-1e-999,1%s]}' % (b"0" * 5000), 200, ""),
    ("half a surrogate pair", b'{"channel":"a\\ud83d","data":"\\ud83d","tags":{"k\\ude00":"\\ud83d"}}', 200, ""),
    ("a NUL in a name", b'{"channel":"a\\u0000b","data":1}', 200, ""),
    ("line ends in a name", b'{"channel":"nope\\r\\nX-Evil: 1:x","data":1}', 200, ""),
    ("nulls for what is absent", b'{"channel":"a","data":null,"tags":null}', 200, ""),
    ("unknown fields", b'{"channel":"a","data":1,"x":{"y":[]},"delta":true}', 200, ""),
    ("a name that comes twice", b'{"channel":"a","channel":"b","data":1,"data":2}', 200, ""),
    ("blanks around", b' \r\n{ "channel" : "a" , "data" : 1 }\n', 200, ""),
    ("as long as may be", b'{"channel":"a","data":1}' + b" " * (LIMIT - 24), 200, ""),
    ("too long", b" " * (LIMIT + 1), 413, f"the body is longer than {LIMIT} bytes (http_api.body_size_limit)\n"),
    ("ten megabytes", b"[" * 10_000_000, 413, f"the body is longer than {LIMIT} bytes (http_api.body_size_limit)\n"),
]


@pytest.mark.parametrize(("body", "status", "text"), [row[1:] for row in BODIES], ids=[row[0] for row in BODIES])
async def test_no_body_gets_further_than_it_should(
    http: httpx.AsyncClient, body: bytes, status: int, text: str
) -> None:
    for name in ("publish", "broadcast", "batch", "history", "connections"):
        response = await http.post(f"/api/{name}", content=body, headers=ADMIN)
        assert response.status_code < 500
        if name == "publish":
            assert response.status_code == status
            assert response.text.startswith(text)
        assert "x-evil" not in response.headers


async def test_a_body_in_parts_is_bounded_as_well(http: httpx.AsyncClient) -> None:
    async def parts(size: int) -> AsyncIterator[bytes]:
        yield b'{"channel":"a","data":1}'
        for _ in range(size // 1000):
            yield b" " * 1000

    for name in ("publish", "history"):
        headers = ADMIN | {"Transfer-Encoding": "chunked"}
        assert (await http.post(f"/api/{name}", content=parts(LIMIT // 2), headers=headers)).status_code == 200
        assert (await http.post(f"/api/{name}", content=parts(10 * LIMIT), headers=headers)).status_code == 413
    assert (await http.post("/api/info", json={}, headers=ADMIN)).status_code == 200


async def test_the_content_type_is_of_no_matter(http: httpx.AsyncClient) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        for name, body in (("publish", b'{"channel":"a","data":1}'), ("channels", b"{}")):
            response = await http.post(f"/api/{name}", content=body, headers=ADMIN | {"Content-Type": kind})
            assert (response.status_code, "result" in response.json()) == (200, True)


async def test_what_a_client_publishes_by_a_batch_comes_to_its_subscribers_one_by_one(http: httpx.AsyncClient) -> None:
    commands = [{"publish": {"channel": "chat:batch", "data": n}} for n in range(100)]
    replies = (await http.post("/api/batch", json={"commands": commands}, headers=ADMIN)).json()["replies"]
    assert [reply["publish"]["offset"] for reply in replies] == list(range(1, 101))


# Where it is served.


async def test_the_public_port_has_it_only_when_told_and_never_its_documentation(node: RunningNode) -> None:
    async with httpx.AsyncClient(headers=ADMIN) as http:
        for path in ("/api/publish", "/api/info"):
            assert (await http.post(f"{node.url}{path}", json={})).status_code == 404
    async with (
        running_node(TABLE, {"http_api": {"public": True}}, is_development=False) as public,
        httpx.AsyncClient(base_url=public.url, headers=ADMIN) as http,
    ):
        assert (await http.post("/api/publish", json={"channel": "a", "data": 1})).json() == {"result": {}}
        assert len((await http.post("/api/info", json={})).json()["result"]["nodes"]) == 1
        assert (await http.post("/api/info", json={}, headers={"X-API-Key": "x"})).status_code == 401
        assert [(await http.get(path)).status_code for path in ("/docs", "/openapi.json")] == [404, 404]


async def test_switched_off_it_is_nowhere() -> None:
    async with (
        running_node(TABLE, {"http_api": {"enabled": False, "public": True}}, is_development=False) as node,
        httpx.AsyncClient(headers=ADMIN) as http,
    ):
        for url in (node.url, node.internal_url):
            assert (await http.post(f"{url}/api/info", json={})).status_code == 404
            assert (await http.get(f"{url}/docs")).status_code == 404


async def test_without_keys_every_call_is_refused() -> None:
    async with running_node() as node, httpx.AsyncClient(base_url=node.internal_url) as http:
        for headers in ({}, {"X-API-Key": ""}, {"Authorization": "Bearer"}):
            assert (await http.post("/api/info", json={}, headers=headers)).status_code == 401


async def test_keys_that_are_changed_take_effect_at_once(node: RunningNode) -> None:
    settings = node.node.config.http_api
    async with httpx.AsyncClient(base_url=node.internal_url, headers=ADMIN) as http:
        node.node.api_keys.change(settings.model_copy(update={"keys": []}))
        assert (await http.post("/api/info", json={})).status_code == 401
        node.node.api_keys.change(settings)
        assert (await http.post("/api/info", json={})).status_code == 200


async def test_drained_by_the_api_a_node_ends_by_itself() -> None:
    async with running_node(TABLE, is_development=False) as node:
        async with httpx.AsyncClient(base_url=node.internal_url, headers=ADMIN) as http:
            result = (await http.post("/api/drain", json={})).json()["result"]
        assert result == {"uid": node.node.cluster.uid, "name": result["name"]}
        await node.node.stopping.wait()


# The documentation.


async def test_the_schema_has_every_method_with_examples_that_can_be_sent(http: httpx.AsyncClient) -> None:
    schema = (await http.get("/openapi.json")).json()
    assert set(schema["paths"]) == {f"/api/{name}" for name in ALL}
    assert set(EXAMPLES) == set(ALL)
    for name in ALL:
        operation = schema["paths"][f"/api/{name}"]["post"]
        assert operation["security"] == [{"header": []}, {"bearer": []}, {"query": []}]
        for example in operation["requestBody"]["content"]["application/json"]["examples"].values():
            if name != "drain":
                response = await http.post(f"/api/{name}", json=example["value"], headers=ADMIN)
                assert response.status_code == 200
    assert set(schema["components"]["securitySchemes"]) == {"header", "bearer", "query"}


@pytest.mark.timeout(180)
async def test_the_documentation_works_in_a_browser_without_the_internet(node: RunningNode) -> None:
    async with running_browser() as browser:
        page = await browser.new_page(viewport={"width": 1280, "height": 1000})
        complaints = Complaints(page)
        await page.goto(f"{node.internal_url}/docs")
        await expect(page.locator(".opblock")).to_have_count(len(ALL))
        await page.click("button.authorize")
        header = page.locator(".auth-container", has_text="X-API-Key")
        await header.locator("input").fill("a-secret")
        await header.locator("button.authorize").click()
        await page.click("button.btn-done")
        publish = page.locator("[id$=-publish]")
        await publish.locator(".opblock-summary").click()
        await publish.locator("textarea").fill('{"channel": "chat:docs", "data": 1}')
        await publish.locator(".execute").click()
        await expect(publish.locator(".live-responses-table")).to_contain_text('"offset": 1')
        assert complaints.seen == []
        assert {url.split("/")[2] for url in complaints.requests} == {node.internal_url.split("/")[2]}


# Inside somebody else's application: tests/integration/test_asgi.py has more of it.


async def test_a_gateway_in_an_application_has_the_api_where_it_is_mounted() -> None:
    from fastapi import FastAPI  # noqa: PLC0415 - for this test alone

    from gateway.asgi import create_app  # noqa: PLC0415
    from gateway.config import load  # noqa: PLC0415

    gateway = create_app(load(base={**TABLE, "http_api": {**TABLE["http_api"], "public": True}}))
    app = FastAPI(lifespan=gateway.lifespan)
    app.mount("/realtime", gateway)
    app.mount("/inside", gateway.internal)
    async with served(app) as server, httpx.AsyncClient(base_url=server.url, headers=ADMIN) as http:
        for where in ("/realtime", "/inside"):
            published = await http.post(f"{where}/api/publish", json={"channel": "a", "data": 1})
            assert published.json() == {"result": {}}
            assert len((await http.post(f"{where}/api/info", json={})).json()["result"]["nodes"]) == 1
            assert (await http.post(f"{where}/api/info", json={}, headers={"X-API-Key": "x"})).status_code == 401
        assert (await http.get("/realtime/docs")).status_code == 404
        assert (await http.get("/inside/docs")).status_code == 200
        assert (await http.get("/inside/openapi.json")).status_code == 200
