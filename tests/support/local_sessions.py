"""The connections of a node, as far as the other nodes care, without any."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from gateway.messaging.cluster import LocalCounts
from gateway.messaging.control import DisconnectUser, Order, RefreshUser, SubscribeUser, UnsubscribeUser
from gateway.protocol.messages import ClientInfo


class Someone(NamedTuple):
    """A connection."""

    user: str
    client: str
    session: str = ""
    channels: Sequence[str] = ()


class FakeSessions:
    """Remembers the orders that it got, and the clients that each concerned."""

    def __init__(self, *present: Someone) -> None:
        self.present = list(present)
        self.orders: list[Order] = []
        self.concerned: list[list[str]] = []

    def disconnect(self, order: DisconnectUser) -> None:
        self._note(order)

    def unsubscribe(self, order: UnsubscribeUser) -> None:
        self._note(order)

    def subscribe(self, order: SubscribeUser) -> None:
        self._note(order)

    def refresh(self, order: RefreshUser) -> None:
        self._note(order)

    def channels(self) -> Iterable[tuple[str, int]]:
        names = sorted({channel for each in self.present for channel in each.channels})
        return [(name, sum(name in each.channels for each in self.present)) for name in names]

    def clients(self, channel: str) -> Iterable[ClientInfo]:
        return [ClientInfo(each.user, each.client) for each in self.present if channel in each.channels]

    def counts(self) -> LocalCounts:
        return LocalCounts(
            clients=len(self.present),
            users=len({each.user for each in self.present}),
            subscriptions=sum(len(each.channels) for each in self.present),
            channels=len(list(self.channels())),
        )

    def _note(self, order: Order) -> None:
        self.orders.append(order)
        self.concerned.append(
            [
                each.client
                for each in self.present
                if order.concerns(each.user, client=each.client, session=each.session)
            ]
        )
