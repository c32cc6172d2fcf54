"""A node in depth."""

from grafana_foundation_sdk.builders.dashboard import Dashboard

from deploy.grafana.board import (
    NODES,
    Query,
    board,
    graph,
    heat,
    or_nothing,
    quantile,
    quantiles,
    rate,
    total_by,
)


def node() -> Dashboard:
    """Return the dashboard."""
    load = [
        heat(
            "Event loop lag",
            "How late timers were. Dark is often: what is above 50 ms again and again is felt by clients.",
            "gateway_event_loop_lag_seconds",
            NODES,
        ),
        graph(
            "CPU, user and all",
            "One core at most. A node that is far below it and yet late does not get the CPU that it wants.",
            "percentunit",
            [Query(rate("process_cpu_seconds_total"), "{{instance}}")],
            span=12,
        ),
        graph(
            "Memory",
            "Resident memory. It grows with connections and with what waits for slow readers.",
            "bytes",
            [Query(f"process_resident_memory_bytes{{{NODES}}}", "{{instance}}")],
        ),
        graph(
            "File descriptors",
            "Open ones as a share of the limit. Each connection takes one (GatewayFileDescriptors).",
            "percentunit",
            [Query(f"process_open_fds{{{NODES}}} / process_max_fds{{{NODES}}}", "{{instance}}")],
        ),
        graph(
            "Fan-out of a turn",
            "Encoding and writing what one turn of the event loop brought, for all subscribers. Large channels take "
            "long.",
            "s",
            quantiles("gateway_fanout_duration_seconds"),
        ),
    ]
    connections = [
        graph(
            "Connections by kind",
            "Transport, protocol, and what clients call themselves, as far as metrics.client_names lists it.",
            "short",
            [
                Query(
                    f"sum by (transport, protocol, name) (gateway_connections_by_client{{{NODES}}})",
                    "{{transport}} {{protocol}} {{name}}",
                )
            ],
            stacked=True,
        ),
        graph(
            "Share of the limit",
            "Connections against client.connection_limit; 0 where there is no limit (GatewayConnectionsNearLimit).",
            "percentunit",
            [
                Query(
                    or_nothing(f"gateway_connections{{{NODES}}} / (gateway_connection_limit{{{NODES}}} > 0)"),
                    "{{instance}}",
                )
            ],
        ),
        graph(
            "Ends by code",
            "Connections that the node closed. 3001 drain, 3005 expired, 3008 slow, 3012 no pong; the README has all.",
            "cps",
            [Query(total_by("code", "gateway_disconnects_total"), "{{code}}")],
        ),
        graph(
            "Ping to pong",
            "How long clients take to answer a ping: their networks, mostly.",
            "s",
            quantiles("gateway_ping_pong_seconds"),
        ),
        graph(
            "What waits for slow readers",
            "Bytes in the transports. Above client.queue_max_size for one client, it is cut (3008).",
            "bytes",
            [Query(f"gateway_outbox_bytes{{{NODES}}}", "{{instance}}")],
        ),
        graph(
            "Congested connections",
            "Connections for which bytes wait. A few are mobile networks; many at once, a network of ours.",
            "short",
            [Query(f"gateway_connections_congested{{{NODES}}}", "{{instance}}")],
        ),
    ]
    work = [
        graph(
            "Commands, 99 of 100",
            "From taking a command up to its answer, by method.",
            "s",
            [
                Query(
                    or_nothing(f"({quantile(0.99, 'gateway_command_duration_seconds', by='method')} >= 0)"),
                    "{{method}}",
                )
            ],
        ),
        graph(
            "Server API",
            "Calls of backends by method.",
            "cps",
            [Query(total_by("method", "gateway_api_calls_total"), "{{method}}")],
        ),
        graph(
            "Limits that were reached",
            "By limit; whoever reaches one gets an error, or is cut.",
            "cps",
            [Query(total_by("limit", "gateway_limit_hits_total"), "{{limit}}")],
        ),
        graph(
            "Drain",
            "Clients that are left while the node parts with them, and those it has sent away. 0 while it does not "
            "drain.",
            "short",
            [
                Query(f"gateway_connections{{{NODES}}} * gateway_drain_active{{{NODES}}}", "{{instance}} left"),
                Query(f"gateway_drain_sent_away_total{{{NODES}}}", "{{instance}} sent away"),
            ],
        ),
        graph(
            "HTTP requests",
            "On both ports, by path and status. Upgrades are not among them.",
            "cps",
            [Query(total_by("port, path, status", "gateway_http_requests_total"), "{{port}} {{path}} {{status}}")],
        ),
        graph(
            "Channels and users",
            "Channels with subscribers on the node, subscriptions, and users.",
            "short",
            [
                Query(f"sum(gateway_channels{{{NODES}}})", "channels"),
                Query(f"sum(gateway_subscriptions{{{NODES}}})", "subscriptions"),
                Query(f"sum(gateway_users{{{NODES}}})", "users"),
            ],
        ),
    ]
    return board(
        "gateway-node",
        "Gateway: a node in depth",
        "What one node does and what it costs; choose it above.",
        [("Load", load), ("Connections", connections), ("Work", work)],
    )
