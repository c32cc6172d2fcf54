"""Families: what each is called, what it tells, and how it is read from a node."""

from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from functools import cached_property
from typing import Protocol

import msgspec

from gateway.domain.connections import Census
from gateway.domain.counts import Counts, Histogram
from gateway.observability.metrics.snapshot import Distribution, FamilySnapshot, Joining, Kind, Series

Sample = tuple[tuple[str, ...], float | Histogram]
"""The values of a family's labels, and the value that they have now."""


class Gauges(Protocol):
    """The figures of a node that are read from its registries, not counted."""

    @property
    def build(self) -> tuple[str, str, str]:
        """The versions of the gateway and of Python, and the event loop."""

    @property
    def is_ready(self) -> bool:
        """Whether new connections should be sent to the node."""

    def connection_count(self) -> int:
        """Open connections, authenticated or not."""

    def census(self) -> Census:
        """The open connections, looked at one by one."""

    @property
    def connection_limit(self) -> int:
        """How many connections the node takes; 0 without a limit."""

    @property
    def loop_lags(self) -> Histogram:
        """How late the event loop was, each time that it was looked at."""

    def recent_loop_lag_s(self) -> float:
        """How late it was at most, lately."""

    @property
    def certificate_expires_at_unix_s(self) -> float | None:
        """When the certificate of the public port expires; `None` without one."""

    def admin_connection_count(self) -> int:
        """Open connections of the admin page, which are none of those."""

    def users(self) -> int:
        """Users with at least one connection."""

    def channels(self) -> int:
        """Channels with at least one local subscriber."""

    def subscriptions(self) -> Iterable[tuple[str, int]]:
        """Subscriptions by namespace."""

    def queued_by_namespace(self) -> Mapping[str, int]:
        """Deliveries that wait for the end of the loop turn."""

    @property
    def is_broker_up(self) -> bool:
        """Whether the broker works."""

    @property
    def redis_counts(self) -> object | None:
        """The counters of the Redis engine, by the names of the families in `redis`; `None` on another engine."""

    def nodes(self) -> int:
        """Nodes of the cluster that are known, this one included."""

    def presence_entries(self) -> int:
        """Subscriptions that are kept in a channel's presence."""

    @property
    def draining(self) -> "DrainProgress":
        """How the node parts with its clients."""

    @property
    def vitals(self) -> "Vitals":
        """What its health is read from."""

    @property
    def proxies(self) -> "Iterable[tuple[tuple[str, str], ProxyGauges]]":
        """By what the backend is asked, by event and by the name of the proxy."""


class Vitals(Protocol):
    """What a node's health is read from."""

    def dead_because(self) -> str | None:
        """Which task is dead or hangs."""

    def canary_age_s(self) -> float | None:
        """How long ago a message of the node came back to it through its broker; `None`: never."""

    def canary_round_trip_s(self) -> float | None:
        """How long that one was on its way."""


class DrainProgress(Protocol):
    """How far a node has parted with its clients."""

    is_active: bool
    """Whether it does so."""
    clients: int
    """Who were connected when it began to send them away."""
    sent_away: int
    """Who it has sent away since."""


class ProxyGauges(Protocol):
    """How one proxy is doing."""

    in_flight: int
    """Calls that are with the backend."""
    waiting: int
    """Calls that wait for their turn."""

    @property
    def breaker_state(self) -> Enum:
        """Whether calls are let through, as a number."""


class Scrape:
    """One node at the moment of one scrape."""

    def __init__(self, counts: Counts, gauges: Gauges) -> None:
        self.counts = counts
        self.gauges = gauges

    @cached_property
    def census(self) -> Census:
        """The open connections, looked at once for all families."""
        return self.gauges.census()


class Family(msgspec.Struct, frozen=True):
    """One metric family; a counter's *name* is without its `_total`."""

    kind: Kind
    name: str
    help: str
    labels: tuple[str, ...]
    read: Callable[[Scrape], Iterable[Sample]]
    joining: Joining = Joining.SUM

    @property
    def exposed_name(self) -> str:
        """The name as it is scraped."""
        return f"{self.name}_total" if self.kind is Kind.COUNTER else self.name

    def snapshot(self, scrape: Scrape) -> FamilySnapshot:
        """Read it."""
        series = tuple(Series(labels, _value(value)) for labels, value in self.read(scrape))
        return FamilySnapshot(self.name, self.kind, self.help, self.labels, self.joining, series)


def _value(value: float | Histogram) -> float | Distribution:
    if isinstance(value, Histogram):
        return Distribution(value.bounds, tuple(value.buckets), value.total)
    return value


def only(value: float | Histogram) -> list[Sample]:
    """Return the samples of a family without labels."""
    return [((), value)]


def by_label(values: Mapping[str, float] | Mapping[int, float] | Mapping[str, Histogram]) -> list[Sample]:
    """Return the samples of a family with one label."""
    return [((str(label),), value) for label, value in values.items()]


def gauge(name: str, text: str, read: Callable[[Gauges], float], *, joining: Joining = Joining.SUM) -> Family:
    """Return the family of one figure."""
    return Family(Kind.GAUGE, name, text, (), lambda scrape: only(read(scrape.gauges)), joining)


def count(name: str, text: str, field: str) -> Family:
    """Return the family of one plain counter, a field of `Counts`."""
    return Family(Kind.COUNTER, name, text, (), lambda scrape: only(getattr(scrape.counts, field)))


def count_by(label: str, name: str, text: str, field: str) -> Family:
    """Return the family of a field of `Counts` that counts by *label*."""
    return Family(Kind.COUNTER, name, text, (label,), lambda scrape: by_label(getattr(scrape.counts, field)))


def histogram(name: str, text: str, field: str) -> Family:
    """Return the family of a field of `Counts` that is one histogram."""
    return Family(Kind.HISTOGRAM, name, text, (), lambda scrape: only(getattr(scrape.counts, field)))


def histogram_by(label: str, name: str, text: str, field: str) -> Family:
    """Return the family of a field of `Counts` that holds histograms by *label*."""
    return Family(Kind.HISTOGRAM, name, text, (label,), lambda scrape: by_label(getattr(scrape.counts, field)))


def column(name: str, text: str, field: str) -> Family:
    """Return the family of one column of the ledgers, by namespace."""

    def read(scrape: Scrape) -> list[Sample]:
        return [((namespace,), getattr(book, field)) for namespace, book in scrape.counts.ledgers.items()]

    return Family(Kind.COUNTER, name, text, ("namespace",), read)
