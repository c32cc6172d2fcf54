"""What is read of a node by metrics, by health checks and by the other nodes: registries, counts, clocks."""

import asyncio
import platform
import time
from collections.abc import Iterable, Mapping
from typing import TypeVar

from gateway import __version__
from gateway.broker.contract import Engine
from gateway.broker.redis.counts import RedisCounts
from gateway.broker.redis.engine import RedisEngine
from gateway.config import Config
from gateway.domain.connections import Census, Connections
from gateway.domain.counts import Counts, Histogram
from gateway.domain.hub import Hub
from gateway.domain.lag import Lag
from gateway.messaging.admins import Admins
from gateway.messaging.census import take_census
from gateway.messaging.cluster import Cluster
from gateway.messaging.control import Figures
from gateway.messaging.conversation import Conversation
from gateway.messaging.drain import Drain
from gateway.messaging.services import Services
from gateway.observability.health import Change
from gateway.observability.vitals import Vitals
from gateway.parts import Clock
from gateway.proxies.proxies import Proxies

PartT = TypeVar("PartT")


class Figured:
    """A node, as far as it can be looked at; nothing here changes it."""

    def __init__(self, config: Config, clock: Clock) -> None:
        self.config = config
        self._clock = clock
        self.counts = Counts()
        self.connections: Connections[Conversation] = Connections()
        self.hub = Hub(ledger=self.counts.ledger)
        self.version = __version__
        self.vitals = Vitals(config.health, monotonic=clock.monotonic, changed=self._note_broker)
        self.readiness = self.vitals.readiness
        self.draining = Drain()
        """How it parts with its clients, and how far that is."""
        self.admins: Admins | None = None
        """Those who have the admin page open, where it is served."""
        self._lag = Lag()
        self._loop_clock = time.monotonic
        """The machine's own clock, since the one that this node is given may be moved."""
        self._engine: Engine | None = None
        self._services: Services | None = None
        self._cluster: Cluster | None = None

    def _note_broker(self, change: Change) -> None:
        """Take note that the broker was lost, or is back."""

    # What the node runs on, once it runs.

    @property
    def engine(self) -> Engine:
        """What carries its publications."""
        return there(self._engine)

    @property
    def services(self) -> Services:
        """What its conversations share."""
        return there(self._services)

    @property
    def cluster(self) -> Cluster:
        """Itself among the others."""
        return there(self._cluster)

    # What metrics and health read.

    @property
    def is_ready(self) -> bool:
        """Whether new connections should be sent here."""
        return self.unready_because() is None

    def unready_because(self) -> str | None:
        """Say why no new connections should come, `None` if they should."""
        return self.vitals.unready_because()

    def subscriptions(self) -> Iterable[tuple[str, int]]:
        """Count subscriptions by namespace."""
        return self.hub.subscriptions().items()

    def users(self) -> int:
        """Count the users who are connected here."""
        return self.connections.users

    def channels(self) -> int:
        """Count the channels with local subscribers."""
        return len(self.hub)

    def queued(self) -> int:
        """Count the deliveries that wait for the end of the loop turn."""
        return self._services.fanout.queued if self._services is not None else 0

    def queued_by_namespace(self) -> Mapping[str, int]:
        """Count the same by namespace."""
        return self.services.fanout.queued_by_namespace()

    @property
    def proxies(self) -> Proxies:
        """By what its user's backend is asked."""
        return self.services.proxies

    @property
    def is_broker_up(self) -> bool:
        """Whether the broker works."""
        return self.readiness.trouble is None

    @property
    def redis_counts(self) -> RedisCounts | None:
        """What the Redis engine has counted; `None` on another engine."""
        return self._engine.counts if isinstance(self._engine, RedisEngine) else None

    def nodes(self) -> int:
        """Count the nodes of the cluster that are known, this one included."""
        return self.cluster.size()

    def presence_entries(self) -> int:
        """Count the subscriptions that are kept in a channel's presence."""
        return len(self.services.presences)

    def connection_count(self) -> int:
        """Count open connections."""
        return len(self.connections)

    def census(self) -> Census:
        """Look at every open connection."""
        return take_census(self.connections)

    @property
    def loop_lags(self) -> Histogram:
        """How late the event loop was, each time that it was looked at."""
        return self._lag.all

    def recent_loop_lag_s(self) -> float:
        """Return how late the event loop was at most, in the last half a minute."""
        return self._lag.recent_s(now_s=self._loop_clock())

    @property
    def build(self) -> tuple[str, str, str]:
        """The versions of the gateway and of Python, and the event loop."""
        loop = "uvloop" if type(asyncio.get_running_loop()).__module__.startswith("uvloop") else "asyncio"
        return self.version, platform.python_version(), loop

    @property
    def connection_limit(self) -> int:
        """How many connections the node takes; 0 without a limit."""
        return self.config.client.connection_limit

    @property
    def certificate_expires_at_unix_s(self) -> float | None:
        """When the certificate of the public port expires; `None` where this node has none."""
        return None

    def admin_connection_count(self) -> int:
        """Count open connections of the admin page."""
        return len(self.admins.connections) if self.admins is not None else 0

    def figures(self) -> Figures:
        """Say how the node is doing, as it tells the others."""
        flow, census = self.counts.flow_of_all, self.census()
        return Figures(
            messages_in=flow.messages_in,
            bytes_in=flow.bytes_in,
            messages_out=flow.publications_out,
            bytes_out=flow.bytes_out,
            dropped=sum(book.dropped.total() for book in self.counts.ledgers.values()),
            cpu_s=time.process_time(),
            queued=self.queued(),
            outbox_bytes=census.waiting_bytes,
            congested=census.congested,
            loop_lag_s=self.recent_loop_lag_s(),
            trouble=self.readiness.trouble or "",
            unready=self.unready_because() or "",
        )


def there(part: PartT | None) -> PartT:
    """Return *part*, which must be there by now."""
    if part is None:
        raise AssertionError("the node does not run yet")
    return part
