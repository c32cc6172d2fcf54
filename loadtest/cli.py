"""The command line: `python -m loadtest COMMAND`; each command comes from the module that does its work."""

import argparse
import sys
from collections.abc import Sequence
from typing import Final

from loadtest import reporting, running
from loadtest.histogram import HistogramError
from loadtest.peers import command as peers
from loadtest.results import ResultsError

USAGE_ERROR: Final = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; a user's mistake is one sentence and 2."""
    options = _parser().parse_args(arguments)
    try:
        code: int = options.run(options)
    except ResultsError as error:
        sys.stderr.write(f"{error}.\n")
        return USAGE_ERROR
    except HistogramError as error:
        sys.stderr.write(f"The results are damaged: {error}.\n")
        return USAGE_ERROR
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("loadtest", description="Load a gateway, check every delivery, and report.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    running.add_commands(commands)
    reporting.add_commands(commands)
    peers.add_commands(commands)
    return parser
