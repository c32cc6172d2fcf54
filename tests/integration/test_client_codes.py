"""Each way in which a server ends a connection, and what the Python client does then: protocol.md 4.1 to 4.3."""

import asyncio
import http
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from gateway.client import (
    Backoff,
    Client,
    ClientError,
    ClientEvent,
    ClientSettings,
    ClosedError,
    DisconnectedError,
    Reconnecting,
    RejectedError,
    State,
    UnansweredError,
    UnauthorizedError,
)
from gateway.protocol import codes
from tests.support.waiting import until

SETTINGS = ClientSettings(backoff=Backoff(base_s=0.001, cap_s=0.001))
ACCEPTED = {"client": "c", "ping": 25, "pong": True}
Close = tuple[int, str]


class Scripted:
    """A server that greets the n-th connection with the n-th line of its script, and holds the ones after that."""

    def __init__(self, *script: Close | dict[str, object]) -> None:
        self.script = script
        self.greetings: list[dict[str, object]] = []
        self.address = ""

    async def serve(self, connection: ServerConnection) -> None:
        number = len(self.greetings)
        try:
            first = json.loads((await connection.recv()).splitlines()[0])
            self.greetings.append(first["connect"])
            line = self.script[number] if number < len(self.script) else {"connect": ACCEPTED}
            if isinstance(line, dict):
                await connection.send(json.dumps({"id": first["id"]} | line))
                await connection.wait_closed()
            else:
                await connection.send(json.dumps({"id": first["id"], "connect": ACCEPTED}))
                await connection.close(*line)
        except ConnectionClosed:
            pass  # the client's good right


@asynccontextmanager
async def scripted(*script: Close | dict[str, object]) -> AsyncIterator[Scripted]:
    server = Scripted(*script)
    async with serve(server.serve, "127.0.0.1", 0) as listener:
        server.address = address_of(listener)
        yield server


def address_of(listener: Server) -> str:
    port: int = next(iter(listener.sockets)).getsockname()[1]
    return f"ws://127.0.0.1:{port}"


COMING_BACK: Sequence[Close] = [
    *((each.code, each.reason) for each in codes.DISCONNECTS if each.code < 3500),
    (3499, "x"),
    (4000, "x"),
    (4499, "x"),
    (1000, ""),
    (1001, "going away"),
    (1011, "oops"),
    (1012, "restart"),
    (1013, "later"),
]
STAYING_AWAY: Sequence[Close] = [
    *((each.code, each.reason) for each in codes.DISCONNECTS if each.code >= 3500),
    (3999, "x"),
    (4500, "x"),
    (4999, "x"),
    (1009, ""),
]


@pytest.mark.parametrize("close", COMING_BACK, ids=lambda each: str(each[0]))
async def test_it_comes_back_after(close: Close) -> None:
    events: list[ClientEvent] = []
    async with (
        scripted(close) as server,
        Client(server.address, settings=SETTINGS, on_event=events.append) as client,
    ):
        await until(lambda: len(server.greetings) == 2 and client.state is State.CONNECTED, "it comes back")
    (event,) = [each for each in events if isinstance(each, Reconnecting)]
    assert (event.code, event.reason) == (close[0], close[1] or "no reason given")


@pytest.mark.parametrize("close", STAYING_AWAY, ids=lambda each: str(each[0]))
async def test_it_stays_away_after(close: Close) -> None:
    async def use(address: str) -> None:
        # Entering fails where the goodbye came in the same read as the acceptance.
        async with Client(address, settings=SETTINGS) as client:
            await until(lambda: client.state is State.CLOSED, "it is closed")
            await client.publish("news", 1)

    async with scripted(close) as server:
        with pytest.raises((DisconnectedError, UnauthorizedError)) as refusal:
            await use(server.address)
        assert len(server.greetings) == 1
    assert refusal.value.code == close[0]
    assert isinstance(refusal.value, UnauthorizedError) == (close[0] in {3500, 3507})
    assert not isinstance(refusal.value, ClosedError)


@pytest.mark.parametrize("error", codes.ERRORS, ids=lambda each: str(each.code))
async def test_errors_of_connect(error: codes.ErrorCode) -> None:
    refusal = {"code": error.code, "message": error.message, "temporary": error.temporary}
    async with scripted({"error": refusal}) as server:
        if error.temporary:
            async with Client(server.address, settings=SETTINGS):
                assert len(server.greetings) == 2
            return
        with pytest.raises(ClientError) as raised:
            async with Client(server.address, settings=SETTINGS, token="t"):
                raise AssertionError("it was refused")
        assert len(server.greetings) == 1
    assert raised.value.code == error.code
    assert isinstance(raised.value, UnauthorizedError if error.code in {101, 109, 110} else RejectedError)


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ({"error": {"code": 109, "message": "token expired"}}, ["t1", "t2"]),
        ((3005, "connection expired"), ["t1", "t2"]),
        ((3014, "state invalidated"), ["t1", "t2"]),
        ((3001, "shutdown"), ["t1", "t1"]),
    ],
    ids=["109", "3005", "3014", "3001"],
)
async def test_another_token_is_shown_where_the_old_one_is_no_good(
    line: Close | dict[str, object], shown: list[str]
) -> None:
    tokens = iter(("t1", "t2", "t3"))

    async def fetch() -> str:
        return next(tokens)

    async with scripted(line) as server:
        async with Client(server.address, token=fetch, settings=SETTINGS):
            await until(lambda: len(server.greetings) == 2)
        assert [each["token"] for each in server.greetings] == shown


@pytest.mark.parametrize(
    ("status", "comes_back"),
    [(each, False) for each in (400, 401, 403, 404)] + [(each, True) for each in (408, 429, 500, 502, 503, 504)],
)
async def test_http_answers_to_the_upgrade(status: int, *, comes_back: bool) -> None:
    asked = 0

    def refuse_first(connection: ServerConnection, _: Request) -> Response | None:
        nonlocal asked
        asked += 1
        return connection.respond(http.HTTPStatus(status), "no\n") if asked == 1 else None

    server = Scripted()
    async with serve(server.serve, "127.0.0.1", 0, process_request=refuse_first) as listener:
        address = address_of(listener)
        if comes_back:
            async with Client(address, settings=SETTINGS):
                assert asked == 2
            return
        with pytest.raises(UnauthorizedError if status in {401, 403} else DisconnectedError) as refusal:
            async with Client(address, settings=SETTINGS):
                raise AssertionError("it was refused")
        assert (asked, refusal.value.code) == (1, status)


async def test_a_publication_that_was_not_answered_when_the_connection_was_lost_is_unknown() -> None:
    async def lose(connection: ServerConnection) -> None:
        async for frame in connection:
            for line in frame.splitlines():
                command = json.loads(line)
                if "publish" in command:
                    connection.transport.abort()
                    return
                await connection.send(json.dumps({"id": command["id"], "connect": ACCEPTED}))

    async with serve(lose, "127.0.0.1", 0) as listener, Client(address_of(listener), settings=SETTINGS) as client:
        with pytest.raises(UnansweredError, match="before you repeat it"):
            await client.publish("news", 1)


async def test_a_server_that_never_greets_is_left_after_the_timeout() -> None:
    async def be_silent(connection: ServerConnection) -> None:
        await connection.wait_closed()

    events: list[ClientEvent] = []
    backoff = Backoff(base_s=0.001, cap_s=0.001, max_retries=1)
    settings = ClientSettings(backoff=backoff, connect_timeout_s=0.05)
    async with serve(be_silent, "127.0.0.1", 0) as listener:
        with pytest.raises(DisconnectedError, match=r"not connected within 0\.05 s"):
            async with Client(address_of(listener), settings=settings, on_event=events.append):
                raise AssertionError("it never was connected")
    assert [each.attempt for each in events if isinstance(each, Reconnecting)] == [1]


async def test_a_client_can_be_stopped_at_any_moment() -> None:
    """Also while it connects, waits, or says goodbye; it leaves nothing behind."""
    before = asyncio.all_tasks()
    async with scripted((3001, "shutdown"), (3001, "shutdown")) as server:
        for delay_turns in range(60):
            async with asyncio.TaskGroup() as tasks:
                client = Client(server.address, settings=SETTINGS)
                tasks.create_task(client.run(), name="client")
                for _ in range(delay_turns):
                    await asyncio.sleep(0)
                client.stop()
            assert client.state is State.CLOSED
    assert asyncio.all_tasks() == before


async def test_a_client_can_be_cancelled_at_any_moment() -> None:
    before = asyncio.all_tasks()
    async with scripted((3001, "shutdown"), (3001, "shutdown")) as server:
        for delay_turns in range(60):
            client = Client(server.address, settings=SETTINGS)
            running = asyncio.create_task(client.run(), name="client")
            for _ in range(delay_turns):
                await asyncio.sleep(0)
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
            assert client.state is State.CLOSED or not delay_turns
    assert asyncio.all_tasks() == before
