"""The configuration as a whole: every table, where its values come from, and what is said about a bad one.

Three sources, the later wins: a file (TOML or JSON), environment variables (`gateway.environment`), flags.
"""

import copy
import difflib
import json
import re
import tomllib
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Self

from pydantic import Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from gateway.api.admin.sessions import AdminSettings
from gateway.api.keys import HTTPAPISettings
from gateway.broker.redis.settings import RedisSettings
from gateway.domain.channels import ChannelOptions, ChannelSettings
from gateway.domain.windows import STATISTICS
from gateway.environment import read as read_environment
from gateway.messaging.census import MetricsSettings
from gateway.messaging.drain import FLUSH_S, DrainSettings, ShutdownSettings
from gateway.messaging.extensions import ExtensionError
from gateway.messaging.handlers import PING, Handler, HandlerSettings, installed_handlers
from gateway.messaging.processors import ProcessorFactory, installed_processors, make_processor
from gateway.observability.health import HealthSettings
from gateway.observability.logs import LogSettings
from gateway.proxies.proxies import Wishes
from gateway.proxies.settings import NamedProxySettings, RPCSettings
from gateway.settings import Settings, field_of
from gateway.tables import (
    BrokerSettings,
    ChannelTableSettings,
    ClientSettings,
    EndpointSettings,
    JSONSettings,
    NodeSettings,
)
from gateway.transport.acceptor import PlainSettings
from gateway.transport.listener import HTTPServerSettings
from gateway.transport.paths import UniWebSocketSettings, collisions
from gateway.transport.ports import WebSocketSettings
from gateway.transport.stream_kinds import (
    EmulationSettings,
    HTTPClientSettings,
    HTTPStreamSettings,
    SSESettings,
    UniHTTPStreamSettings,
    UniSSESettings,
)

_IN_URL: Final = re.compile(r"//[^/\s]*@")
"""A user and a password in a URL."""


class ConfigError(Exception):
    """A configuration that can't be used. *faults* has one line for each thing to mend."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


class Config(Settings):
    """Everything that can be configured."""

    node: NodeSettings = NodeSettings()
    http_server: HTTPServerSettings = HTTPServerSettings()
    http_api: HTTPAPISettings = HTTPAPISettings()
    admin: AdminSettings = AdminSettings()
    client: ClientSettings = ClientSettings()
    channel: ChannelTableSettings = ChannelTableSettings()
    websocket: WebSocketSettings = WebSocketSettings()
    http_stream: HTTPStreamSettings = HTTPStreamSettings()
    sse: SSESettings = SSESettings()
    emulation: EmulationSettings = EmulationSettings()
    uni_websocket: UniWebSocketSettings = UniWebSocketSettings()
    uni_sse: UniSSESettings = UniSSESettings()
    uni_http_stream: UniHTTPStreamSettings = UniHTTPStreamSettings()
    plain: PlainSettings = PlainSettings()
    json_: JSONSettings = Field(default=JSONSettings(), alias="json")
    handlers: HandlerSettings = HandlerSettings()
    rpc: RPCSettings = RPCSettings()
    proxies: list[NamedProxySettings] = Field(default=[])
    broker: BrokerSettings = BrokerSettings()
    redis: RedisSettings = RedisSettings()
    connection_init: EndpointSettings = EndpointSettings()
    """`GET /connection/init`: a warm-up endpoint for clients and load balancers."""
    playground: EndpointSettings = EndpointSettings()
    """A page at `/` to try the gateway with."""
    log: LogSettings = LogSettings()
    metrics: MetricsSettings = MetricsSettings()
    health: HealthSettings = HealthSettings()
    shutdown: ShutdownSettings = ShutdownSettings()
    drain: DrainSettings = DrainSettings()

    @model_validator(mode="after")
    def _check_across_tables(self) -> Self:
        faults = [
            *faulty_extensions(self, installed_handlers(), installed_processors()),
            *_faulty_shutdown(self),
            *collisions(self._paths, has_plain=self.plain.enabled),
        ]
        faults += self.proxy_wishes.faults()
        personal = self.client.subscribe_to_user_personal_channel
        names = {namespace.name for namespace in self.channel.namespaces}
        if personal.enabled and personal.personal_channel_namespace not in {"", *names}:
            faults.append(
                f"client.subscribe_to_user_personal_channel.personal_channel_namespace = "
                f"{personal.personal_channel_namespace!r}: no such namespace"
            )
        if faults:
            raise ValueError("\n".join(faults))
        return self

    @property
    def http_clients(self) -> HTTPClientSettings:
        """The tables that clients without a WebSocket are served by."""
        return HTTPClientSettings(
            http_stream=self.http_stream,
            sse=self.sse,
            emulation=self.emulation,
            uni_sse=self.uni_sse,
            uni_http_stream=self.uni_http_stream,
            close_timeout_s=self.websocket.close_timeout_s,
        )

    @property
    def proxy_wishes(self) -> Wishes:
        """What the backend is to be asked about, and how."""
        return Wishes(self.client.proxy, self.channel.proxy, _places(self.channel), self.rpc, self.proxies)

    @property
    def _paths(self) -> dict[str, str]:
        tables = ("http_stream", "sse", "uni_websocket", "uni_sse", "uni_http_stream")
        paths = {name: getattr(self, name).handler_prefix for name in tables if getattr(self, name).enabled}
        return paths | ({"emulation": self.emulation.handler_prefix} if self.http_clients.has_emulation else {})

    @property
    def handler_names(self) -> set[str]:
        """The handlers that are used, by namespaces or by `rpc`."""
        named = {options.handler for _, options in _places(self.channel)}
        return named - {""} | set(self.handlers.rpc_methods)


def _places(channel: ChannelSettings) -> list[tuple[str, ChannelOptions]]:
    """Return all sets of channel options, each with how a message calls its table."""
    places: list[tuple[str, ChannelOptions]] = [("channel.without_namespace", channel.without_namespace)]
    return places + [(f"channel.namespaces[{each.name}]", each) for each in channel.namespaces]


def faulty_extensions(
    config: Config, handlers: Mapping[str, Handler], processors: Mapping[str, ProcessorFactory]
) -> Iterator[str]:
    """Say which of the handlers and processors that *config* names can't be had of those that are installed."""
    yield from _faulty_handlers(config, handlers)
    yield from _faulty_processors(config.channel, processors)


def _faulty_handlers(config: Config, installed: Mapping[str, Handler]) -> Iterator[str]:
    methods = config.handlers.rpc_methods
    named = [(f"{place}.handler = ", options.handler) for place, options in _places(config.channel) if options.handler]
    for place, name in [*named, *(("handlers.rpc_methods has ", name) for name in methods if name != PING)]:
        try:
            installed[name]
        except KeyError:
            yield f"{place}{name!r}: there is {', '.join(installed)}"
        except ExtensionError as error:
            yield f"{place}{name!r}: {error}"
    if PING in methods:
        yield f"handlers.rpc_methods has {PING!r}: that method is built in"


def _faulty_processors(channel: ChannelSettings, installed: Mapping[str, ProcessorFactory]) -> Iterator[str]:
    for place, options in _places(channel):
        for name in options.processors:
            try:
                if name != STATISTICS:
                    make_processor(name, options, installed)
            except KeyError:
                yield f"{place}.processors has {name!r}: there is {', '.join(sorted([*installed, STATISTICS]))}"
            except ExtensionError as error:
                yield f"{place}.processors has {name!r}: {error}"


def _faulty_shutdown(config: Config) -> Iterator[str]:
    timeout_s, grace_s, window_s = config.shutdown.timeout_s, config.shutdown.grace_s, config.drain.window_s
    needed_s = grace_s + window_s + FLUSH_S
    if timeout_s < needed_s:
        yield (
            f"shutdown.timeout = {timeout_s:g} s: is too short, since shutdown.grace ({grace_s:g} s), drain.window "
            f"({window_s:g} s) and {FLUSH_S:g} s to flush take {needed_s:g} s; raise it, or lower those"
        )


def load(
    path: Path | None = None,
    *,
    environment: Mapping[str, str] | None = None,
    flags: Mapping[str, Any] | None = None,
    base: Mapping[str, Any] | None = None,
) -> Config:
    """Read the configuration: *base*, then *path*, *environment* and *flags* (dotted keys); the later wins.

    Raises:
        ConfigError: with one line for each fault, which names the key, its value and what is allowed.
    """
    values = merge(copy.deepcopy(dict(base or {})), _read_file(path) if path else {})
    found = read_environment(environment or {}, Config)
    faults = list(found.faults)
    for keys, value in found.values.items():
        _put(values, keys, value)
    for key, value in (flags or {}).items():
        _put(values, tuple(key.split(".")), value)
    try:
        config = Config.model_validate(values, by_alias=True, by_name=False)
    except ValidationError as error:
        faults += [line for fault in error.errors() for line in _describe(fault, found.origins)]
        raise ConfigError(faults) from None
    if faults:
        raise ConfigError(faults)
    return config


def development() -> dict[str, Any]:
    """Return the values of `--dev`: loopback, everybody may do everything, a playground, an end without delay."""
    open_to_all = {
        "allow_subscribe_for_client": True,
        "allow_subscribe_for_anonymous": True,
        "allow_publish_for_client": True,
        "allow_publish_for_anonymous": True,
    }
    return {
        "http_server": {"address": "127.0.0.1"},
        "client": {"allowed_origins": ["*"], "allow_anonymous_connect_without_token": True},
        "channel": {
            "without_namespace": open_to_all,
            "namespaces": [
                {"name": "lobby", **open_to_all, "processors": ["server_time"]},
                {"name": "echo", **open_to_all, "handler": "echo"},
                {"name": "binary", **open_to_all, "publication_data_format": "binary"},
            ],
        },
        "http_stream": {"enabled": True},
        "sse": {"enabled": True},
        "connection_init": {"enabled": True},
        "playground": {"enabled": True},
        "shutdown": {"grace": 0},
        "drain": {"window": 0},
    }


def merge(base: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return *base* with the tables of *over* laid over it."""
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        merged[key] = merge(below, value) if isinstance(below, dict) and isinstance(value, Mapping) else value
    return merged


def _read_file(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError([f"{path}: {error.strerror}"]) from None
    except UnicodeDecodeError:
        raise ConfigError([f"{path}: not UTF-8 text"]) from None
    try:
        values = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except ValueError as error:
        raise ConfigError([f"{path}: {error}"]) from None
    except RecursionError:
        raise ConfigError([f"{path}: nested too deeply"]) from None
    if not isinstance(values, dict):
        raise ConfigError([f"{path}: a configuration is a table of tables"])
    return values


def _put(values: dict[str, Any], keys: tuple[str, ...], value: Any) -> None:
    for key in keys[:-1]:
        below = values.get(key)
        if not isinstance(below, dict):
            below = values[key] = {}
        values = below
    values[keys[-1]] = value


def _describe(fault: ErrorDetails, origins: Mapping[tuple[str, ...], str]) -> Iterator[str]:
    """Write one fault as a line, or as several when the check of the whole found several."""
    location = [str(part) for part in fault["loc"]]
    key = ".".join(location)
    names = sorted(name for keys, name in origins.items() if keys[: len(location)] == tuple(location))
    where = f"{key} ({', '.join(names)})" if names and key else key
    message = fault["msg"].removeprefix("Value error, ")
    match fault["type"]:
        case "extra_forbidden":
            yield f"{where}: there is no such key{_suggestion(location)}"
        case "value_error" if isinstance(fault["input"], dict | Settings):
            for line in message.splitlines():
                sources = [name for keys, name in origins.items() if line.startswith(".".join(keys))]
                said = f"{line} (from {', '.join(sources)})" if sources else line
                yield f"{where}: {said}" if where else said
        case "missing":
            yield f"{where}: is missing"
        case "model_type":
            yield f"{where} = {_shown(location, fault['input'])}: must be a table"
        case _:
            yield f"{where} = {_shown(location, fault['input'])}: {message}"


def _shown(location: list[str], value: Any) -> str:
    """Write a value for a message; nothing that may be, or hold, a secret."""
    if isinstance(value, dict | list):
        return "(a table)" if isinstance(value, dict) else "(a list)"
    is_secret = bool(location) and location[-1].endswith(("token", "secret", "password", "key"))
    if isinstance(value, str):
        return "(hidden)" if is_secret else _IN_URL.sub("//(hidden)@", repr(value))
    return repr(value)


def _suggestion(location: list[str]) -> str:
    """Name the keys of the table, or the one that was probably meant."""
    annotation: Any = Config
    for part in location[:-1]:
        field = field_of(annotation, part)
        if field is not None:
            annotation = field.annotation
        if typing.get_origin(annotation) is list:
            annotation = typing.get_args(annotation)[0]
    known = [each.alias or name for name, each in getattr(annotation, "model_fields", {}).items()]
    close = difflib.get_close_matches(location[-1], known, n=1)
    if close:
        return f"; did you mean {close[0]}?"
    return f"; known are {', '.join(sorted(known))}" if known else ""
