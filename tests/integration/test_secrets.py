"""No secret and no payload in any line of a node's log, at any level, whatever goes wrong."""

import asyncio
import contextlib
import json
from pathlib import Path
from typing import Any

import httpx
import jwt
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.support.processes import ServingProcess, serving
from tests.support.redis_servers import redis_server
from tests.support.streams import HTTP_STREAM, SSE, get, post, raw_stream

PLANTED = {
    "the key of tokens": "planted-hmac-key-of-32-bytes-or-more",
    "the key of the API": "planted-api-key",
    "the password of Redis": "planted-redis-password",
    "a payload": "planted-payload",
    "what a token says": "planted-claim",
    "a part of no token": "planted-broken-token",
    "a wrong key": "planted-wrong-key",
    "a query": "planted-query",
    "a header": "planted-header",
}
ALL: dict[str, Any] = {
    f"allow_{what}_for_{whom}": True for what in ("subscribe", "publish", "history") for whom in ("client", "anonymous")
}


async def say(socket: ClientConnection, *values: Any) -> None:
    """Say all of it, and listen until nothing more comes or the node has had enough."""
    with contextlib.suppress(TimeoutError, ConnectionClosed):
        for value in values:
            await socket.send(value if isinstance(value, str) else json.dumps(value))
        async with asyncio.timeout(0.5):
            while True:
                await socket.recv()


async def emulate_anything(node: ServingProcess, session: str, *texts: str) -> None:
    """Send commands, and what is none, beside a stream."""
    async with httpx.AsyncClient(base_url=f"http://{node.address}") as http:
        for text in texts:
            body = {"session": session, "node": text, "data": json.dumps({"id": 7, "rpc": {"data": text}})}
            await http.post("/emulation", json=body)
            await http.post("/emulation", content=text)


async def do_all_sorts_of_things(node: ServingProcess) -> None:
    payload, claim = PLANTED["a payload"], PLANTED["what a token says"]
    good = jwt.encode({"sub": "ann", "info": {"x": claim}}, PLANTED["the key of tokens"], "HS256")
    expired = jwt.encode({"sub": "ann", "info": {"x": claim}, "exp": 1}, PLANTED["the key of tokens"], "HS256")
    broken = PLANTED["a part of no token"]
    url = f"ws://{node.address}"
    headers = {"X-Whatever": PLANTED["a header"], "Authorization": f"Bearer {PLANTED['a wrong key']}"}
    header_lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    for token in (good, expired, f"{broken}.{broken}.{broken}", good[:-3]):
        path = f"/connection/websocket?token={PLANTED['a query']}"
        async with connect(url + path, compression=None, additional_headers=headers) as socket:
            publish = {"id": 3, "publish": {"channel": "st:a", "data": payload}}
            subscribe = {"id": 2, "subscribe": {"channel": "st:a", "data": payload, "token": ""}}
            wrong = {"id": 4, "subscribe": {"channel": "$st:a", "token": broken}}
            refresh = {"id": 5, "refresh": {"token": broken}}
            await say(
                socket, {"id": 1, "connect": {"token": token, "data": payload}}, subscribe, publish, wrong, refresh
            )
        said = json.dumps({"id": 1, "connect": {"token": token, "data": payload}})
        for request in (get(SSE, said, header_lines), post(HTTP_STREAM, said.encode()), get(SSE, said[:-2])):
            async with raw_stream(f"http://{node.address}", request) as stream:
                told = await stream.message()
                for session in (told.get("connect", {}).get("session", "x"), PLANTED["a query"]):
                    await emulate_anything(node, session, payload, broken)
        async with connect(f"{url}/ws/st:a?token={PLANTED['a query']}", compression=None) as socket:
            await say(socket, {"token": token}, {"text": payload}, f"{{{payload}", f'"{payload}"')
    async with connect(f"{url}/connection/websocket", compression=None) as socket:
        await say(socket, f'{{"id": 1, "connect": {{"data": "{payload}"')
    async with httpx.AsyncClient(base_url=node.internal_url) as http:
        for key in (PLANTED["the key of the API"], PLANTED["a wrong key"]):
            body = {"channel": "st:a", "data": payload, "idempotency_key": "x"}
            await http.post("/api/publish", json=body, headers={"X-API-Key": key})
            await http.post(f"/api/publish?api_key={key}", json=body)
            await http.post("/api/publish", content=payload, headers={"Authorization": f"apikey {key}"})


async def test_a_whole_life_of_a_node_writes_no_secret_and_no_payload(tmp_path: Path) -> None:
    async with redis_server(password=PLANTED["the password of Redis"]) as redis:
        settings = {
            "client": {
                "allow_anonymous_connect_without_token": True,
                "token": {"hmac_secret_key": PLANTED["the key of tokens"]},
            },
            "channel": {"namespaces": [{"name": "st", **ALL, "history_size": 10, "history_ttl": "1m"}]},
            "broker": {"type": "redis"},
            "redis": {"address": redis.location, "password": PLANTED["the password of Redis"]},
            "http_api": {"key": PLANTED["the key of the API"]},
            "http_server": {"address": "127.0.0.1"},
            "http_stream": {"enabled": True},
            "sse": {"enabled": True},
            "log": {"level": "debug", "format": "json", "repeat_limit": 0},
            "shutdown": {"grace": "0s"},
        }
        file = tmp_path / "gateway.json"
        file.write_text(json.dumps(settings))
        async with serving("--config", str(file)) as node:
            await do_all_sorts_of_things(node)
            await asyncio.to_thread(redis.kill)
            await do_all_sorts_of_things(node)
            lines = "\n".join(node.lines)
            await asyncio.to_thread(redis.restart, keep_data=False)
        written = "\n".join([lines, *node.lines, node.out])
        assert "authenticated" in written
        assert "token refused" in written
        assert {what for what, secret in PLANTED.items() if secret in written} == set()
