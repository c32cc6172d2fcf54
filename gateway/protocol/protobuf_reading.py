"""Reads Protobuf into our typed messages, by the tables of `protobuf_fields`.

Time and memory are linear in what is read: lengths are checked before anything is copied, and messages nest as deep as
the tables do, since what is unknown is skipped whole. The one that nests in itself, a filter's node, nests as deep as
Python's own limit lets it; what is deeper is malformed.
"""

from typing import Any, Final

from msgspec import Raw, Struct

from gateway.protocol.codec import MalformedFrameError
from gateway.protocol.messages import NOTHING
from gateway.protocol.protobuf_fields import LENGTH, VARINT, Field, Kind, Shape

_MAX_VARINT_BYTES: Final = 10
_MAX_FIELD_NUMBER: Final = 2**29 - 1
_FIXED_BYTES: Final = {1: 8, 5: 4}


def read_delimited(frame: bytes, shape: Shape) -> list[Any]:
    """Read the messages of a frame, each behind its length, all of one *shape*.

    Raises:
        MalformedFrameError: if anything in it is not.
    """
    messages = []
    position, end = 0, len(frame)
    try:
        while position < end:
            length, position = frame[position], position + 1
            if length > 0x7F:  # noqa: PLR2004 - what one byte of a varint holds
                length, position = varint(frame, position - 1, end)
            if length > end - position:
                raise MalformedFrameError("a length beyond the frame")
            if not length:
                messages.append(shape.make())  # a pong or a ping, of which a frame can hold many thousands
                continue
            messages.append(read(frame, position, position + length, shape, {}))
            position += length
    except (UnicodeDecodeError, RecursionError) as error:
        raise MalformedFrameError(str(error)) from None
    return messages


def read_message(data: bytes, shape: Shape) -> Any:
    """Read one message, which is all of *data*.

    Raises:
        MalformedFrameError: if it is none.
    """
    try:
        return read(data, 0, len(data), shape, {})
    except UnicodeDecodeError as error:
        raise MalformedFrameError(str(error)) from None


def varint(frame: bytes, position: int, end: int) -> tuple[int, int]:
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


def read(frame: bytes, position: int, end: int, shape: Shape, values: dict[str, Any]) -> Any:
    """Read one message between *position* and *end*; *values* is what an earlier part of the same message brought."""
    fields = shape.by_tag
    while position < end:
        tag, position = frame[position], position + 1
        if tag > 0x7F:  # noqa: PLR2004 - what one byte of a varint holds
            tag, position = varint(frame, position - 1, end)
        field = fields.get(tag)
        if field is None:
            position = _skipped(frame, position, end, tag, shape)
            continue
        if position < end and frame[position] <= 0x7F:  # noqa: PLR2004 - the same
            number, position = frame[position], position + 1
        else:
            number, position = varint(frame, position, end)
        if field.wire == VARINT:
            values[field.name] = _scalar(number, field.kind)
            continue
        stop = position + number
        if stop > end:
            raise MalformedFrameError("a length beyond its message")
        if field.kind is Kind.STRING:
            values[field.name] = frame[position:stop].decode()
        elif field.kind is Kind.STRINGS:
            values.setdefault(field.name, []).append(frame[position:stop].decode())
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
        entry: dict[str, Any] = read(frame, position, stop, field.shape, {})
        value = entry.get("value")
        if value is None:
            value = field.shape.by_name["value"].empty()
        values.setdefault(field.name, {})[entry.get("key", "")] = value
        return
    if field.kind is Kind.REPEATED:
        values.setdefault(field.name, []).append(read(frame, position, stop, field.shape, {}))
        return
    # "If a message field occurs several times, its parts are merged" (Protobuf's encoding, "Last One Wins").
    earlier = values.get(field.name)
    values[field.name] = read(frame, position, stop, field.shape, {} if earlier is None else _values(earlier))


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
        case Kind.STRING | Kind.BYTES | Kind.MESSAGE | Kind.REPEATED | Kind.STRINGS | Kind.MAP:
            raise AssertionError("these are no varints")


def _skipped(frame: bytes, position: int, end: int, tag: int, shape: Shape) -> int:
    """Return where the unknown field ends whose value begins at *position*."""
    number, wire = tag >> 3, tag & 7
    if not 0 < number <= _MAX_FIELD_NUMBER:
        raise MalformedFrameError("a field number out of range")
    if number in shape.numbers:
        raise MalformedFrameError("a field of another wire type")
    if wire == VARINT:
        return varint(frame, position, end)[1]
    if wire == LENGTH:
        length, position = varint(frame, position, end)
    elif wire in _FIXED_BYTES:
        length = _FIXED_BYTES[wire]
    else:
        raise MalformedFrameError("a group, or no wire type at all")
    if length > end - position:
        raise MalformedFrameError("an unknown field beyond its message")
    return position + length
