"""Two runs beside each other: ratios, and what makes them no fair comparison."""

from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

from loadtest import quantities
from loadtest.histogram import Histogram
from loadtest.report.summary import table
from loadtest.results import Machine, Results

_BUSY: Final = 0.5
_NONE: Final = "-"


class _Measure(NamedTuple):
    """Something that both runs measured."""

    name: str
    of: Callable[[Results], float | None]
    text: Callable[[float], str]


def compare(first: Results, second: Results, *, names: tuple[str, str]) -> str:
    """Return a comparison in Markdown: what may not be compared, then a table with the ratios second : first."""
    lines = [f"{first.run.scenario}: {names[1]} against {names[0]}.", ""]
    if said := obstacles(first, second):
        lines += [*said, ""]
    rows = [_row(measure, first, second) for measure in _MEASURES]
    lines += table(("", names[0], names[1], "ratio"), [row for row in rows if row[1:3] != (_NONE, _NONE)])
    return "\n".join(lines)


def obstacles(first: Results, second: Results) -> list[str]:
    """Return a sentence for each thing that makes the comparison unfair."""
    said = []
    if machine := _differences(_machine(first.machine), _machine(second.machine)):
        said.append(f"Other machine ({machine}): times, rates and CPU may not be compared, only counts.")
    if asked := _differences(_asked(first), _asked(second)):
        said.append(f"Other parameters ({asked}): no ratio says which run is better.")
    for name, run in (("first", first), ("second", second)):
        if run.is_interrupted:
            said.append(f"The {name} run was interrupted: its counts are not those of a whole run.")
        if run.machine.load_before > _BUSY:
            said.append(
                f"The machine was busy before the {name} run (load {quantities.rounded(run.machine.load_before)}): "
                "its times and rates are not of the run alone."
            )
    return said


def _machine(machine: Machine) -> dict[str, Any]:
    return {
        "system": machine.system,
        "architecture": machine.architecture,
        "cores": machine.cores,
        "memory": quantities.size(machine.memory_bytes),
        "Python": machine.python,
    }


def _asked(results: Results) -> dict[str, Any]:
    return {
        "scenario": results.run.scenario,
        "protocol": results.target.protocol,
        "model": results.latency.model,
        "workers": results.run.workers,
        "targets": len(results.target.addresses),
        "chaos": ", ".join(event.action for event in results.chaos) or "none",
        **results.run.parameters,
    }


def _differences(first: dict[str, Any], second: dict[str, Any]) -> str:
    return "; ".join(
        f"{name}: {first.get(name, 'not set')} and {second.get(name, 'not set')}"
        for name in {**first, **second}
        if first.get(name) != second.get(name)
    )


def _row(measure: _Measure, first: Results, second: Results) -> tuple[str, str, str, str]:
    values = measure.of(first), measure.of(second)
    one, other = (_NONE if value is None else measure.text(value) for value in values)
    return measure.name, one, other, ratio(values[1], values[0])


def ratio(value: float | None, base: float | None) -> str:
    """Return how many times *base* is *value*; a dash where that says nothing."""
    if value is None or not base:
        return _NONE
    return f"{quantities.rounded(value / base)}×"


def _percentile(field: str, percent: float) -> Callable[[Results], float | None]:
    def read(results: Results) -> float | None:
        text = getattr(results.latency, field)
        histogram = Histogram.decode(text) if text else Histogram()
        return float(histogram.percentile_us(percent)) if histogram.count else None

    return read


def _plateau_rate(field: str) -> Callable[[Results], float | None]:
    def read(results: Results) -> float | None:
        seconds = [second for second in results.timeline if second.phase == "plateau"]
        return sum(getattr(second, field) for second in seconds) / len(seconds) if seconds else None

    return read


def _total(values: Callable[[Results], Iterable[float]]) -> Callable[[Results], float | None]:
    return lambda results: float(sum(values(results)))


def _slowest_recovery(results: Results) -> float | None:
    times = [event.clients_recovered_after_s for event in results.chaos]
    return max((each for each in times if each is not None), default=None)


def _most_connections(results: Results) -> float | None:
    return max((float(second.connections) for second in results.timeline), default=None)


def _micros(value: float) -> str:
    return f"{quantities.rounded(value)} µs"


def _kilobytes(value: float) -> str:
    return f"{quantities.rounded(value)} KB"


_MEASURES: Final = (
    _Measure("deliveries a second (plateau)", _plateau_rate("delivered"), quantities.whole),
    _Measure("publications a second (plateau)", _plateau_rate("published"), quantities.rounded),
    _Measure("latency p50", _percentile("delivery", 50), quantities.duration),
    _Measure("latency p90", _percentile("delivery", 90), quantities.duration),
    _Measure("latency p99", _percentile("delivery", 99), quantities.duration),
    _Measure("latency p99.9", _percentile("delivery", 99.9), quantities.duration),
    _Measure("latency max", _percentile("delivery", 100), quantities.duration),
    _Measure("answer p50", _percentile("acknowledgement", 50), quantities.duration),
    _Measure("answer p99", _percentile("acknowledgement", 99), quantities.duration),
    _Measure("server CPU a delivery", lambda results: results.costs.server_us_per_delivery, _micros),
    _Measure("server memory a connection", lambda results: results.costs.server_kb_per_connection, _kilobytes),
    _Measure("load CPU a delivery", lambda results: results.costs.worker_us_per_delivery, _micros),
    _Measure("load memory a connection", lambda results: results.costs.worker_kb_per_connection, _kilobytes),
    _Measure("connections at most", _most_connections, quantities.whole),
    _Measure("reconnects", _total(lambda results: (each.reconnects for each in results.timeline)), quantities.whole),
    _Measure(
        "errors",
        _total(lambda results: (count for each in results.timeline for count in each.errors.values())),
        quantities.whole,
    ),
    _Measure("deliveries checked", lambda results: float(results.verification.delivered), quantities.whole),
    _Measure("lost", lambda results: float(results.verification.lost), quantities.whole),
    _Measure("duplicated", lambda results: float(results.verification.duplicated), quantities.whole),
    _Measure("reordered", lambda results: float(results.verification.reordered), quantities.whole),
    _Measure("slowest recovery of clients", _slowest_recovery, quantities.seconds),
)
