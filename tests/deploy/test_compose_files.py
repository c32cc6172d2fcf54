"""Compose, the image's recipe and the proxies' configurations, as far as that can be told without starting them."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from compose_viz.spec.compose_spec import ComposeSpecification

from gateway.config import load

_DEPLOY = Path(__file__).parents[2] / "deploy"
_FOLDER = _DEPLOY / "compose"
_WHOLE: dict[str, Any] = yaml.safe_load((_FOLDER / "compose.yaml").read_text(encoding="utf-8"))
# What other programs read the files with, wherever the system keeps it.
_PATH = f"{os.environ['PATH']}:/usr/local/sbin:/usr/sbin:/sbin"
SERVICES: dict[str, dict[str, Any]] = _WHOLE["services"]
_BIND = re.compile(r"(\.\.?/[^:]+):[^:]+:ro")


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PATH": _PATH}
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=environment)


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compose") / "secrets"
    made = run(_FOLDER / "make-secrets", folder)
    assert (made.returncode, made.stdout, made.stderr) == (0, "", "")
    return folder


def test_compose_is_as_its_specification_wants_it() -> None:
    ComposeSpecification.model_validate({key: table for key, table in _WHOLE.items() if not key.startswith("x-")})


@pytest.mark.parametrize("service", SERVICES.values(), ids=list(SERVICES))
def test_a_service_may_do_no_more_than_it_must(service: dict[str, Any]) -> None:
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["restart"] == "unless-stopped"
    assert service["logging"]["options"]["max-size"]
    # Nobody but the balancer's clients comes from other machines, and they only if somebody says so.
    assert all(port.startswith(("127.0.0.1:", "${PUBLISH:-127.0.0.1}:")) for port in service.get("ports", []))


@pytest.mark.parametrize("service", SERVICES.values(), ids=list(SERVICES))
def test_what_a_service_is_given_is_there(service: dict[str, Any]) -> None:
    for volume in service.get("volumes", []):
        if bind := _BIND.fullmatch(volume):
            assert (_FOLDER / bind[1]).exists(), bind[1]
        else:
            assert volume.split(":")[0] in _WHOLE["volumes"]
    assert set(service.get("secrets", [])) <= set(_WHOLE["secrets"])
    named = {value for name, value in service.get("environment", {}).items() if name.endswith("_FILE")}
    assert {Path(path).name for path in named} <= set(service.get("secrets", []))


@pytest.mark.parametrize("name", [name for name in SERVICES if name != "gateway"])
def test_an_image_has_a_version(name: str) -> None:
    assert re.fullmatch(r"\$\{[A-Z_]+:-docker\.io/[\w/-]+:v?\d[\w.-]*\}", SERVICES[name]["image"])


def test_all_secrets_are_made_and_kept(secrets: Path) -> None:
    wanted = {Path(table["file"]).name for table in _WHOLE["secrets"].values()}
    assert wanted <= {path.name for path in secrets.iterdir()}
    before = {path.name: path.read_bytes() for path in secrets.iterdir()}
    assert run(_FOLDER / "make-secrets", secrets).returncode == 0
    assert {path.name: path.read_bytes() for path in secrets.iterdir()} == before
    values = [before[name] for name in ("token_key", "api_key", "redis_password", "grafana_password")]
    assert len(set(values)) == len(values)
    assert all(re.fullmatch(rb"[0-9a-f]{64}", value) for value in values)


def test_nobody_else_on_the_machine_gets_at_them(secrets: Path) -> None:
    assert secrets.stat().st_mode & 0o777 == 0o700
    assert (secrets / "ca.key").stat().st_mode & 0o077 == 0


def test_redis_knows_the_password_by_its_hash_alone(secrets: Path) -> None:
    rules = (secrets / "redis.acl").read_text()
    password = (secrets / "redis_password").read_text()
    assert password not in rules
    assert f"user gateway on #{hashlib.sha256(password.encode()).hexdigest()} " in rules
    assert "user default off" in rules.splitlines()


def test_the_certificate_is_for_this_machine_and_signed_by_the_authority_beside_it(secrets: Path) -> None:
    checked = run("openssl", "verify", "-CAfile", secrets / "ca.pem", secrets / "balancer.pem")
    assert checked.returncode == 0, checked
    named = run("openssl", "x509", "-in", secrets / "balancer.pem", "-noout", "-ext", "subjectAltName")
    assert "DNS:localhost" in named.stdout


def test_the_nodes_take_their_configuration(secrets: Path) -> None:
    given = SERVICES["gateway"]["environment"]
    environment = {name: path.replace("/run/secrets", str(secrets)) for name, path in given.items()}
    config = load(_FOLDER / "gateway.toml", environment=environment)
    assert SERVICES["gateway"]["stop_grace_period"] == "60s"
    assert config.shutdown.timeout_s < 60
    assert "allow_anonymous_connect_without_token = true" not in (_FOLDER / "gateway.toml").read_text()


def test_haproxy_takes_its_configuration(secrets: Path, tmp_path: Path) -> None:
    if shutil.which("haproxy", path=_PATH) is None:
        pytest.skip("there is no haproxy")
    text = (_FOLDER / "haproxy.cfg").read_text()
    assert "on-marked-down" not in "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    path = tmp_path / "haproxy.cfg"
    path.write_text(text.replace("/run/secrets/", f"{secrets}/"))
    checked = run("haproxy", "-c", "-f", path)
    assert checked.returncode == 0, checked.stderr
    assert "WARNING" not in checked.stderr


def test_the_image_has_a_tidy_recipe() -> None:
    linted = run(Path(sys.executable).with_name("hadolint"), _DEPLOY / "Containerfile")
    assert linted.returncode == 0, linted.stdout


def test_the_image_is_built_from_what_is_let_in_alone() -> None:
    """No checkout's secrets, tests or history can get into a layer: all is left out, and these few are let in again."""
    lines = [line for line in (_DEPLOY.parent / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    assert lines[0] == "*"
    assert {line.removeprefix("!/") for line in lines if line.startswith("!")} == {
        "gateway",
        "deploy/locks",
        "pyproject.toml",
        "README.md",
        "LICENSE",
    }
