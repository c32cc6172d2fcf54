"""`gateway publish` and `gateway subscribe` as a shell uses them."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.support.nodes import RunningNode, running_node
from tests.support.processes import GATEWAY, run

STREAMS = {
    "channel": {
        "namespaces": [
            {
                "name": "st",
                "allow_subscribe_for_client": True,
                "allow_subscribe_for_anonymous": True,
                "allow_publish_for_client": True,
                "allow_publish_for_anonymous": True,
                "allow_recovery": True,
                "history_size": 100,
                "history_ttl": "1h",
                "force_recovery": True,
            }
        ]
    }
}
DEADLINE_S = 30


@asynccontextmanager
async def subscriber(node: RunningNode, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run `gateway subscribe` until it has been confirmed, and end it with the block."""
    process = await asyncio.create_subprocess_exec(
        *GATEWAY,
        "subscribe",
        *arguments,
        "--url",
        node.client_url,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stderr is not None
        async with asyncio.timeout(DEADLINE_S):
            line = await process.stderr.readline()
        assert line.startswith(b"subscribed to "), line
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def piped(node: RunningNode, channel: str, text: str, *arguments: str) -> tuple[int | None, str]:
    """Pipe *text* into `gateway publish CHANNEL -`; returns its exit code and what it complained about."""
    process = await asyncio.create_subprocess_exec(
        *GATEWAY,
        "publish",
        channel,
        "-",
        *arguments,
        "--url",
        node.client_url,
        stdin=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(DEADLINE_S):
        _, said = await process.communicate(text.encode())
    return process.returncode, said.decode()


async def test_what_is_published_is_printed_line_by_line_and_count_ends_it() -> None:
    async with running_node(STREAMS) as node, subscriber(node, "st:1", "--count", "3") as process:
        assert (await run("publish", "st:1", '{"n": 1.0}', "--url", node.client_url)).code == 0
        assert await piped(node, "st:1", '[2]\n\n"three"\n') == (0, "")
        out, _ = await process.communicate()
        assert (process.returncode, out) == (0, b'{"n": 1.0}\n[2]\n"three"\n')


async def test_json_tells_all_of_it_and_since_goes_on_from_there() -> None:
    async with running_node(STREAMS) as node:
        assert await piped(node, "st:1", "1\n2\n3\n") == (0, "")
        async with subscriber(node, "st:1", "--json", "--since", "1", "--count", "2") as process:
            out, _ = await process.communicate()
        lines = [json.loads(line) for line in out.splitlines()]
        epoch = lines[0]["epoch"]
        assert [(each["channel"], each["data"], each["offset"], each["epoch"]) for each in lines] == [
            ("st:1", 2, 2, epoch),
            ("st:1", 3, 3, epoch),
        ]
        async with subscriber(node, "st:1", "--since", f"2:{epoch}", "--count", "1") as process:
            assert (await process.communicate())[0] == b"3\n"


async def test_lines_that_are_no_json_are_named_and_the_others_published() -> None:
    async with running_node(STREAMS) as node, subscriber(node, "st:1", "st:2", "--count", "3") as process:
        code, said = await piped(node, "st:1", "1\nnonsense\n2\n")
        assert (code, said.startswith("line 2: 'nonsense' is no JSON")) == (1, True)
        assert await piped(node, "st:2", "plain text\n", "--text") == (0, "")
        assert (await process.communicate())[0] == b'st:1\t1\nst:1\t2\nst:2\t"plain text"\n'


async def test_a_reader_that_goes_ends_it_quietly() -> None:
    async with running_node(STREAMS) as node:
        command = f"{' '.join(GATEWAY)} subscribe st:1 --since 0 --url {node.client_url} | head -n 1"
        assert await piped(node, "st:1", "1\n2\n3\n") == (0, "")
        process = await asyncio.create_subprocess_shell(
            command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        async with asyncio.timeout(DEADLINE_S):
            while process.returncode is None:
                # It notices at the next line that it writes.
                await piped(node, "st:1", "4\n")
                await asyncio.wait([asyncio.ensure_future(process.wait())], timeout=0.1)
            out, said = await process.communicate()
        assert (process.returncode, out) == (0, b"1\n")
        assert b"Traceback" not in said


async def test_a_signal_is_the_usual_end() -> None:
    async with running_node(STREAMS) as node, subscriber(node, "st:1") as process:
        process.send_signal(signal.SIGINT)
        out, said = await process.communicate()
        assert (process.returncode, out, said) == (0, b"", b"")


REFUSED = [
    (("publish", "st:1", "hello"), 2, "'hello' is no JSON"),
    (("publish", "nope:x", "1"), 1, "configure the channel's namespace"),
    (("subscribe", "nope:x"), 1, "nope:x: unknown channel"),
    (("subscribe", "st:1", "--count", "0"), 2, "--count 0: one or more"),
    (("subscribe", "st:1", "--since", "yesterday"), 2, "an offset, or offset:epoch"),
    (("publish", "st:1", "1", "--token", "a.b.c"), 1, "give a token that the server's keys have signed"),
]


@pytest.mark.parametrize(("arguments", "code", "says"), REFUSED, ids=[" ".join(row[0]) for row in REFUSED])
async def test_what_can_not_be_done_is_said_in_a_line(arguments: tuple[str, ...], code: int, says: str) -> None:
    async with running_node(STREAMS) as node:
        finished = await run(*arguments, environment={"GATEWAY_URL": node.client_url})
        assert (finished.code, finished.out) == (code, "")
        assert says in finished.err
        assert "Traceback" not in finished.err


async def test_a_server_that_is_not_there_is_said_after_a_few_attempts() -> None:
    finished = await run("publish", "a", "1", "--url", "ws://127.0.0.1:1/connection/websocket")
    assert finished.code == 1
    assert "see whether the server runs and can be reached" in finished.err
