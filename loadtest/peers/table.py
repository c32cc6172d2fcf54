"""The comparison as a table in Markdown: figures, and in parentheses how many times the gateway's they are."""

import statistics
from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Final

from loadtest import quantities
from loadtest.comparison import ratio
from loadtest.peers.catalogue import GATEWAY, PEERS
from loadtest.peers.findings import Findings
from loadtest.report.summary import table

_NONE: Final = "-"
_NAMES: Final[Mapping[str, str]] = {peer.key: peer.title for peer in PEERS}
_BUSY: Final = 0.5


def comparison(findings: Findings, *, base: str = GATEWAY.key) -> str:
    """Return *findings* as Markdown; ratios are to the peer *base*."""
    setup, machine = findings.setup, findings.machine
    rounds = "one round" if setup.rounds == 1 else f"medians of {setup.rounds} rounds"
    about = (
        f"{findings.started_at[:10]}, {machine.python}, {machine.cores} cores, {machine.architecture}, {rounds}: "
        f"{quantities.whole(setup.subscribers)} subscribers, {setup.payload_bytes} bytes, one server process. µs: CPU "
        f"of the server for one delivery; W: publications in flight; latencies are those at W = {setup.in_flight[0]}. "
        f"In parentheses: times {_NAMES.get(base, base).replace('*', '')}."
    )
    said = [_load(findings)]
    if redis := _redis(findings):
        said.append(f"Redis, not counted above, took {redis}.")
    if machine.load_before > _BUSY:
        busy = f"load {quantities.rounded(machine.load_before)} on {machine.cores} cores"
        said.append(f"The machine was busy before ({busy}): ratios count, and not the figures.")
    troubles = [f"- {_NAMES.get(each.peer, each.peer)}: {each.reason}." for each in findings.troubles]
    return "\n".join([about, "", *_table(findings, base), " ".join(said), *(["", *troubles] if troubles else []), ""])


def _table(findings: Findings, base: str) -> list[str]:
    columns = _columns(findings)
    rows = []
    for key in _keys(findings):
        cells = [_figure(read(key), read(base), is_base=key == base) for _, read in columns]
        verified = "yes" if findings.is_verified(key) else f"**no**: {findings.faults(key)}"
        rows.append([_NAMES.get(key, key), *cells, verified])
    return table(["server", *(name for name, _ in columns), "each message once"], rows)


def _columns(findings: Findings) -> list[tuple[str, Callable[[str], float | None]]]:
    """Return the figures that the table shows: a name, and how each is read for a peer."""

    def of_cases(field: str, in_flight: int) -> Callable[[str], float | None]:
        return lambda key: findings.median(key, in_flight, attrgetter(field))

    first = findings.setup.in_flight[0]
    return [
        *((f"µs, W = {each}", of_cases("server_us", each)) for each in findings.setup.in_flight),
        ("KB a connection", findings.kb_per_connection),
        ("p50 ms", of_cases("p50_ms", first)),
        ("p99 ms", of_cases("p99_ms", first)),
    ]


def _keys(findings: Findings) -> list[str]:
    """Return the peers that have figures, in the order in which they were measured."""
    return list(dict.fromkeys(run.peer for run in findings.runs))


def _figure(value: float | None, against: float | None, *, is_base: bool) -> str:
    if value is None:
        return _NONE
    text = quantities.rounded(value)
    times = ratio(value, against)
    return text if is_base or times == _NONE else f"{text} ({times})"


def _redis(findings: Findings) -> str:
    told = []
    for key in _keys(findings):
        values = [findings.median(key, each, lambda case: case.redis_us) or 0.0 for each in findings.setup.in_flight]
        if any(values):
            told.append(f"{' / '.join(map(quantities.rounded, values))} µs for {_NAMES.get(key, key).replace('*', '')}")
    return "; ".join(told)


def _load(findings: Findings) -> str:
    shares = [case.load_us * case.deliveries_per_s / 10_000 for run in findings.runs for case in run.cases]
    cost = statistics.median([case.load_us for run in findings.runs for case in run.cases] or [0.0])
    return (
        f"The load side took {quantities.rounded(cost)} µs for a delivery (median), and at most "
        f"{quantities.whole(max(shares, default=0.0))} % of a core."
    )
