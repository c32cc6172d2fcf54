"""Publishing from outside, on a real Redis, with a node that listens: what arrives is as the node's own."""

import asyncio
import json
import re
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import httpx
import pytest
from fastapi import Depends, FastAPI
from websockets.asyncio.client import connect

from gateway.broker.redis.keys import Keys
from gateway.broker.redis.settings import RedisSettings
from gateway.config import ConfigError
from gateway.domain.channels import ChannelSettings
from gateway.publisher import (
    AsyncPublisher,
    Publisher,
    PublisherError,
    PublishRejectedError,
    Receipt,
    UnavailableError,
    UnsuitableEngineError,
    publisher_of,
)
from tests.support.nodes import RunningNode, running_node
from tests.support.processes import run_program
from tests.support.redis_engines import QUICK
from tests.support.redis_servers import RedisServer, fresh_prefix, redis_server, running_redis
from tests.support.waiting import until

OPEN = {
    "allow_subscribe_for_client": True,
    "allow_subscribe_for_anonymous": True,
    "allow_publish_for_client": True,
    "allow_publish_for_anonymous": True,
    "allow_history_for_client": True,
    "allow_history_for_anonymous": True,
}
CHANNEL: dict[str, Any] = {
    "namespaces": [
        {"name": "plain", **OPEN},
        {"name": "chat", **OPEN, "history_size": 500, "history_ttl": 60, "force_recovery": True},
        {"name": "timed", **OPEN, "processors": ["server_time"]},
        {"name": "binary", **OPEN, "publication_data_format": "binary"},
    ]
}


class SyncHand:
    """The synchronous publisher, in the clothes of the other."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher

    async def publish(self, channel: str, data: Any, **extras: Any) -> Receipt:
        return await asyncio.to_thread(self._publisher.publish, channel, data, **extras)

    async def broadcast(self, channels: Sequence[str], data: Any, **extras: Any) -> list[Receipt]:
        return await asyncio.to_thread(self._publisher.broadcast, channels, data, **extras)

    async def close(self) -> None:
        self._publisher.close()


KINDS = ["sync", "async"]


Hand = SyncHand | AsyncPublisher


def make_hand(kind: str, redis: dict[str, Any]) -> Hand:
    settings, channel = RedisSettings.model_validate(redis), ChannelSettings.model_validate(CHANNEL)
    if kind == "sync":
        return SyncHand(Publisher(settings, channel))
    return AsyncPublisher.on_redis(settings, channel)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def shared_redis() -> Iterator[RedisServer]:
    """A server that no test stops, freezes or empties."""
    with running_redis() as server:
        yield server


@pytest.fixture
def table(shared_redis: RedisServer) -> dict[str, Any]:
    """The table `redis` of this test, on the shared server."""
    return {"address": shared_redis.location, "prefix": fresh_prefix()}


@pytest.fixture
async def hand(kind: str, table: dict[str, Any]) -> AsyncIterator[Hand]:
    made = make_hand(kind, table)
    yield made
    await made.close()


@pytest.fixture
async def node(table: dict[str, Any]) -> AsyncIterator[RunningNode]:
    async with running_node({"broker": {"type": "redis"}, "redis": table, "channel": CHANNEL}) as running:
        await until(lambda: running.node.engine.trouble is None, "the node reaches Redis")
        yield running


class Listener:
    """A client that is subscribed to channels and notes each push, as the text that came."""

    def __init__(self, socket: Any) -> None:
        self._socket = socket
        self._ids = iter(range(1, 1000))
        self.pushes: list[str] = []

    async def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Send one command and return its reply; what is pushed meanwhile is kept."""
        number = next(self._ids)
        await self._socket.send(json.dumps({"id": number, **request}))
        while True:
            for line in await self._lines():
                if f'"id":{number},' in line:
                    reply: dict[str, Any] = json.loads(line)
                    return reply

    async def publications(self, count: int) -> list[dict[str, Any]]:
        """Wait until *count* have come, and return them."""
        while len(self.pushes) < count:
            await self._lines()
        return [json.loads(push)["push"]["pub"] for push in self.pushes]

    async def _lines(self) -> list[str]:
        async with asyncio.timeout(10):
            lines = str(await self._socket.recv()).split("\n")
        self.pushes += [line for line in lines if '"pub"' in line and '"push"' in line]
        return lines


@asynccontextmanager
async def listening(node: RunningNode, *channels: str) -> AsyncIterator[Listener]:
    async with connect(node.client_url, compression=None) as socket:
        listener = Listener(socket)
        await listener.ask({"connect": {}})
        for channel in channels:
            assert "error" not in await listener.ask({"subscribe": {"channel": channel}})
        yield listener


@pytest.mark.parametrize(
    ("channel", "data", "expected"),
    [
        ("plain:a", {"x": 1}, '"data":{"x":1}'),
        ("plain:a", b'{"spelled" :  1.0}', '"data":{"spelled" :  1.0}'),
        ("plain:a", "é\u2028", '"data":"é\u2028"'),
        ("plain:a", b"null", '"data":null'),
    ],
)
async def test_it_arrives_as_a_clients_own_but_for_who_it_was(
    node: RunningNode, hand: Hand, channel: str, data: Any, expected: str
) -> None:
    async with listening(node, channel) as listener:
        assert await hand.publish(channel, data) == Receipt()
        raw = json.dumps({"id": 900, "publish": {"channel": channel, "data": 0}})
        payload = data.decode() if isinstance(data, bytes) else json.dumps(data, ensure_ascii=False)
        await listener._socket.send(raw.replace('"data": 0', f'"data":{payload}'))  # noqa: SLF001
        await listener.publications(2)

    mine, own = listener.pushes
    assert mine == f'{{"push":{{"channel":"{channel}","pub":{{{expected}}}}}}}'
    info = json.loads(own)["push"]["pub"]["info"]
    assert json.loads(mine)["push"]["pub"] | {"info": info} == json.loads(own)["push"]["pub"]


async def test_bytes_arrive_as_binary_messages(node: RunningNode, hand: Hand) -> None:
    async with connect(f"{node.ws_url}/ws/binary:a", compression=None) as client:
        await client.send(b"\x00")
        assert await client.recv() == b"\x00"
        await hand.publish("binary:a", b"\xff\x00")
        assert await client.recv() == b"\xff\x00"


async def test_offsets_and_history_are_one_with_those_of_clients(node: RunningNode, hand: Hand) -> None:
    async with listening(node, "chat:a") as listener:
        first = await hand.publish("chat:a", 1)
        await listener.ask({"publish": {"channel": "chat:a", "data": 2}})
        third = await hand.publish("chat:a", 3, tags={"k": "v"}, version=7)
        pushed = await listener.publications(3)
        history = await listener.ask({"history": {"channel": "chat:a", "limit": -1}})

    assert (first.offset, third) == (1, Receipt(3, first.epoch))
    assert [(each["data"], each["offset"]) for each in pushed] == [(1, 1), (2, 2), (3, 3)]
    assert pushed[0] == {"data": 1, "offset": 1, "epoch": first.epoch}
    assert pushed[2] == {"data": 3, "offset": 3, "tags": {"k": "v"}, "version": 7}
    assert history["history"] == {"publications": pushed, "epoch": first.epoch, "offset": 3}


async def test_a_key_publishes_once_and_a_version_only_upwards(node: RunningNode, hand: Hand) -> None:
    async with listening(node, "chat:a", "plain:a") as listener:
        first = await hand.publish("chat:a", 1, idempotency_key="k")
        assert await hand.publish("chat:a", 2, idempotency_key="k") == first._replace(is_suppressed=True)
        assert await hand.publish("chat:b", 3, idempotency_key="k") == Receipt(1, epoch=ANY_EPOCH)
        assert await hand.publish("plain:a", 4, idempotency_key="k") == Receipt()
        assert await hand.publish("plain:a", 5, idempotency_key="k") == Receipt(is_suppressed=True)
        nanoseconds = 1_795_206_808_860_703_001
        assert (await hand.publish("chat:a", 6, version=nanoseconds)).offset == 2
        assert await hand.publish("chat:a", 7, version=nanoseconds) == Receipt(2, first.epoch, is_suppressed=True)
        assert (await hand.publish("chat:a", 8, version=nanoseconds + 1)).offset == 3
        assert (await hand.publish("chat:a", 9, version=1, version_epoch="new")).offset == 4

        assert sorted(each["data"] for each in await listener.publications(5)) == [1, 4, 6, 8, 9]


class _AnyEpoch(str):
    __slots__ = ()
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str) and len(other) == 8


ANY_EPOCH = _AnyEpoch()


async def test_processors_of_the_namespace_work_on_it(node: RunningNode, hand: Hand) -> None:
    async with listening(node, "timed:a") as listener:
        await hand.publish("timed:a", [1, 2])
        (publication,) = await listener.publications(1)

    assert publication["data"] == {"data": [1, 2], "server_time": publication["data"]["server_time"]}
    assert isinstance(publication["data"]["server_time"], float)


async def test_a_broadcast_goes_to_all_in_order_or_to_none(node: RunningNode, hand: Hand) -> None:
    async with listening(node, "chat:a", "plain:a") as listener:
        with pytest.raises(PublishRejectedError, match="channel 'nope:a'") as rejected:
            await hand.broadcast(["chat:a", "plain:a", "nope:a"], 1)
        receipts = await hand.broadcast(["chat:a", "plain:a", "chat:a"], {"x": 2})
        pushed = await listener.publications(3)

    assert rejected.value.error.code == 102
    assert [receipt.offset for receipt in receipts] == [1, 0, 2]
    assert [each["data"] for each in pushed] == [{"x": 2}] * 3
    assert await hand.broadcast([], 1) == []


async def test_a_broadcast_to_very_many_channels_goes_out_in_pieces(hand: Hand) -> None:
    channels = [f"chat:{number}" for number in range(600)]

    receipts = await hand.broadcast(channels, "x" * 100)
    again = await hand.broadcast(channels, "x" * 100)

    assert [receipt.offset for receipt in receipts] == [1] * 600
    assert [receipt.offset for receipt in again] == [2] * 600
    assert len({receipt.epoch for receipt in receipts}) == 600


async def connections(server: RedisServer) -> list[int]:
    """Return the ids of the publishers' connections on *server*."""
    clients = (await server.execute("CLIENT", "LIST")).decode()
    return [int(each) for each in re.findall(r"^id=(\d+) .* name=gateway-publisher ", clients, re.MULTILINE)]


async def hear() -> None:
    """Let the loop hear what the kernel knows already; while it turns, a closed connection is not overlooked."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_one_connection_is_made_late_and_used_again(kind: str) -> None:
    async with redis_server() as server:
        hand = make_hand(kind, {"address": server.location})
        assert await connections(server) == []
        for _ in range(3):
            await hand.publish("chat:a", 1)
        (connection,) = await connections(server)
        await asyncio.gather(*(hand.publish("chat:a", 1) for _ in range(20)))
        assert await connections(server) == [connection]
        await hand.close()
        await hand.close()
        await until_async(lambda: connections(server), [])
        assert (await hand.publish("chat:a", 1)).offset == 24
        await hand.close()


async def until_async(read: Callable[[], Awaitable[Any]], wanted: Any) -> None:
    """Read again and again until *wanted* comes."""
    async with asyncio.timeout(10):
        while await read() != wanted:  # noqa: ASYNC110 - Redis tells nobody
            await asyncio.sleep(0.005)


async def test_a_connection_that_redis_has_closed_is_replaced_unnoticed(kind: str) -> None:
    async with redis_server() as server:
        hand = make_hand(kind, {"address": server.location})
        await hand.publish("chat:a", 1)
        (connection,) = await connections(server)
        await server.execute("CLIENT", "KILL", "ID", connection)
        await hear()

        assert (await hand.publish("chat:a", 2)).offset == 2
        await hand.close()


async def test_scripts_that_redis_has_forgotten_are_told_again(kind: str) -> None:
    async with redis_server() as server:
        hand = make_hand(kind, {"address": server.location})
        for offset in (1, 2):
            await server.execute("SCRIPT", "FLUSH")
            receipts = await hand.broadcast(["chat:a", "plain:a", "chat:b"], 1)
            assert [receipt.offset for receipt in receipts] == [offset, 0, offset]
        await hand.close()


async def test_while_redis_is_away_the_error_says_so_and_then_it_works(kind: str) -> None:
    async with redis_server() as server:
        hand = make_hand(kind, {"address": server.location, **QUICK})
        server.kill()
        await hear()
        with pytest.raises(UnavailableError) as away:
            await hand.publish("chat:a", 1)
        assert str(away.value) == (
            f"channel 'chat:a': redis {server.location}: connection refused; nothing was published: try again"
        )
        server.restart(keep_data=False)
        assert (await hand.publish("chat:a", 1)).offset == 1
        server.restart(keep_data=False)
        await hear()
        assert (await hand.publish("chat:a", 1)).offset == 1
        await hand.close()


async def test_a_frozen_redis_costs_the_timeout_and_may_have_published(kind: str) -> None:
    async with redis_server() as server:
        hand = make_hand(kind, {"address": server.location, **QUICK, "timeout_s": 0.2, "connect_timeout_s": 0.1})
        await hand.publish("chat:a", 1)
        server.freeze()
        with pytest.raises(UnavailableError, match="no answer in time; it may have been published") as silent:
            await hand.publish("chat:a", 2, idempotency_key="k")
        server.thaw()
        # It has reached the server after all; with the key a further try is the same publication.
        stream = Keys("gateway").of("chat:a").stream
        await until_async(lambda: server.execute("XLEN", stream), 2)
        again = await hand.publish("chat:a", 2, idempotency_key="k")
        after = await hand.publish("chat:a", 3)

        assert silent.value.may_be_published
        assert (again.offset, again.is_suppressed, after.offset) == (2, True, 3)
        await hand.close()


class Impostor:
    """Answers what a client says when it comes, and hangs up once it publishes."""

    def __init__(self) -> None:
        self.publishes = 0
        self.location = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                if b"EVAL" in data or b"PUBLISH" in data:
                    self.publishes += 1
                    break
                writer.write(b"+OK\r\n")
        finally:
            writer.close()


@pytest.fixture
async def impostor() -> AsyncIterator[Impostor]:
    impostor = Impostor()
    async with await asyncio.start_server(impostor.serve, "127.0.0.1", 0) as server:
        impostor.location = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield impostor


@pytest.mark.parametrize(("extras", "times"), [({}, 1), ({"version": 5}, 1), ({"idempotency_key": "k"}, 2)])
async def test_only_what_has_a_key_is_sent_a_second_time(
    kind: str, impostor: Impostor, extras: dict[str, Any], times: int
) -> None:
    hand = make_hand(kind, {"address": impostor.location})
    with pytest.raises(UnavailableError, match="it may have been published") as lost:
        await hand.publish("chat:a", 1, **extras)

    assert lost.value.may_be_published
    assert impostor.publishes == times
    await hand.close()


async def test_a_replica_is_noticed(kind: str) -> None:
    async with redis_server() as primary, redis_server() as server:
        hand = make_hand(kind, {"address": server.location, **QUICK, "watchdog_interval_s": 1e-6})
        await hand.publish("plain:a", 1)
        await server.execute("REPLICAOF", *map(str, primary.address))
        for _ in range(2):
            with pytest.raises(UnavailableError, match="it is a replica, and takes no publications"):
                await hand.publish("plain:a", 1)
        await server.execute("REPLICAOF", "NO", "ONE")
        assert await hand.publish("plain:a", 1) == Receipt()
        await hand.close()


async def test_what_redis_refuses_is_told_with_its_reason(
    hand: Hand, table: dict[str, Any], shared_redis: RedisServer
) -> None:
    await hand.publish("chat:a", 1)
    (key,) = await shared_redis.execute("KEYS", f"{table['prefix']}:*:s:chat:a")
    await shared_redis.execute("SET", key, "no stream")
    with pytest.raises(UnavailableError, match="WRONGTYPE") as refused:
        await hand.broadcast(["plain:a", "chat:a", "chat:b"], 2)

    assert refused.value.channels == ("chat:a",)
    assert (await hand.publish("chat:b", 3)).offset == 2


async def test_every_way_into_a_server_is_known(kind: str, tmp_path: Path) -> None:
    users = ["ann on >secret ~* &* +@all"]
    async with redis_server(password="word", users=users, tls=True) as server:
        tls = {"enabled": True, "server_ca_pem_file": str(server.ca_file), "server_name": "localhost"}
        for secret in ({"password": "word"}, {"user": "ann", "password": "secret", "db": 3}):
            hand = make_hand(kind, {"address": server.location, "tls": tls, **secret})
            assert (await hand.publish("chat:a", 1)).offset == 1
            await hand.close()
        for wrong, said in [
            ({"password": "wrong", "tls": tls}, "invalid username-password pair"),
            ({"password": "word", "tls": tls | {"server_name": "other"}}, "its certificate is not accepted"),
        ]:
            hand = make_hand(kind, {"address": server.location, **wrong})
            with pytest.raises(UnavailableError, match=f"{said}.*nothing was published"):
                await hand.publish("chat:a", 1)
            await hand.close()
    path = tmp_path / "redis.sock"
    async with redis_server(config={"unixsocket": str(path)}):
        hand = make_hand(kind, {"address": f"unix:{path}"})
        assert (await hand.publish("chat:a", 1)).offset == 1
        await hand.close()
    hand = make_hand(kind, {"address": f"unix:{path}"})
    with pytest.raises(UnavailableError, match="nothing was published"):
        await hand.publish("chat:a", 1)


# Threads, processes, loops.


async def test_threads_share_one_publisher(table: dict[str, Any]) -> None:
    offsets: list[int] = []
    with Publisher(RedisSettings.model_validate(table), ChannelSettings.model_validate(CHANNEL)) as publisher:

        def publish() -> None:
            for _ in range(50):
                offsets.append(publisher.publish("chat:a", 1).offset)  # noqa: PERF401 - threads share the list

        threads = [threading.Thread(target=publish) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            await asyncio.to_thread(thread.join)

    assert sorted(offsets) == list(range(1, 401))


# A parent that has published forks children, as Celery and Gunicorn do, while another of its threads publishes; every
# process publishes and says what it got.
PREFORK = """
import json, os, sys, threading
from gateway.broker.redis.settings import RedisSettings
from gateway.domain.channels import ChannelSettings
from gateway.publisher import Publisher

publisher = Publisher(RedisSettings(address=sys.argv[1]), ChannelSettings.model_validate(json.loads(sys.argv[2])))

def publish(name):
    for number in range(20):
        offset = publisher.publish("chat:a", [name, number]).offset
        os.write(1, f"{offset} {name} {number}\\n".encode())

publish("parent")
busy = threading.Thread(target=publish, args=["thread"])
busy.start()
children = []
for name in ("first", "second", "third"):
    child = os.fork()
    if not child:
        publish(name)
        os._exit(0)
    children.append(child)
busy.join()
for child in children:
    assert os.waitpid(child, 0)[1] == 0
publish("parent again")
"""


async def test_forked_processes_do_not_share_the_connection() -> None:
    async with redis_server() as server:
        # From 3.12 on Python warns of forking beside threads, which is what prefork servers do.
        finished = await run_program(
            sys.executable, "-W", "ignore", "-c", PREFORK, server.location, json.dumps(CHANNEL)
        )

    lines = [line.split(" ", 1) for line in finished.out.splitlines()]
    names = ["parent", "thread", "first", "second", "third", "parent again"]
    assert (finished.code, finished.err) == (0, "")
    assert sorted(int(offset) for offset, _ in lines) == list(range(1, 121))
    for name in names:
        own = [int(offset) for offset, said in lines if said.rsplit(" ", 1)[0] == name]
        assert len(own) == 20
        assert own == sorted(own)


async def test_a_cancelled_publish_harms_nobody_else(table: dict[str, Any]) -> None:
    publisher = AsyncPublisher.on_redis(RedisSettings.model_validate(table), ChannelSettings.model_validate(CHANNEL))
    await publisher.publish("chat:a", 0)
    tasks = [asyncio.create_task(publisher.publish("chat:a", number)) for number in range(1, 31)]
    for rounds, task in enumerate(tasks[::3]):
        for _ in range(rounds):  # each is cancelled at another point of its way
            await asyncio.sleep(0)
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)

    got = [result.offset for result in results if isinstance(result, Receipt)]
    assert len(got) >= 20
    assert got == sorted(set(got)), "each its own, in the order of the calls"
    assert all(isinstance(result, Receipt | asyncio.CancelledError) for result in results), results
    await publisher.close()


async def test_what_waits_for_the_connection_is_bounded() -> None:
    async with redis_server() as server:
        settings = RedisSettings.model_validate({"address": server.location, **QUICK, "queue_max_size": 3000})
        async with AsyncPublisher.on_redis(settings) as publisher:
            await publisher.publish("a", 1)
            server.freeze()
            tasks = [asyncio.create_task(publisher.publish("a", "x" * 1000)) for _ in range(5)]
            refused = await asyncio.gather(*tasks[2:], return_exceptions=True)
            server.thaw()
            assert [type(each) for each in refused] == [UnavailableError] * 3
            assert "too much waits for the connection; nothing was published" in str(refused[0])
            assert await asyncio.gather(*tasks[:2]) == [Receipt()] * 2
            assert await publisher.publish("a", "x" * 10000) == Receipt()


def test_another_event_loop_is_told_whose_it_is(shared_redis: RedisServer) -> None:
    publisher = AsyncPublisher.on_redis(RedisSettings(address=shared_redis.location, prefix=fresh_prefix()))

    async def publish_and_close() -> None:
        await publisher.publish("a", 1)
        await publisher.close()

    asyncio.run(publish_and_close())
    with asyncio.Runner() as first, asyncio.Runner() as second:
        first.run(publisher.publish("a", 2))
        with pytest.raises(PublisherError, match="belongs to the event loop"):
            second.run(publisher.publish("a", 3))
        first.run(publisher.close())
        assert second.run(publisher.publish("a", 4)) == Receipt()
        second.run(publisher.close())


# Where the settings come from.


def write_config(path: Path, values: dict[str, Any]) -> Path:
    path.write_text(json.dumps(values), encoding="utf-8")
    return path


async def test_the_nodes_own_file_is_enough(node: RunningNode, table: dict[str, Any], tmp_path: Path) -> None:
    values = {"broker": {"type": "redis"}, "redis": table | {"address": "127.0.0.1:1"}, "channel": CHANNEL}
    path = write_config(tmp_path / "gateway.json", values | {"json": {"max_depth": 2}})
    environment = {"GATEWAY_REDIS__ADDRESS": table["address"]}
    async with listening(node, "chat:a") as listener:
        with Publisher.from_config(str(path), environment=environment) as publisher:
            assert (await asyncio.to_thread(publisher.publish, "chat:a", 1)).offset == 1
            with pytest.raises(PublishRejectedError, match="nested at most 2 deep"):
                publisher.publish("chat:a", [[[1]]])
        async with AsyncPublisher.from_config(path, environment=environment) as other:
            assert (await other.publish("chat:a", 2)).offset == 2
        assert [each["data"] for each in await listener.publications(2)] == [1, 2]


@pytest.mark.parametrize("publisher", [Publisher, AsyncPublisher])
def test_an_engine_in_memory_is_refused_in_one_sentence(
    publisher: type[Publisher | AsyncPublisher], tmp_path: Path
) -> None:
    path = write_config(tmp_path / "gateway.json", {"broker": {"type": "memory"}})
    with pytest.raises(UnsuitableEngineError) as refused:
        publisher.from_config(path)

    assert str(refused.value) == (
        f"{path}: broker.type is 'memory', and what is published there stays inside the node's process; "
        'set broker.type = "redis" for the nodes and for this program'
    )
    with pytest.raises(ConfigError, match="there is no such key"):
        publisher.from_config(write_config(path, {"brooker": {}}))


# As a dependency.


async def test_a_route_gets_it_as_a_dependency_and_a_redis_that_is_away_is_a_503() -> None:
    async with redis_server() as server:
        settings = RedisSettings.model_validate({"address": server.location, **QUICK})
        async with AsyncPublisher.on_redis(settings) as publisher:
            app = FastAPI()

            @app.post("/{channel}")
            async def post(channel: str, hand: Annotated[AsyncPublisher, Depends(publisher_of(publisher))]) -> Receipt:
                return await hand.publish(channel, 1)

            async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as http:
                assert (await http.post("/a")).json() == [0, "", False]
                server.kill()
                answer = await http.post("/a")
                assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
                assert answer.json() == {"detail": "publishing is not available"}
                with pytest.raises(PublishRejectedError):
                    await http.post("/nope:a")
