"""What a client sends beside its stream (protocol.md 1.5): commands, and where the stream is that they belong to."""

from typing import Final

import msgspec

from gateway.protocol.json_codec import decode_repairing
from gateway.protocol.protobuf_fields import Field, Kind, Shape
from gateway.protocol.protobuf_reading import read_message


class EmulationRequest(msgspec.Struct, frozen=True):
    """Commands, framed as they are on a stream of that encoding, for the *session* that *node* holds."""

    node: str = ""
    session: str = ""
    data: bytes = b""


class _InJSON(msgspec.Struct, frozen=True):
    """The same in JSON, where the commands are a string."""

    node: str = ""
    session: str = ""
    data: str = ""


_DECODER: Final = msgspec.json.Decoder(_InJSON)
EMULATION_REQUEST: Final = Shape(
    EmulationRequest, Field("node", 1, Kind.STRING), Field("session", 2, Kind.STRING), Field("data", 3, Kind.BYTES)
)


def decode_emulation_json(body: bytes) -> EmulationRequest:
    """Read a request in JSON.

    Raises:
        MalformedFrameError: if it is none.
    """
    request = decode_repairing(_DECODER, body)
    return EmulationRequest(request.node, request.session, request.data.encode())


def decode_emulation_protobuf(body: bytes) -> EmulationRequest:
    """Read a request in Protobuf, which has no length before it.

    Raises:
        MalformedFrameError: if it is none.
    """
    request: EmulationRequest = read_message(body, EMULATION_REQUEST)
    return msgspec.structs.replace(request, data=bytes(request.data))
