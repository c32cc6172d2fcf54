"""Nothing is lost in silence and nothing comes twice, whatever the network does to deliveries and reads."""

import asyncio
import itertools
from typing import Any, Final

import msgspec
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.broker.contract import PublishOptions
from gateway.domain.stream import StreamOptions
from gateway.protocol.messages import Publication
from tests.support.conversations import Client, House
from tests.support.delayed_broker import DelayedBroker

CHANNEL: Final = "stream:c"
CHANNELS: Final = {
    "client": {"channel_position_check_delay": 40},
    "channel": {
        "namespaces": [
            {
                "name": "stream",
                "allow_subscribe_for_client": True,
                "history_size": 8,
                "history_ttl": 3600,
                "force_recovery": True,
            }
        ]
    },
}
STREAM: Final = PublishOptions(stream=StreamOptions(size=8, ttl_s=3600.0, meta_ttl_s=7200.0))
CLIENTS: Final = 3

Step = str | tuple[str, int]
# The first is what a failing example shrinks to. Lists are long on purpose: left alone, Hypothesis draws five steps.
_OFTEN: Final[list[Step]] = ["deliver", "carry_out", "answer", "publish"]
_COMINGS: Final[list[Step]] = [("subscribe", number) for number in range(CLIENTS)]
_SELDOM: Final[list[Step]] = [
    *(("unsubscribe", number) for number in range(CLIENTS)),
    "publish_many",
    "cut",
    "restore",
    "fail_read",
    "lose_data",
    "flush_data",
]
STEPS: Final = st.lists(st.sampled_from([*_OFTEN * 3, *_COMINGS * 2, *_SELDOM]), min_size=40, max_size=80)


class Subscriber:
    """What an SDK knows of one subscription, and whether all it was sent fits together."""

    def __init__(self, client: Client, name: str) -> None:
        self.client = client
        self.name = name
        self.position: tuple[str, int] | None = None
        self.is_subscribed = False
        self.is_asking = False
        self.got: list[tuple[str, int]] = []
        self._ids = itertools.count(2)

    def subscribe(self) -> None:
        if self.is_subscribed or self.is_asking:
            return
        self.is_asking = True
        request: dict[str, Any] = {"channel": CHANNEL}
        if self.position is not None:
            request |= {"recover": True, "epoch": self.position[0], "offset": self.position[1]}
        self.client.send({"id": next(self._ids), "subscribe": request})

    def unsubscribe(self) -> None:
        self.client.send({"id": next(self._ids), "unsubscribe": {"channel": CHANNEL}})
        if not self.is_asking:
            self.is_subscribed = False

    def read(self) -> None:
        for value in self.client.take_values():
            if "subscribe" in value:
                self._begin(value["subscribe"])
            elif "error" in value:
                assert value["error"]["code"] == 100, value
                self.is_asking = False
            elif "unsubscribe" in value:
                self.is_subscribed = False
            elif "push" in value and "unsubscribe" in value["push"]:
                assert value["push"]["unsubscribe"]["code"] == 2500, value
                self.is_subscribed = False
            elif "push" in value:
                assert self.is_subscribed, f"{self.name} gets {value} although it is not subscribed"
                self._take(value["push"]["pub"])
            else:
                assert value == {}, value

    def _begin(self, result: dict[str, Any]) -> None:
        self.is_asking, self.is_subscribed = False, True
        told = (result["epoch"], result.get("offset", 0))
        if result.get("recovered"):
            assert self.position is not None
            assert told == self.position, f"{self.name} was at {self.position} and recovered from {told}"
        else:
            assert "publications" not in result
        self.position = told
        for publication in result.get("publications", []):
            self._take(publication)

    def _take(self, publication: dict[str, Any]) -> None:
        assert self.position is not None
        epoch, offset = self.position
        data_epoch, number = publication["data"]
        assert (data_epoch, publication["offset"]) == (epoch, offset + 1), (
            f"{self.name} is at {self.position} and gets offset {publication['offset']} of epoch {data_epoch}"
        )
        assert number == publication["offset"]
        self.position = (epoch, offset + 1)
        self.got.append(self.position)


class World:
    """A house on a delayed broker, with subscribers who come and go."""

    def __init__(self) -> None:
        letters = itertools.count()
        self.now_s = 1000.0
        self.broker = DelayedBroker(monotonic=lambda: self.now_s, new_epoch=lambda: f"e{next(letters)}")
        self.house = House(CHANNELS, broker=self.broker)
        self.subscribers: list[Subscriber] = []

    async def open(self) -> None:
        for number in range(CLIENTS):
            client = await self.house.connect(str(number))
            self.subscribers.append(Subscriber(client, f"client {number}"))

    def publish(self) -> None:
        # The payload tells where it belongs.
        position = self.broker.top(CHANNEL)
        data = msgspec.json.encode([position.epoch, position.offset + 1])
        self.broker.publish(CHANNEL, Publication(data=msgspec.Raw(data)), accepted_at_s=0.0, options=STREAM)

    async def step(self, step: Step) -> None:
        if isinstance(step, tuple):
            getattr(self.subscribers[step[1]], step[0])()
        elif step == "publish":
            self.publish()
        elif step == "publish_many":  # more than the stream keeps
            for _ in range(10):
                self.publish()
        else:
            getattr(self.broker, step)()
        await self.settle()

    async def settle(self) -> None:
        await self.house.settle()
        for subscriber in self.subscribers:
            subscriber.read()

    async def calm_down(self, *, checks: int) -> None:
        """Let everything arrive, and have positions checked so many times."""
        self.broker.restore()
        for number in range(4):
            if number < checks:
                self.house.intake.check()
            self.broker.settle()
            await self.house.advance(2.0)
            await self.settle()
        # Everybody who was told of a loss comes back, as SDKs do.
        for _ in range(8):
            for subscriber in self.subscribers:
                subscriber.subscribe()
            self.broker.settle()
            await self.settle()


async def _play(steps: list[Step], *, checks: int = 0) -> None:
    world = World()
    await world.open()
    for step in steps:
        await world.step(step)
    await world.calm_down(checks=checks)
    top = world.broker.top(CHANNEL)
    for subscriber in world.subscribers:
        assert subscriber.is_subscribed, f"{subscriber.name} was left out"
        assert subscriber.position == (top.epoch, top.offset), f"{subscriber.name} was left behind, in silence"
    await world.house.leave_nothing()


def _after_joining(*steps: Step) -> list[Step]:
    return [("subscribe", 0), "carry_out", "answer", *steps]


@settings(max_examples=150, deadline=None)
@given(STEPS)
# Cut off again, or supplied with more, while what was missed is being read.
@example(_after_joining("cut", "publish", "restore", "carry_out", "cut", "publish", "restore", "answer"))
@example(_after_joining("cut", "publish", "restore", "carry_out", "publish", "deliver", "answer"))
# Emptied between the read and its answer.
@example(_after_joining("cut", "publish", "restore", "carry_out", "flush_data", "publish", "deliver", "answer"))
@example([("subscribe", 0), "carry_out", "publish", "deliver", "answer"])
@example([("subscribe", 0), "publish", "publish", "carry_out", "answer", "deliver", ("subscribe", 1), "deliver"])
@example([("subscribe", 0), "carry_out", "answer", "publish", "cut", "publish", "restore", "publish", "deliver"])
@example([("subscribe", 0), "carry_out", "answer", "publish", "deliver", "lose_data", "restore", "publish", "deliver"])
@example([("subscribe", 0), "carry_out", "cut", "publish", "restore", "answer"])
def test_every_subscriber_gets_each_offset_once_in_order_or_is_told(steps: list[Step]) -> None:
    asyncio.run(_play(steps))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from([*_OFTEN * 3, *_COMINGS * 2, *_SELDOM, "swallow"]), min_size=40, max_size=80))
def test_what_is_swallowed_without_a_word_is_found_by_the_position_check(steps: list[Step]) -> None:
    asyncio.run(_play(steps, checks=3))


def test_a_latecomer_joins_in_the_middle_of_what_is_fetched() -> None:
    missed: list[Step] = ["publish", "publish", "publish", "swallow", "carry_out", "deliver"]
    asyncio.run(_play(_after_joining(("subscribe", 1), *missed, "publish", "carry_out", "answer", "answer")))
