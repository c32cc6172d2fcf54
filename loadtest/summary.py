"""The lines that a run ends with, on standard output."""

from collections.abc import Iterator
from typing import Final

from loadtest.histogram import merged
from loadtest.results import Check, Results
from loadtest.thresholds import parse

_PERCENTILES: Final = (50.0, 90.0, 99.0, 99.9)
_SHOWN: Final = 10
"""Faults that are named one by one."""


def summary(results: Results) -> str:
    """Return what came of a run, for people, in some twenty lines."""
    return "".join(f"{line}\n" for line in _lines(results))


def _lines(results: Results) -> Iterator[str]:
    run, found = results.run, results.verification
    connections = max((second.connections for second in results.timeline), default=0)
    ending = ", interrupted" if results.is_interrupted else ""
    yield f"{run.scenario}, {results.target.protocol}, {run.workers} worker(s), up to {connections} connections{ending}"
    rows = {
        "published": f"{found.publications} acknowledged, {found.refused} refused, {found.unanswered} unanswered",
        "delivered": str(found.delivered),
        "faults": f"{found.lost} lost, {found.duplicated} duplicated, {found.reordered} reordered, "
        f"{found.foreign} foreign, {found.unrestored} subscriptions not restored",
        "recovery": f"{found.recovered} subscriptions recovered, {found.gaps_told} gaps told; not due: "
        f"{found.told} in gaps, {found.unprotected} while away without history, {found.in_doubt} in doubt",
        "latency ms": _latency(results),
        "cost": _cost(results),
        "ledger": results.ledger.verdict,
    }
    yield from (_row(name, text) for name, text in rows.items() if text)
    for event in results.chaos:
        clients, publishing = event.clients_recovered_after_s, event.publishing_recovered_after_s
        hit = f"{event.at_s:.1f} s {event.action}, {event.detail}: {event.clients_hit} clients hit"
        yield _row("chaos", f"{hit}, back {_after(clients)}; publishing {_after(publishing)}")
    for kind, count in sorted(_errors(results).items()):
        yield _row("error", f"{kind}: {count}")
    for finding in found.findings[:_SHOWN]:
        numbers = f": {finding.first} to {finding.last} of publisher {finding.publisher}" if finding.first >= 0 else ""
        yield _row("fault", f"{finding.kind} in {finding.channel} at client {finding.subscriber}{numbers}")
    yield from (_row("note", note) for note in results.notes)
    for check in results.verdict.checks:
        yield _row("met" if check.is_met else "MISSED", f"{check.text} ({_measured(check)})")
    yield "passed" if results.verdict.is_passed else "FAILED"


def _row(name: str, text: str) -> str:
    return f"  {name:<11} {text}"


def _latency(results: Results) -> str:
    histogram = merged([results.latency.delivery])
    if not histogram.count:
        return ""
    values = ", ".join(f"p{percent:g} {histogram.percentile_us(percent) / 1000:.2f}" for percent in _PERCENTILES)
    return f"{values}, max {histogram.max_us / 1000:.2f} ({results.latency.model} model)"


def _cost(results: Results) -> str:
    costs = results.costs
    known = (
        ("server", costs.server_us_per_delivery, "µs CPU a delivery"),
        ("server", costs.server_kb_per_connection, "KB a connection"),
        ("workers", costs.worker_us_per_delivery, "µs CPU a delivery"),
        ("workers", costs.worker_kb_per_connection, "KB a connection"),
    )
    return ", ".join(f"{name} {value:.1f} {unit}" for name, value, unit in known if value is not None)


def _errors(results: Results) -> dict[str, int]:
    errors: dict[str, int] = {}
    for second in results.timeline:
        for kind, count in second.errors.items():
            errors[kind] = errors.get(kind, 0) + count
    return errors


def _after(seconds: float | None) -> str:
    if seconds is None:
        return "not within the run"
    return f"after {seconds:.2f} s" if seconds else "at once"


def _measured(check: Check) -> str:
    if check.measured is None:
        return "not measured"
    return f"{check.measured * 1000:.2f} ms" if parse(check.text).is_time else f"{check.measured:g}"
