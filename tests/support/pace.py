"""How fast this machine is right now, for tests that would otherwise measure that and nothing else."""

import functools
import json
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from tests.support.waiting import eventually

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
                eventually(lambda: _is_served(int(port)), lambda: f"nothing listens on {port}")
                asked = f"-p {port} -k {limit.pid} -n 300 -P 1 -W 1 -m 300 -s 100".split()
                command, environment = [str(folder / "meter"), *asked], {"PUBSELF": "1"}
                metered = subprocess.run(command, env=environment, capture_output=True, check=True, timeout=_TIMEOUT_S)
            finally:
                limit.kill()
    return float(json.loads(metered.stdout)["us_cpu_per_del"])


def _is_served(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
