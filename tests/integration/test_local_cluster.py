"""`make cluster`: nodes, HAProxy and Redis as real processes."""

import asyncio
import json
import os
import shlex
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.utils import accept_key

from deploy.cluster import part, run
from deploy.cluster.part import Part, Screen
from deploy.cluster.plan import balancer_config, balancer_environment, check_ports, find_programs
from tests.support.crowds import upgrade
from tests.support.local_cluster import ROOT, LocalCluster, free_plan, local_cluster
from tests.support.processes import ask
from tests.support.redis_servers import redis_server
from tests.support.waiting import until

CHAT = "lobby:chat"


class Client:
    """A client of the JSON protocol in the channel `lobby:chat`."""

    def __init__(self, socket: ClientConnection, node: str) -> None:
        self.node = node
        """Which node HAProxy chose for it."""
        self.position: dict[str, Any] = {}
        self._socket = socket
        self._unread: list[dict[str, Any]] = []

    async def join(self, **recovery: Any) -> Any:
        """Connect and subscribe; returns the subscribe reply, after which nothing is missed."""
        subscribe = {"channel": CHAT, **recovery}
        await self._socket.send(f'{{"id":1,"connect":{{}}}}\n{json.dumps({"id": 2, "subscribe": subscribe})}')
        reply = (await self._next(lambda message: message.get("id") == 2))["subscribe"]
        self.position = {"epoch": reply["epoch"], "offset": reply.get("offset", 0)}
        return reply

    async def publish(self, data: Any) -> None:
        await self._socket.send(json.dumps({"id": 3, "publish": {"channel": CHAT, "data": data}}))
        assert (await self._next(lambda message: message.get("id") == 3)) == {"id": 3, "publish": {}}

    async def received(self) -> Any:
        """Wait for a publication and return its data."""
        message = await self._next(lambda message: "pub" in message.get("push", {}))
        return message["push"]["pub"]["data"]

    async def closed(self) -> tuple[int, str]:
        """Read on until the connection is closed; returns why."""
        try:
            while True:
                await self._socket.recv()
        except ConnectionClosed as end:
            return (end.rcvd.code, end.rcvd.reason) if end.rcvd else (1006, "")

    async def _next(self, is_wanted: Any) -> Any:
        while True:
            for message in self._unread:
                if is_wanted(message):
                    self._unread.remove(message)
                    return message
            self._unread += [json.loads(line) for line in (await self._socket.recv(decode=False)).split(b"\n")]


@asynccontextmanager
async def client(cluster: LocalCluster) -> AsyncIterator[Client]:
    before = len(_chosen(cluster))
    async with connect(cluster.client_url) as socket:
        await until(lambda: len(_chosen(cluster)) > before, "HAProxy's line for a new client")
        yield Client(socket, _chosen(cluster)[before])


def _chosen(cluster: LocalCluster) -> list[str]:
    """Return the nodes that HAProxy chose for the clients so far, one after the other."""
    lines = [line.split("GET /connection/websocket -> ")[1:] for line in cluster.lines]
    return [rest[0].removesuffix(": 101") for rest in lines if rest and rest[0].endswith(": 101")]


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_a_message_crosses_the_nodes_and_ctrl_c_stops_all_in_order() -> None:
    plan = free_plan(node_count=2)
    async with local_cluster(plan) as cluster, asyncio.TaskGroup() as tasks:
        await cluster.said("Ctrl-C stops everything.")
        pids = cluster.pids
        assert list(pids) == ["haproxy", "node1", "node2", "redis"]
        page = await ask(f"{cluster.url}/")
        assert (page.status, "Gateway playground" in page.text) == (200, True)

        async with client(cluster) as ada, client(cluster) as grace:
            await ada.join()
            await grace.join()
            assert {ada.node, grace.node} == {"node1", "node2"}
            await ada.publish({"text": "hello"})
            hello = await grace.received()
            assert hello == {"text": "hello", "server_time": hello["server_time"]}

            ends = [tasks.create_task(member.closed(), name="client") for member in (ada, grace)]
            cluster.send(signal.SIGINT)
            assert await cluster.ended() == 0, cluster.text
            assert [await end for end in ends] == [(3001, "shutdown")] * 2

        stopped = [await cluster.said(f"{node.name} ", "stopped") for node in plan.nodes]
        assert max(stopped) < await cluster.said("redis ", "ready to exit") < await cluster.said("Stopped.")
        assert cluster.count("was ended") == cluster.count("exited") == 0, cluster.text
        assert [name for name, pid in pids.items() if _is_alive(pid)] == []
        check_ports(plan)


async def test_clients_of_a_killed_node_go_on_elsewhere_until_it_is_back() -> None:
    async with local_cluster(free_plan(node_count=2)) as cluster:
        await cluster.said("Ctrl-C stops everything.")
        pids = cluster.pids
        async with client(cluster) as ada, client(cluster) as grace:
            await ada.join()
            await grace.join()
            lost, other = ada.node, grace.node
            assert {lost, other} == {"node1", "node2"}
            os.kill(pids[lost], signal.SIGKILL)
            assert await ada.closed() == (1006, "")
            await grace.publish({"text": "while you were away"})
            async with client(cluster) as back:
                assert back.node == other
                reply = await back.join(recover=True, **ada.position)
                missed = [publication["data"]["text"] for publication in reply["publications"]]
                assert (reply["recovered"], missed) == (True, ["while you were away"])
                await grace.publish({"text": "welcome back"})
                assert (await back.received())["text"] == "welcome back"
        await cluster.said(f"cluster | {lost} (pid {pids[lost]}) was ended by SIGKILL. Its last lines:")
        await cluster.said(f"Server nodes/{lost} is DOWN")
        hint = cluster.lines[await cluster.said("cluster | To start it again, in another terminal:") + 1]
        command = shlex.split(hint.removeprefix("cluster |"))
        again = await asyncio.create_subprocess_exec("env", *command, cwd=ROOT, stderr=asyncio.subprocess.DEVNULL)
        try:
            await cluster.said(f"Server nodes/{lost} is UP")
        finally:
            again.terminate()
            assert await again.wait() == 0


async def test_a_redis_that_is_given_is_used_and_left_alone() -> None:
    async with redis_server() as server:
        plan = free_plan(node_count=1, redis=f"redis://127.0.0.1:{server.port}")
        async with local_cluster(plan) as cluster:
            await cluster.said("Ctrl-C stops everything.")
            assert list(cluster.pids) == ["haproxy", "node1"]
            async with client(cluster) as ada:
                await ada.join()
            cluster.send(signal.SIGTERM)
            assert await cluster.ended() == 0, cluster.text
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"DBSIZE\r\n")
        assert int((await reader.readline()).removeprefix(b":")) > 0
        writer.close()
        await writer.wait_closed()


@pytest.mark.skipif(sys.platform != "linux", reason="only there all of 127.0.0.0/8 is this machine")
async def test_a_nodes_log_has_the_address_of_the_client_and_not_haproxys() -> None:
    async with local_cluster(free_plan(node_count=1)) as cluster:
        await cluster.said("Ctrl-C stops")
        headers = {"X-Forwarded-For": "6.6.6.6"}
        async with connect(cluster.client_url, local_addr=("127.0.0.2", 0), additional_headers=headers, proxy=None):
            await cluster.said("node1", "accepted", "address=127.0.0.2")


async def test_ctrl_c_while_it_starts_stops_what_is_there() -> None:
    plan = free_plan(node_count=2)
    async with local_cluster(plan) as cluster:
        await cluster.said("redis ")
        cluster.send(signal.SIGINT)
        assert await cluster.ended() == 0, cluster.text
        assert cluster.lines[-1] == "cluster | Stopped."
        assert cluster.count("Ctrl-C stops everything.") == 0
        check_ports(plan)


async def test_a_second_ctrl_c_does_not_wait_for_a_client_that_does_not_say_goodbye() -> None:
    plan = free_plan(node_count=1)
    async with local_cluster(plan) as cluster:
        await cluster.said("Ctrl-C stops everything.")
        reader, writer = await asyncio.open_connection("127.0.0.1", plan.port)
        writer.write(upgrade("/ws/lobby:chat"))
        await reader.readuntil(b"\r\n\r\n")
        cluster.send(signal.SIGINT)
        await cluster.said("node1 ", "draining")
        cluster.send(signal.SIGINT)
        assert await cluster.ended() == 1, cluster.text
        assert cluster.count("node1 ", "stopped") == 0
        assert [name for name, pid in cluster.pids.items() if _is_alive(pid)] == []
        writer.close()


async def test_a_node_that_cannot_start_is_reported_and_nothing_is_left() -> None:
    plan = free_plan(node_count=1)
    async with local_cluster(plan, environment={"GATEWAY_LOG__LEVEL": "loud"}) as cluster:
        assert await cluster.ended() == 1, cluster.text
        reported = await cluster.said("cluster | node1 (pid ", ") exited with code 2. Its last lines:")
        assert cluster.lines[reported + 1].startswith("cluster |     log.level (GATEWAY_LOG__LEVEL) = 'loud'")
        assert reported < await cluster.said("cluster | node1 did not start.") < await cluster.said("Stopped.")
        assert cluster.count("To start it again") == 0
        check_ports(plan)


async def test_a_node_that_is_not_ready_in_time_ends_the_attempt(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run, "START_TIMEOUT_S", 0)
    plan = free_plan(node_count=1, redis="127.0.0.1:1")
    programs = find_programs(plan, path=os.environ["PATH"] + os.pathsep + run.SERVER_PATH)
    assert await run.Cluster(plan, programs, sys.stdout).run() == 1
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("cluster |")]
    assert said == [
        "cluster | node1 is not ready after 0 s: no answer.",
        "cluster | Stopping: first the nodes, which send their clients away, then the rest.",
        "cluster | Stopped.",
    ]
    check_ports(plan)


# HAProxy alone, before nodes that do as the test tells them.


class ScriptedNode:
    """Answers requests with their own head, WebSockets with their own bytes, and health checks with *health*."""

    def __init__(self) -> None:
        self.health = 200
        self.is_dying = False
        self.is_shut = False
        self.heads: list[str] = []

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.heads.append(head)
        if self.is_shut:
            writer.write(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")
        elif not self.is_dying and "upgrade: websocket" in head:
            key = dict(line.split(": ") for line in head.splitlines() if ": " in line)["sec-websocket-key"]
            accepted = f"connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: {accept_key(key)}"
            writer.write(f"HTTP/1.1 101 Switching Protocols\r\n{accepted}\r\n\r\n".encode())
            while data := await reader.read(100):
                writer.write(data)
        elif not self.is_dying:
            writer.write(f"HTTP/1.0 200 OK\r\n\r\n{head}".encode())
        writer.close()

    async def answer_check(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.0 %d Checked\r\n\r\n" % self.health)
        writer.close()


class Balancer:
    """A running HAProxy and the nodes behind it."""

    def __init__(self, port: int, nodes: list[ScriptedNode]) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.nodes = nodes
        self.lines: list[str] = []


@pytest.fixture
async def balancer(tmp_path: Path) -> AsyncIterator[Balancer]:
    plan = free_plan(node_count=2)
    config = tmp_path / "haproxy.cfg"
    config.write_text(balancer_config(plan))
    running = Balancer(plan.port, [ScriptedNode() for _ in plan.nodes])
    servers = []
    for scripted, node in zip(running.nodes, plan.nodes, strict=True):
        servers.append(await asyncio.start_server(scripted.answer, "127.0.0.1", node.port))
        servers.append(await asyncio.start_server(scripted.answer_check, "127.0.0.1", node.internal_port))
    haproxy = find_programs(plan, path=os.environ["PATH"] + os.pathsep + run.SERVER_PATH).haproxy
    process = await asyncio.create_subprocess_exec(
        *(haproxy, "-db", "-f", config),
        env=balancer_environment(plan),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert process.stdout is not None

    async def read() -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            running.lines.append(line.decode())

    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(read(), name="output of HAProxy")
            while not await _answers(plan.port):
                assert process.returncode is None, running.lines
            yield running
            process.terminate()
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        for server in servers:
            server.close()
            await server.wait_closed()


async def _answers(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionRefusedError:
        await asyncio.sleep(0.01)
        return False
    writer.close()
    await writer.wait_closed()
    return True


async def test_a_node_learns_the_clients_address_and_not_what_the_client_claims(balancer: Balancer) -> None:
    answer = await ask(f"{balancer.url}/any", headers={"X-Forwarded-For": "192.0.2.1"})
    named = [line.lower() for line in answer.text.splitlines() if "forwarded" in line.lower()]
    assert (answer.status, named) == (200, ["x-forwarded-for: 127.0.0.1"])


async def test_what_a_dying_node_has_not_answered_is_asked_again_unless_it_has_an_effect(balancer: Balancer) -> None:
    for node in balancer.nodes:
        node.is_dying = True
    assert (await ask(f"{balancer.url}/any", method="POST")).status == 502
    assert sum(len(node.heads) for node in balancer.nodes) == 1
    balancer.nodes[0].is_dying = False
    for _ in balancer.nodes:
        assert (await ask(f"{balancer.url}/any")).status == 200


async def test_a_client_that_a_node_does_not_take_gets_to_the_next_one(balancer: Balancer) -> None:
    shut, other = balancer.nodes
    shut.is_shut = True
    for _ in range(4):
        reader, writer = await asyncio.open_connection("127.0.0.1", balancer.port)
        writer.write(upgrade("/ws"))
        assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
        writer.close()
    assert (len(shut.heads) > 0, len(other.heads)) == (True, 4)
    other.is_shut = True
    assert (await ask(f"{balancer.url}/any")).status == 503


async def test_a_node_that_is_not_ready_keeps_its_clients_and_gets_no_new_ones(balancer: Balancer) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", balancer.port)
    writer.write(upgrade("/ws"))
    await reader.readuntil(b"\r\n\r\n")
    [unready] = [node for node in balancer.nodes if node.heads]
    unready.health = 503

    await until(lambda: any(" is DOWN" in line for line in balancer.lines), "HAProxy taking it out")
    for _ in range(4):
        assert (await ask(f"{balancer.url}/any")).status == 200
    assert len(unready.heads) == 1
    writer.write(b"still there?")
    assert await reader.readexactly(12) == b"still there?"
    unready.health = 200
    await until(lambda: any(" is UP" in line for line in balancer.lines), "HAProxy taking it back")
    writer.close()
    await writer.wait_closed()


# One process.


async def test_a_part_that_does_not_stop_is_killed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(part, "STOP_TIMEOUT_S", 0)
    screen = Screen(sys.stdout, ["cluster", "deaf"], lost=lambda: None)
    deaf = Part("deaf", ["sleep", "600"], {}, screen)
    await deaf.start()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(deaf.watch(), name="deaf")
        await deaf.ended()
    assert deaf.has_ended.is_set()
    assert capsys.readouterr().out == "cluster | deaf does not stop, so it is killed.\n"


async def test_a_line_without_end_comes_in_pieces(capsys: pytest.CaptureFixture[str]) -> None:
    screen = Screen(sys.stdout, ["cluster", "talker"], lost=lambda: None)
    talker = Part("talker", [sys.executable, "-c", "print('x' * 300_000, end='')"], {}, screen)
    await talker.start()
    await talker.watch()
    said = capsys.readouterr().out.splitlines()
    pieces = [line.removeprefix("talker  | ") for line in said if line.startswith("talker")]
    assert len(pieces) > 1
    assert "".join(pieces) == "x" * 300_000


async def test_a_paused_part_is_stopped_too(capsys: pytest.CaptureFixture[str]) -> None:
    screen = Screen(sys.stdout, ["cluster", "paused"], lost=lambda: None)
    paused = Part("paused", ["sleep", "600"], {}, screen)
    await paused.start()
    os.kill(paused.pid, signal.SIGSTOP)
    paused.ask_to_stop()
    await paused.watch()
    await paused.ended()
    assert capsys.readouterr().out == ""
