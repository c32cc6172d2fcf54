"""One process of the cluster, and the screen that all of them write on."""

import asyncio
import contextlib
import os
import shlex
import signal
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, TextIO

from deploy.cluster.plan import without_password

STOP_TIMEOUT_S: Final = 15
_LAST_LINES: Final = 10
_LONGEST_LINE: Final = 65536

_COLOURS: Final = (1, 35, 31, 32, 33, 34, 36, 92, 93, 94, 95, 96)


class Screen:
    """Where lines go, each under the name of who says it; coloured on a terminal."""

    def __init__(self, stream: TextIO, names: Sequence[str], *, lost: Callable[[], None]) -> None:
        """Write on *stream* for all of *names*; *lost* is called when nobody reads any more."""
        self._stream = stream
        self._names = names
        self._lost = lost
        self._width = max(map(len, names))

    def say(self, name: str, text: str) -> None:
        """Write the lines of *text*, as said by *name*."""
        prefix = f"{name:<{self._width}} |"
        if self._stream.isatty():
            prefix = f"\x1b[{_COLOURS[self._names.index(name) % len(_COLOURS)]}m{prefix}\x1b[0m"
        self.show("\n".join(f"{prefix} {line}" for line in text.splitlines()))

    def show(self, text: str) -> None:
        """Write *text* as it is."""
        try:
            self._stream.write(f"{text}\n")
            self._stream.flush()
        except OSError:  # the terminal has gone, or the other end of a pipe; what is still buffered must go somewhere
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
            self._lost()


class Part:
    """One process of the cluster: *command* starts it, with *environment* added to ours."""

    def __init__(self, name: str, command: Sequence[str], environment: Mapping[str, str], screen: Screen) -> None:
        self.name = name
        self.has_ended = asyncio.Event()
        """Set once it has ended and all that it wrote is on the screen."""
        self.was_ready = False
        self._command = command
        self._environment = environment
        self._screen = screen
        self._process: asyncio.subprocess.Process | None = None
        self._is_stopping = False

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._started.pid

    @property
    def _started(self) -> asyncio.subprocess.Process:
        if self._process is None:
            raise AssertionError("a part is started before anything else")
        return self._process

    @property
    def command_line(self) -> str:
        """What to type to start it by hand; a password is left out."""
        words = [f"{name}={without_password(value)}" for name, value in self._environment.items()]
        here = Path.cwd()
        for word in self._command:
            is_below = Path(word).is_absolute() and Path(word).is_relative_to(here)
            words.append(str(Path(word).relative_to(here)) if is_below else word)
        return shlex.join(words)

    async def start(self) -> None:
        """Start it, in a process group of its own: a terminal sends Ctrl-C to a group, and the order would be lost."""
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            env={**os.environ, **self._environment},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            process_group=0,
        )

    async def watch(self) -> None:
        """Put what it writes on the screen until it ends, and report an end that nobody asked for."""
        last: deque[str] = deque(maxlen=_LAST_LINES)
        async for line in _lines(self._started.stdout):
            last.append(f"    {line}")
            self._screen.say(self.name, line)
        code = await self._started.wait()
        if not self._is_stopping:
            how = f"exited with code {code}" if code >= 0 else f"was ended by {signal.Signals(-code).name}"
            report = [f"{self.name} (pid {self.pid}) {how}. Its last lines:", *last]
            if self.was_ready:
                report += ["To start it again, in another terminal:", f"    {self.command_line}"]
            self._screen.say("cluster", "\n".join(report))
        self.has_ended.set()

    def ask_to_stop(self) -> None:
        """Have it end in its own way, also if somebody has paused it (SIGSTOP)."""
        self._is_stopping = True
        self._send(signal.SIGTERM)
        self._send(signal.SIGCONT)

    def kill(self) -> None:
        """End it at once."""
        self._is_stopping = True
        self._send(signal.SIGKILL)

    async def ended(self) -> None:
        """Wait until the process has ended; it is killed if that takes too long."""
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await self._started.wait()
        except TimeoutError:
            self._screen.say("cluster", f"{self.name} does not stop, so it is killed.")
            self.kill()
            await self._started.wait()

    def _send(self, signum: signal.Signals) -> None:
        # Not by the process' own method: that reaps a child that has just ended, and asyncio is then told no exit code.
        if self._started.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signum)


async def _lines(stream: asyncio.StreamReader | None) -> AsyncIterator[str]:
    """Yield the lines of *stream*; one that never ends comes in pieces."""
    if stream is None:
        raise AssertionError("every part is started with a pipe")
    rest = b""
    while data := await stream.read(_LONGEST_LINE):
        *lines, rest = (rest + data).split(b"\n")
        if len(rest) >= _LONGEST_LINE:
            lines, rest = [*lines, rest], b""
        for line in lines:
            yield line.decode(errors="replace")
    if rest:
        yield rest.decode(errors="replace")
