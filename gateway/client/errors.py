"""All that can go wrong, as one tree under `ClientError`.

The names are the ones that users look for (Unauthorized, PublishRejected, Disconnected …) with the `Error` that Python
adds. Where Python has a word for a failure, ours is that too: `TimeoutError`, `ConnectionError`, `ValueError`.
"""

from typing import Final

_ADVICE: Final = {
    100: "try again later: the server is in trouble",
    101: "show a token",
    102: "configure the channel's namespace at the server, or correct the name",
    103: "let the server's configuration or a token allow it",
    104: "correct the method's name",
    105: "use the subscription that there is",
    106: "use fewer channels for one connection, or raise the server's limit",
    107: "correct the channel's name or the data",
    108: "switch the feature on in the channel's namespace",
    109: "give a new token, or an async function that fetches one",
    110: "give a token whose expire_at lies ahead",
    111: "send fewer commands, or raise the server's limit",
    112: "start without a position: the stream no longer reaches back to it",
    3500: "give a token that the server's keys have signed, for this user and channel",
    3501: "give a token, if none was given: the server takes no connection without one, or not such a command",
    3503: "ask who disconnected this user",
    3504: "open fewer connections for this user",
    3505: "put fewer channels into the token",
    3506: "subscribe in JSON only to channels that carry JSON",
    3507: "give a token with a user in it",
    3508: "send only where the server has a handler",
    3509: "correct the commands that were refused before",
    1009: "send smaller messages, or raise the limit of the side that refused",
}


def advice(code: int) -> str:
    """Return what can be done about an error, disconnect or close *code*."""
    return _ADVICE.get(code, "see what the server logged")


class ClientError(Exception):
    """What the client has to say about a failure: its sentence ends with what to do."""

    def __init__(self, what: str, *, to_do: str, channel: str = "", code: int = 0) -> None:
        where = f" ({channel!r})" if channel else ""
        number = f" [{code}]" if code else ""
        super().__init__(f"{what}{where}{number}: {to_do}")
        self.channel = channel
        """The channel that it is about; empty where it is about the connection."""
        self.code = code
        """The code of protocol.md 4, an HTTP status or a WebSocket close code; 0 where there is none."""
        self.to_do = to_do


class InvalidArgumentError(ClientError, ValueError):
    """An argument that can't work: nothing was sent."""


class UnauthorizedError(ClientError):
    """The server does not accept who this is. Raised by a token function it means: stop, there is no token."""


class ReplyTimeoutError(ClientError, TimeoutError):
    """No reply in time: whether the server did it is not known."""


class DisconnectedError(ClientError, ConnectionError):
    """There is no connection, and it was not sent."""


class UnansweredError(DisconnectedError):
    """The connection was lost after it was sent and before it was answered: whether the server did it is not known."""


class ClosedError(DisconnectedError):
    """The client, the connection or the pool has been closed on this side."""


class QueueFullError(ClientError):
    """More waits to be sent than the bound allows: it was not sent."""


class RejectedError(ClientError):
    """The server answered with an error; *is_temporary* says that a retry may succeed."""

    def __init__(self, what: str, *, to_do: str, channel: str = "", code: int = 0, is_temporary: bool = False) -> None:
        super().__init__(what, to_do=to_do, channel=channel, code=code)
        self.is_temporary = is_temporary


class PublishRejectedError(RejectedError):
    """The server did not take a publication."""


class SubscribeRejectedError(RejectedError):
    """The server does not let this client subscribe, for good."""


class UnsubscribedError(ClientError):
    """The server ended a subscription, for good."""


class SlowConsumerError(ClientError):
    """A subscription's buffer overflowed: the subscription is over, and its `position` says where to go on."""


class PoolTimeoutError(ClientError, TimeoutError):
    """No connection of the pool came free in time."""
