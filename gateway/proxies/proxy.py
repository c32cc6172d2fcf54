"""One proxy: asks the backend about one kind of event, within its time and number, unless it is left in peace."""

import asyncio
from collections.abc import Callable
from typing import Final, Generic, NamedTuple, TypeVar

import msgspec
import structlog

from gateway.domain.counts import Asked, ProxyCounts
from gateway.protocol.closing import closing_with
from gateway.protocol.codes import Disconnect, ErrorCode
from gateway.proxies.answers import Reader, UnusableAnswerError
from gateway.proxies.breaker import Breaker, BreakerState
from gateway.proxies.events import Event, Kind
from gateway.proxies.headers import ClientHeaders, forwarded
from gateway.proxies.port import Backend, Headers, Response, TooLongError, UnreachableError
from gateway.proxies.settings import ProxySettings, StatusTransformSettings

_OK: Final = 200
_SERVER_ERRORS: Final = 500
_ENCODER: Final = msgspec.json.Encoder()

VerdictT = TypeVar("VerdictT")


class ProxyError(Exception):
    """The backend said nothing that could be used. Temporary by nature: the client is told error 100 and may retry."""

    def __init__(self, outcome: Asked, reason: str) -> None:
        super().__init__(reason)
        self.outcome = outcome


class Around(NamedTuple):
    """What proxies live in: the node's clock, randomness and log, and the depth of JSON that it takes."""

    monotonic: Callable[[], float]
    random: Callable[[], float]
    log: structlog.typing.FilteringBoundLogger
    max_depth: int


class Proxy(Generic[VerdictT]):
    """Asks one backend about one kind of event."""

    def __init__(
        self,
        kind: Kind,
        name: str,
        settings: ProxySettings,
        *,
        reader: Reader[VerdictT],
        backend: Backend,
        counts: ProxyCounts,
        around: Around,
    ) -> None:
        self.name = name
        self.settings = settings
        self.in_flight = 0
        """Calls that are with the backend."""
        self.waiting = 0
        """Calls that wait for their turn."""
        self._reader = reader
        self._backend = backend
        self._counts = counts
        self._around = around
        self._breaker = Breaker(settings.breaker)
        self._turns = asyncio.Semaphore(settings.concurrency_limit)
        self._statuses = {each.status_code: _meant(each) for each in settings.http.status_to_code_transforms}
        self._given = frozenset(map(str.lower, settings.http_headers))
        self._emulated = frozenset(map(str.lower, settings.emulated_headers))
        self._note = around.log.bind(proxy=name, about=str(kind))

    @property
    def breaker_state(self) -> BreakerState:
        """Whether calls are let through."""
        return self._breaker.state

    async def ask(self, event: Event, headers: ClientHeaders) -> VerdictT | ErrorCode | Disconnect | None:
        """Return what the backend says of *event*; `None` if its answer is in good form and says nothing.

        Cancelling gives the call up; the backend may have had it or not.

        Raises:
            ProxyError: it has said nothing in time, or nothing usable, or it is not asked at the moment.
        """
        sent = forwarded(headers, given=self._given, emulated=self._emulated, static=self.settings.http.static_headers)
        try:
            answer = self._meaning(await self._answered(_ENCODER.encode(event), sent))
        except ProxyError as error:
            self._counts.calls[error.outcome] += 1
            if error.outcome is not Asked.REFUSED:  # its line was written when the breaker opened
                self._note.warning("proxy failed", outcome=str(error.outcome), reason=str(error), client=event.client)
            raise
        except asyncio.CancelledError:
            self._counts.calls[Asked.CANCELLED] += 1
            raise
        self._counts.calls[_outcome_of(answer)] += 1
        return answer

    async def retire(self) -> None:
        """Let all calls that have begun come to their end, then release the connections; nobody asks it any more."""
        try:
            for _ in range(self.settings.concurrency_limit):
                await self._turns.acquire()  # behind all who wait
        finally:
            await self.close()

    async def close(self) -> None:
        """Release the connections. Idempotent; calls that are under way fail."""
        await self._backend.close()

    async def _answered(self, body: bytes, headers: Headers) -> Response:
        """Wait for a turn and post, both until one deadline."""
        until_s = asyncio.get_running_loop().time() + self.settings.timeout_s
        await self._take_turn(until_s)
        try:
            return await self._posted(body, headers, until_s)
        finally:
            self._turns.release()

    async def _take_turn(self, until_s: float) -> None:
        if self._breaker.refuses(now_s=self._around.monotonic()):
            raise ProxyError(Asked.REFUSED, "its breaker is open")
        if self._turns.locked() and self.waiting >= self.settings.waiting_limit:
            raise ProxyError(Asked.BUSY, f"{self.in_flight} calls are under way, and {self.waiting} wait")
        self.waiting += 1
        try:
            async with asyncio.timeout_at(until_s):
                await self._turns.acquire()
        except TimeoutError as error:
            raise ProxyError(Asked.BUSY, f"no turn within {self.settings.timeout_s:g} s") from error
        finally:
            self.waiting -= 1

    async def _posted(self, body: bytes, headers: Headers, until_s: float) -> Response:
        began_s = self._around.monotonic()
        permit = self._breaker.admit(now_s=began_s)
        if permit is None:  # it has opened while this call waited
            raise ProxyError(Asked.REFUSED, "its breaker is open")
        self.in_flight += 1
        try:
            async with asyncio.timeout_at(until_s):
                response = await self._backend.post(body, headers)
        except TimeoutError as error:
            self._note_failure(permit)
            raise ProxyError(Asked.TIMEOUT, f"no answer within {self.settings.timeout_s:g} s") from error
        except UnreachableError as error:
            self._note_failure(permit)
            raise ProxyError(Asked.UNREACHABLE, str(error)) from error
        except TooLongError as error:
            self._note_success(permit)  # it is there
            raise ProxyError(Asked.TOO_LONG, str(error)) from error
        except BaseException:
            self._breaker.abandoned(permit)
            raise
        finally:
            self.in_flight -= 1
            self._counts.durations.observe(self._around.monotonic() - began_s)
        if response.status >= _SERVER_ERRORS and response.status not in self._statuses:
            self._note_failure(permit)
        else:
            self._note_success(permit)
        return response

    def _meaning(self, response: Response) -> VerdictT | ErrorCode | Disconnect | None:
        meant = self._statuses.get(response.status)
        if meant is not None:
            return meant
        if response.status != _OK:
            raise ProxyError(Asked.STATUS, f"status {response.status}")
        try:
            return self._reader.read(response.body, max_depth=self._around.max_depth)
        except UnusableAnswerError as error:
            raise ProxyError(Asked.UNUSABLE, str(error)) from error

    def _note_failure(self, permit: int) -> None:
        openings = self._breaker.openings
        self._breaker.failed(permit, now_s=self._around.monotonic(), random=self._around.random())
        if self._breaker.openings > openings:
            self._counts.openings += 1
            self._note.warning("proxy breaker opened", failures=self.settings.breaker.failures)

    def _note_success(self, permit: int) -> None:
        was_open = self._breaker.state is not BreakerState.CLOSED
        self._breaker.succeeded(permit)
        if was_open and self._breaker.state is BreakerState.CLOSED:
            self._note.info("proxy breaker closed")


def _meant(transform: StatusTransformSettings) -> ErrorCode | Disconnect:
    error, disconnect = transform.to_error, transform.to_disconnect
    if error.code:
        return ErrorCode(error.code, error.message, temporary=error.temporary)
    return closing_with(disconnect.code, disconnect.reason)


def _outcome_of(answer: object) -> Asked:
    match answer:
        case None:
            return Asked.NOTHING
        case ErrorCode():
            return Asked.ERROR
        case Disconnect():
            return Asked.DISCONNECT
        case _:
            return Asked.RESULT
