"""What all conversations of a node share."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import structlog

from gateway.auth.tokens import TokenVerifier
from gateway.broker.contract import PresenceStore
from gateway.domain.channels import Channels
from gateway.domain.connections import Connections
from gateway.domain.counts import Counts
from gateway.domain.hub import Hub
from gateway.domain.names import Names
from gateway.domain.ratelimit import RateLimit
from gateway.domain.session import SessionSettings
from gateway.domain.wheel import TimerWheel
from gateway.messaging.fanout import Fanout
from gateway.messaging.handlers import Handlers
from gateway.messaging.intake import Intake
from gateway.messaging.presence import Presences
from gateway.messaging.publishing import Publisher
from gateway.messaging.reading import StreamReader
from gateway.messaging.subscriptions import Interest
from gateway.messaging.turn import Turn
from gateway.protocol.codes import Disconnect
from gateway.proxies.proxies import Proxies

if TYPE_CHECKING:
    from gateway.messaging.conversation import Conversation


@dataclass(slots=True, kw_only=True)
class Rules:
    """What the configuration says about clients."""

    session: SessionSettings
    is_insecure: bool
    is_anonymous_allowed: bool
    refuses_anonymous_tokens: bool
    includes_server_time: bool
    user_connection_limit: int
    disconnect_others: Callable[[str, tuple[float, str]], object] | None
    """End all connections of a user, on every node, that are older than one; `None` where a user may have several."""
    uni_disconnects: Mapping[int, Disconnect]
    """What becomes of errors, by their codes, where a client can't be told of one."""
    personal_namespace: str | None
    """The namespace of personal channels, `None` when they are off."""
    max_channel_length: int
    rate_limit: RateLimit | None
    channels: Channels
    connection_tokens: TokenVerifier
    subscription_tokens: TokenVerifier
    handlers: Handlers
    proxies: Proxies


@dataclass(slots=True, kw_only=True)
class Services(Rules):
    """What conversations share: the rules, the node's parts, its clocks, its randomness.

    The parts stay what they are. The rules may be others in the next loop turn (`adopt`), so they are read where
    something is decided, and not kept.
    """

    version: str
    node_id: str
    """What other nodes know this one by."""
    hub: Hub
    interest: Interest
    intake: Intake
    fanout: Fanout
    reader: StreamReader
    publisher: Publisher
    presences: Presences
    presence_store: PresenceStore
    turn: Turn
    names: Names
    connections: "Connections[Conversation]"
    wheel: "TimerWheel[Conversation]"
    counts: Counts
    log: structlog.typing.FilteringBoundLogger
    monotonic: Callable[[], float]
    unix: Callable[[], float]
    random: Callable[[], float]
    new_id: Callable[[], str]
    spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]
    """Start a task that the node owns."""

    def adopt(self, rules: Rules) -> None:
        """Have everybody go by *rules* from now on, in all of them at once."""
        for each in fields(Rules):
            setattr(self, each.name, getattr(rules, each.name))
