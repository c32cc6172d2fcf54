"""Who a connection is, as its credentials said."""

import msgspec

from gateway.protocol.messages import NOTHING
from gateway.protocol.server_api import SubscriptionOverrides


class Overrides(msgspec.Struct, frozen=True, gc=False):
    """What credentials change of a channel's options for one subscription (protocol.md 5.2); `None`: nothing."""

    presence: bool | None = None
    join_leave: bool | None = None
    force_push_join_leave: bool | None = None
    force_positioning: bool | None = None
    force_recovery: bool | None = None


def overrides_of(asked: SubscriptionOverrides | None) -> Overrides:
    """Return what a subscription has otherwise than its channel."""
    if asked is None:
        return Overrides()
    values = {name: getattr(asked, name) for name in asked.__struct_fields__}
    return Overrides(**{name: each.value for name, each in values.items() if each is not None})


class Grant(msgspec.Struct, frozen=True):
    """A subscription that credentials give: a server-side one, or a client's own by subscription token."""

    channel: str
    info: msgspec.Raw = NOTHING
    data: msgspec.Raw = NOTHING
    expires_at_s: int = 0
    overrides: Overrides = Overrides()
    recovers_cache: bool = False
    """Bring the latest publication although the client did not ask, where the channel recovers in mode `cache`."""


class Identity(msgspec.Struct, frozen=True):
    """The result of authentication. An anonymous connection has the user `""`.

    *expires_at_s* is in Unix seconds, 0 means never.
    """

    user: str = ""
    info: msgspec.Raw = NOTHING
    expires_at_s: int = 0
    grants: tuple[Grant, ...] = ()
    meta: msgspec.Raw = NOTHING
    """What the backend wants to know of the connection when it is asked about it; no client ever sees it."""

    def without_expiry(self) -> "Identity":
        """Return the same identity for ever, which is how `client.insecure` takes it (6.3)."""
        return msgspec.structs.replace(self, expires_at_s=0)
