"""Handlers: async functions that answer a message to its sender alone, instead of publishing it.

A namespace names one (`handler = "echo"`) for the plain protocol, and `rpc` calls them by method name.
"""

from collections.abc import Mapping
from typing import Final, Protocol

from msgspec import Struct


class Request(Struct, frozen=True):
    """One message for a handler: *data* is `str` for text and `bytes` for binary, as the client sent it."""

    channel: str
    user: str
    client: str
    data: str | bytes


class Handler(Protocol):
    """Answers a request. What it raises becomes error 100 for the sender and a line in the log."""

    async def __call__(self, request: Request) -> str | bytes | None:
        """Return the answer: text, binary, or nothing."""


async def echo(request: Request) -> str | bytes:
    """Answer every message with itself."""
    return request.data


HANDLERS: Final[Mapping[str, Handler]] = {"echo": echo}
