"""Drafts as calls of Redis, and what becomes of the calls; no input or output here, so that it serves both publishers.

The broker of a node packs the calls and reads the answers. It only finds another link below it, one that keeps the
calls until somebody fetches them, carries them out on a connection of his own, and comes back with the replies.
"""

import time
import uuid
from collections.abc import Generator, Sequence
from typing import Any, Final, NamedTuple

import redis.exceptions

from gateway.broker.contract import BrokerError, Published
from gateway.broker.outcome import Outcome
from gateway.broker.redis.broker import RedisBroker
from gateway.broker.redis.counts import Journal
from gateway.broker.redis.endpoint import Endpoint
from gateway.broker.redis.keys import Keys
from gateway.broker.redis.link import Link, Parse
from gateway.broker.redis.reads import Reads
from gateway.broker.redis.scripts import Script
from gateway.broker.redis.settings import RedisSettings
from gateway.broker.redis.subscriber import Subscriber
from gateway.broker.redis.wire import pack
from gateway.messaging.publishing import Draft
from gateway.protocol.messages import Join, Leave, Publication
from gateway.publisher.desk import Receipt, receipt_of
from gateway.publisher.errors import UnavailableError

AT_ONCE: Final = 256
"""How many calls go out before their replies are read; so neither side waits for the other to read."""
CLIENT_NAME: Final = "gateway-publisher"
_ROLE: Final = pack("ROLE")
_REPLICA: Final = "it is a replica, and takes no publications"

Exchange = Generator[tuple[bytes, int], list[Any], None]
"""Yields what to send and how many replies to bring."""


class Call(NamedTuple):
    """One command, packed, and how to understand its reply."""

    outcome: Outcome[Any]
    packed: bytes
    parse: Parse[Any]
    subject: str
    script: Script | None


class Calls:
    """Turns drafts into calls, for one server; it has no connection and must be used by one thread at a time."""

    def __init__(self, endpoint: Endpoint, settings: RedisSettings) -> None:
        journal = Journal()
        self.label = endpoint.label
        """How messages call the server."""
        self._tray = _Tray(endpoint, settings, journal=journal)
        self._broker = RedisBroker(
            self._tray,
            Subscriber(endpoint, settings, journal=journal),
            Reads(endpoint, settings, journal=journal),
            Keys(settings.prefix),
            node_id=f"publisher-{uuid.uuid4()}",
            journal=journal,
        )
        self._broker.start(_Deaf())

    def prepare(self, drafts: Sequence[Draft]) -> "Batch":
        """Return the calls that carry *drafts*."""
        publish = self._broker.publish
        outcomes = [
            publish(draft.channel.name, draft.publication, accepted_at_s=draft.accepted_at_s, options=draft.options)
            for draft in drafts
        ]
        names = [draft.channel.name for draft in drafts]
        may_repeat = all(draft.options.idempotency_key for draft in drafts)
        return Batch(names, outcomes, self._tray.take(), label=self.label, may_repeat=may_repeat)


class Batch:
    """What one publish or broadcast asks of Redis."""

    def __init__(
        self,
        names: Sequence[str],
        outcomes: Sequence[Outcome[Published]],
        calls: Sequence[Call],
        *,
        label: str,
        may_repeat: bool,
    ) -> None:
        self.size = sum(len(call.packed) for call in calls)
        """In bytes."""
        self.tries = 2 if may_repeat else 1
        """How often it may be sent: without an idempotency key a second time could double it."""
        self._names = names
        self._outcomes = outcomes
        self._calls = calls
        self._label = label

    def carry_out(self, role: "RoleCheck") -> Exchange:
        """Tell what to send, until all calls that have no outcome yet have one.

        Raises:
            ExchangeError: if the server turns out to be none that publications go to.
        """
        waiting = [call for call in self._calls if not call.outcome.is_settled]
        for start in range(0, len(waiting), AT_ONCE):
            chunk = waiting[start : start + AT_ONCE]
            data = b"".join([call.packed for call in chunk])
            if role.is_due():
                reply, *replies = yield _ROLE + data, len(chunk) + 1
                role.take(reply)
            else:
                replies = yield data, len(chunk)
            forgotten = _settle(chunk, replies)
            if forgotten:
                replies = yield b"".join(_with_texts(forgotten)), len(forgotten)
                _settle(forgotten, replies, is_last=True)

    def receipts(self) -> list[Receipt]:
        """Return what became of each draft.

        Raises:
            UnavailableError: if Redis refused some of them.
        """
        failed = [name for name, outcome in zip(self._names, self._outcomes, strict=True) if outcome.error is not None]
        if failed:
            error = next(outcome.error for outcome in self._outcomes if outcome.error is not None)
            # An error of its own data changes nothing in Redis.
            raise UnavailableError(failed, f"{self._label} says {error}", may_be_published=False) from error
        return [receipt_of(outcome.result()) for outcome in self._outcomes]

    def unavailable(self, reason: str, *, may_be_published: bool) -> UnavailableError:
        """Return the error for a connection that failed because of *reason*."""
        unsettled = [name for name, each in zip(self._names, self._outcomes, strict=True) if not each.is_settled]
        return UnavailableError(unsettled or self._names, f"{self._label}: {reason}", may_be_published=may_be_published)


class RoleCheck:
    """Asks a connection now and then whether its server still is the one that publications go to.

    A replica takes a PUBLISH without an error, for its own few subscribers alone.
    """

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._next_at_s = 0.0

    def forget(self) -> None:
        """Ask anew: the connection is another one."""
        self._next_at_s = 0.0

    def is_due(self) -> bool:
        """Whether to ask now."""
        return time.monotonic() >= self._next_at_s

    def take(self, reply: Any) -> None:
        """Take the answer of `ROLE`; a user that may not ask gets none, and that is no reason.

        Raises:
            ExchangeError: if it is a replica.
        """
        if isinstance(reply, list) and reply and reply[0] == b"slave":
            raise ExchangeError(_REPLICA)
        self._next_at_s = time.monotonic() + self._interval_s


class ExchangeError(BrokerError):
    """The connection is of no use any more; of what was sent last it is unknown whether it was published."""


def _settle(calls: Sequence[Call], replies: Sequence[Any], *, is_last: bool = False) -> list[Call]:
    """Settle *calls* with *replies*; return those whose script Redis has forgotten, unless *is_last*."""
    forgotten = []
    for call, reply in zip(calls, replies, strict=True):
        if isinstance(reply, redis.exceptions.NoScriptError) and call.script is not None and not is_last:
            forgotten.append(call)
        elif isinstance(reply, redis.exceptions.ResponseError):
            call.outcome.fail(BrokerError(str(reply)))
        else:
            try:
                call.outcome.succeed(call.parse(call.subject, reply))
            except (ValueError, TypeError) as error:
                raise ExchangeError(f"a reply that makes no sense: {error}") from error
    return forgotten


def _with_texts(calls: Sequence[Call]) -> list[bytes]:
    """Return *calls*, packed; the first of each script brings its text along, by which Redis knows it again."""
    told: set[Script] = set()
    packed = []
    for call in calls:
        if call.script is None:
            raise AssertionError("what has no script is not forgotten")
        packed.append(call.packed if call.script in told else call.script.with_text(call.packed))
        told.add(call.script)
    return packed


class _Tray(Link):
    """A link that keeps its calls, for somebody who carries them out."""

    def __init__(self, endpoint: Endpoint, settings: RedisSettings, *, journal: Journal) -> None:
        super().__init__(endpoint, settings, journal=journal)
        self._kept: list[Call] = []

    def call(self, packed: bytes, parse: Parse[Any], subject: str = "", script: Script | None = None) -> Outcome[Any]:
        """Keep the call."""
        outcome: Outcome[Any] = Outcome()
        self._kept.append(Call(outcome, packed, parse, subject, script))
        return outcome

    def take(self) -> list[Call]:
        """Return what was kept since the last time."""
        kept, self._kept = self._kept, []
        return kept


class _Deaf:
    """A receiver for a broker that subscribes to nothing."""

    def receive(self, channel: str, publication: Publication, epoch: str, accepted_at_s: float | None) -> None:
        raise AssertionError(f"{publication} of {channel!r} ({epoch!r}, {accepted_at_s}) came to who only publishes")

    def receive_event(self, channel: str, event: Join | Leave) -> None:
        raise AssertionError(f"{event} of {channel!r} came to who only publishes")

    def resume(self, channels: Sequence[str], *, interrupted_s: float) -> None:
        raise AssertionError(f"{channels} came back after {interrupted_s} s for who only publishes")
