"""Whether this machine can open as many connections as a run wants: descriptors and ports."""

import ipaddress
import resource
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import urlsplit

SPARE_DESCRIPTORS: Final = 64
"""What a worker has open beside its connections."""
_PORT_SHARE: Final = 0.7
"""The part of a local address' ports that is used: others, and closed connections for a minute, have some of them."""
_DEFAULT_PORTS: Final = (32768, 60999)
_MOST_ADDRESSES: Final = 250


class LimitError(Exception):
    """Why a run of this size can't be made here, and which size can."""


class Machine(NamedTuple):
    """What this machine has."""

    descriptors: int
    """That one process may open, at most."""
    ports: int
    """That one local address has for outgoing connections."""
    has_many_addresses: bool
    """Whether all of 127.0.0.0/8 is there, as on Linux."""


def this_machine() -> Machine:
    """Read the limits of this machine."""
    descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    path = Path("/proc/sys/net/ipv4/ip_local_port_range")
    is_linux = path.exists()
    first, last = map(int, path.read_text().split()) if is_linux else _DEFAULT_PORTS
    return Machine(1 << 30 if descriptors == resource.RLIM_INFINITY else descriptors, last - first + 1, is_linux)


def raise_descriptor_limit() -> None:
    """Let this process, and those that it starts, open as many as may be."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def check_descriptors(connections: int, *, workers: int, machine: Machine) -> None:
    """Refuse more connections than the workers may open.

    Raises:
        LimitError: says how many fit, and what to do.
    """
    each = machine.descriptors - SPARE_DESCRIPTORS
    if -(-connections // workers) > each:
        fitting = max(0, each) * workers
        raise LimitError(
            f"{connections} connections do not fit: {workers} worker(s) may open {machine.descriptors} files each, "
            f"which is enough for {fitting}; use --workers {-(-connections // max(1, each))}, or raise the limit "
            "(ulimit -Hn)"
        )


def local_addresses(connections: int, addresses: Sequence[str], machine: Machine) -> list[str]:
    """Return the local addresses to spread *connections* over; none where the system's own choice does.

    Raises:
        LimitError: if they are too many for the ports that there are.
    """
    to_each = -(-connections // len(addresses))  # a port can be used once for each address that is connected to
    fitting = int(machine.ports * _PORT_SHARE)
    if to_each <= fitting:
        return []
    may_spread = machine.has_many_addresses and all(map(_is_ipv4_loopback, addresses))
    wanted = -(-to_each // fitting)
    if not may_spread or wanted > _MOST_ADDRESSES:
        most = fitting * len(addresses) * (_MOST_ADDRESSES if may_spread else 1)
        raise LimitError(
            f"{connections} connections do not fit: one local address has {machine.ports} ports for each target, of "
            f"which this uses {fitting}, so {most} fit; name more targets"
        )
    return [f"127.0.{1 + number // 200}.{1 + number % 200}" for number in range(wanted)]


def is_loopback(address: str) -> bool:
    """Whether *address* (a URL) names this machine by a loopback address; names other than `localhost` do not count."""
    host = urlsplit(address).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _is_ipv4_loopback(address: str) -> bool:
    return is_loopback(address) and ":" not in (urlsplit(address).hostname or "")
