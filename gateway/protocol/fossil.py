r"""Patches in Fossil's delta format (protocol.md 2.8): a text told as pieces of the one before, and what is new in it.

    <size>\n  ( <length>@<offset>,  |  <length>:<bytes> )*  <checksum>;

Numbers are in base 64, the highest digit first; sizes and offsets count bytes. What two texts begin and end with alike
is found by comparing slices, so a small change in a large text costs microseconds. Only what lies between is looked for
block by block, and that search gives up after `_MAX_TURNS`: what it misses is sent as new, so the time is bounded,
whatever the texts are. 2 KB with 20 bytes changed take 19 µs, 64 KB 0.3 ms, the worst pair of 64 KB that we know 2 ms
(timeit).
"""

import array
import sys
from collections.abc import Iterator
from typing import Final, NamedTuple

_DIGITS: Final = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz~"
_VALUES: Final = {digit: value for value, digit in enumerate(_DIGITS)}
_BLOCK: Final = 16
"""How much alike two places must be to be found."""
_WORTH: Final = 8
"""Bytes from which on it is shorter to say where they stand than to say them, roughly."""
_MAX_TURNS: Final = 4096
"""How many places of the target are looked at; to have found something costs `_TURNS_A_PIECE` of them."""
_TURNS_A_PIECE: Final = 8
_MAX_DIGITS: Final = 11
_WORD: Final = 4


class PatchError(ValueError):
    """A patch that is none, or not one of this source."""


class _Piece(NamedTuple):
    """*length* bytes that stand at *at* in the target and at *source_at* in the source."""

    at: int
    source_at: int
    length: int


def patch(source: bytes, target: bytes) -> bytes | None:
    """Return what makes *target* of *source*; `None` if that is not shorter than *target*."""
    return _written(target, _pieces(source, target))


def text_patch(source: bytes, target: bytes) -> bytes | None:
    """Do the same with a patch that is UTF-8, as a JSON string has to be, if *target* is: no character is cut."""
    pieces = _pieces(source, target)
    return _written(target, pieces if target.isascii() else _whole_characters(target, pieces))


def patched(source: bytes, patch: bytes, *, max_size: int = 1 << 26) -> bytes:
    """Return what *patch* makes of *source*, at most *max_size* bytes.

    Raises:
        PatchError: if it is no patch, or one of another source, as its checksum tells.
    """
    size, position = _number(patch, 0, b"\n")
    if size > max_size:
        message = f"a target of {size} bytes, more than {max_size}"
        raise PatchError(message)
    parts: list[bytes] = []
    left = size
    while True:
        number, position = _number(patch, position, b"@:;")
        kind = patch[position - 1 : position]
        if kind == b";":
            break
        if number > left:
            raise PatchError("pieces that are longer than the target")
        if kind == b":":
            parts.append(patch[position : position + number])
            position += number
        else:
            offset, position = _number(patch, position, b",")
            parts.append(source[offset : offset + number])
        if len(parts[-1]) != number:
            raise PatchError("a piece beyond the end")
        left -= number
    target = b"".join(parts)
    if left or position != len(patch) or checksum(target) != number:
        raise PatchError("not a patch of this source")
    return target


def checksum(target: bytes) -> int:
    """Return the sum of the big-endian 32-bit words of *target*, padded with zeros, in 32 bits."""
    words = array.array("I", target + bytes(-len(target) % _WORD))
    if sys.byteorder == "little":
        words.byteswap()
    return sum(words) & 0xFFFFFFFF


# Finding what is alike.


def _pieces(source: bytes, target: bytes) -> list[_Piece]:
    """Return pieces of *target*, in order and apart, that are in *source* too."""
    shorter = min(len(source), len(target))
    head = _alike(source, 0, target, 0, shorter)
    tail = _alike_before(source, len(source), target, len(target), shorter - head)
    end = len(target) - tail
    pieces = [_Piece(0, 0, head)]
    if end - head >= 2 * _BLOCK:
        pieces += _found(source, target, head, end)
    pieces.append(_Piece(end, len(source) - tail, tail))
    return [piece for piece in pieces if piece.length >= _WORTH]


def _found(source: bytes, target: bytes, begin: int, end: int) -> Iterator[_Piece]:
    """Look for what stands between *begin* and *end* of *target* anywhere in *source*."""
    # The first of equal blocks is kept: made in reverse, an earlier one takes the place of a later.
    starts = range(len(source) // _BLOCK * _BLOCK - _BLOCK, -1, -_BLOCK)
    blocks = {source[start : start + _BLOCK]: start for start in starts}
    at, turns = begin, 0
    while at <= end - _BLOCK and turns < _MAX_TURNS:
        found = blocks.get(target[at : at + _BLOCK])
        if found is None:
            at += 1
            turns += 1
            continue
        before = _alike_before(source, found, target, at, min(found, at - begin))
        limit = min(len(source) - found, end - at)
        length = before + _BLOCK + _alike(source, found + _BLOCK, target, at + _BLOCK, limit - _BLOCK)
        yield _Piece(at - before, found - before, length)
        begin = at = at - before + length
        turns += _TURNS_A_PIECE


def _alike(one: bytes, at: int, other: bytes, other_at: int, limit: int) -> int:
    """Return how many bytes are alike from two places on, *limit* at most; linear in what it returns."""
    length, step = 0, _BLOCK
    while step:
        step = min(step, limit - length)
        here, there = at + length, other_at + length
        if one[here : here + step] == other[there : there + step]:
            length += step
            if length == limit:
                break
            step *= 2
        else:
            return length + _halved(one, here, other, there, step)
    return length


def _halved(one: bytes, at: int, other: bytes, other_at: int, step: int) -> int:
    """Return how many bytes are alike of *step* that are not all."""
    length = 0
    while step > 1:
        half = step // 2
        here, there = at + length, other_at + length
        if one[here : here + half] == other[there : there + half]:
            length += half
            step -= half
        else:
            step = half
    return length


def _alike_before(one: bytes, end: int, other: bytes, other_end: int, limit: int) -> int:
    """Return how many bytes are alike before two places, *limit* at most."""
    length, step = 0, _BLOCK
    while length < limit:
        step = min(step, limit - length)
        here, there = end - length, other_end - length
        if one[here - step : here] == other[there - step : there]:
            length += step
            step *= 2
        elif step == 1:
            break
        else:
            limit = length + step - 1
            step //= 2
    return length


def _whole_characters(target: bytes, pieces: list[_Piece]) -> list[_Piece]:
    """Cut from *pieces* what would leave a part of a character outside."""
    whole = []
    for at, source_at, length in pieces:
        begin, end = at, at + length
        while begin < end and _continues(target, begin):
            begin += 1
        while end > begin and _continues(target, end):
            end -= 1
        if end - begin >= _WORTH:
            whole.append(_Piece(begin, source_at + begin - at, end - begin))
    return whole


def _continues(text: bytes, at: int) -> bool:
    return at < len(text) and text[at] & 0xC0 == 0x80  # noqa: PLR2004 - UTF-8's mark of a character's further bytes


# Writing and reading.


def _written(target: bytes, pieces: list[_Piece]) -> bytes | None:
    parts = [_digits(len(target)), b"\n"]
    done = 0
    for at, source_at, length in pieces:
        if at > done:
            parts += (_digits(at - done), b":", target[done:at])
        parts += (_digits(length), b"@", _digits(source_at), b",")
        done = at + length
    if len(target) > done:
        parts += (_digits(len(target) - done), b":", target[done:])
    parts += (_digits(checksum(target)), b";")
    written = b"".join(parts)
    return written if len(written) < len(target) else None


def _digits(number: int) -> bytes:
    digits = bytearray()
    while number > 63:  # noqa: PLR2004 - what one digit holds
        digits.append(_DIGITS[number & 63])
        number >>= 6
    digits.append(_DIGITS[number])
    digits.reverse()
    return bytes(digits)


def _number(patch: bytes, position: int, ends: bytes) -> tuple[int, int]:
    """Read a number that one of *ends* follows; returns it and the place behind that."""
    number, begin = 0, position
    while position < len(patch) and position - begin <= _MAX_DIGITS:
        digit = patch[position]
        position += 1
        if digit in ends and position - begin > 1:
            return number, position
        if digit not in _VALUES:
            break
        number = number << 6 | _VALUES[digit]
    raise PatchError("not a number where one has to be")
