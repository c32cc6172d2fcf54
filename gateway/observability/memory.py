"""How much memory the process takes, and whether that is too much for new clients."""

import os
from pathlib import Path
from typing import Final

_STATM: Final = Path("/proc/self/statm")
_READY_AGAIN: Final = 0.95
"""Below how much of its watermark a node is ready again: memory comes and goes, readiness should not."""
_MIB: Final = 1048576


def is_measurable() -> bool:
    """Tell whether this system says how much memory a process takes."""
    return _STATM.exists()


def resident_bytes() -> int:
    """Return how much memory this process takes; you must know that it is measurable."""
    return int(_STATM.read_bytes().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Watermark:
    """Too much is *limit_bytes*, until it is clearly less again; 0: nothing is too much."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self._used_bytes = 0
        self._is_over = False

    def note(self, used_bytes: int) -> None:
        """Take note of how much is used now."""
        self._used_bytes = used_bytes
        self._is_over = used_bytes >= self.limit_bytes * (_READY_AGAIN if self._is_over else 1)

    @property
    def trouble(self) -> str | None:
        """What is wrong, `None` if nothing is."""
        if not self._is_over:
            return None
        used, limit = self._used_bytes / _MIB, self.limit_bytes / _MIB
        return f"{used:.0f} MiB of memory are in use, health.memory_watermark is {limit:.0f} MiB"
