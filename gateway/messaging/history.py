"""The history command, and what a new subscription learns of its channel's stream (protocol.md 3.4, 9; 3.5; 3.6)."""

import msgspec

from gateway.domain.channels import Channel
from gateway.domain.identity import Overrides
from gateway.domain.permissions import may_read_history
from gateway.domain.recovery import recover, wanted_range
from gateway.domain.stream import HistoryRange
from gateway.messaging.conversation import Conversation
from gateway.protocol import codes
from gateway.protocol.codes import Disconnect, ErrorCode
from gateway.protocol.messages import HistoryRequest, HistoryResult, StreamPosition, SubscribeRequest, SubscribeResult

REJECT_UNRECOVERED = 2
"""The bit of `SubscribeRequest.flag` that asks for error 112 instead of `recovered: false` (protocol.md 2.5)."""


class Tracking(msgspec.Struct, frozen=True):
    """Which of a client's wishes hold for one subscription (3.4, 9)."""

    is_positioned: bool
    is_recoverable: bool


async def history(client: Conversation, request: HistoryRequest) -> HistoryResult | ErrorCode | Disconnect | None:
    """Read a page of a channel's stream.

    Raises:
        BrokerError: the stream could not be read.
    """
    services, session = client.services, client.session
    if not request.channel:
        return codes.PROTOCOL_VIOLATED
    channel = services.channels.resolve(request.channel)
    if isinstance(channel, ErrorCode):
        return channel
    if not channel.is_well_formed:
        return codes.BAD_REQUEST
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
    page = await services.broker.history(channel.name, wanted, meta_ttl_s=channel.meta_ttl_s).wait()
    if since is not None and since.epoch and since.epoch != page.position.epoch:
        return codes.UNRECOVERABLE_POSITION
    return HistoryResult(page.publications, page.position.epoch, page.position.offset)


def tracking(client: Conversation, channel: Channel, request: SubscribeRequest, overrides: Overrides) -> Tracking:
    """Decide what is tracked for a subscription; wishes that are not granted are ignored (3.4, 9)."""
    options = channel.options
    may_read = channel.stream is not None and may_read_history(
        channel, client.session.user, is_subscribed=True, is_insecure=client.services.is_insecure
    )
    forces_recovery = options.force_recovery if overrides.force_recovery is None else overrides.force_recovery
    forces_positioning = (
        options.force_positioning if overrides.force_positioning is None else overrides.force_positioning
    )
    is_recoverable = channel.stream is not None and (
        forces_recovery or (request.recoverable and (options.allow_recovery or may_read))
    )
    is_positioned = (
        is_recoverable or forces_positioning or (request.positioned and (options.allow_positioning or may_read))
    )
    return Tracking(is_positioned, is_recoverable)


async def follow(
    client: Conversation, channel: Channel, request: SubscribeRequest, overrides: Overrides
) -> SubscribeResult | ErrorCode:
    """Read where a subscription begins and what it has missed; everything but the subscription itself.

    Raises:
        BrokerError: the stream could not be read.
    """
    services, options = client.services, channel.options
    tracked = tracking(client, channel, request, overrides)
    is_recovering = request.recover or (options.auto_cache_recover and tracked.is_recoverable)
    if not tracked.is_positioned:
        return SubscribeResult(was_recovering=is_recovering)
    mode, since = options.force_recovery_mode, StreamPosition(request.offset, request.epoch)
    wanted = HistoryRange()
    if is_recovering and tracked.is_recoverable:
        wanted = wanted_range(mode, since, limit=services.session.recovery_max_publication_limit)
    page = await services.broker.history(channel.name, wanted, meta_ttl_s=channel.meta_ttl_s).wait()
    result = SubscribeResult(
        recoverable=tracked.is_recoverable,
        positioned=True,
        was_recovering=is_recovering,
        epoch=page.position.epoch,
        offset=page.position.offset,
    )
    if is_recovering and tracked.is_recoverable:
        outcome = recover(mode, since, page)
        client.services.counts.recoveries["yes" if outcome.is_recovered else "no"] += 1
        if not outcome.is_recovered and request.flag & REJECT_UNRECOVERED:
            return codes.UNRECOVERABLE_POSITION
        result.recovered = outcome.is_recovered
        result.offset = outcome.position.offset
        result.publications = outcome.publications
    return result
