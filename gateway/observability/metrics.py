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

    @property
    def is_broker_up(self) -> bool:
        """Whether the broker works."""

    @property
    def redis_counts(self) -> object | None:
        """The counters of the Redis engine, by the names of `_redis`; `None` on another engine."""

    def nodes(self) -> int:
        """Nodes of the cluster that are known, this one included."""

    def presence_entries(self) -> int:
        """Subscriptions that are kept in a channel's presence."""


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


def _count(name: str, text: str, field: str) -> Family:
    """Return the family of one plain counter, a field of `Counts`."""
    return Family(CounterMetricFamily, name, text, (), lambda counts, _: _one(getattr(counts, field)))


def _count_by(label: str, name: str, text: str, field: str) -> Family:
    """Return the family of a field of `Counts` that counts by *label*."""
    return Family(CounterMetricFamily, name, text, (label,), lambda counts, _: _by_label(getattr(counts, field)))


def _column(name: str, text: str, column: str) -> Family:
    """Return the family of one column of the ledgers, by namespace."""
    return Family(CounterMetricFamily, name, text, ("namespace",), lambda counts, _: _ledger(counts, column))


def _redis(name: str, text: str, field: str) -> Family:
    """Return the family of one counter of the Redis engine; it has no samples on another engine."""

    def read(_: Counts, gauges: Gauges) -> list[Sample]:
        counts = gauges.redis_counts
        if counts is None:
            return []
        value = getattr(counts, field)
        return _by_label(value) if isinstance(value, dict) else _one(value)

    labels = ("link",) if field == "connects" else ()
    return Family(CounterMetricFamily, f"gateway_redis_{name}", text, labels, read)


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
        "gateway_broker_up",
        "1 while the broker works.",
        (),
        lambda _, gauges: _one(int(gauges.is_broker_up)),
    ),
    Family(
        GaugeMetricFamily,
        "gateway_nodes",
        "Nodes of the cluster that this node knows, itself included.",
        (),
        lambda _, gauges: _one(gauges.nodes()),
    ),
    Family(
        GaugeMetricFamily,
        "gateway_presence_entries",
        "Subscriptions of this node that are kept in a channel's presence.",
        (),
        lambda _, gauges: _one(gauges.presence_entries()),
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
    _count_by("transport", "gateway_connections_accepted", "Connections that were upgraded.", "connections_accepted"),
    _count_by("reason", "gateway_connections_refused", "Upgrade requests that were refused.", "connections_refused"),
    _count_by(
        "kind",
        "gateway_authenticated",
        "Connections whose client became known, as a user or as anonymous.",
        "authenticated",
    ),
    _count_by(
        "namespace", "gateway_subscribed", "Subscriptions that were made, server-side ones included.", "subscribed"
    ),
    _count_by(
        "recovered", "gateway_recoveries", "Subscriptions that asked to recover what they had missed.", "recoveries"
    ),
    _count_by("code", "gateway_disconnects", "Connections that the server closed.", "disconnects"),
    _count("gateway_closes_by_peer", "Connections that the client or the network ended.", "closes_by_peer"),
    _count_by("code", "gateway_unsubscribes", "Subscriptions that the server ended.", "unsubscribes"),
    _count_by("method", "gateway_commands", "Commands of clients.", "commands"),
    Family(
        CounterMetricFamily,
        "gateway_errors",
        "Error replies to commands.",
        ("method", "code"),
        lambda counts, _: [((method, str(code)), n) for (method, code), n in counts.errors.items()],
    ),
    _count_by("cause", "gateway_token_failures", "Tokens that were refused.", "token_failures"),
    _count("gateway_key_set_failures", "Fetches of a JSON Web Key Set that failed.", "key_set_failures"),
    _count_by("limit", "gateway_limit_hits", "Times that a limit was reached.", "limit_hits"),
    _count("gateway_messages_received", "Messages from clients.", "messages_in"),
    _count("gateway_received_bytes", "Bytes of messages from clients.", "bytes_in"),
    _count("gateway_messages_sent", "Publications handed to transports, once for each subscriber.", "messages_out"),
    _count("gateway_sent_bytes", "Bytes handed to transports, framing included, before TLS.", "bytes_out"),
    _column("gateway_publications_accepted", "Publications handed to the broker by this node.", "published"),
    _column("gateway_publications_received", "Publications that came from the broker.", "received"),
    _column("gateway_deliveries_due", "Subscribers at fan-out, once for each publication.", "due"),
    _column("gateway_deliveries", "Deliveries that transports took.", "delivered"),
    _column("gateway_duplicates", "Publications that came again after they were read from the stream.", "duplicates"),
    _count("gateway_stream_gaps", "Publications that did not follow the one before; the stream was read.", "gaps"),
    _count("gateway_caught_up", "Publications that were missed and read from their stream.", "caught_up"),
    _count("gateway_positions_lost", "Streams of which something was missed for good.", "positions_lost"),
    _count("gateway_interruptions", "Times that channels were received again after a lost link.", "interruptions"),
    _count("gateway_interrupted_seconds", "How long those links were lost.", "interrupted_s"),
    _count("gateway_presence_failures", "Joins, leaves and renewals that the store did not take.", "presence_failures"),
    _count("gateway_events_sent", "Joins and leaves handed to transports.", "events_out"),
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
    _redis("connects", "Connections to Redis that came up; all but the first of a link are reconnects.", "connects"),
    _redis("commands", "Commands on the publishing connection, probes included.", "commands"),
    _redis("batches", "Writes that carried them.", "batches"),
    _redis("sent_bytes", "Bytes written to the publishing and the subscribing connection.", "bytes_out"),
    _redis("received_bytes", "Bytes read from them.", "bytes_in"),
    _redis("messages", "Messages of all channels over the subscribing connection.", "messages"),
    _redis("subscribe_commands", "SUBSCRIBE and UNSUBSCRIBE commands, of many names each.", "subscribe_commands"),
    _redis("reads", "Requests through the reading connection: history and presence.", "reads"),
    _redis("read_batches", "Pipelines that carried them.", "read_batches"),
    _redis("refused", "Commands that Redis answered with an error.", "refused"),
    _redis("repeated", "Scripts sent again because Redis had forgotten them.", "repeated"),
    _redis("undecodable", "Messages and stream entries that no gateway has written.", "undecodable"),
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
