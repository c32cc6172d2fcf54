"""One node in depth."""

from typing import Final

from deploy.grafana.clients import commands, connections, writing
from deploy.grafana.frame import Frame, Section, nodes, restarts
from deploy.grafana.panels import BAD, GOOD, ODD, About, Panel, Query, figure, graph, heat, named
from deploy.grafana.promql import NODES, levels, rate, summed
from deploy.grafana.promql import heat as filling

UID: Final = "gateway-node"
_YES: Final = {"1": "yes", "0": "no"}
_RED_BELOW_1: Final = ((None, BAD), (1, GOOD))
_NO_TLS: Final = "-1"


def node() -> Frame:
    """Return the dashboard."""
    return Frame(
        UID,
        "Gateway: a node",
        "One node in depth: choose it above.",
        [nodes(is_single=True)],
        [
            Section("State", _state()),
            Section("Event loop and process", _process()),
            Section("Who comes and goes", connections()),
            Section("Commands", commands()),
            Section("What goes out", writing()),
            Section("Drain", _drain()),
        ],
        [restarts(NODES.targets)],
    )


def _state() -> list[Panel]:
    certificate = f"{NODES.of('gateway_tls_certificate_expiry_timestamp_seconds')} - time()"
    return [
        figure(
            "Ready",
            About(
                shows="Whether the node wants new clients (/readyz).",
                normal="yes, but while it starts or drains.",
                otherwise="`/readyz?verbose` on its internal port names the reason. Its clients stay connected.",
            ),
            Query(f"min({NODES.of('gateway_ready')})", "ready"),
            unit="none",
            width=3,
            limits=_RED_BELOW_1,
            words=_YES,
        ),
        figure(
            "Alive",
            About(
                shows="Whether all tasks that the node lives by do their work (/livez).",
                normal="yes.",
                otherwise="`/livez` names the task that died or hangs; keep the log and restart the node.",
            ),
            Query(f"min({NODES.of('gateway_alive')})", "alive"),
            unit="none",
            width=3,
            limits=_RED_BELOW_1,
            words=_YES,
        ),
        figure(
            "Up for",
            About(
                shows="How long the process has run.",
                normal="since your last deployment.",
                otherwise="less: it was restarted or it crashed; the end of its log before that tells.",
            ),
            Query(f"time() - min({NODES.of('process_start_time_seconds')})", "up"),
            unit="s",
            width=3,
        ),
        named(
            "Version",
            About(
                shows="The version of the gateway and of Python, and the event loop.",
                normal="the same on all nodes; `uvloop` on Linux and macOS.",
                otherwise="`asyncio` instead of `uvloop` takes twice the CPU for a delivery.",
            ),
            Query(NODES.of("gateway_build_info"), "{{version}}, Python {{python}}, {{loop}}"),
            width=6,
        ),
        figure(
            "Users",
            About(
                shows="Users with at least one connection to this node.",
                normal="not more than connections; anonymous clients are nobody.",
                otherwise="far fewer than connections: the same users connect many times, see `user_connection_limit`.",
            ),
            Query(levels(NODES, "gateway_users"), "users"),
            unit="short",
            width=3,
        ),
        figure(
            "Channels",
            About(
                shows="Channels with at least one subscriber on this node.",
                normal="what your application has.",
                otherwise="a number that only grows: clients subscribe and never unsubscribe.",
            ),
            Query(levels(NODES, "gateway_channels"), "channels"),
            unit="short",
            width=3,
        ),
        figure(
            "Certificate ends in",
            About(
                shows="How long the certificate of the public port holds.",
                normal="more than two weeks; `no TLS` where a balancer does that.",
                otherwise="renew it, then `kill -HUP` the node: nobody is cut.",
            ),
            Query(f"min({certificate}) or {_NO_TLS} * {NODES.present()}", "rest"),
            unit="s",
            width=3,
            limits=((None, GOOD), (0, BAD), (604_800, ODD), (1_209_600, GOOD)),
            words={_NO_TLS: "no TLS"},
        ),
    ]


def _process() -> list[Panel]:
    return [
        heat(
            "Event loop's lag",
            About(
                shows="How late a timer of 100 ms was: a column for each moment, darker where more of them were.",
                normal="nearly all below 1 ms, some up to 25 ms.",
                otherwise="a band above 50 ms: everything on this node waits as long. See CPU beside it; if that is "
                "below a core, others use the machine.",
            ),
            filling(NODES, "gateway_event_loop_lag_seconds"),
        ),
        graph(
            "Event loop's lag at most",
            About(
                shows="The greatest lag of the last 15 to 30 seconds.",
                normal="below 50 ms.",
                otherwise="single peaks are work of one piece, such as a scrape with many connections; a high line is "
                "load.",
            ),
            Query(f"max({NODES.of('gateway_event_loop_lag_recent_max_seconds')})", "lag"),
            unit="s",
            width=12,
            limit=0.25,
        ),
        graph(
            "CPU",
            About(
                shows="Cores that the process uses.",
                normal="below 0.7: a node has one event loop, so it ends at about 1.",
                otherwise="near 1 the lag rises: spread the clients over more nodes.",
            ),
            Query(summed(rate(NODES, "process_cpu_seconds_total")), "cores"),
            unit="percentunit",
            limit=0.9,
        ),
        graph(
            "Memory",
            About(
                shows="The resident set of the process.",
                normal="some 90 MB, and 3 to 10 KB for a connection.",
                otherwise="it grows with the bytes in outboxes: see below. If it grows without connections, report it.",
            ),
            Query(levels(NODES, "process_resident_memory_bytes"), "resident"),
            unit="bytes",
        ),
        graph(
            "Open files",
            About(
                shows="Descriptors in use, and how many the process may have.",
                normal="connections and some twenty.",
                otherwise="near the limit new connections are refused: raise it (`LimitNOFILE`, `ulimit -n`).",
            ),
            Query(levels(NODES, "process_open_fds"), "open"),
            Query(levels(NODES, "process_max_fds"), "limit"),
            unit="short",
        ),
    ]


def _drain() -> list[Panel]:
    return [
        figure(
            "Draining",
            About(
                shows="Whether the node parts with its clients.",
                normal="no, but for the time of a deployment.",
                otherwise="somebody asked it to: a signal, or `drain` of the server API. The log says `draining`.",
            ),
            Query(f"max({NODES.of('gateway_drain_active')})", "draining"),
            unit="none",
            height=8,
            limits=((None, GOOD), (1, ODD)),
            words=_YES,
        ),
        graph(
            "How far it is",
            About(
                shows="Who is still there, who was there when it began, and who was sent away since.",
                normal="a straight line down to 0 over `drain.window`.",
                otherwise="a line that stays: clients that do not go are cut at `shutdown.timeout`.",
            ),
            Query(levels(NODES, "gateway_connections"), "connected"),
            Query(levels(NODES, "gateway_drain_clients"), "were there"),
            Query(levels(NODES, "gateway_drain_sent_away_total"), "sent away"),
            unit="short",
            width=20,
        ),
    ]
