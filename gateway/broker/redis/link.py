"""The publishing connection: commands of one loop turn in one write, their outcomes settled as the replies come.

Redis answers in the order of the commands, and what one node publishes in a channel keeps its order for that. One thing
could break it: a script that Redis has forgotten (SCRIPT FLUSH, a failover behind a proxy) is answered with NOSCRIPT,
while what was sent behind it is carried out. So

- nothing new is sent from the first NOSCRIPT until all that was under way is answered,
- then the forgotten ones are sent again, in their order, with the text of the script, and only then the new ones,
- one whose subject (its channel) was overtaken meanwhile by something under way is not sent again: it fails, which its
  publisher is told, and the order stays whole.
"""

import asyncio
import random
import re
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

import hiredis

from gateway.broker.contract import BrokerError
from gateway.broker.outcome import Outcome, ResultT
from gateway.broker.redis.counts import Journal, Trouble
from gateway.broker.redis.endpoint import Endpoint
from gateway.broker.redis.scripts import Script
from gateway.broker.redis.settings import RedisSettings
from gateway.broker.redis.supervisor import Supervisor
from gateway.broker.redis.wire import Wire, pack

_NAME: Final = "publish"
_ROLE: Final = pack("ROLE")
_PING: Final = pack("PING")
# Errors that stay as long as the connection does: another server is asked, or this one later.
_HOPELESS: Final = re.compile(r"\b(READONLY|LOADING|MASTERDOWN|NOAUTH)\b")
_REPLICA: Final = "READONLY it is a replica, and takes no publications"

Parse = Callable[[str, Any], ResultT]
"""Makes a result of a subject and the reply of Redis; raises ValueError or TypeError for what it can't understand."""

# Outcome, packed command, parser, subject, script: a tuple, since one is made for each publication.
_Call = tuple[Outcome[Any], bytes, Parse[Any], str, Script | None]


class Link:
    """A supervised connection that takes commands; each is sent once, or fails."""

    def __init__(
        self,
        endpoint: Endpoint,
        settings: RedisSettings,
        scripts: Sequence[Script] = (),
        *,
        journal: Journal,
        monotonic: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        self._supervisor = Supervisor(_NAME, self, endpoint, settings, journal=journal, monotonic=monotonic, rng=rng)
        self._timeout_s = settings.timeout_s
        self._limit_bytes = settings.queue_max_size
        self._scripts = [pack("SCRIPT", "LOAD", script.text) for script in scripts]
        self._counts = journal.counts
        self._journal = journal
        self._wire: Wire | None = None
        self._probe = _ROLE
        self._unsent: list[_Call] = []
        self._waiting: deque[_Call] = deque()
        self._repeats: dict[str, list[_Call]] = {}
        self._queued_bytes = 0
        self._sent = 0
        self._monotonic = monotonic
        # What is timed: up to which command, and since when.
        self._timed: tuple[int, float] | None = None
        # When a tick came, and how many commands had been sent by then.
        self._marks: deque[tuple[float, int]] = deque()

    @property
    def trouble(self) -> str | None:
        """Why it is down, `None` while it is up."""
        return self._supervisor.trouble

    @property
    def turns(self) -> int:
        """How often the connection has been looked after."""
        return self._supervisor.turns

    async def run(self) -> None:
        """Hold the connection up until `stop` is called or this is cancelled."""
        await self._supervisor.run()

    def stop(self) -> None:
        """Close the connection for good; what waits for an outcome gets `BrokerError`. Idempotent."""
        self._supervisor.stop()

    def call(
        self, packed: bytes, parse: Parse[ResultT], subject: str = "", script: Script | None = None
    ) -> Outcome[ResultT]:
        """Send a *packed* command; settled with what *parse* makes of the reply.

        Commands are carried out in the order of the calls; for those with a *script* (which *packed* must name by its
        digest) that holds among calls of one *subject*. Fails with `BrokerError`: at once while the link is down or its
        queue full, later if Redis refuses, does not answer in time, or is lost. Then it is unknown whether it was done.
        """
        outcome: Outcome[ResultT] = Outcome()
        queued = self._queued_bytes + len(packed)
        if self._wire is None:
            self._counts.errors[_NAME, Trouble.DOWN] += 1
            outcome.fail(BrokerError(self.trouble or "not connected"))
        elif queued > self._limit_bytes and self._queued_bytes:
            self._counts.errors[_NAME, Trouble.OVERFLOW] += 1
            outcome.fail(BrokerError("too much waits for Redis to answer"))
        else:
            self._queued_bytes = queued
            if not self._unsent:
                asyncio.get_running_loop().call_soon(self._flush)
            self._unsent.append((outcome, packed, parse, subject, script))
        return outcome

    def greeting(self) -> list[bytes]:
        """Load the scripts and ask what the server is."""
        return [*self._scripts, _ROLE]

    def refuse(self, replies: Sequence[Any]) -> str | None:
        """Refuse a server that does not take the scripts or is a replica."""
        *loaded, role = replies
        for reply in loaded:
            if isinstance(reply, hiredis.ReplyError):
                return str(reply)
        # A user that may not ask for the role still finds out whether the server lives.
        self._probe = _PING if isinstance(role, hiredis.ReplyError) else _ROLE
        return _REPLICA if _is_replica(role) else None

    def opened(self, wire: Wire) -> None:
        """Send through *wire* from now on."""
        self._wire = wire

    def overdue(self, now_s: float) -> str | None:
        """Tell when a command has waited too long; a tick's precision costs nothing for each command."""
        answered = self._sent - len(self._waiting)
        while self._marks and self._marks[0][1] <= answered:
            self._marks.popleft()
        if self._marks and now_s - self._marks[0][0] >= self._timeout_s:
            return f"a command was not answered for {self._timeout_s:g} s"
        return None

    def probe(self, now_s: float) -> None:
        """Ask for the role: a replica takes a PUBLISH without an error, for its own few subscribers alone."""
        self._marks.append((now_s, self._sent))
        self.call(self._probe, self._take_role)

    def read(self, reader: hiredis.Reader) -> None:
        """Settle outcomes with the replies that have come."""
        waiting = self._waiting
        while (reply := reader.gets()) is not False:
            if not waiting:
                if self._wire is not None:
                    self._wire.drop("it answers what nobody has asked")
                return
            outcome, packed, parse, subject, _ = call = waiting.popleft()
            if isinstance(reply, hiredis.ReplyError):
                self._refused(call, str(reply))
                continue
            self._queued_bytes -= len(packed)
            if self._repeats:
                self._overtaken(subject)
            try:
                result = parse(subject, reply)
            except (ValueError, TypeError) as error:
                outcome.fail(BrokerError(f"a reply that makes no sense: {error}"))
            else:
                outcome.succeed(result)
        if self._timed is not None and self._sent - len(waiting) >= self._timed[0]:
            self._counts.round_trips[_NAME].observe(self._monotonic() - self._timed[1])
            self._timed = None
        if self._repeats and not waiting:
            self._repeat()

    def lost(self) -> None:
        """Fail all that was sent or waits to be; what of it was done is unknown."""
        self._wire = None
        calls = [*self._waiting, *self._unsent, *(call for calls in self._repeats.values() for call in calls)]
        self._waiting.clear()
        self._unsent.clear()
        self._repeats.clear()
        self._marks.clear()
        self._queued_bytes = self._sent = 0
        self._timed = None
        error = BrokerError("the connection to Redis was lost")
        for call in calls:
            call[0].fail(error)

    def _flush(self) -> None:
        """Send what the turn has brought, unless something has to be repeated first."""
        if self._wire is None or self._repeats or not self._unsent:
            return
        calls, self._unsent = self._unsent, []
        self._send(calls, b"".join([call[1] for call in calls]))

    def _send(self, calls: Sequence[_Call], data: bytes) -> None:
        self._waiting.extend(calls)
        self._sent += len(calls)
        self._counts.commands += len(calls)
        self._counts.batches += 1
        if self._timed is None:
            self._timed = self._sent, self._monotonic()
        if self._wire is not None:
            self._wire.write(data)

    def _refused(self, call: _Call, text: str) -> None:
        outcome, packed, _, subject, script = call
        if script is not None and text.startswith("NOSCRIPT"):
            self._repeats.setdefault(subject, []).append(call)
            return
        self._queued_bytes -= len(packed)
        self._counts.refused += 1
        self._counts.errors[_NAME, Trouble.REFUSED] += 1
        self._journal.report_seldom("redis refused", subject, error=text)
        outcome.fail(BrokerError(text))
        if self._wire is not None and _HOPELESS.search(text):
            self._wire.drop(text)

    def _overtaken(self, subject: str) -> None:
        """Fail what was to be repeated for *subject*, since something sent behind it was carried out."""
        for outcome, packed, *_ in self._repeats.pop(subject, ()):
            self._queued_bytes -= len(packed)
            outcome.fail(BrokerError("Redis had forgotten the script, and what came next overtook"))
        if not self._repeats:
            asyncio.get_running_loop().call_soon(self._flush)

    def _repeat(self) -> None:
        """Send again what Redis had forgotten the script of; all that was under way is answered."""
        calls = [call for calls in self._repeats.values() for call in calls]
        self._repeats.clear()
        self._counts.repeated += len(calls)
        self._send(calls, b"".join([script.with_text(packed) for _, packed, _, _, script in calls if script]))
        self._flush()

    def _take_role(self, _: str, reply: Any) -> None:
        if _is_replica(reply) and self._wire is not None:
            self._wire.drop(_REPLICA)


def _is_replica(role: Any) -> bool:
    return isinstance(role, list) and bool(role) and role[0] == b"slave"
