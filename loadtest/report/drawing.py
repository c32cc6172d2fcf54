"""Charts as SVG: lines over an axis, with ticks, gaps, shaded spans and numbered marks. Colours are the page's own."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from typing import Final, NamedTuple

from loadtest.report.scales import Scale
from loadtest.report.series import Points

_LEFT: Final = 64
_RIGHT: Final = 14
_TOP: Final = 26
_BOTTOM: Final = 26
_TICK_TEXT: Final = 13
_MARK_RADIUS: Final = 9


class Line(NamedTuple):
    """One line, and what the legend calls it."""

    name: str
    points: Points


class Mark(NamedTuple):
    """Something that happened at one moment."""

    at: float
    label: str
    """As short as a number."""
    text: str
    """Shown under a pointer."""


class Span(NamedTuple):
    """A shaded stretch."""

    begin: float
    end: float


@dataclass(frozen=True, kw_only=True)
class Chart:
    """What one chart shows."""

    title: str
    explanation: str
    """What the axes are and how to read it, in a sentence or two."""
    x: Scale
    y: Scale
    lines: Sequence[Line]
    marks: Sequence[Mark] = ()
    spans: Sequence[Span] = ()
    hints: Sequence[tuple[float, str]] = ()
    """What to show under a pointer: place on the x axis, and text."""

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to draw."""
        return not any(value is not None for line in self.lines for _, value in line.points)


class _Frame:
    """Where things are in a drawing of one size."""

    def __init__(self, chart: Chart, *, width: int, height: int) -> None:
        self._chart = chart
        self.left, self.right = _LEFT, width - _RIGHT
        self.top, self.bottom = _TOP, height - _BOTTOM

    def x(self, value: float) -> float:
        return self.left + (self.right - self.left) * self._chart.x.place(value)

    def y(self, value: float) -> float:
        return self.bottom - (self.bottom - self.top) * self._chart.y.place(value)


def draw(chart: Chart, *, width: int, height: int, is_hinted: bool) -> str:
    """Return *chart* as an SVG element of that size; *is_hinted*: with what a pointer brings up."""
    frame = _Frame(chart, width=width, height=height)
    parts = [
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(chart.title)}">',
        *_spans(chart, frame),
        *_axes(chart, frame),
        *(_line(line, number, frame) for number, line in enumerate(chart.lines)),
        *_marks(chart, frame),
    ]
    if is_hinted:
        parts += _hints(chart, frame)
    return "".join([*parts, "</svg>"])


def _axes(chart: Chart, frame: _Frame) -> list[str]:
    parts = []
    for value, text in chart.y.ticks:
        y = frame.y(value)
        parts.append(f'<line class="grid" x1="{frame.left}" x2="{frame.right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick y" x="{frame.left - 8}" y="{y + 4:.1f}">{escape(text)}</text>')
    for value, text in chart.x.ticks:
        x = frame.x(value)
        parts.append(f'<line class="notch" x1="{x:.1f}" x2="{x:.1f}" y1="{frame.bottom}" y2="{frame.bottom + 4}"/>')
        # A text at an edge would be cut off if it were centred.
        place = "end" if x > frame.right - 2 * _TICK_TEXT else "middle"
        at = frame.right + _RIGHT - 2 if place == "end" else x
        parts.append(
            f'<text class="tick" text-anchor="{place}" x="{at:.1f}" y="{frame.bottom + 18}">{escape(text)}</text>'
        )
    parts.append(f'<line class="axis" x1="{frame.left}" x2="{frame.right}" y1="{frame.bottom}" y2="{frame.bottom}"/>')
    return parts


def _line(line: Line, number: int, frame: _Frame) -> str:
    """Draw one line; a point whose neighbours are gaps is a dot."""
    pieces: list[list[str]] = [[]]
    for x, value in line.points:
        if value is None:
            pieces.append([])
        else:
            pieces[-1].append(f"{frame.x(x):.1f},{frame.y(value):.1f}")
    path = "".join(f"M{piece[0]}L{' '.join(piece[1:] or piece)}" for piece in pieces if piece)
    return f'<path class="line s{number}" d="{path}"/>' if path else ""


def _spans(chart: Chart, frame: _Frame) -> list[str]:
    height = frame.bottom - frame.top
    return [
        f'<rect class="span" x="{frame.x(begin):.1f}" y="{frame.top}" '
        f'width="{frame.x(end) - frame.x(begin):.1f}" height="{height}"/>'
        for begin, end in chart.spans
        if end > begin
    ]


def _marks(chart: Chart, frame: _Frame) -> list[str]:
    parts = []
    for at, label, text in chart.marks:
        x, y = frame.x(at), frame.top - _MARK_RADIUS - 4
        parts.append(
            f'<g class="mark"><title>{escape(text)}</title>'
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{frame.top - 4}" y2="{frame.bottom}"/>'
            f'<circle cx="{x:.1f}" cy="{y}" r="{_MARK_RADIUS}"/>'
            f'<text x="{x:.1f}" y="{y + 4}">{escape(label)}</text></g>'
        )
    return parts


def _hints(chart: Chart, frame: _Frame) -> list[str]:
    """Cover the chart with invisible stripes, each with the values under it."""
    places = [frame.x(x) for x, _ in chart.hints]
    edges = [frame.left, *((one + next_) / 2 for one, next_ in pairwise(places)), frame.right]
    return [
        f'<rect class="hint" x="{begin:.1f}" y="{frame.top}" width="{max(0.0, end - begin):.1f}" '
        f'height="{frame.bottom - frame.top}"><title>{escape(text)}</title></rect>'
        for begin, end, (_, text) in zip(edges, edges[1:], chart.hints, strict=False)
    ]
