"""Who may connect, and as what: paths, origins, limits before the upgrade, subprotocols (protocol.md 1.1, 1.2)."""

import asyncio
import functools
import http
import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from fnmatch import translate
from typing import Annotated, Final, Protocol
from urllib.parse import parse_qs, unquote

from pydantic import Field
from websockets.datastructures import MultipleValuesError
from websockets.extensions import ServerExtensionFactory
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from gateway.domain.addresses import AddressLimits
from gateway.domain.counts import Lost
from gateway.domain.ratelimit import RateLimit, TokenBucket
from gateway.messaging.commands import ClientConversation
from gateway.messaging.conversation import Conversation
from gateway.messaging.plain import PlainConversation
from gateway.messaging.port import Transport
from gateway.messaging.services import Services
from gateway.protocol.framing import BINARY, TEXT, DeflateFraming, Framing, WebSocketFraming
from gateway.protocol.json_codec import JSONCodec
from gateway.protocol.protobuf_codec import ProtobufCodec
from gateway.protocol.variants import BinaryPlainVariant, PlainVariant, ProtocolVariant
from gateway.settings import Limit, Settings, Size
from gateway.transport.core import make_negotiator
from gateway.transport.ports import WebSocketSettings

CLIENT_PATH: Final = "/connection/websocket"
PLAIN_PATH: Final = "/ws"
_DEFAULT_PLAIN_CHANNEL: Final = "lobby"
_JSON_SUBPROTOCOL: Final = Subprotocol("centrifuge-json")
_PROTOBUF_SUBPROTOCOL: Final = Subprotocol("centrifuge-protobuf")


class AdmissionSettings(Settings):
    """Who may connect; part of the table `client`."""

    allowed_origins: list[str] = Field(default=[])
    """Globs that the `Origin` header of a browser must match (`https://*.example.com`, `*`). Empty: no browser may
    connect. A request without the header always may."""
    connection_limit: Limit = 0
    """Connections of this node (503 with `Retry-After` beyond; 0: no limit)."""
    connection_rate_limit: Limit = 0
    """Connections a second that this node accepts, with a burst of as many (503 with `Retry-After`; 0: no limit)."""
    connection_limit_per_address: Limit = 0
    """Connections from one address on this node (503 with `Retry-After` beyond; 0: no limit). An IPv6 network of 64
    bits counts as one address. Behind a proxy, `http_server.trusted_proxies` tells addresses apart."""
    connection_rate_limit_per_address: Limit = 0
    """Connections a second from one address, with a burst of as many (503 with `Retry-After`; 0: no limit)."""
    user_connection_limit: Limit = 0
    """Connections of one user on this node (disconnect 3504; 0: no limit)."""
    queue_max_size: Size = 1048576
    """Bytes that may wait for a client that reads too slowly (disconnect 3008 beyond)."""


class PlainSettings(Settings):
    """`plain`: the plain protocol for clients that have nothing but a WebSocket."""

    enabled: bool = True
    """Serve `/ws` and `/ws/<channel>`."""
    default_channel: Annotated[str, Field(min_length=1)] = _DEFAULT_PLAIN_CHANNEL
    """The channel of `/ws` without a name."""


class Variants(ABC):
    """The variants of all connections that come through one gate, one object for each that is in use."""

    def __init__(self, codec: JSONCodec) -> None:
        self._codec = codec
        self._protobuf_codec = ProtobufCodec()
        self.json = functools.cache(self._json)
        self.protobuf = functools.cache(self._protobuf)
        self.plain = functools.cache(self._plain)

    def _json(self, window_bits: int | None) -> ProtocolVariant:
        name = "json" if window_bits is None else f"json+deflate{window_bits}"
        return ProtocolVariant(name, self._codec, self._framing(TEXT, window_bits), needs_json=True)

    def _protobuf(self, window_bits: int | None) -> ProtocolVariant:
        name = "protobuf" if window_bits is None else f"protobuf+deflate{window_bits}"
        return ProtocolVariant(name, self._protobuf_codec, self._framing(BINARY, window_bits), needs_json=False)

    def _plain(self, window_bits: int | None) -> tuple[PlainVariant, BinaryPlainVariant]:
        suffix = "" if window_bits is None else f"+deflate{window_bits}"
        text, binary = self._framing(TEXT, window_bits), self._framing(BINARY, window_bits)
        return (
            PlainVariant(f"plain{suffix}", text=text, binary=binary),
            BinaryPlainVariant(f"plain-binary{suffix}", text=text, binary=binary),
        )

    @abstractmethod
    def _framing(self, opcode: int, window_bits: int | None) -> Framing:
        """Return how messages become the bytes that the transport takes."""


class WebSocketVariants(Variants):
    """Variants whose bytes are WebSocket frames."""

    def __init__(self, codec: JSONCodec, *, compression_min_bytes: int) -> None:
        super().__init__(codec)
        self._min_bytes = compression_min_bytes

    def _framing(self, opcode: int, window_bits: int | None) -> Framing:
        if window_bits is None:
            return WebSocketFraming(opcode)
        return DeflateFraming(opcode, window_bits=window_bits, min_bytes=self._min_bytes)


class Upgraded(Transport, Protocol):
    """A transport that has become a WebSocket."""

    @property
    def compression_window_bits(self) -> int | None:
        """The window of what is compressed here; `None` where nothing is."""


class Gate:
    """Decides about upgrade requests of one node and makes the conversation for those it lets in."""

    def __init__(
        self,
        settings: WebSocketSettings,
        admission: AdmissionSettings,
        plain: PlainSettings,
        services: Services,
        variants: Variants,
    ) -> None:
        extensions: list[ServerExtensionFactory] = []
        if settings.compression:
            # Without takeover one compressed frame serves every subscriber, and no connection keeps a window (300 KB).
            factory = ServerPerMessageDeflateFactory(server_no_context_takeover=True, client_no_context_takeover=True)
            extensions.append(factory)
        self.negotiator = make_negotiator(
            extensions=extensions, subprotocols=[_JSON_SUBPROTOCOL, _PROTOBUF_SUBPROTOCOL]
        )
        self._services = services
        self._variants = variants
        self._bucket = TokenBucket()
        self._addresses = AddressLimits()
        self.reconfigure(settings, admission, plain)
        self.is_open = True
        """False once it has been shut: new connections are refused with 503."""
        self.on_shut: Callable[[], None] | None = None
        """What else takes in new connections, and has to stop then: a listening socket, say."""
        self.sockets = 0
        """How many sockets are WebSockets, or want to be."""
        self._emptied = asyncio.Event()
        self._emptied.set()

    def reconfigure(self, settings: WebSocketSettings, admission: AdmissionSettings, plain: PlainSettings) -> None:
        """Decide by these settings from now on; connections that are there keep the limits that they came with.

        Compression stays what it was negotiated to be, and the plain protocol on or off.
        """
        self.settings = settings
        self.queue_max_bytes = admission.queue_max_size
        self._admission = admission
        self._plain = plain
        limit = admission.connection_rate_limit
        self._rate = RateLimit(limit, limit) if limit else None
        self._addresses.reconfigure(
            count=admission.connection_limit_per_address, rate=admission.connection_rate_limit_per_address
        )
        self._origins = [re.compile(translate(glob.lower().replace("[", "[[]"))) for glob in admission.allowed_origins]

    def shut(self) -> None:
        """Let nobody in any more; a second time does nothing."""
        if self.is_open and self.on_shut is not None:
            self.on_shut()
        self.is_open = False

    def opened(self) -> None:
        """Count a socket that wants to be a WebSocket."""
        self.sockets += 1
        self._emptied.clear()

    def gone(self, connection: object, lost: Lost | None = None) -> None:
        """Count it out, and what of its outbox is *lost*."""
        if lost is not None:
            self._services.counts.outboxes_lost[lost] += 1
        self.sockets -= 1
        self._addresses.leave(connection)
        if not self.sockets:
            self._emptied.set()

    async def emptied(self) -> None:
        """Wait until no socket is left."""
        await self._emptied.wait()

    def refuse(self, request: Request, address: str) -> Response | None:
        """Return the response for a request from *address* that may not become a WebSocket, else `None`."""
        path = request.path.partition("?")[0]
        if path != CLIENT_PATH and not self._is_plain(path):
            return self._refusal(
                404, "path", address, f"There is no WebSocket endpoint at this path; {self._endpoints()}.\n"
            )
        try:
            origin = request.headers.get("Origin")
        except MultipleValuesError:
            return self._refusal(400, "origin", address, "A request has one Origin header, not several.\n")
        if origin is not None and not self._allows(origin.lower()):
            text = "This origin is not allowed here (setting client.allowed_origins).\n"
            return self._refusal(403, "origin", address, text)
        reason = self._overload(address)
        if reason is None:
            return None
        response = self._refusal(503, reason, address, f"No new connections at the moment: {reason}.\n")
        response.headers["Retry-After"] = "1"
        return response

    def failed(self, response: Response, address: str) -> None:
        """Count and log a handshake that breaks the rules of RFC 6455."""
        self._note_refusal("handshake", response.status_code, address)

    def accept(self, request: Request, connection: Upgraded) -> Conversation:
        """Make the conversation of a connection that is open now."""
        path, _, query_string = request.path.partition("?")
        query = parse_qs(query_string) if query_string else {}
        services = self._services
        services.counts.connections_accepted[connection.name] += 1
        window_bits = connection.compression_window_bits
        headers = services.proxies.kept_of_request(request.headers.raw_items())
        if path == CLIENT_PATH:
            variants = self._variants
            is_protobuf = self._wants_protobuf(request, query)
            return self._accepted(
                connection,
                ClientConversation(
                    connection,
                    variants.protobuf(window_bits) if is_protobuf else variants.json(window_bits),
                    services,
                    uses_transport_pings=query.get("cf_ws_frame_ping_pong") == ["true"],
                    headers=headers,
                ),
            )
        named = unquote(path.removeprefix(PLAIN_PATH).removeprefix("/"))
        channel = named or query.get("channel", [""])[0] or self._plain.default_channel
        plain, binary = self._variants.plain(window_bits)
        return self._accepted(
            connection,
            PlainConversation(connection, plain, services, channel=channel, binary=binary, headers=headers),
        )

    def _wants_protobuf(self, request: Request, query: dict[str, list[str]]) -> bool:
        """Tell whether the subprotocol that was chosen, or the query, is Protobuf's (1.2)."""
        if any(query.get(name) == ["protobuf"] for name in ("cf_protocol", "format")):
            return True
        headers = request.headers.get_all("Sec-WebSocket-Protocol")
        offered = [Subprotocol(each.strip()) for header in headers for each in header.split(",")]
        return self.negotiator.select_subprotocol(offered) == _PROTOBUF_SUBPROTOCOL

    def _accepted(self, connection: Upgraded, conversation: Conversation) -> Conversation:
        address = connection.peer_address
        self._addresses.enter(connection, address)
        self._services.log.info(
            "accepted",
            client=conversation.session.client_id,
            transport=connection.name,
            protocol=conversation.variant.name,
            address=address,
        )
        return conversation

    def _allows(self, origin: str) -> bool:
        return any(pattern.match(origin) for pattern in self._origins)

    def _is_plain(self, path: str) -> bool:
        return self._plain.enabled and (path == PLAIN_PATH or path.startswith(f"{PLAIN_PATH}/"))

    def _endpoints(self) -> str:
        return f"try {CLIENT_PATH}" + (f" or {PLAIN_PATH}/<channel>" if self._plain.enabled else "")

    def _overload(self, address: str) -> str | None:
        if not self.is_open:
            return "shutting down"
        limit = self._admission.connection_limit
        if limit and len(self._services.connections) >= limit:
            return "connection_limit"
        now_s = self._services.monotonic()
        # One address alone must not use up what all share.
        own = self._addresses.refuse(address, now_s=now_s)
        if own is None and self._rate is not None and not self._bucket.admit(self._rate, now_s=now_s):
            return "connection_rate_limit"
        return own

    def _refusal(self, status: int, reason: str, address: str, text: str) -> Response:
        self._note_refusal(reason.replace(" ", "_"), status, address)
        return self.negotiator.reject(http.HTTPStatus(status), text)

    def _note_refusal(self, reason: str, status: int, address: str) -> None:
        self._services.counts.connections_refused[reason] += 1
        self._services.log.info("refused", reason=reason, status=status, address=address)
