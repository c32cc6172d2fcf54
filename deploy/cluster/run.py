"""Starts a cluster, watches it and stops it in order.

Each part starts once the one below it is ready: Redis, the nodes, HAProxy. The first Ctrl-C (or SIGTERM, or a terminal
that goes) stops them from the clients' side: the nodes drain while HAProxy still carries their goodbyes, then HAProxy
ends, then Redis. A second one kills what is left.

A part that dies is reported and stays dead: what the others make of it is what one wants to see here.
"""

import argparse
import asyncio
import contextlib
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple, TextIO

from deploy.cluster.part import Part, Screen
from deploy.cluster.plan import (
    HIGHEST_PORT,
    HOST,
    INTERNAL_OFFSET,
    MOST_NODES,
    NODE_CONFIG,
    REDIS_OFFSET,
    NodePlan,
    Plan,
    Programs,
    SetupError,
    balancer_config,
    balancer_environment,
    check_ports,
    find_programs,
    summary,
)

START_TIMEOUT_S: Final = 30
SERVER_PATH: Final = "/usr/local/sbin:/usr/sbin"
"""Where Debian keeps servers, which is not on everybody's path."""
_ANSWER_TIMEOUT_S: Final = 2
_PAUSE_S: Final = 0.05


class _NotUpError(Exception):
    """Why the cluster did not come up, in one sentence."""


class _StoppedError(Exception):
    """Somebody asked to stop before all was up."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a cluster until it is stopped.

    Returns 0 if it was stopped in order, 1 if it did not come up or was killed, 2 if it could not even be tried.
    """
    options = _parser().parse_args(arguments)
    plan = Plan(port=options.port, node_count=options.nodes, redis=options.redis, stats_port=options.haproxy_stats)
    try:
        programs = find_programs(plan, path=os.pathsep.join([os.environ.get("PATH", os.defpath), SERVER_PATH]))
        check_ports(plan)
    except SetupError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return asyncio.run(Cluster(plan, programs, sys.stdout).run())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "make cluster",
        usage='make cluster ARGS="[--nodes N] [--port P] [--redis ADDRESS] [--haproxy-stats PORT]"',
        description="Run gateway nodes behind HAProxy, with Redis between them.",
        epilog=f"With --port P the nodes take P+1 and on, their internal ports P+{INTERNAL_OFFSET + 1} and on, "
        f"and Redis P+{REDIS_OFFSET}.",
    )
    parser.add_argument("--nodes", type=_number(1, MOST_NODES), default=3, metavar="N", help="how many (default: 3)")
    parser.add_argument(
        "--port", type=_number(1, HIGHEST_PORT), default=8000, metavar="P", help="HAProxy's port (default: 8000)"
    )
    parser.add_argument("--redis", metavar="ADDRESS", help="use this Redis and start none")
    parser.add_argument(
        "--haproxy-stats", type=_number(1, 65535), metavar="PORT", help="show HAProxy's statistics there"
    )
    return parser


def _number(least: int, most: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if text.isascii() and text.isdecimal() and least <= int(text) <= most:
            return int(text)
        raise argparse.ArgumentTypeError(f"{text!r} is no number from {least} to {most}")

    return read


class _Probe(NamedTuple):
    """How to see that a part is ready: it answers *request* on *port* with something that *expected* is in."""

    port: int
    request: bytes
    expected: bytes


class Cluster:
    """The processes of *plan*; what they say goes to *stream*."""

    def __init__(self, plan: Plan, programs: Programs, stream: TextIO) -> None:
        self._plan = plan
        self._programs = programs
        self._stopping = asyncio.Event()
        self._code = 0
        names = ["cluster", "haproxy", "redis", *(node.name for node in plan.nodes)]
        self._screen = Screen(stream, names, lost=self._stopping.set)
        self._redis: list[Part] = []
        self._nodes: list[Part] = []
        self._balancer: list[Part] = []

    async def run(self) -> int:
        """Start all, wait until somebody asks to stop, stop all; return the exit code."""
        self._listen_to_signals()
        with tempfile.TemporaryDirectory(prefix="gateway-cluster-") as directory:
            async with asyncio.TaskGroup() as tasks:
                try:
                    await self._start(tasks, Path(directory))
                    self._screen.show(summary(self._plan, {part.name: part.pid for part in self._parts}))
                    await self._stopping.wait()
                except _StoppedError:
                    pass
                except _NotUpError as error:
                    self._screen.say("cluster", str(error))
                    self._code = 1
                finally:
                    await self._stop()
        self._screen.say("cluster", "Stopped.")
        return self._code

    @property
    def _parts(self) -> list[Part]:
        return [*self._redis, *self._nodes, *self._balancer]

    def _listen_to_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(signum, self._take_signal)
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # where it is ignored, that is nohup, which means it
            loop.add_signal_handler(signal.SIGHUP, self._take_signal)

    def _take_signal(self) -> None:
        if self._stopping.is_set():
            self._code = 1
            for part in self._parts:
                part.kill()
        self._stopping.set()

    async def _start(self, tasks: asyncio.TaskGroup, directory: Path) -> None:
        plan = self._plan
        if plan.redis is None:
            redis = self._part("redis", redis_command(plan, self._programs, directory), {})
            ping = _Probe(plan.redis_port, b"PING\r\nQUIT\r\n", b"+PONG")
            await self._bring_up(tasks, self._redis, {redis: ping})
        nodes = {}
        for node in plan.nodes:
            part = self._part(node.name, node_command(node), node_environment(plan, node))
            nodes[part] = _Probe(node.internal_port, _get("/readyz"), b" 200 ")
        await self._bring_up(tasks, self._nodes, nodes)
        config = directory / "haproxy.cfg"
        config.write_text(balancer_config(plan), encoding="utf-8")
        command = [self._programs.haproxy, "-db", "-f", str(config)]
        haproxy = self._part("haproxy", command, balancer_environment(plan))
        probe = _Probe(plan.port, _get("/connection/init"), b" 200 ")
        await self._bring_up(tasks, self._balancer, {haproxy: probe})

    def _part(self, name: str, command: Sequence[str], environment: Mapping[str, str]) -> Part:
        return Part(name, command, environment, self._screen)

    async def _bring_up(self, tasks: asyncio.TaskGroup, group: list[Part], probes: Mapping[Part, _Probe]) -> None:
        """Start the parts of *probes*, which become *group*, and wait until all of them are ready.

        Raises:
            _NotUpError: if one of them ends, or is not ready in time.
            _StoppedError: if somebody asks to stop.
        """
        for part in probes:
            await part.start()
            group.append(part)
            tasks.create_task(part.watch(), name=part.name)
        for part, probe in probes.items():
            answer = b""
            try:
                async with asyncio.timeout(START_TIMEOUT_S):
                    while probe.expected not in answer:
                        await self._pause(part)
                        answer = await _ask(probe.port, probe.request)
            except TimeoutError:
                reason = answer.decode(errors="replace").rpartition("\r\n")[2].strip() or "no answer"
                raise _NotUpError(f"{part.name} is not ready after {START_TIMEOUT_S} s: {reason}.") from None
            part.was_ready = True

    async def _pause(self, part: Part) -> None:
        if part.has_ended.is_set():
            raise _NotUpError(f"{part.name} did not start.")
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), _PAUSE_S)
            raise _StoppedError

    async def _stop(self) -> None:
        if self._parts:
            self._screen.say("cluster", "Stopping: first the nodes, which send their clients away, then the rest.")
        for group in (self._nodes, self._balancer, self._redis):
            for part in group:
                part.ask_to_stop()
            for part in group:
                await part.ended()


def redis_command(plan: Plan, programs: Programs, directory: Path) -> list[str]:
    """Return how Redis is started: on this machine only, and it keeps nothing."""
    where = ["--bind", HOST, "--port", str(plan.redis_port), "--dir", str(directory)]
    return [programs.redis, *where, "--save", "", "--appendonly", "no", "--loglevel", "warning"]


def node_command(node: NodePlan) -> list[str]:
    """Return how a node is started."""
    ports = ["--port", str(node.port), "--internal-port", str(node.internal_port)]
    return [sys.executable, "-m", "gateway", "serve", "--config", str(NODE_CONFIG), *ports]


def node_environment(plan: Plan, node: NodePlan) -> dict[str, str]:
    """Return what a node is told beside its configuration file."""
    return {"GATEWAY_NODE__NAME": node.name, "GATEWAY_REDIS__ADDRESS": plan.redis_address}


def _get(path: str) -> bytes:
    return f"GET {path} HTTP/1.0\r\n\r\n".encode()


async def _ask(port: int, request: bytes) -> bytes:
    """Send *request* to a port of this machine and return all that comes back; nothing if nobody is there."""
    try:
        async with asyncio.timeout(_ANSWER_TIMEOUT_S):
            reader, writer = await asyncio.open_connection(HOST, port)
            with contextlib.closing(writer):
                writer.write(request)
                return await reader.read()
    except (OSError, TimeoutError):
        return b""
