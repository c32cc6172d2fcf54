"""Which connections there are: a page of them from this node, and from all nodes together.

A page is cut by client id, which is the same order on every node: each gives its first ones after the cursor, and the
first of all of those are the page.
"""

import heapq
from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from gateway.domain.session import State
from gateway.domain.subscriber import Traffic
from gateway.messaging.conversation import Conversation
from gateway.messaging.services import Services
from gateway.messaging.survey import Survey
from gateway.messaging.translation import named
from gateway.protocol.server_api import ConnectionsCall
from gateway.protocol.server_results import ConnectionResult, ConnectionsResult

_encode: Final = msgspec.json.Encoder().encode
_read_call: Final = msgspec.json.Decoder(ConnectionsCall).decode
read_page: Final = msgspec.json.Decoder(list[ConnectionResult]).decode
"""Read what a node has answered; raises `msgspec.DecodeError` if that is no page."""

encode_call: Final = _encode
"""Return a call as the question that `Directory.answer` answers."""


class Directory:
    """The connections of this node, by the uid that other nodes know it by."""

    def __init__(self, services: Services, *, node: str) -> None:
        self._services = services
        self._node = node

    def answer(self, question: bytes) -> bytes:
        """Answer another node, or this one, with its part of a page."""
        return _encode(self.page(_read_call(question)))

    def page(self, call: ConnectionsCall) -> list[ConnectionResult]:
        """Return the first connections of this node that *call* asks for, one more than its limit if there are."""
        clients = heapq.nsmallest(call.limit + 1, self._asked_for(call), key=lambda client: client.session.client_id)
        return [self._describe(client) for client in clients]

    def _asked_for(self, call: ConnectionsCall) -> Iterator[Conversation]:
        connections = self._services.connections
        candidates: Iterable[Conversation] = connections if call.user is None else connections.of(call.user)
        for client in candidates:
            session = client.session
            if (
                session.client_id > call.cursor
                and session.state is State.CONNECTED
                and call.client in {"", session.client_id}
                and call.transport in {"", client.variant.transport}
                and (not call.channel or call.channel in session.subscriptions)
            ):
                yield client

    def _describe(self, client: Conversation) -> ConnectionResult:
        session, traffic, sent = client.session, client.traffic, _sent(client)
        return ConnectionResult(
            client=session.client_id,
            user=session.user,
            node=self._node,
            transport=client.variant.transport,
            connected_at=round(traffic.opened_at_unix_s, 3),
            channels=sorted(session.subscriptions),
            info=session.info.conn_info,
            address=client.transport.peer_address,
            messages_in=traffic.messages_in,
            bytes_in=traffic.bytes_in,
            messages_out=sent.messages,
            bytes_out=sent.size,
        )


def _sent(client: Conversation) -> Traffic:
    """Return what *client* has been sent until now: publications, and bytes with those of replies."""
    hub, messages, size = client.services.hub, client.traffic.messages_out, client.traffic.bytes_out
    for subscription in client.session.subscriptions.values():
        channel, before = subscription.channel, subscription.sent_before
        sent = hub.sent(channel.name, client.transport, client.variant_of(subscription))
        if sent is not None:
            messages += sent.messages - before.messages
            size += sent.size - before.size
    return Traffic(messages, size)


def join_pages(survey: Survey[list[ConnectionResult]], *, limit: int) -> ConnectionsResult:
    """Put the nodes' parts together to one page."""
    found = sorted((each for page in survey.answers.values() for each in page), key=lambda each: each.client)
    page = found[:limit]
    return ConnectionsResult(
        connections=page,
        cursor=page[-1].client if len(found) > limit else "",
        silent=named(survey.silent),
    )
