"""Measures one peer: starts it, connects the crowd, runs each case, reads what it cost."""

import asyncio
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

from loadtest.peers.catalogue import Peer
from loadtest.peers.crowd import Crowd, Outcome
from loadtest.peers.findings import Case, PeerRun, Setup
from loadtest.peers.processes import Server, free_port, peer_command, redis, running

_SETTLING_S: Final = 0.5
"""After start and after connecting, before memory is read: what was only needed for a moment is given back."""
_US_A_S: Final = 1_000_000
_NS_A_MS: Final = 1_000_000


async def measure(peer: Peer, installed: Path, setup: Setup, *, number: int) -> PeerRun:
    """Measure *peer* in round *number*; nothing of it is left running.

    Raises:
        ServerError: if it does not start.
        CrowdError: if it does not serve the crowd.
    """
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="loadtest-")))
        beside = await stack.enter_async_context(redis(folder)) if peer.has_redis else None
        port = free_port()
        command, environment = peer_command(
            peer, installed, port=port, redis_port=beside.port if beside else None, folder=folder
        )
        server = await stack.enter_async_context(running(command, port, folder, **environment))
        await asyncio.sleep(_SETTLING_S)
        before_kb = server.memory_kb()
        crowd = Crowd(server.address, peer.dialect, payload_bytes=setup.payload_bytes)
        stack.callback(crowd.close)
        await crowd.connect(setup.subscribers)
        await asyncio.sleep(_SETTLING_S)
        kb_per_connection = (server.memory_kb() - before_kb) / (setup.subscribers + 1)
        await crowd.warm_up()
        cases: list[Case] = []
        for in_flight in setup.in_flight:
            cases.append(await _run(crowd, server, beside, setup, in_flight))
            if cases[-1].lost:
                break
    return PeerRun(peer=peer.key, round=number, kb_per_connection=kb_per_connection, cases=cases)


async def _run(crowd: Crowd, server: Server, beside: Server | None, setup: Setup, in_flight: int) -> Case:
    messages = max(in_flight, -(-setup.deliveries // setup.subscribers))
    before_s, beside_before_s = server.cpu_s(), beside.cpu_s() if beside else 0.0
    outcome = await crowd.run(messages, in_flight=in_flight)
    server_s, beside_s = server.cpu_s() - before_s, (beside.cpu_s() if beside else 0.0) - beside_before_s
    return _case(outcome, messages=messages, in_flight=in_flight, server_s=server_s, redis_s=beside_s)


def _case(outcome: Outcome, *, messages: int, in_flight: int, server_s: float, redis_s: float) -> Case:
    deliveries = max(1, outcome.deliveries)
    latencies = sorted(outcome.latencies_ns) or [0]
    return Case(
        in_flight=in_flight,
        messages=messages,
        deliveries=outcome.deliveries,
        lost=outcome.faults.lost,
        duplicated=outcome.faults.duplicated,
        reordered=outcome.faults.reordered,
        server_us=server_s * _US_A_S / deliveries,
        redis_us=redis_s * _US_A_S / deliveries,
        load_us=outcome.cpu_s * _US_A_S / deliveries,
        p50_ms=_percentile(latencies, 50) / _NS_A_MS,
        p99_ms=_percentile(latencies, 99) / _NS_A_MS,
        deliveries_per_s=outcome.deliveries / outcome.elapsed_s,
    )


def _percentile(values: Sequence[int], percent: int) -> int:
    """Return what *percent* of the sorted *values* are not above."""
    return values[max(0, -(-percent * len(values) // 100) - 1)]
