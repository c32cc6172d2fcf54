from pathlib import Path

import msgspec

from loadtest.peers.findings import Case, Findings, PeerRun, Setup, Trouble
from loadtest.peers.table import comparison
from loadtest.results import Machine

GOLDEN = Path(__file__).with_name("peers.md")


def _run(peer: str, number: int, scale: float, *, lost: int = 0, redis_us: float = 0.0) -> PeerRun:
    cases = [
        Case(
            in_flight=in_flight, messages=100, deliveries=1000, lost=lost, duplicated=0, reordered=0,
            server_us=scale * 4 / in_flight, redis_us=redis_us, load_us=3.0, p50_ms=scale, p99_ms=scale * 3,
            deliveries_per_s=100_000.0,
        )
        for in_flight in (1, 4)
    ]  # fmt: skip
    return PeerRun(peer=peer, round=number, kb_per_connection=scale * 5, cases=cases)


FINDINGS = Findings(
    started_at="2026-11-25T22:00:00+00:00",
    machine=Machine(
        system="Linux", architecture="x86_64", cores=2, memory_bytes=1, python="CPython 3.11.7", load_before=3.0
    ),
    setup=Setup(subscribers=1000, payload_bytes=100, in_flight=[1, 4], deliveries=1000, rounds=3),
    runs=[
        *(_run("gateway", number, scale) for number, scale in enumerate((1.0, 1.2, 9.0), start=1)),
        *(_run("websockets", number, 2.4) for number in (1, 2, 3)),
        _run("channels", 1, 12.0, lost=2, redis_us=0.5),
    ],
    troubles=[
        Trouble(peer="channels", reason="not measured in round 2: the server did not start: it said nothing"),
        Trouble(peer="nchan", reason="skipped: it is taken from Debian's packages, and this is no Debian or Ubuntu"),
    ],
)


def test_the_table_is_the_golden_one() -> None:
    assert comparison(FINDINGS) == GOLDEN.read_text(encoding="utf-8")


def test_without_the_gateway_there_are_figures_and_no_ratios() -> None:
    alone = msgspec.structs.replace(FINDINGS, runs=FINDINGS.runs[3:4], troubles=[])
    assert "| websockets, `broadcast()` | 9.6 | 2.4 | 12 | 2.4 | 7.2 | yes |" in comparison(alone)


def test_nothing_measured_is_an_empty_table() -> None:
    assert "for a delivery (median), and at most 0 %" in comparison(msgspec.structs.replace(FINDINGS, runs=[]))
