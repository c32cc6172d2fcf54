"""`report` and `compare`: what is made of files of results afterwards."""

import argparse
import sys
from pathlib import Path
from typing import Any

from loadtest import comparison, results
from loadtest.report import figures
from loadtest.report.page import render
from loadtest.report.summary import summary
from loadtest.results import Results, ResultsError


def add_commands(commands: Any) -> None:
    """Add both commands to the subparsers of a command line."""
    report = commands.add_parser(
        "report", help="make a page and a summary of a run", description="Make a page (HTML) and a summary (Markdown)."
    )
    report.add_argument("file", type=Path, metavar="RUN.json", help="what `run` has written")
    report.add_argument("--output", type=Path, metavar="FOLDER", help="where to (default: beside the file)")
    report.set_defaults(run=_report)
    compare = commands.add_parser(
        "compare", help="set two runs beside each other", description="Print two runs with the ratios second : first."
    )
    compare.add_argument("first", type=Path, metavar="A.json")
    compare.add_argument("second", type=Path, metavar="B.json")
    compare.set_defaults(run=_compare)


def write_report(found: Results, *, name: str, folder: Path) -> list[Path]:
    """Write NAME.html and NAME.md into *folder*, which is made where it is missing, and return where they are.

    Raises:
        ResultsError: if they can't be written.
    """
    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for ending, text in (("html", render(found)), ("md", summary(found))):
            path = folder / f"{name}.{ending}"
            path.write_text(text, encoding="utf-8")
            written.append(path)
    except OSError as error:
        raise ResultsError(f"can't write into {folder}: {error.strerror}") from None
    return written


def _report(options: argparse.Namespace) -> int:
    found = results.read(options.file)
    told = figures.headline(found)
    written = write_report(found, name=options.file.stem, folder=options.output or options.file.parent)
    sys.stdout.write(f"{found.run.scenario}, {told.word}: {told.sentence}\n")
    sys.stdout.write("".join(f"{path}\n" for path in written))
    return 0


def _compare(options: argparse.Namespace) -> int:
    names = (options.first.stem, options.second.stem)
    if names[0] == names[1]:
        names = (str(options.first), str(options.second))
    sys.stdout.write(comparison.compare(results.read(options.first), results.read(options.second), names=names))
    return 0
