"""What coordinator and workers say to each other, over pipes: MessagePack, each message behind its length."""

import asyncio
import struct
from typing import Any, Final, TypeVar

import msgspec
from msgspec import Struct

from loadtest.reckoning import SentRecord
from loadtest.tally import Counted, Outage
from loadtest.watching import Counts, Gap, Last

_LENGTH: Final = struct.Struct("<I")
_MessageT = TypeVar("_MessageT")


class Access(Struct, frozen=True, kw_only=True):
    """How clients get in."""

    token: str = ""
    """One for all."""
    hmac_secret: str = ""
    """With it each client makes a token of its own, for the user `load-<number>`."""
    api_urls: list[str] = []
    """HTTP APIs to publish through, such as `http://127.0.0.1:9000/api`."""
    api_key: str = ""


class Job(Struct, frozen=True, kw_only=True, tag=True):
    """All that a worker needs to know; the first message to it."""

    index: int
    workers: int
    scenario: str
    """As the command line names it."""
    parameters: dict[str, Any]
    seed: int
    run: int
    """Tells this run's publications from those of others."""
    suffix: str
    """Behind each channel's name, so that no earlier run's history is in the way."""
    addresses: list[str]
    """Of the plain protocol with `{channel}` in each."""
    protocol: str
    access: Access
    shares: float
    """The sum of all publishers' shares."""
    local_addresses: list[str] = []


class Begin(Struct, frozen=True, tag=True):
    """Ramp up from *at_us* on; seconds are counted from then."""

    at_us: int


class Publish(Struct, frozen=True, tag=True):
    """The plateau: publish from *begin_us* to *end_us*."""

    begin_us: int
    end_us: int


class Conclude(Struct, frozen=True, tag=True):
    """Publish nothing more, see what becomes of what is unanswered, and say what was sent."""

    patience_s: float


class Drain(Struct, frozen=True, tag=True):
    """Wait until the last publications have come, at most *patience_s*, and say what was missed."""

    lasts: dict[str, list[Last]]
    patience_s: float


class Leave(Struct, frozen=True, tag=True):
    """Ramp down over *duration_s*, and end."""

    duration_s: float


Order = Job | Begin | Publish | Conclude | Drain | Leave


class Ready(Struct, frozen=True, tag=True):
    """All clients that should be there are connected and subscribed."""


class Report(Struct, frozen=True, kw_only=True, tag=True):
    """One second."""

    second: int
    counted: Counted
    connections: int
    cpu_s: float
    memory_bytes: int
    memory_before_bytes: int
    """Before the first connection."""
    watched: dict[str, int] = {}
    """What the subscribers have found so far, by the names in `Counts`."""


class Sent(Struct, frozen=True, tag=True):
    """What the publishers of this worker have sent."""

    records: list[SentRecord]
    lasts: dict[str, list[Last]]


class Outcome(Struct, frozen=True, kw_only=True, tag=True):
    """What the clients of this worker saw."""

    counts: Counts
    gaps: list[Gap]
    unrestored: int
    outages: list[Outage]
    endings: int
    """Connections that ended with deliveries possibly on their way, and clients that did not read."""


class Failed(Struct, frozen=True, tag=True):
    """Why the worker can't go on, in a sentence."""

    reason: str


Answer = Ready | Report | Sent | Outcome | Failed

orders: Final[msgspec.msgpack.Decoder[Order]] = msgspec.msgpack.Decoder(Order)
answers: Final[msgspec.msgpack.Decoder[Answer]] = msgspec.msgpack.Decoder(Answer)
_ENCODER: Final = msgspec.msgpack.Encoder()


def pack(message: Order | Answer) -> bytes:
    """Return *message* as it goes over a pipe."""
    data = _ENCODER.encode(message)
    return _LENGTH.pack(len(data)) + data


async def receive(stream: asyncio.StreamReader, decoder: msgspec.msgpack.Decoder[_MessageT]) -> _MessageT | None:
    """Return the next message, `None` at the end."""
    try:
        (length,) = _LENGTH.unpack(await stream.readexactly(_LENGTH.size))
        return decoder.decode(await stream.readexactly(length))
    except asyncio.IncompleteReadError:
        return None
