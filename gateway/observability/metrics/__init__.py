"""Prometheus metrics, read from the node's counts and registries at the moment of the scrape.

Every family is one row of `FAMILIES`, in the module of its subject, so that the reference in the documentation is
generated and complete. A node makes a snapshot of them, and whoever serves `/metrics` writes it as text: what is read
and what is written need not be in one process.
"""

from typing import Final

from gateway.domain.counts import Counts
from gateway.observability.metrics.api import API
from gateway.observability.metrics.channels import CHANNELS
from gateway.observability.metrics.clients import CLIENTS
from gateway.observability.metrics.family import Family, Gauges, Scrape
from gateway.observability.metrics.health import HEALTH
from gateway.observability.metrics.node import NODE
from gateway.observability.metrics.process import ProcessMetrics
from gateway.observability.metrics.proxies import PROXIES
from gateway.observability.metrics.redis import REDIS
from gateway.observability.metrics.snapshot import Snapshot

FAMILIES: Final[tuple[Family, ...]] = (*NODE, *HEALTH, *CLIENTS, *CHANNELS, *API, *PROXIES, *REDIS)

_REFERENCE_HEAD: Final = """\
# Metrics reference

Made from the code by `make reference`; `gateway metrics doc` prints the same. Served at `/metrics` of the internal
port, beside the usual `process_*` and `python_*` families.

| metric | type | labels | meaning |
|---|---|---|---|
"""


class NodeMetrics:
    """The metrics of one node and of its process."""

    def __init__(self, counts: Counts, gauges: Gauges) -> None:
        self._counts = counts
        self._gauges = gauges
        self._process = ProcessMetrics()

    def snapshot(self) -> Snapshot:
        """Read every family."""
        scrape = Scrape(self._counts, self._gauges)
        return (*(family.snapshot(scrape) for family in FAMILIES), *self._process.snapshot())


def reference() -> str:
    """Return the reference of all families as Markdown."""
    rows = [
        f"| `{each.exposed_name}` | {each.kind} | {', '.join(f'`{label}`' for label in each.labels)} | {each.help} |"
        for each in FAMILIES
    ]
    return _REFERENCE_HEAD + "\n".join(rows) + "\n"
