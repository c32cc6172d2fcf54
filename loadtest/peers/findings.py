"""What a comparison of peers has measured: the file of JSON, and the medians that tables show."""

import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from msgspec import Struct

from loadtest.results import Machine

FORMAT: Final = 1


class Setup(Struct, frozen=True, kw_only=True):
    """What was asked for."""

    subscribers: int
    payload_bytes: int
    in_flight: list[int]
    deliveries: int
    """How many each case comes to, or a publication more."""
    rounds: int


class Case(Struct, frozen=True, kw_only=True):
    """One fan-out with so many publications in flight."""

    in_flight: int
    messages: int
    deliveries: int
    lost: int
    duplicated: int
    reordered: int
    server_us: float
    """CPU of the server for one delivery."""
    redis_us: float
    """CPU of its Redis for one delivery."""
    load_us: float
    """CPU of the load side for one delivery."""
    p50_ms: float
    p99_ms: float
    deliveries_per_s: float


class PeerRun(Struct, frozen=True, kw_only=True):
    """One peer in one round."""

    peer: str
    round: int
    kb_per_connection: float
    cases: list[Case]


class Trouble(Struct, frozen=True, kw_only=True):
    """A peer that has no figures, or not in all rounds, and why."""

    peer: str
    reason: str


class Findings(Struct, frozen=True, kw_only=True):
    """Everything."""

    format: int = FORMAT
    started_at: str
    machine: Machine
    setup: Setup
    runs: list[PeerRun]
    troubles: list[Trouble] = []

    def median(self, peer: str, in_flight: int, figure: Callable[[Case], float]) -> float | None:
        """Return the median of a figure over the rounds that lost nothing; `None` if there was none.

        Where something was lost, less was done, and what it cost is no price of a delivery.
        """
        cases = [case for case in self._cases(peer) if case.in_flight == in_flight and not case.lost]
        values = [figure(case) for case in cases]
        return statistics.median(values) if values else None

    def kb_per_connection(self, peer: str) -> float | None:
        """Return the median over all rounds."""
        values = [run.kb_per_connection for run in self.of(peer)]
        return statistics.median(values) if values else None

    def of(self, peer: str) -> Sequence[PeerRun]:
        """Return the rounds of one peer."""
        return [run for run in self.runs if run.peer == peer]

    def is_verified(self, peer: str) -> bool:
        """Whether each subscriber got each publication once and in order, in all rounds."""
        return not any(count for run in self.of(peer) for case in run.cases for count in _faults(case))

    def faults(self, peer: str) -> str:
        """Return what went wrong, in words."""
        counts = [sum(each) for each in zip(*(_faults(case) for case in self._cases(peer)), strict=True)]
        names = ("lost", "duplicated", "reordered")
        return ", ".join(f"{count:,} {name}" for count, name in zip(counts, names, strict=False) if count)

    def _cases(self, peer: str) -> Iterable[Case]:
        return (case for run in self.of(peer) for case in run.cases)


def _faults(case: Case) -> tuple[int, int, int]:
    return case.lost, case.duplicated, case.reordered
