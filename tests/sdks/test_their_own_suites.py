"""The test suites of official SDKs themselves, as they come with the packages, against a node configured as they want.

They name the address of their server in their sources; that, and nothing else, is changed in a copy. They look at the
clock now and then, so they want the machine for themselves.
"""

import asyncio
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Final

import pytest

from tests.support.go_programs import UnavailableError, files_of
from tests.support.processes import serving
from tests.support.promtool import CACHE

THEIR_ADDRESS: Final = "localhost:8000"
COMMON: Final = """
[http_server]
address = "127.0.0.1"
[log]
format = "json"
[client]
allowed_origins = ["*"]
command_rate = 0
"""
# They publish what is no JSON, too.
STREAM: Final = """
history_size = 100
history_ttl = "300s"
force_recovery = true
allowed_delta_types = ["fossil"]
delta_publish = true
publication_data_format = "any"
"""
SMALL: Final = """
[[channel.namespaces]]
name = "smallhistory"
history_size = 2
history_ttl = "300s"
force_recovery = true
"""
FOR_SUBSCRIBERS: Final = """
allow_publish_for_subscriber = true
allow_history_for_subscriber = true
"""
GO: Final = f"{COMMON}insecure = true\n[channel.without_namespace]{STREAM}{SMALL}"
PYTHON: Final = f"""
{COMMON}
token = {{hmac_secret_key = "secret"}}
subscribe_to_user_personal_channel = {{enabled = true}}
[channel.without_namespace]
{STREAM}
presence = true
join_leave = true
force_push_join_leave = true
allow_presence_for_subscriber = true
{FOR_SUBSCRIBERS}
{SMALL}
{FOR_SUBSCRIBERS}
"""
GO_MODULE: Final = ("github.com/centrifugal/centrifuge-go", "v0.12.1")


def written(folder: Path, config: str) -> str:
    path = folder / "gateway.toml"
    path.write_text(config)
    return str(path)


def pointed(source: Path, target: Path, address: str, pattern: str) -> None:
    """Copy a tree, with *address* in the place of theirs."""
    shutil.copytree(source, target)
    for path in [target, *target.rglob("*")]:
        path.chmod(path.stat().st_mode | 0o200)  # Go keeps modules read-only
    for path in target.rglob(pattern):
        path.write_text(path.read_text(encoding="utf-8").replace(THEIR_ADDRESS, address), encoding="utf-8")


def run(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=300)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said[-5000:]
    return said


@pytest.mark.long
@pytest.mark.timeout(400)
async def test_all_of_centrifuge_go_passes(tmp_path: Path) -> None:
    try:
        source = await asyncio.to_thread(files_of, *GO_MODULE)
    except UnavailableError as error:
        pytest.skip(str(error))
    async with serving("--config", written(tmp_path, GO)) as node:
        pointed(source, tmp_path / "sdk", node.address, "*_test.go")
        said = await asyncio.to_thread(run, ["go", "test", "-count=1", "-v", "./..."], tmp_path / "sdk")
    assert len(re.findall(r"^--- PASS", said, re.MULTILINE)) >= 59
    assert not re.findall(r"^--- (FAIL|SKIP)", said, re.MULTILINE)


def python_sources() -> Path:
    """Return the sources of the Python SDK that is installed here, tests included."""
    version = importlib.metadata.version("centrifuge-python")
    folder = CACHE / f"centrifuge-python-{version}"
    if not folder.exists():
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
        with_version = f"centrifuge-python=={version}"
        CACHE.mkdir(parents=True, exist_ok=True)
        unpacked = CACHE / f"{folder.name}.{os.getpid()}"
        run([*command, "--dest", str(unpacked), with_version], CACHE)
        with tarfile.open(next(unpacked.glob("*.tar.gz"))) as archive:
            archive.extractall(unpacked, filter="data")
        unpacked.replace(folder)
    return next(path for path in folder.iterdir() if path.is_dir())


@pytest.mark.long
@pytest.mark.timeout(400)
async def test_all_of_centrifuge_python_passes(tmp_path: Path) -> None:
    source = await asyncio.to_thread(python_sources)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "tests"]
    for name in ("test_get_client_token", "test_get_subscription_token"):  # those are none, but for their names
        command += ["--deselect", f"tests/test_client.py::{name}"]
    async with serving("--config", written(tmp_path, PYTHON)) as node:
        pointed(source / "tests", tmp_path / "tests", node.address, "*.py")
        said = await asyncio.to_thread(run, command, tmp_path)
    ran = re.search(r"(\d+) passed", said)
    assert ran is not None, said[-2000:]
    assert int(ran[1]) >= 185
    assert "skipped" not in said
