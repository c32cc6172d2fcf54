"""The servers of a comparison of peers, as processes."""

import os
import sys
from pathlib import Path

import pytest

from loadtest.peers.processes import ServerError, free_port, running
from tests.support.waiting import until

_PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-m", "http.server", sys.argv[1], "--bind", "127.0.0.1"])
print(child.pid, flush=True)
child.wait()
"""


def _memory_kb(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1000


def _has_ended(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().split()[2] == "Z"


async def test_cpu_and_memory_are_those_of_all_its_processes_and_all_end(tmp_path: Path) -> None:
    port = free_port()
    async with running([sys.executable, "-c", _PARENT, str(port)], port, tmp_path) as server:
        child = int((tmp_path / f"{port}.log").read_text().split()[0])
        assert server.memory_kb() > _memory_kb(child) > 1000
        assert server.cpu_s() > 0
    await until(lambda: _has_ended(child))


async def test_a_server_that_ends_at_once_is_told_with_its_last_words(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import sys; sys.exit('no luck today')"]
    with pytest.raises(ServerError, match=r"^the server did not start: no luck today$"):
        async with running(command, free_port(), tmp_path):
            pytest.fail("it did not start")


async def test_a_program_that_is_not_there_is_told_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ServerError, match=r"^no-such-program: no such file or directory$"):
        async with running(["no-such-program"], free_port(), tmp_path):
            pytest.fail("it did not start")
