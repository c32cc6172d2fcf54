"""`--prometheus-port`: a run's live figures as metrics."""

import asyncio
import contextlib
import re
import sys
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families

from loadtest import results
from tests.support.loads import sets
from tests.support.processes import run_program
from tests.support.promtool import complaints, find_promtool


async def pages_of_a_run(tmp_path: Path) -> tuple[list[str], results.Results]:
    """Run a load, and read its page as often as it changes."""
    path = tmp_path / "run.json"
    brief = sets(clients=11, rate=100, ramp_up_s=0.3, plateau_s=4, ramp_down_s=0.2)
    command = ("-m", "loadtest", "run", "fanout", *brief, "--prometheus-port", "0", "--lines", "--workers", "1")
    process = await asyncio.create_subprocess_exec(
        sys.executable, *command, "--results", str(path), stderr=asyncio.subprocess.PIPE
    )
    assert process.stderr is not None
    said, url = "", ""
    pages: list[str] = []
    async for line in process.stderr:
        said += line.decode()
        if found := re.search(r"Metrics at (\S+)", said):
            url = found[1]
            break
    assert url, said
    rest = asyncio.create_task(process.stderr.read())
    async with httpx.AsyncClient() as http:
        with contextlib.suppress(httpx.TransportError):  # that is its end
            while process.returncode is None:
                page = (await http.get(url)).text
                if not pages or pages[-1] != page:
                    pages.append(page)
                await asyncio.sleep(0.02)
    assert await process.wait() == 0, said + (await rest).decode()
    return pages, results.read(path)


def values(page: str) -> dict[str, float]:
    return {
        " ".join([sample.name, *sample.labels.values()]): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


async def test_a_run_serves_its_figures_while_it_goes_on(tmp_path: Path) -> None:
    pages, found = await pages_of_a_run(tmp_path)
    during = [values(page) for page in pages if "plateau" in page]
    assert during[-1]["loadtest_connections"] == during[-1]["loadtest_connects_total"] == 11
    assert during[-1]["loadtest_reconnects_total"] == 0
    assert during[-1]["loadtest_worker_cpu_seconds_total"] > 0
    # What the page of a second says can't be more than what there was in the end.
    assert 0 < during[-1]["loadtest_publications_total"] <= found.verification.publications
    assert 0 < during[-1]["loadtest_deliveries_total"] <= found.verification.delivered
    deliveries = [each["loadtest_deliveries_total"] for each in during]
    assert deliveries == sorted(deliveries)
    measured = [during[-1][f"loadtest_delivery_latency_seconds {share}"] for share in ("p50", "p90", "p99", "p99.9")]
    assert measured == sorted(measured)
    assert measured[0] > 0
    if promtool := await asyncio.to_thread(find_promtool):
        assert await asyncio.to_thread(complaints, promtool, pages[-1]) == ""


async def test_a_port_that_is_taken_is_told_in_a_sentence() -> None:
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        done = await run_program(
            sys.executable, "-m", "loadtest", "run", "idle", "--prometheus-port", str(port), "--quiet"
        )
    assert (done.code, done.out) == (2, "")
    assert done.err == f"metrics can't be served at 127.0.0.1:{port}: Address already in use\n"
