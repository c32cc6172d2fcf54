"""What a reload means for those who are connected: they stay, and every decision from then on is made by the new rules.

A subscription was granted when it was made, with what it had then: presence, recovery, join and leave messages. What
may be done in its channel (publish, read history and presence), how much history a publication leaves and which
processors it meets is decided anew each time, so the channel as the session and the hub know it is replaced. The one
thing that can't go on is a channel whose data format is another now: its subscribers might get what their encoding
can't carry, so they are told that they have lost their place, on which SDKs subscribe again.
"""

from gateway.domain.channels import Channels, have_one_format
from gateway.messaging.conversation import Conversation
from gateway.messaging.services import Rules, Services
from gateway.protocol import codes


def put_in_force(rules: Rules, services: Services) -> None:
    """Have all conversations of *services* go by *rules*, in this turn.

    It looks at each subscription only where a namespace has changed.
    """
    changed = rules.channels.changed_since(services.channels)
    services.fanout.flush()  # what has come goes out by the rules that it came under
    for proxy in services.proxies.not_in(rules.proxies):
        services.spawn(proxy.retire())
    services.adopt(rules)
    services.reader.recovery_limit = rules.session.recovery_max_publication_limit
    services.presences.interval_s = rules.session.presence_update_interval_s
    services.presences.ttl_s = rules.session.presence_ttl_s
    if not changed:
        return
    services.publisher.forget_pipelines()
    for client in services.connections:
        _renew(client, changed, rules.channels)
    for local in services.hub:
        if local.channel.namespace in changed:
            local.channel = rules.channels.renewed(local.channel)


def _renew(client: Conversation, changed: frozenset[str], channels: Channels) -> None:
    for subscription in list(client.session.subscriptions.values()):
        if subscription.channel.namespace in changed:
            channel = channels.renewed(subscription.channel)
            if have_one_format(channel, subscription.channel):
                subscription.channel = channel
            else:
                client.unsubscribe(channel.name, codes.UNSUBSCRIBED_INSUFFICIENT_STATE)
