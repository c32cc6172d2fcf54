"""What a codec is: bytes to typed commands, typed replies and pushes to bytes, and how messages share a frame."""

from collections.abc import Sequence
from typing import Protocol

from gateway.protocol.messages import Command, Publication, Push, Reply


class MalformedFrameError(ValueError):
    """A frame that is not in the negotiated encoding. The peer's mistake: it answers with disconnect 3501."""


class Codec(Protocol):
    """The encoding of one connection. Codecs hold no state: one instance serves all connections."""

    name: str
    """The name in metrics and logs: `json` or `protobuf`."""

    ping: bytes
    """The empty reply, which is how the server pings (protocol.md 3.2)."""

    def decode(self, frame: bytes) -> list[Command]:
        """Read the commands of *frame*, in order, payloads kept byte for byte.

        Raises:
            MalformedFrameError: for anything that protocol.md 1.3 and 1.4 do not allow; no command of it counts then.
        """

    def reply(self, reply: Reply) -> bytes:
        """Encode one reply."""

    def published(self, command_id: int) -> bytes:
        """Encode the reply to a publish, the one reply whose cost shows in a benchmark."""

    def push(self, push: Push) -> bytes:
        """Encode one push that is no publication."""

    def publication(self, channel: str | int, publication: Publication) -> bytes:
        """Encode one publication as a push of *channel*: its name, or the number that stands for it (2.8)."""

    def join(self, messages: Sequence[bytes]) -> bytes:
        """Put several encoded messages into one frame's payload."""
