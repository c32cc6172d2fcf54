"""The commands `run` and `scenarios`."""

import argparse
import asyncio
import os
import signal
import sys
import tomllib
from pathlib import Path
from typing import Any, Final

import msgspec

from loadtest import chaos, limits, results, thresholds
from loadtest.catalogue import ScenarioError, find, make, parse_assignments
from loadtest.coordinator import Coordinator, RunError
from loadtest.crew import CrewError
from loadtest.exposition import Exposition, ExpositionError, exposed
from loadtest.messages import Access
from loadtest.options import NamedServer, Options
from loadtest.progress import progress
from loadtest.results import Results, Server
from loadtest.scenario import Model, Scenario, description
from loadtest.scenarios import SCENARIOS
from loadtest.servers import ServerError
from loadtest.summary import summary

_MISSED: Final = 1
_USAGE_ERROR: Final = 2
_SECRETS: Final = ("--token", "--hmac-secret", "--api-key")
_DEFAULT: Final = "mixed"
_HIGHEST_PORT: Final = 65535
_Commands = Any  # argparse keeps the type of what `add_subparsers` returns to itself


class _MistakeError(Exception):
    """Something that the user has to mend, in one sentence."""


class _ServerTable(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """`[[servers]]` of a file."""

    name: str
    address: str = ""
    metrics: str = ""
    pid: int | None = None
    start: list[str] = []


class _File(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What a file can hold."""

    scenario: str = ""
    parameters: dict[str, Any] = {}
    targets: list[str] = []
    servers: list[_ServerTable] = []
    assert_: list[str] = msgspec.field(name="assert", default=[])
    chaos: list[str] = []
    commands: dict[str, list[str]] = {}


def add_commands(commands: _Commands) -> None:
    """Add the commands to the command line."""
    run = commands.add_parser("run", help="load servers with a scenario, and check what they deliver")
    run.set_defaults(run=_run)
    run.add_argument("scenario", nargs="?", default="", help="one of `scenarios`, or path/to/file.py:Class")
    run.add_argument("--file", type=Path, metavar="TOML", help="scenario, parameters, servers, thresholds, chaos")
    run.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a parameter of the scenario")
    run.add_argument("--target", action="append", default=[], metavar="URL", help="ws://host:port/connection/websocket")
    run.add_argument("--cluster", action="store_true", help="without a target: three nodes with Redis, not one node")
    run.add_argument("--protocol", choices=("json", "protobuf", "plain"), default="json")
    run.add_argument("--plain-target", action="append", default=[], metavar="URL", help="ws://host:port/ws/{channel}")
    run.add_argument("--metrics", action="append", default=[], metavar="URL", help="of each target, in order")
    run.add_argument("--pid", action="append", default=[], type=int, help="of each target's local process, in order")
    run.add_argument("--token", default="", help="what clients show (see also --hmac-secret)")
    run.add_argument("--hmac-secret", default="", help="has each client make a token of its own")
    run.add_argument(
        "--api", action="append", default=[], metavar="URL", help="http://host:port/api, to publish through"
    )
    run.add_argument("--api-key", default="")
    run.add_argument("--exact-channels", action="store_true", help="add nothing to the channels' names")
    run.add_argument("--workers", type=int, default=0, metavar="N", help="processes (default: one for each core)")
    run.add_argument("--seed", type=int, default=1)
    run.add_argument(
        "--assert", action="append", default=[], dest="asserts", metavar="THRESHOLD", help="p99<50ms, lost=0"
    )
    run.add_argument("--chaos", action="append", default=[], metavar="VERB:NAME@AT[+FOR]", help="kill:node1@10s")
    run.add_argument(
        "--prometheus-port", type=int, metavar="PORT", help="serve the run's own metrics there (0: on a free port)"
    )
    run.add_argument("--prometheus-address", default="127.0.0.1", metavar="ADDRESS", help="where that port is")
    run.add_argument("--results", type=Path, metavar="JSON", help="where to write everything that was measured")
    run.add_argument("--quiet", action="store_true", help="tell nothing but the result")
    run.add_argument("--lines", action="store_true", help="tell in lines, on a terminal too")
    run.add_argument(
        "--i-own-this-target", action="store_true", help="for targets that are not this machine: they are yours to load"
    )
    listing = commands.add_parser("scenarios", help="list the scenarios and their parameters")
    listing.set_defaults(run=_list)


def _list(arguments: argparse.Namespace) -> int:
    del arguments
    base = set(Scenario.__struct_fields__)
    for name, kind in SCENARIOS.items():
        own = [field for field in kind.__struct_fields__ if field not in base or field in kind.__annotations__]
        defaults = kind()
        shown = ", ".join(f"{field}={_shown(getattr(defaults, field))}" for field in own)
        sys.stdout.write(f"{name:10} {description(kind)}\n{'':10} {shown}\n")
    common = Scenario()
    shown = ", ".join(f"{field}={_shown(getattr(common, field))}" for field in Scenario.__struct_fields__)
    sys.stdout.write(f"\nParameters of all: {shown}\n")
    return 0


def _run(arguments: argparse.Namespace) -> int:
    try:
        options = _options(arguments)
        found = asyncio.run(_carry_out(options, is_plain=arguments.lines))
        if options.results is not None:
            results.write(found, options.results)
    except (
        _MistakeError,
        ScenarioError,
        thresholds.ThresholdError,
        chaos.ChaosError,
        limits.LimitError,
        ServerError,
        RunError,
        CrewError,
        ExpositionError,
        results.ResultsError,
    ) as error:
        sys.stderr.write(f"{error}\n")
        return _USAGE_ERROR
    sys.stdout.write(summary(found))
    return 0 if found.verdict.is_passed else _MISSED


async def _carry_out(options: Options, *, is_plain: bool) -> Results:
    """Run it; the first Ctrl-C ends it with what was measured so far, the second at once."""
    task = asyncio.current_task()
    if task is None:
        raise AssertionError("it runs in a task")
    with (
        progress(is_quiet=options.is_quiet, is_plain=is_plain) as view,
        exposed(view, options.exposition, chaos=map(str, options.chaos)) as shown,
    ):
        coordinator = Coordinator(options, shown)
        asked = False

        def ask_to_stop() -> None:
            nonlocal asked
            if asked:
                task.cancel()
            asked = True
            shown.say("Stopping; once more to stop without results")
            coordinator.stop()

        loop = asyncio.get_running_loop()
        for signum in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(signum, ask_to_stop)
        try:
            return await coordinator.run()
        except* (RunError, CrewError, ServerError, chaos.ChaosError, limits.LimitError) as group:
            raise _MistakeError(str(_first(group))) from None
        except* asyncio.CancelledError:
            raise _MistakeError("stopped, without results") from None
        finally:
            for signum in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(signum)


def _options(arguments: argparse.Namespace) -> Options:
    file = _read(arguments.file) if arguments.file is not None else _File()
    name = arguments.scenario or file.scenario or _DEFAULT
    given = {**file.parameters, **parse_assignments(arguments.set)}
    scenario = make(find(name), given)
    servers = _servers(arguments, file)
    targets = [each.server.address for each in servers if each.server.address]
    options = Options(
        scenario_name=name,
        scenario=scenario,
        seed=arguments.seed,
        workers=min(arguments.workers or _cores(), scenario.clients),
        protocol=arguments.protocol,
        targets=targets,
        plain_targets=arguments.plain_target,
        is_cluster=arguments.cluster,
        servers=servers,
        access=Access(
            token=arguments.token,
            hmac_secret=arguments.hmac_secret,
            api_urls=arguments.api,
            api_key=arguments.api_key,
        ),
        has_exact_channels=arguments.exact_channels,
        thresholds=thresholds.parse_all([*file.assert_, *arguments.asserts]),
        chaos=[chaos.parse(text) for text in (*file.chaos, *arguments.chaos)],
        commands=file.commands,
        exposition=_exposition(arguments),
        results=arguments.results,
        is_quiet=arguments.quiet,
        command=_without_secrets(sys.argv[1:]),
    )
    _check(options, is_owner=arguments.i_own_this_target)
    return options


def _exposition(arguments: argparse.Namespace) -> Exposition | None:
    port: int | None = arguments.prometheus_port
    if port is None:
        return None
    if not 0 <= port <= _HIGHEST_PORT:
        raise _MistakeError(f"{port} is no port: --prometheus-port is from 0 to {_HIGHEST_PORT}")
    return Exposition(port=port, address=arguments.prometheus_address)


def _servers(arguments: argparse.Namespace, file: _File) -> list[NamedServer]:
    named = [
        NamedServer(
            server=Server(name=each.name, address=each.address, metrics=each.metrics, pid=each.pid), start=each.start
        )
        for each in file.servers
    ]
    given = arguments.target or (file.targets if not any(each.server.address for each in named) else [])
    for number, address in enumerate(given):
        server = Server(
            name=f"target{number + 1}",
            address=address,
            metrics=arguments.metrics[number] if number < len(arguments.metrics) else "",
            pid=arguments.pid[number] if number < len(arguments.pid) else None,
        )
        named.append(NamedServer(server=server))
    names = [each.server.name for each in named]
    if len(set(names)) < len(names):
        raise _MistakeError("two servers have the same name")
    return named


def _check(options: Options, *, is_owner: bool) -> None:
    everywhere = [*options.targets, *options.plain_targets, *options.access.api_urls]
    strangers = [address for address in everywhere if not limits.is_loopback(address.replace("{channel}", "x"))]
    if strangers and not is_owner:
        raise _MistakeError(
            f"{strangers[0]} is not this machine: add --i-own-this-target if it is yours to load, and nobody else's"
        )
    for address in (*options.targets, *options.plain_targets):
        if not address.startswith(("ws://", "wss://")):
            raise _MistakeError(f"{address!r} is no WebSocket address: it begins with ws:// or wss://")
    if any("{channel}" not in address for address in options.plain_targets):
        raise _MistakeError("a plain target names where the channel goes: ws://host:port/ws/{channel}")
    if options.is_cluster and options.targets:
        raise _MistakeError("--cluster starts servers; leave it out, or the targets")
    if options.workers < 1:
        raise _MistakeError("at least one worker is needed")
    if options.protocol == "plain" and options.scenario.model is Model.CLOSED:
        raise _MistakeError(
            "the plain protocol answers no publication, so the closed model does not fit; use model=open"
        )
    late = [str(action) for action in options.chaos if action.at_s >= options.scenario.plateau_s]
    if late:
        raise _MistakeError(f"{late[0]} would come after the plateau, which takes {options.scenario.plateau_s:g} s")


def _read(path: Path) -> _File:
    try:
        return msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), _File)
    except OSError as error:
        raise _MistakeError(f"can't read {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as error:
        raise _MistakeError(f"{path}: {error}") from None


def _without_secrets(arguments: list[str]) -> list[str]:
    """Return the command line with `…` for what nobody should read in results."""
    shown, hides = [], False
    for argument in arguments:
        name, equals, _ = argument.partition("=")
        shown.append("…" if hides else f"{name}=…" if equals and name in _SECRETS else argument)
        hides = argument in _SECRETS
    return shown


def _shown(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _first(group: BaseExceptionGroup[Any]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
