"""Wakes an event loop at an exact time.

uvloop's and asyncio's own timers have a resolution of a millisecond, which is ten times what a delivery takes on one
machine. On Linux a timerfd (timerfd_create(2)) is exact to some 50 µs; elsewhere the loop's timer has to do.
"""

import asyncio
import contextlib
import ctypes
import os
import sys
from collections.abc import Callable
from typing import Final

from loadtest.stamps import now_us

_CLOCK_MONOTONIC: Final = 1
_FLAGS: Final = os.O_NONBLOCK | os.O_CLOEXEC if sys.platform == "linux" else 0
_ABSOLUTE: Final = 1


class _Time(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _Setting(ctypes.Structure):
    _fields_ = (("interval", _Time), ("value", _Time))


class Alarm:
    """Calls *callback* in the running loop whenever the time that was set last has come. Close it in the end."""

    def __init__(self, callback: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._callback = callback
        self._timer: asyncio.TimerHandle | None = None
        self._libc = ctypes.CDLL(None) if sys.platform == "linux" else None
        self._descriptor = self._libc.timerfd_create(_CLOCK_MONOTONIC, _FLAGS) if self._libc is not None else -1
        if self._descriptor >= 0:
            self._loop.add_reader(self._descriptor, self._ring)

    def set(self, at_us: int) -> None:
        """Ring at *at_us* of the monotonic clock, and not at the time that was set before."""
        if self._descriptor >= 0 and self._libc is not None:
            seconds, micros = divmod(max(at_us, 1), 1_000_000)
            setting = _Setting(_Time(0, 0), _Time(seconds, micros * 1000))
            self._libc.timerfd_settime(self._descriptor, _ABSOLUTE, ctypes.byref(setting), None)
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(max(0, at_us - now_us()) / 1e6, self._callback)

    def close(self) -> None:
        """Never ring again. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
        if self._descriptor >= 0:
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1

    def _ring(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._descriptor, 8)
            self._callback()
