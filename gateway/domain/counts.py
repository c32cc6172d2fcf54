"""What a node counts, as plain integers: an increment on the hot path, a metric only when somebody scrapes.

Nothing here is a gauge. How many there are is read from the registry that holds them, so no figure can drift.
"""

from bisect import bisect_left
from collections import Counter, defaultdict
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Final

DURATION_BOUNDS_S: Final = (0.00001, 0.0001, 0.00025, 0.001, 0.0025, 0.01, 0.025, 0.1, 0.25, 1.0, 2.5, 10.0)
"""Upper bounds for what may take a few microseconds and may wait for another machine, in seconds."""
HIGHEST_COUNTED: Final = 2000
"""The error code that counts for all above, which are nobody's (protocol.md 4.1)."""
LATENCY_BOUNDS_S: Final = (0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
"""Upper bounds of the latency buckets, in seconds."""


class Histogram:
    """Counts values into fixed buckets, the way Prometheus reads them."""

    __slots__ = ("bounds", "buckets", "total")

    def __init__(self, bounds: tuple[float, ...] = LATENCY_BOUNDS_S) -> None:
        self.bounds = bounds
        self.buckets = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count one *value*."""
        self.buckets[bisect_left(self.bounds, value)] += 1
        self.total += value


def _durations() -> Histogram:
    return Histogram(DURATION_BOUNDS_S)


class Dropped(StrEnum):
    """Why a delivery that was due was not made."""

    SLOW = "slow"
    """The client reads too slowly; it is disconnected for that."""
    NOT_JSON = "not_json"
    """The client's encoding can't carry it; it is disconnected for that."""
    UNSUBSCRIBED = "unsubscribed"
    """The subscription ended in the loop turn that brought the publication, before its end."""
    DISCONNECTED = "disconnected"
    """The server ended the connection in that turn."""
    CLOSED = "closed"
    """The client or the network ended the connection in that turn."""
    SHUTDOWN = "shutdown"
    """The node sent the client away in that turn, since it stops."""


class Asked(StrEnum):
    """What became of asking the backend."""

    RESULT = "result"
    """It gave a result."""
    NOTHING = "nothing"
    """It gave no result, error or disconnect."""
    ERROR = "error"
    """It refused with an error, or with a status that stands for one."""
    DISCONNECT = "disconnect"
    """It ended the connection, or answered with a status that stands for that."""
    STATUS = "status"
    """It answered with another status than 200 that stands for nothing."""
    UNUSABLE = "unusable"
    """Its answer could not be understood."""
    TOO_LONG = "too_long"
    """Its answer was longer than is read."""
    TIMEOUT = "timeout"
    """It did not answer in time."""
    UNREACHABLE = "unreachable"
    """There was no connection to it, or none until the end of its answer."""
    BUSY = "busy"
    """It was not asked: too many calls were under way."""
    REFUSED = "refused"
    """It was not asked: it had failed too often, and is left in peace for a while."""
    CANCELLED = "cancelled"
    """Nobody waited for its answer any more: the node stops."""


class Lost(StrEnum):
    """How a connection ended while some of what its transport had taken was not written yet."""

    NETWORK = "network"
    """The client or the network went away."""
    TIMEOUT = "timeout"
    """It was told goodbye and did not read on in time."""


@dataclass(slots=True)
class Flow:
    """What went through the transports of one kind."""

    messages_in: int = 0
    bytes_in: int = 0
    publications_out: int = 0
    """Once for each subscriber."""
    replies_out: int = 0
    """What one client alone was told: replies, pushes that are no publications, pings of the protocol."""
    events_out: int = 0
    """Joins and leaves, once for each who is told."""
    bytes_out: int = 0
    """Framing included, before TLS."""


@dataclass(slots=True)
class Ledger:
    """The delivery book of one namespace: due = delivered + filtered + dropped, always.

    A delivery is one publication for one subscriber, and due once the publication is there; it is noted here when it is
    made or can't be made any more, at the turn's end at the latest. *delivered* is what transports took.
    """

    published: int = 0
    received: int = 0
    duplicates: int = 0
    """What came a second time, after it had been read from the stream, and was not delivered again."""
    due: int = 0
    delivered: int = 0
    delivered_bytes: int = 0
    """With their framing."""
    filtered: int = 0
    """What subscribers had asked not to get."""
    patched: int = 0
    """How often a publication was encoded as a patch of the one before, once for all who get the same."""
    dropped: Counter[Dropped] = field(default_factory=Counter)
    publish_to_write: Histogram = field(default_factory=Histogram, compare=False)
    """From accepting a publication on this node to having handed it to the transports of this node, in seconds."""

    def leave(self, deliveries: int, because: Dropped) -> None:
        """Note that *deliveries* which were due are not made, since their subscriber has left."""
        self.due += deliveries
        self.dropped[because] += deliveries


@dataclass(slots=True)
class ProxyCounts:
    """What one proxy counts."""

    calls: Counter[Asked] = field(default_factory=Counter)
    """By what became of them."""
    durations: Histogram = field(default_factory=_durations)
    """From sending an event to the backend to its whole answer, or to giving it up."""
    openings: int = 0
    """How often its breaker has opened."""


@dataclass(slots=True)
class Counts:
    """All counters of a node."""

    connections_accepted: Counter[str] = field(default_factory=Counter)
    """By transport."""
    connections_refused: Counter[str] = field(default_factory=Counter)
    """Before the upgrade, by reason."""
    forwarded_malformed: int = 0
    """Headers of trusted proxies that did not say where a request comes from, as they should."""
    authenticated: Counter[str] = field(default_factory=Counter)
    """Connections whose client became known, by kind: `user` or `anonymous`."""
    subscribed: Counter[str] = field(default_factory=Counter)
    """Subscriptions that were made, server-side ones included, by namespace."""
    recoveries: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """Subscriptions that asked to recover, by namespace, whether they did, and whether they had missed anything: `yes`
    or `no` both."""
    recovered_publications: Counter[str] = field(default_factory=Counter)
    """Publications that replies brought to subscribers who had missed them, by namespace."""
    suppressed: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Publishes that nobody was sent, by namespace and by what was found: a repeated `idempotency_key`, a `version`."""
    disconnects: Counter[int] = field(default_factory=Counter)
    """By the code that the server closed with."""
    closes_by_peer: int = 0
    """Connections that the client, or the network, ended."""
    unsubscribes: Counter[int] = field(default_factory=Counter)
    """By the code that the server pushed."""
    commands: Counter[str] = field(default_factory=Counter)
    """By method."""
    command_durations: defaultdict[str, Histogram] = field(default_factory=lambda: defaultdict(_durations))
    """From taking a command up to its answer, by method; of publishes one in sixteen."""
    ping_pongs: defaultdict[str, Histogram] = field(default_factory=lambda: defaultdict(Histogram))
    """From a ping to its pong, by transport."""
    fanout: Histogram = field(default_factory=_durations)
    """Writing what one loop turn has brought to all subscribers."""
    survey_durations: defaultdict[str, Histogram] = field(default_factory=lambda: defaultdict(_durations))
    """From a question to all nodes until it was over, by what was asked."""
    node_lag: Histogram = field(default_factory=_durations)
    """From another node's announcement until it was here, by the two nodes' clocks."""
    control_ignored: int = 0
    """Messages of other nodes that this version does not know."""
    requests: Counter[tuple[str, str, str, int]] = field(default_factory=Counter)
    """HTTP requests by port, path as the routes have it, method and status; upgrades are not among them."""
    outboxes_lost: Counter[Lost] = field(default_factory=Counter)
    """Connections that ended while bytes waited for them, by how."""
    errors: Counter[tuple[str, int]] = field(default_factory=Counter)
    """By method and error code."""
    api_calls: Counter[str] = field(default_factory=Counter)
    """Calls of the server API by method, those of batches included."""
    api_errors: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Those of them that were not carried out, by method and by error code, or HTTP status where it got no further."""
    api_durations: dict[str, Histogram] = field(default_factory=dict)
    """Requests to the server API by method, from the whole body to the answer, in seconds."""
    gaps: int = 0
    """Publications that did not follow the one before, so that the stream had to be read."""
    caught_up: int = 0
    """Publications that a node had missed and read from the stream."""
    positions_lost: int = 0
    """Streams whose missed publications were gone, or whose epoch had changed."""
    interruptions: int = 0
    """Times that subscriptions were back after the broker's link had been down."""
    interrupted_s: float = 0.0
    """How long those were, in seconds."""
    presence_failures: int = 0
    """Joins, leaves and renewals that the presence store did not take."""
    flows: dict[str, Flow] = field(default_factory=dict)
    """By transport."""
    admin_logins: Counter[str] = field(default_factory=Counter)
    """Logins to the admin page, by how they ended."""
    token_failures: Counter[str] = field(default_factory=Counter)
    """By cause."""
    key_set_failures: int = 0
    """Fetches of a JSON Web Key Set that failed."""
    limit_hits: Counter[str] = field(default_factory=Counter)
    """By the limit that was reached."""
    proxies: dict[tuple[str, str], ProxyCounts] = field(default_factory=dict)
    """By event, and by the name of the proxy."""
    ledgers: dict[str, Ledger] = field(default_factory=dict)
    """By namespace."""

    def flow(self, transport: str) -> Flow:
        """Return what goes through *transport*, counted from its first use on."""
        flow = self.flows.get(transport)
        if flow is None:
            flow = self.flows[transport] = Flow()
        return flow

    @property
    def flow_of_all(self) -> Flow:
        """What went through all transports together."""
        names = [each.name for each in fields(Flow)]
        return Flow(**{name: sum(getattr(flow, name) for flow in self.flows.values()) for name in names})

    def proxy(self, event: str, name: str) -> ProxyCounts:
        """Return what the proxy *name* counts of *event*; a proxy that takes its place goes on with it."""
        return self.proxies.setdefault((event, name), ProxyCounts())

    def note_error(self, method: str, code: int) -> None:
        """Count an error reply; a backend that makes up codes makes no series of each."""
        self.errors[method, min(code, HIGHEST_COUNTED)] += 1

    def ledger(self, namespace: str) -> Ledger:
        """Return the book of *namespace*, opened on first use."""
        book = self.ledgers.get(namespace)
        if book is None:
            book = self.ledgers[namespace] = Ledger()
        return book


class ConnectionTraffic:
    """What one connection has moved, for the line that its end writes to the log.

    Bytes out are those of publications with their framing and those of replies.
    """

    __slots__ = ("bytes_in", "bytes_out", "messages_in", "messages_out", "opened_at_s", "opened_at_unix_s")

    def __init__(self, opened_at_s: float, *, opened_at_unix_s: float) -> None:
        self.opened_at_s = opened_at_s
        """On the node's monotonic clock; the other is in Unix seconds."""
        self.opened_at_unix_s = opened_at_unix_s
        self.messages_in = self.bytes_in = self.messages_out = self.bytes_out = 0
