"""A node with clients is told to stop: what happens in which order, and what nobody may notice."""

import asyncio
import itertools
import json
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.support.clusters import as_toml
from tests.support.crowds import Member, all_gone, all_heard, errors_of, gather_crowd, metrics, text, upgrade
from tests.support.nodes import RunningNode, running_node
from tests.support.processes import ServingProcess, ask, serving
from tests.support.waiting import until

CLIENT_PATH = "/connection/websocket"
OPEN: dict[str, Any] = {
    "http_server": {"address": "127.0.0.1"},
    "client": {"allow_anonymous_connect_without_token": True, "command_rate": 0},
    "channel": {
        "without_namespace": {
            "allow_subscribe_for_client": True,
            "allow_subscribe_for_anonymous": True,
            "allow_publish_for_client": True,
            "allow_publish_for_anonymous": True,
        }
    },
    "connection_init": {"enabled": True},
}


def node_file(folder: Path, *, grace: str, window: str) -> str:
    """Write the configuration of a node that anybody may use, and return its path."""
    path = folder / "gateway.toml"
    path.write_text(as_toml({**OPEN, "shutdown": {"grace": grace}, "drain": {"window": window}}), encoding="utf-8")
    return str(path)


async def gather(process: ServingProcess, count: int) -> list[Member]:
    hello = text({"id": 1, "connect": {}}, {"id": 2, "subscribe": {"channel": "news"}})
    members = await gather_crowd(process, [(upgrade(CLIENT_PATH), hello)] * count)
    await all_heard(members, lambda each: any(b'"id":2' in part for part in each.payloads), "its subscription")
    return members


async def test_a_node_is_unready_first_then_closed_then_sends_its_clients_away_and_ends(tmp_path: Path) -> None:
    async with serving("--config", node_file(tmp_path, grace="1s", window="5s")) as process:
        members = await gather(process, 30)
        process.send(signal.SIGTERM)
        began = await process.logged("draining")
        assert (began["connections"], began["grace_s"], began["window_s"]) == (30, 1.0, 5.0)

        # The grace: unready, and nothing else has changed.
        answer = await ask(f"{process.internal_url}/readyz")
        assert (answer.status, answer.text) == (503, "draining\n")
        assert (await ask(f"{process.internal_url}/livez")).status == 200
        (late,) = await gather(process, 1)
        assert [each.closing for each in (*members, late)] == [None] * 31
        seen = await metrics(process)
        assert (seen["gateway_drain_active"], seen["gateway_drain_clients"], seen["gateway_ready"]) == (1, 0, 0)

        # Then the door is shut, and they go one by one.
        await until(lambda: any(each.closing for each in (*members, late)), "the first goodbye")
        with pytest.raises(ConnectionRefusedError):
            await gather(process, 1)
        seen = await metrics(process)
        assert seen["gateway_drain_clients"] == 31
        assert 0 < seen["gateway_drain_sent_away_total"] < 31
        assert seen["gateway_connections"] == 31 - seen["gateway_drain_sent_away_total"]
        await all_gone([*members, late])
        assert await process.ended() == 0
    assert Counter(each.closing for each in (*members, late)) == {(3001, "shutdown"): 31}
    ended = await process.logged("drained")
    assert (ended["connections"], ended["sent_away"]) == (31, 31)
    of_clients = {"accepted", "authenticated", "subscribed", "repeats not written"}
    assert [event["event"] for event in process.events if event["event"] not in of_clients] == [
        "file descriptors",
        "started",
        "draining",
        *["closed"] * 31,
        "drained",
        "stopped",
    ]
    assert errors_of(process) == []


async def test_a_node_without_clients_ends_at_once_whatever_its_grace(tmp_path: Path) -> None:
    async with serving("--config", node_file(tmp_path, grace="10s", window="30s")) as process:
        process.send(signal.SIGTERM)
        assert await process.ended() == 0
    assert (await process.logged("drained"))["seconds"] < 5


async def test_clients_who_leave_in_the_grace_end_it(tmp_path: Path) -> None:
    async with serving("--config", node_file(tmp_path, grace="10s", window="30s")) as process:
        members = await gather(process, 3)
        process.send(signal.SIGTERM)
        await process.logged("draining")
        for each in members:
            each.abort()
        assert await process.ended() == 0
    ended = await process.logged("drained")
    assert (ended["connections"], ended["sent_away"], ended["seconds"] < 5) == (0, 0, True)


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
async def test_a_second_signal_ends_grace_and_window_and_all(tmp_path: Path, second: signal.Signals) -> None:
    async with serving("--config", node_file(tmp_path, grace="10s", window="30s")) as process:
        members = await gather(process, 3)
        process.send(signal.SIGTERM)
        await process.logged("draining")
        process.send(second)
        assert await process.ended() == 128 + second
        await all_gone(members)


async def is_answered(member: Member, number: int) -> bool:
    """Publish as command *number* and wait for the answer; false if the connection ends without one."""
    before, reply = len(member.payloads), f'"id":{number},'.encode()

    def has_come() -> bool:
        return any(reply in payload for payload in member.payloads[before:])

    member.send(text({"id": number, "publish": {"channel": "news", "data": number}}))
    await until(lambda: has_come() or member.gone.done(), "an answer or the end")
    return has_come()


async def test_what_clients_publish_while_they_are_sent_away_is_answered_or_they_are_told(tmp_path: Path) -> None:
    """60 clients over some seconds, each publishing as fast as it is answered; nobody sees half a frame or a reset."""
    async with serving("--config", node_file(tmp_path, grace="200ms", window="3s")) as process:
        members = await gather(process, 60)
        unanswered: Counter[Member] = Counter()

        async def publish(member: Member) -> None:
            for number in itertools.count(10):
                if not await is_answered(member, number):
                    unanswered[member] += 1
                if member.gone.done():
                    return

        async with asyncio.TaskGroup() as tasks:
            for each in members:
                tasks.create_task(publish(each))
            process.send(signal.SIGTERM)
            await all_gone(members)
        assert await process.ended() == 0
    assert Counter(each.closing for each in members) == {(3001, "shutdown"): 60}
    assert [each.error for each in members if each.error] == []
    assert [bytes(each.leftover) for each in members if each.leftover] == []
    assert set(unanswered.values()) <= {1}
    assert errors_of(process) == []


async def joined(node: RunningNode) -> ClientConnection:
    client = await connect(node.client_url, compression=None)
    await client.send('{"id":1,"connect":{}}')
    assert "connect" in json.loads(await client.recv())
    return client


async def test_a_node_that_is_asked_to_stop_at_once_while_it_drains_does() -> None:
    table = {"shutdown": {"grace": "10s", "timeout": "45s"}, "drain": {"window": "30s"}}
    async with running_node(table) as node:
        clients = [await joined(node) for _ in range(3)]
        node.node.drain()
        await until(lambda: not node.node.is_ready, "unready")
        assert [each["event"] for each in node.events][-1] == "draining"
        node.node.stop()
        for client in clients:
            with pytest.raises(ConnectionClosed) as caught:
                await client.recv()
            assert caught.value.rcvd is not None
            assert caught.value.rcvd.code == 3001
    ended = next(each for each in node.events if each["event"] == "drained")
    assert (ended["connections"], ended["sent_away"], ended["seconds"] < 5) == (3, 3, True)
