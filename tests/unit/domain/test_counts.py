"""Counters: the buckets of histograms, the books of namespaces."""

import pytest

from gateway.domain.counts import LATENCY_BOUNDS_S, Counts, Dropped, Flow, Histogram, Ledger


@pytest.mark.parametrize(
    ("value", "bucket"),
    [(0.0, 0), (0.999, 0), (1.0, 0), (1.001, 1), (2.0, 1), (5.0, 2), (5.001, 3), (1e9, 3), (-1.0, 0)],
)
def test_a_value_is_counted_below_the_first_bound_that_it_does_not_exceed(value: float, bucket: int) -> None:
    histogram = Histogram((1.0, 2.0, 5.0))
    histogram.observe(value)
    assert (histogram.buckets, histogram.total) == ([int(index == bucket) for index in range(4)], value)


def test_a_histogram_sums_what_it_counts() -> None:
    histogram = Histogram((1.0,))
    for value in (0.5, 0.25, 4.0):
        histogram.observe(value)
    assert (histogram.buckets, histogram.total) == ([2, 1], 4.75)


def test_the_bounds_of_latency_rise() -> None:
    assert list(LATENCY_BOUNDS_S) == sorted(set(LATENCY_BOUNDS_S))
    assert Histogram().buckets == [0] * (len(LATENCY_BOUNDS_S) + 1)


def test_each_namespace_has_one_book_opened_on_first_use() -> None:
    counts = Counts()
    assert counts.ledgers == {}
    book = counts.ledger("chat")
    assert book == Ledger()
    assert counts.ledger("chat") is book
    assert counts.ledger("") is not book
    assert list(counts.ledgers) == ["chat", ""]


def test_nodes_count_apart() -> None:
    one, two = Counts(), Counts()
    one.errors["publish", 103] += 1
    one.fanout.observe(1.0)
    one.flow("websocket").messages_in += 1
    one.ledger("").dropped[Dropped.SLOW] += 1
    assert (two.errors, two.fanout.total, two.flows, two.ledgers) == ({}, 0.0, {}, {})


def test_what_all_transports_moved_is_the_sum_of_what_each_did() -> None:
    counts = Counts()
    assert counts.flow_of_all == Flow()
    counts.flow("websocket").messages_in += 2
    counts.flow("sse").bytes_out += 30
    counts.flow("websocket").bytes_out += 4
    assert counts.flow_of_all == Flow(messages_in=2, bytes_out=34)
