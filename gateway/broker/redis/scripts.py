"""What Redis does in one step: the scripts that append, publish and read, and how to call them.

The meta of a stream is a hash: `e` its epoch, `o` the offset of its top, `v` the last version (20 digits, so that texts
compare as numbers do; Lua's numbers would lose the last digits of nanoseconds), `w` what that version counts in.

A node tells the epoch and top that it has last seen. A lower top in the same epoch means that Redis lost publications
it had acknowledged (a failover without the tail, an old snapshot), and so does a stream that is there without its meta
or ahead of it: then a new epoch begins.

The window of a channel is a list of numbers as text. What is said of it is made here, so in the order of the offsets,
and by the very steps of `gateway.domain.windows`, so to the same bits. It travels, and is kept, beside the body:
`<count>`, or `<count>,<mean>,<std>,<min>,<max>`, with the 17 digits that tell all doubles apart.
"""

import hashlib
from collections.abc import Sequence
from typing import Final

from gateway.broker.redis.wire import pack
from gateway.domain.stream import HistoryRange
from gateway.domain.windows import LARGE_EXPONENT

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

# `sum` is exact up to its one rounding, as `math.fsum` is: *parts* hold the sum so far as numbers that do not overlap,
# the smallest first; what an addition rounds off becomes a part of its own. In the end the parts are added from the
# largest down, and where what is left decides a tie, it does.
_DESCRIBE: Final = f"""
local abs = math.abs
local function sum(numbers)
    local parts, count = {{}}, 0
    for each = 1, #numbers do
        local number, kept = numbers[each], 0
        for at = 1, count do
            local part = parts[at]
            if abs(number) < abs(part) then number, part = part, number end
            local rounded = number + part
            local rest = part - (rounded - number)
            if rest ~= 0 then
                kept = kept + 1
                parts[kept] = rest
            end
            number = rounded
        end
        count = kept
        if number ~= 0 then
            count = count + 1
            parts[count] = number
        end
    end
    local total, rest, at = 0, 0, count
    while at > 0 and rest == 0 do
        local rounded = total + parts[at]
        rest = parts[at] - (rounded - total)
        total = rounded
        at = at - 1
    end
    if at > 0 and rest ~= 0 and (rest < 0) == (parts[at] < 0) then
        local rounded = total + rest * 2
        if rounded - total == rest * 2 then total = rounded end
    end
    return total
end
local function mean_and_std(numbers, low, high, divisor)
    local count, deviations, squares = #numbers, {{}}, {{}}
    local mean = sum(numbers) / count
    if mean < low then mean = low elseif mean > high then mean = high end
    for at = 1, count do
        local deviation = numbers[at] - mean
        deviations[at], squares[at] = deviation, deviation * deviation
    end
    local rest = sum(deviations)
    local left = sum(squares) - rest * rest / count
    if left > 0 then return mean, math.sqrt(left / divisor) end
    return mean, 0
end
local function describe(numbers, is_sample)
    local count, low, high = #numbers, numbers[1], numbers[1]
    if count == 1 then return '1' end
    for at = 2, count do
        local number = numbers[at]
        if number < low then low = number elseif number > high then high = number end
    end
    local largest, mean, std = math.max(-low, high), nil, nil
    local divisor = is_sample and count - 1 or count
    if largest == 0 or (largest >= 2^-{LARGE_EXPONENT} and largest < 2^{LARGE_EXPONENT}) then
        mean, std = mean_and_std(numbers, low, high, divisor)
    else
        local _, exponent = math.frexp(largest)
        local scaled = {{}}
        for at = 1, count do scaled[at] = math.ldexp(numbers[at], -exponent) end
        mean, std = mean_and_std(scaled, math.ldexp(low, -exponent), math.ldexp(high, -exponent), divisor)
        if exponent == 1024 then std = math.min(std, 1 - 2^-53) end
        mean, std = math.ldexp(mean, exponent), math.ldexp(std, exponent)
    end
    return string.format('%d,%.17g,%.17g,%.17g,%.17g', count, mean, std, low, high)
end
"""

# KEYS beyond the second, each if there: the window, if a number is given; where the result of this idempotency key is
# kept. ARGV: new epoch, seen epoch, seen top, channel, body, size (0: no stream), ttl and meta ttl in ms, version ('':
# none), what it counts in, lifetime of a result in ms; then, if the channel has a window: the number as text, how many
# numbers its window holds besides, its ttl in ms, 'sample' or 'population'. Returns offset, epoch ('' without a
# stream), 1 if nobody was sent it because it is a repeat, 2 if because of its version. What the data may be refused for
# is read before the first write.
PUBLISH: Final = Script(
    _BEGIN
    + """
local window = ARGV[12] and KEYS[3]
local result = KEYS[window and 4 or 3]
if result then
    local first = redis.call('GET', result)
    if first then
        local offset, epoch = string.match(first, '^(%d+):(.*)$')
        return {tonumber(offset), epoch, 1}
    end
end
local function remember(offset, epoch)
    if result then redis.call('SET', result, digits(offset) .. ':' .. epoch, 'PX', ARGV[11]) end
end
local statistics, slide
if window then
"""
    + _DESCRIBE
    + """
    local numbers = {}
    for _, text in ipairs(redis.call('LRANGE', window, -ARGV[13], -1)) do numbers[#numbers + 1] = tonumber(text) end
    numbers[#numbers + 1] = tonumber(ARGV[12])
    statistics = describe(numbers, ARGV[15] == 'sample')
    slide = function()
        redis.call('RPUSH', window, ARGV[12])
        redis.call('LTRIM', window, -ARGV[13] - 1, -1)
        redis.call('PEXPIRE', window, ARGV[14])
    end
end
local body, size, version = ARGV[5], ARGV[6], ARGV[9]
if size == '0' then
    remember(0, '')
    if window then slide() end
    redis.call('PUBLISH', ARGV[4], (window and 't0::' .. statistics .. ':' or 'p') .. body)
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
    return {top, epoch, 2}
end
local offset, added = top + 1, nil
if window then
    added = redis.pcall('XADD', KEYS[1], 'MAXLEN', size, digits(offset) .. '-0', 'd', body, 't', statistics)
else
    added = redis.pcall('XADD', KEYS[1], 'MAXLEN', size, digits(offset) .. '-0', 'd', body)
end
if type(added) == 'table' and added.err then
    if not string.find(added.err, 'equal or smaller', 1, true) then return added end
    begin()
    epoch, offset = ARGV[1], 1
    redis.call('XADD', KEYS[1], '1-0', 'd', body, unpack(window and {'t', statistics} or {}))
end
if window then slide() end
redis.call('HSET', KEYS[2], 'o', digits(offset))
if version ~= '' then redis.call('HSET', KEYS[2], 'v', version, 'w', ARGV[10]) end
redis.call('PEXPIRE', KEYS[1], ARGV[7])
keep(KEYS[2], ARGV[8])
remember(offset, epoch)
if window then
    redis.call('PUBLISH', ARGV[4], 't' .. digits(offset) .. ':' .. epoch .. ':' .. statistics .. ':' .. body)
else
    redis.call('PUBLISH', ARGV[4], 's' .. digits(offset) .. ':' .. epoch .. ':' .. body)
end
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
