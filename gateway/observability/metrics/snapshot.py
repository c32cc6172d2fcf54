"""What a scrape is made of: plain values that can be sent to another process, added up there, and written as text.

A node takes a snapshot of itself; whoever serves `/metrics` writes one, or what several make together.
"""

from collections.abc import Iterable
from enum import StrEnum
from typing import Final

import msgspec


class Kind(StrEnum):
    """What a family's values are."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Joining(StrEnum):
    """What the gauges of several processes are together; what is counted is always added."""

    SUM = "sum"
    MAX = "max"
    MIN = "min"


class Distribution(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A histogram: how many values each bucket has by itself, the last one beyond all *bounds*, and their sum."""

    bounds: tuple[float, ...]
    buckets: tuple[int, ...]
    total: float


Value = int | float | Distribution


class Series(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One value, and the values of its family's labels in their order."""

    labels: tuple[str, ...]
    value: Value


class FamilySnapshot(msgspec.Struct, frozen=True, array_like=True):
    """One family at the moment of the scrape; a counter's *name* is without its `_total`."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...]
    joining: Joining
    series: tuple[Series, ...]


Snapshot = tuple[FamilySnapshot, ...]

encode: Final = msgspec.msgpack.Encoder().encode
decode: Final = msgspec.msgpack.Decoder(Snapshot).decode


def combined(snapshots: Iterable[Snapshot]) -> Snapshot:
    """Return what processes are together: what is counted added up, gauges joined as each family says."""
    found: dict[str, tuple[FamilySnapshot, dict[tuple[str, ...], Value]]] = {}
    for snapshot in snapshots:
        for family in snapshot:
            _, values = found.setdefault(family.name, (family, {}))
            for series in family.series:
                known = values.get(series.labels)
                values[series.labels] = series.value if known is None else _joined(family, known, series.value)
    return tuple(
        msgspec.structs.replace(family, series=tuple(Series(*each) for each in values.items()))
        for family, values in found.values()
    )


def retired(snapshot: Snapshot) -> Snapshot:
    """Return what stays of a process that has ended: what it counted, without the gauges."""
    return tuple(family for family in snapshot if family.kind is not Kind.GAUGE)


def _joined(family: FamilySnapshot, one: Value, other: Value) -> Value:
    if isinstance(one, Distribution) and isinstance(other, Distribution):
        if one.bounds != other.bounds:
            raise ValueError(f"{family.name} has other buckets in another process")
        buckets = tuple(map(sum, zip(one.buckets, other.buckets, strict=True)))
        return Distribution(one.bounds, buckets, one.total + other.total)
    if isinstance(one, Distribution) or isinstance(other, Distribution):
        raise TypeError(f"{family.name} is a histogram in one process and not in another")
    match family.joining:
        case Joining.MAX:
            return max(one, other)
        case Joining.MIN:
            return min(one, other)
        case Joining.SUM:
            return one + other
