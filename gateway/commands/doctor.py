"""`gateway doctor`: look for what is wrong around a node."""

import argparse
import sys

from gateway.commands.options import add_config, load_config
from gateway.doctor.examination import as_json, as_text, examine


def add_arguments(doctor: argparse.ArgumentParser) -> None:
    """Say what the command takes."""
    add_config(doctor)
    doctor.add_argument("--json", action="store_true", help="print the findings as JSON")
    doctor.set_defaults(run=_examine)


def _examine(options: argparse.Namespace) -> int:
    """Print all findings; the exit code is the worst of them."""
    findings = examine(lambda: load_config(options))
    worst = max(each.verdict for each in findings)
    print(as_json(findings, worst) if options.json else as_text(findings, is_coloured=sys.stdout.isatty()))
    return int(worst)
