"""The machine under a node: descriptors, queues of the kernel, ports, memory, the event loop."""

import contextlib
import importlib.util
import os
import re
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from gateway.config import Config
from gateway.doctor.finding import Finding, error, ok, warning
from gateway.transport.certificate import ListenError
from gateway.transport.listener import bind

_OWN_DESCRIPTORS: Final = 100
"""What a node needs beside those of its clients."""
_FEW_DESCRIPTORS: Final = 10_000
_SETTINGS: Final = Path("/proc/sys")
_MIB: Final = 1048576
_LONGEST_COMMAND: Final = 100
_OURS: Final = re.compile(r"(?:^|[/ ])gateway(?: |$)")
"""What the command line of a node has in it: a program of that name, or `-m gateway`."""
_UNLIMITED_BYTES: Final = 1 << 60


class Machine(NamedTuple):
    """What was read of the machine; 0 where it does not tell."""

    descriptors: int = 0
    """The hard limit of open files, which a node raises its own to."""
    accept_queue: int = 0
    """`net.core.somaxconn`."""
    tracked_connections: int = 0
    """`net.netfilter.nf_conntrack_max`, where connections are tracked."""
    memory_bytes: int = 0
    """What this process may take: the control group's limit, or all there is."""
    has_uvloop: bool = True
    has_speedups: bool = True


def read_machine() -> Machine:
    """Look at the machine that this process runs on."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return Machine(
        descriptors=0 if hard == resource.RLIM_INFINITY else hard,
        accept_queue=_number(_SETTINGS / "net/core/somaxconn"),
        tracked_connections=_number(_SETTINGS / "net/netfilter/nf_conntrack_max"),
        memory_bytes=_memory(),
        has_uvloop=importlib.util.find_spec("uvloop") is not None,
        has_speedups=importlib.util.find_spec("websockets.speedups") is not None,
    )


def check_machine(config: Config, machine: Machine) -> Iterator[Finding]:
    """Compare what *config* asks for with what *machine* has."""
    yield from _descriptors(config, machine)
    yield from _queues(config, machine)
    yield from _memory_limits(config, machine)
    yield from _speed(machine)


def check_ports(config: Config) -> Iterator[Finding]:
    """Try to listen where a node would, and say who does if that fails."""
    server = config.http_server
    for name, address, port in (
        ("public", server.address, server.port),
        ("internal", server.internal_address, server.internal_port),
    ):
        if address.startswith("unix:") or port == 0:
            continue
        try:
            bind(address, port, backlog=1).close()
        except ListenError as fault:
            holder = _holder(port)
            if holder is None:
                yield error("ports", str(fault), f"give another one (http_server), or free the {name} port")
            elif _OURS.search(holder.command):
                yield ok("ports", f"{name} port {port} is held by a gateway, process {holder.pid}")
            else:
                text = f"{fault}: process {holder.pid} ({holder.command[:_LONGEST_COMMAND]}) does"
                yield error("ports", text, "end it, or give another port")
        else:
            yield ok("ports", f"{name} port {port} is free")


def _descriptors(config: Config, machine: Machine) -> Iterator[Finding]:
    limit, have = config.client.connection_limit, machine.descriptors
    advice = "ulimit -n, LimitNOFILE= of systemd, or ulimits of the container"
    if not have:
        return
    if limit and have < limit + _OWN_DESCRIPTORS:
        yield error("descriptors", f"{have} open files are fewer than client.connection_limit = {limit} needs", advice)
    elif not limit and have < _FEW_DESCRIPTORS:
        yield warning(
            "descriptors", f"{have} open files: not many more connections than {have - _OWN_DESCRIPTORS}", advice
        )
    else:
        yield ok("descriptors", f"{have} open files")


def _queues(config: Config, machine: Machine) -> Iterator[Finding]:
    backlog, limit = config.http_server.backlog, config.client.connection_limit
    if machine.accept_queue and machine.accept_queue < backlog:
        text = f"the kernel keeps {machine.accept_queue} new connections, http_server.backlog asks for {backlog}"
        yield warning("kernel", text, f"sysctl net.core.somaxconn={backlog}, or a crowd that comes back waits in vain")
    elif machine.accept_queue:
        yield ok("kernel", f"{backlog} new connections may wait to be accepted")
    if machine.tracked_connections and limit and machine.tracked_connections < 2 * limit:
        text = f"the firewall tracks {machine.tracked_connections} connections, client.connection_limit is {limit}"
        yield warning("kernel", text, f"sysctl net.netfilter.nf_conntrack_max={4 * limit}")


def _memory_limits(config: Config, machine: Machine) -> Iterator[Finding]:
    watermark, have = config.health.memory_watermark, machine.memory_bytes
    if not have:
        return
    if watermark >= have:
        text = f"health.memory_watermark is {watermark // _MIB} MiB, and {have // _MIB} MiB are all there is"
        yield error("memory", text, "set it well below, or the kernel ends the node first")
    elif watermark:
        yield ok("memory", f"unready from {watermark // _MIB} MiB of {have // _MIB} MiB on")
    else:
        advice = (
            f"set it to about {have * 8 // 10} (80 %), and new clients go elsewhere before the kernel ends the node"
        )
        yield warning("memory", f"no health.memory_watermark, with {have // _MIB} MiB at hand", advice)


def _speed(machine: Machine) -> Iterator[Finding]:
    if not machine.has_uvloop:
        yield warning("speed", "uvloop is not there: a delivery takes twice the CPU", "pip install uvloop")
    if not machine.has_speedups:
        advice = "install websockets with its C extension (a wheel, or a compiler)"
        yield warning("speed", "websockets has no C extension here: unmasking is slow", advice)
    if machine.has_uvloop and machine.has_speedups:
        yield ok("speed", "uvloop and the C extension of websockets are there")


def _number(path: Path) -> int:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return 0


def _memory() -> int:
    limits = [
        _number(Path(each)) for each in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
    ]
    with contextlib.suppress(ValueError, OSError):
        limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return min((each for each in limits if 0 < each < _UNLIMITED_BYTES), default=0)


class Holder(NamedTuple):
    """Who listens on a port."""

    pid: int
    command: str


def _holder(port: int) -> Holder | None:
    """Find the process that listens on *port*, as far as Linux lets this one see."""
    sockets = {f"socket:[{inode}]" for inode in _listening(port)}
    for folder in Path("/proc").glob("[0-9]*") if sockets else ():
        if any(link in sockets for link in _open_files(folder)):
            with contextlib.suppress(OSError):
                command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                return Holder(int(folder.name), command)
    return None


def _open_files(process: Path) -> Iterator[str]:
    """Walk what a process has open, as far as this one may see it; files come and go meanwhile."""
    with contextlib.suppress(OSError):
        for each in (process / "fd").iterdir():
            with contextlib.suppress(OSError):
                yield str(each.readlink())


def _listening(port: int) -> Iterator[str]:
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            rows = Path(table).read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            continue
        for row in rows:
            cells = row.split()
            if cells[3] == "0A" and int(cells[1].rpartition(":")[2], 16) == port:  # 0A: listening
                yield cells[9]
