"""What a scenario is: parameters, and a plan for each client. Ten lines make a new one (see `Scenario`)."""

import random
from enum import StrEnum

import msgspec
from msgspec import Struct


class Model(StrEnum):
    """When a publisher sends."""

    OPEN = "open"
    """At intended times, whatever the servers do; latency counts from there."""
    CLOSED = "closed"
    """The next as soon as one is answered."""


class Arrival(StrEnum):
    """How intended times are spread, in the open model."""

    EVEN = "even"
    POISSON = "poisson"


class ClientPlan(Struct, frozen=True, kw_only=True):
    """What one client does."""

    subscribe: tuple[str, ...] = ()
    """Channels, without namespace. A client of the plain protocol has exactly one, which it may publish into."""
    publish: tuple[str, ...] = ()
    """Channels that it publishes into, in turn, from the plateau's begin to its end."""
    share: float = 1.0
    """Its part of the scenario's `rate`, beside the other publishers'."""
    reads: bool = True
    """False: it subscribes and never reads again."""
    lives_s: float | None = None
    """How long it stays before it says goodbye and a new client takes its place; `None`: to the end."""
    away_s: float = 0.0
    """How long until that new client comes."""
    breaks_s: tuple[float, ...] = ()
    """When it loses its connection as in a bad network, in seconds of the plateau; it reconnects by itself."""
    by_api: bool = False
    """Publishes through the servers' HTTP API, where that is known; it then has no connection of its own."""


class Scenario(Struct, frozen=True, kw_only=True):
    """The base of all scenarios. Its fields are the parameters that a file or `--set` can change.

    A scenario of your own is a class with a docstring and a `client` method:

        from loadtest.scenario import ClientPlan, Scenario

        class Quiz(Scenario, frozen=True, kw_only=True):
            '''Teams listen, one host asks.'''
            teams: int = 10

            def client(self, number, chance):
                if number == 0:
                    return ClientPlan(publish=tuple(f"team-{team}" for team in range(self.teams)))
                return ClientPlan(subscribe=(f"team-{number % self.teams}",))

    Run it with `python -m loadtest run quiz.py:Quiz --set teams=5`. `client` is asked in each worker, so it must answer
    the same for the same number and *chance*.
    """

    clients: int = 100
    """How many clients there are, publishers among them."""
    rate: float = 100.0
    """Publications a second, all publishers together; in the closed model it only tells publishers from others."""
    model: Model = Model.OPEN
    arrivals: Arrival = Arrival.EVEN
    in_flight: int = 1
    """Closed model: how many publications a publisher has unanswered."""
    payload_bytes: int = 100
    namespace: str = "load"
    """What stands before each channel's name; empty for none."""
    has_cache: bool = False
    """Whether the namespace recovers the last publication alone (`force_recovery_mode = "cache"`)."""
    ramp_up_s: float = 2.0
    connecting: int = 100
    """How many clients of a worker may be on their way in; the ramp-up takes longer where servers are slower."""
    plateau_s: float = 10.0
    drain_s: float = 10.0
    """How long what is on its way may take to arrive after the last publication, at most."""
    ramp_down_s: float = 1.0
    settle_s: float = 30.0
    """How long after the ramp-up the last client may take to be connected and subscribed, at most."""
    backoff_base_s: float = 0.5
    """Of the clients' full jitter, whose limit grows by half each time."""
    backoff_cap_s: float = 10.0

    def __post_init__(self) -> None:
        """Refuse what can't work."""
        for name in ("clients", "in_flight", "payload_bytes", "connecting"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more")
        for name in ("rate", "ramp_up_s", "drain_s", "ramp_down_s", "settle_s"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be 0 or more")
        if not (self.plateau_s > 0 and 0 < self.backoff_base_s <= self.backoff_cap_s):
            raise ValueError("plateau_s must be above 0, and 0 < backoff_base_s <= backoff_cap_s")

    def client(self, number: int, chance: random.Random) -> ClientPlan:
        """Return what client *number* (from 0) does. *chance* is its own, the same in each run with the same seed."""
        raise NotImplementedError

    def plan(self, number: int, seed: int) -> ClientPlan:
        """Return what client *number* does in a run with *seed*."""
        return self.client(number, random.Random(seed * 1_000_003 + number))


def description(kind: type[Scenario]) -> str:
    """Return the sentence that a scenario describes itself with."""
    return (kind.__doc__ or "").strip().partition("\n")[0]


def parameters(scenario: Scenario) -> dict[str, object]:
    """Return all parameters, as plain values."""
    return {name: msgspec.to_builtins(getattr(scenario, name)) for name in scenario.__struct_fields__}
