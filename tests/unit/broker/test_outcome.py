import asyncio
from typing import Any

import pytest

from gateway.broker.contract import BrokerError
from gateway.broker.outcome import Outcome


def test_a_settled_outcome_calls_back_at_once() -> None:
    outcome = Outcome.of(7)
    seen: list[Any] = []
    outcome.then(seen.append)
    assert seen == [outcome]
    assert (outcome.is_settled, outcome.error, outcome.result()) == (True, None, 7)


def test_callbacks_run_in_the_settling_call_in_the_order_they_came() -> None:
    outcome: Outcome[int] = Outcome()
    seen: list[str] = []
    for name in ("first", "second", "third"):
        outcome.then(lambda _, name=name: seen.append(name))  # type: ignore[misc]
    assert seen == []
    outcome.succeed(1)
    assert seen == ["first", "second", "third"]


def test_a_failed_outcome_raises_its_error_to_everybody() -> None:
    outcome: Outcome[int] = Outcome()
    error = BrokerError("down")
    outcome.fail(error)
    assert (outcome.is_settled, outcome.error) == (True, error)
    for _ in range(2):
        with pytest.raises(BrokerError) as raised:
            outcome.result()
        assert raised.value is error


@pytest.mark.parametrize("again", [lambda o: o.succeed(2), lambda o: o.fail(BrokerError("down"))])
@pytest.mark.parametrize("once", [lambda o: o.succeed(1), lambda o: o.fail(BrokerError("down"))])
def test_an_outcome_is_settled_once(once: Any, again: Any) -> None:
    outcome: Outcome[int] = Outcome()
    once(outcome)
    with pytest.raises(AssertionError, match="settled once"):
        again(outcome)


async def test_a_wait_for_a_settled_outcome_takes_no_turn() -> None:
    coroutine = Outcome.of("now").wait()
    with pytest.raises(StopIteration) as returned:
        coroutine.send(None)
    assert returned.value.value == "now"


async def test_all_who_wait_get_the_result() -> None:
    outcome: Outcome[int] = Outcome()
    async with asyncio.TaskGroup() as group:
        waiting = [group.create_task(outcome.wait()) for _ in range(3)]
        await asyncio.sleep(0)
        outcome.succeed(5)
    assert [task.result() for task in waiting] == [5, 5, 5]


async def test_all_who_wait_get_the_error() -> None:
    outcome: Outcome[int] = Outcome()
    waiting = [asyncio.ensure_future(outcome.wait()) for _ in range(2)]
    await asyncio.sleep(0)
    outcome.fail(BrokerError("down"))
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert [str(result) for result in results] == ["down", "down"]


async def test_a_cancelled_wait_leaves_the_outcome_to_the_others() -> None:
    outcome: Outcome[int] = Outcome()
    given_up, patient = (asyncio.ensure_future(outcome.wait()) for _ in range(2))
    await asyncio.sleep(0)
    given_up.cancel()
    with pytest.raises(asyncio.CancelledError):
        await given_up
    outcome.succeed(5)
    assert await patient == 5
