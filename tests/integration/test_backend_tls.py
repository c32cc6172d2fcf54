"""Backends behind TLS: whose word is taken, and what is said about files that can't be."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import trustme
from websockets.asyncio.client import connect

from tests.support.backends import INTERNAL, answer
from tests.support.nodes import running_node
from tests.support.processes import run

ANSWER = answer({"result": {"user": "77"}})


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def files(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    authority.cert_pem.write_to_path(folder / "ca.pem")
    mine = authority.issue_cert("gateway@example.com")
    mine.private_key_pem.write_to_path(folder / "key.pem")
    mine.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    (folder / "nonsense.pem").write_text("nonsense", encoding="utf-8")
    return folder


@pytest_asyncio.fixture
async def endpoint(authority: trustme.CA) -> AsyncIterator[str]:
    """A backend that is called localhost, and asks for a certificate of the same authority."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        size = next(line for line in head.decode().split("\r\n") if line.lower().startswith("content-length"))
        await reader.readexactly(int(size.partition(":")[2]))
        writer.write(ANSWER)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/connect"
    server.close()


def table(endpoint: str, **tls: Any) -> dict[str, Any]:
    http = {"tls": {"enabled": True, **tls}} if tls else {}
    return {"client": {"proxy": {"connect": {"enabled": True, "endpoint": endpoint, "timeout": "10s", "http": http}}}}


async def told(endpoint: str, **tls: Any) -> tuple[Any, list[str]]:
    """Return what a client is told, and the reasons that are logged."""
    async with running_node(table(endpoint, **tls)) as node, connect(node.client_url, compression=None) as client:
        await client.send('{"id":1,"connect":{}}')
        reply = json.loads(await client.recv())
        return reply.get("error"), [each["reason"] for each in node.events if each["event"] == "proxy failed"]


async def test_both_sides_show_certificates_of_their_own_authority(endpoint: str, files: Path) -> None:
    mine = {"cert_pem_file": str(files / "cert.pem"), "key_pem_file": str(files / "key.pem")}
    trusted = {"server_ca_pem_file": str(files / "ca.pem"), "server_name": "localhost", **mine}
    assert await told(endpoint, **trusted) == (None, [])
    assert await told(endpoint, insecure_skip_verify=True, **mine) == (None, [])


@pytest.mark.parametrize(
    "tls",
    [
        {},
        {"server_name": "localhost"},
        {"server_ca_pem_file": "ca.pem"},
        {"server_ca_pem_file": "ca.pem", "server_name": "localhost"},
    ],
    ids=["as usual", "of no authority that we know", "of another name", "without a certificate of ours"],
)
async def test_otherwise_nothing_is_said_over_it(endpoint: str, files: Path, tls: dict[str, Any]) -> None:
    if "server_ca_pem_file" in tls:
        tls = tls | {"server_ca_pem_file": str(files / tls["server_ca_pem_file"])}
    error, reasons = await told(endpoint, **tls)
    assert error == INTERNAL
    assert len(reasons) == 1


@pytest.mark.parametrize(
    ("tls", "line"),
    [
        ({"server_ca_pem_file": "none.pem"}, "server_ca_pem_file = {folder}/none.pem: No such file or directory"),
        ({"server_ca_pem_file": "nonsense.pem"}, "server_ca_pem_file = {folder}/nonsense.pem: not a certificate"),
        (
            {"cert_pem_file": "cert.pem", "key_pem_file": "nonsense.pem"},
            "cert_pem_file = {folder}/cert.pem, {folder}/nonsense.pem: not a certificate",
        ),
    ],
)
async def test_a_file_that_can_not_be_read_stops_the_start_with_a_line(
    files: Path, tmp_path: Path, tls: dict[str, str], line: str
) -> None:
    values = table("https://127.0.0.1:1/", **{key: str(files / name) for key, name in tls.items()})
    path = tmp_path / "gateway.json"
    ports = {"http_server": {"address": "127.0.0.1", "port": 0, "internal_port": 0}}
    path.write_text(json.dumps(values | ports), encoding="utf-8")
    finished = await run("serve", "--config", str(path))
    assert finished.code == 2
    (said,) = [each for each in finished.err.splitlines() if not each.startswith("{")]
    assert said.startswith(f"proxy 'default' of connect: http.tls.{line.format(folder=files)}")
