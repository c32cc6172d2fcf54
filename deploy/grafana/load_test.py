"""A load test that runs with `--prometheus-port`, beside what it does to the nodes."""

from grafana_foundation_sdk.builders.dashboard import Dashboard

from deploy.grafana.board import NODES, Query, board, graph, or_nothing, total

_TEST = 'job="loadtest"'


def load_test() -> Dashboard:
    """Return the dashboard."""
    clients = [
        graph(
            "Connections",
            "Clients that the load test holds, and what the nodes count.",
            "short",
            [
                Query(f"sum(loadtest_connections{{{_TEST}}})", "load test"),
                Query(f"sum(gateway_connections{{{NODES}}})", "nodes"),
            ],
        ),
        graph(
            "Reconnects",
            "Clients that connected again. 0 unless something was broken on purpose.",
            "cps",
            [Query(total("loadtest_reconnects_total", _TEST), "reconnects")],
        ),
        graph(
            "Errors",
            "By what went wrong.",
            "cps",
            [
                Query(
                    or_nothing(f"sum by (error) (rate(loadtest_errors_total{{{_TEST}}}[$__rate_interval]))"),
                    "{{error}}",
                )
            ],
        ),
    ]
    messages = [
        graph(
            "Publications",
            "Sent, and acknowledged by a node.",
            "cps",
            [
                Query(total("loadtest_publications_total", _TEST), "sent"),
                Query(total("loadtest_acknowledged_total", _TEST), "acknowledged"),
            ],
        ),
        graph(
            "Deliveries",
            "Counted by the load test, each checked for its place, and counted by the nodes.",
            "cps",
            [
                Query(total("loadtest_deliveries_total", _TEST), "load test"),
                Query(total("gateway_deliveries_total"), "nodes"),
            ],
        ),
        graph(
            "Latency",
            "From the intended time of a publication to its arrival, of the last second: a stall can't hide in it.",
            "s",
            [Query(f"loadtest_delivery_latency_seconds{{{_TEST}}}", "{{percentile}}")],
        ),
        graph(
            "Behind schedule",
            "How late the load test itself sends: above some milliseconds it measures itself.",
            "s",
            [Query(f"loadtest_behind_seconds{{{_TEST}}}", "behind")],
        ),
        graph(
            "CPU",
            "Of the load test's workers, and of the nodes.",
            "percentunit",
            [
                Query(f"sum(rate(loadtest_worker_cpu_seconds_total{{{_TEST}}}[$__rate_interval]))", "load test"),
                Query(f"sum(rate(process_cpu_seconds_total{{{NODES}}}[$__rate_interval]))", "nodes"),
            ],
            span=16,
        ),
    ]
    return board(
        "gateway-loadtest",
        "Gateway: load test",
        "A run of `python -m loadtest run … --prometheus-port 9100`, scraped as job loadtest.",
        [("Clients", clients), ("Messages", messages)],
    )
