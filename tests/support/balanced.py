"""Nodes on a real Redis behind a real HAProxy, each of which a test can end."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from deploy.cluster import run
from deploy.cluster.plan import NodePlan, Plan, balancer_config, balancer_environment, find_programs
from tests.support.local_cluster import free_plan
from tests.support.processes import ServingProcess, serving
from tests.support.redis_servers import redis_server

API_KEY = "a key of the tests"


class Balanced:
    """What a client sees: one address; and what is behind it."""

    def __init__(self, plan: Plan, nodes: Mapping[str, ServingProcess], http: httpx.AsyncClient) -> None:
        self.host = f"127.0.0.1:{plan.port}"
        self.nodes = dict(nodes)
        self._plans = {node.name: node for node in plan.nodes}
        self._http = http

    async def call(self, node: str, method: str, **request: Any) -> dict[str, Any]:
        """Call the server API of *node*."""
        url = f"http://127.0.0.1:{self._plans[node].internal_port}/api/{method}"
        answer = await self._http.post(url, json=request, headers={"X-API-Key": API_KEY})
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        assert "error" not in found, found
        return found

    async def home_of(self, client: str) -> str:
        """Return the name of the node that holds *client*."""
        for node, process in self.nodes.items():
            if not process.is_running:
                continue
            names = {each["uid"]: each["name"] for each in (await self.call(node, "info"))["result"]["nodes"]}
            for each in (await self.call(node, "connections"))["result"]["connections"]:
                if each["client"] == client:
                    return str(names.get(each["node"], each["node"]))
        raise AssertionError(f"no node has {client}")

    async def metric(self, node: str, name: str) -> float:
        """Return the sum of a metric of *node* over its labels."""
        page = (await self._http.get(f"http://127.0.0.1:{self._plans[node].internal_port}/metrics")).text
        return sum(
            float(line.rpartition(" ")[2]) for line in page.splitlines() if line.startswith((f"{name}{{", f"{name} "))
        )


def _environment(plan: Plan, node: NodePlan, redis: str) -> dict[str, str]:
    del plan
    return {"GATEWAY_NODE__NAME": node.name, "GATEWAY_REDIS__ADDRESS": redis}


@asynccontextmanager
async def balanced_nodes(config: Path, *, count: int = 2) -> AsyncIterator[Balanced]:
    """Run *count* nodes as *config* says, behind HAProxy; what the block has ended stays ended."""
    async with AsyncExitStack() as stack:
        redis = await stack.enter_async_context(redis_server())
        plan = free_plan(node_count=count, redis=redis.location)
        http = await stack.enter_async_context(httpx.AsyncClient(timeout=20))
        nodes = {}
        for node in plan.nodes:
            ports = ("--port", str(node.port), "--internal-port", str(node.internal_port))
            environment = os.environ | _environment(plan, node, redis.location)
            running = serving("--config", str(config), *ports, environment=environment)
            nodes[node.name] = await stack.enter_async_context(running)
        await stack.enter_async_context(_haproxy(plan, config.with_name("haproxy.cfg")))
        yield Balanced(plan, nodes, http)


@asynccontextmanager
async def _haproxy(plan: Plan, config: Path) -> AsyncIterator[None]:
    config.write_text(balancer_config(plan))  # noqa: ASYNC240 - a page of text, before anything runs
    program = find_programs(plan, path=os.environ["PATH"] + os.pathsep + run.SERVER_PATH).haproxy
    process = await asyncio.create_subprocess_exec(
        *(program, "-db", "-f", config),
        env=balancer_environment(plan),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(10):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", plan.port)
                except ConnectionRefusedError:
                    assert process.returncode is None, "HAProxy ended"
                    await asyncio.sleep(0.01)
                else:
                    writer.close()
                    break
        yield
    finally:
        process.kill()
        await process.wait()


class Program:
    """An SDK's program: it takes commands as lines of JSON, and says what happens as lines of JSON."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.events: list[dict[str, Any]] = []
        self._process = process
        self._changed = asyncio.Condition()
        self._reading = asyncio.create_task(self._read(), name="output of an SDK's program")

    async def tell(self, **command: Any) -> None:
        """Give a command."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command).encode() + b"\n")
        await self._process.stdin.drain()

    async def ask(self, what: str, **command: Any) -> Any:
        """Give a command and return what came of it."""
        before = len(self.named(what))
        await self.tell(do=what, **command)
        return (await self.said(what, before + 1))[-1]["result"]

    def named(self, event: str) -> list[dict[str, Any]]:
        """Return what was said under one name."""
        return [each for each in self.events if each["event"] == event]

    async def said(self, event: str, count: int = 1) -> list[dict[str, Any]]:
        """Wait until it has said *event* so many times; returns all of them."""
        try:
            async with asyncio.timeout(40), self._changed:
                while len(self.named(event)) < count:
                    assert not self._reading.done(), f"it ended, and said {self.events[-20:]}"
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"{len(self.named(event))} of {count} {event}; it said {self.events[-20:]}") from None
        return self.named(event)

    async def _read(self) -> None:
        assert self._process.stdout is not None
        try:
            while line := await self._process.stdout.readline():
                async with self._changed:
                    self.events.append(json.loads(line) if line.startswith(b"{") else {"event": "noise", "text": line})
                    self._changed.notify_all()
        finally:
            async with self._changed:
                self._changed.notify_all()


@asynccontextmanager
async def program(*command: str, cwd: Path, environment: Mapping[str, str] | None = None) -> AsyncIterator[Program]:
    """Run an SDK's program."""
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=cwd,
        env=environment,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        limit=1 << 20,
    )
    running = Program(process)
    try:
        yield running
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await running._reading  # noqa: SLF001 - its own
