"""A question to all nodes, and what is made of their answers."""

from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

import msgspec

from gateway.messaging.control import NodeInfo
from gateway.protocol.messages import ClientInfo, payload

AnswerT = TypeVar("AnswerT")


class Survey(msgspec.Struct, Generic[AnswerT], frozen=True):
    """What came of a question: the answers by node uid, and the nodes that gave none in time or could not."""

    answers: dict[str, AnswerT]
    silent: list[NodeInfo]


class ActiveChannels(msgspec.Struct, frozen=True):
    """Channels with subscribers, and how many connections each has; those on the *silent* nodes are missing."""

    channels: dict[str, int]
    silent: list[NodeInfo]


class ConnectedClients(msgspec.Struct, frozen=True):
    """Who is in a channel, by client id; those on the *silent* nodes are missing."""

    clients: dict[str, ClientInfo]
    silent: list[NodeInfo]


class OpenSurvey(Generic[AnswerT]):
    """A question that is being answered. *ended* is called when nobody is waited for any more."""

    def __init__(
        self, asked: Iterable[NodeInfo], *, read: Callable[[bytes], AnswerT], ended: Callable[[], None]
    ) -> None:
        self._awaited = {node.uid: node for node in asked}
        self._read = read
        self._ended = ended
        self._answers: dict[str, AnswerT] = {}
        self._silent: list[NodeInfo] = []

    def take(self, uid: str, data: bytes | None) -> None:
        """Take a node's answer; one that can't be read, as another version may send it, is none.

        A node that was not asked by name, since it is new, may answer, too.
        """
        node = self._awaited.pop(uid, None)
        try:
            if data is not None:
                self._answers[uid] = self._read(data)
                node = None
        except (msgspec.DecodeError, UnicodeDecodeError):
            pass  # *node* is still set: it gave no answer
        if node is not None:
            self._silent.append(node)
        self._end_if_over()

    def excuse(self, uid: str) -> None:
        """Wait no more for a node that said goodbye, and do not call it silent."""
        if self._awaited.pop(uid, None) is not None:
            self._end_if_over()

    def cut_short(self) -> None:
        """Wait for nobody: the question did not get out."""
        self._silent += self._awaited.values()
        self._awaited.clear()
        self._end_if_over()

    def result(self) -> Survey[AnswerT]:
        """Return what has come; whoever is still waited for is silent."""
        silent = sorted([*self._silent, *self._awaited.values()], key=lambda node: (node.name, node.uid))
        return Survey(dict(self._answers), silent)

    def _end_if_over(self) -> None:
        if not self._awaited:
            self._ended()


# What the two built-in questions are answered with.

encode_answer = msgspec.msgpack.Encoder().encode
read_channels = msgspec.msgpack.Decoder(dict[str, int]).decode


class _Named(msgspec.Struct, array_like=True, gc=False):
    """A client in an answer; the payloads as they go to clients."""

    user: str
    conn_info: bytes
    chan_info: bytes


_decode_clients = msgspec.msgpack.Decoder(dict[str, _Named]).decode


def encode_clients(clients: Iterable[ClientInfo]) -> bytes:
    """Return the answer that names *clients*."""
    found = {each.client: _Named(each.user, bytes(each.conn_info), bytes(each.chan_info)) for each in clients}
    return encode_answer(found)


def read_clients(answer: bytes) -> dict[str, ClientInfo]:
    """Return the clients that an answer names.

    Raises:
        msgspec.DecodeError: if it is none.
    """
    return {
        client: ClientInfo(each.user, client, payload(each.conn_info), payload(each.chan_info))
        for client, each in _decode_clients(answer).items()
    }


def sum_channels(survey: Survey[dict[str, int]]) -> ActiveChannels:
    """Add up what the nodes have counted."""
    total: dict[str, int] = {}
    for counts in survey.answers.values():
        for channel, count in counts.items():
            total[channel] = total.get(channel, 0) + count
    return ActiveChannels(total, survey.silent)


def join_clients(survey: Survey[dict[str, ClientInfo]]) -> ConnectedClients:
    """Put together whom the nodes have named; a client is on one node."""
    clients: dict[str, ClientInfo] = {}
    for named in survey.answers.values():
        clients |= named
    return ConnectedClients(clients, survey.silent)
