"""What a subscriber who comes back has missed (protocol.md 3.6): decided from one read of the stream, nothing else."""

from enum import StrEnum

import msgspec

from gateway.domain.stream import HistoryRange, StreamPage
from gateway.protocol.messages import Publication, StreamPosition


class RecoveryMode(StrEnum):
    """What a returning subscriber is interested in."""

    STREAM = "stream"
    CACHE = "cache"


class Recovered(msgspec.Struct, frozen=True):
    """The outcome: where delivery goes on from, and what lies between the client's position and there.

    *position* is what the client is told: where it was when it recovered, since it walks through *publications* itself;
    else the top.
    """

    is_recovered: bool
    position: StreamPosition
    publications: list[Publication]


def wanted_range(mode: RecoveryMode, since: StreamPosition, *, limit: int) -> HistoryRange:
    """Return what has to be read to recover from *since*, at most *limit* publications."""
    if mode is RecoveryMode.CACHE:
        return HistoryRange(limit=1, is_reverse=True)
    return HistoryRange(limit=limit, since=since)


def recover(mode: RecoveryMode, since: StreamPosition, page: StreamPage) -> Recovered:
    """Decide what *page*, read as `wanted_range` says, gives to a client that was at *since*."""
    if mode is RecoveryMode.CACHE:
        return _recover_latest(since, page)
    return _recover_all(since, page)


def extend(mode: RecoveryMode, recovered: Recovered, delivered: list[Publication]) -> Recovered:
    """Add what was *delivered* on this node after the page was read, and before the subscriber could join."""
    if not delivered:
        return recovered
    if mode is RecoveryMode.CACHE:
        return Recovered(is_recovered=True, position=recovered.position, publications=delivered[-1:])
    if recovered.is_recovered:
        return msgspec.structs.replace(recovered, publications=recovered.publications + delivered)
    top = StreamPosition(delivered[-1].offset, recovered.position.epoch)
    return Recovered(is_recovered=False, position=top, publications=[])


def _recover_all(since: StreamPosition, page: StreamPage) -> Recovered:
    found, top = page.publications, page.position
    # An empty epoch is a wildcard: the client has never been told one.
    has_same_epoch = since.epoch in ("", top.epoch)
    is_complete = (
        found[0].offset == since.offset + 1 and found[-1].offset == top.offset if found else top.offset == since.offset
    )
    if has_same_epoch and is_complete:
        return Recovered(is_recovered=True, position=StreamPosition(since.offset, top.epoch), publications=found)
    return Recovered(is_recovered=False, position=top, publications=[])


def _recover_latest(since: StreamPosition, page: StreamPage) -> Recovered:
    """Decide in cache mode: only the latest publication counts, whatever was missed before it."""
    found, top = page.publications, page.position
    is_same_state = since.offset == top.offset and since.epoch == top.epoch
    if is_same_state and (since.offset > 0 or not found):
        return Recovered(is_recovered=True, position=top, publications=[])
    if found:
        # Told is where the client was, if that lies before what it gets, so that it walks forward to it.
        before = StreamPosition(since.offset if since.offset < found[0].offset else 0, top.epoch)
        return Recovered(is_recovered=True, position=before, publications=found)
    return Recovered(is_recovered=False, position=top, publications=[])
