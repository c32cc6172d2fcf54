"""Channels: how a name is read, which namespace it belongs to, and what that namespace allows (protocol.md 6)."""

import re
from enum import StrEnum
from typing import Annotated, Any, Final, Self

import msgspec
from pydantic import Field, model_validator

from gateway.domain.recovery import RecoveryMode
from gateway.domain.stream import StreamOptions
from gateway.domain.windows import STATISTICS, Deviation, WindowOptions
from gateway.protocol import codes
from gateway.protocol.codes import ErrorCode
from gateway.settings import Limit, Pattern, Seconds, Settings, Size, one_of, repeated

_NAMESPACE_NAME: Final = r"^[-a-zA-Z0-9_.]{2,}$"
NO_NAMESPACE: Final = ""
"""The name under which the options of channels without a namespace are kept and counted."""
DEFAULT_PROXY: Final = "default"
"""What a namespace calls the proxy that is set for all namespaces."""


class DataFormat(StrEnum):
    """What a namespace's publications may hold (README, "Data formats"); checked at publish, whatever the protocol."""

    VALID_JSON = ""
    JSON = "json"
    JSON_OBJECT = "json_object"
    BINARY = "binary"
    ANY = "any"


class DeltaType(StrEnum):
    """How a publication may be told as a change of the one before."""

    FOSSIL = "fossil"


class ChannelOptions(Settings):
    """The options of one namespace, or of the channels without one (`channel.without_namespace`)."""

    allow_subscribe_for_client: bool = False
    """Let clients subscribe without a subscription token."""
    allow_subscribe_for_anonymous: bool = False
    """Extend that to anonymous clients."""
    allow_publish_for_client: bool = False
    """Let clients publish, subscribed or not."""
    allow_publish_for_subscriber: bool = False
    """Let clients publish while they are subscribed."""
    allow_publish_for_anonymous: bool = False
    """Extend those two to anonymous clients."""
    allow_user_limited_channels: bool = False
    """Read what follows the last `#` of a channel as the list of users who may subscribe."""
    channel_regex: Pattern = ""
    """A pattern for the part of the channel after the namespace; it also lifts the limit to printable ASCII."""
    publication_data_format: Annotated[DataFormat, one_of(DataFormat)] = DataFormat.VALID_JSON
    """Empty or `json`: any JSON value; `json_object`; `binary`: any bytes; `any`: unchecked, so that a publication
    which is no JSON disconnects JSON subscribers with 3506, as the reference does."""
    history_size: Limit = 0
    """Publications that the channel's stream keeps; with `history_ttl`, or not at all."""
    history_ttl_s: Seconds = 0.0
    """How long they are kept after the last publish."""
    history_meta_ttl_s: Seconds = 0.0
    """How long offset and epoch are kept after the last publish or read; 0: `channel.history_meta_ttl`."""
    force_positioning: bool = False
    """Track the position of every subscriber."""
    allow_positioning: bool = False
    """Track it for those who ask."""
    force_recovery: bool = False
    """Let every subscriber recover what it missed; needs history."""
    allow_recovery: bool = False
    """Let those recover who ask."""
    force_recovery_mode: Annotated[RecoveryMode, one_of(RecoveryMode)] = RecoveryMode.STREAM
    """`stream`: all that was missed; `cache`: the latest publication alone."""
    auto_cache_recover: bool = False
    """Give the latest publication to every new subscriber; needs `force_recovery` in mode `cache`."""
    publish_debounce_s: Annotated[Seconds, Field(le=60)] = 0.0
    """How long SDKs are asked to wait between what they publish into the channel; a wish, not a limit, and only newer
    SDKs know it. 0: no wish."""
    allowed_delta_types: list[Annotated[DeltaType, one_of(DeltaType)]] = Field(default=[])
    """`fossil`: send patches to subscribers who ask for them, of publications that their publisher, or `delta_publish`,
    has marked for it."""
    delta_publish: bool = False
    """Mark all publications for that."""
    allow_tags_filter: bool = False
    """Let subscribers say by tags which publications they want."""
    allow_channel_compaction: bool = False
    """Name the channel by a number in what is sent in JSON to subscribers who offer to understand that, as newer SDKs
    do: less to send where names are long and payloads small."""
    allow_history_for_client: bool = False
    """Let clients read the history, subscribed or not."""
    allow_history_for_subscriber: bool = False
    """Let clients read the history while they are subscribed."""
    allow_history_for_anonymous: bool = False
    """Extend those two to anonymous clients."""
    presence: bool = False
    """Keep who is subscribed, for all nodes."""
    join_leave: bool = False
    """Tell subscribers who joins and leaves: those who ask and may read the presence."""
    force_push_join_leave: bool = False
    """Tell every subscriber; needs `join_leave`."""
    allow_presence_for_client: bool = False
    """Let clients ask who is subscribed, subscribed or not."""
    allow_presence_for_subscriber: bool = False
    """Let clients ask who is subscribed while they are subscribed."""
    allow_presence_for_anonymous: bool = False
    """Extend those two to anonymous clients."""
    subscribe_proxy_enabled: bool = False
    """Ask the backend who may subscribe, whatever is allowed above; user-limited channels, and whoever shows a
    subscription token, need no asking."""
    subscribe_proxy_name: str = DEFAULT_PROXY
    """By which of `proxies`; `default`: by `channel.proxy.subscribe`."""
    publish_proxy_enabled: bool = False
    """Ask the backend what clients may publish, whatever is allowed above."""
    publish_proxy_name: str = DEFAULT_PROXY
    """By which of `proxies`; `default`: by `channel.proxy.publish`."""
    sub_refresh_proxy_enabled: bool = False
    """Ask the backend whether subscriptions that expire may go on; clients then need not, and may not, refresh them."""
    sub_refresh_proxy_name: str = DEFAULT_PROXY
    """By which of `proxies`; `default`: by `channel.proxy.sub_refresh`."""
    handler: str = ""
    """Plain protocol: answer each message with this function (entry point `gateway.handlers`) instead of publishing."""
    processors: list[str] = Field(default=[])
    """Functions that change each publication, in order: `server_time`, `statistics`, `scale`, or your own (entry point
    `gateway.processors`)."""
    statistics_window: Annotated[int, Field(ge=2, le=1000)] = 10
    """`statistics`: over how many of the channel's last values they are made."""
    statistics_field: str = "value"
    """`statistics`: which field of an object is the number; a value that is no object is the number itself."""
    statistics_std: Annotated[Deviation, one_of(Deviation)] = Deviation.POPULATION
    """`statistics`: what `std` is divided by, the count (`population`) or one less (`sample`)."""
    scale_factor: Annotated[float, Field(allow_inf_nan=False)] = 1.0
    """`scale`: what the field `value` is multiplied by."""
    processor_options: dict[str, dict[str, Any]] = Field(default={})
    """Options of your own processors: a table for each, by name."""

    @property
    def is_unchecked(self) -> bool:
        """Whether a publication may turn out to be no JSON although JSON clients subscribe (disconnect 3506)."""
        return self.publication_data_format is DataFormat.ANY

    def proxy_for(self, event: str) -> str | None:
        """Return which proxy is asked about *event* (`subscribe`, `publish`, `sub_refresh`); `None` if none is."""
        name: str = getattr(self, f"{event}_proxy_name")
        return name if getattr(self, f"{event}_proxy_enabled") else None

    @model_validator(mode="after")
    def _reject_contradictions(self) -> Self:
        if self.processors and self.publication_data_format in {DataFormat.BINARY, DataFormat.ANY}:
            message = (
                f"processors read JSON, so they can't be combined with publication_data_format "
                f"{self.publication_data_format.value!r}"
            )
            raise ValueError(message)
        if bool(self.history_size) != bool(self.history_ttl_s):
            message = "history_size and history_ttl belong together: set both, or none"
            raise ValueError(message)
        if self.history_meta_ttl_s and self.history_meta_ttl_s < self.history_ttl_s:
            message = "history_meta_ttl must not be shorter than history_ttl"
            raise ValueError(message)
        if self.history_ttl_s % 1 or self.history_meta_ttl_s % 1:
            message = "history_ttl and history_meta_ttl are whole seconds"
            raise ValueError(message)
        if (self.force_recovery or self.allow_recovery) and not self.history_size:
            message = "force_recovery and allow_recovery need history_size and history_ttl"
            raise ValueError(message)
        if self.auto_cache_recover and not (self.force_recovery and self.force_recovery_mode is RecoveryMode.CACHE):
            message = 'auto_cache_recover needs force_recovery = true and force_recovery_mode = "cache"'
            raise ValueError(message)
        if self.handler and self.processors:
            message = "handler and processors exclude each other: what a handler answers is not published"
            raise ValueError(message)
        self._reject_stray_processors()
        return self

    def _reject_stray_processors(self) -> None:
        twins = repeated(self.processors)
        if twins:
            message = f"each processor once, please: {', '.join(twins)} is named more than once"
            raise ValueError(message)
        strays = sorted(set(self.processor_options) - set(self.processors))
        if strays:
            message = f"processor_options is for what processors names, and that is not {', '.join(strays)}"
            raise ValueError(message)


class Namespace(ChannelOptions):
    """A named set of options for the channels `name:…`."""

    name: Annotated[str, Field(pattern=_NAMESPACE_NAME)]
    """What precedes the first `:` of the channels it is for: two or more of letters, digits, `-`, `_`, `.`."""


class ChannelSettings(Settings):
    """`channel`: names and namespaces."""

    max_length: Size = 255
    """Longest channel name that a client may use, in bytes (error 107 beyond)."""
    history_meta_ttl_s: Annotated[Seconds, Field(gt=0)] = 2592000.0
    """How long a stream's offset and epoch are kept, where a namespace does not say."""
    namespace_boundary: Annotated[str, Field(min_length=1, max_length=1)] = ":"
    """What ends the namespace in a channel name."""
    private_prefix: Annotated[str, Field(min_length=1, max_length=1)] = "$"
    """What a channel begins with that always needs a subscription token."""
    user_boundary: Annotated[str, Field(min_length=1, max_length=1)] = "#"
    """What begins the list of users of a user-limited channel."""
    user_separator: Annotated[str, Field(min_length=1, max_length=1)] = ","
    """What stands between two users of that list."""
    without_namespace: ChannelOptions = ChannelOptions()
    """Options of channels without a namespace."""
    namespaces: list[Namespace] = Field(default=[])
    """The namespaces, each a table with a `name`."""

    @model_validator(mode="after")
    def _reject_twins(self) -> Self:
        separators = (self.namespace_boundary, self.private_prefix, self.user_boundary, self.user_separator)
        if len(set(separators)) < len(separators):
            message = "namespace_boundary, private_prefix, user_boundary and user_separator must differ from each other"
            raise ValueError(message)
        twins = repeated(namespace.name for namespace in self.namespaces)
        if twins:
            message = f"each namespace once, please: {', '.join(twins)} is defined more than once"
            raise ValueError(message)
        return self


class Channel(msgspec.Struct, frozen=True, gc=False):
    """A channel name as read against the configuration: all that a decision about it needs."""

    name: str
    namespace: str
    options: ChannelOptions
    is_private: bool
    stream: StreamOptions | None
    """How its stream is kept; `None` for a channel without history."""
    meta_ttl_s: float
    """How long its position is kept."""
    window: WindowOptions | None
    """What its statistics are made over; `None` for a channel without."""
    users: tuple[str, ...] | None
    """The users that a user-limited channel is for; `None` for every other channel."""
    is_well_formed: bool
    """False when a client must not use the name: too long, fails the pattern, or is not printable ASCII (error 107)."""


def have_one_format(one: Channel, other: Channel) -> bool:
    """Tell whether who is in one of them can go on with what the other carries."""
    return one.options.publication_data_format is other.options.publication_data_format


class Channels:
    """Reads channel names. Names repeat, so what was read is kept, up to a bound."""

    _MAX_KEPT: Final = 65536

    def __init__(self, settings: ChannelSettings) -> None:
        self._settings = settings
        self.options: dict[str, ChannelOptions] = {NO_NAMESPACE: settings.without_namespace}
        self.options |= {namespace.name: namespace for namespace in settings.namespaces}
        self.common = settings.max_length, settings.history_meta_ttl_s
        """What all of them share."""
        self._patterns = {
            name: re.compile(options.channel_regex) for name, options in self.options.items() if options.channel_regex
        }
        self._kept: dict[str, Channel] = {}

    @property
    def namespaces(self) -> tuple[str, ...]:
        """The names of all namespaces, `NO_NAMESPACE` first."""
        return tuple(self.options)

    def resolve(self, name: str) -> Channel | ErrorCode:
        """Read *name*; an unknown namespace is error 102 (protocol.md 6.1)."""
        channel = self._kept.get(name)
        if channel is not None:
            return channel
        read = self._read(name)
        if isinstance(read, Channel) and len(name) <= self._settings.max_length:
            if len(self._kept) >= self._MAX_KEPT:
                self._kept.clear()
            self._kept[name] = read
        return read

    def renewed(self, channel: Channel) -> Channel:
        """Return *channel*, as read by settings before these, as it is now, for those who are in it.

        Where its namespace is gone they stay, with what they have: a line that is missing by mistake cuts nobody. They
        may do nothing more there.
        """
        found = self.resolve(channel.name)
        if isinstance(found, Channel):
            return found
        nothing = ChannelOptions(publication_data_format=channel.options.publication_data_format)
        return msgspec.structs.replace(channel, options=nothing)

    def changed_since(self, before: "Channels") -> frozenset[str]:
        """Return the namespaces whose channels are not what they were for *before*, those that are gone included."""
        names = before.options.keys() | self.options.keys()
        if self.common != before.common:
            return frozenset(names)
        return frozenset(name for name in names if self.options.get(name) != before.options.get(name))

    def personal_channel(self, user: str, *, namespace: str) -> str:
        """Return the name of *user*'s personal channel: `#42`, or `<namespace>:#42`."""
        prefix = f"{namespace}{self._settings.namespace_boundary}" if namespace else ""
        return f"{prefix}{self._settings.user_boundary}{user}"

    def _read(self, name: str) -> Channel | ErrorCode:
        settings = self._settings
        is_private = name.startswith(settings.private_prefix)
        public_name = name.removeprefix(settings.private_prefix) if is_private else name
        head, boundary, rest = public_name.partition(settings.namespace_boundary)
        namespace, local = (head, rest) if boundary else (NO_NAMESPACE, public_name)
        options = self.options.get(namespace) if namespace or not boundary else None
        if options is None:
            return codes.UNKNOWN_CHANNEL
        users = None
        if options.allow_user_limited_channels and settings.user_boundary in local:
            listed = local.rpartition(settings.user_boundary)[2]
            users = tuple(listed.split(settings.user_separator))
        meta_ttl_s = options.history_meta_ttl_s or settings.history_meta_ttl_s
        pattern = self._patterns.get(namespace)
        is_well_formed = len(name.encode(errors="surrogatepass")) <= settings.max_length and (
            pattern.search(local) is not None if pattern else name.isascii() and name.isprintable()
        )
        return Channel(
            name=name,
            namespace=namespace,
            options=options,
            is_private=is_private,
            stream=_stream_options(options, meta_ttl_s) if options.history_size else None,
            meta_ttl_s=meta_ttl_s,
            window=_window_options(options, meta_ttl_s) if STATISTICS in options.processors else None,
            users=users,
            is_well_formed=is_well_formed,
        )


def _stream_options(options: ChannelOptions, meta_ttl_s: float) -> StreamOptions:
    return StreamOptions(
        size=options.history_size, ttl_s=options.history_ttl_s, meta_ttl_s=max(meta_ttl_s, options.history_ttl_s)
    )


def _window_options(options: ChannelOptions, meta_ttl_s: float) -> WindowOptions:
    return WindowOptions(size=options.statistics_window, deviation=options.statistics_std, ttl_s=meta_ttl_s)
