"""What is done to the servers while a run goes on: read, carried out, and how long it was felt.

    VERB:NAME@AT[+FOR]      kill:node1@10s  stop:redis@5s+2s  cut:node2@3s+1s  run:failover@8s

Only processes are touched that the run itself has started, or that the user has named with their id.
"""

import re
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Final, NamedTuple

from loadtest.results import ChaosEvent
from loadtest.tally import Felt, Outage

_FORM: Final = re.compile(r"([a-z]+):([\w.-]+)@(\d+(?:\.\d+)?)(ms|s|m)?(?:\+(\d+(?:\.\d+)?)(ms|s|m)?)?")
_SECONDS: Final = {"": 1.0, "ms": 1e-3, "s": 1.0, "m": 60.0}


class Verb(StrEnum):
    """What can be done."""

    KILL = "kill"
    """SIGKILL: a crash."""
    STOP = "stop"
    """SIGSTOP, and SIGCONT after FOR (2 s): a process that hangs."""
    DRAIN = "drain"
    """SIGTERM: it sends its clients away, and ends."""
    RESTART = "restart"
    """SIGKILL, and started again after FOR (at once)."""
    CUT = "cut"
    """The link between a node and Redis breaks, and may be made anew after FOR (1 s); in clusters of the run's own."""
    RUN = "run"
    """A command that the user has named."""


DEFAULT_FOR_S: Final = {Verb.STOP: 2.0, Verb.CUT: 1.0}


class ChaosError(Exception):
    """Why something can't be done, in one sentence."""


class Action(NamedTuple):
    """One thing to do."""

    verb: Verb
    name: str
    at_s: float
    """In seconds of the plateau."""
    for_s: float

    def __str__(self) -> str:
        return f"{self.verb}:{self.name}"


def parse(text: str) -> Action:
    """Read one; raises `ChaosError`."""
    match = _FORM.fullmatch(text.strip())
    if match is None:
        raise ChaosError(f"{text!r} is no chaos: write VERB:NAME@AT or VERB:NAME@AT+FOR, such as kill:node1@10s")
    verb, name, at, at_unit, lasts, lasts_unit = match.groups()
    if verb not in set(Verb):
        raise ChaosError(f"{text!r}: there is no {verb!r}; there are {', '.join(Verb)}")
    known = Verb(verb)
    for_s = float(lasts) * _SECONDS[lasts_unit or ""] if lasts else DEFAULT_FOR_S.get(known, 0.0)
    return Action(known, name, float(at) * _SECONDS[at_unit or ""], for_s)


def check(actions: Iterable[Action], *, servers: Iterable[str], links: Iterable[str], commands: Iterable[str]) -> None:
    """Refuse actions on what there is not; raises `ChaosError`."""
    places = {Verb.CUT: set(links), Verb.RUN: set(commands)}
    for action in actions:
        known = places.get(action.verb, set(servers))
        if action.name not in known:
            names = f"there are {', '.join(sorted(known))}" if known else "there is nothing that it could be done to"
            raise ChaosError(f"{action}: there is no {action.name!r} to {action.verb}; {names}")


class Done(NamedTuple):
    """An action that was carried out."""

    at_us: int
    action: str
    detail: str


def recoveries(
    done: Sequence[Done], outages: Iterable[Outage], *, begin_us: int, felt: Felt = Felt.CLIENTS
) -> list[ChaosEvent]:
    """Say how long each action was felt: an outage belongs to the last action before its end."""
    outages = list(outages)
    events = []
    for index, each in enumerate(done):
        end_us = done[index + 1].at_us if index + 1 < len(done) else None
        clients = [outage for outage in outages if outage.felt is felt and _touches(outage, each.at_us, end_us)]
        publishing = [
            outage for outage in outages if outage.felt is Felt.PUBLISHING and _touches(outage, each.at_us, end_us)
        ]
        events.append(
            ChaosEvent(
                at_s=(each.at_us - begin_us) / 1e6,
                action=each.action,
                detail=each.detail,
                clients_hit=sum(outage.hits for outage in clients),
                clients_recovered_after_s=_after_s(each.at_us, clients),
                publishing_recovered_after_s=_after_s(each.at_us, publishing),
            )
        )
    return events


def _touches(outage: Outage, from_us: int, to_us: int | None) -> bool:
    begins_in_time = to_us is None or outage.begin_us < to_us
    return begins_in_time and (outage.end_us is None or outage.end_us > from_us)


def _after_s(at_us: int, outages: Sequence[Outage]) -> float | None:
    if not outages:
        return 0.0
    ends = [outage.end_us for outage in outages if outage.end_us is not None]
    return (max(ends) - at_us) / 1e6 if len(ends) == len(outages) else None
