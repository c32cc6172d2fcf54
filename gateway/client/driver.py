"""Keeps one session connected: opens links, waits between attempts, fetches tokens, watches the time.

Sessions decide, this acts. It has no task of its own but the one that runs `run`, and one for each token on its way.
"""

import asyncio
import itertools
import ssl
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Protocol

from websockets.uri import WebSocketURI

from gateway.client.agenda import NEVER, Agenda
from gateway.client.backoff import Attempts
from gateway.client.endings import CLOSED_HERE, Ending, Fate, Kind
from gateway.client.errors import ClientError, InvalidArgumentError, UnauthorizedError
from gateway.client.events import Disconnected, Reconnecting, State
from gateway.client.link import Link
from gateway.client.membership import Membership
from gateway.client.settings import Cancellable, LinkSettings, Timers, TokenSource
from gateway.protocol import codes


class Session(Protocol):
    """What a driver drives. None of it waits."""

    state: State
    token: str
    source: TokenSource | None
    agenda: Agenda

    @property
    def has_outgoing(self) -> bool:
        """Whether `frames` has something."""

    def frames(self) -> Iterator[tuple[bytes, bool]]:
        """Take out what is to be sent: payloads, and whether each is text."""

    def connect(self, *, now_s: float) -> None:
        """Greet the server."""

    def lost(self, ending: Ending) -> Fate:
        """Note that there is no connection (any more), and say what follows."""

    def close(self, ending: Ending) -> None:
        """End everything."""

    def error(self, channel: str = "") -> ClientError:
        """Make the exception that says why everything has ended."""

    def receive(self, frame: bytes, *, is_text: bool, now_s: float) -> bool:
        """Take a message; false if that leaves nothing to do."""

    def tick(self, *, now_s: float, heard_at_s: float) -> None:
        """Do what is due."""

    def take_token(self, membership: Membership | None, token: str, *, now_s: float) -> None:
        """Use a token that was fetched."""

    def miss_token(self, membership: Membership | None, error: Exception, *, now_s: float) -> None:
        """Do without one."""


class Driver:
    """Drives one session. Implements `LinkPeer`."""

    __slots__ = (
        "_addresses",
        "_arrived",
        "_attempts",
        "_ended",
        "_fetches",
        "_is_flush_due",
        "_is_stopping",
        "_link",
        "_loop",
        "_made_tls",
        "_notify",
        "_scope",
        "_session",
        "_settings",
        "_subprotocol",
        "_tasks",
        "_timer",
        "_timer_at_s",
        "_timers",
        "_waiters",
    )

    def __init__(
        self,
        addresses: Sequence[WebSocketURI],
        session: Session,
        settings: LinkSettings,
        attempts: Attempts,
        *,
        notify: Callable[[Reconnecting | Disconnected], None],
        timers: Timers | None,
        subprotocol: str = "",
    ) -> None:
        self._addresses = itertools.cycle(addresses)
        self._session = session
        self._settings = settings
        self._attempts = attempts
        self._notify = notify
        self._subprotocol = subprotocol
        self._loop = asyncio.get_running_loop()
        self._timers: Timers = timers or self._loop
        self._timer: Cancellable | None = None
        self._timer_at_s = NEVER
        self._link: Link | None = None
        self._scope: asyncio.Timeout | None = None  # of what `stop` may cut short
        self._arrived: asyncio.Future[None] | None = None
        self._ended: asyncio.Future[tuple[Ending, Fate]] | None = None
        self._tasks: asyncio.TaskGroup | None = None
        self._fetches: set[asyncio.Task[None]] = set()
        self._waiters: list[asyncio.Future[None]] = []
        self._made_tls: ssl.SSLContext | None = None
        self._is_flush_due = False
        self._is_stopping = False

    @property
    def now_s(self) -> float:
        """What the time is."""
        return self._timers.time()

    @property
    def waiting_bytes(self) -> int:
        """How much waits for the network."""
        return self._link.waiting_bytes if self._link is not None else 0

    @property
    def heard_at_s(self) -> float:
        """When anything last came from the server; now, if there is no connection."""
        return self._link.heard_at_s if self._link is not None else self.now_s

    def ping(self) -> None:
        """Have the server answer, which moves `heard_at_s`."""
        if self._link is not None:
            self._link.ping()

    def abort(self) -> None:
        """Lose the connection, as a bad network does."""
        if self._link is not None:
            self._link.abort(Ending(Kind.NETWORK, "aborted"))

    async def run(self) -> None:
        """Be connected, again and again, until `stop`, or until there is no point; call it once.

        When it returns the session is closed and nothing is left behind; cancelling it does the same at once.
        """
        ending = CLOSED_HERE
        try:
            async with asyncio.TaskGroup() as self._tasks:
                ending = await self._stay_connected()
                self._session.close(ending)
                for task in self._fetches:
                    task.cancel()
            if self._link is not None:
                await self._link.gone()
        finally:
            self._session.close(ending)
            if self._link is not None:
                self._link.abort(ending)
            self._disarm()
            self._wake_waiters()
            self._notify(Disconnected(ending.code, ending.reason))

    def stop(self) -> None:
        """Say goodbye to the server and have `run` return. Idempotent."""
        if self._is_stopping:
            return
        self._is_stopping = True
        if self._scope is not None:
            self._scope.reschedule(self._loop.time())
        if self._link is not None:
            self._flush()
            self._link.close()

    async def connected(self) -> None:
        """Wait until there is a connection; raises `ClientError` when there never will be one."""
        while self._session.state is not State.CONNECTED:
            if self._session.state is State.CLOSED:
                raise self._session.error()
            waiter = self._loop.create_future()
            self._waiters.append(waiter)
            await waiter

    def act(self) -> None:
        """Do what the session wants; to be called whenever something has been asked of it."""
        session = self._session
        if session.has_outgoing and not self._is_flush_due:
            # At the end of the turn: all commands of one turn share a frame and a write.
            self._is_flush_due = True
            self._loop.call_soon(self._flush)
        agenda = session.agenda
        if agenda.wants_tokens:
            self._fetch_all()
        if agenda.wants_ping:
            agenda.wants_ping = False
            self.ping()
        if agenda.ending is not None:
            self._end_link(agenda.ending)
        if agenda.wake_at_s < self._timer_at_s:
            self._arm(agenda.wake_at_s)

    # The link's peer.

    def opened(self) -> None:
        """Greet the server."""
        self._session.connect(now_s=self.now_s)
        self._look()

    def receive(self, payload: bytes, *, is_text: bool) -> None:
        """Hand on a message."""
        if not self._session.receive(payload, is_text=is_text, now_s=self.heard_at_s):
            return
        if self._arrived is not None:
            self._look()
        else:
            self.act()

    def ended(self, ending: Ending) -> None:
        """Note the end of the link."""
        if self._ended is not None and not self._ended.done():
            # A closed session stays closed: `run` may have been cancelled before it could end the link.
            is_over = self._session.state is State.CLOSED
            self._ended.set_result((ending, Fate.STOP if is_over else self._session.lost(ending)))
        if self._arrived is not None and not self._arrived.done():
            self._arrived.set_result(None)

    # Connecting.

    async def _stay_connected(self) -> Ending:
        self._session.state = State.CONNECTING
        while not self._is_stopping:
            ending, fate = await self._connect_once()
            if fate is Fate.STOP or self._is_stopping:
                return ending
            delay_s = self._attempts.failed(now_s=self.now_s)
            if delay_s is None:
                return Ending(ending.kind, f"gave up after {self._attempts.retries} retries: {ending}", ending.code)
            self._notify(Reconnecting(ending.code, ending.reason, self._attempts.retries, delay_s))
            await self._pause(delay_s)
        return CLOSED_HERE

    async def _connect_once(self) -> tuple[Ending, Fate]:
        """Try the next address; returns when the connection that came of it has ended."""
        self._ended = self._loop.create_future()
        ending: Ending | None = None
        try:
            async with asyncio.timeout(self._settings.connect_timeout_s) as self._scope:
                await self._arrive()
        except TimeoutError:
            ending = Ending(Kind.NETWORK, f"not connected within {self._settings.connect_timeout_s} s")
        except UnauthorizedError as error:
            ending = Ending(Kind.ERROR, str(error), codes.UNAUTHORIZED.code)
        except ssl.SSLCertVerificationError as error:
            ending = Ending(Kind.CERTIFICATE, error.verify_message)
        except OSError as error:
            ending = Ending(Kind.NETWORK, str(error))
        except Exception as error:  # noqa: BLE001 - the user's token function; it gets another chance
            ending = Ending(Kind.NETWORK, f"no token: {error!r}")
        finally:
            self._scope = self._arrived = None
        if ending is not None:
            ending = CLOSED_HERE if self._is_stopping else ending
            if self._link is not None:
                self._link.abort(ending)
            self.ended(ending)
        return await self._ended

    async def _arrive(self) -> None:
        """Get as far as the server's acceptance, or its refusal."""
        if self._link is not None:
            link, self._link = self._link, None
            await link.gone()
        session = self._session
        if session.source is not None and not session.token:
            session.token = _checked(await session.source())
        address = next(self._addresses)
        self._arrived = self._loop.create_future()
        link = self._link = Link(address, self, self._settings, time=self._timers.time, subprotocol=self._subprotocol)
        local = (self._settings.local_address, 0) if self._settings.local_address else None
        tls = self._tls(address)
        await self._loop.create_connection(lambda: link, address.host, address.port, ssl=tls, local_addr=local)
        await self._arrived

    def _tls(self, address: WebSocketURI) -> ssl.SSLContext | None:
        if not address.secure:
            return None
        if self._made_tls is None:  # it reads all certificates there are, which takes long
            self._made_tls = self._settings.tls or ssl.create_default_context()
        return self._made_tls

    def _look(self) -> None:
        """Act, and note when the server has accepted."""
        self.act()
        if self._session.state is State.CONNECTED and self._arrived is not None and not self._arrived.done():
            self._attempts.succeeded(now_s=self.now_s)
            self._arrived.set_result(None)
            self._wake_waiters()

    async def _pause(self, delay_s: float) -> None:
        over = self._loop.create_future()
        timer = self._timers.call_at(self.now_s + delay_s, partial(_settle, over))
        try:
            async with asyncio.timeout(None) as self._scope:
                await over
        except TimeoutError:
            pass  # stopped
        finally:
            self._scope = None
            timer.cancel()

    def _end_link(self, ending: Ending) -> None:
        self._session.agenda.ending = None
        if self._link is None:
            return
        if ending.kind is Kind.NETWORK:
            self._link.abort(ending)  # nobody is there to say goodbye to, or nobody who speaks our language
        else:
            self._link.close(ending)

    def _wake_waiters(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    # Sending, time and tokens.

    def _flush(self) -> None:
        self._is_flush_due = False
        for payload, is_text in self._session.frames():
            if self._link is not None:
                self._link.send(payload, is_text=is_text)

    def _arm(self, at_s: float) -> None:
        self._disarm()
        self._timer_at_s = at_s
        self._timer = self._timers.call_at(at_s, self._tick)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer, self._timer_at_s = None, NEVER

    def _tick(self) -> None:
        self._timer, self._timer_at_s = None, NEVER
        if self._session.state is State.CLOSED:
            return
        self._session.tick(now_s=self.now_s, heard_at_s=self.heard_at_s)
        self.act()

    def _fetch_all(self) -> None:
        agenda = self._session.agenda
        wanted, agenda.wants_tokens = agenda.wants_tokens, []
        if self._tasks is None:
            raise AssertionError("tokens are wanted by connected sessions only")
        for membership in wanted:
            name = f"token of {membership.channel}" if membership is not None else "token"
            task = self._tasks.create_task(self._fetch(membership), name=name)
            self._fetches.add(task)
            task.add_done_callback(self._fetches.discard)

    async def _fetch(self, membership: Membership | None) -> None:
        source = membership.source if membership is not None else self._session.source
        if source is None:
            raise AssertionError("a token is wanted that nobody can fetch")
        try:
            token = _checked(await source())
        except Exception as error:  # noqa: BLE001 - the user's function: the session knows what follows
            self._session.miss_token(membership, error, now_s=self.now_s)
            if not isinstance(error, UnauthorizedError):
                report(self._loop, error, "a function that fetches tokens")
        else:
            self._session.take_token(membership, token, now_s=self.now_s)
        self.act()


def report(loop: asyncio.AbstractEventLoop, error: Exception, what: str) -> None:
    """Tell the event loop's exception handler of the user's own code that raised."""
    loop.call_exception_handler({"message": f"{what} raised", "exception": error})


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _checked(token: object) -> str:
    if not isinstance(token, str) or not token:
        raise InvalidArgumentError(f"a token function returned {type(token).__name__}", to_do="return a text")
    return token
