"""A run of the load test is scraped while it goes on."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.loads import sets
from tests.support.nodes import SECRET, RunningNode, running_node
from tests.support.processes import ask
from tests.support.promtool import complaints, find_promtool

_CLIENTS = 21
_LOOKS_EVERY_S = 0.1
_TABLES: dict[str, Any] = {
    "client": {"command_rate": 0},
    "log": {"level": "warning"},
    "channel": {"namespaces": [{"name": "live", "allow_subscribe_for_client": True, "allow_publish_for_client": True}]},
}
_FILE = """
scenario = "fanout"
chaos = ["run:nothing@100ms"]
commands = { nothing = ["true"] }
"""


@contextlib.asynccontextmanager
async def running_load(node: RunningNode, folder: Path, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Start a run against *node*; it is killed at the end, if it still goes on."""
    file = folder / "run.toml"
    file.write_text(_FILE)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "loadtest", "run", "--file", str(file), "--lines", "--workers", "1"),
        *("--target", node.client_url, "--hmac-secret", SECRET, *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


async def metrics_url(process: asyncio.subprocess.Process) -> str:
    """Wait for the line that tells where the metrics are."""
    assert process.stderr is not None
    while line := (await process.stderr.readline()).decode():
        if line.startswith("Metrics at "):
            return line.removeprefix("Metrics at ").strip()
    raise AssertionError("it ended without telling where its metrics are")


def samples(page: str) -> dict[tuple[str, str], float]:
    """Return values by name and the values of the labels."""
    return {
        (sample.name, ",".join(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


async def test_a_run_tells_prometheus_how_it_goes(tmp_path: Path) -> None:
    load = sets(clients=_CLIENTS, rate=100, ramp_up_s=0.2, plateau_s=60)
    async with running_node(_TABLES) as node, running_load(node, tmp_path, *load, "--prometheus-port", "0") as process:
        url = await metrics_url(process)
        assert url.startswith("http://127.0.0.1:")
        async with asyncio.timeout(30):
            while True:
                page = (await ask(url)).text
                found = samples(page)
                if found["loadtest_deliveries_total", ""] > 0 and found["loadtest_chaos_events_total", "run:nothing"]:
                    break
                await asyncio.sleep(_LOOKS_EVERY_S)
        promtool = find_promtool()
        assert promtool is None or not complaints(promtool, page)
        process.terminate()
        assert process.stdout is not None
        told = (await process.stdout.read()).decode()
    assert found["loadtest_phase", "plateau"] == 1
    assert found["loadtest_connections", ""] == found["loadtest_connections_wanted", ""] == _CLIENTS
    assert found["loadtest_publications_sent_total", ""] > 0
    deliveries = found["loadtest_deliveries_total", ""]
    assert found["loadtest_delivery_latency_seconds_count", ""] == deliveries
    assert found["loadtest_delivery_latency_seconds_bucket", "+Inf"] == deliveries
    assert 0 < found["loadtest_delivery_latency_last_second_seconds", "50"] < 5
    assert {found["loadtest_faults_total", kind] for kind in ("duplicated", "reordered", "foreign")} == {0}
    assert "passed" in told


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--prometheus-port", "65536"], "65536 is no port"),
        (["--prometheus-port", "0", "--prometheus-address", "192.0.2.1"], "metrics can't be served at 192.0.2.1:0"),
    ],
)
async def test_a_port_that_can_not_be_had_is_one_sentence(tmp_path: Path, arguments: list[str], sentence: str) -> None:
    async with running_node(_TABLES) as node, running_load(node, tmp_path, *arguments) as process:
        _, err = await process.communicate()
    assert process.returncode == 2
    assert sentence in err.decode()
    assert err.count(b"\n") == 1
