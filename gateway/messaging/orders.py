"""What is done to the connections of this node by order of the cluster: the server API's, or another node's."""

from collections.abc import Callable, Iterable
from functools import partial

from gateway.broker.contract import BrokerError
from gateway.domain.channels import Channel
from gateway.domain.identity import Grant
from gateway.domain.session import State, monotonic_expiry, ttl
from gateway.messaging.cluster import LocalCounts
from gateway.messaging.commands import ClientConversation
from gateway.messaging.control import DisconnectUser, RefreshUser, SubscribeUser, UnsubscribeUser
from gateway.messaging.conversation import Conversation
from gateway.messaging.joining import Joining, Room, join_all
from gateway.messaging.services import Services
from gateway.protocol import codes
from gateway.protocol.messages import ClientInfo, Push, RefreshResult, SubscribePush, SubscribeRequest, payload

Concerns = Callable[..., bool]


class LocalOrders:
    """Carries orders out on the connections of `services` (`cluster.LocalSessions` says what each one does)."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def disconnect(self, order: DisconnectUser) -> None:
        """End connections."""
        for client in self._concerned(order.user, order.concerns):
            if order.older_than is None or client.age_rank < order.older_than:
                client.disconnect(order.disconnect)

    def unsubscribe(self, order: UnsubscribeUser) -> None:
        """End subscriptions, with code 2000; one that is being made when it is there."""
        for client in self._concerned(order.user, order.concerns):
            if isinstance(client, ClientConversation):
                client.carry_out(partial(_unsubscribe, client, order.channel))
            else:
                client.unsubscribe(order.channel, codes.SERVER_UNSUBSCRIBE)

    def subscribe(self, order: SubscribeUser) -> None:
        """Make server-side subscriptions, each behind the commands of its client that came before."""
        channel = self._services.channels.resolve(order.channel)
        if not isinstance(channel, Channel):
            self._services.log.warning("order names an unknown channel", channel=order.channel)
            return
        for client in self._concerned(order.user, order.concerns):
            if isinstance(client, ClientConversation):  # the plain protocol has one channel and no words for more
                client.carry_out(partial(_subscribe, client, channel, order))

    def refresh(self, order: RefreshUser) -> None:
        """Change when connections expire."""
        services = self._services
        now_s, unix_s = services.monotonic(), services.unix()
        for client in self._concerned(order.user, order.concerns):
            if order.is_expired:
                client.disconnect(codes.CONNECTION_EXPIRED)
                continue
            client.session.expire_at(monotonic_expiry(order.expires_at_s, now_s=now_s, unix_s=unix_s))
            if order.info:
                client.session.inform(payload(order.info))
            client.watch()
            if isinstance(client, ClientConversation):
                told_s = 0 if client.session.is_refreshed_by_server else order.expires_at_s
                refreshed = RefreshResult(bool(told_s), ttl(told_s, unix_s=unix_s))
                client.push(Push(refresh=refreshed))

    def channels(self) -> Iterable[tuple[str, int]]:
        """Return the channels with subscribers on this node, and how many connections each has."""
        counted = ((local.channel.name, local.count_clients()) for local in self._services.hub)
        return [(name, count) for name, count in counted if count]

    def clients(self, channel: str) -> Iterable[ClientInfo]:
        """Return who is subscribed to *channel* on this node."""
        subscriptions = (client.session.subscriptions.get(channel) for client in self._services.connections)
        return [subscription.info for subscription in subscriptions if subscription is not None]

    def counts(self) -> LocalCounts:
        """Return how much is on this node."""
        services = self._services
        return LocalCounts(
            clients=len(services.connections),
            users=services.connections.users,
            subscriptions=sum(services.hub.subscriptions().values()),
            channels=len(services.hub),
        )

    def _concerned(self, user: str, concerns: Concerns) -> list[Conversation]:
        # Whose user is known is meant, even if the broker has yet to confirm what it joins at connect.
        states = {State.CONNECTED, State.AUTHENTICATING} if user else {State.CONNECTED}
        return [
            client
            for client in self._services.connections.of(user)
            if client.session.state in states
            and concerns(user, client=client.session.client_id, session=client.session.session_id)
        ]


async def _unsubscribe(client: ClientConversation, channel: str) -> None:
    client.unsubscribe(channel, codes.SERVER_UNSUBSCRIBE)


async def _subscribe(client: ClientConversation, channel: Channel, order: SubscribeUser) -> None:
    """Make one server-side subscription, or repeat the push of one that is there (protocol.md 3.3)."""
    since = order.recover_since
    asked = SubscribeRequest(recover=since is not None)
    if since is not None:
        asked.epoch, asked.offset = since.epoch, since.offset
    subscription = client.session.subscriptions.get(channel.name)
    if subscription is not None:
        features = subscription.features
        told = SubscribePush(
            recoverable=features.is_recoverable, positioned=features.is_positioned, data=payload(order.data)
        )
        client.push(Push(channel=channel.name, subscribe=told))
        return
    services = client.services
    if len(client.session.subscriptions) >= services.session.channel_limit:
        services.counts.limit_hits["channel_limit"] += 1
        client.disconnect(codes.CHANNEL_LIMIT)
        return
    if not client.can_carry(channel):
        return
    info, data = payload(order.info), payload(order.data)
    grant = Grant(channel.name, info, data, order.expires_at_s, order.overrides)
    joining = Joining(client, channel, asked, grant, is_server_side=True)
    try:
        if not await join_all(client, [joining]):
            return
    except BrokerError:
        services.log.warning("ordered subscription failed", client=client.session.client_id, channel=channel.name)
        return
    result = joining.result(Room(client.room()))
    if result is None:
        raise AssertionError("only a client that rejects it gets an error")
    joining.enter(result)
    told = SubscribePush(result.recoverable, result.epoch, result.offset, result.positioned, result.data)
    client.push(Push(channel=channel.name, subscribe=told))
    client.push_publications(channel.name, result.publications)
