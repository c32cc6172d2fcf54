"""What all dashboards have around their panels: variables, links, times, and the order on the grid."""

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import dashboard as models

from deploy.grafana.panels import DATASOURCE, Panel

TAG: Final = "gateway"
GRID: Final = 24
"""How many units wide a dashboard is."""
RUNBOOK_UID: Final = "gateway-runbook"
NODE_LINK: Final = "/d/gateway-node?${datasource:queryparam}&var-node=${__data.fields.Node}&${__url_time_range}"
"""From a row of a table to the node in depth."""


class Section(NamedTuple):
    """Panels under one heading."""

    title: str
    panels: Sequence[Panel]


class Event(NamedTuple):
    """What is marked in all charts of a dashboard."""

    name: str
    expr: str
    color: str


class Frame(NamedTuple):
    """One dashboard, but for its links."""

    uid: str
    title: str
    description: str
    variables: Sequence[Builder[models.VariableModel]]
    sections: Sequence[Section]
    events: Sequence[Event] = ()
    tags: Sequence[str] = ()

    def build(self, *, has_runbook: bool) -> models.Dashboard:
        """Put it together; panels are numbered in their order, so that links to them stay."""
        made = dashboard.Dashboard(self.title).uid(self.uid).description(self.description).tags([TAG, *self.tags])
        made.time("now-30m", "now").refresh("10s").tooltip(models.DashboardCursorSync.CROSSHAIR).timezone("browser")
        made.variables([_datasource(), *self.variables]).annotations([_annotation(each) for each in self.events])
        made.links(list(_links(has_runbook=has_runbook)))
        number = 0
        for section in self.sections:
            number += 1
            made.with_row(dashboard.Row(section.title).id(number))
            for panel in section.panels:
                number += 1
                panel.build().id_val = number
                made.with_panel(panel)
        return made.build()


def variable(name: str, label: str, query: str, *, is_single: bool = False) -> Builder[models.VariableModel]:
    """Return a variable of Prometheus' own values; but for single ones, all at first."""
    made = dashboard.QueryVariable(name).label(label).query({"query": query, "refId": name}).datasource(DATASOURCE)
    made.refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED).sort(models.VariableSort.NATURAL_ASC)
    if is_single:
        return made
    # Also what has no such label, as the books of channels without a namespace.
    return made.multi(multi=True).include_all(include_all=True).all_value(".*").current(_everything())


def nodes(*, is_single: bool = False) -> Builder[models.VariableModel]:
    """Return the variable that chooses nodes."""
    query = 'label_values(up{job="gateway"}, instance)'
    return variable("node", "Node" if is_single else "Nodes", query, is_single=is_single)


def namespaces() -> Builder[models.VariableModel]:
    """Return the variable that chooses namespaces of channels."""
    query = 'label_values(gateway_deliveries_due_total{job="gateway"}, namespace)'
    return variable("channel_namespace", "Namespaces of channels", query)


def restarts(matchers: str) -> Event:
    """Return the event that a node was started."""
    return Event("Node started", f"changes(process_start_time_seconds{{{matchers}}}[$__rate_interval]) > 0", "blue")


def _everything() -> models.VariableOption:
    return models.VariableOption(selected=True, text=["All"], value=["$__all"])


def _datasource() -> Builder[models.VariableModel]:
    return dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus")


def _annotation(event: Event) -> Builder[models.AnnotationQuery]:
    made = dashboard.AnnotationQuery().name(event.name).datasource(DATASOURCE).expr(event.expr)
    return made.enable(enable=True).hide(hide=False).icon_color(event.color)


def _links(*, has_runbook: bool) -> Iterator[Builder[models.DashboardLink]]:
    others = dashboard.DashboardLink("Gateway").type(models.DashboardLinkType.DASHBOARDS).tags([TAG])
    yield others.as_dropdown(as_dropdown=True).include_vars(include_vars=True).keep_time(keep_time=True)
    if has_runbook:
        runbook = dashboard.DashboardLink("Runbook").type(models.DashboardLinkType.LINK).icon("doc")
        yield runbook.url(f"/d/{RUNBOOK_UID}").tooltip("What to do when an alert fires").target_blank(target_blank=True)
