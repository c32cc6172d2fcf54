"""Prometheus' own checker of metrics, taken out of Debian's package: installed, that would start a service."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

_TIMEOUT_S = 120
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "gateway-tests"
"""Where tests keep what they have fetched."""
_CACHED = CACHE / "promtool"


def find_promtool() -> str | None:
    """Return where promtool is, after fetching it if need be (19 MB, once); `None` where it can't be had."""
    found = shutil.which("promtool")
    if found is not None:
        return found
    return str(_CACHED) if _CACHED.exists() or _fetch() else None


def complaints(promtool: str, page: str) -> str:
    """Return what promtool has against a *page* of metrics."""
    check = subprocess.run(
        [promtool, "check", "metrics"], input=page, capture_output=True, text=True, check=False, timeout=_TIMEOUT_S
    )
    return check.stdout + check.stderr or (f"exit code {check.returncode}" if check.returncode else "")


def _fetch() -> bool:
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        return False
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            _run("apt-get", "-qq", "download", "prometheus", folder=folder)
            [package] = folder.glob("prometheus_*.deb")
            _run("dpkg-deb", "--extract", str(package), "tree", folder=folder)
            _CACHED.parent.mkdir(parents=True, exist_ok=True)
            # In two steps, so that a run at the same time never finds a half of it.
            unfinished = _CACHED.with_name(f"promtool.{os.getpid()}")
            shutil.copy(folder / "tree" / "usr" / "bin" / "promtool", unfinished)
            unfinished.replace(_CACHED)
        except (OSError, ValueError, subprocess.SubprocessError):
            return False
    return True


def _run(*command: str, folder: Path) -> None:
    subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=_TIMEOUT_S)
