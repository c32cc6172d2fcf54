from loadtest.histogram import Histogram, merged
from loadtest.messages import Report
from loadtest.results import Phases, Usage
from loadtest.tally import Counted
from loadtest.timeline import Timeline, phase_at


def _report(second: int, *latencies_us: int, cpu_s: float = 0.0) -> Report:
    histogram = Histogram()
    for latency_us in latencies_us:
        histogram.record(latency_us)
    counted = Counted(delivered=len(latencies_us), latency=histogram.encode(), errors={"x": 1}, behind_us=second * 1000)
    return Report(second=second, counted=counted, connections=10, cpu_s=cpu_s, memory_bytes=5, memory_before_bytes=3)


def test_a_second_is_whole_with_the_last_workers_report_and_holds_what_all_said() -> None:
    timeline = Timeline(2)
    assert not timeline.add(0, _report(0, 100, cpu_s=1.0))
    assert timeline.add(1, _report(0, 300))
    timeline.add(0, _report(1, cpu_s=1.25))
    timeline.add_servers(0, {"node1": Usage(cpu_s=0.5, memory_bytes=7)})
    phases = Phases(plateau_s=1.0, drain_s=5.0, ramp_down_s=6.0, end_s=7.0)
    first, second = timeline.all(phases)
    assert (first.phase, second.phase) == ("ramp-up", "plateau")
    assert (first.connections, first.delivered, first.errors) == (20, 2, {"x": 2})
    assert merged([first.latency]).percentile_us(100) == 300
    assert first.servers == {"node1": Usage(cpu_s=0.5, memory_bytes=7)}
    assert second.workers == [Usage(cpu_s=0.25, memory_bytes=5), Usage()]
    assert second.behind_s == 0.001
    assert timeline.delivery.count == 2
    assert timeline.totals["delivered"] == 2


def test_a_moment_has_a_phase_and_phases_that_never_began_have_none() -> None:
    phases = Phases(plateau_s=2.0, drain_s=5.0, ramp_down_s=6.0)
    assert [phase_at(at_s, phases) for at_s in (1.0, 2.0, 5.5, 6.0)] == ["ramp-up", "plateau", "drain", "ramp-down"]
    assert phase_at(3.0, Phases()) == "ramp-up"
