"""What may not be in a listener's notes, nor in a stream: the oracle of the chaos tests. Nothing here waits or asks.

A listener notes, for each channel, what it was told and what it got, in the order in which it came: its journal. A
journal falls into runs, each an unbroken rise of offsets within one epoch. A new run may begin with a subscribe reply
that does not claim recovery, since that is how a client learns that something may be missing; an unsubscribe push 2500
or a disconnect 3010 before it only announces that reply. A run that begins in any other way is a loss, a double or a
disorder that nobody was told of.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from itertools import groupby, pairwise
from typing import NamedTuple

import msgspec


class Publication(msgspec.Struct, frozen=True, gc=False):
    """A publication as it came. Payloads here are JSON strings, so *data* is the payload itself."""

    data: str
    offset: int = 0
    epoch: str = ""


class Subscribed(msgspec.Struct, frozen=True, gc=False):
    """A subscribe reply; the publications in it follow as entries of their own."""

    epoch: str = ""
    offset: int = 0
    recovered: bool = False


class Unsubscribed(msgspec.Struct, frozen=True, gc=False):
    """An unsubscribe push, or the listener's own leaving (code 0)."""

    code: int


class Refused(msgspec.Struct, frozen=True, gc=False):
    """An error reply to a subscribe."""

    code: int


class Disconnected(msgspec.Struct, frozen=True, gc=False):
    """The end of the connection; code 1006 where no Close frame came."""

    code: int


class Joined(msgspec.Struct, frozen=True, gc=False):
    """A join push."""

    client: str


class Left(msgspec.Struct, frozen=True, gc=False):
    """A leave push."""

    client: str


Entry = Publication | Subscribed | Unsubscribed | Refused | Disconnected | Joined | Left
Journal = list[Entry]


class Begin(Enum):
    """How a run came to begin."""

    FIRST = "the first subscribe"
    TOLD = "told that it is not recovered"
    FALSELY = "told that it is recovered"
    SILENTLY = "told nothing"
    UNASKED = "not subscribed"


@dataclass(slots=True)
class Run:
    """An unbroken rise: the publications *start* + 1, *start* + 2 … of *epoch*."""

    begin: Begin
    epoch: str
    start: int
    publications: list[Publication] = field(default_factory=list)

    @property
    def end(self) -> int:
        """The offset that it got to."""
        return self.start + len(self.publications)


def runs_of(journal: Iterable[Entry]) -> list[Run]:
    """Cut *journal* into runs."""
    found: list[Run] = []
    is_subscribed = False
    for entry in journal:
        match entry:
            case Publication():
                _go_on(found, entry, is_subscribed=is_subscribed)
            case Subscribed():
                is_subscribed = True
                _subscribe(found, entry)
            case Unsubscribed() | Disconnected():
                is_subscribed = False
            case Refused() | Joined() | Left():
                pass
    return found


def _subscribe(found: list[Run], reply: Subscribed) -> None:
    position = (reply.epoch, reply.offset)
    if not found:
        found.append(Run(Begin.FIRST, *position))
    elif not reply.recovered:
        found.append(Run(Begin.TOLD, *position))
    elif position != (found[-1].epoch, found[-1].end):
        found.append(Run(Begin.FALSELY, *position))


def _go_on(found: list[Run], publication: Publication, *, is_subscribed: bool) -> None:
    run = found[-1] if found else Run(Begin.UNASKED, publication.epoch, -1)
    # protocol.md 2.3: who knows no epoch learns it from the publication that has offset 1.
    epoch = publication.epoch or run.epoch
    if not run.epoch:
        run.epoch = epoch
    if not is_subscribed:
        run = Run(Begin.UNASKED, epoch, publication.offset - 1)
    elif (epoch, publication.offset) != (run.epoch, run.end + 1):
        run = Run(Begin.SILENTLY, epoch, publication.offset - 1)
    run.publications.append(publication)
    if not found or run is not found[-1]:
        found.append(run)


class StreamAtEnd(NamedTuple):
    """A channel's stream when all is over: its top, and what is *held* at each offset."""

    epoch: str
    top: int
    held: dict[int, str]


def faults_where_data_survived(journal: Journal, stream: StreamAtEnd) -> Iterator[str]:
    """Say what breaks the promise that all publications come once and in order, whatever happened between."""
    found = runs_of(journal)
    for before, after in pairwise(found):
        yield _broken(before, after)
    yield from _faults_at_the_end(found, journal, stream)


def faults_where_data_was_lost(journal: Journal, stream: StreamAtEnd) -> Iterator[str]:
    """Say what breaks the promise that a listener knows of each break, and of none twice, and gets going again."""
    found = runs_of(journal)
    for before, after in pairwise(found):
        if after.begin is not Begin.TOLD or (before.epoch == after.epoch and after.start < before.end):
            yield _broken(before, after)
    epochs = [epoch for epoch, _ in groupby(run.epoch for run in found)]
    for epoch, times in Counter(epochs).items():
        if times > 1:
            yield f"epoch {epoch!r} came back: {epochs}"
    yield from _faults_at_the_end(found, journal, stream)


def _broken(before: Run, after: Run) -> str:
    was = f"{before.end} of {before.epoch!r}"
    return f"after {was} came {after.start + 1} of {after.epoch!r} ({after.begin.value})"


def _faults_at_the_end(found: list[Run], journal: Journal, stream: StreamAtEnd) -> Iterator[str]:
    states = [entry for entry in journal[-50:] if isinstance(entry, Subscribed | Unsubscribed | Refused | Disconnected)]
    if not found:
        yield f"was never subscribed: {states}"
        return
    if not _is_subscribed(journal):
        yield f"is not subscribed at the end: {states[-3:]}"
    last = found[-1]
    if (last.epoch, last.end) != (stream.epoch, stream.top):
        yield f"got to {last.end} of {last.epoch!r}, the top is {stream.top} of {stream.epoch!r}; {states[-3:]}"
    for run in found:
        if run.epoch == stream.epoch:
            yield from _wrong_data(run, stream)


def _is_subscribed(journal: Journal) -> bool:
    for entry in reversed(journal):
        if isinstance(entry, Subscribed | Unsubscribed | Refused | Disconnected):
            return isinstance(entry, Subscribed)
    return False


def _wrong_data(run: Run, stream: StreamAtEnd) -> Iterator[str]:
    for publication in run.publications:
        held = stream.held.get(publication.offset)
        if held != publication.data:
            yield f"got {publication.data!r} as {publication.offset}, where the stream holds {held!r}"


class Fate(Enum):
    """What a publisher knows of a publication of its own."""

    SENT = "unanswered"
    ACKNOWLEDGED = "acknowledged"
    REFUSED = "refused"
    UNKNOWN = "unknown, since the connection was lost"


@dataclass(slots=True)
class Sent:
    """One publish. *sender* is one connection of a publisher, *number* rises within it."""

    channel: str
    data: str
    sender: str
    number: int
    sent_at_s: float
    fate: Fate = Fate.SENT
    settled_at_s: float = 0.0
    error: int = 0


class Violation(NamedTuple):
    """A promise that was broken."""

    who: str
    channel: str
    what: str

    def __str__(self) -> str:
        return f"{self.who} in {self.channel!r}: {self.what}"


def violations_of_publishing(
    sent: Sequence[Sent], streams: Mapping[str, StreamAtEnd], *, kept_since_s: float = 0.0
) -> list[Violation]:
    """Say which publication is missing (sent after *kept_since_s* and acknowledged), doubled, foreign or out of order.

    Offsets and order are promised for what one connection sends, acknowledged or not. Error 100 says that the outcome
    is not known; any other error is one that a publisher here never deserves.
    """
    found = []
    for channel, stream in streams.items():
        ours = {each.data: each for each in sent if each.channel == channel}
        counted = Counter(stream.held.values())
        for each in ours.values():
            if each.fate is Fate.ACKNOWLEDGED and each.sent_at_s >= kept_since_s and not counted[each.data]:
                found.append(
                    Violation(each.sender, channel, f"{each.data!r} was acknowledged and is not in the stream")
                )
            if each.fate is Fate.REFUSED and each.error != _INTERNAL_ERROR:
                found.append(Violation(each.sender, channel, f"{each.data!r} was refused with error {each.error}"))
        found += [
            Violation("the stream", channel, f"{data!r} is in it {n} times") for data, n in counted.items() if n > 1
        ]
        found += [
            Violation("the stream", channel, f"{data!r} was sent by nobody") for data in counted if data not in ours
        ]
        found += _disordered(channel, stream, ours)
    return found


_INTERNAL_ERROR = 100


def _disordered(channel: str, stream: StreamAtEnd, ours: Mapping[str, Sent]) -> list[Violation]:
    by_sender: defaultdict[str, list[Sent]] = defaultdict(list)
    for _, data in sorted(stream.held.items()):
        if data in ours:
            by_sender[ours[data].sender].append(ours[data])
    return [
        Violation(sender, channel, f"{after.data!r} stands behind {before.data!r}")
        for sender, each in by_sender.items()
        for before, after in pairwise(each)
        if after.number < before.number
    ]
