"""The PROXY protocol's header, versions 1 and 2, without I/O: bytes in, the client's address out.

https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt describes both. What is no header, or not a whole and
correct one, is an error: "the receiver MUST NOT try to guess whether the header is there". Checksums and other
additions (TLVs) are skipped.
"""

import ipaddress
import re
import struct
from typing import Final

_SIGNATURE_1: Final = b"PROXY "
_SIGNATURE_2: Final = b"\r\n\r\n\x00\r\nQUIT\n"
LONGEST_1: Final = 107
"""In bytes, its line end included (2.1)."""
LONGEST_2: Final = 4096
"""The length field allows 65,551 bytes; nobody sends as much, and who does is cut."""
_END: Final = b"\r\n"
_FIXED: Final = struct.Struct(">12xBBH")
_LINE: Final = re.compile(rb"PROXY TCP([46]) (\S+) (\S+) (0|[1-9][0-9]{0,4}) (0|[1-9][0-9]{0,4})")
_UNKNOWN: Final = re.compile(rb"PROXY UNKNOWN( .*)?", re.DOTALL)
_HIGHEST_PORT: Final = 65535

# 2.2: the upper four bits are the version and the address family, the lower ones the command and the transport.
_VERSION_2: Final = 2
_LOCAL, _PROXY = 0, 1
_UNSPEC, _INET, _INET6, _UNIX = range(4)
_HIGHEST_TRANSPORT: Final = 2
_STREAM: Final = 1
_ADDRESS_BYTES: Final = {_UNSPEC: 0, _INET: 12, _INET6: 36, _UNIX: 216}


class ProxyHeaderError(Exception):
    """What came is no PROXY header; the text says why."""


class HeaderReader:
    """Reads the one header at the beginning of a connection, in however many pieces it comes.

    `feed` it until it `is_complete`. Then *source* is the client's address, or `None` where the header gives none: for
    a check of the proxy's own (LOCAL, UNKNOWN), and for what is no TCP connection.
    """

    def __init__(self) -> None:
        self.is_complete = False
        self.source: str | None = None
        self._read = b""

    @property
    def has_begun(self) -> bool:
        """Whether anything has come."""
        return bool(self._read)

    def feed(self, data: bytes) -> int:
        """Take of *data* what belongs to the header, and return how many bytes that are; the rest is the client's.

        Raises:
            ProxyHeaderError: as soon as it can't become a header any more.
        """
        read = self._read + data
        if read.startswith(_SIGNATURE_2[: len(read)]):
            length = self._take_2(read)
        elif read.startswith(_SIGNATURE_1[: len(read)]):
            length = self._take_1(read)
        else:
            raise ProxyHeaderError("it begins with no PROXY header")
        taken, self._read = length - len(self._read), read[:length]
        return taken

    def _take_1(self, read: bytes) -> int:
        end = read.find(_END, 0, LONGEST_1)
        if end >= 0:
            self.source = _source_1(read[:end])
            self.is_complete = True
            return end + len(_END)
        if len(read) >= LONGEST_1:
            raise ProxyHeaderError(f"a line of version 1 ends within {LONGEST_1} bytes")
        return len(read)

    def _take_2(self, read: bytes) -> int:
        if len(read) < _FIXED.size:
            return len(read)
        version_command, family_transport, size = _FIXED.unpack_from(read)
        length: int = _FIXED.size + size
        if length > LONGEST_2:
            raise ProxyHeaderError(f"a header of {length} bytes; at most {LONGEST_2} are read")
        if len(read) < length:
            return len(read)
        self.source = _source_2(version_command, family_transport, read[_FIXED.size : length])
        self.is_complete = True
        return length


def _source_1(line: bytes) -> str | None:
    if _UNKNOWN.fullmatch(line):
        return None
    match = _LINE.fullmatch(line)
    if match is None or any(int(port) > _HIGHEST_PORT for port in match.group(4, 5)):
        raise ProxyHeaderError("its line of version 1 is malformed")
    kind = ipaddress.IPv4Address if match[1] == b"4" else ipaddress.IPv6Address
    try:
        source, _ = (kind(address.decode("ascii")) for address in match.group(2, 3))
    except ValueError:
        raise ProxyHeaderError("an address in its line of version 1 is malformed") from None
    if b"%" in match[2]:  # ipaddress takes a zone, which means nothing on another machine
        raise ProxyHeaderError("an address in its line of version 1 is malformed")
    return str(source)


def _source_2(version_command: int, family_transport: int, rest: bytes) -> str | None:
    version, command = divmod(version_command, 16)
    family, transport = divmod(family_transport, 16)
    if version != _VERSION_2 or command not in {_LOCAL, _PROXY}:
        raise ProxyHeaderError("its version or command is none of version 2")
    if command == _LOCAL:
        return None  # "the receiver must [...] ignore the protocol block, including the family"
    if family not in _ADDRESS_BYTES or transport > _HIGHEST_TRANSPORT:
        raise ProxyHeaderError("its address family or transport is none of version 2")
    if len(rest) < _ADDRESS_BYTES[family]:
        raise ProxyHeaderError("it is too short for its addresses")
    if transport != _STREAM:
        return None
    match family:
        case 1:
            return str(ipaddress.IPv4Address(rest[:4]))
        case 2:
            return str(ipaddress.IPv6Address(rest[:16]))
        case _:
            return None
