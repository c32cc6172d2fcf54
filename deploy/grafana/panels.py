"""The kinds of panels, each as one call: what it is called, what it tells a reader, what it asks, and how it looks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeVar

from grafana_foundation_sdk.builders import (
    common,
    dashboard,
    heatmap,
    prometheus,
    stat,
    statetimeline,
    table,
    text,
    timeseries,
)
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models import common as looks
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode, HeatmapColorScale
from grafana_foundation_sdk.models.prometheus import PromQueryFormat
from grafana_foundation_sdk.models.text import TextMode

DATASOURCE: Final = models.DataSourceRef(type_val="prometheus", uid="${datasource}")
GOOD: Final = "green"
ODD: Final = "orange"
BAD: Final = "red"
_NO_LIMITS: Final = ((None, GOOD),)


class Query(NamedTuple):
    """What is asked, and what its series are called."""

    expr: str
    legend: str


class Limit(NamedTuple):
    """From which value on it has which colour; `None`: from the lowest."""

    value: float | None
    color: str


@dataclass(frozen=True, kw_only=True)
class About:
    """What a panel shows, what is normal, and what to do when it is not."""

    shows: str
    normal: str
    otherwise: str

    def __str__(self) -> str:
        return f"{self.shows}\n\n**Normal:** {self.normal}\n\n**If not:** {self.otherwise}"


Panel = Builder[models.Panel]
_PanelT = TypeVar("_PanelT", timeseries.Panel, stat.Panel, heatmap.Panel, statetimeline.Panel, table.Panel)


def graph(
    title: str,
    about: About,
    *queries: Query,
    unit: str,
    width: int = 8,
    stacked: bool = False,
    limit: float | None = None,
    most: float | None = None,
) -> Panel:
    """Return lines over time; *limit* is drawn as a line that none should cross, *most* is where the axis ends."""
    panel = _dressed(timeseries.Panel(), title, about, unit=unit, width=width).min(0)
    panel.fill_opacity(30 if stacked else 5).line_width(1).show_points(looks.VisibilityMode.NEVER)
    panel.tooltip(common.VizTooltipOptions().mode(looks.TooltipDisplayMode.MULTI).sort(looks.SortOrder.DESCENDING))
    legend = common.VizLegendOptions().show_legend(show_legend=True).placement(looks.LegendPlacement.BOTTOM)
    panel.legend(legend.display_mode(looks.LegendDisplayMode.LIST).calcs([]))
    if stacked:
        panel.stacking(common.StackingConfig().mode(looks.StackingMode.NORMAL).group("A"))
    if limit is not None:
        panel.thresholds(_limits([Limit(None, GOOD), Limit(limit, BAD)]))
        panel.thresholds_style(common.GraphThresholdsStyleConfig().mode(looks.GraphThresholdsStyleMode.DASHED))
    if most is not None:
        panel.max(most)
    return panel.targets(_targets(queries))


def figure(
    title: str,
    about: About,
    *queries: Query,
    unit: str,
    width: int = 4,
    height: int = 4,
    limits: Sequence[tuple[float | None, str]] = _NO_LIMITS,
    words: Mapping[str, str] | None = None,
) -> Panel:
    """Return the value of now in large, coloured by *limits*; *words* stand for values, and `quiet` for NaN."""
    panel = _dressed(stat.Panel(), title, about, unit=unit, width=width, height=height)
    panel.thresholds(_limits(limits)).color_mode(looks.BigValueColorMode.VALUE)
    panel.graph_mode(looks.BigValueGraphMode.NONE)
    panel.reduce_options(common.ReduceDataOptions().calcs(["last"]).values(values=False))
    panel.text_mode(looks.BigValueTextMode.VALUE_AND_NAME if len(queries) > 1 else looks.BigValueTextMode.AUTO)
    panel.mappings([*_words(words or {}), _word_for_nan()])
    return panel.targets(_targets(queries, is_instant=True))


def named(title: str, about: About, query: Query, *, width: int = 4) -> Panel:
    """Return the labels of a series in large, for which the legend stands, instead of its value."""
    panel = _dressed(stat.Panel(), title, about, unit="none", width=width, height=4)
    panel.text_mode(looks.BigValueTextMode.NAME).graph_mode(looks.BigValueGraphMode.NONE)
    panel.color_mode(looks.BigValueColorMode.NONE)
    panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).values(values=False))
    return panel.targets(_targets([query], is_instant=True))


def heat(title: str, about: About, expression: str, *, unit: str = "s", width: int = 12) -> Panel:
    """Return how a histogram's buckets fill over time."""
    panel = _dressed(heatmap.Panel(), title, about, unit=unit, width=width)
    panel.y_axis(heatmap.YAxisConfig().unit(unit).axis_placement(looks.AxisPlacement.LEFT)).cell_gap(1)
    panel.cell_values(heatmap.CellValues().unit("reqps").decimals(1)).show_color_scale(show_color_scale=True)
    colors = heatmap.HeatmapColorOptions().mode(HeatmapColorMode.SCHEME).scheme("Oranges").steps(64)
    panel.color(colors.scale(HeatmapColorScale.EXPONENTIAL).exponent(0.5))
    panel.calculate(calculate=False).mode(looks.TooltipDisplayMode.SINGLE).show_y_histogram()
    query = prometheus.Dataquery().expr(expression).legend_format("{{le}}").range().ref_id("A").datasource(DATASOURCE)
    return panel.with_target(query.format(PromQueryFormat.HEATMAP))


def states(title: str, about: About, query: Query, *, words: Mapping[str, tuple[str, str]], width: int = 12) -> Panel:
    """Return a bar for each series, in pieces; *words* say what a value is called, and its colour."""
    panel = _dressed(statetimeline.Panel(), title, about, unit="none", width=width)
    panel.mappings([models.ValueMap({value: _result(*word) for value, word in words.items()})])
    panel.show_value(looks.VisibilityMode.NEVER).row_height(0.8).fill_opacity(70).line_width(0)
    panel.color_scheme(dashboard.FieldColor().mode(models.FieldColorModeId.THRESHOLDS))
    return panel.targets(_targets([query]))


class Column(NamedTuple):
    """One column of a table."""

    name: str
    """Empty for one that is there for its labels only."""
    expr: str
    unit: str = "short"
    limits: Sequence[tuple[float | None, str]] = ()


def listing(
    title: str, about: About, columns: Sequence[Column], *, keys: Mapping[str, str], link: str = "", height: int = 8
) -> Panel:
    """Return a table with a row for each combination of the labels *keys*, which are called as these say.

    *link* leads from the first of them to another dashboard.
    """
    panel = _dressed(table.Panel(), title, about, unit="short", width=24, height=height)
    refs = [chr(ord("A") + number) for number in range(len(columns))]
    for ref, column in zip(refs, columns, strict=True):
        query = prometheus.Dataquery().expr(column.expr).legend_format(column.name).instant().ref_id(ref)
        panel.with_target(query.datasource(DATASOURCE).format(PromQueryFormat.TABLE))
        values = [models.DynamicConfigValue("unit", column.unit)]
        if column.limits:
            values.append(models.DynamicConfigValue("thresholds", _limits(column.limits).build()))
            values.append(models.DynamicConfigValue("custom.cellOptions", {"type": "color-text"}))
        if column.name:
            panel.override_by_name(column.name, values)
    if link:
        first = next(iter(keys.values()))
        panel.override_by_name(first, [models.DynamicConfigValue("links", [{"title": "Open", "url": link}])])
    shown = {f"Value #{ref}": column.name for ref, column in zip(refs, columns, strict=True)}
    hidden = {"Time": True} | {name: True for name, column in shown.items() if not column}
    names = {**keys} | {name: column for name, column in shown.items() if column}
    panel.with_transformation(models.DataTransformerConfig(id_val="merge", options={}))
    order = {name: number for number, name in enumerate(names)}
    kept = {"excludeByName": hidden, "renameByName": names, "indexByName": order}
    return panel.with_transformation(models.DataTransformerConfig(id_val="organize", options=kept))


def prose(title: str, content: str, *, width: int = 12, height: int = 8) -> Panel:
    """Return a text in Markdown."""
    panel = text.Panel().title(title).span(width).height(height)
    return panel.mode(TextMode.MARKDOWN).content(content)


def _dressed(panel: _PanelT, title: str, about: About, *, unit: str, width: int, height: int = 8) -> _PanelT:
    dressed = panel.title(title).description(str(about)).datasource(DATASOURCE)
    return dressed.unit(unit).span(width).height(height)


def _targets(queries: Sequence[Query], *, is_instant: bool = False) -> list[Builder[Dataquery]]:
    """Return what Grafana asks; over a range the last value may be from long ago, where nothing came since."""
    targets: list[Builder[Dataquery]] = []
    for number, query in enumerate(queries):
        target = prometheus.Dataquery().expr(query.expr).legend_format(query.legend).datasource(DATASOURCE)
        target = target.ref_id(chr(ord("A") + number))
        targets.append(target.instant() if is_instant else target.range())
    return targets


def _limits(limits: Sequence[tuple[float | None, str]]) -> dashboard.ThresholdsConfig:
    steps = [models.Threshold(value, color) for value, color in limits]
    return dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps)


def _words(words: Mapping[str, str]) -> list[models.ValueMapping]:
    return [models.ValueMap({value: _result(word) for value, word in words.items()})] if words else []


def _word_for_nan() -> models.ValueMapping:
    options = models.DashboardSpecialValueMapOptions(match=models.SpecialValueMatch.NA_N, result=_result("quiet"))
    return models.SpecialValueMap(options)


def _result(word: str, color: str | None = None) -> models.ValueMappingResult:
    return models.ValueMappingResult(text=word, color=color)
