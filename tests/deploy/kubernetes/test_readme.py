"""The README's page about Kubernetes: each of its commands, in its order, as somebody who follows it runs them."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.container_engine import ROOT
from tests.support.kubernetes.cluster import Cluster
from tests.support.kubernetes.installation import add_volume, remove
from tests.support.kubernetes.report import Report

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(1800)]

_PAGE = re.compile(r"^### On Kubernetes\n(.*?)^### ", re.MULTILINE | re.DOTALL)
_BLOCK = re.compile(r"^```\n(.*?)^```\n", re.MULTILINE | re.DOTALL)
_COPIED = "cp -r deploy/kubernetes/overlays/production deploy/kubernetes/overlays/ours"
# What the page asks its reader to edit. Here: there is a Redis, and machines are small.
_EDIT = "sed -i 's|^components:|&\\n  - ../../components/redis|' deploy/kubernetes/overlays/ours/kustomization.yaml"
# A reader is not as quick as a shell.
_FORWARDED = "until curl -s localhost:8000 && curl -s localhost:9000/livez; do sleep 0.2; done >/dev/null"
_TIMEOUT_S = 900


def blocks() -> list[str]:
    [page] = _PAGE.findall((ROOT / "README.md").read_text(encoding="utf-8"))
    return [str(block) for block in _BLOCK.findall(page)]


@pytest.fixture
def checkout(cluster: Cluster, tmp_path: Path) -> Iterator[Path]:
    """A folder as a reader has it, and volumes for the two Redis that the page starts."""
    shutil.copytree(ROOT / "deploy", tmp_path / "deploy", ignore=shutil.ignore_patterns("secrets", "__pycache__"))
    (tmp_path / ".venv").symlink_to(ROOT / ".venv")
    for name in ("readme-1", "readme-2"):
        add_volume(cluster, name)
    yield tmp_path
    remove(cluster, "gateway")
    cluster.kubectl("delete", "persistentvolume", "readme-1", "readme-2", "--ignore-not-found")


def test_every_command_works_in_its_order(cluster: Cluster, checkout: Path, report: Report) -> None:
    commands = blocks()
    assert len(commands) == 6, "the page has other blocks than this test knows of"
    for number, block in enumerate(commands, start=1):
        text = block.replace(_COPIED, f"{_COPIED}\n{_EDIT}\ntrue").replace("TOKEN=", f"{_FORWARDED}\nTOKEN=")
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-m", "-c", text],
            cwd=checkout,
            env=cluster.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=_TIMEOUT_S,
        )
        assert done.returncode == 0, (
            f"block {number} ended with {done.returncode}:\n{block}\n{done.stdout}{done.stderr}"
        )
        assert "Warning" not in done.stderr, done.stderr
        if number == 2:
            assert '{"text": "hi"}' in done.stdout, done.stdout
    lines = sum(not line.startswith(" ") for block in commands for line in block.splitlines())
    report.add("each command of this page, in its order", f"{lines} commands, all as they should")
