"""Thresholds that a run must keep, such as `p99<50ms` or `lost=0`: read, and measured. Pure."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

from loadtest.histogram import Histogram
from loadtest.results import Check, Costs, Verdict, Verification

DEFAULTS: Final = ("lost=0", "duplicated=0", "reordered=0", "unrestored=0")
"""What holds in any case, unless a threshold of the same name is stated."""
_FORM: Final = re.compile(r"([a-z0-9_.]+)\s*(<=|>=|<|>|=)\s*(\d+(?:\.\d+)?)\s*([a-zA-Zµ/]*)")
_SECONDS: Final = {"us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0}
_COMPARISONS: Final[Mapping[str, Callable[[float, float], bool]]] = {
    "<": lambda measured, limit: measured < limit,
    "<=": lambda measured, limit: measured <= limit,
    ">": lambda measured, limit: measured > limit,
    ">=": lambda measured, limit: measured >= limit,
    "=": lambda measured, limit: measured == limit,
}
_PERCENTILE: Final = re.compile(r"(ack_)?p(\d{1,2}(?:\.\d+)?|100)")
_TIMES: Final = ("mean", "max", "ack_mean", "ack_max", "behind", "recovery")
_VERIFIED: Final = (
    *("lost", "duplicated", "reordered", "foreign", "unrestored", "recovered", "gaps_told", "told"),
    *("unprotected", "in_doubt", "refused", "unanswered", "delivered", "publications"),
)
_OTHERS: Final = ("connections", "errors", "reconnects", "rate", "server_us", "server_kb", "worker_us", "worker_kb")


class ThresholdError(Exception):
    """Why a text is no threshold, in one sentence."""


class Threshold(NamedTuple):
    """One of them."""

    text: str
    name: str
    comparison: str
    limit: float
    is_time: bool
    """Whether the limit is in seconds."""


class Measured(NamedTuple):
    """All that a threshold may ask for."""

    delivery: Histogram
    acknowledgement: Histogram
    verification: Verification
    costs: Costs
    connections: int
    """The most that there were at once."""
    errors: int
    reconnects: int
    rate: float
    """Deliveries a second in the plateau."""
    behind_s: float
    recovery_s: float | None
    """The longest recovery from chaos; `None`: one did not end."""


def parse(text: str) -> Threshold:
    """Read one threshold; raises `ThresholdError`."""
    match = _FORM.fullmatch(text.strip())
    if match is None:
        raise ThresholdError(f"{text!r} is no threshold: write one such as p99<50ms or lost=0")
    name, comparison, number, unit = match.groups()
    is_time = name in _TIMES or _PERCENTILE.fullmatch(name) is not None
    if not is_time and name not in _VERIFIED and name not in _OTHERS:
        known = ", ".join(("p50 (any percentile)", "ack_p50", *_TIMES, *_VERIFIED, *_OTHERS))
        raise ThresholdError(f"{text!r}: nothing is called {name!r}; there are {known}")
    if is_time and unit not in _SECONDS:
        raise ThresholdError(f"{text!r}: {name} is a time and needs a unit, us, ms or s")
    if not is_time and unit:
        raise ThresholdError(f"{text!r}: {name} has no unit {unit!r}")
    return Threshold(text.strip(), name, comparison, float(number) * _SECONDS.get(unit, 1.0), is_time)


def parse_all(texts: Sequence[str]) -> list[Threshold]:
    """Read *texts*, and add the defaults that they do not name."""
    stated = [parse(text) for text in texts]
    names = {threshold.name for threshold in stated}
    return [each for each in map(parse, DEFAULTS) if each.name not in names] + stated


def judge(thresholds: Sequence[Threshold], measured: Measured) -> Verdict:
    """Hold what was measured against *thresholds*; what could not be measured misses its own."""
    checks = []
    for threshold in thresholds:
        value = _value(threshold.name, measured)
        is_met = value is not None and _COMPARISONS[threshold.comparison](value, threshold.limit)
        checks.append(Check(text=threshold.text, measured=value, limit=threshold.limit, is_met=is_met))
    return Verdict(is_passed=all(check.is_met for check in checks), checks=checks)


def _value(name: str, measured: Measured) -> float | None:
    percentile = _PERCENTILE.fullmatch(name)
    if percentile is not None or name.endswith(("mean", "max")):
        histogram = measured.acknowledgement if name.startswith("ack_") else measured.delivery
        if not histogram.count:
            return None
        if percentile is not None:
            return histogram.percentile_us(float(percentile[2])) / 1e6
        return (histogram.mean_us if name.endswith("mean") else histogram.max_us) / 1e6
    if name in _VERIFIED:
        return float(getattr(measured.verification, name))
    match name:
        case "server_us" | "server_kb" | "worker_us" | "worker_kb":
            process, _, unit = name.partition("_")
            what = "us_per_delivery" if unit == "us" else "kb_per_connection"
            value: float | None = getattr(measured.costs, f"{process}_{what}")
            return value
        case "behind":
            return measured.behind_s
        case "recovery":
            return measured.recovery_s
        case "connections" | "errors" | "reconnects" | "rate":
            return float(getattr(measured, name))
        case _:
            raise AssertionError(f"{name} was checked when it was read")
