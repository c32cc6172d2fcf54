"""Any JSON text, however it is spelt, goes through the gateway and means the same afterwards."""

import json
import re
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.protocol.codec import MalformedFrameError
from gateway.protocol.json_codec import JSONCodec, has_deeper_nesting, is_json, replace_lone_surrogates
from gateway.protocol.messages import ClientInfo, Empty, Publication, Reply

CODEC = JSONCodec(max_depth=500)

PLAIN_CHARACTERS = st.characters(exclude_categories=["Cs"], exclude_characters='"\\').filter(lambda each: each >= " ")
ESCAPES = st.sampled_from([r"\"", r"\\", r"\/", r"\b", r"\f", r"\n", r"\r", r"\t", r"\u0000", r"\u00e4", r"\u2028"])
PAIRS = st.sampled_from([r"\ud83d\ude00", r"\uD83D\uDE00", r"\udbff\udfff", r"\uDAAB\uDCEF"])
HALVES = st.sampled_from([r"\ud800", r"\uDBFF", r"\udc00", r"\uDFFF", r"\ud83d"])
NUMBERS = st.from_regex(r"-?(0|[1-9][0-9]{0,25})(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,3})?", fullmatch=True)


def strings(*pieces: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.lists(st.one_of(PLAIN_CHARACTERS, ESCAPES, PAIRS, *pieces), max_size=8).map("".join).map('"{}"'.format)


def texts(*, blanks: str, pieces: tuple[st.SearchStrategy[str], ...] = ()) -> st.SearchStrategy[str]:
    """JSON values as text, with any legal spelling and *blanks* wherever some may be."""
    blank = st.text(blanks, max_size=2)
    string = strings(*pieces)

    def padded(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        return st.tuples(blank, inner, blank).map("".join)

    def containers(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        members = st.tuples(padded(string), padded(inner)).map(":".join)
        return st.one_of(
            st.lists(padded(inner), max_size=4).map(lambda each: f"[{','.join(each)}]"),
            st.lists(members, max_size=4).map(lambda each: f"{{{','.join(each)}}}"),
            blank.map("[{}]".format),
            blank.map(lambda each: f"{{{each}}}"),
        )

    scalars = st.one_of(st.sampled_from(["null", "true", "false"]), NUMBERS, string)
    return st.recursive(scalars, containers, max_leaves=12)


def publish(payload: bytes) -> bytes:
    return b'{"id":1,"publish":{"channel":"c","data":%b}}' % payload


def payload_of(frame: bytes) -> msgspec.Raw:
    [command] = CODEC.decode(frame)
    assert command.publish is not None
    return command.publish.data


def data_of(message: bytes) -> Any:
    return json.loads(message)["push"]["pub"]["data"]


@settings(deadline=None)
@given(texts(blanks=" \t"))
def test_a_payload_reaches_subscribers_byte_for_byte(text: str) -> None:
    payload = text.encode()
    received = payload_of(publish(payload))
    assert bytes(received) == payload
    assert CODEC.publication("c", Publication(data=received)) == b'{"push":{"channel":"c","pub":{"data":%b}}}' % payload


@settings(deadline=None)
@given(
    texts(blanks=" \t\r"),
    st.text(st.characters(exclude_categories=["Cs"])),
    st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=2),
    st.integers(0, 2**64 - 1),
)
def test_a_payload_that_was_published_means_the_same_to_a_subscriber(
    text: str, channel: str, tags: dict[str, str], offset: int
) -> None:
    info = ClientInfo(channel, "c", conn_info=msgspec.Raw(text.encode()))
    publication = Publication(data=payload_of(publish(text.encode())), info=info, tags=tags, offset=offset)
    message = CODEC.publication(channel, publication)
    assert re.search(rb"[\r\n]", message) is None
    value = json.loads(text)
    expected: dict[str, Any] = {"data": value, "info": {"user": channel, "client": "c", "conn_info": value}}
    expected |= ({"offset": offset} if offset else {}) | ({"tags": tags} if tags else {})
    assert json.loads(message) == {"push": {"channel": channel, "pub": expected}}


@settings(deadline=None)
@given(texts(blanks=" \t\r\n"))
def test_a_payload_with_line_ends_means_the_same_on_one_line(text: str) -> None:
    """They come from elsewhere than a client's frame: the plain protocol, the server API."""
    message = CODEC.publication("c", Publication(data=msgspec.Raw(text.encode())))
    assert re.search(rb"[\r\n]", message) is None
    assert data_of(message) == json.loads(text)


@settings(deadline=None)
@given(texts(blanks=" ", pieces=(HALVES,)))
def test_half_pairs_become_replacement_characters_and_nothing_else_changes(text: str) -> None:
    """The oracle repairs what Python's own parser has read."""

    def repaired(value: Any) -> Any:
        match value:
            case str():
                return re.sub("[\ud800-\udfff]", "\ufffd", value)
            case list():
                return [repaired(each) for each in value]
            case dict():
                return {repaired(name): repaired(each) for name, each in value.items()}
            case _:
                return value

    message = CODEC.publication("c", Publication(data=payload_of(publish(text.encode()))))
    assert data_of(message) == repaired(
        json.loads(text, object_pairs_hook=lambda pairs: dict(map(_repaired_pair, pairs)))
    )


def _repaired_pair(pair: tuple[str, Any]) -> tuple[str, Any]:
    """Names that differ in a half pair alone fall together; the last one wins, as with any name that comes twice."""
    return re.sub("[\ud800-\udfff]", "\ufffd", pair[0]), pair[1]


@settings(deadline=None)
@given(texts(blanks=" \t\r\n", pieces=(HALVES,)))
def test_repairing_keeps_the_length_and_needs_doing_once(text: str) -> None:
    once = replace_lone_surrogates(text.encode())
    assert len(once) == len(text.encode())
    assert replace_lone_surrogates(once) == once
    assert msgspec.json.decode(once, type=msgspec.Raw)


def depth(value: Any) -> int:
    match value:
        case list():
            return 1 + max(map(depth, value), default=0)
        case dict():
            return 1 + max(map(depth, value.values()), default=0)
        case _:
            return 0


def pairs_depth(text: str) -> int:
    """Measure what is there, names that come twice included."""
    return depth(json.loads(text, object_pairs_hook=lambda pairs: [value for _, value in pairs]))


@settings(deadline=None)
@given(texts(blanks=" \t\r\n"), st.integers(0, 12))
def test_the_depth_of_a_value_is_found_exactly(text: str, wrapped: int) -> None:
    text = "[" * wrapped + text + "]" * wrapped
    nested = pairs_depth(text)
    for limit in range(max(nested - 2, 0), nested + 3):
        assert has_deeper_nesting(text.encode(), limit=limit) is (nested > limit)


MUTATIONS = st.lists(
    st.tuples(
        st.integers(0, 200), st.integers(0, 1), st.sampled_from(list(b'"\\[]{},:0-.eEu \n\t\x00\x1f/ntf\x7f\xc3\xff'))
    ),
    max_size=3,
)


@settings(deadline=None, max_examples=400)
@given(texts(blanks=" \t\r\n", pieces=(HALVES,)), MUTATIONS)
def test_what_is_json_is_what_pythons_parser_says(text: str, mutations: list[tuple[int, int, int]]) -> None:
    mutated = bytearray(text.encode())
    for place, cut, byte in mutations:
        at = place % (len(mutated) + 1)
        mutated[at : at + cut] = bytes([byte])

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    try:
        json.loads(mutated.decode(), parse_constant=refuse)
    except ValueError:
        expected = False
    else:
        expected = True
    assert is_json(bytes(mutated)) is expected


@settings(deadline=None, max_examples=300)
@given(st.one_of(st.binary(max_size=40), st.text(max_size=40).map(str.encode), MUTATIONS.map(repr).map(str.encode)))
def test_no_frame_is_answered_with_anything_but_commands_or_a_refusal(frame: bytes) -> None:
    for text in (frame, publish(frame), b'{"id":1,"subscribe":{"channel":"' + frame + b'"}}'):
        try:
            commands = CODEC.decode(text)
        except MalformedFrameError:
            continue
        assert len(commands) == len(text.removesuffix(b"\n").split(b"\n"))


@settings(deadline=None)
@given(st.integers(1, 2**32 - 1))
def test_the_short_way_to_a_publish_reply_says_what_the_long_one_says(command_id: int) -> None:
    assert CODEC.published(command_id) == CODEC.reply(Reply(id=command_id, publish=Empty()))
