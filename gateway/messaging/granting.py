"""What becomes of the backend's verdicts: who may subscribe, what is published, who may stay (protocol.md 3, 8)."""

from typing import TYPE_CHECKING

import msgspec

from gateway.broker.contract import Published
from gateway.broker.outcome import Outcome
from gateway.domain.channels import Channel
from gateway.domain.identity import Grant
from gateway.domain.session import Subscription, monotonic_expiry
from gateway.messaging.asking import ask_publish, ask_refresh, ask_sub_refresh, ask_subscribe
from gateway.messaging.publishing import Extras
from gateway.protocol import codes
from gateway.protocol.codes import Disconnect, ErrorCode
from gateway.protocol.messages import NOTHING
from gateway.proxies.answers import PublishVerdict, RefreshVerdict
from gateway.proxies.proxy import ProxyError

if TYPE_CHECKING:
    from gateway.messaging.conversation import Conversation


async def granted(client: "Conversation", channel: Channel, data: msgspec.Raw) -> Grant | ErrorCode | Disconnect:
    """Return what the backend grants *client* in *channel*, or how it refuses; *data* is what the client says to it.

    Raises:
        ProxyError: it said nothing that could be used.
    """
    answer = await ask_subscribe(client, channel, data)
    if isinstance(answer, Grant) and 0 < answer.expires_at_s <= client.services.unix():
        return codes.EXPIRED
    return answer


async def publish_if_granted(
    client: "Conversation", channel: Channel, data: bytes | msgspec.Raw
) -> Outcome[Published] | ErrorCode | Disconnect | None:
    """Publish what the backend makes of *data*, with which the channel's format had been content.

    `None` if the client has gone meanwhile: nothing was published then.
    """
    try:
        answer = await ask_publish(client, channel, data)
    except ProxyError:
        answer = codes.INTERNAL_ERROR
    if client.has_gone():
        return None
    if not isinstance(answer, PublishVerdict):
        return answer
    services, session = client.services, client.session
    subscription = session.subscriptions.get(channel.name)
    found = subscription.channel if subscription else services.channels.resolve(channel.name)
    if isinstance(found, ErrorCode):  # a reload has taken it away
        return found
    if answer.data is not NOTHING:
        data = answer.data
        if services.publisher.refuse(found, data, is_checked=False) is not None:
            reason = services.publisher.describe(found)
            services.log.warning("proxy failed", reason=reason, client=session.client_id, channel=found.name)
            return codes.INTERNAL_ERROR
    info = subscription.info if subscription else session.info
    return services.publisher.publish(found, data, info, _extras(answer))


def _extras(verdict: PublishVerdict) -> Extras:
    return Extras(
        verdict.idempotency_key,
        verdict.version,
        verdict.version_epoch,
        verdict.tags,
        skips_history=verdict.skips_history,
        is_patchable=verdict.is_patchable,
    )


async def refresh_connection(client: "Conversation") -> None:
    """Have the backend decide whether a connection may go on, or end it.

    While it says nothing that could be used, the connection goes on, until the session says anew that it is due.
    """
    services, session = client.services, client.session
    proxy = services.proxies.refresh
    try:
        answer = None if proxy is None else await ask_refresh(client, proxy)
    except ProxyError:
        return
    if client.has_gone() or _may_be_asked_again(answer):
        return
    if not isinstance(answer, RefreshVerdict) or _is_over(client, answer):
        client.disconnect(answer if isinstance(answer, Disconnect) else codes.CONNECTION_EXPIRED)
        return
    if answer.info is not None:
        session.inform(answer.info)
    if answer.meta is not None:
        session.meta = answer.meta
    session.expire_at(_expiry(client, answer))
    client.watch()


async def refresh_subscription(client: "Conversation", subscription: Subscription) -> None:
    """Do the same for a subscription."""
    services, session, name = client.services, client.session, subscription.channel.name
    proxy = services.proxies.sub_refresh(subscription.channel.options)
    try:
        answer = None if proxy is None else await ask_sub_refresh(client, proxy, subscription)
    except ProxyError:
        return
    if session.subscriptions.get(name) is not subscription or _may_be_asked_again(answer):
        return
    if isinstance(answer, Disconnect):
        client.disconnect(answer)
    elif not isinstance(answer, RefreshVerdict) or _is_over(client, answer):
        if subscription.is_server_side:
            client.disconnect(codes.SUBSCRIPTION_EXPIRED)
        else:
            client.unsubscribe(name, codes.UNSUBSCRIBED_EXPIRED)
    else:
        if answer.info is not None:
            subscription.info = msgspec.structs.replace(subscription.info, chan_info=answer.info)
        session.refresh_subscription(subscription, _expiry(client, answer))
        client.watch()


def _may_be_asked_again(answer: object) -> bool:
    return isinstance(answer, ErrorCode) and answer.temporary


def _is_over(client: "Conversation", verdict: RefreshVerdict) -> bool:
    return verdict.is_expired or 0 < verdict.expires_at_s <= client.services.unix()


def _expiry(client: "Conversation", verdict: RefreshVerdict) -> float:
    services = client.services
    return monotonic_expiry(verdict.expires_at_s, now_s=services.monotonic(), unix_s=services.unix())
