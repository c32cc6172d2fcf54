"""The client's side of the Protobuf encoding (protocol.md 1.4)."""

from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

from gateway.protocol import client_codec, messages
from gateway.protocol.client_codec import ReceivedPush, ServerMessage
from gateway.protocol.codec import MalformedFrameError
from gateway.protocol.codes import Disconnect, ErrorCode, Unsubscribed
from gateway.protocol.messages import NOTHING, Command
from gateway.protocol.protobuf_fields import REFRESH_RESULT, SHAPES, SUB_REFRESH_RESULT, Field, Kind, Shape
from gateway.protocol.protobuf_reading import read_delimited
from gateway.protocol.protobuf_writing import delimited, written

_COMMAND: Final = SHAPES[Command]
_ENCODER: Final = msgspec.json.Encoder()


def _with_zeros(make: type[Struct]) -> Callable[..., Any]:
    """Return what makes a message of which Protobuf left out what is zero, and JSON does not (2.1)."""
    zeros: dict[str, Callable[[], Any]] = {
        field.name: _ZEROS[field.type.__class__.__name__]
        for field in msgspec.inspect.type_info(make).fields  # type: ignore[attr-defined]
        if field.required
    }

    def made(**values: Any) -> Any:
        return make(**{name: zero() for name, zero in zeros.items() if name not in values}, **values)

    return made if zeros else make


_ZEROS: Final[dict[str, Callable[[], Any]]] = {
    "StrType": str,
    "IntType": int,
    "ListType": list,
    "DictType": dict,
    "StructType": lambda: messages.ClientInfo("", ""),
}


def _received(sent: type[Struct], received: type[Struct] | None = None, **inner: Shape) -> Shape:
    """Return the shape of what is *sent* as the type in which it is *received*, with *inner* shapes in its fields."""
    fields = []
    for field in SHAPES[sent].fields:
        shape = inner.get(field.name, field.shape)
        if field.kind is Kind.MAP and field.name in inner:
            shape = Shape(dict, Field("key", 1, Kind.STRING), Field("value", 2, Kind.MESSAGE, inner[field.name]))
        fields.append(Field(field.name, field.number, field.kind, shape))
    return Shape(_with_zeros(received or sent), *fields)


_INFO: Final = _received(messages.ClientInfo)
_PUBLICATION: Final = _received(messages.Publication, client_codec.ReceivedPublication, info=_INFO)
_SUBSCRIBE: Final = _received(messages.SubscribeResult, client_codec.ReceivedSubscribeResult, publications=_PUBLICATION)
_PUSH: Final = Shape(
    ReceivedPush,
    Field("channel", 2, Kind.STRING),
    Field("pub", 4, Kind.MESSAGE, _PUBLICATION),
    Field("join", 5, Kind.MESSAGE, _received(messages.Join, info=_INFO)),
    Field("leave", 6, Kind.MESSAGE, _received(messages.Leave, info=_INFO)),
    Field("unsubscribe", 7, Kind.MESSAGE, _received(Unsubscribed, client_codec.ReceivedUnsubscribed)),
    Field("message", 8, Kind.MESSAGE, Shape(client_codec.ServerData, Field("data", 1, Kind.BYTES))),
    Field("subscribe", 9, Kind.MESSAGE, SHAPES[messages.SubscribePush]),
    Field("disconnect", 11, Kind.MESSAGE, _received(Disconnect)),
    Field("refresh", 12, Kind.MESSAGE, SUB_REFRESH_RESULT),
)
_MESSAGE: Final = Shape(
    ServerMessage,
    Field("id", 1, Kind.UINT32),
    Field("error", 2, Kind.MESSAGE, _received(ErrorCode, client_codec.ReceivedError)),
    Field("push", 4, Kind.MESSAGE, _PUSH),
    Field(
        "connect",
        5,
        Kind.MESSAGE,
        _received(messages.ConnectResult, client_codec.ReceivedConnectResult, subs=_SUBSCRIBE),
    ),
    Field("subscribe", 6, Kind.MESSAGE, _SUBSCRIBE),
    Field("unsubscribe", 7, Kind.MESSAGE, SHAPES[messages.Empty]),
    Field("publish", 8, Kind.MESSAGE, SHAPES[messages.Empty]),
    Field("presence", 9, Kind.MESSAGE, _received(messages.PresenceResult, presence=_INFO)),
    Field("presence_stats", 10, Kind.MESSAGE, _received(messages.PresenceStatsResult)),
    Field(
        "history",
        11,
        Kind.MESSAGE,
        _received(messages.HistoryResult, client_codec.ReceivedHistoryResult, publications=_PUBLICATION),
    ),
    Field("rpc", 13, Kind.MESSAGE, SHAPES[messages.RPCResult]),
    Field("refresh", 14, Kind.MESSAGE, REFRESH_RESULT),
    Field("sub_refresh", 15, Kind.MESSAGE, SUB_REFRESH_RESULT),
)


class ClientProtobufCodec:
    """Protobuf behind lengths: payloads may be any bytes."""

    name = "protobuf"
    subprotocol = "centrifuge-protobuf"
    is_text = False
    pong = b"\x00"

    def payload(self, value: Any) -> Raw:
        """Make *value* a payload: bytes go as they are, anything else is written as JSON."""
        if not isinstance(value, bytes | Raw):
            return Raw(_ENCODER.encode(value))
        return Raw(value) if value else NOTHING

    def read_patched(self, data: Raw) -> bytes:
        """Return the bytes as they are."""
        return bytes(data)

    def encode(self, command: Command) -> bytes:
        """Encode one command."""
        return delimited(written(command, _COMMAND))

    def join(self, messages: Sequence[bytes]) -> bytes:
        """Put several commands into one frame; each carries its length already."""
        return b"".join(messages)

    def decode(self, frame: bytes) -> list[ServerMessage]:
        """Read the messages of *frame*; see `ClientCodec.decode`."""
        if not frame:
            raise MalformedFrameError("an empty frame")
        return read_delimited(frame, _MESSAGE)
