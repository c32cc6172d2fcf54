"""The server API over HTTP (protocol.md 7): who calls, what is answered, and what is counted of it.

One core answers every method. The hot ones, `publish`, `broadcast` and `batch`, get to it straight from ASGI, which
costs half of what a framework would (tests/benchmarks/api); the others, and the documentation of all, are FastAPI's.
"""

from collections.abc import Callable, Mapping
from functools import partial
from http import HTTPStatus
from typing import Any, Final, NamedTuple

import msgspec
import structlog
from starlette.types import Receive, Send
from starlette.types import Scope as ASGIScope

from gateway.api.keys import ErrorMode, HTTPAPISettings, KeyHolder, KeyRing
from gateway.api.requests import Head, UnreadableError, decode, read_body, read_head
from gateway.domain.counts import Counts, Histogram
from gateway.messaging.administration import Administration
from gateway.messaging.batches import BATCH, METHODS, Batches
from gateway.protocol import server_api
from gateway.protocol.server_api import BatchCall, Refusal, Scope

PREFIX: Final = "/api/"
HOT: Final = ("publish", "broadcast", BATCH)
REASON_HEADER: Final = "X-Error-Reason"
STATUSES: Final[Mapping[int, HTTPStatus]] = {
    server_api.INTERNAL_ERROR.code: HTTPStatus.INTERNAL_SERVER_ERROR,
    server_api.UNKNOWN_CHANNEL.code: HTTPStatus.NOT_FOUND,
    server_api.PERMISSION_DENIED.code: HTTPStatus.FORBIDDEN,
    server_api.NOT_FOUND.code: HTTPStatus.NOT_FOUND,
    server_api.BAD_REQUEST.code: HTTPStatus.BAD_REQUEST,
    server_api.NOT_AVAILABLE.code: HTTPStatus.BAD_REQUEST,
    server_api.TOO_MANY_REQUESTS.code: HTTPStatus.TOO_MANY_REQUESTS,
    server_api.UNRECOVERABLE_POSITION.code: HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
    server_api.CONFLICT.code: HTTPStatus.CONFLICT,
}
"""What each error is in the error mode `transport`."""

Headers = tuple[tuple[bytes, bytes], ...]

_JSON: Final = (b"content-type", b"application/json")
_TEXT: Final = (b"content-type", b"text/plain; charset=utf-8")
_MAX_REASON: Final = 500
_UNKNOWN: Final = "unknown"
_LOGGED: Final = frozenset(name for name, method in METHODS.items() if method.scope is Scope.ADMIN)
_SUBJECT: Final = {"user": "user", "channel": "channel", "node": "of_node"}
"""Fields of a call, and how a log line calls them; its own `node` is the one that was called."""
_encode: Final = msgspec.json.Encoder().encode


class Answer(NamedTuple):
    """A response; its length is not among the headers."""

    status: int
    body: bytes
    headers: Headers


_UNAUTHORIZED: Final = Answer(HTTPStatus.UNAUTHORIZED, b"", ((b"www-authenticate", b'Bearer realm="api"'),))


class ServerAPI:
    """Answers calls. The keys may change at any time."""

    def __init__(
        self,
        administration: Administration,
        keys: KeyRing,
        settings: HTTPAPISettings,
        counts: Counts,
        *,
        log: structlog.typing.FilteringBoundLogger,
        monotonic: Callable[[], float],
        max_depth: int,
    ) -> None:
        self._administration = administration
        self._batches = Batches(administration)
        self._keys = keys
        self._limit = settings.body_size_limit
        self._is_transport_mode = settings.error_mode is ErrorMode.TRANSPORT
        self._counts = counts
        self._log = log
        self._monotonic = monotonic
        self._max_depth = max_depth
        self._decoders = {name: msgspec.json.Decoder(method.call) for name, method in METHODS.items()}
        self._batch_decoder = msgspec.json.Decoder(BatchCall)

    async def answer(self, name: str, scope: ASGIScope, receive: Receive) -> Answer:
        """Answer a call of the method *name*, which must be one that there is."""
        head = read_head(scope)
        holder = self._keys.holder(head.key) if head.key else None
        if holder is None:
            self._note_status(name, HTTPStatus.UNAUTHORIZED)
            self._log.info("api call refused", method=name, reason="no key" if not head.key else "wrong key")
            return _UNAUTHORIZED
        method = METHODS.get(name)
        if method is not None and not holder.may(method.scope):
            self._note_status(name, HTTPStatus.FORBIDDEN)
            self._log.info("api call refused", method=name, reason="scope", key=holder.name)
            text = f"the key {holder.name!r} may not call {name}: that needs the scope {method.scope.value!r}"
            return _text(HTTPStatus.FORBIDDEN, text)
        try:
            body = await read_body(receive, announced=head.size, limit=self._limit)
            began_at_s = self._monotonic()
            decoder = self._batch_decoder if method is None else self._decoders[name]
            call = decode(body, decoder, max_depth=self._max_depth)
        except UnreadableError as error:
            self._note_status(name, error.status)
            return _text(error.status, str(error))
        note = partial(self._note, holder)
        try:
            if method is None:
                note(BATCH, call, None)
                result = await self._batches.carry_out(call, may=holder.may, note=note)
                answer = _json(_encode(result))
            else:
                result = await method.carry_out(self._administration, call)
                is_refused = isinstance(result, Refusal)
                note(name, call, result if is_refused else None)
                answer = self._refused(head, result) if is_refused else _json(b'{"result":%b}' % _encode(result))
        except Exception:  # noqa: BLE001 - whatever it was, its caller learns that it was ours
            self._log.exception("api call failed", method=name, key=holder.name)
            answer = self._refused(head, Refusal(server_api.INTERNAL_ERROR, "the node's log says why"))
        self._observe(name, self._monotonic() - began_at_s)
        return answer

    def _refused(self, head: Head, refusal: Refusal) -> Answer:
        error = _encode(refusal.error)
        reason = refusal.reason.encode("unicode_escape")[:_MAX_REASON]  # no line end gets into a header
        headers = (_JSON, (REASON_HEADER.lower().encode(), reason))
        if self._is_transport_mode or head.wants_transport_errors:
            return Answer(STATUSES[refusal.error.code], error, headers)
        return Answer(HTTPStatus.OK, b'{"error":%b}' % error, headers)

    def _note(self, holder: KeyHolder, name: str, call: Any, refusal: Refusal | None) -> None:
        """Count one call, also of a batch, and log who did what to others; an unknown one in a batch has no name."""
        counts, code = self._counts, refusal.error.code if refusal is not None else None
        counts.api_calls[name or _UNKNOWN] += 1
        if code is not None:
            counts.api_errors[name or _UNKNOWN, str(code)] += 1
        if name in _LOGGED:
            subject = {told: getattr(call, field, None) for field, told in _SUBJECT.items()}
            named = {told: value for told, value in subject.items() if value is not None}
            self._log.info("api call", method=name, key=holder.name, error=code, **named)

    def _note_status(self, name: str, status: HTTPStatus) -> None:
        self._counts.api_calls[name] += 1
        self._counts.api_errors[name, str(status.value)] += 1

    def _observe(self, name: str, seconds: float) -> None:
        histogram = self._counts.api_durations.get(name)
        if histogram is None:
            histogram = self._counts.api_durations[name] = Histogram()
        histogram.observe(seconds)


async def respond(send: Send, answer: Answer) -> None:
    """Send *answer*."""
    length = (b"content-length", b"%d" % len(answer.body))
    await send({"type": "http.response.start", "status": int(answer.status), "headers": [*answer.headers, length]})
    await send({"type": "http.response.body", "body": answer.body})


def _json(body: bytes) -> Answer:
    return Answer(HTTPStatus.OK, body, (_JSON,))


def _text(status: HTTPStatus, text: str) -> Answer:
    return Answer(status, f"{text}\n".encode(errors="backslashreplace"), (_TEXT,))
