"""A client that subscribes, recovers and follows its channels, and writes down all that it is told."""

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from tests.support.oracle import (
    Disconnected,
    Joined,
    Journal,
    Left,
    Publication,
    Refused,
    Subscribed,
    Unsubscribed,
)
from tests.support.publisher import sent_at_s
from tests.support.sdk_client import Answered, Client, Error, Message, Push, delays

_INSUFFICIENT_STATE: Final = 2500
_CUTS: Final = 0.3
"""How many of a restless listener's stirrings are a lost connection."""


class _Subscription:
    """What a listener knows of one channel."""

    __slots__ = (
        "epoch",
        "is_asked",
        "is_left",
        "is_subscribed",
        "journal",
        "last",
        "leaving",
        "offset",
        "resumed_at_s",
        "waits",
    )

    def __init__(self) -> None:
        self.journal: Journal = []
        self.epoch = ""
        self.offset = 0
        self.is_subscribed = False
        self.is_asked = False
        self.is_left = False
        self.last = ""
        self.leaving = 0
        self.resumed_at_s: float | None = None
        self.waits: Iterator[float] | None = None


class Listener(Client):
    """Subscribes to *channels*, recovers, follows the offsets, and notes all that it is told."""

    def __init__(self, name: str, channels: Iterable[str], addresses: Sequence[str], *, start: int = 0) -> None:
        super().__init__(name, addresses, start=start)
        self._subscriptions = {channel: _Subscription() for channel in channels}
        self._marked_at_s = 0.0

    @property
    def journals(self) -> dict[str, Journal]:
        """What was noted, for each channel."""
        return {channel: each.journal for channel, each in self._subscriptions.items()}

    @property
    def is_subscribed(self) -> bool:
        """Whether it is subscribed to all of its channels."""
        return all(each.is_subscribed for each in self._subscriptions.values())

    @property
    def is_going(self) -> bool:
        """Whether what was marked has come."""
        return all(each.resumed_at_s is not None for each in self._subscriptions.values())

    def has_all(self, last: Mapping[str, str]) -> bool:
        """Tell whether it is subscribed, and the last publication that came of each channel is the one in *last*."""
        return self.is_subscribed and all(self._subscriptions[channel].last == data for channel, data in last.items())

    def mark(self, at_s: float) -> None:
        """Take the time until each channel brings something that was sent after *at_s*."""
        self._marked_at_s = at_s
        for each in self._subscriptions.values():
            each.resumed_at_s = None

    def resumed_after_s(self) -> dict[str, float | None]:
        """Return how long after the mark each channel was back; `None`: not yet."""
        return {
            channel: None if each.resumed_at_s is None else each.resumed_at_s - self._marked_at_s
            for channel, each in self._subscriptions.items()
        }

    def leave(self, channel: str) -> None:
        """Unsubscribe from *channel*, until `join`."""
        subscription = self._subscriptions[channel]
        subscription.is_left, subscription.is_subscribed = True, False
        subscription.leaving += 1
        subscription.journal.append(Unsubscribed(0))

        def left(_: Message | None) -> None:
            subscription.leaving -= 1

        self._send([({"unsubscribe": {"channel": channel}}, left)])

    def join(self, channel: str) -> None:
        """Subscribe to *channel* again, at once."""
        self._subscriptions[channel].is_left = False
        self._subscribe(channel)

    def _greet(self) -> Iterator[tuple[dict[str, Any], Answered]]:
        return (self._subscribing(channel) for channel, each in self._subscriptions.items() if not each.is_left)

    def _connected(self, reply: Message | None) -> None:
        super()._connected(reply)
        for channel in self._subscriptions:
            self._subscribe(channel)  # it may have been joined since the greeting went out

    def _subscribing(self, channel: str) -> tuple[dict[str, Any], Answered]:
        subscription = self._subscriptions[channel]
        subscription.is_asked = True

        def answered(reply: Message | None) -> None:
            subscription.is_asked = False
            if reply is not None:
                self._subscribed(channel, reply)

        request: dict[str, Any] = {"channel": channel}
        if subscription.epoch:
            request |= {"recover": True, "epoch": subscription.epoch, "offset": subscription.offset}
        return {"subscribe": request}, answered

    def _subscribe(self, channel: str) -> None:
        """Ask, unless there is nothing to ask for, or no connection: then the next one does."""
        subscription = self._subscriptions[channel]
        if self.client_id and not (subscription.is_left or subscription.is_subscribed or subscription.is_asked):
            self._send([self._subscribing(channel)])

    def _subscribed(self, channel: str, reply: Message) -> None:
        subscription, result = self._subscriptions[channel], reply.subscribe
        if result is None:
            assert reply.error is not None, f"{self.name} subscribed to {channel!r} and was told {reply}"
            self._refused(channel, reply.error)
            return
        subscription.waits = None
        subscription.is_subscribed = not subscription.is_left
        subscription.epoch, subscription.offset = result.epoch, result.offset
        subscription.journal.append(Subscribed(result.epoch, result.offset, result.recovered))
        for publication in result.publications:
            self._publication(subscription, publication)

    def _refused(self, channel: str, error: Error) -> None:
        subscription = self._subscriptions[channel]
        subscription.journal.append(Refused(error.code))
        if not error.may_retry:
            return
        if subscription.waits is None:
            subscription.waits = delays(self._chance, least_s=0.1, most_s=1.0)
        self._loop.call_later(next(subscription.waits), self._subscribe, channel)

    def _push(self, push: Push) -> None:
        subscription = self._subscriptions[push.channel]
        if subscription.leaving:
            return  # it was on its way when the listener left
        if push.pub is not None:
            self._publication(subscription, push.pub)
        elif push.unsubscribe is not None:
            subscription.is_subscribed = False
            subscription.journal.append(push.unsubscribe)
            if push.unsubscribe.code >= _INSUFFICIENT_STATE:
                self._subscribe(push.channel)
        elif push.join is not None:
            subscription.journal.append(Joined(push.join.info.client))
        elif push.leave is not None:
            subscription.journal.append(Left(push.leave.info.client))
        else:
            raise AssertionError(f"{self.name} was sent {push}")

    def _publication(self, subscription: _Subscription, publication: Publication) -> None:
        subscription.journal.append(publication)
        subscription.last = publication.data
        if publication.offset:
            subscription.offset = publication.offset
        if publication.epoch:
            subscription.epoch = publication.epoch
        if subscription.resumed_at_s is None and sent_at_s(publication.data) >= self._marked_at_s:
            subscription.resumed_at_s = self._loop.time()

    def _gone(self, code: int) -> None:
        for subscription in self._subscriptions.values():
            subscription.is_subscribed = False
            subscription.journal.append(Disconnected(code))


class RestlessListener(Listener):
    """Loses its connection or leaves a channel again and again, and comes back, until it `calm`s down."""

    def __init__(self, name: str, channels: Iterable[str], addresses: Sequence[str], *, start: int = 0) -> None:
        super().__init__(name, channels, addresses, start=start)
        self._is_calm = False

    async def run(self) -> None:
        """Be connected, and restless."""
        async with asyncio.TaskGroup() as tasks:
            stirring = tasks.create_task(self._stir(), name=f"{self.name} stirs")
            await super().run()
            stirring.cancel()

    def calm(self) -> None:
        """Be like any other from now on."""
        self._is_calm = True

    async def _stir(self) -> None:
        while not self._is_calm:
            channel = self._chance.choice([*self._subscriptions])
            if self._chance.random() < _CUTS:
                self.cut()
            elif self._subscriptions[channel].is_subscribed:
                self.leave(channel)
                await asyncio.sleep(self._chance.uniform(0.0, 0.1))
                self.join(channel)
            await asyncio.sleep(self._chance.uniform(0.05, 0.4))
