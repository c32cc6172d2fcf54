"""What calls are answered with, without a server: faults of ours, and reasons that are no header's text."""

import json
from collections.abc import AsyncIterator
from typing import Any, NoReturn

import pytest

from gateway.api.keys import HTTPAPISettings, KeyRing
from gateway.api.server import Answer, ServerAPI
from gateway.broker.contract import BrokerError
from tests.support.administrations import Office
from tests.support.conversations import House, house

TABLE = {"channel": {"without_namespace": {"presence": True, "history_size": 5, "history_ttl": 60}}}


class Bench:
    """The API of a house."""

    def __init__(self, node: House) -> None:
        settings = HTTPAPISettings(key="key")
        self.node = node
        self.office = Office(node)
        self._api = ServerAPI(
            self.office.administration,
            KeyRing(settings),
            settings,
            node.counts,
            log=node.services.log,
            monotonic=node.monotonic,
            max_depth=128,
        )

    async def ask(self, name: str, **call: Any) -> Answer:
        """Call a method."""

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": json.dumps(call).encode()}

        scope = {"headers": [(b"x-api-key", b"key")], "query_string": b""}
        return await self._api.answer(name, scope, receive)


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    async with house(TABLE) as node:
        yield Bench(node)


async def test_a_fault_of_ours_is_error_100_and_a_line_in_the_log(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> NoReturn:
        raise ZeroDivisionError

    monkeypatch.setattr(bench.node.services.channels, "resolve", fail)
    bench.node.expected_errors += 2
    answer = await bench.ask("publish", channel="a", data=1)
    assert (answer.status, answer.body) == (200, b'{"error":{"code":100,"message":"internal server error"}}')
    batch = await bench.ask("batch", commands=[{"publish": {"channel": "a", "data": 1}}])
    assert json.loads(batch.body) == {"error": {"code": 100, "message": "internal server error"}}


@pytest.mark.parametrize("reason", ["two\r\nlines: x", "nul \0", "long " * 500, "\u2028 \xe9 \ud83d"])
async def test_a_reason_is_one_line_of_ascii_whatever_it_says(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    def fail(*_: object, **__: object) -> NoReturn:
        raise BrokerError(reason)

    monkeypatch.setattr(bench.node.engine.presence, "stats", fail)
    answer = await bench.ask("presence_stats", channel="a")
    [said] = [value for name, value in answer.headers if name == b"x-error-reason"]
    assert said.isascii()
    assert said.decode().isprintable()
    assert len(said) <= 500


async def test_calls_are_counted_by_their_method_and_errors_by_their_code(bench: Bench) -> None:
    await bench.ask("publish", channel="a", data=1)
    await bench.ask("publish", channel="nope:a", data=1)
    await bench.ask("batch", commands=[{"publish": {"channel": "a", "data": 1}}, {}])
    counts = bench.node.counts
    assert counts.api_calls == {"publish": 3, "batch": 1, "unknown": 1}
    assert counts.api_errors == {("publish", "102"): 1, ("unknown", "104"): 1}
    assert {name: sum(each.buckets) for name, each in counts.api_durations.items()} == {"publish": 2, "batch": 1}


async def test_who_acts_on_others_is_logged_under_the_node_that_was_called(bench: Bench) -> None:
    await bench.ask("drain", node="node1")
    await bench.ask("disconnect", user="42")
    await bench.ask("publish", channel="a", data=1)
    calls = [event for event in bench.node.events if event["event"] == "api call"]
    common = {"event": "api call", "node": "test", "level": "info", "key": "http_api.key", "error": None}
    assert [{name: value for name, value in each.items() if name != "timestamp"} for each in calls] == [
        {**common, "method": "drain", "of_node": "node1"},
        {**common, "method": "disconnect", "user": "42"},
    ]
