"""The dashboards hold together: each panel explains itself and asks only for what there is."""

import itertools
import json
import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.metrics_core import Metric

from deploy.grafana import catalogue
from deploy.grafana.command import FOLDER, files, main
from deploy.grafana.frame import RUNBOOK_UID, TAG
from deploy.grafana.promql import NODES, levels, quantile
from deploy.grafana.runbook import Chapter, chapters
from loadtest.exposition import Figures
from tests.support.promtool import find_promtool

_ROOT = Path(__file__).parents[2]
_REFERENCE = _ROOT / "deploy" / "reference" / "metrics.md"
_RECORDING = _ROOT / "deploy" / "prometheus" / "recording.yml"
_PROVISIONING = _ROOT / "deploy" / "grafana" / "provisioning"
_GRID = 24
_UNITS = {"none", "short", "cps", "reqps", "s", "bytes", "Bps", "percentunit"}
_TARGET_LABELS = {"job", "instance", "le"}
_BUILT_IN = {"__rate_interval", "__url_time_range", "__data"}
_OTHERS = ("up", "process_", "python_")

_ROW = re.compile(r"^\| `([a-z_]+)` \| (\w+) \| ([^|]*) \|", re.MULTILINE)
_QUOTED = re.compile(r'"[^"]*"')
_SELECTOR = re.compile(r"\b([a-z_:]+)\{([^}]*)\}")
_NAME = re.compile(r"\b(?:gateway|loadtest|process|python)[:_][\w:]*")
_SUM = re.compile(r"(?:sum|max|min) by \(([^)]*)\) \((?:rate\(|increase\()?([a-z_:]+)\{")
_MATCHER = re.compile(r"(\w+)=")
_VARIABLE = re.compile(r"\$(?:\{(\w+)[^}]*\}|(\w+))")
_LEGEND = re.compile(r"\{\{(\w+)\}\}")
_LINK = re.compile(r"/d/([\w-]+)")

DASHBOARDS = {name: json.loads(text) for name, text in files().items()}


def panels(dashboard: dict[str, Any]) -> list[dict[str, Any]]:
    """Return all panels that show data."""
    return [panel for panel in dashboard["panels"] if panel["type"] not in ("row", "text")]


def expressions() -> Iterator[str]:
    """Return what is asked by panels and events."""
    for dashboard in DASHBOARDS.values():
        for panel in panels(dashboard):
            yield from (target["expr"] for target in panel["targets"])
        yield from (each["expr"] for each in dashboard["annotations"]["list"])


def known() -> dict[str, set[str]]:
    """Return the labels of each series that can be asked for, by its name."""
    found: dict[str, set[str]] = {}
    for name, kind, labels in _ROW.findall(_REFERENCE.read_text(encoding="utf-8")):
        endings = ("_bucket", "_sum", "_count") if kind == "histogram" else ("",)
        found |= {f"{name}{ending}": set(re.findall(r"`(\w+)`", labels)) for ending in endings}
    for family in Figures().collect():
        found |= {name: labels_of(family) for name in names_of(family)}
    if _RECORDING.exists():
        rules = _RECORDING.read_text(encoding="utf-8")
        found |= {name: set() for name in re.findall(r"record: *(\S+)", rules)}
    return found


def names_of(family: Metric) -> list[str]:
    endings = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}.get(family.type, ("",))
    return [f"{family.name}{ending}" for ending in endings]


def labels_of(family: Metric) -> set[str]:
    return set(getattr(family, "_labelnames", ()))


def test_the_files_are_those_that_the_code_makes() -> None:
    assert main(["--check"]) == 0
    assert {path.name for path in FOLDER.glob("*.json")} == files().keys()


def test_each_dashboard_has_a_uid_a_title_and_tags_of_its_own() -> None:
    uids, titles = Counter[str](), Counter[str]()
    for name, dashboard in DASHBOARDS.items():
        assert name == f"{dashboard['uid']}.json"
        assert TAG in dashboard["tags"]
        assert dashboard["description"]
        uids[dashboard["uid"]] += 1
        titles[dashboard["title"]] += 1
    assert set(uids.values()) == set(titles.values()) == {1}


@pytest.mark.parametrize("name", DASHBOARDS)
def test_each_panel_says_what_it_shows_what_is_normal_and_what_to_do_else(name: str) -> None:
    for panel in panels(DASHBOARDS[name]):
        assert panel["title"]
        shows, normal, otherwise = panel["description"].split("\n\n")
        assert shows.endswith("."), panel["title"]
        assert normal.startswith("**Normal:** "), panel["title"]
        assert otherwise.startswith("**If not:** "), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"] in _UNITS
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}


@pytest.mark.parametrize("name", DASHBOARDS)
def test_panels_have_ids_and_lie_on_the_grid_one_beside_the_other(name: str) -> None:
    everything = DASHBOARDS[name]["panels"]
    assert [panel["id"] for panel in everything] == list(range(1, len(everything) + 1))
    taken: dict[tuple[int, int], str] = {}
    for panel in everything:
        x, y, width, height = (panel["gridPos"][key] for key in ("x", "y", "w", "h"))
        assert x >= 0
        assert x + width <= _GRID
        for place in itertools.product(range(x, x + width), range(y, y + height)):
            assert taken.setdefault(place, panel["title"]) == panel["title"]
    assert len(taken) == _GRID * max(y + 1 for _, y in taken), "there are holes"


@pytest.mark.parametrize("name", DASHBOARDS)
def test_each_query_has_a_name_and_what_it_sums_by_is_in_it(name: str) -> None:
    for panel in panels(DASHBOARDS[name]):
        assert panel["targets"]
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
        for target in panel["targets"]:
            assert target["datasource"] == panel["datasource"]
            assert target["expr"]
            if panel["type"] == "table":
                continue
            assert target["legendFormat"]
            kept = {label.strip() for by, _ in _SUM.findall(target["expr"]) for label in by.split(",")}
            if kept:
                shown = set(_LEGEND.findall(target["legendFormat"]))
                assert shown <= kept, (panel["title"], shown, kept)
                if "histogram_quantile" not in target["expr"]:
                    assert kept <= shown, (panel["title"], shown, kept)


def test_only_metrics_that_there_are_are_asked_for_by_labels_that_they_have() -> None:
    metrics = known()
    for expression in expressions():
        bare = _QUOTED.sub('""', expression)
        selected = _SELECTOR.findall(bare)
        assert selected, expression
        # Each metric is asked for of certain targets.
        assert set(_NAME.findall(bare)) <= {name for name, _ in selected}, expression
        for name, matchers in selected:
            assert name in metrics or name.startswith(_OTHERS), name
            given = set(_MATCHER.findall(matchers))
            assert "job" in given, expression
            if name in metrics:
                assert given <= metrics[name] | _TARGET_LABELS, expression
        for by, name in _SUM.findall(bare):
            if name in metrics:
                assert {label.strip() for label in by.split(",")} <= metrics[name] | _TARGET_LABELS, expression


@pytest.mark.parametrize("name", DASHBOARDS)
def test_no_variable_is_used_that_is_not_there_and_none_is_there_that_is_not_used(name: str) -> None:
    dashboard = DASHBOARDS[name]
    variables = {each["name"] for each in dashboard["templating"]["list"]}
    asked = [
        panels(dashboard),
        dashboard["annotations"],
        [each.get("datasource") for each in dashboard["templating"]["list"]],
    ]
    text = json.dumps(asked)
    used = {braced or bare for braced, bare in _VARIABLE.findall(text)}
    assert used - _BUILT_IN <= variables
    assert variables <= used | ({"datasource"} if name == f"{RUNBOOK_UID}.json" else set())


def test_rates_are_over_an_interval_that_holds_some_scrapes() -> None:
    for expression in expressions():
        assert set(re.findall(r"\[([^\]]*)\]", expression)) <= {"$__rate_interval"}


def test_links_lead_to_dashboards_that_there_are() -> None:
    uids = {dashboard["uid"] for dashboard in DASHBOARDS.values()}
    tags = {tag for dashboard in DASHBOARDS.values() for tag in dashboard["tags"]}
    found = {uid for dashboard in DASHBOARDS.values() for uid in _LINK.findall(json.dumps(dashboard))}
    assert "gateway-node" in found
    assert found <= uids
    for dashboard in DASHBOARDS.values():
        assert all(set(link["tags"]) <= tags for link in dashboard["links"])


def test_prometheus_understands_each_expression(tmp_path: Path) -> None:
    promtool = find_promtool()
    if promtool is None:
        pytest.skip("promtool can't be had")
    rules = [
        {"record": f"expression:{number}", "expr": re.sub(r"\$__rate_interval", "1m", expression)}
        for number, expression in enumerate(expressions())
    ]
    path = tmp_path / "rules.yml"
    path.write_text(json.dumps({"groups": [{"name": "dashboards", "rules": rules}]}))
    checked = subprocess.run([promtool, "check", "rules", str(path)], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


# What the expressions promise.


def test_what_has_not_happened_is_0_while_somebody_is_scraped() -> None:
    witness = 'gateway_build_info{job="gateway",instance=~"$node"}'
    gauge = 'gateway_users{job="gateway",instance=~"$node"}'
    assert levels(NODES, "gateway_users") == f"(sum({gauge}) or 0 * sum({witness}))"
    assert levels(NODES, "gateway_users", "instance") == (
        f"(sum by (instance) ({gauge}) or 0 * sum by (instance) ({witness}))"
    )
    assert levels(NODES, "gateway_users", "kind") == (
        f'(sum by (kind) ({gauge}) or on() label_replace(0 * sum({witness}), "kind", "(none)", "", ""))'
    )


def test_what_was_not_measured_is_blank_while_somebody_is_scraped() -> None:
    assert quantile(NODES, 0.5, "x").endswith(' or NaN * sum(gateway_build_info{job="gateway",instance=~"$node"}))')


# The files.


def test_a_file_that_is_not_current_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--folder", str(tmp_path)]) == 0
    assert main(["--folder", str(tmp_path), "--check"]) == 0
    (tmp_path / "gateway-node.json").write_text("{}\n")
    (tmp_path / "gateway-redis.json").unlink()
    (tmp_path / "of-before.json").write_text("{}\n")
    assert main(["--folder", str(tmp_path), "--check"]) == 1
    told = capsys.readouterr().err.splitlines()
    assert [Path(line.split()[0]).name for line in told] == [
        "gateway-node.json",
        "gateway-redis.json",
        "of-before.json",
    ]
    assert main(["--folder", str(tmp_path)]) == 0
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == files()


def test_files_are_the_same_each_time_and_end_with_a_line() -> None:
    for text in files().values():
        value = json.loads(text)
        assert text == json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    assert files() == files()


# The runbook.

_RUNBOOK = """\
# Runbook

What each alert means.

## GatewayDown

Nobody answers. See [the metrics](../reference/metrics.md) and [Prometheus](https://prometheus.io).

### Then

Start it.

## `GatewaySlow`

It is slow.
"""


def test_the_runbook_is_split_at_its_alerts() -> None:
    assert chapters(_RUNBOOK) == [
        Chapter("About", "What each alert means."),
        Chapter(
            "GatewayDown",
            "Nobody answers. See the metrics and [Prometheus](https://prometheus.io).\n\n### Then\n\nStart it.",
        ),
        Chapter("GatewaySlow", "It is slow."),
    ]


def test_with_a_runbook_there_is_one_more_dashboard_and_all_link_to_it(tmp_path: Path) -> None:
    path = tmp_path / "runbook.md"
    path.write_text(_RUNBOOK)
    made = {name: json.loads(text) for name, text in files(path).items()}
    texts = [panel for panel in made[f"{RUNBOOK_UID}.json"]["panels"] if panel["type"] == "text"]
    assert [panel["title"] for panel in texts] == ["About", "GatewayDown", "GatewaySlow"]
    assert all(panel["options"]["mode"] == "markdown" for panel in texts)
    assert all(any(link.get("url") == f"/d/{RUNBOOK_UID}" for link in each["links"]) for each in made.values())


def test_without_a_runbook_nothing_links_to_it(tmp_path: Path) -> None:
    made = files(tmp_path / "runbook.md")
    assert f"{RUNBOOK_UID}.json" not in made
    assert not any(RUNBOOK_UID in text for text in made.values())


def test_the_runbook_is_looked_for_where_it_is_written() -> None:
    assert _ROOT / "deploy" / "prometheus" / "runbook.md" == catalogue.RUNBOOK


# Provisioning.


def test_grafana_is_told_where_prometheus_and_the_dashboards_are() -> None:
    source = (_PROVISIONING / "datasources" / "prometheus.yml").read_text()
    assert "uid: prometheus\n" in source
    assert "url: http://prometheus:9090\n" in source
    assert "path: /etc/grafana/dashboards\n" in (_PROVISIONING / "dashboards" / "gateway.yml").read_text()
