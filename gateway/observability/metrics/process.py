"""The families that every Python process has, by prometheus-client's own collectors."""

from collections.abc import Iterator
from typing import Final

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.metrics_core import Metric

from gateway.observability.metrics.snapshot import FamilySnapshot, Joining, Kind, Series

# Of several processes it is the worst that counts, and a start or a limit can't be added up.
_JOINED: Final = {
    "process_start_time_seconds": Joining.MIN,
    "process_max_fds": Joining.MIN,
    "python_info": Joining.MAX,
}


class ProcessMetrics:
    """Reads the process that it lives in."""

    def __init__(self) -> None:
        registry = CollectorRegistry()
        self._collectors = (ProcessCollector(registry=registry), PlatformCollector(registry), GCCollector(registry))

    def snapshot(self) -> Iterator[FamilySnapshot]:
        """Read every family."""
        for collector in self._collectors:
            for metric in collector.collect():
                yield _plain(metric)


def _plain(metric: Metric) -> FamilySnapshot:
    """Return *metric* as plain values; the names of its labels are those of its first sample, as they all have them."""
    labels = tuple(metric.samples[0].labels) if metric.samples else ()
    series = tuple(Series(tuple(each.labels.values()), each.value) for each in metric.samples)
    joining = _JOINED.get(metric.name, Joining.SUM)
    return FamilySnapshot(metric.name, Kind(metric.type), metric.documentation, labels, joining, series)
