"""Commands that come beside their stream, to any node, and belong to a conversation on one (protocol.md 1.5).

They go to that node as a question, whose answer says no more than that they have arrived. What a client sends over one
connection, and waits each time for the answer, keeps its order on the way: a question is on its way when it is asked.
"""

from enum import Enum, auto
from typing import Final

import msgspec

from gateway.messaging.cluster import Cluster
from gateway.messaging.services import Services
from gateway.protocol.emulation import EmulationRequest

_OP: Final = "emulation"


class Carried(Enum):
    """What became of commands, as far as their sender is told."""

    ARRIVED = auto()
    """The node has them; whether it has such a session is nobody's business."""
    NO_SUCH_NODE = auto()
    NO_ANSWER = auto()
    """They may have arrived, or may yet."""


class _Parcel(msgspec.Struct, frozen=True, array_like=True):
    session: str
    data: bytes


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(_Parcel).decode


class Emulation:
    """Carries commands to their conversations, here or on another node of *cluster*."""

    def __init__(self, services: Services, cluster: Cluster) -> None:
        self._services = services
        self._cluster = cluster
        cluster.register(_OP, self._answer)

    async def carry(self, request: EmulationRequest) -> Carried:
        """Carry what *request* holds to the node that it names, and say what became of it."""
        if request.node == self._cluster.uid:
            self._deliver(request.session, request.data)
            return Carried.ARRIVED
        node = self._cluster.node(request.node)
        if node is None:
            return Carried.NO_SUCH_NODE
        parcel = _encode(_Parcel(request.session, request.data))
        survey = await self._cluster.survey(_OP, parcel, read=lambda _: None, of=node)
        return Carried.ARRIVED if survey.answers else Carried.NO_ANSWER

    def _answer(self, parcel: bytes) -> bytes:
        found = _decode(parcel)
        self._deliver(found.session, found.data)
        return b""

    def _deliver(self, session: str, data: bytes) -> None:
        conversation = self._services.connections.in_session(session)
        if conversation is not None:
            conversation.receive_apart(data)
