"""The Protobuf encoding against the official definitions, which centrifuge-python carries, and against JSON."""

import contextlib
import functools
import re
from pathlib import Path
from typing import Any

import msgspec
from centrifuge.protocol import client_pb2
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import NODEFAULT, UNSET, Raw, Struct

import gateway.protocol
from gateway.protocol.client_codec import ClientJSONCodec, ServerMessage
from gateway.protocol.client_protobuf_codec import ClientProtobufCodec
from gateway.protocol.codec import MalformedFrameError
from gateway.protocol.emulation import EMULATION_REQUEST
from gateway.protocol.json_codec import JSONCodec
from gateway.protocol.messages import NOTHING, Command, Publication, Push, Reply
from gateway.protocol.protobuf_codec import ProtobufCodec
from gateway.protocol.protobuf_fields import SHAPES, Field, Kind, Shape

OFFICIAL: Any = client_pb2  # its classes are made at run time
CODEC = ProtobufCodec()
JSON = JSONCodec()
CLIENT, JSON_CLIENT = ClientProtobufCodec(), ClientJSONCodec()
# The official package is older than this one.
NOT_THERE = {"Dictionary"}

_MESSAGE = re.compile(r"^message (\w+) \{(.*?)\}", re.MULTILINE | re.DOTALL)
_FIELD = re.compile(r"^  ((?:repeated )?(?:map<string, \w+>|\w+)) (\w+) = (\d+);", re.MULTILINE)


def varint(value: int) -> bytes:
    encoded = b""
    while value > 127:
        encoded += bytes((value % 128 + 128,))
        value //= 128
    return encoded + bytes((value,))


def framed(message: Message) -> bytes:
    content = message.SerializeToString()
    return varint(len(content)) + content


def parsed(frame: bytes) -> Any:
    """Read one framed reply with the official reader."""
    size = shift = position = 0
    while True:
        byte = frame[position]
        position, size, shift = position + 1, size | (byte & 127) << shift, shift + 7
        if byte < 128:
            break
    assert size == len(frame) - position
    return OFFICIAL.Reply.FromString(frame[position:])


SCALARS: dict[Kind, st.SearchStrategy[Any]] = {
    Kind.BOOL: st.booleans(),
    Kind.UINT32: st.integers(0, 2**32 - 1),
    Kind.UINT64: st.integers(0, 2**63 - 1),
    Kind.INT32: st.integers(-(2**31), 2**31 - 1),
    Kind.INT64: st.integers(-(2**63), 2**63 - 1),
    Kind.STRING: st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
}
TEXTS = st.text(max_size=150).map(msgspec.json.encode).map(Raw)
ANY_BYTES = st.binary(max_size=150).map(lambda data: Raw(data) if data else NOTHING)


def values(field: Field, *, data: st.SearchStrategy[Raw]) -> st.SearchStrategy[Any]:
    if field.kind is Kind.BYTES:
        return st.just(NOTHING) | data
    if field.kind is Kind.STRINGS:
        return st.lists(SCALARS[Kind.STRING], max_size=2)
    if field.shape is None:
        return SCALARS[field.kind]
    if field.kind is Kind.MAP:
        inner = values(field.shape.by_name["value"], data=data)
        return st.dictionaries(SCALARS[Kind.STRING], inner, max_size=2)
    message = st.deferred(lambda: messages(field.shape, data))  # a filter's node holds nodes
    return st.lists(message, max_size=2) if field.kind is Kind.REPEATED else message


@functools.cache
def messages(shape: Shape, data: st.SearchStrategy[Raw]) -> st.SearchStrategy[Any]:
    optional: dict[str, st.SearchStrategy[Any]] = {}
    needed: dict[str, st.SearchStrategy[Any]] = {}
    defaults = {each.name: each.default for each in msgspec.structs.fields(shape.make)}  # type: ignore[arg-type]
    for field in shape.fields:
        into = needed if field.name in defaults and defaults[field.name] is NODEFAULT else optional
        into[field.name] = values(field, data=data)
    if {"user", "num_users", "code"} & {field.name for field in shape.fields}:
        needed |= optional
        optional = {}
    return st.fixed_dictionaries(needed, optional=optional).map(lambda kwargs: shape.make(**kwargs))


def is_equal(ours: Any, theirs: Any) -> bool:
    """Compare one of our messages, field by field, with an official one."""
    for name in ours.__struct_fields__:
        if name not in theirs.DESCRIPTOR.fields_by_name:
            continue  # the official package is older than the field
        mine = getattr(ours, name)
        their = getattr(theirs, name)
        if mine is None or mine is UNSET:
            assert not theirs.HasField(name)
        elif isinstance(mine, Struct):
            assert theirs.HasField(name)
            assert is_equal(mine, their)
        elif isinstance(mine, list):
            assert len(mine) == len(their)
            for one, other in zip(mine, their, strict=True):
                assert is_equal(one, other) if isinstance(one, Struct) else one == other
        elif isinstance(mine, dict):
            assert set(mine) == set(their)
            for key, value in mine.items():
                assert is_equal(value, their[key]) if isinstance(value, Struct) else value == their[key]
        else:
            assert (bytes(mine) if isinstance(mine, Raw) else mine) == their
    return True


def fill(theirs: Any, ours: Any) -> None:
    """Write one of our messages into an official one."""
    for name in ours.__struct_fields__:
        mine = getattr(ours, name)
        if mine is None:
            continue
        if isinstance(mine, Struct):
            getattr(theirs, name).SetInParent()
            fill(getattr(theirs, name), mine)
        elif isinstance(mine, dict):
            for key, value in mine.items():
                if isinstance(value, Struct):
                    fill(getattr(theirs, name)[key], value)
                else:
                    getattr(theirs, name)[key] = value
        elif isinstance(mine, list):
            for each in mine:
                if isinstance(each, Struct):
                    fill(getattr(theirs, name).add(), each)
                else:
                    getattr(theirs, name).append(each)
        else:
            setattr(theirs, name, bytes(mine) if isinstance(mine, Raw) else mine)


@given(messages(SHAPES[Reply], ANY_BYTES))
@settings(max_examples=300, deadline=None)
def test_the_official_reader_reads_our_replies(reply: Reply) -> None:
    assert is_equal(reply, parsed(CODEC.reply(reply)))


@given(messages(SHAPES[Push], ANY_BYTES))
@settings(deadline=None)
def test_the_official_reader_reads_our_pushes(push: Push) -> None:
    assert is_equal(push, parsed(CODEC.push(push)).push)


@given(SCALARS[Kind.STRING], messages(SHAPES[Publication], ANY_BYTES))
@settings(max_examples=300, deadline=None)
def test_the_official_reader_reads_our_publications(channel: str, publication: Publication) -> None:
    push = parsed(CODEC.publication(channel, publication)).push
    assert push.channel == channel
    assert is_equal(publication, push.pub)


@given(st.lists(messages(SHAPES[Command], ANY_BYTES), min_size=1, max_size=3))
@settings(max_examples=300, deadline=None)
def test_we_read_what_the_official_writer_wrote(commands: list[Command]) -> None:
    frame = b""
    for command in commands:
        theirs = OFFICIAL.Command()
        fill(theirs, command)
        frame += framed(theirs)
    assert CODEC.decode(frame) == commands


@given(messages(SHAPES[Command], TEXTS))
@settings(max_examples=300, deadline=None)
def test_json_and_protobuf_decode_to_the_same_command(command: Command) -> None:
    theirs = OFFICIAL.Command()
    fill(theirs, command)
    assert CODEC.decode(framed(theirs)) == JSON.decode(msgspec.json.encode(command))


@given(messages(SHAPES[Reply], TEXTS) | messages(SHAPES[Push], TEXTS))
@settings(max_examples=300, deadline=None)
def test_a_client_reads_the_same_in_json_and_protobuf(sent: Reply | Push) -> None:
    if isinstance(sent, Reply):
        ours, json = CODEC.reply(sent), JSON.reply(sent)
    else:
        ours, json = CODEC.push(sent), JSON.push(sent)
    assert CLIENT.decode(ours) == JSON_CLIENT.decode(json)


@given(SCALARS[Kind.STRING], messages(SHAPES[Publication], TEXTS))
@settings(deadline=None)
def test_a_client_reads_the_same_publication_in_json_and_protobuf(channel: str, publication: Publication) -> None:
    found = CLIENT.decode(CODEC.publication(channel, publication))
    assert found == JSON_CLIENT.decode(JSON.publication(channel, publication))


@given(messages(SHAPES[Command], ANY_BYTES))
@settings(max_examples=300, deadline=None)
def test_the_server_reads_what_a_client_wrote(command: Command) -> None:
    assert CODEC.decode(CLIENT.join([CLIENT.encode(command), CLIENT.pong])) == [command, Command()]


@given(st.binary(min_size=1, max_size=200))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_server_messages_or_malformed(frame: bytes) -> None:
    with contextlib.suppress(MalformedFrameError):
        assert all(isinstance(message, ServerMessage) for message in CLIENT.decode(frame))


@given(st.binary(min_size=1, max_size=200))
@settings(max_examples=1500, deadline=None)
def test_any_bytes_are_commands_or_malformed(frame: bytes) -> None:
    try:
        commands = CODEC.decode(frame)
    except MalformedFrameError:
        return
    assert all(isinstance(command, Command) for command in commands)


@given(messages(SHAPES[Command], ANY_BYTES), st.data())
@settings(max_examples=1500, deadline=None)
def test_what_we_read_of_a_mutated_frame_the_official_reader_reads_too(command: Command, data: st.DataObject) -> None:
    theirs = OFFICIAL.Command()
    fill(theirs, command)
    frame = bytearray(framed(theirs))
    for _ in range(data.draw(st.integers(1, 3))):
        frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    try:
        [read] = CODEC.decode(bytes(frame))
    except (MalformedFrameError, ValueError):
        return
    prefix = next(index for index, byte in enumerate(frame) if byte < 128) + 1
    official = OFFICIAL.Command.FromString(bytes(frame[prefix:]))
    if len(UnknownFieldSet(official.connect)):
        return  # a map's entry in which it finds an unknown field is as a whole unknown to the official reader
    assert is_equal(read, official)


TYPES = {
    FieldDescriptor.TYPE_BOOL: "bool",
    FieldDescriptor.TYPE_UINT32: "uint32",
    FieldDescriptor.TYPE_UINT64: "uint64",
    FieldDescriptor.TYPE_INT32: "int32",
    FieldDescriptor.TYPE_INT64: "int64",
    FieldDescriptor.TYPE_SINT64: "sint64",
    FieldDescriptor.TYPE_STRING: "string",
    FieldDescriptor.TYPE_BYTES: "bytes",
}


def written_fields() -> dict[str, dict[str, tuple[str, int]]]:
    """Read `client.proto`."""
    text = (Path(gateway.protocol.__path__[0]) / "client.proto").read_text()
    return {
        name: {field: (kind, int(number)) for kind, field, number in _FIELD.findall(body)}
        for name, body in _MESSAGE.findall(text)
    }


def official_type(field: Any) -> str:
    message = field.message_type
    if message is not None and message.GetOptions().map_entry:
        return f"map<string, {official_type(message.fields_by_name['value'])}>"
    name = message.name if message is not None else TYPES[field.type]
    return f"repeated {name}" if field.is_repeated else name


def test_client_proto_is_in_step_with_the_official_definitions() -> None:
    written = written_fields()
    official = {
        name: {field.name: (official_type(field), field.number) for field in message.fields}
        for name, message in OFFICIAL.DESCRIPTOR.message_types_by_name.items()
    }
    assert set(written) - NOT_THERE == set(official)
    for name, fields in official.items():
        assert {each: fields[each] for each in fields if each in written[name]} == {
            each: written[name][each] for each in fields if each in written[name]
        }, name


def test_the_tables_are_in_step_with_client_proto() -> None:
    written = written_fields()
    checked = set()

    def check(name: str, shape: Shape) -> None:
        if name in checked:
            return
        checked.add(name)
        for field in shape.fields:
            kind, number = written[name][field.name]
            assert field.number == number, (name, field.name)
            inner = re.sub(r"repeated |map<string, |>", "", kind)
            if field.kind is Kind.STRINGS:
                assert kind == "repeated string"
            elif field.shape is None:
                assert kind == field.kind.name.lower()
            elif field.kind is Kind.MAP:
                value = field.shape.by_name["value"]
                if value.shape is not None:
                    check(inner, value.shape)
            else:
                check(inner, field.shape)

    check("Command", SHAPES[Command])
    check("Reply", SHAPES[Reply])
    check("Push", SHAPES[Push])
    check("Publication", SHAPES[Publication])
    check("EmulationRequest", EMULATION_REQUEST)
    assert len(checked) == 36
