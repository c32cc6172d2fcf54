import asyncio
from collections import Counter, defaultdict, deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.broker.contract import BrokerError
from gateway.broker.memory.broker import MemoryBroker
from gateway.broker.outcome import Outcome
from gateway.messaging.subscriptions import Interest


class _ManualBroker(MemoryBroker):
    """Carries out what it was asked for a channel in order, one step at a time, when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[str, str]] = []
        self.asked: set[str] = set()
        """What the caller has asked for, whether it was carried out or not."""
        self.subscribed: set[str] = set()
        self._waiting: defaultdict[str, deque[tuple[str, Outcome[None]]]] = defaultdict(deque)

    def subscribe(self, channel: str) -> Outcome[None]:
        assert channel not in self.asked, "subscribed twice"
        self.asked.add(channel)
        return self._wait("subscribe", channel)

    def unsubscribe(self, channel: str) -> Outcome[None]:
        assert channel in self.asked, "unsubscribed from what was not subscribed"
        self.asked.remove(channel)
        return self._wait("unsubscribe", channel)

    def _wait(self, what: str, channel: str) -> Outcome[None]:
        self.calls.append((what, channel))
        outcome: Outcome[None] = Outcome()
        self._waiting[channel].append((what, outcome))
        return outcome

    @property
    def waiting(self) -> list[str]:
        return [channel for channel, steps in self._waiting.items() if steps]

    def settle(self, channel: str, *, fails: bool = False) -> None:
        """Carry out the oldest step for *channel*; only subscribing can fail."""
        if not self._waiting[channel]:
            return
        what, outcome = self._waiting[channel].popleft()
        if what == "unsubscribe":
            self.subscribed.discard(channel)
            outcome.succeed(None)
        elif fails:
            # The caller's wish is void, unless it was withdrawn in the meantime and perhaps renewed.
            if not self._waiting[channel]:
                self.asked.discard(channel)
            outcome.fail(BrokerError("down"))
        else:
            self.subscribed.add(channel)
            outcome.succeed(None)


async def _settle_loop() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_the_first_asks_the_broker_and_the_last_one_out_cancels() -> None:
    broker = _ManualBroker()
    interest = Interest(broker)
    joining = [asyncio.ensure_future(interest.acquire("a")) for _ in range(3)]
    await _settle_loop()
    assert broker.calls == [("subscribe", "a")]
    assert not any(task.done() for task in joining)
    broker.settle("a")
    await asyncio.gather(*joining)
    assert len(interest) == 1
    interest.release("a")
    interest.release("a")
    assert broker.calls == [("subscribe", "a")]
    interest.release("a")
    assert broker.calls == [("subscribe", "a"), ("unsubscribe", "a")]
    assert len(interest) == 0


async def test_a_failed_confirmation_fails_all_who_wait_and_leaves_nothing() -> None:
    broker = _ManualBroker()
    interest = Interest(broker)
    joining = [asyncio.ensure_future(interest.acquire("a")) for _ in range(2)]
    await _settle_loop()
    broker.settle("a", fails=True)
    results = await asyncio.gather(*joining, return_exceptions=True)
    assert [str(result) for result in results] == ["down", "down"]
    assert len(interest) == 0
    assert broker.calls == [("subscribe", "a")]


async def test_who_comes_in_the_turn_of_a_failure_asks_anew() -> None:
    broker = _ManualBroker()
    interest = Interest(broker)
    first = asyncio.ensure_future(interest.acquire("a"))
    await _settle_loop()
    # Its first step comes after the failure, and before those who waited for it wake.
    second = asyncio.ensure_future(interest.acquire("a"))
    broker.settle("a", fails=True)
    await _settle_loop()
    broker.settle("a")
    with pytest.raises(BrokerError):
        await first
    await second
    assert len(interest) == 1
    assert broker.subscribed == {"a"}


async def test_one_who_gives_up_harms_nobody_else() -> None:
    broker = _ManualBroker()
    interest = Interest(broker)
    given_up, patient = (asyncio.ensure_future(interest.acquire("a")) for _ in range(2))
    await _settle_loop()
    given_up.cancel()
    await _settle_loop()
    broker.settle("a")
    await patient
    assert given_up.cancelled()
    assert broker.calls == [("subscribe", "a")]
    interest.release("a")
    assert len(interest) == 0


async def test_the_only_one_who_gives_up_leaves_no_subscription_behind() -> None:
    broker = _ManualBroker()
    interest = Interest(broker)
    only = asyncio.ensure_future(interest.acquire("a"))
    await _settle_loop()
    only.cancel()
    await _settle_loop()
    broker.settle("a")
    broker.settle("a")
    assert broker.calls == [("subscribe", "a"), ("unsubscribe", "a")]
    assert broker.subscribed == set()
    assert len(interest) == 0


async def test_a_wait_cancelled_in_the_turn_of_its_confirmation_leaves_no_subscription_behind() -> None:
    broker = _ManualBroker()
    interest = Interest(broker)
    only = asyncio.ensure_future(interest.acquire("a"))
    await _settle_loop()
    broker.settle("a")
    only.cancel()
    await _settle_loop()
    assert only.cancelled()
    assert broker.calls == [("subscribe", "a"), ("unsubscribe", "a")]


_CHANNELS = st.sampled_from(["a", "b"])
_STEPS = st.tuples(st.sampled_from(["join", "leave", "cancel", "confirm", "fail", "turn"]), _CHANNELS)


class _Race:
    """Interest, its broker, and those who join and leave."""

    def __init__(self) -> None:
        self.broker = _ManualBroker()
        self.interest = Interest(self.broker)
        self.holders: Counter[str] = Counter()
        self.joining: list[tuple[str, asyncio.Task[None]]] = []

    @property
    def held(self) -> set[str]:
        return {channel for channel, count in self.holders.items() if count}

    async def join(self, channel: str) -> None:
        self.joining.append((channel, asyncio.ensure_future(self._hold(channel))))

    async def leave(self, channel: str) -> None:
        if self.holders[channel]:
            self.holders[channel] -= 1
            self.interest.release(channel)

    async def cancel(self, channel: str) -> None:
        task = next((task for name, task in self.joining if name == channel and not task.done()), None)
        if task is not None:
            task.cancel()

    async def confirm(self, channel: str) -> None:
        self.broker.settle(channel)

    async def fail(self, channel: str) -> None:
        self.broker.settle(channel, fails=True)

    async def turn(self, _channel: str) -> None:
        await _settle_loop()

    async def finish(self) -> None:
        """Confirm all that waits, until nothing does."""
        await _settle_loop()
        while self.broker.waiting:
            for channel in self.broker.waiting:
                self.broker.settle(channel)
            await _settle_loop()

    async def _hold(self, channel: str) -> None:
        await self.interest.acquire(channel)
        assert channel in self.broker.subscribed, "told before the broker confirmed"
        self.holders[channel] += 1


@given(st.lists(_STEPS, max_size=40))
@settings(max_examples=300, deadline=None)
def test_no_subscription_is_lost_or_leaked_whatever_the_order(steps: list[tuple[str, str]]) -> None:
    asyncio.run(_run(steps))


async def _run(steps: list[tuple[str, str]]) -> None:
    race = _Race()
    for what, channel in steps:
        await getattr(race, what)(channel)
        assert race.held <= race.broker.asked, "held here, and the broker was told otherwise"
    await race.finish()
    results = await asyncio.gather(*(task for _, task in race.joining), return_exceptions=True)
    unexpected = [each for each in results if not isinstance(each, BrokerError | asyncio.CancelledError | None)]
    assert unexpected == []
    assert race.broker.subscribed == race.broker.asked == race.held
    assert len(race.interest) == len(race.held)
    for channel in list(race.holders.elements()):
        await race.leave(channel)
    await race.finish()
    assert (race.broker.subscribed, len(race.interest)) == (set(), 0)
