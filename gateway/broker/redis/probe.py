"""A first look at the server: whether this node can work with it, and if not, which key its operator has to mend."""

import asyncio
import re
import ssl
from collections.abc import Iterator
from typing import Any, Final

import redis.asyncio
import redis.exceptions
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    InvalidResponse,
    MasterDownError,
    NoPermissionError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)

from gateway.broker.contract import EngineError
from gateway.broker.redis.endpoint import FAILURES, Endpoint, close, describe
from gateway.broker.redis.keys import Keys
from gateway.broker.redis.scripts import HISTORY, PUBLISH

_OLDEST: Final = (6, 2)
_SHORT_MS: Final = 1000
_NO_PERMISSION: Final = re.compile("NOPERM|no permissions|can't run this command|ACL failure", re.IGNORECASE)


class NotYetError(Exception):
    """The server can't be worked with now, and that may change by itself."""


class Probe:
    """Tries all kinds of commands that the engine needs, under names that no channel has."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._keys = Keys(f"{endpoint.settings.prefix}:probe").of("")

    async def run(self) -> None:
        """Return if the engine can work.

        Raises:
            EngineError: for what only the operator can mend; it names the key and what to do.
            NotYetError: for what may pass; its text tells why.
        """
        client = self._endpoint.client("gateway-probe")
        try:
            async with asyncio.timeout(self._endpoint.settings.connect_timeout_s + self._endpoint.settings.timeout_s):
                await self._check_server(client)
                await self._check_permissions(client)
        except (BusyLoadingError, MasterDownError, ReadOnlyError) as error:
            raise NotYetError(f"{self._endpoint.label}: {error}") from error
        except FAILURES as error:
            fault = self._fault(error)
            if fault is not None:
                raise EngineError(fault) from error
            if not isinstance(error, ResponseError):
                reason = describe(error)
                if self._endpoint.settings.tls.enabled and isinstance(
                    error, TimeoutError | redis.exceptions.TimeoutError
                ):
                    reason += "; does it speak TLS there?"  # a server that does not waits for the end of a line
                raise NotYetError(f"{self._endpoint.label}: {reason}") from error
            # Whatever it refused for a reason of the moment (no memory, a failing disk), this node is let in.
        finally:
            await close(client)

    async def _check_server(self, client: "redis.asyncio.Redis") -> None:
        try:
            text: bytes = await client.execute_command("INFO", "server")  # type: ignore[no-untyped-call]
        except NoPermissionError:
            return  # whether the rest works is found out by trying
        found = dict(_fields(text))
        label = self._endpoint.label
        mode = found.get("redis_mode")
        if mode == "cluster":
            raise EngineError(f"redis.address: {label} runs in cluster mode; give the address of a single server")
        if mode == "sentinel":
            raise EngineError(f"redis.address: {label} is a Sentinel; give the address of the server it watches")
        version = found.get("redis_version", "")
        numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:2])
        if numbers and numbers < _OLDEST:
            raise EngineError(f"redis.address: {label} is Redis {version}; 6.2 is the oldest that will do")

    async def _check_permissions(self, client: "redis.asyncio.Redis") -> None:
        keys = [self._keys.stream, self._keys.meta, self._keys.result("probe")]
        new_epoch, unseen, nothing = "probe", ("", 0), b""
        stream: tuple[Any, ...] = (1, _SHORT_MS, _SHORT_MS, "", "", 1)
        for command in (
            ("SCRIPT", "LOAD", PUBLISH.text),
            ("PUBLISH", self._keys.name, nothing),
            ("EVAL", PUBLISH.text, 3, *keys, new_epoch, *unseen, self._keys.name, nothing, *stream),
            ("EVAL", HISTORY.text, 2, *keys[:2], new_epoch, *unseen, _SHORT_MS, "XRANGE", "-", "+"),
            ("DEL", self._keys.stream),
        ):
            await client.execute_command(*command)  # type: ignore[no-untyped-call]
        async with client.pubsub() as listening:
            await listening.subscribe(self._keys.name)
            await listening.get_message(timeout=self._endpoint.settings.timeout_s)

    def _fault(self, error: BaseException) -> str | None:
        """Return the line about a fault of the configuration, `None` if *error* is none."""
        label, user = self._endpoint.label, self._endpoint.settings.user or "default"
        text = str(error)
        match error:
            case RedisError(__context__=ssl.SSLError() as origin):
                return f"redis.tls: {label}: {describe(origin)}; check the address, tls.enabled and the files"
            case AuthenticationError() if "without any password configured" in text:
                return f"redis.password: {label} has none for the user {user!r}; take it out here or set it there"
            case AuthenticationError() if self._endpoint.settings.password:
                return f"redis.password: {label} does not let the user {user!r} in with it; give the right one"
            case AuthenticationError():
                return f"redis.password: {label} asks for one, and none is given"
            case ResponseError() if "DB index" in text:
                return f"redis.db: {label} has no database {self._endpoint.settings.db}; give a lower number"
            case ResponseError() if isinstance(error, NoPermissionError) or _NO_PERMISSION.search(text):
                prefix = self._endpoint.settings.prefix
                rights = f"~{prefix}:* &{prefix}:* +@all -@dangerous +info +role"
                return f"redis.user: {label} does not allow the user {user!r} all it needs ({rights}): {text}"
            case InvalidResponse():
                return f"redis.address: {label} answers, but does not speak the Redis protocol; check host and port"
            case _:
                return None


def _fields(info: bytes) -> Iterator[tuple[str, str]]:
    for line in info.decode("utf-8", "replace").splitlines():
        name, separator, value = line.partition(":")
        if separator:
            yield name, value.strip()
