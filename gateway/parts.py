"""Builds what a node consists of from its configuration. `node` uses it, and so do the tests that have no sockets."""

import asyncio
import time
import uuid
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

import structlog

from gateway import __version__
from gateway.auth.tokens import TokenSettings, TokenVerifier
from gateway.broker.contract import Engine
from gateway.broker.memory.control import MemoryBus
from gateway.broker.memory.engine import MemoryEngine
from gateway.broker.redis.engine import RedisEngine
from gateway.config import Config, ConfigError, faulty_extensions
from gateway.domain.channels import Channels
from gateway.domain.connections import Connections
from gateway.domain.counts import Counts
from gateway.domain.hub import Hub
from gateway.domain.names import Names
from gateway.domain.ratelimit import RateLimit
from gateway.domain.wheel import TimerWheel
from gateway.messaging.conversation import Conversation
from gateway.messaging.fanout import Fanout
from gateway.messaging.handlers import Handler, Handlers, installed_handlers
from gateway.messaging.intake import Intake
from gateway.messaging.presence import Presences
from gateway.messaging.processors import ProcessorFactory, installed_processors
from gateway.messaging.publishing import Publisher
from gateway.messaging.reading import StreamReader
from gateway.messaging.services import Rules, Services
from gateway.messaging.subscriptions import Interest
from gateway.messaging.turn import Turn
from gateway.proxies.http import CertificateError, HTTPBackend
from gateway.proxies.port import Backend
from gateway.proxies.proxies import Proxies, make_proxies
from gateway.proxies.proxy import Around
from gateway.proxies.settings import ProxySettings
from gateway.tables import BrokerType

TICK_S = 0.1
"""How often deadlines are looked at."""

Spawn = Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]


class Clock(NamedTuple):
    """What a node takes its time from; tests give it one that they can move."""

    monotonic: Callable[[], float] = time.monotonic
    unix: Callable[[], float] = time.time


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What the services are built into: the node's registries, its loop, its time and randomness."""

    counts: Counts
    hub: Hub
    connections: Connections[Conversation]
    log: structlog.typing.FilteringBoundLogger
    clock: Clock
    random: Callable[[], float]
    new_id: Callable[[], str]
    spawn: Spawn
    call_soon: Callable[[Callable[[], None]], object]
    call_later: Callable[[float, Callable[[], None]], object]
    report_key_set: Callable[[str], None]
    disconnect_others: Callable[[str, tuple[float, str]], object]
    handlers: Mapping[str, Handler] = field(default_factory=installed_handlers)
    processors: Mapping[str, ProcessorFactory] = field(default_factory=installed_processors)
    make_backend: Callable[[ProxySettings], Backend] = HTTPBackend


def make_engine(config: Config, *, clock: Clock, log: structlog.typing.FilteringBoundLogger) -> Engine:
    """Return the engine that *config* asks for; each has a node id of its own.

    Raises:
        EngineError: for a certificate or key that can't be read.
    """
    node_id = str(uuid.uuid4())
    match config.broker.type:
        case BrokerType.MEMORY:
            return MemoryEngine(MemoryBus(), node_id=node_id, monotonic=clock.monotonic)
        case BrokerType.REDIS:

            def report(event: str, **fields: Any) -> None:
                # Of its links a node says in one warning whether the broker is there; which one it was is detail.
                (log.info if "link" in fields else log.warning)(event, **fields)

            return RedisEngine(config.redis, node_id=node_id, report=report)


def check_certificates(config: Config) -> None:
    """Read the certificates of proxies.

    Raises:
        ConfigError: for those that can't be read.
    """
    faults = []
    for (kind, name), settings in config.proxy_wishes.wanted().items():
        try:
            HTTPBackend(settings)
        except CertificateError as error:
            faults.append(f"proxy {name!r} of {kind}: {error}")
    if faults:
        raise ConfigError(faults)


def make_rules(config: Config, around: Surroundings, *, before: Rules | None = None) -> Rules:
    """Return what *config* says about clients.

    Of the rules *before*, what has not changed is taken over: key sets that were fetched, handlers' queues.

    Raises:
        ConfigError: for a handler or processor that was installed after the node started, or a file of a proxy that
            can't be read.
    """
    # At the start the configuration has just been checked against the same.
    faults = [*faulty_extensions(config, around.handlers, around.processors)] if before is not None else []
    if faults:
        raise ConfigError([f"{fault} (what was installed meanwhile needs a restart)" for fault in faults])
    client = config.client
    personal = client.subscribe_to_user_personal_channel
    checks = not client.insecure_skip_token_signature_verify

    def verifier(settings: TokenSettings, old: TokenVerifier | None) -> TokenVerifier:
        if old is not None and old.obeys(settings, is_signature_checked=checks):
            return old
        return TokenVerifier(settings, is_signature_checked=checks, report=around.report_key_set)

    connection_tokens = subscription_tokens = verifier(
        client.token, before.connection_tokens if before is not None else None
    )
    if client.subscription_token.enabled:
        subscription_tokens = verifier(
            client.subscription_token, before.subscription_tokens if before is not None else None
        )
    handlers, names = before.handlers if before is not None else None, config.handler_names
    if handlers is None or not handlers.obeys(config.handlers, names):
        # Plain clients who are with a handler stay with it, whatever becomes of their namespace.
        names |= handlers.names if handlers is not None else set()
        handlers = Handlers({name: around.handlers[name] for name in names}, config.handlers, log=around.log)
    return Rules(
        session=client,
        is_insecure=client.insecure,
        is_anonymous_allowed=client.allow_anonymous_connect_without_token,
        refuses_anonymous_tokens=client.disallow_anonymous_connection_tokens,
        includes_server_time=client.connect_include_server_time,
        user_connection_limit=client.user_connection_limit,
        disconnect_others=around.disconnect_others if personal.enabled and personal.single_connection else None,
        uni_disconnects=client.connect_code_to_unidirectional_disconnect.table(),
        personal_namespace=personal.personal_channel_namespace if personal.enabled else None,
        max_channel_length=config.channel.max_length,
        rate_limit=RateLimit(client.command_rate, client.command_burst) if client.command_rate else None,
        channels=Channels(config.channel),
        connection_tokens=connection_tokens,
        subscription_tokens=subscription_tokens,
        handlers=handlers,
        proxies=_make_proxies(config, around, before.proxies if before is not None else None),
    )


def _make_proxies(config: Config, around: Surroundings, before: Proxies | None) -> Proxies:
    if before is not None:  # at the start they have just been read
        check_certificates(config)
    return make_proxies(
        config.proxy_wishes,
        make_backend=around.make_backend,
        counts=around.counts,
        around=Around(around.clock.monotonic, around.random, around.log, config.json_.max_depth),
        before=before,
    )


def make_services(config: Config, engine: Engine, around: Surroundings) -> Services:
    """Return what all conversations of a node share."""
    client, broker, counts, (monotonic, unix) = config.client, engine.broker, around.counts, around.clock
    rules = make_rules(config, around)
    fanout = Fanout(
        around.hub,
        counts,
        monotonic=monotonic,
        call_soon=around.call_soon,
        newcomers_max_bytes=config.broker.catch_up_max_size,
    )
    intake = Intake(config.broker, around.hub, fanout, broker, counts, log=around.log, call_later=around.call_later)
    publisher = Publisher(
        broker,
        counts,
        monotonic=monotonic,
        unix=unix,
        max_depth=config.json_.max_depth,
        processors=around.processors,
        report=lambda channel, error: around.log.error("processor failed", channel=channel, exc_info=error),
    )
    presences = Presences(
        engine.presence, counts, interval_s=client.presence_update_interval_s, ttl_s=client.presence_ttl_s
    )
    return Services(
        **{each.name: getattr(rules, each.name) for each in fields(Rules)},
        version=f"gateway {__version__}",
        node_id=engine.control.node_id,
        hub=around.hub,
        interest=Interest(broker),
        intake=intake,
        fanout=fanout,
        reader=StreamReader(broker, recovery_limit=client.recovery_max_publication_limit),
        publisher=publisher,
        turn=Turn(call_soon=around.call_soon),
        presences=presences,
        presence_store=engine.presence,
        names=Names(config.metrics.client_names, config.metrics.client_versions),
        connections=around.connections,
        wheel=TimerWheel(now_s=monotonic(), resolution_s=TICK_S),
        counts=counts,
        log=around.log,
        monotonic=monotonic,
        unix=unix,
        random=around.random,
        new_id=around.new_id,
        spawn=around.spawn,
    )
