"""Who has gone leaves nothing behind: not in the process' memory, and not in any of the node's books."""

import asyncio
import contextlib
import gc
import json
import weakref
from collections import Counter
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect

from gateway.messaging.conversation import Conversation
from gateway.messaging.services import Services
from gateway.transport.http import GuardedHTTPProtocol
from gateway.transport.streams import Stream
from gateway.transport.websocket import WebSocketConnection
from tests.support.crowds import (
    Member,
    all_gone,
    all_heard,
    errors_of,
    gather_crowd,
    metrics,
    raise_descriptor_limit,
    text,
    upgrade,
)
from tests.support.frames import CLOSE, TEXT, closing, frame, raw_client
from tests.support.nodes import RunningNode, running_node
from tests.support.processes import ServingProcess, serving
from tests.support.streams import HTTP_STREAM, SSE, RawStream, get, post
from tests.support.waiting import until

CLIENT_PATH = "/connection/websocket"
BATCH = 200


def openings(number: int) -> list[tuple[bytes, bytes]]:
    """Return a batch of clients in channels of their own, so that names, too, come and go."""
    found = []
    for each in range(BATCH // 2):
        channel = f"c-{number}-{each}"
        commands: list[Any] = [
            {"id": 1, "connect": {}},
            {"id": 2, "subscribe": {"channel": channel}},
            {"id": 3, "publish": {"channel": channel, "data": {"n": number}}},
        ]
        found += [(upgrade(CLIENT_PATH), text(*commands)), (upgrade(f"/ws/{channel}-plain"), text({"n": number}))]
    return found


def streams(number: int) -> list[tuple[bytes, bytes]]:
    """Return a batch of clients of the HTTP transports that do the same."""
    found = []
    for each in range(BATCH // 2):
        channel = f"c-{number}-{each}"
        commands = [
            {"id": 1, "connect": {}},
            {"id": 2, "subscribe": {"channel": channel}},
            {"id": 3, "publish": {"channel": channel, "data": {"n": number}}},
        ]
        said = "\n".join(json.dumps(command) for command in commands)
        found += [(post(HTTP_STREAM, said.encode()), b""), (get(SSE, said), b"")]
    return found


Openings = Callable[[int], list[tuple[bytes, bytes]]]


async def come_and_go(process: ServingProcess, clients: Openings, number: int) -> None:
    """Have a batch of clients connect, subscribe and publish; a third each says goodbye, just goes, or is cut off."""
    members = await gather_crowd(process, clients(number))
    await all_heard(members, has_its_publication, "its publication")
    for index, each in enumerate(members):
        leave(each, index % 3)
    await all_gone(members)


def has_its_publication(member: Member) -> bool:
    return any(b'"n":' in payload for payload in member.payloads) or b'"n":' in member.leftover


def leave(member: Member, how: int) -> None:
    match how:
        case 0 if member.status == HTTPStatus.OK:
            member.transport.write_eof()
        case 0:
            member.send(frame(CLOSE, closing(1000, "bye")))
        case 1:
            member.send(frame(TEXT, b"\xff"))
        case _:
            member.abort()


async def resident_kb(process: ServingProcess) -> int:
    """Return what *process* has in memory, once nobody is connected to it."""
    while (figures := await metrics(process))["gateway_connections"]:
        pass
    assert [value for name, value in figures.items() if name.startswith("gateway_subscriptions")] in ([], [0])
    assert (figures["gateway_channels"], figures["gateway_users"]) == (0, 0)
    status = await asyncio.to_thread(Path(f"/proc/{process.pid}/status").read_text)
    (line,) = (line for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1])


@pytest.mark.parametrize(
    ("clients", "transports"),
    [(openings, {"websocket": 1}), (streams, {"http_stream": 2, "sse": 2})],
    ids=["WebSockets", "streams"],
)
@pytest.mark.parametrize(
    ("count", "warm_up"),
    [
        (1_000, 400),
        pytest.param(10_000, 2_000, marks=[pytest.mark.long, pytest.mark.timeout(300)]),
    ],
)
async def test_a_node_is_no_larger_after_clients_have_come_and_gone(
    clients: Openings, transports: dict[str, int], count: int, warm_up: int
) -> None:
    """5 %, and 1 MB for the allocator: pools and arenas are kept whole while one object in them lives, so that a node
    may grow by a few of them (1 MB is one arena of CPython's) without holding on to anything. A client that left its
    6 KB behind would be 48 MB after 8,000, and 3.6 MB after the short form's 600.
    """
    raise_descriptor_limit(2000)
    async with serving("--dev", environment={"GATEWAY_WEBSOCKET__CLOSE_TIMEOUT": "100ms"}) as process:
        for number in range(warm_up // BATCH):
            await come_and_go(process, clients, number)
        before_kb = await resident_kb(process)
        for number in range(warm_up // BATCH, count // BATCH):
            await come_and_go(process, clients, number)
        after_kb = await resident_kb(process)
        figures = await metrics(process)
        for transport, share in transports.items():
            assert figures[f'gateway_connections_accepted_total{{transport="{transport}"}}'] == count / share
        assert after_kb <= before_kb * 1.05 + 1024, f"{before_kb} KB after the warm-up, {after_kb} KB after all"
    assert errors_of(process) == []


# The books.


def books_of(services: Services) -> dict[str, int]:
    return {
        "connections": len(services.connections),
        "users": services.connections.users,
        "channels": len(services.hub),
        "interest": len(services.interest),
        "deadlines": len(services.wheel),
        "tasks": len(asyncio.all_tasks()),
        "descriptors": len(list(Path("/proc/self/fd").iterdir())),
    }


def alive() -> Counter[str]:
    """Count the objects of one connection each that are still there."""
    gc.collect()
    kinds = (WebSocketConnection, Stream, Conversation, GuardedHTTPProtocol)
    return Counter(type(each).__name__ for each in gc.get_objects() if isinstance(each, kinds))


async def services_of(node: RunningNode) -> Services:
    """Return what the node's conversations share, by way of one of them."""
    async with connect(node.client_url):
        await until(lambda: len(node.node.connections) == 1, "the connection")
        (conversation,) = node.node.connections
        services: Services = conversation.services
    await until(lambda: len(node.node.connections) == 0, "its end")
    return services


async def live(node: RunningNode, number: int) -> None:
    """Connect in one of the ways there are, do something, and end in one of the ways there are."""
    path = [CLIENT_PATH, f"/ws/c{number}", "/ws/echo:x"][number % 3]
    first = {"id": 1, "connect": {}} if path == CLIENT_PATH else {"n": number}
    async with raw_client(node.ws_url + path) as client:
        client.send(frame(TEXT, json.dumps(first).encode()))
        await client.receive()
        if path == CLIENT_PATH:
            client.send(frame(TEXT, b'{"id":2,"subscribe":{"channel":"c%d"}}' % number))
            await client.receive()
        match number % 5:
            case 0:
                client.send(frame(CLOSE, closing(1000)))
                await client.rest()
            case 1:
                client.send(frame(TEXT, b"\xff"))
                await client.rest()
            case 2:
                client.send(frame(TEXT, b'{"unfinished":')[:-3])
            case 3:
                client.send(frame(TEXT, b"a fragment", fin=False))
            case _:
                pass


async def stream(node: RunningNode, number: int) -> None:
    """Be a client of an HTTP transport that ends in one of the ways there are."""
    said = f'{{"id":1,"connect":{{}}}}\n{{"id":2,"subscribe":{{"channel":"c{number}"}}}}'
    requests = [post(HTTP_STREAM, said.encode()), get(SSE, said), post(SSE, b"no JSON"), post(SSE, b"x")[:-1]]
    reader, writer = await asyncio.open_connection("127.0.0.1", node.port)
    writer.write(requests[number % 4])
    if number % 4 < 3:
        await RawStream(reader, writer).read_head()
    if number % 3 == 0:
        writer.write(post("/emulation", b"{}"))
        await reader.read()
    elif number % 3 == 1:
        writer.write_eof()
        await reader.read()
    writer.transport.abort()


async def knock(node: RunningNode, number: int) -> None:
    """Be no WebSocket: refused, malformed, silent, or a plain request."""
    requests = [b"", b"GET / HT", b"hello\r\n\r\n", b"GET /connection/init HTTP/1.1\r\nHost: x\r\n\r\n"]
    requests += [upgrade("/elsewhere"), upgrade("/ws/x", "Origin: null\r\n")]
    reader, writer = await asyncio.open_connection("127.0.0.1", node.port)
    request = requests[number % len(requests)]
    writer.write(request)
    if request.endswith(b"\r\n\r\n"):
        with contextlib.suppress(ConnectionResetError):
            await reader.read(1)
    writer.transport.abort()


async def left(services: Services, before: dict[str, int]) -> tuple[dict[str, int], Counter[str]]:
    """Wait for the books to be as *before* and for no object of a connection; return what they are in the end."""
    with contextlib.suppress(AssertionError):  # the caller compares, so that a failure tells what is left
        await until(lambda: books_of(services) == before)
        await until(lambda: not alive())
    return books_of(services), alive()


async def test_nothing_of_three_hundred_connections_is_left_in_the_node() -> None:
    async with running_node(
        {"websocket": {"close_timeout": "100ms"}, "client": {"allowed_origins": []}, "http_server": {"backlog": 128}}
    ) as node:
        services = await services_of(node)
        for number in range(15):  # what is made once (a thread, a cached reader) is there from then on
            await asyncio.gather(live(node, number), knock(node, number), stream(node, number))
        with contextlib.suppress(AssertionError):
            await until(lambda: not alive())
        assert alive() == {}, "a clean start"
        before = books_of(services)
        for begin in range(0, 300, 50):
            numbers = range(begin, begin + 50)
            await asyncio.gather(*(act(node, number) for number in numbers for act in (live, knock, stream)))
        assert await left(services, before) == (before, {})
        gauges = ("connections", "users", "channels", "interest", "deadlines")
        assert {name: before[name] for name in gauges} == dict.fromkeys(gauges, 0)


async def test_a_socket_that_has_gone_is_forgotten_at_once_and_not_at_its_close_timeout() -> None:
    """Else a storm of reconnects keeps the last five seconds of sockets in memory."""

    def transports() -> int:
        gc.collect()
        return sum(isinstance(each, asyncio.Transport) for each in gc.get_objects())

    async with running_node({"websocket": {"close_timeout": "60s"}}) as node:
        before = transports()
        for number in range(0, 15, 5):
            await live(node, number)
        await until(lambda: not alive(), "no object of a connection left")
        with contextlib.suppress(AssertionError):
            await until(lambda: transports() == before)
        assert transports() == before


async def test_a_handshake_that_fails_is_forgotten_with_its_connection() -> None:
    async with running_node() as node:
        reader, writer = await asyncio.open_connection("127.0.0.1", node.port)
        writer.write(upgrade("/ws/x").replace(b"Version: 13", b"Version: 12"))
        assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 4")
        writer.transport.abort()
        with contextlib.suppress(AssertionError):
            await until(lambda: not alive())
        assert alive() == {}


async def test_a_node_that_has_stopped_is_forgotten_with_all_that_it_held() -> None:
    """What libraries remember of its applications, too: an application may start and stop many in one process."""
    async with running_node({"http_api": {"key": "key"}}) as node:
        await asyncio.gather(live(node, 0), knock(node, 1))
        async with httpx.AsyncClient(headers={"X-API-Key": "key"}) as http:
            assert (await http.post(f"{node.internal_url}/api/channels", json={})).status_code == 200
        stopped = weakref.ref(node.node)
    del node

    def is_gone() -> bool:
        gc.collect()
        return stopped() is None

    await until(is_gone, "the end of the node")
