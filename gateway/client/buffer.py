"""A bounded buffer between the connection, which must not wait, and the one task that iterates."""

import asyncio
from collections import deque
from typing import Final, Generic, TypeVar

from gateway.client.errors import ClientError, InvalidArgumentError

ITEM_BYTES: Final = 256
"""What an item counts beside its payload; about what it takes."""

ItemT = TypeVar("ItemT")


class Buffer(Generic[ItemT]):
    """Items in their order, bounded in bytes. One task at a time may take; cancelling it loses nothing."""

    __slots__ = ("_error", "_held_bytes", "_is_over", "_items", "_max_bytes", "_wanted")

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._items: deque[tuple[ItemT, int]] = deque()
        self._held_bytes = 0
        self._wanted: asyncio.Future[None] | None = None  # of the task that waits for an item
        self._is_over = False
        self._error: ClientError | None = None

    def __len__(self) -> int:
        return len(self._items)

    def offer(self, item: ItemT, payload_bytes: int = 0) -> bool:
        """Keep *item*; false means that it does not fit. An empty buffer takes anything."""
        size = payload_bytes + ITEM_BYTES
        if self._items and self._held_bytes + size > self._max_bytes:
            return False
        self._items.append((item, size))
        self._held_bytes += size
        self._wake()
        return True

    def end(self, last: ItemT, error: ClientError | None, *, is_emptied: bool) -> None:
        """Let takers have *last* behind what is kept (*is_emptied*: in its place), and then *error*, or the end."""
        if is_emptied:
            self._items.clear()
        self._items.append((last, 0))
        self._is_over = True
        self._error = error
        self._wake()

    async def take(self) -> ItemT:
        """Return the next item, when there is one.

        Raises:
            StopAsyncIteration: at the end.
            ClientError: at the end, if there is something to say; each time again.
        """
        while not self._items:
            if self._error is not None:
                raise self._error.with_traceback(None)
            if self._is_over:
                raise StopAsyncIteration
            if self._wanted is not None:
                raise InvalidArgumentError("another task iterates already", to_do="iterate in one task")
            self._wanted = asyncio.get_running_loop().create_future()
            try:
                await self._wanted
            finally:
                self._wanted = None
        item, size = self._items.popleft()
        self._held_bytes -= size
        return item

    def _wake(self) -> None:
        wanted = self._wanted
        if wanted is not None and not wanted.done():
            wanted.set_result(None)
