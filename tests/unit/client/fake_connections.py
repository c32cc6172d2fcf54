"""Connections for a pool that open, fail and end when a test says so."""

from collections.abc import Callable

from gateway.client.endings import CLOSED_HERE, Ending, Kind
from gateway.client.events import ClientEvent, Connected, Disconnected, State

RESET = Ending(Kind.NETWORK, "reset", 1006)


class FakeConnection:
    def __init__(self, number: int, on_event: Callable[[ClientEvent], None]) -> None:
        self.number = number
        self.state = State.CONNECTING
        self.ending: Ending | None = None
        self.silent_for_s = 0.0
        self.pings = 0
        self.left = 0
        self._on_event = on_event
        self._is_over = False

    def succeed(self) -> None:
        self.state = State.CONNECTED
        self._on_event(Connected(str(self.number)))

    def lose(self, ending: Ending = RESET) -> None:
        """No longer be connected; what follows from that comes with `finish`."""
        if self.state is not State.CLOSED:
            self.state, self.ending = State.CLOSED, ending

    def finish(self) -> None:
        """Tell the last event, as a client does some turns after it has lost its connection."""
        if self.state is State.CLOSED and not self._is_over:
            self._is_over = True
            assert self.ending is not None
            self._on_event(Disconnected(self.ending.code, self.ending.reason))

    def fail(self, ending: Ending = RESET) -> None:
        self.lose(ending)
        self.finish()

    def stop(self) -> None:
        self.lose(CLOSED_HERE)

    def abort(self) -> None:
        self.lose()

    def ping(self) -> None:
        self.pings += 1

    def leave_all(self) -> None:
        self.left += 1

    def __repr__(self) -> str:
        return f"<{self.number} {self.state.value}>"


class Factory:
    """Makes them, and remembers all."""

    def __init__(self) -> None:
        self.made: list[FakeConnection] = []

    def __call__(self, on_event: Callable[[ClientEvent], None]) -> FakeConnection:
        connection = FakeConnection(len(self.made), on_event)
        self.made.append(connection)
        return connection

    @property
    def opening(self) -> list[FakeConnection]:
        return [each for each in self.made if each.state is State.CONNECTING]

    def succeed(self) -> None:
        for each in self.opening:
            each.succeed()
