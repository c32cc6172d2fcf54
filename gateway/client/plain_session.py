"""The plain protocol (README, "The plain protocol") from the client's side: driven as `ClientSession` is. No I/O."""

from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec

from gateway.client.agenda import NEVER, Agenda
from gateway.client.backoff import Backoff
from gateway.client.endings import Ending, Fate, Kind, error_of, fate
from gateway.client.errors import ClientError, InvalidArgumentError, UnauthorizedError
from gateway.client.events import Connected, Disconnected, Reconnecting, State
from gateway.client.membership import Membership
from gateway.client.settings import LinkSettings, TokenSource

_GAP: Final = b'{"status":"gap"}'
_ERROR: Final = b'{"error":{'
_POLICY_VIOLATION: Final = 1008
_EXPIRED: Final = "token expired"
_FINAL_CODES: Final = (1000, 1002, 1003, 1007, 1008, 1009)
"""A goodbye for good, and what this side would only do wrong again; all else may pass."""


class PlainSettings(LinkSettings, frozen=True, kw_only=True):
    """How a plain client behaves."""

    backoff: Backoff = Backoff()
    offline_wait_s: float = 5.0
    """How long a message may wait for a connection; 0: it fails at once."""
    ping_after_s: float = 30.0
    """After so long a silence the server is pinged; its own pings (25 s) come before that, where it sends any."""
    max_ping_delay_s: float = 10.0
    """How long it may take to answer before the connection counts as dead."""
    buffer_max_bytes: int = 4 * 1024 * 1024
    """How much may wait for an iterator; what does not fit is dropped, and a `Gap` stands in its place."""

    def __post_init__(self) -> None:
        """Refuse what can't work."""
        super().__post_init__()
        if min(self.ping_after_s, self.max_ping_delay_s, self.buffer_max_bytes) <= 0 or self.offline_wait_s < 0:
            raise InvalidArgumentError("a setting of a plain client is negative", to_do="use more than 0")


class PlainMessage(msgspec.Struct, frozen=True, gc=False):
    """One message of the channel, byte for byte."""

    data: bytes
    is_text: bool

    @property
    def text(self) -> str:
        """It as text; raises `UnicodeDecodeError`, a `ValueError`, where it is none."""
        return self.data.decode()

    def json(self) -> Any:
        """Read it as JSON; raises `msgspec.DecodeError`, a `ValueError`, where it is none."""
        return msgspec.json.decode(self.data)


class Gap(msgspec.Struct, frozen=True):
    """Messages are missing here: the gateway lost them, or this side was too slow. They can't be had again."""


class Refused(msgspec.Struct, frozen=True):
    """The gateway did not take a message that this client sent."""

    code: int
    message: str = ""


PlainEvent = Connected | Reconnecting | Disconnected | Gap | Refused
"""`Connected.client` is the user here; empty where no token was shown."""


class _Error(msgspec.Struct, forbid_unknown_fields=True):
    error: Refused


class _Authenticated(msgspec.Struct):
    status: str = ""
    user: str = ""


class PlainSession:
    """One plain client, over all of its connections."""

    def __init__(
        self,
        settings: PlainSettings,
        *,
        deliver: Callable[[PlainMessage | PlainEvent], None],
        token: str,
        source: TokenSource | None,
    ) -> None:
        self.state = State.NEW
        self.token = token
        self.source = source
        self.agenda = Agenda()
        self.user = ""
        self.last: Ending | None = None
        self.outgoing: list[tuple[bytes, bool]] = []
        self._settings = settings
        self._deliver = deliver

    @property
    def has_outgoing(self) -> bool:
        """Whether `frames` has something."""
        return bool(self.outgoing)

    def frames(self) -> Iterator[tuple[bytes, bool]]:
        """Take out what is to be sent."""
        outgoing, self.outgoing = self.outgoing, []
        yield from outgoing

    def connect(self, *, now_s: float) -> None:
        """Show the token; without one there is nothing to wait for."""
        self.agenda.ending = None
        self.agenda.wake_by(now_s + self._settings.ping_after_s)
        if self.token:
            self.outgoing.append((msgspec.json.encode({"token": self.token}), True))
        else:
            self._accept("")

    def lost(self, ending: Ending) -> Fate:
        """Note that there is no connection, and say what follows."""
        self.state = State.CONNECTING
        self.user = ""
        self.last, self.agenda.ending = ending, None
        self.outgoing.clear()
        if ending.kind is not Kind.CLOSE:
            return fate(ending)
        if ending.code == _POLICY_VIOLATION and ending.reason == _EXPIRED and self.source is not None:
            self.token = ""
            return Fate.RETRY_WITH_NEW_TOKEN
        return Fate.STOP if ending.code in _FINAL_CODES else Fate.RETRY

    def close(self, ending: Ending) -> None:
        """End everything."""
        self.state = State.CLOSED
        self.last = ending

    def error(self, channel: str = "") -> ClientError:
        """Say why everything has ended."""
        if self.last is None:
            raise AssertionError("asked for the error of a client that never ended")
        if self.last.kind is Kind.CLOSE and self.last.code == _POLICY_VIOLATION:
            to_do = "give a token that the server accepts, for a channel that it lets this user into"
            sentence = f"not authorized: {self.last.reason}"
            return UnauthorizedError(sentence, to_do=to_do, channel=channel, code=self.last.code)
        return error_of(self.last, channel=channel)

    def receive(self, frame: bytes, *, is_text: bool, now_s: float) -> bool:
        """Take a message; false if that leaves nothing to do."""
        del now_s
        if self.state is not State.CONNECTED and is_text and self._is_acceptance(frame):
            return True
        if is_text and frame == _GAP:
            self._deliver(Gap())
        elif is_text and frame.startswith(_ERROR) and (refused := _refusal_of(frame)) is not None:
            self._deliver(refused)
        else:
            self._deliver(PlainMessage(frame, is_text))
        return self.agenda.ending is not None

    def tick(self, *, now_s: float, heard_at_s: float) -> None:
        """Find out whether the server is still there."""
        settings, agenda = self._settings, self.agenda
        agenda.wake_at_s = NEVER
        if self.state is not State.CONNECTED:
            return
        silent_s = now_s - heard_at_s
        if silent_s >= settings.ping_after_s + settings.max_ping_delay_s:
            agenda.ending = Ending(Kind.NETWORK, "no answer to a ping")
        elif silent_s >= settings.ping_after_s:
            agenda.wants_ping = True
            agenda.wake_by(now_s + settings.max_ping_delay_s)
        else:
            agenda.wake_by(heard_at_s + settings.ping_after_s)

    def take_token(self, membership: Membership | None, token: str, *, now_s: float) -> None:
        """Never called: nothing is refreshed in this protocol."""
        raise AssertionError(f"no token was wanted: {membership} {token[:0]} {now_s}")

    def miss_token(self, membership: Membership | None, error: Exception, *, now_s: float) -> None:
        """Never called."""
        raise AssertionError(f"no token was wanted: {membership} {error} {now_s}")

    def _is_acceptance(self, frame: bytes) -> bool:
        try:
            answer = msgspec.json.decode(frame, type=_Authenticated)
        except msgspec.MsgspecError:
            return False  # a message, for a client that may listen before it has shown a token
        if answer.status != "authenticated":
            return False
        self._accept(answer.user)
        return True

    def _accept(self, user: str) -> None:
        self.state = State.CONNECTED
        self.user = user
        self._deliver(Connected(user))


def _refusal_of(frame: bytes) -> Refused | None:
    try:
        return msgspec.json.decode(frame, type=_Error).error
    except msgspec.MsgspecError:
        return None  # somebody's message that begins like one
