"""The kinds of streams that there are over HTTP: their settings, and what each of them writes (protocol.md 1.5)."""

from dataclasses import dataclass
from typing import Final, NamedTuple

from gateway.messaging.commands import ClientConversation
from gateway.messaging.port import EMULATED, Terms
from gateway.messaging.uni import LISTENING, UniConversation
from gateway.protocol.codec import Codec
from gateway.protocol.json_codec import JSONCodec
from gateway.protocol.protobuf_codec import ProtobufCodec
from gateway.protocol.stream_variants import StreamFraming, StreamVariant
from gateway.protocol.uni_codec import UniCodec
from gateway.settings import Settings, Size
from gateway.transport.paths import HandlerPath
from gateway.transport.requests import Headers


class StreamSettings(Settings):
    """A way to connect without a WebSocket."""

    enabled: bool = False
    """Serve it."""
    handler_prefix: HandlerPath
    max_request_body_size: Size = 65536
    """Longest body of a request, in bytes (413 beyond)."""


class HTTPStreamSettings(StreamSettings):
    """`http_stream`: the client protocol over a response that does not end; what clients send goes to `emulation`."""

    handler_prefix: HandlerPath = "/connection/http_stream"
    """Its path."""


class SSESettings(StreamSettings):
    """`sse`: the same as server-sent events, for `EventSource`."""

    handler_prefix: HandlerPath = "/connection/sse"
    """Its path."""


class EmulationSettings(Settings):
    """`emulation`: where clients of `http_stream` and `sse` send their commands; there if one of the two is."""

    handler_prefix: HandlerPath = "/emulation"
    """Its path."""
    max_request_body_size: Size = 65536
    """Longest body of a request, in bytes (413 beyond)."""


class UniSSESettings(StreamSettings):
    """`uni_sse`: server-sent events for clients that only listen."""

    handler_prefix: HandlerPath = "/connection/uni_sse"
    """Its path."""


class UniHTTPStreamSettings(StreamSettings):
    """`uni_http_stream`: a response that does not end, of one JSON value a line, for clients that only listen."""

    handler_prefix: HandlerPath = "/connection/uni_http_stream"
    """Its path."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HTTPClientSettings:
    """The tables of the configuration that clients without a WebSocket are served by."""

    http_stream: HTTPStreamSettings
    sse: SSESettings
    emulation: EmulationSettings
    uni_sse: UniSSESettings
    uni_http_stream: UniHTTPStreamSettings
    close_timeout_s: float
    """How long what a stream was offered may take to get out once it ends."""

    @property
    def has_emulation(self) -> bool:
        """Whether there are streams whose clients send commands beside them."""
        return self.http_stream.enabled or self.sse.enabled


class StreamKind(NamedTuple):
    """How the streams of one endpoint are."""

    settings: StreamSettings
    methods: tuple[str, ...]
    makes: type[ClientConversation]
    terms: Terms
    text: StreamVariant
    binary: StreamVariant
    """What a client gets that says that its request is no text."""
    headers: Headers = ()
    preamble: bytes = b""
    """What comes before the first message."""

    @property
    def may_be_silent(self) -> bool:
        """Whether a client need not say anything."""
        return self.makes is UniConversation


_EVENT_METHODS: Final = ("GET", "POST")
_EVENT: Final = {"head": b"data: ", "tail": b"\n\n"}
_EVENTS: Final[tuple[Headers, bytes]] = (((b"content-type", b"text/event-stream; charset=utf-8"),), b"\r\n")
"""The headers of a stream of events, and how it begins."""


def make_kinds(settings: HTTPClientSettings, *, max_depth: int, is_chunked: bool) -> list[StreamKind]:
    """Return the kinds that *settings* have enabled; *is_chunked* tells that they write chunks of their response."""
    json, uni, kinds = JSONCodec(max_depth=max_depth), UniCodec(max_depth=max_depth), []

    def variant(transport: str, codec: Codec, *, head: bytes = b"", tail: bytes = b"") -> StreamVariant:
        framing = StreamFraming(head=head, tail=tail, is_chunked=is_chunked)
        return StreamVariant(codec.name, codec, framing, transport=transport, needs_json=codec.name == "json")

    if settings.http_stream.enabled:
        lines = variant("http_stream", json, tail=b"\n")
        lengths = variant("http_stream", ProtobufCodec())
        kinds.append(StreamKind(settings.http_stream, ("POST",), ClientConversation, EMULATED, lines, lengths))
    if settings.sse.enabled:
        events = variant("sse", json, **_EVENT)
        kinds.append(StreamKind(settings.sse, _EVENT_METHODS, ClientConversation, EMULATED, events, events, *_EVENTS))
    if settings.uni_http_stream.enabled:
        lines = variant("uni_http_stream", uni, tail=b"\n")
        kinds.append(StreamKind(settings.uni_http_stream, ("POST",), UniConversation, LISTENING, lines, lines))
    if settings.uni_sse.enabled:
        events = variant("uni_sse", uni, **_EVENT)
        kinds.append(StreamKind(settings.uni_sse, _EVENT_METHODS, UniConversation, LISTENING, events, events, *_EVENTS))
    return kinds
