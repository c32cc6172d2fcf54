"""What the Redis engine counts and tells: plain integers for metrics, a callback for log lines."""

import time
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, Protocol

from gateway.domain.counts import Histogram

_SELDOM_S: Final = 60.0
_SUBJECTS: Final = 1000


class Report(Protocol):
    """Takes what an operator should read, as an event with fields; no payload and no secret is among them."""

    def __call__(self, event: str, **fields: Any) -> None:
        """Take one event."""


def unheard(event: str, **fields: Any) -> None:
    """Tell nobody."""


class Trouble(StrEnum):
    """What can go wrong between a node and Redis."""

    UNREACHABLE = "unreachable"
    """A connection could not be made, or the server was of no use."""
    LOST = "lost"
    """A connection that was up has ended."""
    SILENT = "silent"
    """A connection was given up since it showed no sign of life."""
    OVERDUE = "overdue"
    """A connection was given up, or a request, since an answer took too long."""
    DOWN = "down"
    """A request came while there was no connection."""
    OVERFLOW = "overflow"
    """A request came while too much was waiting for answers."""
    REFUSED = "refused"
    """Redis answered with an error."""


@dataclass(slots=True)
class RedisCounts:
    """All counters of one engine; each only rises."""

    connects: Counter[str] = field(default_factory=Counter)
    """Connections that came up, by link; all but the first are reconnects."""
    commands: int = 0
    """Commands sent on the publishing connection, probes included."""
    batches: int = 0
    """Writes that carried them."""
    bytes_out: int = 0
    """Written to the publishing and the subscribing connection."""
    bytes_in: int = 0
    """Read from them."""
    messages: int = 0
    """Messages of all channels that came over the subscribing connection."""
    subscribe_commands: int = 0
    """SUBSCRIBE and UNSUBSCRIBE commands, of many names each."""
    reads: int = 0
    """Requests made through the reading connection."""
    read_batches: int = 0
    """Pipelines that carried them."""
    refused: int = 0
    """Commands that Redis answered with an error."""
    errors: Counter[tuple[str, Trouble]] = field(default_factory=Counter)
    """What went wrong, by link."""
    round_trips: defaultdict[str, Histogram] = field(default_factory=lambda: defaultdict(Histogram))
    """From sending until all of it is answered, by link. `publish`: batches, one at a time; `subscribe`: the watchdog's
    PINGs; `read`: pipelines."""
    repeated: int = 0
    """Scripts that were sent again because Redis had forgotten them."""
    undecodable: int = 0
    """Messages and stream entries that no gateway has written."""


class Journal:
    """Where the parts of an engine count and report."""

    def __init__(self, report: Report = unheard, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.counts = RedisCounts()
        self.report = report
        self._monotonic = monotonic
        self._reported_at_s: OrderedDict[str, float] = OrderedDict()

    def report_seldom(self, event: str, subject: str, **fields: Any) -> None:
        """Report *event*, once a minute for each *subject* and of no more than 1,000 subjects a minute."""
        now_s = self._monotonic()
        reported = self._reported_at_s
        while reported and next(iter(reported.values())) <= now_s - _SELDOM_S:
            reported.popitem(last=False)
        key = f"{event} {subject}"
        if key not in reported and len(reported) < _SUBJECTS:
            reported[key] = now_s
            self.report(event, subject=subject, **fields)
