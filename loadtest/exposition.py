"""The run's own metrics for Prometheus, while it goes on: what the progress view shows, as counters and histograms.

A thread answers scrapes while the event loop goes on counting, so the loop puts a whole, unchangeable `Standing` in the
place of the one before, and a scrape reads whichever is there.

Losses are not among the figures: which gaps are losses is known only at the end, when all publishers have said what
was acknowledged and all subscribers what they missed (`loadtest.reckoning`).
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import accumulate
from types import TracebackType
from typing import Final, NamedTuple, Self

from msgspec import Struct
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from loadtest.histogram import Histogram, merged
from loadtest.progress import Progress
from loadtest.results import PHASES, Second, Usage
from loadtest.timeline import Timeline

BOUNDS_S: Final = (0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of the latency buckets: as of the gateway's `publish_to_write`, and two for what an outage holds up."""
_BOUNDS_US: Final = tuple(round(bound_s * 1e6) for bound_s in BOUNDS_S)
_NAMES: Final = (*map(str, BOUNDS_S), "+Inf")
_PERCENTILES: Final = (50.0, 99.0, 99.9)
_PHASE_HELP: Final = "1 for the phase that the run is in; from drain on nothing more is published."


class ExpositionError(Exception):
    """Why the metrics can't be served, in one sentence."""


class Exposition(Struct, frozen=True, kw_only=True):
    """Where a run serves its metrics."""

    port: int
    """0: any free one, which is told."""
    address: str = "127.0.0.1"


class Distribution(NamedTuple):
    """A histogram as Prometheus reads it: each bucket holds what is in those below, too."""

    buckets: tuple[tuple[str, float], ...]
    total_s: float

    @classmethod
    def of(cls, histogram: Histogram) -> Self:
        """Count *histogram* into `BOUNDS_S`; at a bound it is exact to three digits, as the histogram is."""
        counts = [0] * len(_NAMES)
        total_us = 0.0
        for low_us, high_us, inside in histogram.buckets():
            counts[bisect_left(_BOUNDS_US, low_us)] += inside
            total_us += (low_us + high_us) / 2 * inside
        return cls(tuple(zip(_NAMES, accumulate(counts), strict=True)), total_us / 1e6)


class Standing(NamedTuple):
    """How a run stands."""

    wanted: int = 0
    phase: str = ""
    second: Second = Second(at_s=0, phase="")
    """The last one that all workers have told of."""
    totals: Mapping[str, int] = Counter()
    watched: Mapping[str, int] = Counter()
    errors: Mapping[str, int] = Counter()
    delivery: Distribution = Distribution.of(Histogram())
    acknowledgement: Distribution = Distribution.of(Histogram())
    workers: tuple[Usage, ...] = ()
    """What each worker has used so far, and its memory now."""
    strikes: Mapping[str, int] = Counter()


class Figures(Collector):
    """The families of a run, read from how it stands."""

    def __init__(self, chaos: Iterable[str] = ()) -> None:
        """*chaos* is what will be done to the servers, so that it counts from 0."""
        self.standing = Standing(strikes=dict.fromkeys(chaos, 0))

    def collect(self) -> Iterator[Metric]:
        """Read them."""
        now = self.standing
        yield _by_label(
            "loadtest_phase", _PHASE_HELP, "phase", {name: int(name == now.phase) for name in PHASES}, GaugeMetricFamily
        )
        yield GaugeMetricFamily(
            "loadtest_connections_wanted", "Clients that the scenario wants connected and subscribed.", now.wanted
        )
        yield GaugeMetricFamily(
            "loadtest_connections",
            "Clients that are connected and have all their subscriptions.",
            now.second.connections,
        )
        for name, text, field in _TOTALS:
            yield CounterMetricFamily(f"loadtest_{name}", text, now.totals.get(field, 0))
        for name, text, field in _WATCHED:
            yield CounterMetricFamily(f"loadtest_{name}", text, now.watched.get(field, 0))
        yield _by_label("loadtest_errors", "What went wrong, by kind.", "kind", now.errors)
        yield _by_label(
            "loadtest_faults",
            "Deliveries that broke a promise: came twice, came after a later one, or were not of this run.",
            "kind",
            {kind: now.watched.get(kind, 0) for kind in ("duplicated", "reordered", "foreign")},
        )
        yield _by_label("loadtest_chaos_events", "What was done to the servers.", "action", now.strikes)
        yield from self._latencies(now)
        yield from self._load_side(now)

    def _latencies(self, now: Standing) -> Iterator[Metric]:
        for name, text, found in (
            ("delivery", "From the intended sending to each delivery.", now.delivery),
            ("acknowledgement", "From the intended sending to the server's answer.", now.acknowledgement),
        ):
            yield HistogramMetricFamily(f"loadtest_{name}_latency_seconds", text, found.buckets, found.total_s)
        last = merged([now.second.latency])
        percentiles = {f"{each:g}": last.percentile_us(each) / 1e6 for each in _PERCENTILES if last.count}
        yield _by_label(
            "loadtest_delivery_latency_last_second_seconds",
            "Exact percentiles of what was delivered in the last second; no sample where that was nothing.",
            "percentile",
            percentiles,
            GaugeMetricFamily,
        )

    def _load_side(self, now: Standing) -> Iterator[Metric]:
        yield GaugeMetricFamily(
            "loadtest_schedule_lag_seconds",
            "How late a publication of the last second was sent at most; the load's own fault, or the machine's.",
            now.second.behind_s,
        )
        cpu_s = {str(number): used.cpu_s for number, used in enumerate(now.workers)}
        yield _by_label("loadtest_worker_cpu_seconds", "CPU time of each worker.", "worker", cpu_s)
        memory = {str(number): used.memory_bytes for number, used in enumerate(now.workers)}
        yield _by_label(
            "loadtest_worker_resident_memory_bytes", "Its resident set.", "worker", memory, GaugeMetricFamily
        )


_TOTALS: Final = (
    ("connects", "Connections that clients made, reconnects included.", "connects"),
    ("reconnects", "Those of them that a client made after it had lost one.", "reconnects"),
    ("publications_sent", "Publications sent.", "published"),
    ("publications_acknowledged", "Publications that a server has answered.", "acknowledged"),
    ("deliveries", "Publications that came to a subscriber.", "delivered"),
)
_WATCHED: Final = (
    ("recoveries", "Subscriptions that went on after an interruption without a gap.", "recovered"),
    ("gaps_told", "Times that a server said that something may be missing.", "gaps_told"),
)


class ExposedProgress:
    """Shows a run as another progress does, and keeps it for whoever scrapes."""

    def __init__(self, shown: Progress, figures: Figures) -> None:
        self._shown = shown
        self._figures = figures

    @property
    def current(self) -> str:
        """The phase."""
        return self._shown.current

    def say(self, sentence: str) -> None:
        """Pass it on."""
        self._shown.say(sentence)

    def expect(self, clients: int) -> None:
        """Keep it."""
        self._shown.expect(clients)
        self._figures.standing = self._figures.standing._replace(wanted=clients)

    def phase(self, name: str) -> None:
        """Keep it."""
        self._shown.phase(name)
        self._figures.standing = self._figures.standing._replace(phase=name)

    def strike(self, action: str) -> None:
        """Count it."""
        self._shown.strike(action)
        standing = self._figures.standing
        strikes = {**standing.strikes, action: standing.strikes.get(action, 0) + 1}
        self._figures.standing = standing._replace(strikes=strikes)

    def show(self, second: Second, timeline: Timeline) -> None:
        """Keep how the run stands with *second*."""
        self._shown.show(second, timeline)
        standing = self._figures.standing
        before = standing.workers or (Usage(),) * len(second.workers)
        self._figures.standing = standing._replace(
            second=second,
            totals=timeline.totals.copy(),
            watched=timeline.watched,
            errors=timeline.errors.copy(),
            delivery=Distribution.of(timeline.delivery),
            acknowledgement=Distribution.of(timeline.acknowledgement),
            workers=tuple(
                Usage(cpu_s=known.cpu_s + used.cpu_s, memory_bytes=used.memory_bytes)
                for known, used in zip(before, second.workers, strict=True)
            ),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        del kind, error, traceback


@contextmanager
def exposed(shown: Progress, exposition: Exposition | None, *, chaos: Iterable[str] = ()) -> Iterator[Progress]:
    """Serve what the yielded progress is told; without an *exposition* that is *shown* itself, and nothing is served.

    Raises:
        ExpositionError: if the port can't be had.
    """
    if exposition is None:
        yield shown
        return
    figures, registry = Figures(chaos), CollectorRegistry()
    registry.register(figures)
    try:
        server, thread = start_http_server(exposition.port, exposition.address, registry)
    except OSError as error:
        where = f"{exposition.address}:{exposition.port}"
        raise ExpositionError(f"metrics can't be served at {where}: {error.strerror or error}") from None
    try:
        host = f"[{exposition.address}]" if ":" in exposition.address else exposition.address
        shown.say(f"Metrics at http://{host}:{server.server_port}/metrics")
        yield ExposedProgress(shown, figures)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _by_label(
    name: str,
    text: str,
    label: str,
    values: Mapping[str, float],
    family: type[CounterMetricFamily] | type[GaugeMetricFamily] = CounterMetricFamily,
) -> Metric:
    metric = family(name, text, labels=[label])
    for value, number in values.items():
        metric.add_metric([value], number)
    return metric
