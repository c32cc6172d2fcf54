"""rpc by the names of handlers."""

import asyncio
from typing import Any

import pytest

from gateway.config import ConfigError
from gateway.messaging.handlers import Request
from gateway.protocol import codes
from gateway.protocol.codes import Disconnect
from tests.support.conversations import house

METHODS: dict[str, Any] = {"handlers": {"rpc_methods": ["echo"]}}
INTERNAL = {"code": 100, "message": "internal server error", "temporary": True}


@pytest.mark.parametrize("data", ["1.50", '{"a":[1.0,"é"]}', "null", '"text"'])
async def test_the_handler_answers_with_json_as_it_is(data: str) -> None:
    async with house(METHODS) as node:
        client = await node.connect("42")
        client.send(f'{{"id":2,"rpc":{{"method":"echo","data":{data}}}}}')
        await node.settle()
        assert client.take() == [f'{{"id":2,"rpc":{{"data":{data}}}}}']


async def test_the_handler_learns_who_asks_what_and_may_say_nothing() -> None:
    asked = []

    async def remember(request: Request) -> None:
        asked.append(request)

    async with house(METHODS, handlers={"echo": remember}) as node:
        client = await node.connect("42")
        with_data = {"id": 2, "rpc": {"method": "echo", "data": {"a": 1}}}
        assert await client.ask(with_data, {"id": 3, "rpc": {"method": "echo"}}) == [
            {"id": 2, "rpc": {}},
            {"id": 3, "rpc": {}},
        ]
        assert asked == [Request("", "42", client.id, '{"a": 1}'), Request("", "42", client.id, "")]


@pytest.mark.parametrize("answer", ["no JSON", "", b"\x93NUMPY", "1 2"])
async def test_an_answer_that_is_no_json_is_error_100_and_a_line(answer: str | bytes) -> None:
    async def handler(_: Request) -> str | bytes:
        return answer

    async with house(METHODS, handlers={"echo": handler}) as node:
        node.expected_errors = 1
        client = await node.connect("42")
        assert await client.ask({"id": 2, "rpc": {"method": "echo"}}) == [{"id": 2, "error": INTERNAL}]
        assert [(line["event"], line["handler"]) for line in node.errors] == [("rpc answer is no JSON", "echo")]


async def test_a_handler_that_raises_is_error_100_and_the_connection_lives_on() -> None:
    async def fail(_: Request) -> str:
        raise RuntimeError("its own fault")

    async with house(METHODS, handlers={"echo": fail}) as node:
        node.expected_errors = 1
        client = await node.connect("42")
        replies = await client.ask({"id": 2, "rpc": {"method": "echo"}}, {"id": 3, "rpc": {"method": "ping"}})
        assert replies == [{"id": 2, "error": INTERNAL}, {"id": 3, "rpc": {}}]


@pytest.mark.parametrize(
    ("table", "error"),
    [
        (METHODS, {"code": 104, "message": "method not found"}),
        ({}, {"code": 108, "message": "not available"}),
    ],
    ids=["another method", "no method at all"],
)
async def test_what_the_operator_does_not_name_is_no_method(table: dict[str, Any], error: dict[str, Any]) -> None:
    async with house(table) as node:
        client = await node.connect("42")
        unknown, ping = {"id": 2, "rpc": {"method": "nope", "data": 1}}, {"id": 3, "rpc": {"method": "ping"}}
        assert await client.ask(unknown, ping) == [{"id": 2, "error": error}, {"id": 3, "rpc": {}}]


async def test_replies_keep_the_order_of_the_commands() -> None:
    gate = asyncio.Event()

    async def slow(request: Request) -> str | bytes:
        await gate.wait()
        return request.data

    async with house(METHODS, handlers={"echo": slow}) as node:
        client = await node.connect("42")
        asking = [{"id": 2, "rpc": {"method": "echo", "data": 1}}, {"id": 3, "rpc": {"method": "ping"}}]
        assert await client.ask(*asking) == []
        gate.set()
        await node.settle()
        assert client.take_values() == [{"id": 2, "rpc": {"data": 1}}, {"id": 3, "rpc": {}}]


async def test_a_client_that_went_meanwhile_is_told_nothing() -> None:
    gate = asyncio.Event()

    async def slow(request: Request) -> str | bytes:
        await gate.wait()
        return request.data

    async with house(METHODS, handlers={"echo": slow}) as node:
        client = await node.connect("42")
        assert await client.ask({"id": 2, "rpc": {"method": "echo", "data": 1}}) == []
        client.conversation.disconnect(Disconnect(codes.SHUTDOWN.code, codes.SHUTDOWN.reason))
        gate.set()
        await node.settle()
        assert client.take() == []


@pytest.mark.parametrize(
    ("methods", "said"),
    [
        (["nobody"], "handlers.rpc_methods has 'nobody': there is echo"),
        (["ping"], "handlers.rpc_methods has 'ping': that method is built in"),
    ],
)
async def test_a_method_that_can_not_be_is_told_at_the_start(methods: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        async with house({"handlers": {"rpc_methods": methods}}):
            pass
