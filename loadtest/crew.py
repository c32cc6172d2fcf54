"""The worker processes, as the coordinator holds them."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final, TypeVar

from loadtest.messages import Answer, Failed, Job, Order, Report, answers, pack, receive

_LARGEST_BYTES: Final = 1 << 24
_END_TIMEOUT_S: Final = 8.0
_AnswerT = TypeVar("_AnswerT", bound=Answer)


class CrewError(Exception):
    """Why the workers can't go on, in one sentence."""


class Crew:
    """All workers of a run."""

    def __init__(
        self, processes: Sequence[asyncio.subprocess.Process], on_report: Callable[[int, Report], None]
    ) -> None:
        self._processes = processes
        self._on_report = on_report
        self._inboxes: list[asyncio.Queue[Answer]] = [asyncio.Queue() for _ in processes]

    @property
    def pids(self) -> list[int]:
        """Their process ids."""
        return [process.pid for process in self._processes]

    def tell(self, *orders: Order) -> None:
        """Give each worker its order, or all the same."""
        each = orders if len(orders) == len(self._processes) else orders * len(self._processes)
        for process, order in zip(self._processes, each, strict=True):
            if process.stdin is not None and not process.stdin.is_closing():
                process.stdin.write(pack(order))

    async def answers(self, kind: type[_AnswerT]) -> list[_AnswerT]:
        """Wait for an answer of *kind* from each; raises `CrewError` if one fails. Other answers are dropped."""
        return await asyncio.gather(*(self._answer(inbox, kind) for inbox in self._inboxes))

    async def _answer(self, inbox: asyncio.Queue[Answer], kind: type[_AnswerT]) -> _AnswerT:
        while True:
            answer = await inbox.get()
            if isinstance(answer, kind):
                return answer
            if isinstance(answer, Failed):
                raise CrewError(answer.reason)

    async def read(self, number: int) -> None:
        """Sort what worker *number* says, until it ends."""
        stream, inbox = self._processes[number].stdout, self._inboxes[number]
        if stream is None:
            raise AssertionError("workers are started with pipes")
        while (answer := await receive(stream, answers)) is not None:
            if isinstance(answer, Report):
                self._on_report(number, answer)
            else:
                inbox.put_nowait(answer)
        code = await self._processes[number].wait()
        inbox.put_nowait(Failed(f"worker {number} ended before its time, with {code}"))

    async def end(self) -> None:
        """Let all of them go; those that do not are killed."""
        for process in self._processes:
            if process.stdin is not None:
                process.stdin.close()
        try:
            async with asyncio.timeout(_END_TIMEOUT_S):
                await asyncio.gather(*(process.wait() for process in self._processes))
        except TimeoutError:
            for process in self._processes:
                if process.returncode is None:
                    process.kill()
            await asyncio.gather(*(process.wait() for process in self._processes))


@asynccontextmanager
async def crew(jobs: Sequence[Job], on_report: Callable[[int, Report], None]) -> AsyncIterator[Crew]:
    """Start a worker for each of *jobs*; they have ended when the block has."""
    processes = []
    for _ in jobs:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "loadtest.worker"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=_LARGEST_BYTES,
        )
        processes.append(process)
    workers = Crew(processes, on_report)
    reading = [asyncio.create_task(workers.read(number), name=f"worker {number}") for number in range(len(jobs))]
    try:
        workers.tell(*jobs)
        yield workers
    finally:
        await workers.end()
        await asyncio.gather(*reading)
