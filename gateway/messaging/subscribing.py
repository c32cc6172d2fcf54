"""subscribe, unsubscribe and sub_refresh (protocol.md 3.4, 3.5, 3.7, 5.3)."""

from gateway.auth.tokens import TokenRefusedError
from gateway.domain.channels import Channel
from gateway.domain.identity import Grant
from gateway.domain.permissions import refuse_subscribe, subscribe_is_asked
from gateway.domain.session import monotonic_expiry, ttl
from gateway.messaging.conversation import Conversation
from gateway.messaging.granting import granted
from gateway.messaging.joining import Joining, Room, join_all
from gateway.messaging.wishes import Wishes, read_wishes
from gateway.protocol import codes
from gateway.protocol.codes import Disconnect, ErrorCode
from gateway.protocol.messages import (
    Empty,
    RefreshResult,
    SubRefreshRequest,
    SubscribeRequest,
    SubscribeResult,
    UnsubscribeRequest,
)


async def subscribe(client: Conversation, request: SubscribeRequest) -> SubscribeResult | ErrorCode | Disconnect | None:
    """Join a channel, once the broker has confirmed it; `None` if the client has gone meanwhile.

    Raises:
        TokenRefusedError: with what the client gets.
        ProxyError: the backend was to decide, and says nothing that could be used.
        BrokerError: the client is not subscribed.
    """
    channel = _refuse_name(client, request.channel)
    if not isinstance(channel, Channel):
        return channel
    grant = await _grant(client, channel, request)
    if not isinstance(grant, Grant):
        return grant
    if not client.can_carry(channel):
        return codes.NOT_AVAILABLE
    if client.has_gone():
        return None
    wishes = read_wishes(channel, request, filter_limit=client.services.session.tags_filter_limit)
    if not isinstance(wishes, Wishes):
        return wishes
    joining = Joining(client, channel, request, grant, is_server_side=False, wishes=wishes)
    return await _join(client, joining)


async def _join(client: Conversation, joining: Joining) -> SubscribeResult | ErrorCode | Disconnect | None:
    if not await join_all(client, [joining]):
        return None
    if client.session.is_full():  # others were joined meanwhile, which `client.concurrency` allows
        joining.give_up()
        client.services.counts.limit_hits["channel_limit"] += 1
        return codes.LIMIT_EXCEEDED
    result = joining.result(Room(client.room()))
    if result is None:
        joining.give_up()
        return codes.UNRECOVERABLE_POSITION
    if not client.can_tell(joining.channel, result.publications):
        joining.give_up()
        return codes.INAPPROPRIATE_PROTOCOL
    joining.enter(result)
    return result


def unsubscribe(client: Conversation, request: UnsubscribeRequest) -> Empty | Disconnect:
    """Leave a channel. Not to be in it is a success too: an error would make SDKs reconnect (3.5)."""
    if not request.channel:
        return codes.PROTOCOL_VIOLATED
    client.leave(request.channel)
    return Empty()


async def sub_refresh(
    client: Conversation, request: SubRefreshRequest
) -> RefreshResult | ErrorCode | Disconnect | None:
    """Prolong a subscription by a new token."""
    services, session = client.services, client.session
    if not request.channel:
        return codes.PROTOCOL_VIOLATED
    subscription = session.subscriptions.get(request.channel)
    if subscription is None:
        return codes.PERMISSION_DENIED
    if subscription.is_refreshed_by_server:
        return codes.PROTOCOL_VIOLATED
    if not request.token:
        return codes.BAD_REQUEST
    try:
        grant = await _read_token(client, request.channel, request.token)
    except TokenRefusedError as refusal:
        # 10, 1: an expired token keeps the old expiry; every other fault ends the connection.
        client.note_token_failure(refusal)
        keeps_connection = refusal.has_expired or refusal.answer is codes.INTERNAL_ERROR
        return refusal.answer if keeps_connection else codes.INVALID_TOKEN
    if session.subscriptions.get(request.channel) is not subscription:
        return codes.PERMISSION_DENIED  # it ended while the token was read
    unix_s = services.unix()
    expires_at_s = monotonic_expiry(grant.expires_at_s, now_s=services.monotonic(), unix_s=unix_s)
    session.refresh_subscription(subscription, expires_at_s)
    client.watch()
    return RefreshResult(expires=bool(grant.expires_at_s), ttl=ttl(grant.expires_at_s, unix_s=unix_s))


def _refuse_name(client: Conversation, name: str) -> Channel | ErrorCode | Disconnect:
    """Carry out steps 1 and 2 of protocol.md 3.4."""
    services = client.services
    refusal = client.session.refuse_joining(name, max_length=services.max_channel_length)
    if refusal is not None:
        if refusal is codes.LIMIT_EXCEEDED:
            services.counts.limit_hits["channel_limit"] += 1
        return refusal
    channel = services.channels.resolve(name)
    if isinstance(channel, Channel) and not channel.is_well_formed:
        return codes.BAD_REQUEST
    return channel


async def _grant(client: Conversation, channel: Channel, request: SubscribeRequest) -> Grant | ErrorCode | Disconnect:
    """Carry out steps 3 to 8 of protocol.md 3.4."""
    if request.token:
        return await _read_token(client, channel.name, request.token)
    if subscribe_is_asked(channel):
        return await granted(client, channel, request.data)
    denied = refuse_subscribe(channel, client.session.user, is_insecure=client.services.is_insecure)
    return denied or Grant(channel.name)


async def _read_token(client: Conversation, channel: str, token: str) -> Grant:
    services, session = client.services, client.session
    return await services.subscription_tokens.subscription(
        token, channel=channel, user=session.user, client=session.client_id, unix_s=services.unix()
    )
