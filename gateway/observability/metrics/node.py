"""Families of the node as a whole."""

from typing import Final

from gateway.observability.metrics.family import Family, Sample, Scrape, count, gauge, histogram, histogram_by, only
from gateway.observability.metrics.snapshot import Joining, Kind


def _certificate_expiry(scrape: Scrape) -> list[Sample]:
    expires_at_unix_s = scrape.gauges.certificate_expires_at_unix_s
    return [] if expires_at_unix_s is None else only(expires_at_unix_s)


NODE: Final = (
    Family(
        Kind.GAUGE,
        "gateway_build_info",
        "1, with the versions of the gateway and of Python and the event loop as labels.",
        ("version", "python", "loop"),
        lambda scrape: [(scrape.gauges.build, 1)],
        Joining.MAX,
    ),
    gauge(
        "gateway_nodes",
        "Nodes of the cluster that this node knows, itself included.",
        lambda node: node.nodes(),
        joining=Joining.MAX,
    ),
    Family(
        Kind.HISTOGRAM,
        "gateway_event_loop_lag_seconds",
        "How late a timer of 100 ms was: what everything on this node waits for the event loop.",
        (),
        lambda scrape: only(scrape.gauges.loop_lags),
    ),
    gauge(
        "gateway_event_loop_lag_recent_max_seconds",
        "The greatest of those of the last 15 to 30 seconds.",
        lambda node: node.recent_loop_lag_s(),
        joining=Joining.MAX,
    ),
    histogram(
        "gateway_node_lag_seconds",
        "From the sending of another node's announcement, every node.announce_interval over the broker's pub/sub, to "
        "its receipt. Two machines' clocks are compared, so their difference is in it; what is below 0 counts as 0.",
        "node_lag",
    ),
    histogram_by(
        "op", "gateway_survey_duration_seconds", "From a question to all nodes until it was over.", "survey_durations"
    ),
    count(
        "gateway_control_messages_ignored",
        "Messages of other nodes that this version does not know.",
        "control_ignored",
    ),
    Family(
        Kind.COUNTER,
        "gateway_http_requests",
        "HTTP requests on the public and the internal port, by the path of their route; upgrades are not among them.",
        ("port", "path", "method", "status"),
        lambda scrape: [
            ((port, path, method, str(status)), n) for (port, path, method, status), n in scrape.counts.requests.items()
        ],
    ),
    Family(
        Kind.GAUGE,
        "gateway_tls_certificate_expiry_timestamp_seconds",
        "When the certificate of the public port expires, in Unix time; no sample without TLS.",
        (),
        _certificate_expiry,
        Joining.MIN,
    ),
)
