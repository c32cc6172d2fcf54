"""Joins that run at the same time lose no subscription and leak none, whatever the broker does and when."""

import asyncio
import itertools
import json
from collections import defaultdict, deque
from collections.abc import Callable
from typing import Any, Final

import msgspec
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.broker.contract import BrokerError, PublishOptions
from gateway.broker.memory.broker import MemoryBroker
from gateway.broker.outcome import Outcome
from gateway.domain.stream import HistoryRange, StreamOptions, StreamPage
from gateway.messaging.control import SubscribeUser, UnsubscribeUser
from gateway.messaging.orders import LocalOrders
from gateway.protocol.messages import Publication
from tests.support.conversations import Client, House

PLAIN: Final = "plain:x"
STREAM: Final = "stream:x"
CHANNELS: Final = (PLAIN, STREAM)
CLIENTS: Final = 3
KEPT: Final = PublishOptions(stream=StreamOptions(size=1000, ttl_s=3600.0, meta_ttl_s=7200.0))
_OPEN: Final = {"allow_subscribe_for_client": True, "presence": True}
TABLE: Final = {
    "channel": {
        "namespaces": [
            {"name": "plain", **_OPEN},
            {"name": "stream", **_OPEN, "history_size": 1000, "history_ttl": 3600, "force_recovery": True},
        ]
    }
}

Step = tuple[str, int, str]


class HeldBroker(MemoryBroker):
    """Carries out what it is asked for a channel when the test says so: subscribing and leaving in order, reads too."""

    def __init__(self) -> None:
        super().__init__(new_epoch=lambda: "e")
        self._wishes: defaultdict[str, deque[tuple[Callable[[], None], Outcome[None]]]] = defaultdict(deque)
        self._reads: defaultdict[str, deque[tuple[Callable[[], StreamPage], Outcome[StreamPage]]]] = defaultdict(deque)
        self._failing: set[int] = set()

    @property
    def channels(self) -> set[str]:
        return set(self._channels)

    @property
    def is_waiting(self) -> bool:
        return any(self._wishes.values()) or any(self._reads.values())

    def subscribe(self, channel: str) -> Outcome[None]:
        subscribe = super().subscribe
        outcome: Outcome[None] = Outcome()
        self._wishes[channel].append((lambda: subscribe(channel).result(), outcome))
        self._failing.add(id(outcome))
        return outcome

    def unsubscribe(self, channel: str) -> Outcome[None]:
        unsubscribe = super().unsubscribe
        outcome: Outcome[None] = Outcome()
        self._wishes[channel].append((lambda: unsubscribe(channel).result(), outcome))
        return outcome

    def history(self, channel: str, wanted: HistoryRange, *, meta_ttl_s: float) -> Outcome[StreamPage]:
        read = super().history
        outcome: Outcome[StreamPage] = Outcome()
        self._reads[channel].append((lambda: read(channel, wanted, meta_ttl_s=meta_ttl_s).result(), outcome))
        return outcome

    def confirm(self, channel: str) -> None:
        """Carry out the oldest wish for *channel*."""
        if self._wishes[channel]:
            carry_out, outcome = self._wishes[channel].popleft()
            carry_out()
            outcome.succeed(None)

    def refuse(self, channel: str) -> None:
        """Fail the oldest wish for *channel*, if that is one to subscribe: leaving can't fail."""
        if self._wishes[channel] and id(self._wishes[channel][0][1]) in self._failing:
            self._wishes[channel].popleft()[1].fail(BrokerError("down"))
        else:
            self.confirm(channel)

    def answer(self, channel: str) -> None:
        """Answer the oldest read of *channel*."""
        if self._reads[channel]:
            read, outcome = self._reads[channel].popleft()
            outcome.succeed(read())

    def fail_read(self, channel: str) -> None:
        if self._reads[channel]:
            self._reads[channel].popleft()[1].fail(BrokerError("down"))

    async def stop(self) -> None:
        for channel in CHANNELS:
            while self._wishes[channel]:
                self.refuse(channel)
            while self._reads[channel]:
                self.fail_read(channel)
        await super().stop()


class Member:
    """A client that remembers which channels it was told to be in, and what it got there."""

    def __init__(self, client: Client, number: int, ids: "itertools.count[int]") -> None:
        self.client = client
        self.user = f"user {number}"
        self.told: set[str] = set()
        self.got: defaultdict[str, list[int]] = defaultdict(list)
        self.tasks: set[asyncio.Task[None]] = set()
        """Of its commands that wait, those that have begun to."""
        self._asked: dict[int, str] = {}
        self._ids = ids

    def ask(self, method: str, channel: str) -> None:
        number = next(self._ids)
        self._asked[number] = channel
        self.client.send({"id": number, method: {"channel": channel}})

    def read(self) -> None:
        for value in self.client.take_values():
            if "subscribe" in value:
                self.told.add(self._asked.pop(value["id"]))
            elif "unsubscribe" in value:
                self.told.discard(self._asked.pop(value["id"]))
            elif "error" in value:
                channel = self._asked.pop(value["id"])
                is_there_already = value["error"]["code"] == 105
                assert is_there_already or value["error"]["code"] == 100, value
                assert (channel in self.told) is is_there_already, f"{value}, told to be in {self.told}"
            else:
                self._take(value["push"])

    def _take(self, push: dict[str, Any]) -> None:
        channel = push["channel"]
        if "subscribe" in push:
            self.told.add(channel)
        elif "unsubscribe" in push:
            assert channel in self.told, push
            self.told.discard(channel)
        else:
            assert channel in self.told, f"{self.user} gets {push} although it is not in"
            self.got[channel].append(push["pub"]["data"])


class World:
    """A house on a broker that does nothing by itself, with members who come and go."""

    def __init__(self) -> None:
        self.broker = HeldBroker()
        self.house = House(TABLE, broker=self.broker)
        self.orders = LocalOrders(self.house.services)
        self.members: list[Member | None] = [None] * CLIENTS
        # Tasks that have not run yet: to cancel one of those would test asyncio, not the gateway.
        self._starting: list[set[asyncio.Task[None]]] = [set() for _ in range(CLIENTS)]
        self._ids = itertools.count(2)
        self._numbers = itertools.count(1)

    async def step(self, step: Step) -> None:
        what, number, channel = step
        if what in {"confirm", "refuse", "answer", "fail_read"}:
            getattr(self.broker, what)(channel)
        elif what == "publish":
            await self.publish(channel)
        else:
            member = self.members[number] or await self._open(number)
            before = set(self.house.tasks)
            match what:
                case "subscribe" | "unsubscribe":
                    member.ask(what, channel)
                case "order in":
                    self.orders.subscribe(SubscribeUser(member.user, channel=channel))
                case "order out":
                    self.orders.unsubscribe(UnsubscribeUser(member.user, channel=channel))
                case "go" | "be cancelled":
                    self._end(number, member, is_cancelled=what == "be cancelled")
                case _:
                    raise AssertionError(what)
            self._starting[number] |= self.house.tasks - before

    async def settle(self) -> None:
        await self.house.settle()
        for number, member in enumerate(self.members):
            if member is not None:
                member.tasks |= self._starting[number]
                member.read()
            self._starting[number].clear()

    async def publish(self, channel: str) -> None:
        """Publish a number; who was told to be in gets it."""
        await self.settle()
        number = next(self._numbers)
        publication = Publication(data=msgspec.Raw(json.dumps(number).encode()))
        due = [member for member in self.members if member is not None and channel in member.told]
        kept = KEPT if channel == STREAM else PublishOptions()
        self.broker.publish(channel, publication, accepted_at_s=0.0, options=kept)
        await self.settle()
        for member in due:
            assert member.got[channel].count(number) == 1, f"{member.user} got {member.got[channel]}, due is {number}"

    async def calm_down(self) -> None:
        """Have the broker carry out all that it was asked for."""
        await self.settle()
        while self.broker.is_waiting:
            for channel in CHANNELS:
                self.broker.confirm(channel)
                self.broker.answer(channel)
            await self.settle()

    def check(self) -> None:
        """Compare what every part holds with what the members were told."""
        members = [member for member in self.members if member is not None]
        for member in members:
            assert member.client.channels == member.told, f"{member.user} is in and was told otherwise"
            assert member.client.closing is None
        wanted = set[str]().union(*(member.told for member in members))
        services = self.house.services
        held = {
            "broker": self.broker.channels,
            "interest": {channel for channel in CHANNELS if channel in wanted},
            "hub": {local.channel.name for local in self.house.hub},
        }
        assert held == {"broker": wanted, "interest": wanted, "hub": wanted}
        assert len(services.interest) == len(wanted)
        for channel in CHANNELS:
            inside = {member.client.id for member in members if channel in member.told}
            assert set(services.presence_store.presence(channel).result()) == inside
            assert set(services.presences.local(channel)) == inside

    async def _open(self, number: int) -> Member:
        member = Member(await self.house.connect(f"user {number}"), number, self._ids)
        self.members[number] = member
        return member

    def _end(self, number: int, member: Member, *, is_cancelled: bool) -> None:
        for task in member.tasks if is_cancelled else ():
            task.cancel()
        member.client.go()
        self.members[number] = None
        self._starting[number].clear()


_OFTEN: Final = ["confirm", "answer", "subscribe", "subscribe", "unsubscribe"]
_SELDOM: Final = ["refuse", "fail_read", "publish", "order in", "order out", "go", "be cancelled", "wait"]
_STEPS: Final = st.tuples(
    st.sampled_from([*_OFTEN * 3, *_SELDOM]), st.integers(0, CLIENTS - 1), st.sampled_from(CHANNELS)
)


async def _play(steps: list[Step]) -> None:
    world = World()
    for step in steps:
        # Without a wait between them, steps come in one turn of the loop.
        await (world.settle() if step[0] == "wait" else world.step(step))
    await world.calm_down()
    world.check()
    for channel in CHANNELS:
        await world.publish(channel)
    for number, member in enumerate(world.members):
        if member is not None:
            world._end(number, member, is_cancelled=False)  # noqa: SLF001 - its own
    await world.calm_down()
    world.check()
    await world.house.leave_nothing()


def _script(*steps: str) -> list[Step]:
    """Read steps like `subscribe 0`, all of them in one channel with a stream."""
    words = [(*step.rsplit(" ", 1),) if step[-1].isdecimal() else (step, "0") for step in steps]
    return [(what, int(number), STREAM) for what, number in words]


@settings(max_examples=150, deadline=None)
@given(st.lists(_STEPS, min_size=10, max_size=60))
# The first subscriber gives up while others wait for its confirmation; the only one does, and comes back.
@example(_script("subscribe 0", "subscribe 1", "wait", "go 0", "wait", "confirm", "wait", "answer"))
@example(
    _script("subscribe 0", "wait", "be cancelled 0", "wait", "subscribe 0", "wait", "confirm", "confirm", "confirm")
)
# In one turn: the confirmation and the end of who waited for it.
@example(_script("subscribe 0", "wait", "confirm", "go 0"))
@example(_script("subscribe 0", "wait", "confirm", "be cancelled 0", "subscribe 1"))
# Who comes in the turn of a failure.
@example(_script("order out 1", "subscribe 0", "wait", "subscribe 1", "refuse", "wait", "confirm"))
# The last one leaves while the next one comes.
@example(_script("subscribe 0", "wait", "confirm", "wait", "answer", "wait", "unsubscribe 0", "subscribe 1"))
@example(_script("subscribe 0", "wait", "confirm", "wait", "subscribe 1", "wait", "go 0", "wait", "fail_read"))
# An order and the client's own wish.
@example(_script("subscribe 0", "order in 0", "wait", "confirm", "wait", "answer", "wait", "order out 0"))
@example(_script("order in 0", "wait", "confirm", "wait", "subscribe 0", "be cancelled 0"))
def test_who_was_told_to_be_in_is_in_and_nobody_else(steps: list[Step]) -> None:
    asyncio.run(_play(steps))
