"""The other nodes of the system, as they have announced themselves."""

from typing import Final, NamedTuple

from gateway.messaging.control import NodeInfo

_ANNOUNCES_MISSED: Final = 3.5
"""Intervals of silence after which a node counts as gone: three announcements missed, and half of one for the way."""


_REMEMBERED: Final = 300
"""Intervals for which a node that went silent is named to those who look: a quarter of an hour, usually."""


class Heard(NamedTuple):
    """A node, and when it was last heard."""

    node: NodeInfo
    at_s: float


class Registry:
    """Who was heard lately, this node not counted. Times are of one monotonic clock."""

    def __init__(self, *, announce_interval_s: float) -> None:
        self._remembered_s = _REMEMBERED * announce_interval_s
        self._patience_s = _ANNOUNCES_MISSED * announce_interval_s
        self._heard: dict[str, Heard] = {}
        self._silent: dict[str, Heard] = {}

    def hear(self, node: NodeInfo, *, now_s: float) -> bool:
        """Note an announcement; tells whether the node was unknown."""
        is_new = node.uid not in self._heard
        self._heard[node.uid] = Heard(node, now_s)
        if is_new:
            self._forgive(node)
        return is_new

    def leave(self, uid: str) -> NodeInfo | None:
        """Forget the node that said goodbye; returns what was known of it."""
        self._silent.pop(uid, None)
        heard = self._heard.pop(uid, None)
        return None if heard is None else heard.node

    def sweep(self, *, now_s: float) -> list[NodeInfo]:
        """Forget, and return, the nodes that have been silent for too long."""
        silent = [node for node, at_s in self._heard.values() if now_s - at_s > self._patience_s]
        for node in silent:
            self._silent[node.uid] = self._heard.pop(node.uid)
        for uid, heard in list(self._silent.items()):
            if now_s - heard.at_s > self._remembered_s:
                del self._silent[uid]
        return silent

    def silent(self) -> list[Heard]:
        """Return the nodes that fell silent without a goodbye, not too long ago, and were not replaced."""
        return sorted(self._silent.values(), key=lambda heard: (heard.node.name, heard.node.uid))

    def _forgive(self, node: NodeInfo) -> None:
        """Take *node*, or one that is started anew under its name, off those that fell silent."""
        for uid, heard in list(self._silent.items()):
            if uid == node.uid or (node.name and heard.node.name == node.name):
                del self._silent[uid]

    def node(self, uid: str) -> NodeInfo | None:
        """Return the node of that uid, if it is known."""
        heard = self._heard.get(uid)
        return None if heard is None else heard.node

    def nodes(self) -> list[NodeInfo]:
        """Return the nodes that are known."""
        return [node for node, _ in self._heard.values()]
