"""Redis, as the nodes see it."""

from grafana_foundation_sdk.builders.dashboard import Dashboard

from deploy.grafana.board import NODES, Query, board, graph, or_nothing, quantile, total, total_by

_PUBLISHED = total("gateway_publications_accepted_total")


def _each(metric: str) -> str:
    """Return how much of *metric* there is for one publication; 0 while nothing is published."""
    return or_nothing(f"{total(metric)} / ({_PUBLISHED} > 0)")


def redis() -> Dashboard:
    """Return the dashboard."""
    state = [
        graph(
            "Up",
            "1 while a node can work with Redis (GatewayBrokerDown).",
            "none",
            [Query(f"gateway_broker_up{{{NODES}}}", "{{instance}}")],
        ),
        graph(
            "Canary",
            "How old the last message is that a node sent to itself through Redis and got back. Up to 5 s is normal.",
            "s",
            [Query(f"gateway_broker_canary_age_seconds{{{NODES}}}", "{{instance}}")],
        ),
        graph(
            "Canary's way",
            "How long that message was under way.",
            "s",
            [Query(f"gateway_broker_canary_round_trip_seconds{{{NODES}}}", "{{instance}}")],
        ),
        graph(
            "Round trips, 99 of 100",
            "Of batches of commands (publish), of PINGs (subscribe), of reads of history and presence (read).",
            "s",
            [Query(or_nothing(f"({quantile(0.99, 'gateway_redis_round_trip_seconds', by='link')} >= 0)"), "{{link}}")],
        ),
        graph(
            "Connects",
            "Links that came up in the last ten minutes; three for each node that started, three for each restart "
            "of Redis.",
            "short",
            [Query(or_nothing(f"sum by (link) (increase(gateway_redis_connects_total{{{NODES}}}[10m]))"), "{{link}}")],
        ),
        graph(
            "Errors",
            "By link and kind. `silent` and `overdue`: Redis or the network stalls. `refused`: error replies.",
            "cps",
            [Query(total_by("link, kind", "gateway_redis_errors_total"), "{{link}} {{kind}}")],
        ),
    ]
    load = [
        graph(
            "Commands and messages",
            "Commands on the publishing links, messages over the subscribing links, and reads.",
            "cps",
            [
                Query(total("gateway_redis_commands_total"), "commands"),
                Query(total("gateway_redis_messages_total"), "messages"),
                Query(total("gateway_redis_reads_total"), "reads"),
            ],
        ),
        graph(
            "Commands in a write",
            "How many commands go out together: the busier a node, the more.",
            "none",
            [
                Query(
                    or_nothing(
                        f"{total('gateway_redis_commands_total')} / ({total('gateway_redis_batches_total')} > 0)"
                    ),
                    "commands",
                )
            ],
        ),
        graph(
            "Bytes",
            "To and from Redis, on the publishing and the subscribing links.",
            "Bps",
            [
                Query(total("gateway_redis_sent_bytes_total"), "sent"),
                Query(total("gateway_redis_received_bytes_total"), "received"),
            ],
        ),
        graph(
            "For one publication",
            "What Redis does for each: one command, and a message for each node that has subscribers. Probes count, "
            "too.",
            "none",
            [
                Query(_each("gateway_redis_commands_total"), "commands"),
                Query(_each("gateway_redis_messages_total"), "messages"),
            ],
        ),
        graph(
            "Subscribe commands",
            "SUBSCRIBE and UNSUBSCRIBE, of many names each. A peak is a node that subscribes anew to all it had.",
            "cps",
            [Query(total("gateway_redis_subscribe_commands_total"), "commands")],
        ),
        graph(
            "Interruptions",
            "Times that channels were received again after a lost link, and seconds without one. What was missed is "
            "read "
            "from streams.",
            "short",
            [
                Query(f"sum(increase(gateway_interruptions_total{{{NODES}}}[10m]))", "in ten minutes"),
                Query(f"sum(increase(gateway_interrupted_seconds_total{{{NODES}}}[10m]))", "seconds in ten minutes"),
            ],
        ),
        graph(
            "Nodes",
            "How many nodes each one counts. Lines that part are nodes that do not hear each other "
            "(GatewayNodesDisagree).",
            "none",
            [Query(f"gateway_nodes{{{NODES}}}", "{{instance}}")],
        ),
        graph(
            "Node to node",
            "How late announcements of other nodes arrive; differences of clocks are in it.",
            "s",
            [Query(or_nothing(f"({quantile(0.99, 'gateway_node_lag_seconds')} >= 0)"), "p99")],
        ),
        graph(
            "What should not be",
            "Messages that no gateway has written, scripts that Redis had forgotten, refused commands, presence not "
            "stored.",
            "cps",
            [
                Query(total("gateway_redis_undecodable_total"), "undecodable"),
                Query(total("gateway_redis_repeated_total"), "scripts sent again"),
                Query(total("gateway_redis_refused_total"), "refused"),
                Query(total("gateway_presence_failures_total"), "presence"),
            ],
        ),
    ]
    return board(
        "gateway-redis",
        "Gateway: Redis",
        "Redis as the nodes see it: is it there, how fast is it, what is it asked.",
        [("State", state), ("Load", load)],
    )
