"""What `make cluster` decides before anything runs, and what it tells."""

import io
import os
import socket
import subprocess
from pathlib import Path

import pytest

from deploy.cluster import run
from deploy.cluster.part import Screen
from deploy.cluster.plan import (
    HIGHEST_PORT,
    NODE_CONFIG,
    NodePlan,
    Plan,
    Programs,
    balancer_config,
    balancer_environment,
    find_programs,
    summary,
)
from gateway.config import load
from tests.support.local_cluster import free_plan


def plan(*, port: int = 8000, node_count: int = 3, redis: str | None = None, stats_port: int | None = None) -> Plan:
    return Plan(port=port, node_count=node_count, redis=redis, stats_port=stats_port)


def test_all_ports_follow_from_the_first() -> None:
    assert plan(port=7000, node_count=2, stats_port=8404).ports == [
        ("HAProxy", 7000),
        ("node1", 7001),
        ("node1, internal", 8001),
        ("node2", 7002),
        ("node2, internal", 8002),
        ("Redis", 7379),
        ("HAProxy's statistics", 8404),
    ]
    assert plan(node_count=1, redis="redis://elsewhere").ports == [
        ("HAProxy", 8000),
        ("node1", 8001),
        ("node1, internal", 9001),
    ]
    assert max(port for _, port in plan(port=HIGHEST_PORT, node_count=9).ports) == 65535


def test_nodes_are_told_where_redis_is() -> None:
    node = NodePlan("node2", 8002, 9002)
    assert plan().nodes[1] == node
    own = run.node_environment(plan(), node)
    theirs = run.node_environment(plan(redis="rediss://me:secret@cache:7000/1"), node)
    assert own == {"GATEWAY_NODE__NAME": "node2", "GATEWAY_REDIS__ADDRESS": "127.0.0.1:8379"}
    assert theirs == {"GATEWAY_NODE__NAME": "node2", "GATEWAY_REDIS__ADDRESS": "rediss://me:secret@cache:7000/1"}


def test_the_nodes_configuration_is_good() -> None:
    config = load(NODE_CONFIG, environment=run.node_environment(plan(), plan().nodes[0]))
    assert config.http_server.address == "127.0.0.1"
    assert config.node.name == "node1"


@pytest.mark.parametrize("stats_port", [None, 8404])
@pytest.mark.parametrize("node_count", range(1, 10))
def test_haproxy_takes_the_configuration(node_count: int, stats_port: int | None, tmp_path: Path) -> None:
    wanted = plan(node_count=node_count, stats_port=stats_port)
    path = tmp_path / "haproxy.cfg"
    path.write_text(balancer_config(wanted))
    haproxy = find_programs(wanted, path=os.environ["PATH"] + os.pathsep + run.SERVER_PATH).haproxy
    checked = subprocess.run(
        [haproxy, "-c", "-f", path], env=balancer_environment(wanted), capture_output=True, text=True, check=False
    )
    assert (checked.returncode, checked.stderr.count("WARNING")) == (0, 0), checked.stderr


def test_each_node_is_a_server_whose_health_is_asked_at_its_internal_port() -> None:
    lines = balancer_config(plan(node_count=2)).splitlines()
    assert [line.strip() for line in lines if line.startswith("    server ")] == [
        "server node1 127.0.0.1:8001 check port 9001",
        "server node2 127.0.0.1:8002 check port 9002",
    ]


def test_the_summary_says_where_everything_is() -> None:
    pids = {"haproxy": 14, "node1": 12, "node2": 1300, "redis": 11}
    assert summary(plan(node_count=2, stats_port=8404), pids) == (
        """
  playground  http://127.0.0.1:8000/
  clients     ws://127.0.0.1:8000/connection/websocket
  plain       ws://127.0.0.1:8000/ws/<channel>

           address         internal               pid
  haproxy  127.0.0.1:8000                         14
  node1    127.0.0.1:8001  http://127.0.0.1:9001  12
  node2    127.0.0.1:8002  http://127.0.0.1:9002  1300
  redis    127.0.0.1:8379                         11

  statistics  http://127.0.0.1:8404/

Ctrl-C stops everything.
"""
    )


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("cache:7000", "cache:7000"),
        ("unix:/run/redis.sock", "unix:/run/redis.sock"),
        ("redis://cache:7000", "cache:7000"),
        ("redis://:secret@cache:7000", "…@cache:7000"),
        ("rediss://me:secret@cache/1", "rediss://…@cache/1"),
        ("redis://me:half@other/half@cache", "…@cache"),
    ],
)
def test_a_redis_of_somebody_elses_is_shown_without_its_password(address: str, shown: str) -> None:
    text = summary(plan(node_count=1, redis=address), {"haproxy": 14, "node1": 12})
    [line] = [line.split() for line in text.splitlines() if line.startswith("  redis")]
    assert line == ["redis", shown, "yours"]


# What can't be done.


def _programs(folder: Path, *names: str) -> str:
    for name in names:
        (folder / name).touch(mode=0o755)
    return str(folder)


def test_programs_are_found_on_the_path(tmp_path: Path) -> None:
    path = _programs(tmp_path, "haproxy", "redis-server")
    assert find_programs(plan(), path=path) == Programs(f"{path}/haproxy", f"{path}/redis-server")


def test_a_redis_of_ones_own_needs_no_program(tmp_path: Path) -> None:
    path = _programs(tmp_path, "haproxy")
    assert find_programs(plan(redis="redis://elsewhere"), path=path) == Programs(f"{path}/haproxy", "")


@pytest.mark.parametrize(
    ("there", "missing", "packages", "formulas"),
    [
        ([], "redis-server and haproxy", "redis-server haproxy", "redis haproxy"),
        (["redis-server"], "haproxy", "haproxy", "haproxy"),
        (["haproxy"], "redis-server", "redis-server", "redis"),
    ],
)
def test_a_missing_program_is_one_sentence_that_says_what_to_install(
    there: list[str],
    missing: str,
    packages: str,
    formulas: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", _programs(tmp_path, *there))
    monkeypatch.setattr(run, "SERVER_PATH", "")
    assert run.main([]) == 2
    said = f"The cluster needs {missing}: install with `apt-get install {packages}` or `brew install {formulas}`.\n"
    assert capsys.readouterr() == ("", said)


@pytest.mark.parametrize(
    ("name", "offset", "option"),
    [
        ("HAProxy", 0, "--port"),
        ("node1", 1, "--port"),
        ("node2", 2, "--port"),
        ("Redis", 379, "--port"),
        ("node2, internal", 1002, "--port"),
        ("HAProxy's statistics", 100, "--haproxy-stats"),
    ],
)
def test_a_port_in_use_is_one_sentence(name: str, offset: int, option: str, capsys: pytest.CaptureFixture[str]) -> None:
    port = free_plan(node_count=2).port
    with socket.create_server(("127.0.0.1", port + offset)):
        assert run.main(["--nodes", "2", "--port", str(port), "--haproxy-stats", str(port + 100)]) == 2
    said = f"Port {port + offset} ({name}) can't be had: address already in use. Choose with {option}.\n"
    assert capsys.readouterr() == ("", said)


@pytest.mark.parametrize(
    ("option", "text", "range_"),
    [
        ("--nodes", "0", "1 to 9"),
        ("--nodes", "10", "1 to 9"),
        ("--nodes", "three", "1 to 9"),
        ("--nodes", "²", "1 to 9"),
        ("--nodes", "-1", "1 to 9"),
        ("--port", "0", "1 to 64526"),
        ("--port", "64527", "1 to 64526"),
        ("--haproxy-stats", "65536", "1 to 65535"),
    ],
)
def test_a_number_out_of_range_is_refused(
    option: str, text: str, range_: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match=r"^2$"):
        run.main([f"{option}={text}"])
    said = f"error: argument {option}: {text!r} is no number from {range_}\n"
    assert capsys.readouterr().err.endswith(said)


# The screen, and one process.


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def _written(stream: io.StringIO) -> list[str]:
    screen = Screen(stream, ["haproxy", "node1"], lost=lambda: None)
    screen.say("node1", "one\n  two\n\n")
    screen.say("haproxy", "three")
    return stream.getvalue().splitlines()


def test_each_line_carries_the_name_of_who_says_it() -> None:
    assert _written(io.StringIO()) == ["node1   | one", "node1   |   two", "node1   | ", "haproxy | three"]


def test_names_are_coloured_on_a_terminal() -> None:
    node, haproxy = "\x1b[35mnode1   |\x1b[0m", "\x1b[1mhaproxy |\x1b[0m"
    assert _written(Terminal()) == [f"{node} one", f"{node}   two", f"{node} ", f"{haproxy} three"]


def test_a_reader_that_goes_is_noticed_and_does_no_harm() -> None:
    reading, writing = os.pipe()
    lost: list[str] = []
    with os.fdopen(writing, "w") as stream:
        screen = Screen(stream, ["node1"], lost=lambda: lost.append("lost"))
        os.close(reading)
        screen.say("node1", "one")
        screen.say("node1", "two")
    assert lost == ["lost"]
