"""A node behind proxies: whose word on the client's address counts, in the log and for the limits, and with TLS."""

import asyncio
import contextlib
import json
import shutil
import signal
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest
import trustme
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

from gateway.config import load, merge
from tests.support.nodes import RunningNode, running_node
from tests.support.processes import ask, serving
from tests.support.waiting import until

LOOPBACK: Final = {"http_server": {"trusted_proxies": ["127.0.0.0/8"]}}
PROXY_PROTOCOL: Final = {
    "http_server": {"trusted_proxies": ["127.0.0.1"], "proxy_protocol": True, "head_timeout": "0.3s"}
}
UPGRADE: Final = (
    b"GET /connection/websocket HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"
LINE: Final = b"PROXY TCP4 203.0.113.7 127.0.0.1 1 2\r\n"
BINARY: Final = SIGNATURE + struct.pack(">BBH4s4sHH", 0x21, 0x11, 12, b"\xcb\x00\x71\x07", b"\x7f\0\0\1", 1, 2)
LOCAL: Final = SIGNATURE + b"\x20\x00\x00\x00"


def logged(node: RunningNode, event: str) -> list[dict[str, Any]]:
    return [each for each in node.events if each["event"] == event]


@asynccontextmanager
async def come(node: RunningNode, **headers: str) -> AsyncIterator[ClientConnection]:
    async with connect(node.client_url, additional_headers=headers, proxy=None) as client:
        yield client


@pytest.mark.parametrize(
    ("tables", "headers", "address"),
    [
        ({}, {"X-Forwarded-For": "203.0.113.7"}, "127.0.0.1"),
        (LOOPBACK, {}, "127.0.0.1"),
        (LOOPBACK, {"X-Forwarded-For": "6.6.6.6, 203.0.113.7"}, "203.0.113.7"),
        (LOOPBACK, {"Forwarded": "for=203.0.113.7"}, "127.0.0.1"),
        (LOOPBACK, {"X-Forwarded-For": "nonsense"}, "127.0.0.1"),
        (
            {"http_server": {"trusted_proxies": ["127.0.0.1"], "forwarded_header": "forwarded"}},
            {"Forwarded": 'for="[2001:db8::7]:1"', "X-Forwarded-For": "6.6.6.6"},
            "2001:db8::7",
        ),
        ({"http_server": {"trusted_proxies": ["10.0.0.0/8"]}}, {"X-Forwarded-For": "203.0.113.7"}, "127.0.0.1"),
    ],
)
async def test_the_address_in_the_log_is_what_a_trusted_proxy_says(
    tables: dict[str, Any], headers: dict[str, str], address: str
) -> None:
    async with running_node(tables) as node:
        async with come(node, **headers):
            pass
        with pytest.raises(InvalidStatus):
            await connect(f"{node.ws_url}/nowhere", additional_headers=headers, proxy=None)
        assert [each["address"] for each in logged(node, "accepted") + logged(node, "refused")] == [address] * 2
        assert node.node.counts.forwarded_malformed == (2 if "nonsense" in headers.values() else 0)


async def test_admins_have_their_own_address_too() -> None:
    async with running_node(LOOPBACK) as node:
        url = f"{node.internal_url.replace('http', 'ws')}/nowhere"
        with pytest.raises(InvalidStatus):
            await connect(url, additional_headers={"X-Forwarded-For": "203.0.113.7"}, proxy=None)
        assert [each["address"] for each in logged(node, "refused")] == ["203.0.113.7"]


async def test_limits_for_each_address_tell_clients_of_one_proxy_apart() -> None:
    limits = {"client": {"connection_limit_per_address": 1}}
    async with running_node(LOOPBACK, limits) as node:
        async with come(node, **{"X-Forwarded-For": "2001:db8::1"}), come(node, **{"X-Forwarded-For": "203.0.113.7"}):
            with pytest.raises(InvalidStatus) as caught:
                await connect(node.client_url, additional_headers={"X-Forwarded-For": "2001:db8::2"}, proxy=None)
            assert caught.value.response.status_code == 503
            assert caught.value.response.headers["Retry-After"] == "1"
        (refused,) = logged(node, "refused")
        assert (refused["reason"], refused["address"]) == ("connection_limit_per_address", "2001:db8::2")
        await until(lambda: len(node.node.connections) == 0)
        async with come(node, **{"X-Forwarded-For": "2001:db8::2"}):
            pass


async def exchange(port: int, *pieces: bytes, tls: ssl.SSLContext | None = None) -> bytes:
    """Send *pieces* one by one, then upgrade over *tls* if that is given; return the first line that comes back."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
        if tls is not None:
            await writer.start_tls(tls, server_hostname="127.0.0.1")
            writer.write(UPGRADE)
        return (await reader.readline()).rstrip()
    except ConnectionResetError:
        return b""
    finally:
        writer.close()
        with contextlib.suppress(OSError, ssl.SSLError):
            await writer.wait_closed()


SWITCHING: Final = b"HTTP/1.1 101 Switching Protocols"


@pytest.mark.parametrize(
    ("pieces", "address"),
    [
        ([LINE + UPGRADE], "203.0.113.7"),
        ([LINE, UPGRADE], "203.0.113.7"),
        ([bytes([each]) for each in LINE] + [UPGRADE], "203.0.113.7"),
        ([BINARY + UPGRADE], "203.0.113.7"),
        ([bytes([each]) for each in BINARY] + [UPGRADE], "203.0.113.7"),
        ([LOCAL + UPGRADE], "127.0.0.1"),
        ([b"PROXY UNKNOWN\r\n" + UPGRADE], "127.0.0.1"),
        # A header of a proxy behind the first: the address in the PROXY header is trusted, too.
        (
            [b"PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\n", UPGRADE[:-2] + b"X-Forwarded-For: 203.0.113.9\r\n\r\n"],
            "203.0.113.9",
        ),
        # The address in the PROXY header is a client's, whose own headers are nothing.
        ([LINE, UPGRADE[:-2] + b"X-Forwarded-For: 6.6.6.6\r\n\r\n"], "203.0.113.7"),
    ],
)
async def test_a_proxy_header_tells_the_address(pieces: list[bytes], address: str) -> None:
    async with running_node(PROXY_PROTOCOL) as node:
        assert await exchange(node.port, *pieces) == SWITCHING
        assert [each["address"] for each in logged(node, "accepted")] == [address]


@pytest.mark.parametrize(
    ("pieces", "reason"),
    [
        ([UPGRADE], "proxy_header"),
        ([b"PROXY TCP4 nonsense\r\n" + UPGRADE], "proxy_header"),
        ([SIGNATURE + b"\x21\x11\xff\xff"], "proxy_header"),
        ([LINE[:10]], "proxy_header_timeout"),
        ([SIGNATURE], "proxy_header_timeout"),
        ([], "proxy_header_timeout"),
    ],
)
async def test_a_trusted_proxy_without_a_good_header_is_cut_in_time_and_counted(
    pieces: list[bytes], reason: str
) -> None:
    async with running_node(PROXY_PROTOCOL) as node:
        assert await exchange(node.port, *pieces) == b""
        await until(lambda: bool(logged(node, "refused")))
        (refused,) = logged(node, "refused")
        assert (refused["reason"], refused["address"]) == (reason, "127.0.0.1")
        assert node.node.counts.connections_refused == {reason: 1}


async def test_a_balancer_that_only_looks_whether_somebody_listens_is_no_refusal() -> None:
    async with running_node(PROXY_PROTOCOL) as node:
        for _ in range(3):
            _, writer = await asyncio.open_connection("127.0.0.1", node.port)
            writer.close()
        assert await exchange(node.port, LINE + UPGRADE) == SWITCHING
        assert node.node.counts.connections_refused == {}


async def test_a_node_stops_although_somebody_is_on_the_way_in() -> None:
    async with running_node(PROXY_PROTOCOL, {"http_server": {"head_timeout": "1h"}}) as node:
        reader, writer = await asyncio.open_connection("127.0.0.1", node.port)
        writer.write(LINE[:10])
        assert await exchange(node.port, LINE + UPGRADE) == SWITCHING
        node.node.stop()
        assert await reader.read() == b""
        writer.close()


async def test_others_are_served_without_a_header_and_theirs_is_not_believed() -> None:
    table = {"http_server": {"trusted_proxies": ["192.0.2.1"], "proxy_protocol": True}}
    async with running_node(table) as node:
        async with come(node, **{"X-Forwarded-For": "6.6.6.6"}):
            pass
        assert (await exchange(node.port, LINE + UPGRADE)).startswith(b"HTTP/1.1 400 ")
        assert [each["address"] for each in logged(node, "accepted") + logged(node, "refused")] == ["127.0.0.1"] * 2
        assert (await ask(f"{node.url}/connection/init")).status == 200


async def test_the_header_comes_before_tls(tmp_path: Path) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    issued.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "all.pem"))
    tls = ssl.create_default_context()
    authority.configure_trust(tls)
    files = {"enabled": True, "cert_pem_file": str(tmp_path / "all.pem"), "key_pem_file": str(tmp_path / "all.pem")}
    async with running_node(PROXY_PROTOCOL, {"http_server": {"tls": files}}) as node:
        for header in (LINE, BINARY):
            assert await exchange(node.port, header, tls=tls) == SWITCHING
        assert [each["address"] for each in logged(node, "accepted")] == ["203.0.113.7"] * 2
        # A handshake that fails is the client's affair.
        assert await exchange(node.port, LINE + b"GET / HTTP/1.1\r\n\r\n") in {b"", b"HTTP/1.1 400 Bad Request"}
        assert await exchange(node.port, LINE, tls=tls) == SWITCHING


async def test_a_node_in_a_process_of_its_own_reads_them_on_its_faster_loop(tmp_path: Path) -> None:
    """uvloop, where there is one, with TLS and without."""
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    issued.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "all.pem"))
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    files = {"enabled": True, "cert_pem_file": str(tmp_path / "all.pem"), "key_pem_file": str(tmp_path / "all.pem")}
    path = tmp_path / "gateway.json"
    for tls, table in ((None, {}), (trusting, {"tls": files})):
        server = PROXY_PROTOCOL["http_server"] | {"address": "127.0.0.1"} | table
        path.write_text(json.dumps({"http_server": server, "log": {"format": "json"}}), encoding="utf-8")
        async with serving("--config", str(path)) as process:
            port = int(process.address.rpartition(":")[2])
            pieces = [LINE] if tls else [LINE + UPGRADE]
            assert await asyncio.gather(*(exchange(port, *pieces, tls=tls) for _ in range(20))) == [SWITCHING] * 20
            assert await exchange(port, LINE[:5]) == b""
            accepted = [each["address"] for each in process.events if each["event"] == "accepted"]
            assert accepted == ["203.0.113.7"] * 20


async def test_a_node_that_drains_takes_no_more_connections_from_its_proxies() -> None:
    async with running_node(PROXY_PROTOCOL) as node:
        reader, writer = await asyncio.open_connection("127.0.0.1", node.port)
        writer.write(LINE + UPGRADE)
        assert (await reader.readline()).rstrip() == SWITCHING
        node.node.stop()
        assert await reader.read()  # the rest of the head, and the goodbye
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", node.port)
        writer.close()


async def test_who_is_trusted_changes_by_a_reload(tmp_path: Path) -> None:
    path = tmp_path / "gateway.json"
    path.write_text(json.dumps({"http_server": {"address": "127.0.0.1"}, "log": {"format": "json"}}), encoding="utf-8")
    async with serving("--config", str(path)) as process:
        headers = {"X-Forwarded-For": "203.0.113.7"}
        url = f"ws://{process.address}/connection/websocket"
        await (await connect(url, additional_headers=headers, proxy=None)).close()
        path.write_text(
            json.dumps({"http_server": {"address": "127.0.0.1"} | LOOPBACK["http_server"], "log": {"format": "json"}}),
            encoding="utf-8",
        )
        process.send(signal.SIGHUP)
        await process.logged("reloaded")
        await (await connect(url, additional_headers=headers, proxy=None)).close()
        accepted = [each["address"] for each in process.events if each["event"] == "accepted"]
        assert accepted == ["127.0.0.1", "203.0.113.7"]


async def test_whose_proxy_headers_are_read_changes_by_a_reload() -> None:
    async with running_node(PROXY_PROTOCOL) as node:
        elsewhere = {"http_server": PROXY_PROTOCOL["http_server"] | {"trusted_proxies": ["192.0.2.1"]}}
        values = json.loads(node.node.config.model_dump_json(by_alias=True))
        assert await exchange(node.port, LINE + UPGRADE) == SWITCHING
        assert node.node.reload(load(base=merge(values, elsewhere))).changed == ["http_server.trusted_proxies"]
        assert await exchange(node.port, UPGRADE) == SWITCHING
        assert (await exchange(node.port, LINE + UPGRADE)).startswith(b"HTTP/1.1 400 ")


@pytest.mark.skipif(shutil.which("haproxy") is None, reason="needs haproxy")
@pytest.mark.parametrize("send", ["send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options crc32c,unique-id"])
async def test_haproxys_headers_are_read(send: str, tmp_path: Path) -> None:
    """The client comes from another address of the loopback, which is not the proxy's."""
    async with running_node(PROXY_PROTOCOL) as node:
        socket_path = tmp_path / "front"
        (tmp_path / "haproxy.cfg").write_text(
            "defaults\n  mode tcp\n  timeout connect 2s\n  timeout client 10s\n  timeout server 10s\n"
            f"listen front\n  bind unix@{socket_path} accept-proxy\n  server node 127.0.0.1:{node.port} {send}\n",
            encoding="utf-8",
        )
        process = await asyncio.create_subprocess_exec("haproxy", "-db", "-f", str(tmp_path / "haproxy.cfg"))
        try:
            await until(socket_path.exists)
            for source in ("203.0.113.7", "2001:db8::7"):
                reader, writer = await asyncio.open_unix_connection(str(socket_path))
                kind, target = ("TCP6", "::1") if ":" in source else ("TCP4", "127.0.0.1")
                writer.write(f"PROXY {kind} {source} {target} 1 2\r\n".encode() + UPGRADE)
                assert (await reader.readline()).rstrip() == SWITCHING
                writer.close()
            assert [each["address"] for each in logged(node, "accepted")] == ["203.0.113.7", "2001:db8::7"]
        finally:
            process.terminate()
            await process.wait()
