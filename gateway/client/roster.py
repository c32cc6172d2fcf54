"""Which connection of a pool is where, and who gets the next one. Nothing here waits.

Theory of operation. Every function is called when something has happened: somebody asks, a connection comes back,
opens, or ends. `_serve` then hands free connections to those who wait, first come first served, and opens what is
missing. A connection leaves the books in the turn that it ends in, so it is never handed out again.

    opening ──▶ idle ◀──▶ lent
       └─────────┴──────────┴──▶ ended: replaced where it is missed; or closed here, being one too many
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final, Generic, Protocol, TypeVar

import msgspec

from gateway.client.endings import CLOSED_HERE, Ending, Fate, error_of, fate
from gateway.client.errors import InvalidArgumentError
from gateway.client.events import ClientEvent, Connected, Disconnected, State
from gateway.client.settings import Cancellable, Timers

_OVERFLOW_FACTOR: Final = 2


class PoolSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How a pool behaves."""

    size: int = 10
    """Connections that are kept open; under load there are up to twice as many."""
    shrink_after_s: float = 30.0
    """How long a connection beyond *size* may be idle before it is closed."""
    check_every_s: float = 10.0
    """An idle connection that is silent for so long is pinged; one silent for twice as long is replaced."""

    def __post_init__(self) -> None:
        """Refuse what can't work."""
        if self.size < 1 or self.shrink_after_s <= 0 or self.check_every_s <= 0:
            raise InvalidArgumentError("a pool setting is not positive", to_do="use more than 0")


class PoolStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """What a pool holds now, and what happened so far."""

    idle: int
    in_use: int
    opening: int
    overflow: int
    """How many of these there are beyond the pool's size."""
    waiting: int
    """Tasks that wait for a connection now."""
    waits: int
    """How often a task had to wait."""
    replaced: int
    """Connections that ended by themselves."""
    shrunk: int
    """Connections that were closed since there were too many."""


class PooledConnection(Protocol):
    """What a pool asks of a connection; `Client` is one. It tells `Connected`, and in any case `Disconnected` once."""

    @property
    def state(self) -> State:
        """Where it is."""

    @property
    def ending(self) -> Ending | None:
        """After which ending it is not connected."""

    @property
    def silent_for_s(self) -> float:
        """For how long nothing has come from the server."""

    def stop(self) -> None:
        """Say goodbye, and end."""

    def abort(self) -> None:
        """End without a word."""

    def ping(self) -> None:
        """Have the server answer."""

    def leave_all(self) -> None:
        """Unsubscribe from everything."""


ConnectionT = TypeVar("ConnectionT", bound=PooledConnection)
Connect = Callable[[Callable[[ClientEvent], None]], ConnectionT]
"""Makes a connection that tells its events, and starts it."""


class _Seat(Generic[ConnectionT]):
    __slots__ = ("connection", "idle_since_s")

    connection: ConnectionT

    def __init__(self) -> None:
        self.idle_since_s = 0.0


class Roster(Generic[ConnectionT]):
    """The books of one pool."""

    def __init__(
        self,
        settings: PoolSettings,
        connect: Connect[ConnectionT],
        *,
        delays: Callable[[], Iterator[float]],
        timers: Timers,
    ) -> None:
        """*delays* begins a new row of waiting times, for connections that can't be opened."""
        self._settings = settings
        self._connect = connect
        self._timers = timers
        self._new_delays = delays
        self._delays: Iterator[float] | None = None
        self._opening: set[_Seat[ConnectionT]] = set()
        self._idle: deque[_Seat[ConnectionT]] = deque()  # the one used last is the one to use next
        self._lent: dict[ConnectionT, _Seat[ConnectionT]] = {}
        self._ended_while_lent: set[ConnectionT] = set()
        self._dying: set[_Seat[ConnectionT]] = set()  # no longer connected, and about to say so
        self._waiting: deque[asyncio.Future[ConnectionT]] = deque()
        self._retry: Cancellable | None = None
        self._check_timer: Cancellable | None = None
        self._is_open = False
        self._is_refused = False
        self._waits = self._replaced = self._shrunk = 0

    @property
    def statistics(self) -> PoolStatistics:
        """What there is now."""
        return PoolStatistics(
            idle=len(self._idle),
            in_use=len(self._lent),
            opening=len(self._opening),
            overflow=max(0, self._count - self._settings.size),
            waiting=len(self._waiting),
            waits=self._waits,
            replaced=self._replaced,
            shrunk=self._shrunk,
        )

    def open(self) -> None:
        """Begin to keep connections."""
        self._is_open = True
        self._check_timer = self._timers.call_at(self._timers.time() + self._settings.check_every_s, self._check)
        self._refill()

    def close(self) -> None:
        """End all connections, and tell those who wait."""
        self._is_open = False
        self._stop_retrying()
        if self._check_timer is not None:
            self._check_timer.cancel()
        self._fail_waiting(CLOSED_HERE)
        seats = [*self._opening, *self._idle, *self._lent.values()]
        self._idle.clear()
        for seat in seats:
            seat.connection.stop()

    def ask(self) -> asyncio.Future[ConnectionT]:
        """Return what will be a connection of the caller's own, until `give_back`; or `withdraw` it."""
        waiter: asyncio.Future[ConnectionT] = asyncio.get_running_loop().create_future()
        if not self._is_open:
            waiter.set_exception(error_of(CLOSED_HERE))
            return waiter
        self._is_refused = False
        self._waiting.append(waiter)
        self._serve()
        if not waiter.done():
            self._waits += 1
        return waiter

    def withdraw(self, waiter: asyncio.Future[ConnectionT]) -> None:
        """Forget a question whose answer nobody wants any more, though it may have been given."""
        if waiter in self._waiting:
            self._waiting.remove(waiter)
        if waiter.done() and not waiter.cancelled():
            if waiter.exception() is None:
                self.give_back(waiter.result())
            return
        waiter.cancel()

    def give_back(self, connection: ConnectionT) -> None:
        """Take back what was lent, without its subscriptions; raises `InvalidArgumentError` for anything else."""
        if connection in self._ended_while_lent:
            self._ended_while_lent.remove(connection)
            return
        seat = self._lent.pop(connection, None)
        if seat is None:
            raise InvalidArgumentError("not lent by this pool", to_do="release each connection once")
        if connection.state is not State.CONNECTED:
            self._dying.add(seat)
        else:
            connection.leave_all()
            self._rest(seat)
        self._serve()

    # What connections tell.

    def _heard(self, seat: _Seat[ConnectionT], event: ClientEvent) -> None:
        if isinstance(event, Connected):
            self._opening.discard(seat)
            self._delays = None
            self._stop_retrying()
            if self._is_open:
                self._rest(seat)
                self._serve()
        elif isinstance(event, Disconnected):
            self._gone(seat)

    def _gone(self, seat: _Seat[ConnectionT]) -> None:
        connection = seat.connection
        if seat in self._opening:
            self._opening.remove(seat)
            if connection.ending is not None and self._is_open:
                self._failed(connection.ending)
        elif connection in self._lent:
            del self._lent[connection]
            self._ended_while_lent.add(connection)
            self._replaced += 1
        elif seat in self._dying:
            self._dying.remove(seat)
            self._replaced += 1
        elif seat in self._idle:
            self._idle.remove(seat)
            self._replaced += 1
        # else it was closed here
        self._refill()

    def _failed(self, ending: Ending) -> None:
        if fate(ending) is Fate.STOP:
            # Another attempt would end the same way: those who wait are told, and the next who asks begins anew.
            self._is_refused = True
            self._fail_waiting(ending)
        elif self._retry is None:
            if self._delays is None:
                self._delays = self._new_delays()
            self._retry = self._timers.call_at(self._timers.time() + next(self._delays), self._try_again)

    def _fail_waiting(self, ending: Ending) -> None:
        waiting, self._waiting = self._waiting, deque()
        for waiter in waiting:
            if not waiter.done():
                waiter.set_exception(error_of(ending))

    # What follows.

    @property
    def _count(self) -> int:
        return len(self._opening) + len(self._idle) + len(self._lent)

    def _rest(self, seat: _Seat[ConnectionT]) -> None:
        seat.idle_since_s = self._timers.time()
        self._idle.append(seat)

    def _serve(self) -> None:
        while self._waiting and self._idle:
            if self._waiting[0].done():
                self._waiting.popleft()  # cancelled, and about to be withdrawn
                continue
            seat = self._idle.pop()
            if seat.connection.state is not State.CONNECTED:
                self._dying.add(seat)
                continue
            self._lent[seat.connection] = seat
            self._waiting.popleft().set_result(seat.connection)
        self._refill()

    def _refill(self) -> None:
        if not self._is_open or self._is_refused or self._retry is not None:
            return
        size = self._settings.size
        wanted = min(_OVERFLOW_FACTOR * size, max(size, len(self._lent) + len(self._waiting)))
        for _ in range(wanted - self._count):
            seat = _Seat[ConnectionT]()
            self._opening.add(seat)

            def hear(event: ClientEvent, seat: _Seat[ConnectionT] = seat) -> None:
                self._heard(seat, event)

            seat.connection = self._connect(hear)

    def _try_again(self) -> None:
        self._retry = None
        self._refill()

    def _stop_retrying(self) -> None:
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None

    def _check(self) -> None:
        """Look at what is idle: ping it, replace it, or close it since there are too many."""
        settings, now_s = self._settings, self._timers.time()
        self._check_timer = self._timers.call_at(now_s + settings.check_every_s, self._check)
        for seat in list(self._idle):  # the one idle longest comes first
            connection = seat.connection
            if self._count > settings.size and now_s - seat.idle_since_s >= settings.shrink_after_s:
                self._idle.remove(seat)
                self._shrunk += 1
                connection.stop()
            elif connection.silent_for_s >= 2 * settings.check_every_s:
                self._idle.remove(seat)
                self._dying.add(seat)
                connection.abort()
            elif connection.silent_for_s >= settings.check_every_s:
                connection.ping()
        self._refill()
