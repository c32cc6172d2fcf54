import asyncio
from collections.abc import AsyncIterator

import pytest

from loadtest.messages import Access, Job
from loadtest.scenarios import Chat
from loadtest.stage import Presence, Stage
from loadtest.tally import Felt, Outage

_JOB = Job(
    index=1,
    workers=2,
    scenario="chat",
    parameters={},
    seed=1,
    run=7,
    suffix="-7",
    addresses=["ws://127.0.0.1:1/ws/{channel}", "ws://127.0.0.1:2/ws/{channel}"],
    protocol="plain",
    access=Access(token="t"),
    shares=1.0,
    local_addresses=["127.0.0.1", "127.0.0.2", "127.0.0.3"],
)


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    """The second of two workers."""
    async with asyncio.TaskGroup() as tasks:
        yield Stage(_JOB, Chat(), tasks)


async def test_clients_are_spread_over_targets_and_local_addresses(stage: Stage) -> None:
    seats = range(1, 13, 2)
    assert [stage.addresses(seat)[0][15:16] for seat in range(4)] == ["1", "2", "1", "2"]
    assert [stage.local_address(seat) for seat in seats] == ["127.0.0.1", "127.0.0.2", "127.0.0.3"] * 2
    assert stage.settings(1) is stage.settings(7)
    assert stage.settings(3).local_address == "127.0.0.2"


async def test_a_channel_has_its_namespace_and_the_runs_suffix_and_stands_in_the_plain_address(stage: Stage) -> None:
    channel = stage.channel("room 1")
    assert channel == "load:room 1-7"
    assert stage.addresses(0, channel)[0] == "ws://127.0.0.1:1/ws/load:room%201-7"


async def test_a_seat_is_ready_when_it_has_all_it_needs_and_misses_it_from_the_first_loss_on(stage: Stage) -> None:
    presence = Presence(stage, 5)
    presence.begin(2)
    presence.gain(100)
    assert (presence.is_ready, stage.ready, stage.been_ready) == (False, 0, 0)
    presence.gain(110)
    assert (presence.is_ready, stage.ready, stage.been_ready) == (True, 1, 1)
    presence.lose(200)
    presence.lose(210)
    presence.gain(220)
    assert (presence.is_ready, stage.ready) == (False, 0)
    presence.gain(250)
    presence.breaks()
    presence.lose(300)
    presence.end(400)
    assert (stage.ready, stage.been_ready) == (0, 1)
    assert stage.outages.all() == [Outage(Felt.CLIENTS, 200, 250, 1), Outage(Felt.BREAKS, 300, 400, 1)]
