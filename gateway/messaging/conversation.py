"""What every kind of client has in common: joining, leaving, time, and one way to end.

A conversation stands between a transport below it and the node's services; `gateway.messaging.lanes` has how its
commands are carried out.
"""

from abc import abstractmethod
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any

from gateway.domain.channels import Channel, DataFormat
from gateway.domain.counts import Dropped
from gateway.domain.identity import Identity
from gateway.domain.session import (
    RefreshDue,
    SendPing,
    State,
    Subscription,
    SubscriptionExpired,
    SubscriptionRefreshDue,
)
from gateway.messaging.granting import refresh_connection, refresh_subscription
from gateway.messaging.lanes import Lanes
from gateway.messaging.port import DUPLEX, Terms, Transport
from gateway.messaging.services import Services
from gateway.protocol import codes
from gateway.protocol.codes import Disconnect, Unsubscribed
from gateway.protocol.json_codec import is_json
from gateway.protocol.messages import Publication
from gateway.protocol.variants import Variant
from gateway.proxies.headers import NO_HEADERS, ClientHeaders


class Conversation(Lanes):
    """One client, from the opened transport to the closed one."""

    __slots__ = (
        "deadline_s",
        "headers",
        "wheel_slot",
    )

    def __init__(
        self,
        transport: Transport,
        variant: Variant,
        services: Services,
        *,
        terms: Terms = DUPLEX,
        headers: ClientHeaders = NO_HEADERS,
    ) -> None:
        super().__init__(transport, variant, services, terms)
        self.headers = headers
        """What the backend may be told of the client's own headers."""
        self.wheel_slot: int | None = None
        self.deadline_s = self.session.deadline_s
        services.connections.add(self)
        self.watch()

    # What a kind of client defines.

    @abstractmethod
    def receive(self, payload: bytes, *, is_text: bool) -> None:
        """Take one whole message of the peer; text has been checked to be UTF-8."""

    @abstractmethod
    def frame_pong(self) -> None:
        """Take a pong of the transport's own."""

    @abstractmethod
    def _ping(self) -> None:
        """Ask the peer for a sign of life."""

    def flush(self) -> None:
        """Write the replies that are ready; a fault of ours ends this conversation and nothing else."""
        try:
            self._flush()
        except Exception:  # noqa: BLE001 - the others of this turn are to be flushed, too
            self._failed()

    @abstractmethod
    def tell_gap(self, channel: str) -> None:
        """Take note that publications of *channel*, which this client is in, are lost, and tell the client."""

    @abstractmethod
    def unsubscribe(self, channel: str, reason: Unsubscribed) -> None:
        """End the subscription to *channel*, if there is one, and tell the client why."""

    @abstractmethod
    def room(self) -> int:
        """Return how many bytes a reply may have that the transport takes for certain."""

    @abstractmethod
    def _watch_channel(self, subscription: Subscription) -> None:
        """Have the client told who comes and goes in the channel of *subscription*, if its kind can be."""

    def _last_message(self, told: Disconnect) -> bytes:
        """Return what says so to a client whose transport can't."""
        del told
        return b""

    def _closing(self, disconnect: Disconnect) -> Disconnect:
        """Translate *disconnect* into the code that this kind of client is told."""
        return disconnect

    @property
    def age_rank(self) -> tuple[float, str]:
        """What orders the connections of a whole cluster by when they were opened, each in a place of its own."""
        return self.traffic.opened_at_unix_s, self.session.client_id

    # Time.

    def watch(self) -> None:
        """Have `tick` called at the session's next deadline. Call it when a deadline has moved nearer."""
        self.deadline_s = self.session.deadline_s
        self.services.wheel.watch(self)

    def tick(self) -> None:
        """Do what is due. A fault of ours ends this conversation and nothing else: the wheel turns for all."""
        try:
            self._do_what_is_due()
        except Exception:  # noqa: BLE001 - as above
            self._failed()

    def _do_what_is_due(self) -> None:
        for action in self.session.tick(now_s=self.services.monotonic(), is_deaf=self.is_deaf):
            if self.has_gone():
                break
            match action:
                case SendPing():
                    self._ping()
                case SubscriptionExpired(channel):
                    self.unsubscribe(channel, codes.UNSUBSCRIBED_EXPIRED)
                case RefreshDue():
                    self.services.spawn(self._ask(refresh_connection(self)))
                case SubscriptionRefreshDue(channel):
                    subscription = self.session.subscriptions[channel]
                    self.services.spawn(self._ask(refresh_subscription(self, subscription)))
                case Disconnect():
                    self.disconnect(action)
        if not self.has_gone():
            self.watch()

    async def _ask(self, refreshing: Coroutine[Any, Any, None]) -> None:
        """Have the backend asked beside the commands: what these do is not changed by it, so they need not wait."""
        try:
            await refreshing
        except Exception:  # noqa: BLE001 - as above
            self._failed()

    # Who it is.

    def admit(self, identity: Identity) -> bool:
        """File the connection under its user; false when that user has too many, and this one was disconnected."""
        services, user = self.services, identity.user
        limit = services.user_connection_limit
        if limit and user and user != self.session.user and services.connections.count_of(user) >= limit:
            services.counts.limit_hits["user_connection_limit"] += 1
            self.disconnect(codes.CONNECTION_LIMIT)
            return False
        self.session.user = user
        services.connections.identify(self)
        return True

    # Joining and leaving.

    async def acquire(self, channels: Sequence[str]) -> bool:
        """Have the broker confirm *channels*, all or none; false when the connection has gone meanwhile.

        Call `enter` for each of them before anything else is awaited.

        Raises:
            BrokerError: nothing was left behind.
        """
        interest = self.services.interest
        await interest.acquire(*channels)
        if self.has_gone():
            interest.release(*channels)
        return not self.has_gone()

    def enter(self, subscription: Subscription, *, after: int | None = None, base: Publication | None = None) -> None:
        """Deliver a channel that `acquire` has confirmed: from now on, or what comes above the offset *after*.

        *base* is the last publication that the client gets in another way.
        """
        services, session, channel = self.services, self.session, subscription.channel
        variant = self.variant_of(subscription)
        if after is None:
            subscription.note_joined(services.hub.join(channel, self.transport, variant, base))
        else:
            joined = subscription.note_joined
            services.hub.join_after(channel, self.transport, variant, after=after, joined=joined, base=base)
        session.join(subscription)
        self.watch()
        if subscription.features.is_watching:
            self._watch_channel(subscription)
        services.presences.joined(subscription)
        services.counts.subscribed[channel.namespace] += 1
        services.log.info("subscribed", client=session.client_id, user=session.user, channel=channel.name)

    def leave(self, channel: str) -> bool:
        """Unsubscribe; false if the session was not subscribed."""
        subscription = self.session.leave(channel)
        if subscription is None:
            return False
        self._detach(subscription, because=Dropped.UNSUBSCRIBED)
        self.services.log.info("unsubscribed", client=self.session.client_id, user=self.session.user, channel=channel)
        return True

    def can_carry(self, channel: Channel) -> bool:
        """Tell whether this client's encoding can carry what is published in *channel*."""
        return not (self.variant.needs_json and channel.options.publication_data_format is DataFormat.BINARY)

    def can_tell(self, channel: Channel, publications: Iterable[Publication]) -> bool:
        """Tell whether it can carry these, which a stream of *channel* has kept."""
        if not (self.variant.needs_json and channel.options.is_unchecked):
            return True
        return all(is_json(bytes(publication.data)) for publication in publications)

    def variant_of(self, subscription: Subscription) -> Variant:
        """Return what publications of *subscription* are encoded as: what it has agreed to, or what its kind gets."""
        return subscription.variant or self.variant_for(subscription.channel)

    def variant_for(self, channel: Channel) -> Variant:
        """Return what publications of *channel* are encoded as for clients of this kind."""
        del channel
        return self.variant

    def _detach(self, subscription: Subscription, *, because: Dropped) -> None:
        services, channel = self.services, subscription.channel
        if subscription.features.is_watching:
            services.hub.unwatch(channel.name, self.session.client_id)
        sent = services.hub.leave(channel.name, self.transport, self.variant_of(subscription), because=because)
        services.presences.left(subscription)
        services.interest.release(channel.name)
        self.traffic.messages_out += sent.messages - subscription.sent_before.messages
        self.traffic.bytes_out += sent.size - subscription.sent_before.size

    # The end.

    def disconnect(self, disconnect: Disconnect) -> None:
        """End the conversation from this side; a second time does nothing."""
        if self.has_gone():
            return
        if disconnect is not codes.SLOW:
            self._flush()
            if self.has_gone():  # the last replies found the transport full
                return
        told = self._closing(disconnect)
        self.services.counts.disconnects[told.code] += 1
        because = Dropped.SHUTDOWN if disconnect is codes.SHUTDOWN else Dropped.DISCONNECTED
        last = self._last_message(told)
        self._end(code=told.code, reason=told.reason, by="server", because=because)
        self.transport.close(told, last)

    def closed(self, *, code: int, reason: str, by: str) -> None:
        """Take note of an end that `disconnect` did not bring about; *by* says who did."""
        if self.has_gone():
            return
        if by == "server":
            self.services.counts.disconnects[code] += 1
        else:
            self.services.counts.closes_by_peer += 1
        because = Dropped.DISCONNECTED if by == "server" else Dropped.CLOSED
        self._end(code=code, reason=reason, by=by, because=because)

    def _end(self, *, code: int, reason: str, by: str, because: Dropped) -> None:
        services, session = self.services, self.session
        # Who never said who it is has no user to name, and its line is limited as those of all strangers.
        known = {"user": session.user} if session.state is State.CONNECTED else {}
        session.close()
        for subscription in session.subscriptions.values():
            self._detach(subscription, because=because)
        session.subscriptions.clear()
        services.connections.remove(self)
        services.wheel.forget(self)
        self._line = None
        traffic = self.traffic
        services.log.info(
            "closed",
            client=session.client_id,
            **known,
            code=code,
            reason=reason,
            by=by,
            seconds=round(services.monotonic() - traffic.opened_at_s, 3),
            messages_in=traffic.messages_in,
            bytes_in=traffic.bytes_in,
            messages_out=traffic.messages_out,
            bytes_out=traffic.bytes_out,
        )
