"""How a node parts with its clients, as they see it; the clock moves by as much as the drain sleeps."""

import asyncio
import random

from gateway.broker.contract import BrokerError
from gateway.messaging.drain import FLUSH_S, Drain
from gateway.messaging.lanes import MAX_WAITING
from tests.support.conversations import ANONYMOUS, Client, House, ManualBroker, house

SHUTDOWN = (3001, "shutdown")


class Farewell:
    """A drain of *node*, and what happens while it sleeps."""

    def __init__(self, node: House, *, window_s: float, seed: int = 1) -> None:
        self.node = node
        self.naps_s: list[float] = []
        self.drain = Drain(rng=random.Random(seed), sleep=self._sleep)
        self._window_s = window_s

    async def run(self) -> float:
        """Run it to its end and return how long it took."""
        began_at_s = self.node.now_s
        await self.drain.send_away(self.node.services, window_s=self._window_s)
        return self.node.now_s - began_at_s

    async def _sleep(self, seconds: float) -> None:
        self.naps_s.append(seconds)
        self.node.now_s += seconds
        await asyncio.sleep(0)


async def crowd(node: House, count: int) -> list[Client]:
    return [await node.connect(f"user{number}", "open:a") for number in range(count)]


def told(clients: list[Client]) -> int:
    return sum(client.closing == SHUTDOWN for client in clients)


async def test_everybody_is_told_once_and_nobody_early() -> None:
    async with house() as node:
        clients = await crowd(node, 40)
        farewell = Farewell(node, window_s=30.0)
        running = asyncio.create_task(farewell.run())
        await asyncio.sleep(0)
        assert told(clients) <= 1
        assert 3.8 <= await running <= 4.0
        assert told(clients) == 40
        assert (farewell.drain.clients, farewell.drain.sent_away) == (40, 40)
        assert len(node.services.connections) == 0


async def test_the_order_is_not_that_in_which_they_came() -> None:
    orders = []
    for seed in (1, 2):
        async with house() as node:
            clients = await crowd(node, 12)
            await Farewell(node, window_s=1.0, seed=seed).run()
            orders.append([event["client"] for event in node.events if event["event"] == "closed"])
            assert sorted(orders[-1]) == sorted(client.id for client in clients)
    assert orders[0] != orders[1]


async def test_without_a_window_all_are_told_in_one_turn() -> None:
    async with house() as node:
        clients = await crowd(node, 5)
        farewell = Farewell(node, window_s=0.0)
        assert await farewell.run() == 0.0
        assert (told(clients), farewell.naps_s) == (5, [])


async def test_nobody_is_waited_for_where_nobody_is() -> None:
    async with house() as node:
        assert await Farewell(node, window_s=30.0).run() == 0.0


async def test_who_leaves_by_itself_shortens_it() -> None:
    async with house() as node:
        clients = await crowd(node, 30)
        farewell = Farewell(node, window_s=30.0)
        running = asyncio.create_task(farewell.run())
        await asyncio.sleep(0)
        for client in clients[:20]:
            client.go()
        assert await running <= 1.2
        assert farewell.drain.clients == 30
        assert farewell.drain.sent_away == told(clients) <= 11


async def test_a_plain_client_is_told_in_its_own_words() -> None:
    async with house(ANONYMOUS) as node:
        client = node.open_plain("open:a")
        await node.settle()
        await Farewell(node, window_s=30.0).run()
        assert client.closing == (1001, "shutdown")


async def test_who_waits_for_an_answer_gets_it_before_the_goodbye_and_is_not_read_from_meanwhile() -> None:
    broker = ManualBroker("publish")
    async with house(broker=broker) as node:
        client, idle = await node.connect("1", "open:a"), await node.connect("2")
        client.send({"id": 7, "publish": {"channel": "open:a", "data": {"n": 1}}})
        farewell = Farewell(node, window_s=0.0)
        running = asyncio.create_task(farewell.run())
        await asyncio.sleep(0)
        assert (client.closing, client.transport.is_reading, idle.closing) == (None, False, SHUTDOWN)
        broker.settle()
        assert await running <= 0.1
        assert {"id": 7, "publish": {}} in client.take_values()
        assert client.closing == SHUTDOWN


async def test_who_has_asked_for_very_much_is_not_read_from_either_once_most_of_that_is_answered() -> None:
    broker = ManualBroker("publish")
    async with house(broker=broker) as node:
        client = await node.connect("1", "open:a")
        for number in range(7, 7 + 2 * MAX_WAITING):
            client.send({"id": number, "publish": {"channel": "open:a", "data": {}}})
        farewell = Farewell(node, window_s=0.0)
        running = asyncio.create_task(farewell.run())
        await asyncio.sleep(0)
        heard = []
        while broker.waiting:
            heard.append(client.transport.is_reading)
            broker.settle()
        await running
        assert True not in heard
        assert client.closing == SHUTDOWN


async def test_an_answer_that_does_not_come_is_not_waited_for_for_ever() -> None:
    broker = ManualBroker("subscribe")
    async with house(broker=broker) as node:
        client = await node.connect("1")
        client.send({"id": 7, "subscribe": {"channel": "open:a"}})
        await node.settle()
        assert FLUSH_S <= await Farewell(node, window_s=30.0).run() <= FLUSH_S + 0.2
        assert client.closing == SHUTDOWN
        broker.settle(BrokerError("too late"))


async def test_in_a_hurry_neither_the_window_nor_an_answer_counts() -> None:
    broker = ManualBroker("subscribe")
    async with house(broker=broker) as node:
        clients = await crowd_without_channels(node, 50)
        clients[0].send({"id": 7, "subscribe": {"channel": "open:a"}})
        await node.settle()
        farewell = Farewell(node, window_s=30.0)
        running = asyncio.create_task(farewell.run())
        await asyncio.sleep(0)
        farewell.drain.hurry()
        assert await running <= 0.3
        assert told(clients) == 50
        broker.settle(BrokerError("too late"))


async def crowd_without_channels(node: House, count: int) -> list[Client]:
    return [await node.connect(f"user{number}") for number in range(count)]


async def test_who_got_in_meanwhile_is_sent_away_too() -> None:
    async with house() as node:
        clients = await crowd_without_channels(node, 5)
        farewell = Farewell(node, window_s=30.0)
        running = asyncio.create_task(farewell.run())
        await asyncio.sleep(0)
        late = await node.connect("late")
        await running
        assert told([*clients, late]) == 6
        assert (farewell.drain.clients, farewell.drain.sent_away) == (5, 6)


async def test_what_was_published_in_the_same_turn_comes_before_the_goodbye() -> None:
    async with house() as node:
        client = await node.connect("1", "open:a")
        node.publish("open:a", b'{"n":1}')
        await Farewell(node, window_s=0.0).run()
        assert [value["push"]["pub"]["data"] for value in client.take_values()] == [{"n": 1}]
        assert client.closing == SHUTDOWN


async def test_who_is_left_when_time_is_up_is_told_in_one_call() -> None:
    async with house() as node:
        clients = await crowd_without_channels(node, 5)
        farewell = Farewell(node, window_s=30.0)
        farewell.drain.tell_all(node.services)
        assert (told(clients), farewell.drain.sent_away) == (5, 5)
