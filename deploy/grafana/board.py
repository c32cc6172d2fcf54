"""What all dashboards have in common: variables, links, and a few kinds of panels.

Every panel says what it shows, what is normal, and what to do when it is not. Every query has an answer while all is
well, so that "No data" always means trouble: counters with labels appear with their first event, and `or_nothing`
stands in for them until then.
"""

from collections.abc import Iterable, Sequence
from itertools import count
from typing import Any, Final, NamedTuple

from grafana_foundation_sdk.builders import dashboard, heatmap, prometheus, stat, table, text, timeseries
from grafana_foundation_sdk.builders.common import ReduceDataOptions, VizLegendOptions, VizTooltipOptions
from grafana_foundation_sdk.models.common import LegendDisplayMode, LegendPlacement, SortOrder, TooltipDisplayMode
from grafana_foundation_sdk.models.dashboard import (
    DashboardLinkType,
    DataSourceRef,
    DataTransformerConfig,
    Threshold,
    ThresholdsMode,
    VariableOption,
    VariableRefresh,
    VariableSort,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

NODES: Final = 'job="gateway", instance=~"$node"'
"""Labels of what the chosen nodes say."""
CHANNELS: Final = f'{NODES}, namespace=~"$namespace"'
"""The same, of the chosen namespaces."""
RUNBOOK_UID: Final = "gateway-runbook"
_SOURCE: Final = DataSourceRef(type_val="prometheus", uid="${datasource}")
_TAG: Final = "gateway"
_ALL: Final = VariableOption(selected=True, text=["All"], value=["$__all"])
_WIDTH: Final = 24

Panel = Any
"""A panel's builder, of whichever kind; the SDK's own have no base with these methods."""


class Query(NamedTuple):
    """One expression, and what its series are called."""

    expression: str
    legend: str


def rate(metric: str, labels: str = NODES) -> str:
    """Return how fast a counter grows, for each series."""
    return f"rate({metric}{{{labels}}}[$__rate_interval])"


def total(metric: str, labels: str = NODES) -> str:
    """Return how fast a counter grows, in all."""
    return f"sum({rate(metric, labels)})"


def total_by(by: str, metric: str, labels: str = NODES) -> str:
    """Return how fast a counter grows by some of its labels, and a single 0 before it has begun to."""
    return or_nothing(f"sum by ({by}) ({rate(metric, labels)})")


def or_nothing(expression: str) -> str:
    """Return an expression that is 0, without labels, where the given one has no series."""
    return f"{expression} or on () vector(0)"


def quantile(share: float, metric: str, labels: str = NODES, *, by: str = "") -> str:
    """Return a quantile of a histogram."""
    groups = f"le, {by}" if by else "le"
    return f"histogram_quantile({share:g}, sum by ({groups}) ({rate(f'{metric}_bucket', labels)}))"


def quantiles(metric: str, labels: str = NODES) -> list[Query]:
    """Return the three quantiles that panels show; before anything was measured they are 0."""
    return [
        Query(or_nothing(f"({quantile(share, metric, labels)} >= 0)"), name)
        for share, name in ((0.5, "p50"), (0.9, "p90"), (0.99, "p99"))
    ]


def graph(
    title: str, text_: str, unit: str, queries: Sequence[Query], *, span: int = 8, stacked: bool = False
) -> Panel:
    """Return lines over time."""
    panel = (
        timeseries.Panel()
        .title(title)
        .description(text_)
        .datasource(_SOURCE)
        .unit(unit)
        .span(span)
        .height(8)
        .min(0)
        .line_width(1)
        .fill_opacity(40 if stacked else 5)
        .legend(
            VizLegendOptions().display_mode(LegendDisplayMode.LIST).placement(LegendPlacement.BOTTOM).show_legend(True)
        )
        .tooltip(VizTooltipOptions().mode(TooltipDisplayMode.MULTI).sort(SortOrder.DESCENDING))
    )
    return _with(panel, queries)


def number(
    title: str, text_: str, unit: str, query: str, *, bad_above: float | None = None, bad_below: float | None = None
) -> Panel:
    """Return one figure, which turns red beyond a bound."""
    steps = [Threshold(color="green", value=None)]
    if bad_above is not None:
        steps.append(Threshold(color="red", value=bad_above))
    if bad_below is not None:
        steps = [Threshold(color="red", value=None), Threshold(color="green", value=bad_below)]
    panel = (
        stat.Panel()
        .title(title)
        .description(text_)
        .datasource(_SOURCE)
        .unit(unit)
        .span(4)
        .height(4)
        .reduce_options(ReduceDataOptions().calcs(["lastNotNull"]))
        .thresholds(dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps))
    )
    return _with(panel, [Query(query, title)])


def heat(title: str, text_: str, metric: str, labels: str, *, span: int = 12) -> Panel:
    """Return a histogram over time: how many values of which size."""
    query = Query(f"sum by (le) (increase({metric}_bucket{{{labels}}}[$__rate_interval]))", "{{le}}")
    [target] = _queries([query])
    return (
        heatmap.Panel()
        .title(title)
        .description(text_)
        .datasource(_SOURCE)
        .unit("s")
        .span(span)
        .height(9)
        .calculate(False)
        .with_target(target.format(PromQueryFormat.HEATMAP))
    )


def rows(title: str, text_: str, queries: Sequence[Query], *, span: int = _WIDTH) -> Panel:
    """Return a table with a row for each node, and a column for each query."""
    panel = table.Panel().title(title).description(text_).datasource(_SOURCE).unit("short").span(span).height(8)
    for each in _queries(queries):
        panel = panel.with_target(each.instant().format(PromQueryFormat.TABLE))
    names = {f"Value #{chr(ord('A') + n)}": query.legend for n, query in enumerate(queries)}
    hidden = {"Time": True, "job": True}
    return panel.with_transformation(DataTransformerConfig("merge", options={})).with_transformation(
        DataTransformerConfig("organize", options={"excludeByName": hidden, "renameByName": names})
    )


def words(title: str, markdown: str) -> Panel:
    """Return a panel of text."""
    return (
        text.Panel()
        .title(title)
        .description("Text.")
        .datasource(_SOURCE)
        .unit("none")
        .span(_WIDTH)
        .height(7)
        .content(markdown)
    )


def board(
    uid: str,
    title: str,
    description: str,
    sections: Sequence[tuple[str, Sequence[Panel]]],
    *,
    has_nodes: bool = True,
    has_namespaces: bool = False,
) -> dashboard.Dashboard:
    """Return a dashboard of sections, each a row of its title and its panels."""
    made = (
        dashboard.Dashboard(title)
        .uid(uid)
        .description(description)
        .tags([_TAG])
        .refresh("10s")
        .time("now-30m", "now")
        .timezone("browser")
        .readonly()
        .link(
            dashboard.DashboardLink("Gateway")
            .type(DashboardLinkType.DASHBOARDS)
            .tags([_TAG])
            .as_dropdown(True)
            .keep_time(True)
        )
        .link(dashboard.DashboardLink("Runbook").type(DashboardLinkType.LINK).url(f"/d/{RUNBOOK_UID}"))
        .with_variable(dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"))
    )
    if has_nodes:
        made = made.with_variable(_choice("node", "Node", 'label_values(gateway_build_info{job="gateway"}, instance)'))
    if has_namespaces:
        label = 'label_values(gateway_deliveries_due_total{job="gateway"}, namespace)'
        made = made.with_variable(_choice("namespace", "Namespace", label))
    ids = count(1)
    for name, panels in sections:
        made = made.with_row(dashboard.Row(name).id(next(ids)))
        for panel in panels:
            made = made.with_panel(panel.id(next(ids)))
    return made


def _choice(name: str, label: str, query: str) -> dashboard.QueryVariable:
    return (
        dashboard.QueryVariable(name)
        .label(label)
        .query(query)
        .datasource(_SOURCE)
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .current(_ALL)
    )


def _with(panel: Panel, queries: Sequence[Query]) -> Panel:
    for each in _queries(queries):
        panel = panel.with_target(each)
    return panel


def _queries(queries: Iterable[Query]) -> list[prometheus.Dataquery]:
    """Name them A, B and so on."""
    return [
        prometheus.Dataquery()
        .ref_id(chr(ord("A") + n))
        .expr(query.expression)
        .legend_format(query.legend)
        .datasource(_SOURCE)
        for n, query in enumerate(queries)
    ]
