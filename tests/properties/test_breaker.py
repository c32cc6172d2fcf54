"""The circuit breaker under any number of calls that overlap and end in any order, against its rules in plain words."""

from dataclasses import dataclass

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.proxies.breaker import Breaker, BreakerState
from gateway.proxies.settings import BreakerSettings

SETTINGS = BreakerSettings(failures=3, pause_s=1.0, max_pause_s=5.0)


@dataclass(eq=False)
class Call:
    """One that was let through."""

    permit: int
    is_trial: bool
    counts: bool = True
    """Whether the breaker has not changed its state since."""


class BreakerMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.breaker = Breaker(SETTINGS)
        self.now_s = 0.0
        self.state = BreakerState.CLOSED
        self.failures = 0
        self.pause_s = SETTINGS.pause_s
        self.retry_at_s = 0.0
        self.calls: list[Call] = []

    def enter(self, state: BreakerState) -> None:
        self.state, self.failures = state, 0
        for call in self.calls:
            call.counts = False

    @rule(seconds=st.floats(0, 3))
    def let_time_pass(self, seconds: float) -> None:
        self.now_s += seconds

    @rule()
    def call(self) -> None:
        is_trying = any(call.is_trial and call.counts for call in self.calls)
        may = {
            BreakerState.CLOSED: True,
            BreakerState.OPEN: self.now_s >= self.retry_at_s,
            BreakerState.HALF_OPEN: not is_trying,
        }[self.state]
        assert self.breaker.refuses(now_s=self.now_s) is not may
        permit = self.breaker.admit(now_s=self.now_s)
        assert (permit is not None) is may
        if permit is not None:
            if self.state is BreakerState.OPEN:
                self.enter(BreakerState.HALF_OPEN)
            self.calls.append(Call(permit, is_trial=self.state is BreakerState.HALF_OPEN))

    @precondition(lambda self: self.calls)
    @rule(data=st.data())
    def succeed(self, data: st.DataObject) -> None:
        call = self.drawn(data)
        self.breaker.succeeded(call.permit)
        if call.counts:
            self.failures = 0
            if self.state is BreakerState.HALF_OPEN:
                self.pause_s = SETTINGS.pause_s
                self.enter(BreakerState.CLOSED)

    @precondition(lambda self: self.calls)
    @rule(data=st.data(), random=st.floats(0, 1, exclude_max=True))
    def fail(self, data: st.DataObject, random: float) -> None:
        call = self.drawn(data)
        self.breaker.failed(call.permit, now_s=self.now_s, random=random)
        if call.counts:
            self.failures += 1
            if call.is_trial or self.failures == SETTINGS.failures:
                self.retry_at_s = self.now_s + self.pause_s * (1 + random) / 2
                self.pause_s = min(2 * self.pause_s, SETTINGS.max_pause_s)
                self.enter(BreakerState.OPEN)

    @precondition(lambda self: self.calls)
    @rule(data=st.data())
    def abandon(self, data: st.DataObject) -> None:
        self.breaker.abandoned(self.drawn(data).permit)

    def drawn(self, data: st.DataObject) -> Call:
        return self.calls.pop(data.draw(st.integers(0, len(self.calls) - 1)))

    @invariant()
    def it_is_in_the_state_that_the_rules_say(self) -> None:
        assert self.breaker.state is self.state

    @invariant()
    def it_never_stays_open_for_longer_than_the_longest_pause(self) -> None:
        if self.state is BreakerState.OPEN:
            assert self.retry_at_s <= self.now_s + SETTINGS.max_pause_s
            assert not self.breaker.refuses(now_s=self.now_s + SETTINGS.max_pause_s)


TestBreaker = BreakerMachine.TestCase
