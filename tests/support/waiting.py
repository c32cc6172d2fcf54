"""Waiting for something to come true, with a deadline that only a failing test meets."""

import asyncio
import time
from collections.abc import Callable

PATIENCE_S = 15


async def until(condition: Callable[[], bool], what: str = "") -> None:
    """Let the loop turn until *condition* holds; fails with *what* was waited for."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not condition():  # noqa: ASYNC110 - what is waited for here tells nobody
                await asyncio.sleep(0.002)
    except TimeoutError:
        raise AssertionError(f"never came: {what or condition}") from None


def eventually(condition: Callable[[], bool], told: Callable[[], str], *, patience_s: float = 60) -> None:
    """Wait until *condition* holds of something outside this process, asking a few times a second.

    Fails with what *told* says by then.
    """
    deadline = time.monotonic() + patience_s
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"never came: {told()}")
        time.sleep(0.2)
