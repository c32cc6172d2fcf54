"""The command line: which commands there are.

What a command takes and does is a module of its own, imported when that command is asked for: who only publishes a line
does not wait for a server to be imported.
"""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Final, NamedTuple

from gateway import __version__


class _Command(NamedTuple):
    module: str
    help: str
    add_arguments: str = "add_arguments"
    """The function that says what it takes; it sets `run`, which returns the exit code."""


_COMMANDS: Final = {
    "serve": _Command("gateway.commands.serve", "run a node"),
    "publish": _Command("gateway.commands.terminal", "publish into a channel", "add_publish_arguments"),
    "subscribe": _Command("gateway.commands.terminal", "print what is published", "add_subscribe_arguments"),
    "api": _Command("gateway.commands.api", "call the server API and print the result"),
    "token": _Command("gateway.commands.token", "make and check tokens"),
    "config": _Command("gateway.commands.configuration", "check and explain the configuration"),
    "health": _Command("gateway.commands.health", "ask a node how it is"),
    "doctor": _Command("gateway.commands.doctor", "look for what is wrong, and say what to do"),
    "metrics": _Command("gateway.commands.configuration", "explain the metrics", "add_metrics_arguments"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 1 the answer is no, 2 it could not be done as asked."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    options = _parser(asked_for=given[0] if given else "").parse_args(given)
    code: int = options.run(options)
    return code


def _parser(*, asked_for: str) -> argparse.ArgumentParser:
    """Return the parser of all commands, of which it knows the arguments of one."""
    parser = argparse.ArgumentParser("gateway", description="A WebSocket pub/sub gateway.")
    parser.add_argument("--version", action="version", version=f"gateway {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, command in _COMMANDS.items():
        below = commands.add_parser(name, help=command.help)
        if name == asked_for:
            getattr(import_module(command.module), command.add_arguments)(below)
    return parser


if __name__ == "__main__":
    sys.exit(main())
