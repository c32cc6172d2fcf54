"""The client, as its user holds it."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar

from msgspec import UNSET, Raw

from gateway.client.addresses import parse_addresses
from gateway.client.backoff import SHARED_CHANCE, Attempts
from gateway.client.driver import Driver, report
from gateway.client.endings import Ending
from gateway.client.errors import (
    ClientError,
    InvalidArgumentError,
    PublishRejectedError,
    QueueFullError,
    RejectedError,
    advice,
)
from gateway.client.events import ClientEvent, State, SubscriptionEvent
from gateway.client.membership import Membership
from gateway.client.requests import Request
from gateway.client.session import ClientSession
from gateway.client.settings import ClientSettings, SubscriptionSettings, Timers, TokenSource
from gateway.client.subscription import Subscription
from gateway.protocol.client_codec import ReceivedHistoryResult, ReceivedPublication, ServerMessage
from gateway.protocol.messages import (
    NOTHING,
    ClientInfo,
    Command,
    HistoryRequest,
    PresenceRequest,
    PresenceStatsRequest,
    PresenceStatsResult,
    PublishRequest,
    RPCRequest,
    StreamPosition,
)

ChannelTokenSource = Callable[[str], Awaitable[str]]
"""Fetches a subscription token for a channel; see `TokenSource`."""

_ResultT = TypeVar("_ResultT")


class Client:
    """A connection to a gateway that restores itself, with its subscriptions.

        async with Client("ws://127.0.0.1:8000/connection/websocket", token=fetch_token) as client:
            async with client.subscribe("chat:1") as chat:
                await client.publish("chat:1", {"text": "hello"})
                async for publication in chat:
                    print(publication.json())

    Entering waits until the server has accepted the client, through as many attempts as `backoff` allows; wrap it in
    `asyncio.timeout` if you can't wait. Leaving says goodbye to the server; no task, timer or socket stays behind. All
    methods belong to the event loop that it was made in. Every command may be cancelled: one that has not been sent
    never is.
    """

    __slots__ = ("_driver", "_loop", "_on_event", "_run", "_session", "_settings", "_tasks")

    def __init__(
        self,
        address: str | Sequence[str],
        *,
        token: str | TokenSource = "",
        on_event: Callable[[ClientEvent], object] | None = None,
        settings: ClientSettings | None = None,
        timers: Timers | None = None,
        chance: random.Random | None = None,
    ) -> None:
        """Prepare a client of *address*, or of several that are tried in turn.

        *token* is a token, or an async function that fetches one whenever one is needed. *on_event* takes what happens
        to the connection, and all that happens in channels that the server chose. *timers* and *chance* are for tests.

        Raises:
            InvalidArgumentError: for an address or setting that can't work.
        """
        self._settings = settings or ClientSettings()
        self._on_event = on_event
        self._loop = asyncio.get_running_loop()
        chance = chance or SHARED_CHANCE
        self._session = ClientSession(
            self._settings,
            notify=self._tell,
            chance=chance,
            token=token if isinstance(token, str) else "",
            source=None if isinstance(token, str) else token,
            data=self._payload(self._settings.data, "connect", ""),
        )
        self._driver = Driver(
            parse_addresses(address),
            self._session,
            self._settings,
            Attempts(self._settings.backoff, chance),
            notify=self._tell,
            timers=timers,
            subprotocol=self._settings.codec.subprotocol,
        )
        self._tasks: asyncio.TaskGroup | None = None

    @property
    def state(self) -> State:
        """Where it is now."""
        return self._session.state

    @property
    def id(self) -> str:
        """The id that the server gave to this connection; empty while there is none."""
        return self._session.client_id

    # Its life.

    async def __aenter__(self) -> Self:
        tasks = asyncio.TaskGroup()
        await tasks.__aenter__()
        self._tasks = tasks
        tasks.create_task(self.run(), name="gateway client")
        try:
            await self.connected()
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()
        if self._tasks is not None:
            tasks, self._tasks = self._tasks, None
            # What the block raised is not the group's affair: it would wrap it.
            await tasks.__aexit__(None, None, None)

    async def run(self) -> None:
        """Be connected until `stop`, or until the server refuses for good; for those who have a task for it.

        `async with` does this for you. It returns also when the server refuses: then every command, every iterator and
        `connected` say why.
        """
        await self._driver.run()

    def stop(self) -> None:
        """Say goodbye; `run` returns soon. Commands fail with `ClosedError`, iterators end. Idempotent."""
        self._driver.stop()

    async def connected(self) -> None:
        """Wait until there is a connection.

        Raises:
            UnauthorizedError: the server does not accept the token, or there is none.
            ClosedError: this side has stopped.
            ClientError: any other reason for which there never will be a connection.
        """
        await self._driver.connected()

    # Subscribing.

    def subscribe(
        self,
        channel: str,
        *,
        token: str | ChannelTokenSource = "",
        on_publication: Callable[[ReceivedPublication], object] | None = None,
        on_event: Callable[[SubscriptionEvent], object] | None = None,
        settings: SubscriptionSettings | None = None,
    ) -> Subscription:
        """Subscribe to *channel*, now and after each reconnect.

        Returns at once; `async with` or `confirmed()` wait for the server. *token* is for channels that want one. With
        *on_publication* there is nothing to iterate.

        Raises:
            InvalidArgumentError: no channel, or one that this client is subscribed to already.
            ClientError: when the client is closed.
        """
        _check_channel(channel)
        settings = settings or SubscriptionSettings()
        subscription = Subscription(self, settings, on_publication=on_publication, on_event=on_event)
        membership = Membership(
            channel,
            subscription,
            wishes=settings,
            data=self._payload(settings.data, "subscribe", channel),
            token=token if isinstance(token, str) else "",
            source=None if isinstance(token, str) else partial(token, channel),
            codec=self._settings.codec,
        )
        subscription.bind(membership)
        self._session.join(membership, now_s=self._driver.now_s)
        self._driver.act()
        return subscription

    # Commands.

    async def publish(self, channel: str, data: Any) -> None:
        """Publish *data*: any value that JSON can hold, or bytes or `msgspec.Raw` that are JSON text already.

        Returns when the server has taken it. While there is no connection it waits, at most `offline_wait_s`.

        Raises:
            PublishRejectedError: the server did not take it; `is_temporary` says whether a retry may help.
            DisconnectedError: it was not sent; `UnansweredError`: nobody knows.
            ReplyTimeoutError: nobody knows either.
            QueueFullError: too much waits to be sent.
            InvalidArgumentError: nothing that can be published.
        """
        _check_channel(channel)
        request = PublishRequest(channel, self._payload(data, "publish", channel))
        await self._ask("publish", Command(publish=request), channel)

    async def history(
        self, channel: str, *, limit: int = 0, since: StreamPosition | None = None, is_reverse: bool = False
    ) -> ReceivedHistoryResult:
        """Read the stream of *channel*: at most *limit* publications after *since*, or before it in reverse.

        Without *limit* it returns the stream's top alone (`offset`, `epoch`); -1 asks for as many as the server gives.
        Raises what `publish` raises, with `RejectedError` for a refusal.
        """
        _check_channel(channel)
        request = HistoryRequest(channel, limit, since, is_reverse)
        return _expect((await self._ask("history", Command(history=request), channel)).history)

    async def presence(self, channel: str) -> dict[str, ClientInfo]:
        """Return who is in *channel*, by client id. Raises what `history` raises."""
        _check_channel(channel)
        request = PresenceRequest(channel)
        return _expect((await self._ask("presence", Command(presence=request), channel)).presence).presence

    async def presence_stats(self, channel: str) -> PresenceStatsResult:
        """Return how many clients and users are in *channel*. Raises what `history` raises."""
        _check_channel(channel)
        request = PresenceStatsRequest(channel)
        return _expect((await self._ask("presence_stats", Command(presence_stats=request), channel)).presence_stats)

    async def rpc(self, method: str, data: Any = UNSET) -> Raw:
        """Call a *method* of the backend and return its answer, as it came. Raises what `history` raises."""
        payload = NOTHING if data is UNSET else self._payload(data, "rpc", "")
        return _expect((await self._ask("rpc", Command(rpc=RPCRequest(payload, method)), "")).rpc).data

    async def _ask(self, what: str, command: Command, channel: str) -> ServerMessage:
        """Send *command* and return the reply; its refusal is raised."""
        driver, session = self._driver, self._session
        waiting = driver.waiting_bytes + session.requests.outgoing_bytes
        if waiting > self._settings.queue_max_bytes:
            raise QueueFullError(
                f"{what}: {waiting} bytes wait for the network",
                to_do="send less at a time, or raise queue_max_bytes",
                channel=channel,
            )
        reply: asyncio.Future[ServerMessage | ClientError] = self._loop.create_future()
        request = Request(what, command, lambda outcome: None if reply.done() else reply.set_result(outcome))
        request.channel = channel
        session.request(request, now_s=driver.now_s)
        driver.act()
        try:
            outcome = await reply
        except asyncio.CancelledError:
            request.withdraw()
            raise
        if isinstance(outcome, ClientError):
            raise outcome
        error = outcome.error
        if error is not None:
            kind = PublishRejectedError if what == "publish" else RejectedError
            raise kind(
                f"{what}: {error.message}",
                to_do=advice(error.code),
                channel=channel,
                code=error.code,
                is_temporary=error.temporary,
            )
        return outcome

    # For subscriptions and the pool.

    @property
    def ending(self) -> Ending | None:
        """Why it is not connected; an older reason, or `None`, while it is."""
        return self._session.last

    @property
    def silent_for_s(self) -> float:
        """For how long nothing has come from the server."""
        return self._driver.now_s - self._driver.heard_at_s

    def ping(self) -> None:
        """Send a WebSocket ping, which the server answers: `silent_for_s` goes back then."""
        self._driver.ping()

    def abort(self) -> None:
        """Lose the connection without a word, as a bad network does; what follows is as after that."""
        self._driver.abort()

    def leave(self, membership: Membership, error: ClientError | None = None) -> None:
        """Unsubscribe; `Subscription.unsubscribe` is for users."""
        self._session.leave(membership, now_s=self._driver.now_s, error=error)
        self._driver.act()

    def leave_all(self) -> None:
        """Unsubscribe from every channel that `subscribe` was called for."""
        self._session.channels.leave_all()
        self._driver.act()

    def report(self, error: Exception, what: str) -> None:
        """Tell the event loop's exception handler of a callback that raised."""
        report(self._loop, error, what)

    def __repr__(self) -> str:
        """Name it."""
        return f"<Client {self.state.value} {self.id}>"

    def _tell(self, event: ClientEvent) -> None:
        if self._on_event is None:
            return
        try:
            self._on_event(event)
        except Exception as error:  # noqa: BLE001 - the user's code; it must not harm the connection
            self.report(error, "on_event of a client")

    def _payload(self, value: Any, what: str, channel: str) -> Raw:
        try:
            return self._settings.codec.payload(value)
        except (ValueError, TypeError, OverflowError, RecursionError) as error:
            raise InvalidArgumentError(f"{what}: {error}", to_do="give what JSON can hold", channel=channel) from None


def _check_channel(channel: str) -> None:
    if not channel or not isinstance(channel, str):
        raise InvalidArgumentError(f"not a channel: {channel!r}", to_do="give a text that is not empty")


def _expect(result: _ResultT | None) -> _ResultT:
    if result is None:
        raise RejectedError("the server answered another question", to_do="see whether both sides are of one version")
    return result
