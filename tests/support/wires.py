"""An exchange that is written in JSON, held in JSON or in Protobuf."""

from collections.abc import Sequence
from typing import Protocol

from msgspec import UNSET
from websockets.typing import Subprotocol

from gateway.protocol.client_codec import ReceivedPush, ServerMessage
from gateway.protocol.client_protobuf_codec import ClientProtobufCodec
from gateway.protocol.codec import MalformedFrameError
from gateway.protocol.json_codec import JSONCodec
from gateway.protocol.messages import Push, Reply

_JSON, _PROTOBUF = JSONCodec(), ClientProtobufCodec()
_RESULTS = (
    *("connect", "subscribe", "unsubscribe", "publish", "presence", "presence_stats", "history", "rpc"),
    *("refresh", "sub_refresh", "error"),
)


class Wire(Protocol):
    """How the lines of a script travel."""

    @property
    def subprotocols(self) -> Sequence[Subprotocol] | None:
        """What the handshake offers."""

    def can_carry(self, commands: Sequence[str]) -> bool:
        """Tell whether these lines can be said at all."""

    def frame(self, commands: Sequence[str]) -> str | bytes:
        """Put lines into one frame."""

    def lines(self, frame: str | bytes) -> list[str]:
        """Return what a frame says, as JSON has it."""


class JSONWire:
    """As they are written."""

    subprotocols = None

    def can_carry(self, commands: Sequence[str]) -> bool:
        """Tell that all can be said, nonsense too."""
        del commands
        return True

    def frame(self, commands: Sequence[str]) -> str:
        """Put them behind each other."""
        return "\n".join(commands)

    def lines(self, frame: str | bytes) -> list[str]:
        """Cut a frame into its lines."""
        assert isinstance(frame, str), "JSON travels in text frames"
        return frame.split("\n")


class ProtobufWire:
    """Commands are read as the server reads JSON, and what comes is written as it writes JSON; between is Protobuf."""

    subprotocols = (Subprotocol("centrifuge-protobuf"),)

    def can_carry(self, commands: Sequence[str]) -> bool:
        """Tell whether they are commands: what is no JSON on purpose can't be said in Protobuf."""
        try:
            return bool(_JSON.decode("\n".join(commands).encode()))
        except MalformedFrameError:
            return False

    def frame(self, commands: Sequence[str]) -> bytes:
        """Encode them."""
        return _PROTOBUF.join([_PROTOBUF.encode(each) for each in _JSON.decode("\n".join(commands).encode())])

    def lines(self, frame: str | bytes) -> list[str]:
        """Decode a frame."""
        assert isinstance(frame, bytes), "Protobuf travels in binary frames"
        return [_in_json(message).decode() for message in _PROTOBUF.decode(frame)]


def _in_json(message: ServerMessage) -> bytes:
    if message.push is not None:
        return _push_in_json(message.push)
    results = {name: value for name in _RESULTS if (value := getattr(message, name)) is not None}
    return _JSON.reply(Reply(message.id, **results)) if results else _JSON.ping


def _push_in_json(push: ReceivedPush) -> bytes:
    if push.pub is not None:
        return _JSON.publication(push.channel, push.pub)
    kinds = ("join", "leave", "subscribe", "unsubscribe", "refresh")
    said = Push(channel=push.channel)
    for kind in kinds:
        body = getattr(push, kind)
        setattr(said, kind, UNSET if body is None else body)
    return _JSON.push(said)
