"""Where a client comes from when proxies stand between it and the gateway (RFC 7239, X-Forwarded-For).

An address is believed as far as the one is trusted who says it. So the way is walked back from the socket: while the
address at hand is a trusted proxy's, the one that this proxy has put at the right end is next; the first that is not
trusted is the client's. What stands left of it anybody may have written, and it is not even read. Only one of the two
headers counts, since a proxy that sets one of them passes on what clients write into the other.
"""

import functools
import ipaddress
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import StrEnum
from typing import Annotated, Final, Self

from pydantic import AfterValidator, Field, model_validator

from gateway.settings import Settings, one_of

UNIX: Final = "unix:"
"""Stands for whoever connects to a Unix socket, in the list of trusted proxies."""
_MAX_REMEMBERED: Final = 4096

Headers = Iterable[tuple[bytes, bytes]]
"""Names in small letters, and values, as they came."""


def _is_network(text: str) -> str:
    if text != UNIX:
        try:
            ipaddress.ip_network(text)
        except ValueError as error:
            raise ValueError(f'{error}; a network is written "10.0.0.0/8", "2001:db8::/32" or as one address') from None
    return text


class ForwardedHeader(StrEnum):
    """The header in which trusted proxies tell where a request comes from."""

    X_FORWARDED_FOR = "x-forwarded-for"
    FORWARDED = "forwarded"


class ProxySettings(Settings):
    """The proxies before the ports; part of the table `http_server`."""

    trusted_proxies: list[Annotated[str, AfterValidator(_is_network)]] = Field(default=[])
    """Addresses and networks (`10.0.0.0/8`) of proxies that may say where a client comes from; `unix:` for all who
    connect to a Unix socket. Nobody else is believed."""
    forwarded_header: Annotated[ForwardedHeader, one_of(ForwardedHeader)] = ForwardedHeader.X_FORWARDED_FOR
    """Where they say it: `x-forwarded-for` or `forwarded` (RFC 7239). The other one is not read."""
    proxy_protocol: bool = False
    """On the public port, connections from trusted proxies begin with a header of the PROXY protocol, version 1 or 2,
    before TLS. Those of others are served without one."""

    @model_validator(mode="after")
    def _need_somebody_to_trust(self) -> Self:
        if self.proxy_protocol and not self.trusted_proxies:
            message = "proxy_protocol needs trusted_proxies: whose headers are to be believed"
            raise ValueError(message)
        return self


class Proxies:
    """The trusted proxies and what they say. *malformed* is called for each header that does not say anything."""

    def __init__(self, settings: ProxySettings, *, malformed: Callable[[], None]) -> None:
        self._malformed = malformed
        self.reconfigure(settings)

    def reconfigure(self, settings: ProxySettings) -> None:
        """Trust those of *settings* from now on, and nobody else."""
        self.are_there = bool(settings.trusted_proxies)
        """Whether anybody is trusted."""
        self._trusts_unix = UNIX in settings.trusted_proxies
        self._networks = [ipaddress.ip_network(each) for each in settings.trusted_proxies if each != UNIX]
        self._header = settings.forwarded_header.value.encode()
        self._hops = forwarded_hops if settings.forwarded_header is ForwardedHeader.FORWARDED else listed_hops
        self._is_trusted = functools.lru_cache(_MAX_REMEMBERED)(self._find)

    def trusts(self, address: str) -> bool:
        """Tell whether *address*, or "" for a Unix socket, is a trusted proxy's."""
        return self._is_trusted(address)

    def client_of(self, peer: str, headers: Headers) -> str:
        """Return where the request comes from that came over a connection from *peer*."""
        address = peer
        if not self.trusts(address):
            return address
        hops = self._hops([value for name, value in headers if name == self._header])
        while self.trusts(address):
            try:
                before = next(hops, None)
            except ValueError:
                self._malformed()
                break
            if before is None:
                break
            address = before
        return address

    def _find(self, address: str) -> bool:
        if not address:
            return self._trusts_unix
        try:
            parsed = ipaddress.ip_address(canonical(address))
        except ValueError:
            return False
        return any(parsed in network for network in self._networks)


def canonical(address: str) -> str:
    """Write an address in its one form; an IPv4 address that came by IPv6 is one of IPv4.

    Raises:
        ValueError: if it is none, or one with a zone, which means nothing elsewhere.
    """
    parsed = ipaddress.ip_address(address)
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.scope_id is not None:
            raise ValueError(f"{address!r} has a zone")
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
    return str(parsed)


# X-Forwarded-For. Nobody has written down what it may hold; some proxies add the port.
_LISTED: Final = re.compile(r"\[([0-9a-fA-F:.]+)\](?::\d{1,5})?|(\d+\.\d+\.\d+\.\d+)(?::\d{1,5})?|([0-9a-fA-F:.]+)")


def listed_hops(lines: Sequence[bytes]) -> Iterator[str]:
    """Walk the addresses of X-Forwarded-For from the right.

    Raises:
        ValueError: at one that is no address.
    """
    for line in reversed(lines):
        for entry in reversed(line.decode("latin-1").split(",")):
            match = _LISTED.fullmatch(entry.strip(" \t"))
            if match is None:
                raise ValueError("no address")
            yield canonical(match[1] or match[2] or match[3])


# RFC 7239 4: Forwarded   = 1#forwarded-element
#             forwarded-element = [ forwarded-pair ] *( ";" [ forwarded-pair ] )
#             forwarded-pair = token "=" value            value = token / quoted-string
_WORD: Final = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
_QUOTED: Final = r'"(?:[^"\\]|\\.)*+"'
_PAIR: Final = rf"{_WORD}=(?:{_WORD}|{_QUOTED})"
_PAIRS: Final = re.compile(rf"({_WORD})=({_WORD}|{_QUOTED})")
# The element at the right end. It is looked for from there: an open quote further left, which a client may have put
# there, must not swallow what the proxy has added. Commas within quotes are the element's own. Blanks are taken for
# good (`*+`): to try each number of them would be quadratic, and what stands further left anybody may have written.
_LAST: Final = re.compile(rf"(?:^|,)[ \t]*+((?:{_PAIR})?(?:;(?:{_PAIR})?)*+)[ \t]*+$")
# 6: nodename = IPv4address / "[" IPv6address "]" / "unknown" / obfnode
_NODE: Final = re.compile(r"(?:(\d+\.\d+\.\d+\.\d+)|\[([0-9a-fA-F:.]+)\])(?::(?:\d{1,5}|_[A-Za-z0-9._\-]+))?")
_HIDDEN: Final = re.compile(r"(?:unknown|_[A-Za-z0-9._\-]+)(?::(?:\d{1,5}|_[A-Za-z0-9._\-]+))?", re.IGNORECASE)


def forwarded_hops(lines: Sequence[bytes]) -> Iterator[str]:
    """Walk the addresses of `Forwarded` from the right, up to one that is hidden (`unknown`, `_name`).

    Raises:
        ValueError: at an element that has no address, or is malformed.
    """
    for line in reversed(lines):
        rest: str | None = line.decode("latin-1")
        while rest is not None:
            match = _LAST.search(rest)
            if match is None:
                raise ValueError("no forwarded-element")
            node = _node_of(match[1])
            if _HIDDEN.fullmatch(node):
                return
            address = _NODE.fullmatch(node)
            if address is None:
                raise ValueError("no node")
            yield canonical(address[1] or address[2])
            rest = rest[: match.start()] if match.start() else None


def _node_of(element: str) -> str:
    """Return the value of the parameter `for`, without quotes."""
    found: dict[str, str] = {}
    for name, value in _PAIRS.findall(element):
        if name.lower() in found:
            raise ValueError("a parameter that is there twice")  # "Each parameter MUST NOT occur more than once"
        found[name.lower()] = value
    value = found.get("for", "")
    return re.sub(r"\\(.)", r"\1", value[1:-1]) if value.startswith('"') else value
