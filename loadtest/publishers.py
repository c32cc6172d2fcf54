"""Publishers: each numbers what it sends into each of its channels, and notes what becomes of it."""

import asyncio
from collections.abc import Iterable
from typing import Final, Protocol

from gateway.client import (
    ClientError,
    PublishRejectedError,
    ReplyTimeoutError,
    UnansweredError,
)
from gateway.protocol import codes
from loadtest.alarm import Alarm
from loadtest.messages import Publish
from loadtest.reckoning import SentLog
from loadtest.scenario import Arrival, Model
from loadtest.schedule import Arrivals
from loadtest.stage import Stage, chance_of
from loadtest.stamps import Stamp, encode, now_us
from loadtest.tally import Felt

_LOOKS_EVERY_S: Final = 0.02
_PAUSE_AFTER_FAILURE_S: Final = 0.05
"""In the closed model, so that a server that refuses at once is not asked without end."""


class Voice(Protocol):
    """What carries publications to the servers."""

    acknowledges: bool
    """Whether the return of `publish` says that the servers have taken it; else `Publisher.acknowledged` is called."""

    @property
    def awaits(self) -> int:
        """How many publications are out whose fate will still be told."""

    async def publish(self, channel: str, number: int, payload: bytes) -> None:
        """Publish; raises `ClientError` as `Client.publish` does."""

    def give_up(self) -> None:
        """Wait for no more."""


class Publisher:
    """One publisher of the scenario, with the number of its seat."""

    def __init__(self, number: int, channels: Iterable[str], share: float, voice: Voice, stage: Stage) -> None:
        self.number = number
        self.share = share
        self.logs = [SentLog(channel, number) for channel in channels]
        self._by_channel = {log.channel: log for log in self.logs}
        self._voice = voice
        self._stage = stage
        self._turn = 0

    async def send(self, intended_us: int) -> bool:
        """Publish the next one; return whether that went well, as far as is known."""
        stage, log = self._stage, self.logs[self._turn]
        self._turn = (self._turn + 1) % len(self.logs)
        number = self.begin(log, intended_us)
        stamp = Stamp(stage.run, self.number, number, intended_us)
        payload = encode(stamp, size_bytes=stage.scenario.payload_bytes)
        try:
            await self._voice.publish(log.channel, number, payload)
        except (UnansweredError, ReplyTimeoutError):
            self._failed(log.unanswered, number, "publish unanswered")
        except PublishRejectedError as error:
            # "internal server error" is what a node says when its broker does not answer: it may have taken it.
            fate = log.unanswered if error.code == codes.INTERNAL_ERROR.code else log.refused
            self._failed(fate, number, f"publish refused ({error.code})")
        except ClientError as error:
            self._failed(log.refused, number, f"publish not sent ({type(error).__name__})")
        except asyncio.CancelledError:
            log.unanswered.add(number)
            raise
        else:
            if self._voice.acknowledges:
                self.acknowledged(intended_us)
            return True
        return False

    async def settle(self, until_us: int) -> None:
        """Wait until the fate of all is known, or until *until_us*."""
        while self._voice.awaits and now_us() < until_us:  # noqa: ASYNC110 - nothing is measured any more
            await asyncio.sleep(_LOOKS_EVERY_S)
        self._voice.give_up()

    def begin(self, log: SentLog, intended_us: int) -> int:
        """Note that the next one goes out, and return its number."""
        now, tally = now_us(), self._stage.tally
        tally.published += 1
        tally.behind_us = max(tally.behind_us, now - intended_us)
        return log.begin(now)

    def acknowledged(self, intended_us: int) -> None:
        """Note that the servers have taken one."""
        now, tally = now_us(), self._stage.tally
        tally.acknowledged += 1
        tally.acknowledgement.record(now - intended_us)
        self._stage.outages.regain(self.number, now, Felt.PUBLISHING)

    def unanswered(self, channel: str, numbers: Iterable[int]) -> None:
        """Note that nobody knows what became of *numbers*."""
        for number in numbers:
            self._failed(self._by_channel[channel].unanswered, number, "publish unanswered")

    def _failed(self, fate: set[int], number: int, error: str) -> None:
        fate.add(number)
        self._stage.tally.errors[error] += 1
        self._stage.outages.lose(Felt.PUBLISHING, self.number, now_us())


class Pacer:
    """Has the publishers of one worker publish: at their times (open), or whenever they are answered (closed)."""

    def __init__(self, publishers: list[Publisher], plateau: Publish, stage: Stage) -> None:
        self._publishers = publishers
        self._stage = stage
        self._plateau = plateau
        self._sending: set[asyncio.Task[bool]] = set()
        self._loops: list[asyncio.Task[None]] = []
        self._alarm: Alarm | None = None
        scenario, job = stage.scenario, stage.job
        rates = [scenario.rate * publisher.share / job.shares for publisher in publishers]
        self._arrivals = Arrivals(
            rates,
            begin_us=plateau.begin_us,
            end_us=plateau.end_us,
            is_poisson=scenario.arrivals is Arrival.POISSON,
            chance=chance_of(job),
        )

    def start(self) -> None:
        """Begin, when it is time."""
        scenario, tasks = self._stage.scenario, self._stage.tasks
        if scenario.model is Model.CLOSED:
            for publisher in self._publishers:
                for _ in range(scenario.in_flight):
                    self._loops.append(tasks.create_task(self._keep_sending(publisher), name="closed model"))
        elif self._publishers:
            self._alarm = Alarm(self._send_due)
            self._set_alarm()

    def stop(self) -> None:
        """Begin no more publications. Idempotent."""
        if self._alarm is not None:
            self._alarm.close()
            self._alarm = None
        self._plateau = Publish(0, 0)

    async def conclude(self, patience_s: float) -> None:
        """Send no more; wait for answers, at most *patience_s*, after which nobody knows."""
        self.stop()
        until_us = now_us() + int(patience_s * 1e6)
        waiting = {*self._sending, *self._loops}
        if waiting:
            _, late = await asyncio.wait(waiting, timeout=patience_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        for publisher in self._publishers:
            await publisher.settle(until_us)

    def _send_due(self) -> None:
        for index, intended_us in self._arrivals.due(now_us()):
            sending = self._publishers[index].send(intended_us)
            task = self._stage.tasks.create_task(sending, name="publication")
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)
        self._set_alarm()

    def _set_alarm(self) -> None:
        next_us = self._arrivals.next_us
        if next_us is not None and self._alarm is not None:
            self._alarm.set(int(next_us) + 1)

    async def _keep_sending(self, publisher: Publisher) -> None:
        wait_s = (self._plateau.begin_us - now_us()) / 1e6
        await asyncio.sleep(max(0.0, wait_s))
        while now_us() < self._plateau.end_us:
            if not await publisher.send(now_us()):
                await asyncio.sleep(_PAUSE_AFTER_FAILURE_S)
