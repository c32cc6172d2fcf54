"""Who becomes a WebSocket, and of which kind: paths, subprotocols, refusals before the upgrade (protocol.md 1.2)."""

import functools
import http
from abc import ABC, abstractmethod
from typing import Annotated, Final, Protocol
from urllib.parse import parse_qs, unquote

from pydantic import Field
from websockets.datastructures import MultipleValuesError
from websockets.extensions import ServerExtensionFactory
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from gateway.domain.counts import Lost
from gateway.messaging.commands import ClientConversation
from gateway.messaging.conversation import Conversation
from gateway.messaging.plain import PlainConversation
from gateway.messaging.port import DUPLEX, DUPLEX_WITH_OWN_PINGS, Transport
from gateway.messaging.services import Services
from gateway.messaging.uni import LISTENING_ON_WEBSOCKET, UniConversation
from gateway.protocol.framing import BINARY, TEXT, DeflateFraming, Framing, WebSocketFraming
from gateway.protocol.json_codec import JSONCodec
from gateway.protocol.protobuf_codec import ProtobufCodec
from gateway.protocol.uni_codec import UniCodec
from gateway.protocol.variants import BinaryPlainVariant, PlainVariant, ProtocolVariant, UniVariant
from gateway.proxies.headers import ClientHeaders
from gateway.settings import Settings
from gateway.transport.admission import FOREIGN_ORIGIN_TEXT, Admission, overload_text
from gateway.transport.core import make_negotiator
from gateway.transport.paths import CLIENT_PATH, CONNECT_PARAMETER, PLAIN_PATH, UniWebSocketSettings, is_plain
from gateway.transport.ports import WebSocketSettings

_DEFAULT_PLAIN_CHANNEL: Final = "lobby"
_JSON_SUBPROTOCOL: Final = Subprotocol("centrifuge-json")
_PROTOBUF_SUBPROTOCOL: Final = Subprotocol("centrifuge-protobuf")


class PlainSettings(Settings):
    """`plain`: the plain protocol for clients that have nothing but a WebSocket."""

    enabled: bool = True
    """Serve `/ws` and `/ws/<channel>`."""
    default_channel: Annotated[str, Field(min_length=1)] = _DEFAULT_PLAIN_CHANNEL
    """The channel of `/ws` without a name."""


class Variants(ABC):
    """The variants of all connections that come through one gate, one object for each that is in use."""

    def __init__(self, *, max_depth: int, uni: UniWebSocketSettings) -> None:
        self._codec = JSONCodec(max_depth=max_depth)
        self._uni_codec = UniCodec(max_depth=max_depth)
        self._joins_pushes = uni.join_push_messages
        self._protobuf_codec = ProtobufCodec()
        self.json = functools.cache(self._json)
        self.protobuf = functools.cache(self._protobuf)
        self.plain = functools.cache(self._plain)
        self.uni = functools.cache(self._uni)

    def _json(self, window_bits: int | None) -> ProtocolVariant:
        name = "json" if window_bits is None else f"json+deflate{window_bits}"
        return ProtocolVariant(name, self._codec, self._framing(TEXT, window_bits), needs_json=True)

    def _protobuf(self, window_bits: int | None) -> ProtocolVariant:
        name = "protobuf" if window_bits is None else f"protobuf+deflate{window_bits}"
        return ProtocolVariant(name, self._protobuf_codec, self._framing(BINARY, window_bits), needs_json=False)

    def _uni(self, window_bits: int | None) -> UniVariant:
        name = "json" if window_bits is None else f"json+deflate{window_bits}"
        framing = self._framing(TEXT, window_bits)
        return UniVariant(name, self._uni_codec, framing, joins_messages=self._joins_pushes)

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

    def __init__(self, *, max_depth: int, uni: UniWebSocketSettings, compression_min_bytes: int) -> None:
        super().__init__(max_depth=max_depth, uni=uni)
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
        plain: PlainSettings,
        uni: UniWebSocketSettings,
        admission: Admission,
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
        self._uni = uni
        self._admission = admission
        self._services = services
        self._variants = variants
        self.reconfigure(settings, plain)

    def reconfigure(self, settings: WebSocketSettings, plain: PlainSettings) -> None:
        """Decide by these settings from now on.

        Compression stays what it was negotiated to be, and the plain protocol on or off.
        """
        self.settings = settings
        self._plain = plain

    @property
    def queue_max_bytes(self) -> int:
        """How many bytes may wait for a client that reads too slowly."""
        return self._admission.queue_max_bytes

    def opened(self) -> None:
        """Count a socket that wants to be a WebSocket."""
        self._admission.opened()

    def gone(self, connection: object, lost: Lost | None = None) -> None:
        """Count it out, and what of its outbox is *lost*."""
        self._admission.gone(connection, lost)

    def refuse(self, request: Request, address: str) -> Response | None:
        """Return the response for a request from *address* that may not become a WebSocket, else `None`."""
        path = request.path.partition("?")[0]
        if path != CLIENT_PATH and not self._is_uni(path) and not self._is_plain(path):
            return self._refusal(
                404, "path", address, f"There is no WebSocket endpoint at this path; {self._endpoints()}.\n"
            )
        try:
            origin = request.headers.get("Origin")
        except MultipleValuesError:
            return self._refusal(400, "origin", address, "A request has one Origin header, not several.\n")
        if not self._admission.allows(origin):
            return self._refusal(403, "origin", address, f"{FOREIGN_ORIGIN_TEXT}\n")
        reason = self._admission.overload(address)
        if reason is None:
            return None
        response = self._refusal(503, reason, address, f"{overload_text(reason)}\n")
        response.headers["Retry-After"] = "1"
        return response

    def failed(self, response: Response, address: str) -> None:
        """Count and log a handshake that breaks the rules of RFC 6455."""
        self._admission.note_refused("handshake", status=response.status_code, address=address)

    def accept(self, request: Request, connection: Upgraded) -> Conversation:
        """Make the conversation of a connection that is open now."""
        path, _, query_string = request.path.partition("?")
        query = parse_qs(query_string) if query_string else {}
        services = self._services
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
                    terms=DUPLEX_WITH_OWN_PINGS if query.get("cf_ws_frame_ping_pong") == ["true"] else DUPLEX,
                    headers=headers,
                ),
            )
        if self._is_uni(path):
            return self._accept_uni(query, connection, self._variants.uni(window_bits), headers)
        named = unquote(path.removeprefix(PLAIN_PATH).removeprefix("/"))
        channel = named or query.get("channel", [""])[0] or self._plain.default_channel
        plain, binary = self._variants.plain(window_bits)
        return self._accepted(
            connection,
            PlainConversation(connection, plain, services, channel=channel, binary=binary, headers=headers),
        )

    def _accept_uni(
        self, query: dict[str, list[str]], connection: Upgraded, variant: UniVariant, headers: ClientHeaders
    ) -> Conversation:
        terms = LISTENING_ON_WEBSOCKET
        conversation = UniConversation(connection, variant, self._services, terms=terms, headers=headers)
        self._accepted(connection, conversation)
        said = query.get(CONNECT_PARAMETER)
        if said is not None:
            conversation.receive(said[0].encode())
        return conversation

    def _wants_protobuf(self, request: Request, query: dict[str, list[str]]) -> bool:
        """Tell whether the subprotocol that was chosen, or the query, is Protobuf's (1.2)."""
        if any(query.get(name) == ["protobuf"] for name in ("cf_protocol", "format")):
            return True
        headers = request.headers.get_all("Sec-WebSocket-Protocol")
        offered = [Subprotocol(each.strip()) for header in headers for each in header.split(",")]
        return self.negotiator.select_subprotocol(offered) == _PROTOBUF_SUBPROTOCOL

    def _accepted(self, connection: Upgraded, conversation: Conversation) -> Conversation:
        self._admission.enter(connection, connection.peer_address)
        self._admission.note_accepted(conversation)
        return conversation

    def _is_uni(self, path: str) -> bool:
        return self._uni.enabled and path == self._uni.handler_prefix

    def _is_plain(self, path: str) -> bool:
        return self._plain.enabled and is_plain(path)

    def _endpoints(self) -> str:
        return f"try {CLIENT_PATH}" + (f" or {PLAIN_PATH}/<channel>" if self._plain.enabled else "")

    def _refusal(self, status: int, reason: str, address: str, text: str) -> Response:
        self._admission.note_refused(reason, status=status, address=address)
        return self.negotiator.reject(http.HTTPStatus(status), text)
