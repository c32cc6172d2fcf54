"""A subscription, as its user holds it: an iterator with a bounded buffer, or callbacks."""

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self

from gateway.client.buffer import Buffer
from gateway.client.errors import ClientError, ClosedError, InvalidArgumentError, SlowConsumerError
from gateway.client.events import (
    Dropped,
    Joined,
    Left,
    Subscribed,
    SubscriptionEvent,
    SubscriptionState,
    Unsubscribed,
)
from gateway.client.membership import Membership
from gateway.client.settings import Overflow, SubscriptionSettings
from gateway.protocol.client_codec import ReceivedPublication
from gateway.protocol.messages import StreamPosition

Item = ReceivedPublication | SubscriptionEvent


class Leaver(Protocol):
    """The client, as a subscription sees it."""

    def leave(self, membership: Membership, error: ClientError | None = None) -> None:
        """Unsubscribe."""

    def report(self, error: Exception, what: str) -> None:
        """Tell the event loop's exception handler of a callback that raised."""


class Subscription:
    """One channel of one client. Made by `Client.subscribe`.

    `async for publication in subscription` yields publications in order and ends when the subscription does: silently
    if this side ended it, with an error if the server or a full buffer did. `events()` yields the same and, between
    them, what happened to the subscription (`Joined` and `Left` go to `on_event` alone, where there is one). With
    `on_publication` there is nothing to iterate. One task may iterate at a time; cancelling it loses nothing.
    """

    __slots__ = (
        "_buffer",
        "_client",
        "_dropped",
        "_epoch",
        "_error",
        "_membership",
        "_offset",
        "_on_event",
        "_on_publication",
        "_settings",
        "_waiters",
    )

    def __init__(
        self,
        client: Leaver,
        settings: SubscriptionSettings,
        *,
        on_publication: Callable[[ReceivedPublication], object] | None,
        on_event: Callable[[SubscriptionEvent], object] | None,
    ) -> None:
        self._client = client
        self._settings = settings
        self._on_publication = on_publication
        self._on_event = on_event
        self._membership: Membership | None = None
        self._buffer = Buffer[Item](settings.buffer_max_bytes)
        self._dropped = 0
        since = settings.since or StreamPosition()
        self._offset, self._epoch = since.offset, since.epoch
        self._error: ClientError | None = None
        self._waiters: list[asyncio.Future[None]] = []  # for the confirmation

    def bind(self, membership: Membership) -> None:
        """Belong to *membership*; the client's own affair."""
        self._membership = membership

    @property
    def channel(self) -> str:
        """Its channel."""
        return self._bound.channel

    @property
    def state(self) -> SubscriptionState:
        """Where it is now."""
        return self._bound.state

    @property
    def position(self) -> StreamPosition:
        """How far the iterator or the callback has come.

        Store it together with what you made of the publications, and go on from it with
        `SubscriptionSettings(since=…)`, in another process too. What is still in the buffer lies behind it.
        """
        return StreamPosition(self._offset, self._epoch)

    async def confirmed(self) -> None:
        """Wait until the server has confirmed: whatever is published from then on arrives, or a loss is told.

        Raises:
            ClientError: when the subscription is over, for whatever reason.
        """
        while self.state is not SubscriptionState.SUBSCRIBED:
            if self.state is SubscriptionState.UNSUBSCRIBED:
                raise self._error or ClosedError("unsubscribed", to_do="subscribe again", channel=self.channel)
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            try:
                await waiter
            finally:
                if waiter in self._waiters:
                    self._waiters.remove(waiter)

    def unsubscribe(self) -> None:
        """Leave the channel. Nothing is delivered after the return, and iterators end. Idempotent."""
        self._client.leave(self._bound)

    def events(self) -> "SubscriptionEvents":
        """Iterate over publications and events, in their order."""
        return SubscriptionEvents(self)

    async def __aenter__(self) -> Self:
        try:
            await self.confirmed()
        except BaseException:
            self.unsubscribe()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.unsubscribe()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ReceivedPublication:
        while True:
            item = await self.next_item()
            if isinstance(item, ReceivedPublication):
                return item

    async def next_item(self) -> Item:
        """Return the next publication or event; raises `StopAsyncIteration` at the end."""
        if self._on_publication is not None:
            raise InvalidArgumentError("it has callbacks", to_do="iterate, or give callbacks", channel=self.channel)
        item = await self._buffer.take()
        self._passed(item)
        return item

    def __repr__(self) -> str:
        """Name it."""
        return f"<Subscription {self.channel!r} {self.state.value} at {self._offset}>"

    # The sink of its membership.

    def publish(self, publication: ReceivedPublication) -> None:
        """Take a publication; the client's own affair."""
        on_publication = self._on_publication
        if on_publication is None:
            self._keep(publication, len(publication.data))
            return
        if publication.offset:  # as `_passed` does: a call less for each publication
            self._offset = publication.offset
        if publication.epoch:
            self._epoch = publication.epoch
        try:
            on_publication(publication)
        except Exception as error:  # noqa: BLE001 - the user's code; it must not harm the connection
            self._client.report(error, f"on_publication of {self.channel!r}")

    def tell(self, event: SubscriptionEvent) -> None:
        """Take an event; the client's own affair."""
        if isinstance(event, Subscribed):
            self._wake_waiters()
        if self._on_publication is not None:
            self._passed(event)
        elif self._on_event is None or not isinstance(event, Joined | Left):
            self._keep(event, 0)
        self._call(event)

    def end(self, event: Unsubscribed, error: ClientError | None) -> None:
        """Take the end; the client's own affair."""
        self._error = None if isinstance(error, ClosedError) else error
        # Left by this side: nothing more is wanted, not even what is there.
        self._buffer.end(event, self._error, is_emptied=error is None)
        self._wake_waiters()
        self._call(event)

    def _keep(self, item: Item, payload_bytes: int) -> None:
        if self._dropped and self._buffer.offer(Dropped(self.channel, self._dropped)):
            self._dropped = 0
        if not self._dropped and self._buffer.offer(item, payload_bytes):
            return
        if self._settings.overflow is Overflow.DROP_NEW:
            self._dropped += 1
            return
        error = SlowConsumerError(
            f"{len(self._buffer)} items wait, and more than {self._settings.buffer_max_bytes} bytes may not",
            to_do="take faster or raise buffer_max_bytes; subscribe again with since=subscription.position",
            channel=self.channel,
        )
        self._client.leave(self._bound, error)

    def _passed(self, item: Item) -> None:
        """Move the position past what the user gets now."""
        if isinstance(item, ReceivedPublication):
            if item.offset:
                self._offset = item.offset
            if item.epoch:
                self._epoch = item.epoch
        elif isinstance(item, Subscribed):
            self._offset, self._epoch = item.position.offset, item.position.epoch

    def _call(self, event: SubscriptionEvent) -> None:
        if self._on_event is None:
            return
        try:
            self._on_event(event)
        except Exception as error:  # noqa: BLE001 - the user's code; it must not harm the connection
            self._client.report(error, f"on_event of {self.channel!r}")

    def _wake_waiters(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    @property
    def _bound(self) -> Membership:
        if self._membership is None:
            raise AssertionError("a subscription is bound when it is made")
        return self._membership


class SubscriptionEvents:
    """Publications and events of one subscription, in their order; `async for` over it."""

    __slots__ = ("_subscription",)

    def __init__(self, subscription: Subscription) -> None:
        self._subscription = subscription

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Item:
        return await self._subscription.next_item()
