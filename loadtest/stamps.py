"""What each publication of a load test carries: who sent it into this channel, as the how-manieth, and when.

    {"r":run,"p":publisher,"n":number,"t":intended time in µs,"x":"padding"}

Times are those of the machine's monotonic clock, which all processes of one machine share, so a latency needs no
synchronised clocks; the load is made, and taken, on one machine. A processor may add fields of its own.
"""

import time
from typing import Final

import msgspec


class Stamp(msgspec.Struct, frozen=True, gc=False):
    """The stamp of one publication."""

    run: int = msgspec.field(name="r")
    publisher: int = msgspec.field(name="p")
    number: int = msgspec.field(name="n")
    """Counts from 0 for each publisher and channel."""
    intended_us: int = msgspec.field(name="t")


decode: Final = msgspec.json.Decoder(Stamp).decode
"""Read the stamp of a payload; raises `msgspec.MsgspecError` where it has none."""


def encode(stamp: Stamp, *, size_bytes: int) -> bytes:
    """Return a payload of *size_bytes* with *stamp* in it, or of as few as it takes."""
    head = b'{"r":%d,"p":%d,"n":%d,"t":%d,"x":"' % (stamp.run, stamp.publisher, stamp.number, stamp.intended_us)
    return b'%b%b"}' % (head, b"x" * (size_bytes - len(head) - 2))


def now_us() -> int:
    """Return the time that stamps are made of."""
    return time.monotonic_ns() // 1000
