"""Real nodes for tests: in this process on free ports, or as a process of their own."""

import asyncio
import io
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from gateway.config import development, load, merge
from gateway.node import Node
from gateway.observability.logs import Format, Level, LogSettings, make_logger
from gateway.observability.metrics import NodeMetrics
from gateway.observability.metrics.text import render
from gateway.parts import Clock
from tests.support.ledger import books_of, imbalances

FREE_PORTS: dict[str, Any] = {"http_server": {"address": "127.0.0.1", "port": 0, "internal_port": 0}}
SECRET = "a secret of the tests, 32 bytes or more"
A_DAY_S = 86400.0
"""How long a token holds that is made when tests are collected, which on a busy machine is long before they run."""


class MovableClock:
    """The machine's clock, moved forward by the test."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead_s

    def unix(self) -> float:
        return time.time() + self.ahead_s


class RunningNode:
    """A node that serves, and what a test needs to talk to it."""

    def __init__(self, node: Node, clock: MovableClock, log: io.StringIO) -> None:
        host, port = node.public_address[:2]
        self.node = node
        self.clock = clock
        self.port = port
        self.url = f"http://{host}:{port}"
        self.ws_url = f"ws://{host}:{port}"
        self.client_url = f"{self.ws_url}/connection/websocket"
        self.internal_url = f"http://127.0.0.1:{node.internal_address[1]}"
        self._log = log

    @property
    def events(self) -> list[dict[str, Any]]:
        """What the node has logged so far."""
        return [json.loads(line) for line in self._log.getvalue().splitlines()]


@asynccontextmanager
async def running_node(*tables: dict[str, Any], is_development: bool = True) -> AsyncIterator[RunningNode]:
    """Run a node in this event loop: development settings (unless told otherwise), free ports, then *tables* over them.

    It is stopped at the end, and a task, connection or subscription that it leaves behind fails the test.
    """
    values = development() if is_development else {}
    for table in ({"client": {"token": {"hmac_secret_key": SECRET}}}, FREE_PORTS, *tables):
        values = merge(values, table)
    stream, clock = io.StringIO(), MovableClock()
    log = make_logger(LogSettings(level=Level.DEBUG, format=Format.JSON), node="test", stream=stream)
    node = Node(load(base=values), log, clock=Clock(clock.monotonic, clock.unix))
    task = asyncio.create_task(node.run())
    starting = asyncio.create_task(node.started())
    await asyncio.wait({task, starting}, return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        task.result()
    try:
        yield RunningNode(node, clock, stream)
        faults = imbalances(books_of(render(NodeMetrics(node.counts, node).snapshot()).body.decode()))
        assert not faults, f"the books do not add up: {faults}"
    finally:
        node.stop()
        await task
        assert len(node.connections) == 0
        assert len(node.hub) == 0
        errors = [line for line in stream.getvalue().splitlines() if '"level":"error"' in line]
        assert not errors, "\n".join(errors)
