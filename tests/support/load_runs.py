"""A run of a load test as it could have been: three nodes, one of which was killed."""

from typing import Any

import msgspec

from loadtest.histogram import Histogram
from loadtest.results import (
    Book,
    ChaosEvent,
    Check,
    Costs,
    Finding,
    Latency,
    Ledger,
    Machine,
    Phases,
    Results,
    Run,
    Second,
    Server,
    Target,
    Usage,
    Verdict,
    Verification,
)

_NODES = ("node1", "node2", "node3")
_CRASH_S = 12


def histogram(values_us: dict[int, int]) -> str:
    """Encode so many of each value."""
    counted = Histogram()
    for value, count in values_us.items():
        for _ in range(count):
            counted.record(value)
    return counted.encode()


def _second(at_s: int) -> Second:
    phase = "ramp-up" if at_s < 4 else "plateau" if at_s < 24 else "drain" if at_s < 26 else "ramp-down"
    is_down = _CRASH_S <= at_s < _CRASH_S + 3
    published = 100 if phase == "plateau" else 0
    connections = min(at_s + 1, 4) * 50 if at_s < 26 else 0
    servers = {
        name: Usage() if is_down and name == "node1" else Usage(cpu_s=0.25, memory_bytes=50 * 2**20) for name in _NODES
    }
    return Second(
        at_s=at_s,
        phase=phase,
        connections=connections - 66 if is_down else connections,
        connects=50 if phase == "ramp-up" else 0,
        reconnects=22 if is_down else 0,
        published=published,
        acknowledged=published * 3 // 5 if is_down else published,
        delivered=published * 60 if is_down else published * 100,
        errors={"disconnected: lost": 66} if at_s == _CRASH_S else {},
        latency=histogram({2000: 60, 90_000 if is_down else 4000: 40}) if published else "",
        acknowledgement=histogram({900: 100}) if published else "",
        servers=servers,
        workers=[Usage(cpu_s=0.4, memory_bytes=60 * 2**20)] * 2,
    )


RUN = Results(
    started_at="2026-11-25T22:00:00Z",
    is_interrupted=False,
    machine=Machine(
        system="Linux 6.1",
        architecture="x86_64",
        cores=2,
        memory_bytes=8 * 2**30,
        python="CPython 3.11.7",
        load_before=0.1,
    ),
    target=Target(
        addresses=["ws://127.0.0.1:8001/connection/websocket"],
        protocol="json",
        is_own=True,
        servers=[Server(name=name, address=f"127.0.0.1:800{number}", pid=number) for number, name in enumerate(_NODES)],
        version="0.1.0",
    ),
    run=Run(
        scenario="mixed",
        description="Several kinds of load at once.",
        parameters={"clients": 200, "rate": 100.0},
        workers=2,
        seed=7,
        command=["run", "mixed", "--chaos", "kill:node1@12s"],
    ),
    phases=Phases(ramp_up_s=0, plateau_s=4, drain_s=24, ramp_down_s=26, end_s=28),
    timeline=[_second(at_s) for at_s in range(28)],
    latency=Latency(
        delivery=histogram({2000: 600, 4000: 390, 90_000: 10}), acknowledgement=histogram({900: 1000}), model="open"
    ),
    verification=Verification(
        publications=2000, refused=0, unanswered=3, delivered=188_000, recovered=66, duplicated=1, findings=[
            Finding(kind="duplicated", channel="room|<b>", subscriber=17, publisher=3, first=210, last=210)
        ]
    ),
    ledger=Ledger(
        books=[
            Book(
                server=name, accepted=700, received=2000, due=62_670, delivered=62_660, filtered=0,
                dropped={"closed": 10}, queued=0, is_complete=name != "node1",
            )
            for name in _NODES
        ],
        delivered=187_980,
        received=188_000,
        verdict="The servers' books begin anew where one was killed.",
        is_agreed=None,
    ),
    costs=Costs(server_us_per_delivery=3.21, server_kb_per_connection=5.4),
    chaos=[
        ChaosEvent(
            at_s=12, action="kill:node1", detail="pid 0", clients_hit=66, clients_recovered_after_s=2.5,
            publishing_recovered_after_s=None,
        )
    ],
    verdict=Verdict(
        is_passed=False,
        checks=[
            Check(text="p99<50ms", measured=0.004, limit=0.05, is_met=True),
            Check(text="duplicated=0", measured=1, limit=0, is_met=False),
        ],
    ),
    notes=["The load side used 80 % of a core."],
)  # fmt: skip


def changed(value: Any, **changes: Any) -> Any:
    """Return *value* with some fields changed."""
    return msgspec.structs.replace(value, **changes)
