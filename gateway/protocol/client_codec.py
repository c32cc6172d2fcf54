"""The client's side of a codec: commands to bytes, bytes to what a server says.

The seam through which Protobuf and delta reach the client: a session asks for nothing but what `ClientCodec` names.
"""

from collections.abc import Sequence
from typing import Any, Final, Protocol

import msgspec
from msgspec import Raw, Struct

from gateway.protocol.codec import MalformedFrameError
from gateway.protocol.codes import Disconnect, ErrorCode, Unsubscribed
from gateway.protocol.json_codec import is_json, replace_lone_surrogates
from gateway.protocol.messages import (
    NOTHING,
    Command,
    ConnectResult,
    Empty,
    HistoryResult,
    Join,
    Leave,
    PresenceResult,
    PresenceStatsResult,
    Publication,
    RefreshResult,
    RPCResult,
    SubscribePush,
    SubscribeResult,
)

_SHOWN_BYTES: Final = 80


class ReceivedPublication(Publication):
    """A message in a channel, as a subscriber gets it. *data* holds the payload exactly as it was published."""

    def json(self) -> Any:
        """Read the payload as JSON; raises `msgspec.DecodeError`, a `ValueError`, where it is none."""
        return msgspec.json.decode(self.data)

    def __repr__(self) -> str:
        """Show the payload's beginning, which is what one looks for."""
        return f"<Publication {self.offset} {bytes(self.data)[:_SHOWN_BYTES]!r}>"


class ReceivedError(ErrorCode, frozen=True):
    """The error of a reply; an empty sentence is left out on the wire."""

    message: str = ""


class ReceivedUnsubscribed(Unsubscribed, frozen=True):
    """Why a subscription ended; an empty reason is left out on the wire."""

    reason: str = ""


class ReceivedSubscribeResult(SubscribeResult):
    """A subscribe result whose publications a subscriber gets."""

    publications: list[ReceivedPublication] = []  # type: ignore[assignment]  # noqa: RUF012 - msgspec copies it


class ReceivedConnectResult(ConnectResult):
    """A connect result with such subscriptions."""

    subs: dict[str, ReceivedSubscribeResult] = {}  # type: ignore[assignment]  # noqa: RUF012 - msgspec copies it


class ReceivedHistoryResult(HistoryResult):
    """A page of a stream, and the stream's top (which is not the page's)."""

    publications: list[ReceivedPublication]  # type: ignore[assignment]


class ServerData(Struct, gc=False):
    """A message of the server outside any channel (protocol.md 2.7, Message)."""

    data: Raw = NOTHING


class ReceivedPush(Struct):
    """What the server says unasked (protocol.md 2.7)."""

    channel: str = ""
    pub: ReceivedPublication | None = None
    join: Join | None = None
    leave: Leave | None = None
    unsubscribe: ReceivedUnsubscribed | None = None
    subscribe: SubscribePush | None = None
    message: ServerData | None = None
    disconnect: Disconnect | None = None
    refresh: RefreshResult | None = None


class ServerMessage(Struct):
    """The reply to command *id*, or a push, or, with nothing in it, a ping."""

    id: int = 0
    push: ReceivedPush | None = None
    error: ReceivedError | None = None
    connect: ReceivedConnectResult | None = None
    subscribe: ReceivedSubscribeResult | None = None
    unsubscribe: Empty | None = None
    publish: Empty | None = None
    presence: PresenceResult | None = None
    presence_stats: PresenceStatsResult | None = None
    history: ReceivedHistoryResult | None = None
    rpc: RPCResult | None = None
    refresh: RefreshResult | None = None
    sub_refresh: RefreshResult | None = None


class ClientCodec(Protocol):
    """One encoding, from the client's side. Codecs hold no state: one instance serves all connections."""

    name: str
    subprotocol: str
    """What the handshake offers; empty for none (protocol.md 1.2)."""
    is_text: bool
    """Whether frames are text frames."""
    pong: bytes
    """The empty command, which answers a ping (protocol.md 3.2)."""

    def payload(self, value: Any) -> Raw:
        """Make *value* a payload of a command; bytes and `Raw` are one already.

        Raises:
            ValueError: for what the encoding can't carry; also `TypeError`.
        """

    def read_patched(self, data: Raw) -> bytes:
        """Read the payload, or the patch, of a publication in a subscription that was granted patches.

        Raises:
            ValueError: if it is none.
        """

    def encode(self, command: Command) -> bytes:
        """Encode one command, whose payloads `payload` has made."""

    def join(self, messages: Sequence[bytes]) -> bytes:
        """Put several encoded commands into one frame's payload."""

    def decode(self, frame: bytes) -> list[ServerMessage]:
        """Read what *frame* holds, in order, payloads kept byte for byte.

        Raises:
            MalformedFrameError: for anything else; no message of the frame counts then.
        """


_DECODER: Final = msgspec.json.Decoder(ServerMessage)
_STRING: Final = msgspec.json.Decoder(str)
_ENCODER: Final = msgspec.json.Encoder()


class ClientJSONCodec:
    """Newline-delimited JSON (protocol.md 1.3)."""

    name = "json"
    subprotocol = ""
    is_text = True
    pong = b"{}"

    def payload(self, value: Any) -> Raw:
        """Make *value* a payload: bytes must be JSON text, anything else is written as JSON."""
        if not isinstance(value, bytes | Raw):
            return Raw(_ENCODER.encode(value))
        if not value:
            return NOTHING
        # Anything else would break the frame, and the server would end the connection for good.
        if not is_json(bytes(value)):
            raise ValueError("bytes that are no JSON text")
        return Raw(value)

    def read_patched(self, data: Raw) -> bytes:
        """Read a payload or a patch, which is a JSON string in any case."""
        return _STRING.decode(data).encode()

    def encode(self, command: Command) -> bytes:
        """Encode one command; raw line ends in its payload go, since a command is one line."""
        encoded = _ENCODER.encode(command)
        return encoded.translate(None, b"\r\n") if b"\n" in encoded or b"\r" in encoded else encoded

    def join(self, messages: Sequence[bytes]) -> bytes:
        """Put several commands into one frame, without a trailing newline."""
        return b"\n".join(messages)

    def decode(self, frame: bytes) -> list[ServerMessage]:
        """Read the messages of *frame*; see `ClientCodec.decode`."""
        try:
            # Two thirds of what a decode for each line costs, and the same value where a frame holds one line.
            return _DECODER.decode_lines(frame)
        except (msgspec.MsgspecError, RecursionError):
            pass
        try:
            # Half an emoji in somebody's text is no reason to lose the connection (json_codec says why it occurs).
            return _DECODER.decode_lines(replace_lone_surrogates(frame))
        except (msgspec.MsgspecError, RecursionError) as error:
            raise MalformedFrameError(str(error)) from None
