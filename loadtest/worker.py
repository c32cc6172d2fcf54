"""One worker process: takes orders from standard input, answers on standard output, drives its part of the clients.

    Job → Begin → (Ready) → Publish → Conclude → (Sent) → Drain → (Outcome) → Leave, and a Report each second

Standard input that ends means that the coordinator is gone: the worker ends, too.
"""

import asyncio
import gc
import os
import resource
import signal
import sys
from collections.abc import Coroutine
from typing import Any, Final

import uvloop

from loadtest import usage
from loadtest.catalogue import find, make
from loadtest.messages import (
    Answer,
    Begin,
    Conclude,
    Drain,
    Failed,
    Job,
    Leave,
    Order,
    Outcome,
    Publish,
    Ready,
    Report,
    Sent,
    orders,
    pack,
    receive,
)
from loadtest.other_seats import APISeat, DeafSeat
from loadtest.plain_seats import PlainSeat
from loadtest.publishers import Pacer, Publisher
from loadtest.reckoning import lasts_by_channel
from loadtest.scenario import ClientPlan
from loadtest.schedule import ramp
from loadtest.seats import JSONSeat
from loadtest.stage import Stage
from loadtest.stamps import now_us
from loadtest.watching import Last, Watch

_LOOKS_EVERY_S: Final = 0.05
_LEAVING_S: Final = 5.0
"""How long goodbyes may take."""
AnySeat = JSONSeat | PlainSeat | DeafSeat | APISeat


class Worker:
    """Drives the clients of one process."""

    def __init__(self, job: Job, tasks: asyncio.TaskGroup, out: asyncio.WriteTransport) -> None:
        scenario = make(find(job.scenario), job.parameters)
        self._stage = Stage(job, scenario, tasks)
        self._out = out
        self._publishers: list[Publisher] = []
        numbers = range(job.index, scenario.clients, job.workers)
        self._seats = [self._seat(number, scenario.plan(number, job.seed)) for number in numbers]
        self._living: list[asyncio.Task[None]] = []
        self._pacer: Pacer | None = None
        self._reporting: asyncio.Task[None] | None = None
        self._arriving: asyncio.Task[None] | None = None
        self._breaks: list[asyncio.TimerHandle] = []
        self._memory_before_bytes = _resident_bytes()
        self._second = 0

    async def run(self, inbox: asyncio.StreamReader) -> None:
        """Take orders until the last."""
        while order := await self._next(inbox):
            match order:
                case Begin(at_us):
                    self._reporting = self._start(self._report(at_us), "reports")
                    self._arriving = self._start(self._arrive(at_us), "ramp-up")
                case Publish():
                    self._publish(order)
                case Conclude(patience_s):
                    await self._conclude(patience_s)
                case Drain(lasts, patience_s):
                    await self._drain(lasts, patience_s)
                case Leave(duration_s):
                    await self._leave(duration_s)
                    break
                case Job():
                    raise AssertionError("a worker has one job")
        self._cancel()

    async def _next(self, inbox: asyncio.StreamReader) -> Order | None:
        return await receive(inbox, orders)

    def _seat(self, number: int, plan: ClientPlan) -> AnySeat:
        stage = self._stage
        if plan.by_api and stage.access.api_urls and not plan.subscribe:
            seat: JSONSeat | PlainSeat | APISeat = APISeat(number, plan, stage)
        elif not plan.reads:
            return DeafSeat(number, plan, stage)
        elif stage.job.protocol == "plain":
            seat = PlainSeat(number, plan, stage)
        else:
            seat = JSONSeat(number, plan, stage)
        if plan.publish and stage.scenario.rate:
            channels = [stage.channel(name) for name in plan.publish]
            publisher = Publisher(number, channels, plan.share, seat, stage)
            self._publishers.append(publisher)
            if isinstance(seat, PlainSeat):
                seat.publisher = publisher
        return seat

    def _start(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        return self._stage.tasks.create_task(work, name=name)

    def _tell(self, answer: Answer) -> None:
        self._out.write(pack(answer))

    # The phases.

    async def _arrive(self, at_us: int) -> None:
        """Have all seats connect, each in its turn, and say when all have been there."""
        stage, job = self._stage, self._stage.job
        times_s = ramp(stage.scenario.clients, stage.scenario.ramp_up_s)[job.index :: job.workers]
        expected = 0
        for seat, at_s in zip(self._seats, times_s, strict=True):
            wait_s = at_s - (now_us() - at_us) / 1e6
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            # A server that is overrun while it accepts serves nobody: all would give up, and come again.
            await stage.are_ready(expected - stage.scenario.connecting + 1)
            self._living.append(self._start(seat.run(), "seat"))
            expected += not isinstance(seat, DeafSeat)
        await stage.are_ready(expected)
        gc.collect()
        gc.freeze()  # the seats stay; a collection that visits them all would hold up every delivery meanwhile
        self._tell(Ready())

    def _publish(self, plateau: Publish) -> None:
        self._pacer = Pacer(self._publishers, plateau, self._stage)
        self._pacer.start()
        loop = asyncio.get_running_loop()
        for seat in self._seats:
            for break_s in seat.plan.breaks_s:
                delay_s = (plateau.begin_us - now_us()) / 1e6 + break_s
                self._breaks.append(loop.call_later(delay_s, seat.abort))

    async def _conclude(self, patience_s: float) -> None:
        self._stage.is_calm = True
        if self._arriving is not None:
            self._arriving.cancel()
        for timer in self._breaks:
            timer.cancel()
        if self._pacer is not None:
            await self._pacer.conclude(patience_s)
        lasts: dict[str, list[Last]] = {}
        logs = [log for publisher in self._publishers for log in publisher.logs if log.count]
        for log in logs:
            if (last := log.last) is not None:
                lasts.setdefault(log.channel, []).append(last)
        self._tell(Sent([log.record() for log in logs], lasts))

    async def _drain(self, lasts: dict[str, list[Last]], patience_s: float) -> None:
        until_us = now_us() + int(patience_s * 1e6)
        lasts = lasts_by_channel([lasts])
        begun = self._seats[: len(self._living)]  # the others' turn never came: somebody ended the run
        waiting = begun
        while waiting and now_us() < until_us:
            waiting = [seat for seat in waiting if not _is_complete(seat, lasts)]
            if waiting:
                await asyncio.sleep(_LOOKS_EVERY_S)
        stage = self._stage
        unrestored = 0
        for seat in begun:
            for watch in seat.watches():
                stage.keep(watch.close(lasts.get(watch.channel, []) if seat.is_ready else []))
            if _stays(seat) and not seat.is_ready:
                unrestored += 1
                stage.counts.find("unrestored", Watch(_channel_of(seat, stage), seat.number, stage.counts))
        self._tell(
            Outcome(
                counts=stage.counts,
                gaps=stage.gaps,
                unrestored=unrestored,
                outages=stage.outages.all(),
                endings=stage.endings,
            )
        )

    async def _leave(self, duration_s: float) -> None:
        for seat in self._seats:
            seat.leave()
            if duration_s and self._seats:
                await asyncio.sleep(duration_s / len(self._seats))
        if self._living:
            await asyncio.wait(self._living, timeout=_LEAVING_S)
        self._report_now()  # of what was left of a second

    def _cancel(self) -> None:
        if self._pacer is not None:
            self._pacer.stop()  # not concluded, if whoever gave the orders has vanished
        for task in (*self._living, self._arriving, self._reporting):
            if task is not None:
                task.cancel()

    async def _report(self, at_us: int) -> None:
        """Say what was counted, at the end of each second."""
        while True:
            await asyncio.sleep((at_us - now_us()) / 1e6 + self._second + 1)
            self._report_now()

    def _report_now(self) -> None:
        reading = usage.read(os.getpid())
        self._tell(
            Report(
                second=self._second,
                counted=self._stage.tally.take(),
                connections=self._stage.ready,
                cpu_s=reading.cpu_s if reading else 0.0,
                memory_bytes=reading.memory_bytes if reading else 0,
                memory_before_bytes=self._memory_before_bytes,
                watched=self._stage.counts.found,
            )
        )
        self._second += 1


def _resident_bytes() -> int:
    reading = usage.read(os.getpid())
    return reading.memory_bytes if reading else 0


def _stays(seat: AnySeat) -> bool:
    """Whether it should be there at the end."""
    return seat.plan.lives_s is None


def _is_complete(seat: AnySeat, lasts: dict[str, list[Last]]) -> bool:
    if not seat.is_ready:
        return not _stays(seat)
    return all(watch.is_complete(lasts.get(watch.channel, ())) for watch in seat.watches())


def _channel_of(seat: AnySeat, stage: Stage) -> str:
    names = (*seat.plan.subscribe, *seat.plan.publish)
    return stage.channel(names[0]) if names else ""


async def work() -> None:
    """Work until the coordinator has enough."""
    loop = asyncio.get_running_loop()
    inbox = asyncio.StreamReader(limit=1 << 24)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(inbox), sys.stdin)
    out, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, sys.stdout)
    job = await receive(inbox, orders)
    if not isinstance(job, Job):
        return
    try:
        async with asyncio.TaskGroup() as tasks:
            await Worker(job, tasks, out).run(inbox)
    except Exception as error:
        out.write(pack(Failed(f"worker {job.index} failed: {_first(error)}")))
        raise
    finally:
        out.close()


def _first(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"


def main() -> None:
    """Run a worker; the coordinator starts it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C goes to all; the coordinator decides
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    uvloop.run(work())


if __name__ == "__main__":
    main()
