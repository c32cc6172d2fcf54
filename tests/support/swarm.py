"""Many listeners and publishers in one process: start them, wait for them, hold their notes against the streams."""

import asyncio
import statistics
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final, NamedTuple, TypeVar

from tests.support.crowds import raise_descriptor_limit
from tests.support.listener import Listener, RestlessListener
from tests.support.oracle import Fate, Journal, StreamAtEnd, Violation, violations_of_publishing
from tests.support.pace import bearable_deliveries
from tests.support.publisher import Publisher
from tests.support.sdk_client import Client
from tests.support.waiting import until

PATIENCE_S: Final = 30.0
_LOOKS_EVERY_S: Final = 0.05
_PAGE: Final = 1000
_SHOWN: Final = 8
_REFUSALS: Final = 20
"""How many a publisher has to get until an outage counts as one."""

SomeT = TypeVar("SomeT")
Rule = Callable[[Journal, StreamAtEnd], Iterator[str]]
"""What must hold for a journal: one of the two `faults_where_…` of the oracle."""


class SwarmSize(NamedTuple):
    """How many there are, and how much is published in all."""

    listeners: int
    channels: int
    publishers: int
    per_second: float
    restless: int = 0
    """How many of the listeners come and go all the time."""


class Swarm:
    """*listeners* that each follow all of *channels*, and *publishers* that publish into them."""

    def __init__(self, channels: Sequence[str], listeners: Sequence[Listener], publishers: Sequence[Publisher]) -> None:
        self.channels = channels
        self.listeners = listeners
        self.publishers = publishers
        self.everybody: list[Listener | Publisher] = [*listeners, *publishers]

    def mark(self) -> None:
        """Take the time, from now, until each subscription brings something new and each publisher is acknowledged."""
        now_s = asyncio.get_running_loop().time()
        for each in self.everybody:
            each.mark(now_s)

    async def is_going(self) -> None:
        """Wait until what was marked has come to all but the restless; fails with what is missing."""
        steady = [each for each in self.everybody if not isinstance(each, RestlessListener)]
        missing = await left_out(steady, lambda each: each.is_going)
        if missing:
            tails = [
                f"{each.name} in {channel!r}: {each.journals[channel][-4:]}"
                for each in missing
                if isinstance(each, Listener)
                for channel, after_s in each.resumed_after_s().items()
                if after_s is None
            ]
            names = [each.name for each in missing]
            raise AssertionError(f"not going {PATIENCE_S} s later: {names}\n{first_of(tails)}")

    async def is_back_in_part(self) -> None:
        """Wait until the first subscription has what was marked: the midst of a recovery."""
        await until(
            lambda: any(any(each.resumed_after_s().values()) for each in self.listeners), "the first to be back"
        )

    async def is_refused(self, publishers: Sequence[Publisher] | None = None) -> None:
        """Wait until each of *publishers* (all) was refused again and again since the mark."""
        missing = await left_out(publishers or self.publishers, lambda each: each.refused >= _REFUSALS)
        assert not missing, f"never refused: {[each.name for each in missing]}; {self.volume()}"

    def resumption(self) -> str:
        """Say how long after the mark everything was back."""
        heard = [after for each in self.listeners for after in each.resumed_after_s().values() if after is not None]
        acknowledged = [after for each in self.publishers if (after := each.resumed_after_s()) is not None]
        return f"subscriptions {_spread(heard)}; publishers {_spread(acknowledged)}"

    async def conclude(self) -> dict[str, StreamAtEnd]:
        """Stop publishing, send every channel a last publication that all should get, and read the streams."""
        for listener in self.listeners:
            if isinstance(listener, RestlessListener):
                listener.calm()
        for publisher in self.publishers:
            publisher.is_paused = True
        await left_out(self.publishers, lambda each: each.is_settled)
        senders = {channel: self.publishers[i % len(self.publishers)] for i, channel in enumerate(self.channels)}
        last = await asyncio.gather(*(sender.publish_surely(channel) for channel, sender in senders.items()))
        lasts = dict(zip(senders, last, strict=True))
        # Whoever does not get it is for the oracle to name.
        await left_out(self.listeners, lambda each: each.has_all(lasts))
        return {channel: await read_stream(sender, channel) for channel, sender in senders.items()}

    def violations(
        self, rule: Rule, streams: Mapping[str, StreamAtEnd], *, kept_since_s: float = 0.0
    ) -> list[Violation]:
        """Return what breaks *rule* in the journals, and what publishers know better than the streams."""
        sent = [sent for each in self.publishers for sent in each.sent]
        return [
            Violation(each.name, channel, fault)
            for each in self.listeners
            for channel, journal in each.journals.items()
            for fault in rule(journal, streams[channel])
        ] + violations_of_publishing(sent, streams, kept_since_s=kept_since_s)

    def faults_of_connections(self) -> list[str]:
        """Say who lost its connection, or gave up, where nobody should have."""
        return [
            f"{each.name}: {each.connections} connections, gave up with {each.given_up}"
            for each in self.everybody
            if not isinstance(each, RestlessListener)
            if each.connections != 1 or each.given_up is not None
        ]

    def volume(self) -> str:
        """Say how much there was, so that a test that tested nothing is seen."""
        sent = [sent for each in self.publishers for sent in each.sent]
        fates = ", ".join(f"{sum(each.fate is fate for each in sent)} {fate.value}" for fate in Fate)
        return f"{len(sent)} published: {fates}"


def first_of(faults: Sequence[object]) -> str:
    """Write the first of *faults*, one a line, and how many there are."""
    return "\n".join([f"{len(faults)} in all:", *map(str, faults[:_SHOWN])])


@asynccontextmanager
async def swarming(addresses: Sequence[str], size: SwarmSize) -> AsyncIterator[Swarm]:
    """Run a swarm against the nodes at *addresses* (host:port) and yield it once everything is going.

    Listener and publisher n begin at node n and go on to the next whenever they lose their connection. No more is
    published than this machine bears: a swarm that never keeps up finds out nothing about an outage.
    """
    channels = [f"c{number}" for number in range(size.channels)]
    listeners = [
        (RestlessListener if n < size.restless else Listener)(f"listener {n}", channels, addresses, start=n)
        for n in range(size.listeners)
    ]
    per_second = min(size.per_second, bearable_deliveries() / size.listeners) / size.publishers
    publishers = [
        Publisher(f"publisher-{n}", channels, addresses, start=n, per_second=per_second) for n in range(size.publishers)
    ]
    swarm = Swarm(channels, listeners, publishers)
    async with running(swarm.everybody):
        swarm.mark()
        await swarm.is_going()
        yield swarm


@asynccontextmanager
async def running(clients: Sequence[Client]) -> AsyncIterator[None]:
    """Keep *clients* connected until the block ends. They may run again in a later one."""
    raise_descriptor_limit(2 * len(clients) + 200)
    failure: Exception | None = None
    async with asyncio.TaskGroup() as tasks:
        started = [tasks.create_task(each.run(), name=each.name) for each in clients]
        try:
            yield
        except Exception as error:  # noqa: BLE001 - raised below: the group would wrap what a test has to say
            failure = error
        for task in started:
            task.cancel()
    if failure is not None:
        raise failure


async def read_stream(asking: Publisher, channel: str) -> StreamAtEnd:
    """Read the whole stream of *channel* through a node."""
    held: dict[int, str] = {}
    since = {"offset": 0, "epoch": ""}
    while True:
        page = (await asking.ask({"history": {"channel": channel, "limit": _PAGE, "since": since}})).history
        assert page is not None, f"{channel!r} has no history to read"
        held |= {each.offset: each.data for each in page.publications}
        if not page.publications or page.publications[-1].offset >= page.offset:
            return StreamAtEnd(page.epoch, page.offset, held)
        since = {"offset": page.publications[-1].offset, "epoch": page.epoch}


async def left_out(those: Sequence[SomeT], holds: Callable[[SomeT], bool]) -> list[SomeT]:
    """Wait until something *holds* for all of *those*; return the ones for which it does not when patience ends."""
    waiting, now_s = list(those), asyncio.get_running_loop().time
    deadline_s = now_s() + PATIENCE_S
    # A poll: what tells somebody each time would cost more, with thousands of subscriptions.
    while (waiting := [each for each in waiting if not holds(each)]) and now_s() < deadline_s:  # noqa: ASYNC110
        await asyncio.sleep(_LOOKS_EVERY_S)
    return waiting


def _spread(values: Sequence[float]) -> str:
    if not values:
        return "never"
    return f"{statistics.median(values):.2f} s (median), {max(values):.2f} s (last of {len(values)})"
