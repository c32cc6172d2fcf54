"""The other nodes of the system, as they have announced themselves."""

from typing import Final, NamedTuple

from gateway.messaging.control import NodeInfo

_ANNOUNCES_MISSED: Final = 3.5
"""Intervals of silence after which a node counts as gone: three announcements missed, and half of one for the way."""


class _Heard(NamedTuple):
    node: NodeInfo
    at_s: float


class Registry:
    """Who was heard lately, this node not counted. Times are of one monotonic clock."""

    def __init__(self, *, announce_interval_s: float) -> None:
        self._patience_s = _ANNOUNCES_MISSED * announce_interval_s
        self._heard: dict[str, _Heard] = {}

    def hear(self, node: NodeInfo, *, now_s: float) -> bool:
        """Note an announcement; tells whether the node was unknown."""
        is_new = node.uid not in self._heard
        self._heard[node.uid] = _Heard(node, now_s)
        return is_new

    def leave(self, uid: str) -> NodeInfo | None:
        """Forget the node that said goodbye; returns what was known of it."""
        heard = self._heard.pop(uid, None)
        return None if heard is None else heard.node

    def sweep(self, *, now_s: float) -> list[NodeInfo]:
        """Forget, and return, the nodes that have been silent for too long."""
        silent = [node for node, at_s in self._heard.values() if now_s - at_s > self._patience_s]
        for node in silent:
            del self._heard[node.uid]
        return silent

    def nodes(self) -> list[NodeInfo]:
        """Return the nodes that are known."""
        return [node for node, _ in self._heard.values()]
