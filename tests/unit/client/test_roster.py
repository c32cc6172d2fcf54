import asyncio
import itertools
from typing import Any

import pytest

from gateway.client.endings import Ending, Kind
from gateway.client.errors import ClosedError, InvalidArgumentError, UnauthorizedError
from gateway.client.roster import PoolSettings, PoolStatistics, Roster
from tests.unit.client.fake_connections import Factory, FakeConnection
from tests.unit.client.manual_timers import ManualTimers

NO_TOKEN = Ending(Kind.CLOSE, "invalid token", 3500)


class Desk:
    def __init__(self, **settings: Any) -> None:
        self.factory = Factory()
        self.timers = ManualTimers()
        self.roster = Roster[FakeConnection](
            PoolSettings(**({"size": 2} | settings)),
            self.factory,
            delays=lambda: itertools.chain([1.0, 2.0], itertools.repeat(4.0)),
            timers=self.timers,
        )

    def numbers(self, **expected: int) -> bool:
        """Compare the statistics, zero where nothing is said; fails with both."""
        names = PoolStatistics.__struct_fields__
        assert self.roster.statistics == PoolStatistics(**{name: expected.get(name, 0) for name in names})
        return True


def opened(**settings: Any) -> Desk:
    desk = Desk(**settings)
    desk.roster.open()
    desk.factory.succeed()
    return desk


async def test_it_keeps_its_size_open() -> None:
    desk = Desk(size=3)
    desk.numbers()
    desk.roster.open()
    desk.numbers(opening=3)
    desk.factory.succeed()
    desk.numbers(idle=3)


async def test_the_connection_used_last_is_lent_next_and_leaves_its_channels_when_it_comes_back() -> None:
    desk = opened()
    first = desk.roster.ask().result()
    assert first.number == 1
    desk.numbers(idle=1, in_use=1)
    desk.roster.give_back(first)
    assert (desk.roster.ask().result(), first.left) == (first, 1)


async def test_under_load_there_are_twice_as_many_and_no_more() -> None:
    desk = opened()
    asked = [desk.roster.ask() for _ in range(7)]
    desk.numbers(in_use=2, opening=2, overflow=2, waiting=5, waits=5)
    desk.factory.succeed()
    desk.numbers(in_use=4, overflow=2, waiting=3, waits=5)
    assert [each.done() for each in asked] == [True] * 4 + [False] * 3
    assert len({each.result() for each in asked[:4]}) == 4


async def test_whoever_waits_longest_is_served_first() -> None:
    desk = opened(size=1)
    asked = [desk.roster.ask() for _ in range(6)]
    desk.factory.succeed()
    for number in range(2, 6):
        desk.roster.give_back(asked[number - 2].result())
        assert [each.done() for each in asked] == [True] * (number + 1) + [False] * (5 - number)


async def test_one_that_comes_when_others_wait_does_not_overtake_them() -> None:
    desk = opened(size=1)
    first, second = desk.roster.ask(), desk.roster.ask()
    desk.factory.succeed()
    waiting = desk.roster.ask()
    desk.roster.give_back(first.result())
    late = desk.roster.ask()
    assert (waiting.done(), late.done()) == (True, False)
    desk.roster.give_back(second.result())
    assert late.done()


async def test_after_the_load_it_shrinks_again() -> None:
    desk = opened(shrink_after_s=30, check_every_s=10)
    asked = [desk.roster.ask() for _ in range(4)]
    desk.factory.succeed()
    for each in asked:
        desk.roster.give_back(each.result())
    desk.timers.advance(29)
    desk.numbers(idle=4, overflow=2, waits=2)
    desk.timers.advance(10)
    desk.numbers(idle=2, waits=2, shrunk=2)
    for connection in desk.factory.made:
        connection.finish()
    desk.numbers(idle=2, waits=2, shrunk=2)


async def test_a_connection_in_use_is_not_too_many() -> None:
    desk = opened(shrink_after_s=10, check_every_s=10)
    asked = [desk.roster.ask() for _ in range(4)]
    desk.factory.succeed()
    desk.timers.advance(100)
    desk.numbers(in_use=4, overflow=2, waits=2)
    assert [each.result().number for each in asked] == [1, 0, 2, 3]


# Connections that end.


async def test_an_idle_one_that_ends_is_replaced() -> None:
    desk = opened()
    desk.factory.made[0].fail()
    desk.numbers(idle=1, opening=1, replaced=1)


async def test_one_that_has_ended_is_not_handed_out_even_before_it_has_said_so() -> None:
    desk = opened()
    desk.factory.made[1].lose()
    assert desk.roster.ask().result().number == 0
    desk.numbers(in_use=1, opening=1)
    desk.factory.made[1].finish()
    desk.numbers(in_use=1, opening=1, replaced=1)


async def test_one_that_ends_in_use_is_replaced_at_once_and_taken_back_without_a_word() -> None:
    desk = opened()
    lent = desk.roster.ask().result()
    lent.fail()
    desk.numbers(idle=1, opening=1, replaced=1)
    desk.roster.give_back(lent)
    desk.factory.succeed()
    desk.numbers(idle=2, replaced=1)
    assert lent not in [desk.roster.ask().result() for _ in range(2)]


async def test_one_that_comes_back_dead_is_not_lent_again() -> None:
    desk = opened()
    lent = desk.roster.ask().result()
    lent.lose()
    desk.roster.give_back(lent)
    assert lent not in [desk.roster.ask().result() for _ in range(1)]
    lent.finish()
    assert desk.roster.statistics.replaced == 1


async def test_a_silent_one_is_pinged_and_then_replaced() -> None:
    desk = opened(check_every_s=10)
    dumb, talking = desk.factory.made
    dumb.silent_for_s = 10
    desk.timers.advance(10)
    assert (dumb.pings, talking.pings) == (1, 0)
    dumb.silent_for_s = 20
    desk.timers.advance(10)
    assert dumb.state.value == "closed"
    desk.numbers(idle=1, opening=1)
    dumb.finish()
    desk.numbers(idle=1, opening=1, replaced=1)


# Connections that can't be opened.


async def test_failing_attempts_are_paced_and_those_who_wait_go_on_waiting() -> None:
    desk = Desk()
    desk.roster.open()
    waiting = desk.roster.ask()
    for attempt, delay_s in enumerate((1.0, 2.0, 4.0)):
        for each in desk.factory.opening:
            each.fail()
        assert (len(desk.factory.made), desk.factory.opening) == (2 * (attempt + 1), [])
        desk.timers.advance(delay_s - 0.1)
        assert desk.factory.opening == []
        desk.timers.advance(0.1)
        assert len(desk.factory.opening) == 2
    assert not waiting.done()
    desk.factory.succeed()
    assert waiting.done()


async def test_a_refusal_for_good_is_told_and_not_repeated_until_somebody_asks() -> None:
    desk = Desk()
    desk.roster.open()
    waiting = [desk.roster.ask() for _ in range(2)]
    for each in desk.factory.opening:
        each.fail(NO_TOKEN)
    for waiter in waiting:
        with pytest.raises(UnauthorizedError):
            waiter.result()
    desk.timers.advance(100)
    desk.numbers(waits=2)
    again = desk.roster.ask()
    desk.factory.succeed()
    assert again.done()


# Those who change their mind.


async def test_a_cancelled_waiter_leaks_nothing() -> None:
    desk = opened(size=1)
    held = desk.roster.ask().result()
    waiting = desk.roster.ask()
    desk.factory.succeed()
    taken = waiting.result()
    third = desk.roster.ask()
    third.cancel()
    desk.roster.give_back(held)
    desk.roster.withdraw(third)
    desk.roster.give_back(taken)
    desk.numbers(idle=2, overflow=1, waits=2)


async def test_a_waiter_that_was_served_while_it_was_cancelled_gives_it_back() -> None:
    desk = opened(size=1)
    waiter = desk.roster.ask()
    desk.roster.withdraw(waiter)
    desk.numbers(idle=1)


async def test_a_connection_is_given_back_once() -> None:
    desk = opened()
    lent = desk.roster.ask().result()
    desk.roster.give_back(lent)
    with pytest.raises(InvalidArgumentError, match="release each connection once"):
        desk.roster.give_back(lent)


# The end.


async def test_closing_tells_those_who_wait_and_stops_all() -> None:
    desk = opened(size=1)
    held, waiting = desk.roster.ask().result(), desk.roster.ask()
    desk.roster.close()
    with pytest.raises(ClosedError):
        waiting.result()
    with pytest.raises(ClosedError):
        await desk.roster.ask()
    for each in desk.factory.made:
        each.finish()
    desk.roster.give_back(held)
    assert [each.state.value for each in desk.factory.made] == ["closed"] * 2
    assert desk.timers.waits == []
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.parametrize("wrong", [{"size": 0}, {"shrink_after_s": 0}, {"check_every_s": -1}])
def test_settings_that_cannot_work_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError):
        PoolSettings(**wrong)
