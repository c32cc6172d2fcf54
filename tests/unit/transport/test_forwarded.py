"""Who is believed about where a request comes from, and who is not."""

import time
from typing import Any

import pytest
from pydantic import ValidationError

from gateway.transport.forwarded import Proxies, ProxySettings

PROXIES = ["10.0.0.0/8", "192.0.2.1", "2001:db8::/32"]
XFF, FORWARDED = "x-forwarded-for", "forwarded"


def client_of(peer: str, header: str, *lines: str, trusted: list[str] | None = None, also: str = "") -> tuple[str, int]:
    """Return the address that counts, and how many headers were malformed."""
    malformed: list[None] = []
    settings = ProxySettings(trusted_proxies=PROXIES if trusted is None else trusted, forwarded_header=header)  # type: ignore[arg-type]
    proxies = Proxies(settings, malformed=lambda: malformed.append(None))
    headers = [(b"host", b"x"), *((header.encode(), line.encode("latin-1")) for line in lines)]
    other = XFF if header == FORWARDED else FORWARDED
    headers += [(other.encode(), also.encode())] if also else []
    return proxies.client_of(peer, headers), len(malformed)


@pytest.mark.parametrize(
    ("peer", "lines", "address"),
    [
        ("10.1.1.1", [], "10.1.1.1"),
        ("10.1.1.1", ["203.0.113.7"], "203.0.113.7"),
        ("192.0.2.1", ["203.0.113.7"], "203.0.113.7"),
        ("192.0.2.2", ["203.0.113.7"], "192.0.2.2"),
        ("203.0.113.9", ["198.51.100.1"], "203.0.113.9"),
        ("10.1.1.1", ["6.6.6.6, 203.0.113.7"], "203.0.113.7"),
        ("10.1.1.1", ["6.6.6.6", "203.0.113.7"], "203.0.113.7"),
        ("10.1.1.1", ["6.6.6.6, 203.0.113.7, 10.2.2.2"], "203.0.113.7"),
        ("10.1.1.1", ["203.0.113.7", "10.2.2.2,10.3.3.3"], "203.0.113.7"),
        ("10.1.1.1", ["10.2.2.2, 10.3.3.3"], "10.2.2.2"),
        ("10.1.1.1", ["<script>, 203.0.113.7"], "203.0.113.7"),
        ("10.1.1.1", ["203.0.113.7:5678"], "203.0.113.7"),
        ("10.1.1.1", ["2001:DB9::0:1"], "2001:db9::1"),
        ("10.1.1.1", ["[2001:db9::1]"], "2001:db9::1"),
        ("10.1.1.1", ["[2001:db9::1]:443"], "2001:db9::1"),
        ("10.1.1.1", ["::ffff:203.0.113.7"], "203.0.113.7"),
        ("::ffff:10.1.1.1", ["203.0.113.7"], "203.0.113.7"),
        ("2001:db8::5", ["\t203.0.113.7 "], "203.0.113.7"),
        ("", ["203.0.113.7"], ""),
    ],
)
def test_the_rightmost_address_that_is_no_proxys_is_the_clients(peer: str, lines: list[str], address: str) -> None:
    assert client_of(peer, XFF, *lines) == (address, 0)
    nodes = [", ".join(_as_forwarded(entry.strip()) for entry in line.split(",")) for line in lines if "<" not in line]
    if len(nodes) == len(lines):
        assert client_of(peer, FORWARDED, *nodes) == (address, 0)


def _as_forwarded(entry: str) -> str:
    if entry.startswith("["):
        return f'for="{entry}"'
    if entry.count(":") > 1:
        return f'For="[{entry}]";proto=https'
    return f'by=_x;for="{entry}"' if ":" in entry else f"for={entry}"


MALFORMED = [
    "",
    "unknown",
    "203.0.113.7 x",
    "203.0.113",
    "203.0.113.256",
    "01.2.3.4",
    "fe80::1%eth0",
    "1.2.3.4:",
    "[::1",
    "::1]",
]
MALFORMED_FORWARDED = [
    "",
    "for",
    "for=",
    "203.0.113.7",
    "by=203.0.113.7",
    "for=2001:db9::1",
    'for="2001:db9::1"',
    "for=[2001:db9::1]",
    "for=1.2.3.4;for=5.6.7.8",
    "for=1.2.3.4;FOR=5.6.7.8",
    'for="1.2.3.4',
    "for =1.2.3.4",
    "for=1.2.3.4 ;by=x",
    'for="[fe80::1%25eth0]"',
]


@pytest.mark.parametrize(
    ("header", "line"), [(XFF, each) for each in MALFORMED] + [(FORWARDED, each) for each in MALFORMED_FORWARDED]
)
def test_what_the_last_proxy_says_and_is_no_address_leaves_the_proxys_own_and_is_counted(
    header: str, line: str
) -> None:
    good = "for=203.0.113.7" if header == FORWARDED else "203.0.113.7"
    assert client_of("10.1.1.1", header, line) == ("10.1.1.1", 1)
    assert client_of("10.1.1.1", header, good, line) == ("10.1.1.1", 1)
    assert client_of("10.1.1.1", header, line, good) == ("203.0.113.7", 0)


@pytest.mark.parametrize("hidden", ["unknown", "Unknown", "_gazonk", '"_gazonk:_port"', '"unknown:80"'])
def test_a_client_that_the_proxy_hides_is_the_proxy(hidden: str) -> None:
    """RFC 7239 6.2 and 6.3; nothing is wrong with that."""
    assert client_of("10.1.1.1", FORWARDED, f"for={hidden}") == ("10.1.1.1", 0)
    assert client_of("10.1.1.1", FORWARDED, f"for=203.0.113.7, for={hidden}, for=10.2.2.2") == ("10.2.2.2", 0)


@pytest.mark.parametrize(
    "clients",
    [
        'for="',
        'for=1.1.1.1;x="',
        'for=1.1.1.1;x="\\',
        'for="x, for=1.1.1.1, by="',
        "for=1.1.1.1,,;",
        '",',
        "for=1.1.1.1;",
    ],
)
@pytest.mark.parametrize("proxys", ["for=203.0.113.7", 'for="203.0.113.7:80"', 'proto=https;for=203.0.113.7;by="a, b"'])
def test_no_quote_that_a_client_leaves_open_swallows_what_the_proxy_adds(clients: str, proxys: str) -> None:
    assert client_of("10.1.1.1", FORWARDED, f"{clients}, {proxys}") == ("203.0.113.7", 0)


def test_commas_and_escapes_within_quotes_are_the_elements_own() -> None:
    line = r'for=203.0.113.7;by="x, for=6.6.6.6"'
    assert client_of("10.1.1.1", FORWARDED, line) == ("203.0.113.7", 0)
    assert client_of("10.1.1.1", FORWARDED, r'for="\203.0.113\.7"') == ("203.0.113.7", 0)


@pytest.mark.parametrize("header", [XFF, FORWARDED])
def test_the_header_that_the_proxies_do_not_set_is_not_read(header: str) -> None:
    """A proxy that sets the one passes on what a client wrote into the other."""
    assert client_of("10.1.1.1", header, also="for=6.6.6.6" if header == XFF else "6.6.6.6") == ("10.1.1.1", 0)


@pytest.mark.parametrize("filler", [" ", "\t", ",", ", ", ';a="', "a=b;", ',a="', '\\"'])
@pytest.mark.parametrize("header", [XFF, FORWARDED])
def test_a_header_full_of_anything_does_not_hold_up_the_loop(header: str, filler: str) -> None:
    """The longest that a head has room for; blanks once took seconds."""
    own = "203.0.113.7" if header == XFF else "for=203.0.113.7"
    line = f",{filler * (15_000 // len(filler))}x, {own}"
    began_s = time.process_time()
    assert client_of("10.1.1.1", header, line) == ("203.0.113.7", 0)
    assert time.process_time() - began_s < 0.3


@pytest.mark.parametrize(("trusted", "address"), [(["unix:"], "203.0.113.7"), (["127.0.0.1"], ""), ([], "")])
def test_who_comes_by_a_unix_socket_is_trusted_by_name(trusted: list[str], address: str) -> None:
    assert client_of("", XFF, "203.0.113.7", trusted=trusted) == (address, 0)


def test_a_reload_changes_who_is_trusted() -> None:
    proxies = Proxies(ProxySettings(trusted_proxies=["10.0.0.0/8"]), malformed=lambda: None)
    headers = [(b"x-forwarded-for", b"203.0.113.7")]
    assert proxies.client_of("10.1.1.1", headers) == "203.0.113.7"
    proxies.reconfigure(ProxySettings(trusted_proxies=["192.0.2.1"]))
    assert [proxies.client_of(peer, headers) for peer in ("10.1.1.1", "192.0.2.1")] == ["10.1.1.1", "203.0.113.7"]
    proxies.reconfigure(ProxySettings())
    assert (proxies.client_of("192.0.2.1", headers), proxies.are_there) == ("192.0.2.1", False)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"trusted_proxies": ["10.0.0.1/8"]}, "has host bits set; a network is written"),
        ({"trusted_proxies": ["proxy.example"]}, "does not appear to be an IPv4 or IPv6 network"),
        ({"trusted_proxies": ["*"]}, "does not appear"),
        ({"proxy_protocol": True}, "proxy_protocol needs trusted_proxies"),
        ({"forwarded_header": "x-real-ip"}, "must be one of 'x-forwarded-for', 'forwarded'"),
    ],
)
def test_settings_that_mean_nothing_are_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        ProxySettings(**values)
