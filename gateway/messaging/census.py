"""What there is to tell about the open connections, in one look at each of them."""

from collections import Counter
from collections.abc import Iterable

from pydantic import Field

from gateway.domain.connections import Census, Kind
from gateway.domain.names import Called
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
    kinds: Counter[tuple[str, str, Called]] = Counter()
    waiting_bytes = congested = 0
    for each in connections:
        transport = each.transport
        kinds[transport.name, each.variant.name, each.called] += 1
        waiting = transport.waiting
        if waiting:
            waiting_bytes += waiting
            congested += 1
    told = {Kind(transport, protocol, *called): count for (transport, protocol, called), count in kinds.items()}
    return Census(told, waiting_bytes, congested)
