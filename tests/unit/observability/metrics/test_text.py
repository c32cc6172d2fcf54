"""The two text forms, with prometheus-client as the oracle: its parsers read what it would have written itself."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.openmetrics.exposition import generate_latest as generate_open
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_open
from prometheus_client.parser import text_string_to_metric_families as parse_plain
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from gateway.observability.metrics.snapshot import Distribution, FamilySnapshot, Joining, Kind, Series, Snapshot
from gateway.observability.metrics.text import OPEN_METRICS, PLAIN, render

_KINDS = {Kind.COUNTER: CounterMetricFamily, Kind.GAUGE: GaugeMetricFamily}
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
COUNTS = st.integers(0, 2**60)
NUMBERS = st.integers(-(2**60), 2**60) | st.floats(allow_nan=False)
BOUNDS = (0.00025, 0.5, 1.0, 1024.0, 16777216.0)
DISTRIBUTIONS = st.builds(
    Distribution,
    st.just(BOUNDS),
    st.tuples(*[st.integers(0, 2**40)] * (len(BOUNDS) + 1)),
    st.floats(0, 1e12),
)
PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)
"""What it sends as its `Accept` header."""
VALUES = {Kind.COUNTER: COUNTS, Kind.GAUGE: NUMBERS, Kind.HISTOGRAM: DISTRIBUTIONS}


@st.composite
def families(draw: st.DrawFn, name: str) -> FamilySnapshot:
    kind = draw(st.sampled_from(Kind))
    labels = draw(st.sampled_from([(), ("namespace",), ("code", "method")]))
    keys = draw(st.lists(st.tuples(*[TEXTS] * len(labels)), max_size=3, unique=True))
    series = tuple(Series(key, draw(VALUES[kind])) for key in keys)
    return FamilySnapshot(name, kind, draw(TEXTS), labels, Joining.SUM, series)


SNAPSHOTS = st.tuples(families("gateway_a"), families("gateway_b"))


class Oracle(Collector):
    """The same families as prometheus-client has them."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def collect(self) -> list[Metric]:
        return [_metric(family) for family in self._snapshot]


def _metric(family: FamilySnapshot) -> Metric:
    if family.kind is not Kind.HISTOGRAM:
        metric: Metric = _KINDS[family.kind](family.name, family.help, labels=family.labels)
        for series in family.series:
            assert not isinstance(series.value, Distribution)
            metric.add_metric(series.labels, series.value)  # type: ignore[attr-defined]
        return metric
    histogram = HistogramMetricFamily(family.name, family.help, labels=family.labels)
    for series in family.series:
        assert isinstance(series.value, Distribution)
        counts = [sum(series.value.buckets[: n + 1]) for n in range(len(series.value.buckets))]
        bounds = map(_go, [*series.value.bounds, math.inf])
        histogram.add_metric(series.labels, list(zip(bounds, counts, strict=True)), series.value.total)
    return histogram


def _go(bound: float) -> str:
    return str(floatToGoString(bound))  # type: ignore[no-untyped-call]


def registry(snapshot: Snapshot) -> CollectorRegistry:
    made = CollectorRegistry()
    made.register(Oracle(snapshot))
    return made


def read_open(text: bytes) -> list[Metric]:
    return list(parse_open(text.decode()))  # type: ignore[no-untyped-call]


@given(SNAPSHOTS)
def test_the_text_form_reads_as_what_prometheus_client_writes(snapshot: Snapshot) -> None:
    page = render(snapshot)
    assert page.content_type == PLAIN == "text/plain; version=0.0.4; charset=utf-8"
    expected = list(parse_plain(generate_latest(registry(snapshot)).decode()))
    assert list(parse_plain(page.body.decode())) == expected


@given(SNAPSHOTS)
def test_the_open_form_reads_as_what_prometheus_client_writes(snapshot: Snapshot) -> None:
    page = render(snapshot, "application/openmetrics-text")
    assert page.content_type == OPEN_METRICS
    expected = read_open(generate_open(registry(snapshot)))  # type: ignore[no-untyped-call]
    assert read_open(page.body) == expected


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("", PLAIN),
        ("*/*", PLAIN),
        ("text/plain;version=0.0.4", PLAIN),
        ("text/html, application/xhtml+xml", PLAIN),
        ("application/openmetrics-text", OPEN_METRICS),
        (PROMETHEUS_3, OPEN_METRICS),
    ],
)
def test_who_names_the_open_form_gets_it_and_all_others_the_text_form(accept: str, content_type: str) -> None:
    page = render((), accept)
    assert page == (content_type, b"# EOF\n" if content_type is OPEN_METRICS else b"")


@pytest.mark.parametrize("number", [0, 1, 999_999, 1_000_000, 2**60, -5, 0.5, 1e21, math.inf])
def test_a_number_comes_back_as_it_was(number: float) -> None:
    family = FamilySnapshot("gateway_a", Kind.GAUGE, "a", (), Joining.SUM, (Series((), number),))
    [read] = parse_plain(render((family,)).body.decode())
    assert [sample.value for sample in read.samples] == [float(number)]
