"""CPU time and memory of processes of this machine, read from /proc (proc(5)); other systems tell nothing here."""

import os
from pathlib import Path
from typing import Final, NamedTuple

_TICKS_A_SECOND: Final = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


class Reading(NamedTuple):
    """What a process has used so far."""

    cpu_s: float
    """User and system, of all its threads, without its children."""
    memory_bytes: int
    """Its resident set."""


def read(pid: int) -> Reading | None:
    """Return what process *pid* has used; `None` where there is no such process, or no /proc."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    user, system, pages = int(fields[11]), int(fields[12]), int(fields[21])
    return Reading((user + system) / _TICKS_A_SECOND, pages * _PAGE_BYTES)
