"""`make cluster`'s program in tests: on free ports, with all that it says kept."""

import asyncio
import os
import random
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from deploy.cluster.plan import Plan, SetupError, check_ports
from tests.support.waiting import until

ROOT = Path(__file__).parents[2]
# Below the ports that systems give to outgoing connections, so that none of those takes one before it is listened on.
_FIRST_PORTS = range(20000, 31500, 10)
# Generous, since it only bounds a failing test.
_STOP_TIMEOUT_S = 20


def free_plan(*, node_count: int, redis: str | None = None) -> Plan:
    """Return a plan whose ports are free right now."""
    for port in random.sample(_FIRST_PORTS, len(_FIRST_PORTS)):
        plan = Plan(port=port, node_count=node_count, redis=redis, stats_port=None)
        try:
            check_ports(plan)
        except SetupError:
            continue
        return plan
    raise AssertionError("there are no free ports")


class LocalCluster:
    """A cluster that runs, or tries to."""

    def __init__(self, plan: Plan, process: asyncio.subprocess.Process) -> None:
        self.plan = plan
        self.url = f"http://127.0.0.1:{plan.port}"
        self.client_url = f"ws://127.0.0.1:{plan.port}/connection/websocket"
        self.lines: list[str] = []
        self._process = process
        self._reading = asyncio.create_task(self._read(), name="output of the cluster")

    @property
    def pids(self) -> dict[str, int]:
        """The process ids that it printed, by name."""
        names = {"haproxy", "redis", *(node.name for node in self.plan.nodes)}
        cells = [line.split() for line in self.lines if line.startswith("  ")]
        return {row[0]: int(row[-1]) for row in cells if row and row[0] in names and row[-1].isdecimal()}

    def count(self, *parts: str) -> int:
        """Count the lines in which all of *parts* are."""
        return sum(all(part in line for part in parts) for line in self.lines)

    async def said(self, *parts: str) -> int:
        """Wait for a line in which all of *parts* are, and return its number."""
        try:
            await until(lambda: self.count(*parts) > 0 or self._reading.done())
            return next(n for n, line in enumerate(self.lines) if all(part in line for part in parts))
        except (AssertionError, StopIteration):
            raise AssertionError(f"never said {parts} in\n{self.text}") from None

    @property
    def text(self) -> str:
        """All that it said."""
        return "\n".join(self.lines)

    def send(self, signum: signal.Signals) -> None:
        """Send a signal as a terminal does: to the whole process group."""
        os.killpg(self._process.pid, signum)

    async def ended(self) -> int:
        """Wait until it has ended and return its exit code."""
        try:
            async with asyncio.timeout(_STOP_TIMEOUT_S):
                await self._reading
                return await self._process.wait()
        except TimeoutError:
            raise AssertionError(f"it does not end; it said\n{self.text}") from None

    async def release(self) -> None:
        """End it and all that it has started, in any case."""
        try:
            if self._process.returncode is None:
                self.send(signal.SIGTERM)
            await self.ended()
        except AssertionError:
            self.send(signal.SIGTERM)  # the second one has it kill its processes
            await self.ended()
            raise

    async def _read(self) -> None:
        if self._process.stdout is None:
            raise AssertionError("it is started with a pipe")
        async for line in self._process.stdout:
            self.lines.append(line.decode().rstrip("\n"))


@asynccontextmanager
async def local_cluster(plan: Plan, *, environment: Mapping[str, str] | None = None) -> AsyncIterator[LocalCluster]:
    """Run the cluster of *plan*; it is stopped at the end, whatever happened."""
    arguments = ["--nodes", str(plan.node_count), "--port", str(plan.port)]
    arguments += ["--redis", plan.redis] if plan.redis else []
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "deploy.cluster", *arguments),
        cwd=ROOT,
        env=clean | dict(environment or {}),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    cluster = LocalCluster(plan, process)
    try:
        yield cluster
    finally:
        await cluster.release()
