"""Publishing from ordinary threads: Django, Flask, Celery, scripts."""

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self

import redis.exceptions
from redis.connection import Connection, UnixDomainSocketConnection

from gateway.broker.contract import BrokerError
from gateway.broker.redis.endpoint import Endpoint, describe
from gateway.broker.redis.settings import RedisSettings
from gateway.domain.channels import ChannelSettings
from gateway.publisher.calls import CLIENT_NAME, Batch, Calls, RoleCheck
from gateway.publisher.desk import MAX_DEPTH, Desk, Extras, Receipt
from gateway.publisher.errors import UnavailableError
from gateway.publisher.http import DEFAULT_TIMEOUT_S, HTTPLine, OpenDesk
from gateway.publisher.settings import read

_FAULTS: Final = (redis.exceptions.RedisError, OSError, BrokerError)


class Publisher:
    """Publishes straight into Redis; threads may share it, and processes that were forked get a connection each.

    `over_http` makes one that publishes over a node's server API.

    It holds one connection, which is made when it is first needed and again after it was lost. Only what has an
    idempotency key is sent a second time when the first has failed, since anything else could be doubled by that.
    """

    def __init__(
        self, redis: RedisSettings, channel: ChannelSettings | None = None, *, max_depth: int = MAX_DEPTH
    ) -> None:
        """Publish into the channels that *channel* describes, which must be what the nodes have, on their *redis*.

        Raises:
            EngineError: for a certificate or key that can't be read.
        """
        endpoint = Endpoint(redis)
        self._begin(Desk(channel or ChannelSettings(), max_depth=max_depth), lambda: _Line(endpoint, redis))

    def _begin(self, desk: Desk | OpenDesk, make_line: "Callable[[], _Line | HTTPLine]") -> None:
        self._desk = desk
        self._make_line = make_line
        self._line = make_line()

    @classmethod
    def from_config(cls, path: Path | str, *, environment: Mapping[str, str] | None = None) -> Self:
        """Read the file that the nodes run on; *environment* (`os.environ`) is laid over it as they do.

        Raises:
            ConfigError: for a file that can't be used.
            EngineError: for a certificate or key that can't be read.
            UnsuitableEngineError: if it names an engine that nobody outside can publish into.
        """
        config = read(path, environment)
        return cls(config.redis, config.channel, max_depth=config.json_.max_depth)

    @classmethod
    def over_http(cls, url: str, *, key: str, timeout_s: float = DEFAULT_TIMEOUT_S) -> Self:
        """Publish over the server API of the node, or balancer, at *url*, with an API *key* of the scope `publish`.

        What may go into a channel the node decides. Threads may share it, and it keeps a connection for each that
        publishes at the same time. In a broadcast one channel that will not do keeps no other from it, and receipts do
        not tell what was suppressed.

        Raises:
            PublisherError: for what is no URL or key.
        """
        publisher = cls.__new__(cls)
        publisher._begin(OpenDesk(), lambda: HTTPLine(url, key=key, timeout_s=timeout_s))  # noqa: SLF001 - it is one of us
        return publisher

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def publish(
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
        *version_epoch*) publishes nothing either.

        Raises:
            PublishRejectedError: it will not do, and nothing was published.
            UnavailableError: Redis does not work at the moment; the error tells whether a second try may double it.
        """
        return self._publish([channel], data, Extras(idempotency_key, version, version_epoch, tags))[0]

    def broadcast(
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
        return self._publish(channels, data, Extras(idempotency_key, version, version_epoch, tags))

    def close(self) -> None:
        """Close the connection; publishing again opens another one."""
        self._own_line().close()

    def _publish(self, names: Sequence[str], data: Any, extras: Extras) -> list[Receipt]:
        return self._own_line().publish(self._desk, names, data, extras)

    def _own_line(self) -> "_Line | HTTPLine":
        """Return the line of this process: in one that was forked, connection and lock still are the parent's."""
        line = self._line
        if line.pid != os.getpid():
            # Two threads that come here at once make two, of which one is dropped after its first use.
            line = self._line = self._make_line()
        return line


class _Line:
    """What one process publishes through: a connection, and the lock of the threads that share it."""

    def __init__(self, endpoint: Endpoint, settings: RedisSettings) -> None:
        self.pid = os.getpid()
        self._lock = threading.Lock()
        self._lock_timeout_s = settings.connect_timeout_s + settings.timeout_s
        self._calls = Calls(endpoint, settings)
        self._connection = _make_connection(endpoint, settings)
        self._role = RoleCheck(settings.watchdog_interval_s)

    def publish(self, desk: Desk | OpenDesk, names: Sequence[str], data: Any, extras: Extras) -> list[Receipt]:
        if not self._lock.acquire(timeout=self._lock_timeout_s):
            reason = f"{self._calls.label}: other threads kept the connection busy"
            raise UnavailableError(names, reason, may_be_published=False)
        try:
            batch = self._calls.prepare(desk.draft(names, data, extras))
            self._carry_out(batch)
        finally:
            self._lock.release()
        return batch.receipts()

    def close(self) -> None:
        with self._lock:
            self._connection.disconnect()

    def _carry_out(self, batch: Batch) -> None:
        is_sent = False  # by any try
        for left in reversed(range(batch.tries)):
            try:
                self._make_ready()
                is_sent = True
                self._exchange(batch)
            except _FAULTS as error:
                self._connection.disconnect()
                if not left:
                    raise batch.unavailable(describe(error), may_be_published=is_sent) from error
            except BaseException:  # a KeyboardInterrupt between command and reply
                self._connection.disconnect()
                raise
            else:
                return

    def _make_ready(self) -> None:
        """Have a connection that works as far as can be told without asking: Redis may have closed an idle one."""
        connection = self._connection
        if connection.is_connected:
            with contextlib.suppress(redis.exceptions.RedisError, OSError):
                if not connection.can_read(timeout=0):
                    return
            connection.disconnect()
        self._role.forget()
        connection.connect()

    def _exchange(self, batch: Batch) -> None:
        exchange, connection = batch.carry_out(self._role), self._connection
        try:
            data, count = next(exchange)
            while True:
                connection.send_packed_command([data], check_health=False)
                data, count = exchange.send([_reply(connection) for _ in range(count)])
        except StopIteration:
            return


def _reply(connection: Any) -> Any:
    try:
        return connection.read_response(disable_decoding=True)
    except redis.exceptions.ResponseError as error:
        return error


def _make_connection(endpoint: Endpoint, settings: RedisSettings) -> Any:
    """Return a connection of redis-py, which is not typed, with the options that the endpoint gives others."""
    options = dict(endpoint.client(CLIENT_NAME).connection_pool.connection_kwargs)
    options |= {"retry": None, "socket_timeout": settings.timeout_s}
    kind: Any = UnixDomainSocketConnection if "path" in options else Connection
    if "tls" in options:
        kind = _TLSConnection
    return kind(**options)


class _TLSConnection(Connection):
    """redis-py's connection on the endpoint's TLS context."""

    def __init__(self, *, tls: Mapping[str, Any], **options: Any) -> None:
        self._tls = tls
        super().__init__(**options)  # type: ignore[no-untyped-call]  # as all of redis-py's connections

    def _connect(self) -> socket.socket:
        plain = super()._connect()  # type: ignore[no-untyped-call]  # see above
        try:
            wrapped: socket.socket = self._tls["ssl"].wrap_socket(plain, server_hostname=self._tls["server_hostname"])
        except BaseException:
            plain.close()
            raise
        return wrapped
