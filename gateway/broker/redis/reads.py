"""Everything that is not done for each message, through redis-py: history, presence.

Its connection is its own, so a large read blocks no publish. What one loop turn asks for, and what gathers while a
pipeline is under way, becomes the next pipeline.
"""

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

import redis.asyncio

from gateway.broker.contract import BrokerError
from gateway.broker.outcome import Outcome, ResultT
from gateway.broker.redis.counts import Journal, Trouble
from gateway.broker.redis.endpoint import FAILURES, Endpoint, close, describe
from gateway.broker.redis.scripts import Argument, Script
from gateway.broker.redis.settings import RedisSettings
from gateway.broker.redis.supervisor import backoff

# Of requests, each of which counts as much as it expects to bring back: so a pipeline holds few large reads, and what
# waits behind it does not wait long.
_VALUES_AT_ONCE: Final = 1000
_PING: Final = ("PING",)
_NAME: Final = "read"


class _Request:
    __slots__ = ("command", "outcome", "parse", "queued_at_s", "script", "size", "values")

    def __init__(
        self, command: Sequence[Argument], parse: Callable[[Any], Any], script: Script | None, values: int, now_s: float
    ) -> None:
        self.command = command
        self.parse = parse
        self.script = script
        self.values = values
        self.queued_at_s = now_s
        self.size = sum(len(each) for each in command if isinstance(each, str | bytes))
        self.outcome: Outcome[Any] = Outcome()


class Reads:
    """Requests to Redis, in their order, in pipelines."""

    def __init__(
        self,
        endpoint: Endpoint,
        settings: RedisSettings,
        *,
        journal: Journal,
        monotonic: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        self.trouble: str | None = None
        """Why the last pipeline could not be carried out, `None` when it could."""
        self.turns = 0
        """How often it has looked for requests."""
        self._endpoint = endpoint
        self._settings = settings
        self._counts = journal.counts
        self._journal = journal
        self._monotonic = monotonic
        self._rng = rng or random.Random()  # noqa: S311 - spreads reconnects, guards nothing
        self._queue: deque[_Request] = deque()
        self._queued_bytes = 0
        self._wake = asyncio.Event()
        self._stopped = asyncio.Event()
        self._lost_at_s = 0.0

    def call(self, *command: Argument, parse: Callable[[Any], ResultT]) -> Outcome[ResultT]:
        """Carry out *command*; settled with what *parse* makes of the reply, which is raw: bytes, integers, lists.

        Requests are carried out in the order of the calls, each once or not at all. *parse* raises ValueError or
        TypeError for what it can't understand. Fails with `BrokerError`; then it is unknown whether it was done.
        """
        return self._add(_Request(command, parse, None, 1, self._monotonic()))

    def evaluate(
        self,
        script: Script,
        keys: Sequence[bytes],
        args: Sequence[Argument],
        *,
        parse: Callable[[Any], ResultT],
        values: int = 1,
    ) -> Outcome[ResultT]:
        """Run *script*, as `call` does a command; *values* is about how many values it brings back."""
        return self._add(_Request((len(keys), *keys, *args), parse, script, values, self._monotonic()))

    async def run(self) -> None:
        """Carry out what is asked until `stop` is called or this is cancelled."""
        client = self._endpoint.client("gateway-read")
        try:
            async with asyncio.TaskGroup() as group:
                working = group.create_task(self._work(client), name="redis read")
                await self._stopped.wait()
                working.cancel()
        finally:
            self._fail_queued("the broker is not running")
            await close(client)

    def stop(self) -> None:
        """Take nothing more; what waits gets `BrokerError`. Idempotent."""
        self._stopped.set()
        self._fail_queued("the broker is not running")

    def _add(self, request: _Request) -> Outcome[Any]:
        if self._stopped.is_set():
            request.outcome.fail(BrokerError("the broker is not running"))
        elif self._queue and self._queued_bytes + request.size > self._settings.queue_max_size:
            self._counts.errors[_NAME, Trouble.OVERFLOW] += 1
            request.outcome.fail(BrokerError("too much waits for Redis to answer"))
        else:
            self._queue.append(request)
            self._queued_bytes += request.size
            self._wake.set()
        return request.outcome

    async def _work(self, client: "redis.asyncio.Redis") -> None:
        delays = backoff(self._settings, self._rng)
        while True:
            self.turns += 1
            batch = await self._next_batch(next(delays) if self.trouble else self._settings.watchdog_interval_s)
            try:
                await self._carry_out(client, batch)
            finally:
                for request in batch:
                    if not request.outcome.is_settled:  # cancelled meanwhile
                        request.outcome.fail(BrokerError("the broker is not running"))
            if self.trouble is None:
                delays = backoff(self._settings, self._rng)

    async def _next_batch(self, patience_s: float) -> list[_Request]:
        """Wait for requests; after *patience_s* without, return none: a server may be back, and turns are counted."""
        try:
            async with asyncio.timeout(patience_s):
                await self._wake.wait()
        except TimeoutError:
            return []
        # What the rest of this turn asks for comes along.
        await asyncio.sleep(0)
        batch: list[_Request] = []
        values, now_s = 0, self._monotonic()
        while self._queue and values < _VALUES_AT_ONCE:
            request = self._queue.popleft()
            self._queued_bytes -= request.size
            if now_s - request.queued_at_s > self._settings.timeout_s:
                self._counts.errors[_NAME, Trouble.OVERDUE] += 1
                request.outcome.fail(BrokerError(self.trouble or "Redis was too slow to come to this"))
                continue
            values += request.values
            batch.append(request)
        if not self._queue:
            self._wake.clear()
        return batch

    async def _carry_out(self, client: "redis.asyncio.Redis", batch: list[_Request]) -> None:
        if not batch and self.trouble is None:
            return
        pipeline = client.pipeline(transaction=False)
        for command in _commands(batch) or [_PING]:
            pipeline.execute_command(*command)
        began_s = self._monotonic()
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                replies = await pipeline.execute(raise_on_error=False)
        except FAILURES as error:
            kind = Trouble.LOST if self.trouble is None else Trouble.UNREACHABLE
            self._counts.errors[_NAME, Trouble.OVERDUE if isinstance(error, TimeoutError) else kind] += 1
            self._down(describe(error))
            for request in batch:
                request.outcome.fail(BrokerError(self.trouble))
            # The connection may be in the middle of a reply.
            await close(client)
            return
        self._up()
        self._counts.round_trips[_NAME].observe(self._monotonic() - began_s)
        self._counts.reads += len(batch)
        self._counts.read_batches += 1
        for request, reply in zip(batch, replies, strict=False):
            self._settle(request, reply)

    def _settle(self, request: _Request, reply: Any) -> None:
        outcome = request.outcome
        if isinstance(reply, Exception):
            text = str(reply)
            self._counts.refused += 1
            self._counts.errors[_NAME, Trouble.REFUSED] += 1
            self._journal.report_seldom("redis refused", "read", error=text)
            outcome.fail(BrokerError(text))
            return
        try:
            result = request.parse(reply)
        except BrokerError as error:
            outcome.fail(error)
        except (ValueError, TypeError) as error:
            outcome.fail(BrokerError(f"a reply that makes no sense: {error}"))
        else:
            outcome.succeed(result)

    def _up(self) -> None:
        if self.trouble is not None:
            self.trouble = None
            self._journal.report(
                "redis link restored", link="read", seconds=round(self._monotonic() - self._lost_at_s, 3)
            )

    def _down(self, reason: str) -> None:
        trouble = f"{self._endpoint.label}: {reason}"
        if self.trouble is None:
            self._lost_at_s = self._monotonic()
        if trouble != self.trouble:
            self.trouble = trouble
            self._journal.report("redis link lost", link="read", reason=trouble)

    def _fail_queued(self, reason: str) -> None:
        queue, self._queue = self._queue, deque()
        self._queued_bytes = 0
        for request in queue:
            request.outcome.fail(BrokerError(reason))


def _commands(batch: Sequence[_Request]) -> list[Sequence[Argument]]:
    """Return the commands of a pipeline.

    The first call of a script brings its text along and the others name its digest: so none is ever refused because
    the server has forgotten it, whose repetition would overtake what came behind it.
    """
    commands: list[Sequence[Argument]] = []
    known: set[str] = set()
    for request in batch:
        script = request.script
        if script is None:
            commands.append(request.command)
        elif script.digest in known:
            commands.append(("EVALSHA", script.digest, *request.command))
        else:
            known.add(script.digest)
            commands.append(("EVAL", script.text, *request.command))
    return commands
