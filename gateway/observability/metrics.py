"""Prometheus metrics, read from the node's counts and registries at the moment of the scrape.

Every family is one row of `FAMILIES`, so that the reference in the documentation is generated and complete.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Final, Protocol

import msgspec
from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from gateway.domain.counts import Counts, Histogram

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Sample = tuple[tuple[str, ...], float]


class Gauges(Protocol):
    """The figures that are read from registries, not counted."""

    version: str

    @property
    def is_ready(self) -> bool:
        """Whether new connections should be sent to the node."""

    def connection_count(self) -> int:
        """Open connections, authenticated or not."""

    def users(self) -> int:
        """Users with at least one connection."""

    def channels(self) -> int:
        """Channels with at least one local subscriber."""

    def subscriptions(self) -> Iterable[tuple[str, int]]:
        """Subscriptions by namespace."""

    def queued(self) -> int:
        """Deliveries that wait for the end of the loop turn."""


class Family(msgspec.Struct, frozen=True):
    """One metric family: its name, what it tells, its labels, and how to read it."""

    kind: type[Metric]
    name: str
    help: str
    labels: tuple[str, ...]
    read: Callable[[Counts, Gauges], Iterable[Sample]]


def _one(value: float) -> list[Sample]:
    return [((), value)]


def _by_label(counter: dict[str, int] | dict[int, int]) -> list[Sample]:
    return [((str(label),), value) for label, value in counter.items()]


FAMILIES: tuple[Family, ...] = (
    Family(
        GaugeMetricFamily,
        "gateway_build_info",
        "1, with the version as a label.",
        ("version",),
        lambda _, gauges: [((gauges.version,), 1)],
    ),
    Family(
        GaugeMetricFamily,
        "gateway_ready",
        "1 while /readyz answers 200.",
        (),
        lambda _, gauges: _one(int(gauges.is_ready)),
    ),
    Family(
        GaugeMetricFamily,
        "gateway_connections",
        "Open connections, authenticated or not.",
        (),
        lambda _, gauges: _one(gauges.connection_count()),
    ),
    Family(
        GaugeMetricFamily,
        "gateway_users",
        "Users with at least one connection to this node.",
        (),
        lambda _, gauges: _one(gauges.users()),
    ),
    Family(
        GaugeMetricFamily,
        "gateway_channels",
        "Channels with at least one subscriber on this node.",
        (),
        lambda _, gauges: _one(gauges.channels()),
    ),
    Family(
        GaugeMetricFamily,
        "gateway_subscriptions",
        "Subscriptions on this node.",
        ("namespace",),
        lambda _, gauges: [((namespace,), count) for namespace, count in gauges.subscriptions()],
    ),
    Family(
        CounterMetricFamily,
        "gateway_connections_accepted",
        "Connections that were upgraded.",
        ("transport",),
        lambda counts, _: _by_label(counts.connections_accepted),
    ),
    Family(
        CounterMetricFamily,
        "gateway_connections_refused",
        "Upgrade requests that were refused.",
        ("reason",),
        lambda counts, _: _by_label(counts.connections_refused),
    ),
    Family(
        CounterMetricFamily,
        "gateway_authenticated",
        "Connections whose client became known, as a user or as anonymous.",
        ("kind",),
        lambda counts, _: _by_label(counts.authenticated),
    ),
    Family(
        CounterMetricFamily,
        "gateway_subscribed",
        "Subscriptions that were made, server-side ones included.",
        ("namespace",),
        lambda counts, _: _by_label(counts.subscribed),
    ),
    Family(
        CounterMetricFamily,
        "gateway_recoveries",
        "Subscriptions that asked to recover what they had missed.",
        ("recovered",),
        lambda counts, _: _by_label(counts.recoveries),
    ),
    Family(
        CounterMetricFamily,
        "gateway_disconnects",
        "Connections that the server closed.",
        ("code",),
        lambda counts, _: _by_label(counts.disconnects),
    ),
    Family(
        CounterMetricFamily,
        "gateway_closes_by_peer",
        "Connections that the client or the network ended.",
        (),
        lambda counts, _: _one(counts.closes_by_peer),
    ),
    Family(
        CounterMetricFamily,
        "gateway_unsubscribes",
        "Subscriptions that the server ended.",
        ("code",),
        lambda counts, _: _by_label(counts.unsubscribes),
    ),
    Family(
        CounterMetricFamily,
        "gateway_commands",
        "Commands of clients.",
        ("method",),
        lambda counts, _: _by_label(counts.commands),
    ),
    Family(
        CounterMetricFamily,
        "gateway_errors",
        "Error replies to commands.",
        ("method", "code"),
        lambda counts, _: [((method, str(code)), n) for (method, code), n in counts.errors.items()],
    ),
    Family(
        CounterMetricFamily,
        "gateway_token_failures",
        "Tokens that were refused.",
        ("cause",),
        lambda counts, _: _by_label(counts.token_failures),
    ),
    Family(
        CounterMetricFamily,
        "gateway_key_set_failures",
        "Fetches of a JSON Web Key Set that failed.",
        (),
        lambda counts, _: _one(counts.key_set_failures),
    ),
    Family(
        CounterMetricFamily,
        "gateway_limit_hits",
        "Times that a limit was reached.",
        ("limit",),
        lambda counts, _: _by_label(counts.limit_hits),
    ),
    Family(
        CounterMetricFamily,
        "gateway_messages_received",
        "Messages from clients.",
        (),
        lambda counts, _: _one(counts.messages_in),
    ),
    Family(
        CounterMetricFamily,
        "gateway_received_bytes",
        "Bytes of messages from clients.",
        (),
        lambda counts, _: _one(counts.bytes_in),
    ),
    Family(
        CounterMetricFamily,
        "gateway_messages_sent",
        "Publications handed to transports, once for each subscriber.",
        (),
        lambda counts, _: _one(counts.messages_out),
    ),
    Family(
        CounterMetricFamily,
        "gateway_sent_bytes",
        "Bytes handed to transports, framing included, before TLS.",
        (),
        lambda counts, _: _one(counts.bytes_out),
    ),
    Family(
        CounterMetricFamily,
        "gateway_publications_accepted",
        "Publications handed to the broker by this node.",
        ("namespace",),
        lambda counts, _: _ledger(counts, "published"),
    ),
    Family(
        CounterMetricFamily,
        "gateway_publications_received",
        "Publications that came from the broker.",
        ("namespace",),
        lambda counts, _: _ledger(counts, "received"),
    ),
    Family(
        CounterMetricFamily,
        "gateway_deliveries_due",
        "Subscribers at fan-out, once for each publication.",
        ("namespace",),
        lambda counts, _: _ledger(counts, "due"),
    ),
    Family(
        CounterMetricFamily,
        "gateway_deliveries",
        "Deliveries that transports took.",
        ("namespace",),
        lambda counts, _: _ledger(counts, "delivered"),
    ),
    Family(
        CounterMetricFamily,
        "gateway_deliveries_dropped",
        "Deliveries that no transport took.",
        ("namespace", "reason"),
        lambda counts, _: [
            ((namespace, reason), n)
            for namespace, book in counts.ledgers.items()
            for reason, n in book.dropped.items()
            if n
        ],
    ),
    Family(
        GaugeMetricFamily,
        "gateway_deliveries_queued",
        "Deliveries that wait for the end of the loop turn.",
        (),
        lambda _, gauges: _one(gauges.queued()),
    ),
)

_TYPES: Final = {GaugeMetricFamily: "gauge", CounterMetricFamily: "counter"}
_REFERENCE_HEAD: Final = """\
# Metrics reference

Made from the code by `make reference`; `gateway metrics doc` prints the same. Served at `/metrics` of the internal
port, beside the usual `process_*` and `python_*` families.

| metric | type | labels | meaning |
|---|---|---|---|
"""

PUBLISH_TO_WRITE = (
    "gateway_publish_to_write_seconds",
    "From accepting a publication to handing it to this node's transports.",
)


class NodeCollector(Collector):
    """Reads one node when somebody scrapes."""

    def __init__(self, counts: Counts, gauges: Gauges) -> None:
        self._counts = counts
        self._gauges = gauges

    def collect(self) -> Iterator[Metric]:
        """Read every family."""
        for family in FAMILIES:
            metric = family.kind(family.name, family.help, labels=family.labels)  # type: ignore[call-arg]
            for labels, value in family.read(self._counts, self._gauges):
                metric.add_metric(labels, value)  # type: ignore[attr-defined]
            yield metric
        histogram = HistogramMetricFamily(*PUBLISH_TO_WRITE)
        histogram.add_metric([], *_cumulated(self._counts.publish_to_write))
        yield histogram


def reference() -> str:
    """Return the reference of all families as Markdown."""
    rows = [
        (_exposed_name(family), _TYPES[family.kind], ", ".join(f"`{label}`" for label in family.labels), family.help)
        for family in FAMILIES
    ]
    rows.append((PUBLISH_TO_WRITE[0], "histogram", "", PUBLISH_TO_WRITE[1]))
    lines = [f"| `{name}` | {kind} | {labels} | {text} |" for name, kind, labels, text in rows]
    return _REFERENCE_HEAD + "\n".join(lines) + "\n"


def make_registry(counts: Counts, gauges: Gauges) -> CollectorRegistry:
    """Return a registry of one node's metrics and those of its process."""
    registry = CollectorRegistry()
    registry.register(NodeCollector(counts, gauges))
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    return registry


def render(registry: CollectorRegistry) -> bytes:
    """Return the registry in Prometheus' text format (`CONTENT_TYPE`)."""
    return generate_latest(registry)


def _exposed_name(family: Family) -> str:
    return f"{family.name}_total" if family.kind is CounterMetricFamily else family.name


def _ledger(counts: Counts, column: str) -> list[Sample]:
    return [((namespace,), getattr(book, column)) for namespace, book in counts.ledgers.items()]


def _cumulated(histogram: Histogram) -> tuple[list[tuple[str, float]], float]:
    buckets: list[tuple[str, float]] = []
    total = 0
    for bound, count in zip((*map(str, histogram.bounds), "+Inf"), histogram.buckets, strict=True):
        total += count
        buckets.append((bound, total))
    return buckets, histogram.total
