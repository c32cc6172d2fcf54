"""The live figures of a run as metrics, for a Prometheus that watches the servers and is to see the load, too."""

from collections.abc import Iterator
from types import TracebackType
from typing import Final, Self

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from loadtest.histogram import merged
from loadtest.progress import Progress
from loadtest.results import Second
from loadtest.timeline import Timeline

_PERCENTILES: Final = (50, 90, 99, 99.9)
_TOTALS: Final = {
    "connects": ("loadtest_connects", "Connections that clients made."),
    "reconnects": ("loadtest_reconnects", "Those of them that clients made after they had lost one."),
    "published": ("loadtest_publications", "Publications sent."),
    "acknowledged": ("loadtest_acknowledged", "Publications that a server has acknowledged."),
    "delivered": ("loadtest_deliveries", "Publications that subscribers got."),
}


class ExportError(Exception):
    """Why the metrics can't be served, in one sentence."""


class Exported:
    """Shows progress like *shown*, and serves it at `http://{address}:{port}/metrics` until the block ends.

    The page is written by a thread of its own, from the last second that was complete.
    """

    def __init__(self, shown: Progress, *, address: str, port: int) -> None:
        self.port = port
        """Where it is served; once the block has begun never 0."""
        self._shown = shown
        self._address = address
        self._figures = _Figures()

    @property
    def current(self) -> str:
        """The phase."""
        return self._shown.current

    @current.setter
    def current(self, name: str) -> None:
        self._shown.current = name

    def say(self, sentence: str) -> None:
        """Pass it on."""
        self._shown.say(sentence)

    def phase(self, name: str) -> None:
        """Pass it on."""
        self._shown.phase(name)

    def show(self, second: Second, timeline: Timeline) -> None:
        """Pass it on, and serve these figures from now on."""
        self._figures.take(second, timeline)
        self._shown.show(second, timeline)

    def __enter__(self) -> Self:
        """Begin to serve.

        Raises:
            ExportError: if the address can't be had.
        """
        registry = CollectorRegistry()
        registry.register(self._figures)
        try:
            self._server, self._thread = start_http_server(self.port, addr=self._address, registry=registry)
        except OSError as error:
            place = f"{self._address}:{self.port}"
            raise ExportError(f"metrics can't be served at {place}: {error.strerror or error}") from None
        self.port = self._server.server_port
        self._shown.__enter__()
        self._shown.say(f"Metrics at http://{self._address}:{self.port}/metrics")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._shown.__exit__(kind, error, traceback)
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Figures(Collector):
    def __init__(self) -> None:
        self._families: list[Metric] = []
        self._worker_cpu_s = 0.0

    def take(self, second: Second, timeline: Timeline) -> None:
        """Make the page of *second*; whole, so that the other thread never sees a half of it."""
        self._worker_cpu_s += sum(used.cpu_s for used in second.workers)
        self._families = list(self._made(second, timeline))

    def collect(self) -> Iterator[Metric]:
        """Return the families of the last second."""
        yield from self._families

    def _made(self, second: Second, timeline: Timeline) -> Iterator[Metric]:
        yield GaugeMetricFamily(
            "loadtest_connections", "Clients that are connected and subscribed.", second.connections
        )
        for name, (family, text) in _TOTALS.items():
            yield CounterMetricFamily(family, text, timeline.totals[name])
        yield CounterMetricFamily("loadtest_worker_cpu_seconds", "CPU time of all workers.", self._worker_cpu_s)
        yield GaugeMetricFamily("loadtest_behind_seconds", "How late a publication was sent at most.", second.behind_s)
        errors = CounterMetricFamily("loadtest_errors", "What went wrong, by kind.", labels=["error"])
        for kind, count in timeline.errors.items():
            errors.add_metric([kind], count)
        yield errors
        phase = GaugeMetricFamily("loadtest_phase", "1 for the phase of the run.", labels=["phase"])
        phase.add_metric([second.phase], 1)
        yield phase
        latency = GaugeMetricFamily(
            "loadtest_delivery_latency_seconds",
            "From the intended sending to the delivery, of what was delivered in the last second.",
            labels=["percentile"],
        )
        measured = merged([second.latency] if second.latency else [])
        for percent in _PERCENTILES if measured.count else ():
            latency.add_metric([f"p{percent:g}"], measured.percentile_us(percent) / 1e6)
        yield latency
