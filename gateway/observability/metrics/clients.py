"""Families of connections, and of what clients ask for."""

from typing import Final

from gateway.observability.metrics.family import Family, Sample, Scrape, count, count_by, gauge, histogram_by, only
from gateway.observability.metrics.snapshot import Kind


def _flow(name: str, text: str, field: str) -> Family:
    """Return the family of one column of the flows, by transport."""

    def read(scrape: Scrape) -> list[Sample]:
        return [((transport,), getattr(flow, field)) for transport, flow in scrape.counts.flows.items()]

    return Family(Kind.COUNTER, name, text, ("transport",), read)


def _sent(scrape: Scrape) -> list[Sample]:
    return [
        ((transport, kind), sent)
        for transport, flow in scrape.counts.flows.items()
        for kind, sent in (
            ("publication", flow.publications_out),
            ("reply", flow.replies_out),
            ("event", flow.events_out),
        )
    ]


CLIENTS: Final = (
    gauge("gateway_connections", "Open connections, authenticated or not.", lambda node: node.connection_count()),
    Family(
        Kind.GAUGE,
        "gateway_connections_by_client",
        "The same by kind. Name and version are what a client calls itself: `other`, unless listed in "
        "metrics.client_names and metrics.client_versions.",
        ("transport", "protocol", "name", "version"),
        lambda scrape: [(tuple(kind), count) for kind, count in scrape.census.kinds.items()],
    ),
    gauge(
        "gateway_connection_limit",
        "Connections that the node takes (client.connection_limit); 0: no limit.",
        lambda node: node.connection_limit,
    ),
    Family(
        Kind.GAUGE,
        "gateway_outbox_bytes",
        "Bytes that wait in the transports of open connections for their clients to read on.",
        (),
        lambda scrape: only(scrape.census.waiting_bytes),
    ),
    Family(
        Kind.GAUGE,
        "gateway_connections_congested",
        "Open connections for which bytes wait.",
        (),
        lambda scrape: only(scrape.census.congested),
    ),
    gauge(
        "gateway_admin_connections",
        "Open connections of the admin page, which are counted nowhere else.",
        lambda node: node.admin_connection_count(),
    ),
    count_by("result", "gateway_admin_logins", "Logins to the admin page, by how they ended.", "admin_logins"),
    gauge("gateway_users", "Users with at least one connection to this node.", lambda node: node.users()),
    count_by("transport", "gateway_connections_accepted", "Connections that were upgraded.", "connections_accepted"),
    count_by("reason", "gateway_connections_refused", "Upgrade requests that were refused.", "connections_refused"),
    count(
        "gateway_forwarded_malformed",
        "Headers of trusted proxies that did not say where a request comes from.",
        "forwarded_malformed",
    ),
    count_by(
        "kind",
        "gateway_authenticated",
        "Connections whose client became known, as a user or as anonymous.",
        "authenticated",
    ),
    count_by("code", "gateway_disconnects", "Connections that the server closed.", "disconnects"),
    count("gateway_closes_by_peer", "Connections that the client or the network ended.", "closes_by_peer"),
    count_by("method", "gateway_commands", "Commands of clients.", "commands"),
    Family(
        Kind.COUNTER,
        "gateway_errors",
        "Error replies to commands.",
        ("method", "code"),
        lambda scrape: [((method, str(code)), n) for (method, code), n in scrape.counts.errors.items()],
    ),
    count_by("cause", "gateway_token_failures", "Tokens that were refused.", "token_failures"),
    count("gateway_key_set_failures", "Fetches of a JSON Web Key Set that failed.", "key_set_failures"),
    count_by("limit", "gateway_limit_hits", "Times that a limit was reached.", "limit_hits"),
    histogram_by(
        "method",
        "gateway_command_duration_seconds",
        "From taking a command up to its answer. One in sixteen publishes of the client protocol is timed, and none of "
        "the plain one.",
        "command_durations",
    ),
    histogram_by("transport", "gateway_ping_pong_seconds", "From a ping to its pong.", "ping_pongs"),
    _flow("gateway_messages_received", "Messages from clients.", "messages_in"),
    _flow("gateway_received_bytes", "Bytes of messages from clients.", "bytes_in"),
    Family(
        Kind.COUNTER,
        "gateway_messages_sent",
        "What was handed to transports: publications and events (joins and leaves), once for each who gets them, and "
        "what one client alone is told (replies, other pushes, pings).",
        ("transport", "kind"),
        _sent,
    ),
    _flow("gateway_sent_bytes", "Bytes handed to transports, framing included, before TLS.", "bytes_out"),
    count_by(
        "reason",
        "gateway_outboxes_lost",
        "Connections that ended while bytes waited for them to be read: the network went, or the client did not read "
        "on within websocket.close_timeout after the goodbye.",
        "outboxes_lost",
    ),
)
