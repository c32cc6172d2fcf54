"""The subscribing connection: which names this node wants, which of them are confirmed, and what comes for them.

A name is wanted, or in its grace: nobody wants it any more, but the server is told only after a while, in batches, and
who wants it again meanwhile is served at once. Independently of that it is asked for on this connection (SUBSCRIBE is
on its way or answered), and confirmed once the answer to the last SUBSCRIBE for it has come: with a SUBSCRIBE, an
UNSUBSCRIBE and another SUBSCRIBE under way, the first answer proves nothing.

When the connection is lost, names in grace are forgotten, and what is wanted is asked for on the next one.
"""

import asyncio
import random
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

import hiredis

from gateway.broker.contract import BrokerError
from gateway.broker.outcome import Outcome
from gateway.broker.redis.counts import Journal, Trouble
from gateway.broker.redis.endpoint import Endpoint
from gateway.broker.redis.settings import RedisSettings
from gateway.broker.redis.supervisor import Supervisor
from gateway.broker.redis.wire import Wire, pack

_NAME: Final = "subscribe"
_NAMES_AT_ONCE: Final = 1000
_BYTES_AT_ONCE: Final = 65536
# Each name is answered by itself, with its name. Redis disconnects a subscriber that lets 32 MB of answers wait.
_UNANSWERED: Final = 10_000
_MESSAGE_LENGTH: Final = 3
_PING: Final = pack("PING")


class _Name:
    """What is known of one name; *deliver* is there while it is wanted."""

    __slots__ = ("deliver", "is_asked", "is_confirmed", "lost_at_s", "name", "outcome", "subscribing", "unsubscribing")

    def __init__(self, name: bytes) -> None:
        self.name = name
        self.deliver: Callable[[bytes], None] | None = None
        self.outcome: Outcome[None] | None = None
        """Who waits for the confirmation."""
        self.is_asked = False
        self.is_confirmed = False
        self.subscribing = 0
        """SUBSCRIBEs that are not answered yet."""
        self.unsubscribing = 0
        self.lost_at_s: float | None = None
        """Until when it was received, if a lost connection has interrupted that."""

    @property
    def is_needed(self) -> bool:
        return self.deliver is not None or self.outcome is not None

    @property
    def is_idle(self) -> bool:
        return not (self.is_needed or self.is_asked or self.subscribing or self.unsubscribing)


class Subscriber:
    """A supervised connection that receives what is published under names."""

    def __init__(
        self,
        endpoint: Endpoint,
        settings: RedisSettings,
        *,
        journal: Journal,
        monotonic: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        self.on_resumed: Callable[[list[bytes], float], None] | None = None
        """Told which names are received again after a lost connection, and for how many seconds they were not."""
        self._supervisor = Supervisor(_NAME, self, endpoint, settings, journal=journal, monotonic=monotonic, rng=rng)
        self._timeout_s = settings.timeout_s
        self._patience_s = settings.connect_timeout_s
        self._down_since_s = monotonic()
        self._grace_s = settings.unsubscribe_grace_s
        self._counts = journal.counts
        self._monotonic = monotonic
        self._wire: Wire | None = None
        self._is_stopped = False
        self._names: dict[bytes, _Name] = {}
        self._to_ask: OrderedDict[bytes, _Name] = OrderedDict()
        self._unanswered = 0
        # Until when a confirmation may come, and until when a grace lasts; soonest first, since all last alike.
        self._deadlines: OrderedDict[bytes, float] = OrderedDict()
        self._graces: OrderedDict[bytes, float] = OrderedDict()
        self._deadline_timer: asyncio.TimerHandle | None = None
        self._grace_timer: asyncio.TimerHandle | None = None
        self._resumed: list[bytes] = []
        self._resumed_since_s = 0.0
        self._pinged_at_s: float | None = None
        self._done = Outcome.of(None)

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
        """Close the connection for good, hand over nothing more; who waits gets `BrokerError`. Idempotent."""
        self._is_stopped = True
        self._supervisor.stop()
        for timer in (self._deadline_timer, self._grace_timer):
            if timer is not None:
                timer.cancel()
        names = list(self._names.values())
        self._names.clear()
        self._to_ask.clear()
        self._deadlines.clear()
        self._graces.clear()
        for name in names:
            if name.outcome is not None:
                name.outcome.fail(BrokerError("the broker is not running"))

    def subscribe(self, name: bytes, deliver: Callable[[bytes], None], *, is_patient: bool = False) -> Outcome[None]:
        """Call *deliver* with each message that is published under *name*.

        Settled when confirmed: whatever is published after that arrives, lost connections aside. While the link is
        down it waits for it; if it has been down for longer than a connection may take, only one who *is_patient*
        does, since a client whose every subscribe waits is given up by its SDK. Fails with `BrokerError` when there is
        no confirmation in time, and leaves nothing behind. Subscribing to a name twice is the caller's mistake.
        """
        if self._is_stopped:
            return _failed("the broker is not running")
        if self._wire is None and not is_patient and self._monotonic() - self._down_since_s > self._patience_s:
            return _failed(self.trouble or "not connected")
        entry = self._names.get(name)
        if entry is None:
            entry = self._names[name] = _Name(name)
        elif entry.deliver is not None:
            raise AssertionError(f"subscribed twice to {name!r}")
        entry.deliver = deliver
        self._graces.pop(name, None)
        if entry.is_confirmed:
            return self._done
        if entry.outcome is None:
            entry.outcome = Outcome()
        self._await_confirmation(name)
        if self._wire is not None and not entry.is_asked:
            self._ask(entry)
        return entry.outcome

    def unsubscribe(self, name: bytes) -> None:
        """Deliver nothing more of *name*; nothing happens if it is not subscribed."""
        entry = self._names.get(name)
        if entry is not None and entry.deliver is not None:
            self._begin_grace(entry)

    def greeting(self) -> list[bytes]:
        """Ask for nothing: every name is asked for once the connection is up."""
        return []

    def refuse(self, replies: Sequence[Any]) -> str | None:
        """Take every server; one that is a replica gets what its master publishes."""
        del replies
        return None

    def opened(self, wire: Wire) -> None:
        """Ask for all that is wanted."""
        self._wire = wire
        self._to_ask.update((name, entry) for name, entry in self._names.items() if entry.is_needed)
        self._pump()

    def overdue(self, now_s: float) -> str | None:
        """Tell nothing: a confirmation that does not come fails the one who waits for it."""
        del now_s
        return None

    def probe(self, now_s: float) -> None:
        """Send a PING."""
        if self._wire is not None:
            self._pinged_at_s = now_s
            self._wire.write(_PING)

    def read(self, reader: hiredis.Reader) -> None:
        """Hand over the messages and take the confirmations that have come."""
        names, gets, messages = self._names, reader.gets, 0
        while (reply := gets()) is not False:
            if type(reply) is list and len(reply) == _MESSAGE_LENGTH and reply[0] == b"message":
                messages += 1
                if self._resumed:
                    self._tell_resumed()
                entry = names.get(reply[1])
                if entry is not None and (deliver := entry.deliver) is not None:
                    deliver(reply[2])
            elif not self._note(reply):
                break
        self._counts.messages += messages
        if self._resumed:
            self._tell_resumed()
        if self._to_ask:
            self._pump()

    def lost(self) -> None:
        """Forget who is in grace, and remember until when the others were received."""
        heard_at_s = self._wire.heard_at_s if self._wire is not None else self._monotonic()
        self._wire = self._pinged_at_s = None
        self._down_since_s = self._monotonic()
        self._to_ask.clear()
        self._unanswered = 0
        for entry in list(self._names.values()):
            if entry.is_confirmed and entry.deliver is not None and entry.lost_at_s is None:
                entry.lost_at_s = heard_at_s
            entry.is_asked = entry.is_confirmed = False
            entry.subscribing = entry.unsubscribing = 0
            self._forget(entry)

    def _note(self, reply: Any) -> bool:
        """Take a reply that is no message; tell whether to go on reading."""
        match reply:
            case [b"subscribe", name, _]:
                self._confirmed(self._names.get(name))
            case [b"unsubscribe", name, _]:
                entry = self._names.get(name)
                if entry is not None:
                    entry.unsubscribing -= 1
                    self._forget(entry)
            case [b"pong", _] | b"PONG":
                if self._pinged_at_s is not None:
                    self._counts.round_trips[_NAME].observe(self._monotonic() - self._pinged_at_s)
                    self._pinged_at_s = None
            case _:
                # A name that may not be subscribed, mostly: all of ours begin alike, so none of them may.
                self._counts.refused += 1
                self._counts.errors[_NAME, Trouble.REFUSED] += 1
                if self._wire is not None:
                    self._wire.drop(str(reply) if isinstance(reply, hiredis.ReplyError) else "an unknown reply")
                return False
        return True

    def _confirmed(self, entry: _Name | None) -> None:
        if entry is None:
            return
        self._unanswered -= 1
        entry.subscribing -= 1
        if entry.subscribing:
            return
        entry.is_confirmed = entry.is_asked
        if entry.lost_at_s is not None:
            if not self._resumed or entry.lost_at_s < self._resumed_since_s:
                self._resumed_since_s = entry.lost_at_s
            self._resumed.append(entry.name)
            entry.lost_at_s = None
        outcome, entry.outcome = entry.outcome, None
        self._deadlines.pop(entry.name, None)
        if entry.is_asked and entry.deliver is None and entry.name not in self._graces:
            self._begin_grace(entry)  # its first one ended before it was asked for
        self._forget(entry)
        if outcome is not None:
            outcome.succeed(None)

    def _tell_resumed(self) -> None:
        names, self._resumed = self._resumed, []
        if self.on_resumed is not None:
            self.on_resumed(names, self._monotonic() - self._resumed_since_s)

    def _ask(self, entry: _Name) -> None:
        """Ask for a name, with all others of this turn."""
        if not self._to_ask:
            asyncio.get_running_loop().call_soon(self._pump)
        self._to_ask[entry.name] = entry

    def _pump(self) -> None:
        """Send SUBSCRIBEs, as long as not too many names wait for their answer."""
        if self._wire is None or self._unanswered >= _UNANSWERED:
            return
        for chunk in _chunks(self._take_needed()):
            self._unanswered += len(chunk)
            self._send(b"SUBSCRIBE", chunk)
            if self._unanswered >= _UNANSWERED:
                return

    def _take_needed(self) -> Iterator[bytes]:
        while self._to_ask:
            name, entry = self._to_ask.popitem(last=False)
            if entry.is_needed:
                entry.is_asked = True
                entry.subscribing += 1
                yield name
            else:
                self._forget(entry)

    def _send(self, command: bytes, names: list[bytes]) -> None:
        if self._wire is not None:
            self._counts.subscribe_commands += 1
            self._wire.write(pack(command, *names))

    def _begin_grace(self, entry: _Name) -> None:
        """Deliver nothing more of a name; the server hears of it when the grace ends."""
        entry.deliver = None
        entry.lost_at_s = None
        self._graces[entry.name] = self._monotonic() + self._grace_s
        if self._grace_timer is None:
            self._grace_timer = asyncio.get_running_loop().call_later(self._grace_s, self._end_graces)

    def _end_graces(self) -> None:
        """Unsubscribe on the server from what nobody wanted back."""
        self._grace_timer = None
        now_s = self._monotonic()
        leaving: list[bytes] = []
        while self._graces and next(iter(self._graces.values())) <= now_s:
            entry = self._names.get(self._graces.popitem(last=False)[0])
            if entry is None:
                continue
            if entry.is_asked:
                entry.is_asked = entry.is_confirmed = False
                entry.unsubscribing += 1
                leaving.append(entry.name)
            self._forget(entry)
        for chunk in _chunks(leaving):
            self._send(b"UNSUBSCRIBE", chunk)
        if self._graces:
            delay_s = next(iter(self._graces.values())) - now_s
            self._grace_timer = asyncio.get_running_loop().call_later(delay_s, self._end_graces)

    def _await_confirmation(self, name: bytes) -> None:
        self._deadlines.pop(name, None)
        self._deadlines[name] = self._monotonic() + self._timeout_s
        if self._deadline_timer is None:
            loop = asyncio.get_running_loop()
            self._deadline_timer = loop.call_later(self._timeout_s, self._end_waits)

    def _end_waits(self) -> None:
        """Fail who has waited too long for a confirmation."""
        self._deadline_timer = None
        now_s = self._monotonic()
        while self._deadlines and next(iter(self._deadlines.values())) <= now_s:
            entry = self._names[self._deadlines.popitem(last=False)[0]]
            outcome, entry.outcome = entry.outcome, None
            self._begin_grace(entry)
            if outcome is not None:
                outcome.fail(BrokerError(self.trouble or "Redis did not confirm the subscription in time"))
        # Who has just failed may ask again within its callback, and set the timer by that.
        if self._deadlines and self._deadline_timer is None:
            delay_s = next(iter(self._deadlines.values())) - now_s
            self._deadline_timer = asyncio.get_running_loop().call_later(delay_s, self._end_waits)

    def _forget(self, entry: _Name) -> None:
        """Let go of a name that nobody wants and the server has no part in."""
        if entry.is_idle:
            self._names.pop(entry.name, None)
            self._graces.pop(entry.name, None)


def _chunks(names: Iterable[bytes]) -> Iterator[list[bytes]]:
    """Yield *names* in lists of what goes into one command."""
    chunk: list[bytes] = []
    size = 0
    for name in names:
        chunk.append(name)
        size += len(name)
        if len(chunk) == _NAMES_AT_ONCE or size >= _BYTES_AT_ONCE:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _failed(reason: str) -> Outcome[None]:
    outcome: Outcome[None] = Outcome()
    outcome.fail(BrokerError(reason))
    return outcome
