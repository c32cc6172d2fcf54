"""SIGHUP: a node reads its configuration again, and nobody is disconnected for it."""

import asyncio
import json
import signal
import ssl
from pathlib import Path
from typing import Any, Final

import httpx
import jwt
import pytest
import trustme
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from gateway.config import Config, load
from gateway.configdoc import as_toml
from gateway.settings import Settings
from tests.support.nodes import SECRET, RunningNode, running_node
from tests.support.processes import ServingProcess, serving
from tests.support.processes import ask as ask_over_http
from tests.support.redis_servers import redis_server
from tests.support.waiting import until

ROOM: Final[dict[str, Any]] = {
    "name": "room",
    "allow_subscribe_for_client": True,
    "allow_publish_for_client": True,
    "history_size": 1000,
    "history_ttl": "1m",
    "force_recovery": True,
}
BASE: Final[dict[str, Any]] = {
    "client": {"token": {"hmac_secret_key": SECRET}, "command_rate": 0},
    "channel": {"namespaces": [ROOM]},
    "http_server": {"address": "127.0.0.1"},
    "log": {"format": "json", "repeat_limit": 0},
}


class Reloading:
    """A node that runs by a file, and the file."""

    def __init__(self, process: ServingProcess, path: Path) -> None:
        self.process = process
        self._path = path
        self._seen = 0

    async def reload(self, tables: dict[str, Any] | str, *, lines_expected: int = 1) -> list[dict[str, Any]]:
        """Write the file, send SIGHUP and return what is logged about it, as soon as that many lines are there."""
        write(self._path, tables)
        self.process.send(signal.SIGHUP)
        await until(lambda: len(self._lines()) >= self._seen + lines_expected)
        lines, self._seen = self._lines()[self._seen :], len(self._lines())
        return [{name: each[name] for name in ("event", "changed", "keys", "fault") if name in each} for each in lines]

    def _lines(self) -> list[dict[str, Any]]:
        return [
            each for each in self.process.events if each["event"] in {"reloaded", "needs a restart", "not reloaded"}
        ]


def write(path: Path, tables: dict[str, Any] | str) -> None:
    path.write_text(tables if isinstance(tables, str) else json.dumps(tables), encoding="utf-8")


def token(user: str = "42", secret: str = SECRET) -> str:
    return jwt.encode({"sub": user}, secret, algorithm="HS256")


async def ask(client: ClientConnection, command: dict[str, Any]) -> dict[str, Any]:
    await client.send(json.dumps(command))
    reply: dict[str, Any] = json.loads(await client.recv())
    return reply


async def subscriber(url: str, channel: str = "room:a", tls: ssl.SSLContext | None = None) -> ClientConnection:
    client = await connect(url, compression=None, ssl=tls)
    assert "connect" in await ask(client, {"id": 1, "connect": {"token": token()}})
    assert "subscribe" in await ask(client, {"id": 2, "subscribe": {"channel": channel}})
    return client


async def collected(client: ClientConnection, count: int) -> list[Any]:
    """Return the data of the next *count* publications."""
    found: list[Any] = []
    while len(found) < count:
        for line in str(await client.recv()).splitlines():
            message = json.loads(line)
            if message:  # else it is a ping
                assert "pub" in message.get("push", {}), message
                found.append(message["push"]["pub"]["data"])
    return found


async def test_a_reload_under_load_disconnects_nobody_and_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "gateway.json"
    write(path, BASE)
    async with serving("--config", str(path)) as process:
        node, url = Reloading(process, path), f"ws://{process.address}/connection/websocket"
        clients = [await subscriber(url) for _ in range(20)]
        publisher = await subscriber(url, "room:other")
        reading = [asyncio.create_task(collected(client, 600)) for client in clients]

        async def publish() -> None:
            for number in range(600):
                reply = await ask(publisher, {"id": 3 + number, "publish": {"channel": "room:a", "data": number}})
                assert "error" not in reply, reply

        publishing = asyncio.create_task(publish())
        reloads = 0
        while not publishing.done() or reloads < 4:
            size = 500 + reloads % 2
            tables = BASE | {"channel": {"namespaces": [ROOM | {"history_size": size, "presence": size == 500}]}}
            lines = await node.reload(tables)
            keys = [f"channel.namespaces[room].{name}" for name in ("history_size", "presence")]
            assert [each["event"] for each in lines] == ["reloaded"]
            assert set(lines[0]["changed"]) <= set(keys)
            reloads += 1
        await publishing
        assert await asyncio.gather(*reading) == [list(range(600))] * 20
        assert [each for each in process.events if each["event"] == "closed"] == []
        for client in (*clients, publisher):
            await client.close()


@pytest.mark.parametrize(
    ("file", "faults"),
    [
        ('{"client": {', ["Expecting property name enclosed in double quotes"]),
        (BASE | {"log": {"level": "loud"}}, ["log.level = 'loud': must be one of 'debug'"]),
        (
            BASE | {"client": {"commandrate": 1, "token": {"hmac_secret_key": 5}}},
            ["client.commandrate: there is no such key; did you mean command_rate?", "client.token.hmac_secret_key = "],
        ),
        (BASE | {"channel": {"namespaces": [ROOM, ROOM]}}, ["room is defined more than once"]),
    ],
)
async def test_a_bad_file_changes_nothing_and_is_told_in_a_line_for_each_fault(
    file: dict[str, Any] | str, faults: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "gateway.json"
    write(path, BASE)
    async with serving("--config", str(path)) as process:
        node = Reloading(process, path)
        client = await subscriber(f"ws://{process.address}/connection/websocket")
        lines = await node.reload(file, lines_expected=len(faults))
        assert [each["event"] for each in lines] == ["not reloaded"] * len(faults)
        for line, words in zip(sorted(lines, key=str), faults, strict=True):
            assert words in line["fault"]
        assert "error" not in await ask(client, {"id": 5, "rpc": {"method": "ping"}})
        # … and what is mended is taken.
        good = BASE | {"log": {"format": "json", "repeat_limit": 0, "level": "debug"}}
        assert await node.reload(good) == [{"event": "reloaded", "changed": ["log.level"]}]
        await client.close()


async def test_a_file_that_is_gone_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "gateway.json"
    write(path, BASE)
    async with serving("--config", str(path)) as process:
        path.unlink()
        process.send(signal.SIGHUP)
        assert (await process.logged("not reloaded"))["fault"] == f"{path}: No such file or directory"


async def test_what_needs_a_restart_is_named_in_one_line_and_no_value_is_shown(tmp_path: Path) -> None:
    path = tmp_path / "gateway.json"
    write(path, BASE)
    async with serving("--config", str(path)) as process:
        node = Reloading(process, path)
        secret = "the next secret, which nobody must read in a log"
        tables = BASE | {
            "client": {"token": {"hmac_secret_key": secret}, "command_rate": 0},
            "redis": {"prefix": "hunter2"},
            "http_server": {"address": "127.0.0.1", "backlog": 7},
        }
        expected = [
            {"event": "needs a restart", "keys": ["http_server.backlog", "redis.prefix"]},
            {"event": "reloaded", "changed": ["client.token.hmac_secret_key"]},
        ]
        assert await node.reload(tables, lines_expected=2) == expected
        # What is running has not changed there, so it is said again.
        assert await node.reload(tables, lines_expected=2) == [expected[0], {"event": "reloaded", "changed": []}]
        assert not any(text in "\n".join(process.lines) for text in (secret, SECRET, "hunter2"))


async def test_a_new_password_of_redis_cuts_no_link_and_is_used_by_the_next_connection(tmp_path: Path) -> None:
    path, secret = tmp_path / "gateway.json", tmp_path / "password"
    secret.write_text("old")
    tables = BASE | {"broker": {"type": "redis"}, "http_api": {"key": "key of this test"}}
    write(path, tables)
    async with redis_server(password="old") as server, server.client() as admin:
        environment = {"GATEWAY_REDIS__ADDRESS": server.location, "GATEWAY_REDIS__PASSWORD_FILE": str(secret)}
        async with serving("--config", str(path), environment=environment) as process:
            node = Reloading(process, path)

            async def command(*words: str) -> None:
                await admin.execute_command(*words)  # type: ignore[no-untyped-call]

            async def reload(password: str) -> None:
                secret.write_text(password)
                [line] = await node.reload(tables)
                assert line == {"event": "reloaded", "changed": ["redis.password"]}

            def heard(event: str) -> list[dict[str, Any]]:
                return [each for each in process.events if each["event"] == event]

            async with asyncio.timeout(20):
                while (await ask_over_http(f"{process.internal_url}/readyz")).status != 200:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            # One that the server does not know is told at once, although no connection needs it yet.
            await reload("mistaken")
            await until(lambda: len(heard("redis login refused")) == 1)
            assert "redis.password" in heard("redis login refused")[0]["reason"]
            await command("ACL", "SETUSER", "default", ">new")
            await reload("new")
            await command("ACL", "SETUSER", "default", "<old")
            assert heard("redis link lost") == []
            await command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            await command("CLIENT", "KILL", "TYPE", "pubsub")
            await until(lambda: {each["link"] for each in heard("redis link restored")} == {"publish", "subscribe"})
            # The third connection, to read, is made anew when it is needed.
            async with httpx.AsyncClient(headers={"X-API-Key": "key of this test"}) as http:
                answer = await http.post(f"{process.internal_url}/api/history", json={"channel": "room:1"})
            assert "result" in answer.json()
            assert [each["link"] for each in heard("redis link lost")] in (
                ["publish", "subscribe"],
                ["subscribe", "publish"],
            )
            assert len(heard("redis login refused")) == 1
            assert "mistaken" not in "\n".join(process.lines)
            assert [each for each in process.events if "source" in each] == [], "a library complains"


async def test_flags_and_the_environment_win_over_the_file_again(tmp_path: Path) -> None:
    path = tmp_path / "gateway.json"
    write(path, BASE)
    environment = {"GATEWAY_LOG__LEVEL": "info"}
    async with serving("--config", str(path), environment=environment) as process:
        node = Reloading(process, path)
        tables = BASE | {
            "log": {"format": "json", "repeat_limit": 0, "level": "error"},
            "http_server": {"address": "127.0.0.1", "port": 9},
        }
        assert await node.reload(tables) == [{"event": "reloaded", "changed": []}]


@pytest.mark.skipif(signal.getsignal(signal.SIGHUP) is signal.SIG_IGN, reason="run under nohup, which children inherit")
async def test_without_a_file_a_terminal_that_is_closed_ends_the_node() -> None:
    async with serving("--dev") as process:
        process.send(signal.SIGHUP)
        assert await process.ended() == -signal.SIGHUP


async def test_a_renewed_certificate_is_shown_to_who_comes_and_nobody_is_cut(tmp_path: Path) -> None:
    authority = trustme.CA()
    tls = ssl.create_default_context()
    authority.configure_trust(tls)
    certificate, key = tmp_path / "server.pem", tmp_path / "server.key"

    def renew() -> None:
        issued = authority.issue_cert("127.0.0.1")
        issued.cert_chain_pems[0].write_to_path(str(certificate))
        issued.private_key_pem.write_to_path(str(key))

    def serial_of(client: ClientConnection) -> str:
        return str(client.transport.get_extra_info("ssl_object").getpeercert()["serialNumber"])

    renew()
    files = {"enabled": True, "cert_pem_file": str(certificate), "key_pem_file": str(key)}
    tables = BASE | {"http_server": {"address": "127.0.0.1", "tls": files}}
    path = tmp_path / "gateway.json"
    write(path, tables)
    async with serving("--config", str(path)) as process:
        node, url = Reloading(process, path), f"wss://{process.address}/connection/websocket"
        old = [await subscriber(url, tls=tls) for _ in range(5)]
        publisher = await subscriber(url, "room:other", tls=tls)
        reading = [asyncio.create_task(collected(client, 200)) for client in old]

        async def publish() -> None:
            for number in range(200):
                await ask(publisher, {"id": 3 + number, "publish": {"channel": "room:a", "data": number}})

        publishing = asyncio.create_task(publish())
        seen = [serial_of(old[0])]
        for _ in range(3):
            renew()
            renewed = [f"http_server.tls.{name}_pem_file" for name in ("cert", "key")]
            assert await node.reload(tables) == [{"event": "reloaded", "changed": renewed}]
            newcomer = await subscriber(url, "room:other", tls=tls)
            seen.append(serial_of(newcomer))
            await newcomer.close()
        assert len(set(seen)) == 4
        assert await node.reload(tables) == [{"event": "reloaded", "changed": []}]
        key.write_text("half of a k", encoding="utf-8")
        (line,) = await node.reload(tables)
        assert line["fault"].startswith(f"http_server.tls: {certificate} and {key} are no certificate and its key")
        newcomer = await subscriber(url, "room:other", tls=tls)
        assert serial_of(newcomer) == seen[-1]
        await publishing
        assert await asyncio.gather(*reading) == [list(range(200))] * 5
        for client in (newcomer, publisher, *old):
            await client.close()


# Each kind of setting that can change, seen to work on a node in this process.


def changed(node: RunningNode, flags: dict[str, Any]) -> None:
    """Reload *node* with some keys changed."""
    running = load(base=json.loads(node.node.config.model_dump_json(by_alias=True)), flags=flags)
    planned = node.node.reload(running)
    assert planned.needs_restart == []
    assert len(planned.changed) == len(flags)


async def test_origins_change_for_who_comes() -> None:
    async with running_node({"client": {"allowed_origins": ["https://a.example"]}}) as node:
        await (await connect(node.client_url, origin="https://a.example")).close()  # type: ignore[arg-type]  # a text does
        changed(node, {"client.allowed_origins": ["https://b.example"]})
        with pytest.raises(InvalidStatus):
            await connect(node.client_url, origin="https://a.example")  # type: ignore[arg-type]
        await (await connect(node.client_url, origin="https://b.example")).close()  # type: ignore[arg-type]


async def test_limits_change_for_who_comes_and_never_for_who_is_there() -> None:
    async with running_node() as node:
        kept = await subscriber(node.client_url, "lobby:a")
        changed(
            node,
            {"client.connection_limit": 1, "client.channel_limit": 1, "websocket.message_size_limit": 100},
        )
        with pytest.raises(InvalidStatus):
            await connect(node.client_url)
        long = "x" * 200
        assert "subscribe" in await ask(kept, {"id": 5, "subscribe": {"channel": "lobby:b"}})
        await kept.send(json.dumps({"id": 6, "publish": {"channel": "lobby:c", "data": long}}))
        assert json.loads(await kept.recv()) == {"id": 6, "publish": {}}
        changed(node, {"client.connection_limit": 0})
        late = await connect(node.client_url, compression=None)
        assert "connect" in await ask(late, {"id": 1, "connect": {}})
        assert "subscribe" in await ask(late, {"id": 2, "subscribe": {"channel": "lobby:a"}})
        assert (await ask(late, {"id": 3, "subscribe": {"channel": "lobby:b"}}))["error"]["code"] == 106
        with pytest.raises(ConnectionClosed, match="1009"):
            await ask(late, {"id": 4, "publish": {"channel": "lobby:c", "data": long}})
        await kept.close()


async def test_the_log_level_changes() -> None:
    async with running_node() as node:
        changed(node, {"log.level": "error"})
        await (await subscriber(node.client_url, "lobby:a")).close()
        changed(node, {"log.level": "debug"})
        await (await subscriber(node.client_url, "lobby:a")).close()
        await until(lambda: node.events[-1]["event"] == "closed")
        events = [each["event"] for each in node.events]
        assert events.count("accepted") == 1


async def test_key_sets_change() -> None:
    async with running_node() as node:
        assert node.node.services.connection_tokens is node.node.services.subscription_tokens
        changed(
            node,
            {"client.subscription_token.enabled": True, "client.token.jwks_public_endpoint": "http://127.0.0.1:9/"},
        )
        assert node.node.services.connection_tokens is not node.node.services.subscription_tokens
        client = await connect(node.client_url, compression=None)
        foreign = jwt.encode({"sub": "42"}, SECRET[::-1], algorithm="HS256")
        await client.send(json.dumps({"id": 1, "connect": {"token": foreign}}))
        with pytest.raises(ConnectionClosed, match="3500"):
            await client.recv()


async def test_the_channel_of_plain_clients_without_one_changes() -> None:
    async with running_node() as node:
        changed(node, {"plain.default_channel": "echo:here"})
        async with connect(f"{node.ws_url}/ws", compression=None) as client:
            await client.send('"hello"')
            assert await client.recv() == '"hello"'


async def test_every_key_that_is_said_to_change_is_a_key() -> None:
    async with running_node() as node:
        known = {f"{name}." for name, _ in tables_of(Config)} | {key for _, keys in tables_of(Config) for key in keys}
        named = {key for part in node.node.live_parts for key in part.keys}
        assert named == {key for key in named if key in known or f"{key}." in known}


def tables_of(kind: type[Settings], prefix: str = "") -> list[tuple[str, list[str]]]:
    """Return each table with its keys, as a file has them."""
    found: list[tuple[str, list[str]]] = []
    for name, field in kind.model_fields.items():
        key, inner = f"{prefix}{field.alias or name}", field.annotation
        if isinstance(inner, type) and issubclass(inner, Settings):
            found += [(key, []), *tables_of(inner, f"{key}.")]
        else:
            found.append((prefix.rstrip("."), [key]))
    return found


async def test_api_keys_change() -> None:
    async with running_node({"http_api": {"key": "the first key of this test"}}) as node:

        async def is_good(key: str) -> bool:
            answer = await ask_over_http(f"{node.internal_url}/api/info", method="POST", headers={"X-API-Key": key})
            return answer.status != 401

        assert [await is_good("the first key of this test"), await is_good("the second")] == [True, False]
        changed(node, {"http_api.key": "", "http_api.keys": [{"name": "backend", "key": "the second"}]})
        assert [await is_good("the first key of this test"), await is_good("the second")] == [False, True]


async def test_a_reload_to_the_same_changes_nothing() -> None:
    async with running_node() as node:
        before = node.node.config
        assert node.node.reload(load(base=json.loads(before.model_dump_json(by_alias=True)))).changed == []
        assert as_toml(node.node.config) == as_toml(before)
        assert isinstance(node.node.config, Config)
