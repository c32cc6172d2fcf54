"""Writes the dashboards, or says which are not as the code has them."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from deploy.grafana.catalogue import RUNBOOK, frames

FOLDER: Final = Path(__file__).with_name("dashboards")


def main(arguments: Sequence[str] | None = None) -> int:
    """Write all dashboards; with `--check` write nothing, and return 1 if any file is not current."""
    parser = argparse.ArgumentParser("python -m deploy.grafana", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, and say which files are not current")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the files are (default: %(default)s)")
    options = parser.parse_args(arguments)
    wanted = files()
    if not options.check:
        write(wanted, options.folder)
        return 0
    stale = differences(wanted, options.folder)
    for name in stale:
        sys.stderr.write(f"{options.folder / name} is not what deploy/grafana makes: run `make dashboards`.\n")
    return 1 if stale else 0


def files(runbook: Path = RUNBOOK) -> dict[str, str]:
    """Return all dashboards as the text of their files, by name."""
    made = frames(runbook)
    has_runbook = runbook.exists()
    return {f"{frame.uid}.json": _text(frame.build(has_runbook=has_runbook)) for frame in made}


def write(wanted: dict[str, str], folder: Path) -> None:
    """Have exactly the files *wanted* in *folder*."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in differences(wanted, folder):
        if name in wanted:
            (folder / name).write_text(wanted[name], encoding="utf-8")
        else:
            (folder / name).unlink()


def differences(wanted: dict[str, str], folder: Path) -> list[str]:
    """Return the names of files in *folder* that are not there, not as *wanted*, or not wanted."""
    found = {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*.json")}
    return sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))


def _text(dashboard: object) -> str:
    return json.dumps(dashboard, cls=JSONEncoder, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
