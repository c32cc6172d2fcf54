"""The books of running nodes, read where an operator reads them: what is due must be found again, to the last one."""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from prometheus_client.parser import text_string_to_metric_families

from tests.support.processes import ask


@dataclass(slots=True)
class Book:
    """What one node says of one namespace."""

    accepted: float = 0
    received: float = 0
    due: float = 0
    delivered: float = 0
    filtered: float = 0
    queued: float = 0
    dropped: dict[str, float] = field(default_factory=dict)

    @property
    def found(self) -> float:
        """All deliveries whose fate is known."""
        return self.delivered + self.filtered + self.queued + sum(self.dropped.values())


_COLUMNS: Mapping[str, str] = {
    "gateway_publications_accepted_total": "accepted",
    "gateway_publications_received_total": "received",
    "gateway_deliveries_due_total": "due",
    "gateway_deliveries_total": "delivered",
    "gateway_deliveries_filtered_total": "filtered",
    "gateway_deliveries_queued": "queued",
}


def books_of(metrics: str) -> dict[str, Book]:
    """Return the books in a page of metrics, by namespace."""
    books: dict[str, Book] = {}
    for family in text_string_to_metric_families(metrics):
        for sample in family.samples:
            if sample.name in _COLUMNS:
                book = books.setdefault(sample.labels["namespace"], Book())
                setattr(book, _COLUMNS[sample.name], sample.value)
            elif sample.name == "gateway_deliveries_dropped_total":
                book = books.setdefault(sample.labels["namespace"], Book())
                book.dropped[sample.labels["reason"]] = sample.value
    return books


def imbalances(books: Mapping[str, Book]) -> list[str]:
    """Say which book does not add up: due = delivered + filtered + dropped + queued."""
    return [f"namespace {name!r}: {book}" for name, book in books.items() if book.due != book.found]


async def read_books(internal_url: str) -> dict[str, Book]:
    """Read the books of the node whose internal port is at *internal_url*."""
    answer = await ask(f"{internal_url}/metrics")
    assert answer.status == 200
    return books_of(answer.text)


async def assert_books_balance(internal_urls: Iterable[str]) -> list[dict[str, Book]]:
    """Fail unless the books of every node add up; returns them in the order of the nodes."""
    books = await asyncio.gather(*map(read_books, internal_urls))
    found = {number: faults for number, each in enumerate(books) if (faults := imbalances(each))}
    assert not found, f"the books of these nodes do not add up: {found}"
    return list(books)
