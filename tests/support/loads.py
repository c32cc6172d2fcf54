"""Runs of the load test as its user starts them."""

import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from loadtest import results
from loadtest.results import Results
from tests.support.processes import Finished, run_program

_TIMEOUT_S = 100  # only bounds a failing test
_BRIEF = ("ramp_up_s=0.3", "plateau_s=1.5", "ramp_down_s=0.2")


class Loaded(NamedTuple):
    """What a run left behind."""

    finished: Finished
    results: Results


async def load(*arguments: str, brief: bool = True, workers: int = 1) -> Loaded:
    """Run `loadtest run` with *arguments* to its end, by default a brief one."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "results.json"
        sets = [part for value in (_BRIEF if brief else ()) for part in ("--set", value)]
        command = (sys.executable, "-m", "loadtest", "run", *sets, *arguments)
        command += ("--quiet", "--workers", str(workers), "--results", str(path))
        finished = await run_program(*command, timeout_s=_TIMEOUT_S)
        assert path.exists(), finished
        return Loaded(finished, results.read(path))


def sets(**values: object) -> list[str]:
    """Return the arguments that set parameters."""
    return [part for name, value in values.items() for part in ("--set", f"{name}={value}")]
