"""A cluster that runs while a test wants it."""

import contextlib
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Final

from tests.support.kubernetes.cluster import Cluster
from tests.support.kubernetes.control_plane import start_control_plane
from tests.support.kubernetes.extensions import start_services
from tests.support.kubernetes.machine import bridged
from tests.support.kubernetes.programs import program_folder
from tests.support.waiting import eventually

_NODES: Final = (1, 2, 3)
_PATIENCE_S: Final = 300


@contextmanager
def running_cluster(images: Path) -> Iterator[Cluster]:
    """Run a cluster of three nodes, each with *images* on it, until the block ends.

    Raises:
        UnavailableError: if this machine can't.
    """
    with ExitStack() as stack:
        # Not below pytest's folder: paths of sockets have a limit.
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gwk-", ignore_cleanup_errors=True)))
        programs = program_folder(folder / "bin")
        stack.enter_context(bridged(_NODES))
        stack.callback(_unmount, folder)
        stack.callback(_remove_groups, [f"n{number}" for number in _NODES])
        began = time.monotonic()
        cluster = Cluster(folder, programs)
        stack.callback(cluster.stop_all)
        start_control_plane(cluster)
        for number in _NODES:
            cluster.start_node(number, images)
        start_services(cluster)
        for number in _NODES:
            eventually(partial(cluster.is_ready, number), partial(cluster.log_of, f"n{number}"), patience_s=_PATIENCE_S)
        cluster.started_in_s = time.monotonic() - began
        yield cluster


def _unmount(folder: Path) -> None:
    """Unmount what kubelets and containerd left below *folder*, innermost first."""
    mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for path in sorted((path for path in mounts if path.startswith(f"{folder}/")), reverse=True):
        subprocess.run(["umount", "--lazy", path], capture_output=True, check=False)


def _remove_groups(names: Sequence[str]) -> None:
    """Remove the nodes' cgroups, innermost first; those of the dead are empty."""
    for name in names:
        for root in Path("/sys/fs/cgroup").glob(f"*/{name}"):
            for path in sorted((each for each in root.rglob("*") if each.is_dir()), reverse=True):
                with contextlib.suppress(OSError):
                    path.rmdir()
            with contextlib.suppress(OSError):
                root.rmdir()
