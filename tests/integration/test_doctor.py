"""`gateway doctor` as its users meet it, with real servers of every kind that it should have a word about."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.backends import backend
from tests.support.processes import Finished, run, serving
from tests.support.redis_servers import redis_server
from tests.support.waiting import until

SECRET = "a secret of the tests, 32 bytes or more"
PASSWORD = "hunter2-and-more"
BASE: dict[str, Any] = {
    "client": {"token": {"hmac_secret_key": SECRET}},
    "channel": {"namespaces": [{"name": "chat", "allow_subscribe_for_client": True}]},
    "http_server": {"address": "127.0.0.1", "port": 0, "internal_port": 0},
    "health": {"memory_watermark": 100 * 1048576},
}


async def doctor(folder: Path, table: dict[str, Any] | str, *arguments: str) -> Finished:
    path = folder / "gateway.json"
    path.write_text(table if isinstance(table, str) else json.dumps(table), encoding="utf-8")
    finished = await run("doctor", "--config", str(path), *arguments)
    assert "Traceback" not in finished.out + finished.err
    assert SECRET not in finished.out + finished.err
    assert PASSWORD not in finished.out + finished.err
    return finished


async def findings(folder: Path, table: dict[str, Any], *subjects: str) -> tuple[int, list[tuple[str, str]]]:
    """Return the exit code, and what is said about *subjects*, leaving out what this machine may lack."""
    finished = await doctor(folder, table, "--json")
    told = json.loads(finished.out)
    assert finished.code == {"ok": 0, "warning": 1, "error": 2}[told["verdict"]]
    found = [(each["verdict"], each["text"]) for each in told["findings"] if each["subject"] in subjects]
    return finished.code, found


def on_redis(address: str, **redis: Any) -> dict[str, Any]:
    return BASE | {"broker": {"type": "redis"}, "redis": {"address": address, **redis}}


async def test_a_user_reads_a_line_for_each_check_and_the_code_says_how_bad_it_is(tmp_path: Path) -> None:
    finished = await doctor(tmp_path, BASE)
    lines = finished.out.splitlines()
    assert lines[0] == "ok       configuration  every key is known and has a value that will do"
    assert finished.code == (1 if any(line.startswith("warning") for line in lines) else 0)
    assert (await doctor(tmp_path, BASE | {"client": {"insecure": True}})).code == 2


async def test_a_bad_file_is_told_in_a_line_for_each_fault(tmp_path: Path) -> None:
    finished = await doctor(tmp_path, {"log": {"level": "loud"}, "clients": {}})
    assert finished.code == 2
    assert sum(line.startswith("error    configuration  ") for line in finished.out.splitlines()) == 2
    finished = await doctor(tmp_path, "{")
    assert (finished.code, finished.out.splitlines()[-1]) == (2, "error: 1, warning: 0, ok: 0")


async def test_who_holds_a_port_is_named(tmp_path: Path) -> None:
    async with serving("--dev") as process:
        port = int(process.address.rpartition(":")[2])
        server = {"address": "127.0.0.1", "port": port, "internal_port": 0}
        _, found = await findings(tmp_path, BASE | {"http_server": server}, "ports")
        assert found == [("ok", f"public port {port} is held by a gateway, process {process.pid}")]
    _, found = await findings(tmp_path, BASE | {"http_server": server}, "ports")
    assert found == [("ok", f"public port {port} is free")]


async def test_a_port_of_somebody_elses_is_an_error(tmp_path: Path) -> None:
    async with redis_server() as server:
        table = BASE | {"http_server": {"address": "127.0.0.1", "port": server.port, "internal_port": 0}}
        code, ((word, text),) = await findings(tmp_path, table, "ports")
        assert (code, word) == (2, "error")
        assert f"process {server.pid} (redis-server" in text


async def test_a_gateway_of_another_kind_is_somebody_else(tmp_path: Path) -> None:
    code = "import socket; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True); input()"
    (tmp_path / "payment-gateway.py").write_text(code)
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "payment-gateway.py", cwd=tmp_path, stdin=pipe, stdout=pipe
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        port = int(await process.stdout.readline())
        table = BASE | {"http_server": {"address": "127.0.0.1", "port": port, "internal_port": 0}}
        _, ((word, text),) = await findings(tmp_path, table, "ports")
        assert (word, f"process {process.pid} (" in text) == ("error", True)
    finally:
        process.stdin.write(b"\n")
        await process.communicate()


async def test_a_good_redis(tmp_path: Path) -> None:
    async with redis_server(persistent=True) as server:
        _, found = await findings(tmp_path, on_redis(server.location), "redis", "clock")
        assert {word for word, _ in found} == {"ok"}, found
        assert "lets this node do all it needs" in found[0][1]
        assert found[2] == ("ok", "that of Redis and ours agree within a second")


@pytest.mark.parametrize(
    ("options", "redis", "word", "words"),
    [
        ({"password": PASSWORD}, {}, "error", "redis.password: "),
        ({"password": PASSWORD}, {"password": "wrong"}, "error", "does not let the user 'default' in with it"),
        (
            {"users": ["ann on >s3cret ~other:* &* +@all"]},
            {"user": "ann", "password": "s3cret"},
            "error",
            "redis.user: ",
        ),
        ({}, {"db": 99}, "error", "has no database 99"),
        ({"tls": True}, {}, "error", "redis"),
        ({"config": {"maxmemory": "100mb", "maxmemory-policy": "allkeys-lru"}}, {}, "warning", "evicts when 100 MiB"),
        ({"config": {"client-output-buffer-limit": "pubsub 64kb 32kb 60"}}, {}, "warning", "is cut when 64 KiB wait"),
        ({"config": {"maxclients": "40"}}, {}, "warning", "more clients are let in"),
    ],
)
async def test_each_redis_that_will_not_do_is_told_apart(
    tmp_path: Path, options: dict[str, Any], redis: dict[str, Any], word: str, words: str
) -> None:
    async with redis_server(**options) as server:
        _, found = await findings(tmp_path, on_redis(server.location, timeout="0.5s", **redis), "redis")
        assert [text for each, text in found if each == word and words in text], found


async def test_the_smallest_rights_that_are_recommended_will_do(tmp_path: Path) -> None:
    rule = "ann on >s3cret ~gateway:* &gateway:* +@all -@dangerous +info +role"
    async with redis_server(users=[rule]) as server:
        _, found = await findings(tmp_path, on_redis(server.location, user="ann", password="s3cret"), "redis")
        assert {word for word, _ in found} == {"ok"}, found


async def test_a_replica_is_an_error(tmp_path: Path) -> None:
    async with redis_server() as master, redis_server(config={"replicaof": f"127.0.0.1 {master.port}"}) as replica:
        code, found = await findings(tmp_path, on_redis(replica.location), "redis")
        assert (code, found[0][0]) == (2, "error")


async def test_history_without_persistence_is_a_warning(tmp_path: Path) -> None:
    stream = {"name": "chat", "allow_subscribe_for_client": True, "history_size": 10, "history_ttl": "1m"}
    async with redis_server() as server:
        table = on_redis(server.location) | {"channel": {"namespaces": [stream]}}
        _, found = await findings(tmp_path, table, "redis")
        assert ("warning", "no append-only file, and there are namespaces with history") in found


async def test_a_redis_that_is_not_there_or_does_not_answer_is_an_error(tmp_path: Path) -> None:
    async with redis_server() as server:
        table = on_redis(server.location, timeout="0.3s", connect_timeout="0.3s")
        server.freeze()
        frozen = await findings(tmp_path, table, "redis")
        server.kill()
        gone = await findings(tmp_path, table, "redis")
    for code, ((word, text),) in (frozen, gone):
        assert (code, word) == (2, "error")
        assert server.location in text


@pytest.mark.skipif(not Path("/proc").exists(), reason="reads /proc")
async def test_a_low_limit_of_open_files_is_told(tmp_path: Path) -> None:
    client = {"connection_limit": 900, "token": {"hmac_secret_key": SECRET}}
    path = tmp_path / "gateway.json"
    path.write_text(json.dumps(BASE | {"client": client}), encoding="utf-8")
    command = f"ulimit -n 512; exec {sys.executable} -m gateway doctor --config {path}"
    process = await asyncio.create_subprocess_exec("sh", "-c", command, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    assert "error    descriptors    512 open files are fewer than client.connection_limit = 900 needs" in out.decode()
    assert process.returncode == 2


async def test_backends_are_connected_to_and_asked_nothing(tmp_path: Path) -> None:
    async with backend() as server:
        proxies = {"rpc": {"without_namespace": {"proxy_enabled": True}, "proxy": {"endpoint": server.url("/x?key=1")}}}
        _, found = await findings(tmp_path, BASE | proxies, "proxies")
        assert found == [("ok", f"{server.url('/x')}: somebody listens there")]
        await until(lambda: server.connections == 1)
        await server.stop()
        code, found = await findings(tmp_path, BASE | proxies, "proxies")
        assert (code, [verdict for verdict, _ in found]) == (2, ["error"])
        assert found[0][1].startswith(f"{server.url('/x')}: ")
        assert server.asked == []
