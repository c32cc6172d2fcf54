"""How the commands of one client are carried out: in order, or several at a time in lanes of their own.

Commands run one after the other. One that has to wait (for a broker, for keys) runs as a task, and those behind it wait
in line, bounded by not reading on; all others run in the call that brought them. No task, queue or generator is made
for a publication.

With `client.concurrency` several may wait at a time. Each has a lane then: those of one lane keep their order, and one
without a lane waits for all before it, as all after it wait for it.
"""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Coroutine, Iterable
from typing import Any, Final

from gateway.domain.session import State
from gateway.messaging.counted import Counted
from gateway.messaging.port import Terms, Transport
from gateway.messaging.services import Services
from gateway.protocol import codes
from gateway.protocol.codes import Disconnect
from gateway.protocol.variants import Variant

MAX_WAITING: Final = 256
MAX_WAITING_BYTES: Final = 262144
"""What may wait in line, in commands and in bytes, before the transport is asked to stop reading."""


class Lanes(Counted, ABC):
    """One client's commands."""

    __slots__ = ("_begun", "_is_listening", "_line", "_waiting_bytes", "is_deaf")

    def __init__(self, transport: Transport, variant: Variant, services: Services, terms: Terms) -> None:
        super().__init__(transport, variant, services, terms)
        self._begun: list[str | None] = []
        """The lanes of the commands that are being carried out and wait for something."""
        self._line: deque[tuple[Any, str | None]] | None = None
        self._waiting_bytes = 0
        self.is_deaf = False
        """Whether reading is paused because too much waits; what the client has sent meanwhile is not its fault."""
        self._is_listening = True

    # What a kind of client defines.

    @abstractmethod
    def receive(self, payload: bytes, *, is_text: bool) -> None:
        """Take one whole message of the peer; text has been checked to be UTF-8."""

    @abstractmethod
    def disconnect(self, disconnect: Disconnect) -> None:
        """End the conversation from this side; a second time does nothing."""

    @abstractmethod
    def _handle(self, command: Any) -> Coroutine[Any, Any, None] | None:
        """Carry out one command, or return what is left of it if that has to wait."""

    def _lane(self, command: Any) -> str | None:
        """Name the lane of *command*: "" for one that none has to wait for, `None` for one that waits for all."""
        del command
        return None

    @abstractmethod
    def _flush(self) -> None:
        """Write the replies that are ready, if the connection is still there."""

    def has_gone(self) -> bool:
        """Whether the connection has ended, which any await may have brought."""
        return self.session.state is State.CLOSED

    @property
    def is_answered(self) -> bool:
        """Whether nothing that the client has asked for is still to be carried out or answered."""
        return not self._begun and not self._waiting()

    # Commands, in order.

    def submit(self, command: Any) -> None:
        """Carry out *command* after all that came before it, or all of its lane."""
        lane = None
        if self._begun:
            lane = self._lane(command)
            if not self._may_begin(lane) or _is_behind(lane, self._line or ()):
                self._wait_in_line(command, lane)
                return
        try:
            rest = self._handle(command)
        except Exception:  # noqa: BLE001 - whatever went wrong is our fault, and this client's alone to feel
            self._failed()
            return
        if rest is not None:
            lane = lane or self._lane(command)
            self._begun.append(lane)
            self._spawn(rest, lane)

    def _spawn(self, rest: Coroutine[Any, Any, None], lane: str | None) -> None:
        # A task that is cancelled before its first step never gets to what it should wait for.
        self.services.spawn(self._carry_on(rest, lane)).add_done_callback(lambda _: rest.close())

    def _may_begin(self, lane: str | None) -> bool:
        """Tell whether what has begun lets a command of *lane* begin, too."""
        begun = self._begun
        if not begun:
            return True
        is_apart = lane is not None and (not lane or lane not in begun)
        return is_apart and None not in begun and len(begun) < self.services.session.concurrency

    def _wait_in_line(self, command: Any, lane: str | None) -> None:
        if self._line is None:
            self._line = deque()
        self._line.append((command, lane))
        self._regulate()

    async def _carry_on(self, rest: Coroutine[Any, Any, None], lane: str | None) -> None:
        """Finish a command that waits, then take up those behind it."""
        while True:
            try:
                await rest
            except Exception:  # noqa: BLE001 - as above
                self._failed()
            self._begun.remove(lane)
            followers = self._drain_line()
            if not self.has_gone():
                self._flush()  # what is ready does not wait for what follows, nor does a publication overtake it
            if not followers:
                break
            (rest, lane), *others = followers
            for other in others:
                self._spawn(*other)

    def _drain_line(self) -> list[tuple[Coroutine[Any, Any, None], str | None]]:
        """Carry out what waits in line and may begin; returns what is left of those that have to wait themselves."""
        line, self._line = self._line or deque(), None
        passed: list[tuple[Any, str | None]] = []
        found: list[tuple[Coroutine[Any, Any, None], str | None]] = []
        limit = max(self.services.session.concurrency, 1)
        while line and not self.has_gone():
            command, lane = line[0]
            if len(self._begun) >= limit or (lane is None and (self._begun or passed)):
                break
            line.popleft()
            if not self._may_begin(lane) or _is_behind(lane, passed):
                passed.append((command, lane))
                continue
            try:
                rest = self._handle(command)
            except Exception:  # noqa: BLE001 - as above
                self._failed()
                continue
            if rest is not None:
                found.append((rest, lane))
                self._begun.append(lane)
        line.extendleft(reversed(passed))
        self._line = line if line and not self.has_gone() else None
        if self._line is None:
            self._waiting_bytes = 0
        self._regulate()
        return found

    def _regulate(self) -> None:
        """Read on only while what waits is within bounds."""
        waiting = self._waiting()
        if waiting >= MAX_WAITING or self._waiting_bytes >= MAX_WAITING_BYTES:
            self.is_deaf = True
            self.transport.pause_reading()
        elif self.is_deaf and self._is_listening and waiting <= MAX_WAITING // 2:
            self.is_deaf = False
            self.transport.resume_reading()

    def stop_listening(self) -> None:
        """Read nothing more; what the client has asked for by now is still carried out and answered."""
        self.is_deaf, self._is_listening = True, False
        self.transport.pause_reading()

    def _waiting(self) -> int:
        """Count the commands that wait to be carried out or answered."""
        return len(self._line) if self._line is not None else 0

    def receive_apart(self, payload: bytes) -> None:
        """Take one message that came beside the transport, whose sender can't be stopped by not reading on.

        A client with too much in line is disconnected.
        """
        if not self._is_listening:
            return
        too_many = self._waiting() >= 2 * MAX_WAITING
        if too_many or self._waiting_bytes + len(payload) > 2 * MAX_WAITING_BYTES:
            self.disconnect(codes.RATE_EXCEEDED)
        else:
            self.receive(payload, is_text=True)

    def _failed(self) -> None:
        """End the conversation after a fault of ours; must be called while the exception is handled."""
        session = self.session
        self.services.log.exception("command failed", client=session.client_id, user=session.user)  # noqa: LOG004 - see above
        self.disconnect(codes.SERVER_ERROR)


def _is_behind(lane: str | None, waiting: Iterable[tuple[Any, str | None]]) -> bool:
    """Tell whether one of *waiting* must not be overtaken by a command of *lane*."""
    return any(other is None or (lane and other == lane) for _, other in waiting)
