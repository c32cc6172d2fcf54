"""From the broker to the fan-out: every publication of a stream in its place, what was missed fetched once for all.

`gateway.domain.track` has the theory of operation. Where a publication does not follow the one before it, or the
broker has lost its link, the stream is read from this node's position on. What it still holds is delivered, and no
client notices; what is lost is told to everybody whom it concerns (protocol.md 3.6: 2500, 3010).
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Final

import structlog
from pydantic import Field

from gateway.broker.contract import Broker
from gateway.broker.outcome import Outcome
from gateway.domain.counts import Counts
from gateway.domain.hub import Hub, LocalChannel
from gateway.domain.stream import HistoryRange, StreamPage
from gateway.domain.track import Arrival, Held, Track
from gateway.messaging.fanout import Fanout
from gateway.protocol.messages import Join, Leave, Publication, StreamPosition
from gateway.settings import Seconds, Settings, Size

_LOST_LOG_INTERVAL_S: Final = 1.0


class IntakeSettings(Settings):
    """What the intake holds and waits for; part of the table `broker`."""

    catch_up_max_size: Size = 16777216
    """Bytes of one channel's publications that wait while what came before them is read from its stream."""
    catch_up_retry_delay_s: Annotated[Seconds, Field(gt=0)] = 1.0
    """How long after a stream could not be read it is tried again."""


class Intake:
    """Receives from the broker for the channels of the hub.

    *call_later* is the event loop's. The list in which a track holds what comes stands for the read that it waits for:
    an answer that comes when another list is in its place is for a read that was given up.
    """

    rounds: Final = 2
    """How often `check` is to be called within the position check delay."""

    def __init__(
        self,
        settings: IntakeSettings,
        hub: Hub,
        fanout: Fanout,
        broker: Broker,
        counts: Counts,
        *,
        log: structlog.typing.FilteringBoundLogger,
        call_later: Callable[[float, Callable[[], None]], object],
    ) -> None:
        self._settings = settings
        self._hub = hub
        self._fanout = fanout
        self._broker = broker
        self._counts = counts
        self._log = log
        self._call_later = call_later
        self._more_lost: int | None = None
        """Positions lost since the last line about one, while that is fresh."""

    # What the broker hands over.

    def receive(self, channel: str, publication: Publication, epoch: str, accepted_at_s: float | None) -> None:
        """Take one publication; it is written at the end of this turn, or when those before it are there."""
        local = self._hub.get(channel)
        if local is None:
            return  # the last subscriber has left, and the broker has not heard of it yet
        track = local.track
        if track is None:
            self._fanout.push(local, publication, accepted_at_s)
            return
        offset = publication.offset
        if track.held is not None:
            self._hold(local, track, Held(publication, epoch, accepted_at_s))
        elif offset == track.offset + 1 and epoch == track.epoch:
            track.offset = offset
            self._fanout.push(local, publication, accepted_at_s)
            if offset >= track.edge:
                self._admit(local)
        elif not offset:
            self._fanout.push(local, publication, accepted_at_s)  # published past the history
        else:
            self._take_astray(local, track, Held(publication, epoch, accepted_at_s))

    def receive_event(self, channel: str, event: Join | Leave) -> None:
        """Take note that somebody has joined or left."""
        local = self._hub.get(channel)
        if local is not None and local.watchers is not None:
            self._fanout.push_event(local, event)

    def resume(self, channels: Sequence[str], *, interrupted_s: float) -> None:
        """Fetch what was published while the broker's link was down, and tell where it can't be."""
        found = [local for name in channels if (local := self._hub.get(name)) is not None]
        lost = [local for local in found if not _is_fetchable(local)]
        self._counts.interruptions += 1
        self._counts.interrupted_s += interrupted_s
        self._log.warning(
            "subscriptions interrupted",
            channels=len(found),
            without_history=len(lost),
            seconds=round(interrupted_s, 3),
        )
        for local in found:
            if local.track is not None:
                local.track.interruptions += 1
            if _is_fetchable(local):
                self.mend(local)
        for local in lost:
            self._tell_gap(local)

    # Catching up.

    def mend(self, local: LocalChannel) -> None:
        """Read the stream from this node's position on, and hold what comes meanwhile."""
        track = local.track
        if track is None or not track.is_known:
            return
        if track.held is None:
            self._fetch(local, track, track.begin_holding())
        else:
            track.has_to_read_again = True

    def check(self) -> None:
        """Look whether streams that have brought nothing lately stand where this node does.

        Call it `rounds` times within the position check delay; it reads two calls after the last publication.
        """
        for local in self._hub:
            track = local.track
            if track is not None and track.is_known and track.held is None and track.is_idle():
                wanted = HistoryRange()
                page = self._broker.history(local.channel.name, wanted, meta_ttl_s=local.channel.meta_ttl_s)
                page.then(partial(self._compare, local, track))

    def _take_astray(self, local: LocalChannel, track: Track, arrived: Held) -> None:
        match track.judge(arrived.publication.offset, arrived.epoch):
            case Arrival.FIRST:
                self._fanout.push(local, arrived.publication, arrived.accepted_at_s)
                if track.offset >= track.edge:
                    self._admit(local)
            case Arrival.KNOWN:
                self._counts.ledger(local.channel.namespace).duplicates += 1
            case Arrival.ASTRAY:
                self._counts.gaps += 1
                held = track.begin_holding()
                self._hold(local, track, arrived)
                self._fetch(local, track, held)

    def _hold(self, local: LocalChannel, track: Track, arrived: Held) -> None:
        if track.hold(arrived, limit=self._settings.catch_up_max_size):
            return
        # The stream can't be read, and more came than may wait: what is missing counts as lost.
        waiting = [*track.release(), arrived]
        for each in waiting:
            if each.publication.offset:
                self._lose(local, track, StreamPosition(each.publication.offset - 1, each.epoch))
                break
        self._replay(local, track, waiting)

    def _fetch(self, local: LocalChannel, track: Track, held: list[Held]) -> None:
        if track.held is not held or self._hub.get(local.channel.name) is not local:
            return  # it was given up, or everybody has left
        track.has_to_read_again = False
        wanted = HistoryRange(limit=-1, since=track.position)
        page = self._broker.history(local.channel.name, wanted, meta_ttl_s=local.channel.meta_ttl_s)
        page.then(partial(self._fetched, local, track, held))

    def _fetched(self, local: LocalChannel, track: Track, held: list[Held], outcome: Outcome[StreamPage]) -> None:
        if track.held is not held:
            return  # it was given up meanwhile
        if outcome.error is not None:
            self._call_later(self._settings.catch_up_retry_delay_s, partial(self._fetch, local, track, held))
            return
        page = outcome.result()
        if _follows(track.position, page):
            self._counts.caught_up += len(page.publications)
        else:
            self._lose(local, track, page.position)
        for publication in page.publications:
            self._fanout.push(local, publication, None)
            track.offset = publication.offset
            if publication.offset >= track.edge:
                self._admit(local)
        track.move(page.position)
        if track.has_to_read_again:
            self._fetch(local, track, held)
            return
        track.release()
        self._replay(local, track, held)

    def _replay(self, local: LocalChannel, track: Track, held: list[Held]) -> None:
        """Take what was held, as if it came now, but for what the stream has brought or the broker has lost."""
        is_foreign = False
        for each in held:
            offset = each.publication.offset
            if track.held is None and offset and (each.epoch != track.epoch or offset <= track.offset):
                is_foreign = is_foreign or each.epoch != track.epoch
                self._counts.ledger(local.channel.namespace).duplicates += 1
            else:
                self.receive(local.channel.name, each.publication, each.epoch, each.accepted_at_s)
        if is_foreign:
            self.mend(local)  # of an epoch before the one that was read, or already of the next: one more read tells

    def _compare(self, local: LocalChannel, track: Track, outcome: Outcome[StreamPage]) -> None:
        if outcome.error is None and track.held is None and outcome.result().position != track.position:
            self.mend(local)  # or something has come since; then that is what the read will find

    def _admit(self, local: LocalChannel) -> None:
        self._fanout.flush_channel(local)
        self._hub.admit(local)

    # Losses.

    def _lose(self, local: LocalChannel, track: Track, position: StreamPosition) -> None:
        """Give up what lies before *position*, and tell everybody whom it concerns."""
        self._fanout.flush_channel(local)
        self._counts.positions_lost += 1
        self._log_lost(local, track, position)
        track.move(position)
        self._tell_gap(local)

    def _log_lost(self, local: LocalChannel, track: Track, position: StreamPosition) -> None:
        """Write a line about the first position that is lost, and one about all that follow it within a second."""
        if self._more_lost is not None:
            self._more_lost += 1
            return
        self._more_lost = 0
        self._call_later(_LOST_LOG_INTERVAL_S, self._log_more_lost)
        self._log.warning(
            "position lost",
            channel=local.channel.name,
            offset=track.offset,
            epoch=track.epoch,
            new_offset=position.offset,
            new_epoch=position.epoch,
        )

    def _log_more_lost(self) -> None:
        if self._more_lost:
            self._log.warning("more positions lost", channels=self._more_lost)
        self._more_lost = None

    def _tell_gap(self, local: LocalChannel) -> None:
        for subscriber in local.subscribers():
            subscriber.tell_gap(local.channel.name)


def _is_fetchable(local: LocalChannel) -> bool:
    """Tell whether what was missed can be read: a stream is kept, and this node knows where it was in it."""
    return local.channel.stream is not None and local.track is not None and local.track.is_known


def _follows(position: StreamPosition, page: StreamPage) -> bool:
    """Tell whether *page*, read from *position* on, goes from there to the top without a gap."""
    if page.position.epoch != position.epoch:
        return False
    if not page.publications:
        return page.position.offset == position.offset
    first, last = page.publications[0].offset, page.publications[-1].offset
    return first == position.offset + 1 and last == page.position.offset
