"""The dashboards: current, and whole, as far as that can be told without a Grafana."""

import json
import re
from collections.abc import Iterator
from itertools import combinations
from typing import Any, NamedTuple

import pytest
import yaml

from deploy.grafana.__main__ import FOLDER, texts
from tests.deploy.test_alert_rules import unknown_metrics

_PROVISIONING = FOLDER.parent / "provisioning"
_COLUMNS = 24
_BUILT_IN = {"__rate_interval"}
_OF_THE_LOAD_TEST = re.compile(r"loadtest_(connections|\w+_total|\w+_seconds)")


class Panel(NamedTuple):
    """One panel, and the dashboard that it is on."""

    board: dict[str, Any]
    fields: dict[str, Any]


BOARDS: dict[str, dict[str, Any]] = {path.stem: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))}
PANELS = {
    f"{name}: {panel['title']}": Panel(board, panel)
    for name, board in BOARDS.items()
    for panel in board["panels"]
    if panel["type"] != "row"
}
UIDS = {board["uid"] for board in BOARDS.values()}


def test_the_files_are_what_the_code_makes() -> None:
    assert {path.name: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.json")} == dict(texts())


def test_there_is_one_of_each() -> None:
    assert sorted(BOARDS) == ["delivery", "loadtest", "node", "overview", "redis", "runbook"]
    assert len(UIDS) == len(BOARDS)
    assert len({board["title"] for board in BOARDS.values()}) == len(BOARDS)
    assert len(PANELS) == sum(panel["type"] != "row" for board in BOARDS.values() for panel in board["panels"])


@pytest.mark.parametrize("board", BOARDS.values(), ids=list(BOARDS))
def test_a_dashboard_says_what_it_is_and_its_panels_have_their_places(board: dict[str, Any]) -> None:
    assert board["uid"].startswith("gateway-")
    assert board["description"]
    assert board["tags"] == ["gateway"]
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)
    places = [panel["gridPos"] for panel in board["panels"]]
    assert all(place["x"] >= 0 and place["x"] + place["w"] <= _COLUMNS for place in places)
    assert not [pair for pair in combinations(places, 2) if overlap(*pair)]
    for link in board["links"]:
        assert link["type"] == "dashboards" or link["url"].removeprefix("/d/") in UIDS


@pytest.mark.parametrize("panel", PANELS.values(), ids=list(PANELS))
def test_a_panel_says_what_it_shows(panel: Panel) -> None:
    fields = panel.fields
    assert len(fields["description"]) > 10 or fields["type"] == "text"
    assert fields["fieldConfig"]["defaults"]["unit"]
    assert fields["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    assert fields.get("targets") or fields["type"] == "text"


@pytest.mark.parametrize("panel", PANELS.values(), ids=list(PANELS))
def test_a_query_asks_for_what_there_is(panel: Panel) -> None:
    known = {variable["name"] for variable in panel.board["templating"]["list"]} | _BUILT_IN
    for target in panel.fields.get("targets", []):
        assert target["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert target["legendFormat"], "several series would all be called the same"
        assert set(re.findall(r"\$\{?(\w+)", target["expr"])) <= known
        assert {each for each in unknown_metrics(target["expr"]) if not _OF_THE_LOAD_TEST.fullmatch(each)} == set()
        # A legend names labels that the expression leaves.
        labels = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
        if grouped := re.findall(r"\bby \(([^)]*)\)", target["expr"]):
            assert labels <= {label.strip() for group in grouped for label in group.split(",")}


def test_no_variable_is_offered_that_no_query_uses() -> None:
    for board in BOARDS.values():
        used = json.dumps(board["panels"])
        for variable in board["templating"]["list"]:
            assert f"${variable['name']}" in used or f"${{{variable['name']}}}" in used


def test_each_alert_that_a_description_names_is_in_the_runbook() -> None:
    known = {panel["title"] for panel in BOARDS["runbook"]["panels"]}
    named = {
        name for panel in PANELS.values() for name in re.findall(r"\bGateway[A-Z]\w+", panel.fields["description"])
    }
    assert named <= known


def test_what_grafana_is_given_leads_to_prometheus_and_to_the_dashboards() -> None:
    [source] = yaml.safe_load((_PROVISIONING / "datasources" / "prometheus.yml").read_text())["datasources"]
    assert (source["type"], source["url"], source["isDefault"]) == ("prometheus", "http://prometheus:9090", True)
    [provider] = yaml.safe_load((_PROVISIONING / "dashboards" / "gateway.yml").read_text())["providers"]
    compose = yaml.safe_load((FOLDER.parents[1] / "compose" / "compose.yaml").read_text())
    assert f"../grafana/dashboards:{provider['options']['path']}:ro" in compose["services"]["grafana"]["volumes"]


def overlap(one: dict[str, int], other: dict[str, int]) -> bool:
    return all(
        one[start] < other[start] + other[size] and other[start] < one[start] + one[size]
        for start, size in (("x", "w"), ("y", "h"))
    )


def expressions() -> Iterator[tuple[str, str]]:
    """Yield each expression of each panel with the panel's name."""
    for name, panel in PANELS.items():
        for target in panel.fields.get("targets", []):
            yield name, target["expr"]
