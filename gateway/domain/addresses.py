"""Limits for each address that clients come from.

An IPv6 client has a whole network to choose addresses from, so those of one /64 count as one.
"""

import ipaddress
from collections import Counter, OrderedDict
from typing import Final

from gateway.domain.ratelimit import RateLimit, TokenBucket

_SITE_BITS: Final = 64
MAX_REMEMBERED: Final = 65536
"""Addresses whose rate is remembered; the one that has not come for longest is forgotten for a new one."""


def address_key(address: str) -> str:
    """Return what is limited together with *address*: the network of an IPv6 address, else itself.

    An IPv4 client of a socket that listens for both (`::ffff:192.0.2.1`) is one of IPv4. What is no address stands for
    itself.
    """
    if ":" not in address:
        return address
    try:
        parsed = ipaddress.IPv6Address(address.partition("%")[0])
    except ValueError:
        return address
    return str(parsed.ipv4_mapped or ipaddress.IPv6Network((int(parsed), _SITE_BITS), strict=False))


class AddressLimits:
    """Counts what comes from each address, up to a number at the same time and a number a second; 0 is no limit.

    An empty address is nobody's in particular, and not limited.
    """

    def __init__(self) -> None:
        self._count_limit = 0
        self._rate: RateLimit | None = None
        self._open: Counter[str] = Counter()
        self._keys: dict[object, str] = {}
        self._buckets: OrderedDict[str, TokenBucket] = OrderedDict()

    def reconfigure(self, *, count: int, rate: int) -> None:
        """Go by these limits from now on. While there was no limit of their number, connections were not counted."""
        self._count_limit = count
        self._rate = RateLimit(rate, rate) if rate else None

    def __len__(self) -> int:
        """Count the connections that are counted."""
        return len(self._keys)

    def refuse(self, address: str, *, now_s: float) -> str | None:
        """Return the limit that one more connection from *address* would break, `None` if there is none."""
        if not address or not (self._count_limit or self._rate):
            return None
        key = address_key(address)
        if self._count_limit and self._open.get(key, 0) >= self._count_limit:
            return "connection_limit_per_address"
        if self._rate is not None and not self._bucket(key).admit(self._rate, now_s=now_s):
            return "connection_rate_limit_per_address"
        return None

    def enter(self, connection: object, address: str) -> None:
        """Count a connection that was let in, until it leaves."""
        if self._count_limit and address:
            key = self._keys[connection] = address_key(address)
            self._open[key] += 1

    def leave(self, connection: object) -> None:
        """Count a connection out, if it was counted."""
        key = self._keys.pop(connection, None)
        if key is not None:
            self._open[key] -= 1
            if not self._open[key]:
                del self._open[key]

    def _bucket(self, key: str) -> TokenBucket:
        bucket = self._buckets.get(key)
        if bucket is None:
            if len(self._buckets) >= MAX_REMEMBERED:
                self._buckets.popitem(last=False)
            bucket = self._buckets[key] = TokenBucket()
        self._buckets.move_to_end(key)
        return bucket
