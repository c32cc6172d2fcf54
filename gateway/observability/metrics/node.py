"""Families of the node as a whole."""

from typing import Final

from gateway.observability.metrics.family import Family, gauge
from gateway.observability.metrics.snapshot import Joining, Kind

NODE: Final = (
    Family(
        Kind.GAUGE,
        "gateway_build_info",
        "1, with the version as a label.",
        ("version",),
        lambda scrape: [((scrape.gauges.version,), 1)],
        Joining.MAX,
    ),
    gauge(
        "gateway_nodes",
        "Nodes of the cluster that this node knows, itself included.",
        lambda node: node.nodes(),
        joining=Joining.MAX,
    ),
)
