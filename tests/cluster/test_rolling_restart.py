"""Three nodes behind HAProxy are restarted one after the other, with everybody connected and publishing meanwhile."""

import asyncio
import contextlib
import json
import os
import signal
from bisect import bisect_left
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from deploy.cluster.plan import Plan, balancer_config, balancer_environment, find_programs
from deploy.cluster.run import SERVER_PATH
from gateway.config import merge
from gateway.domain.drain import LEAST_RATE, MOST_IN_A_SECOND
from tests.support.clusters import STREAMS, as_toml, read_streams, redis_table
from tests.support.crowds import errors_of
from tests.support.listener import Listener
from tests.support.local_cluster import free_plan
from tests.support.oracle import faults_where_data_survived
from tests.support.processes import ServingProcess, serving
from tests.support.publisher import Publisher
from tests.support.redis_servers import RedisServer, redis_server
from tests.support.sdk_client import Message
from tests.support.swarm import Swarm, SwarmSize, first_of, left_out, running
from tests.support.waiting import until

SHUTDOWN = 3001
GRACE_S = 4.0
"""HAProxy looks once a second, and believes what it has seen twice."""
PATIENCE_S = 120
_LOOKS_EVERY_S = 0.02
_WORTH_COUNTING_S = 0.1
_AT_ONCE = 100


class Form(NamedTuple):
    size: SwarmSize
    window_s: float


SHORT = Form(SwarmSize(listeners=300, channels=4, publishers=3, per_second=30), window_s=3.0)
FULL = Form(SwarmSize(listeners=2_000, channels=2, publishers=3, per_second=6), window_s=30.0)


class TimedListener(Listener):
    """Notes with which codes it was sent away, and how long it took until it followed all of its channels again."""

    # Thousands of clients are one process here, which may be late itself.
    reply_timeout_s = 60.0

    def __init__(self, name: str, channels: Iterable[str], addresses: Sequence[str], *, start: int = 0) -> None:
        super().__init__(name, channels, addresses, start=start)
        self.codes: list[int] = []
        self.down_s: list[float] = []
        self._gone_at_s: float | None = None

    def _gone(self, code: int) -> None:
        super()._gone(code)
        self.codes.append(code)
        self._gone_at_s = self._loop.time()

    def _subscribed(self, channel: str, reply: Message) -> None:
        super()._subscribed(channel, reply)
        if self._gone_at_s is not None and self.is_subscribed:
            self.down_s.append(self._loop.time() - self._gone_at_s)
            self._gone_at_s = None


class Balancer:
    """A running HAProxy, and what it says of the nodes."""

    def __init__(self, plan: Plan) -> None:
        self.address = f"127.0.0.1:{plan.port}"
        self.lines: list[str] = []

    def changes(self, name: str, state: str) -> int:
        """Count how often it found the node *name* to be in *state*."""
        return sum(f"Server nodes/{name} is {state}" in line for line in self.lines)


@asynccontextmanager
async def balancing(plan: Plan, folder: Path) -> AsyncIterator[Balancer]:
    """Run HAProxy before the nodes of *plan*, as `make cluster` does."""
    balancer, config = Balancer(plan), folder / "haproxy.cfg"
    config.write_text(balancer_config(plan), encoding="utf-8")
    haproxy = find_programs(plan, path=os.environ["PATH"] + os.pathsep + SERVER_PATH).haproxy
    process = await asyncio.create_subprocess_exec(
        *(haproxy, "-db", "-f", config),
        env=balancer_environment(plan),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )

    async def read() -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            balancer.lines.append(line.decode())

    reading = asyncio.create_task(read(), name="output of HAProxy")
    try:
        yield balancer
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()
        await reading


class Fleet:
    """The nodes of *plan*, each in the life that it has now; all that have lived are kept."""

    def __init__(self, plan: Plan, redis: RedisServer, folder: Path, stack: AsyncExitStack, window_s: float) -> None:
        self.plan = plan
        self.lives: list[ServingProcess] = []
        self._stack = stack
        self._file = folder / "node.toml"
        table: dict[str, Any] = {
            "log": {"repeat_limit": 0},
            "client": {"ping_interval": "60s", "pong_timeout": "50s"},
            "shutdown": {"grace": GRACE_S, "timeout": GRACE_S + window_s + 10},
            "drain": {"window": window_s},
        }
        values = merge(merge(dict(STREAMS), redis_table(redis.location)), table)
        self._file.write_text(as_toml(values), encoding="utf-8")

    async def start(self, number: int) -> ServingProcess:
        """Start a node, on the ports that it always has."""
        node = self.plan.nodes[number]
        ports = ("--port", str(node.port), "--internal-port", str(node.internal_port))
        environment = {"GATEWAY_NODE__NAME": node.name}
        process = await self._stack.enter_async_context(
            serving("--config", str(self._file), *ports, environment=environment)
        )
        self.lives.append(process)
        return process

    def times(self, event: str, **fields: object) -> list[float]:
        """Return when *event* was logged, by all nodes in all lives, in order."""
        return sorted(
            datetime.fromisoformat(each["timestamp"]).timestamp()
            for life in self.lives
            for each in life.events
            if each["event"] == event and fields.items() <= each.items()
        )


class Lag:
    """For how long this process was held up since it was last asked: who waited then came back all at once."""

    def __init__(self) -> None:
        self._held_up_s = 0.0

    async def run(self) -> None:
        now_s = asyncio.get_running_loop().time
        while True:
            before_s = now_s()
            await asyncio.sleep(_LOOKS_EVERY_S)
            late_s = now_s() - before_s - _LOOKS_EVERY_S
            if late_s > _WORTH_COUNTING_S:
                self._held_up_s += late_s

    def take_s(self) -> float:
        held_up_s, self._held_up_s = self._held_up_s, 0.0
        return held_up_s


@asynccontextmanager
async def measuring_lag() -> AsyncIterator[Lag]:
    lag = Lag()
    task = asyncio.create_task(lag.run(), name="lag")
    try:
        yield lag
    finally:
        task.cancel()


def busiest_second(times_s: Sequence[float]) -> int:
    """Return how many of *times_s* are in the second that has most of them."""
    return max((bisect_left(times_s, at_s + 1.0) - number for number, at_s in enumerate(times_s)), default=0)


@pytest.mark.parametrize(
    "form",
    [
        pytest.param(SHORT, id="short", marks=pytest.mark.timeout(180)),
        pytest.param(FULL, id="full", marks=[pytest.mark.long, pytest.mark.timeout(600)]),
    ],
)
async def test_a_rolling_restart_loses_nothing_and_is_no_herd(
    tmp_path: Path, form: Form, note: Callable[[str], None]
) -> None:
    plan = free_plan(node_count=3)
    async with AsyncExitStack() as stack:
        redis = await stack.enter_async_context(redis_server())
        fleet = Fleet(plan, redis, tmp_path, stack, form.window_s)
        nodes = [await fleet.start(number) for number in range(3)]
        balancer = await stack.enter_async_context(balancing(plan, tmp_path))
        swarm, listeners = make_swarm(form.size, balancer.address)
        async with arriving(swarm), measuring_lag() as lag:
            swarm.mark()
            await swarm.is_going()
            assert {each.connections for each in listeners} == {1}
            for number, node in enumerate(plan.nodes):
                before, _ = len(fleet.times("authenticated")), lag.take_s()
                ended = await restart(fleet, balancer, nodes, number)
                swarm.mark()
                await swarm.is_going()
                rate, lag_s = max(ended["connections"] / form.window_s, LEAST_RATE), lag.take_s()
                told = busiest_second(fleet.times("closed", code=SHUTDOWN, by="server")[-ended["sent_away"] :])
                came = fleet.times("authenticated")[before:]
                note(
                    f"{node.name}: {ended['connections']} clients in {ended['seconds']} s, {rate:.0f} a second due; in "
                    f"the busiest second {told} were sent away, {busiest_second(came)} came back (lag {lag_s:.1f} s)"
                )
                assert ended["connections"] > form.size.listeners / 5
                assert told <= MOST_IN_A_SECOND * rate
                assert busiest_second(came) <= MOST_IN_A_SECOND * rate * (1 + lag_s)
                # Nobody had to try twice.
                assert len(came) == ended["connections"]
            await swarm.conclude()
            streams = await read_streams(redis, swarm.channels)
            violations = swarm.violations(faults_where_data_survived, streams)
            assert not violations, first_of(violations)
            down_s = sorted(each for listener in listeners for each in listener.down_s)
            median_s, longest_s = down_s[len(down_s) // 2], down_s[-1]
            note(f"{len(down_s)} reconnects; down for {median_s:.2f} s (median), {longest_s:.2f} s (longest)")
            note(swarm.volume())
            assert Counter(code for each in listeners for code in each.codes).keys() == {SHUTDOWN}
            assert [each.name for each in listeners if each.given_up is not None] == []
    assert [line for life in fleet.lives for line in errors_of(life) if not is_of_a_slow_start(line)] == []


def is_of_a_slow_start(line: str) -> bool:
    """Tell whether a node says that it has not reached its broker yet, which a busy machine takes its time for."""
    event = json.loads(line)
    return (event["event"], event.get("reason", "")[-4:]) == ("broker lost", " yet")


@asynccontextmanager
async def arriving(swarm: Swarm) -> AsyncIterator[None]:
    """Keep the swarm connected until the block ends; it comes by the hundred, and is no herd of its own."""
    async with AsyncExitStack() as stack:
        for first in range(0, len(swarm.listeners), _AT_ONCE):
            some = swarm.listeners[first : first + _AT_ONCE]
            await stack.enter_async_context(running(some))
            assert await left_out(some, lambda each: each.is_subscribed) == []
        await stack.enter_async_context(running(swarm.publishers))
        yield


def make_swarm(size: SwarmSize, address: str) -> tuple[Swarm, list[TimedListener]]:
    channels = [f"c{number}" for number in range(size.channels)]
    listeners = [TimedListener(f"listener {n}", channels, [address]) for n in range(size.listeners)]
    per_second = size.per_second / size.publishers
    publishers = [
        Publisher(f"publisher-{n}", channels, [address], per_second=per_second) for n in range(size.publishers)
    ]
    return Swarm(channels, listeners, publishers), listeners


async def restart(fleet: Fleet, balancer: Balancer, nodes: list[ServingProcess], number: int) -> dict[str, Any]:
    """Stop a node as an orchestrator does, start it again, and return what it said of its drain."""
    name, node = fleet.plan.nodes[number].name, nodes[number]
    ups = balancer.changes(name, "UP")
    node.send(signal.SIGTERM)
    await node.logged("draining")
    await until(lambda: balancer.changes(name, "DOWN") > 0, "HAProxy taking it out")
    assert [each for each in node.events if each["event"] == "closed" and each["code"] == SHUTDOWN] == []
    # Not by its lines: of those there are thousands, and who waits for one reads them all each time.
    assert await node.ended(patience_s=PATIENCE_S) == 0
    ended = await node.logged("drained")
    nodes[number] = await fleet.start(number)
    await until(lambda: balancer.changes(name, "UP") > ups, "HAProxy taking it back")
    assert await left_out(nodes, lambda each: each.is_running) == []
    return ended
