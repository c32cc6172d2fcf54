from loadtest.histogram import Histogram
from loadtest.report import series
from loadtest.results import Second, Usage
from tests.support.load_runs import histogram


def _seconds(count: int) -> list[Second]:
    return [Second(at_s=at_s, phase="plateau", delivered=at_s, connections=at_s) for at_s in range(count)]


def test_long_runs_are_taken_in_steps_of_equal_length() -> None:
    assert [(step.begin_s, len(step.seconds)) for step in series.steps(_seconds(7), most=3)] == [(0, 3), (3, 3), (6, 1)]
    assert len(series.steps(_seconds(3600))) == series.MOST_STEPS
    assert series.steps([]) == []


def test_rates_are_means_and_levels_are_what_stood_last() -> None:
    steps = series.steps(_seconds(4), most=2)
    assert series.rate(steps, "delivered") == [(1, 0.5), (3, 2.5)]
    assert series.level(steps, "connections") == [(2, 1), (4, 3)]


def test_latencies_of_a_step_are_those_of_all_its_seconds_and_nothing_is_a_gap() -> None:
    seconds = [
        Second(at_s=0, phase="plateau", latency=histogram({100: 9})),
        Second(at_s=1, phase="plateau", latency=histogram({900: 1})),
        Second(at_s=2, phase="plateau"),
        Second(at_s=3, phase="plateau", latency=histogram({0: 1})),
    ]
    assert series.latencies(series.steps(seconds, most=2), [50, 100]) == [[(1, 100), (3, 1)], [(1, 900), (3, 1)]]
    assert series.latencies(series.steps(seconds), [50]) == [[(0.5, 100), (1.5, 900), (2.5, None), (3.5, 1)]]


def test_a_process_that_did_not_run_has_a_gap_in_its_memory() -> None:
    seconds = [
        Second(at_s=0, phase="plateau", servers={"node1": Usage(cpu_s=0.5, memory_bytes=7)}),
        Second(at_s=1, phase="plateau", servers={"node1": Usage()}, workers=[Usage(cpu_s=0.25, memory_bytes=2)] * 2),
    ]
    steps = series.steps(seconds)
    assert series.memory(steps) == {"node1": [(1, 7), (2, None)], "load, all workers": [(1, None), (2, 4)]}
    assert series.cpu(steps) == {"node1": [(0.5, 50), (1.5, 0)], "load, all workers": [(0.5, 0), (1.5, 50)]}


def test_errors_are_told_by_kind() -> None:
    seconds = [Second(at_s=0, phase="plateau", errors={"b": 4}), Second(at_s=1, phase="plateau", errors={"a": 2})]
    assert series.errors(series.steps(seconds)) == {"a": [(0.5, 0), (1.5, 2)], "b": [(0.5, 4), (1.5, 0)]}


def test_the_curve_reaches_as_many_nines_as_there_are_values_for() -> None:
    points, nines = series.curve(Histogram.decode(histogram({100: 900, 500: 99, 9000: 1})))
    assert nines == 3
    assert [(round(depth, 2), value) for depth, value in points] == [
        (0, 100),
        (1, 100),
        (1, 500),
        (3, 500),
        (3, 9007),
        (3, 9007),
    ]
    assert series.curve(Histogram()) == ([], 1)
