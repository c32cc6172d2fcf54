import pytest

from loadtest.comparison import compare, obstacles, ratio
from loadtest.results import Latency
from tests.support.load_runs import RUN, changed, histogram

_SLOWER = changed(
    RUN,
    latency=Latency(delivery=histogram({4000: 990, 9000: 10}), acknowledgement="", model="open"),
    costs=changed(RUN.costs, server_us_per_delivery=6.42, server_kb_per_connection=None),
    chaos=[changed(RUN.chaos[0], clients_recovered_after_s=5)],
)


def test_two_runs_are_set_beside_each_other_with_ratios() -> None:
    assert compare(RUN, _SLOWER, names=("before", "after")) == (
        """mixed: after against before.

| | before | after | ratio |
|---|---|---|---|
| deliveries a second (plateau) | 9,400 | 9,400 | 1× |
| publications a second (plateau) | 100 | 100 | 1× |
| latency p50 | 2 ms | 4 ms | 2× |
| latency p90 | 4 ms | 4 ms | 1× |
| latency p99 | 4 ms | 4 ms | 1× |
| latency p99.9 | 90 ms | 9.01 ms | 0.1× |
| latency max | 90 ms | 9.01 ms | 0.1× |
| answer p50 | 900 µs | - | - |
| answer p99 | 900 µs | - | - |
| server CPU a delivery | 3.21 µs | 6.42 µs | 2× |
| server memory a connection | 5.4 KB | - | - |
| connections at most | 200 | 200 | 1× |
| reconnects | 66 | 66 | 1× |
| errors | 66 | 66 | 1× |
| deliveries checked | 188,000 | 188,000 | 1× |
| lost | 0 | 0 | - |
| duplicated | 1 | 1 | 1× |
| reordered | 0 | 0 | - |
| slowest recovery of clients | 2.5 s | 5 s | 2× |
"""
    )


def test_what_may_not_be_compared_is_said() -> None:
    other = changed(
        RUN,
        machine=changed(RUN.machine, cores=64, load_before=3.0),
        run=changed(RUN.run, parameters={"clients": 200, "size": 10}),
        is_interrupted=True,
    )
    assert obstacles(RUN, other) == [
        "Other machine (cores: 2 and 64): times, rates and CPU may not be compared, only counts.",
        "Other parameters (rate: 100.0 and not set; size: not set and 10): no ratio says which run is better.",
        "The second run was interrupted: its counts are not those of a whole run.",
        "The machine was busy before the second run (load 3): its times and rates are not of the run alone.",
    ]
    assert obstacles(RUN, RUN) == []


@pytest.mark.parametrize(
    ("value", "base", "text"), [(3, 2, "1.5×"), (1, 0, "-"), (None, 2, "-"), (2, None, "-"), (0, 2, "0×")]
)
def test_a_ratio_is_left_out_where_it_says_nothing(value: float | None, base: float | None, text: str) -> None:
    assert ratio(value, base) == text
