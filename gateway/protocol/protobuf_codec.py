"""The Protobuf encoding (protocol.md 1.4): each message behind its length, payloads as the bytes they came as.

`client.proto` has the messages, the tables of `protobuf_fields` say the same of our types; a test holds both against
the official definitions. Reading straight into the typed messages takes 1.0 µs for a 170-byte publish; the C library
with its objects converted takes 0.9, JSON 0.5. So no dependency is paid for, and a wrong wire type is an error.
"""

import functools
from collections.abc import Sequence
from typing import Final

from msgspec import Raw

from gateway.protocol.codec import MalformedFrameError
from gateway.protocol.messages import NOTHING, ClientInfo, Command, Publication, PublishRequest, Push, Reply
from gateway.protocol.protobuf_fields import SHAPES
from gateway.protocol.protobuf_reading import read_delimited, varint
from gateway.protocol.protobuf_writing import delimited, encoded_varint, written

_COMMAND: Final = SHAPES[Command]
_CLIENT_INFO: Final = SHAPES[ClientInfo]
_PUBLICATION: Final = SHAPES[Publication]
_PUSH: Final = SHAPES[Push]
_REPLY: Final = SHAPES[Reply]
_COMMAND_ID: Final = 0x08  # Command.id = 1
_COMMAND_PUBLISH: Final = 0x3A  # Command.publish = 7
_PUBLISH_CHANNEL: Final = 0x0A  # PublishRequest.channel = 1
_PUBLISH_DATA: Final = 0x12  # PublishRequest.data = 2
_MIN_PUBLISH_BYTES: Final = 9
_REPLY_PUSH: Final = b"\x22"  # Reply.push = 4
_PUSH_PUB: Final = b"\x22"  # Push.pub = 4
_PUSH_ID: Final = b"\x08"  # Push.id = 1
_PUSH_CHANNEL: Final = b"\x12"  # Push.channel = 2
_REPLY_PUBLISH: Final = b"\x42\x00"  # Reply.publish = 8, and nothing in it


class ProtobufCodec:
    """Messages behind their length as a varint."""

    name = "protobuf"
    ping = b"\x00"

    def decode(self, frame: bytes) -> list[Command]:
        """Read the commands of *frame*; see `Codec.decode`."""
        if not frame:
            raise MalformedFrameError("an empty frame")
        published = _publish(frame)
        if published is not None:
            return [published]
        return read_delimited(frame, _COMMAND)

    def reply(self, reply: Reply) -> bytes:
        """Encode one reply."""
        return delimited(written(reply, _REPLY))

    def published(self, command_id: int) -> bytes:
        """Encode the reply to a publish; the way through a `Reply` is the oracle in a test."""
        return delimited(b"\x08" + encoded_varint(command_id) + _REPLY_PUBLISH)

    def push(self, push: Push) -> bytes:
        """Encode one push that is no publication."""
        return delimited(_REPLY_PUSH + delimited(written(push, _PUSH)))

    def publication(self, channel: str | int, publication: Publication) -> bytes:
        """Encode one publication as a push."""
        push = _channel_field(channel) + _PUSH_PUB + delimited(_written_publication(publication))
        return delimited(_REPLY_PUSH + delimited(push))

    def join(self, messages: Sequence[bytes]) -> bytes:
        """Put several messages into one frame; each carries its length already."""
        return b"".join(messages)


# Reading.


def _publish(frame: bytes) -> Command | None:
    """Read a frame that is one publish, its fields in order and nothing else; `None` for all others, also bad ones.

    That is what SDKs send, and a third of what the general way takes, which is the oracle in a test.
    """
    length = len(frame)
    if length < _MIN_PUBLISH_BYTES:
        return None
    try:
        size, position = _size(frame, 0)
        if size != length - position or frame[position] != _COMMAND_ID:
            return None
        command_id, position = frame[position + 1], position + 2
        if command_id > 0x7F:  # noqa: PLR2004 - what one byte of a varint holds
            command_id, position = varint(frame, position - 1, length)
        if frame[position] != _COMMAND_PUBLISH:
            return None
        size, position = _size(frame, position + 1)
        if size != length - position or frame[position] != _PUBLISH_CHANNEL:
            return None
        size, position = _size(frame, position + 1)
        stop = position + size
        if frame[stop] != _PUBLISH_DATA:
            return None
        channel = frame[position:stop].decode()
        size, position = _size(frame, stop + 1)
    except (IndexError, MalformedFrameError, UnicodeDecodeError):
        return None
    if not size or size != length - position:
        return None
    return Command(command_id & 0xFFFFFFFF, publish=PublishRequest(channel, Raw(frame[position:])))


def _size(frame: bytes, position: int) -> tuple[int, int]:
    """Read a length, most of which take one byte or two."""
    first = frame[position]
    if first <= 0x7F:  # noqa: PLR2004 - what one byte of a varint holds
        return first, position + 1
    second = frame[position + 1]
    if second <= 0x7F:  # noqa: PLR2004 - the same
        return first - 0x80 + (second << 7), position + 2
    return varint(frame, position, len(frame))


# Writing.


def _written_publication(publication: Publication) -> bytes:
    """Write a publication field by field: a third of what the table takes, which is the oracle in a test."""
    data = bytes(publication.data)
    encoded = b"\x22" + delimited(data) if data else b""
    info = publication.info
    if info is not None:
        if info.conn_info is NOTHING and info.chan_info is NOTHING:
            user, client = info.user.encode(), info.client.encode()
            known = b"\x0a" + delimited(user) if user else b""
            if client:
                known += b"\x12" + delimited(client)
        else:
            known = written(info, _CLIENT_INFO)
        encoded += b"\x2a" + delimited(known)
    if publication.offset:
        encoded += b"\x30" + encoded_varint(publication.offset)
    if publication.tags or publication.delta or publication.epoch or publication.version:
        rest = Publication(
            tags=publication.tags, delta=publication.delta, epoch=publication.epoch, version=publication.version
        )
        encoded += written(rest, _PUBLICATION)
    return encoded


@functools.lru_cache(maxsize=4096)
def _channel_field(channel: str | int) -> bytes:
    if isinstance(channel, int):
        return _PUSH_ID + encoded_varint(channel)
    return _PUSH_CHANNEL + delimited(channel.encode())
