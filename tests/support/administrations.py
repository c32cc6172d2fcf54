"""The server API's operations on a house without sockets, alone in its cluster."""

from gateway.messaging.administration import Administration
from gateway.messaging.cluster import Cluster, ClusterSettings
from gateway.messaging.orders import LocalOrders
from gateway.messaging.trends import Trends
from tests.support.conversations import House


class Office:
    """An administration, and how often its node was told to drain."""

    def __init__(self, house: House, *, name: str = "node1", survey_timeout_s: float = 1.0) -> None:
        self.drains = 0
        self.trends = Trends()
        services = house.services
        self.cluster = Cluster(
            house.engine.control,
            LocalOrders(services),
            ClusterSettings(survey_timeout_s=survey_timeout_s),
            name=name,
            version="1.0",
            log=services.log,
            monotonic=house.monotonic,
        )
        self.cluster.start()
        self.administration = Administration(
            services, self.cluster, house.engine.broker, self.trends, drain=self._drain
        )

    def _drain(self) -> None:
        self.drains += 1
