"""Which of the gaps are losses: what publishers know, held against what subscribers missed. Pure."""

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping

import msgspec

from loadtest.results import Finding
from loadtest.watching import MOST_FINDINGS, Gap, Last, Why


class SentLog:
    """What one publisher has sent into one channel, and what became of it."""

    __slots__ = ("_sent_us", "channel", "publisher", "refused", "unanswered")

    def __init__(self, channel: str, publisher: int) -> None:
        self.channel = channel
        self.publisher = publisher
        self.refused: set[int] = set()
        """Numbers that are in no stream: servers refused them, or they were never sent."""
        self.unanswered: set[int] = set()
        """Numbers that may be in the stream."""
        self._sent_us = array("q")

    def begin(self, now_us: int) -> int:
        """Note that one goes out, and return its number; it counts as acknowledged until something else is said."""
        self._sent_us.append(now_us)
        return len(self._sent_us) - 1

    @property
    def count(self) -> int:
        """How many were sent."""
        return len(self._sent_us)

    @property
    def last(self) -> Last | None:
        """The last one that must be in the stream."""
        for number in range(len(self._sent_us) - 1, -1, -1):
            if number not in self.refused and number not in self.unanswered:
                return Last(self.publisher, number, self._sent_us[number])
        return None

    def record(self) -> "SentRecord":
        """Return it as a message between processes."""
        return SentRecord(
            self.channel, self.publisher, self._sent_us.tobytes(), sorted(self.refused), sorted(self.unanswered)
        )


class SentRecord(msgspec.Struct, frozen=True, array_like=True):
    """A `SentLog` on its way to the coordinator."""

    channel: str
    publisher: int
    sent_us: bytes
    """Signed 64-bit integers of this machine."""
    refused: list[int]
    unanswered: list[int]


class Missing(msgspec.Struct):
    """What gaps came to."""

    lost: int = 0
    told: int = 0
    unprotected: int = 0
    in_doubt: int = 0
    findings: list[Finding] = []


class Reckoning:
    """Knows all that was sent."""

    def __init__(self, records: Iterable[SentRecord]) -> None:
        self._records = {(record.channel, record.publisher): record for record in records}
        self._times: dict[tuple[str, int], array[int]] = {}
        for key, record in self._records.items():
            times = self._times[key] = array("q")
            times.frombytes(record.sent_us)

    @property
    def refused(self) -> int:
        """How many publications are in no stream."""
        return sum(len(record.refused) for record in self._records.values())

    @property
    def unanswered(self) -> int:
        """How many may be in theirs."""
        return sum(len(record.unanswered) for record in self._records.values())

    @property
    def acknowledged(self) -> int:
        """How many must be in theirs."""
        return sum(map(len, self._times.values())) - self.refused - self.unanswered

    def settle(self, gaps: Iterable[Gap]) -> Missing:
        """Say what *gaps* come to."""
        missing = Missing()
        for gap in gaps:
            self._settle(gap, missing)
        return missing

    def _settle(self, gap: Gap, missing: Missing) -> None:
        record = self._records.get((gap.channel, gap.publisher))
        if record is None:
            return  # its worker did not live to tell; the run says so
        times = self._times[gap.channel, gap.publisher]
        end = min(gap.end, len(times))
        # Sending times of one publisher never go back.
        due_from = (
            max(gap.first, min(end, bisect_right(times, gap.due_since_us))) if gap.due_since_us >= 0 else gap.first
        )
        lost = _acknowledged(record, due_from, end)
        missing.lost += lost
        missing.in_doubt += _within(record.unanswered, due_from, end)
        if gap.why is Why.TOLD:
            missing.told += _acknowledged(record, gap.first, due_from)
        elif gap.why is Why.UNPROTECTED:
            missing.unprotected += _acknowledged(record, gap.first, due_from)
        if lost and len(missing.findings) < MOST_FINDINGS:
            missing.findings.append(
                Finding(
                    kind="lost",
                    channel=gap.channel,
                    subscriber=gap.subscriber,
                    publisher=gap.publisher,
                    first=due_from,
                    last=end - 1,
                )
            )


def lasts_by_channel(lasts: Iterable[Mapping[str, list[Last]]]) -> dict[str, list[Last]]:
    """Put together what each worker says of its publishers."""
    together: dict[str, list[Last]] = {}
    for each in lasts:
        for channel, found in each.items():
            together.setdefault(channel, []).extend(found)
    return together


def _within(numbers: list[int], first: int, end: int) -> int:
    return bisect_left(numbers, end) - bisect_left(numbers, first)


def _acknowledged(record: SentRecord, first: int, end: int) -> int:
    if end <= first:
        return 0
    return end - first - _within(record.refused, first, end) - _within(record.unanswered, first, end)
