"""Presence on Redis: who is in a channel, in three keys that only scripts change, so that they agree.

KEYS[1], sorted set: client -> when its entry expires, in ms of the server's own clock. KEYS[2], hash: client -> the
length of its user in bytes, `:`, the user, and the body of its join or leave. KEYS[3], hash: user -> how many of its
clients are in, so that users are counted without looking at the clients.

An expired entry is not shown, but stays until somebody sweeps it and tells that it left. All three keys expire two
lifetimes after the last renewal: a channel whose nodes have all died goes by itself.
"""

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from gateway.broker.contract import BrokerError, PresenceStats
from gateway.broker.outcome import Outcome, ResultT
from gateway.broker.redis.broker import RedisBroker
from gateway.broker.redis.envelope import EnvelopeError, decode_info, encode_info
from gateway.broker.redis.keys import ChannelKeys, Keys
from gateway.broker.redis.reads import Reads
from gateway.broker.redis.scripts import Argument, Script
from gateway.protocol.messages import ClientInfo, Join, Leave

ENTERED_AT_ONCE: Final = 500
"""Clients that one script renews; it holds the server up for a few milliseconds."""
SWEPT_AT_ONCE: Final = 1000
"""Expired clients that one script sweeps."""
# What such a script weighs in a pipeline of reads, so that five of them go at once.
_WEIGHT: Final = 200
# What a presence brings back is not known before, so one is as much as a pipeline holds.
_LARGE: Final = 1000

_BEGIN: Final = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function expired(count)
    return redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, count)
end
local function parts(value)
    local length, start = string.match(value, '^(%d+):()')
    return string.sub(value, start, start + length - 1), string.sub(value, start + length)
end
local function count(user, by)
    if redis.call('HINCRBY', KEYS[3], user, by) < 1 then redis.call('HDEL', KEYS[3], user) end
end
local function leave(client)
    redis.call('ZREM', KEYS[1], client)
    local value = redis.call('HGET', KEYS[2], client)
    if not value then return nil end
    redis.call('HDEL', KEYS[2], client)
    local user, body = parts(value)
    count(user, -1)
    return body
end
"""

# ARGV: lifetime in ms, how many to sweep, where to tell who left ('': nowhere), then client, user and body of each who
# is in. Returns how many were swept. If some of the keys are missing (an eviction), the others would be counted wrong
# for ever, and every node enters its clients again soon.
_ENTER: Final = Script(
    _BEGIN
    + """
if redis.call('EXISTS', KEYS[1], KEYS[2], KEYS[3]) % 3 ~= 0 then redis.call('DEL', KEYS[1], KEYS[2], KEYS[3]) end
for i = 4, #ARGV, 3 do
    local client, user = ARGV[i], ARGV[i + 1]
    local value = #user .. ':' .. user .. ARGV[i + 2]
    local known = redis.call('HGET', KEYS[2], client)
    if known ~= value then
        if known then leave(client) end
        redis.call('HSET', KEYS[2], client, value)
        count(user, 1)
    end
    redis.call('ZADD', KEYS[1], now + ARGV[1], client)
end
if #ARGV > 3 then
    for _, key in ipairs(KEYS) do
        if redis.call('PTTL', key) < 2 * ARGV[1] then redis.call('PEXPIRE', key, 2 * ARGV[1]) end
    end
end
local swept = expired(ARGV[2])
for _, client in ipairs(swept) do
    local body = leave(client)
    if body and ARGV[3] ~= '' then redis.call('PUBLISH', ARGV[3], 'l' .. body) end
end
return #swept
"""
)

# ARGV: client, where to tell ('': nowhere), body of the leave. Returns 1 if the client was in.
_REMOVE: Final = Script(
    _BEGIN
    + """
if not leave(ARGV[1]) then return 0 end
if ARGV[2] ~= '' then redis.call('PUBLISH', ARGV[2], 'l' .. ARGV[3]) end
return 1
"""
)

# Returns client, value, client, value …, and the clients among them that have expired.
_PRESENCE: Final = Script(_BEGIN + "return {redis.call('HGETALL', KEYS[2]), expired(-1)}")

# Returns how many clients and users are in. Those that have expired are few, and mostly none.
_STATS: Final = Script(
    _BEGIN
    + """
local gone, left = expired(-1), {}
for _, client in ipairs(gone) do
    local value = redis.call('HGET', KEYS[2], client)
    if value then
        local user = parts(value)
        left[user] = (left[user] or 0) + 1
    end
end
local users = redis.call('HLEN', KEYS[3])
for user, clients in pairs(left) do
    if clients >= tonumber(redis.call('HGET', KEYS[3], user) or 0) then users = users - 1 end
end
return {redis.call('ZCARD', KEYS[1]) - #gone, users}
"""
)


class RedisPresence:
    """Knows the clients of all nodes. Joins go out through *broker*; all else, with its leaves, through *reads*."""

    def __init__(self, reads: Reads, broker: RedisBroker, keys: Keys) -> None:
        self._reads = reads
        self._broker = broker
        self._keys = keys
        # Joins under way, by channel and client: a leave must not overtake them on the other connection.
        self._joining: dict[tuple[str, str], Outcome[None]] = {}

    def announce(self, channel: str, event: Join | Leave) -> Outcome[None]:
        """Publish *event*; settled when Redis has it."""
        announcing = self._broker.announce(channel, event)
        if isinstance(event, Join) and not announcing.is_settled:
            subject = channel, event.info.client
            self._joining[subject] = announcing
            announcing.then(functools.partial(self._joined, subject))
        return announcing

    def add(self, channel: str, info: ClientInfo, *, ttl_s: float) -> Outcome[None]:
        """Enter a client."""
        try:
            args: list[Argument] = [_ms(ttl_s), 0, b"", *_entry(info)]
        except EnvelopeError as error:
            return _failed(error)
        return self._evaluate(_ENTER, self._keys.of(channel), args, _nothing)

    def remove(self, channel: str, info: ClientInfo, *, is_told: bool) -> Outcome[None]:
        """Take a client out; one that has expired, but of whom nobody has told, counts as in."""
        keys = self._keys.of(channel)
        # Its join is still on the other connection: the leave follows it there.
        is_behind = is_told and (channel, info.client) in self._joining
        try:
            client, _, body = _entry(info)
        except EnvelopeError as error:
            return _failed(error)
        args = [client, keys.name if is_told and not is_behind else b"", body]
        if not is_behind:
            return self._evaluate(_REMOVE, keys, args, _nothing)
        told: Outcome[None] = Outcome()
        removing = self._evaluate(_REMOVE, keys, args, bool)
        removing.then(functools.partial(self._tell, told, channel, Leave(info)))
        return told

    def renew(self, channel: str, infos: Sequence[ClientInfo], *, ttl_s: float, is_told: bool) -> Outcome[None]:
        """Give *infos* another lifetime and sweep *channel*, in scripts of bounded size."""
        keys = self._keys.of(channel)
        try:
            entries = [_entry(info) for info in infos]
        except EnvelopeError as error:
            return _failed(error)
        told = keys.name if is_told else b""
        # All are asked for now: a client that is removed after this call is not entered by a part that comes later.
        # The last part sweeps, so that none of ours is swept.
        *parts, last = [
            [argument for entry in entries[start : start + ENTERED_AT_ONCE] for argument in entry]
            for start in range(0, len(entries) or 1, ENTERED_AT_ONCE)
        ]
        entered = [self._evaluate(_ENTER, keys, [_ms(ttl_s), 0, b"", *part], _nothing, _WEIGHT) for part in parts]
        swept: Outcome[None] = Outcome()
        self._sweep(keys, told, swept, [_ms(ttl_s), SWEPT_AT_ONCE, told, *last])
        return _all_of([*entered, swept])

    def presence(self, channel: str) -> Outcome[dict[str, ClientInfo]]:
        """Read who is in *channel*."""
        return self._evaluate(_PRESENCE, self._keys.of(channel), [], _take_presence, _LARGE)

    def stats(self, channel: str) -> Outcome[PresenceStats]:
        """Read how many are in *channel*."""
        return self._evaluate(_STATS, self._keys.of(channel), [], _take_stats)

    def _evaluate(
        self,
        script: Script,
        keys: ChannelKeys,
        args: Sequence[Argument],
        parse: Callable[[Any], ResultT],
        values: int = 1,
    ) -> Outcome[ResultT]:
        return self._reads.evaluate(script, [keys.presence, keys.clients, keys.users], args, parse=parse, values=values)

    def _joined(self, subject: tuple[str, str], announced: Outcome[None]) -> None:
        if self._joining.get(subject) is announced:
            del self._joining[subject]

    def _tell(self, told: Outcome[None], channel: str, leave: Leave, removed: Outcome[bool]) -> None:
        if removed.error is not None:
            told.fail(removed.error)
        elif removed.result():
            self._broker.announce(channel, leave).then(functools.partial(_settle_alike, told))
        else:
            told.succeed(None)

    def _sweep(self, keys: ChannelKeys, told: bytes, swept: Outcome[None], args: Sequence[Argument]) -> None:
        """Sweep, and go on until nothing is left to be swept."""
        sweeping = self._evaluate(_ENTER, keys, args, int, _WEIGHT)
        sweeping.then(functools.partial(self._swept, keys, told, swept))

    def _swept(self, keys: ChannelKeys, told: bytes, swept: Outcome[None], sweeping: Outcome[int]) -> None:
        if sweeping.error is not None:
            swept.fail(sweeping.error)
        elif sweeping.result() == SWEPT_AT_ONCE:
            self._sweep(keys, told, swept, [0, SWEPT_AT_ONCE, told])
        else:
            swept.succeed(None)


def _entry(info: ClientInfo) -> tuple[bytes, bytes, bytes]:
    body = encode_info(info)  # raises for text that could not be encoded below
    return info.client.encode(), info.user.encode(), body


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


def _nothing(_: Any) -> None:
    """Return nothing: what the script returns is of no interest here."""


def _take_presence(reply: Any) -> dict[str, ClientInfo]:
    flat, expired = reply
    gone = set(expired)
    pairs = zip(flat[::2], flat[1::2], strict=True)
    return {client.decode(): _info_of(value) for client, value in pairs if client not in gone}


def _info_of(value: bytes) -> ClientInfo:
    length, _, rest = value.partition(b":")
    return decode_info(rest[int(length) :])


def _take_stats(reply: Any) -> PresenceStats:
    clients, users = reply
    return PresenceStats(clients=clients, users=users)


class _All:
    """Settles *whole* once *left* outcomes have been: with the first error, if there was one."""

    def __init__(self, whole: Outcome[None], left: int) -> None:
        self._whole = whole
        self._left = left
        self._error: Exception | None = None

    def note(self, outcome: Outcome[Any]) -> None:
        self._left -= 1
        self._error = self._error or outcome.error
        if self._left:
            return
        if self._error is None:
            self._whole.succeed(None)
        else:
            self._whole.fail(self._error)


def _all_of(outcomes: Iterable[Outcome[Any]]) -> Outcome[None]:
    steps = list(outcomes)
    whole: Outcome[None] = Outcome()
    joint = _All(whole, len(steps))
    for step in steps:
        step.then(joint.note)
    return whole


def _settle_alike(outcome: Outcome[None], settled: Outcome[None]) -> None:
    if settled.error is None:
        outcome.succeed(None)
    else:
        outcome.fail(settled.error)


def _failed(error: BrokerError) -> Outcome[Any]:
    outcome: Outcome[Any] = Outcome()
    outcome.fail(error)
    return outcome
