"""Publishing over a node's server API: from where Redis is out of reach, and where there is none.

What may go into a channel the node decides, so nothing is checked here but what only a mistake in the calling program
brings. Only what has an idempotency key is sent a second time when the first has failed.
"""

import asyncio
import base64
import os
import threading
from collections.abc import Generator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import httpx
import msgspec

from gateway.broker.contract import PublishOptions
from gateway.domain.channels import Channel, ChannelOptions
from gateway.messaging.publishing import Draft
from gateway.protocol import codes, server_api
from gateway.protocol.codes import ErrorCode
from gateway.protocol.json_codec import is_json
from gateway.protocol.messages import NOTHING, Publication
from gateway.protocol.server_api import BroadcastCall, PublishCall
from gateway.protocol.server_results import BroadcastResult, PublishReply, PublishResult
from gateway.publisher.desk import Desk, Extras, Receipt, check_extras, check_names, encode
from gateway.publisher.errors import PublisherError, PublishRejectedError, UnavailableError

DEFAULT_TIMEOUT_S: Final = 10.0
_KEPT_ALIVE_S: Final = 4.0
"""How long an idle connection is used again; a node closes it after five seconds."""
_OPTIONS: Final = ChannelOptions()
_REASON_HEADER: Final = "X-Error-Reason"
_NOT_SENT: Final = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
_STATUSES: Final[Mapping[int, tuple[ErrorCode, str]]] = {
    401: (codes.UNAUTHORIZED, "the node does not know the key (http_api.keys)"),
    403: (codes.PERMISSION_DENIED, "the key has not the scope 'publish'"),
    404: (codes.METHOD_NOT_FOUND, "there is no server API (http_api.enabled, http_api.public, or another URL)"),
    405: (codes.METHOD_NOT_FOUND, "there is no server API, but something else"),
    413: (codes.LIMIT_EXCEEDED, "it is too long (http_api.body_size_limit)"),
}
_ERRORS: Final = {error.code: error for error in codes.ERRORS}


class _Answer(msgspec.Struct):
    """What a node answers to a publish."""

    result: msgspec.Raw = NOTHING
    error: server_api.APIError | None = None


class _Missing(NamedTuple):
    """Which channels are not known to have a publication, and why."""

    names: list[str]
    reason: str


class OpenDesk:
    """Makes drafts for any channel: what a channel takes, the node knows."""

    def draft(self, names: Sequence[str], data: Any, extras: Extras) -> list[Draft]:
        """Return a draft for each channel of *names*, in order.

        Raises:
            PublishRejectedError: for what can't be sent at all.
        """
        check_names(names)
        if not names:
            return []
        checked = check_extras(names[0], extras)
        payload = msgspec.Raw(encode(names[0], data))
        publication = Publication(data=payload, tags=checked.tags, version=checked.version)
        options = PublishOptions(idempotency_key=checked.idempotency_key, version_epoch=checked.version_epoch)
        return [Draft(_channel(name), publication, 0.0, options) for name in names]


def _channel(name: str) -> Channel:
    return Channel(
        name=name,
        namespace="",
        options=_OPTIONS,
        is_private=False,
        stream=None,
        meta_ttl_s=0.0,
        window=None,
        users=None,
        is_well_formed=True,
    )


class Posting:
    """What one publish or broadcast asks of a node; no input or output here, so that it serves both publishers."""

    def __init__(self, drafts: Sequence[Draft], *, url: str) -> None:
        self._url = url
        self._names = [draft.channel.name for draft in drafts]
        publication, options = drafts[0].publication, drafts[0].options
        data = bytes(publication.data)
        is_text = is_json(data)
        common: dict[str, Any] = {
            "data": msgspec.Raw(data) if is_text else NOTHING,
            "b64data": "" if is_text else base64.b64encode(data).decode(),
            "tags": publication.tags or None,
            "idempotency_key": options.idempotency_key,
            "version": publication.version,
            "version_epoch": options.version_epoch,
        }
        self.path = "/api/publish" if len(drafts) == 1 else "/api/broadcast"
        self.body = msgspec.json.encode(
            PublishCall(self._names[0], **common) if len(drafts) == 1 else BroadcastCall(self._names, **common)
        )
        self._tries = 2 if options.idempotency_key else 1

    def exchange(self) -> Generator[None, httpx.Response | httpx.HTTPError, list[Receipt]]:
        """Ask for one exchange after the other, each to be answered with its response or error.

        Raises:
            PublishRejectedError: it will not do.
            UnavailableError: no exchange came to an end.
        """
        is_sent = False  # by any try
        for left in reversed(range(self._tries)):
            came = yield
            if isinstance(came, httpx.Response) and came.status_code < httpx.codes.INTERNAL_SERVER_ERROR:
                receipts, missing = self._read(came)
                if missing is None:
                    return receipts
                is_sent = True
            elif isinstance(came, httpx.Response):
                missing = _Missing(self._names, came.headers.get(_REASON_HEADER) or f"status {came.status_code}")
                is_sent = True
            else:
                missing = _Missing(self._names, str(came) or type(came).__name__)
                is_sent = is_sent or not isinstance(came, _NOT_SENT)
            if not left:
                raise UnavailableError(missing.names, f"{self._url}: {missing.reason}", may_be_published=is_sent)
        raise AssertionError("there is one try at least")

    def _read(self, response: httpx.Response) -> tuple[list[Receipt], _Missing | None]:
        """Return what became of each draft, and what is to be asked for again, if anything is."""
        said = response.headers.get(_REASON_HEADER, "")
        if response.status_code != httpx.codes.OK:
            told = _told_by_status(response)
            if told is not None:
                return self._receipts([PublishReply(error=told)] * len(self._names), said)
            error, reason = _STATUSES.get(response.status_code, (codes.BAD_REQUEST, response.text.strip()))
            raise PublishRejectedError(self._names[0], error, f"{self._url}: {reason or response.status_code}")
        try:
            answer = msgspec.json.decode(response.content, type=_Answer)
            if answer.error is not None:
                replies = [PublishReply(error=answer.error)] * len(self._names)
            elif len(self._names) == 1:
                replies = [PublishReply(msgspec.json.decode(answer.result, type=PublishResult))]
            else:
                replies = msgspec.json.decode(answer.result, type=BroadcastResult).responses
        except (msgspec.MsgspecError, UnicodeDecodeError):
            reason = f"{self._url}: this is no server API, but something else"
            raise PublishRejectedError(self._names[0], codes.METHOD_NOT_FOUND, reason) from None
        return self._receipts(replies, said)

    def _receipts(self, replies: Sequence[PublishReply], said: str) -> tuple[list[Receipt], _Missing | None]:
        receipts, failed = [], {}
        for name, reply in zip(self._names, replies, strict=True):
            error, result = reply.error, reply.result or PublishResult()
            if error is not None and error.code != server_api.INTERNAL_ERROR.code:
                fitting = _ERRORS.get(error.code, codes.BAD_REQUEST)
                raise PublishRejectedError(name, fitting, said or f"{error.message} ({error.code})")
            if error is not None:
                failed[name] = said or error.message
            receipts.append(Receipt(result.offset, result.epoch))
        return receipts, _Missing(list(failed), next(iter(failed.values()))) if failed else None


def _told_by_status(response: httpx.Response) -> server_api.APIError | None:
    """Return the error that a node in the error mode `transport` has answered with, `None` if it has not."""
    try:
        return msgspec.json.decode(response.content, type=server_api.APIError)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def _options(url: str, key: str, timeout_s: float) -> dict[str, Any]:
    """Return what a client of httpx is made with.

    Raises:
        PublisherError: for what is no URL.
    """
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise PublisherError(f"{url!r} is no URL: {error}") from None
    if parsed.scheme not in {"http", "https"} or not parsed.host:
        raise PublisherError(f"{url!r} is no URL of a node's server API, such as http://127.0.0.1:9000")
    if not key.isascii() or not key.isprintable():
        raise PublisherError("an API key that goes over HTTP has printable ASCII characters only")
    return {
        "base_url": url,
        "headers": {"X-API-Key": key},
        "timeout": timeout_s,
        "limits": httpx.Limits(max_connections=100, max_keepalive_connections=20, keepalive_expiry=_KEPT_ALIVE_S),
    }


class HTTPCarrier:
    """Carries drafts of an `AsyncPublisher` to a node."""

    def __init__(self, url: str, *, key: str, timeout_s: float) -> None:
        self._url = url
        self._options = _options(url, key, timeout_s)
        self._client: httpx.AsyncClient | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def carry(self, drafts: Sequence[Draft]) -> list[Receipt]:
        """Publish *drafts*, which are of one publication."""
        if not drafts:
            return []
        if self._loop not in (None, asyncio.get_running_loop()):
            raise PublisherError(
                "an AsyncPublisher belongs to the event loop that it first published in: close it there before another "
                "one uses it, make one for each loop, or use Publisher"
            )
        self._loop = asyncio.get_running_loop()
        client = self._client = self._client or httpx.AsyncClient(**self._options)
        posting = Posting(drafts, url=self._url)
        exchange = posting.exchange()
        next(exchange)
        while True:
            came: httpx.Response | httpx.HTTPError
            try:
                came = await client.post(posting.path, content=posting.body)
            except httpx.HTTPError as error:
                came = error
            try:
                exchange.send(came)
            except StopIteration as over:
                receipts: list[Receipt] = over.value
                return receipts

    async def close(self) -> None:
        """Close the connections; publishing again opens others."""
        client, self._client, self._loop = self._client, None, None
        if client is not None:
            await client.aclose()


class HTTPLine:
    """What one process publishes through, for a `Publisher`; threads may share it."""

    def __init__(self, url: str, *, key: str, timeout_s: float) -> None:
        self.pid = os.getpid()
        self._url = url
        self._options = _options(url, key, timeout_s)
        self._client: httpx.Client | None = None
        self._lock = threading.Lock()

    def publish(self, desk: Desk | OpenDesk, names: Sequence[str], data: Any, extras: Extras) -> list[Receipt]:
        """Publish *data* in each of *names*."""
        drafts = desk.draft(names, data, extras)
        if not drafts:
            return []
        with self._lock:
            client = self._client = self._client or httpx.Client(**self._options)
        posting = Posting(drafts, url=self._url)
        exchange = posting.exchange()
        next(exchange)
        while True:
            came: httpx.Response | httpx.HTTPError
            try:
                came = client.post(posting.path, content=posting.body)
            except httpx.HTTPError as error:
                came = error
            try:
                exchange.send(came)
            except StopIteration as over:
                receipts: list[Receipt] = over.value
                return receipts

    def close(self) -> None:
        """Close the connections; publishing again opens others."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()
