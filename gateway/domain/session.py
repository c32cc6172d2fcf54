"""The logical client: what it is, what it joined, and when something is due. It decides; it never writes.

Theory of operation. A session is born OPENED and has until its stale deadline to say who it is.

    OPENED ──connect──▶ AUTHENTICATING ──accepted──▶ CONNECTED ──▶ CLOSED
                              └──────────error reply──▶ REFUSED ──▶ CLOSED

In REFUSED every command is ignored (protocol.md 3.1, 5); the session is closed a little later, so that the reply gets
out first. All waiting is one number, `deadline_s`, never later than the earliest of stale, ping, pong, expiry of the
connection and expiry of a subscription. When it has passed, `tick` says what to do. Times are seconds of a monotonic
clock.
"""

from enum import Enum, auto
from typing import Annotated, Final, Self

import msgspec
from pydantic import Field, model_validator

from gateway.domain.channels import Channel
from gateway.domain.identity import Identity
from gateway.domain.ratelimit import TokenBucket
from gateway.domain.subscriber import Traffic
from gateway.domain.wheel import NEVER
from gateway.protocol import codes
from gateway.protocol.codes import Disconnect, ErrorCode
from gateway.protocol.messages import NOTHING, ClientInfo
from gateway.protocol.variants import Variant
from gateway.settings import Limit, Seconds, Settings, Size

MAX_TTL_S: Final = 365 * 86400
"""What a client is told at most (protocol.md 3.7)."""
REFRESH_AGAIN_S: Final = 60.0
"""How long what expires goes on when the backend was asked, unless it says otherwise (protocol.md 8)."""


class SessionSettings(Settings):
    """What a session waits for and how much it may hold; part of the table `client`."""

    ping_interval_s: Seconds = 25.0
    """Time between pings to a client."""
    pong_timeout_s: Seconds = 8.0
    """How long a client may take to answer a ping; shorter than `ping_interval`. 0: no answer is asked for."""
    stale_close_delay_s: Seconds = 10.0
    """How long a client may take to authenticate (disconnect 3502; plain protocol: 1013)."""
    refused_close_delay_s: Seconds = 1.0
    """How long a connection stays open after its connect command was answered with an error."""
    expired_close_delay_s: Seconds = 25.0
    """How long after its expiry a connection may still be refreshed (disconnect 3005)."""
    expired_sub_close_delay_s: Seconds = 25.0
    """How long after its expiry a subscription may still be refreshed (unsubscribe 2501)."""
    channel_limit: Size = 128
    """Subscriptions of one connection, server-side ones included (error 106, disconnect 3505)."""
    concurrency: Annotated[Limit, Field(le=1024)] = 0
    """How many commands of one connection may wait for a broker or a backend at a time. Those of one channel keep their
    order, but replies overtake each other then; 0 or 1: all come in the order of the commands."""
    tags_filter_limit: Size = 100
    """Conditions of one tags filter, values to compare with included (error 107)."""
    history_max_publication_limit: Size = 300
    """Publications in one history reply."""
    recovery_max_publication_limit: Size = 300
    """Publications that a subscriber may have missed and still recover."""
    channel_position_check_delay_s: Seconds = 40.0
    """How long a stream may bring nothing before a node looks whether it missed something (0: it never looks)."""
    presence_update_interval_s: Annotated[Seconds, Field(gt=0)] = 27.0
    """How often a node renews the presence of its clients."""
    presence_ttl_s: Annotated[Seconds, Field(gt=0)] = 60.0
    """How long the presence of a client outlives a node that died; longer than `presence_update_interval`."""
    command_rate: Limit = 300
    """Commands a second that one connection may send (error 111; far over it disconnect 3013; 0: no limit)."""
    command_burst: Size = 600
    """Commands that one connection may send at once: a reconnecting SDK sends its subscribes together."""

    @model_validator(mode="after")
    def _reject_late_pongs(self) -> Self:
        if self.pong_timeout_s >= self.ping_interval_s:
            pong, ping = self.pong_timeout_s, self.ping_interval_s
            message = f"pong_timeout ({pong:g}s) must be shorter than ping_interval ({ping:g}s)"
            raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _reject_flickering_presence(self) -> Self:
        if self.presence_ttl_s <= self.presence_update_interval_s:
            ttl, interval = self.presence_ttl_s, self.presence_update_interval_s
            message = f"presence_ttl ({ttl:g}s) must be longer than presence_update_interval ({interval:g}s)"
            raise ValueError(message)
        return self


class State(Enum):
    """Where a session is in its life; the module's theory of operation has the picture."""

    OPENED = auto()
    AUTHENTICATING = auto()
    CONNECTED = auto()
    REFUSED = auto()
    CLOSED = auto()


class SendPing(msgspec.Struct, frozen=True, gc=False):
    """Due now: ask the client for a sign of life."""


class SubscriptionExpired(msgspec.Struct, frozen=True, gc=False):
    """Due now: end this subscription, since no new token came for it."""

    channel: str


class RefreshDue(msgspec.Struct, frozen=True, gc=False):
    """Due now: ask the backend whether the connection may go on."""


class SubscriptionRefreshDue(msgspec.Struct, frozen=True, gc=False):
    """Due now: ask the backend whether this subscription may go on."""

    channel: str


Action = SendPing | SubscriptionExpired | RefreshDue | SubscriptionRefreshDue | Disconnect


class Features(msgspec.Struct, frozen=True, gc=False):
    """What one subscription has beyond publications: the namespace's options, a token's overrides, wishes granted."""

    is_positioned: bool = False
    """Told when publications are lost."""
    is_recoverable: bool = False
    """Given what it missed when it comes back."""
    is_present: bool = False
    """Kept in the channel's presence."""
    is_announced: bool = False
    """Told to others when it comes and goes."""
    is_watching: bool = False
    """Told when others do."""


PLAIN_FEATURES: Final = Features()


class Subscription:
    """One channel that a session is in."""

    __slots__ = (
        "channel",
        "expires_at_s",
        "features",
        "info",
        "is_refreshed_by_server",
        "is_server_side",
        "sent_before",
        "variant",
    )

    def __init__(
        self,
        channel: Channel,
        *,
        info: ClientInfo,
        is_server_side: bool,
        expires_at_s: float,
        features: Features = PLAIN_FEATURES,
        variant: Variant | None = None,
        is_refreshed_by_server: bool = False,
    ) -> None:
        self.channel = channel
        self.variant = variant
        """What its publications are encoded as, where that is not what the client's kind gets."""
        self.features = features
        self.info = info
        self.is_server_side = is_server_side
        self.expires_at_s = expires_at_s
        self.is_refreshed_by_server = is_refreshed_by_server
        """Whether the backend is asked when it expires, and the client has nothing to do with it."""
        self.sent_before = Traffic()
        """What the group that the subscriber joined had been written by then."""

    def due_at_s(self, *, delay_s: float) -> float:
        """Return when something is due: asking the backend, or else, after the delay, its end."""
        return self.expires_at_s if self.is_refreshed_by_server else self.expires_at_s + delay_s

    def note_joined(self, sent_before: Traffic) -> None:
        """Take note of what the group had been written when the subscriber joined it."""
        self.sent_before = sent_before


class Session:
    """The state of one client. Every method is a plain function of its arguments and of what came before."""

    __slots__ = (
        "_expects_pongs",
        "_expires_at_s",
        "_next_ping_at_s",
        "_pong_due_at_s",
        "_settings",
        "_stale_at_s",
        "bucket",
        "client_id",
        "deadline_s",
        "granted",
        "info",
        "is_refreshed_by_server",
        "meta",
        "pinged_at_s",
        "session_id",
        "state",
        "subscriptions",
        "user",
    )

    def __init__(
        self,
        client_id: str,
        settings: SessionSettings,
        *,
        now_s: float,
        session_id: str = "",
        expects_pongs: bool = True,
    ) -> None:
        """With *expects_pongs* false a ping is not answered, and its answer not missed."""
        self.client_id = client_id
        self.session_id = session_id
        """The secret by which commands that come beside the connection find it; empty if none do."""
        self._expects_pongs = expects_pongs
        self.state = State.OPENED
        self.user = ""
        self.info = ClientInfo(user="", client=client_id)
        self.subscriptions: dict[str, Subscription] = {}
        self.granted: frozenset[str] = frozenset()
        """The channels that the connection's credentials gave it."""
        self.meta = NOTHING
        """What the backend is told of it, on request."""
        self.is_refreshed_by_server = False
        """Whether the backend is asked when the connection expires, and the client has nothing to do with it."""
        self.bucket = TokenBucket()
        self._settings = settings
        self._stale_at_s = now_s + settings.stale_close_delay_s
        self._next_ping_at_s = NEVER
        self._pong_due_at_s = NEVER
        self._expires_at_s = NEVER
        self.pinged_at_s = 0.0
        """When the last ping was due."""
        self.deadline_s = self._stale_at_s

    @property
    def is_expiring(self) -> bool:
        """Whether the connection ends unless it is refreshed."""
        return self._expires_at_s != NEVER

    def accept(self, identity: Identity, *, now_s: float, unix_s: float, random: float) -> None:
        """Become CONNECTED as *identity*. *random* in [0, 1) spreads first pings over half an interval (3.2)."""
        self.state = State.CONNECTED
        self.identify(identity, now_s=now_s, unix_s=unix_s)
        self._stale_at_s = NEVER
        self._next_ping_at_s = now_s + self._settings.ping_interval_s * (0.5 + random / 2)
        self._reschedule()

    def identify(self, identity: Identity, *, now_s: float, unix_s: float) -> None:
        """Take over user, info, meta if there is one, and expiry of *identity*; a refresh does only this."""
        self.user = identity.user
        if identity.meta is not NOTHING:
            self.meta = identity.meta
        self.inform(identity.info)
        self.expire_at(monotonic_expiry(identity.expires_at_s, now_s=now_s, unix_s=unix_s))

    def inform(self, info: msgspec.Raw) -> None:
        """Let *info* be what others are told of the connection from now on."""
        self.info = ClientInfo(user=self.user, client=self.client_id, conn_info=info)
        for subscription in self.subscriptions.values():
            subscription.info = ClientInfo(self.user, self.client_id, info, subscription.info.chan_info)

    def expire_at(self, expires_at_s: float) -> None:
        """Let the connection expire at *expires_at_s*."""
        self._expires_at_s = expires_at_s
        self._reschedule()

    def refuse(self, *, now_s: float) -> None:
        """Become REFUSED: deaf until the close that follows."""
        self.state = State.REFUSED
        self._stale_at_s = min(self._stale_at_s, now_s + self._settings.refused_close_delay_s)
        self._reschedule()

    def close(self) -> None:
        """Become CLOSED; nothing is due any more. The caller has taken the subscriptions apart."""
        self.state = State.CLOSED
        self._stale_at_s = self._next_ping_at_s = self._pong_due_at_s = self._expires_at_s = NEVER
        self.deadline_s = NEVER

    def refuse_joining(self, channel: str, *, max_length: int) -> ErrorCode | Disconnect | None:
        """Decide the first step of a subscribe (protocol.md 3.4, 1), before the name is read."""
        if not channel:
            return codes.PROTOCOL_VIOLATED
        if len(channel.encode(errors="surrogatepass")) > max_length:
            return codes.BAD_REQUEST
        if channel in self.subscriptions:
            return codes.ALREADY_SUBSCRIBED
        if self.is_full():
            return codes.LIMIT_EXCEEDED
        return None

    def is_full(self) -> bool:
        """Tell whether it may join no further channel."""
        return len(self.subscriptions) >= self._settings.channel_limit

    def join(self, subscription: Subscription) -> None:
        """Note that the session is in a channel from now on."""
        self.subscriptions[subscription.channel.name] = subscription
        if subscription.expires_at_s != NEVER:
            self._reschedule()

    def leave(self, channel: str) -> Subscription | None:
        """Note that the session has left *channel*; `None` if it was not there.

        `deadline_s` may be too early afterwards, which costs one idle `tick`; looking through all that is left would
        cost more.
        """
        return self.subscriptions.pop(channel, None)

    def refresh_subscription(self, subscription: Subscription, expires_at_s: float) -> None:
        """Give *subscription* a new expiry."""
        subscription.expires_at_s = expires_at_s
        self._reschedule()

    def pong(self) -> Disconnect | None:
        """Take a sign of life; one that nobody asked for violates the protocol (3.2)."""
        if self._pong_due_at_s == NEVER:
            return codes.PROTOCOL_VIOLATED
        self._pong_due_at_s = NEVER
        self._reschedule()
        return None

    def tick(self, *, now_s: float, is_deaf: bool = False) -> list[Action]:
        """Say what is due at *now_s*, most final last.

        *is_deaf* tells that this side has not been reading, so that a missing pong says nothing about the client.
        """
        settings = self._settings
        if self.state is State.CLOSED:
            return []
        if is_deaf and now_s >= self._pong_due_at_s:
            self._pong_due_at_s = now_s + settings.pong_timeout_s
        if now_s >= self._stale_at_s:
            return [codes.STALE]
        if now_s >= self._pong_due_at_s:
            return [codes.NO_PONG]
        if now_s >= self._expiry_due_at_s and not self.is_refreshed_by_server:
            return [codes.CONNECTION_EXPIRED]
        delay_s = settings.expired_sub_close_delay_s
        expired = [each for each in self.subscriptions.values() if now_s >= each.due_at_s(delay_s=delay_s)]
        if any(each.is_server_side and not each.is_refreshed_by_server for each in expired):
            return [codes.SUBSCRIPTION_EXPIRED]
        actions: list[Action] = [self._expired(each, now_s=now_s) for each in expired]
        if now_s >= self._expiry_due_at_s:
            self._expires_at_s = now_s + REFRESH_AGAIN_S
            actions.append(RefreshDue())
        if now_s >= self._next_ping_at_s:
            self._next_ping_at_s = now_s + settings.ping_interval_s
            self.pinged_at_s = now_s
            if settings.pong_timeout_s and self._expects_pongs:
                self._pong_due_at_s = now_s + settings.pong_timeout_s
            actions.append(SendPing())
        self._reschedule()
        return actions

    @property
    def _expiry_due_at_s(self) -> float:
        """When something is due: asking the backend, or else, after the delay, the end."""
        delay_s = 0.0 if self.is_refreshed_by_server else self._settings.expired_close_delay_s
        return self._expires_at_s + delay_s

    def _expired(self, subscription: Subscription, *, now_s: float) -> Action:
        if not subscription.is_refreshed_by_server:
            return SubscriptionExpired(subscription.channel.name)
        subscription.expires_at_s = now_s + REFRESH_AGAIN_S
        return SubscriptionRefreshDue(subscription.channel.name)

    def _reschedule(self) -> None:
        delay_s = self._settings.expired_sub_close_delay_s
        self.deadline_s = min(
            self._stale_at_s,
            self._next_ping_at_s,
            self._pong_due_at_s,
            self._expiry_due_at_s,
            min((each.due_at_s(delay_s=delay_s) for each in self.subscriptions.values()), default=NEVER),
        )


def monotonic_expiry(expires_at_s: float, *, now_s: float, unix_s: float) -> float:
    """Turn an expiry in Unix seconds, 0 for never, into one of the monotonic clock."""
    return now_s + (expires_at_s - unix_s) if expires_at_s else NEVER


def ttl(expires_at_s: float, *, unix_s: float) -> int:
    """Return what a client is told of an expiry in Unix seconds: whole seconds from now, at least one; 0 for never."""
    if not expires_at_s:
        return 0
    return min(max(int(expires_at_s - unix_s + 0.5), 1), MAX_TTL_S)
