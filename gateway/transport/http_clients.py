"""Clients that have no WebSocket: the streams to them and what they send beside, as a bare ASGI application.

protocol.md 1.5 says what is answered, and to whom. A request is looked at in this order: path, origin, method, limits,
body. What a page of an allowed origin gets, errors too, it may read (CORS).
"""

from collections.abc import Awaitable, Callable
from functools import partial
from http import HTTPStatus
from typing import Any, Final, NamedTuple

from gateway.messaging.commands import ClientConversation
from gateway.messaging.emulation import Carried, Emulation
from gateway.messaging.services import Services
from gateway.protocol.codec import MalformedFrameError
from gateway.protocol.emulation import decode_emulation_json, decode_emulation_protobuf
from gateway.protocol.stream_variants import StreamVariant
from gateway.transport.admission import FOREIGN_ORIGIN_TEXT, Admission, overload_text
from gateway.transport.asgi import path_within
from gateway.transport.paths import CONNECT_PARAMETER
from gateway.transport.requests import Headers, Receive, Request, Scope, Send, UnreadableError
from gateway.transport.stream_kinds import HTTPClientSettings, StreamKind, make_kinds
from gateway.transport.streams import ServerStream, SocketStream, Stream

_PREFLIGHT: Final[Headers] = (
    (b"access-control-allow-methods", b"POST, OPTIONS"),
    (b"access-control-max-age", b"300"),
)
_KEEP_ALIVE: Final = (b"connection", b"keep-alive")
_UNBUFFERED: Final[Headers] = (
    (b"x-accel-buffering", b"no"),
    (b"cache-control", b"private, no-cache, no-store, must-revalidate, max-age=0"),
    (b"pragma", b"no-cache"),
    (b"expire", b"0"),
)
"""What keeps caches and proxies from holding a stream back."""


class _Endpoint(NamedTuple):
    """A path that is served, by its methods; requests are counted under it."""

    path: str
    methods: tuple[str, ...]
    serve: Callable[[Request], Awaitable[None]]


class HTTPClients:
    """Serves clients without a WebSocket, and hands all other requests to *rest*.

    *is_own_server* tells that the node's own HTTP server carries it, and not somebody else's.
    """

    def __init__(
        self,
        settings: HTTPClientSettings,
        rest: Callable[[Scope, Any, Any], Awaitable[None]],
        admission: Admission,
        services: Services,
        emulation: Emulation,
        *,
        max_depth: int,
        is_own_server: bool,
    ) -> None:
        self._emulation_limit = settings.emulation.max_request_body_size
        self._rest = rest
        self._admission = admission
        self._services = services
        self._emulation = emulation
        self._stream_class: type[SocketStream | ServerStream] = SocketStream if is_own_server else ServerStream
        endpoints = [
            _Endpoint(kind.settings.handler_prefix, kind.methods, partial(self._serve_stream, kind))
            for kind in make_kinds(settings, max_depth=max_depth, is_chunked=is_own_server)
        ]
        if settings.has_emulation:
            endpoints.append(_Endpoint(settings.emulation.handler_prefix, ("POST",), self._serve_emulation))
        self.reconfigure(settings)
        self._endpoints = {each.path: each for each in endpoints}

    def reconfigure(self, settings: HTTPClientSettings) -> None:
        """Close streams by these settings from now on; which there are, and the limits of bodies, stay as they are."""
        self._close_timeout_s = settings.close_timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        endpoint = self._endpoints.get(path_within(scope)) if scope["type"] == "http" else None
        if endpoint is None:
            await self._rest(scope, receive, send)
            return
        scope["route"] = endpoint  # where requests are counted, a route has a path
        request = Request(scope, receive, send)
        # Browsers ask before they send what only scripts can (protocol.md 1.5).
        has_preflight = endpoint.methods == ("POST",)
        if not await self._is_from_allowed_origin(request):
            return
        if request.method == "OPTIONS" and has_preflight:
            await request.answer(HTTPStatus.NO_CONTENT, headers=_PREFLIGHT)
        elif request.method not in endpoint.methods:
            methods = ", ".join((*endpoint.methods, "OPTIONS") if has_preflight else endpoint.methods)
            text = f"This endpoint takes {methods}."
            await request.answer(HTTPStatus.METHOD_NOT_ALLOWED, text, [(b"allow", methods.encode())])
        else:
            await endpoint.serve(request)

    async def _is_from_allowed_origin(self, request: Request) -> bool:
        origins = request.origins
        if len(origins) > 1:
            status, text = HTTPStatus.BAD_REQUEST, "A request has one Origin header, not several."
        elif not self._admission.allows(origins[0] if origins else None):
            status, text = HTTPStatus.FORBIDDEN, FOREIGN_ORIGIN_TEXT
        else:
            request.allow_origin()
            return True
        self._admission.note_refused("origin", status=status.value, address=request.address)
        await request.answer(status, text)
        return False

    # Streams.

    async def _serve_stream(self, kind: StreamKind, request: Request) -> None:
        """Let a client in, read what it says, and serve it until one of the two ends it."""
        admission = self._admission
        overload = admission.overload(request.address)
        if overload is not None:
            await self._turn_away(request, overload)
            return
        stream = self._stream_class(
            request.scope,
            request.receive,
            request.send,
            address=request.address,
            queue_max_bytes=admission.queue_max_bytes,
            close_timeout_s=self._close_timeout_s,
        )
        admission.opened()
        admission.enter(stream, request.address)
        try:
            said = await self._said(kind, request)
            if not admission.is_open:  # it has been shut while the body came
                await self._turn_away(request, "shutting down")
                return
            headers = [*kind.headers, *_UNBUFFERED, *request.cors, *([_KEEP_ALIVE] if request.is_persistent else [])]
            variant = kind.binary if request.is_binary else kind.text
            await stream.run(headers, kind.preamble, partial(self._converse, kind, variant, request), said)
        except UnreadableError as error:
            admission.note_refused("body", status=error.status.value, address=request.address)
            await request.answer_unreadable(error)
        finally:
            admission.gone(stream, stream.lost)

    async def _turn_away(self, request: Request, reason: str) -> None:
        status = HTTPStatus.SERVICE_UNAVAILABLE
        self._admission.note_refused(reason, status=status.value, address=request.address)
        await request.answer(status, overload_text(reason), [(b"retry-after", b"1")])

    async def _said(self, kind: StreamKind, request: Request) -> bytes:
        """Return what the client says first."""
        if request.method != "GET":
            return await self._body(request, limit=kind.settings.max_request_body_size)
        said = request.parameter(CONNECT_PARAMETER)
        if said is None and not kind.may_be_silent:
            raise UnreadableError(HTTPStatus.BAD_REQUEST, f"the parameter {CONNECT_PARAMETER} is missing")
        return said or b""

    async def _body(self, request: Request, *, limit: int) -> bytes:
        return await request.body(limit=limit, timeout_s=self._services.session.stale_close_delay_s)

    def _converse(
        self, kind: StreamKind, variant: StreamVariant, request: Request, stream: Stream
    ) -> ClientConversation:
        services = self._services
        headers = services.proxies.kept_of_request(request.headers())
        conversation = kind.makes(stream, variant, services, terms=kind.terms, headers=headers)
        self._admission.note_accepted(conversation)
        return conversation

    # What clients send.

    async def _serve_emulation(self, request: Request) -> None:
        """Carry commands to the stream that they belong to."""
        decode = decode_emulation_protobuf if request.is_binary else decode_emulation_json
        try:
            commands = decode(await self._body(request, limit=self._emulation_limit))
        except UnreadableError as error:
            await request.answer_unreadable(error)
            return
        except MalformedFrameError:
            await request.answer(HTTPStatus.BAD_REQUEST, "This is no EmulationRequest.")
            return
        match await self._emulation.carry(commands):
            case Carried.ARRIVED:
                await request.answer(HTTPStatus.NO_CONTENT)
            case Carried.NO_SUCH_NODE:
                await request.answer(HTTPStatus.NOT_FOUND, "There is no such node.")
            case Carried.NO_ANSWER:
                await request.answer(HTTPStatus.INTERNAL_SERVER_ERROR, "The node that holds the session is silent.")
