"""Families of a node's health, and of how it parts with its clients."""

from typing import Final

from gateway.observability.metrics.family import Family, Sample, gauge, only
from gateway.observability.metrics.snapshot import Joining, Kind


def _if_known(value: float | None) -> list[Sample]:
    return [] if value is None else only(value)


HEALTH: Final = (
    gauge(
        "gateway_alive",
        "1 while /livez answers 200.",
        lambda node: node.vitals.dead_because() is None,
        joining=Joining.MIN,
    ),
    gauge("gateway_ready", "1 while /readyz answers 200.", lambda node: node.is_ready, joining=Joining.MIN),
    gauge("gateway_broker_up", "1 while the broker works.", lambda node: node.is_broker_up, joining=Joining.MIN),
    Family(
        Kind.GAUGE,
        "gateway_broker_canary_age_seconds",
        "How long ago a message that the node had sent to itself through its broker came back; a few seconds at most.",
        (),
        lambda scrape: _if_known(scrape.gauges.vitals.canary_age_s()),
        Joining.MAX,
    ),
    Family(
        Kind.GAUGE,
        "gateway_broker_canary_round_trip_seconds",
        "How long that message was on its way.",
        (),
        lambda scrape: _if_known(scrape.gauges.vitals.canary_round_trip_s()),
        Joining.MAX,
    ),
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
