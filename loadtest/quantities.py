"""Numbers as people read them."""

from typing import Final

_US_A_MS: Final = 1000
_US_A_S: Final = 1_000_000
_S_A_MIN: Final = 60
_S_AN_HOUR: Final = 3600
_SMALL: Final = 10
_MIDDLE: Final = 100
_MINUS: Final = "\N{MINUS SIGN}"


def rounded(value: float) -> str:
    """Return *value* with three digits or so: 0.12, 1.23, 12.3, 1,234."""
    size = abs(value)
    digits = 2 if size < _SMALL else 1 if size < _MIDDLE else 0
    text = f"{size:,.{digits}f}"
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return f"{_MINUS}{text}" if value < 0 and text != "0" else text


def duration(us: float) -> str:
    """Return a time that is given in microseconds: 850 µs, 12.3 ms, 1.2 s, 2 min."""
    if us < _US_A_MS:
        return f"{rounded(us)} µs"
    if us < _US_A_S:
        return f"{rounded(us / _US_A_MS)} ms"
    return seconds(us / _US_A_S)


def seconds(value: float) -> str:
    """Return a time that is given in seconds: 0.5 s, 90 s, 2 min, 1.5 h."""
    if value < 2 * _S_A_MIN:
        return f"{rounded(value)} s"
    if value < 2 * _S_AN_HOUR:
        return f"{rounded(value / _S_A_MIN)} min"
    return f"{rounded(value / _S_AN_HOUR)} h"


def whole(value: float) -> str:
    """Return a count: 1,234,567."""
    return f"{value:,.0f}"


def short(value: float) -> str:
    """Return a count for little room: 950, 1.2 k, 35 M."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{rounded(value / size)} {unit}"
    return rounded(value)


def size(value: float) -> str:
    """Return a number of bytes: 512 B, 12.3 MiB."""
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:  # noqa: PLR2004 - the unit itself
            return f"{rounded(value)} {unit}"
        value /= 1024
    return f"{rounded(value)} GiB"
