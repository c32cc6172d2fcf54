import asyncio
import io
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from gateway.messaging.handlers import HANDLERS, Answer, Handler, Handlers, HandlerSettings, Request, installed_handlers
from gateway.observability.logs import Format, Level, LogSettings, make_logger
from gateway.protocol import codes
from tests.support.waiting import until

ASKED = Request("echo:a", "42", "client", "what?")


class Bench:
    """Handlers, and what they logged."""

    def __init__(
        self, *, timeout_s: float = 10.0, limit: int = 2, **handlers: Callable[[Request], Awaitable[Any]]
    ) -> None:
        self._stream = io.StringIO()
        settings = HandlerSettings(timeout_s=timeout_s, concurrency_limit=limit, rpc_methods=["called"])
        log = make_logger(LogSettings(level=Level.DEBUG, format=Format.JSON), node="test", stream=self._stream)
        known: dict[str, Handler] = dict(handlers)  # type: ignore[arg-type]
        self.handlers = Handlers(known, settings, log=log)

    @property
    def logged(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._stream.getvalue().splitlines()]


@pytest.mark.parametrize("data", ["text", b"\x00\xff", "", b""])
async def test_echo_answers_with_what_it_got(data: str | bytes) -> None:
    answer = await HANDLERS["echo"](Request(channel="echo:a", user="42", client="c", data=data))
    assert (answer, type(answer)) == (data, type(data))


def test_a_request_can_not_be_changed() -> None:
    request = Request(channel="echo:a", user="42", client="c", data="x")
    with pytest.raises(AttributeError):
        request.user = "43"  # type: ignore[misc]


def test_what_is_built_in() -> None:
    assert list(HANDLERS) == ["echo"]
    assert installed_handlers()["echo"] is HANDLERS["echo"]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("é", Answer("é".encode(), is_text=True)),
        ("", Answer(b"", is_text=True)),
        (b"\x00\xff", Answer(b"\x00\xff", is_text=False)),
        (None, None),
    ],
)
async def test_an_answer_is_text_binary_or_nothing(answer: str | bytes | None, expected: Answer | None) -> None:
    asked = []

    async def handler(request: Request) -> str | bytes | None:
        asked.append(request)
        return answer

    bench = Bench(handler=handler)
    assert await bench.handlers.call("handler", ASKED) == expected
    assert (asked, bench.logged) == ([ASKED], [])


@pytest.mark.parametrize("answer", [5, {"a": 1}, bytearray(b"x"), "\ud800"], ids=str)
async def test_what_is_no_answer_is_error_100_and_a_line(answer: Any) -> None:
    async def handler(_: Request) -> Any:
        return answer

    bench = Bench(handler=handler)
    assert await bench.handlers.call("handler", ASKED) is codes.INTERNAL_ERROR
    assert [line["event"] for line in bench.logged] == ["handler failed"]


@pytest.mark.parametrize("error", [ValueError("x"), TimeoutError("its own")], ids=str)
async def test_an_exception_is_error_100_and_a_line_that_says_whose(error: Exception) -> None:
    async def handler(_: Request) -> str:
        raise error

    bench = Bench(handler=handler)
    assert await bench.handlers.call("handler", ASKED) is codes.INTERNAL_ERROR
    [line] = bench.logged
    assert {name: line[name] for name in ("level", "event", "handler", "client", "channel")} == {
        "level": "error",
        "event": "handler failed",
        "handler": "handler",
        "client": "client",
        "channel": "echo:a",
    }
    assert str(error) in line["exception"]


async def test_an_answer_that_takes_too_long_is_given_up_and_its_handler_cancelled() -> None:
    ended = []

    async def handler(_: Request) -> str:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("handler")
        return "late"

    bench = Bench(handler=handler, timeout_s=0.01)
    assert await bench.handlers.call("handler", ASKED) is codes.INTERNAL_ERROR
    assert ended == ["handler"]
    assert [(line["event"], line["timeout_s"]) for line in bench.logged] == [("handler too slow", 0.01)]


async def test_a_handler_works_on_so_many_at_a_time_and_the_others_wait_their_turn() -> None:
    gate, begun = asyncio.Event(), []

    async def slow(request: Request) -> str:
        begun.append(request.user)
        await gate.wait()
        return request.user

    async def quick(_: Request) -> str:
        return "quick"

    bench = Bench(slow=slow, quick=quick, limit=2)
    async with asyncio.TaskGroup() as group:
        calls = [
            group.create_task(bench.handlers.call("slow", Request("", str(n), "c", "")), name=f"call {n}")
            for n in range(4)
        ]
        await until(lambda: len(begun) == 2)
        assert await bench.handlers.call("quick", ASKED) == Answer(b"quick", is_text=True), "each has its own turns"
        assert begun == ["0", "1"]
        gate.set()
    assert begun == ["0", "1", "2", "3"]
    assert [call.result() for call in calls] == [Answer(b"%d" % n, is_text=True) for n in range(4)]


async def test_who_waits_for_a_turn_too_long_is_told_to_come_back() -> None:
    gate, begun = asyncio.Event(), []

    async def handler(request: Request) -> str:
        begun.append(request)
        try:
            await asyncio.Event().wait()
        finally:
            await gate.wait()  # so that its turn is not over when its time is
        return "never"

    bench = Bench(handler=handler, limit=1, timeout_s=0.01)
    first = asyncio.create_task(bench.handlers.call("handler", ASKED), name="first")
    await until(lambda: len(begun) == 1)
    assert await bench.handlers.call("handler", ASKED) is codes.TOO_MANY_REQUESTS
    gate.set()
    assert await first is codes.INTERNAL_ERROR
    assert [line["event"] for line in bench.logged] == ["handler too busy", "handler too slow"]


async def test_a_cancel_reaches_the_handler_and_gives_its_turn_back() -> None:
    gate, begun = asyncio.Event(), []

    async def handler(request: Request) -> str:
        begun.append(request)
        await gate.wait()
        return "done"

    bench = Bench(handler=handler, limit=1)
    first = asyncio.create_task(bench.handlers.call("handler", ASKED), name="first")
    await until(lambda: len(begun) == 1)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    gate.set()
    assert await bench.handlers.call("handler", ASKED) == Answer(b"done", is_text=True)
    assert bench.logged == []


def test_only_what_is_named_is_a_method() -> None:
    handlers = Bench().handlers
    assert [handlers.has_method(name) for name in ("called", "echo", "ping", "")] == [True, False, False, False]
