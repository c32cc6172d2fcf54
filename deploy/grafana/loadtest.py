"""A load test while it runs: what its clients see, beside what the nodes say."""

from typing import Final

from deploy.grafana.frame import Event, Frame, Section
from deploy.grafana.panels import BAD, GOOD, ODD, About, Panel, Query, figure, graph, heat, named
from deploy.grafana.promql import LOAD, LOADED, NODE, levels, or_blank, or_zero, quantile, rate, rates, summed
from deploy.grafana.promql import heat as filling

UID: Final = "gateway-loadtest"
_LATENCY: Final = "loadtest_delivery_latency_seconds"
_LAST_SECOND: Final = "loadtest_delivery_latency_last_second_seconds"
_CHAOS: Final = "loadtest_chaos_events_total"


def load_test() -> Frame:
    """Return the dashboard."""
    return Frame(
        UID,
        "Gateway: load test",
        "A run of `python -m loadtest run … --prometheus-port PORT`, which serves these figures as long as it lasts. "
        "Panels without data: no run is scraped.",
        [],
        [
            Section("Now", _now()),
            Section("What clients see", _clients()),
            Section("Latency", _latency()),
            Section("Is it the load's own fault", _load_side()),
            Section("The nodes meanwhile", _nodes()),
        ],
        [Event("Chaos", f"changes({LOAD.of(_CHAOS)}[$__rate_interval]) > 0", "red")],
        tags=["loadtest"],
    )


def _now() -> list[Panel]:
    return [
        named(
            "Phase",
            About(
                shows="Which phase the run is in.",
                normal="ramp-up, plateau, drain, ramp-down, one after the other.",
                otherwise="a ramp-up that does not end: clients can't connect or subscribe, see the errors.",
            ),
            Query(or_zero(LOAD, f"{LOAD.of('loadtest_phase')} == 1", "phase", word="start"), "{{phase}}"),
        ),
        figure(
            "Connections missing",
            About(
                shows="Clients that are wanted, and not connected and subscribed.",
                normal="0 from the plateau on; scenarios in which clients come and go always miss some.",
                otherwise="they are on their way back, or refused: see the errors.",
            ),
            Query(
                f"{levels(LOAD, 'loadtest_connections_wanted')} - {summed(LOAD.of('loadtest_connections'))}", "missing"
            ),
            unit="none",
            limits=((None, GOOD), (1, ODD)),
        ),
        figure(
            "Deliveries",
            About(
                shows="Publications that came to a subscriber, a second.",
                normal="`rate` times subscribers.",
                otherwise="less: see whether publications are acknowledged.",
            ),
            Query(rates(LOAD, "loadtest_deliveries_total"), "deliveries"),
            unit="cps",
        ),
        figure(
            "Latency of the last second, p99",
            About(
                shows="From the intended sending to the delivery. `quiet`: nothing was delivered.",
                normal="some milliseconds.",
                otherwise="see whether the load keeps its schedule, then the nodes' lag.",
            ),
            Query(or_blank(LOAD, f"max({_last_second('99')})"), "p99"),
            unit="s",
            limits=((None, GOOD), (0.1, ODD), (0.5, BAD)),
        ),
        figure(
            "Faults",
            About(
                shows="Deliveries that came twice, too late for their order, or were not of this run. Losses are "
                "known at the end only, and are in the results.",
                normal="0.",
                otherwise="a broken promise of the server: the results name the first of each kind.",
            ),
            Query(levels(LOAD, "loadtest_faults_total"), "faults"),
            unit="none",
            limits=((None, GOOD), (1, BAD)),
        ),
        figure(
            "Errors",
            About(
                shows="What went wrong for clients and publishers so far.",
                normal="0 without chaos.",
                otherwise="see the kinds below.",
            ),
            Query(levels(LOAD, "loadtest_errors_total"), "errors"),
            unit="none",
            limits=((None, GOOD), (1, ODD)),
        ),
    ]


def _last_second(percentile: str) -> str:
    return LOAD.of(_LAST_SECOND, f'percentile="{percentile}"')


def _clients() -> list[Panel]:
    return [
        graph(
            "Connections",
            About(
                shows="Clients that are wanted, and those that are connected and have all their subscriptions.",
                normal="both alike on the plateau.",
                otherwise="the time until they meet again after chaos is how long clients felt it.",
            ),
            Query(levels(LOAD, "loadtest_connections_wanted"), "wanted"),
            Query(levels(LOAD, "loadtest_connections"), "connected"),
            unit="short",
        ),
        graph(
            "Connects and reconnects",
            About(
                shows="Connections that were made, and those of them that followed a loss, a second.",
                normal="the ramp-up, then none; some scenarios go on.",
                otherwise="reconnects without chaos: see the errors, and the codes on the node's dashboard.",
            ),
            Query(rates(LOAD, "loadtest_connects_total"), "connects"),
            Query(rates(LOAD, "loadtest_reconnects_total"), "reconnects"),
            unit="cps",
        ),
        graph(
            "Publications",
            About(
                shows="Publications sent and acknowledged, a second.",
                normal="both at the scenario's `rate`.",
                otherwise="acknowledged below sent: the server is slower than the load. In the plain protocol nothing "
                "is acknowledged.",
            ),
            Query(rates(LOAD, "loadtest_publications_sent_total"), "sent"),
            Query(rates(LOAD, "loadtest_publications_acknowledged_total"), "acknowledged"),
            unit="cps",
        ),
        graph(
            "Deliveries: clients and nodes",
            About(
                shows="What clients received, and what nodes say that they delivered, a second.",
                normal="both alike, if nobody else uses the nodes.",
                otherwise="nodes above clients: on its way, or to clients that do not read.",
            ),
            Query(rates(LOAD, "loadtest_deliveries_total"), "clients"),
            Query(or_zero(LOAD, summed(rate(LOADED, "gateway_deliveries_total"))), "nodes"),
            unit="cps",
        ),
        graph(
            "Errors by kind",
            About(
                shows="What went wrong for clients and publishers, a second.",
                normal="none without chaos.",
                otherwise="`disconnected` has the code that the client was told; `publish` has what became of "
                "publications.",
            ),
            Query(rates(LOAD, "loadtest_errors_total", "kind"), "{{kind}}"),
            unit="cps",
            stacked=True,
        ),
        graph(
            "Faults, gaps and recoveries",
            About(
                shows="Faults by kind, gaps that the server told of, and subscriptions that went on without one, so "
                "far.",
                normal="no faults; recoveries after reconnects.",
                otherwise="gaps told are no fault: the history did not hold what was missed.",
            ),
            Query(levels(LOAD, "loadtest_faults_total", "kind"), "{{kind}}"),
            Query(levels(LOAD, "loadtest_gaps_told_total"), "gaps told"),
            Query(levels(LOAD, "loadtest_recoveries_total"), "recoveries"),
            unit="none",
        ),
    ]


def _latency() -> list[Panel]:
    return [
        heat(
            "Deliveries",
            About(
                shows="From the intended sending to each delivery: a column for each moment, darker where more were.",
                normal="one band.",
                otherwise="a band that climbs is a queue that grows; a cloud above it follows chaos.",
            ),
            filling(LOAD, _LATENCY),
        ),
        graph(
            "Deliveries of the last second",
            About(
                shows="Exact percentiles of each second; blank while nothing is delivered.",
                normal="p99 a few times p50.",
                otherwise="p99.9 far above p99: single stalls. All of them: load.",
            ),
            *(
                Query(or_blank(LOAD, f"max({_last_second(percentile)})"), f"p{percentile}")
                for percentile in ("50", "99", "99.9")
            ),
            unit="s",
            width=12,
        ),
        graph(
            "Acknowledgements",
            About(
                shows="From the intended sending to the server's answer; blank in the plain protocol.",
                normal="below deliveries in memory; with Redis a round trip more.",
                otherwise="far above deliveries: publishers wait for something else, such as a rate limit.",
            ),
            Query(quantile(LOAD, 0.5, "loadtest_acknowledgement_latency_seconds"), "p50"),
            Query(quantile(LOAD, 0.99, "loadtest_acknowledgement_latency_seconds"), "p99"),
            unit="s",
            width=12,
        ),
        graph(
            "Clients and nodes, p99",
            About(
                shows="What clients measured, and what nodes did from publish to write, both from buckets.",
                normal="clients a little above nodes: the rest is the network and the load side.",
                otherwise="a large difference is outside of the nodes: outboxes, network, or workers that are too "
                "busy.",
            ),
            Query(quantile(LOAD, 0.99, _LATENCY), "clients"),
            Query(quantile(LOADED, 0.99, "gateway_publish_to_write_seconds"), "nodes"),
            unit="s",
            width=12,
        ),
    ]


def _load_side() -> list[Panel]:
    return [
        graph(
            "Behind schedule",
            About(
                shows="How late a publication of the last second was sent at most.",
                normal="a few milliseconds.",
                otherwise="above 50 ms the figures say more about the load side than about the server: fewer clients, "
                "more workers, or another machine.",
            ),
            Query(f"max({LOAD.of('loadtest_schedule_lag_seconds')})", "late"),
            unit="s",
            limit=0.05,
        ),
        graph(
            "CPU of the workers",
            About(
                shows="Cores that each worker uses.",
                normal="below 0.9.",
                otherwise="at 1 it can't keep up, and latencies are its own: use more workers, or another machine.",
            ),
            Query(
                or_zero(LOAD, summed(rate(LOAD, "loadtest_worker_cpu_seconds_total"), "worker"), "worker"), "{{worker}}"
            ),
            unit="percentunit",
            limit=0.9,
        ),
        graph(
            "Memory of the workers",
            About(
                shows="The resident set of each worker.",
                normal="some 30 MB, and 10 KB for a connection.",
                otherwise="it grows with gaps that are kept for the end: many deliveries are missing.",
            ),
            Query(levels(LOAD, "loadtest_worker_resident_memory_bytes", "worker"), "{{worker}}"),
            unit="bytes",
        ),
    ]


def _nodes() -> list[Panel]:
    return [
        graph(
            "CPU of the nodes",
            About(
                shows="Cores that each node uses.",
                normal="below 0.9; how much a delivery costs is in the results.",
                otherwise="at 1 the node is the limit of this run.",
            ),
            Query(summed(rate(LOADED, "process_cpu_seconds_total"), NODE), "{{instance}}"),
            unit="percentunit",
            limit=0.9,
        ),
        graph(
            "Event loop's lag of the nodes",
            About(
                shows="How late each node's event loop was at most, in the last 15 to 30 seconds.",
                normal="below 50 ms.",
                otherwise="the node is too busy, or shares its core with the load side.",
            ),
            Query(f"max by (instance) ({LOADED.of('gateway_event_loop_lag_recent_max_seconds')})", "{{instance}}"),
            unit="s",
            limit=0.25,
        ),
        graph(
            "Chaos",
            About(
                shows="What was done to the servers, counted.",
                normal="one step for each action that was asked for.",
                otherwise="an action that failed is a note in the results.",
            ),
            Query(levels(LOAD, _CHAOS, "action"), "{{action}}"),
            unit="none",
        ),
    ]
