"""What carries out the commands of the client protocol, by the names of their requests (protocol.md 2.1, 2.2)."""

from collections.abc import Callable, Coroutine
from typing import Any, Final, NamedTuple

import msgspec

from gateway.messaging.calling import rpc, rpc_at_once
from gateway.messaging.connecting import refresh
from gateway.messaging.conversation import Conversation
from gateway.messaging.queries import history, presence, presence_stats
from gateway.messaging.subscribing import sub_refresh, subscribe, unsubscribe
from gateway.protocol import codes
from gateway.protocol.codes import Disconnect, ErrorCode

OF_CHANNELS: Final = (*("subscribe", "unsubscribe", "publish", "presence", "presence_stats", "history", "sub_refresh"),)
"""Those that are about one channel."""

Answer = msgspec.Struct | ErrorCode | Disconnect | None
"""What became of a command: a result, an error for it, the end of the connection, or nobody left to tell."""


def _connect_again(_client: Conversation, _request: object) -> Disconnect:
    return codes.PROTOCOL_VIOLATED  # 3.1, 6


def _send(_client: Conversation, _request: object) -> Disconnect:
    return codes.SEND_NOT_AVAILABLE


class Method(NamedTuple):
    """What carries a request out: in the call that brings it, or later; with both, later if the first says `None`."""

    name: str
    at_once: Callable[[Conversation, Any], Answer] | None = None
    later: Callable[[Conversation, Any], Coroutine[Any, Any, Answer]] | None = None


# In the order in which the server looks for requests (2.1). A publish beside another request is not worth a method: it
# is carried out by the conversation itself, or not at all.
METHODS: Final = (
    Method("connect", at_once=_connect_again),
    Method("subscribe", later=subscribe),
    Method("unsubscribe", at_once=unsubscribe),
    Method("presence", later=presence),
    Method("presence_stats", later=presence_stats),
    Method("history", later=history),
    Method("rpc", at_once=rpc_at_once, later=rpc),
    Method("send", at_once=_send),
    Method("refresh", later=refresh),
    Method("sub_refresh", later=sub_refresh),
)
