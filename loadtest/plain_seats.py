"""Clients of the plain protocol. One that has several channels has a connection for each."""

import asyncio
from collections import deque

import msgspec

from gateway.client import (
    ClientError,
    Connected,
    Disconnected,
    Gap,
    PlainClient,
    PlainEvent,
    PlainMessage,
    Reconnecting,
    Refused,
)
from loadtest.publishers import Publisher
from loadtest.scenario import ClientPlan
from loadtest.seats import gone
from loadtest.stage import Presence, Stage
from loadtest.stamps import decode, now_us
from loadtest.watching import Watch


class Line:
    """One connection of a plain seat, to one channel."""

    def __init__(self, seat: "PlainSeat", channel: str, presence: Presence, stage: Stage) -> None:
        self.watch = Watch(channel, seat.number, stage.counts, is_cache=stage.scenario.has_cache)
        self._seat = seat
        self._presence = presence
        self._stage = stage
        self._has_connected = self._is_connected = False
        self._token = stage.token(seat.number)
        self.client = PlainClient(
            stage.addresses(seat.number, channel),
            token=self._token,
            on_message=self._hear,
            on_event=self._note,
            settings=stage.plain_settings(seat.number),
        )

    def _hear(self, message: PlainMessage) -> None:
        try:
            stamp = decode(message.data)
        except msgspec.MsgspecError:
            self.watch.foreign()
            return
        stage = self._stage
        if stamp.run != stage.run:
            return
        self.watch.take(stamp.publisher, stamp.number)
        tally = stage.tally
        tally.delivered += 1
        tally.latency.record(now_us() - stamp.intended_us)
        if stamp.publisher == self._seat.number:
            self._seat.echoed(self.watch.channel, stamp.number, stamp.intended_us)

    def _note(self, event: PlainEvent) -> None:
        tally = self._stage.tally
        if isinstance(event, Connected):
            tally.connects += 1
            tally.reconnects += self._has_connected
            self._has_connected = self._is_connected = True
            self.watch.confirmed(now_us(), is_sure=bool(self._token))
            self._presence.gain(now_us())
        elif isinstance(event, Gap):
            self.watch.gap_told(now_us())
        elif isinstance(event, Refused):
            tally.errors[f"publish refused ({event.code})"] += 1
            self._seat.doubt(self.watch.channel)
        elif isinstance(event, Disconnected) and not event.code:
            pass  # its own goodbye
        elif self._is_connected:
            self._is_connected = False
            self._stage.endings += 1
            self._seat.doubt(self.watch.channel)
            if not self._presence.is_breaking:
                tally.errors[f"disconnected ({event.code})"] += 1
            self._presence.lose(now_us())
        elif isinstance(event, Reconnecting):
            tally.errors[f"connect failed ({event.code})"] += 1
        else:
            tally.errors[f"ended ({event.code}: {event.reason})"] += 1


class PlainSeat:
    """A client of the plain protocol.

    There is no reply to a publication here; but who publishes gets it back, and what came back was taken. What did not
    when its connection ended is in doubt.
    """

    acknowledges = False

    def __init__(self, number: int, plan: ClientPlan, stage: Stage) -> None:
        self.number = number
        self.plan = plan
        self.publisher: Publisher | None = None
        self._stage = stage
        self._presence = Presence(stage, number)
        self._lines: dict[str, Line] = {}
        self._pending: dict[str, deque[int]] = {}
        self._is_leaving = False

    @property
    def is_ready(self) -> bool:
        """Whether all its connections are there."""
        return self._presence.is_ready

    async def run(self) -> None:
        """Live, as the plan says, until `leave`."""
        stage, plan = self._stage, self.plan
        names = dict.fromkeys((*plan.subscribe, *plan.publish))
        while not self._is_leaving:
            self._presence.begin(len(names))
            channels = [stage.channel(name) for name in names]
            self._lines = {channel: Line(self, channel, self._presence, stage) for channel in channels}
            timer = None
            if plan.lives_s is not None:
                timer = asyncio.get_running_loop().call_later(plan.lives_s, self._say_goodbye)
            await asyncio.gather(*(line.client.run() for line in self._lines.values()))
            if timer is not None:
                timer.cancel()
            for line in self._lines.values():
                stage.keep(line.watch.close())
                stage.endings += 1
            self._lines = {}
            if plan.lives_s is None or stage.is_calm:
                return
            await asyncio.sleep(plan.away_s)

    def leave(self) -> None:
        """Go for good, politely."""
        self._is_leaving = True
        self._stop()

    def abort(self) -> None:
        """Lose the connections, as in a bad network."""
        self._presence.breaks()
        for line in self._lines.values():
            line.client.abort()

    @property
    def awaits(self) -> int:
        """How many publications have not come back yet."""
        return sum(map(len, self._pending.values()))

    def give_up(self) -> None:
        """Take all that has not come back for doubtful."""
        for channel in list(self._pending):
            self.doubt(channel)

    async def publish(self, channel: str, number: int, payload: bytes) -> None:
        """Publish; `Publisher` is told what became of it."""
        line = self._lines.get(channel)
        if line is None:
            raise gone(channel)
        pending = self._pending.setdefault(channel, deque())
        pending.append(number)
        try:
            await line.client.send_text(payload.decode())
        except ClientError:
            pending.remove(number)
            raise

    def watches(self) -> list[Watch]:
        """Return the watches of its present life."""
        return [line.watch for line in self._lines.values()]

    def echoed(self, channel: str, number: int, intended_us: int) -> None:
        """Note that a publication of this seat has come back."""
        pending = self._pending.get(channel)
        if pending and number in pending:
            pending.remove(number)  # the first, as a rule
            if self.publisher is not None:
                self.publisher.acknowledged(intended_us)

    def doubt(self, channel: str) -> None:
        """Note that nobody knows what becomes of what has not come back yet."""
        pending = self._pending.pop(channel, None)
        if pending and self.publisher is not None:
            self.publisher.unanswered(channel, pending)

    def _say_goodbye(self) -> None:
        if not self._stage.is_calm:
            self._stop()

    def _stop(self) -> None:
        if self._lines:
            self._presence.end(now_us())
        for line in self._lines.values():
            line.client.stop()
