"""The array service, as a client of the plain protocol uses it."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from websockets.asyncio.client import connect

from gateway.arrays import decode_array
from tests.support.extensions import on_the_path, write_distribution
from tests.support.nodes import RunningNode, running_node
from tests.support.processes import run

HERE = Path(__file__).parent
LARGE = 16 * 1024 * 1024
CONFIG: dict[str, Any] = {
    "websocket": {"message_size_limit": LARGE},
    "client": {"queue_max_size": LARGE, "command_rate": 0},
    "handlers": {"rpc_methods": ["random_array"]},
    "channel": {
        "namespaces": [
            {
                "name": "arrays",
                "allow_subscribe_for_client": True,
                "allow_subscribe_for_anonymous": True,
                "handler": "random_array",
            },
            {
                "name": "lobby",
                "allow_subscribe_for_client": True,
                "allow_subscribe_for_anonymous": True,
                "allow_publish_for_client": True,
                "allow_publish_for_anonymous": True,
            },
        ]
    },
}


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[RunningNode]:
    write_distribution(tmp_path, {"gateway.handlers": {"random_array": "array_service:random_array"}})
    with on_the_path(tmp_path), on_the_path(HERE):
        async with running_node(CONFIG) as node:
            yield node


async def test_a_shape_in_and_eight_megabytes_out_to_the_sender_alone(node: RunningNode) -> None:
    url = f"{node.ws_url}/ws/arrays:x"
    async with connect(url, max_size=LARGE) as websocket, connect(url, max_size=LARGE) as other:
        answers = []
        for _ in range(2):
            await websocket.send(json.dumps({"shape": [1000, 1000]}))
            answers.append(decode_array(await websocket.recv(decode=False)))
        for array in answers:
            assert (array.shape, array.dtype, array.nbytes) == ((1000, 1000), np.float64, 8_000_000)
            assert 0.499 < array.mean() < 0.501
        assert not np.array_equal(answers[0], answers[1])
        await other.send('{"shape": [2]}')
        assert len(decode_array(await other.recv(decode=False))) == 2


HOW_TO_ASK = {"error": 'ask like this: {"shape": [2, 3]}'}
TOO_MANY = {"error": "a shape has 1 to 4000000 numbers"}


async def test_what_is_no_shape_is_told_what_would_be_one(node: RunningNode) -> None:
    no_shapes = ["x", "[]", '{"shape": 5}', '{"shape": ["a"]}', '{"shape": null}']
    too_large = ['{"shape": [0]}', '{"shape": [-1, -1]}', '{"shape": [4000001]}', '{"shape": [2000, 2001]}']
    async with connect(f"{node.ws_url}/ws/arrays:x") as websocket:
        for question in [*no_shapes, *too_large]:
            await websocket.send(question)
            expected = HOW_TO_ASK if question in no_shapes else TOO_MANY
            assert (question, json.loads(await websocket.recv())) == (question, expected)


async def test_bytes_are_no_json_so_rpc_can_not_carry_them_but_carries_what_is(node: RunningNode) -> None:
    async with connect(node.client_url) as websocket:
        await websocket.send('{"id":1,"connect":{}}\n{"id":2,"rpc":{"method":"random_array","data":{"shape":[0]}}}')
        replies = [json.loads(line) for _ in range(2) for line in str(await websocket.recv()).split("\n")]
        assert replies[1] == {"id": 2, "rpc": {"data": TOO_MANY}}


async def test_others_are_served_while_large_answers_go_out(node: RunningNode) -> None:
    fetched = []

    async def fetch() -> None:
        async with connect(f"{node.ws_url}/ws/arrays:x", max_size=LARGE, compression=None) as websocket:
            for _ in range(3):
                await websocket.send('{"shape": [1000, 1000]}')
                fetched.append(decode_array(await websocket.recv(decode=False)).shape)

    async with connect(f"{node.ws_url}/ws/lobby:x") as chatting, asyncio.TaskGroup() as group:
        for number in range(3):
            group.create_task(fetch(), name=f"client {number}")
        said = 0
        while len(fetched) < 9:
            await chatting.send(str(said))
            assert await chatting.recv() == str(said)
            said += 1
    assert said > 9, "at least a word for each array"


async def test_a_broken_entry_point_is_one_line_and_exit_2(tmp_path: Path) -> None:
    write_distribution(tmp_path, {"gateway.handlers": {"random_array": "array_service:no_such_function"}})
    config = tmp_path / "gateway.toml"
    config.write_text('[channel.without_namespace]\nhandler = "random_array"\n')
    path = os.pathsep.join([str(tmp_path), str(HERE), os.environ.get("PYTHONPATH", "")])
    for command in (("serve",), ("config", "check")):
        ended = await run(*command, "--config", str(config), environment={**os.environ, "PYTHONPATH": path})
        assert (ended.code, ended.out) == (2, "")
        said = "array_service:no_such_function can't be loaded: AttributeError: "
        said += "module 'array_service' has no attribute 'no_such_function'"
        assert ended.err.splitlines() == [f"channel.without_namespace.handler = 'random_array': {said}"]
