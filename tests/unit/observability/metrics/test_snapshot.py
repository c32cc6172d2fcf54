"""Snapshots of several processes: sent as bytes, added up, and what stays of one that has ended."""

from typing import Any

import pytest

from gateway.domain.counts import Counts
from gateway.observability.metrics.family import Family, Scrape
from gateway.observability.metrics.snapshot import (
    Distribution,
    FamilySnapshot,
    Joining,
    Kind,
    Series,
    Snapshot,
    Value,
    combined,
    decode,
    encode,
    retired,
)

NO_GAUGES: Any = None


def family(kind: Kind, joining: Joining = Joining.SUM, **values: Value) -> FamilySnapshot:
    series = tuple(Series((label,), value) for label, value in values.items())
    return FamilySnapshot("gateway_x", kind, "What x is.", ("label",), joining, series)


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        (family(Kind.COUNTER, a=1, b=2), family(Kind.COUNTER, b=40, c=3), family(Kind.COUNTER, a=1, b=42, c=3)),
        (family(Kind.COUNTER, a=0.5), family(Kind.COUNTER, a=0.25), family(Kind.COUNTER, a=0.75)),
        (family(Kind.GAUGE, a=7), family(Kind.GAUGE, a=5), family(Kind.GAUGE, a=12)),
        (
            family(Kind.GAUGE, Joining.MAX, a=7),
            family(Kind.GAUGE, Joining.MAX, a=5),
            family(Kind.GAUGE, Joining.MAX, a=7),
        ),
        (
            family(Kind.GAUGE, Joining.MIN, a=1),
            family(Kind.GAUGE, Joining.MIN, a=0),
            family(Kind.GAUGE, Joining.MIN, a=0),
        ),
        (
            family(Kind.HISTOGRAM, a=Distribution((0.1, 1.0), (1, 2, 3), 9.5)),
            family(Kind.HISTOGRAM, a=Distribution((0.1, 1.0), (10, 20, 30), 90.0)),
            family(Kind.HISTOGRAM, a=Distribution((0.1, 1.0), (11, 22, 33), 99.5)),
        ),
    ],
    ids=["counters", "counted seconds", "gauges", "the greatest", "the least", "histograms"],
)
def test_two_processes_are_one_node(one: FamilySnapshot, other: FamilySnapshot, both: FamilySnapshot) -> None:
    assert combined([(one,), (other,)]) == (both,)
    assert combined([(other,), (one,)])[0].name == "gateway_x"
    assert combined([(one,)]) == (one,)


def test_a_family_that_one_process_alone_has_is_kept() -> None:
    lonely = FamilySnapshot("gateway_y", Kind.GAUGE, "What y is.", (), Joining.SUM, (Series((), 1),))
    both = combined([(family(Kind.COUNTER, a=1),), (family(Kind.COUNTER, a=2), lonely)])
    assert both == (family(Kind.COUNTER, a=3), lonely)


def test_a_snapshot_survives_the_way_to_another_process() -> None:
    snapshot: Snapshot = (
        family(Kind.COUNTER, a=2**53, b=0.25),
        family(Kind.GAUGE, Joining.MIN, a=-1),
        family(Kind.HISTOGRAM, a=Distribution((0.1,), (1, 2), 1.5)),
    )
    assert decode(encode(snapshot)) == snapshot


def test_of_a_process_that_has_ended_its_counts_stay_and_its_gauges_do_not() -> None:
    counted, present = family(Kind.COUNTER, a=1), family(Kind.GAUGE, a=1)
    spread = family(Kind.HISTOGRAM, a=Distribution((0.1,), (1, 2), 1.5))
    assert retired((counted, present, spread)) == (counted, spread)


@pytest.mark.parametrize(
    ("other", "error"),
    [
        (family(Kind.HISTOGRAM, a=Distribution((0.2,), (1, 2), 1.5)), ValueError),
        (family(Kind.HISTOGRAM, a=1), TypeError),
    ],
)
def test_processes_of_two_versions_are_not_added_up_wrongly(other: FamilySnapshot, error: type[Exception]) -> None:
    with pytest.raises(error, match="gateway_x"):
        combined([(family(Kind.HISTOGRAM, a=Distribution((0.1,), (1, 2), 1.5)),), (other,)])


def test_a_snapshot_does_not_change_with_what_it_was_read_from() -> None:
    counts = Counts()
    counts.fanout.observe(0.2)
    histogram = Family(Kind.HISTOGRAM, "gateway_x", "x", (), lambda scrape: [((), scrape.counts.fanout)])
    found = histogram.snapshot(Scrape(counts, NO_GAUGES))
    counts.fanout.observe(0.2)
    [series] = found.series
    assert isinstance(series.value, Distribution)
    assert sum(series.value.buckets) == 1
