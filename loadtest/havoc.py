"""Carries out chaos, and notes what was done."""

import asyncio
import contextlib
import signal
from collections.abc import Callable, Mapping, Sequence
from typing import Final, assert_never

from loadtest.chaos import Action, Done, Verb
from loadtest.servers import Process, ServerError, Servers
from loadtest.stamps import now_us

_COMMAND_TIMEOUT_S: Final = 60.0


class Havoc:
    """Does *actions* to *servers*, each at its time, and tells *on_strike* of each as it begins."""

    def __init__(
        self,
        actions: Sequence[Action],
        servers: Servers,
        commands: Mapping[str, list[str]],
        on_strike: Callable[[str], None],
    ) -> None:
        self.done: list[Done] = []
        self.notes: list[str] = []
        self._actions = sorted(actions, key=lambda action: action.at_s)
        self._servers = servers
        self._commands = commands
        self._on_strike = on_strike
        self._stopped: set[Process] = set()

    async def wreak(self, begin_us: int) -> None:
        """Do all of them; *begin_us* is when the plateau begins. Cancelling leaves the rest undone."""
        async with asyncio.TaskGroup() as tasks:
            for action in self._actions:
                await asyncio.sleep(max(0.0, (begin_us - now_us()) / 1e6 + action.at_s))
                tasks.create_task(self._carry_out(action), name=str(action))

    async def undo(self) -> None:
        """Let go on what was stopped."""
        for process in list(self._stopped):
            self._go_on(process)

    async def _carry_out(self, action: Action) -> None:
        place = len(self.done)
        self.done.append(Done(now_us(), str(action), ""))
        self._on_strike(str(action))
        try:
            detail = await self._do(action)
        except (ServerError, OSError) as error:
            detail = str(error)
            self.notes.append(f"{action} failed: {error}")
        self.done[place] = self.done[place]._replace(detail=detail)

    async def _do(self, action: Action) -> str:
        process = self._servers.processes.get(action.name)
        match action.verb:
            case Verb.CUT:
                await self._servers.links[action.name].cut(action.for_s)
                return f"for {action.for_s:g} s"
            case Verb.RUN:
                return await _run(self._commands[action.name])
            case Verb.KILL | Verb.STOP | Verb.DRAIN | Verb.RESTART if process is None:
                raise AssertionError("names are checked before the run")
            case Verb.KILL:
                pid = process.pid
                await process.kill()
                return f"process {pid}"
            case Verb.DRAIN:
                process.signal(signal.SIGTERM)
                return f"process {process.pid}"
            case Verb.STOP:
                process.signal(signal.SIGSTOP)
                self._stopped.add(process)
                await asyncio.sleep(action.for_s)
                self._go_on(process)
                return f"for {action.for_s:g} s"
            case Verb.RESTART:
                await process.kill()
                await asyncio.sleep(action.for_s)
                process.start()
                return f"process {process.pid}"
            case _:
                assert_never(action.verb)

    def _go_on(self, process: Process) -> None:
        self._stopped.discard(process)
        with contextlib.suppress(ServerError):
            process.signal(signal.SIGCONT)


async def _run(command: Sequence[str]) -> str:
    child = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL
    )
    try:
        async with asyncio.timeout(_COMMAND_TIMEOUT_S):
            code = await child.wait()
    except TimeoutError:
        child.kill()
        await child.wait()
        raise OSError(f"{command[0]} did not end within {_COMMAND_TIMEOUT_S:.0f} s") from None
    except asyncio.CancelledError:
        child.kill()
        await child.wait()
        raise
    if code:
        raise OSError(f"{command[0]} ended with {code}")
    return " ".join(command)
