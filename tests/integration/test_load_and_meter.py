"""The load test and the C meter (tests/benchmarks/meter.c), two harnesses that share nothing, on one node."""

import asyncio
import json
import shutil
import statistics
from pathlib import Path
from typing import Any

import pytest

from loadtest.histogram import merged
from tests.support.ledger import read_books
from tests.support.loads import load, sets
from tests.support.nodes import running_node
from tests.support.processes import run_program, serving

_METER_C = Path(__file__).parents[1] / "benchmarks" / "meter.c"
_LISTENERS = 20
_CROWD = 300
_IDLE_ENOUGH = 0.85
_WAIT_FOR_IDLE_S = 60
_CONFIG: dict[str, Any] = {"client": {"command_rate": 0, "insecure": True, "allowed_origins": ["*"]}}
_FILE = """
[http_server]
address = "127.0.0.1"
[client]
insecure = true
allowed_origins = ["*"]
command_rate = 0
[log]
format = "json"
"""

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")


@pytest.fixture
async def meter(tmp_path: Path) -> Path:
    """The meter, built."""
    built = tmp_path / "meter"
    finished = await run_program("cc", "-O2", "-w", "-o", str(built), str(_METER_C))
    assert finished.code == 0, finished
    return built


def core_ticks() -> tuple[int, int]:
    """How long all cores have been idle, and how long there was, in the kernel's ticks."""
    ticks = [int(each) for each in Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:9]]
    return ticks[3] + ticks[4], sum(ticks)


async def falls_idle() -> bool:
    """Wait for a second in which nearly nothing else ran; the load average remembers earlier tests for minutes."""
    idle_before, all_before = core_ticks()
    for _ in range(_WAIT_FOR_IDLE_S):
        await asyncio.sleep(1)
        idle, total = core_ticks()
        if (idle - idle_before) / (total - all_before) >= _IDLE_ENOUGH:
            return True
        idle_before, all_before = idle, total
    return False


async def metered(meter: Path, port: int, *arguments: str, listeners: int = _LISTENERS) -> dict[str, float]:
    """Run the meter and return what it prints."""
    opening = ["-i", '{"id":1,"connect":{}}', "-i", '@{"id":2,"subscribe":{"channel":"bench"}}']
    publish = '{"id":9,"publish":{"channel":"bench","data":{"p":"%P"}}}'
    where = ["-p", str(port), "-u", "/connection/websocket", "-n", str(listeners), "-P", "1", "-s", "100"]
    finished = await run_program(str(meter), *where, *opening, "-t", publish, *arguments)
    assert finished.code == 0, finished
    figures: dict[str, float] = json.loads(finished.out)
    return figures


async def test_both_count_the_deliveries_that_the_node_has_made(meter: Path) -> None:
    async with running_node(_CONFIG) as node:
        figures = await metered(meter, node.port, "-W", "4", "-m", "300")
        made = (await read_books(node.internal_url))[""].delivered
        assert made == figures["deliveries"] == 300 * _LISTENERS
        fanout = sets(clients=_LISTENERS + 1, rate=200, namespace="")
        loaded = await load("fanout", "--target", node.client_url, *fanout)
        made = (await read_books(node.internal_url))[""].delivered - made
    found = loaded.results.verification
    assert made == found.delivered == found.publications * _LISTENERS
    assert found.publications >= 299


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="reads there whether the machine is idle")
async def test_both_see_the_same_median_latency(meter: Path, tmp_path: Path) -> None:
    """Each five times, in turn, so that whatever else the machine does hits both; intended times count for both.

    With 300 listeners a median is some milliseconds, which the node's writes make up. With 20 it is less than one, and
    there the two differ by how they wait: the meter spins through the last millisecond before it sends, and keeps its
    core awake by that, while the load test sleeps as clients do and is woken three times on the way (2 times the
    meter's 0.9 ms, where waking a core takes a quarter of a millisecond).
    """
    if not await falls_idle():
        pytest.skip("other work is on this machine")
    config = tmp_path / "gateway.toml"
    config.write_text(_FILE)
    ours_us, theirs_us = [], []
    async with serving("--config", str(config)) as node:
        port = int(node.address.rpartition(":")[2])
        for _ in range(5):
            figures = await metered(meter, port, "-r", "50", "-m", "150", listeners=_CROWD)
            theirs_us.append(figures["p50_us"])
            fanout = sets(clients=_CROWD + 1, rate=50, namespace="", plateau_s=3)
            loaded = await load("fanout", "--target", f"ws://{node.address}/connection/websocket", *fanout)
            ours_us.append(merged([loaded.results.latency.delivery]).percentile_us(50))
    ratio = statistics.median(ours_us) / statistics.median(theirs_us)
    assert 1 / 1.5 <= ratio <= 1.5, (ours_us, theirs_us)
