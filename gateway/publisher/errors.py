"""What publishing may fail with. Every message is one line that names the channel and what to do."""

from collections.abc import Sequence

from gateway.protocol.codes import ErrorCode


class PublisherError(Exception):
    """The root of what a publisher raises."""


class UnsuitableEngineError(PublisherError):
    """The configuration names an engine that nobody outside its process can publish into."""


class PublishRejectedError(PublisherError):
    """What was to be published will not do, and nothing was; trying again is useless.

    *error* is what a client would be told of it (protocol.md 4.1).
    """

    def __init__(self, channel: str, error: ErrorCode, reason: str) -> None:
        super().__init__(f"channel {channel!r}: {reason}")
        self.channel = channel
        self.error = error


class UnavailableError(PublisherError):
    """Something between here and the subscribers does not work at the moment; trying again later may help.

    *may_be_published* tells that it is unknown whether the subscribers saw it: then a second try may double it, unless
    both have the same idempotency key (in a channel with a version, the same version).
    """

    def __init__(self, channels: Sequence[str], reason: str, *, may_be_published: bool) -> None:
        first, *others = channels
        where = f"channel {first!r}" + (f" and {len(others)} more" if others else "")
        advice = (
            "it may have been published: try again with the same idempotency_key"
            if may_be_published
            else "nothing was published: try again"
        )
        super().__init__(f"{where}: {reason}; {advice}")
        self.channels = tuple(channels)
        """The channels that are not known to have it."""
        self.may_be_published = may_be_published
