"""Packages of npm, installed once and kept in the user's cache folder."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from tests.support.go_programs import UnavailableError
from tests.support.promtool import CACHE

_TIMEOUT_S: Final = 300


def npm_folder(*packages: str) -> Path:
    """Return a folder in which Node.js finds *packages*, each `name@version`, after installing them if need be.

    Raises:
        UnavailableError: if that fails, or if there is no Node.js.
    """
    folder = CACHE / "-".join(["npm", *(package.replace("/", "_") for package in packages)])
    if shutil.which("node") is None or shutil.which("npm") is None:
        raise UnavailableError("there is no Node.js with npm here")
    if folder.exists():
        return folder
    CACHE.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=folder.name, dir=CACHE))
    command = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts", *packages]
    try:
        subprocess.run(command, cwd=unfinished, check=True, capture_output=True, text=True, timeout=_TIMEOUT_S)
    except (OSError, subprocess.SubprocessError) as error:
        shutil.rmtree(unfinished)
        said = getattr(error, "stderr", "") or error
        message = f"npm does not install {', '.join(packages)}: {said}"
        raise UnavailableError(message) from None
    # In two steps, so that a run at the same time never finds a half of it.
    try:
        unfinished.replace(folder)
    except OSError:
        shutil.rmtree(unfinished)  # another run was faster
    return folder


def environment() -> dict[str, str]:
    """Return what Node.js is to be run with: this process' own, but for options that would change what it prints."""
    return {name: value for name, value in os.environ.items() if name != "NODE_OPTIONS"}
