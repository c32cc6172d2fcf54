"""All dashboards."""

from pathlib import Path
from typing import Final

from deploy.grafana.delivery import delivery
from deploy.grafana.frame import Frame
from deploy.grafana.loadtest import load_test
from deploy.grafana.node import node
from deploy.grafana.overview import overview
from deploy.grafana.redis import redis
from deploy.grafana.runbook import runbook

RUNBOOK: Final = Path(__file__).parents[1] / "prometheus" / "runbook.md"


def frames(runbook_file: Path = RUNBOOK) -> list[Frame]:
    """Return them; the runbook's is among them where there is one."""
    made = [overview(), node(), delivery(), redis(), load_test()]
    if runbook_file.exists():
        made.append(runbook(runbook_file.read_text(encoding="utf-8")))
    return made
