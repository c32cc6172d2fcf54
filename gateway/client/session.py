"""The logical client: takes what the server says, what the user wants and the time; tells what to send. Does no I/O.

Theory of operation. Whoever drives a session calls one of its methods, and then sends what `requests.frames` holds and
does what the `agenda` says. Events and publications go to their sinks at once, since that is the hot path.

    new ──connect──▶ connecting ──reply──▶ connected ──lost──▶ connecting … ──close──▶ closed
"""

import random
from collections.abc import Callable, Iterator
from functools import partial

from msgspec import Raw

from gateway.client.agenda import NEVER, Agenda
from gateway.client.channels import REFRESH_AGAIN_S, Channels, misfit
from gateway.client.endings import Ending, Fate, Kind, error_of, fate, is_retriable
from gateway.client.errors import ClientError, DisconnectedError, UnauthorizedError
from gateway.client.events import ClientEvent, Connected, MessageReceived, State
from gateway.client.membership import Membership
from gateway.client.requests import Request, Requests
from gateway.client.settings import ClientSettings, TokenSource
from gateway.protocol import codes
from gateway.protocol.client_codec import ReceivedConnectResult, ReceivedPush, ServerMessage
from gateway.protocol.codec import MalformedFrameError
from gateway.protocol.fossil import PatchError
from gateway.protocol.messages import NOTHING, Command, ConnectRequest, RefreshRequest, RefreshResult


class ClientSession:
    """One client, over all of its connections."""

    __slots__ = (
        "_chance",
        "_data",
        "_decode",
        "_get_membership",
        "_notify",
        "_ping_limit_s",
        "_refresh_at_s",
        "_sends_pong",
        "_settings",
        "agenda",
        "channels",
        "client_id",
        "last",
        "requests",
        "source",
        "state",
        "token",
    )

    def __init__(
        self,
        settings: ClientSettings,
        *,
        notify: Callable[[ClientEvent], None],
        chance: random.Random,
        token: str = "",
        source: TokenSource | None = None,
        data: Raw = NOTHING,
    ) -> None:
        """*notify* takes the client's own events, and all of channels that the server puts it into."""
        self.state = State.NEW
        self.client_id = ""
        self.token = token
        self.source = source
        self.agenda = Agenda()
        self.requests = Requests(settings, self.agenda)
        self.channels = Channels(self.requests, self.agenda, notify=notify, chance=chance)
        self.last: Ending | None = None
        """The ending that there is no connection after."""
        self._settings = settings
        self._decode = settings.codec.decode
        self._get_membership = self.channels.get
        self._notify = notify
        self._chance = chance
        self._data = data
        self._ping_limit_s = NEVER
        self._sends_pong = False
        self._refresh_at_s = NEVER

    # A connection's life.

    def connect(self, *, now_s: float) -> None:
        """Greet the server; call it when a connection is open."""
        self.agenda.now_s = now_s
        self.agenda.ending = None
        greeting = ConnectRequest(
            token=self.token,
            data=self._data,
            subs=self.channels.positions(),
            name=self._settings.name,
            version=self._settings.version,
        )
        self.requests.send(Request("connect", Command(connect=greeting), self._connected, is_vital=True))

    def lost(self, ending: Ending) -> Fate:
        """Note that the connection has ended, or could not be made, and return what is to follow."""
        self.state = State.CONNECTING
        self.client_id = ""
        self.last, self.agenda.ending = ending, None
        self._ping_limit_s = self._refresh_at_s = NEVER
        verdict = fate(ending)
        if verdict is Fate.RETRY_WITH_NEW_TOKEN and ending.kind is Kind.ERROR and self.source is None:
            verdict = Fate.STOP
        if verdict in (Fate.RETRY_WITH_NEW_TOKEN, Fate.RETRY_AFRESH) and self.source is not None:
            self.token = ""
        if verdict is not Fate.STOP:
            self.channels.interrupt(ending, is_afresh=verdict is Fate.RETRY_AFRESH)
        self.requests.lost(str(ending))
        return verdict

    def close(self, ending: Ending) -> None:
        """End everything, for good; those who wait are told why. Has no effect the second time."""
        if self.state is State.CLOSED:
            return
        self.state = State.CLOSED
        self.last = ending
        error = partial(_error_for, ending)
        self.requests.lost(str(ending))
        self.requests.close(error)
        self.channels.close(ending, error)

    def error(self, channel: str = "") -> ClientError:
        """Make the exception that says why the client is closed."""
        if self.last is None:
            raise AssertionError("asked for the error of a client that never ended")
        return error_of(self.last, channel=channel)

    # What comes.

    @property
    def has_outgoing(self) -> bool:
        """Whether `frames` has something."""
        return bool(self.requests.outgoing)

    def frames(self) -> Iterator[tuple[bytes, bool]]:
        """Take out what is to be sent."""
        is_text = self._settings.codec.is_text
        for payload in self.requests.frames():
            yield payload, is_text

    def receive(self, frame: bytes, *, is_text: bool, now_s: float) -> bool:
        """Take what one frame brought; false if that were publications alone, which leave nothing to do."""
        del is_text  # a codec knows its own (protocol.md 1.2)
        agenda = self.agenda
        agenda.now_s = now_s
        try:
            messages = self._decode(frame)
        except MalformedFrameError as error:
            agenda.ending = Ending(Kind.NETWORK, f"the server sent what is no message: {error}")
            return True
        has_consequences = False
        for message in messages:
            push = message.push
            if push is not None and push.pub is not None:
                membership = self._get_membership(push.channel)
                if membership is not None:  # else it was on its way while this side left
                    try:
                        membership.published(push.pub)
                    except PatchError as error:
                        agenda.ending = misfit(membership, error)
                        return True
                continue
            has_consequences = True
            if push is not None:
                self._take_push(push)
            elif message.id:
                self.requests.answer(message)
            elif self._sends_pong:
                self.requests.put(self._settings.codec.pong)
            if agenda.ending is not None:
                break
        return has_consequences

    def _take_push(self, push: ReceivedPush) -> None:
        if push.message is not None:
            self._notify(MessageReceived(push.message.data))
        else:
            self.channels.take_push(push)

    def tick(self, *, now_s: float, heard_at_s: float) -> None:
        """Do what is due. *heard_at_s* is when anything last came over the connection."""
        agenda = self.agenda
        agenda.now_s, agenda.wake_at_s = now_s, NEVER
        for late in self.requests.expire():
            agenda.ending = Ending(Kind.NETWORK, f"no reply to {late.what}")
        if now_s - heard_at_s >= self._ping_limit_s:
            agenda.ending = Ending(Kind.NETWORK, "no ping")
        if self._refresh_at_s <= now_s:
            self._refresh_at_s = NEVER
            agenda.wants_tokens.append(None)
        self.channels.tick()
        agenda.wake_by(min(self.requests.deadline_s, heard_at_s + self._ping_limit_s, self._refresh_at_s))

    # What the user wants.

    def request(self, request: Request, *, now_s: float) -> None:
        """Send *request*, or hold it until there is a connection.

        Raises:
            InvalidArgumentError: when it is too big to be sent.
            QueueFullError: when too much waits for a connection already.
            DisconnectedError: when there is no connection, and none is waited for or will be.
        """
        self.agenda.now_s = now_s
        if self.state is State.CONNECTED:
            self.requests.send(request)
        elif self.state is State.CLOSED:
            raise self.error(request.channel)
        elif not self._settings.offline_wait_s:
            raise DisconnectedError(
                f"{request.what}: not connected",
                to_do="try again when the client is connected, or let it wait (offline_wait_s)",
                channel=request.channel,
            )
        else:
            self.requests.hold(request)

    def join(self, membership: Membership, *, now_s: float) -> None:
        """Subscribe, now or when there is a connection; raises `InvalidArgumentError` for a channel it is in."""
        self.agenda.now_s = now_s
        if self.state is State.CLOSED:
            raise self.error(membership.channel)
        self.channels.join(membership)

    def leave(self, membership: Membership, *, now_s: float, error: ClientError | None = None) -> None:
        """Unsubscribe; nothing of the channel is delivered any more. Has no effect the second time."""
        self.agenda.now_s = now_s
        self.channels.leave(membership, error)

    # Tokens.

    def take_token(self, membership: Membership | None, token: str, *, now_s: float) -> None:
        """Use the *token* that was fetched for *membership*, or (`None`) for the connection."""
        self.agenda.now_s = now_s
        if membership is not None:
            self.channels.take_token(membership, token)
            return
        self.token = token
        if self.state is State.CONNECTED:
            command = Command(refresh=RefreshRequest(token))
            self.requests.send(Request("refresh", command, self._refreshed, is_vital=True))

    def miss_token(self, membership: Membership | None, error: Exception, *, now_s: float) -> None:
        """Note that no token could be fetched: for good if it is `UnauthorizedError`, else it is tried again."""
        self.agenda.now_s = now_s
        if membership is not None:
            self.channels.miss_token(membership, error)
        elif isinstance(error, UnauthorizedError):
            self.agenda.ending = Ending(Kind.ERROR, str(error), codes.UNAUTHORIZED.code)
        elif self.state is State.CONNECTED:
            self._refresh_later()

    # Replies.

    def _connected(self, outcome: ServerMessage | ClientError) -> None:
        if isinstance(outcome, ClientError):
            return  # the connection is gone; whoever lost it knows
        result = outcome.connect
        if result is None:
            self.agenda.ending = _ending_of(outcome)
            return
        self.state = State.CONNECTED
        self.client_id = result.client
        self._sends_pong = result.pong
        self._ping_limit_s = result.ping + self._settings.max_ping_delay_s if result.ping else NEVER
        self.agenda.wake_by(self.agenda.now_s + self._ping_limit_s)
        self._refresh_after(result)
        self._notify(Connected(result.client, result.data))
        self.channels.connected(result.subs)
        self.requests.release()

    def _refreshed(self, outcome: ServerMessage | ClientError) -> None:
        if isinstance(outcome, ClientError):
            return
        if outcome.refresh is not None:
            self._refresh_after(outcome.refresh)
        elif outcome.error is not None and is_retriable(outcome.error):
            self._refresh_later()
        else:
            self.agenda.ending = _ending_of(outcome)

    def _refresh_after(self, result: ReceivedConnectResult | RefreshResult) -> None:
        self._refresh_at_s = self.agenda.now_s + result.ttl if result.expires and self.source is not None else NEVER
        self.agenda.wake_by(self._refresh_at_s)

    def _refresh_later(self) -> None:
        self._refresh_at_s = self.agenda.now_s + self._chance.uniform(*REFRESH_AGAIN_S)
        self.agenda.wake_by(self._refresh_at_s)


def _error_for(ending: Ending, channel: str) -> ClientError:
    return error_of(ending, channel=channel)


def _ending_of(reply: ServerMessage) -> Ending:
    error = reply.error
    if error is None:
        return Ending(Kind.NETWORK, "the server answered another question")
    return Ending(Kind.ERROR, error.message, error.code, is_temporary=error.temporary)
