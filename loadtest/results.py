"""What one run has measured: one file of JSON, which `run` writes and reports and comparisons read.

Times that begin with the run (`at_s`) are seconds since its ramp-up began. A histogram is HdrHistogram's compressed V2
encoding in base64 of microseconds (`loadtest.histogram`); an empty text stands for one without values.
"""

import os
import tempfile
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct

FORMAT: Final = 1
"""Counts up with each change that a reader of older files must know of; new fields with defaults are none."""
PHASES: Final = ("ramp-up", "plateau", "drain", "ramp-down")


class ResultsError(Exception):
    """Why a file of results can't be read, in one sentence."""


class Machine(Struct, frozen=True, kw_only=True):
    """Where the load was made, and, for local servers, where it was taken."""

    system: str
    """Operating system and its version."""
    architecture: str
    cores: int
    memory_bytes: int
    python: str
    load_before: float
    """Processes that ran or waited for a core in the minute before; above 0.5 the figures are not of this run alone."""


class Server(Struct, frozen=True, kw_only=True):
    """One process that was measured along."""

    name: str
    address: str = ""
    """Where clients connect to; empty for what is none of their business, such as Redis."""
    metrics: str = ""
    """Where its metrics are; empty if they are not known."""
    pid: int | None = None
    """Of a local process; `None` for others, whose CPU and memory are unknown."""


class Target(Struct, frozen=True, kw_only=True):
    """What the load went to."""

    addresses: list[str]
    protocol: str
    """`json`, `protobuf` or `plain`."""
    is_own: bool
    """Whether the run started the servers itself."""
    servers: list[Server] = []
    version: str = ""
    """Of the servers, where they tell."""


class Run(Struct, frozen=True, kw_only=True):
    """What was asked for."""

    scenario: str
    description: str
    parameters: dict[str, Any]
    """All of the scenario's parameters, defaults included: two runs may be compared where these are equal."""
    workers: int
    seed: int
    command: list[str] = []
    """The arguments of the command line, so that it can be repeated."""


class Phases(Struct, frozen=True, kw_only=True):
    """When each phase began, in seconds of the run; equal times: the phase did not take place."""

    ramp_up_s: float = 0.0
    plateau_s: float = 0.0
    drain_s: float = 0.0
    """Publishing has ended; what is on its way arrives."""
    ramp_down_s: float = 0.0
    end_s: float = 0.0


class Usage(Struct, frozen=True, kw_only=True):
    """What one process used in one second."""

    cpu_s: float = 0.0
    memory_bytes: int = 0
    """Its resident set at the end of the second; 0: it did not run."""


class Second(Struct, kw_only=True):
    """One second of the run, all workers together."""

    at_s: int
    phase: str
    """`ramp-up`, `plateau`, `drain` or `ramp-down`."""
    connections: int = 0
    """Clients that were connected and subscribed at its end."""
    connects: int = 0
    reconnects: int = 0
    """Connections that clients made after they had lost one."""
    published: int = 0
    """Publications sent."""
    acknowledged: int = 0
    delivered: int = 0
    errors: dict[str, int] = {}
    """By kind: `publish unanswered`, `disconnected (3008)` and so on."""
    latency: str = ""
    """From the intended sending to the delivery of what was delivered in this second."""
    acknowledgement: str = ""
    """From the intended sending to the server's answer."""
    behind_s: float = 0.0
    """How late a publication was sent at most; above some milliseconds it is the load's fault, or the machine's."""
    servers: dict[str, Usage] = {}
    workers: list[Usage] = []


class Latency(Struct, frozen=True, kw_only=True):
    """All latencies of the plateau and the drain."""

    delivery: str
    """From the intended sending to each delivery."""
    acknowledgement: str
    """From the intended sending to the server's answer."""
    model: str
    """`open`: sent at intended times, whatever the answers; `closed`: the next when the one before is answered."""


class Finding(Struct, frozen=True, kw_only=True):
    """One fault that verification found; the first of each kind are kept, all are counted."""

    kind: str
    """`lost`, `duplicated`, `reordered`, `foreign` or `unrestored`."""
    channel: str
    subscriber: int
    publisher: int = -1
    first: int = -1
    """The first number of the publisher in this channel that is concerned."""
    last: int = -1


class Verification(Struct, frozen=True, kw_only=True):
    """What became of each publication at each subscriber that it was due at.

    Faults are `lost`, `duplicated`, `reordered`, `foreign`, `unrestored`. What was not
    delivered and could not be due is counted apart: `told`, `unprotected`, `in_doubt`.
    """

    publications: int
    """Publications that servers have acknowledged (plain: that were sent)."""
    refused: int
    """Publications that servers have refused, or that could not be sent; due nowhere."""
    unanswered: int
    """Publications of which nobody knows; due nowhere, and welcome."""
    delivered: int
    """Deliveries that were checked, each for its place."""
    lost: int = 0
    """Acknowledged, sent after the subscription was confirmed, never delivered, and no gap was told."""
    duplicated: int = 0
    reordered: int = 0
    """Delivered after a later one of the same publisher."""
    foreign: int = 0
    """Publications that no publisher of this run has sent, or that were damaged on the way."""
    unrestored: int = 0
    """Subscriptions that should have been there at the end and were not."""
    recovered: int = 0
    """Subscriptions that went on after an interruption without a gap, as the server said."""
    gaps_told: int = 0
    """Times that a server said that something may be missing."""
    told: int = 0
    """Deliveries missing in those gaps."""
    unprotected: int = 0
    """Deliveries missing while a connection was down, in channels without history."""
    in_doubt: int = 0
    """Deliveries missing of unanswered publications."""
    findings: list[Finding] = []


class Book(Struct, frozen=True, kw_only=True):
    """What one server says that it did during the run (families in deploy/reference/metrics.md)."""

    server: str
    accepted: int
    received: int
    due: int
    delivered: int
    filtered: int
    dropped: dict[str, int]
    queued: int
    is_complete: bool
    """False: it was started anew during the run, so its books begin in the middle."""

    @property
    def is_balanced(self) -> bool:
        """Whether each delivery that was due is accounted for."""
        return self.due == self.delivered + self.filtered + self.queued + sum(self.dropped.values())


class Ledger(Struct, frozen=True, kw_only=True):
    """The servers' books beside the harness' own count."""

    books: list[Book]
    delivered: int
    """What the servers say they delivered, all together."""
    received: int
    """What the harness received."""
    verdict: str
    """One sentence: whether they agree, and if not, why that is no fault, or that it is one."""
    is_agreed: bool | None
    """`None`: there was nothing to compare."""


class ChaosEvent(Struct, frozen=True, kw_only=True):
    """Something that was done to the servers, and how long it was felt."""

    at_s: float
    action: str
    """As it was asked for, such as `kill:node1`."""
    detail: str = ""
    clients_hit: int = 0
    """Clients that lost their connection or a subscription because of it."""
    clients_recovered_after_s: float | None = None
    """Until the last of them was connected and subscribed again; 0: none was hit; `None`: not within the run."""
    publishing_recovered_after_s: float | None = None
    """Until the last publisher that was refused was answered again; 0: none was; `None`: not within the run."""


class Costs(Struct, frozen=True, kw_only=True):
    """What the work cost, where processes are local; `None`: unknown."""

    server_us_per_delivery: float | None = None
    """CPU of all gateway processes in the plateau, for each delivery."""
    server_kb_per_connection: float | None = None
    worker_us_per_delivery: float | None = None
    worker_kb_per_connection: float | None = None


class Check(Struct, frozen=True, kw_only=True):
    """One threshold and what became of it."""

    text: str
    """As it was stated, such as `p99<50ms`."""
    measured: float | None
    """In the unit of the threshold (seconds for times); `None`: there was nothing to measure, so it is missed."""
    limit: float
    is_met: bool


class Verdict(Struct, frozen=True, kw_only=True):
    """Whether the run passed: all thresholds are met."""

    is_passed: bool
    checks: list[Check]


class Results(Struct, frozen=True, kw_only=True):
    """Everything."""

    format: int = FORMAT
    started_at: str
    """UTC, ISO 8601."""
    is_interrupted: bool
    """Whether somebody ended it before its time; it then holds what was measured so far."""
    machine: Machine
    target: Target
    run: Run
    phases: Phases
    timeline: list[Second]
    latency: Latency
    verification: Verification
    ledger: Ledger
    costs: Costs
    chaos: list[ChaosEvent] = []
    verdict: Verdict
    notes: list[str] = []
    """What a reader should know before trusting the figures, a sentence each."""


class _Head(Struct):
    format: int


def write(results: Results, path: Path) -> None:
    """Write *results* to *path*, whole or not at all.

    Raises:
        ResultsError: if it can't be written.
    """
    data = msgspec.json.format(msgspec.json.encode(results), indent=1)
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            try:
                file.write(data + b"\n")
                file.close()
                os.chmod(file.name, 0o644)  # noqa: PTH101 - the file's own name is a text
                os.replace(file.name, path)  # noqa: PTH105 - the same
            except BaseException:
                Path(file.name).unlink(missing_ok=True)
                raise
    except OSError as error:
        raise ResultsError(f"can't write {path}: {error.strerror}") from None


def read(path: Path) -> Results:
    """Read what `write` has written.

    Raises:
        ResultsError: if there is no such file, or it is none of these, or of another format.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ResultsError(f"can't read {path}: {error.strerror}") from None
    try:
        found = msgspec.json.decode(data, type=_Head).format
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ResultsError(f"{path} holds no results of a load test, or not all of them: {error}") from None
    if found != FORMAT:
        raise ResultsError(f"{path} is of format {found}, and this program reads format {FORMAT}")
    try:
        return msgspec.json.decode(data, type=Results)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ResultsError(f"{path} holds no results of a load test: {error}") from None
