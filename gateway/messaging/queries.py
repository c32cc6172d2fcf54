"""history, presence and presence_stats: what clients may ask about a channel (protocol.md 3.5)."""

from gateway.domain.channels import Channel
from gateway.domain.permissions import may_read_history, may_read_presence
from gateway.domain.stream import HistoryRange
from gateway.messaging.conversation import Conversation
from gateway.protocol import codes
from gateway.protocol.codes import Disconnect, ErrorCode
from gateway.protocol.messages import (
    HistoryRequest,
    HistoryResult,
    PresenceRequest,
    PresenceResult,
    PresenceStatsRequest,
    PresenceStatsResult,
)


async def history(client: Conversation, request: HistoryRequest) -> HistoryResult | ErrorCode | Disconnect | None:
    """Read a page of a channel's stream.

    Raises:
        BrokerError: the stream could not be read.
    """
    services, session = client.services, client.session
    channel = _asked_for(client, request.channel)
    if not isinstance(channel, Channel):
        return channel
    if channel.stream is None:
        return codes.NOT_AVAILABLE
    is_subscribed = channel.name in session.subscriptions
    if not may_read_history(channel, session.user, is_subscribed=is_subscribed, is_insecure=services.is_insecure):
        return codes.PERMISSION_DENIED
    since = request.since
    if since is not None and request.reverse and not since.offset:
        return codes.BAD_REQUEST
    most = services.session.history_max_publication_limit
    limit = most if request.limit < 0 else min(request.limit, most)
    wanted = HistoryRange(limit=limit, since=since, is_reverse=request.reverse)
    page = await services.reader.page(channel, wanted).wait()
    if since is not None and since.epoch and since.epoch != page.position.epoch:
        return codes.UNRECOVERABLE_POSITION
    if not client.can_tell(channel, page.publications):
        return codes.INAPPROPRIATE_PROTOCOL
    return HistoryResult(page.publications, page.position.epoch, page.position.offset)


async def presence(client: Conversation, request: PresenceRequest) -> PresenceResult | ErrorCode | Disconnect | None:
    """Tell who is in a channel.

    Raises:
        BrokerError: the presence could not be read.
    """
    channel = _present_in(client, request.channel)
    if not isinstance(channel, Channel):
        return channel
    return PresenceResult(await client.services.presence_store.presence(channel.name).wait())


async def presence_stats(
    client: Conversation, request: PresenceStatsRequest
) -> PresenceStatsResult | ErrorCode | Disconnect | None:
    """Tell how many are in a channel.

    Raises:
        BrokerError: the presence could not be read.
    """
    channel = _present_in(client, request.channel)
    if not isinstance(channel, Channel):
        return channel
    stats = await client.services.presence_store.stats(channel.name).wait()
    return PresenceStatsResult(stats.clients, stats.users)


def _present_in(client: Conversation, name: str) -> Channel | ErrorCode | Disconnect:
    """Return the channel *name* if *client* may ask who is in it, else what it gets."""
    services, session = client.services, client.session
    channel = _asked_for(client, name)
    if not isinstance(channel, Channel):
        return channel
    if not channel.options.presence:
        return codes.NOT_AVAILABLE
    is_subscribed = channel.name in session.subscriptions
    if not may_read_presence(channel, session.user, is_subscribed=is_subscribed, is_insecure=services.is_insecure):
        return codes.PERMISSION_DENIED
    return channel


def _asked_for(client: Conversation, name: str) -> Channel | ErrorCode | Disconnect:
    if not name:
        return codes.PROTOCOL_VIOLATED
    channel = client.services.channels.resolve(name)
    if isinstance(channel, Channel) and not channel.is_well_formed:
        return codes.BAD_REQUEST
    return channel
