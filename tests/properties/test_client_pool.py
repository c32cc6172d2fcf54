"""The pool's books under any order of asking, giving back, changing one's mind, opening, failing and dying."""

import asyncio
import itertools
from collections.abc import Callable
from typing import TypeVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from gateway.client.events import State
from gateway.client.roster import PoolSettings, Roster
from tests.unit.client.fake_connections import Factory, FakeConnection
from tests.unit.client.manual_timers import ManualTimers

SIZE = 3
SomeT = TypeVar("SomeT")
index = st.integers(0, 10_000)


class PoolMachine(RuleBasedStateMachine):
    """A thousand borrowers and their pool. A model holds who asked in which order, and who has what."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.factory = Factory()
        self.timers = ManualTimers()
        self.roster = Roster[FakeConnection](
            PoolSettings(size=SIZE, shrink_after_s=20, check_every_s=10),
            self.factory,
            delays=lambda: itertools.repeat(1.0),
            timers=self.timers,
        )
        self.asked: list[asyncio.Future[FakeConnection]] = []
        self.held: list[FakeConnection] = []
        self.dead: set[FakeConnection] = set()
        self.run(self.roster.open)

    def teardown(self) -> None:
        self.run(self.roster.close)
        for each in self.factory.made:
            self.run(each.finish)
        for waiter in self.asked:
            assert waiter.done(), "somebody waits for ever"
            if not waiter.cancelled():
                waiter.exception()
        assert self.timers.waits == []
        self.loop.close()

    def run(self, function: Callable[[], SomeT]) -> SomeT:
        """Call a plain function with the loop running, and look at what it brought."""

        async def call() -> SomeT:
            return function()

        result = self.loop.run_until_complete(call())
        self.collect()
        return result

    def collect(self) -> None:
        """Take note of who was served: those who asked first, each with a living connection of its own."""
        self.dead |= {each for each in self.factory.made if each.state is State.CLOSED}
        served = list(itertools.takewhile(lambda waiter: waiter.done(), self.asked))
        assert not any(waiter.done() for waiter in self.asked[len(served) :]), "somebody overtook others"
        del self.asked[: len(served)]
        for waiter in served:
            if waiter.cancelled() or waiter.exception() is not None:
                continue
            connection = waiter.result()
            assert connection.state is State.CONNECTED, "a dead connection was handed out"
            assert connection not in self.held, "two have the same connection"
            self.held.append(connection)

    @rule(count=st.sampled_from([1, 2, 5, 1000]))
    def ask(self, count: int) -> None:
        def ask() -> None:
            self.asked += [self.roster.ask() for _ in range(count if len(self.asked) < 1000 else 1)]

        self.run(ask)

    @rule(which=index)
    def give_back(self, which: int) -> None:
        if self.held:
            connection = self.held.pop(which % len(self.held))
            self.run(lambda: self.roster.give_back(connection))

    @rule(which=index)
    def change_ones_mind(self, which: int) -> None:
        if self.asked:
            waiter = self.asked.pop(which % len(self.asked))
            self.run(lambda: self.roster.withdraw(waiter))

    @rule(which=index)
    def be_cancelled_and_then_withdraw(self, which: int) -> None:
        """A task's future is cancelled at once, and the task itself runs some turns later."""
        if self.asked:
            waiter = self.asked.pop(which % len(self.asked))
            self.run(waiter.cancel)
            if self.held:
                connection = self.held.pop()
                self.run(lambda: self.roster.give_back(connection))
            self.run(lambda: self.roster.withdraw(waiter))

    @rule(which=index)
    def open_one(self, which: int) -> None:
        if opening := self.factory.opening:
            self.run(opening[which % len(opening)].succeed)

    @rule(which=index)
    def fail_to_open(self, which: int) -> None:
        if opening := self.factory.opening:
            self.run(opening[which % len(opening)].fail)

    @rule(which=index, is_late=st.booleans())
    def die(self, which: int, *, is_late: bool) -> None:
        alive = [each for each in self.factory.made if each.state is State.CONNECTED]
        if alive:
            victim = alive[which % len(alive)]
            self.run(victim.lose if is_late else victim.fail)

    @rule()
    def say_so(self) -> None:
        for each in self.factory.made:
            self.run(each.finish)

    @rule(seconds=st.sampled_from([0.5, 1.0, 10.0, 45.0]))
    def pass_time(self, seconds: float) -> None:
        self.run(lambda: self.timers.advance(seconds))

    @invariant()
    def books_add_up(self) -> None:
        now = self.roster.statistics
        assert now.waiting == len(self.asked)
        assert now.idle + now.in_use + now.opening <= 2 * SIZE
        assert now.overflow == max(0, now.idle + now.in_use + now.opening - SIZE)
        assert now.in_use <= len(self.held)
        assert now.opening == len(self.factory.opening)

    @invariant()
    def nobody_waits_while_something_is_free(self) -> None:
        now = self.roster.statistics
        assert not (now.waiting and now.idle)

    @invariant()
    def what_is_missing_is_being_opened_or_will_be(self) -> None:
        now = self.roster.statistics
        wanted = min(2 * SIZE, max(SIZE, now.in_use + now.waiting))
        is_waiting_to_retry = any(wait_s <= 1.0 for wait_s in self.timers.waits)
        assert now.idle + now.in_use + now.opening >= wanted or is_waiting_to_retry


TestPool = PoolMachine.TestCase
TestPool.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
