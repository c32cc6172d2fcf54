"""The last minutes of every node, for charts: each of its announcements held against the one before.

A node's clock is its own uptime, so rates are exact whatever the announcement's way took.
"""

from collections import deque
from typing import Final

import msgspec

from gateway.messaging.control import NO_FIGURES, NodeInfo

KEPT_POINTS: Final = 100
"""Points of one node: five minutes at the usual interval of announcements."""
_KEPT_NODES: Final = 256
_MIN_INTERVAL_S: Final = 0.5
"""Two announcements nearer than this make no rate: a node also announces itself out of turn, to each newcomer."""


class Point(msgspec.Struct, frozen=True):
    """How a node was doing at one time; rates are for each second since the point before."""

    number: int
    """Higher than that of every point, of any node, that was there before it."""
    at_s: float
    clients: int
    messages_in: float
    messages_out: float
    bytes_in: float
    bytes_out: float
    dropped: float
    cpu: float
    """The share of one processor that it used."""
    outbox_bytes: int
    loop_lag_s: float


class _Trend:
    def __init__(self, node: NodeInfo) -> None:
        self.last = node
        self.points: deque[Point] = deque(maxlen=KEPT_POINTS)


class Trends:
    """Remembers the announcements of all nodes, within bounds. Times are of one monotonic clock."""

    def __init__(self) -> None:
        self._number = 0
        self._trends: dict[str, _Trend] = {}

    def note(self, node: NodeInfo, *, now_s: float) -> None:
        """Take an announcement."""
        trend = self._trends.get(node.uid)
        if trend is None:
            if len(self._trends) >= _KEPT_NODES:
                del self._trends[next(iter(self._trends))]
            self._trends[node.uid] = _Trend(node)
            return
        passed_s = node.uptime_s - trend.last.uptime_s
        if passed_s < _MIN_INTERVAL_S:
            return
        if NO_FIGURES not in {node.figures, trend.last.figures}:
            self._number += 1
            trend.points.append(_point(trend.last, node, passed_s, number=self._number, at_s=now_s))
        # The one that was heard last comes last, so that the one to be forgotten comes first.
        del self._trends[node.uid]
        self._trends[node.uid] = trend
        trend.last = node

    def of(self, uid: str, *, after: int = 0) -> list[Point]:
        """Return the points of a node with numbers above *after*, the oldest first."""
        trend = self._trends.get(uid)
        return [] if trend is None else [point for point in trend.points if point.number > after]


def _point(before: NodeInfo, now: NodeInfo, passed_s: float, *, number: int, at_s: float) -> Point:
    old, new = before.figures, now.figures
    return Point(
        number=number,
        at_s=at_s,
        clients=now.num_clients,
        messages_in=(new.messages_in - old.messages_in) / passed_s,
        messages_out=(new.messages_out - old.messages_out) / passed_s,
        bytes_in=(new.bytes_in - old.bytes_in) / passed_s,
        bytes_out=(new.bytes_out - old.bytes_out) / passed_s,
        dropped=(new.dropped - old.dropped) / passed_s,
        cpu=(new.cpu_s - old.cpu_s) / passed_s,
        outbox_bytes=new.outbox_bytes,
        loop_lag_s=new.loop_lag_s,
    )
