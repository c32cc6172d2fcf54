"""Everything that one run is told, checked and complete."""

from pathlib import Path

from msgspec import Struct

from loadtest.chaos import Action
from loadtest.exposition import Exposition
from loadtest.messages import Access
from loadtest.results import Server
from loadtest.scenario import Scenario
from loadtest.thresholds import Threshold


class NamedServer(Struct, frozen=True, kw_only=True):
    """A server that the user has named."""

    server: Server
    start: list[str] = []
    """The command that starts it anew."""


class Options(Struct, frozen=True, kw_only=True):
    """What a run is told."""

    scenario_name: str
    scenario: Scenario
    seed: int
    workers: int
    protocol: str
    targets: list[str]
    """Where clients connect to; none: the run starts servers of its own."""
    plain_targets: list[str]
    """The same for the plain protocol, with `{channel}` in each; none: made from the targets."""
    is_cluster: bool
    """Whether own servers are three nodes with Redis."""
    servers: list[NamedServer]
    access: Access
    has_exact_channels: bool
    """Whether channels are called exactly as the scenario calls them."""
    thresholds: list[Threshold]
    chaos: list[Action]
    commands: dict[str, list[str]]
    """What `run:` may run, by name."""
    exposition: Exposition | None
    """Where the run's own metrics are served; `None`: nowhere."""
    results: Path | None
    is_quiet: bool
    """Whether only the verdict is told."""
    command: list[str]
