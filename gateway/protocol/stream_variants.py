"""The client protocol on a response that does not end: lines, events, or messages behind lengths (protocol.md 1.5).

A message needs no more than what tells it from the next one, so a turn's messages are one piece of the response however
many they are. Where the node's own HTTP server writes, that piece is the chunk of RFC 9112 7.1, made once for all who
get it.
"""

from collections.abc import Sequence

from gateway.protocol.codec import Codec
from gateway.protocol.variants import ProtocolVariant

LAST_CHUNK = b"0\r\n\r\n"
"""What ends a response in chunks (RFC 9112 7.1)."""


def chunk(data: bytes) -> bytes:
    """Make *data*, which must not be empty, a chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)


class StreamFraming:
    """Messages between *head* and *tail*, each; as a chunk of the response if it *is_chunked* here."""

    def __init__(self, *, head: bytes = b"", tail: bytes = b"", is_chunked: bool) -> None:
        self._head = head
        self._tail = tail
        self._between = tail + head
        self._is_chunked = is_chunked

    def frame(self, payload: bytes) -> bytes:
        """Wrap one message."""
        return self.frames([payload])

    def frames(self, messages: Sequence[bytes]) -> bytes:
        """Wrap several, which stay apart; none is nothing, since an empty chunk would end the response."""
        if not messages:
            return b""
        data = self._head + self._between.join(messages) + self._tail
        return chunk(data) if self._is_chunked else data


class StreamVariant(ProtocolVariant):
    """A codec on a stream; *transport* is the name of what carries it."""

    def __init__(self, name: str, codec: Codec, framing: StreamFraming, *, transport: str, needs_json: bool) -> None:
        super().__init__(name, codec, framing, needs_json=needs_json)
        self.transport = transport
        self._stream_framing = framing

    def messages(self, messages: Sequence[bytes]) -> bytes:
        """Frame messages that the codec has encoded."""
        return self._stream_framing.frames(messages)
