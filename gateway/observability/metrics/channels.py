"""Families of channels: who is in them, and what becomes of what is published (the ledger)."""

from typing import Final

from gateway.observability.metrics.family import (
    Family,
    Sample,
    Scrape,
    by_label,
    column,
    count,
    count_by,
    gauge,
    histogram,
)
from gateway.observability.metrics.snapshot import Kind


def _due(scrape: Scrape) -> list[Sample]:
    """Return what is decided and what still waits, so that the books balance at any moment."""
    queued = scrape.gauges.queued_by_namespace()
    return [((name,), book.due + queued.get(name, 0)) for name, book in scrape.counts.ledgers.items()]


def _queued(scrape: Scrape) -> dict[str, int]:
    return dict.fromkeys(scrape.counts.ledgers, 0) | dict(scrape.gauges.queued_by_namespace())


CHANNELS: Final = (
    gauge("gateway_channels", "Channels with at least one subscriber on this node.", lambda node: node.channels()),
    Family(
        Kind.GAUGE,
        "gateway_subscriptions",
        "Subscriptions on this node.",
        ("namespace",),
        lambda scrape: [((namespace,), n) for namespace, n in scrape.gauges.subscriptions()],
    ),
    gauge(
        "gateway_presence_entries",
        "Subscriptions of this node that are kept in a channel's presence.",
        lambda node: node.presence_entries(),
    ),
    count_by(
        "namespace", "gateway_subscribed", "Subscriptions that were made, server-side ones included.", "subscribed"
    ),
    count_by("code", "gateway_unsubscribes", "Subscriptions that the server ended.", "unsubscribes"),
    Family(
        Kind.COUNTER,
        "gateway_recoveries",
        "Subscriptions that asked to recover what they had missed, by whether they could and whether there was any.",
        ("namespace", "recovered", "publications"),
        lambda scrape: list(scrape.counts.recoveries.items()),
    ),
    count_by(
        "namespace",
        "gateway_recovered_publications",
        "Publications that subscribe replies brought to those who had missed them.",
        "recovered_publications",
    ),
    column("gateway_publications_accepted", "Publications handed to the broker by this node.", "published"),
    column("gateway_publications_received", "Publications that came from the broker.", "received"),
    Family(
        Kind.COUNTER,
        "gateway_deliveries_due",
        "Subscribers at fan-out, once for each publication: delivered, filtered, dropped and queued together.",
        ("namespace",),
        _due,
    ),
    column("gateway_deliveries", "Deliveries that transports took.", "delivered"),
    column("gateway_delivered_bytes", "Bytes of those, framing included, before TLS.", "delivered_bytes"),
    column("gateway_deliveries_filtered", "Deliveries that subscribers had asked not to get.", "filtered"),
    column(
        "gateway_patches",
        "Publications encoded as a patch of the one before (Fossil delta), once for all who get the same.",
        "patched",
    ),
    column("gateway_duplicates", "Publications that came again after they were read from the stream.", "duplicates"),
    Family(
        Kind.COUNTER,
        "gateway_deliveries_dropped",
        "Deliveries that were due and not made: the reader is too slow, its encoding can't carry the publication, or "
        "it left in the loop turn that brought it.",
        ("namespace", "reason"),
        lambda scrape: [
            ((namespace, reason), n)
            for namespace, book in scrape.counts.ledgers.items()
            for reason, n in book.dropped.items()
        ],
    ),
    Family(
        Kind.GAUGE,
        "gateway_deliveries_queued",
        "Deliveries that wait for the end of the loop turn.",
        ("namespace",),
        lambda scrape: by_label(_queued(scrape)),
    ),
    Family(
        Kind.HISTOGRAM,
        "gateway_publish_to_write_seconds",
        "From accepting a publication to having handed it to this node's transports, where this node accepted it: of "
        "what one loop turn brings in a channel, the first, which waited longest.",
        ("namespace",),
        lambda scrape: [((name,), book.publish_to_write) for name, book in scrape.counts.ledgers.items()],
    ),
    histogram(
        "gateway_fanout_duration_seconds",
        "Encoding and writing, for all subscribers of this node, what one turn of the event loop has brought.",
        "fanout",
    ),
    Family(
        Kind.COUNTER,
        "gateway_publishes_suppressed",
        "Publishes that nobody was sent: a repeated idempotency key, a version that is not above the last.",
        ("namespace", "reason"),
        lambda scrape: list(scrape.counts.suppressed.items()),
    ),
    count("gateway_stream_gaps", "Publications that did not follow the one before; the stream was read.", "gaps"),
    count("gateway_caught_up", "Publications that were missed and read from their stream.", "caught_up"),
    count("gateway_positions_lost", "Streams of which something was missed for good.", "positions_lost"),
    count("gateway_interruptions", "Times that channels were received again after a lost link.", "interruptions"),
    count("gateway_interrupted_seconds", "How long those links were lost.", "interrupted_s"),
    count("gateway_presence_failures", "Joins, leaves and renewals that the store did not take.", "presence_failures"),
)
