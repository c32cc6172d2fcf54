"""Headers of the PROXY protocol, as its description has them, and whatever is none."""

import ipaddress
import struct
from typing import Final

import pytest

from gateway.transport.proxy_header import LONGEST_1, LONGEST_2, HeaderReader, ProxyHeaderError

SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"
REST: Final = b"GET / HTTP/1.1\r\n\r\n"
V4: Final = ipaddress.IPv4Address("203.0.113.7").packed + ipaddress.IPv4Address("10.0.0.1").packed + b"\x01\xbb\x00\x50"
V6: Final = ipaddress.IPv6Address("2001:db8::7").packed * 2 + b"\x01\xbb\x00\x50"
TLV: Final = b"\x04\x00\x03abc\x03\x00\x04crcc\xe0\x00\x00"


def version_2(version_command: int, family: int, block: bytes) -> bytes:
    return SIGNATURE + struct.pack(">BBH", version_command, family, len(block)) + block


GOOD: Final = [
    (b"PROXY TCP4 203.0.113.7 10.0.0.1 56324 443\r\n", "203.0.113.7"),
    (b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", "255.255.255.255"),
    (b"PROXY TCP6 2001:DB8::7 ::1 0 1\r\n", "2001:db8::7"),
    (
        b"PROXY TCP6 "
        + b" ".join([b"ffff:f...f:ffff".replace(b"f...f", b":".join([b"ffff"] * 6))] * 2)
        + b" 65535 65535\r\n",
        "ffff:" * 7 + "ffff",
    ),
    (b"PROXY UNKNOWN\r\n", None),
    (b"PROXY UNKNOWN ffff:x whatever 1\r\n", None),
    (b"PROXY UNKNOWN " + b"x" * (LONGEST_1 - 16) + b"\r\n", None),
    (version_2(0x21, 0x11, V4), "203.0.113.7"),
    (version_2(0x21, 0x11, V4 + TLV), "203.0.113.7"),
    (version_2(0x21, 0x21, V6), "2001:db8::7"),
    (version_2(0x21, 0x21, V6 + TLV), "2001:db8::7"),
    (version_2(0x21, 0x31, b"/run/x.sock".ljust(216, b"\0")), None),
    (version_2(0x21, 0x12, V4), None),
    (version_2(0x21, 0x00, b""), None),
    (version_2(0x21, 0x00, TLV), None),
    (version_2(0x20, 0x00, b""), None),
    (version_2(0x20, 0x11, V4), None),
    (version_2(0x20, 0xFF, b"ignored"), None),
    (version_2(0x21, 0x11, V4.ljust(LONGEST_2 - 16, b"\0")), "203.0.113.7"),
]
BAD: Final = [
    REST,
    b"\x16\x03\x01",
    b"PROXY\r\n",
    b"PROXY  TCP4 203.0.113.7 10.0.0.1 1 2\r\n",
    b"proxy TCP4 203.0.113.7 10.0.0.1 1 2\r\n",
    b"PROXY TCP5 203.0.113.7 10.0.0.1 1 2\r\n",
    b"PROXY UDP4 203.0.113.7 10.0.0.1 1 2\r\n",
    b"PROXY TCP4 203.0.113.7 10.0.0.1 1\r\n",
    b"PROXY TCP4 203.0.113.7 10.0.0.1 1 2 3\r\n",
    b"PROXY TCP4 203.0.113.7 10.0.0.1 1 65536\r\n",
    b"PROXY TCP4 203.0.113.7 10.0.0.1 01 2\r\n",
    b"PROXY TCP4 203.0.113.7 10.0.0.1 -1 2\r\n",
    b"PROXY TCP4 203.0.113.07 10.0.0.1 1 2\r\n",
    b"PROXY TCP4 2001:db8::7 ::1 1 2\r\n",
    b"PROXY TCP6 203.0.113.7 10.0.0.1 1 2\r\n",
    b"PROXY TCP6 fe80::1%1 ::1 1 2\r\n",
    b"PROXY TCP6 ::1 nonsense 1 2\r\n",
    b"PROXY TCP4 \xc2\xb2.0.0.1 10.0.0.1 1 2\r\n",
    b"PROXY UNKNOWNX\r\n",
    b"PROXY UNKNOWN " + b"x" * (LONGEST_1 - 15) + b"\r\n",
    b"PROXY TCP4 203.0.113.7 10.0.0.1 1 2\n" + b"x" * LONGEST_1,
    version_2(0x11, 0x11, V4),
    version_2(0x31, 0x11, V4),
    version_2(0x22, 0x11, V4),
    version_2(0x21, 0x41, V4),
    version_2(0x21, 0x13, V4),
    version_2(0x21, 0x11, V4[:-1]),
    version_2(0x21, 0x21, V4),
    version_2(0x21, 0x31, V6),
    version_2(0x21, 0x11, V4.ljust(LONGEST_2 - 15, b"\0")),
    SIGNATURE[:-1] + b"\r",
]


def read(pieces: list[bytes]) -> tuple[bool, str | None, bytes]:
    """Return whether it is complete, the source, and what was left over."""
    reader, left = HeaderReader(), b""
    for piece in pieces:
        if reader.is_complete:
            left += piece
            continue
        taken = reader.feed(piece)
        assert 0 <= taken <= len(piece)
        is_whole: bool = reader.is_complete
        assert is_whole or taken == len(piece)
        left += piece[taken:]
    return reader.is_complete, reader.source, left


@pytest.mark.parametrize(("header", "source"), GOOD)
def test_a_header_is_read_however_it_comes_and_nothing_beyond_it(header: bytes, source: str | None) -> None:
    stream = header + REST
    assert read([stream]) == (True, source, REST)
    assert read([bytes([each]) for each in stream]) == (True, source, REST)
    for cut in range(len(stream)):
        assert read([stream[:cut], stream[cut:]]) == (True, source, REST)


@pytest.mark.parametrize(("header", "_"), GOOD)
def test_a_header_that_is_cut_short_is_not_complete(header: bytes, _: str | None) -> None:
    for cut in range(len(header)):
        assert read([header[:cut]]) == (False, None, b"")


@pytest.mark.parametrize("stream", BAD)
def test_what_is_no_header_is_an_error_as_soon_as_that_is_certain(stream: bytes) -> None:
    with pytest.raises(ProxyHeaderError):
        read([stream])
    with pytest.raises(ProxyHeaderError):
        read([bytes([each]) for each in stream])


@pytest.mark.parametrize("wrong", [b"G", b"\x16", b"PROXYX", b"\r\n\r\n\x01", b"PX"])
def test_the_first_wrong_byte_is_enough(wrong: bytes) -> None:
    reader = HeaderReader()
    for each in wrong[:-1]:
        reader.feed(bytes([each]))
    with pytest.raises(ProxyHeaderError, match="no PROXY header"):
        reader.feed(wrong[-1:])
