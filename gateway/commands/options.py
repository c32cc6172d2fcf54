"""What commands have in common: where the configuration comes from, and how an operator's mistake is told."""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Never

from gateway.broker.contract import EngineError
from gateway.config import Config, ConfigError, load
from gateway.transport.certificate import ListenError

USAGE_ERROR: Final = 2

Command = Callable[[argparse.Namespace], int]


def add_config(parser: argparse.ArgumentParser) -> None:
    """Add the option that names the file."""
    parser.add_argument("--config", type=Path, metavar="FILE", help="TOML or JSON file (env: GATEWAY_<TABLE>__<KEY>)")


def load_config(
    options: argparse.Namespace, flags: dict[str, Any] | None = None, base: dict[str, Any] | None = None
) -> Config:
    """Read the configuration that *options* and the environment name.

    Raises:
        ConfigError: with a line for each fault.
    """
    return load(options.config, environment=os.environ, flags=flags, base=base)


def telling(command: Command) -> Command:
    """Have *command* tell what only its operator can mend in lines on standard error, and return 2 then."""

    def run(options: argparse.Namespace) -> int:
        try:
            return command(options)
        except ConfigError as error:
            faults = error.faults
        except (EngineError, ListenError) as error:
            faults = [str(error)]
        for fault in faults:
            print(fault, file=sys.stderr)
        return USAGE_ERROR

    return run


def fail(message: str) -> Never:
    """Give up, for a reason that `telling` tells."""
    raise ConfigError([message])


def add_reference(what: Any, subject: str, write: Callable[[], str]) -> None:
    """Add `doc`, which prints what *write* returns, to the subparsers *what*."""
    doc = what.add_parser("doc", help=f"print the reference of {subject} as Markdown")
    doc.add_argument("--check", type=Path, metavar="FILE", help="only say whether FILE is that reference")
    doc.set_defaults(run=lambda options: _print_reference(write(), options.check))


def _print_reference(text: str, check: Path | None) -> int:
    if check is None:
        print(text, end="")
        return 0
    if check.is_file() and check.read_text(encoding="utf-8") == text:
        return 0
    print(f"{check} is not what the code says: run `make reference`", file=sys.stderr)
    return 1
