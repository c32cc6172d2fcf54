"""Run Autobahn's test suite against the echo server: `make conformance`; `make conformance-long` adds compression.

The suite is a program for Python 2.7. The first run installs it, from deploy/locks/autobahn.txt, into .venv/autobahn;
its report in HTML is left there, in `reports`.
"""
# ruff: noqa: T201 - the result goes to standard output

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[3]
LOCK: Final = ROOT / "deploy" / "locks" / "autobahn.txt"
ECHO_SERVER: Final = ROOT / "tests" / "support" / "echo_server.py"
HOME: Final = ROOT / ".venv" / "autobahn"
INSTALLED: Final = HOME / "installed.txt"
"""The lock that the installation was made from."""
REPORTS: Final = HOME / "reports"
INSTALL_TIMEOUT_S: Final = 600
SUITE_TIMEOUT_S: Final = 300
LONG_SUITE_TIMEOUT_S: Final = 3600

# Autobahn's groups, and how many cases each has. Left out is 9 (speed and large messages): it measures, for minutes.
GROUPS: Final = {
    1: ("framing", 16),
    2: ("pings and pongs", 11),
    3: ("reserved bits", 7),
    4: ("opcodes", 10),
    5: ("fragmentation", 20),
    6: ("UTF-8", 145),
    7: ("closing", 37),
    10: ("automatic fragmentation", 1),
    12: ("compression: messages", 90),
    13: ("compression: parameters", 126),
}
COMPRESSION: Final = (12, 13)

BEHAVIOURS: Final = ("OK", "NON-STRICT", "INFORMATIONAL", "FAILED")
WELL: Final = ("OK", "INFORMATIONAL")
# Text that stops being UTF-8 amid a message is refused at the message's end, not before, which the RFC leaves open.
# Plain websockets is NON-STRICT in these and seven more (232 OK, 11 NON-STRICT, 3 INFORMATIONAL) and fails 7.1.5.
TOLERATED: Final = {(f"6.4.{number}", "NON-STRICT") for number in (1, 2, 3, 4)}

Results = Mapping[str, Mapping[str, Any]]


class TroubleError(Exception):
    """Why there is no result, for the person who asked for one."""


def main() -> int:
    """Run the suite, print what it found and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--compression", action="store_true", help="run the groups 12 and 13 too; takes minutes")
    has_compression = parser.parse_args().compression
    python = find_python()
    if python is None:
        print("Autobahn: skipped, since it needs Python 2.7, which is neither on the path nor in pyenv.")
        return 0
    try:
        install(python)
        started = time.monotonic()
        results = dict(run([group for group in GROUPS if group not in COMPRESSION], timeout_s=SUITE_TIMEOUT_S))
        if has_compression:
            results |= run(COMPRESSION, "--compression", timeout_s=LONG_SUITE_TIMEOUT_S)
    except TroubleError as trouble:
        print(f"Autobahn: {trouble}", file=sys.stderr)
        return 1
    groups = [group for group in GROUPS if has_compression or group not in COMPRESSION]
    print(f"Autobahn 0.8.2, {time.monotonic() - started:.0f} s\n\n{table(results, groups)}\n")
    found = [*missing(results, groups), *worse(results)]
    if found:
        print("\n".join(found), f"The report: {REPORTS}", sep="\n", file=sys.stderr)
    return 1 if found else 0


def find_python() -> Path | None:
    """Return a Python 2.7 that runs; what the path holds may be pyenv's stand-in for one that is not chosen."""
    candidates = [Path(found)] if (found := shutil.which("python2.7")) else []
    if pyenv := shutil.which("pyenv"):
        root = subprocess.run([pyenv, "root"], check=False, capture_output=True, text=True).stdout.strip()
        candidates += sorted(Path(root).glob("versions/2.7*/bin/python2.7"), reverse=True)
    version = "import sys; sys.exit(sys.version_info[:2] != (2, 7))"
    for candidate in candidates:
        if subprocess.run([candidate, "-c", version], check=False, capture_output=True).returncode == 0:
            return candidate
    return None


def install(python: Path) -> None:
    """Have the suite in `HOME`, as the lock says.

    Raises:
        TroubleError: if a step of the installation fails.
    """
    lock = LOCK.read_text()
    if INSTALLED.is_file() and INSTALLED.read_text() == lock:
        return
    print(f"Installing {LOCK.relative_to(ROOT)}", flush=True)
    pip_install: list[str | Path] = [
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--require-hashes",
        "-r",
        LOCK,
    ]
    with tempfile.TemporaryDirectory() as maker:
        call(sys.executable, *pip_install, "--target", maker)
        environment = os.environ | {"PYTHONPATH": maker}
        options: list[str | Path] = ["--quiet", "--clear", "--no-periodic-update", "--python", python]
        call(sys.executable, "-m", "virtualenv", *options, HOME, environment=environment)
    call(HOME / "bin" / "python", *pip_install)
    INSTALLED.write_text(lock)


def call(*command: str | Path, environment: Mapping[str, str] | None = None) -> None:
    """Run one step of the installation, silently when it succeeds."""
    try:
        subprocess.run(
            command,
            check=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
            timeout=INSTALL_TIMEOUT_S,
        )
    except subprocess.CalledProcessError as error:
        raise TroubleError(f"the installation failed: {error}\n{error.stdout}") from error
    except subprocess.TimeoutExpired as error:
        raise TroubleError(f"the installation took too long: {error}") from error


def run(groups: Sequence[int], *server_options: str, timeout_s: float) -> Results:
    """Run the cases of *groups* against an echo server of their own and return the suite's report by case.

    Raises:
        TroubleError: if the suite does not come to its end.
    """
    report = REPORTS / "-".join(map(str, groups))
    shutil.rmtree(report, ignore_errors=True)
    with echo_server(*server_options) as port, tempfile.TemporaryDirectory() as folder:
        specification, log = Path(folder, "fuzzingclient.json"), Path(folder, "log")
        servers = [{"agent": "gateway", "url": f"ws://127.0.0.1:{port}"}]
        cases = {"cases": [f"{group}.*" for group in groups], "exclude-cases": [], "exclude-agent-cases": {}}
        specification.write_text(json.dumps({"outdir": str(report), "servers": servers, **cases}))
        command = [str(HOME / "bin" / "wstest"), "--mode", "fuzzingclient", "--spec", str(specification)]
        with log.open("wb") as stream:
            try:
                # In a folder of its own: the suite writes where it is started.
                subprocess.run(command, check=True, cwd=folder, stdout=stream, stderr=stream, timeout=timeout_s)
                results: dict[str, Results] = json.loads((report / "index.json").read_text())
            except (subprocess.SubprocessError, OSError) as error:
                last = "\n".join(line[:200] for line in log.read_text(errors="replace").splitlines()[-10:])
                raise TroubleError(f"the suite did not come to its end ({error}); its last words:\n{last}") from error
    return results["gateway"]


@contextmanager
def echo_server(*options: str) -> Iterator[int]:
    """Run the echo server and give its port."""
    server = subprocess.Popen([sys.executable, "-P", ECHO_SERVER, *options], stdout=subprocess.PIPE, text=True)
    try:
        line = server.stdout.readline() if server.stdout else ""
        if not line:
            raise TroubleError("the echo server did not start")
        yield int(line)
        if server.poll() is not None:
            raise TroubleError(f"the echo server ended by itself, with exit code {server.returncode}")
    finally:
        server.terminate()
        server.communicate()


def table(results: Results, groups: Sequence[int]) -> str:
    """Return how many cases of each group ended in which way."""
    counts = {group: Counter[str]() for group in groups}
    for case, result in results.items():
        counts[group_of(case)][result["behavior"]] += 1
    every = sum(counts.values(), Counter[str]())
    columns = [*BEHAVIOURS, *sorted(every.keys() - set(BEHAVIOURS))]
    rows = [[f"{group} {GROUPS[group][0]}", *(str(counts[group][column]) for column in columns)] for group in groups]
    rows.append(["all", *(str(every[column]) for column in columns)])
    lines = [["group", *columns], *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]) for line in lines)


def missing(results: Results, groups: Sequence[int]) -> list[str]:
    """Name the groups of which not all cases were run."""
    counts = Counter(map(group_of, results))
    return [
        f"{group}: {counts[group]} cases instead of {GROUPS[group][1]}"
        for group in groups
        if counts[group] != GROUPS[group][1]
    ]


def worse(results: Results) -> list[str]:
    """Name the cases that ended in a way that is not tolerated."""
    return [
        f"{case}: {result['behavior']}, closing {result['behaviorClose']}"
        for case, result in sorted(results.items(), key=lambda item: [int(part) for part in item[0].split(".")])
        if (result["behavior"] not in WELL and (case, result["behavior"]) not in TOLERATED)
        or result["behaviorClose"] not in WELL
    ]


def group_of(case: str) -> int:
    """Return the first number of a case's name."""
    return int(case.partition(".")[0])


if __name__ == "__main__":
    sys.exit(main())
