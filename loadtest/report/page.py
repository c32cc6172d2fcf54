"""The page: one file that loads nothing, in light and dark, for wide and narrow windows."""

from pathlib import Path
from typing import Final

import jinja2
from markupsafe import Markup

from loadtest.report import figures
from loadtest.report.charts import charts
from loadtest.report.drawing import Chart, draw
from loadtest.results import Results

_HERE: Final = Path(__file__).parent
_LARGE: Final = (580, 270)
_SMALL: Final = (344, 240)
"""Text keeps its size in a narrow window, so each chart is drawn for it once more."""


def render(results: Results) -> str:
    """Return the report of *results* as HTML."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    drawn = charts(results)
    return environment.get_template("page.html").render(
        results=results,
        style=Markup((_HERE / "page.css").read_text(encoding="utf-8")),  # noqa: S704 - our own file
        headline=figures.headline(results),
        checks=figures.checks(results),
        key_figures=figures.key_figures(results),
        notes=results.notes,
        chaos_head=figures.CHAOS_HEAD,
        chaos=figures.chaos(results),
        has_spans=any(span.end > span.begin for chart in drawn for span in chart.spans),
        charts=list(map(_drawn, drawn)),
        verification=figures.verification(results),
        ledger_head=figures.LEDGER_HEAD,
        ledger=figures.ledger(results),
        setting=figures.setting(results),
    )


def _drawn(chart: Chart) -> dict[str, object]:
    large = draw(chart, width=_LARGE[0], height=_LARGE[1], is_hinted=True)
    small = draw(chart, width=_SMALL[0], height=_SMALL[1], is_hinted=False)
    return {
        "title": chart.title,
        "explanation": chart.explanation,
        "names": [line.name for line in chart.lines],
        "large": Markup(large),  # noqa: S704 - whatever is not ours in it was escaped by `draw`
        "small": Markup(small),  # noqa: S704 - the same
    }
