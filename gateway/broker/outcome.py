"""A result that is there now or comes later.

A broker in memory answers a publish at once, one behind a network in a later turn; callers treat both alike. A done
`asyncio.Future` would still cost a turn of the event loop, and a whole batch can be settled here in the turn in which
its replies were read.
"""

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

ResultT = TypeVar("ResultT")


class Outcome(Generic[ResultT]):
    """Settled exactly once, with a result or an error. Callbacks run in the settling call, in the order they came."""

    __slots__ = ("_callbacks", "_result", "error", "is_settled")

    _result: ResultT

    def __init__(self) -> None:
        self.is_settled = False
        self.error: Exception | None = None
        """What it was settled with, if that was an error."""
        self._callbacks: list[Callable[[Outcome[ResultT]], None]] = []

    @classmethod
    def of(cls, result: ResultT) -> "Outcome[ResultT]":
        """Return an outcome that is settled already."""
        outcome = cls()
        outcome.succeed(result)
        return outcome

    def succeed(self, result: ResultT) -> None:
        """Settle with *result*."""
        self._result = result
        self._settle()

    def fail(self, error: Exception) -> None:
        """Settle with *error*."""
        self.error = error
        self._settle()

    def result(self) -> ResultT:
        """Return the result, or raise the error. You must know that the outcome is settled."""
        if self.error is not None:
            raise self.error
        return self._result

    def then(self, callback: "Callable[[Outcome[ResultT]], None]") -> None:
        """Call *callback* with this outcome: now if it is settled, else when it will be."""
        if self.is_settled:
            callback(self)
        else:
            self._callbacks.append(callback)

    async def wait(self) -> ResultT:
        """Wait for the result, or raise the error. Cancelling the wait leaves the outcome alone."""
        if not self.is_settled:
            settled: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._callbacks.append(lambda _: None if settled.done() else settled.set_result(None))
            await settled
        return self.result()

    def _settle(self) -> None:
        if self.is_settled:
            raise AssertionError("an outcome is settled once")
        self.is_settled = True
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback(self)
