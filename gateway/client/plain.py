"""The client of the plain protocol, as its user holds it."""

import asyncio
import random
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

import msgspec

from gateway.client.addresses import parse_addresses
from gateway.client.backoff import SHARED_CHANCE, Attempts
from gateway.client.buffer import Buffer
from gateway.client.driver import Driver, report
from gateway.client.errors import ClosedError, DisconnectedError, InvalidArgumentError, QueueFullError
from gateway.client.events import Disconnected, State
from gateway.client.plain_session import Gap, PlainEvent, PlainMessage, PlainSession, PlainSettings
from gateway.client.settings import Timers, TokenSource

PlainItem = PlainMessage | PlainEvent
_ItemT = TypeVar("_ItemT", PlainMessage, PlainEvent)


class PlainClient:
    """A client of one channel that sends and gets messages as they are, and restores its connection.

        async with PlainClient("ws://127.0.0.1:8000/ws/lobby:chat") as client:
            await client.send_json({"text": "hello"})
            async for message in client:
                print(message.json())

    What was sent is not confirmed in this protocol; what the gateway does not take is a `Refused` event. Nothing is
    recovered: after `Connected`, and at a `Gap`, messages may be missing. `async for` yields messages, `events()`
    yields the events between them as well, and `on_event` is called with events at once. One task may iterate at a
    time; cancelling it loses nothing. A text message that a publisher made to look exactly like the gateway's own
    `{"status":"gap"}` or `{"error":{…}}` can't be told from it.
    """

    def __init__(
        self,
        address: str | Sequence[str],
        *,
        token: str | TokenSource = "",
        on_message: Callable[[PlainMessage], object] | None = None,
        on_event: Callable[[PlainEvent], object] | None = None,
        settings: PlainSettings | None = None,
        timers: Timers | None = None,
        chance: random.Random | None = None,
    ) -> None:
        """Prepare a client of *address*, which names the channel, or of several that are tried in turn.

        With *on_message*, which takes each message in the turn that brings it, there is nothing to iterate.

        Raises:
            InvalidArgumentError: for an address or setting that can't work.
        """
        self._settings = settings or PlainSettings()
        self._on_message = on_message
        self._on_event = on_event
        self._loop = asyncio.get_running_loop()
        self._session = PlainSession(
            self._settings,
            deliver=self._take,
            token=token if isinstance(token, str) else "",
            source=None if isinstance(token, str) else token,
        )
        chance = chance or SHARED_CHANCE
        self._driver = Driver(
            parse_addresses(address),
            self._session,
            self._settings,
            Attempts(self._settings.backoff, chance),
            notify=self._take,
            timers=timers,
        )
        self._buffer = Buffer[PlainItem](self._settings.buffer_max_bytes)
        self._has_dropped = False
        self._held_bytes = 0
        self._tasks: asyncio.TaskGroup | None = None

    @property
    def state(self) -> State:
        """Where it is now."""
        return self._session.state

    @property
    def user(self) -> str:
        """Who the gateway takes this client for; empty while not connected, and for a stranger."""
        return self._session.user

    # Its life.

    async def __aenter__(self) -> Self:
        """Wait until the gateway has accepted the token; without one, until it has upgraded."""
        self._tasks = tasks = asyncio.TaskGroup()
        await tasks.__aenter__()
        tasks.create_task(self.run(), name="gateway plain client")
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
        """Be connected until `stop`, or until the gateway refuses for good; for those who have a task for it."""
        await self._driver.run()

    def stop(self) -> None:
        """Say goodbye; `run` returns soon, and iterators end. Idempotent."""
        self._driver.stop()

    async def connected(self) -> None:
        """Wait until there is a connection; raises `ClientError` when there never will be one."""
        await self._driver.connected()

    def abort(self) -> None:
        """Lose the connection without a word, as a bad network does; what follows is as after that."""
        self._driver.abort()

    # Messages out.

    async def send_json(self, value: Any) -> None:
        """Send *value*, written as JSON; see `send_text`."""
        try:
            data = msgspec.json.encode(value)
        except (ValueError, TypeError, OverflowError, RecursionError) as error:
            raise InvalidArgumentError(f"send: {error}", to_do="give what JSON can hold") from None
        await self._send(data, is_text=True)

    async def send_text(self, text: str) -> None:
        """Send *text*: JSON, unless the channel has a handler that takes any.

        Returns when it has been handed to the network; that it arrives is not confirmed in this protocol. Without a
        connection it waits, at most `offline_wait_s`.

        Raises:
            DisconnectedError: it was not sent.
            QueueFullError: too much waits to be sent.
            InvalidArgumentError: too big.
        """
        await self._send(text.encode(), is_text=True)

    async def send_bytes(self, data: bytes) -> None:
        """Send *data* as a binary message, for channels of binary publications; see `send_text`."""
        await self._send(data, is_text=False)

    # Messages in.

    def events(self) -> "PlainEvents":
        """Iterate over messages and events, in their order."""
        return PlainEvents(self)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> PlainMessage:
        while True:
            item = await self.next_item()
            if isinstance(item, PlainMessage):
                return item

    async def next_item(self) -> PlainItem:
        """Return the next message or event; raises `StopAsyncIteration` at the end."""
        if self._on_message is not None:
            raise InvalidArgumentError("it has a callback", to_do="iterate, or give a callback")
        return await self._buffer.take()

    def __repr__(self) -> str:
        """Name it."""
        return f"<PlainClient {self.state.value} {self.user}>"

    def _take(self, item: PlainItem) -> None:
        if self._on_message is not None:
            if isinstance(item, PlainMessage):
                self._call(self._on_message, item, "on_message of a plain client")
        elif isinstance(item, Disconnected):
            error = self._session.error()
            self._buffer.end(item, None if isinstance(error, ClosedError) else error, is_emptied=False)
        else:
            self._keep(item)
        if self._on_event is not None and not isinstance(item, PlainMessage):
            self._call(self._on_event, item, "on_event of a plain client")

    def _call(self, callback: Callable[[_ItemT], object], item: _ItemT, what: str) -> None:
        try:
            callback(item)
        except Exception as error:  # noqa: BLE001 - the user's code; it must not harm the connection
            report(self._loop, error, what)

    def _keep(self, item: PlainItem) -> None:
        if self._has_dropped and self._buffer.offer(Gap()):
            self._has_dropped = False
        size = len(item.data) if isinstance(item, PlainMessage) else 0
        if self._has_dropped or not self._buffer.offer(item, size):
            self._has_dropped = True

    async def _send(self, data: bytes, *, is_text: bool) -> None:
        settings = self._settings
        if len(data) > settings.send_max_bytes:
            raise InvalidArgumentError(
                f"send: {len(data)} bytes, and {settings.send_max_bytes} may be sent", to_do="send less at once"
            )
        waiting = self._driver.waiting_bytes + self._held_bytes
        if waiting and waiting + len(data) > settings.queue_max_bytes:
            raise QueueFullError(f"send: {waiting} bytes wait", to_do="send less at a time, or raise queue_max_bytes")
        self._held_bytes += len(data)
        try:
            if self.state is not State.CONNECTED:
                await self._wait()
        finally:
            self._held_bytes -= len(data)
        self._session.outgoing.append((data, is_text))
        self._driver.act()

    async def _wait(self) -> None:
        wait_s = self._settings.offline_wait_s
        try:
            async with asyncio.timeout(wait_s):
                await self.connected()
        except TimeoutError:
            raise DisconnectedError(
                f"send: no connection within {wait_s} s",
                to_do="try again when the client is connected, or raise offline_wait_s",
            ) from None


class PlainEvents:
    """Messages and events of one plain client, in their order; `async for` over it."""

    __slots__ = ("_client",)

    def __init__(self, client: PlainClient) -> None:
        self._client = client

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> PlainItem:
        return await self._client.next_item()
