"""What a cluster changes on the machine that it runs on, and puts back: a bridge, routes, rules, kernel settings."""

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

BRIDGE: Final = "gwtrial"
HOST: Final = "10.244.0.1"
"""This machine, as pods and nodes see it."""
SERVICES: Final = "10.96.0.0/16"
PODS: Final = "10.245.0.0/16"
# What kubelets set for themselves.
_SETTINGS: Final = (
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
)
_TIMEOUT_S: Final = 30


def address_of(number: int) -> str:
    """Return a node's address."""
    return f"10.244.0.{10 + number}"


def pods_of(number: int) -> str:
    """Return the network of a node's pods."""
    return f"10.245.{number}.0/24"


def namespace_of(number: int) -> str:
    """Return the name of a node's network namespace."""
    return f"{BRIDGE}-n{number}"


def link_of(number: int) -> str:
    """Return this machine's end of a node's link."""
    return f"{BRIDGE}{number}"


def ip(*arguments: str) -> None:
    """Run `ip`."""
    _run(["ip", *arguments])


@contextmanager
def bridged(numbers: Sequence[int]) -> Iterator[None]:
    """Have a network namespace for each node, all on one bridge of this machine, until the block ends."""
    settings = {path: path.read_text() for name in _SETTINGS if (path := Path("/proc/sys") / name).exists()}
    try:
        ip("link", "add", BRIDGE, "type", "bridge")
        ip("address", "add", f"{HOST}/24", "dev", BRIDGE)
        ip("link", "set", BRIDGE, "up")
        # Where a container engine filters what crosses bridges, it knows nothing of this one.
        for way in ("--in-interface", "--out-interface"):
            _run(["iptables", "--insert", "FORWARD", way, BRIDGE, "--jump", "ACCEPT"])
        for number in numbers:
            _add_node(number, [other for other in numbers if other != number])
        # The last node's kube-proxy is this machine's way to Services.
        ip("route", "replace", SERVICES, "via", address_of(numbers[-1]))
        yield
    finally:
        for number in numbers:
            _run(["ip", "netns", "delete", namespace_of(number)], check=False)
        _run(["ip", "link", "delete", BRIDGE], check=False)
        for way in ("--in-interface", "--out-interface"):
            _run(["iptables", "--delete", "FORWARD", way, BRIDGE, "--jump", "ACCEPT"], check=False)
        for path, text in settings.items():
            path.write_text(text)


def _add_node(number: int, others: Sequence[int]) -> None:
    namespace, link, address = namespace_of(number), link_of(number), address_of(number)
    ip("netns", "add", namespace)
    ip("link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", namespace)
    ip("link", "set", link, "master", BRIDGE, "up")
    ip("-n", namespace, "address", "add", f"{address}/24", "dev", "eth0")
    for device in ("eth0", "lo"):
        ip("-n", namespace, "link", "set", device, "up")
    ip("-n", namespace, "route", "add", "default", "via", HOST)
    for other in others:
        ip("-n", namespace, "route", "add", pods_of(other), "via", address_of(other))
    ip("route", "replace", pods_of(number), "via", address)
    _run(["ip", "netns", "exec", namespace, "sysctl", "-qw", "net.ipv4.ip_forward=1"])


def _run(command: Sequence[str], *, check: bool = True) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_TIMEOUT_S)
    if check and done.returncode:
        raise AssertionError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr}")
