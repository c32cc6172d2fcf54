"""The runbook as a dashboard, where the links of the others lead: a panel for each alert."""

import re
from pathlib import Path
from typing import Final

from grafana_foundation_sdk.builders.dashboard import Dashboard

from deploy.grafana.board import RUNBOOK_UID, board, words

SOURCE: Final = Path(__file__).parents[1] / "prometheus" / "runbook.md"
_SECTION: Final = re.compile(r"^## (\w+)\n\n(.+?)(?=\n## |\Z)", re.MULTILINE | re.DOTALL)


def runbook() -> Dashboard:
    """Return the dashboard."""
    sections = _SECTION.findall(SOURCE.read_text(encoding="utf-8"))
    panels = [words(name, text.strip()) for name, text in sections]
    return board(
        RUNBOOK_UID, "Gateway: runbook", "What to do when an alert fires.", [("Alerts", panels)], has_nodes=False
    )
