from loadtest.report.charts import MOST_LINES, charts
from loadtest.report.drawing import Chart, Line, Mark, Span, draw
from loadtest.report.scales import Linear
from loadtest.results import Usage
from tests.support.load_runs import RUN, changed

_UNIT = Linear(low=0, high=10, ticks=[(0, "0"), (10, "ten & more")])


def _draw(*lines: Line, is_hinted: bool = False) -> str:
    chart = Chart(
        title="A <title>",
        explanation="",
        x=_UNIT,
        y=_UNIT,
        lines=lines,
        marks=[Mark(5, "1", "what <happened>")],
        spans=[Span(0, 0), Span(8, 10)],
        hints=[(2.0, "two"), (4.0, "four"), (8.0, "eight")],
    )
    return draw(chart, width=178, height=152, is_hinted=is_hinted)


def test_a_line_has_gaps_where_there_is_no_value_and_dots_where_it_is_alone() -> None:
    line = Line("a", [(0, 0), (10, 10), (5, None), (5, 5), (6, None)])
    assert '<path class="line s0" d="M64.0,126.0L164.0,26.0M114.0,76.0L114.0,76.0"/>' in _draw(line)
    assert '<path class="line' not in _draw(Line("a", [(0, None)]))


def test_texts_are_escaped_marks_are_named_and_empty_spans_left_out() -> None:
    drawn = _draw()
    assert 'aria-label="A &lt;title&gt;"' in drawn
    assert "ten &amp; more" in drawn
    assert "<title>what &lt;happened&gt;</title>" in drawn
    assert drawn.count('class="span"') == 1


def test_hints_cover_the_whole_chart_each_around_its_place() -> None:
    stripes = [part.split('"') for part in _draw(is_hinted=True).split('<rect class="hint"')[1:]]
    assert [(each[1], each[5]) for each in stripes] == [("64.0", "30.0"), ("94.0", "30.0"), ("124.0", "40.0")]


def test_a_chart_shows_no_more_lines_than_can_be_told_apart() -> None:
    servers = {f"node{number:02}": Usage(cpu_s=number / 100, memory_bytes=1) for number in range(12)}
    crowded = changed(RUN, timeline=[changed(second, servers=servers) for second in RUN.timeline])
    names = [line.name for line in next(chart for chart in charts(crowded) if chart.title == "CPU").lines]
    assert len(names) == MOST_LINES
    assert names == [*(f"node{number:02}" for number in range(5, 12)), "load, all workers"]
