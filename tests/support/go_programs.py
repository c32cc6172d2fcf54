"""Programs that come as Go modules, built once and kept in the user's cache folder."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from tests.support.promtool import CACHE

_TIMEOUT_S: Final = 1800
# Modules that a repository keeps in a folder of its own, and publishes too.
_STAGED: Final = re.compile(r"^\s*(\S+) => \./staging/\S+$", re.MULTILINE)


class UnavailableError(Exception):
    """Why a test can't have what it needs, in a sentence."""


class GoProgram(NamedTuple):
    """Where a program comes from."""

    name: str
    module: str
    version: str
    package: str = ""
    """Below the module."""
    variables: tuple[str, ...] = ()
    """What the linker sets, as `package.name=value`."""

    @property
    def path(self) -> Path:
        """Where it is kept once it is built."""
        return CACHE / f"{self.name}-{self.version}"


def built(program: GoProgram) -> Path:
    """Return where a program is, after building it if need be.

    Raises:
        UnavailableError: if that fails, or if there is no Go.
    """
    if program.path.exists():
        return program.path
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # A module of our own that requires it, since `go install` refuses one that replaces or excludes others.
        (folder / "go.mod").write_text("module tests\n\ngo 1.24\n", encoding="utf-8")
        _replace_staged(program, folder)
        package = "/".join(part for part in (program.module, program.package) if part)
        _go(program, ["get", f"{package}@{program.version}"], folder)
        flags = " ".join(["-s", "-w", *(f"-X {variable}" for variable in program.variables)])
        _finish(program, ["build", "-p", "2", "-trimpath", "-ldflags", flags], package, folder)
    return program.path


def own_program(name: str, source: Path, requires: Mapping[str, str]) -> Path:
    """Return where the program of one file, *source*, is, after building it with the modules it *requires*.

    Raises:
        UnavailableError: if that fails, or if there is no Go.
    """
    text = source.read_text(encoding="utf-8")
    version = hashlib.sha256(repr((text, sorted(requires.items()))).encode()).hexdigest()[:16]
    program = GoProgram(name, "tests", version)
    if program.path.exists():
        return program.path
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        (folder / "go.mod").write_text("module tests\n\ngo 1.24\n", encoding="utf-8")
        (folder / "main.go").write_text(text, encoding="utf-8")
        _go(program, ["get", *(f"{module}@{tag}" for module, tag in requires.items())], folder)
        _finish(program, ["build", "-p", "2", "-trimpath"], ".", folder)
    return program.path


def _finish(program: GoProgram, build: Sequence[str], package: str, folder: Path) -> None:
    """Build in two steps, so that a run at the same time never finds a half of it."""
    CACHE.mkdir(parents=True, exist_ok=True)
    unfinished = program.path.with_name(f"{program.path.name}.{os.getpid()}")
    _go(program, [*build, "-o", str(unfinished), package], folder)
    unfinished.replace(program.path)


def files_of(module: str, version: str) -> Path:
    """Return the folder with all files of a module.

    Raises:
        UnavailableError: if it can't be had.
    """
    return Path(_downloaded(GoProgram(module, module, version))["Dir"])


def _replace_staged(program: GoProgram, folder: Path) -> None:
    """Have what the module takes from its own folders come from their modules, whose versions begin with 0."""
    text = Path(_downloaded(program)["GoMod"]).read_text(encoding="utf-8")
    version = re.sub(r"^v1\.", "v0.", program.version)
    lines = [f"replace {name} => {name} {version}\n" for name in _STAGED.findall(text)]
    with (folder / "go.mod").open("a", encoding="utf-8") as file:
        file.writelines(lines)


def _downloaded(program: GoProgram) -> dict[str, str]:
    with tempfile.TemporaryDirectory() as folder:
        told = _go(program, ["mod", "download", "-json", f"{program.module}@{program.version}"], Path(folder))
    found: dict[str, str] = json.loads(told)
    return found


def _go(program: GoProgram, arguments: Sequence[str], folder: Path) -> str:
    if shutil.which("go") is None:
        raise UnavailableError(f"{program.name} is missing, and building it takes go")
    environment = os.environ | {"GOFLAGS": "-mod=mod", "CGO_ENABLED": "0"}
    done = subprocess.run(
        ["nice", "go", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=_TIMEOUT_S,
    )
    if done.returncode:
        raise UnavailableError(f"{program.name} can't be had: {' '.join(done.stderr.strip().splitlines()[-3:])}")
    return done.stdout
