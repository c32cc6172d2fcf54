"""The Protobuf encoding (protocol.md 1.4): each message behind its length, payloads as the bytes they came as.

`client.proto` has the messages, the tables of `protobuf_fields` say the same of our types; a test holds both against
the official definitions. Reading straight into the typed messages takes 1.0 µs for a 170-byte publish; the C library
with its objects converted takes 0.9, JSON 0.5. So no dependency is paid for, and a wrong wire type is an error.
"""

import functools
from collections.abc import Sequence
from typing import Any, Final

from msgspec import Raw, Struct

from gateway.protocol.codec import MalformedFrameError
from gateway.protocol.messages import NOTHING, ClientInfo, Command, Publication, PublishRequest, Push, Reply
from gateway.protocol.protobuf_fields import LENGTH, SHAPES, VARINT, Field, Kind, Shape

_MAX_VARINT_BYTES: Final = 10
_MAX_FIELD_NUMBER: Final = 2**29 - 1
_FIXED_BYTES: Final = {1: 8, 5: 4}
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
_PUSH_CHANNEL: Final = b"\x12"  # Push.channel = 2
_REPLY_PUBLISH: Final = b"\x42\x00"  # Reply.publish = 8, and nothing in it


class ProtobufCodec:
    """Messages behind their length as a varint."""

    name = "protobuf"
    ping = b"\x00"

    def decode(self, frame: bytes) -> list[Command]:
        """Read the commands of *frame*; see `Codec.decode`.

        Time and memory are linear in the frame's length: lengths are checked before anything is copied, and messages
        nest as deep as the tables do, since what is unknown is skipped whole.
        """
        if not frame:
            raise MalformedFrameError("an empty frame")
        published = _publish(frame)
        if published is not None:
            return [published]
        commands = []
        position, end = 0, len(frame)
        try:
            while position < end:
                length, position = _varint(frame, position, end)
                if length > end - position:
                    raise MalformedFrameError("a length beyond the frame")
                commands.append(_read(frame, position, position + length, _COMMAND, {}))
                position += length
        except UnicodeDecodeError as error:
            raise MalformedFrameError(str(error)) from None
        return commands

    def reply(self, reply: Reply) -> bytes:
        """Encode one reply."""
        return _delimited(_written(reply, _REPLY))

    def published(self, command_id: int) -> bytes:
        """Encode the reply to a publish; the way through a `Reply` is the oracle in a test."""
        return _delimited(b"\x08" + _encoded_varint(command_id) + _REPLY_PUBLISH)

    def push(self, push: Push) -> bytes:
        """Encode one push that is no publication."""
        return _delimited(_REPLY_PUSH + _delimited(_written(push, _PUSH)))

    def publication(self, channel: str, publication: Publication) -> bytes:
        """Encode one publication as a push."""
        push = _channel_field(channel) + _PUSH_PUB + _delimited(_written_publication(publication))
        return _delimited(_REPLY_PUSH + _delimited(push))

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
            command_id, position = _varint(frame, position - 1, length)
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
    return _varint(frame, position, len(frame))


def _varint(frame: bytes, position: int, end: int) -> tuple[int, int]:
    """Read a varint of at most ten bytes and 64 bits; returns it and the position behind it."""
    value = 0
    for shift in range(0, 7 * _MAX_VARINT_BYTES, 7):
        if position >= end:
            raise MalformedFrameError("a truncated varint")
        byte = frame[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:  # noqa: PLR2004 - the bit that says that more follows
            if value >> 64:
                break
            return value, position
    raise MalformedFrameError("a varint of more than 64 bits")


def _read(frame: bytes, position: int, end: int, shape: Shape, values: dict[str, Any]) -> Any:
    """Read one message between *position* and *end*; *values* is what an earlier part of the same message brought."""
    fields = shape.by_tag
    while position < end:
        tag, position = frame[position], position + 1
        if tag > 0x7F:  # noqa: PLR2004 - what one byte of a varint holds
            tag, position = _varint(frame, position - 1, end)
        field = fields.get(tag)
        if field is None:
            position = _skipped(frame, position, end, tag, shape)
            continue
        if position < end and frame[position] <= 0x7F:  # noqa: PLR2004 - the same
            number, position = frame[position], position + 1
        else:
            number, position = _varint(frame, position, end)
        if field.wire == VARINT:
            values[field.name] = _scalar(number, field.kind)
            continue
        stop = position + number
        if stop > end:
            raise MalformedFrameError("a length beyond its message")
        if field.kind is Kind.STRING:
            values[field.name] = frame[position:stop].decode()
        elif field.kind is Kind.BYTES:
            values[field.name] = Raw(frame[position:stop]) if number else NOTHING
        else:
            _read_message(frame, position, stop, field, values)
        position = stop
    return shape.make(**values)


def _read_message(frame: bytes, position: int, stop: int, field: Field, values: dict[str, Any]) -> None:
    """Read a message within a message, or one entry of a map."""
    if field.shape is None:
        raise AssertionError("only messages and maps come here, and those have a shape")
    if field.kind is Kind.MAP:
        entry: dict[str, Any] = _read(frame, position, stop, field.shape, {})
        value = entry.get("value")
        if value is None:
            value = field.shape.by_name["value"].empty()
        values.setdefault(field.name, {})[entry.get("key", "")] = value
        return
    # "If a message field occurs several times, its parts are merged" (Protobuf's encoding, "Last One Wins").
    earlier = values.get(field.name)
    values[field.name] = _read(frame, position, stop, field.shape, {} if earlier is None else _values(earlier))


def _values(message: Struct) -> dict[str, Any]:
    return {name: getattr(message, name) for name in message.__struct_fields__}


def _scalar(number: int, kind: Kind) -> int | bool:
    """Make a varint the value of a field; one of 32 bits keeps the lower half, as all Protobuf readers have it."""
    match kind:
        case Kind.BOOL:
            return number != 0
        case Kind.UINT32:
            return number & 0xFFFFFFFF
        case Kind.UINT64:
            if number >> 63:
                raise MalformedFrameError("an offset beyond all that exist")  # `messages.Uint64` has the same bound
            return number
        case Kind.INT32:
            return (number & 0x7FFFFFFF) - (number & 0x80000000)
        case Kind.INT64:
            return number - (1 << 64) if number >> 63 else number
        case Kind.STRING | Kind.BYTES | Kind.MESSAGE | Kind.REPEATED | Kind.MAP:
            raise AssertionError("these are no varints")


def _skipped(frame: bytes, position: int, end: int, tag: int, shape: Shape) -> int:
    """Return where the unknown field ends whose value begins at *position*."""
    number, wire = tag >> 3, tag & 7
    if not 0 < number <= _MAX_FIELD_NUMBER:
        raise MalformedFrameError("a field number out of range")
    if number in shape.numbers:
        raise MalformedFrameError("a field of another wire type")
    if wire == VARINT:
        return _varint(frame, position, end)[1]
    if wire == LENGTH:
        length, position = _varint(frame, position, end)
    elif wire in _FIXED_BYTES:
        length = _FIXED_BYTES[wire]
    else:
        raise MalformedFrameError("a group, or no wire type at all")
    if length > end - position:
        raise MalformedFrameError("an unknown field beyond its message")
    return position + length


# Writing.


def _written_publication(publication: Publication) -> bytes:
    """Write a publication field by field: a third of what the table takes, which is the oracle in a test."""
    data = bytes(publication.data)
    written = b"\x22" + _delimited(data) if data else b""
    info = publication.info
    if info is not None:
        if info.conn_info is NOTHING and info.chan_info is NOTHING:
            user, client = info.user.encode(), info.client.encode()
            known = b"\x0a" + _delimited(user) if user else b""
            if client:
                known += b"\x12" + _delimited(client)
        else:
            known = _written(info, _CLIENT_INFO)
        written += b"\x2a" + _delimited(known)
    if publication.offset:
        written += b"\x30" + _encoded_varint(publication.offset)
    if publication.tags or publication.epoch or publication.version:
        written += _written(
            Publication(tags=publication.tags, epoch=publication.epoch, version=publication.version), _PUBLICATION
        )
    return written


def _encoded_varint(value: int) -> bytes:
    """Write a varint; a negative number takes ten bytes, as Protobuf has it for all but the zigzag types."""
    if 0 <= value < _READY_VARINTS:
        return _VARINTS[value]
    return _made_varint(value)


def _made_varint(value: int) -> bytes:
    value &= 0xFFFFFFFFFFFFFFFF
    encoded = bytearray()
    while value > 0x7F:  # noqa: PLR2004 - what one byte holds
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


_READY_VARINTS: Final = 2048
"""Lengths and ids of most messages are below; made once, they cost an index."""
_VARINTS: Final = [_made_varint(value) for value in range(_READY_VARINTS)]


def _delimited(content: bytes) -> bytes:
    return _encoded_varint(len(content)) + content


def _written(message: Struct, shape: Shape) -> bytes:
    """Write one message; what is zero, empty or absent is left out."""
    parts: list[bytes] = []
    for field in shape.fields:
        value = getattr(message, field.name)
        if value or isinstance(value, Struct):
            _write_field(parts, field, value)
    return b"".join(parts)


def _write_field(parts: list[bytes], field: Field, value: Any) -> None:
    match field.kind:
        case Kind.STRING:
            parts += (field.key, _delimited(value.encode()))
        case Kind.BYTES:
            if value is not NOTHING:
                parts += (field.key, _delimited(bytes(value)))
        case Kind.BOOL | Kind.UINT32 | Kind.UINT64 | Kind.INT32 | Kind.INT64:
            parts += (field.key, _encoded_varint(int(value)))
        case Kind.MESSAGE:
            parts += (field.key, _delimited(_written(value, _shape(field))))
        case Kind.REPEATED:
            for each in value:
                parts += (field.key, _delimited(_written(each, _shape(field))))
        case Kind.MAP:
            key_field, value_field = _shape(field).fields
            for key, each in value.items():
                entry: list[bytes] = []
                _write_field(entry, key_field, key)
                _write_field(entry, value_field, each)
                parts += (field.key, _delimited(b"".join(entry)))


def _shape(field: Field) -> Shape:
    if field.shape is None:
        raise AssertionError("messages and maps have a shape")
    return field.shape


@functools.lru_cache(maxsize=4096)
def _channel_field(channel: str) -> bytes:
    return _PUSH_CHANNEL + _delimited(channel.encode())
