"""Channels and delivery: what becomes of what is published."""

from grafana_foundation_sdk.builders.dashboard import Dashboard

from deploy.grafana.board import (
    CHANNELS,
    NODES,
    Query,
    board,
    graph,
    heat,
    or_nothing,
    quantile,
    total,
    total_by,
)

_BALANCE = f"instance_namespace:gateway_ledger:imbalance{{{CHANNELS}}}"


def delivery() -> Dashboard:
    """Return the dashboard."""
    ledger = [
        graph(
            "The ledger",
            "Deliveries due, and what became of them: made, filtered, dropped. Due is the sum of the others, at any "
            "moment.",
            "cps",
            [
                Query(total("gateway_deliveries_due_total", CHANNELS), "due"),
                Query(total("gateway_deliveries_total", CHANNELS), "made"),
                Query(total("gateway_deliveries_filtered_total", CHANNELS), "filtered"),
                Query(or_nothing(total("gateway_deliveries_dropped_total", CHANNELS)), "dropped"),
            ],
            span=12,
        ),
        graph(
            "Out of balance",
            "Deliveries for which the books have no answer. 0 always (GatewayLedgerOutOfBalance).",
            "short",
            [Query(f"sum by (instance, namespace) ({_BALANCE})", "{{instance}} {{namespace}}")],
            span=6,
        ),
        graph(
            "Queued",
            "Deliveries that wait for the end of a turn of the event loop: 0, or what one turn brings.",
            "short",
            [Query(f"sum by (namespace) (gateway_deliveries_queued{{{CHANNELS}}})", "{{namespace}}")],
            span=6,
        ),
        graph(
            "Dropped, as a share of what was due",
            "By namespace and reason, of those that cut their client. Above 0.1 % for minutes: "
            "GatewayDeliveriesDropped.",
            "percentunit",
            [
                Query(
                    or_nothing('job_namespace_reason:gateway_deliveries_dropped:ratio_rate5m{namespace=~"$namespace"}'),
                    "{{namespace}} {{reason}}",
                )
            ],
            span=12,
        ),
        graph(
            "Dropped, by reason",
            "All reasons. `unsubscribed`, `disconnected`, `closed` and `shutdown` are clients that left in that "
            "moment.",
            "cps",
            [Query(total_by("reason", "gateway_deliveries_dropped_total", CHANNELS), "{{reason}}")],
            span=12,
        ),
    ]
    pace = [
        heat(
            "Publish to write",
            "How long publications took from being accepted to their node's sockets. Dark is often.",
            "gateway_publish_to_write_seconds",
            CHANNELS,
        ),
        graph(
            "Publish to write, 99 of 100",
            "By namespace.",
            "s",
            [
                Query(
                    or_nothing(
                        f"({quantile(0.99, 'gateway_publish_to_write_seconds', CHANNELS, by='namespace')} >= 0)"
                    ),
                    "{{namespace}}",
                )
            ],
            span=12,
        ),
        graph(
            "Accepted",
            "Publications by namespace, at the node that took them.",
            "cps",
            [Query(total_by("namespace", "gateway_publications_accepted_total", CHANNELS), "{{namespace}}")],
            stacked=True,
        ),
        graph(
            "Delivered",
            "Deliveries by namespace.",
            "cps",
            [Query(total_by("namespace", "gateway_deliveries_total", CHANNELS), "{{namespace}}")],
            stacked=True,
        ),
        graph(
            "Delivered bytes",
            "By namespace, framing included, before TLS.",
            "Bps",
            [Query(total_by("namespace", "gateway_delivered_bytes_total", CHANNELS), "{{namespace}}")],
            stacked=True,
        ),
    ]
    streams = [
        graph(
            "Recoveries",
            "Subscriptions that came back and asked for what they had missed. `recovered=false`: the history no "
            "longer held it.",
            "cps",
            [
                Query(
                    total_by("recovered, publications", "gateway_recoveries_total", CHANNELS),
                    "recovered={{recovered}} publications={{publications}}",
                )
            ],
        ),
        graph(
            "Gaps",
            "Publications that did not follow the one before, and what was read from streams for them. Lost "
            "positions are "
            "gaps that no history could fill (GatewayPublicationsLost).",
            "cps",
            [
                Query(total("gateway_stream_gaps_total"), "gaps"),
                Query(total("gateway_caught_up_total"), "read from streams"),
                Query(total("gateway_positions_lost_total"), "lost positions"),
            ],
        ),
        graph(
            "Doubles and repeats",
            "Publications that came twice and went out once, and publishes that an idempotency key or a version "
            "held back.",
            "cps",
            [
                Query(or_nothing(total("gateway_duplicates_total", CHANNELS)), "came twice"),
                Query(or_nothing(total("gateway_publishes_suppressed_total", CHANNELS)), "held back"),
            ],
        ),
        graph(
            "Subscriptions",
            "By namespace.",
            "short",
            [Query(f"sum by (namespace) (gateway_subscriptions{{{CHANNELS}}})", "{{namespace}}")],
            stacked=True,
        ),
        graph(
            "Channels",
            "Channels with at least one subscriber, by node.",
            "short",
            [Query(f"gateway_channels{{{NODES}}}", "{{instance}}")],
            stacked=True,
        ),
        graph(
            "Subscribed and unsubscribed",
            "Subscriptions that were made, and those that a node ended, by code.",
            "cps",
            [
                Query(or_nothing(total("gateway_subscribed_total", CHANNELS)), "subscribed"),
                Query(total_by("code", "gateway_unsubscribes_total"), "ended: {{code}}"),
            ],
        ),
    ]
    return board(
        "gateway-delivery",
        "Gateway: channels and delivery",
        "What becomes of what is published, and how fast.",
        [("Ledger", ledger), ("Pace", pace), ("Streams and subscriptions", streams)],
        has_namespaces=True,
    )
