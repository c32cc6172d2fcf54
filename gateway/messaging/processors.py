"""Stream processors: small functions that add to what is published, in the order in which a namespace names them."""

import json
import re
from collections.abc import Mapping
from typing import Any, Final, Protocol

import orjson

_LONG_INTEGER: Final = re.compile(rb"[0-9]{19}")


class NotProcessableError(ValueError):
    """A value that a processor can't work on: error 107 for its publisher."""


class Processor(Protocol):
    """Adds fields to one value. Stateless: what it is given is all it knows."""

    def __call__(self, value: dict[str, Any], *, unix_s: float) -> dict[str, Any]:
        """Return *value* with more in it. *unix_s* is when this node accepted the publication.

        Raises:
            NotProcessableError: for a value that the processor does not understand.
        """


def server_time(value: dict[str, Any], *, unix_s: float) -> dict[str, Any]:
    """Add `server_time`: Unix seconds with microseconds, when the gateway accepted the publication."""
    return value | {"server_time": round(unix_s, 6)}


PROCESSORS: Final[Mapping[str, Processor]] = {"server_time": server_time}


def run_processors(data: bytes, processors: list[Processor], *, unix_s: float) -> bytes:
    """Pass one JSON value through *processors*; a value that is not an object becomes `{"data": value, …}` first.

    Raises:
        NotProcessableError: for what is not JSON that fits into numbers and strings, or what a processor refuses.
    """
    try:
        # orjson reads an integer beyond 64 bits as a float; json keeps it, and orjson then refuses to write it.
        value = json.loads(data) if _LONG_INTEGER.search(data) else orjson.loads(data)
        if not isinstance(value, dict):
            value = {"data": value}
        for processor in processors:
            value = processor(value, unix_s=unix_s)
        return orjson.dumps(value)
    except (ValueError, orjson.JSONEncodeError, RecursionError) as error:
        raise NotProcessableError(str(error)) from None
