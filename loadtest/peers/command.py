"""`compare-peers`: the same fan-out on each peer, in rounds, one peer at a time."""

import argparse
import asyncio
import os
import resource
import signal
import sys
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from loadtest.machine import describe
from loadtest.peers.catalogue import KEYS, PEERS, Peer
from loadtest.peers.crowd import CrowdError
from loadtest.peers.dialects import SMALLEST_PAYLOAD
from loadtest.peers.findings import Findings, PeerRun, Setup, Trouble
from loadtest.peers.installation import InstallationError, install
from loadtest.peers.measuring import measure
from loadtest.peers.processes import ServerError
from loadtest.peers.table import comparison

_NOTHING_MEASURED: Final = 1
_USAGE_ERROR: Final = 2
_INTERRUPTED: Final = 130
_SPARE_DESCRIPTORS: Final = 100
_LARGEST_PAYLOAD: Final = 60_000


def add_commands(commands: Any) -> None:
    """Add the command to the subparsers of a command line."""
    parser = commands.add_parser(
        "compare-peers",
        help="run the same fan-out on other servers",
        description="Run the same fan-out on what one would else pick, and print one table with ratios. What a peer "
        "needs is installed into a folder of its own; what can't be is named and skipped.",
    )
    parser.add_argument("--peers", type=_keys, default=list(KEYS), metavar="A,B", help=f"of {', '.join(KEYS)}")
    parser.add_argument("--subscribers", type=_number(1, 50_000), default=1000, metavar="N", help="(default: 1000)")
    parser.add_argument(
        "--size", type=_number(SMALLEST_PAYLOAD, _LARGEST_PAYLOAD), default=100, metavar="BYTES", help="(default: 100)"
    )
    parser.add_argument(
        "--in-flight", type=_numbers, default=[1, 4, 32], metavar="W,W", help="publications in flight (default: 1,4,32)"
    )
    parser.add_argument(
        "--deliveries",
        type=_number(1, 10**9),
        default=100_000,
        metavar="N",
        help="of each peer at each number in flight (default: 100000)",
    )
    parser.add_argument("--rounds", type=_number(1, 100), default=1, metavar="N", help="more than one: medians")
    parser.add_argument("--output", type=Path, default=Path("peers"), metavar="FOLDER", help="(default: peers)")
    parser.add_argument("--cache", type=Path, default=None, metavar="FOLDER", help="where peers are installed")
    parser.set_defaults(run=_compare_peers)


def _number(least: int, most: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if text.isascii() and text.isdecimal() and least <= int(text) <= most:
            return int(text)
        raise argparse.ArgumentTypeError(f"{text!r} is no number from {least} to {most}")

    return read


def _numbers(text: str) -> list[int]:
    read = _number(1, 10_000)
    return [read(each) for each in text.split(",")]


def _keys(text: str) -> list[str]:
    keys = text.split(",")
    if unknown := [key for key in keys if key not in KEYS]:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(KEYS)}")
    return keys


def _compare_peers(options: argparse.Namespace) -> int:
    setup = Setup(
        subscribers=options.subscribers,
        payload_bytes=options.size,
        in_flight=options.in_flight,
        deliveries=options.deliveries,
        rounds=options.rounds,
    )
    try:
        _raise_descriptor_limit(setup.subscribers + _SPARE_DESCRIPTORS)
        options.output.mkdir(parents=True, exist_ok=True)
    except ValueError as error:
        return _refuse(str(error))
    except OSError as error:
        return _refuse(f"can't write into {options.output}: {error.strerror}.")
    peers = [peer for peer in PEERS if peer.key in options.peers]
    race = _Race(peers, setup, options.cache or _default_cache(), say=_say)
    code = 0
    try:
        _run(race.run())
    except asyncio.CancelledError:
        _say("Interrupted; what follows is what was measured so far.")
        code = _INTERRUPTED
    findings = race.findings()
    (options.output / "peers.json").write_bytes(msgspec.json.format(msgspec.json.encode(findings), indent=1) + b"\n")
    text = comparison(findings)
    (options.output / "peers.md").write_text(text, encoding="utf-8")
    sys.stdout.write(text)
    _say(f"{options.output / 'peers.json'}, {options.output / 'peers.md'}")
    return code or (0 if findings.runs else _NOTHING_MEASURED)


class _Race:
    """All rounds; peers take turns within each, so that a machine's moods are shared by all."""

    def __init__(self, peers: Sequence[Peer], setup: Setup, cache: Path, *, say: Callable[[str], None]) -> None:
        self._peers = peers
        self._setup = setup
        self._cache = cache
        self._say = say
        self._started_at = datetime.now(tz=UTC).isoformat(timespec="seconds")
        self._machine = describe(load_before=os.getloadavg()[0])
        self._runs: list[PeerRun] = []
        self._troubles: dict[str, Trouble] = {}

    async def run(self) -> None:
        """Install what is missing, then measure."""
        installed = {peer.key: folder for peer in self._peers if (folder := self._install(peer)) is not None}
        for number in range(1, self._setup.rounds + 1):
            for peer in self._peers:
                if peer.key in installed:
                    await self._measure(peer, installed[peer.key], number)

    def findings(self) -> Findings:
        """Return what was measured so far."""
        return Findings(
            started_at=self._started_at,
            machine=self._machine,
            setup=self._setup,
            runs=self._runs,
            troubles=list(self._troubles.values()),
        )

    def _install(self, peer: Peer) -> Path | None:
        try:
            return install(peer, self._cache)
        except InstallationError as error:
            self._fail(peer, f"skipped: {error}")
            return None

    async def _measure(self, peer: Peer, installed: Path, number: int) -> None:
        try:
            run = await measure(peer, installed, self._setup, number=number)
        except (ServerError, CrowdError) as error:
            self._fail(peer, f"not measured in round {number}: {error}")
            return
        self._runs.append(run)
        costs = ", ".join(f"{case.server_us:.2f} µs at W = {case.in_flight}" for case in run.cases)
        self._say(f"round {number}, {peer.key}: {costs}, {run.kb_per_connection:.1f} KB")

    def _fail(self, peer: Peer, reason: str) -> None:
        self._troubles[peer.key] = Trouble(peer=peer.key, reason=reason)
        self._say(f"{peer.key}: {reason}")


def _run(work: Coroutine[Any, Any, None]) -> None:
    """Run *work* on the fastest loop that is there.

    Raises:
        asyncio.CancelledError: if somebody ended it (SIGINT, SIGTERM); all that it had started has ended, too.
    """
    factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    with suppress(ImportError):  # there is none for Windows
        import uvloop  # noqa: PLC0415 - the same

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(_until_told(work))


async def _until_told(work: Coroutine[Any, Any, None]) -> None:
    task = asyncio.create_task(work, name="peers")
    for signum in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(signum, task.cancel)
    await task


def _raise_descriptor_limit(needed: int) -> None:
    """Let this process, and the servers that it starts, have *needed* open files; raises `ValueError`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise ValueError(
            f"{needed - _SPARE_DESCRIPTORS} subscribers need {needed} open files, and the limit is {hard}: "
            f"raise it (ulimit -Hn), or ask for at most {hard - _SPARE_DESCRIPTORS}."
        )
    if soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def _default_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gateway-loadtest"


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def _refuse(reason: str) -> int:
    _say(reason)
    return _USAGE_ERROR
