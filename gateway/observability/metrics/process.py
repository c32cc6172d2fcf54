"""The families that every Python process has, as prometheus-client names them."""

import os
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from gateway.observability.metrics.snapshot import FamilySnapshot, Joining, Kind, Series

_STAT: Final = Path("/proc/self/stat")
_SYSTEM: Final = Path("/proc/stat")
_FILES: Final = "/proc/self/fd"
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
        self._collectors = (LinuxProcess(), PlatformCollector(registry), GCCollector(registry))

    def snapshot(self) -> Iterator[FamilySnapshot]:
        """Read every family."""
        for collector in self._collectors:
            for metric in collector.collect():
                yield _plain(metric)


class LinuxProcess:
    """What prometheus-client's `ProcessCollector` tells; that one lists all open files, 12 ms of a scrape for 10,000.

    Like that one it tells nothing where there is no `/proc`.
    """

    def __init__(self) -> None:
        self._ticks_a_second = os.sysconf("SC_CLK_TCK")
        self._booted_at_s = _booted_at_s()

    def collect(self) -> Iterator[Metric]:
        """Read what the system knows."""
        if self._booted_at_s is None:
            return
        # proc_pid_stat(5); after the program's name in brackets, the third field is the first.
        fields = _STAT.read_bytes().rpartition(b")")[2].split()
        user, system, started = (int(fields[number]) / self._ticks_a_second for number in (11, 12, 19))
        cpu_s = user + system
        yield _gauge("process_virtual_memory_bytes", "Virtual memory size in bytes.", int(fields[20]))
        resident_bytes = int(fields[21]) * resource.getpagesize()
        yield _gauge("process_resident_memory_bytes", "Resident memory size in bytes.", resident_bytes)
        help_text = "Start time of the process since unix epoch in seconds."
        yield _gauge("process_start_time_seconds", help_text, self._booted_at_s + started)
        yield CounterMetricFamily(
            "process_cpu_seconds_total", "Total user and system CPU time spent in seconds.", cpu_s
        )
        yield _gauge("process_open_fds", "Number of open file descriptors.", open_files())
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        yield _gauge("process_max_fds", "Maximum number of open file descriptors.", limit)


def open_files() -> int:
    """Return how many files this process has open; you must know that there is a `/proc`."""
    # Linux tells their number as the size of the folder since 6.2, and 0 before.
    return os.stat(_FILES).st_size or len(os.listdir(_FILES))  # noqa: PTH116, PTH208 - a Path for each would only cost


def _booted_at_s() -> float | None:
    try:
        lines = _SYSTEM.read_text("ascii").splitlines()
    except OSError:
        return None
    return next((float(line.split()[1]) for line in lines if line.startswith("btime ")), None)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value)


def _plain(metric: Metric) -> FamilySnapshot:
    """Return *metric* as plain values; the names of its labels are those of its first sample, as they all have them."""
    labels = tuple(metric.samples[0].labels) if metric.samples else ()
    series = tuple(Series(tuple(each.labels.values()), each.value) for each in metric.samples)
    joining = _JOINED.get(metric.name, Joining.SUM)
    return FamilySnapshot(metric.name, Kind(metric.type), metric.documentation, labels, joining, series)
