"""What all clients of one worker share."""

import asyncio
import random
import time
from collections.abc import Sequence
from typing import Final
from urllib.parse import quote

from gateway.client import Backoff, ClientSettings, PlainSettings, ProtobufCodec
from loadtest.messages import Access, Job
from loadtest.scenario import Scenario
from loadtest.tally import Felt, Outages, Tally
from loadtest.tokens import connection_token
from loadtest.watching import Counts, Gap

_TOKEN_LIFETIME_S: Final = 86400
_MOST_GAPS: Final = 1_000_000


class Stage:
    """Counts, books and settings; seats and publishers write into it."""

    def __init__(self, job: Job, scenario: Scenario, tasks: asyncio.TaskGroup) -> None:
        self.job = job
        self.scenario = scenario
        self.tasks = tasks
        self.run = job.run
        self.tally = Tally()
        self.counts = Counts()
        self.outages = Outages()
        self.gaps: list[Gap] = []
        """Of watches that have ended."""
        self.ready = 0
        """Seats that are connected and subscribed now."""
        self.been_ready = 0
        """Seats that have been so at least once."""
        self.endings = 0
        self.is_calm = False
        """Whether nobody comes and goes by plan any more."""
        self.changed = asyncio.Event()
        """Set whenever a seat has become ready."""
        self._backoff = Backoff(base_s=scenario.backoff_base_s, cap_s=scenario.backoff_cap_s)
        self._settings: dict[str, ClientSettings] = {}
        self._plain_settings: dict[str, PlainSettings] = {}

    @property
    def access(self) -> Access:
        """How clients get in."""
        return self.job.access

    def channel(self, name: str) -> str:
        """Return the whole name of a channel that a plan names."""
        namespace = f"{self.scenario.namespace}:" if self.scenario.namespace else ""
        return f"{namespace}{name}{self.job.suffix}"

    def addresses(self, number: int, channel: str = "") -> list[str]:
        """Return the addresses for seat *number*, of which it tries the first first."""
        turned = _turned(self.job.addresses, number)
        return [address.replace("{channel}", quote(channel, safe=":")) for address in turned]

    def token(self, number: int) -> str:
        """Return the token that seat *number* shows; empty for none."""
        if not self.access.hmac_secret:
            return self.access.token
        expires_s = int(time.time()) + _TOKEN_LIFETIME_S
        return connection_token(f"load-{number}", secret=self.access.hmac_secret, expires_unix_s=expires_s)

    def settings(self, number: int) -> ClientSettings:
        """Return the client settings of seat *number*."""
        address = self.local_address(number)
        if address not in self._settings:
            codec = ProtobufCodec() if self.job.protocol == "protobuf" else ClientSettings().codec
            self._settings[address] = ClientSettings(
                name="loadtest", backoff=self._backoff, local_address=address, codec=codec
            )
        return self._settings[address]

    def plain_settings(self, number: int) -> PlainSettings:
        """Return the same for the plain protocol."""
        address = self.local_address(number)
        if address not in self._plain_settings:
            self._plain_settings[address] = PlainSettings(backoff=self._backoff, local_address=address)
        return self._plain_settings[address]

    def local_address(self, number: int) -> str:
        """Return the address that seat *number* connects from; empty: the system chooses."""
        addresses = self.job.local_addresses
        return addresses[number // self.job.workers % len(addresses)] if addresses else ""

    async def are_ready(self, count: int) -> None:
        """Wait until so many seats have been ready."""
        while self.been_ready < count:
            self.changed.clear()
            await self.changed.wait()

    def keep(self, gaps: list[Gap]) -> None:
        """Keep the gaps of a watch that has ended."""
        if len(self.gaps) < _MOST_GAPS:
            self.gaps += gaps


class Presence:
    """Whether one seat has all that it should: its connections and its subscriptions."""

    __slots__ = ("_has_been_ready", "_missing", "_stage", "is_breaking", "number")

    def __init__(self, stage: Stage, number: int) -> None:
        self.number = number
        self._stage = stage
        self._missing = 1
        self._has_been_ready = False
        self.is_breaking = False
        """Whether what goes missing does so because the scenario wants it."""

    @property
    def is_ready(self) -> bool:
        """Whether nothing is missing."""
        return self._missing == 0

    def begin(self, count: int) -> None:
        """Begin a life, which needs *count* things."""
        self._missing = count

    def breaks(self) -> None:
        """Note that what goes missing now does so because the scenario wants it."""
        self.is_breaking = True

    def gain(self, now_us: int) -> None:
        """Note that one of them is there."""
        self._missing -= 1
        if self._missing:
            return
        stage = self._stage
        stage.ready += 1
        if not self._has_been_ready:
            self._has_been_ready = True
            stage.been_ready += 1
            stage.changed.set()
        self.is_breaking = False
        stage.outages.regain(self.number, now_us, Felt.CLIENTS, Felt.BREAKS)

    def lose(self, now_us: int) -> None:
        """Note that one of them is gone, against this side's will or by the scenario's."""
        if not self._missing:
            self._stage.ready -= 1
            self._stage.outages.lose(Felt.BREAKS if self.is_breaking else Felt.CLIENTS, self.number, now_us)
        self._missing += 1

    def end(self, now_us: int) -> None:
        """Note that this life is over by its own will."""
        if not self._missing:
            self._stage.ready -= 1
        self._missing = 1
        self._stage.outages.forget(self.number, now_us)


def _turned(items: Sequence[str], number: int) -> list[str]:
    begin = number % len(items)
    return [*items[begin:], *items[:begin]]


def chance_of(job: Job) -> random.Random:
    """Return the randomness of one worker, the same in each run with the same seed."""
    return random.Random(job.seed * 1_000_003 - job.index - 1)
