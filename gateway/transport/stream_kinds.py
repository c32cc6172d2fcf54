"""The kinds of streams that there are over HTTP: their settings, and what each of them writes (protocol.md 1.5)."""

from dataclasses import dataclass
from typing import Annotated, Final, NamedTuple

from pydantic import Field

from gateway.messaging.port import EMULATED, Terms
from gateway.protocol.codec import Codec
from gateway.protocol.json_codec import JSONCodec
from gateway.protocol.protobuf_codec import ProtobufCodec
from gateway.protocol.stream_variants import StreamFraming, StreamVariant
from gateway.settings import Settings, Size
from gateway.transport.requests import Headers

HandlerPath = Annotated[str, Field(pattern=r"^(/[^/?#{}%\s]+)+$")]
"""The path of an endpoint."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class HTTPClientSettings:
    """The tables of the configuration that clients without a WebSocket are served by."""

    http_stream: HTTPStreamSettings
    sse: SSESettings
    emulation: EmulationSettings
    close_timeout_s: float
    """How long what a stream was offered may take to get out once it ends."""


class StreamKind(NamedTuple):
    """How the streams of one endpoint are."""

    settings: StreamSettings
    methods: tuple[str, ...]
    terms: Terms
    text: StreamVariant
    binary: StreamVariant
    """What a client gets that says that its request is no text."""
    headers: Headers = ()
    preamble: bytes = b""
    """What comes before the first message."""


_EVENT_STREAM: Final[Headers] = ((b"content-type", b"text/event-stream; charset=utf-8"),)
_EVENT_STREAM_BEGIN: Final = b"\r\n"


def make_kinds(settings: HTTPClientSettings, *, max_depth: int, is_chunked: bool) -> list[StreamKind]:
    """Return the kinds that *settings* have enabled; *is_chunked* tells that they write chunks of their response."""
    json, kinds = JSONCodec(max_depth=max_depth), []

    def variant(transport: str, codec: Codec, *, head: bytes = b"", tail: bytes = b"") -> StreamVariant:
        framing = StreamFraming(head=head, tail=tail, is_chunked=is_chunked)
        return StreamVariant(codec.name, codec, framing, transport=transport, needs_json=codec.name == "json")

    if settings.http_stream.enabled:
        lines = variant("http_stream", json, tail=b"\n")
        lengths = variant("http_stream", ProtobufCodec())
        kinds.append(StreamKind(settings.http_stream, ("POST",), EMULATED, lines, lengths))
    if settings.sse.enabled:
        events = variant("sse", json, head=b"data: ", tail=b"\n\n")
        methods = ("GET", "POST")
        kinds.append(StreamKind(settings.sse, methods, EMULATED, events, events, _EVENT_STREAM, _EVENT_STREAM_BEGIN))
    return kinds
