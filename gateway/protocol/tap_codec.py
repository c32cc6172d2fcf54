"""What a tap sees of a publication: its payload as text, as it was written, or as base64 where it is none.

A payload as text keeps its spelling (`1.50`, blanks), can be anything, and can't be taken for markup or numbers by who
shows it. Of a long one the beginning is enough to look at, and does not fill an outbox.
"""

import base64
from typing import Final

import msgspec

from gateway.protocol.json_codec import JSONCodec
from gateway.protocol.messages import Publication

SHOWN_BYTES: Final = 16384
"""How much of a payload is sent at most."""


class Shown(msgspec.Struct, omit_defaults=True):
    """A payload: *text* or *b64*, of *size* bytes as a whole."""

    size: int
    text: str = ""
    b64: str = ""


class TapCodec(JSONCodec):
    """The JSON encoding, with payloads that are shown and not embedded."""

    name = "tap"

    def publication(self, channel: str | int, publication: Publication) -> bytes:
        """Encode one publication as a push."""
        data = msgspec.Raw(msgspec.json.encode(shown(bytes(publication.data))))
        return super().publication(channel, msgspec.structs.replace(publication, data=data))


def shown(payload: bytes) -> Shown:
    """Return what is shown of *payload*."""
    try:
        payload.isascii() or payload.decode()
    except UnicodeDecodeError:
        return Shown(len(payload), b64=base64.b64encode(payload[:SHOWN_BYTES]).decode())
    return Shown(len(payload), text=payload[:SHOWN_BYTES].decode(errors="ignore"))
