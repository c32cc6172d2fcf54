"""What becomes of publications: the ledger, latencies, histories, channels."""

from typing import Final

from deploy.grafana.frame import Frame, Section, namespaces, nodes, restarts
from deploy.grafana.panels import BAD, GOOD, ODD, About, Column, Panel, Query, figure, graph, heat, listing
from deploy.grafana.promql import BOOKS, NAMESPACE, NODES, imbalance, levels, or_zero, quantile, rates, ratio, summed
from deploy.grafana.promql import heat as filling

UID: Final = "gateway-delivery"
_DUE: Final = "gateway_deliveries_due_total"
_DELIVERED: Final = "gateway_deliveries_total"
_FILTERED: Final = "gateway_deliveries_filtered_total"
_DROPPED: Final = "gateway_deliveries_dropped_total"
_QUEUED: Final = "gateway_deliveries_queued"
_ACCEPTED: Final = "gateway_publications_accepted_total"
_LATENCY: Final = "gateway_publish_to_write_seconds"


def delivery() -> Frame:
    """Return the dashboard."""
    return Frame(
        UID,
        "Gateway: channels and delivery",
        "What becomes of each publication at each subscriber, by namespace of channels.",
        [nodes(), namespaces()],
        [
            Section("The ledger", _ledger()),
            Section("Latency", _latency()),
            Section("Channels and subscriptions", _channels()),
            Section("History and recovery", _history()),
        ],
        [restarts(NODES.targets)],
    )


def _ledger() -> list[Panel]:
    return [
        figure(
            "Not accounted for",
            About(
                shows="Deliveries due, less those delivered, filtered, dropped and queued.",
                normal="0, at any moment.",
                otherwise="a fault of the gateway: keep log and metrics, and report it.",
            ),
            Query(f"abs({imbalance(BOOKS)})", "unaccounted for"),
            unit="none",
            height=8,
            limits=((None, GOOD), (1, BAD)),
        ),
        figure(
            "Delivered of what was due",
            About(
                shows="The part of the deliveries due that transports took; what subscribers did not want is not "
                "counted.",
                normal="100 %.",
                otherwise="the rest was dropped: the reasons are beside it.",
            ),
            Query(
                ratio(BOOKS, rates(BOOKS, _DELIVERED), f"{rates(BOOKS, _DUE)} - {rates(BOOKS, _FILTERED)}"),
                "delivered",
            ),
            unit="percentunit",
            height=8,
            limits=((None, BAD), (0.99, ODD), (0.9999, GOOD)),
        ),
        graph(
            "Due, and what became of it",
            About(
                shows="Deliveries that were due, a second, and where they went.",
                normal="due and delivered lie on each other.",
                otherwise="the difference is in one of the other lines, always.",
            ),
            Query(rates(BOOKS, _DUE), "due"),
            Query(rates(BOOKS, _DELIVERED), "delivered"),
            Query(rates(BOOKS, _FILTERED), "filtered"),
            Query(rates(BOOKS, _DROPPED), "dropped"),
            unit="cps",
        ),
        graph(
            "Drops by namespace and reason",
            About(
                shows="Deliveries that were due and not made, a second.",
                normal="none; a few of `closed`, `disconnected`, `unsubscribed` while many come and go.",
                otherwise="`slow`: the reader was cut (3008). `not_json`: binary data met JSON clients, see "
                "`publication_data_format`. `shutdown`: the node stops.",
            ),
            Query(rates(BOOKS, _DROPPED, "reason", NAMESPACE), "{{namespace}} {{reason}}"),
            unit="cps",
            stacked=True,
        ),
        listing(
            "Books",
            About(
                shows="What the chosen nodes have booked since they were started, by namespace. `(none)`: channels "
                "without one.",
                normal="the last column is 0.",
                otherwise="report it, with the row.",
            ),
            [
                Column("Accepted", levels(BOOKS, _ACCEPTED, NAMESPACE), "none"),
                Column("Due", levels(BOOKS, _DUE, NAMESPACE), "none"),
                Column("Delivered", levels(BOOKS, _DELIVERED, NAMESPACE), "none"),
                Column("Filtered", levels(BOOKS, _FILTERED, NAMESPACE), "none"),
                Column("Dropped", _dropped_by_namespace(), "none", ((None, GOOD), (1, ODD))),
                Column("Queued", levels(BOOKS, _QUEUED, NAMESPACE), "none"),
                Column("Not accounted for", _imbalance_by_namespace(), "none", ((None, GOOD), (1, BAD))),
            ],
            keys={"namespace": "Namespace"},
            height=6,
        ),
    ]


def _dropped_by_namespace() -> str:
    """Return all drops, with a 0 for each namespace that has none."""
    dropped, due = summed(BOOKS.of(_DROPPED), NAMESPACE), summed(BOOKS.of(_DUE), NAMESPACE)
    return or_zero(BOOKS, f"({dropped} or 0 * {due})", NAMESPACE)


def _imbalance_by_namespace() -> str:
    others = (levels(BOOKS, name, NAMESPACE) for name in (_DUE, _DELIVERED, _FILTERED, _QUEUED))
    return " - ".join((*others, _dropped_by_namespace()))


def _latency() -> list[Panel]:
    about = About(
        shows="From accepting a publication to having handed it to the subscribers' connections on the node that took "
        "it.",
        normal="some milliseconds with Redis, less without; p99 below 100 ms.",
        otherwise="compare with Redis' round trip, the fan-out beside it and the event loop's lag: it is made of "
        "these.",
    )
    return [
        heat("Publish to write", about, filling(BOOKS, _LATENCY)),
        graph(
            "Publish to write",
            about,
            Query(quantile(BOOKS, 0.5, _LATENCY), "p50"),
            Query(quantile(BOOKS, 0.9, _LATENCY), "p90"),
            Query(quantile(BOOKS, 0.99, _LATENCY), "p99"),
            unit="s",
            width=12,
            limit=0.1,
        ),
        graph(
            "Publish to write by namespace, p99",
            About(
                shows="The same for each namespace.",
                normal="those with history take a script of Redis more, and little longer.",
                otherwise="one that stands out has larger channels, or processors: `statistics` over long windows "
                "costs.",
            ),
            Query(quantile(BOOKS, 0.99, _LATENCY, NAMESPACE), "{{namespace}}"),
            unit="s",
        ),
        graph(
            "Fan-out",
            About(
                shows="Encoding and writing for all subscribers of a node what one turn of the event loop brought, in "
                "all namespaces.",
                normal="1 to 4 µs for each subscriber.",
                otherwise="channels with very many subscribers: spread them over more nodes.",
            ),
            Query(quantile(NODES, 0.5, "gateway_fanout_duration_seconds"), "p50"),
            Query(quantile(NODES, 0.99, "gateway_fanout_duration_seconds"), "p99"),
            unit="s",
        ),
        graph(
            "From node to node, p99",
            About(
                shows="From the sending of a node's announcement to its receipt by another, over the broker's "
                "pub/sub. The difference of the machines' clocks is in it; blank for a single node.",
                normal="some milliseconds.",
                otherwise="Redis, a link, or clocks: check NTP before anything else.",
            ),
            Query(quantile(NODES, 0.99, "gateway_node_lag_seconds", "instance"), "{{instance}}"),
            unit="s",
        ),
    ]


def _channels() -> list[Panel]:
    return [
        graph(
            "Subscriptions",
            About(
                shows="Subscriptions by namespace, and presence entries that are kept for them.",
                normal="it follows the connections.",
                otherwise="it grows while connections do not: clients forget to unsubscribe.",
            ),
            Query(levels(BOOKS, "gateway_subscriptions", NAMESPACE), "{{namespace}}"),
            Query(levels(NODES, "gateway_presence_entries"), "presence entries"),
            unit="short",
        ),
        graph(
            "Subscribed and unsubscribed",
            About(
                shows="Subscriptions made by namespace, and those that the server ended by code, a second.",
                normal="nearly none are ended by the server.",
                otherwise="2500: something was missed for good, or the data format changed; SDKs subscribe again. "
                "2501: subscription tokens that were not renewed.",
            ),
            Query(rates(BOOKS, "gateway_subscribed_total", NAMESPACE), "{{namespace}}"),
            Query(rates(NODES, "gateway_unsubscribes_total", "code"), "ended: {{code}}"),
            unit="cps",
        ),
        graph(
            "Publications",
            About(
                shows="Publications taken from clients and backends, and received from the broker by all nodes "
                "together.",
                normal="received is accepted times the nodes with subscribers of the channel.",
                otherwise="received near 0: nobody listens, or the broker's pub/sub does not come through.",
            ),
            Query(rates(BOOKS, _ACCEPTED, NAMESPACE), "accepted: {{namespace}}"),
            Query(rates(BOOKS, "gateway_publications_received_total", NAMESPACE), "received: {{namespace}}"),
            unit="cps",
        ),
        graph(
            "Deliveries for each publication",
            About(
                shows="How many subscribers a publication has on average.",
                normal="what your channels are.",
                otherwise="it rises with the size of channels, and with it everything that a delivery costs.",
            ),
            Query(ratio(BOOKS, rates(BOOKS, _DUE), rates(BOOKS, _ACCEPTED)), "subscribers"),
            unit="none",
        ),
        graph(
            "Bytes of a delivery",
            About(
                shows="How large a delivery is on average, framing included, before TLS and compression.",
                normal="what your publications are, and their channel's name.",
                otherwise="large ones fill outboxes: see `client.queue_max_size`.",
            ),
            Query(
                ratio(BOOKS, rates(BOOKS, "gateway_delivered_bytes_total"), rates(BOOKS, _DELIVERED)),
                "bytes",
            ),
            unit="bytes",
        ),
        graph(
            "Presence that could not be kept",
            About(
                shows="Joins, leaves and renewals that the store did not take, a second.",
                normal="none.",
                otherwise="Redis is away or refuses: who is in a channel is wrong until it is back and entries expire.",
            ),
            Query(rates(NODES, "gateway_presence_failures_total"), "failures"),
            unit="cps",
            limit=1,
        ),
    ]


def _history() -> list[Panel]:
    return [
        graph(
            "Recoveries",
            About(
                shows="Subscriptions that asked for what they had missed, by whether they could get it, a second.",
                normal="`yes`. Many at once after a node or a network went.",
                otherwise="`no`: the history was too short (`history_size`, `history_ttl`) or Redis lost it; these "
                "clients load their state anew.",
            ),
            Query(
                rates(BOOKS, "gateway_recoveries_total", NAMESPACE, "recovered"),
                "{{namespace}} {{recovered}}",
            ),
            unit="cps",
            stacked=True,
        ),
        graph(
            "Recovered publications",
            About(
                shows="Publications that subscribe replies brought to those who had missed them, a second.",
                normal="few; many after a node or a network went.",
                otherwise="always many: clients lose their connections all the time.",
            ),
            Query(rates(BOOKS, "gateway_recovered_publications_total", NAMESPACE), "{{namespace}}"),
            unit="cps",
        ),
        graph(
            "Gaps that nodes found and mended",
            About(
                shows="Publications that did not follow the one before, those read from the stream for that, and "
                "those that came again afterwards and were left out, a second.",
                normal="none; some after a link to Redis was lost. Clients notice nothing.",
                otherwise="without lost links: Redis drops pub/sub messages, see its `client-output-buffer-limit "
                "pubsub`.",
            ),
            Query(rates(NODES, "gateway_stream_gaps_total"), "gaps"),
            Query(rates(NODES, "gateway_caught_up_total"), "caught up"),
            Query(rates(BOOKS, "gateway_duplicates_total"), "duplicates left out"),
            unit="cps",
        ),
        graph(
            "Missed for good",
            About(
                shows="Streams of which a node missed something that the history did not hold any more, a second.",
                normal="none.",
                otherwise="subscribers were told (2500, or `gap`). Longer history, or a Redis that keeps its data, "
                "prevents it.",
            ),
            Query(rates(NODES, "gateway_positions_lost_total"), "positions lost"),
            unit="cps",
            limit=0.001,
        ),
        graph(
            "Publishes that nobody was sent",
            About(
                shows="Repeated idempotency keys, and versions that were not above the last, a second.",
                normal="a few: that is what they are for.",
                otherwise="many: a backend repeats its publications; see its time-outs.",
            ),
            Query(rates(BOOKS, "gateway_publishes_suppressed_total", NAMESPACE, "reason"), "{{namespace}} {{reason}}"),
            unit="cps",
        ),
        graph(
            "Links that were lost",
            About(
                shows="Times that channels were received again after a lost link to the broker, and how long it was "
                "lost, both in the last interval.",
                normal="none.",
                otherwise="see the Redis dashboard for the link and the kind of trouble.",
            ),
            Query(
                or_zero(NODES, f"sum(increase({NODES.of('gateway_interruptions_total')}[$__rate_interval]))"), "times"
            ),
            Query(
                or_zero(NODES, f"sum(increase({NODES.of('gateway_interrupted_seconds_total')}[$__rate_interval]))"),
                "seconds",
            ),
            unit="none",
        ),
    ]
