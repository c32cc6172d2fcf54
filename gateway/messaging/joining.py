"""Joining channels: what a new subscription learns of its stream, and from which offset it is delivered.

Between the read of the stream and the moment in which the session is in, the node goes on receiving. What comes in that
time lies in the channel's track; it is merged when all waiting is over, in the turn in which the reply is written, so
that no publication is missed and none comes twice (protocol.md 3.6, "Live publications while subscribing").
"""

from collections.abc import Sequence
from typing import Final

from gateway.broker.contract import BrokerError
from gateway.broker.outcome import Outcome
from gateway.domain.channels import Channel, have_one_format
from gateway.domain.hub import LocalChannel
from gateway.domain.identity import Grant, Overrides
from gateway.domain.permissions import may_read_history, may_read_presence
from gateway.domain.recovery import Recovered, RecoveryMode, extend, recover, wanted_range
from gateway.domain.session import Features, Subscription, monotonic_expiry, ttl
from gateway.domain.stream import HistoryRange, StreamPage
from gateway.messaging.conversation import Conversation
from gateway.messaging.wishes import NO_WISHES, Wishes, protocol_variant
from gateway.protocol.messages import (
    NOTHING,
    ClientInfo,
    Publication,
    StreamPosition,
    SubscribeRequest,
    SubscribeResult,
)
from gateway.protocol.variants import Variant

REJECT_UNRECOVERED: Final = 2
"""The bit of `SubscribeRequest.flag` that asks for error 112 instead of `recovered: false` (protocol.md 2.5)."""
_MAX_READS: Final = 8
"""How often the stream is read when the node and the stream do not fit together, which one more read should mend."""
_PUBLICATION_OVERHEAD_BYTES: Final = 200
"""What a recovered publication takes in a reply beside its payload, roughly."""


class Joining:
    """One client on its way into one channel.

    `join_all` has it confirmed and read; then, in the same turn, `result` tells what to answer and `enter` lets the
    session in. Who does not enter has to `give_up`.
    """

    def __init__(
        self,
        client: Conversation,
        channel: Channel,
        request: SubscribeRequest,
        grant: Grant,
        *,
        is_server_side: bool,
        wishes: Wishes = NO_WISHES,
    ) -> None:
        self.channel = channel
        self._client = client
        self._request = request
        self._grant = grant
        features = granted_features(client, channel, request, grant.overrides)
        brings_cache = channel.options.auto_cache_recover or (grant.recovers_cache and self._mode is RecoveryMode.CACHE)
        is_asking = request.recover or (brings_cache and features.is_recoverable)
        self._is_asking = is_asking
        self._is_recovering = is_asking and features.is_recoverable
        variant = wishes.variant(client.variant)
        self.subscription = _subscription(
            client, channel, grant, features, is_server_side=is_server_side, variant=variant
        )
        self._wishes = wishes
        self._local: LocalChannel | None = None
        self._page: StreamPage | None = None
        self._interruptions = 0
        self._position: StreamPosition | None = None

    @property
    def features(self) -> Features:
        """What the subscription has."""
        return self.subscription.features

    # Before the session is in.

    def begin(self) -> list[Outcome[None]]:
        """Announce the newcomer to the hub and to others; returns what has to succeed before it may enter."""
        services, subscription = self._client.services, self.subscription
        if self.features.is_positioned:
            self._local = services.hub.expect(self.channel)
        return [services.presences.add(subscription)] if self.features.is_present else []

    def read(self) -> Outcome[StreamPage] | None:
        """Ask for the page of the stream that this joining begins with; `None` if it needs none, or not again."""
        if self._local is None or self._local.track is None or self.fits():
            return None
        self._page, self._interruptions = None, self._local.track.interruptions
        services, channel = self._client.services, self.channel
        if not self._is_recovering:
            return services.reader.page(channel, HistoryRange())
        if self._mode is RecoveryMode.STREAM:
            return services.reader.since(channel, self._request.offset)
        limit = services.session.recovery_max_publication_limit
        return services.reader.page(channel, wanted_range(self._mode, self._since, limit=limit))

    def take(self, page: StreamPage) -> None:
        """Take what was read."""
        self._page = page

    def fits(self) -> bool:
        """Tell whether what was read and what came since leave no gap between them, and have that looked into if not.

        It flushes the channel. Ask again after anything was awaited.
        """
        if self._local is None:
            return True
        if self._page is None or self._local.track is None:
            return False
        services, track = self._client.services, self._local.track
        if track.interruptions != self._interruptions:
            return False
        services.hub.flush_pending(self._local)
        if track.delivered_above(self._page.position) is not None:
            return True
        if track.epoch != self._page.position.epoch:
            services.intake.mend(self._local)  # one of the two is behind; reading once more tells which
        return False

    # In the turn of the reply.

    def renew(self) -> None:
        """Go by what the channel is now, if that has changed while this one waited.

        Raises:
            BrokerError: if it carries other data now, so that the client has to ask again.
        """
        channels = self._client.services.channels
        found = channels.resolve(self.channel.name)
        if found is not self.channel:
            channel = channels.renewed(self.channel)
            if not have_one_format(channel, self.channel):
                raise BrokerError("the data format of the channel has changed")
            self.subscription.channel = channel

    def result(self, room: "Room") -> SubscribeResult | None:
        """Say where the subscription begins; `None` if it would have recovered, can't, and is to be refused then.

        What it recovers takes of the *room* of the reply.
        """
        result = SubscribeResult(was_recovering=self._is_asking)
        page = self._page
        if page is not None and self._local is not None and self._local.track is not None:
            track = self._local.track
            delivered = track.delivered_above(page.position)
            if delivered is None:
                raise AssertionError("merged in this turn, so without a gap")
            top = max(page.position.offset, track.offset if track.is_known else 0)
            self._position = StreamPosition(top, page.position.epoch)
            result.positioned, result.recoverable = True, self.features.is_recoverable
            result.epoch, result.offset = self._position.epoch, top
            if self._is_recovering:
                recovered = extend(self._mode, recover(self._mode, self._since, page), delivered)
                if not self._recover(recovered, result, room):
                    return None
        grant, subscription = self._grant, self.subscription
        if not (subscription.is_refreshed_by_server or subscription.is_server_side):
            result.expires = bool(grant.expires_at_s)
            result.ttl = ttl(grant.expires_at_s, unix_s=self._client.services.unix())
        result.data = grant.data
        result.publish_debounce = round(self.channel.options.publish_debounce_s * 1000)
        return result

    def enter(self, result: SubscribeResult) -> None:
        """Let the session in, and put into *result*, which says where it begins, what was agreed to."""
        client, services, local = self._client, self._client.services, self._local
        agreed = protocol_variant(self.subscription.variant)
        is_patched = agreed is not None and agreed.is_patched
        base = result.publications[-1] if is_patched and result.publications else None
        if local is not None and local.track is not None and self._position is not None:
            if not local.track.is_known:
                local.track.move(self._position)
            client.enter(self.subscription, after=self._position.offset, base=base)
            services.hub.forget(local)
        else:
            client.enter(self.subscription)
        self._local = None
        if agreed is not None:
            local = services.hub.get(self.channel.name)
            if local is None:
                raise AssertionError("a channel that somebody has entered is there")
            result.id = local.number if agreed.is_numbered else 0
            result.delta = agreed.is_patched
            if agreed.is_patched:
                result.publications = agreed.patches(result.publications, None)

    def give_up(self) -> None:
        """Undo what `begin` and `join_all` did."""
        services = self._client.services
        if self._local is not None:
            services.hub.forget(self._local)
            self._local = None
        if self.features.is_present:
            services.presences.give_up(self.subscription)
        services.interest.release(self.channel.name)

    @property
    def _mode(self) -> RecoveryMode:
        return self.channel.options.force_recovery_mode

    @property
    def _since(self) -> StreamPosition:
        return StreamPosition(self._request.offset, self._request.epoch)

    def _recover(self, recovered: Recovered, result: SubscribeResult, room: "Room") -> bool:
        """Put into *result* what was recovered; false if nothing was and the client would rather have an error."""
        publications = self._wishes.select(recovered.publications)
        is_recovered = recovered.is_recovered and room.takes(publications)
        counts, namespace = self._client.services.counts, self.channel.namespace
        missed = len(publications) if is_recovered else 0
        counts.recoveries[namespace, "yes" if is_recovered else "no", "yes" if missed else "no"] += 1
        if is_recovered:
            counts.recovered_publications[namespace] += missed
            result.recovered, result.publications = True, publications
            # The client walks through what it gets; where a filter leaves nothing of it, it goes on from the top.
            if publications or not recovered.publications:
                result.offset = recovered.position.offset
        return is_recovered or not self._request.flag & REJECT_UNRECOVERED


class Room:
    """What one reply may hold of recovered publications.

    What the client's outbox can't take would end its connection as too slow, again and again; half of it stays for what
    is published next.
    """

    def __init__(self, size: int) -> None:
        self._left = size // 2

    def takes(self, publications: Sequence[Publication]) -> bool:
        """Make room for *publications*, if there is."""
        size = sum(len(each.data) + _PUBLICATION_OVERHEAD_BYTES for each in publications)
        if size > self._left:
            return False
        self._left -= size
        return True


async def join_all(client: Conversation, joinings: Sequence[Joining]) -> bool:
    """Have the broker confirm all of *joinings*, or none, and read what they need; false if the client has gone.

    On true the caller must, in the same turn, let each one `enter` or `give_up`.

    Raises:
        BrokerError: nothing was left behind.
    """
    if not await client.acquire([each.channel.name for each in joinings]):
        return False
    try:
        await _prepare(joinings)
        for each in joinings:
            each.renew()
    except BaseException:
        give_up_all(joinings)
        raise
    if client.has_gone():
        give_up_all(joinings)
    return not client.has_gone()


def give_up_all(joinings: Sequence[Joining]) -> None:
    """Undo all of *joinings*."""
    for each in joinings:
        each.give_up()


async def _prepare(joinings: Sequence[Joining]) -> None:
    entries = [outcome for each in joinings for outcome in each.begin()]
    for _ in range(_MAX_READS):
        reads = [(each, outcome) for each in joinings if (outcome := each.read()) is not None]
        for each, outcome in reads:
            each.take(await outcome.wait())
        for entry in entries:
            await entry.wait()
        if all(each.fits() for each in joinings):
            return
    raise BrokerError("what this node receives and what the stream holds do not fit together")


def granted_features(client: Conversation, channel: Channel, request: SubscribeRequest, over: Overrides) -> Features:
    """Decide what a subscription has; wishes that are not granted are ignored (protocol.md 3.4, 9)."""
    options, session, is_insecure = channel.options, client.session, client.services.is_insecure
    has_stream = channel.stream is not None
    may_read = has_stream and may_read_history(channel, session.user, is_subscribed=True, is_insecure=is_insecure)
    is_recoverable = has_stream and (
        _overridden(options.force_recovery, over.force_recovery)
        or (request.recoverable and (options.allow_recovery or may_read))
    )
    is_announced = _overridden(options.join_leave, over.join_leave)
    may_watch = may_read_presence(channel, session.user, is_subscribed=True, is_insecure=is_insecure)
    return Features(
        is_positioned=is_recoverable
        or _overridden(options.force_positioning, over.force_positioning)
        or (request.positioned and (options.allow_positioning or may_read)),
        is_recoverable=is_recoverable,
        is_present=_overridden(options.presence, over.presence),
        is_announced=is_announced,
        is_watching=is_announced
        and (
            _overridden(options.force_push_join_leave, over.force_push_join_leave) or (request.join_leave and may_watch)
        ),
    )


def _overridden(option: bool, override: bool | None) -> bool:  # noqa: FBT001 - the option's value, not a choice
    return option if override is None else override


def _subscription(
    client: Conversation,
    channel: Channel,
    grant: Grant,
    features: Features,
    *,
    is_server_side: bool,
    variant: Variant | None,
) -> Subscription:
    services, session = client.services, client.session
    info = session.info
    if grant.info is not NOTHING:
        info = ClientInfo(session.user, session.client_id, info.conn_info, grant.info)
    expires_at_s = monotonic_expiry(grant.expires_at_s, now_s=services.monotonic(), unix_s=services.unix())
    return Subscription(
        channel,
        info=info,
        is_server_side=is_server_side,
        expires_at_s=expires_at_s,
        features=features,
        variant=variant,
        is_refreshed_by_server=channel.options.sub_refresh_proxy_enabled,
    )
