"""What the page and the summary say in words and numbers, told once for both."""

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

from loadtest import quantities
from loadtest.histogram import Histogram
from loadtest.results import ChaosEvent, Check, Results

_IN_SECONDS: Final = re.compile(r"\d\s*(us|µs|ms|s|min)$")
_BUSY: Final = 0.5


class Headline(NamedTuple):
    """The verdict, in a word and a sentence."""

    word: str
    """`passed`, `failed` or `no verdict`."""
    sentence: str


class Row(NamedTuple):
    """A name, a value, and what a reader may need to know about it."""

    name: str
    value: str
    note: str = ""
    is_bad: bool = False


def headline(results: Results) -> Headline:
    """Return the verdict."""
    checks = results.verdict.checks
    missed = [check.text for check in checks if not check.is_met]
    cut = " It was interrupted: what follows is what was measured until then." if results.is_interrupted else ""
    if missed:
        how_many = "The only threshold is" if len(checks) == 1 else f"{len(missed)} of {len(checks)} thresholds are"
        return Headline("failed", f"{how_many} missed: {', '.join(missed)}.{cut}")
    if not results.verdict.is_passed:
        return Headline("failed", f"The run did not pass.{cut}")
    if not checks:
        return Headline("no verdict", f"No thresholds were stated (--assert).{cut}")
    how_many = "The only threshold is" if len(checks) == 1 else f"All {len(checks)} thresholds are"
    return Headline("passed", f"{how_many} met.{cut}")


def key_figures(results: Results) -> list[Row]:
    """Return what one looks for first."""
    verification, costs = results.verification, results.costs
    latency = _histogram(results.latency.delivery)
    plateau = [second for second in results.timeline if second.phase == "plateau"]
    rate = sum(second.delivered for second in plateau) / len(plateau) if plateau else 0.0
    errors = sum(sum(second.errors.values()) for second in results.timeline)
    faults = sum(
        (
            verification.lost,
            verification.duplicated,
            verification.reordered,
            verification.foreign,
            verification.unrestored,
        )
    )
    rows = [
        Row(
            "deliveries",
            quantities.whole(verification.delivered),
            f"of {quantities.whole(verification.publications)} publications",
        ),
        Row("deliveries a second", quantities.whole(rate), "mean of the plateau"),
        *(
            Row(f"latency {name}", quantities.duration(latency.percentile_us(percent)) if latency.count else "-", note)
            for name, percent, note in (
                ("p50", 50, "half are faster"),
                ("p99", 99, "99 of 100 are faster"),
                ("p99.9", 99.9, "999 of 1,000 are faster"),
                ("max", 100, "the slowest"),
            )
        ),
        Row("faults", quantities.whole(faults), "lost, doubled, out of order, foreign", is_bad=faults > 0),
        Row(
            "connections",
            quantities.whole(max((second.connections for second in results.timeline), default=0)),
            "at most",
        ),
        Row("reconnects", quantities.whole(sum(second.reconnects for second in results.timeline)), "in the whole run"),
        Row("errors", quantities.whole(errors), "of all kinds", is_bad=errors > 0),
    ]
    if costs.server_us_per_delivery is not None:
        rows.append(Row("server CPU", f"{quantities.rounded(costs.server_us_per_delivery)} µs", "for one delivery"))
    if costs.server_kb_per_connection is not None:
        rows.append(
            Row("server memory", f"{quantities.rounded(costs.server_kb_per_connection)} KB", "for one connection")
        )
    return rows


def checks(results: Results) -> list[tuple[str, str, str, bool]]:
    """Return each threshold: as stated, what was measured, `met` or `missed`, and whether it is met."""
    return [
        (check.text, _measured(check), "met" if check.is_met else "missed", check.is_met)
        for check in results.verdict.checks
    ]


def verification(results: Results) -> list[Row]:
    """Return what became of the publications."""
    found = results.verification
    faults = [
        ("lost", found.lost, "acknowledged and due, but never delivered, and nobody was told"),
        ("duplicated", found.duplicated, "delivered more than once"),
        ("reordered", found.reordered, "delivered after a later one of the same publisher"),
        ("foreign", found.foreign, "sent by nobody in this run, or damaged"),
        ("unrestored", found.unrestored, "subscriptions that were missing at the end"),
    ]
    others = [
        ("publications", found.publications, "acknowledged by the servers"),
        ("refused", found.refused, "publications that servers refused, due nowhere"),
        ("unanswered", found.unanswered, "publications of which nobody knows"),
        ("delivered", found.delivered, "deliveries that were checked, each for its place"),
        ("recovered", found.recovered, "subscriptions that went on after an interruption without a gap"),
        ("gaps told", found.gaps_told, "times that a server said that something may be missing"),
        ("missing in told gaps", found.told, "deliveries, and the client knows"),
        ("missing while away", found.unprotected, "deliveries, in channels without history"),
        ("in doubt", found.in_doubt, "deliveries missing of unanswered publications"),
    ]
    rows = [Row(name, quantities.whole(count), note, is_bad=count > 0) for name, count, note in faults]
    return rows + [Row(name, quantities.whole(count), note) for name, count, note in others]


def chaos(results: Results) -> list[tuple[str, ...]]:
    """Return each event: number, when, what, clients hit, and when clients and publishing were well again."""
    return [
        (
            str(number),
            quantities.seconds(event.at_s),
            f"{event.action} ({event.detail})" if event.detail else event.action,
            quantities.whole(event.clients_hit),
            _recovered(event.clients_recovered_after_s, is_hit=event.clients_hit > 0),
            _recovered(event.publishing_recovered_after_s, is_hit=event.publishing_recovered_after_s != 0),
        )
        for number, event in enumerate(results.chaos, start=1)
    ]


CHAOS_HEAD: Final = ("", "at", "event", "clients hit", "all back after", "publishing back after")


def unrecovered(event: ChaosEvent) -> bool:
    """Tell whether something was not well again when the run ended."""
    return None in (event.clients_recovered_after_s, event.publishing_recovered_after_s)


def setting(results: Results) -> list[Row]:
    """Return where, with what and against what it was run."""
    machine, target, run = results.machine, results.target, results.run
    version = f" {target.version}" if target.version else ""
    rows = [
        Row("scenario", run.scenario, run.description),
        *(Row(name, _plain(value)) for name, value in sorted(run.parameters.items())),
        Row("model", results.latency.model, _model(results.latency.model)),
        Row(
            "target",
            ", ".join(target.addresses),
            f"{target.protocol}{version}, {'started by the run' if target.is_own else 'yours'}",
        ),
        *(
            Row(server.name, server.address or "-", f"pid {server.pid}" if server.pid else "")
            for server in target.servers
        ),
        Row("load workers", str(run.workers), f"seed {run.seed}"),
        Row(
            "machine",
            f"{machine.cores} cores, {quantities.size(machine.memory_bytes)}",
            f"{machine.system}, {machine.architecture}, {machine.python}",
        ),
        Row(
            "load before",
            quantities.rounded(machine.load_before),
            "processes that ran or waited for a core already",
            is_bad=machine.load_before > _BUSY,
        ),
        Row("started", results.started_at),
    ]
    if run.command:
        rows.append(Row("command", " ".join(["python -m loadtest", *run.command])))
    return rows


def ledger(results: Results) -> list[tuple[str, ...]]:
    """Return the servers' books."""
    return [
        (
            book.server,
            *(quantities.whole(each) for each in (book.accepted, book.due, book.delivered, book.filtered)),
            ", ".join(f"{quantities.whole(count)} {reason}" for reason, count in sorted(book.dropped.items()) if count)
            or "0",
            quantities.whole(book.queued),
            ("balanced" if book.is_balanced else "not balanced") + ("" if book.is_complete else ", begun anew"),
        )
        for book in results.ledger.books
    ]


LEDGER_HEAD: Final = ("server", "accepted", "due", "delivered", "filtered", "dropped", "queued", "books")


def _histogram(text: str) -> Histogram:
    return Histogram.decode(text) if text else Histogram()


def _measured(check: Check) -> str:
    if check.measured is None:
        return "nothing to measure"
    if _IN_SECONDS.search(check.text):
        return quantities.duration(check.measured * 1e6)
    return quantities.rounded(check.measured)


def _recovered(after_s: float | None, *, is_hit: bool) -> str:
    if after_s is None:
        return "not within the run"
    return quantities.seconds(after_s) if is_hit else "not hit"


def _model(model: str) -> str:
    if model == "open":
        return "sent at intended times, whatever the answers; latency counts from the intended time"
    return "the next is sent when the one before is answered"


def _plain(value: object) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(str, value))
    return str(value)
