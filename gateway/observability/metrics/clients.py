"""Families of connections, and of what clients ask for."""

from typing import Final

from gateway.observability.metrics.family import Family, count, count_by, gauge
from gateway.observability.metrics.snapshot import Kind

CLIENTS: Final = (
    gauge("gateway_connections", "Open connections, authenticated or not.", lambda node: node.connection_count()),
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
    count("gateway_messages_received", "Messages from clients.", "messages_in"),
    count("gateway_received_bytes", "Bytes of messages from clients.", "bytes_in"),
    count("gateway_messages_sent", "Publications handed to transports, once for each subscriber.", "messages_out"),
    count("gateway_sent_bytes", "Bytes handed to transports, framing included, before TLS.", "bytes_out"),
)
