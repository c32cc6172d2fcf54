"""Who may do what in a channel: protocol.md 3.4 (subscribe) and 3.5 (the rest), as pure functions.

Each answers with the error that the client gets, or `None` for "go ahead". Existence and permission are decided apart,
so that "unknown channel" never depends on who asks.
"""

from gateway.domain.channels import Channel
from gateway.protocol import codes
from gateway.protocol.codes import ErrorCode


def subscribe_is_asked(channel: Channel) -> bool:
    """Tell whether the backend decides who subscribes without a token: step 6 of protocol.md 3.4."""
    return channel.options.subscribe_proxy_enabled and channel.users is None and not channel.is_private


def refuse_subscribe(channel: Channel, user: str, *, is_insecure: bool) -> ErrorCode | None:
    """Decide a subscribe without a token, steps 3, 5, 7 and 8 of protocol.md 3.4; *user* is `""` when anonymous.

    Where the backend is to be asked, nobody may without.
    """
    if channel.is_private or subscribe_is_asked(channel):
        return codes.PERMISSION_DENIED  # a `$` channel needs a token whatever the options say
    if channel.users is not None:
        allowed = user in channel.users and bool(user)
    else:
        options = channel.options
        allowed = options.allow_subscribe_for_client and (bool(user) or options.allow_subscribe_for_anonymous)
    return None if allowed or is_insecure else codes.PERMISSION_DENIED


def refuse_publish(channel: Channel, user: str, *, is_subscribed: bool, is_insecure: bool) -> ErrorCode | None:
    """Decide a publish (protocol.md 3.5); where the backend is to be asked, nobody may without."""
    options = channel.options
    if options.publish_proxy_enabled:
        return codes.PERMISSION_DENIED
    allowed = options.allow_publish_for_client or (options.allow_publish_for_subscriber and is_subscribed)
    allowed = allowed and (bool(user) or options.allow_publish_for_anonymous)
    return None if allowed or is_insecure else codes.PERMISSION_DENIED


def may_read_history(channel: Channel, user: str, *, is_subscribed: bool, is_insecure: bool) -> bool:
    """Decide whether *user* may read what the channel keeps (protocol.md 3.5); whether it keeps anything is apart."""
    options = channel.options
    allowed = options.allow_history_for_client or (options.allow_history_for_subscriber and is_subscribed)
    return is_insecure or (allowed and (bool(user) or options.allow_history_for_anonymous))


def may_read_presence(channel: Channel, user: str, *, is_subscribed: bool, is_insecure: bool) -> bool:
    """Decide whether *user* may ask who is in the channel (protocol.md 3.5); whether anybody keeps that is apart."""
    options = channel.options
    allowed = options.allow_presence_for_client or (options.allow_presence_for_subscriber and is_subscribed)
    return is_insecure or (allowed and (bool(user) or options.allow_presence_for_anonymous))
