"""What one subscriber saw of one channel, and what it did not: loss, duplicates, order, recovery. Pure.

Theory of operation. Publishers number what they send into a channel, from 0, each for itself. A watch expects the next
number of each. What it misses becomes a `Gap`; whether that is a loss is decided at the end, when it is known which
publications were acknowledged and when they were sent (`loadtest.reckoning`):

- between two deliveries of one stay, everything is due;
- before the first delivery of a stay, what was sent after the stay began is due: "subscribed" means that whatever is
  published from then on arrives;
- in a channel with history the offsets say the order between publishers, too;
- what was sent between two stays is not due; but a stay goes on over an interruption where the server says that it
  recovered all.
"""

from collections.abc import Iterable
from enum import StrEnum
from typing import Final

import msgspec

from loadtest.results import Finding

MOST_FINDINGS: Final = 20
"""How many of a kind are kept; all are counted."""
_NEVER_US: Final = 1 << 62


class Why(StrEnum):
    """Why the beginning of a gap may not be due."""

    NEVER = "never"
    """All of it is due."""
    JOINED = "joined"
    """What was sent before the subscription was there."""
    TOLD = "told"
    """What was sent before the server said that something may be missing."""
    UNPROTECTED = "unprotected"
    """What was sent before an interrupted subscription to a channel without history was restored."""


class Gap(msgspec.Struct, array_like=True, gc=False):
    """Numbers of one publisher that a subscriber has not seen: from *first* up to, not including, *end*."""

    channel: str
    publisher: int
    subscriber: int
    first: int
    end: int
    due_since_us: int
    """What was sent later than this is due."""
    why: Why


class Counts(msgspec.Struct):
    """What the watches of one worker have counted together."""

    delivered: int = 0
    duplicated: int = 0
    reordered: int = 0
    foreign: int = 0
    recovered: int = 0
    gaps_told: int = 0
    findings: list[Finding] = []

    @property
    def found(self) -> dict[str, int]:
        """What is known while the run goes on; losses are not."""
        return {name: getattr(self, name) for name in ("duplicated", "reordered", "foreign", "recovered", "gaps_told")}

    def find(self, kind: str, watch: "Watch", publisher: int = -1, number: int = -1) -> None:
        """Keep a fault for the report, if there are not enough of its kind."""
        if sum(each.kind == kind for each in self.findings) < MOST_FINDINGS:
            where = Finding(
                kind=kind,
                channel=watch.channel,
                subscriber=watch.subscriber,
                publisher=publisher,
                first=number,
                last=number,
            )
            self.findings.append(where)


class Watch:
    """One subscription, from its first confirmation to the end."""

    __slots__ = (
        "_before",
        "_counts",
        "_gaps",
        "_is_cache",
        "_next",
        "_offset",
        "_since_us",
        "_why",
        "channel",
        "subscriber",
    )

    def __init__(self, channel: str, subscriber: int, counts: Counts, *, is_cache: bool = False) -> None:
        """*is_cache*: a recovery brings no more than the last publication, again if need be."""
        self.channel = channel
        self.subscriber = subscriber
        self._counts = counts
        self._is_cache = is_cache
        self._next: dict[int, int] = {}
        self._before: dict[int, int] | None = None  # what `_next` was when the stay before this one ended
        self._gaps: list[Gap] | None = None
        self._offset = 0
        self._since_us = -1
        self._why = Why.JOINED

    @property
    def has_begun(self) -> bool:
        """Whether it was ever confirmed."""
        return self._since_us >= 0

    def confirmed(
        self, now_us: int, *, is_recovered: bool = False, has_history: bool = False, is_sure: bool = True
    ) -> None:
        """Note that the server has confirmed the subscription, for the first time or anew.

        *is_recovered*: and says that all that was published meanwhile follows. *is_sure* false: the protocol has no
        confirmation (plain, without a token), so what comes before a publisher's first delivery is not due.
        """
        if self.has_begun:
            if is_recovered:
                self._counts.recovered += 1
                if not self._is_cache:
                    return
            elif has_history:
                self._counts.gaps_told += 1
            self._why = Why.TOLD if has_history else Why.UNPROTECTED
            self._before = {**(self._before or {}), **self._next}
            self._next = {}
            self._offset = 0
        self._since_us = now_us if is_sure else _NEVER_US

    def gap_told(self, now_us: int) -> None:
        """Note that the server says, in the midst of a stay, that something may be missing here."""
        self.confirmed(now_us, has_history=True)

    def take(self, publisher: int, number: int, offset: int = 0) -> None:
        """Take one delivery; *offset* is its place in the channel's stream, 0 where there is none."""
        self._counts.delivered += 1
        if self._next.get(publisher) == number:
            self._next[publisher] = number + 1
            if 0 < offset < self._offset:  # each publisher's order is kept, but not that between them
                self._fault("reordered", publisher, number)
        else:
            self._take_other(publisher, number)
        self._offset = max(self._offset, offset)

    def foreign(self) -> None:
        """Note a publication that this run has not sent."""
        self._counts.foreign += 1
        self._counts.find("foreign", self)

    def _take_other(self, publisher: int, number: int) -> None:
        expected = self._next.get(publisher)
        if expected is None:
            expected = (self._before or {}).get(publisher, 0)
            if number >= expected:
                self._miss(publisher, expected, number, self._since_us, self._why)
                self._next[publisher] = number + 1
                return
            if self._is_cache and number == expected - 1:
                return  # the last value again, as asked
        elif number > expected:
            self._miss(publisher, expected, number, -1, Why.NEVER)
            self._next[publisher] = number + 1
            return
        self._fault("reordered" if self._fill(publisher, number) else "duplicated", publisher, number)

    def _fault(self, kind: str, publisher: int, number: int) -> None:
        setattr(self._counts, kind, getattr(self._counts, kind) + 1)
        self._counts.find(kind, self, publisher, number)

    def _miss(self, publisher: int, first: int, end: int, since_us: int, why: Why) -> None:
        if first == end:
            return
        if self._gaps is None:
            self._gaps = []
        self._gaps.append(Gap(self.channel, publisher, self.subscriber, first, end, since_us, why))

    def _fill(self, publisher: int, number: int) -> bool:
        """Take *number* out of the gap that it is in, if it is in one."""
        for gap in self._gaps or ():
            if gap.publisher == publisher and gap.first <= number < gap.end:
                end, gap.end = gap.end, number
                self._miss(publisher, number + 1, end, gap.due_since_us, gap.why)
                return True
        return False

    # The end.

    def is_complete(self, lasts: Iterable["Last"]) -> bool:
        """Whether the last of each publisher has come, where it is due."""
        return all(
            self._next.get(last.publisher, 0) > last.number
            or (last.publisher not in self._next and last.sent_us <= self._since_us)
            for last in lasts
        )

    def close(self, lasts: Iterable["Last"] = ()) -> list[Gap]:
        """Return all gaps. *lasts*, for a subscription that is still there: what must have come by now."""
        for last in lasts:
            expected = self._next.get(last.publisher)
            if expected is not None:
                self._miss(last.publisher, expected, max(expected, last.number + 1), -1, Why.NEVER)
            else:
                expected = (self._before or {}).get(last.publisher, 0)
                self._miss(last.publisher, expected, max(expected, last.number + 1), self._since_us, self._why)
        gaps, self._gaps = [gap for gap in self._gaps or () if gap.first < gap.end], None
        return gaps


class Last(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The last publication of *publisher* into a channel that servers have acknowledged."""

    publisher: int
    number: int
    sent_us: int
