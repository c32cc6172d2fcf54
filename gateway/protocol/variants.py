"""A variant is a codec in a framing: what two connections share when the same bytes may go to both.

The hub groups the subscribers of a channel by variant, so a publication is encoded once for each variant in use and
never once for each client. Part of the identity is the object itself: ask `Variants` for one, don't make your own.
"""

import copy
from collections.abc import Iterator, Sequence
from typing import Final, Protocol

import msgspec

from gateway.protocol import fossil
from gateway.protocol.codec import Codec
from gateway.protocol.framing import PIECE_BYTES, Framing, PiecewiseFraming, batches
from gateway.protocol.messages import PatchablePublication, Publication, Push, payload
from gateway.protocol.tap_codec import TapCodec

_ENCODER: Final = msgspec.json.Encoder()


class Variant(Protocol):
    """Encodes for all connections of one kind."""

    @property
    def name(self) -> str:
        """What it is called where connections are listed."""

    @property
    def transport(self) -> str:
        """What carries it, by the name under which that is counted."""

    @property
    def needs_json(self) -> bool:
        """True when only valid JSON can be carried (disconnect 3506 otherwise, protocol.md 4.2)."""

    @property
    def is_tap(self) -> bool:
        """True when those who get it only look on, and count as nobody's clients."""

    @property
    def is_numbered(self) -> bool:
        """True when a channel is named by its number."""

    @property
    def is_common(self) -> bool:
        """True when `publications` of a batch is for all who get this variant, whatever each got before."""

    def publications(self, channel: str | int, batch: Sequence[Publication]) -> bytes:
        """Encode *batch*, in order, into bytes that are written as they are.

        *channel* is the name, or the number that stands for it where that was agreed.
        """


class ProtocolVariant:
    """A codec of the client protocol: messages of one turn share frames within the limits of `framing`.

    Subscriptions that have agreed to patches, or to numbers in the place of channel names, have an `agreed` variant.
    """

    is_tap = False
    transport = "websocket"

    def __init__(self, name: str, codec: Codec, framing: Framing, *, needs_json: bool) -> None:
        self.name = name
        self.codec = codec
        self.needs_json = needs_json
        self.is_patched = False
        """Whether publications are sent as patches of those before, where that is shorter (2.8, Fossil delta)."""
        self.is_numbered = False
        """Whether channels are named by numbers (2.8, Channel compaction)."""
        self._framing = framing
        self._agreed: dict[tuple[bool, bool], ProtocolVariant] = {(False, False): self}

    def agreed(self, *, is_patched: bool, is_numbered: bool) -> "ProtocolVariant":
        """Return the variant of this codec and framing for who has agreed to that."""
        variant = self._agreed.get((is_patched, is_numbered))
        if variant is None:
            variant = copy.copy(self)
            variant.is_patched, variant.is_numbered = is_patched, is_numbered
            self._agreed[is_patched, is_numbered] = variant
        return variant

    @property
    def is_common(self) -> bool:
        """Patches are for those who have what they are patches of."""
        return not self.is_patched

    def publications(self, channel: str | int, batch: Sequence[Publication]) -> bytes:
        """Encode *batch* as pushes of *channel*."""
        return self.messages([self.codec.publication(channel, publication) for publication in batch])

    def patches(self, batch: Sequence[Publication], base: Publication | None) -> list[Publication]:
        """Return what is sent of *batch* to who has got *base* last: patches where they may be and are shorter.

        Patches go by the payloads' exact bytes. In JSON each, as a patch or in full, is a string.
        """
        sent = []
        for publication in batch:
            patch = None
            if base is not None and isinstance(publication, PatchablePublication):
                make = fossil.text_patch if self.needs_json else fossil.patch
                patch = make(bytes(base.data), bytes(publication.data))
            data = bytes(publication.data) if patch is None else patch
            if self.needs_json:
                data = _ENCODER.encode(data.decode())
            sent.append(msgspec.structs.replace(publication, data=payload(data), delta=patch is not None))
            base = publication
        return sent

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
    is_numbered = False
    is_common = True
    transport = "websocket"

    def __init__(self, name: str, *, text: Framing, binary: Framing) -> None:
        self.name = name
        self._text = text
        self._binary = binary

    def publications(self, channel: str | int, batch: Sequence[Publication]) -> bytes:
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
