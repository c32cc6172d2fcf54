import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from msgspec import Raw

from gateway.client.errors import (
    ClientError,
    ClosedError,
    InvalidArgumentError,
    SlowConsumerError,
    UnsubscribedError,
)
from gateway.client.events import (
    Dropped,
    Joined,
    Resubscribing,
    Subscribed,
    SubscriptionEvent,
    Unsubscribed,
)
from gateway.client.membership import Membership
from gateway.client.settings import Overflow, SubscriptionSettings
from gateway.client.subscription import Subscription
from gateway.protocol.client_codec import ReceivedPublication, ReceivedSubscribeResult
from gateway.protocol.messages import ClientInfo, StreamPosition

OVER = UnsubscribedError("over", to_do="go", channel="news")


class Owner:
    """What a subscription asks of its client."""

    def __init__(self) -> None:
        self.left: list[ClientError | None] = []
        self.reports: list[str] = []

    def leave(self, membership: Membership, error: ClientError | None = None) -> None:
        if membership.state.value != "unsubscribed":
            self.left.append(error)
            membership.end(0, "unsubscribed", error)

    def report(self, error: Exception, what: str) -> None:
        self.reports.append(f"{what}: {error}")


def make(
    settings: SubscriptionSettings | None = None,
    *,
    on_publication: Callable[[ReceivedPublication], object] | None = None,
    on_event: Callable[[SubscriptionEvent], object] | None = None,
) -> tuple[Subscription, Membership, Owner]:
    owner = Owner()
    subscription = Subscription(
        owner, settings or SubscriptionSettings(), on_publication=on_publication, on_event=on_event
    )
    membership = Membership("news", subscription, wishes=settings)
    subscription.bind(membership)
    return subscription, membership, owner


def confirm(membership: Membership, **result: Any) -> None:
    membership.accept(ReceivedSubscribeResult(**result), now_s=0)


def say(membership: Membership, *offsets: int, epoch: str = "", data: bytes = b"1") -> None:
    for offset in offsets:
        membership.published(ReceivedPublication(data=Raw(data), offset=offset, epoch=epoch))


async def offsets(subscription: Subscription, count: int) -> list[int]:
    return [(await anext(subscription)).offset for _ in range(count)]


async def test_iterating_yields_publications_alone_and_events_yields_all_in_order() -> None:
    subscription, membership, _ = make()
    for _ in range(2):
        confirm(membership)
        say(membership, 1, 2)
        membership.interrupt(1006, "reset")
    assert await offsets(subscription, 2) == [1, 2]
    events = subscription.events()
    assert await anext(events) == Resubscribing("news", 1006, "reset")
    assert isinstance(await anext(events), Subscribed)
    assert [(await anext(events)).offset for _ in range(2)] == [1, 2]  # type: ignore[union-attr]


async def test_the_position_is_where_the_reader_is_and_not_the_network() -> None:
    subscription, membership, _ = make()
    confirm(membership, offset=4, epoch="e")
    say(membership, 5, 6)
    assert subscription.position == StreamPosition()
    assert await offsets(subscription, 1) == [5]
    assert (subscription.position, membership.position) == (StreamPosition(5, "e"), StreamPosition(6, "e"))
    await offsets(subscription, 1)
    assert subscription.position == StreamPosition(6, "e")


async def test_the_position_begins_where_it_was_told_to() -> None:
    subscription, _, _ = make(SubscriptionSettings(since=StreamPosition(3, "e")))
    assert subscription.position == StreamPosition(3, "e")


async def test_callbacks_get_all_at_once_and_move_the_position() -> None:
    got: list[Any] = []
    subscription, membership, _ = make(on_publication=lambda each: got.append(each.offset), on_event=got.append)
    confirm(membership, offset=4, epoch="e")
    say(membership, 5, 6)
    assert got == [Subscribed("news", StreamPosition(4, "e"), was_recovering=False, recovered=False), 5, 6]
    assert subscription.position == StreamPosition(6, "e")
    with pytest.raises(InvalidArgumentError, match="callbacks"):
        await anext(subscription)


async def test_a_callback_that_raises_is_reported_and_called_again() -> None:
    def fail(_: object) -> None:
        raise RuntimeError("oops")

    subscription, membership, owner = make(on_publication=fail, on_event=fail)
    confirm(membership)
    say(membership, 1, 2)
    assert owner.reports == ["on_event of 'news': oops"] + ["on_publication of 'news': oops"] * 2
    assert subscription.position.offset == 2


async def test_joins_go_to_the_callback_alone_where_there_is_one() -> None:
    joined = Joined("news", ClientInfo("ann", "c2"))
    got: list[SubscriptionEvent] = []
    subscription, membership, _ = make(on_event=got.append)
    confirm(membership)
    subscription.tell(joined)
    say(membership, 1)
    assert got[-1] == joined
    events = subscription.events()
    assert [type(await anext(events)) for _ in range(2)] == [Subscribed, ReceivedPublication]


# Overflow.


async def test_a_full_buffer_ends_the_subscription_and_loses_nothing_that_is_in_it() -> None:
    subscription, membership, owner = make(SubscriptionSettings(buffer_max_bytes=1100))
    confirm(membership, epoch="e")
    say(membership, 1, 2, 3, 4, 5)
    assert [type(each) for each in owner.left] == [SlowConsumerError]
    assert await offsets(subscription, 3) == [1, 2, 3]
    for _ in range(2):
        with pytest.raises(SlowConsumerError, match=r"since=subscription\.position"):
            await anext(subscription)
    assert subscription.position == StreamPosition(3, "e")


async def test_a_full_buffer_that_drops_says_how_many_at_their_place() -> None:
    subscription, membership, owner = make(SubscriptionSettings(buffer_max_bytes=1100, overflow=Overflow.DROP_NEW))
    confirm(membership, epoch="e")
    say(membership, 1, 2, 3, 4, 5)
    events = subscription.events()
    items = [await anext(events) for _ in range(3)]
    say(membership, 6)
    items += [await anext(events) for _ in range(3)]
    assert [each if isinstance(each, Dropped) else getattr(each, "offset", 0) for each in items] == [
        0,
        1,
        2,
        3,
        Dropped("news", 2),
        6,
    ]
    assert owner.left == []


# The end.


async def test_leaving_ends_iteration_at_once() -> None:
    subscription, membership, owner = make()
    confirm(membership)
    say(membership, 1)
    subscription.unsubscribe()
    subscription.unsubscribe()
    assert owner.left == [None]
    assert [each async for each in subscription] == []
    with pytest.raises(ClosedError):
        await subscription.confirmed()


@pytest.mark.parametrize(
    ("error", "raised"), [(OVER, UnsubscribedError), (ClosedError("closed", to_do="x"), StopAsyncIteration)]
)
async def test_what_the_server_or_the_client_ends_still_gives_what_it_has(
    error: ClientError, raised: type[Exception]
) -> None:
    subscription, membership, _ = make()
    confirm(membership)
    say(membership, 1)
    membership.end(2000, "over", error)
    assert await offsets(subscription, 1) == [1]
    with pytest.raises(raised):
        await anext(subscription)


async def test_the_last_event_is_that_it_is_over() -> None:
    subscription, membership, _ = make()
    membership.end(103, "permission denied", OVER)
    events = subscription.events()
    assert await anext(events) == Unsubscribed("news", 103, "permission denied")
    with pytest.raises(UnsubscribedError):
        await anext(events)


# Waiting for the confirmation.


async def test_confirmed_waits_for_the_server() -> None:
    subscription, membership, _ = make()
    waiting = [asyncio.create_task(subscription.confirmed()) for _ in range(2)]
    await asyncio.sleep(0)
    assert [each.done() for each in waiting] == [False, False]
    confirm(membership)
    await asyncio.gather(*waiting)
    await subscription.confirmed()


async def test_confirmed_raises_what_ended_it() -> None:
    subscription, membership, _ = make()
    waiting = asyncio.create_task(subscription.confirmed())
    await asyncio.sleep(0)
    membership.end(103, "permission denied", OVER)
    with pytest.raises(UnsubscribedError):
        await waiting


async def test_a_block_is_confirmed_inside_and_left_behind() -> None:
    subscription, membership, owner = make()
    confirm(membership)
    async with subscription:
        assert owner.left == []
    assert owner.left == [None]


async def test_a_block_that_is_cancelled_while_it_waits_leaves_the_channel() -> None:
    subscription, _, owner = make()

    async def enter() -> None:
        async with subscription:
            raise AssertionError("it was never confirmed")

    entering = asyncio.create_task(enter())
    await asyncio.sleep(0)
    entering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await entering
    assert owner.left == [None]


def test_it_shows_what_it_is() -> None:
    subscription, membership, _ = make()
    assert repr(subscription) == "<Subscription 'news' subscribing at 0>"
    confirm(membership)
    assert repr(subscription) == "<Subscription 'news' subscribed at 0>"
