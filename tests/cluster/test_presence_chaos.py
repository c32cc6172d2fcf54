"""Who is in a channel of three nodes, and who is told, when nodes die and Redis breaks."""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.support.clusters import Cluster, three_nodes
from tests.support.listener import Listener
from tests.support.oracle import Joined, Left
from tests.support.swarm import left_out, running

CHANNEL = "room"
TTL_S, INTERVAL_S = 2.0, 0.5
EXPIRY_S = TTL_S + 2 * INTERVAL_S
"""After this the entries of a dead node have gone: their lifetime, and the other nodes' next turn to sweep."""
PRESENCE: dict[str, Any] = {
    "client": {"presence_ttl": f"{TTL_S}s", "presence_update_interval": f"{INTERVAL_S}s"},
    "channel": {
        "without_namespace": {
            "presence": True,
            "join_leave": True,
            "force_push_join_leave": True,
            "allow_presence_for_client": True,
            "allow_presence_for_anonymous": True,
            # Without a stream nobody is asked to subscribe again, which would be a leave and a join.
            "history_size": 0,
            "history_ttl": 0,
            "force_recovery": False,
        }
    },
}


LONG_LIVED: dict[str, Any] = {"client": {"presence_ttl": "60s", "presence_update_interval": "27s"}}
"""Nothing expires in a test."""


def clients_of(cluster: Cluster, name: str, *, each: int) -> list[Listener]:
    """Make *each* clients for each node, which stay with it."""
    return [
        Listener(f"{name} {n} of node {number}", [CHANNEL], [address])
        for number, address in enumerate(cluster.addresses)
        for n in range(each)
    ]


async def all_in(clients: Sequence[Listener]) -> dict[str, Listener]:
    """Wait until all are subscribed, and return them by their ids."""
    late = await left_out(clients, lambda each: each.is_subscribed)
    assert late == [], f"not subscribed: {[each.name for each in late]}"
    return {each.client_id: each for each in clients}


def told(client: Listener, event: type[Joined | Left]) -> Counter[str]:
    """Return how often *client* was told of each one's join or leave, its own left out."""
    entries = client.journals[CHANNEL]
    found = Counter(entry.client for entry in entries if isinstance(entry, event))
    del found[client.client_id]
    return found


async def untold(clients: Sequence[Listener], event: type[Joined | Left], of: Counter[str]) -> dict[str, list[str]]:
    """Wait until all *clients* were told of every event *of*; return what some still miss when patience ends."""
    late = await left_out(clients, lambda each: told(each, event) >= of)
    return {each.name: [*(of - told(each, event))] for each in late}


async def presence_by(asking: Listener) -> set[str]:
    """Return who is in the channel; a node that can't tell right now is asked again."""
    while True:
        reply = await asking.ask({"presence": {"channel": CHANNEL}})
        if reply.presence is not None:
            return set(reply.presence.presence)
        assert reply.error is None or reply.error.may_retry, f"{asking.name} asked who is there: {reply}"
        await asyncio.sleep(0.05)


async def presence_becomes(wanted: set[str], askings: Sequence[Listener]) -> None:
    """Wait until each of *askings* is told that exactly *wanted* are in."""
    seen: dict[str, set[str]] = {}
    try:
        async with asyncio.timeout(4 * EXPIRY_S):
            while not seen or any(found != wanted for found in seen.values()):
                seen = {each.name: await presence_by(each) for each in askings}
    except TimeoutError:
        odd = {name: {"missing": wanted - found, "too many": found - wanted} for name, found in seen.items()}
        raise AssertionError(f"the presence never was right: {odd}") from None


async def holds_for(seconds: float, check: Callable[[], None]) -> None:
    """Check again and again until *seconds* have passed: for what must not come late either."""
    end_s = asyncio.get_running_loop().time() + seconds
    while asyncio.get_running_loop().time() < end_s:
        check()
        await asyncio.sleep(INTERVAL_S / 5)
    check()


async def test_who_comes_and_goes_on_three_nodes_is_told_once_and_seen_at_once(tmp_path: Path) -> None:
    async with three_nodes(tmp_path, PRESENCE, LONG_LIVED) as (_, cluster):
        observers, guests = clients_of(cluster, "observer", each=1), clients_of(cluster, "guest", each=5)
        async with running(observers):
            staying = await all_in(observers)
            async with running(guests):
                coming = await all_in(guests)
                expected = Counter(dict.fromkeys(coming, 1))
                assert await untold(observers, Joined, expected) == {}
                await presence_becomes({*staying, *coming}, observers)
                half = dict(list(coming.items())[::2])
                for each in half.values():
                    each.leave(CHANNEL)
                await presence_becomes({*staying, *coming} - {*half}, observers)
            assert await untold(observers, Left, expected) == {}
            await presence_becomes({*staying}, observers)

            for each in observers:
                assert told(each, Left) == expected, each.name
                assert {client: told(each, Joined)[client] for client in coming} == expected, each.name


async def test_the_clients_of_a_killed_node_leave_once_within_the_expiry(tmp_path: Path) -> None:
    async with three_nodes(tmp_path, PRESENCE) as (_, cluster):
        clients = clients_of(cluster, "client", each=4)
        async with running(clients):
            everybody = await all_in(clients)
            ghosts = Counter([each.client_id for each in clients[8:]])
            survivors = {id_: each for id_, each in everybody.items() if id_ not in ghosts}
            askings = [clients[0], clients[4]]
            await presence_becomes({*everybody}, askings)
            await cluster.kill(2)
            await presence_becomes({*survivors}, askings)
            assert await untold([*survivors.values()], Left, ghosts) == {}

            def each_ghost_left_once() -> None:
                assert {each.name: told(each, Left) for each in survivors.values() if told(each, Left) != ghosts} == {}

            await holds_for(EXPIRY_S, each_ghost_left_once)
            await presence_becomes({*survivors}, askings)
            assert [each.name for each in survivors.values() if each.connections != 1] == []


async def test_presence_is_whole_again_after_redis_has_lost_its_data(tmp_path: Path) -> None:
    """Nobody left, so nobody is told that somebody did."""
    async with three_nodes(tmp_path, PRESENCE) as (redis, cluster):
        clients = clients_of(cluster, "client", each=3)
        async with running(clients):
            everybody = await all_in(clients)
            await presence_becomes({*everybody}, clients[::3])
            await asyncio.to_thread(redis.restart, keep_data=False)
            await presence_becomes({*everybody}, clients[::3])
            await redis.execute("FLUSHALL")
            await presence_becomes({*everybody}, clients[::3])

            def nobody_left() -> None:
                assert {each.name: told(each, Left) for each in clients if told(each, Left)} == {}

            await holds_for(EXPIRY_S, nobody_left)
            assert [each.name for each in clients if each.connections != 1] == []


async def test_who_goes_while_redis_is_away_for_longer_than_a_lifetime_is_gone_when_it_is_back(tmp_path: Path) -> None:
    """Events are sent at most once: a leave may be lost with the links. Who stays may have expired, and be told of."""
    async with three_nodes(tmp_path, PRESENCE) as (redis, cluster):
        staying, going = clients_of(cluster, "client", each=3), clients_of(cluster, "guest", each=2)
        async with running(staying):
            stayed = await all_in(staying)
            async with running(going):
                await presence_becomes({*stayed, *await all_in(going)}, staying[::3])
                redis.freeze()
            await asyncio.sleep(TTL_S + INTERVAL_S)  # the fault itself
            redis.thaw()
            await presence_becomes({*stayed}, staying[::3])

            def nobody_left_twice() -> None:
                assert {each.name: told(each, Left) for each in staying if {*told(each, Left).values()} - {1}} == {}

            await holds_for(EXPIRY_S, nobody_left_twice)
            await presence_becomes({*stayed}, staying[::3])
            assert [each.name for each in staying if each.connections != 1] == []
