"""The runbook as a dashboard, so that who looks at charts has it at hand: one panel for each alert."""

import math
import re
from typing import Final, NamedTuple

from deploy.grafana.frame import GRID, RUNBOOK_UID, Frame, Section
from deploy.grafana.panels import Panel, prose

_HEADING: Final = re.compile(r"^## +(.+?) *$", re.MULTILINE)
_RELATIVE_LINK: Final = re.compile(r"\[([^\]]+)\]\((?!https?://|/d/)[^)]*\)")
_LETTERS_IN_A_LINE: Final = 90
_LINES_IN_A_UNIT: Final = 1.4
_SMALLEST: Final = 5
_PANELS_IN_A_ROW: Final = 2


class Chapter(NamedTuple):
    """One section of the runbook."""

    title: str
    text: str


def chapters(markdown: str) -> list[Chapter]:
    """Split *markdown* at its headings of the second level; what stands before the first is the introduction.

    Links to other files of the repository become plain text, as Grafana does not have those.
    """
    parts = _HEADING.split(_RELATIVE_LINK.sub(r"\1", markdown))
    introduction = re.sub(r"^# .*\n", "", parts[0].lstrip()).strip()
    found = [Chapter("About", introduction)] if introduction else []
    return found + [
        Chapter(title.strip("`"), text.strip()) for title, text in zip(parts[1::2], parts[2::2], strict=True)
    ]


def runbook(markdown: str) -> Frame:
    """Return the dashboard."""
    found = chapters(markdown)
    panels: list[Panel] = []
    for number in range(0, len(found), _PANELS_IN_A_ROW):
        row = found[number : number + _PANELS_IN_A_ROW]
        height = max(_height(each.text) for each in row)
        panels += [prose(each.title, each.text, width=GRID // len(row), height=height) for each in row]
    return Frame(
        RUNBOOK_UID,
        "Gateway: runbook",
        "What each alert means, and what to do.",
        [],
        [Section("Alerts", panels)],
        tags=["runbook"],
    )


def _height(text: str) -> int:
    """Return how many units of the grid *text* takes, roughly: Grafana scrolls what does not fit."""
    lines = sum(max(1, math.ceil(len(line) / _LETTERS_IN_A_LINE)) for line in text.splitlines())
    return max(_SMALLEST, math.ceil(lines / _LINES_IN_A_UNIT) + 2)
