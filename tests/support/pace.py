"""How fast this machine is right now, for tests that would otherwise measure that and nothing else."""

import functools
import json
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Final

_BENCHMARKS: Final = Path(__file__).parents[1] / "benchmarks"
_DELIVERIES_A_SECOND: Final = 72_000
_AT_US: Final = 2.5
"""What a machine bore, nodes and clients together on its two cores, whose least cost of a delivery was this."""
_TIMEOUT_S: Final = 60


@functools.cache
def bearable_deliveries() -> float:
    """Return how many deliveries a second a cluster and its clients on this machine can do without falling behind.

    Without a C compiler it is taken for a fast one.
    """
    return _DELIVERIES_A_SECOND * min(1.0, _AT_US / delivery_us()) if shutil.which("cc") else _DELIVERIES_A_SECOND


def delivery_us() -> float:
    """Return the least CPU time of a delivery: a send() that wakes a client (tests/benchmarks/limit.c)."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for program in ("limit", "meter"):
            source = _BENCHMARKS / f"{program}.c"
            subprocess.run(["cc", "-O2", "-w", "-o", folder / program, source], check=True, timeout=_TIMEOUT_S)
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = str(free.getsockname()[1])
        with subprocess.Popen([folder / "limit", port]) as limit:
            try:
                _until_served(int(port))
                options = [
                    "-p",
                    port,
                    "-k",
                    str(limit.pid),
                    "-n",
                    "300",
                    "-P",
                    "1",
                    "-W",
                    "1",
                    "-m",
                    "300",
                    "-s",
                    "100",
                ]
                metered = subprocess.run(
                    [folder / "meter", *options],
                    env={"PUBSELF": "1"},
                    capture_output=True,
                    check=True,
                    timeout=_TIMEOUT_S,
                )
            finally:
                limit.kill()
    return float(json.loads(metered.stdout)["us_cpu_per_del"])


def _until_served(port: int) -> None:
    deadline = time.monotonic() + _TIMEOUT_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return
