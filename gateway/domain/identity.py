"""Who a connection is, as its credentials said."""

import msgspec

from gateway.protocol.messages import NOTHING


class Overrides(msgspec.Struct, frozen=True, gc=False):
    """What a token changes of a channel's options for one subscription (protocol.md 5.2); `None`: nothing."""

    presence: bool | None = None
    join_leave: bool | None = None
    force_push_join_leave: bool | None = None
    force_positioning: bool | None = None
    force_recovery: bool | None = None


class Grant(msgspec.Struct, frozen=True):
    """A subscription that credentials give: a server-side one, or a client's own by subscription token."""

    channel: str
    info: msgspec.Raw = NOTHING
    data: msgspec.Raw = NOTHING
    expires_at_s: int = 0
    overrides: Overrides = Overrides()


class Identity(msgspec.Struct, frozen=True):
    """The result of authentication. An anonymous connection has the user `""`.

    *expires_at_s* is in Unix seconds, 0 means never.
    """

    user: str = ""
    info: msgspec.Raw = NOTHING
    expires_at_s: int = 0
    grants: tuple[Grant, ...] = ()

    def without_expiry(self) -> "Identity":
        """Return the same identity for ever, which is how `client.insecure` takes it (6.3)."""
        return msgspec.structs.replace(self, expires_at_s=0)
