"""Makes results of what was gathered in a run. Pure, but for a look at the machine."""

from collections.abc import Sequence
from typing import Final, NamedTuple

from loadtest import chaos, thresholds
from loadtest.machine import describe
from loadtest.messages import Outcome, Sent
from loadtest.options import Options
from loadtest.reckoning import Reckoning
from loadtest.results import (
    ChaosEvent,
    Costs,
    Finding,
    Latency,
    Ledger,
    Phases,
    Results,
    Run,
    Second,
    Target,
    Usage,
    Verdict,
    Verification,
)
from loadtest.scenario import ClientPlan, Model, description, parameters
from loadtest.tally import Felt
from loadtest.timeline import Timeline
from loadtest.watching import MOST_FINDINGS

_BUSY: Final = 0.5
_LATE_S: Final = 0.05
_FULL: Final = 0.9
_ZERO: Final = Usage()


class Gathered(NamedTuple):
    """All that a run has brought."""

    options: Options
    phases: Phases
    begin_us: int
    timeline: Timeline
    sent: Sequence[Sent]
    outcomes: Sequence[Outcome]
    done: Sequence[chaos.Done]
    plans: Sequence[ClientPlan]
    most_connections: int
    memory_before: dict[str, int]
    """Of the servers, before the first client came."""
    gateways: Sequence[str]
    """The names of the servers that clients connect to."""
    notes: list[str]


def conclude(
    gathered: Gathered, *, started_at: str, load_before: float, is_interrupted: bool, target: Target, ledger: Ledger
) -> Results:
    """Return the results."""
    options, timeline = gathered.options, gathered.timeline
    scenario = options.scenario
    seconds = timeline.all(gathered.phases)
    verification = verify(gathered.sent, gathered.outcomes)
    spent = costs(seconds, gathered.gateways, gathered.memory_before, sum(timeline.memory_before_bytes.values()))
    events = events_of(gathered)
    return Results(
        started_at=started_at,
        is_interrupted=is_interrupted,
        machine=describe(load_before=load_before),
        target=target,
        run=Run(
            scenario=options.scenario_name,
            description=description(type(scenario)),
            parameters=parameters(scenario),
            workers=options.workers,
            seed=options.seed,
            command=options.command,
        ),
        phases=gathered.phases,
        timeline=seconds,
        latency=Latency(
            delivery=timeline.delivery.encode() if timeline.delivery.count else "",
            acknowledgement=timeline.acknowledgement.encode() if timeline.acknowledgement.count else "",
            model=scenario.model.value,
        ),
        verification=verification,
        ledger=ledger,
        costs=spent,
        chaos=events,
        verdict=_judge(gathered, seconds, verification, spent, events),
        notes=[*gathered.notes, *_notes(seconds, load_before, scenario.model)],
    )


def verify(sent: Sequence[Sent], outcomes: Sequence[Outcome]) -> Verification:
    """Hold what all subscribers saw against what all publishers sent."""
    reckoning = Reckoning(record for each in sent for record in each.records)
    missing = reckoning.settle(gap for outcome in outcomes for gap in outcome.gaps)
    counts = [outcome.counts for outcome in outcomes]
    findings: list[Finding] = [*missing.findings]
    for each in counts:
        findings += each.findings
    return Verification(
        publications=reckoning.acknowledged,
        refused=reckoning.refused,
        unanswered=reckoning.unanswered,
        delivered=sum(each.delivered for each in counts),
        lost=missing.lost,
        duplicated=sum(each.duplicated for each in counts),
        reordered=sum(each.reordered for each in counts),
        foreign=sum(each.foreign for each in counts),
        unrestored=sum(outcome.unrestored for outcome in outcomes),
        recovered=sum(each.recovered for each in counts),
        gaps_told=sum(each.gaps_told for each in counts),
        told=missing.told,
        unprotected=missing.unprotected,
        in_doubt=missing.in_doubt,
        findings=_first_of_each_kind(findings),
    )


def costs(
    seconds: Sequence[Second], gateways: Sequence[str], memory_before: dict[str, int], workers_before_bytes: int
) -> Costs:
    """Return what a delivery and a connection cost: the CPU of the plateau's whole seconds, the memory at its begin."""
    plateau = [second for second in seconds if second.phase == "plateau"]
    whole = plateau[1:-1]
    delivered = sum(second.delivered for second in whole)
    server_s = sum(second.servers.get(name, _ZERO).cpu_s for second in whole for name in gateways)
    worker_s = sum(used.cpu_s for second in whole for used in second.workers)
    server_kb = worker_kb = None
    if plateau and plateau[0].connections:
        begin, connections = plateau[0], plateau[0].connections
        grown = [
            begin.servers[name].memory_bytes - memory_before[name]
            for name in gateways
            if name in memory_before and begin.servers.get(name, _ZERO).memory_bytes
        ]
        server_kb = sum(grown) / 1024 / connections if grown else None
        now_bytes = sum(used.memory_bytes for used in begin.workers)
        worker_kb = (now_bytes - workers_before_bytes) / 1024 / connections if now_bytes else None
    return Costs(
        server_us_per_delivery=server_s / delivered * 1e6 if delivered and server_s else None,
        server_kb_per_connection=server_kb,
        worker_us_per_delivery=worker_s / delivered * 1e6 if delivered and worker_s else None,
        worker_kb_per_connection=worker_kb,
    )


def events_of(gathered: Gathered) -> list[ChaosEvent]:
    """Return what was done to the servers, and where the scenario broke many connections at once, in order."""
    outages = [outage for outcome in gathered.outcomes for outage in outcome.outages]
    begin_us = gathered.begin_us
    events = chaos.recoveries(gathered.done, outages, begin_us=begin_us)
    plateau_us = begin_us + int(gathered.phases.plateau_s * 1e6)
    end_us = begin_us + int(gathered.phases.drain_s * 1e6)
    moments: dict[float, int] = {}
    for plan in gathered.plans:
        for break_s in plan.breaks_s:
            moments[break_s] = moments.get(break_s, 0) + 1
    storms = [
        chaos.Done(plateau_us + int(at_s * 1e6), "storm", f"{count} clients lose their connections")
        for at_s, count in sorted(moments.items())
        if count > 1 and plateau_us + int(at_s * 1e6) < end_us
    ]
    events += chaos.recoveries(storms, outages, begin_us=begin_us, felt=Felt.BREAKS)
    return sorted(events, key=lambda event: event.at_s)


def _judge(
    gathered: Gathered,
    seconds: Sequence[Second],
    verification: Verification,
    spent: Costs,
    events: Sequence[ChaosEvent],
) -> Verdict:
    timeline, phases = gathered.timeline, gathered.phases
    recovered_s = [event.clients_recovered_after_s for event in events]
    recovered_s += [event.publishing_recovered_after_s for event in events]
    ended_s = [each for each in recovered_s if each is not None]
    plateau_s = max(1e-3, phases.drain_s - phases.plateau_s)
    measured = thresholds.Measured(
        delivery=timeline.delivery,
        acknowledgement=timeline.acknowledgement,
        verification=verification,
        costs=spent,
        connections=gathered.most_connections,
        errors=timeline.errors.total(),
        reconnects=timeline.totals["reconnects"],
        rate=sum(second.delivered for second in seconds if second.phase == "plateau") / plateau_s,
        behind_s=max((second.behind_s for second in seconds), default=0.0),
        recovery_s=max(ended_s, default=0.0) if len(ended_s) == len(recovered_s) else None,
    )
    return thresholds.judge(gathered.options.thresholds, measured)


def _first_of_each_kind(findings: Sequence[Finding]) -> list[Finding]:
    kept: dict[str, list[Finding]] = {}
    for finding in findings:
        of_kind = kept.setdefault(finding.kind, [])
        if len(of_kind) < MOST_FINDINGS:
            of_kind.append(finding)
    return [finding for of_kind in kept.values() for finding in of_kind]


def _notes(seconds: Sequence[Second], load_before: float, model: Model) -> list[str]:
    notes = []
    if not any(second.delivered for second in seconds):
        notes.append("Nothing was delivered, so nothing was checked.")
    if load_before > _BUSY:
        notes.append(
            f"Before the run {load_before:.1f} processes ran or waited for a core on average: other work had its part "
            "in the figures."
        )
    behind_s = max((second.behind_s for second in seconds), default=0.0)
    if model is Model.OPEN and behind_s > _LATE_S:
        notes.append(
            f"A publication was sent up to {behind_s * 1000:.0f} ms after its intended time; its latency counts that."
        )
    full = [
        number
        for number in range(len(seconds[0].workers) if seconds else 0)
        if sum(second.workers[number].cpu_s > _FULL for second in seconds) > len(seconds) / 2
    ]
    if full:
        notes.append(
            "A worker had a core to itself and used all of it: the load may be the bottleneck; use more workers."
        )
    return notes
