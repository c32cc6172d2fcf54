"""The engine as a whole: what it finds at its first look, and how it comes up and goes down."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme

from gateway.broker.contract import BrokerError, EngineError
from gateway.broker.redis.engine import RedisEngine
from gateway.broker.redis.settings import RedisSettings
from tests.support.redis_engines import QUICK, Received, Reports, publication, running_engine
from tests.support.redis_servers import RedisServer, redis_server
from tests.support.waiting import until

SECRET = "s3cret"
ALL_NEEDED = "~gateway:* &gateway:* +@all -@dangerous +info +role"


def settings_for(location: str, **values: Any) -> RedisSettings:
    return RedisSettings.model_validate({"address": location} | QUICK | values)


async def works(engine: RedisEngine) -> None:
    """Publish and receive once."""
    received = Received()
    engine.broker.start(received)
    await engine.broker.subscribe("a").wait()
    await engine.broker.publish("a", publication(b"1"), accepted_at_s=0.0).wait()
    await until(lambda: received.publications == [("a", b"1")])


# How long it may stand still.


@pytest.mark.parametrize("waits", [{"watchdog_interval": "60s"}, {"reconnect_max_delay": "60s"}])
def test_links_that_wait_as_long_as_they_are_told_to_are_not_taken_for_dead(waits: dict[str, str]) -> None:
    engine = RedisEngine(RedisSettings.model_validate(waits), node_id="n1")
    assert engine.slowest_turn_s == 60.0 + 1.0 + 2 * 2.0


# What can be worked with.


@pytest.mark.parametrize(
    ("server", "values"),
    [
        ({}, {"db": 15}),
        ({"password": SECRET}, {"password": SECRET}),
        ({"users": [f"ann on >{SECRET} {ALL_NEEDED}"]}, {"user": "ann", "password": SECRET}),
        # No INFO and no ROLE, which it can do without.
        (
            {"users": [f"ann on >{SECRET} {ALL_NEEDED} -info -role"]},
            {"user": "ann", "password": SECRET},
        ),
        ({"config": {"maxmemory": "1mb", "maxmemory-policy": "noeviction"}}, {}),
    ],
    ids=["database", "password", "user", "user with few rights", "no memory left"],
)
async def test_a_server_that_will_do_is_used(server: dict[str, Any], values: dict[str, Any]) -> None:
    async with redis_server(**server) as redis, running_engine(settings_for(redis.location, **values)) as engine:
        await works(engine)
        assert engine.trouble is None


async def test_tls_is_spoken_and_the_certificate_checked() -> None:
    async with redis_server(tls=True, password=SECRET) as server:
        ca_file = str(server.ca_file)
        for address, tls in (
            (f"rediss://:{SECRET}@{server.location}", {"server_ca_pem_file": ca_file}),
            (f"rediss://:{SECRET}@{server.location}", {"server_ca_pem_file": ca_file, "server_name": "localhost"}),
            (f"rediss://:{SECRET}@{server.location}", {"insecure_skip_verify": True}),
        ):
            async with running_engine(settings_for(address, tls=tls)) as engine:
                await works(engine)


async def test_a_server_that_wants_a_certificate_gets_one(tmp_path: Path) -> None:
    authority = trustme.CA()
    own = authority.issue_cert("node.example")
    authority.cert_pem.write_to_path(str(tmp_path / "clients.pem"))
    own.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    own.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    wants = {"tls-auth-clients": "yes", "tls-ca-cert-file": str(tmp_path / "clients.pem")}
    files = {"cert_pem_file": str(tmp_path / "cert.pem"), "key_pem_file": str(tmp_path / "key.pem")}
    async with redis_server(tls=True, config=wants) as server:
        tls = {"enabled": True, "server_ca_pem_file": str(server.ca_file), **files}
        async with running_engine(settings_for(server.location, tls=tls)) as engine:
            await works(engine)


async def test_a_unix_socket_is_as_good(tmp_path: Path) -> None:
    path = tmp_path / "redis.sock"
    config = {"unixsocket": str(path)}
    async with redis_server(config=config), running_engine(settings_for(f"unix:{path}", db=2)) as engine:
        await works(engine)


# What its operator has to mend.


@pytest.mark.parametrize(
    ("server", "values", "line"),
    [
        ({"password": SECRET}, {}, "redis.password: redis {at} asks for one, and none is given"),
        (
            {"password": "other"},
            {"password": SECRET},
            "redis.password: redis {at} does not let the user 'default' in with it; give the right one",
        ),
        (
            {},
            {"user": "ann", "password": SECRET},
            "redis.password: redis {at} does not let the user 'ann' in with it; give the right one",
        ),
        (
            {},
            {"password": SECRET},
            "redis.password: redis {at} has none for the user 'default'; take it out here or set it there",
        ),
        ({}, {"db": 16}, "redis.db: redis {at} has no database 16; give a lower number"),
        (
            {"users": [f"ann on >{SECRET} ~other:* &gateway:* +@all"]},
            {"user": "ann", "password": SECRET},
            "redis.user: redis {at} does not allow the user 'ann' all it needs (~gateway:* &gateway:* ",
        ),
        (
            {"users": [f"ann on >{SECRET} ~gateway:* +@all resetchannels"]},
            {"user": "ann", "password": SECRET},
            "redis.user: redis {at} does not allow the user 'ann' all it needs (~gateway:* &gateway:* ",
        ),
        (
            {"users": [f"ann on >{SECRET} ~* &* +@all -subscribe"]},
            {"user": "ann", "password": SECRET},
            "redis.user: redis {at} does not allow the user 'ann' all it needs (~gateway:* &gateway:* ",
        ),
        (
            {"users": [f"ann on >{SECRET} ~* &* +@all -xadd"]},
            {"user": "ann", "password": SECRET},
            "redis.user: redis {at} does not allow the user 'ann' all it needs (~gateway:* &gateway:* ",
        ),
        (
            {"config": {"cluster-enabled": "yes"}},
            {},
            "redis.address: redis {at} runs in cluster mode; give the address of a single server",
        ),
        (
            {"tls": True},
            {"tls": {"enabled": True}},
            "redis.tls: redis {at}: its certificate is not accepted: self-signed certificate in certificate chain",
        ),
    ],
)
async def test_a_fault_of_the_configuration_is_told_in_one_line_with_its_key(
    server: dict[str, Any], values: dict[str, Any], line: str
) -> None:
    async with redis_server(**server) as redis:
        engine = RedisEngine(settings_for(redis.location, **values), node_id="node")
        with pytest.raises(EngineError) as raised:
            await engine.run()
        assert str(raised.value).startswith(line.format(at=redis.location)), str(raised.value)
        assert "\n" not in str(raised.value)
        assert SECRET not in str(raised.value)
        await engine.stop()


@pytest.mark.parametrize(
    ("answers", "line"),
    [
        ([b"HTTP/1.1 400 Bad Request\r\n\r\n"], "answers, but does not speak the Redis protocol; check host and port"),
        (
            [b"+OK\r\n", b"$27\r\nredis_version:6.0.16\r\nx:y\r\n\r\n"],
            "is Redis 6.0.16; 6.2 is the oldest that will do",
        ),
        (
            [b"+OK\r\n", b"$19\r\nredis_mode:sentinel\r\n"],
            "is a Sentinel; give the address of the server it watches",
        ),
    ],
)
async def test_a_server_of_another_kind_is_told_apart(answers: list[bytes], line: str) -> None:
    async with asyncio.timeout(5), answering(*answers) as location:
        engine = RedisEngine(settings_for(location), node_id="node")
        with pytest.raises(EngineError) as raised:
            await engine.run()
        assert str(raised.value) == f"redis.address: redis {location} {line}"
        await engine.stop()


@pytest.mark.parametrize(
    ("key", "name"),
    [("server_ca_pem_file", "missing.pem"), ("cert_pem_file", "missing.pem"), ("server_ca_pem_file", "")],
)
def test_a_file_that_can_not_be_used_is_told_at_once(tmp_path: Path, key: str, name: str) -> None:
    empty = tmp_path / "empty.pem"
    empty.write_text("nothing")
    file = str(tmp_path / name) if name else str(empty)
    tls = {"enabled": True, key: file} | ({"key_pem_file": str(empty)} if key == "cert_pem_file" else {})
    with pytest.raises(EngineError, match=rf"^redis.tls.{key}: .*{Path(file).name}"):
        RedisEngine(settings_for("h:1", tls=tls), node_id="node")


def test_a_certificate_without_its_key_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "a.pem").write_text("nothing")
    files = {"cert_pem_file": str(tmp_path / "a.pem"), "key_pem_file": str(tmp_path / "a.pem")}
    with pytest.raises(EngineError, match=r"^redis.tls.cert_pem_file: .* no certificate and its key"):
        RedisEngine(settings_for("h:1", tls={"enabled": True, **files}), node_id="node")


# What passes by itself.


async def test_a_server_that_is_not_there_yet_is_waited_for() -> None:
    async with redis_server() as server:
        server.kill()
        reports = Reports()
        async with running_engine(settings_for(server.location), is_awaited=False, report=reports) as engine:
            await until(lambda: engine.trouble == f"redis {server.location}: connection refused", str(engine.trouble))
            engine.broker.start(Received())
            publishing = engine.broker.publish("a", publication(b"1"), accepted_at_s=0.0)
            assert isinstance(publishing.error, BrokerError)
            await asyncio.to_thread(server.restart, keep_data=False)
            await until(lambda: engine.trouble is None, str(engine.trouble))
            await works(engine)
        assert reports.of("redis link lost")[0] == {
            "link": "probe",
            "reason": f"redis {server.location}: connection refused",
        }


async def test_a_fault_of_the_configuration_that_shows_only_later_still_ends_it() -> None:
    async with redis_server(password="other") as server:
        server.kill()
        engine = RedisEngine(settings_for(server.location, password=SECRET), node_id="node")
        running = asyncio.create_task(engine.run())
        await until(lambda: "refused" in str(engine.trouble))
        await asyncio.to_thread(server.restart, keep_data=False)
        with pytest.raises(EngineError, match=r"^redis\.password"):
            await running


async def test_after_it_has_worked_a_wrong_password_is_trouble_and_no_end() -> None:
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(redis_server(password=SECRET))
        engine = await stack.enter_async_context(running_engine(settings_for(server.location, password=SECRET)))
        await works(engine)
        async with server.client() as client:
            await client.config_set("requirepass", "other")
            for kind in ("pubsub", "normal"):
                await client.execute_command("CLIENT", "KILL", "TYPE", kind)  # type: ignore[no-untyped-call]
        server.password = "other"
        await until(lambda: "WRONGPASS" in str(engine.trouble), str(engine.trouble))
        assert SECRET not in str(engine.trouble)
        await server.execute("CONFIG", "SET", "requirepass", SECRET)
        server.password = SECRET
        await until(lambda: engine.trouble is None, str(engine.trouble))
        await engine.broker.publish("a", publication(b"1"), accepted_at_s=0.0).wait()


async def test_a_server_that_does_not_speak_tls_is_asked_for_it_again(shared_redis: RedisServer) -> None:
    settings = settings_for(shared_redis.location, tls={"enabled": True}, connect_timeout_s=0.05)
    async with running_engine(settings, is_awaited=False) as engine:
        await until(lambda: str(engine.trouble).endswith("no answer in time; does it speak TLS there?"))


async def test_a_server_that_still_loads_its_data_is_waited_for() -> None:
    # While it loads it answers once a kilobyte, here every 40 ms.
    config = {"key-load-delay": "20000", "loading-process-events-interval-bytes": "1024", "rdbcompression": "no"}
    async with redis_server(config=config) as server:
        async with server.client() as client:
            for number in range(100):
                await client.set(f"key {number}", "x" * 1000)
            await client.save()
        server.kill()
        await asyncio.to_thread(server.restart, keep_data=True, is_awaited=False)
        async with running_engine(settings_for(server.location), is_awaited=False) as engine:
            await until(lambda: "loading" in str(engine.trouble), str(engine.trouble))
            await server.execute("CONFIG", "SET", "key-load-delay", "0")
            await until(lambda: engine.trouble is None, str(engine.trouble))
            await works(engine)


async def test_a_replica_is_waited_for_until_it_is_the_master(shared_redis: RedisServer) -> None:
    async with redis_server() as server:
        await server.execute("REPLICAOF", *shared_redis.address)
        async with running_engine(settings_for(server.location), is_awaited=False) as engine:
            await until(lambda: "read only replica" in str(engine.trouble), str(engine.trouble))
            await server.execute("REPLICAOF", "NO", "ONE")
            await until(lambda: engine.trouble is None, str(engine.trouble))
            await works(engine)


@pytest.mark.parametrize("is_cancelled", [False, True])
@pytest.mark.parametrize("phase", ["before it ran", "unanswered", "refused", "up"])
async def test_it_ends_from_everywhere(shared_redis: RedisServer, phase: str, *, is_cancelled: bool) -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        closed = f"127.0.0.1:{free_port()}"
        locations = {"unanswered": f"127.0.0.1:{deaf.getsockname()[1]}", "refused": closed}
        location = locations.get(phase, shared_redis.location)
        engine = RedisEngine(settings_for(location, connect_timeout_s=10, timeout_s=10), node_id="node")
        running = asyncio.create_task(engine.run())
        if phase == "up":
            await until(lambda: engine.trouble is None)
        elif phase != "before it ran":
            await until(lambda: "refused" in str(engine.trouble) or phase == "unanswered")
            await asyncio.sleep(0)
        async with asyncio.timeout(5):
            if is_cancelled:
                running.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await running
                await engine.stop()
            else:
                await engine.stop()
                await running
            await engine.stop()
    outcome = engine.broker.subscribe("a")
    assert str(outcome.error) == "the broker is not running"
    assert [task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith("redis")] == []


@asynccontextmanager
async def answering(*answers: bytes) -> AsyncIterator[str]:
    """Serve each of *answers* to whoever says something once more."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in answers:
            await reader.read(1000)
            writer.write(answer)
        await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        host, port = server.sockets[0].getsockname()
        yield f"{host}:{port}"
    finally:
        server.close()
        await server.wait_closed()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
