"""The whole system on one page: is it well, what does it do, what goes wrong."""

from grafana_foundation_sdk.builders.dashboard import Dashboard

from deploy.grafana.board import (
    NODES,
    Query,
    board,
    graph,
    number,
    or_nothing,
    quantiles,
    rows,
    total,
    total_by,
)

_JOB = 'job="gateway"'


def overview() -> Dashboard:
    """Return the dashboard."""
    health = [
        number(
            "Nodes that answer",
            "Nodes that Prometheus reaches. Fewer than you run: look for the missing one (GatewayFewerNodes).",
            "none",
            f"sum(up{{{_JOB}}})",
            bad_below=1,
        ),
        number(
            "Nodes that are ready",
            "Nodes that take new clients. One that drains, or is without Redis, does not (GatewayNotReady).",
            "none",
            f"sum(gateway_ready{{{_JOB}}})",
            bad_below=1,
        ),
        number("Connections", "Open connections on all nodes.", "short", f"sum(gateway_connections{{{_JOB}}})"),
        number(
            "Deliveries a second",
            "Publications handed to clients' sockets, once for each client.",
            "cps",
            total("gateway_deliveries_total", _JOB),
        ),
        number(
            "Ledger",
            "Deliveries that were due and neither made nor given up: 0 always, or there is a bug "
            "(GatewayLedgerOutOfBalance).",
            "none",
            'sum(abs(instance_namespace:gateway_ledger:imbalance{job="gateway"}))',
            bad_above=1,
        ),
        number(
            "Oldest canary",
            "A message of a node to itself through Redis comes back within seconds, or Redis is deaf "
            "(GatewayBrokerCanaryOld).",
            "s",
            f"max(gateway_broker_canary_age_seconds{{{_JOB}}})",
            bad_above=10,
        ),
    ]
    traffic = [
        graph(
            "Connections by node",
            "With a balancer that goes by the fewest connections these lines lie together; a restarted node catches "
            "up.",
            "short",
            [Query(f"gateway_connections{{{NODES}}}", "{{instance}}")],
        ),
        graph(
            "Publications",
            "Accepted from clients and backends, and delivered to clients. The ratio is how many listen to each.",
            "cps",
            [
                Query(total("gateway_publications_accepted_total"), "accepted"),
                Query(total("gateway_deliveries_total"), "delivered"),
            ],
        ),
        graph(
            "Publish to write",
            "From accepting a publication to having it in its node's sockets. Some milliseconds are normal; a "
            "promise of "
            "100 ms for 99 of 100 has an error budget (GatewayErrorBudgetBurn).",
            "s",
            quantiles("gateway_publish_to_write_seconds"),
        ),
        graph(
            "Connects and disconnects",
            "Connections accepted, and ended by a node or by the other side. Equal lines are clients that come and go; "
            "a peak of all three is a storm (GatewayReconnectStorm).",
            "cps",
            [
                Query(or_nothing(total("gateway_connections_accepted_total")), "accepted"),
                Query(or_nothing(total("gateway_disconnects_total")), "ended by a node"),
                Query(total("gateway_closes_by_peer_total"), "ended by the client or the network"),
            ],
        ),
        graph(
            "Commands by method",
            "What clients ask for. Pings are no commands.",
            "cps",
            [Query(total_by("method", "gateway_commands_total"), "{{method}}")],
            stacked=True,
        ),
        graph(
            "Traffic",
            "Bytes from and to clients, framing included, before TLS.",
            "Bps",
            [
                Query(total("gateway_received_bytes_total"), "received"),
                Query(total("gateway_sent_bytes_total"), "sent"),
            ],
        ),
    ]
    trouble = [
        graph(
            "Error replies by code",
            "100 is trouble of ours, mostly Redis; 103, 105 and 107 are clients' mistakes, 111 a limit they reach.",
            "cps",
            [Query(total_by("code", "gateway_errors_total"), "{{code}}")],
        ),
        graph(
            "Drops by reason",
            "Deliveries that were due and not made. `slow` and `not_json` cut their client "
            "(GatewayDeliveriesDropped); the "
            "others left in that moment.",
            "cps",
            [Query(total_by("reason", "gateway_deliveries_dropped_total"), "{{reason}}")],
        ),
        graph(
            "Refused",
            "Connections and tokens that were not let in, by reason. A few are strangers.",
            "cps",
            [
                Query(total_by("reason", "gateway_connections_refused_total"), "connection: {{reason}}"),
                Query(total_by("cause", "gateway_token_failures_total"), "token: {{cause}}"),
            ],
        ),
        graph(
            "Event loop lag",
            "The greatest of the last seconds on each node: everything there waits that long (GatewayEventLoopLag). "
            "Below "
            "50 ms is normal.",
            "s",
            [Query(f"gateway_event_loop_lag_recent_max_seconds{{{NODES}}}", "{{instance}}")],
        ),
        graph(
            "CPU by node",
            "A node uses one core at most. Near 1 it is full: add nodes.",
            "percentunit",
            [Query(f"rate(process_cpu_seconds_total{{{NODES}}}[$__rate_interval])", "{{instance}}")],
        ),
        graph(
            "Memory by node",
            "Resident memory: some 50 MB, and 10 KB for each connection.",
            "bytes",
            [Query(f"process_resident_memory_bytes{{{NODES}}}", "{{instance}}")],
        ),
    ]
    nodes = rows(
        "Nodes",
        "Each node now. `alive`, `ready` and `Redis` are 1 when all is well.",
        [
            Query(f"sum by (instance) (gateway_alive{{{NODES}}})", "alive"),
            Query(f"sum by (instance) (gateway_ready{{{NODES}}})", "ready"),
            Query(f"sum by (instance) (gateway_broker_up{{{NODES}}})", "Redis"),
            Query(f"sum by (instance) (gateway_drain_active{{{NODES}}})", "drains"),
            Query(f"sum by (instance) (gateway_connections{{{NODES}}})", "connections"),
            Query(f"sum by (instance) (gateway_subscriptions{{{NODES}}})", "subscriptions"),
            Query(f"sum by (instance) (time() - process_start_time_seconds{{{NODES}}})", "seconds up"),
        ],
    )
    budgets = graph(
        "Error budgets, last hour",
        "Shares of commands that failed with error 100 (0.1 % allowed) and of publications that took longer than "
        "100 ms "
        "(1 % allowed). See GatewayErrorBudgetBurn.",
        "percentunit",
        [
            Query(or_nothing('job:gateway_command_errors:ratio_rate1h{job="gateway"} >= 0'), "commands"),
            Query(or_nothing('job:gateway_publications_late:ratio_rate1h{job="gateway"} >= 0'), "latency"),
        ],
        span=24,
    )
    return board(
        "gateway-overview",
        "Gateway: overview",
        "Is the system well, what does it do, and what goes wrong.",
        [("Health", health), ("Traffic", traffic), ("Trouble", trouble), ("Nodes and promises", [nodes, budgets])],
    )
