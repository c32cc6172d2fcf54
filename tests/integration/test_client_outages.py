"""The Python client while nodes die, drain and fall silent: nothing is lost on channels with history."""

import asyncio
import itertools
import random
import socket
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from gateway.client import (
    Backoff,
    Client,
    ClientEvent,
    ClientSettings,
    Connected,
    DisconnectedError,
    Pool,
    PoolSettings,
    PublishRejectedError,
    Reconnecting,
    ReplyTimeoutError,
    Resubscribing,
    State,
    Subscribed,
    Subscription,
    UnansweredError,
)
from gateway.client import Publication as ReceivedPublication
from tests.support.black_hole import black_hole
from tests.support.nodes import RunningNode, running_node
from tests.support.oracle import (
    Fate,
    Journal,
    Publication,
    Sent,
    StreamAtEnd,
    faults_where_data_survived,
    violations_of_publishing,
)
from tests.support.oracle import Subscribed as SubscribedNote
from tests.support.oracle import Unsubscribed as UnsubscribedNote
from tests.support.processes import ServingProcess, serving
from tests.support.redis_servers import redis_server
from tests.support.waiting import until
from tests.unit.client.manual_timers import ManualTimers

CONFIG = """
[http_server]
address = "127.0.0.1"
internal_port = 0
[client]
insecure = true
allowed_origins = ["*"]
command_rate = 0
recovery_max_publication_limit = 100000
history_max_publication_limit = 100000
[channel.without_namespace]
history_size = 100000
history_ttl = "600s"
force_recovery = true
[broker]
type = "redis"
[redis]
address = "{address}"
"""
CHANNELS = ("c0", "c1", "c2", "c3")
# Twenty outages in a row would make the waits of the default as long as the test.
QUICK = Backoff(base_s=0.05, cap_s=0.5, stable_after_s=0.2)


@dataclass
class Follower:
    """A client that follows some channels, and its notes as the oracle reads them."""

    name: str
    address: str
    channels: Sequence[str]
    journals: dict[str, Journal] = field(default_factory=dict)
    last: dict[str, str] = field(default_factory=dict)

    async def follow(self) -> None:
        settings = ClientSettings(backoff=QUICK)
        async with Client(self.address, settings=settings) as client, asyncio.TaskGroup() as tasks:
            for channel in self.channels:
                self.journals[channel] = []
                tasks.create_task(self._note(client.subscribe(channel)), name=f"{self.name} in {channel}")

    @property
    def is_up_to(self) -> dict[str, str]:
        return {channel: self.last.get(channel, "") for channel in self.channels}

    async def _note(self, subscription: Subscription) -> None:
        journal = self.journals[subscription.channel]
        async for item in subscription.events():
            if isinstance(item, Subscribed):
                journal.append(SubscribedNote(item.position.epoch, item.position.offset, item.recovered))
            elif isinstance(item, Resubscribing):
                journal.append(UnsubscribedNote(item.code))
            elif isinstance(item, ReceivedPublication):
                data = item.json()
                journal.append(Publication(data, item.offset, item.epoch))
                self.last[subscription.channel] = data


@dataclass
class Speaker:
    """A client that publishes steadily, and keeps the books of what became of it."""

    name: str
    address: str
    sent: list[Sent] = field(default_factory=list)
    is_over: bool = False

    async def speak(self) -> None:
        numbers, channels = itertools.count(1), itertools.cycle(CHANNELS)
        settings = ClientSettings(backoff=QUICK, offline_wait_s=30.0)
        async with Client(self.address, settings=settings) as client:
            while not self.is_over:
                await self.say(client, next(channels), next(numbers))
                await asyncio.sleep(0.01)

    async def say(self, client: Client, channel: str, number: int) -> None:
        # One at a time, so all of a speaker's publications are one sender's in the oracle's sense.
        sent = Sent(channel, f"{self.name}/{number}", self.name, number, asyncio.get_running_loop().time())
        self.sent.append(sent)
        try:
            await client.publish(channel, sent.data)
            sent.fate = Fate.ACKNOWLEDGED
        except (UnansweredError, ReplyTimeoutError):
            sent.fate = Fate.UNKNOWN
        except PublishRejectedError as error:
            sent.fate, sent.error = Fate.REFUSED, error.code
        except DisconnectedError:
            self.sent.remove(sent)  # it says that it was not sent


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Restarting:
    """A node at one address, killed and started again as often as wanted."""

    def __init__(self, config: Path, port: int) -> None:
        self.port = port
        self._config = config
        self._stack = AsyncExitStack()
        self.process: ServingProcess | None = None

    async def start(self) -> None:
        arguments = ("--config", str(self._config), "--port", str(self.port))
        self.process = await self._stack.enter_async_context(serving(*arguments))

    async def kill(self) -> None:
        assert self.process is not None
        await self.process.release()

    async def release(self) -> None:
        await self._stack.aclose()


async def swarm_survives(folder: Path, *, followers: int, kills: int) -> None:
    async with redis_server() as redis:
        config = folder / "gateway.toml"
        config.write_text(CONFIG.format(address=redis.location))
        nodes = [Restarting(config, free_port()) for _ in range(2)]
        addresses = [f"ws://127.0.0.1:{node.port}/connection/websocket" for node in nodes]
        try:
            for node in nodes:
                await node.start()
            everybody = [Follower(f"f{n}", addresses[n % 2], CHANNELS[n % 2 :: 2]) for n in range(followers)]
            speakers = [Speaker(f"s{n}", addresses[n % 2]) for n in range(4)]
            async with asyncio.TaskGroup() as tasks:
                following = [tasks.create_task(each.follow(), name=each.name) for each in everybody]
                speaking = [tasks.create_task(each.speak(), name=each.name) for each in speakers]
                for round_ in range(kills):
                    heard = {each.name: len(each.journals.get(each.channels[0], ())) for each in everybody}
                    await until(
                        lambda heard=heard: all(  # type: ignore[misc]
                            len(each.journals.get(each.channels[0], ())) > heard[each.name] + 2 for each in everybody
                        ),
                        f"everybody hears something after {round_} kills",
                    )
                    node = nodes[round_ % 2]
                    await node.kill()
                    await node.start()
                for each in speakers:
                    each.is_over = True
                await asyncio.wait(speaking)
                streams, lasts = await conclude(addresses[0])
                await until(
                    lambda: all(each.is_up_to.items() <= lasts.items() for each in everybody),
                    "everybody has the last publication",
                )
                for task in following:
                    task.cancel()
            faults = [
                f"{each.name} in {channel}: {fault}"
                for each in everybody
                for channel in each.channels
                for fault in faults_where_data_survived(each.journals[channel], streams[channel])
            ]
            sent = [sent for each in speakers for sent in each.sent]
            faults += map(str, violations_of_publishing(sent, streams))
            assert not faults, "\n".join([f"{len(faults)} in all:", *faults[:10]])
            assert sum(each.fate is Fate.ACKNOWLEDGED for each in sent) > 10 * kills, "next to nothing was published"
        finally:
            for node in nodes:
                await node.release()


async def conclude(address: str) -> tuple[dict[str, StreamAtEnd], dict[str, str]]:
    """Read the streams, and tell what stands last in each."""
    streams, lasts = {}, {}
    async with Client(address) as client:
        for channel in CHANNELS:
            page = await client.history(channel, limit=-1)
            held = {each.offset: each.json() for each in page.publications}
            streams[channel] = StreamAtEnd(page.epoch, page.offset, held)
            lasts[channel] = held[page.offset]
    return streams, lasts


async def test_a_herd_comes_back_spread_over_a_second_and_all_of_it(tmp_path: Path) -> None:
    config = tmp_path / "gateway.toml"
    config.write_text(CONFIG.replace('type = "redis"', 'type = "memory"').format(address="127.0.0.1:1"))
    node = Restarting(config, free_port())
    await node.start()
    first_delays: dict[int, float] = {}

    def note(number: int, event: ClientEvent) -> None:
        if isinstance(event, Reconnecting) and event.attempt == 1:
            first_delays.setdefault(number, event.delay_s)

    try:
        address = f"ws://127.0.0.1:{node.port}/connection/websocket"
        # Seeded, so that the histogram is the same each time.
        herd = [Client(address, on_event=partial(note, number), chance=random.Random(number)) for number in range(200)]
        async with asyncio.TaskGroup() as tasks:
            for client in herd:
                tasks.create_task(client.run(), name="one of the herd")
            await asyncio.gather(*(client.connected() for client in herd))
            await node.kill()
            await node.start()
            await until(lambda: len(first_delays) == len(herd), "all have noticed")
            await until(lambda: all(client.state is State.CONNECTED for client in herd), "all are back")
            for client in herd:
                client.stop()
    finally:
        await node.release()
    histogram = [sum(tenth <= delay_s * 10 < tenth + 1 for delay_s in first_delays.values()) for tenth in range(10)]
    assert sum(histogram) == len(herd)
    # 20 are expected in each tenth of a second, give or take 4; a herd that comes at once has 200 in one.
    assert 8 <= min(histogram) <= max(histogram) <= 36, histogram


async def test_a_half_open_link_is_found_by_the_missing_ping(node: RunningNode) -> None:
    events: list[ClientEvent] = []
    timers = ManualTimers()
    async with black_hole(("127.0.0.1", node.port)) as hole:
        address = f"ws://{hole.location}/connection/websocket"
        async with Client(address, on_event=events.append, timers=timers) as client, client.subscribe("news") as news:
            hole.swallow()
            timers.advance(34.9)
            assert client.state is State.CONNECTED
            timers.advance(0.1)
            assert client.state is State.CONNECTING
            await until(lambda: any(isinstance(each, Reconnecting) for each in events))
            (lost,) = [each for each in events if isinstance(each, Reconnecting)]
            assert (lost.reason, lost.attempt) == ("no ping", 1)
            hole.cut()
            timers.advance(lost.delay_s)
            await client.connected()
            await news.confirmed()
            await client.publish("news", 1)
            assert (await anext(news)).json() == 1
    assert [type(each) for each in events[:3]] == [Connected, Reconnecting, Connected]


async def test_a_half_open_link_in_the_pool_is_found_and_replaced(node: RunningNode) -> None:
    timers = ManualTimers()
    async with black_hole(("127.0.0.1", node.port)) as hole:
        address = f"ws://{hole.location}/connection/websocket"
        settings = PoolSettings(size=3, check_every_s=10)
        async with Pool(address, settings=settings, timers=timers) as pool:
            await until(lambda: pool.statistics.idle == 3, "it is open")
            borrowed = await pool.acquire()
            hole.swallow()
            timers.advance(10)  # a ping goes out to the idle ones
            await until(lambda: hole.swallowed_bytes > 0, "the hole swallows pings")
            timers.advance(10)
            await until(lambda: pool.statistics.replaced == 2, "the idle ones are found dead")
            timers.advance(15)  # now it is the rule of pings that finds the one in use
            await until(lambda: borrowed.state is State.CLOSED, "the borrowed one is found dead")
            pool.release(borrowed)
            hole.cut()

            def is_open_again() -> bool:
                timers.advance(1)  # attempts are paced, and the hole has swallowed some
                return pool.statistics.idle == 3

            await until(is_open_again, f"it is open again: {pool}")
            assert pool.statistics.replaced >= 3
            await pool.publish("news", 1)


async def test_a_node_that_drains_sends_its_clients_away_and_they_come_back_to_the_next(node: RunningNode) -> None:
    events: list[ClientEvent] = []
    settings = ClientSettings(backoff=QUICK)
    async with running_node({"shutdown": {"timeout": "2s"}}) as other:
        addresses = [other.client_url, node.client_url]
        client = Client(addresses, on_event=events.append, settings=settings)
        await client.__aenter__()
    await client.connected()
    await client.__aexit__(None, None, None)
    assert next((each.code, each.reason) for each in events if isinstance(each, Reconnecting)) == (3001, "shutdown")
    assert [type(each) for each in events].count(Connected) == 2


async def test_nothing_is_lost_while_nodes_are_killed_and_started_again(tmp_path: Path) -> None:
    await swarm_survives(tmp_path, followers=20, kills=3)


@pytest.mark.long
@pytest.mark.timeout(600)
async def test_nothing_is_lost_by_200_clients_while_nodes_are_killed_20_times(tmp_path: Path) -> None:
    await swarm_survives(tmp_path, followers=200, kills=20)
