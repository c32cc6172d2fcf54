"""The load test against real nodes, and against a server that errs on purpose."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from loadtest import results
from loadtest.histogram import merged
from loadtest.scenarios import SCENARIOS
from tests.support.faulty_server import Fault, faulty_server
from tests.support.ledger import read_books
from tests.support.loads import Loaded, load, sets
from tests.support.nodes import SECRET, RunningNode, running_node
from tests.support.processes import run_program

_OPEN: dict[str, Any] = {"allow_subscribe_for_client": True, "allow_publish_for_client": True}
_STREAM: dict[str, Any] = _OPEN | {"history_size": 10_000, "history_ttl": "10m", "force_recovery": True}
_CACHE: dict[str, Any] = _STREAM | {"history_size": 1, "force_recovery_mode": "cache"}
_TABLES: dict[str, Any] = {
    "client": {"command_rate": 0, "insecure": False},
    "http_api": {"key": "key"},
    "log": {"level": "warning"},
    "channel": {
        "namespaces": [_STREAM | {"name": "load"}, _OPEN | {"name": "live"}, _CACHE | {"name": "last"}],
    },
}
_SMALL: dict[str, dict[str, object]] = {
    "fanout": {"clients": 41},
    "chat": {"clients": 40},
    "notify": {"clients": 40},
    "dashboard": {"clients": 30, "channels": 20, "shown": 4},
    "iot": {"clients": 60},
    "churn": {"clients": 30, "stay_s": 0.5},
    "storm": {"clients": 60, "backoff_base_s": 0.2},
    "idle": {"clients": 100, "rate": 5},
    "slow": {"clients": 15, "slow": 5, "rate": 50},
    "mixed": {"clients": 60},
}

# A run takes some seconds: in the plain protocol one is enough for the short form.
_RUNS = [
    pytest.param(scenario, protocol, marks=[pytest.mark.long] if protocol != "json" and scenario != "mixed" else [])
    for scenario in SCENARIOS
    for protocol in ("json", "protobuf", "plain")
]

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def node() -> AsyncIterator[RunningNode]:
    """A node with the namespaces that scenarios use."""
    async with running_node(_TABLES) as running:
        yield running


def against(node: RunningNode) -> list[str]:
    """Return the arguments that name *node*."""
    known = ["--metrics", f"{node.internal_url}/metrics", "--hmac-secret", SECRET]
    return ["--target", node.client_url, *known, "--api", f"{node.internal_url}/api", "--api-key", "key"]


def assert_passed(loaded: Loaded) -> None:
    """Assert that the run found no fault, and that it found something at all."""
    assert loaded.finished.code == 0, loaded.finished
    assert loaded.results.verdict.is_passed
    found = loaded.results.verification
    assert found.publications > 0
    assert found.delivered > 0
    assert (found.refused, found.unanswered, found.foreign) == (0, 0, 0)
    assert loaded.results.ledger.is_agreed is not False, loaded.results.ledger


async def test_the_small_runs_are_those_of_all_scenarios() -> None:
    assert _SMALL.keys() == SCENARIOS.keys()


@pytest.mark.parametrize(("scenario", "protocol"), _RUNS)
async def test_a_short_run_of_every_scenario_passes(node: RunningNode, scenario: str, protocol: str) -> None:
    loaded = await load(scenario, *sets(**_SMALL[scenario]), *against(node), "--protocol", protocol)
    assert_passed(loaded)
    if scenario in ("fanout", "chat", "notify", "dashboard", "iot", "idle"):
        assert loaded.results.ledger.is_agreed is True, loaded.results.ledger
    if scenario == "storm":
        (storm,) = loaded.results.chaos
        assert storm.clients_hit == 56
        assert storm.clients_recovered_after_s is not None
        assert loaded.results.verification.recovered == (0 if protocol == "plain" else 56)


async def test_the_closed_model_sends_the_next_when_one_is_answered(node: RunningNode) -> None:
    loaded = await load("chat", *sets(clients=20, model="closed", in_flight=2), *against(node))
    assert_passed(loaded)
    assert loaded.results.latency.model == "closed"
    assert sum(second.acknowledged for second in loaded.results.timeline) == loaded.results.verification.publications


async def test_several_workers_put_one_picture_together(node: RunningNode) -> None:
    loaded = await load("mixed", *sets(clients=60), *against(node), workers=3)
    assert_passed(loaded)
    assert max(second.connections for second in loaded.results.timeline) > 50
    assert all(len(second.workers) == 3 for second in loaded.results.timeline)
    histograms = merged([second.latency for second in loaded.results.timeline])
    assert histograms == merged([loaded.results.latency.delivery])
    assert histograms.count == loaded.results.verification.delivered


async def test_a_scenario_of_ones_own_runs_from_its_file(node: RunningNode, tmp_path: Path) -> None:
    path = tmp_path / "quiz.py"
    path.write_text(
        "from loadtest.scenario import ClientPlan, Scenario\n"
        "class Quiz(Scenario, frozen=True, kw_only=True):\n"
        "    '''Teams listen, one host asks.'''\n"
        "    teams: int = 10\n"
        "    def client(self, number, chance):\n"
        "        if number == 0:\n"
        "            return ClientPlan(publish=tuple(f'team-{team}' for team in range(self.teams)))\n"
        "        return ClientPlan(subscribe=(f'team-{number % self.teams}',))\n"
    )
    loaded = await load(f"{path}:Quiz", *sets(teams=4, clients=21), *against(node))
    assert_passed(loaded)
    assert loaded.results.verification.delivered == 5 * loaded.results.verification.publications


async def test_a_missed_threshold_is_exit_code_1(node: RunningNode) -> None:
    loaded = await load("chat", *sets(clients=20), *against(node), "--assert", "p50<1us")
    assert loaded.finished.code == 1
    assert "MISSED" in loaded.finished.out


async def test_no_server_is_told_after_retries_with_exit_code_2() -> None:
    address = "ws://127.0.0.1:1/connection/websocket"
    finished = await run_program(sys.executable, "-m", "loadtest", "run", "chat", "--quiet", "--target", address)
    assert finished.code == 2
    assert "no server lets the load test in at ws://127.0.0.1:1" in finished.err
    assert "Traceback" not in finished.err


async def test_an_interrupt_gives_the_results_so_far(node: RunningNode, tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    arguments = ["chat", *sets(clients=20, plateau_s=60, ramp_up_s=0.2), *against(node), "--results", str(path)]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "loadtest", "run", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    while b"delivered/s" not in await process.stderr.readline():
        assert process.returncode is None
    process.send_signal(signal.SIGINT)
    out, _ = await process.communicate()
    assert process.returncode == 0
    assert b"interrupted" in out
    found = results.read(path)
    assert found.is_interrupted
    assert found.verification.delivered > 0
    assert found.verification.lost == 0


# A server that errs on purpose.

_STEADY = sets(clients=26, rate=500, plateau_s=2)
_BROKEN = sets(clients=44, channels=4, rate=400, plateau_s=2, backoff_base_s=0.2)


@pytest.mark.parametrize(
    ("fault", "expected"),
    [(Fault.NONE, {}), (Fault.LOSE, {"lost": 2}), (Fault.DOUBLE, {"duplicated": 2}), (Fault.SWAP, {"reordered": 2})],
)
async def test_one_delivery_in_ten_thousand_gone_wrong_is_found(fault: Fault, expected: dict[str, int]) -> None:
    async with faulty_server(fault, every=10_000) as server:
        loaded = await load("fanout", "--target", server.url, *_STEADY)
    found = loaded.results.verification
    assert {
        name: getattr(found, name) for name in ("lost", "duplicated", "reordered") if getattr(found, name)
    } == expected
    assert server.faults == sum(expected.values())
    assert loaded.finished.code == (1 if expected else 0)
    assert [finding.kind for finding in found.findings] == [
        kind for kind, count in expected.items() for _ in range(count)
    ]


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Fault.LOSE, "lost"),
        pytest.param(Fault.DOUBLE, "duplicated", marks=pytest.mark.long),
        pytest.param(Fault.SWAP, "reordered", marks=pytest.mark.long),
    ],
)
async def test_it_is_found_during_recovery_too(fault: Fault, kind: str) -> None:
    async with faulty_server(fault, every=100, errs_in_recovery=True) as server:
        loaded = await load("storm", "--target", server.url, *_BROKEN)
    found = loaded.results.verification
    assert found.recovered == 40
    assert server.faults >= 1, server.recovered
    assert {name: getattr(found, name) for name in ("lost", "duplicated", "reordered")} == {
        name: server.faults if name == kind else 0 for name in ("lost", "duplicated", "reordered")
    }


async def test_what_is_lost_on_those_who_come_and_go_is_found_unless_it_was_their_last() -> None:
    async with faulty_server(Fault.LOSE, every=200) as server:
        loaded = await load("churn", "--target", server.url, *sets(clients=22, rate=200, stay_s=1))
    found = loaded.results.verification
    assert server.faults >= 10
    assert server.faults / 2 <= found.lost <= server.faults
    assert (found.duplicated, found.reordered) == (0, 0)


async def test_a_stall_is_felt_by_all_that_would_have_been_sent_meanwhile() -> None:
    """Coordinated omission: of a stall of 200 ms, half of its publications wait for more than 100."""
    counts = {}
    for model in ("open", "closed"):
        async with faulty_server(stall_at=150, stall_s=0.2) as server:
            loaded = await load("fanout", "--target", server.url, *sets(clients=2, rate=1000, model=model))
        assert loaded.results.verdict.is_passed
        counts[model] = merged([loaded.results.latency.delivery]).count_above(100_000)
    assert counts["open"] >= 90
    assert 1 <= counts["closed"] <= counts["open"] // 3


async def test_who_never_reads_is_cut_and_comes_again_and_the_others_get_all() -> None:
    async with running_node({"client": {"queue_max_size": 131_072, "command_rate": 0}}) as node:
        slow = sets(clients=15, slow=10, rate=100, payload_bytes=50_000, namespace="lobby", plateau_s=3)
        loaded = await load("slow", "--target", node.client_url, *slow)
        book = (await read_books(node.internal_url))["lobby"]
    found = loaded.results.verification
    assert found.lost == 0
    assert found.delivered == found.publications * 4
    assert book.dropped["slow"] >= 10
    assert sum(second.errors.get("disconnected (never read)", 0) for second in loaded.results.timeline) >= 10


async def test_workers_whose_coordinator_was_killed_end_without_a_word(node: RunningNode) -> None:
    """The pipe is at its end when the last of them has closed it."""
    brief = sets(clients=11, rate=500, ramp_up_s=0.3, plateau_s=60)
    where = ("--target", node.client_url, "--set", "namespace=lobby", "--lines", "--workers", "2")
    command = (sys.executable, "-m", "loadtest", "run", "fanout", *brief, *where)
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
    assert process.stderr is not None
    said = ""
    while "plateau" not in said:
        line = await process.stderr.readline()
        assert line, said
        said += line.decode()
    async with asyncio.timeout(30):
        while "delivered/s" not in said:
            said += (await process.stderr.readline()).decode()
        process.kill()
        rest = (await process.stderr.read()).decode()
    assert "Traceback" not in rest
    assert "Error" not in rest
    await process.wait()
