"""Where Redis is and how this node gets in, for both kinds of connections: our own and redis-py's."""

import asyncio
import contextlib
import os
import ssl
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import redis.asyncio
import redis.exceptions
from redis.asyncio.connection import Connection, ConnectionPool, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.credentials import CredentialProvider
from redis.exceptions import RedisError

from gateway.broker.contract import EngineError
from gateway.broker.redis.settings import RedisSettings, RedisTLSSettings
from gateway.broker.redis.wire import pack

_UNIX: Final = "unix:"
# How redis-py fails. The last one comes from uvloop, for a connection that was closed a moment ago.
FAILURES: Final = (RedisError, OSError, RuntimeError)
ProtocolT = TypeVar("ProtocolT", bound=asyncio.Protocol)


class Endpoint:
    """The server of *settings*. Its texts name the address, and never a password.

    Raises:
        EngineError: for a certificate or key that can't be read.
    """

    def __init__(self, settings: RedisSettings) -> None:
        self.label = f"redis {settings.address}"
        """How messages call the server."""
        self.settings = settings
        """What is in force; user and password may change."""
        self._context = _tls_context(settings.tls) if settings.tls.enabled else None
        self._path: str | None = None
        self._host, self._port = "", 0
        if settings.address.startswith(_UNIX):
            self._path = settings.address.removeprefix(_UNIX)
        else:
            host, _, port = settings.address.rpartition(":")
            self._host, self._port = host.strip("[]"), int(port)
        self._server_name = settings.tls.server_name or self._host

    def change_login(self, *, user: str, password: str) -> None:
        """Log in with these from the next connection on."""
        self.settings = self.settings.model_copy(update={"user": user, "password": password})

    def credentials(self) -> tuple[str, ...]:
        """Return what AUTH takes: nothing, the password, or user and password."""
        given = (self.settings.user, self.settings.password)
        return tuple(each for each in given if each) if self.settings.password else ()

    def greeting(self, name: str) -> list[bytes]:
        """Return the packed commands that log in, choose the database and call the connection *name*."""
        settings = self.settings
        commands: list[tuple[Any, ...]] = []
        if credentials := self.credentials():
            commands.append(("AUTH", *credentials))
        if settings.db:
            commands.append(("SELECT", settings.db))
        commands.append(("CLIENT", "SETNAME", name))
        return [pack(*command) for command in commands]

    async def connect(self, make: Callable[[], ProtocolT]) -> ProtocolT:
        """Open a connection.

        Raises:
            OSError: if that fails.
        """
        loop = asyncio.get_running_loop()
        if self._path is not None:
            _, protocol = await loop.create_unix_connection(make, self._path)
            return protocol
        name = self._server_name if self._context is not None else None
        _, protocol = await loop.create_connection(
            make, self._host, self._port, ssl=self._context, server_hostname=name
        )
        return protocol

    def client(self, name: str) -> "redis.asyncio.Redis":
        """Return a redis-py client of one connection that tries everything once and hands replies over as they come."""
        settings = self.settings
        options: dict[str, Any] = {
            "credential_provider": _Login(self),
            "db": settings.db,
            "client_name": name,
            "driver_info": None,
            "protocol": 2,
            "socket_connect_timeout": settings.connect_timeout_s,
            # The caller bounds the whole exchange, with asyncio.timeout.
            "socket_timeout": None,
            "retry": Retry(NoBackoff(), 0),
        }
        kind: type[redis.asyncio.Connection | UnixDomainSocketConnection] = Connection
        if self._path is not None:
            kind, options["path"] = UnixDomainSocketConnection, self._path
        else:
            options |= {"host": self._host, "port": self._port}
            if self._context is not None:
                kind, options["tls"] = _TLSConnection, {"ssl": self._context, "server_hostname": self._server_name}
        pool = ConnectionPool(connection_class=kind, max_connections=1, **options)
        client = redis.asyncio.Redis.from_pool(pool)
        client.response_callbacks.clear()
        return client


class _Login(CredentialProvider):
    """Has redis-py ask for the login at each connection that it makes, since it may have changed."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    def get_credentials(self) -> tuple[str, ...]:  # type: ignore[override]
        """Return the arguments of AUTH; with none there is no AUTH."""
        return self._endpoint.credentials()

    async def get_credentials_async(self) -> tuple[str, ...]:  # type: ignore[override]
        """Return the same; the inherited one logs a warning."""
        return self._endpoint.credentials()


class _TLSConnection(Connection):
    """redis-py's connection on a TLS context of ours, since its own can't check a name other than the host."""

    def __init__(self, *, tls: Mapping[str, Any], **options: Any) -> None:
        self._tls = tls
        super().__init__(**options)

    def _connection_arguments(self) -> Mapping[str, Any]:
        return {**super()._connection_arguments(), **self._tls}


def _tls_context(settings: RedisTLSSettings) -> ssl.SSLContext:
    files = {
        "server_ca_pem_file": settings.server_ca_pem_file,
        "cert_pem_file": settings.cert_pem_file,
        "key_pem_file": settings.key_pem_file,
    }
    for key, name in files.items():
        try:
            if name:
                Path(name).read_bytes()
        except OSError as error:
            raise EngineError(f"redis.tls.{key}: can't read {name}: {error.strerror}") from error
    try:
        context = ssl.create_default_context(cafile=settings.server_ca_pem_file or None)
    except ssl.SSLError as error:
        raise EngineError(f"redis.tls.server_ca_pem_file: {settings.server_ca_pem_file} has no certificate") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if settings.insecure_skip_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if settings.cert_pem_file:
        try:
            context.load_cert_chain(settings.cert_pem_file, settings.key_pem_file)
        except ssl.SSLError as error:
            names = f"{settings.cert_pem_file} and {settings.key_pem_file}"
            raise EngineError(f"redis.tls.cert_pem_file: {names} are no certificate and its key") from error
    return context


async def close(client: "redis.asyncio.Redis") -> None:
    """Close the connections of *client*; one that can't be closed in good order is let go all the same."""
    with contextlib.suppress(*FAILURES):
        await client.connection_pool.disconnect()


def describe(error: BaseException) -> str:
    """Say in a few words why a connection failed; of redis-py's errors, what is behind them."""
    match error:
        case RedisError(__context__=OSError() as origin):
            return describe(origin)
        case TimeoutError() | redis.exceptions.TimeoutError():
            return "no answer in time"
        case ssl.SSLCertVerificationError():
            return f"its certificate is not accepted: {error.verify_message}"
        case ssl.SSLError():
            return f"TLS failed: {error.reason or error}"
        case OSError(errno=int() as number) if number > 0:
            return os.strerror(number).lower()
        case OSError(strerror=str() as text) if text:
            return text.lower()  # a name that can't be resolved has a number of its own kind
        case _:
            return str(error) or type(error).__name__
