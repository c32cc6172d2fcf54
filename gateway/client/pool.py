"""A pool of connections: so many are kept open, twice as many under load, and each is lent to one task at a time."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from types import TracebackType
from typing import Any, Self

import msgspec

from gateway.client.backoff import SHARED_CHANCE, delays
from gateway.client.client import Client
from gateway.client.errors import InvalidArgumentError, PoolTimeoutError
from gateway.client.events import ClientEvent
from gateway.client.roster import PoolSettings, PoolStatistics, Roster
from gateway.client.settings import ClientSettings, Timers, TokenSource


class Pool:
    """Connections to a gateway, lent to one task at a time.

        async with Pool(address, token=fetch_token, settings=PoolSettings(size=10)) as pool:
            await pool.publish("chat:1", {"text": "hello"})
            async with pool.connection(timeout_s=5) as connection:
                print(await connection.presence("chat:1"))

    A connection of the pool does not reconnect: when it ends, its commands fail, and the pool puts another in its
    place. Whoever waits longest is served first. Entering does not wait: the first connections are being opened then.
    """

    def __init__(
        self,
        address: str | Sequence[str],
        *,
        token: str | TokenSource = "",
        settings: PoolSettings | None = None,
        client_settings: ClientSettings | None = None,
        timers: Timers | None = None,
        chance: random.Random | None = None,
    ) -> None:
        """Prepare a pool; the arguments are those of `Client`, whose backoff paces failing attempts here, too.

        Raises:
            InvalidArgumentError: for an address or setting that can't work.
        """
        client_settings = client_settings or ClientSettings()
        chance = chance or SHARED_CHANCE
        forever = msgspec.structs.replace(client_settings.backoff, max_retries=None)
        once = msgspec.structs.replace(forever, max_retries=0)
        self._make = partial(
            Client,
            address,
            token=token,
            settings=msgspec.structs.replace(client_settings, backoff=once, offline_wait_s=0.0),
            timers=timers,
            chance=chance,
        )
        self._make()  # finds fault with the arguments now
        self._tasks: asyncio.TaskGroup | None = None
        self._roster: Roster[Client] = Roster(
            settings or PoolSettings(),
            self._connect,
            delays=lambda: delays(forever, chance),
            timers=timers or asyncio.get_running_loop(),
        )

    @property
    def statistics(self) -> PoolStatistics:
        """What the pool holds now, and what happened so far."""
        return self._roster.statistics

    async def __aenter__(self) -> Self:
        if self._tasks is not None:
            raise InvalidArgumentError("the pool is open already", to_do="enter it once")
        self._tasks = asyncio.TaskGroup()
        await self._tasks.__aenter__()
        self._roster.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._roster.close()
        if self._tasks is not None:
            # What the block raised is not the group's affair: it would wrap it.
            await self._tasks.__aexit__(None, None, None)

    async def acquire(self, timeout_s: float | None = None) -> Client:
        """Return a connection that is nobody else's until `release`; wait for one, at most *timeout_s*.

        Cancelling leaves nothing behind.

        Raises:
            PoolTimeoutError: none came free in time.
            UnauthorizedError: the server does not accept the token.
            ClosedError: the pool is not open.
            ClientError: any other reason why the server takes no connection.
        """
        waiter = self._roster.ask()
        try:
            async with asyncio.timeout(timeout_s):
                return await waiter
        except TimeoutError:
            self._roster.withdraw(waiter)
            held = self._roster.statistics
            raise PoolTimeoutError(
                f"no connection came free within {timeout_s} s ({held.in_use} in use, {held.waiting} tasks wait)",
                to_do="hold connections for a shorter time, enlarge the pool, or see whether the server can be reached",
            ) from None
        except BaseException:
            self._roster.withdraw(waiter)
            raise

    def release(self, connection: Client) -> None:
        """Give *connection* back; what it is subscribed to is left. Raises `InvalidArgumentError` the second time."""
        self._roster.give_back(connection)

    @asynccontextmanager
    async def connection(self, timeout_s: float | None = None) -> AsyncIterator[Client]:
        """Hold a connection for the length of a block; raises what `acquire` raises."""
        connection = await self.acquire(timeout_s)
        try:
            yield connection
        finally:
            self.release(connection)

    async def publish(self, channel: str, data: Any, *, timeout_s: float | None = None) -> None:
        """Publish over any connection of the pool; raises what `acquire` and `Client.publish` raise."""
        async with self.connection(timeout_s) as connection:
            await connection.publish(channel, data)

    def __repr__(self) -> str:
        """Name it, with what it holds."""
        return f"<Pool {self.statistics}>"

    def _connect(self, on_event: Callable[[ClientEvent], None]) -> Client:
        if self._tasks is None:
            raise AssertionError("a pool that was not entered opens no connection")
        client = self._make(on_event=on_event)
        self._tasks.create_task(client.run(), name="gateway pool connection")
        return client
