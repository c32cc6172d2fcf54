"""RFC 6455 through a socket, against a node's echo: the cases of the Autobahn test suite, condensed.

Groups 1 to 7 and 10, some of 9, 12 and 13; the numbers in the ids are Autobahn's. A case that is not about failing ends
with a proper close, so that nothing can have been left behind.
"""

import zlib
from collections.abc import AsyncIterator, Iterator
from typing import NamedTuple

import pytest
import pytest_asyncio

from tests.support.frames import (
    BINARY,
    CLOSE,
    CONT,
    DEFLATE,
    PING,
    PONG,
    TEXT,
    RawClient,
    Received,
    close_code,
    closing,
    deflated,
    fragments,
    frame,
    raw_client,
)
from tests.support.nodes import RunningNode, running_node

pytestmark = pytest.mark.asyncio(loop_scope="module")

LIMIT = 65536
HELLO = "Hello-µ@ßöäüàá-UTF-8!!".encode()
KOSME = "κόσμε".encode()
PINGS = [b"payload-%d" % number for number in range(10)]


def echoed(opcode: int, payload: bytes) -> Received:
    return Received(0x80 | opcode, payload)


class Case(NamedTuple):
    """What is sent, what has to come back, and how it ends."""

    sent: list[bytes]
    answers: list[Received]
    failure: int | None = None
    """The code that the server closes with; `None`: the connection lives."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def echo_node() -> AsyncIterator[RunningNode]:
    limits = {"message_size_limit": LIMIT, "compression": True}
    async with running_node({"websocket": limits, "client": {"command_rate": 0}}) as running:
        yield running


async def play(client: RawClient, case: Case, *, octetwise: bool = False) -> None:
    """Send, compare the answers, and see the end that the case names."""
    for data in case.sent:
        for piece in [bytes([byte]) for byte in data] if octetwise else [data]:
            client.send(piece)
            await client.writer.drain()
    assert [await client.receive() for _ in case.answers] == case.answers
    if case.failure is None:
        client.send(frame(CLOSE, closing(1000, "done")))
        assert await client.rest() == [echoed(CLOSE, closing(1000, "done"))]
    else:
        (close,) = await client.rest()
        assert close_code(close) == case.failure, close


def bounced(opcode: int, payload: bytes, *sent: bytes) -> Case:
    """A message that comes back whole, sent as *sent* or in one frame."""
    return Case(list(sent) or [frame(opcode, payload)], [echoed(opcode, payload)])


def failed(code: int, *sent: bytes) -> Case:
    return Case(list(sent), [], code)


def chopped(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


def framing_cases() -> Iterator[tuple[str, Case]]:
    for index, size in enumerate([0, 125, 126, 127, 128, 65535, 65536], 1):
        yield f"1.1.{index} text of {size}", bounced(TEXT, b"*" * size)
        yield f"1.2.{index} binary of {size}", bounced(BINARY, b"\xfe" * size)
    for number, opcode in ((1, TEXT), (2, BINARY)):
        whole = frame(opcode, b"*" * 65536)
        yield f"1.{number}.8 65536 bytes in chops of 997", bounced(opcode, b"*" * 65536, *chopped(whole, 997))
    # Our limit is 65536; Autobahn's groups 9 and 10 go to the limits of the server.
    yield "9.1.1 a text above the limit", failed(1009, frame(TEXT, b"*" * 65537))
    yield "9.2.1 a binary above the limit", failed(1009, frame(BINARY, b"\xfe" * 65537))
    yield "9.3.1 fragments above the limit", failed(1009, *fragments(TEXT, *[b"*" * 16384] * 4, b"*"))
    yield (
        "10.1.1 65536 bytes in fragments of 1300",
        bounced(TEXT, b"*" * LIMIT, *fragments(TEXT, *chopped(b"*" * LIMIT, 1300))),
    )


def ping_cases() -> Iterator[tuple[str, Case]]:
    payloads = [b"", b"Hello, world!", b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff", b"\xfe" * 125]
    for index, payload in enumerate(payloads, 1):
        yield f"2.{index} a ping of {len(payload)}", Case([frame(PING, payload)], [echoed(PONG, payload)])
    yield "2.5 a ping of 126", failed(1002, frame(PING, b"\xfe" * 126))
    yield (
        "2.6 a ping of 125 octet by octet",
        Case([bytes([b]) for b in frame(PING, b"\xfe" * 125)], [echoed(PONG, b"\xfe" * 125)]),
    )
    yield "2.7 an unsolicited pong", Case([frame(PONG)], [])
    yield "2.8 an unsolicited pong with payload", Case([frame(PONG, b"unsolicited pong payload")], [])
    yield (
        "2.9 an unsolicited pong, then a ping",
        Case([frame(PONG, b"unsolicited"), frame(PING, b"p")], [echoed(PONG, b"p")]),
    )
    pongs = [echoed(PONG, payload) for payload in PINGS]
    yield "2.10 ten pings", Case([frame(PING, payload) for payload in PINGS], pongs)
    stream = b"".join(frame(PING, payload) for payload in PINGS)
    yield "2.11 ten pings octet by octet", Case(chopped(stream, 1), pongs)


def reserved_cases() -> Iterator[tuple[str, Case]]:
    hello = b"Hello, world!"
    for index, rsv in enumerate([1, 2, 3, 5, 6, 7], 1):
        opcode = TEXT if index < 5 else BINARY if index < 6 else PING
        yield f"3.{index} RSV {rsv:03b}", failed(1002, frame(opcode, hello, rsv=rsv))
    yield "3.7 RSV 111 on a close", failed(1002, frame(CLOSE, closing(1000), rsv=7))
    for group, opcodes in ((1, range(3, 8)), (2, range(0xB, 0x10))):
        for index, opcode in enumerate(opcodes, 1):
            yield f"4.{group}.{index} opcode {opcode}", failed(1002, frame(opcode))
            yield f"4.{group}.{index} opcode {opcode} with payload", failed(1002, frame(opcode, hello), frame(PING))
    after = Case([frame(TEXT, hello)], [echoed(TEXT, hello)])
    yield "4.1.3 a text before stays answered", after
    yield "5.1.4 no mask (RFC 6455 5.1)", failed(1002, frame(TEXT, hello, mask=None))


def fragment_cases() -> Iterator[tuple[str, Case]]:
    first, second = fragments(TEXT, b"fragment1", b"fragment2")
    whole = echoed(TEXT, b"fragment1fragment2")
    ping, pong = frame(PING, b"ping payload"), echoed(PONG, b"ping payload")
    yield "5.1 a ping in fragments", failed(1002, *fragments(PING, b"fragment1", b"fragment2"))
    yield "5.2 a pong in fragments", failed(1002, *fragments(PONG, b"fragment1", b"fragment2"))
    yield "5.3 a text in two fragments", Case([first, second], [whole])
    yield "5.4 a text in two fragments, one write", Case([first + second], [whole])
    yield "5.5 a text in two fragments, octet by octet", Case(chopped(first + second, 1), [whole])
    yield "5.6 a ping between two fragments", Case([first, ping, second], [pong, whole])
    yield "5.7 the same in one write", Case([first + ping + second], [pong, whole])
    yield "5.8 the same octet by octet", Case(chopped(first + ping + second, 1), [pong, whole])
    lone = {
        "final": frame(CONT, b"non-continuation payload"),
        "not final": frame(CONT, b"non-continuation payload", fin=False),
    }
    for index, (name, data) in enumerate(lone.items()):
        yield f"5.{9 + 3 * index} nothing to continue, {name}", failed(1002, data, frame(TEXT, b"Hello, world!"))
        yield f"5.{10 + 3 * index} the same in one write", failed(1002, data + frame(TEXT, b"Hello, world!"))
        yield f"5.{11 + 3 * index} the same octet by octet", failed(1002, *chopped(data, 1))
        begun = [frame(TEXT, b"fragment3", fin=False), frame(CONT, b"fragment4")]
        yield f"5.{16 + index} nothing to continue, {name}, then a text in fragments", failed(1002, data, *begun)
    yield "5.18 two beginnings", failed(1002, first, frame(TEXT, b"fragment2"))
    five = fragments(TEXT, *(b"fragment%d" % number for number in range(1, 6)))
    pings = [frame(PING, b"pongme %d!" % number) for number in (1, 2)]
    stream = [five[0], five[1], pings[0], five[2], five[3], pings[1], five[4]]
    answers = [
        echoed(PONG, b"pongme 1!"),
        echoed(PONG, b"pongme 2!"),
        echoed(TEXT, b"fragment1fragment2fragment3fragment4fragment5"),
    ]
    yield "5.19 five fragments, two pings", Case(stream, answers)
    yield "5.20 the same in one write", Case([b"".join(stream)], answers)


VALID_UTF8 = {
    "6.2 hello": HELLO,
    "6.5 kosme": KOSME,
    "6.6 greek": "κόσμεϰ".encode(),
    "6.7.1 NUL": b"\x00",
    "6.7.2 U+0080": b"\xc2\x80",
    "6.7.3 U+0800": b"\xe0\xa0\x80",
    "6.7.4 U+10000": b"\xf0\x90\x80\x80",
    "6.9.1 U+007F": b"\x7f",
    "6.9.2 U+07FF": b"\xdf\xbf",
    "6.9.3 U+FFFF": b"\xef\xbf\xbf",
    "6.9.4 U+10FFFF": b"\xf4\x8f\xbf\xbf",
    "6.11.1 U+D7FF": b"\xed\x9f\xbf",
    "6.11.2 U+E000": b"\xee\x80\x80",
    "6.11.3 U+FFFD": b"\xef\xbf\xbd",
    "6.22.1 U+FFFE": b"\xef\xbf\xbe",
    **{f"6.22 U+{plane:X}FFFE": chr(plane << 16 | 0xFFFE).encode() for plane in range(1, 17)},
    **{f"6.22 U+{plane:X}FFFF": chr(plane << 16 | 0xFFFF).encode() for plane in range(1, 17)},
    "6.23 specials": "\ufff9\ufffa\ufffb\ufffc\ufffd\ufeff".encode(),
}
INVALID_UTF8 = {
    "6.3 in the middle": KOSME + b"\xed\xa0\x80edited",
    "6.4 behind the end": KOSME + b"\xf4\x90\x80\x80edited",
    **{f"6.6 kosme cut after {end}": KOSME[:end] for end in (1, 3, 5, 7, 9)},
    "6.8.1 five bytes": b"\xf8\x88\x80\x80\x80",
    "6.8.2 six bytes": b"\xfc\x84\x80\x80\x80\x80",
    "6.10.1 U+1FFFFF": b"\xf7\xbf\xbf\xbf",
    "6.10.2 U+3FFFFFF": b"\xfb\xbf\xbf\xbf\xbf",
    "6.10.3 U+7FFFFFFF": b"\xfd\xbf\xbf\xbf\xbf\xbf",
    "6.11.5 U+110000": b"\xf4\x90\x80\x80",
    "6.12.1 a continuation byte": b"\x80",
    "6.12.2 the last continuation byte": b"\xbf",
    "6.12.8 all continuation bytes": bytes(range(0x80, 0xC0)),
    "6.13.1 lonely starts of two": b" ".join(bytes([byte]) for byte in range(0xC0, 0xE0)),
    "6.13.2 lonely starts of three": b" ".join(bytes([byte]) for byte in range(0xE0, 0xF0)),
    "6.13.3 lonely starts of four": b" ".join(bytes([byte]) for byte in range(0xF0, 0xF8)),
    "6.14.1 two, one missing": b"\xc0",
    "6.14.2 three, one missing": b"\xe0\x80",
    "6.14.3 four, one missing": b"\xf0\x80\x80",
    "6.14.6 U+07FF, one missing": b"\xdf",
    "6.14.7 U+FFFF, one missing": b"\xef\xbf",
    "6.14.8 U+10FFFF, one missing": b"\xf4\x8f\xbf",
    "6.15 all of them": b"\xc0\xe0\x80\xf0\x80\x80\xdf\xef\xbf\xf7\xbf\xbf",
    "6.16.1 FE": b"\xfe",
    "6.16.2 FF": b"\xff",
    "6.16.3 FE FE FF FF": b"\xfe\xfe\xff\xff",
    "6.17.1 an overlong slash of two": b"\xc0\xaf",
    "6.17.2 an overlong slash of three": b"\xe0\x80\xaf",
    "6.17.3 an overlong slash of four": b"\xf0\x80\x80\xaf",
    "6.18.1 the longest overlong of two": b"\xc1\xbf",
    "6.18.2 the longest overlong of three": b"\xe0\x9f\xbf",
    "6.18.3 the longest overlong of four": b"\xf0\x8f\xbf\xbf",
    "6.19.1 an overlong NUL": b"\xc0\x80",
    "6.20.1 a high surrogate": b"\xed\xa0\x80",
    "6.20.4 the last high surrogate": b"\xed\xaf\xbf",
    "6.20.5 a low surrogate": b"\xed\xb0\x80",
    "6.20.7 the last low surrogate": b"\xed\xbf\xbf",
    "6.21.1 a pair of surrogates": b"\xed\xa0\x80\xed\xb0\x80",
    "6.21.8 the last pair": b"\xed\xaf\xbf\xed\xbf\xbf",
}


def utf8_cases() -> Iterator[tuple[str, Case]]:
    yield "6.1.1 an empty text", bounced(TEXT, b"")
    yield "6.1.2 three empty fragments", bounced(TEXT, b"", *fragments(TEXT, b"", b"", b""))
    yield (
        "6.1.3 an empty, a full and an empty fragment",
        bounced(TEXT, b"middle", *fragments(TEXT, b"", b"middle", b"")),
    )
    for name, text in VALID_UTF8.items():
        octets = chopped(text, 1)
        yield name, bounced(TEXT, text)
        yield f"{name}, a fragment for each octet", bounced(TEXT, text, *fragments(TEXT, *octets))
    for name, text in INVALID_UTF8.items():
        yield name, failed(1007, frame(TEXT, text), frame(PING))
        yield f"{name}, a fragment for each octet", failed(1007, *fragments(TEXT, *chopped(text, 1), b""))
        yield f"{name}, but as binary", bounced(BINARY, text)


CASES = {
    name: case
    for cases in (framing_cases, ping_cases, reserved_cases, fragment_cases, utf8_cases)
    for name, case in cases()
}


@pytest.mark.parametrize("name", CASES)
async def test_autobahn_groups_1_to_6(echo_node: RunningNode, name: str) -> None:
    async with raw_client(f"{echo_node.ws_url}/ws/echo:x") as client:
        await play(client, CASES[name])


@pytest.mark.parametrize("text", [HELLO, KOSME], ids=["hello", "kosme"])
async def test_6_2_text_octet_by_octet_on_the_wire(echo_node: RunningNode, text: bytes) -> None:
    async with raw_client(f"{echo_node.ws_url}/ws/echo:x") as client:
        await play(client, bounced(TEXT, text), octetwise=True)


@pytest.mark.parametrize("before", [b"x", b"*" * 1000])
async def test_4_1_3_what_was_answered_before_a_broken_frame_stays_answered(
    echo_node: RunningNode, before: bytes
) -> None:
    async with raw_client(f"{echo_node.ws_url}/ws/echo:x") as client:
        client.send(frame(TEXT, before))
        assert await client.receive() == echoed(TEXT, before)
        await play(client, failed(1002, frame(5, b"Hello, world!") + frame(PING)))


# Group 7: closing.

GOOD_CLOSES = [
    ("7.1.1 a normal close", closing(1000)),
    ("7.3.1 no code", b""),
    ("7.3.3 a code", closing(1000)),
    ("7.3.4 a code and a reason", closing(1000, "Hello World!")),
    ("7.3.5 the longest reason", closing(1000, "*" * 123)),
    ("7.5 a reason that is not ASCII", closing(1000, "κόσμε")),
    *(
        (f"7.7 code {code}", closing(code, reason))
        for code in (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999)
        for reason in ("", "why")
    ),
]
BAD_CLOSES = [
    ("7.3.2 a code of one byte", b"\x03", 1002),
    ("7.3.6 a reason too long", closing(1000, "*" * 124), 1002),
    ("7.5.1 a reason that is not UTF-8", closing(1000, KOSME + b"\xed\xa0\x80edited"), 1007),
    *(
        (f"7.9 code {code}", closing(code, reason), 1002)
        for code in (0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999, 5000, 65535)
        for reason in ("", "why")
    ),
]


@pytest.mark.parametrize(("name", "payload"), GOOD_CLOSES, ids=lambda value: value if isinstance(value, str) else "")
async def test_7_a_valid_close_is_echoed_and_the_connection_ends(
    echo_node: RunningNode, name: str, payload: bytes
) -> None:
    async with raw_client(f"{echo_node.ws_url}/ws/echo:x") as client:
        client.send(frame(CLOSE, payload))
        assert await client.rest() == [echoed(CLOSE, payload)], name


@pytest.mark.parametrize(
    ("name", "payload", "code"), BAD_CLOSES, ids=lambda value: value if isinstance(value, str) else ""
)
async def test_7_an_invalid_close_is_refused(echo_node: RunningNode, name: str, payload: bytes, code: int) -> None:
    async with raw_client(f"{echo_node.ws_url}/ws/echo:x") as client:
        client.send(frame(CLOSE, payload))
        (close,) = await client.rest()
        assert close_code(close) == code, name


@pytest.mark.parametrize(
    "late",
    [
        pytest.param(frame(CLOSE, closing(1000)), id="7.1.2 a second close"),
        pytest.param(frame(PING, b"?"), id="7.1.3 a ping"),
        pytest.param(frame(TEXT, b"too late"), id="7.1.4 a text"),
        pytest.param(frame(TEXT, b"*" * 65536) + frame(PING), id="7.1.6 a large text and a ping"),
        pytest.param(frame(5, b"x"), id="a broken frame"),
        pytest.param(b"\xff" * 1000, id="garbage"),
    ],
)
async def test_7_1_nothing_behind_a_close_is_answered(echo_node: RunningNode, late: bytes) -> None:
    async with raw_client(f"{echo_node.ws_url}/ws/echo:x") as client:
        client.send(frame(CLOSE, closing(1000)) + late)
        assert await client.rest() == [echoed(CLOSE, closing(1000))]


async def test_7_1_5_a_close_between_two_fragments_is_a_close(echo_node: RunningNode) -> None:
    """RFC 6455 5.4: control frames may stand in the middle of a fragmented message."""
    first, second = fragments(TEXT, b"fragment1", b"fragment2")
    async with raw_client(f"{echo_node.ws_url}/ws/echo:x") as client:
        client.send(first + frame(CLOSE, closing(1000)) + second)
        assert await client.rest() == [echoed(CLOSE, closing(1000))]


async def test_after_a_close_the_socket_is_really_gone(echo_node: RunningNode) -> None:
    async with raw_client(f"{echo_node.ws_url}/ws/echo:x") as client:
        client.send(frame(CLOSE, closing(1000)))
        await client.rest()
        client.writer.write_eof()
        await client.is_cut()
    assert len(echo_node.node.connections) == 0


# Groups 12 and 13: permessage-deflate.


@pytest.mark.parametrize(
    "offer",
    [
        pytest.param("permessage-deflate", id="12"),
        pytest.param("permessage-deflate; client_no_context_takeover; server_no_context_takeover", id="13.1"),
        pytest.param("permessage-deflate; client_max_window_bits", id="13.2"),
        pytest.param("permessage-deflate; client_max_window_bits=9", id="13.3"),
        pytest.param("permessage-deflate; server_max_window_bits=9", id="13.4"),
        pytest.param("permessage-deflate; server_max_window_bits=15; client_max_window_bits", id="13.5"),
        pytest.param("x-unknown, permessage-deflate", id="13.7"),
    ],
)
@pytest.mark.parametrize("size", [0, 16, 64, 256, 1024, 4096, 16384, 65536, 131072])
async def test_12_13_compressed_texts_come_back(echo_node: RunningNode, offer: str, size: int) -> None:
    text = (b'{"name": "gateway", "value": %d, "list": [1, 2, 3]} ' % size * (size // 40 + 1))[:size]
    async with raw_client(f"{echo_node.ws_url}/ws/echo:x", headers=f"Sec-WebSocket-Extensions: {offer}\r\n") as client:
        assert b"permessage-deflate" in client.response
        for _ in range(3):  # no context takeover: each message stands alone
            deflate = zlib.compressobj(wbits=-9)  # readable for every window that can have been agreed on
            packed = (deflate.compress(text) + deflate.flush(zlib.Z_SYNC_FLUSH))[:-4]
            client.send(frame(TEXT, packed, rsv=4))
            answer = await client.receive()
            assert answer.first_byte in {0xC1, 0x81}
            bits = 9 if "server_max_window_bits=9" in offer else 15
            inflate = zlib.decompressobj(wbits=-bits)
            content = answer.payload
            if answer.first_byte == 0xC1:
                content = inflate.decompress(content + b"\x00\x00\xff\xff")
            assert content == text
        client.send(frame(CLOSE, closing(1000)))
        assert await client.rest() == [echoed(CLOSE, closing(1000))]


DEFLATED = {
    "a compressed text in fragments": Case(fragments(TEXT, *chopped(deflated(HELLO), 7), rsv=4), [echoed(TEXT, HELLO)]),
    "a ping between compressed fragments": Case(
        [
            frame(TEXT, deflated(HELLO)[:5], fin=False, rsv=4),
            frame(PING, b"?"),
            frame(CONT, deflated(HELLO)[5:]),
        ],
        [echoed(PONG, b"?"), echoed(TEXT, HELLO)],
    ),
    "a plain text although compression is on": Case([frame(TEXT, HELLO)], [echoed(TEXT, HELLO)]),
    "RSV1 on a continuation": failed(
        1002, frame(TEXT, deflated(HELLO)[:5], fin=False, rsv=4), frame(CONT, deflated(HELLO)[5:], rsv=4)
    ),
    "RSV1 on a ping": failed(1002, frame(PING, b"?", rsv=4)),
    "RSV2 on a compressed text": failed(1002, frame(TEXT, deflated(HELLO), rsv=6)),
    "what is no deflate stream": failed(1002, frame(BINARY, b"\xff" * 20, rsv=4)),
    "bad UTF-8 inside": failed(1007, frame(TEXT, deflated(b"\xed\xa0\x80"), rsv=4)),
    "a bomb": failed(1009, frame(TEXT, deflated(b"*" * (10 * LIMIT + 1)), rsv=4)),
}


@pytest.mark.parametrize("name", DEFLATED)
async def test_compression_keeps_the_rules(echo_node: RunningNode, name: str) -> None:
    async with raw_client(f"{echo_node.ws_url}/ws/echo:x", headers=DEFLATE) as client:
        await play(client, DEFLATED[name])


async def test_a_compressed_answer_is_whole(echo_node: RunningNode) -> None:
    text = b"long enough to be compressed " * 20
    async with raw_client(f"{echo_node.ws_url}/ws/echo:x", headers=DEFLATE) as client:
        client.send(frame(TEXT, text))
        answer = await client.receive()
        assert answer.first_byte == 0xC1
        assert zlib.decompressobj(wbits=-15).decompress(answer.payload + b"\x00\x00\xff\xff") == text
        assert len(answer.payload) < len(text) // 5


async def test_too_big_has_no_reason_on_the_wire(echo_node: RunningNode) -> None:
    async with raw_client(f"{echo_node.ws_url}/ws/echo:x") as client:
        client.send(frame(TEXT, b"*" * 65537))
        assert await client.rest() == [echoed(CLOSE, closing(1009))]
