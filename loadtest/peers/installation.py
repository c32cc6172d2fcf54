"""Installs what a peer needs into a folder of its own below the cache, once for each set of versions."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final, assert_never

from loadtest.peers.catalogue import DebianPackages, Needs, NodePackages, Peer, PythonPackages, ThisCheckout

_TIMEOUT_S: Final = 900
_STAMP: Final = "installed"
NGINX_STATE: Final = Path("/var/lib/nginx")
"""Debian's nginx with Nchan makes its folders for temporary files here, whatever its configuration says."""


class InstallationError(Exception):
    """Why a peer can't be had here, in one sentence."""


def install(peer: Peer, cache: Path) -> Path:
    """Have what *peer* needs, and return the folder that it is in.

    Raises:
        InstallationError: if it can't be had.
    """
    folder = cache / f"{peer.key}-{_version(peer.needs)}"
    if isinstance(peer.needs, ThisCheckout) or (folder / _STAMP).exists():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    try:
        folder.mkdir(parents=True)
        match peer.needs:
            case PythonPackages(requirements):
                # The pip that is here does it: a copy in each environment would take longer than all the rest.
                _call(sys.executable, "-m", "venv", "--without-pip", str(folder))
                pip = (sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python"))
                _call(*pip, "install", "--quiet", "--disable-pip-version-check", *requirements)
            case NodePackages(requirements):
                _install_node(folder, dict(requirements))
            case DebianPackages(names):
                _unpack_debian(folder, list(names))
            case _:
                assert_never(peer.needs)
        (folder / _STAMP).touch()
    except OSError as error:
        raise InstallationError(f"{error.filename}: {(error.strerror or 'failed').lower()}") from None
    return folder


def _version(needs: Needs) -> str:
    """Return a name for this set of versions, on this Python."""
    return hashlib.sha256(f"{needs} {sys.version_info[:2]}".encode()).hexdigest()[:12]


def _install_node(folder: Path, requirements: dict[str, str]) -> None:
    if shutil.which("node") is None or shutil.which("npm") is None:
        raise InstallationError("it needs Node.js and npm: apt-get install nodejs npm")
    package = {"private": True, "dependencies": requirements}
    (folder / "package.json").write_text(json.dumps(package), encoding="utf-8")
    _call("npm", "install", "--prefix", str(folder), "--silent", "--omit=dev", "--no-audit", "--no-fund")


def _unpack_debian(folder: Path, names: list[str]) -> None:
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise InstallationError("it is taken from Debian's packages, and this is no Debian or Ubuntu")
    if not NGINX_STATE.exists():
        if os.geteuid() != 0:
            raise InstallationError(f"it needs the folder {NGINX_STATE}, which root may make")
        NGINX_STATE.mkdir(parents=True)
    _call("apt-get", "download", "--quiet", *names, cwd=folder)
    for package in sorted(folder.glob("*.deb")):
        _call("dpkg-deb", "--extract", str(package), str(folder))


def _call(*command: str, cwd: Path | None = None) -> None:
    """Run one step, silently when it succeeds."""
    try:
        done = subprocess.run(  # noqa: S603 - the commands above
            command,
            check=False,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired:
        raise InstallationError(f"`{' '.join(command[:4])} …` took longer than {_TIMEOUT_S} s") from None
    if done.returncode:
        last = next((line for line in reversed(done.stdout.splitlines()) if line.strip()), "it said nothing").strip()
        raise InstallationError(f"`{' '.join(command[:4])} …` failed: {last}")
