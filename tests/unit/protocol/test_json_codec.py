"""The JSON encoding: framing, payloads byte for byte, half pairs, depth."""

import json

import msgspec
import pytest

from gateway.protocol.codec import MalformedFrameError
from gateway.protocol.json_codec import JSONCodec, has_deeper_nesting, is_json, replace_lone_surrogates
from gateway.protocol.messages import (
    NOTHING,
    Command,
    ConnectRequest,
    Empty,
    HistoryRequest,
    PresenceRequest,
    Publication,
    Reply,
    SendRequest,
    StreamPosition,
    SubRefreshRequest,
    SubscribeRequest,
    UnsubscribeRequest,
)

CODEC = JSONCodec()
PONG = Command()


def publish(payload: bytes) -> bytes:
    return b'{"id":1,"publish":{"channel":"c","data":%b}}' % payload


def payload_of(frame: bytes, *, codec: JSONCodec = CODEC) -> bytes:
    """Decode a frame of one publish and return its payload."""
    [command] = codec.decode(frame)
    assert command.publish is not None
    return bytes(command.publish.data)


@pytest.mark.parametrize(
    ("frame", "commands"),
    [
        (b"{}", [PONG]),
        (b" \t{ } ", [PONG]),
        (b"{}\n", [PONG]),
        (b"{}\n{}", [PONG, PONG]),
        (b"{}\r\n{}\r\n", [PONG, PONG]),
        (b" {} \n\t{}\t\n", [PONG, PONG]),
        (b'{"id":4294967295}', [Command(id=4294967295)]),
        (b'{"id":1,"connect":null}', [Command(id=1)]),
        (b'{"id":1,"connect":{}}', [Command(id=1, connect=ConnectRequest())]),
        (b'{"id":1,"foo":{"bar":[1]}}', [Command(id=1)]),
        (b'{"id":1,"connect":{"dict":"x","profile":"y"}}', [Command(id=1, connect=ConnectRequest())]),
        (b'{"\\u0069d":1}', [Command(id=1)]),
        (
            (
                b'{"id":1,"connect":{"token":"t","flag":1,"headers":{"h":"v"},'
                b'"subs":{"a":{"recover":true,"offset":9223372036854775807,"epoch":"e"}}}}'
            ),
            [
                Command(
                    id=1,
                    connect=ConnectRequest(
                        token="t",
                        subs={"a": SubscribeRequest(recover=True, offset=9223372036854775807, epoch="e")},
                        headers={"h": "v"},
                        flag=1,
                    ),
                )
            ],
        ),
        (
            b'{"id":1,"connect":{}}\n{"id":2,"subscribe":{"channel":"a"}}\n{"id":3,"unsubscribe":{"channel":"a"}}',
            [
                Command(id=1, connect=ConnectRequest()),
                Command(id=2, subscribe=SubscribeRequest(channel="a")),
                Command(id=3, unsubscribe=UnsubscribeRequest(channel="a")),
            ],
        ),
        (
            b'{"id":1,"history":{"channel":"a","limit":-1,"since":{"offset":1,"epoch":"e"},"reverse":true}}',
            [Command(id=1, history=HistoryRequest("a", limit=-1, since=StreamPosition(1, "e"), reverse=True))],
        ),
        (b'{"id":1,"presence":{"channel":"a"}}', [Command(id=1, presence=PresenceRequest("a"))]),
        (b'{"send":{}}', [Command(send=SendRequest())]),
        (
            b'{"id":1,"sub_refresh":{"channel":"a","token":"t"}}',
            [Command(id=1, sub_refresh=SubRefreshRequest("a", "t"))],
        ),
    ],
    ids=lambda value: repr(value) if isinstance(value, bytes) else f"{len(value)}",
)
def test_a_frame_is_read_as_one_command_a_line(frame: bytes, commands: list[Command]) -> None:
    assert CODEC.decode(frame) == commands


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b" ",
        b"\n",
        b"\n{}",
        b"{}\n\n",
        b"{}\n\n{}",
        b"{}\n \n{}",
        b"{}{}",
        b"{} {}",
        b"{},{}",
        b"[{}]",
        b"null",
        b"1",
        b'"{}"',
        b"ping",
        b"{",
        b"{}}",
        b'{"id":1',
        b'{"id":1,}',
        b"{'id':1}",
        b"{id:1}",
        b'{"id":}',
        b'\xef\xbb\xbf{"id":1}',
        b'{"id":"6"}',
        b'{"id":1.5}',
        b'{"id":true}',
        b'{"id":-1}',
        b'{"id":4294967296}',
        b'{"id":99999999999999999999999999}',
        b'{"id":01}',
        b'{"id":1,"connect":[]}',
        b'{"id":1,"connect":"x"}',
        b'{"id":1,"connect":{"token":1}}',
        b'{"id":1,"connect":{"subs":[]}}',
        b'{"id":1,"connect":{"headers":{"a":1}}}',
        b'{"id":1,"subscribe":{"channel":1}}',
        b'{"id":1,"subscribe":{"recover":1}}',
        b'{"id":1,"subscribe":{"offset":"1"}}',
        b'{"id":1,"subscribe":{"offset":-1}}',
        b'{"id":1,"subscribe":{"flag":9223372036854775808}}',
        b'{"id":1,"history":{"limit":2147483648}}',
        b'{"id":1,"history":{"limit":-2147483649}}',
        b'{"id":1,"history":{"since":5}}',
        b'{"id":1,"subscribe":{"channel":"\xff"}}',
        b'{"id":1,"subscribe":{"channel":"\xed\xa0\x80"}}',
        b'{"id":1,"\xff":1}',
        b'{"id":1,"publish":{"data":"\xff"}}',
        b'{"id":1,"publish":{"data":"caf\xc3"}}',
        b'{"id":1,"publish":{"data":"\xed\xa0\x80"}}',
        b'{"id":1,"publish":{"data":}}',
        b'{"id":1,"publish":{"data":nul}}',
        b'{"id":1,"publish":{"data":NaN}}',
        b'{"id":1,"publish":{"data":01}}',
        b'{"id":1,"publish":{"data":"\x01"}}',
        b'{"id":1,"publish":{"data":"\t"}}',
        b'{"id":1,"publish":{"data":"a\nb"}}',
        b'{"id":1,"publish":{"data":[1,\n2]}}',
        b'{"id":1,"publish":{"data":"\\x"}}',
        b'{"id":1,"publish":{"data":"\\u12"}}',
        b'{"id":1,"publish":{"data":"\\ud800}}',
        b'{"id":1,"foo":[}',
    ],
    ids=repr,
)
def test_what_is_no_line_of_commands_is_malformed_and_nothing_of_the_frame_counts(frame: bytes) -> None:
    with pytest.raises(MalformedFrameError):
        CODEC.decode(frame)


@pytest.mark.parametrize("offset", [2**64, 10**30])
def test_an_offset_above_64_bits_is_malformed(offset: int) -> None:
    with pytest.raises(MalformedFrameError):
        CODEC.decode(b'{"id":1,"subscribe":{"channel":"a","offset":%d}}' % offset)


PAYLOADS = [
    b"{}",
    b"[]",
    b"null",
    b"true",
    b"0",
    b"-0",
    b"1.0",
    b"1E+2",
    b"1e400",
    b"123456789012345678901234567890",
    b'""',
    b'"\\u0041\\/\\n"',
    b'{ "b" : 1 ,\t"a":[ 1.50 , {} ] }',
    b'{"a":1,"a":2}',
    '"käse \u2028 😀"'.encode(),
    b'"\\ud83d\\ude00"',
]


@pytest.mark.parametrize("payload", PAYLOADS, ids=repr)
def test_a_payload_goes_through_byte_for_byte(payload: bytes) -> None:
    assert payload_of(publish(payload)) == payload
    encoded = CODEC.publication("c", Publication(data=msgspec.Raw(payload_of(publish(payload)))))
    assert encoded == b'{"push":{"channel":"c","pub":{"data":%b}}}' % payload


@pytest.mark.parametrize("payload", [b" 1 ", b"\t[1]\r", b' {"a" : 1} '], ids=repr)
def test_only_the_blanks_around_a_payload_are_cut(payload: bytes) -> None:
    assert payload_of(publish(payload)) == payload.strip()


@pytest.mark.parametrize(
    ("payload", "line"),
    [
        (b"[\n1,\n2\n]", b"[1,2]"),
        (b'{\r\n\t"a": "x\\ny"\r\n}', b'{\t"a": "x\\ny"}'),
        (b"1\n", b"1"),
        (b"\r\n\n\r1", b"1"),
    ],
    ids=repr,
)
def test_line_ends_leave_a_payload_on_its_way_out(payload: bytes, line: bytes) -> None:
    encoded = CODEC.publication("a\r\nb", Publication(data=msgspec.Raw(payload), tags={"k\n": "v\r"}))
    assert encoded == b'{"push":{"channel":"a\\r\\nb","pub":{"data":%b,"tags":{"k\\n":"v\\r"}}}}' % line


@pytest.mark.parametrize(
    ("text", "repaired"),
    [
        (rb"\ud800", rb"\ufffd"),
        (rb"\uDFFF", rb"\ufffd"),
        (rb"\ud800\ud800", rb"\ufffd\ufffd"),
        (rb"\udc00\ud800", rb"\ufffd\ufffd"),
        (rb"\ud800x\udc00", rb"\ufffdx\ufffd"),
        (rb"\ud83d\ude00", rb"\ud83d\ude00"),
        (rb"\uD83D\uDE00", rb"\uD83D\uDE00"),
        (rb"\udbff\udfff", rb"\udbff\udfff"),
        (rb"\uDBFF\uDFFF", rb"\uDBFF\uDFFF"),
        (rb"\uDAaF\uDCcF", rb"\uDAaF\uDCcF"),
        (rb"\uDd00\uDEad", rb"\ufffd\ufffd"),
        (rb"\ud83d\ud83d\ude00", rb"\ufffd\ud83d\ude00"),
        (rb"\ud83d\ude00\ude00", rb"\ud83d\ude00\ufffd"),
        (rb"\\ud800", rb"\\ud800"),
        (rb"\\\ud800", rb"\\\ufffd"),
        (rb"\\\\ud800", rb"\\\\ud800"),
        (rb"\ud800\\udc00", rb"\ufffd\\udc00"),
        (rb"\n\ud800", rb"\n\ufffd"),
        (rb"\ud7ff\ue000", rb"\ud7ff\ue000"),
        (rb"\u0041", rb"\u0041"),
        (rb"ud800", rb"ud800"),
    ],
    ids=repr,
)
def test_half_a_surrogate_pair_is_replaced_and_a_whole_one_is_not(text: bytes, repaired: bytes) -> None:
    assert replace_lone_surrogates(text) == repaired
    assert is_json(b'"%b"' % text)
    assert payload_of(publish(b'"%b"' % text)) == b'"%b"' % repaired


@pytest.mark.parametrize("field", ["channel", "other"])
def test_half_a_pair_outside_a_payload_costs_no_connection(field: str) -> None:
    [command] = CODEC.decode(b'{"id":1,"unsubscribe":{"%b":"\\ud800"}}' % field.encode())
    assert command == Command(id=1, unsubscribe=UnsubscribeRequest("\ufffd" if field == "channel" else ""))


def test_half_a_pair_in_one_line_leaves_the_others_as_they_are() -> None:
    first, second = CODEC.decode(publish(rb'"\ud83d\ude00"') + b"\n" + publish(rb'"\ud83d"'))
    assert first.publish is not None
    assert second.publish is not None
    assert (bytes(first.publish.data), bytes(second.publish.data)) == (rb'"\ud83d\ude00"', rb'"\ufffd"')


ENVELOPE = 2
"""How deep a published payload already stands: in the command, in the request."""


@pytest.mark.parametrize("limit", [ENVELOPE + 1, 16, 128, 500])
@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}"), (b'[{"]":', b"}]")], ids=repr)
@pytest.mark.parametrize("noise", [b"1", rb'"[[[{{{"', rb'"\"[[[[{\\"', rb'"]]]}\\\"}"', b"[]"], ids=repr)
def test_a_payload_at_the_depth_limit_is_read_and_one_level_more_is_not(
    limit: int, opening: bytes, closing: bytes, noise: bytes
) -> None:
    codec = JSONCodec(max_depth=limit)
    levels = 2 if opening.startswith(b"[{") else 1
    inner = 1 if noise == b"[]" else 0

    def nested(depth: int) -> bytes:
        repeats, odd = divmod(depth - inner, levels)
        return b"[" * odd + opening * repeats + noise + closing * repeats + b"]" * odd

    deepest = nested(limit - ENVELOPE)
    assert payload_of(publish(deepest), codec=codec) == deepest
    with pytest.raises(MalformedFrameError):
        codec.decode(publish(nested(limit - ENVELOPE + 1)))


def test_the_depth_limit_counts_nesting_and_not_brackets() -> None:
    payload = b"[" + b",".join([b"[{}]"] * 1000) + b"]"
    assert payload_of(publish(payload), codec=JSONCodec(max_depth=ENVELOPE + 3)) == payload


def test_the_depth_limit_is_for_each_line() -> None:
    codec = JSONCodec(max_depth=6)
    deepest, deeper = publish(b"[[[[]]]]"), publish(b"[[[[[]]]]]")
    assert len(codec.decode(b"\n".join([deepest] * 20))) == 20
    for lines in ([deeper, deepest], [deepest, deeper], [deepest] * 20 + [deeper]):
        with pytest.raises(MalformedFrameError):
            codec.decode(b"\n".join(lines))


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'[{"a":'], ids=repr)
@pytest.mark.parametrize("count", [500, 1000, 10_000, 60_000])
def test_brackets_that_never_close_are_malformed_and_not_a_crash(opening: bytes, count: int) -> None:
    with pytest.raises(MalformedFrameError):
        CODEC.decode(opening * count)
    with pytest.raises(MalformedFrameError):
        CODEC.decode(publish(opening * count))
    assert not is_json(opening * count)


@pytest.mark.parametrize("between", [b"", b"\n", b"\r\n", b" "], ids=repr)
def test_blanks_between_brackets_do_not_hide_depth(between: bytes) -> None:
    text = between.join([b"["] * 5 + [b"]"] * 5)
    assert [has_deeper_nesting(text, limit=limit) for limit in (3, 4, 5, 6)] == [True, True, False, False]


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        *((payload, True) for payload in PAYLOADS),
        (b" 1 ", True),
        (b"\r\n[1]\n", True),
        (rb'{"\ud800":1}', True),
        (b"", False),
        (b" ", False),
        (b"1 2", False),
        (b"nul", False),
        (b"NaN", False),
        (b"Infinity", False),
        (b"01", False),
        (b".5", False),
        (b"1.", False),
        (b"'a'", False),
        (b"[1,]", False),
        (b'{"a":1,}', False),
        (b"{1:2}", False),
        (b'"\x1f"', False),
        (b'"\n"', False),
        (b'"\xff"', False),
        (b'"\xed\xa0\x80"', False),
        (b'"\xc0\xaf"', False),
        (b'"\xff\\ud800"', False),
        (b"\xef\xbb\xbf1", False),
        (rb'"\ud8"', False),
    ],
    ids=repr,
)
def test_json_is_one_value_in_utf_8(text: bytes, answer: bool) -> None:  # noqa: FBT001
    assert is_json(text) is answer


@pytest.mark.parametrize("command_id", [1, 9, 2**31, 2**32 - 1])
def test_the_short_way_to_a_publish_reply_says_what_the_long_one_says(command_id: int) -> None:
    assert CODEC.published(command_id) == CODEC.reply(Reply(id=command_id, publish=Empty()))


def test_messages_share_a_frame_one_a_line_without_a_last_newline() -> None:
    messages = [CODEC.ping, CODEC.published(1), CODEC.publication("c", Publication(data=msgspec.Raw(b"[\n]")))]
    assert CODEC.join(messages) == b'{}\n{"id":1,"publish":{}}\n{"push":{"channel":"c","pub":{"data":[]}}}'
    assert [json.loads(line) for line in CODEC.join(messages).split(b"\n")] == [json.loads(each) for each in messages]


def test_a_ping_is_the_empty_object() -> None:
    assert CODEC.ping == b"{}"


def test_a_payload_that_a_command_does_not_have_is_left_out_of_the_publication() -> None:
    [command] = CODEC.decode(b'{"id":1,"publish":{"channel":"c"}}')
    assert command.publish is not None
    assert command.publish.data is NOTHING
    assert CODEC.publication("c", Publication(data=command.publish.data)) == b'{"push":{"channel":"c","pub":{}}}'
