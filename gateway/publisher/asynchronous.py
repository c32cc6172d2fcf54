"""Publishing from an event loop: FastAPI, Starlette, aiohttp, and the application that a gateway runs in."""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol, Self

import redis.exceptions

from gateway.broker.contract import BrokerError
from gateway.broker.redis.endpoint import FAILURES, Endpoint, describe
from gateway.broker.redis.settings import RedisSettings
from gateway.domain.channels import ChannelSettings
from gateway.messaging.publishing import Draft
from gateway.publisher.calls import CLIENT_NAME, Batch, Calls, RoleCheck
from gateway.publisher.desk import MAX_DEPTH, Desk, Extras, Receipt
from gateway.publisher.errors import PublisherError
from gateway.publisher.http import DEFAULT_TIMEOUT_S, HTTPCarrier, OpenDesk
from gateway.publisher.settings import read

_FAULTS: Final = (*FAILURES, BrokerError)


class Carrier(Protocol):
    """Takes drafts to where the subscribers are."""

    async def carry(self, drafts: Sequence[Draft]) -> list[Receipt]:
        """Publish *drafts*, in order, and return what became of each.

        Raises:
            UnavailableError: if that can't be done at the moment.
        """

    async def close(self) -> None:
        """Release what it holds; idempotent."""


class AsyncPublisher:
    """Publishes through a carrier: `on_redis` and `from_config` make one that goes straight into Redis.

    `over_http` makes one that asks a node. The first kind belongs to the event loop in which it first publishes, whose
    tasks may share it. It holds one connection, which is made when it is first needed and again after it was lost. Only
    what has an idempotency key is sent a second time when the first has failed, since anything else could be doubled by
    that.
    """

    def __init__(self, desk: Desk | OpenDesk, carrier: Carrier) -> None:
        self._desk = desk
        self._carrier = carrier

    @classmethod
    def on_redis(
        cls, redis: RedisSettings, channel: ChannelSettings | None = None, *, max_depth: int = MAX_DEPTH
    ) -> Self:
        """Publish into the channels that *channel* describes, which must be what the nodes have, on their *redis*.

        Raises:
            EngineError: for a certificate or key that can't be read.
        """
        return cls(Desk(channel or ChannelSettings(), max_depth=max_depth), _RedisCarrier(redis))

    @classmethod
    def over_http(cls, url: str, *, key: str, timeout_s: float = DEFAULT_TIMEOUT_S) -> Self:
        """Publish over the server API of the node, or balancer, at *url*, with an API *key* of the scope `publish`.

        What may go into a channel the node decides. In a broadcast one channel that will not do keeps no other from it,
        and receipts do not tell what was suppressed.

        Raises:
            PublisherError: for what is no URL or key.
        """
        return cls(OpenDesk(), HTTPCarrier(url, key=key, timeout_s=timeout_s))

    @classmethod
    def from_config(cls, path: Path | str, *, environment: Mapping[str, str] | None = None) -> Self:
        """Read the file that the nodes run on; *environment* (`os.environ`) is laid over it as they do.

        Raises:
            ConfigError: for a file that can't be used.
            EngineError: for a certificate or key that can't be read.
            UnsuitableEngineError: if it names an engine that nobody outside can publish into.
        """
        config = read(path, environment)
        return cls.on_redis(config.redis, config.channel, max_depth=config.json_.max_depth)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def publish(
        self,
        channel: str,
        data: Any,
        *,
        idempotency_key: str = "",
        version: int = 0,
        version_epoch: str = "",
        tags: Mapping[str, str] | None = None,
    ) -> Receipt:
        """Publish *data* in *channel*; it has been handed to all nodes when this returns.

        Bytes go out as they are, anything else as JSON. Within 300 s a repeat with the same *idempotency_key* publishes
        nothing and gets the first receipt. A *version* that is not above the last one of the channel (within the same
        *version_epoch*) publishes nothing either. After a cancel it is unknown whether it was published; others who
        share the publisher are not harmed.

        Raises:
            PublishRejectedError: it will not do, and nothing was published.
            UnavailableError: it can't be published now; the error tells whether a second try may double it.
        """
        return (
            await self.broadcast(
                [channel],
                data,
                idempotency_key=idempotency_key,
                version=version,
                version_epoch=version_epoch,
                tags=tags,
            )
        )[0]

    async def broadcast(
        self,
        channels: Sequence[str],
        data: Any,
        *,
        idempotency_key: str = "",
        version: int = 0,
        version_epoch: str = "",
        tags: Mapping[str, str] | None = None,
    ) -> list[Receipt]:
        """Publish *data* in each of *channels*, as `publish` does; returns the receipts in that order.

        If one of the channels will not do, nothing is published in any.

        Raises:
            PublishRejectedError: as in `publish`.
            UnavailableError: as in `publish`; it names the channels that are not known to have it.
        """
        drafts = self._desk.draft(channels, data, Extras(idempotency_key, version, version_epoch, tags))
        return await self._carrier.carry(drafts)

    async def close(self) -> None:
        """Close the connection; publishing again opens another one."""
        await self._carrier.close()


class _RedisCarrier:
    """Carries drafts over one connection, one batch after the other."""

    def __init__(self, settings: RedisSettings) -> None:
        endpoint = Endpoint(settings)
        self._settings = settings
        self._calls = Calls(endpoint, settings)
        self._role = RoleCheck(settings.watchdog_interval_s)
        pool: Any = endpoint.client(CLIENT_NAME).connection_pool  # most of redis-py's connections is not typed
        self._connection: Any = pool.make_connection()
        self._lock = asyncio.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._queued_bytes = 0

    async def carry(self, drafts: Sequence[Draft]) -> list[Receipt]:
        if self._loop not in (None, asyncio.get_running_loop()):
            raise PublisherError(
                "an AsyncPublisher belongs to the event loop that it first published in: close it there before another "
                "one uses it, make one for each loop, or use Publisher"
            )
        batch = self._calls.prepare(drafts)
        if self._queued_bytes and self._queued_bytes + batch.size > self._settings.queue_max_size:
            raise batch.unavailable("too much waits for the connection", may_be_published=False)
        self._loop = asyncio.get_running_loop()
        self._queued_bytes += batch.size
        try:
            await self._carry_out(batch)
        finally:
            self._queued_bytes -= batch.size
        return batch.receipts()

    async def close(self) -> None:
        async with self._lock:
            await self._connection.disconnect()
            self._loop = None

    async def _carry_out(self, batch: Batch) -> None:
        settings = self._settings
        is_sent = False  # by any try
        for left in reversed(range(batch.tries)):
            try:
                async with asyncio.timeout(settings.connect_timeout_s + settings.timeout_s), self._lock:
                    try:
                        await self._make_ready()
                        is_sent = True
                        await self._exchange(batch)
                    except BaseException:  # a cancel between command and reply, too
                        await self._connection.disconnect(nowait=True)
                        raise
            except _FAULTS as error:
                if not left:
                    raise batch.unavailable(describe(error), may_be_published=is_sent) from error
            else:
                return

    async def _make_ready(self) -> None:
        """Have a connection that works as far as can be told without asking: Redis may have closed an idle one."""
        connection = self._connection
        if connection.is_connected:
            if not await connection.can_read():
                return
            await connection.disconnect(nowait=True)
        self._role.forget()
        await connection.connect()

    async def _exchange(self, batch: Batch) -> None:
        exchange, connection = batch.carry_out(self._role), self._connection
        try:
            data, count = next(exchange)
            while True:
                await connection.send_packed_command(data, check_health=False)
                data, count = exchange.send([await _reply(connection) for _ in range(count)])
        except StopIteration:
            return


async def _reply(connection: Any) -> Any:
    try:
        return await connection.read_response(disable_decoding=True)
    except redis.exceptions.ResponseError as error:
        return error
