"""The first look: is the system well, and if not, where."""

from typing import Final

from deploy.grafana.frame import NODE_LINK, Frame, Section, nodes, restarts
from deploy.grafana.panels import BAD, GOOD, ODD, About, Column, Panel, Query, figure, graph, listing
from deploy.grafana.promql import NODE, NODES, imbalance, levels, or_zero, quantile, rate, rates, summed

UID: Final = "gateway-overview"
_LATENCY: Final = "gateway_publish_to_write_seconds"
_LATENCY_ABOUT: Final = About(
    shows="From accepting a publication to having handed it to the subscribers' connections on the same node. "
    "`quiet`: nothing was published.",
    normal="some milliseconds with Redis, less without.",
    otherwise="compare with Redis' round trip and the event loop's lag: one of them is most of it.",
)
_UP: Final = NODES.of("up")
_RED_FROM_1: Final = ((None, GOOD), (1, BAD))


def overview() -> Frame:
    """Return the dashboard."""
    return Frame(
        UID,
        "Gateway: overview",
        "All nodes together. Look here first; the other dashboards with the tag `gateway` go deeper.",
        [nodes()],
        [
            Section("Now", [*_well(), *_busy()]),
            Section("Traffic", _traffic()),
            Section("Trouble", _trouble()),
            Section("Broker and event loop", _below()),
            Section("Nodes", [_table()]),
        ],
        [restarts(NODES.targets)],
    )


def _well() -> list[Panel]:
    return [
        figure(
            "Nodes up",
            About(
                shows="Nodes that Prometheus could scrape.",
                normal="as many as you run.",
                otherwise="see which is missing in the table below, and read its log.",
            ),
            Query(f"sum({_UP})", "up"),
            unit="none",
        ),
        figure(
            "Nodes not ready",
            About(
                shows="Nodes that can't be scraped, or whose /readyz answers 503: they start, drain, are short of "
                "memory or have been without their broker for too long. No balancer sends them new clients.",
                normal="0, and 1 while nodes are restarted in turn.",
                otherwise="ask the node itself: `/readyz?verbose` on its internal port names the reason.",
            ),
            Query(f"count({_UP}) - (sum({NODES.of('gateway_ready')}) or vector(0))", "not ready"),
            unit="none",
            limits=_RED_FROM_1,
        ),
        figure(
            "Ledger",
            About(
                shows="Deliveries that are in no column of the books: due, less delivered, filtered, dropped and "
                "queued.",
                normal="0, at any moment and under any load.",
                otherwise="deliveries go missing and nobody counts why. That is a fault of the gateway: keep the log "
                "and the metrics, and report it.",
            ),
            Query(f"abs({imbalance(NODES)})", "unaccounted for"),
            unit="none",
            limits=_RED_FROM_1,
        ),
        figure(
            "Drops",
            About(
                shows="Deliveries that were due and not made, a second.",
                normal="0; a few while clients leave in the moment of a publication.",
                otherwise="look at the reasons under Trouble. `slow` means clients that read too slowly.",
            ),
            Query(rates(NODES, "gateway_deliveries_dropped_total"), "drops"),
            unit="cps",
            limits=((None, GOOD), (1, ODD), (100, BAD)),
        ),
        figure(
            "Broker's last sign of life",
            About(
                shows="The age of the oldest canary: a message that each node sends to itself through its broker.",
                normal="a few seconds at most.",
                otherwise="the node can't publish or hear others: look at the Redis dashboard.",
            ),
            Query(f"max({NODES.of('gateway_broker_canary_age_seconds')})", "age"),
            unit="s",
            limits=((None, GOOD), (5, ODD), (10, BAD)),
        ),
        figure(
            "Event loop's lag",
            About(
                shows="How late the event loop of the busiest node was at most, in the last 15 to 30 seconds.",
                normal="below 50 ms; everything on that node waits as long.",
                otherwise="the node is too busy, or its machine is: see its CPU, and spread the clients over more "
                "nodes.",
            ),
            Query(f"max({NODES.of('gateway_event_loop_lag_recent_max_seconds')})", "lag"),
            unit="s",
            limits=((None, GOOD), (0.05, ODD), (0.25, BAD)),
        ),
    ]


def _busy() -> list[Panel]:
    return [
        figure(
            "Connections",
            About(
                shows="Open connections of all nodes.",
                normal="what your users are at this hour.",
                otherwise="a sudden fall is a node, a balancer or a network that went; see who refuses, below.",
            ),
            Query(levels(NODES, "gateway_connections"), "connections"),
            unit="short",
        ),
        figure(
            "Publications",
            About(
                shows="Publications that nodes took from clients and backends, a second.",
                normal="what your applications send at this hour.",
                otherwise="at 0 while clients are there: see the error replies, and whether the broker is up.",
            ),
            Query(rates(NODES, "gateway_publications_accepted_total"), "publications"),
            unit="cps",
        ),
        figure(
            "Deliveries",
            About(
                shows="Publications that were handed to connections, a second: each counts once for each subscriber.",
                normal="publications times subscribers of their channels.",
                otherwise="fewer than publications means that nearly nobody listens.",
            ),
            Query(rates(NODES, "gateway_deliveries_total"), "deliveries"),
            unit="cps",
        ),
        figure(
            "Publish to write, p50",
            _LATENCY_ABOUT,
            Query(quantile(NODES, 0.5, _LATENCY), "p50"),
            unit="s",
            limits=((None, GOOD), (0.025, ODD), (0.25, BAD)),
        ),
        figure(
            "Publish to write, p99",
            _LATENCY_ABOUT,
            Query(quantile(NODES, 0.99, _LATENCY), "p99"),
            unit="s",
            limits=((None, GOOD), (0.1, ODD), (0.5, BAD)),
        ),
        figure(
            "Error replies",
            About(
                shows="Commands of clients that were answered with an error, a second.",
                normal="near 0; a few by clients without the permission.",
                otherwise="see the codes under Trouble: 100 is ours or the broker's, most others are the client's.",
            ),
            Query(rates(NODES, "gateway_errors_total"), "errors"),
            unit="cps",
            limits=((None, GOOD), (1, ODD), (50, BAD)),
        ),
    ]


def _traffic() -> list[Panel]:
    return [
        graph(
            "Connections",
            About(
                shows="Open connections by node.",
                normal="all nodes have about the same.",
                otherwise="a node that was restarted fills slowly, since nobody is moved; a balancer that prefers one "
                "shows here.",
            ),
            Query(levels(NODES, "gateway_connections", NODE), "{{instance}}"),
            unit="short",
            width=6,
            stacked=True,
        ),
        graph(
            "Publications accepted",
            About(
                shows="Publications by the node that took them, a second.",
                normal="spread as the publishing clients are.",
                otherwise="one node alone: a publisher that sends much; it may spread over several connections.",
            ),
            Query(rates(NODES, "gateway_publications_accepted_total", NODE), "{{instance}}"),
            unit="cps",
            width=6,
            stacked=True,
        ),
        graph(
            "Deliveries",
            About(
                shows="Deliveries by node, a second.",
                normal="spread as the subscribers are.",
                otherwise="a node that delivers nothing while it has connections: look at it in depth.",
            ),
            Query(rates(NODES, "gateway_deliveries_total", NODE), "{{instance}}"),
            unit="cps",
            width=6,
            stacked=True,
        ),
        graph(
            "Publish to write",
            _LATENCY_ABOUT,
            Query(quantile(NODES, 0.5, _LATENCY), "p50"),
            Query(quantile(NODES, 0.99, _LATENCY), "p99"),
            unit="s",
            width=6,
            limit=0.1,
        ),
    ]


def _trouble() -> list[Panel]:
    return [
        graph(
            "Drops by reason",
            About(
                shows="Deliveries that were due and not made, by reason, a second.",
                normal="none; a few of `closed`, `disconnected` and `unsubscribed` while many come and go.",
                otherwise="`slow`: readers fell behind and were cut (3008), see the outbox of their node. `not_json`: "
                "binary data in a channel with JSON clients. `shutdown`: a node stops.",
            ),
            Query(rates(NODES, "gateway_deliveries_dropped_total", "reason"), "{{reason}}"),
            unit="cps",
            stacked=True,
        ),
        graph(
            "Error replies by code",
            About(
                shows="Error replies to commands of clients, a second.",
                normal="few.",
                otherwise="100: the broker is away, or a fault of the gateway. 101, 103, 109: tokens and permissions. "
                "102: no such namespace. 106, 111: limits. 107: what the client sent.",
            ),
            Query(rates(NODES, "gateway_errors_total", "code", "method"), "{{code}} {{method}}"),
            unit="cps",
            stacked=True,
        ),
        graph(
            "Connections refused",
            About(
                shows="Upgrade requests that were refused, by reason, a second.",
                normal="none, or a few strangers.",
                otherwise="origins: `client.allowed_origins` lacks a site. Limits: add nodes, or raise them.",
            ),
            Query(rates(NODES, "gateway_connections_refused_total", "reason"), "{{reason}}"),
            unit="cps",
            stacked=True,
        ),
        graph(
            "Connections ended by the server",
            About(
                shows="Connections that nodes closed, by the code that clients were told, a second.",
                normal="3001 while a node drains, else few.",
                otherwise="3008: too slow a reader. 3012: no pong, so a network that went. 3500: a bad token. 3501: "
                "no client of this protocol. 3502: who never authenticated. 3010: something was missed for good. "
                "3013, 3504, 3505: limits.",
            ),
            Query(rates(NODES, "gateway_disconnects_total", "code"), "{{code}}"),
            unit="cps",
            stacked=True,
        ),
        graph(
            "Limits reached, tokens refused",
            About(
                shows="Limits that clients ran into, and tokens that were not good, a second.",
                normal="near 0; expired tokens come back with a fresh one.",
                otherwise="a cause that grows after a deployment is a key or a clock: `gateway token check` tells why.",
            ),
            Query(rates(NODES, "gateway_limit_hits_total", "limit"), "limit {{limit}}"),
            Query(rates(NODES, "gateway_token_failures_total", "cause"), "token {{cause}}"),
            unit="cps",
        ),
        graph(
            "Ledger",
            About(
                shows="Deliveries that are in no column of the books, by node.",
                normal="0 on each node.",
                otherwise="report it with this node's log: each delivery that was due must be in one column.",
            ),
            Query(imbalance(NODES, NODE), "{{instance}}"),
            unit="none",
            limit=1,
        ),
    ]


def _below() -> list[Panel]:
    errors = rates(NODES, "gateway_redis_errors_total", "kind", "link")
    return [
        graph(
            "Canary: age",
            About(
                shows="How long ago each node's message to itself came back through its broker.",
                normal="a saw of a few seconds.",
                otherwise="a line that climbs is a node that lost its broker; all of them: the broker is gone.",
            ),
            Query(f"max by (instance) ({NODES.of('gateway_broker_canary_age_seconds')})", "{{instance}}"),
            unit="s",
            width=6,
            limit=10,
        ),
        graph(
            "Canary: round trip",
            About(
                shows="How long that message was on its way: the broker's pub/sub as clients feel it.",
                normal="some milliseconds; much less without Redis.",
                otherwise="see Redis' round trips by link, and the event loop's lag of that node.",
            ),
            Query(f"max by (instance) ({NODES.of('gateway_broker_canary_round_trip_seconds')})", "{{instance}}"),
            unit="s",
            width=6,
            limit=0.5,
        ),
        graph(
            "Event loop's lag",
            About(
                shows="How late each node's event loop was at most, in the last 15 to 30 seconds.",
                normal="below 50 ms.",
                otherwise="that node is too busy, or shares its core. Compare its CPU.",
            ),
            Query(f"max by (instance) ({NODES.of('gateway_event_loop_lag_recent_max_seconds')})", "{{instance}}"),
            unit="s",
            width=6,
            limit=0.25,
        ),
        graph(
            "Trouble with Redis",
            About(
                shows="What went wrong between nodes and Redis, a second.",
                normal="none. Nodes without Redis have none.",
                otherwise="look at the Redis dashboard, which explains each kind.",
            ),
            Query(errors, "{{kind}} {{link}}"),
            unit="cps",
            width=6,
        ),
    ]


def _table() -> Panel:
    def by_node(name: str) -> str:
        return summed(NODES.of(name), NODE)

    return listing(
        "Nodes",
        About(
            shows="Each node as Prometheus scraped it last. Its name leads to the node in depth.",
            normal="all up and ready, of one version, with about the same figures.",
            otherwise="a row with `up` 0 can't be reached; one that is up and not ready says why at `/readyz?verbose`.",
        ),
        [
            Column("Up", f"max by (instance) ({_UP})", "none", ((None, BAD), (1, GOOD))),
            Column("Ready", by_node("gateway_ready"), "none", ((None, BAD), (1, GOOD))),
            Column("", f"max by (instance, version) ({NODES.of('gateway_build_info')})"),
            Column("Sees nodes", by_node("gateway_nodes"), "none"),
            Column("Connections", by_node("gateway_connections")),
            Column("Channels", by_node("gateway_channels")),
            Column("Deliveries", rates(NODES, "gateway_deliveries_total", NODE), "cps"),
            Column("Drops", rates(NODES, "gateway_deliveries_dropped_total", NODE), "cps", ((None, GOOD), (1, ODD))),
            Column("Publish to write, p99", quantile(NODES, 0.99, _LATENCY, NODE), "s", ((None, GOOD), (0.1, ODD))),
            Column("Lag", by_node("gateway_event_loop_lag_recent_max_seconds"), "s", ((None, GOOD), (0.05, ODD))),
            Column("CPU", or_zero(NODES, summed(rate(NODES, "process_cpu_seconds_total"), NODE), NODE), "percentunit"),
            Column("Memory", by_node("process_resident_memory_bytes"), "bytes"),
            Column("Broker", by_node("gateway_broker_up"), "none", ((None, BAD), (1, GOOD))),
        ],
        keys={"instance": "Node", "version": "Version"},
        link=NODE_LINK,
    )
