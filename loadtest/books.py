"""The servers' own books (`/metrics`), and what they say about the harness' count."""

import asyncio
import re
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from loadtest.results import Book, Ledger

_SAMPLE: Final = re.compile(r"^([a-z_]+)(?:\{([^}]*)\})? (\S+)", re.MULTILINE)
_LABEL: Final = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_TIMEOUT_S: Final = 5.0
_STARTED: Final = "process_start_time_seconds"
_COLUMNS: Final[Mapping[str, str]] = {
    "gateway_publications_accepted_total": "accepted",
    "gateway_publications_received_total": "received",
    "gateway_deliveries_due_total": "due",
    "gateway_deliveries_total": "delivered",
    "gateway_deliveries_filtered_total": "filtered",
    "gateway_deliveries_queued": "queued",
}
_DROPPED: Final = "gateway_deliveries_dropped_total"


class Page(NamedTuple):
    """What one scrape found, summed over namespaces."""

    started_unix_s: float
    version: str
    columns: dict[str, int]
    dropped: dict[str, int]


def parse(text: str) -> Page:
    """Read a page in Prometheus' text format."""
    columns: dict[str, int] = defaultdict(int)
    dropped: dict[str, int] = defaultdict(int)
    started_s, version = 0.0, ""
    for name, labels, value in _SAMPLE.findall(text):
        if name in _COLUMNS:
            columns[_COLUMNS[name]] += int(float(value))
        elif name == _DROPPED:
            dropped[dict(_LABEL.findall(labels)).get("reason", "")] += int(float(value))
        elif name == _STARTED:
            started_s = float(value)
        elif name == "gateway_build_info":
            version = dict(_LABEL.findall(labels)).get("version", "")
    return Page(started_s, version, dict(columns), dict(dropped))


async def read(url: str) -> Page | None:
    """Scrape *url*; `None` where nobody answers as a metrics page does."""

    def fetch() -> str:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as answer:  # noqa: S310 - the user's own address
            return str(answer.read().decode())

    try:
        return parse(await asyncio.to_thread(fetch))
    except (OSError, ValueError, urllib.error.URLError):
        return None


def book(server: str, before: Page | None, after: Page) -> Book:
    """Return what a server did between two pages; *before* is `None` for one that was not there then."""
    is_complete = before is not None and before.started_unix_s == after.started_unix_s
    base = before if is_complete and before is not None else Page(0, "", {}, {})
    gone = {reason: count - base.dropped.get(reason, 0) for reason, count in after.dropped.items()}
    columns = {name: after.columns.get(name, 0) - base.columns.get(name, 0) for name in _COLUMNS.values()}
    return Book(
        server=server,
        dropped={reason: count for reason, count in gone.items() if count},
        is_complete=is_complete,
        **columns,
    )


def compare(books: Sequence[Book], *, silent: Sequence[str], received: int, recovered: int, endings: int) -> Ledger:
    """Hold the servers' books against what the harness has *received*.

    *recovered* subscriptions brought publications that the books of deliveries do not count; *endings* is how many
    connections ended, with deliveries perhaps on their way, or were not read; *silent* servers had books and do not
    show them any more.
    """
    delivered = sum(each.delivered for each in books)
    unbalanced = [each.server for each in books if not each.is_balanced]
    is_agreed: bool | None = True
    if silent:
        is_agreed, verdict = None, f"The books of {', '.join(silent)} can't be read any more."
    elif not books:
        is_agreed, verdict = None, "No server's metrics were read."
    elif unbalanced:
        is_agreed = False
        verdict = (
            f"The books of {', '.join(unbalanced)} do not add up: due is not delivered + filtered + dropped + queued."
        )
    elif not all(each.is_complete for each in books):
        is_agreed, verdict = None, "A server was started anew during the run, and what it did before is in no book."
    elif delivered == received:
        verdict = f"The servers say that they delivered {delivered}, and {received} arrived."
    elif delivered < received:
        is_agreed = None if recovered else False
        verdict = f"{received} arrived, {received - delivered} more than the servers say that they delivered" + (
            f"; {recovered} recoveries brought some, which these books do not count." if recovered else "."
        )
    else:
        is_agreed = None if endings or recovered else False
        verdict = f"The servers say that they delivered {delivered}, {delivered - received} more than arrived" + (
            f"; {endings} connections ended, or were not read, with some on their way." if endings else "."
        )
    return Ledger(books=list(books), delivered=delivered, received=received, verdict=verdict, is_agreed=is_agreed)
