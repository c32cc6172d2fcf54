"""deploy/compose, run: who is where, chat through the balancer, and nothing lost whatever is done to it."""

import asyncio
import gc
import hashlib
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from centrifuge import Client, SubscriptionEventHandler

from loadtest.results import Results
from tests.support.compose_stack import RUNNABLE, ComposeStack, compose_stack
from tests.support.container_engine import ContainerEngine
from tests.support.loads import sets
from tests.support.processes import Finished, run
from tests.support.waiting import eventually, until

pytestmark = [pytest.mark.containers, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def stack(engine: ContainerEngine, image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComposeStack]:
    with compose_stack(engine, image, tmp_path_factory.mktemp("deploy")) as running:
        yield running


def ready_nodes(stack: ComposeStack) -> int:
    return int(stack.value('sum(gateway_ready{job="gateway"})') or 0)


def test_all_run_as_nobody_in_particular_on_roots_that_nobody_can_write(stack: ComposeStack) -> None:
    for service in RUNNABLE:
        containers = stack.containers(service)
        assert len(containers) == (3 if service == "gateway" else 1)
        for name in containers:
            told = stack.inspect(name)
            assert told["HostConfig"]["ReadonlyRootfs"], name
            assert told["HostConfig"]["CapDrop"] == ["ALL"], name
            assert told["Config"]["User"].split(":")[0] not in {"", "0", "root"}, name
            status = stack.engine.run("exec", name, "sh", "-c", "grep -E '^(Uid|CapEff):' /proc/1/status").stdout
            uid, capabilities = [line.split()[1] for line in status.splitlines()]
            assert int(uid) != 0
            assert int(capabilities, 16) == 0


def test_no_secret_is_in_what_the_engine_tells_of_a_container(stack: ComposeStack) -> None:
    for name in stack.containers("gateway"):
        told = str(stack.inspect(name))
        for secret in ("token_key", "api_key", "redis_password"):
            assert stack.secret(secret) not in told


async def test_an_official_sdk_chats_through_the_balancer(stack: ComposeStack) -> None:
    """Each with a connection of its own, so that several nodes take part."""

    class Hearing(SubscriptionEventHandler):
        def __init__(self) -> None:
            self.heard: list[Any] = []

        async def on_publication(self, ctx: Any) -> None:
            self.heard.append(ctx.pub.data)

    people = []
    for name in ("ann", "bob", "cem", "dov"):
        token = jwt.encode({"sub": name}, stack.secret("token_key"), "HS256")
        hearing = Hearing()
        client = Client(stack.client_url, token=token, ssl_context=stack.trust)
        room = client.new_subscription("lobby:sdk", hearing)
        await client.connect()
        await room.subscribe()
        people.append((client, room, hearing))
    for client, room, _ in people:
        await client.ready(timeout=10)
        await room.ready(timeout=10)
    for number, (_, room, _) in enumerate(people):
        await room.publish({"text": number})
    wanted = [{"text": number} for number in range(len(people))]
    await until(lambda: all(hearing.heard == wanted for *_, hearing in people))
    for client, *_ in people:
        await client.disconnect()
    # The SDK is done when its tasks are; what TLS still has to say goes out behind that.
    await until(lambda: asyncio.all_tasks() == {asyncio.current_task()})
    await until(lambda: all(each.is_closing() for each in transports()))
    await asyncio.sleep(0)  # each closes its socket in the turn after
    nodes = {
        line["node"]
        for line in stack.log_of("gateway")
        if line["event"] == "authenticated" and line["user"] in "ann bob cem dov"
    }
    assert len(nodes) > 1, "the balancer sent all to one node"
    addresses = {line["address"] for line in stack.log_of("gateway") if line["event"] == "authenticated"}
    assert stack.host_address in addresses, "what the balancer says of a client's address is not believed"


def transports() -> list[asyncio.Transport]:
    """Return those that this process has."""
    return [each for each in gc.get_objects() if issubclass(type(each), asyncio.Transport)]


async def test_the_command_line_works_as_the_readme_has_it(stack: ComposeStack) -> None:
    node = stack.containers("gateway")[0]
    made = stack.engine.run(
        "exec", node, "gateway", "token", "create", "--user", "alice", "--config", "/etc/gateway/gateway.toml"
    )
    environment = {"SSL_CERT_FILE": str(stack.secrets / "ca.pem"), "GATEWAY_TOKEN": made.stdout.strip()}
    environment |= {"GATEWAY_API_KEY": stack.secret("api_key"), "GATEWAY_URL": stack.client_url}

    async def gateway(*arguments: str) -> Finished:
        return await run(*arguments, environment=environment)

    published = await gateway("publish", "lobby:shell", '{"n": 1}', "--api", stack.admin_url)
    assert published.code == 0, published
    found = await gateway("subscribe", "lobby:shell", "--count", "1", "--since", "0")
    assert found.out == '{"n": 1}\n', found


def test_a_browser_elsewhere_is_refused_and_the_admin_page_is_behind_a_port_of_its_own(stack: ComposeStack) -> None:
    trusted = stack.trust
    assert httpx.get(f"{stack.site}/", verify=trusted).status_code == 200
    assert httpx.get(f"{stack.site}/metrics", verify=trusted).status_code == 404
    assert httpx.get(f"{stack.site}/admin", verify=trusted).status_code == 404
    assert httpx.get(f"{stack.admin_url}/admin", follow_redirects=True).status_code == 200


def test_a_node_with_a_wrong_secret_ends_with_a_line_that_says_which(stack: ComposeStack, image: str) -> None:
    given = {"BROKER__TYPE": "redis", "REDIS__ADDRESS": "redis:6379", "REDIS__USER": "gateway", "REDIS__PASSWORD": "no"}
    options = [part for name, value in given.items() for part in ("--env", f"GATEWAY_{name}={value}")]
    done = stack.engine.run("run", "--rm", "--network", f"{stack.project}_data", *options, image, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("redis.password: ")
    assert "Traceback" not in done.stderr


def chaos(stack: ComposeStack, path: Path, steps: dict[int, tuple[str, list[str]]], plateau_s: float) -> Results:
    """Load it with people who talk in rooms while commands are run at their seconds, and return what came of it."""
    lines = [f"{name} = {command!r}" for name, command in steps.values()]
    path.with_suffix(".toml").write_text("[commands]\n" + "\n".join(lines).replace("'", '"'))
    planned = [part for at_s, (name, _) in steps.items() for part in ("--chaos", f"run:{name}@{at_s}s")]
    people = sets(clients=60, rate=60, room_size=6, namespace="lobby", plateau_s=plateau_s, drain_s=30, ramp_up_s=2)
    load = stack.start_load(path, "chat", "--file", str(path.with_suffix(".toml")), *people, *planned)
    return load.end()


def test_scaling_stopping_pausing_and_cutting_off_loses_nothing(stack: ComposeStack, tmp_path: Path) -> None:
    docker = stack.engine.command
    nodes = stack.containers("gateway")
    steps = {
        2: ("five", stack.command("up", "--detach", "--no-recreate", "--no-build", "--scale", "gateway=5", "gateway")),
        14: ("stop", docker("stop", nodes[0])),
        24: ("pause", docker("pause", nodes[1])),
        34: ("unpause", docker("unpause", nodes[1])),
        38: ("disconnect", docker("network", "disconnect", stack.front, nodes[2])),
        50: ("connect", docker("network", "connect", "--alias", "gateway", stack.front, nodes[2])),
        56: ("two", stack.command("up", "--detach", "--no-recreate", "--no-build", "--scale", "gateway=2", "gateway")),
    }
    found = chaos(stack, tmp_path / "run.json", steps, plateau_s=75)
    assert found.verification.lost == found.verification.duplicated == found.verification.reordered == 0
    assert found.verification.recovered > 0, "nobody had anything to recover, so nothing was tried"
    assert len(stack.containers("gateway")) == 2
    stack.compose("up", "--detach", "--wait", "--no-build", "--scale", "gateway=3", "gateway")
    eventually(lambda: ready_nodes(stack) == 3, lambda: stack.compose("ps"))


def test_a_restart_of_redis_loses_nothing(stack: ComposeStack, tmp_path: Path) -> None:
    [redis] = stack.containers("redis")
    found = chaos(stack, tmp_path / "run.json", {3: ("restart", stack.engine.command("restart", redis))}, plateau_s=20)
    assert found.verification.lost == 0
    assert sum(second.reconnects for second in found.timeline) == 0, "clients were cut for it"


def test_a_new_password_of_redis_and_a_new_certificate_cut_nobody(stack: ComposeStack, tmp_path: Path) -> None:
    """As the README has it: both passwords are good for a while, nodes learn the new one, the old one goes."""
    folder = stack.secrets
    rules = (folder / "redis.acl").read_text()
    old = hashlib.sha256(stack.secret("redis_password").encode()).hexdigest()
    new = "a new password of thirty-two bytes"
    added = hashlib.sha256(new.encode()).hexdigest()
    [balancer] = stack.containers("balancer")
    people = sets(clients=60, rate=60, room_size=6, namespace="lobby", plateau_s=25)
    load = stack.start_load(tmp_path / "run.json", "chat", *people, "--assert", "reconnects=0", "--assert", "errors=0")
    load.reaches("plateau")

    def load_rules(text: str) -> None:
        stack.write_secret("redis.acl", text)
        assert stack.ask_redis("ACL", "LOAD") == "OK"

    load_rules(rules.replace(f"#{old}", f"#{old} #{added}"))
    stack.write_secret("redis_password", new)
    stack.compose("kill", "--signal", "HUP", "gateway")
    eventually(lambda: sum(line["event"] == "reloaded" for line in stack.log_of("gateway")) == 3, lambda: load.text)
    load_rules(rules.replace(f"#{old}", f"#{added}"))

    before = certificate_of(stack)
    stack.write_secret("balancer.pem", "")
    stack.make_secrets()
    stack.engine.run("kill", "--signal", "USR2", balancer)
    eventually(lambda: certificate_of(stack) not in {"", before}, lambda: stack.compose("logs", "balancer"))

    load.end()
    lines = stack.log_of("gateway")
    assert not [line for line in lines if line["event"] == "redis login refused"]
    # The next connection needs the new one.
    stack.ask_redis("CLIENT", "KILL", "USER", "gateway")
    eventually(lambda: ready_nodes(stack) == 3, lambda: str(stack.log_of("gateway")[-10:]))


def certificate_of(stack: ComposeStack) -> str:
    """Return the certificate that the balancer shows, nothing while it does not."""
    host, port = stack.site.removeprefix("https://").split(":")
    try:
        return ssl.get_server_certificate((host, int(port)), ca_certs=str(stack.secrets / "ca.pem"))
    except OSError:
        return ""
