"""`python -m deploy.grafana` writes the dashboards; with `--check` it only says which are not what the code makes."""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from deploy.grafana.delivery import delivery
from deploy.grafana.load_test import load_test
from deploy.grafana.node import node
from deploy.grafana.overview import overview
from deploy.grafana.redis import redis
from deploy.grafana.runbook import runbook

FOLDER: Final = Path(__file__).with_name("dashboards")
_DASHBOARDS: Final = {
    "overview": overview,
    "node": node,
    "delivery": delivery,
    "redis": redis,
    "loadtest": load_test,
    "runbook": runbook,
}


def texts() -> Mapping[str, str]:
    """Return what each file should hold, by its name."""
    encoder = JSONEncoder(sort_keys=True, indent=2)
    return {f"{name}.json": f"{encoder.encode(make().build())}\n" for name, make in _DASHBOARDS.items()}


def main() -> int:
    """Write or check the files."""
    parser = argparse.ArgumentParser("python -m deploy.grafana", description="Write the dashboards as JSON.")
    parser.add_argument("--check", action="store_true", help="only say which are not current")
    options = parser.parse_args()
    wanted = texts()
    if options.check:
        return _check(wanted)
    FOLDER.mkdir(exist_ok=True)
    for name, text in wanted.items():
        (FOLDER / name).write_text(text, encoding="utf-8")
    return 0


def _check(wanted: Mapping[str, str]) -> int:
    there = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.json")}
    stale = sorted(name for name in {**wanted, **there} if wanted.get(name) != there.get(name))
    for name in stale:
        sys.stderr.write(f"deploy/grafana/dashboards/{name} is not what the code makes: run `make dashboards`\n")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
