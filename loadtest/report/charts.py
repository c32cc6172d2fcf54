"""The charts of a run, in the order in which one reads them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from loadtest import quantities
from loadtest.histogram import Histogram
from loadtest.report import scales, series
from loadtest.report.drawing import Chart, Line, Mark, Span
from loadtest.report.scales import Scale
from loadtest.report.series import Points, Step
from loadtest.results import Results

PERCENTS: Final = (50.0, 90.0, 99.0, 100.0)
_NAMES: Final = ("half are faster (p50)", "90 % are faster (p90)", "99 % are faster (p99)", "slowest")
MOST_LINES: Final = 8
"""Colours and dashes of the page that can be told apart; where there are more lines, the smallest are left out."""

X_TICKS: Final = 6


class _Clock:
    """What all charts over time have in common."""

    def __init__(self, results: Results) -> None:
        self.steps = series.steps(results.timeline)
        self._x = scales.elapsed(series.end_s(results), ticks=X_TICKS)
        self._marks = [
            Mark(event.at_s, str(number), f"{number}: {event.action}, after {quantities.seconds(event.at_s)}")
            for number, event in enumerate(results.chaos, start=1)
        ]
        phases = results.phases
        self._spans = [Span(phases.ramp_up_s, phases.plateau_s), Span(phases.drain_s, phases.end_s)]

    def chart(
        self, title: str, explanation: str, y: Scale, lines: Mapping[str, Points], text: Callable[[float], str]
    ) -> Chart:
        """Return a chart over time."""
        shown = [Line(name, points) for name, points in _fewer(lines).items()]
        return Chart(
            title=title,
            explanation=explanation,
            x=self._x,
            y=y,
            lines=shown,
            marks=self._marks,
            spans=self._spans,
            hints=_hints(self.steps, shown, text),
        )


def charts(results: Results) -> list[Chart]:
    """Return the charts that *results* has data for."""
    clock = _Clock(results)
    drawn = [
        _latency(clock, results),
        _curve(results),
        _counts(
            clock,
            "Deliveries a second",
            "What all subscribers together received in each second.",
            {"received": series.rate(clock.steps, "delivered")},
        ),
        _counts(
            clock,
            "Publications a second",
            "What was sent, and what servers acknowledged. Where the lines part, answers are late or missing.",
            {
                "sent": series.rate(clock.steps, "published"),
                "acknowledged": series.rate(clock.steps, "acknowledged"),
            },
        ),
        _counts(
            clock,
            "Connections",
            "Clients that were connected and subscribed.",
            {"connected and subscribed": series.level(clock.steps, "connections")},
        ),
        _counts(
            clock,
            "Connects and reconnects a second",
            "First connections, and those that were made after one had been lost.",
            {
                "connects": series.rate(clock.steps, "connects"),
                "reconnects": series.rate(clock.steps, "reconnects"),
            },
        ),
        _counts(clock, "Errors a second", "By kind. Without a line there were none.", series.errors(clock.steps)),
        _cpu(clock),
        _memory(clock),
    ]
    return [chart for chart in drawn if not chart.is_empty]


def _latency(clock: _Clock, results: Results) -> Chart:
    lines = dict(zip(_NAMES, series.latencies(clock.steps, PERCENTS), strict=True))
    origin = "the intended sending" if results.latency.model == "open" else "the sending"
    return clock.chart(
        "Latency over time",
        f"From {origin} to each delivery. The scale is logarithmic: equal distances are equal ratios. "
        "A gap means that nothing was delivered.",
        _times(lines),
        lines,
        quantities.duration,
    )


def _curve(results: Results) -> Chart:
    named = {"deliveries": results.latency.delivery, "answers to publishers": results.latency.acknowledgement}
    curves = {name: series.curve(Histogram.decode(text)) for name, text in named.items() if text}
    lines = {name: points for name, (points, _) in curves.items()}
    most = max((nines for _, nines in curves.values()), default=1)
    return Chart(
        title="Latency by percentile",
        explanation="How long the slowest take: at 99 % stands what 99 of 100 are not above, and so on. "
        "The further right, the rarer.",
        x=scales.nines(most),
        y=_times(lines),
        lines=[Line(name, points) for name, points in lines.items()],
    )


def _counts(clock: _Clock, title: str, explanation: str, lines: Mapping[str, Points]) -> Chart:
    y = scales.counting(_most(lines), quantities.short)
    return clock.chart(title, explanation, y, lines, quantities.rounded)


def _cpu(clock: _Clock) -> Chart:
    lines = series.cpu(clock.steps)
    return clock.chart(
        "CPU",
        "Of each process, in percent of one core. A gateway process at 100 % has nothing left.",
        scales.linear(max(_most(lines), 10.0), _percent),
        lines,
        _percent,
    )


def _memory(clock: _Clock) -> Chart:
    lines = series.memory(clock.steps)
    most_mib = _most(lines) / 2**20
    y = scales.linear(max(most_mib, 4.0), lambda value: f"{quantities.short(value)} MiB")
    in_mib: dict[str, Points] = {
        name: [(x, None if value is None else value / 2**20) for x, value in points] for name, points in lines.items()
    }
    return clock.chart(
        "Memory",
        "What each process holds (resident set). A gap means that it did not run.",
        y,
        in_mib,
        lambda value: f"{quantities.rounded(value)} MiB",
    )


def _fewer(lines: Mapping[str, Points]) -> Mapping[str, Points]:
    def sum_of(name: str) -> float:
        return sum(value or 0.0 for _, value in lines[name])

    kept = sorted(lines, key=sum_of, reverse=True)[:MOST_LINES]
    return {name: points for name, points in lines.items() if name in kept}


def _percent(value: float) -> str:
    return f"{quantities.rounded(value)} %"


def _values(lines: Mapping[str, Points]) -> list[float]:
    return [value for points in lines.values() for _, value in points if value is not None]


def _most(lines: Mapping[str, Points]) -> float:
    return max(_values(lines), default=0.0)


def _times(lines: Mapping[str, Points]) -> Scale:
    values = _values(lines) or [1.0]
    return scales.logarithmic(min(values), max(values), quantities.duration)


def _hints(steps: Sequence[Step], lines: Sequence[Line], text: Callable[[float], str]) -> list[tuple[float, str]]:
    hints = []
    for number, step in enumerate(steps):
        values = [(line.name, line.points[number][1]) for line in lines]
        told = [f"{name}: {'none' if value is None else text(value)}" for name, value in values]
        hints.append((step.middle_s, "\n".join([f"after {quantities.seconds(step.begin_s)}", *told])))
    return hints
