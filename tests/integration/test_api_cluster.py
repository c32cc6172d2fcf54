"""The server API of three nodes that are one system over Redis: what is done everywhere, what is asked of all."""

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.support.clusters import Cluster, three_nodes
from tests.support.nodes import SECRET
from tests.support.processes import ServingProcess
from tests.support.waiting import PATIENCE_S

KEY = "a key of the tests"
TABLE: dict[str, Any] = {
    "http_api": {"key": KEY},
    "client": {"token": {"hmac_secret_key": SECRET}, "ping_interval": "120s"},
    # A busy machine must neither miss a survey nor take a node for dead; the stopped one is asked four times.
    "node": {"announce_interval": "5s", "survey_timeout": "2s"},
    "shutdown": {"grace": "0s"},
    "channel": {"without_namespace": {"presence": True}},
}


@asynccontextmanager
async def cluster(folder: Path) -> AsyncIterator[tuple[Cluster, list["API"]]]:
    async with AsyncExitStack() as stack:
        _, nodes = await stack.enter_async_context(three_nodes(folder, TABLE))
        apis = [API(await stack.enter_async_context(_http(node)), node) for node in nodes.nodes]
        for api in apis:
            await until(api.names, ["node0", "node1", "node2"])
        yield nodes, apis


def _http(node: ServingProcess) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=node.internal_url, headers={"X-API-Key": KEY}, timeout=PATIENCE_S)


class API:
    """Calls of one node."""

    def __init__(self, http: httpx.AsyncClient, node: ServingProcess) -> None:
        self._http = http
        self.node = node

    async def call(self, method: str, /, **fields: Any) -> Any:
        """Return the result, or the error."""
        answer = (await self._http.post(f"/api/{method}", json=fields)).json()
        return answer.get("result", answer.get("error"))

    async def names(self) -> list[str]:
        return [node["name"] for node in (await self.call("info"))["nodes"]]


async def until(read: Callable[[], Awaitable[Any]], wanted: Any) -> None:
    """Ask until the answer is what is *wanted*."""
    async with asyncio.timeout(PATIENCE_S):
        while await read() != wanted:  # noqa: ASYNC110 - what is waited for here tells nobody
            await asyncio.sleep(0.02)


@asynccontextmanager
async def client(node: ServingProcess, user: str, *channels: str) -> AsyncIterator[ClientConnection]:
    """Connect *user* to a node and subscribe."""
    token = jwt.encode({"sub": user}, SECRET, algorithm="HS256")
    async with connect(f"ws://{node.address}/connection/websocket", ping_interval=None) as socket:
        await socket.send(f'{{"id":1,"connect":{{"token":"{token}"}}}}')
        assert '"connect"' in await received(socket)
        for number, channel in enumerate(channels, 2):
            await socket.send(f'{{"id":{number},"subscribe":{{"channel":"{channel}"}}}}')
            assert '"subscribe"' in await received(socket)
        yield socket


async def received(socket: ClientConnection) -> str:
    """Return the next frame that is no ping."""
    while (frame := await socket.recv()) == "{}":
        pass
    assert isinstance(frame, str)
    return frame


@pytest.mark.timeout(180)
async def test_any_node_acts_on_and_tells_of_all_and_names_who_is_silent(tmp_path: Path) -> None:
    async with cluster(tmp_path) as (nodes, apis), AsyncExitStack() as stack:
        here, there, mute = apis
        uids = {each["name"]: each["uid"] for each in (await here.call("info"))["nodes"]}
        sockets = [
            await stack.enter_async_context(client(node, user, *channels))
            for node, user, channels in (
                (here.node, "ann", ["news", "a"]),
                (there.node, "ann", ["news"]),
                (mute.node, "bob", ["news", "b"]),
            )
        ]

        # What is asked of all.
        counted = {"a": {"num_clients": 1}, "b": {"num_clients": 1}, "news": {"num_clients": 3}}
        for api in apis:
            assert await api.call("channels") == {"channels": counted}
            assert await api.call("presence_stats", channel="news") == {"num_clients": 3, "num_users": 2}
        found = (await here.call("connections"))["connections"]
        assert sorted((each["user"], each["node"], each["channels"]) for each in found) == sorted(
            [
                ("ann", uids["node0"], ["a", "news"]),
                ("ann", uids["node1"], ["news"]),
                ("bob", uids["node2"], ["b", "news"]),
            ]
        )
        pages, cursor = [], ""
        for _ in range(3):
            page = await there.call("connections", limit=1, cursor=cursor)
            pages += page["connections"]
            cursor = page.get("cursor", "")
        assert (pages, cursor) == (found, "")
        assert [each["user"] for each in (await here.call("connections", node="node2"))["connections"]] == ["bob"]

        # What is done everywhere.
        assert await mute.call("subscribe", user="ann", channel="extra", data={"d": 1}) == {}
        for socket in sockets[:2]:
            assert '"channel":"extra","subscribe"' in await received(socket)
        position = await there.call("publish", channel="news", data={"n": 1})
        for socket in sockets:
            assert '"data":{"n":1},"offset":1' in await received(socket)
        assert (await here.call("history", channel="news"))["offset"] == position["offset"] == 1

        # A node that says nothing is named, and what the others know is there.
        mute.node.send(signal.SIGSTOP)
        silent = [{"uid": uids["node2"], "name": "node2"}]
        rest = {"a": {"num_clients": 1}, "extra": {"num_clients": 2}, "news": {"num_clients": 2}}
        try:
            assert await here.call("channels") == {"channels": rest, "silent": silent}
            partial = await here.call("connections")
            assert [each["user"] for each in partial["connections"]] == ["ann", "ann"]
            assert partial["silent"] == silent
            assert await here.call("connections", node="node2") == {"connections": [], "silent": silent}
            assert await here.call("drain", node="node2") == {"code": 100, "message": "internal server error"}
        finally:
            mute.node.send(signal.SIGCONT)

        # The two others go by the API; one of them by the word of the other. (The drain that was asked of the third
        # while it slept has reached it, too.)
        assert await there.call("disconnect", user="ann") == {}
        for socket in sockets[:2]:
            with pytest.raises(ConnectionClosed) as closed:
                await received(socket)
            assert closed.value.rcvd is not None
            assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (3503, "force disconnect")
        assert await here.call("drain", node="node1") == {"uid": uids["node1"], "name": "node1"}
        assert await nodes.nodes[1].ended() == 0
        assert await nodes.nodes[2].ended() == 0
        await until(here.names, ["node0"])
