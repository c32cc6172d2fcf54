"""The clients of a load test. A seat is one client of the scenario, over all its connections, and all its lives."""

import asyncio
import contextlib
from typing import Final, Protocol

import msgspec

from gateway.client import (
    Client,
    ClientError,
    ClientEvent,
    ClosedError,
    Connected,
    Disconnected,
    Publication,
    Reconnecting,
    Resubscribing,
    Subscribed,
    SubscriptionEvent,
    Unsubscribed,
)
from loadtest.scenario import ClientPlan
from loadtest.stage import Presence, Stage
from loadtest.stamps import decode, now_us
from loadtest.watching import Watch

_UNSUBSCRIBE_CODES: Final = range(2000, 3000)


class Seat(Protocol):
    """One client of the scenario, whatever it speaks."""

    number: int
    plan: ClientPlan

    @property
    def is_ready(self) -> bool:
        """Whether it is connected and subscribed."""

    async def run(self) -> None:
        """Live, as the plan says, until `leave`."""

    def leave(self) -> None:
        """Go for good, politely."""

    def abort(self) -> None:
        """Lose the connection, as in a bad network."""

    def watches(self) -> list[Watch]:
        """Return the watches of its present life."""


class Ear:
    """Listens to one subscription of a JSON client."""

    __slots__ = ("_presence", "_stage", "watch")

    def __init__(self, watch: Watch, presence: Presence, stage: Stage) -> None:
        self.watch = watch
        self._presence = presence
        self._stage = stage

    def hear(self, publication: Publication) -> None:
        """Take one publication: the hot path (tests/benchmarks/loadtest)."""
        try:
            stamp = decode(publication.data)
        except msgspec.MsgspecError:
            self.watch.foreign()
            return
        stage = self._stage
        if stamp.run == stage.run:
            self.watch.take(stamp.publisher, stamp.number, publication.offset)
            tally = stage.tally
            tally.delivered += 1
            tally.latency.record(now_us() - stamp.intended_us)

    def tell(self, event: SubscriptionEvent) -> None:
        """Take what happens to the subscription."""
        if isinstance(event, Subscribed):
            is_recovered = event.was_recovering and event.recovered
            self.watch.confirmed(now_us(), is_recovered=is_recovered, has_history=bool(event.position.epoch))
            self._presence.gain(now_us())
        elif isinstance(event, Resubscribing):
            if event.code in _UNSUBSCRIBE_CODES:
                self._stage.tally.errors[f"unsubscribed ({event.code})"] += 1
            self._presence.lose(now_us())
        elif isinstance(event, Unsubscribed) and event.code:
            self._stage.tally.errors[f"unsubscribed ({event.code})"] += 1
            self._presence.lose(now_us())


class JSONSeat:
    """A client of the Centrifugo protocol."""

    acknowledges = True

    __slots__ = (
        "_client",
        "_ears",
        "_has_connected",
        "_is_connected",
        "_is_leaving",
        "_presence",
        "_stage",
        "number",
        "plan",
    )

    def __init__(self, number: int, plan: ClientPlan, stage: Stage) -> None:
        self.number = number
        self.plan = plan
        self._stage = stage
        self._presence = Presence(stage, number)
        self._client: Client | None = None
        self._ears: tuple[Ear, ...] = ()
        self._has_connected = self._is_connected = self._is_leaving = False

    @property
    def is_ready(self) -> bool:
        """Whether it is connected and subscribed."""
        return self._presence.is_ready

    async def run(self) -> None:
        """Live, as the plan says, until `leave`."""
        stage, plan = self._stage, self.plan
        while not self._is_leaving:
            timer = None
            client = self._begin()
            if plan.lives_s is not None:
                timer = asyncio.get_running_loop().call_later(plan.lives_s, self._say_goodbye)
            await client.run()
            if timer is not None:
                timer.cancel()
            self._end()
            if plan.lives_s is None or stage.is_calm:
                return
            await asyncio.sleep(plan.away_s)

    def leave(self) -> None:
        """Go for good, politely."""
        self._is_leaving = True
        if self._client is not None:
            self._presence.end(now_us())
            self._client.stop()

    def abort(self) -> None:
        """Lose the connection, as in a bad network."""
        if self._client is not None:
            self._presence.breaks()
            self._client.abort()

    @property
    def awaits(self) -> int:
        """Nothing: each publication is answered."""
        return 0

    def give_up(self) -> None:
        """Do nothing."""

    async def publish(self, channel: str, number: int, payload: bytes) -> None:
        """Publish; raises `ClientError` as `Client.publish` does."""
        del number
        if self._client is None:
            raise gone(channel)
        await self._client.publish(channel, payload)

    def watches(self) -> list[Watch]:
        """Return the watches of its present life."""
        return [ear.watch for ear in self._ears]

    def _begin(self) -> Client:
        stage, number, plan = self._stage, self.number, self.plan
        self._has_connected = self._is_connected = False
        self._presence.begin(1 + len(plan.subscribe))
        client = self._client = Client(
            stage.addresses(number),
            token=stage.token(number),
            on_event=self._note,
            settings=stage.settings(number),
        )
        ears = []
        for name in plan.subscribe:
            channel = stage.channel(name)
            watch = Watch(channel, number, stage.counts, is_cache=stage.scenario.has_cache)
            ear = Ear(watch, self._presence, stage)
            ears.append(ear)
            client.subscribe(channel, on_publication=ear.hear, on_event=ear.tell)
        self._ears = tuple(ears)
        return client

    def _say_goodbye(self) -> None:
        """End this life, unless everybody is to stay where they are."""
        if not self._stage.is_calm and self._client is not None:
            self._presence.end(now_us())
            self._client.stop()

    def _end(self) -> None:
        for ear in self._ears:
            self._stage.keep(ear.watch.close())
        self._stage.endings += 1
        self._ears = ()
        self._client = None

    def _note(self, event: ClientEvent) -> None:
        tally = self._stage.tally
        if isinstance(event, Connected):
            tally.connects += 1
            tally.reconnects += self._has_connected
            self._has_connected = self._is_connected = True
            self._presence.gain(now_us())
        elif isinstance(event, Reconnecting):
            if self._is_connected:
                self._is_connected = False
                self._stage.endings += 1
                if not self._presence.is_breaking:
                    tally.errors[f"disconnected ({event.code})"] += 1
                self._presence.lose(now_us())
            else:
                tally.errors[f"connect failed ({event.code})"] += 1
        elif isinstance(event, Disconnected) and self._client is not None and event.code:
            if self._is_connected:
                self._is_connected = False
                self._presence.lose(now_us())
            tally.errors[f"ended ({event.code}: {event.reason})"] += 1


def gone(channel: str) -> ClientError:
    """Make the error of a publication that there is no connection for."""
    return ClosedError("there is no connection", to_do="wait", channel=channel)


async def lives(seat: Seat) -> None:
    """Run *seat*; a client error that ends it is no reason to end the others."""
    with contextlib.suppress(ClientError):
        await seat.run()
