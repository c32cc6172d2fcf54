"""Writes our typed messages as Protobuf, by the tables of `protobuf_fields`."""

from typing import Any, Final

from msgspec import Struct

from gateway.protocol.messages import NOTHING
from gateway.protocol.protobuf_fields import Field, Kind, Shape


def encoded_varint(value: int) -> bytes:
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


def delimited(content: bytes) -> bytes:
    """Put its length before *content*."""
    return encoded_varint(len(content)) + content


def written(message: Struct, shape: Shape) -> bytes:
    """Write one message, without its length; what is zero, empty or absent is left out."""
    parts: list[bytes] = []
    for field in shape.fields:
        value = getattr(message, field.name)
        if value or isinstance(value, Struct):
            _write_field(parts, field, value)
    return b"".join(parts)


def _write_field(parts: list[bytes], field: Field, value: Any) -> None:
    match field.kind:
        case Kind.STRING:
            parts += (field.key, delimited(value.encode()))
        case Kind.BYTES:
            if value is not NOTHING:
                parts += (field.key, delimited(bytes(value)))
        case Kind.BOOL | Kind.UINT32 | Kind.UINT64 | Kind.INT32 | Kind.INT64:
            parts += (field.key, encoded_varint(int(value)))
        case Kind.MESSAGE:
            parts += (field.key, delimited(written(value, _shape(field))))
        case Kind.REPEATED:
            for each in value:
                parts += (field.key, delimited(written(each, _shape(field))))
        case Kind.STRINGS | Kind.MAP:
            _write_several(parts, field, value)


def _write_several(parts: list[bytes], field: Field, value: Any) -> None:
    """Write texts, or the entries of a map."""
    if field.kind is Kind.STRINGS:
        for text in value:
            parts += (field.key, delimited(text.encode()))
        return
    key_field, value_field = _shape(field).fields
    for key, each in value.items():
        entry: list[bytes] = []
        _write_field(entry, key_field, key)
        _write_field(entry, value_field, each)
        parts += (field.key, delimited(b"".join(entry)))


def _shape(field: Field) -> Shape:
    if field.shape is None:
        raise AssertionError("messages and maps have a shape")
    return field.shape
