"""A variant is a codec in a framing: what two connections share when the same bytes may go to both.

The hub groups the subscribers of a channel by variant, so a publication is encoded once for each variant in use and
never once for each client. Part of the identity is the object itself: ask `Variants` for one, don't make your own.
"""

from collections.abc import Iterator, Sequence
from typing import Protocol

from gateway.protocol.codec import Codec
from gateway.protocol.framing import PIECE_BYTES, Framing, PiecewiseFraming, batches
from gateway.protocol.messages import Publication, Push
from gateway.protocol.tap_codec import TapCodec


class Variant(Protocol):
    """Encodes for all connections of one kind."""

    name: str
    transport: str
    """What carries it, by the name under which that is counted."""
    needs_json: bool
    """True when only valid JSON can be carried (disconnect 3506 otherwise, protocol.md 4.2)."""
    is_tap: bool
    """True when those who get it only look on, and count as nobody's clients."""

    def publications(self, channel: str, batch: Sequence[Publication]) -> bytes:
        """Encode *batch*, in order, into bytes that are written as they are."""


class ProtocolVariant:
    """A codec of the client protocol: messages of one turn share frames within the limits of `framing`."""

    is_tap = False
    transport = "websocket"

    def __init__(self, name: str, codec: Codec, framing: Framing, *, needs_json: bool) -> None:
        self.name = name
        self.codec = codec
        self.needs_json = needs_json
        self._framing = framing

    def publications(self, channel: str, batch: Sequence[Publication]) -> bytes:
        """Encode *batch* as pushes of *channel*."""
        return self.messages([self.codec.publication(channel, publication) for publication in batch])

    def push(self, push: Push) -> bytes:
        """Encode and frame one push that is no publication."""
        return self._framing.frame(self.codec.push(push))

    def messages(self, messages: Sequence[bytes]) -> bytes:
        """Frame messages that the codec has encoded."""
        if len(messages) == 1:
            return self._framing.frame(messages[0])
        return b"".join([self._framing.frame(self.codec.join(run)) for run in batches(messages)])


class UniVariant(ProtocolVariant):
    """The client protocol for those who only listen, on a WebSocket: each message is a frame, unless told otherwise."""

    transport = "uni_websocket"

    def __init__(self, name: str, codec: Codec, framing: Framing, *, joins_messages: bool) -> None:
        super().__init__(name, codec, framing, needs_json=True)
        self._joins_messages = joins_messages

    def messages(self, messages: Sequence[bytes]) -> bytes:
        """Frame messages that the codec has encoded."""
        if self._joins_messages:
            return super().messages(messages)
        return b"".join([self._framing.frame(message) for message in messages])


class TapVariant(ProtocolVariant):
    """The client protocol as the admin page speaks it: it carries any payload, and its subscribers only look on."""

    is_tap = True

    def __init__(self, framing: Framing, *, max_depth: int) -> None:
        super().__init__("tap", TapCodec(max_depth=max_depth), framing, needs_json=False)


class PlainVariant:
    """The plain protocol: a publication's own bytes, one message a frame, never joined."""

    needs_json = False
    is_tap = False
    transport = "websocket"

    def __init__(self, name: str, *, text: Framing, binary: Framing) -> None:
        self.name = name
        self._text = text
        self._binary = binary

    def publications(self, channel: str, batch: Sequence[Publication]) -> bytes:
        """Frame each payload of *batch* on its own; what is not UTF-8 travels as binary."""
        del channel
        return b"".join([self.message(bytes(publication.data)) for publication in batch])

    def message(self, payload: bytes) -> bytes:
        """Frame one payload as text if it is text, else as binary."""
        try:
            payload.isascii() or payload.decode()
        except UnicodeDecodeError:
            return self.binary(payload)
        return self.text(payload)

    def text(self, payload: bytes) -> bytes:
        """Frame one payload, which you must know to be UTF-8, as text."""
        return self._text.frame(payload)

    def binary(self, payload: bytes) -> bytes:
        """Frame one payload as binary, whatever it holds."""
        return self._binary.frame(payload)

    def pieces(self, payload: bytes, *, is_text: bool) -> Iterator[bytes]:
        """Frame one payload in as many pieces as it needs; nothing else of this connection may be framed in between."""
        framing = self._text if is_text else self._binary
        if len(payload) > PIECE_BYTES and isinstance(framing, PiecewiseFraming):
            yield from framing.pieces(payload)
        else:
            yield framing.frame(payload)


class BinaryPlainVariant(PlainVariant):
    """The plain protocol in a namespace of binary publications: what was published as binary arrives as binary."""

    def message(self, payload: bytes) -> bytes:
        """Frame one payload as binary."""
        return self.binary(payload)
