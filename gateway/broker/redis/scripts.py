"""What Redis does in one step: the scripts that append, publish and read, and how to call them.

The meta of a stream is a hash: `e` its epoch, `o` the offset of its top, `v` the last version (20 digits, so that texts
compare as numbers do; Lua's numbers would lose the last digits of nanoseconds), `w` what that version counts in.

A node tells the epoch and top that it has last seen. A lower top in the same epoch means that Redis lost publications
it had acknowledged (a failover without the tail, an old snapshot), and so does a stream that is there without its meta
or ahead of it: then a new epoch begins.
"""

import hashlib
from collections.abc import Sequence
from typing import Final

from gateway.broker.redis.wire import pack
from gateway.domain.stream import HistoryRange

Argument = str | bytes | int


class Script:
    """A script by its text and its digest. An error of its own data (WRONGTYPE) changes nothing."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.digest = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
        body = text.encode()
        self._named = b"$7\r\nEVALSHA\r\n$40\r\n%b\r\n" % self.digest.encode()
        self._spelled = b"$4\r\nEVAL\r\n$%d\r\n%b\r\n" % (len(body), body)

    def pack(self, keys: Sequence[bytes], args: Sequence[Argument]) -> bytes:
        """Return a call by digest, packed; the server must have loaded the script."""
        return pack("EVALSHA", self.digest, len(keys), *keys, *args)

    def with_text(self, packed: bytes) -> bytes:
        """Return what `pack` has made as a call that brings the text along."""
        return packed.replace(self._named, self._spelled, 1)


# ARGV[1]: what a new epoch is called. KEYS[1] the stream, KEYS[2] its meta.
_BEGIN: Final = """
local function digits(number) return string.format('%.0f', number) end
local function is_behind(epoch, top, seen_epoch, seen_top)
    return epoch == seen_epoch and top < tonumber(seen_top)
end
local function begin()
    redis.call('XLEN', KEYS[1])
    redis.call('HSET', KEYS[2], 'e', ARGV[1], 'o', 0)
    redis.call('DEL', KEYS[1])
end
local function keep(key, ttl)
    if redis.call('PTTL', key) < tonumber(ttl) then redis.call('PEXPIRE', key, ttl) end
end
"""

# KEYS[3], if there: where the result of this idempotency key is kept.
# ARGV: new epoch, seen epoch, seen top, channel, body, size (0: no stream), ttl and meta ttl in ms, version ('': none),
# what it counts in, lifetime of a result in ms. Returns offset, epoch ('' without a stream), 1 if nobody was sent it.
PUBLISH: Final = Script(
    _BEGIN
    + """
if KEYS[3] then
    local first = redis.call('GET', KEYS[3])
    if first then
        local offset, epoch = string.match(first, '^(%d+):(.*)$')
        return {tonumber(offset), epoch, 1}
    end
end
local function remember(offset, epoch)
    if KEYS[3] then redis.call('SET', KEYS[3], digits(offset) .. ':' .. epoch, 'PX', ARGV[11]) end
end
local body, size, version = ARGV[5], ARGV[6], ARGV[9]
if size == '0' then
    remember(0, '')
    redis.call('PUBLISH', ARGV[4], 'p' .. body)
    return {0, '', 0}
end
local meta = redis.call('HMGET', KEYS[2], 'e', 'o', 'v', 'w')
local epoch, top = meta[1], tonumber(meta[2] or 0)
if not epoch or is_behind(epoch, top, ARGV[2], ARGV[3]) then
    begin()
    epoch, top = ARGV[1], 0
end
local counts_alike = ARGV[10] == '' or ARGV[10] == (meta[4] or '')
if version ~= '' and meta[3] and counts_alike and version <= meta[3] then
    remember(top, epoch)
    return {top, epoch, 1}
end
local offset = top + 1
local added = redis.pcall('XADD', KEYS[1], 'MAXLEN', size, digits(offset) .. '-0', 'd', body)
if type(added) == 'table' and added.err then
    if not string.find(added.err, 'equal or smaller', 1, true) then return added end
    begin()
    epoch, offset = ARGV[1], 1
    redis.call('XADD', KEYS[1], '1-0', 'd', body)
end
redis.call('HSET', KEYS[2], 'o', digits(offset))
if version ~= '' then redis.call('HSET', KEYS[2], 'v', version, 'w', ARGV[10]) end
redis.call('PEXPIRE', KEYS[1], ARGV[7])
keep(KEYS[2], ARGV[8])
remember(offset, epoch)
redis.call('PUBLISH', ARGV[4], 's' .. digits(offset) .. ':' .. epoch .. ':' .. body)
return {offset, epoch, 0}
"""
)

# ARGV: new epoch, seen epoch, seen top, meta ttl in ms, then the command that reads and its arguments but the key
# (nothing: the position alone). Returns epoch, top, entries.
HISTORY: Final = Script(
    _BEGIN
    + """
local meta = redis.call('HMGET', KEYS[2], 'e', 'o')
local epoch, top = meta[1], tonumber(meta[2] or 0)
local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
local is_ahead = last and tonumber(string.match(last[1], '^%d+')) > top
if not epoch or is_ahead or is_behind(epoch, top, ARGV[2], ARGV[3]) then
    begin()
    epoch, top = ARGV[1], 0
end
keep(KEYS[2], ARGV[4])
local entries = {}
if ARGV[5] then entries = redis.call(ARGV[5], KEYS[1], unpack(ARGV, 6)) end
return {epoch, top, entries}
"""
)


def pack_range(wanted: HistoryRange) -> list[Argument]:
    """Return the command that reads *wanted* from a stream, without the key; empty if only the position is wanted."""
    since = wanted.since.offset if wanted.since is not None else None
    if not wanted.limit or (wanted.is_reverse and since == 0):
        return []
    count: list[Argument] = ["COUNT", wanted.limit] if wanted.limit > 0 else []
    if wanted.is_reverse:
        return ["XREVRANGE", "+" if since is None else since - 1, "-", *count]
    return ["XRANGE", "-" if since is None else since + 1, "+", *count]
