"""What a cluster consists of and where it listens; and the checks that say so before anything has started."""

import contextlib
import os
import re
import shutil
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

NODE_CONFIG: Final = Path(__file__).with_name("gateway.toml")
BALANCER_CONFIG: Final = Path(__file__).with_name("haproxy.cfg")

HOST: Final = "127.0.0.1"
MOST_NODES: Final = 9
INTERNAL_OFFSET: Final = 1000
REDIS_OFFSET: Final = 379
HIGHEST_PORT: Final = 65535 - INTERNAL_OFFSET - MOST_NODES


class SetupError(Exception):
    """Why nothing was started, in one sentence."""


class NodePlan(NamedTuple):
    """One node and where it listens."""

    name: str
    port: int
    internal_port: int


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to run, and where; all ports but the statistics' follow from HAProxy's."""

    port: int
    node_count: int
    redis: str | None
    """The address of somebody's own Redis; `None`: start one."""
    stats_port: int | None

    @property
    def nodes(self) -> list[NodePlan]:
        """The nodes, in order."""
        numbers = range(1, self.node_count + 1)
        return [NodePlan(f"node{n}", self.port + n, self.port + INTERNAL_OFFSET + n) for n in numbers]

    @property
    def redis_port(self) -> int:
        """Where a Redis of our own listens."""
        return self.port + REDIS_OFFSET

    @property
    def redis_address(self) -> str:
        """What the nodes are told."""
        return self.redis or f"{HOST}:{self.redis_port}"

    @property
    def ports(self) -> list[tuple[str, int]]:
        """Every port that will be listened on, and by whom."""
        ports = [("HAProxy", self.port)]
        for name, port, internal_port in self.nodes:
            ports += [(name, port), (f"{name}, internal", internal_port)]
        if self.redis is None:
            ports.append(("Redis", self.redis_port))
        if self.stats_port is not None:
            ports.append(("HAProxy's statistics", self.stats_port))
        return ports


class Programs(NamedTuple):
    """Paths of the servers that are not ours."""

    haproxy: str
    redis: str
    """Empty where none is to be started."""


def find_programs(plan: Plan, *, path: str) -> Programs:
    """Find what *plan* needs on *path*.

    Raises:
        SetupError: with what to install.
    """
    wanted = ["haproxy"] if plan.redis else ["redis-server", "haproxy"]
    found = {name: shutil.which(name, path=path) for name in wanted}
    missing = [name for name in wanted if found[name] is None]
    if missing:
        packages = " ".join(missing)
        raise SetupError(
            f"The cluster needs {' and '.join(missing)}: install with `apt-get install {packages}` "
            f"or `brew install {packages.replace('redis-server', 'redis')}`."
        )
    return Programs(haproxy=found["haproxy"] or "", redis=found.get("redis-server") or "")


def check_ports(plan: Plan) -> None:
    """Make sure that every port of *plan* can be had.

    Raises:
        SetupError: for the first that can't.
    """
    with contextlib.ExitStack() as taken:
        for name, port in plan.ports:
            try:
                taken.enter_context(socket.create_server((HOST, port)))
            except OSError as error:
                reason = os.strerror(error.errno or 0).lower()
                option = "--haproxy-stats" if port == plan.stats_port else "--port"
                raise SetupError(f"Port {port} ({name}) can't be had: {reason}. Choose with {option}.") from None


def balancer_config(plan: Plan) -> str:
    """Return HAProxy's configuration: the file beside this module, and a line for each node."""
    servers = [f"    server {name} {HOST}:{port} check port {internal}\n" for name, port, internal in plan.nodes]
    return BALANCER_CONFIG.read_text(encoding="utf-8") + "".join(servers)


def balancer_environment(plan: Plan) -> dict[str, str]:
    """Return the variables that HAProxy's configuration reads."""
    statistics = {} if plan.stats_port is None else {"CLUSTER_STATS_PORT": str(plan.stats_port)}
    return {"CLUSTER_PORT": str(plan.port), **statistics}


def summary(plan: Plan, pids: Mapping[str, int]) -> str:
    """Return what somebody in front of the running cluster wants to know."""
    address = f"{HOST}:{plan.port}"
    rows = [("haproxy", address, "")]
    rows += [(node.name, f"{HOST}:{node.port}", f"http://{HOST}:{node.internal_port}") for node in plan.nodes]
    rows.append(("redis", without_password(plan.redis_address).removeprefix("redis://"), ""))
    table = [("", "address", "internal", "pid")]
    table += [(*row, str(pids.get(row[0], "yours"))) for row in rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = ["  " + "  ".join(map(str.ljust, row, widths)).rstrip() for row in table]
    if plan.stats_port is not None:
        lines += ["", f"  statistics  http://{HOST}:{plan.stats_port}/"]
    listed = "\n".join(lines)
    return f"""
  playground  http://{address}/
  clients     ws://{address}/connection/websocket
  plain       ws://{address}/ws/<channel>

{listed}

Ctrl-C stops everything.
"""


def without_password(address: str) -> str:
    """Return *address* as it may be shown."""
    return re.sub(r"(?<=//).*@", "…@", address)
