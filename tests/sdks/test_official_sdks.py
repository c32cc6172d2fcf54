"""Official SDKs, unchanged from the public registries, on two nodes behind HAProxy with Redis: what applications see.

Each program connects with a token, publishes and asks, and loses its node while others publish: what the channel
brought is compared value by value. Where an SDK would fall back in silence (patches), the node's count is, too.
"""

import asyncio
import json
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import jwt
import pytest

from tests.support.balanced import API_KEY, Balanced, Program, balanced_nodes, program
from tests.support.go_programs import UnavailableError, own_program
from tests.support.nodes import SECRET
from tests.support.npm import environment, npm_folder

PROGRAMS: Final = Path(__file__).parent / "programs"
JAVASCRIPT: Final = ("centrifuge@5.8.0", "ws@8.23.0")
GO: Final = {"github.com/centrifugal/centrifuge-go": "v0.12.1"}
PUBLISHED: Final = 60
CONFIG: Final = f"""
[http_server]
address = "127.0.0.1"
trusted_proxies = ["127.0.0.1"]
[broker]
type = "redis"
[client]
allowed_origins = ["*"]
command_rate = 0
[client.token]
hmac_secret_key = "{SECRET}"
[http_api]
key = "{API_KEY}"
[handlers]
rpc_methods = ["echo"]
[shutdown]
grace = "0s"
timeout = "10s"
[drain]
window = "500ms"
[log]
format = "json"
[[channel.namespaces]]
name = "room"
allow_subscribe_for_client = true
allow_publish_for_subscriber = true
allow_history_for_subscriber = true
allow_presence_for_subscriber = true
history_size = 300
history_ttl = "10m"
force_recovery = true
presence = true
join_leave = true
force_push_join_leave = true
allowed_delta_types = ["fossil"]
delta_publish = true
allow_channel_compaction = true
"""


class SDK(NamedTuple):
    """One way to be a client."""

    name: str
    codec: str
    is_patched: bool = False


CELLS: Final = [
    SDK(name, codec, is_patched=is_patched)
    for name in ("centrifuge-python", "centrifuge-js", "centrifuge-go")
    for codec in ("json", "protobuf")
    for is_patched in (False, True)
]


def named(cell: SDK) -> str:
    return " ".join([cell.name, cell.codec, *(["patched"] if cell.is_patched else [])])


def javascript(cell: SDK, balanced: Balanced) -> AbstractAsyncContextManager[Program]:
    folder = npm_folder(*JAVASCRIPT)
    script = folder / "client.mjs"  # beside what it imports
    script.write_text((PROGRAMS / "client.mjs").read_text())
    given = given_to(cell, balanced) | {"options": {"delta": "fossil"} if cell.is_patched else {}}
    return program("node", str(script), json.dumps(given), cwd=folder, environment=environment())


def go(cell: SDK, balanced: Balanced) -> AbstractAsyncContextManager[Program]:
    built = own_program("centrifuge-go-client", PROGRAMS / "client.go", GO)
    given = given_to(cell, balanced) | {"delta": "fossil" if cell.is_patched else ""}
    return program(str(built), json.dumps(given), cwd=built.parent)


def python(cell: SDK, balanced: Balanced) -> AbstractAsyncContextManager[Program]:
    given = given_to(cell, balanced) | {"delta": "fossil" if cell.is_patched else ""}
    return program(sys.executable, str(PROGRAMS / "client.py"), json.dumps(given), cwd=PROGRAMS)


def given_to(cell: SDK, balanced: Balanced) -> dict[str, Any]:
    return {
        "endpoint": f"ws://{balanced.host}/connection/websocket",
        "codec": cell.codec,
        "token": jwt.encode({"sub": "ann", "exp": int(time.time()) + 3600}, SECRET, "HS256"),
        "channel": "room:sdk",
    }


Start = Callable[[SDK, Balanced], AbstractAsyncContextManager[Program]]
STARTS: Final[dict[str, Start]] = {"centrifuge-python": python, "centrifuge-js": javascript, "centrifuge-go": go}


@asynccontextmanager
async def running(cell: SDK, folder: Path) -> AsyncIterator[tuple[Balanced, Program]]:
    config = folder / "gateway.toml"
    config.write_text(CONFIG)
    async with balanced_nodes(config) as balanced:
        try:
            start = await asyncio.to_thread(STARTS[cell.name], cell, balanced)
        except UnavailableError as error:
            pytest.skip(str(error))
        async with start as client:
            await client.said("subscribed")
            yield balanced, client


def state(number: int) -> dict[str, Any]:
    """Return a value of which little changes from one to the next."""
    return {"text": "é漢😀 a long enough text for a patch to be worth while " * 3, "n": number}


@pytest.mark.parametrize("cell", CELLS, ids=named)
@pytest.mark.parametrize("end", ["killed", "drained"])
async def test_an_sdk_loses_its_node_and_nothing_else(cell: SDK, end: str, tmp_path: Path) -> None:
    async with running(cell, tmp_path) as (balanced, client):
        [connected] = await client.said("connected")
        home = await balanced.home_of(connected["client"])
        [away] = set(balanced.nodes) - {home}

        await client.said("join")
        await client.ask("publish", data=state(0))
        await client.said("publication")
        assert await client.ask("presence") == [connected["client"]]
        assert await client.ask("stats") == {"numClients": 1, "numUsers": 1}
        assert await client.ask("history") == [state(0)]
        assert await client.ask("rpc") == {"question": 1}

        for number in range(1, PUBLISHED):
            if number == PUBLISHED // 3:
                await client.said("publication", number)
                if end == "killed":
                    balanced.nodes[home].send(signal.SIGKILL)
                else:
                    balanced.nodes[home].send(signal.SIGTERM)
            await balanced.call(away, "publish", channel="room:sdk", data=state(number))
        found = await client.said("publication", PUBLISHED)
        assert [each["data"] for each in found] == [state(number) for number in range(PUBLISHED)]
        assert [each["offset"] for each in found] == list(range(1, PUBLISHED + 1))
        again = (await client.said("subscribed", 2))[1:]
        assert all(each["recovered"] and each["wasRecovering"] for each in again)
        assert await balanced.home_of(client.named("connected")[-1]["client"]) == away
        # What comes live on the other node is sent as patches, the first perhaps in full, to who has asked for that.
        for number in (PUBLISHED, PUBLISHED + 1):
            await balanced.call(away, "publish", channel="room:sdk", data=state(number))
        assert (await client.said("publication", PUBLISHED + 2))[-1]["data"] == state(PUBLISHED + 1)
        if end == "drained":
            assert await balanced.nodes[home].ended() == 0
        patches = await balanced.metric(away, "gateway_patches_total")
        assert (patches > 0) is cell.is_patched
