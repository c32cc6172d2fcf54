"""The command line as its users meet it: what it prints, what it exits with, how a node starts and stops."""

import asyncio
import gc
import json
import re
import signal
import socket
import ssl
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
import trustme
from websockets.asyncio.client import ClientConnection, connect, unix_connect
from websockets.exceptions import ConnectionClosed

from gateway import __version__
from gateway.cli import main
from gateway.config import Config, load
from gateway.configdoc import reference
from tests.support.processes import GATEWAY, Finished, ServingProcess, ask, run, run_program, serving

SECRET = "a secret of the tests, 32 bytes or more"
KEY = "GATEWAY_CLIENT__TOKEN__HMAC_SECRET_KEY"


@pytest.fixture
def free_port() -> Iterator[int]:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        yield taken.getsockname()[1]


@pytest.fixture
def refusing_port() -> Iterator[int]:
    """Give a port that nobody listens on, and nobody else will."""
    with closing(socket.socket()) as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, SECRET)


class Cli:
    """Runs commands in this process, which is 50 times cheaper than starting one."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: str) -> Finished:
        try:
            code = main(arguments)
        except SystemExit as end:  # argparse's own way
            code = int(end.code or 0)
        gc.collect()  # what a failing command leaves open is its own test's failure, not a later one's
        return Finished(code, *self._capsys.readouterr())


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    return Cli(capsys)


def refused(finished: Finished) -> str:
    """Return the one line with which a command said that it can't be done."""
    assert finished.code == 2, finished
    assert finished.out == ""
    [line] = finished.err.splitlines()
    return line


# Ways in.


@pytest.mark.parametrize(
    "command", [(*GATEWAY, "--version"), (GATEWAY[0], "-m", "gateway.cli", "--version")], ids=["package", "module"]
)
async def test_python_runs_it_as_a_module(command: tuple[str, ...]) -> None:
    """A module that does nothing, and exits with 0, would look like success to whoever calls it."""
    assert await run_program(*command) == Finished(0, f"gateway {__version__}\n", "")


async def test_the_installed_command_is_the_same() -> None:
    command = Path(GATEWAY[0]).with_name("gateway")
    assert await run_program(str(command), "--version") == Finished(0, f"gateway {__version__}\n", "")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "required: COMMAND"),
        (["dance"], "invalid choice: 'dance'"),
        (["token"], "required: WHAT"),
        (["config", "dance"], "invalid choice: 'dance'"),
        (["token", "create"], "required: --user"),
        (["token", "check"], "required: token"),
        (["serve", "--port", "http"], "invalid int value: 'http'"),
        (["serve", "--zebra"], "unrecognized arguments: --zebra"),
    ],
)
def test_a_command_that_is_none_gets_the_usage_and_2(arguments: list[str], words: str, cli: Cli) -> None:
    code, out, err = cli(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("usage: gateway")
    assert words in err.splitlines()[-1]


@pytest.mark.parametrize("arguments", [["--help"], ["serve", "--help"], ["token", "create", "--help"]])
def test_help_is_an_answer(arguments: list[str], cli: Cli) -> None:
    code, out, err = cli(*arguments)
    assert (code, err) == (0, "")
    assert out.startswith("usage: gateway")


# Tokens.


def claims_of(token: str) -> dict[str, Any]:
    claims: dict[str, Any] = jwt.decode(token, SECRET, algorithms=["HS256"], options={"verify_aud": False})
    return claims


def test_a_token_is_made_for_an_hour_unless_told_otherwise(cli: Cli) -> None:
    before = int(time.time())
    code, out, err = cli("token", "create", "--user", "alice")
    assert (code, err) == (0, "")
    claims = claims_of(out.removesuffix("\n"))
    assert before <= claims["iat"] <= time.time()
    assert claims == {"sub": "alice", "iat": claims["iat"], "exp": claims["iat"] + 3600}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--ttl", "1m"], {"exp": 60}),
        (["--ttl", "90"], {"exp": 90}),
        (["--ttl", "0"], {}),
        (["--channel", "news", "--ttl", "0"], {"channel": "news"}),
        (["--info", '{"name": "Zoë"}', "--ttl", "0"], {"info": {"name": "Zoë"}}),
    ],
)
def test_a_token_holds_what_it_was_asked_for(arguments: list[str], expected: dict[str, Any], cli: Cli) -> None:
    claims = claims_of(cli("token", "create", "--user", "", *arguments).out.strip())
    if "exp" in claims:
        claims["exp"] -= claims["iat"]
    del claims["iat"]
    assert claims == {"sub": ""} | expected


CONFIGURED: list[dict[str, str]] = [
    {},
    {"GATEWAY_CLIENT__TOKEN__AUDIENCE": "me", "GATEWAY_CLIENT__TOKEN__ISSUER": "them"},
    {"GATEWAY_CLIENT__TOKEN__USER_ID_CLAIM": "uid"},
    {
        "GATEWAY_CLIENT__SUBSCRIPTION_TOKEN": json.dumps(
            {"enabled": True, "hmac_secret_key": "another secret of the tests, long enough", "audience": "subs"}
        )
    },
]


@pytest.mark.parametrize("environment", CONFIGURED, ids=["plain", "aud, iss", "user_id_claim", "keys of their own"])
@pytest.mark.parametrize(("channel", "kind"), [([], "connection"), (["--channel", "news"], "subscription")])
def test_a_token_that_was_made_is_good(
    environment: dict[str, str], channel: list[str], kind: str, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    token = cli("token", "create", "--user", "alice", *channel).out.strip()
    code, out, err = cli("token", "check", token)
    assert (code, err) == (0, ""), out
    first, _, rest = out.partition("\n")
    assert first == f"yes: a {kind} token"
    assert json.loads(rest) == jwt.decode(token, options={"verify_signature": False})


def token_of(claims: dict[str, Any], secret: str = SECRET) -> str:
    return jwt.encode(claims, secret, algorithm="HS256")


@pytest.mark.parametrize(
    ("token", "answer"),
    [
        ("", "no: not a token ("),
        ("x", "no: not a token ("),
        ("a.b.c", "no: not a token ("),
        ("é.é.é", "no: not a token ("),
        ("\udcff.x.x", "no: not a token ("),
        (
            token_of({"sub": "1"}, "another secret, which is long enough too"),
            "no: signature (the client would get 3500)",
        ),
        (token_of({"sub": "1", "exp": 1}), "no: expired (the client would get 109)"),
        (token_of({"sub": "1", "expire_at": 1}), "no: expire at passed (the client would get 110)"),
        (token_of({"channel": "a", "exp": 1}), "no: expired (the client would get 109)"),
        (token_of({"sub": "1", "channel": 5}), "no: "),
    ],
)
def test_a_bad_token_is_no_and_why(token: str, answer: str, cli: Cli) -> None:
    code, out, err = cli("token", "check", token)
    assert (code, err) == (1, "")
    [line] = out.splitlines()
    assert line.startswith(answer)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--ttl", "soon"], "a duration is a number of seconds"),
        (["--ttl", "nan"], "--ttl"),
        (["--ttl", "inf"], "--ttl"),
        (["--info", "{"], "--ttl or --info: Expecting property name"),
        (["--config", "/none.toml"], "/none.toml: No such file or directory"),
    ],
)
def test_a_token_that_can_not_be_made_is_one_line(arguments: list[str], words: str, cli: Cli) -> None:
    assert words in refused(cli("token", "create", "--user", "alice", *arguments))


def test_without_a_secret_there_is_nothing_to_sign_with(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY)
    assert refused(cli("token", "create", "--user", "alice")) == (
        "client.token.hmac_secret_key is not set: there is nothing to sign a token with"
    )


# Configuration.


def test_the_defaults_as_printed_are_the_defaults(cli: Cli, tmp_path: Path) -> None:
    code, out, err = cli("config", "default")
    assert (code, err) == (0, "")
    path = tmp_path / "gateway.toml"
    path.write_text(out, encoding="utf-8")
    assert load(path) == Config()
    assert cli("config", "check", "--config", str(path)) == Finished(0, "the configuration is good\n", "")


async def test_the_reference_is_the_same_in_every_process() -> None:
    printed = [await run("config", "doc", environment={"PYTHONHASHSEED": seed}) for seed in ("1", "2")]
    assert printed == [Finished(0, reference(), "")] * 2


def test_checking_the_reference_says_whether_a_file_is_it(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "reference.md"
    path.write_text(cli("config", "doc").out, encoding="utf-8")
    assert cli("config", "doc", "--check", str(path)) == Finished(0, "", "")
    path.write_text("old", encoding="utf-8")
    complaint = Finished(1, "", f"{path} is not what the code says: run `make reference`\n")
    assert cli("config", "doc", "--check", str(path)) == complaint
    path.unlink()
    assert cli("config", "doc", "--check", str(path)) == complaint


def test_faults_of_the_configuration_are_a_line_each(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "gateway.toml"
    path.write_text("[client]\nzebra = 1\n[http_server]\nport = -1\n", encoding="utf-8")
    code, out, err = cli("config", "check", "--config", str(path))
    assert (code, out) == (2, "")
    assert [line.split(":")[0] for line in err.splitlines()] == ["http_server.port = -1", "client.zebra"]


# Starts that fail.


def pem_files(folder: Path) -> tuple[str, str, str]:
    """Write a certificate, its key and another key."""
    authority = trustme.CA()
    first, second = authority.issue_cert("127.0.0.1"), authority.issue_cert("127.0.0.1")
    first.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    first.private_key_pem.write_to_path(folder / "key.pem")
    second.private_key_pem.write_to_path(folder / "other.pem")
    return str(folder / "cert.pem"), str(folder / "key.pem"), str(folder / "other.pem")


def serve(*arguments: str) -> tuple[str, ...]:
    """Return the arguments of a start on free ports of loopback; what is given wins."""
    return ("serve", "--host", "127.0.0.1", "--port", "0", "--internal-port", "0", *arguments)


async def test_a_port_in_use_is_one_line_and_2(free_port: int) -> None:
    line = refused(await run(*serve("--port", str(free_port))))
    assert line.startswith(f"can't listen on 127.0.0.1:{free_port}: Address already in use")


FAILING: list[tuple[list[str], str]] = [
    (["--internal-port", "TAKEN"], "can't listen on 127.0.0.1:"),
    (["--host", "192.0.2.1"], "can't listen on 192.0.2.1:0: Cannot assign requested address"),
    (["--host", "no such host"], "can't listen on no such host:0: "),
    (["--host", f"{'a' * 70}.invalid"], "can't listen on aaa"),
    (["--host", "a..invalid"], "can't listen on a..invalid:0: "),
    (["--host", "unix:/none/socket"], "can't listen on unix:/none/socket"),
    (["--host", f"unix:/{'a' * 200}"], "can't listen on unix:/aaa"),
    (["--host", "unix:"], "can't listen on unix:"),
    (["--port", "70000"], "http_server.port = 70000: Input should be less than or equal to 65535"),
    (["--port", "-1"], "http_server.port = -1: Input should be greater than or equal to 0"),
    (["--config", "/none.toml"], "/none.toml: No such file or directory"),
    (["--config", "/"], "/: Is a directory"),
]


@pytest.mark.parametrize(("arguments", "words"), FAILING, ids=[" ".join(row[0])[:40] for row in FAILING])
def test_a_start_that_fails_is_one_line_and_2(arguments: list[str], words: str, cli: Cli, free_port: int) -> None:
    placed = [str(free_port) if each == "TAKEN" else each for each in arguments]
    assert refused(cli(*serve(*placed))).startswith(words)


@pytest.mark.parametrize(
    ("cert", "key", "words"),
    [
        ("none.pem", "key.pem", "can't read none.pem: No such file or directory"),
        ("cert.pem", "none.pem", "can't read none.pem: No such file or directory"),
        (".", "key.pem", "can't read .: Is a directory"),
        ("cert.pem", "other.pem", "cert.pem and other.pem are no certificate and its key: "),
        ("key.pem", "cert.pem", "key.pem and cert.pem are no certificate and its key: "),
        ("cert.pem", "text.pem", "cert.pem and text.pem are no certificate and its key: "),
        ("text.pem", "key.pem", "text.pem and key.pem are no certificate and its key: "),
        ("cert.pem", "", "TLS needs cert_pem_file and key_pem_file"),
    ],
)
def test_certificates_that_do_not_do_are_one_line_and_2(
    cert: str, key: str, words: str, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pem_files(tmp_path)
    (tmp_path / "text.pem").write_text("hello", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    table = {"enabled": True, "cert_pem_file": cert, "key_pem_file": key}
    monkeypatch.setenv("GATEWAY_HTTP_SERVER__TLS", json.dumps(table))
    assert words in refused(cli(*serve()))


async def test_a_start_that_fails_has_no_traceback_in_a_process_either(tmp_path: Path) -> None:
    cert, _, other = pem_files(tmp_path)
    tls = {"enabled": True, "cert_pem_file": cert, "key_pem_file": other}
    line = refused(await run(*serve(), environment={"GATEWAY_HTTP_SERVER__TLS": json.dumps(tls)}))
    assert line.startswith(f"{cert} and {other} are no certificate and its key")


# A node as a process.


@asynccontextmanager
async def connected(process: ServingProcess) -> AsyncIterator[ClientConnection]:
    async with connect(f"ws://{process.address}/connection/websocket", compression=None) as client:
        await client.send('{"id":1,"connect":{}}')
        assert json.loads(await client.recv())["connect"]["version"] == f"gateway {__version__}"
        yield client


async def close_of(client: ClientConnection) -> tuple[int, str]:
    """Wait until the server closes *client* and return what it said."""
    async with asyncio.timeout(20):
        try:
            while True:
                await client.recv()
        except ConnectionClosed as closed:
            if closed.rcvd is None:
                raise AssertionError("the server sent no Close frame") from closed
            return closed.rcvd.code, closed.rcvd.reason


async def test_development_greets_with_what_really_works(tmp_path: Path) -> None:
    async with serving("--dev", "--config", str(_empty(tmp_path))) as process:
        url, internal = f"http://{process.address}", process.internal_url
        assert f"  playground   {url}/\n" in process.out
        assert f"  clients      ws://{process.address}/connection/websocket " in process.out
        assert f"  plain        ws://{process.address}/ws/<channel> " in process.out
        assert f"  health       {internal}/readyz " in process.out
        assert (await ask(f"{url}/")).status == 200
        assert (await ask(f"{internal}/readyz")).text == "ok\n"
        assert (await ask(f"{internal}/livez")).text == "ok\n"
        [key] = re.findall(rf"  admin        {internal}/admin .* with the key (\S+)\n", process.out)
        async with httpx.AsyncClient(headers={"Origin": internal}) as http:
            login = await http.post(f"{internal}/admin/login", data={"key": key})
            assert (login.status_code, login.headers["location"]) == (303, "/admin")
        [token] = re.findall(r"ey\S+", process.out)
        async with connect(f"ws://{process.address}/connection/websocket", compression=None) as client:
            await client.send(json.dumps({"id": 1, "connect": {"token": token}}))
            reply = json.loads(await client.recv())["connect"]
            assert reply["expires"] is True
            assert 86_300 < reply["ttl"] <= 86_400
        async with connect(f"ws://{process.address}/ws/echo:me", compression=None) as plain:
            await plain.send("hello")
            assert await plain.recv() == "hello"


def _empty(folder: Path) -> Path:
    path = folder / "empty.toml"
    path.write_text("", encoding="utf-8")
    return path


async def test_free_ports_are_told_by_the_log_and_sigterm_says_goodbye_and_ends_with_0() -> None:
    async with serving("--dev") as process:
        started = await process.logged("started")
        for name in ("public", "internal"):
            host, _, port = started[name].rpartition(":")
            assert (host, int(port) > 0) == ("127.0.0.1", True)
        assert started["public"] != started["internal"]
        async with connected(process) as client, connect(f"ws://{process.address}/ws/lobby:a") as plain:
            process.send(signal.SIGTERM)
            assert await close_of(client) == (3001, "shutdown")
            assert await close_of(plain) == (1001, "shutdown")
        assert await process.ended() == 0
        assert [event["event"] for event in process.events][-2:] == ["drained", "stopped"]
        assert {event["level"] for event in process.events} == {"info"}


async def test_ctrl_c_stops_a_node_in_order_too() -> None:
    async with serving("--dev") as process, connected(process) as client:
        process.send(signal.SIGINT)
        assert await close_of(client) == (3001, "shutdown")
        assert await process.ended() == 0
        assert process.events[-1]["event"] == "stopped"
        assert not [line for line in process.lines if "Traceback" in line]


@asynccontextmanager
async def deaf_client(process: ServingProcess) -> AsyncIterator[None]:
    """Open a WebSocket that will never answer a Close frame."""
    host, _, port = process.address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(
            b"GET /connection/websocket HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        assert b"101" in await reader.readuntil(b"\r\n\r\n")
        yield
    finally:
        writer.close()


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
async def test_a_second_signal_ends_at_once_what_would_wait_for_a_deaf_client(second: signal.Signals) -> None:
    times = {"GATEWAY_WEBSOCKET__CLOSE_TIMEOUT": "10m"}
    async with serving("--dev", environment=times) as process, deaf_client(process):
        process.send(signal.SIGTERM)
        await process.logged("draining")
        assert (await ask(f"{process.internal_url}/readyz")).status == 503
        process.send(second)
        assert await process.ended() == 128 + second


async def test_a_deaf_client_holds_a_node_up_no_longer_than_the_shutdown_timeout() -> None:
    times = {"GATEWAY_WEBSOCKET__CLOSE_TIMEOUT": "10m", "GATEWAY_SHUTDOWN__TIMEOUT": "2s"}
    async with serving("--dev", environment=times) as process:
        async with deaf_client(process):
            assert await process.stop() == 0
        assert "shutdown timed out" in [event["event"] for event in process.events]


async def test_flags_win_over_the_environment(free_port: int) -> None:
    environment = {"GATEWAY_HTTP_SERVER__PORT": str(free_port), "GATEWAY_NODE__NAME": "n7", "GATEWAY_PORT": "tcp://x:1"}
    async with serving("--dev", "--port", "0", environment=environment) as process:
        assert not process.address.endswith(f":{free_port}")
        assert {event["node"] for event in process.events} == {"n7"}


async def test_a_unix_socket_serves_and_its_leftover_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "gateway.sock"
    for _ in range(2):
        async with serving("--host", f"unix:{path}", "--dev") as process:
            assert process.address == f"unix:{path}"
            assert str(path) in process.out or "unix" in process.out, "the greeting names no address that works"
            async with unix_connect(str(path), "ws://localhost/ws/echo:me", compression=None) as client:
                await client.send("hello")
                assert await client.recv() == "hello"


async def test_a_unix_socket_in_use_is_one_line_and_2(tmp_path: Path, cli: Cli) -> None:
    path = tmp_path / "gateway.sock"
    with closing(socket.socket(socket.AF_UNIX)) as taken:
        taken.bind(str(path))
        taken.listen()
        assert "another process listens there" in refused(cli(*serve("--host", f"unix:{path}")))
    assert path.exists()


def test_a_file_in_the_place_of_a_unix_socket_is_left_alone(tmp_path: Path, cli: Cli) -> None:
    path = _empty(tmp_path)
    assert refused(cli(*serve("--host", f"unix:{path}"))).startswith(f"can't listen on unix:{path}")
    assert path.is_file()


def _has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


@pytest.mark.skipif(not _has_ipv6(), reason="this machine has no IPv6")
async def test_ipv6_serves_and_is_greeted_with_an_address_that_works() -> None:
    async with serving("--dev", "--host", "::1") as process:
        assert re.fullmatch(r"\[::1\]:\d+", process.address)
        async with connected(process):
            pass
        assert f"  playground   http://{process.address}/\n" in process.out


@pytest.mark.skipif(not _has_ipv6(), reason="this machine has no IPv6")
async def test_the_ipv6_address_of_all_takes_ipv4_too() -> None:
    async with serving("--dev", "--host", "::") as process:
        port = process.address.rpartition(":")[2]
        for host in ("127.0.0.1", "[::1]"):
            assert (await ask(f"http://{host}:{port}/connection/init")).text == "{}"


async def test_every_line_on_standard_error_is_json_whatever_clients_send() -> None:
    async with serving("--dev") as process:
        host, _, port = process.address.rpartition(":")
        for request in (
            b"hello\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n",
            b"GET / HTTP/9.9\r\n\r\n",
            b"POST / HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
        ):
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(request)
            assert (await reader.readline()).startswith(b"HTTP/1.1 ")
            writer.close()
        assert await process.stop() == 0
        assert [line for line in process.lines if not line.startswith("{")] == []


async def test_tls_is_spoken_where_it_is_configured(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(tmp_path / "all.pem")
    path = str(tmp_path / "all.pem")
    table = {"enabled": True, "cert_pem_file": path, "key_pem_file": path}
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    async with serving("--dev", environment={"GATEWAY_HTTP_SERVER__TLS": json.dumps(table)}) as process:
        async with connect(f"wss://{process.address}/ws/echo:me", ssl=trusting) as client:
            await client.send("hello")
            assert await client.recv() == "hello"
        assert f"  playground   https://{process.address}/\n" in process.out


async def test_health_tells_what_a_node_says_in_its_exit_code(refusing_port: int) -> None:
    nothing = f"127.0.0.1:{refusing_port}"
    without_redis = {"GATEWAY_BROKER__TYPE": "redis", "GATEWAY_REDIS__ADDRESS": nothing}
    async with serving() as well, serving(environment=without_redis) as waiting:
        assert await run("health", "--url", well.internal_url) == Finished(0, "ok\n", "")
        for check in ("livez", "readyz", "startupz"):
            assert (await run("health", check, "--url", well.internal_url)).code == 0
        unready = await run("health", "readyz", "--url", waiting.internal_url)
        assert (unready.code, unready.err) == (1, "")
        assert nothing in unready.out
        assert (await run("health", "--url", waiting.internal_url)).code == 0
    assert await run("health", "--url", f"http://{nothing}") == Finished(
        1, "", f"http://{nothing}: Connection refused\n"
    )


@pytest.mark.parametrize("url", ["127.0.0.1:9000", "https://127.0.0.1:9000", "http://", "http://[", "http://a:b"])
def test_health_needs_an_address(cli: Cli, url: str) -> None:
    code, out, err = cli("health", "--url", url)
    assert (code, out) == (2, "")
    assert url in err


def test_health_asks_the_port_that_the_environment_gives_the_node(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, refusing_port: int
) -> None:
    monkeypatch.setenv("GATEWAY_HTTP_SERVER__INTERNAL_PORT", str(refusing_port))
    code, _, err = cli("health")
    assert (code, err) == (1, f"http://127.0.0.1:{refusing_port}: Connection refused\n")
