"""What a worker counts in a second, and how long its clients and publishers were without their servers. Pure."""

from collections import Counter
from enum import StrEnum

import msgspec

from loadtest.histogram import Histogram


class Tally:
    """Counts of one second; `take` hands them over and begins anew."""

    __slots__ = (
        "acknowledged",
        "acknowledgement",
        "behind_us",
        "connects",
        "delivered",
        "errors",
        "latency",
        "published",
        "reconnects",
    )

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self.connects = self.reconnects = self.published = self.acknowledged = self.delivered = 0
        self.behind_us = 0
        self.errors: Counter[str] = Counter()
        self.latency = Histogram()
        self.acknowledgement = Histogram()

    def take(self) -> "Counted":
        """Return what was counted since the last call."""
        counted = Counted(
            connects=self.connects,
            reconnects=self.reconnects,
            published=self.published,
            acknowledged=self.acknowledged,
            delivered=self.delivered,
            errors=dict(self.errors),
            latency=self.latency.encode() if self.delivered else "",
            acknowledgement=self.acknowledgement.encode() if self.acknowledged else "",
            behind_us=self.behind_us,
        )
        self._reset()
        return counted


class Counted(msgspec.Struct, frozen=True, kw_only=True):
    """What one worker counted in one second."""

    connects: int = 0
    reconnects: int = 0
    published: int = 0
    acknowledged: int = 0
    delivered: int = 0
    errors: dict[str, int] = {}
    latency: str = ""
    acknowledgement: str = ""
    behind_us: int = 0


class Felt(StrEnum):
    """How an outage is felt."""

    CLIENTS = "clients"
    """A client lost its connection, or the server ended a subscription of it."""
    BREAKS = "breaks"
    """The same, because the scenario broke the connection."""
    PUBLISHING = "publishing"
    """A publication was not acknowledged."""


class Outage(msgspec.Struct, frozen=True, array_like=True):
    """A time during which at least one was without."""

    felt: Felt
    begin_us: int
    end_us: int | None
    """`None`: it has not ended."""
    hits: int
    """How often somebody went without in it."""


class Outages:
    """Merges the outages of single clients into times in which somebody was hit."""

    def __init__(self) -> None:
        self._without: dict[Felt, set[int]] = {felt: set() for felt in Felt}
        self._begin_us: dict[Felt, int] = {}
        self._hits: Counter[Felt] = Counter()
        self._ended: list[Outage] = []

    def lose(self, felt: Felt, number: int, now_us: int) -> None:
        """Note that *number* is without from now on."""
        without = self._without[felt]
        if number in without:
            return
        if not without:
            self._begin_us[felt] = now_us
            self._hits[felt] = 0
        without.add(number)
        self._hits[felt] += 1

    def regain(self, number: int, now_us: int, *kinds: Felt) -> None:
        """Note that *number* has what it was without."""
        for felt in kinds:
            without = self._without[felt]
            if number in without:
                without.remove(number)
                if not without:
                    self._ended.append(Outage(felt, self._begin_us[felt], now_us, self._hits[felt]))

    def forget(self, number: int, now_us: int) -> None:
        """Note that *number* has left, by its own will."""
        self.regain(number, now_us, *Felt)

    def all(self) -> list[Outage]:
        """Return all of them, those that last with no end."""
        lasting = [Outage(felt, self._begin_us[felt], None, self._hits[felt]) for felt in Felt if self._without[felt]]
        return [*self._ended, *lasting]
