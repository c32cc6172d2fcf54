"""Alert and recording rules: Prometheus' own checker takes them, each alert is tried, and each has its paragraph."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.promtool import find_promtool

_FOLDER = Path(__file__).parents[2] / "deploy" / "prometheus"
_REFERENCE = _FOLDER.parent / "reference" / "metrics.md"
_TESTS = sorted((_FOLDER / "tests").glob("*.yml"))
_OF_ANY_PROCESS = ("open_fds", "max_fds", "cpu_seconds_total", "resident_memory_bytes", "start_time_seconds")
_FOREIGN = {"up", *(f"process_{name}" for name in _OF_ANY_PROCESS)}
_SUFFIXES = re.compile(r"_(bucket|count|sum)$")
_TIMEOUT_S = 120


def rules_of(name: str) -> list[dict[str, Any]]:
    groups: list[dict[str, Any]] = yaml.safe_load((_FOLDER / name).read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


ALERTS = rules_of("alerts.yml")
RECORDED = {rule["record"] for rule in rules_of("recording.yml")}
NAMES = sorted({rule["alert"] for rule in ALERTS})
RUNBOOK = (_FOLDER / "runbook.md").read_text(encoding="utf-8")
KNOWN = set(re.findall(r"^\| `(\w+)`", _REFERENCE.read_text(encoding="utf-8"), flags=re.MULTILINE)) | _FOREIGN


def promtool(*arguments: str | Path) -> str:
    """Return what is wrong, nothing if all is well."""
    found = find_promtool()
    if found is None:
        pytest.skip("there is no promtool, and no Debian package to take it from")
    done = subprocess.run(
        [found, *arguments], capture_output=True, text=True, check=False, cwd=_FOLDER, timeout=_TIMEOUT_S
    )
    return done.stdout + done.stderr if done.returncode else ""


def test_promtool_takes_the_rules() -> None:
    assert promtool("check", "rules", "--lint=all", "--lint-fatal", "recording.yml", "alerts.yml") == ""


def test_promtool_takes_the_configuration() -> None:
    assert promtool("check", "config", "prometheus.yml") == ""


@pytest.mark.timeout(_TIMEOUT_S)
@pytest.mark.parametrize("path", _TESTS, ids=lambda path: path.name)
def test_alerts_fire_when_they_should_and_only_then(path: Path) -> None:
    assert promtool("test", "rules", path) == ""


@pytest.mark.parametrize("name", NAMES)
def test_each_alert_is_tried_both_ways(name: str) -> None:
    """It fires in one test; and in one it does not, or fires for one of the series alone."""
    tests = [test for path in _TESTS for test in yaml.safe_load(path.read_text(encoding="utf-8"))["tests"]]
    tried = [
        (test, case) for test in tests for case in test["promql_expr_test"] if name in re.findall(r"\w+", case["expr"])
    ]
    assert any(case["exp_samples"] for _, case in tried), "no test has it fire"
    quiet = [case for _, case in tried if not case["exp_samples"]]
    spared = [case for test, case in tried if len(test["input_series"]) > len(case["exp_samples"]) > 0]
    assert quiet or spared, "no test has it stay quiet"


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_each_alert_says_how_bad_it_is_and_where_to_read_on(rule: dict[str, Any]) -> None:
    assert rule["alert"].startswith("Gateway")
    assert rule["labels"]["severity"] in {"critical", "warning"}
    notes = rule["annotations"]
    assert set(notes) == {"summary", "description", "runbook"}
    path, _, anchor = notes["runbook"].partition("#")
    assert (path, anchor) == ("deploy/prometheus/runbook.md", rule["alert"].lower())


def test_the_runbook_has_a_paragraph_for_each_alert_and_none_for_others() -> None:
    sections = dict(re.findall(r"^## (\w+)\n\n(.+?)(?=\n## |\Z)", RUNBOOK, flags=re.MULTILINE | re.DOTALL))
    assert sorted(sections) == NAMES
    assert min(len(text) for text in sections.values()) > 50


@pytest.mark.parametrize(
    "rule", [*ALERTS, *rules_of("recording.yml")], ids=lambda rule: rule.get("alert", rule.get("record"))
)
def test_each_metric_that_a_rule_asks_for_exists(rule: dict[str, Any]) -> None:
    assert unknown_metrics(rule["expr"]) == set()


@pytest.mark.parametrize("name", sorted(RECORDED))
def test_each_recording_rule_is_for_something(name: str) -> None:
    dashboards = (_FOLDER.parent / "grafana" / "dashboards").glob("*.json")
    assert (
        any(name in path.read_text(encoding="utf-8") for path in (_FOLDER / "alerts.yml", *dashboards))
        or name in RUNBOOK
    )


def test_each_metric_and_setting_that_the_runbook_names_exists() -> None:
    named = set(re.findall(r"\b(?:gateway|process)_\w+", RUNBOOK))
    assert {each for each in named if not is_known(each)} == set()
    settings = _FOLDER.parent / "reference" / "configuration.md"
    known = settings.read_text(encoding="utf-8")
    for table, key in re.findall(r"`(client|redis|health|node|http_server)\.(?:token\.|tls\.)?(\w+)`", RUNBOOK):
        assert f"| `{key}` |" in known, f"{table}.{key}"


def unknown_metrics(expression: str) -> set[str]:
    names = re.findall(r"(?<![\w:{\"])([a-zA-Z_:][\w:]*)(?=\{|\[)", expression)
    return {each for each in names if not is_known(each)}


def is_known(name: str) -> bool:
    return name in RECORDED or name in KNOWN or _SUFFIXES.sub("", name) in KNOWN
