"""Puts together what workers and servers said of each second. Pure."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Final

from loadtest.histogram import Histogram, merged
from loadtest.messages import Report
from loadtest.results import Phases, Second, Usage

IN_PLATEAU: Final = ("plateau", "drain")


class Timeline:
    """The seconds of one run."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._reports: dict[int, dict[int, Report]] = defaultdict(dict)
        self._servers: dict[int, dict[str, Usage]] = defaultdict(dict)
        self._watched: dict[int, Mapping[str, int]] = {}
        self.memory_before_bytes: dict[int, int] = {}
        """Of the workers, before their first connections."""
        self.delivery = Histogram()
        """All latencies so far."""
        self.acknowledgement = Histogram()
        self.totals: Counter[str] = Counter()
        """Sums of what was counted so far."""
        self.errors: Counter[str] = Counter()

    def add(self, worker: int, report: Report) -> bool:
        """Take a worker's report; true if the second is complete with it."""
        self._reports[report.second][worker] = report
        self.memory_before_bytes[worker] = report.memory_before_bytes
        self._watched[worker] = report.watched
        counted = report.counted
        self.delivery.add(merged([counted.latency]))
        self.acknowledgement.add(merged([counted.acknowledgement]))
        for name in ("connects", "reconnects", "published", "acknowledged", "delivered"):
            self.totals[name] += getattr(counted, name)
        self.errors.update(counted.errors)
        return len(self._reports[report.second]) == self._workers

    @property
    def watched(self) -> Counter[str]:
        """What the subscribers of all workers have found so far, by the names in `loadtest.watching.Counts`."""
        found: Counter[str] = Counter()
        for each in self._watched.values():
            found.update(each)
        return found

    def add_servers(self, second: int, usage: Mapping[str, Usage]) -> None:
        """Take what the servers used in *second*."""
        self._servers[second].update(usage)

    def second(self, number: int, phase: str) -> Second:
        """Put one second together."""
        reports = self._reports.get(number, {})
        counted = [report.counted for report in reports.values()]
        errors: Counter[str] = Counter()
        for each in counted:
            errors.update(each.errors)
        return Second(
            at_s=number,
            phase=phase,
            connections=sum(report.connections for report in reports.values()),
            connects=sum(each.connects for each in counted),
            reconnects=sum(each.reconnects for each in counted),
            published=sum(each.published for each in counted),
            acknowledged=sum(each.acknowledged for each in counted),
            delivered=sum(each.delivered for each in counted),
            errors=dict(errors),
            latency=_together([each.latency for each in counted]),
            acknowledgement=_together([each.acknowledgement for each in counted]),
            behind_s=max((each.behind_us for each in counted), default=0) / 1e6,
            servers=self._servers.get(number, {}),
            workers=[self._worker_usage(number, worker) for worker in range(self._workers)],
        )

    def all(self, phases: Phases) -> list[Second]:
        """Put all of them together."""
        last = max(self._reports, default=-1)
        return [self.second(number, phase_at(number + 0.5, phases)) for number in range(last + 1)]

    def _worker_usage(self, second: int, worker: int) -> Usage:
        report = self._reports.get(second, {}).get(worker)
        if report is None:
            return Usage()
        before = self._reports.get(second - 1, {}).get(worker)
        used_s = report.cpu_s - before.cpu_s if before is not None else 0.0
        return Usage(cpu_s=round(max(0.0, used_s), 4), memory_bytes=report.memory_bytes)


def phase_at(at_s: float, phases: Phases) -> str:
    """Name the phase of a moment."""
    if phases.ramp_down_s and at_s >= phases.ramp_down_s:
        return "ramp-down"
    if phases.drain_s and at_s >= phases.drain_s:
        return "drain"
    if phases.plateau_s and at_s >= phases.plateau_s:
        return "plateau"
    return "ramp-up"


def _together(encoded: list[str]) -> str:
    filled = [text for text in encoded if text]
    if len(filled) <= 1:
        return filled[0] if filled else ""
    return merged(filled).encode()
