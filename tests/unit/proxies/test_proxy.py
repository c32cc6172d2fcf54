"""One proxy: what becomes of a call, how many there are at a time, and what is counted and logged of it."""

import asyncio
import io
import json
from typing import Any

import pytest
from msgspec import Raw

from gateway.domain.counts import Asked, Counts
from gateway.observability.logs import Format, LogSettings, make_logger
from gateway.protocol.codes import Disconnect, ErrorCode
from gateway.proxies import answers
from gateway.proxies.breaker import BreakerState
from gateway.proxies.events import Kind, RPCEvent
from gateway.proxies.headers import NO_HEADERS, ClientHeaders
from gateway.proxies.port import BackendError, Response, TooLongError, UnreachableError
from gateway.proxies.proxy import Around, Proxy, ProxyError
from gateway.proxies.settings import ProxySettings
from tests.support.backends import FakeBackend
from tests.support.waiting import until

EVENT = RPCEvent("c", "websocket", "json", "json", "42", method="m")
UNREACHABLE = UnreachableError("connection refused")


class Desk:
    """A proxy for `rpc`, its backend, and its books."""

    def __init__(self, **settings: Any) -> None:
        self.backend = FakeBackend()
        self.backend.answers["/rpc"] = {"result": {"data": 1}}
        self.now_s = 100.0
        self.counts = Counts()
        self._log = io.StringIO()
        log = make_logger(LogSettings(format=Format.JSON, repeat_limit=0), node="test", stream=self._log)
        wanted = ProxySettings.model_validate(
            {"endpoint": "http://backend/rpc", "timeout": 60, **settings}, by_alias=True, by_name=False
        )
        self.proxy: Proxy[Raw] = Proxy(
            Kind.RPC,
            "shop",
            wanted,
            reader=answers.RPC,
            backend=self.backend.make(wanted),
            counts=self.counts.proxy("rpc", "shop"),
            around=Around(lambda: self.now_s, lambda: 0.0, log, 16),
        )

    async def ask(self, headers: ClientHeaders = NO_HEADERS) -> Any:
        return await self.proxy.ask(EVENT, headers)

    async def fails(self) -> ProxyError:
        with pytest.raises(ProxyError) as caught:
            await self.ask()
        return caught.value

    def say(self, answer: Any, *, status: int = 200) -> None:
        body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.backend.answers["/rpc"] = Response(status, body)

    @property
    def calls(self) -> dict[str, int]:
        return {str(outcome): number for outcome, number in self.counts.proxy("rpc", "shop").calls.items()}

    @property
    def lines(self) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self._log.getvalue().splitlines()]
        for line in lines:
            assert (line.pop("proxy"), line.pop("about"), line.pop("node")) == ("shop", "rpc", "test")
            del line["timestamp"]
        return lines


async def test_the_event_goes_out_as_it_is_with_the_headers_that_are_listed() -> None:
    desk = Desk(http_headers=["Cookie"], emulated_headers=["X-Name"], http={"static_headers": {"X-Key": "1"}})
    headers = ClientHeaders((("cookie", "a=b"), ("origin", "o")), (("x-name", "v"), ("x-other", "w")))
    assert bytes(await desk.ask(headers)) == b"1"
    (asked,) = desk.backend.asked
    assert asked.headers == [("cookie", "a=b"), ("x-name", "v"), ("x-key", "1")]
    assert asked.body == (
        b'{"client":"c","transport":"websocket","protocol":"json","encoding":"json","user":"42","method":"m"}'
    )


@pytest.mark.parametrize(
    ("status", "answer", "meaning", "outcome"),
    [
        (200, {"error": {"code": 1000, "message": "no"}}, ErrorCode(1000, "no"), "error"),
        (200, {"disconnect": {"code": 4501, "reason": "out"}}, Disconnect(4501, "out"), "disconnect"),
        (404, b"nginx", ErrorCode(404, "not found"), "error"),
        (429, b"", ErrorCode(429, "slow down", temporary=True), "error"),
        (503, b"", ErrorCode(503, "later", temporary=True), "error"),
        (403, {"result": {}}, Disconnect(4903, "permission denied"), "disconnect"),
        (401, b"", Disconnect(3500, "invalid token"), "disconnect"),
    ],
)
async def test_refusals_and_mapped_statuses_are_answers(
    status: int, answer: Any, meaning: ErrorCode | Disconnect, outcome: str
) -> None:
    transforms = [
        {"status_code": 404, "to_error": {"code": 404, "message": "not found"}},
        {"status_code": 429, "to_error": {"code": 429, "message": "slow down", "temporary": True}},
        {"status_code": 503, "to_error": {"code": 503, "message": "later", "temporary": True}},
        {"status_code": 403, "to_disconnect": {"code": 4903, "reason": "permission denied"}},
        {"status_code": 401, "to_disconnect": {"code": 3500}},
    ]
    desk = Desk(http={"status_to_code_transforms": transforms}, breaker={"failures": 1})
    desk.say(answer, status=status)
    assert await desk.ask() == meaning
    assert desk.calls == {outcome: 1}
    assert desk.lines == []
    assert desk.proxy.breaker_state is BreakerState.CLOSED


@pytest.mark.parametrize(
    ("said", "outcome", "reason", "state"),
    [
        (Response(500, b'{"result":{}}'), "status", "status 500", BreakerState.OPEN),
        (Response(503, b""), "status", "status 503", BreakerState.OPEN),
        # A client could bring these about by what it asks, and must not cut off the others by it.
        (Response(404, b""), "status", "status 404", BreakerState.CLOSED),
        (Response(302, b""), "status", "status 302", BreakerState.CLOSED),
        (Response(204, b""), "status", "status 204", BreakerState.CLOSED),
        (Response(200, b"<html>"), "unusable", "it is no answer to this event: ", BreakerState.CLOSED),
        (Response(200, b"{}"), "unusable", "it has no result, error or disconnect", BreakerState.CLOSED),
        (TooLongError("longer than 9 bytes"), "too_long", "longer than 9 bytes", BreakerState.CLOSED),
        (UNREACHABLE, "unreachable", "connection refused", BreakerState.OPEN),
    ],
)
async def test_what_is_no_answer_is_an_error_a_line_and_maybe_a_step_towards_the_breaker(
    said: Response | BackendError, outcome: str, reason: str, state: BreakerState
) -> None:
    desk = Desk(breaker={"failures": 1})
    desk.backend.answers["/rpc"] = said
    failure = await desk.fails()
    assert failure.outcome is Asked(outcome)
    assert str(failure).startswith(reason)
    assert desk.calls == {outcome: 1}
    failed = {"event": "proxy failed", "outcome": outcome, "reason": str(failure), "client": "c", "level": "warning"}
    opened = {"event": "proxy breaker opened", "failures": 1, "level": "warning"}
    assert desk.lines == ([opened, failed] if state is BreakerState.OPEN else [failed])
    assert desk.proxy.breaker_state is state


async def test_who_does_not_answer_in_time_is_given_up_and_counts_as_failing() -> None:
    desk = Desk(timeout=0.01, breaker={"failures": 1})
    desk.backend.gate.clear()
    failure = await desk.fails()
    assert (failure.outcome, str(failure)) == (Asked.TIMEOUT, "no answer within 0.01 s")
    assert desk.proxy.breaker_state is BreakerState.OPEN
    assert desk.proxy.in_flight == 0


async def test_an_open_breaker_answers_at_once_counts_and_writes_no_line_for_each() -> None:
    desk = Desk(breaker={"failures": 2, "pause": "1s"})
    desk.backend.answers["/rpc"] = UNREACHABLE
    for _ in range(2):
        await desk.fails()
    written = len(desk.lines)
    for _ in range(5):
        assert (await desk.fails()).outcome is Asked.REFUSED
    assert len(desk.backend.asked) == 2
    assert desk.calls == {"unreachable": 2, "refused": 5}
    assert len(desk.lines) == written
    # The pause is over; the backend is back.
    desk.now_s += 0.5
    desk.say({"result": {}})
    await desk.ask()
    assert desk.proxy.breaker_state is BreakerState.CLOSED
    assert desk.lines[-1] == {"event": "proxy breaker closed", "level": "info"}
    assert desk.counts.proxy("rpc", "shop").openings == 1


async def asking(desk: Desk, number: int) -> list[asyncio.Task[Any]]:
    tasks = [asyncio.create_task(desk.ask()) for _ in range(number)]
    await until(lambda: desk.proxy.in_flight + desk.proxy.waiting == number)
    return tasks


async def test_so_many_calls_are_under_way_so_many_wait_and_the_rest_is_refused_at_once() -> None:
    desk = Desk(concurrency_limit=2, waiting_limit=1)
    desk.backend.gate.clear()
    tasks = await asking(desk, 3)
    assert (desk.proxy.in_flight, desk.proxy.waiting, len(desk.backend.asked)) == (2, 1, 2)
    failure = await desk.fails()
    assert (failure.outcome, str(failure)) == (Asked.BUSY, "2 calls are under way, and 1 wait")
    desk.backend.gate.set()
    assert [bytes(await task) for task in tasks] == [b"1"] * 3
    assert (desk.proxy.in_flight, desk.proxy.waiting, len(desk.backend.asked)) == (0, 0, 3)
    assert desk.calls == {"busy": 1, "result": 3}


async def test_who_waits_too_long_for_a_turn_is_refused_and_that_is_no_failure_of_the_backend() -> None:
    desk = Desk(concurrency_limit=1, timeout=0.05, breaker={"failures": 2})
    desk.backend.gate.clear()
    tasks = await asking(desk, 3)
    outcomes = [
        error.outcome for error in await asyncio.gather(*tasks, return_exceptions=True) if isinstance(error, ProxyError)
    ]
    assert outcomes == [Asked.TIMEOUT, Asked.BUSY, Asked.BUSY]
    assert desk.proxy.breaker_state is BreakerState.CLOSED
    assert len(desk.backend.asked) == 1


async def test_who_waited_while_the_breaker_opened_does_not_try_the_backend_either() -> None:
    desk = Desk(concurrency_limit=1, breaker={"failures": 1})
    desk.backend.gate.clear()
    tasks = await asking(desk, 3)
    desk.backend.answers["/rpc"] = UNREACHABLE
    desk.backend.gate.set()
    errors = await asyncio.gather(*tasks, return_exceptions=True)
    assert [error.outcome for error in errors if isinstance(error, ProxyError)] == [
        Asked.UNREACHABLE,
        Asked.REFUSED,
        Asked.REFUSED,
    ]
    assert len(desk.backend.asked) == 1


async def cancel(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_call_that_is_cancelled_leaves_no_trace_but_its_count() -> None:
    desk = Desk(concurrency_limit=1)
    desk.backend.gate.clear()
    tasks = await asking(desk, 2)
    await cancel(*tasks)
    assert (desk.proxy.in_flight, desk.proxy.waiting) == (0, 0)
    assert desk.calls == {"cancelled": 2}
    desk.backend.gate.set()
    assert bytes(await desk.ask()) == b"1"


async def test_a_trial_that_is_cancelled_lets_the_next_call_try() -> None:
    desk = Desk(breaker={"failures": 1, "pause": "1s"})
    desk.backend.answers["/rpc"] = UNREACHABLE
    await desk.fails()
    desk.now_s += 1
    desk.backend.gate.clear()
    (trial,) = await asking(desk, 1)
    assert desk.proxy.breaker_state is BreakerState.HALF_OPEN
    await cancel(trial)
    desk.say({"result": {}})
    desk.backend.gate.set()
    await desk.ask()
    assert desk.proxy.breaker_state is BreakerState.CLOSED


async def test_a_retired_proxy_finishes_what_has_begun_and_then_releases_its_connections() -> None:
    desk = Desk(concurrency_limit=1)
    desk.backend.gate.clear()
    tasks = await asking(desk, 2)
    retiring = asyncio.create_task(desk.proxy.retire())
    await asyncio.sleep(0)
    assert desk.backend.closed == []
    desk.backend.gate.set()
    assert [bytes(await task) for task in tasks] == [b"1"] * 2
    await retiring
    assert desk.backend.closed == ["/rpc"]


async def test_a_proxy_that_retires_while_the_node_stops_releases_its_connections_all_the_same() -> None:
    desk = Desk(concurrency_limit=1)
    desk.backend.gate.clear()
    tasks = await asking(desk, 1)
    retiring = asyncio.create_task(desk.proxy.retire())
    await asyncio.sleep(0)
    await cancel(*tasks, retiring)
    assert desk.backend.closed == ["/rpc"]


async def test_durations_are_those_of_the_calls_that_were_made() -> None:
    desk = Desk(breaker={"failures": 1})
    desk.backend.gate.clear()
    (task,) = await asking(desk, 1)
    desk.now_s += 0.2
    desk.backend.gate.set()
    await task
    desk.backend.answers["/rpc"] = UNREACHABLE
    await desk.fails()
    await desk.fails()  # refused by the breaker
    durations = desk.counts.proxy("rpc", "shop").durations
    assert sum(durations.buckets) == 2
    assert durations.total == pytest.approx(0.2)
