"""What there is to tell about the open connections, in one look at each of them."""

from collections import Counter
from collections.abc import Iterable

from pydantic import Field

from gateway.domain.connections import Census, Kind
from gateway.messaging.conversation import Conversation
from gateway.settings import Settings


class MetricsSettings(Settings):
    """`metrics`: what is told apart. Clients call themselves what they like, so what is not listed is `other`."""

    client_names: list[str] = Field(default=["js", "dart", "swift", "java", "go", "csharp", "python", "plain"])
    """Names of clients that `gateway_connections_by_client` tells apart; by default those that SDKs give themselves."""
    client_versions: list[str] = Field(default=[])
    """Versions of those clients that it tells apart, such as one that is being rolled out."""


def take_census(connections: Iterable[Conversation]) -> Census:
    """Count *connections* by their kind, and what waits for them."""
    # Two comprehensions and a counter that counts in C: a third of what a loop takes (benchmark `scrape`).
    seen = [(each.variant, each.called, each.transport) for each in connections]
    kinds = Counter([(variant, called) for variant, called, _ in seen])
    waiting = [transport.waiting for _, _, transport in seen if transport.is_congested]
    told = {Kind(variant.transport, variant.name, *called): count for (variant, called), count in kinds.items()}
    return Census(told, sum(waiting), len(waiting))
