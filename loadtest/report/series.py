"""What the charts show, taken from the seconds of a run: long runs in steps of several seconds."""

import math
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from loadtest.histogram import Histogram, merged
from loadtest.report.scales import depth
from loadtest.results import Results, Second

MOST_STEPS: Final = 200
"""More would be narrower than a line is wide."""

Points = Sequence[tuple[float, float | None]]
"""Time and value; no value: the line has a gap there."""


class Step(NamedTuple):
    """Some seconds of the run, taken together."""

    begin_s: float
    seconds: Sequence[Second]

    @property
    def middle_s(self) -> float:
        """Where it is drawn."""
        return self.begin_s + len(self.seconds) / 2


def steps(timeline: Sequence[Second], *, most: int = MOST_STEPS) -> list[Step]:
    """Cut *timeline* into at most so many steps of equal length, the last one excepted."""
    length = max(1, math.ceil(len(timeline) / most))
    cut = [timeline[begin : begin + length] for begin in range(0, len(timeline), length)]
    return [Step(float(each[0].at_s), each) for each in cut]


def latencies(parts: Sequence[Step], percents: Sequence[float]) -> list[Points]:
    """Return a line for each of *percents*: its latency in microseconds in each step."""
    histograms = [merged([second.latency for second in step.seconds]) for step in parts]
    return [
        [
            (step.middle_s, float(max(1, each.percentile_us(percent))) if each.count else None)
            for step, each in zip(parts, histograms, strict=True)
        ]
        for percent in percents
    ]


def rate(parts: Sequence[Step], field: str) -> Points:
    """Return how much of *field* there was a second."""
    return [
        (step.middle_s, sum(getattr(second, field) for second in step.seconds) / len(step.seconds)) for step in parts
    ]


def level(parts: Sequence[Step], field: str) -> Points:
    """Return how high *field* stood at the end of each step."""
    return [(step.begin_s + len(step.seconds), float(getattr(step.seconds[-1], field))) for step in parts]


def errors(parts: Sequence[Step]) -> Mapping[str, Points]:
    """Return how many errors of each kind there were a second."""
    kinds = sorted({kind for step in parts for second in step.seconds for kind in second.errors})
    return {
        kind: [
            (step.middle_s, sum(second.errors.get(kind, 0) for second in step.seconds) / len(step.seconds))
            for step in parts
        ]
        for kind in kinds
    }


def cpu(parts: Sequence[Step]) -> Mapping[str, Points]:
    """Return the percent of one core that each process used; the workers are taken together."""
    lines = {
        name: [
            (
                step.middle_s,
                100
                * sum(second.servers[name].cpu_s for second in step.seconds if name in second.servers)
                / len(step.seconds),
            )
            for step in parts
        ]
        for name in _servers(parts)
    }
    if any(second.workers for step in parts for second in step.seconds):
        lines["load, all workers"] = [
            (
                step.middle_s,
                100 * sum(usage.cpu_s for second in step.seconds for usage in second.workers) / len(step.seconds),
            )
            for step in parts
        ]
    return lines


def memory(parts: Sequence[Step]) -> Mapping[str, Points]:
    """Return the bytes that each process held at the end of each step; none while it did not run."""
    lines: dict[str, Points] = {}
    for name in _servers(parts):
        held = [(step, step.seconds[-1].servers.get(name)) for step in parts]
        lines[name] = [
            (step.begin_s + len(step.seconds), float(usage.memory_bytes) if usage and usage.memory_bytes else None)
            for step, usage in held
        ]
    if any(second.workers for step in parts for second in step.seconds):
        lines["load, all workers"] = [
            (
                step.begin_s + len(step.seconds),
                float(sum(usage.memory_bytes for usage in step.seconds[-1].workers)) or None,
            )
            for step in parts
        ]
    return lines


def curve(histogram: Histogram) -> tuple[Points, int]:
    """Return HdrHistogram's percentile curve: depth and microseconds; and how many nines the values suffice for."""
    count = histogram.count
    most = max(1, min(6, math.floor(math.log10(count)))) if count else 1
    points: list[tuple[float, float | None]] = []
    seen = 0
    for _, high, here in histogram.buckets():
        # A bucket's values are at most *high*, from the percentile at which it begins on.
        begin, seen = depth(100 * seen / count), seen + here
        end = depth(100 * seen / count) if seen < count else most
        value = float(max(1, min(high, histogram.max_us)))
        points += [(min(begin, most), value), (min(end, most), value)]
    return points, most


def end_s(results: Results) -> float:
    """Return when the run ended."""
    last = results.timeline[-1].at_s + 1.0 if results.timeline else 0.0
    return max(results.phases.end_s, last)


def _servers(parts: Sequence[Step]) -> list[str]:
    return sorted({name for step in parts for second in step.seconds for name in second.servers})
