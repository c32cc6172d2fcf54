from typing import Any

import msgspec
import pytest

from loadtest.books import Page, book, compare, parse
from loadtest.results import Book

_PAGE = """\
# HELP gateway_deliveries_due_total Subscribers at fan-out.
# TYPE gateway_deliveries_due_total counter
gateway_build_info{version="0.1.0"} 1.0
process_start_time_seconds 1.7e+09
gateway_publications_accepted_total{namespace="load"} 3.0
gateway_publications_accepted_total{namespace="live"} 4.0
gateway_publications_received_total{namespace="load"} 3.0
gateway_deliveries_due_total{namespace="load"} 30.0
gateway_deliveries_total{namespace="load"} 28.0
gateway_deliveries_total_of_another{namespace="load"} 99.0
gateway_deliveries_filtered_total{namespace="load"} 0.0
gateway_deliveries_queued{namespace="load"} 0.0
gateway_deliveries_dropped_total{namespace="load",reason="slow"} 2.0
gateway_deliveries_dropped_total{namespace="load",reason="left"} 0.0
"""


def _book(**changes: Any) -> Book:
    found = book("node1", Page(0, "", {}, {}), Page(0, "", {"due": 10, "delivered": 10}, {}))
    return msgspec.structs.replace(found, **changes)


def test_a_page_is_read_and_namespaces_are_added_up() -> None:
    page = parse(_PAGE)
    assert (page.version, page.started_unix_s) == ("0.1.0", 1.7e9)
    assert page.columns["accepted"] == 7
    assert page.columns["delivered"] == 28
    assert page.dropped == {"slow": 2, "left": 0}


def test_a_book_holds_what_was_done_between_two_pages() -> None:
    before = Page(5.0, "", {"due": 100, "delivered": 90}, {"slow": 10})
    after = Page(5.0, "", {"due": 130, "delivered": 118}, {"slow": 12, "left": 0})
    found = book("node1", before, after)
    assert (found.due, found.delivered, found.dropped, found.is_complete) == (30, 28, {"slow": 2}, True)
    assert found.is_balanced


def test_a_server_that_was_started_anew_begins_a_new_book() -> None:
    found = book("node1", Page(5.0, "", {"due": 100}, {}), Page(6.0, "", {"due": 30, "delivered": 30}, {}))
    assert (found.due, found.is_complete) == (30, False)


@pytest.mark.parametrize(
    ("books", "silent", "received", "recovered", "endings", "is_agreed", "sentence"),
    [
        ([], [], 5, 0, 0, None, "No server's metrics were read"),
        ([_book()], ["node2"], 10, 0, 0, None, "The books of node2 can't be read any more"),
        ([_book(), _book()], [], 20, 0, 0, True, "delivered 20, and 20 arrived"),
        ([_book(due=11)], [], 10, 0, 0, False, "do not add up"),
        ([_book(is_complete=False)], [], 10, 0, 0, None, "started anew"),
        ([_book()], [], 9, 0, 0, False, "1 more than arrived."),
        ([_book()], [], 9, 0, 2, None, "1 more than arrived; 2 connections ended"),
        ([_book()], [], 12, 0, 0, False, "2 more than the servers say"),
        ([_book()], [], 12, 1, 0, None, "1 recoveries brought some"),
    ],
)
def test_the_books_are_held_against_the_harness_own_count(
    *,
    books: list[Book],
    silent: list[str],
    received: int,
    recovered: int,
    endings: int,
    is_agreed: bool | None,
    sentence: str,
) -> None:
    ledger = compare(books, silent=silent, received=received, recovered=recovered, endings=endings)
    assert ledger.is_agreed is is_agreed
    assert sentence in ledger.verdict
