"""`gateway config` and `gateway metrics`: check the configuration, explain it and what is measured."""

import argparse

from gateway import configdoc
from gateway.commands.options import add_config, add_reference, load_config, telling
from gateway.config import Config
from gateway.observability import metrics


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what `config` takes."""
    what = parser.add_subparsers(required=True, metavar="WHAT")
    check = what.add_parser("check", help="say whether the configuration is good")
    add_config(check)
    check.set_defaults(run=telling(_check))
    what.add_parser("default", help="print the defaults as TOML").set_defaults(run=_print_defaults)
    add_reference(what, "all keys", configdoc.reference)


def add_metrics_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what `metrics` takes."""
    add_reference(parser.add_subparsers(required=True, metavar="WHAT"), "all metrics", metrics.reference)


def _check(options: argparse.Namespace) -> int:
    load_config(options)
    print("the configuration is good")
    return 0


def _print_defaults(_options: argparse.Namespace) -> int:
    print(configdoc.as_toml(Config()), end="")
    return 0
