"""Commands on their way: numbered, kept until they are answered, held back while there is no connection. Pure."""

from collections.abc import Callable, Iterator
from typing import Final

from gateway.client.agenda import NEVER, Agenda
from gateway.client.errors import (
    ClientError,
    DisconnectedError,
    InvalidArgumentError,
    QueueFullError,
    ReplyTimeoutError,
    UnansweredError,
)
from gateway.client.settings import ClientSettings
from gateway.protocol.client_codec import ServerMessage
from gateway.protocol.messages import Command

Answered = Callable[[ServerMessage | ClientError], None]
"""Takes the reply, which may hold an error, or why there is none."""

_MAX_ID: Final = 2**32 - 1
_FRAME_BYTES: Final = 32768
"""Commands of one turn share frames up to this size, well below any server's limit."""


class Request:
    """One command and who waits for its reply."""

    __slots__ = ("answered", "channel", "command", "deadline_s", "is_vital", "size", "what")

    def __init__(
        self, what: str, command: Command, answered: Answered, *, channel: str = "", is_vital: bool = False
    ) -> None:
        self.what = what
        """The command's name, for the errors about it."""
        self.command = command
        self.channel = channel
        self.is_vital = is_vital
        """Whether the connection is no good without a reply."""
        self.answered: Answered | None = answered
        self.deadline_s = NEVER
        self.size = 0

    def withdraw(self) -> None:
        """Wait no longer: if it has not been sent it never is, and nobody is told of a reply."""
        self.answered = None

    def settle(self, outcome: ServerMessage | ClientError) -> None:
        """Tell who waits, once."""
        answered, self.answered = self.answered, None
        if answered is not None:
            answered(outcome)


class Requests:
    """The commands of one client."""

    __slots__ = ("_agenda", "_held", "_last_id", "_sent", "_settings", "held_bytes", "outgoing", "outgoing_bytes")

    def __init__(self, settings: ClientSettings, agenda: Agenda) -> None:
        self.outgoing: list[bytes] = []
        """Encoded commands that wait for the end of this turn."""
        self.outgoing_bytes = 0
        self.held_bytes = 0
        self._settings = settings
        self._agenda = agenda
        self._last_id = 0
        # Every reply has the same time, so the first of these is always the next one to be late.
        self._sent: dict[int, Request] = {}
        self._held: list[Request] = []

    def send(self, request: Request) -> None:
        """Send *request* in this turn; raises `InvalidArgumentError` when it is too big."""
        number = self._last_id % _MAX_ID + 1
        request.command.id = number
        encoded = self._encode(request)
        self._last_id = number
        request.deadline_s = self._agenda.now_s + self._settings.reply_timeout_s
        self._agenda.wake_by(request.deadline_s)
        self._sent[number] = request
        self.put(encoded)

    def put(self, encoded: bytes) -> None:
        """Send an encoded command."""
        self.outgoing.append(encoded)
        self.outgoing_bytes += len(encoded) + 1

    def hold(self, request: Request) -> None:
        """Keep *request* for the next connection, at most for `offline_wait_s`.

        Raises:
            InvalidArgumentError: when it is too big to be sent at all.
            QueueFullError: when too much is held already.
        """
        request.command.id = _MAX_ID  # the longest there is
        request.size = len(self._encode(request))
        if self.held_bytes and self.held_bytes + request.size > self._settings.queue_max_bytes:
            raise QueueFullError(
                f"{request.what}: {self.held_bytes} bytes wait for a connection already",
                to_do="wait for the connection, or raise queue_max_bytes",
                channel=request.channel,
            )
        request.deadline_s = self._agenda.now_s + self._settings.offline_wait_s
        self._agenda.wake_by(request.deadline_s)
        self.held_bytes += request.size
        self._held.append(request)

    def release(self) -> None:
        """Send what was held."""
        held, self._held, self.held_bytes = self._held, [], 0
        for request in held:
            if request.answered is not None:
                self.send(request)

    def answer(self, message: ServerMessage) -> None:
        """Hand a reply to who waits for it; one that comes too late is nobody's."""
        request = self._sent.pop(message.id, None)
        if request is not None:
            request.settle(message)

    def lost(self, why: str) -> None:
        """Tell those whose commands were sent that no reply will come."""
        sent, self._sent = self._sent, {}
        self.outgoing.clear()
        self.outgoing_bytes = 0
        for request in sent.values():
            request.settle(
                UnansweredError(
                    f"{request.what}: the connection was lost before the reply ({why})",
                    to_do="find out whether it was done before you repeat it",
                    channel=request.channel,
                )
            )

    def close(self, why: Callable[[str], ClientError]) -> None:
        """Tell those whose commands were held that they never will be sent."""
        held, self._held, self.held_bytes = self._held, [], 0
        for request in held:
            request.settle(why(request.channel))

    def expire(self) -> Iterator[Request]:
        """Settle what has waited too long; yields the vital ones among what was sent."""
        now_s = self._agenda.now_s
        for number, request in list(self._sent.items()):
            if request.deadline_s > now_s:
                break
            del self._sent[number]
            request.settle(
                ReplyTimeoutError(
                    f"{request.what}: no reply within {self._settings.reply_timeout_s} s",
                    to_do="find out whether it was done before you repeat it, or raise reply_timeout_s",
                    channel=request.channel,
                )
            )
            if request.is_vital:
                yield request
        if any(request.deadline_s <= now_s or request.answered is None for request in self._held):
            self._expire_held(now_s)

    @property
    def deadline_s(self) -> float:
        """When the next one is late."""
        sent_s = next((request.deadline_s for request in self._sent.values()), NEVER)
        return min(sent_s, min((request.deadline_s for request in self._held), default=NEVER))

    def frames(self) -> Iterator[bytes]:
        """Take out what is to be sent, joined into payloads of frames."""
        outgoing, self.outgoing, self.outgoing_bytes = self.outgoing, [], 0
        if len(outgoing) == 1:
            yield outgoing[0]
            return
        join, run, size = self._settings.codec.join, list[bytes](), 0
        for encoded in outgoing:
            if run and size + len(encoded) > min(_FRAME_BYTES, self._settings.send_max_bytes):
                yield join(run)
                run, size = [], 0
            run.append(encoded)
            size += len(encoded) + 1
        if run:
            yield join(run)

    def _encode(self, request: Request) -> bytes:
        encoded = self._settings.codec.encode(request.command)
        if len(encoded) > self._settings.send_max_bytes:
            raise InvalidArgumentError(
                f"{request.what}: {len(encoded)} bytes, and {self._settings.send_max_bytes} may be sent",
                to_do="send less at once, or raise send_max_bytes if the server's limit is higher",
                channel=request.channel,
            )
        return encoded

    def _expire_held(self, now_s: float) -> None:
        held, self._held, self.held_bytes = self._held, [], 0
        for request in held:
            if request.answered is None:
                continue
            if request.deadline_s > now_s:
                self._held.append(request)
                self.held_bytes += request.size
                continue
            request.settle(
                DisconnectedError(
                    f"{request.what}: no connection within {self._settings.offline_wait_s} s",
                    to_do="try again when the client is connected, or raise offline_wait_s",
                    channel=request.channel,
                )
            )
