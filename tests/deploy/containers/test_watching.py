"""Prometheus beside a cluster that runs: every panel shows something, and alerts fire by the faults they watch."""

import asyncio
import contextlib
import http.server
import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
import trustme
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from tests.deploy.test_alert_rules import NAMES
from tests.deploy.test_dashboards import DASHBOARDS, panels
from tests.support.compose_stack import ComposeStack, compose_stack
from tests.support.container_engine import ContainerEngine
from tests.support.load_process import Load
from tests.support.loads import sets
from tests.support.waiting import eventually

pytestmark = [pytest.mark.containers, pytest.mark.timeout(1200)]

_FOR = re.compile(r"\bfor: \w+")
_PATIENCE_S = 120
_CHAT = ("namespace=lobby", "clients=60", "room_size=6", "rate=60", "plateau_s=1000")
# Where who publishes does not listen.
_FEED = """
[[channel.namespaces]]
name = "feed"
allow_subscribe_for_client = true
allow_publish_for_client = true
"""
# What a healthy node never shows, and no fault from outside brings about: told by a target that lies.
_IMPOSSIBLE = """
gateway_alive 0
gateway_ready 1
gateway_drain_active 0
gateway_deliveries_due_total{namespace="chat"} 10
gateway_deliveries_total{namespace="chat"} 9
gateway_deliveries_filtered_total{namespace="chat"} 0
gateway_deliveries_queued{namespace="chat"} 0
gateway_key_set_failures_total %d
"""


def hurry(stack: ComposeStack) -> None:
    """Have alerts fire after seconds; for how long a fault may last before is promtool's test."""
    path = stack.folder / "prometheus" / "alerts.yml"
    path.write_text(_FOR.sub("for: 5s", path.read_text()))
    nodes = stack.folder / "compose" / "gateway.toml"
    nodes.write_text(nodes.read_text().replace("[client]\n", "[client]\nqueue_max_size = 131072\n") + _FEED)


@pytest.fixture(scope="module")
def stack(engine: ContainerEngine, image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComposeStack]:
    with compose_stack(engine, image, tmp_path_factory.mktemp("deploy"), prepare=hurry) as running:
        yield running


@pytest.fixture(scope="module")
def fired() -> set[str]:
    """Which alerts have fired in this module."""
    return set()


@contextmanager
def talking(stack: ComposeStack, path: Path, *arguments: str) -> Iterator[Load]:
    """Load the system with people who talk, until the block ends."""
    load = stack.start_load(path, "chat", *(part for each in _CHAT for part in ("--set", each)), *arguments)
    try:
        load.reaches("plateau")
        yield load
    finally:
        load.stop()


def alerts(stack: ComposeStack) -> dict[str, dict[str, Any]]:
    """Return the alerts that fire, by name."""
    answer = httpx.get(f"{stack.prometheus_url}/api/v1/alerts", timeout=30).json()["data"]["alerts"]
    return {each["labels"]["alertname"]: each for each in answer if each["state"] == "firing"}


def wait_for(stack: ComposeStack, fired: set[str], *names: str) -> None:
    """Wait until all of these have fired, since the test began."""
    seen: dict[str, dict[str, Any]] = {}

    def all_seen() -> bool:
        seen.update(alerts(stack))
        return set(names) <= set(seen)

    eventually(all_seen, lambda: f"{set(names) - set(seen)}; there were {sorted(seen)}", patience_s=_PATIENCE_S)
    for alert in seen.values():
        assert "error" not in alert["annotations"]["description"].replace("error 100", ""), alert
        assert "<" not in alert["annotations"]["summary"], alert
    fired |= set(seen)


def test_prometheus_takes_all_rules_and_finds_all_targets(stack: ComposeStack) -> None:
    def is_up() -> bool:
        return stack.value("sum(up)") == stack.value("count(up)") == 5

    eventually(is_up, lambda: str(stack.query("up")))
    groups = httpx.get(f"{stack.prometheus_url}/api/v1/rules", timeout=30).json()["data"]["groups"]
    assert {rule["name"] for group in groups for rule in group["rules"] if rule["type"] == "alerting"} == set(NAMES)
    eventually(
        lambda: all(
            rule["health"] == "ok"
            for group in httpx.get(f"{stack.prometheus_url}/api/v1/rules", timeout=30).json()["data"]["groups"]
            for rule in group["rules"]
        ),
        lambda: "a rule that can't be evaluated",
    )


def test_every_panel_shows_something_while_the_system_works(stack: ComposeStack, tmp_path: Path) -> None:
    served = ("--prometheus-port", "0", "--prometheus-address", stack.host_address)
    with talking(stack, tmp_path / "run.json", *served) as load:
        [port] = re.findall(r"Metrics at http://[\d.]+:(\d+)", load.text)
        target = [{"targets": [f"{stack.host_address}:{port}"]}]
        (stack.folder / "prometheus" / "targets" / "loadtest.json").write_text(json.dumps(target))

        def empty() -> list[str]:
            return [name for name, expression in expressions() if not stack.query(filled_in(expression))]

        eventually(lambda: not empty(), lambda: f"without data: {empty()}", patience_s=_PATIENCE_S)
        named = [each["metric"]["instance"] for each in stack.query('up{job="gateway"}')]
        one = [each for each in expressions() if "$node" in each[1]]
        assert not [name for name, each in one if not stack.query(filled_in(each, node=named[0]))], "for one node"
    (stack.folder / "prometheus" / "targets" / "loadtest.json").write_text("[]")


def expressions() -> Iterator[tuple[str, str]]:
    """Yield the panel and the query of each expression, by its dashboard's name."""
    for name, dashboard in DASHBOARDS.items():
        for panel in panels(dashboard):
            for target in panel.get("targets", []):
                yield f"{name}, {panel['title']}, {target['refId']}", target["expr"]


def filled_in(expression: str, *, node: str = ".*") -> str:
    """Return an expression as Grafana sends it."""
    values = {"$__rate_interval": "1m", "$node": node, "$namespace": ".*"}
    for name, value in values.items():
        expression = expression.replace(name, value)
    return expression


async def test_crowds_and_strangers(stack: ComposeStack, fired: set[str], tmp_path: Path) -> None:
    """Many come anew, without a good token, or from a page elsewhere; and the nodes are nearly full."""
    toml = stack.folder / "compose" / "gateway.toml"
    toml.write_text(toml.read_text().replace("[client]\n", "[client]\nconnection_limit = 55\n"))
    stack.compose("kill", "--signal", "HUP", "gateway")
    load = stack.start_load(tmp_path / "run.json", "idle", *sets(clients=150, namespace="lobby", plateau_s=1000))
    knocking = asyncio.create_task(knock(stack))
    try:
        await asyncio.to_thread(load.reaches, "plateau")
        names = ("ConnectionsNearLimit", "ReconnectStorm", "TokensRefused", "ConnectionsRefused")
        await asyncio.to_thread(wait_for, stack, fired, *(f"Gateway{name}" for name in names))
    finally:
        knocking.cancel()
        load.stop()
    toml.write_text(toml.read_text().replace("connection_limit = 55\n", ""))
    stack.compose("kill", "--signal", "HUP", "gateway")


async def knock(stack: ComposeStack) -> None:
    token = jwt.encode({"sub": "eve"}, "a key that is not the gateway's, of 32 bytes", "HS256")
    trust = stack.trust
    while True:
        for origin in ("", "https://elsewhere.example"):
            with contextlib.suppress(WebSocketException, OSError):
                headers = {"Origin": origin} if origin else {}
                async with connect(stack.client_url, ssl=trust, additional_headers=headers) as wire:
                    await wire.send(json.dumps({"id": 1, "connect": {"token": token}}))
                    await wire.recv()
        await asyncio.sleep(0.1)


def test_readers_that_are_too_slow(stack: ComposeStack, fired: set[str], tmp_path: Path) -> None:
    """Without the balancer, which would take many megabytes for each of them before a node notices."""
    slow = sets(namespace="feed", plateau_s=1000, payload_bytes=50000, rate=50, clients=21, slow=20)
    node = stack.url_of(stack.containers("gateway")[0])
    load = stack.start_load(tmp_path / "run.json", "slow", *slow, target=node)
    try:
        wait_for(stack, fired, "GatewayDeliveriesDropped")
    finally:
        load.stop()


def test_redis_slow_away_and_forgetful(stack: ComposeStack, fired: set[str], tmp_path: Path) -> None:
    [redis] = stack.containers("redis")
    run = stack.engine.run

    def stall() -> None:
        run("pause", redis)
        threading.Event().wait(1.2)
        run("unpause", redis)

    def forget() -> None:
        stack.ask_redis("FLUSHALL")
        stack.ask_redis("CLIENT", "KILL", "USER", "gateway")

    with talking(stack, tmp_path / "run.json"):
        with repeating(stall):
            wait_for(stack, fired, "GatewayRedisSlow", "GatewayPublishToWriteSlow", "GatewayErrorBudgetBurn")
        run("stop", redis)
        away = ("BrokerDown", "BrokerCanaryOld", "NoneReady", "NotReady", "ErrorBudgetBurn")
        wait_for(stack, fired, *(f"Gateway{name}" for name in away))
        run("start", redis)
        eventually(lambda: stack.value('sum(gateway_broker_up{job="gateway"})') == 3, lambda: str(stack.query("up")))
        with repeating(forget):
            wait_for(stack, fired, "GatewayRedisReconnects", "GatewayPublicationsLost")


@contextmanager
def repeating(act: Callable[[], object]) -> Iterator[None]:
    """Do something again and again, a few seconds apart, until the block ends."""
    ended = threading.Event()
    failures: list[BaseException] = []

    def work() -> None:
        while not ended.wait(4):
            try:
                act()
            except AssertionError as error:
                failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
    assert not failures


def test_a_certificate_at_its_end_and_descriptors_too(stack: ComposeStack, fired: set[str], image: str) -> None:
    """A node that does TLS itself, with a certificate for a day, and hardly a descriptor to spare."""
    issued = trustme.CA().issue_cert("localhost", not_after=datetime.now(tz=UTC) + timedelta(days=1))
    (stack.secrets / "day.key").write_bytes(issued.private_key_pem.bytes())
    (stack.secrets / "day.pem").write_bytes(issued.cert_chain_pems[0].bytes())
    told = {
        "TLS__ENABLED": "true",
        "TLS__CERT_PEM_FILE": "/tls/day.pem",
        "TLS__KEY_PEM_FILE": "/tls/day.key",
        "INTERNAL_ADDRESS": "0.0.0.0",  # noqa: S104 - in a network of containers
    }
    options = [part for key, value in told.items() for part in ("--env", f"GATEWAY_HTTP_SERVER__{key}={value}")]
    options += ["--volume", f"{stack.secrets}:/tls:ro", "--ulimit", "nofile=40:40", "--network", stack.front]
    name = f"{stack.project}-tls"
    stack.engine.run("run", "--detach", "--name", name, "--user", "0", *options, image)
    targets = stack.folder / "prometheus" / "targets" / "gateway-tls.json"
    try:
        address = stack.inspect(name)["NetworkSettings"]["Networks"][stack.front]["IPAddress"]
        targets.write_text(json.dumps([{"targets": [f"{address}:9000"]}]))
        full = f'process_open_fds{{instance="{address}:9000"}} / process_max_fds'
        eventually(lambda: stack.value(full) is not None, lambda: stack.engine.run("logs", name).stderr)
        with contextlib.ExitStack() as opened:
            # Connections that say nothing, which a node keeps for a while.
            count = 36 - round(40 * (stack.value(full) or 0))
            for _ in range(count):
                opened.enter_context(socket.create_connection((address, 8000)))
            names = ("CertificateExpires", "CertificateExpiresSoon", "FileDescriptors")
            wait_for(stack, fired, *(f"Gateway{each}" for each in names))
    finally:
        targets.write_text("[]")
        stack.engine.run("rm", "--force", name)


def test_what_no_healthy_node_shows(stack: ComposeStack, fired: set[str]) -> None:
    """No fault from outside brings these about, so a target that is no node says so."""

    class Liar(http.server.BaseHTTPRequestHandler):
        asked = 0

        def do_GET(self) -> None:
            type(self).asked += 1
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write((_IMPOSSIBLE % self.asked).encode())

        def log_message(self, *_: object) -> None:
            pass

    targets = stack.folder / "prometheus" / "targets" / "gateway-liar.json"
    with http.server.ThreadingHTTPServer((stack.host_address, 0), Liar) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            targets.write_text(json.dumps([{"targets": [f"{stack.host_address}:{server.server_port}"]}]))
            names = ("NotAlive", "LedgerOutOfBalance", "KeySetNotFetched")
            wait_for(stack, fired, *(f"Gateway{each}" for each in names))
        finally:
            targets.write_text("[]")
            server.shutdown()


def test_nodes_that_stand_still_are_cut_off_and_go(stack: ComposeStack, fired: set[str]) -> None:
    run, nodes = stack.engine.run, stack.containers("gateway")
    run("pause", nodes[0])
    wait_for(stack, fired, "GatewayNodeDown", "GatewayFewerNodes")
    with repeating(lambda: pulse(stack, nodes[1])):
        run("unpause", nodes[0])
        wait_for(stack, fired, "GatewayEventLoopLag")
    run("network", "disconnect", f"{stack.project}_data", nodes[2])
    wait_for(stack, fired, "GatewayNodesDisagree")
    stack.compose("stop", "--timeout", "1", "gateway")
    wait_for(stack, fired, "GatewayNoNodes")


def pulse(stack: ComposeStack, container: str) -> None:
    """Hold a node up for a second."""
    stack.engine.run("pause", container)
    threading.Event().wait(1)
    stack.engine.run("unpause", container)


def test_alertmanager_has_heard(stack: ComposeStack) -> None:
    told = httpx.get(f"{stack.alertmanager_url}/api/v2/alerts", timeout=30).json()
    assert "GatewayNoNodes" in {alert["labels"]["alertname"] for alert in told}


def test_every_alert_has_fired(fired: set[str]) -> None:
    """The tests above, all of which must have run."""
    assert set(NAMES) - fired == set()
