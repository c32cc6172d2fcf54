"""Parting with the clients of a node that stops: in random order, at an even pace, each behind its last answer.

serving ──told to stop──▶ unready ──grace over, nobody there──▶ door shut, clients sent away ──▶ flushed
"""

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, Protocol

from gateway.domain.drain import Pace
from gateway.messaging.conversation import Conversation
from gateway.messaging.services import Services
from gateway.protocol import codes
from gateway.settings import Seconds, Settings

FLUSH_S: Final = 2.0
"""How long a client that is to go may wait for the answers to what it has asked."""
_SHORTEST_NAP_S: Final = 0.01
"""Who goes within so little time goes together: one wake-up, one flush."""
_LOOKS_EVERY_S: Final = 0.05
"""How often those are looked at who wait for an answer; there are few, and none of them is told when it comes."""


class ShutdownSettings(Settings):
    """`shutdown`: how long a node that is told to stop takes for it."""

    grace_s: Seconds = 5.0
    """After SIGTERM, how long a node with clients is unready and goes on as before, for balancers to notice; only then
    new connections are refused and `drain.window` begins."""
    timeout_s: Seconds = 45.0
    """After SIGTERM, how long until the process ends whatever happens: at least `shutdown.grace`, `drain.window` and
    2 s for what is left to flush."""


class DrainSettings(Settings):
    """`drain`: how a node that stops parts with its clients."""

    window_s: Seconds = 30.0
    """Over how long they are sent away (3001; plain: 1001), evenly and in random order, so that they do not come back
    all at once. Few take less: ten a second go in any case. 0: all at once."""


class Door(Protocol):
    """Where clients come in."""

    @property
    def sockets(self) -> int:
        """How many sockets are in, or want to be."""

    def shut(self) -> None:
        """Take nobody in any more; a second time does nothing."""

    async def emptied(self) -> None:
        """Wait until no socket is left."""


class Drain:
    """Parts with all clients of a node; how far that is is there to be read."""

    def __init__(
        self, *, rng: random.Random | None = None, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    ) -> None:
        self.is_active = False
        """Whether the node parts with its clients, from the grace on."""
        self.clients = 0
        """How many were connected when it began to send them away."""
        self.sent_away = 0
        """How many it has told to go; the others left by themselves."""
        self._rng = rng or random.Random()  # noqa: S311 - spreads reconnects, guards nothing
        self._sleep = sleep
        self._hurried = asyncio.Event()
        # Those whose turn has come while they wait for answers, each with when that ends; soonest first.
        self._leaving: deque[tuple[Conversation, float]] = deque()

    @property
    def is_hurried(self) -> bool:
        """Whether nobody is waited for any more."""
        return self._hurried.is_set()

    def hurry(self) -> None:
        """Have all go at once, also those of a `run` under way."""
        self._hurried.set()

    async def run(
        self, services: Services, door: Door, *, shutdown: ShutdownSettings, drain: DrainSettings, has_grace: bool
    ) -> None:
        """Wait for the grace if it *has* one, shut *door*, send everybody away, and wait until all is flushed.

        Nobody is waited for where nobody is connected. It ends in any case with the time-out of *shutdown*, and then
        who is left has been told, at least.
        """
        began_at_s = services.monotonic()
        self.is_active = True
        grace_s = shutdown.grace_s if has_grace else 0.0
        services.log.info("draining", connections=len(services.connections), grace_s=grace_s, window_s=drain.window_s)
        try:
            async with asyncio.timeout(shutdown.timeout_s):
                await _either(door.emptied(), self._hurried.wait(), at_most_s=grace_s)
                door.shut()
                await self.send_away(services, window_s=drain.window_s)
                await door.emptied()
                await services.presences.taken()
        except TimeoutError:
            services.log.warning("shutdown timed out", sockets=door.sockets, connections=len(services.connections))
            door.shut()
            self.tell_all(services)
        seconds = round(services.monotonic() - began_at_s, 3)
        services.log.info("drained", connections=self.clients, sent_away=self.sent_away, seconds=seconds)

    async def send_away(self, services: Services, *, window_s: float) -> None:
        """Send everybody away over the window; returns when all that are left have been told to go.

        A client is not read from any more once its turn has come, and told to go when what it has asked is answered,
        or when that takes longer than `FLUSH_S`. May be called again, for who has come since.
        """
        line = self._line_up(services)
        self.clients = max(self.clients, len(line))
        now_s = services.monotonic()
        pace = Pace(len(line), window_s=window_s, now_s=now_s, random=self._rng.random)
        while line or self._leaving:
            now_s = services.monotonic()
            services.fanout.flush()  # what was accepted in this turn goes out before the goodbyes
            if self.is_hurried:
                pace = Pace(len(line), window_s=0, now_s=now_s, random=self._rng.random)
            for _ in range(pace.due(len(line), now_s=now_s)):
                self._part_with_next(line, until_s=now_s + FLUSH_S)
            self._tell_answered(now_s)
            if line or self._leaving:
                latest_s = now_s + _LOOKS_EVERY_S if self._leaving else pace.next_at_s
                next_at_s = min(pace.next_at_s, latest_s) if line else latest_s
                await self._sleep(max(next_at_s - services.monotonic(), _SHORTEST_NAP_S))
            else:
                line = self._line_up(services)  # a handshake that was under way has become a client meanwhile

    def tell_all(self, services: Services) -> None:
        """Tell everybody who is left to go, in this call."""
        services.fanout.flush()
        self._leaving.clear()
        for conversation in services.connections:
            self._tell(conversation)

    def _line_up(self, services: Services) -> list[Conversation]:
        line = list(services.connections)
        self._rng.shuffle(line)
        return line

    def _part_with_next(self, line: list[Conversation], *, until_s: float) -> None:
        """Part with the next one in *line* who is still there."""
        while line:
            conversation = line.pop()
            if conversation.has_gone():
                continue
            if not conversation.is_answered:
                conversation.stop_listening()
                self._leaving.append((conversation, until_s))
            else:
                self._tell(conversation)
            return

    def _tell_answered(self, now_s: float) -> None:
        for _ in range(len(self._leaving)):
            conversation, until_s = self._leaving.popleft()
            if conversation.is_answered or now_s >= until_s or self.is_hurried:
                self._tell(conversation)
            else:
                self._leaving.append((conversation, until_s))

    def _tell(self, conversation: Conversation) -> None:
        if not conversation.has_gone():
            self.sent_away += 1
            conversation.disconnect(codes.SHUTDOWN)


async def _either(*those: Coroutine[Any, Any, object], at_most_s: float) -> None:
    """Wait until one of *those* is over, and no longer than *at_most_s*."""
    tasks = [asyncio.ensure_future(each) for each in those]
    try:
        await asyncio.wait(tasks, timeout=at_most_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
