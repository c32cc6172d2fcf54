"""The machine that a run is made on."""

import os
import platform

from loadtest.results import Machine


def describe(*, load_before: float) -> Machine:
    """Return what results tell of this machine; *load_before* is what `os.getloadavg` said before the run."""
    return Machine(
        system=f"{platform.system()} {platform.release()}",
        architecture=platform.machine(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        memory_bytes=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        python=f"{platform.python_implementation()} {platform.python_version()}",
        load_before=round(load_before, 2),
    )
