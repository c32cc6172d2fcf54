"""What a scrape of a run tells, and when there is nothing to tell yet."""

import io
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from loadtest.exposition import (
    BOUNDS_S,
    Distribution,
    ExposedProgress,
    Exposition,
    ExpositionError,
    Figures,
    Standing,
    exposed,
)
from loadtest.histogram import Histogram
from loadtest.messages import Report
from loadtest.progress import Lines
from loadtest.tally import Counted
from loadtest.timeline import Timeline


def histogram(*values_us: int) -> Histogram:
    counted = Histogram()
    for value_us in values_us:
        counted.record(value_us)
    return counted


def report(second: int, *, cpu_s: float, **changes: Any) -> Report:
    values: dict[str, Any] = {
        "counted": Counted(),
        "connections": 0,
        "memory_bytes": 5,
        "memory_before_bytes": 3,
    } | changes
    return Report(second=second, cpu_s=cpu_s, **values)


def samples(figures: Figures) -> dict[str, float]:
    """Return what a scrape finds, by name and labels."""
    registry = CollectorRegistry()
    registry.register(figures)
    lines = generate_latest(registry).decode().splitlines()
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")}


def test_buckets_count_what_is_at_their_bound_and_below() -> None:
    found = Distribution.of(histogram(100, 250, 251, 1000, 20_000_000))
    counts = dict(found.buckets)
    assert [bound for bound, _ in found.buckets] == [*map(str, BOUNDS_S), "+Inf"]
    assert (counts["0.00025"], counts["0.0005"], counts["0.001"], counts["10.0"], counts["+Inf"]) == (2, 3, 4, 4, 5)
    assert found.total_s == pytest.approx(20.0016, rel=1e-3)


def test_nothing_counted_is_a_histogram_of_zeros() -> None:
    assert Distribution.of(Histogram()) == Standing().delivery
    assert {count for _, count in Standing().delivery.buckets} == {0}


def test_before_the_first_second_all_that_counts_is_there_and_0() -> None:
    found = samples(Figures(["kill:node1"]))
    assert set(found.values()) == {0}
    assert {
        'loadtest_phase{phase="plateau"}',
        "loadtest_connections",
        "loadtest_deliveries_total",
        'loadtest_faults_total{kind="duplicated"}',
        'loadtest_chaos_events_total{action="kill:node1"}',
        'loadtest_delivery_latency_seconds_bucket{le="+Inf"}',
    } <= found.keys()


def test_a_run_is_told_as_it_stands() -> None:
    shown, figures = Lines(io.StringIO()), Figures(["kill:node1"])
    progress, timeline = ExposedProgress(shown, figures), Timeline(1)
    progress.expect(3)
    progress.phase("plateau")
    progress.strike("kill:node1")
    counted = Counted(
        connects=3,
        reconnects=1,
        published=4,
        acknowledged=2,
        delivered=2,
        errors={"publish: unanswered": 2},
        latency=histogram(900, 30_000).encode(),
        acknowledgement=histogram(700, 700).encode(),
        behind_us=1500,
    )
    for second, cpu_s in enumerate((1.0, 1.25)):
        watched = {"duplicated": 1 + second, "recovered": 1}
        told = report(second, cpu_s=cpu_s, counted=counted, connections=2, watched=watched)
        assert timeline.add(0, told)
        progress.show(timeline.second(second, "plateau"), timeline)
    found = samples(figures)
    expected = {
        'loadtest_phase{phase="plateau"}': 1,
        'loadtest_phase{phase="drain"}': 0,
        "loadtest_connections_wanted": 3,
        "loadtest_connections": 2,
        "loadtest_connects_total": 6,
        "loadtest_reconnects_total": 2,
        "loadtest_publications_sent_total": 8,
        "loadtest_publications_acknowledged_total": 4,
        "loadtest_deliveries_total": 4,
        "loadtest_recoveries_total": 1,
        "loadtest_gaps_told_total": 0,
        'loadtest_errors_total{kind="publish: unanswered"}': 4,
        'loadtest_faults_total{kind="duplicated"}': 2,
        'loadtest_faults_total{kind="reordered"}': 0,
        'loadtest_chaos_events_total{action="kill:node1"}': 1,
        'loadtest_delivery_latency_seconds_bucket{le="0.001"}': 2,
        "loadtest_delivery_latency_seconds_count": 4,
        'loadtest_acknowledgement_latency_seconds_bucket{le="0.001"}': 4,
        'loadtest_delivery_latency_last_second_seconds{percentile="50"}': 0.0009,
        "loadtest_schedule_lag_seconds": 0.0015,
        'loadtest_worker_cpu_seconds_total{worker="0"}': 0.25,
        'loadtest_worker_resident_memory_bytes{worker="0"}': 5,
    }
    assert {name: found.get(name) for name in expected} == expected
    assert (progress.current, shown.current, shown.expected) == ("plateau", "plateau", 3)


def test_without_a_port_the_progress_stays_what_it_was() -> None:
    shown = Lines(io.StringIO())
    with exposed(shown, None) as progress:
        assert progress is shown


def test_a_port_that_is_taken_is_told_in_one_sentence() -> None:
    written = io.StringIO()
    with exposed(Lines(written), Exposition(port=0)):
        port = int(written.getvalue().rpartition("/metrics")[0].rpartition(":")[2])
        again = exposed(Lines(io.StringIO()), Exposition(port=port))
        with pytest.raises(ExpositionError, match=f"metrics can't be served at 127.0.0.1:{port}: Address already"):
            again.__enter__()
