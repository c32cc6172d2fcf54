"""Handlers: async functions that answer a message to its sender alone, instead of publishing it.

A namespace names one (`handler = "echo"`) for the plain protocol, and `rpc` calls those that `handlers.rpc_methods`
names, by method name.
"""

import asyncio
import inspect
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Annotated, Any, Final, NamedTuple, Protocol

import structlog
from msgspec import Struct
from pydantic import Field

from gateway.messaging.extensions import Extensions
from gateway.protocol import codes
from gateway.protocol.codes import ErrorCode
from gateway.settings import Seconds, Settings, Size


class HandlerSettings(Settings):
    """`handlers`: functions that answer clients' messages."""

    timeout_s: Annotated[Seconds, Field(gt=0)] = 10.0
    """How long an answer may take (error 100), waiting for its turn included (error 111)."""
    concurrency_limit: Size = 16
    """How many answers of one handler a node works on at the same time."""
    rpc_methods: list[str] = Field(default=[])
    """Handlers that every client may call by `rpc`, too."""


class Request(Struct, frozen=True):
    """One message for a handler: *data* is `str` for text and `bytes` for binary, as the client sent it.

    For an `rpc`, *channel* is empty and *data* the text of its JSON, empty if there is none; a Protobuf client may send
    any text, or `bytes` where it is no UTF-8.
    """

    channel: str
    user: str
    client: str
    data: str | bytes


class Handler(Protocol):
    """Answers a request. What it raises becomes error 100 for the sender and a line in the log."""

    async def __call__(self, request: Request) -> str | bytes | None:
        """Return the answer: text, binary, or nothing; for an `rpc` it is JSON.

        It runs on the event loop, so what computes for long belongs into a thread (`asyncio.to_thread`). When its time
        is over it is cancelled.
        """


class Answer(NamedTuple):
    """What a handler has answered, as it is written."""

    data: bytes
    is_text: bool


async def echo(request: Request) -> str | bytes:
    """Answer every message with itself."""
    return request.data


HANDLERS: Final[Mapping[str, Handler]] = {"echo": echo}
"""What is built in."""
PING: Final = "ping"
"""The method that `rpc` has always (protocol.md 3.5)."""


def installed_handlers() -> Extensions[Handler]:
    """Return what is built in and what the entry points `gateway.handlers` offer."""
    return Extensions("gateway.handlers", HANDLERS, refuse=_refuse)


def _refuse(found: Any) -> str | None:
    is_async = callable(found) and any(map(inspect.iscoroutinefunction, (found, type(found).__call__)))
    return None if is_async else "is no async function"


class Handlers:
    """Calls handlers, within their time and number."""

    def __init__(
        self,
        handlers: Mapping[str, Handler],
        settings: HandlerSettings,
        *,
        log: structlog.typing.FilteringBoundLogger,
    ) -> None:
        self._handlers = handlers
        self._settings = settings
        self._log = log
        # Who waits here is one of the node's clients, and each of them with one message: the next ones wait in its
        # line, which is bounded.
        self._turns = {name: asyncio.Semaphore(settings.concurrency_limit) for name in handlers}
        self._methods = frozenset(settings.rpc_methods)

    @property
    def has_methods(self) -> bool:
        """Whether clients may call anything by `rpc`, `PING` aside."""
        return bool(self._methods)

    @property
    def names(self) -> AbstractSet[str]:
        """The handlers that can be called."""
        return self._handlers.keys()

    def obeys(self, settings: HandlerSettings, names: AbstractSet[str]) -> bool:
        """Tell whether this does what *settings* and *names* ask for; it knows what is under way, another does not."""
        return self._settings == settings and self._handlers.keys() >= names

    def has_method(self, method: str) -> bool:
        """Tell whether clients may call *method* by `rpc`."""
        return method in self._methods

    async def call(self, name: str, request: Request) -> Answer | ErrorCode | None:
        """Return what the handler *name* answers: in time, or an error.

        Cancelling cancels the handler.
        """
        note = self._log.bind(handler=name, client=request.client, channel=request.channel)
        deadline, has_begun = asyncio.timeout(self._settings.timeout_s), False
        try:
            async with deadline, self._turns[name]:
                has_begun = True
                return _answer(await self._handlers[name](request))
        except TimeoutError:
            if not deadline.expired():
                note.exception("handler failed")
                return codes.INTERNAL_ERROR
            if not has_begun:
                note.warning("handler too busy", limit=self._settings.concurrency_limit)
                return codes.TOO_MANY_REQUESTS
            note.warning("handler too slow", timeout_s=self._settings.timeout_s)
        except Exception:  # noqa: BLE001 - it is somebody else's code
            note.exception("handler failed")
        return codes.INTERNAL_ERROR


def _answer(answer: Any) -> Answer | None:
    if answer is None:
        return None
    if isinstance(answer, str):
        return Answer(answer.encode(), is_text=True)
    if isinstance(answer, bytes):
        return Answer(answer, is_text=False)
    raise TypeError(f"a handler answers with str, bytes or None, not with {type(answer).__name__}")
