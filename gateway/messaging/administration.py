"""The server API (protocol.md 7), however it is called: what backends and operators do to a whole system of nodes.

Each operation is a method from a typed call to its result, or to a `Refusal` that says why not. Who may call what, the
caller has decided before. What a client is told by a code, an operator is told in words: the refusal's `reason`.
"""

import contextlib
from collections.abc import Callable
from typing import Final

import msgspec

from gateway.broker.contract import Broker, BrokerError, Published
from gateway.broker.outcome import Outcome
from gateway.domain.channels import Channel, DataFormat
from gateway.domain.identity import overrides_of
from gateway.domain.stream import HistoryRange
from gateway.messaging import directory
from gateway.messaging.cluster import Cluster
from gateway.messaging.control import (
    DisconnectUser,
    NodeInfo,
    Order,
    RefreshUser,
    SubscribeUser,
    UnsubscribeUser,
)
from gateway.messaging.directory import Directory
from gateway.messaging.handlers import PING, Request
from gateway.messaging.publishing import Extras
from gateway.messaging.services import Services
from gateway.messaging.translation import (
    bad,
    content_of,
    described,
    disconnect_of,
    failed,
    named,
    stored,
    told,
)
from gateway.messaging.trends import Trends
from gateway.protocol import codes, server_api
from gateway.protocol.codes import ErrorCode
from gateway.protocol.json_codec import is_json
from gateway.protocol.messages import Empty, RPCResult, payload
from gateway.protocol.server_api import (
    BroadcastCall,
    ChannelsCall,
    ConnectionsCall,
    DisconnectCall,
    DrainCall,
    HistoryCall,
    HistoryRemoveCall,
    InfoCall,
    PresenceCall,
    PresenceStatsCall,
    PublishCall,
    RefreshCall,
    Refusal,
    RPCCall,
    SubscribeCall,
    UnsubscribeCall,
)
from gateway.protocol.server_results import (
    BroadcastResult,
    ChannelResult,
    ChannelsResult,
    ConnectionsResult,
    DrainResult,
    InfoResult,
    PresenceResult,
    PresenceStatsResult,
    PublishReply,
    PublishResult,
    ReadHistory,
)

_CONNECTIONS: Final = "connections"
_DRAIN: Final = "drain"
_NOWHERE: Final = PublishResult()

Sent = Outcome[Published]
"""A publication that is on its way."""


class Administration:
    """The operations, on the node of *services* and through *cluster* on all others.

    *trends* are what the nodes have told of themselves lately. *drain* has this node send its clients away and stop; it
    returns at once.
    """

    def __init__(
        self, services: Services, cluster: Cluster, broker: Broker, trends: Trends, *, drain: Callable[[], None]
    ) -> None:
        self._services = services
        self._cluster = cluster
        self._broker = broker
        self._trends = trends
        self._drain = drain
        self._directory = Directory(services, node=cluster.uid)
        cluster.register(_CONNECTIONS, self._directory.answer)
        cluster.register(_DRAIN, self._obey_drain)

    # Publishing.

    def begin_publish(self, call: PublishCall) -> Sent | Refusal:
        """Check a publication and hand it to the broker, without waiting until that has it.

        What is begun in some order is published in it.
        """
        if call.b64data or call.idempotency_key or call.version or call.tags or call.skip_history:
            content = content_of(call)
            return content if isinstance(content, Refusal) else self._send(call.channel, *content)
        return self._send(call.channel, call.data, None, is_checked=True)

    async def publish(self, call: PublishCall) -> PublishResult | Refusal:
        """Publish into a channel."""
        return await published(self.begin_publish(call))

    def begin_broadcast(self, call: BroadcastCall) -> list[Sent | Refusal] | Refusal:
        """Do what `begin_publish` does, for each channel."""
        if not call.channels:
            return bad("channels is empty: a broadcast needs at least one")
        content = content_of(call)
        if isinstance(content, Refusal):
            return content
        return [self._send(name, *content) for name in call.channels]

    async def broadcast(self, call: BroadcastCall) -> BroadcastResult | Refusal:
        """Publish the same into several channels; one that will not do keeps no other from it."""
        return await broadcasted(self.begin_broadcast(call))

    # What is done to the connections of a user, on all nodes. Where there are none, nothing is done, successfully.

    async def subscribe(self, call: SubscribeCall) -> Empty | Refusal:
        """Make server-side subscriptions; they are on their way when this returns."""
        channel = self._channel(call.channel)
        if isinstance(channel, Refusal):
            return channel
        info, data = told("info", call.info, call.b64info), told("data", call.data, call.b64data)
        if isinstance(info, Refusal):
            return info
        if isinstance(data, Refusal):
            return data
        order = SubscribeUser(
            call.user,
            call.client,
            call.session,
            channel=channel.name,
            info=info,
            data=data,
            expires_at_s=call.expire_at,
            overrides=overrides_of(call.override),
            recover_since=call.recover_since,
        )
        return await self._carry_out(order)

    async def unsubscribe(self, call: UnsubscribeCall) -> Empty | Refusal:
        """End subscriptions, with code 2000. Who is not subscribed is told nothing."""
        channel = self._channel(call.channel)
        if isinstance(channel, Refusal):
            return channel
        return await self._carry_out(UnsubscribeUser(call.user, call.client, call.session, channel=channel.name))

    async def disconnect(self, call: DisconnectCall) -> Empty | Refusal:
        """End connections."""
        reason = disconnect_of(call.disconnect)
        if isinstance(reason, Refusal):
            return reason
        whitelist = tuple(call.whitelist or ())
        return await self._carry_out(
            DisconnectUser(call.user, call.client, call.session, whitelist=whitelist, disconnect=reason)
        )

    async def refresh(self, call: RefreshCall) -> Empty | Refusal:
        """Change when connections expire."""
        info = told("info", call.info, call.b64info)
        if isinstance(info, Refusal):
            return info
        return await self._carry_out(
            RefreshUser(
                call.user,
                call.client,
                call.session,
                is_expired=call.expired,
                expires_at_s=call.expire_at,
                info=info,
            )
        )

    # What is asked about a channel.

    async def presence(self, call: PresenceCall) -> PresenceResult | Refusal:
        """Tell who is in a channel."""
        channel = self._present_in(call.channel)
        if isinstance(channel, Refusal):
            return channel
        try:
            return PresenceResult(await self._services.presence_store.presence(channel.name).wait())
        except BrokerError as error:
            return failed(error)

    async def presence_stats(self, call: PresenceStatsCall) -> PresenceStatsResult | Refusal:
        """Tell how many are in a channel."""
        channel = self._present_in(call.channel)
        if isinstance(channel, Refusal):
            return channel
        try:
            stats = await self._services.presence_store.stats(channel.name).wait()
        except BrokerError as error:
            return failed(error)
        return PresenceStatsResult(stats.clients, stats.users)

    async def history(self, call: HistoryCall) -> ReadHistory | Refusal:
        """Read a channel's stream, as far as it is kept: the limits that clients have are not for backends."""
        channel = self._streaming(call.channel)
        if isinstance(channel, Refusal):
            return channel
        since = call.since
        if since is not None and call.reverse and not since.offset:
            return bad("since.offset is 0, and nothing is before that: leave since out to read from the newest")
        wanted = HistoryRange(limit=call.limit, since=since, is_reverse=call.reverse)
        try:
            page = await self._services.reader.page(channel, wanted).wait()
        except BrokerError as error:
            return failed(error)
        offset, epoch = page.position.offset, page.position.epoch
        if since is not None and since.epoch and since.epoch != epoch:
            return Refusal(server_api.UNRECOVERABLE_POSITION, f"since.epoch is over, the stream's is {epoch!r} now")
        is_json_known = channel.options.publication_data_format not in {DataFormat.BINARY, DataFormat.ANY}
        return ReadHistory([stored(each, is_json_known=is_json_known) for each in page.publications], epoch, offset)

    async def history_remove(self, call: HistoryRemoveCall) -> Empty | Refusal:
        """Forget the publications of a channel's stream; its position stays."""
        channel = self._streaming(call.channel)
        if isinstance(channel, Refusal):
            return channel
        try:
            await self._broker.remove_history(channel.name).wait()
        except BrokerError as error:
            return failed(error)
        return Empty()

    # What is asked about the system.

    async def info(self, _call: InfoCall) -> InfoResult | Refusal:
        """Tell which nodes there are."""
        return InfoResult([described(node, self._trends.of(node.uid)) for node in self._cluster.info()])

    async def channels(self, call: ChannelsCall) -> ChannelsResult | Refusal:
        """Tell which channels have subscribers."""
        active = await self._cluster.channels(call.pattern)
        found = {name: ChannelResult(count) for name, count in active.channels.items()}
        return ChannelsResult(found, named(active.silent))

    async def connections(self, call: ConnectionsCall) -> ConnectionsResult | Refusal:
        """Tell which connections there are."""
        node = self._node(call.node) if call.node else None
        if isinstance(node, Refusal):
            return node
        question = directory.encode_call(call)
        survey = await self._cluster.survey(_CONNECTIONS, question, read=directory.read_page, of=node)
        return directory.join_pages(survey, limit=call.limit)

    async def drain(self, call: DrainCall) -> DrainResult | Refusal:
        """Have a node send its clients away and stop; it has begun to when this returns."""
        node = self._node(call.node or self._cluster.uid)
        if isinstance(node, Refusal):
            return node
        survey = await self._cluster.survey(_DRAIN, b"", read=bytes, of=node)
        if survey.silent:
            return Refusal(
                server_api.INTERNAL_ERROR, f"{node.name!r} ({node.uid}) did not answer: it drains when it hears of it"
            )
        return DrainResult(node.uid, node.name)

    async def rpc(self, call: RPCCall) -> RPCResult | Refusal:
        """Call a handler, with neither user nor client behind it."""
        handlers, method = self._services.handlers, call.method
        if method == PING:
            return RPCResult()
        if not handlers.has_method(method):
            return Refusal(server_api.NOT_FOUND, f"no handler {method!r} in handlers.rpc_methods")
        answer = await handlers.call(method, Request("", "", "", bytes(call.params).decode()))
        if answer is None:
            return RPCResult()
        if isinstance(answer, ErrorCode):
            return server_api.refusal(answer, f"the handler {method!r} failed, or had no time")
        if not is_json(answer.data):
            self._services.log.error("rpc answer is no JSON", handler=method)
            return Refusal(server_api.INTERNAL_ERROR, f"the handler {method!r} answered with something else than JSON")
        return RPCResult(payload(answer.data))

    # Parts of the above.

    def _send(self, name: str, data: msgspec.Raw, extras: Extras | None, is_checked: bool) -> Sent | Refusal:  # noqa: FBT001 - the fields of `Content`
        channel = self._channel(name)
        if isinstance(channel, Refusal):
            return channel
        publisher = self._services.publisher
        error = publisher.refuse(channel, data, is_checked=is_checked)
        sent = error or publisher.publish(channel, data, None, extras)
        if not isinstance(sent, ErrorCode):
            return sent
        if sent is codes.INTERNAL_ERROR:
            return server_api.refusal(sent, "one of the channel's processors failed: the node's log says how")
        return server_api.refusal(sent, f"channel {name!r}: {publisher.describe(channel)}")

    def _channel(self, name: str) -> Channel | Refusal:
        if not name:
            return bad("channel is empty")
        channel = self._services.channels.resolve(name)
        if isinstance(channel, Channel):
            return channel
        known = ", ".join(each for each in self._services.channels.namespaces if each) or "none"
        reason = f"the namespace of {name!r} is not configured (channel.namespaces has {known})"
        return server_api.refusal(channel, reason)

    def _present_in(self, name: str) -> Channel | Refusal:
        channel = self._channel(name)
        if isinstance(channel, Channel) and not channel.options.presence:
            return Refusal(server_api.NOT_AVAILABLE, f"the namespace of {name!r} has no presence = true")
        return channel

    def _streaming(self, name: str) -> Channel | Refusal:
        channel = self._channel(name)
        if isinstance(channel, Channel) and channel.stream is None:
            return Refusal(server_api.NOT_AVAILABLE, f"the namespace of {name!r} has no history_size and history_ttl")
        return channel

    def _node(self, wanted: str) -> NodeInfo | Refusal:
        nodes = self._cluster.info()
        found = [node for node in nodes if wanted == node.uid] or [node for node in nodes if wanted == node.name]
        if not found:
            names = ", ".join(node.name for node in nodes)
            return Refusal(server_api.NOT_FOUND, f"there is no node {wanted!r}, by name or uid; there is {names}")
        if len(found) > 1:
            return Refusal(server_api.CONFLICT, f"{len(found)} nodes are called {wanted!r}: name one by its uid")
        return found[0]

    async def _carry_out(self, order: Order) -> Empty | Refusal:
        try:
            await self._cluster.carry_out(order)
        except BrokerError as error:
            return Refusal(server_api.INTERNAL_ERROR, f"done on this node alone: {error}")
        return Empty()

    def _obey_drain(self, _question: bytes) -> bytes:
        self._drain()
        return b""


async def published(sent: Sent | Refusal) -> PublishResult | Refusal:
    """Wait until the broker has a publication, if it was begun, and tell where it is."""
    if isinstance(sent, Refusal):
        return sent
    if not sent.is_settled:
        with contextlib.suppress(BrokerError):
            await sent.wait()
    if isinstance(sent.error, BrokerError):
        return failed(sent.error)
    position = sent.result().position
    return _NOWHERE if position is None else PublishResult(position.offset, position.epoch)


async def broadcasted(sent: list[Sent | Refusal] | Refusal) -> BroadcastResult | Refusal:
    """Wait until the broker has all of a broadcast, if it was begun, and tell what became of each."""
    if isinstance(sent, Refusal):
        return sent
    results = [await published(each) for each in sent]
    return BroadcastResult(
        [PublishReply(error=each.error) if isinstance(each, Refusal) else PublishReply(each) for each in results]
    )
