"""Readers of what proxies say, against other people's, and against what nobody sane would send."""

import ipaddress
import struct
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from proxyprotocol import ProxyProtocolIncompleteError
from proxyprotocol.detect import ProxyProtocolDetect
from uvicorn.middleware.proxy_headers import _TrustedHosts

from gateway.transport.forwarded import Proxies, ProxySettings, canonical
from gateway.transport.proxy_header import LONGEST_2, HeaderReader, ProxyHeaderError

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
NETWORKS = ["10.0.0.0/8", "2001:db8::/32"]

addresses_4 = st.ip_addresses(v=4)
addresses_6 = st.ip_addresses(v=6)
proxies_4 = st.ip_addresses(network="10.0.0.0/8")
ports = st.integers(0, 65535)
pieces = st.lists(st.integers(1, 40), min_size=1, max_size=8)


@st.composite
def lines(draw: st.DrawFn) -> bytes:
    kind, addresses = draw(st.sampled_from([("TCP4", addresses_4), ("TCP6", addresses_6)]))
    source, target = draw(addresses), draw(addresses)
    return f"PROXY {kind} {source} {target} {draw(ports)} {draw(ports)}\r\n".encode()


@st.composite
def binaries(draw: st.DrawFn) -> bytes:
    family, addresses = draw(st.sampled_from([(0x11, addresses_4), (0x21, addresses_6)]))
    packed = draw(addresses).packed + draw(addresses).packed + struct.pack(">HH", draw(ports), draw(ports))
    additions = b"".join(
        struct.pack(">BH", kind, len(value)) + value
        for kind, value in draw(st.lists(st.tuples(st.just(0xE0), st.binary(max_size=20)), max_size=3))
    )
    is_local = draw(st.booleans())
    block = additions if is_local else packed + additions
    return SIGNATURE + struct.pack(">BBH", 0x20 if is_local else 0x21, 0 if is_local else family, len(block)) + block


headers = lines() | binaries()


def ours(stream: bytes, sizes: list[int]) -> tuple[str | None, int] | None:
    """Return source and length of the header, `None` if it is incomplete."""
    reader, position, number = HeaderReader(), 0, 0
    while not reader.is_complete:
        piece = stream[position : position + sizes[number % len(sizes)]]
        if not piece:
            return None
        taken = reader.feed(piece)
        is_whole: bool = reader.is_complete
        assert is_whole or taken == len(piece)
        position += taken
        number += 1
    return reader.source, position


def theirs(stream: bytes) -> tuple[str | None, int] | None:
    """Read *stream* with `proxy-protocol`, which asks for more until it has enough."""
    parser, data = ProxyProtocolDetect(), b""
    while True:
        try:
            result = parser.unpack(data)
        except ProxyProtocolIncompleteError as error:
            want: Any = error.want_read
            size = len(data) + (want.want_bytes or 0)
            if want.want_line:
                size = stream.find(b"\r\n", len(data)) + 2
            if size <= len(data) or size > len(stream):
                return None
            data = stream[:size]
            continue
        source: Any = result.source
        known = isinstance(source, tuple) and result.proxied
        return (str(source[0]) if known else None), len(data)


@given(headers, st.binary(max_size=30), pieces)
def test_headers_mean_to_us_what_they_mean_to_others(header: bytes, rest: bytes, sizes: list[int]) -> None:
    found = ours(header + rest, sizes)
    assert found == (_canonical(theirs(header + rest)))
    assert found is not None
    assert found[1] == len(header)


def _canonical(found: tuple[str | None, int] | None) -> tuple[str | None, int] | None:
    return None if found is None else (str(ipaddress.ip_address(found[0])) if found[0] else None, found[1])


@given(headers, st.data(), pieces)
def test_one_changed_byte_is_refused_or_read_as_others_read_it(
    header: bytes, data: st.DataObject, sizes: list[int]
) -> None:
    """We may be stricter than others, and never see an address where they see another one."""
    at = data.draw(st.integers(0, len(header) - 1))
    changed = header[:at] + bytes([data.draw(st.integers(0, 255))]) + header[at + 1 :]
    try:
        found = ours(changed, sizes)
    except ProxyHeaderError:
        return
    if found is None or found[0] is None:
        return
    try:
        other = theirs(changed)
    except ValueError:
        raise AssertionError(f"taken as {found}, and others refuse it: {changed!r}") from None
    assert found == _canonical(other)


@given(st.binary(max_size=LONGEST_2), pieces)
def test_noise_is_refused_or_waited_for_and_never_raises_anything_else(noise: bytes, sizes: list[int]) -> None:
    for stream in (noise, SIGNATURE + noise, b"PROXY " + noise):
        try:
            found = ours(stream, sizes)
        except ProxyHeaderError:
            continue
        assert found is None or found[1] <= LONGEST_2


def client_of(header: str, peer: str, values: list[bytes]) -> tuple[str, int]:
    malformed: list[None] = []
    settings = ProxySettings(trusted_proxies=NETWORKS, forwarded_header=header)  # type: ignore[arg-type]  # a text does
    proxies = Proxies(settings, malformed=lambda: malformed.append(None))
    return proxies.client_of(peer, [(header.encode(), value) for value in values]), len(malformed)


hops = st.lists(proxies_4 | addresses_4 | addresses_6, min_size=1, max_size=6)


@given(hops)
def test_x_forwarded_for_means_to_us_what_it_means_to_uvicorn(way: list[Any]) -> None:
    line = ", ".join(map(str, way))
    expected = _TrustedHosts(NETWORKS).get_trusted_client_address(line)[0]
    assert client_of("x-forwarded-for", "10.1.1.1", [line.encode()]) == (canonical(expected), 0)


@given(hops, st.data())
def test_both_headers_tell_the_same_however_they_are_spread_over_lines(way: list[Any], data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(way)))
    listed = [b", ".join(str(each).encode() for each in part) for part in (way[:cut], way[cut:]) if part]
    nodes = [f'for="[{each}]"' if each.version == 6 else f"for={each}" for each in way]
    forwarded = [", ".join(part).encode() for part in (nodes[:cut], nodes[cut:]) if part]
    assert client_of("x-forwarded-for", "10.1.1.1", listed) == client_of("forwarded", "10.1.1.1", forwarded)


noise = st.text(st.characters(max_codepoint=255), max_size=60).map(lambda text: text.encode("latin-1"))
hostile = noise | st.text('for="[]:;,.= \\123ax_', max_size=40).map(str.encode)


@given(hostile, st.sampled_from(["x-forwarded-for", "forwarded"]))
def test_whatever_a_client_writes_the_address_that_the_proxy_adds_is_the_one_that_counts(
    written: bytes, header: str
) -> None:
    added = b"for=203.0.113.7" if header == "forwarded" else b"203.0.113.7"
    assert client_of(header, "10.1.1.1", [written + b", " + added]) == ("203.0.113.7", 0)
    assert client_of(header, "10.1.1.1", [written, added]) == ("203.0.113.7", 0)


@given(st.lists(hostile, max_size=3), st.sampled_from(["x-forwarded-for", "forwarded"]))
def test_noise_from_a_proxy_gives_an_address_or_leaves_its_own(values: list[bytes], header: str) -> None:
    address, malformed = client_of(header, "10.1.1.1", values)
    assert canonical(address) == address
    assert malformed in {0, 1}
