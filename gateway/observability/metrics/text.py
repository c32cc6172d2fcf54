"""Snapshots as text, in the two forms that Prometheus reads.

Written here and not by prometheus-client, which takes four times as long for the same bytes (tests/benchmarks/scrape);
it is the oracle in the tests.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

from prometheus_client.utils import floatToGoString

from gateway.observability.metrics.snapshot import Distribution, FamilySnapshot, Kind, Series, Snapshot, Value

PLAIN: Final = "text/plain; version=0.0.4; charset=utf-8"
OPEN_METRICS: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"
_OPEN_METRICS_TYPE: Final = "application/openmetrics-text"
_SHORT: Final = 1_000_000
"""Below it an integer is written the same in both languages, but for the point."""


class Page(NamedTuple):
    """What a scrape is answered with."""

    content_type: str
    body: bytes


def render(snapshot: Snapshot, accept: str = "") -> Page:
    """Write *snapshot* in OpenMetrics if the header *accept* names it, else in the text format."""
    is_open = any(each.partition(";")[0].strip() == _OPEN_METRICS_TYPE for each in accept.split(","))
    lines = [line for family in snapshot for line in _lines(family, is_open=is_open)]
    if is_open:
        lines.append("# EOF\n")
    return Page(OPEN_METRICS if is_open else PLAIN, "".join(lines).encode())


def _lines(family: FamilySnapshot, *, is_open: bool) -> Iterator[str]:
    counted = f"{family.name}_total" if family.kind is Kind.COUNTER else family.name
    named = family.name if is_open else counted
    text = family.help.replace("\\", r"\\").replace("\n", r"\n")
    if is_open:
        text = text.replace('"', r"\"")
    yield f"# HELP {named} {text}\n# TYPE {named} {family.kind}\n"
    for series in family.series:
        if isinstance(series.value, Distribution):
            yield from _buckets(family, series, series.value)
        else:
            yield f"{counted}{_braced(_labels(family.labels, series.labels))} {_number(series.value)}\n"


def _buckets(family: FamilySnapshot, series: Series, value: Distribution) -> Iterator[str]:
    labels = _labels(family.labels, series.labels)
    head = f"{family.name}_bucket{{" + (f"{labels}," if labels else "")
    count = 0
    for bound, inside in zip((*value.bounds, float("inf")), value.buckets, strict=True):
        count += inside
        yield f'{head}le="{_exact(bound)}"}} {_number(count)}\n'
    yield f"{family.name}_count{_braced(labels)} {_number(count)}\n"
    yield f"{family.name}_sum{_braced(labels)} {_number(value.total)}\n"


def _labels(names: tuple[str, ...], values: tuple[str, ...]) -> str:
    return ",".join([f'{name}="{_escaped(value)}"' for name, value in zip(names, values, strict=True)])


def _braced(labels: str) -> str:
    return f"{{{labels}}}" if labels else ""


def _escaped(value: str) -> str:
    if value.isalnum():
        return value
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _number(value: Value) -> str:
    if type(value) is int and -_SHORT < value < _SHORT:
        return f"{value}.0"
    return _exact(value)


def _exact(value: Value) -> str:
    return str(floatToGoString(value))  # type: ignore[no-untyped-call]
