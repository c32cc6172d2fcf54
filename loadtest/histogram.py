"""Latencies, counted: the buckets and the encoding of HdrHistogram, so that its tools read what is written here.

Three significant digits, from 1 µs to an hour. Recording is one addition in a list, since it is done for each delivery:
a fifth of what the `hdrhistogram` package takes, which is the oracle in a test.

The layout: values below 2,048 have a bucket each; above, each doubling of the value has 1,024 buckets.
"""

import base64
import binascii
import struct
import zlib
from collections.abc import Iterator
from typing import Final, Self

SIGNIFICANT_DIGITS: Final = 3
LOWEST_US: Final = 1
HIGHEST_US: Final = 3_600_000_000
_HALF_BITS: Final = 10
_HALF: Final = 1 << _HALF_BITS
_LINEAR: Final = 2 * _HALF
_LENGTH: Final = ((HIGHEST_US.bit_length() - 1 - _HALF_BITS) << _HALF_BITS) + _LINEAR
# HdrHistogram's V2 encoding: https://github.com/HdrHistogram/HdrHistogram (AbstractHistogram, encodeIntoByteBuffer).
_COOKIE: Final = 0x1C849303 | 0x10
_COMPRESSED_COOKIE: Final = 0x1C849304 | 0x10
_HEAD: Final = struct.Struct(">iiiiqqd")
_COMPRESSED_HEAD: Final = struct.Struct(">ii")
_CONTINUES: Final = 0x80
_LONGEST_VARINT: Final = 9


class HistogramError(ValueError):
    """A text that is no encoded histogram of this layout."""


class Histogram:
    """Counts of values in microseconds. One below 1 counts as 0, one above an hour as an hour."""

    __slots__ = ("counts", "max_us")

    def __init__(self) -> None:
        self.counts = [0]  # by bucket; grows with what is recorded: one a second must not cost the whole range
        self.max_us = 0
        """The largest value, exactly as long as it was recorded here, and its bucket's end after `decode`."""

    def record(self, value_us: int) -> None:
        """Count one value."""
        if value_us < _LINEAR:
            index = max(value_us, 0)
        else:
            value_us = min(value_us, HIGHEST_US)
            shift = value_us.bit_length() - 1 - _HALF_BITS
            index = (shift << _HALF_BITS) + (value_us >> shift)
        self.max_us = max(self.max_us, value_us)
        try:
            self.counts[index] += 1
        except IndexError:
            self.counts += [0] * (index + 1 - len(self.counts))
            self.counts[index] += 1

    def add(self, other: "Histogram") -> None:
        """Count what *other* has counted."""
        theirs = other.counts
        self.counts += [0] * (len(theirs) - len(self.counts))
        for index, count in enumerate(theirs):
            if count:
                self.counts[index] += count
        self.max_us = max(self.max_us, other.max_us)

    @property
    def count(self) -> int:
        """How many values were counted."""
        return sum(self.counts)

    @property
    def mean_us(self) -> float:
        """Their mean; 0 where there are none."""
        count = self.count
        return sum((low + high) / 2 * n for low, high, n in self.buckets()) / count if count else 0.0

    def percentile_us(self, percent: float) -> int:
        """Return the value that *percent* of all are not above, exact to three digits; 0 where there are none."""
        wanted = max(1, -int(-percent / 100 * self.count // 1))
        seen = 0
        for _, high, count in self.buckets():
            seen += count
            if seen >= wanted:
                return min(high, self.max_us)
        return 0

    def count_above(self, value_us: int) -> int:
        """Return how many values are above *value_us*, to the width of a bucket."""
        return sum(count for low, _, count in self.buckets() if low > value_us)

    def buckets(self) -> Iterator[tuple[int, int, int]]:
        """Yield lowest value, highest value and count of each bucket that holds something, in order."""
        for index, count in enumerate(self.counts):
            if count:
                low, high = _bounds(index)
                yield low, high, count

    def encode(self) -> str:
        """Return it as HdrHistogram's compressed V2 encoding in base64."""
        payload = bytearray()
        zeros = 0
        for count in self.counts:
            if not count:
                zeros += 1
                continue
            if zeros:
                _put_varint(payload, -zeros)
                zeros = 0
            _put_varint(payload, count)
        head = _HEAD.pack(_COOKIE, len(payload), 0, SIGNIFICANT_DIGITS, LOWEST_US, HIGHEST_US, 1.0)
        packed = zlib.compress(head + bytes(payload))
        return base64.b64encode(_COMPRESSED_HEAD.pack(_COMPRESSED_COOKIE, len(packed)) + packed).decode()

    @classmethod
    def decode(cls, text: str) -> Self:
        """Read what `encode` has written, or any HdrHistogram with the same digits; raises `HistogramError`."""
        try:
            data = base64.b64decode(text, validate=True)
            cookie, length = _COMPRESSED_HEAD.unpack_from(data)
            unpacked = zlib.decompress(data[_COMPRESSED_HEAD.size : _COMPRESSED_HEAD.size + length])
            inner, payload_length, offset, digits, lowest, _, _ = _HEAD.unpack_from(unpacked)
        except (binascii.Error, ValueError, struct.error, zlib.error) as error:
            raise HistogramError(f"no histogram: {error}") from None
        layout = (cookie, inner, offset, digits, lowest)
        if layout != (_COMPRESSED_COOKIE, _COOKIE, 0, SIGNIFICANT_DIGITS, LOWEST_US):
            raise HistogramError("a histogram of another layout")
        histogram = cls()
        counts: list[int] = []
        for value in _varints(unpacked[_HEAD.size : _HEAD.size + payload_length]):
            if value < 0:
                counts += [0] * min(-value, _LENGTH)
            else:
                counts.append(value)
            if len(counts) > _LENGTH:
                raise HistogramError("a histogram of a wider range")
        histogram.counts = counts or [0]
        histogram.max_us = max((high for _, high, _ in histogram.buckets()), default=0)
        return histogram

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Histogram) and list(self.buckets()) == list(other.buckets())

    __hash__ = None  # type: ignore[assignment]  # it changes

    def __repr__(self) -> str:
        """Show what one asks first."""
        return f"<Histogram of {self.count}, p50 {self.percentile_us(50)} µs, max {self.max_us} µs>"


def merged(encoded: list[str]) -> Histogram:
    """Add up encoded histograms; an empty text is an empty one."""
    whole = Histogram()
    for text in encoded:
        if text:
            whole.add(Histogram.decode(text))
    return whole


def _bounds(index: int) -> tuple[int, int]:
    if index < _LINEAR:
        return index, index
    shift = (index >> _HALF_BITS) - 1
    low = (index - (shift << _HALF_BITS)) << shift
    return low, low + (1 << shift) - 1


def _put_varint(payload: bytearray, value: int) -> None:
    """Append *value* in zigzag, seven bits a byte."""
    rest = value << 1 if value >= 0 else (-value << 1) - 1
    while rest >= _CONTINUES:
        payload.append(rest & 0x7F | _CONTINUES)
        rest >>= 7
    payload.append(rest)


def _varints(payload: bytes) -> Iterator[int]:
    shift = value = 0
    for byte in payload:
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte & _CONTINUES:
            if shift >= 7 * _LONGEST_VARINT:
                raise HistogramError("a count without end")
            continue
        yield value >> 1 if not value & 1 else -(value >> 1) - 1
        shift = value = 0
    if shift:
        raise HistogramError("a count that was cut off")
