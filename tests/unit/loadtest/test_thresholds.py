import pytest

from loadtest.histogram import Histogram
from loadtest.results import Costs, Verification
from loadtest.thresholds import DEFAULTS, Measured, ThresholdError, judge, parse, parse_all


def _measured(*latencies_us: int, lost: int = 0, recovery_s: float | None = 0.0) -> Measured:
    histogram = Histogram()
    for latency_us in latencies_us:
        histogram.record(latency_us)
    return Measured(
        delivery=histogram,
        acknowledgement=Histogram(),
        verification=Verification(publications=9, refused=0, unanswered=0, delivered=9, lost=lost),
        costs=Costs(server_us_per_delivery=3.5),
        connections=10,
        errors=2,
        reconnects=0,
        rate=100.0,
        behind_s=0.001,
        recovery_s=recovery_s,
    )


@pytest.mark.parametrize(
    ("text", "value", "is_met"),
    [
        ("p99<50ms", 0.04, True),
        ("p99 < 40ms", 0.04, False),
        ("p99<=0.04s", 0.04, True),
        ("p50>1us", 0.001, True),
        ("max<41ms", 0.04, True),
        ("mean<30ms", 0.0205, True),
        ("lost=0", 1.0, False),
        ("lost<=1", 1.0, True),
        ("errors=2", 2.0, True),
        ("connections>=11", 10.0, False),
        ("rate>99.5", 100.0, True),
        ("server_us<4", 3.5, True),
        ("server_kb<4", None, False),
        ("ack_p99<1s", None, False),
        ("recovery<3s", None, False),
        ("behind<2ms", 0.001, True),
    ],
)
def test_a_threshold_is_held_against_what_was_measured(text: str, value: float | None, *, is_met: bool) -> None:
    measured = _measured(1000, 40_000, lost=1, recovery_s=None)
    check = judge([parse(text)], measured).checks[0]
    assert check.is_met is is_met
    assert check.measured == (value if value is None else pytest.approx(value, rel=0.001))


def test_the_verdict_needs_all_of_them() -> None:
    thresholds = parse_all(["p99<1s"])
    assert judge(thresholds, _measured(1000)).is_passed
    assert not judge(thresholds, _measured(1000, lost=1)).is_passed


def test_the_defaults_hold_unless_one_of_the_same_name_is_stated() -> None:
    assert [each.text for each in parse_all([])] == list(DEFAULTS)
    assert [each.text for each in parse_all(["lost<=5", "p50<1s"])] == [*DEFAULTS[1:], "lost<=5", "p50<1s"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("p99", "is no threshold"),
        ("p99<", "is no threshold"),
        ("p99<-1ms", "is no threshold"),
        ("p99<5", "needs a unit"),
        ("p99<5min", "needs a unit"),
        ("lost=0ms", "has no unit"),
        ("lots=0", "nothing is called 'lots'"),
        ("p101<1s", "nothing is called"),
        ("", "is no threshold"),
    ],
)
def test_a_text_that_is_none_is_refused_in_a_sentence(text: str, sentence: str) -> None:
    with pytest.raises(ThresholdError, match=sentence):
        parse(text)


def test_whatever_verification_counts_can_be_a_threshold() -> None:
    for name in Verification.__struct_fields__:
        if name != "findings":
            assert judge([parse(f"{name}>=0")], _measured(1)).checks[0].measured is not None
