"""Families of a node's health, and of how it parts with its clients."""

from typing import Final

from gateway.observability.metrics.family import Family, gauge, only
from gateway.observability.metrics.snapshot import Joining, Kind

HEALTH: Final = (
    gauge("gateway_ready", "1 while /readyz answers 200.", lambda node: node.is_ready, joining=Joining.MIN),
    gauge("gateway_broker_up", "1 while the broker works.", lambda node: node.is_broker_up, joining=Joining.MIN),
    gauge(
        "gateway_drain_active",
        "1 while the node parts with its clients; `gateway_connections` tells how many are left.",
        lambda node: node.draining.is_active,
        joining=Joining.MAX,
    ),
    gauge(
        "gateway_drain_clients",
        "Clients that were connected when it began to send them away.",
        lambda node: node.draining.clients,
    ),
    Family(
        Kind.COUNTER,
        "gateway_drain_sent_away",
        "Clients that it has sent away since; the others left by themselves.",
        (),
        lambda scrape: only(scrape.gauges.draining.sent_away),
    ),
)
