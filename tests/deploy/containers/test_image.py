"""The image: what is in it, as whom it runs, and how it behaves towards an engine."""

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.support.container_engine import ContainerEngine
from tests.support.waiting import eventually

pytestmark = [pytest.mark.containers, pytest.mark.timeout(900)]

HARDENED = ("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")


class Container:
    """One that runs, or did."""

    def __init__(self, engine: ContainerEngine, name: str) -> None:
        self._engine = engine
        self.name = name

    @property
    def state(self) -> dict[str, Any]:
        """What the engine says of it."""
        found: dict[str, Any] = json.loads(self._engine.run("inspect", self.name).stdout)[0]["State"]
        return found

    @property
    def health(self) -> str:
        return str(self.state["Health"]["Status"])

    @property
    def log(self) -> list[str]:
        done = self._engine.run("logs", self.name)
        return (done.stdout + done.stderr).splitlines()

    def run(self, *command: str) -> tuple[int, str]:
        """Run *command* in it; return the exit code and what it printed."""
        done = self._engine.run("exec", self.name, *command, check=False)
        return done.returncode, (done.stdout + done.stderr).strip()

    def signal(self, name: str) -> None:
        self._engine.run("kill", "--signal", name, self.name)


@contextmanager
def container(
    engine: ContainerEngine, image: str, *arguments: str, options: tuple[str, ...] = ()
) -> Iterator[Container]:
    name = f"gateway-test-{uuid.uuid4().hex[:8]}"
    engine.run("run", "--detach", "--name", name, *HARDENED, *options, image, *arguments)
    try:
        yield Container(engine, name)
    finally:
        engine.run("rm", "--force", name)


def test_it_runs_as_nobody_on_a_root_that_nobody_can_write_and_is_healthy(engine: ContainerEngine, image: str) -> None:
    with container(engine, image, "serve", "--dev") as node:
        eventually(lambda: node.health == "healthy", lambda: f"{node.health}: {node.log}")
        assert node.run("id", "-u") == (0, "65532")
        assert node.run("touch", "/x")[0] != 0
        assert node.run("gateway", "health", "readyz") == (0, "ok")


def test_nothing_is_in_it_that_only_a_build_needs(engine: ContainerEngine, image: str) -> None:
    with container(engine, image, "serve", "--dev") as node:
        for tool in ("pip", "pip3", "cc", "gcc", "make", "curl", "git"):
            assert node.run("sh", "-c", f"command -v {tool}")[0] != 0, f"{tool} is in the image"
        for module in ("pip", "setuptools", "ensurepip", "hatchling", "pytest"):
            assert node.run("python", "-c", f"import {module}")[0] != 0, f"{module} is in the image"
        assert node.run("sh", "-c", "find / -xdev -type f -perm /6000 2>/dev/null; true") == (0, "")


def test_all_that_a_node_imports_is_compiled_since_nothing_can_be_kept_there(
    engine: ContainerEngine, image: str
) -> None:
    program = """
import os, sys, gateway.node
wanted = [getattr(module, "__cached__", "") for module in sys.modules.values()]
print([path for path in wanted if path and not os.path.exists(path)])
"""
    with container(engine, image, "serve", "--dev") as node:
        assert node.run("python", "-c", program) == (0, "[]")


def test_its_labels_say_what_it_is(engine: ContainerEngine, image: str) -> None:
    labels = json.loads(engine.run("inspect", image).stdout)[0]["Config"]["Labels"]
    told = {name.removeprefix("org.opencontainers.image."): value for name, value in labels.items()}
    assert told == {
        "title": "gateway",
        "description": "A WebSocket publish/subscribe gateway",
        "licenses": "Apache-2.0",
        "version": "1.2.3",
        "revision": "abc",
    }


def test_sigterm_reaches_the_node_which_ends_by_itself(engine: ContainerEngine, image: str) -> None:
    with container(engine, image, "serve", "--dev") as node:
        eventually(lambda: node.health == "healthy", lambda: f"{node.health}: {node.log}")
        node.signal("TERM")
        eventually(lambda: not node.state["Running"], lambda: str(node.log))
        assert node.state["ExitCode"] == 0
        assert any('"stopped"' in line for line in node.log)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--env", "GATEWAY_CLIENT__PING_INTERVALL=1s"), "GATEWAY_CLIENT__PING_INTERVALL"),
        (("--env", "GATEWAY_HTTP_SERVER__PORT=many"), "GATEWAY_HTTP_SERVER__PORT"),
        (("--env", "GATEWAY_REDIS__PASSWORD_FILE=/run/secrets/none"), "/run/secrets/none: No such file or directory"),
    ],
)
def test_what_is_wrong_with_its_configuration_is_one_line_of_its_log(
    options: tuple[str, ...], words: str, engine: ContainerEngine, image: str
) -> None:
    with container(engine, image, options=options) as node:
        eventually(lambda: not node.state["Running"], lambda: str(node.log))
        assert node.state["ExitCode"] == 2
        [line] = node.log
        assert words in line


def test_a_node_without_its_redis_lives_unready_and_says_so_in_a_line(engine: ContainerEngine, image: str) -> None:
    away = ("--env", "GATEWAY_BROKER__TYPE=redis", "--env", "GATEWAY_REDIS__ADDRESS=127.0.0.1:6")
    with container(engine, image, options=away) as node:
        eventually(lambda: node.health == "healthy", lambda: f"{node.health}: {node.log}")
        code, said = node.run("gateway", "health", "readyz")
        assert code == 1
        assert "127.0.0.1:6" in said
        assert len([line for line in node.log if "127.0.0.1:6" in line and '"level":"warning"' in line]) == 1
