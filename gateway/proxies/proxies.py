"""All proxies of a node: which of them is asked about what."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from gateway.domain.channels import DEFAULT_PROXY, ChannelOptions
from gateway.domain.counts import Counts
from gateway.domain.identity import Grant
from gateway.proxies import answers
from gateway.proxies.answers import ConnectVerdict, PublishVerdict, Reader, RefreshVerdict
from gateway.proxies.events import Kind
from gateway.proxies.headers import ClientHeaders, of_command, of_request
from gateway.proxies.port import Backend
from gateway.proxies.proxy import Around, Proxy
from gateway.proxies.settings import (
    ChannelProxySettings,
    ClientProxySettings,
    NamedProxySettings,
    ProxySettings,
    RPCSettings,
)
from gateway.settings import repeated

_READERS: Final[Mapping[Kind, Reader[Any]]] = {
    Kind.CONNECT: answers.CONNECT,
    Kind.REFRESH: answers.REFRESH,
    Kind.SUBSCRIBE: answers.SUBSCRIBE,
    Kind.PUBLISH: answers.PUBLISH,
    Kind.SUB_REFRESH: answers.REFRESH,
    Kind.RPC: answers.RPC,
}
_OF_CHANNELS: Final = (Kind.SUBSCRIBE, Kind.PUBLISH, Kind.SUB_REFRESH)

Key = tuple[Kind, str]
"""What a proxy is asked about, and its name."""
MakeBackend = Callable[[ProxySettings], Backend]


class Wishes(NamedTuple):
    """What a configuration says about proxies."""

    client: ClientProxySettings
    channel: ChannelProxySettings
    options: Sequence[tuple[str, ChannelOptions]]
    """Those of all namespaces, each with how a message calls its table."""
    rpc: RPCSettings
    named: Sequence[NamedProxySettings]

    def wanted(self) -> dict[Key, ProxySettings]:
        """Return the proxies that are in use. You must know that there is no fault."""
        return {key: settings for _, key, settings in self._uses() if settings is not None}

    def faults(self) -> Iterator[str]:
        """Say which proxies are not there that somebody names, or have no endpoint."""
        names = [each.name for each in self.named]
        for name in repeated(names):
            yield f"proxies: each name once, please: {name} is there more than once"
        for place, (kind, name), settings in self._uses():
            if settings is None:
                known = ", ".join([repr(DEFAULT_PROXY), *map(repr, names)])
                yield f"{place}_name = {name!r}: there is {known}"
            elif not settings.endpoint:
                table = "rpc.proxy" if kind is Kind.RPC else f"channel.proxy.{kind}"
                yield f"{place}_enabled is set, and {table} has no endpoint"

    def _uses(self) -> Iterator[tuple[str, Key, ProxySettings | None]]:
        """Walk what is switched on: where, what for, and by which settings, `None` where a name stands for nothing."""
        for kind, event in ((Kind.CONNECT, self.client.connect), (Kind.REFRESH, self.client.refresh)):
            if event.enabled:
                yield f"client.proxy.{kind}", (kind, DEFAULT_PROXY), event
        named: dict[str, ProxySettings] = {each.name: each for each in self.named}
        for kind in _OF_CHANNELS:
            known = {**named, DEFAULT_PROXY: getattr(self.channel, kind)}
            for place, options in self.options:
                name = options.proxy_for(kind)
                if name is not None:
                    yield f"{place}.{kind}_proxy", (kind, name), known.get(name)
        known = {**named, DEFAULT_PROXY: self.rpc.proxy}
        places = [("rpc.without_namespace", self.rpc.without_namespace)]
        for place, rpc in [*places, *((f"rpc.namespaces[{each.name}]", each) for each in self.rpc.namespaces)]:
            if rpc.proxy_enabled:
                yield f"{place}.proxy", (Kind.RPC, rpc.proxy_name), known.get(rpc.proxy_name)


class Proxies:
    """The proxies that a node uses, by what they are asked about and how they are called."""

    def __init__(self, members: Mapping[Key, Proxy[Any]], rpc: RPCSettings) -> None:
        self._members = members
        self._rpc = rpc
        self._methods = {each.name: each.proxy_name for each in rpc.namespaces if each.proxy_enabled}
        settings = [proxy.settings for proxy in members.values()]
        self._given = _lowered(name for each in settings for name in each.http_headers)
        self._emulated = _lowered(name for each in settings for name in each.emulated_headers)
        self.connect: Proxy[ConnectVerdict] | None = members.get((Kind.CONNECT, DEFAULT_PROXY))
        """Who is asked about clients without a token."""
        self.refresh: Proxy[RefreshVerdict] | None = members.get((Kind.REFRESH, DEFAULT_PROXY))
        """Who is asked about connections that expire."""

    def __iter__(self) -> Iterator[tuple[Key, Proxy[Any]]]:
        return iter(self._members.items())

    def not_in(self, others: "Proxies") -> list[Proxy[Any]]:
        """Return those whose place is taken by another one of *others*, or by none."""
        stay = {id(proxy) for _, proxy in others}
        return [proxy for _, proxy in self if id(proxy) not in stay]

    async def close(self) -> None:
        """Release all connections; calls that are under way fail."""
        for _, proxy in self:
            await proxy.close()

    def subscribe(self, options: ChannelOptions) -> Proxy[Grant]:
        """Return who is asked about subscriptions, in a namespace where somebody is."""
        return self._members[Kind.SUBSCRIBE, options.subscribe_proxy_name]

    def publish(self, options: ChannelOptions) -> Proxy[PublishVerdict]:
        """Return who is asked about publications, in a namespace where somebody is."""
        return self._members[Kind.PUBLISH, options.publish_proxy_name]

    def sub_refresh(self, options: ChannelOptions) -> Proxy[RefreshVerdict] | None:
        """Return who is asked about subscriptions that expire; `None` where nobody is any more."""
        return self._members.get((Kind.SUB_REFRESH, options.sub_refresh_proxy_name))

    @property
    def has_rpc(self) -> bool:
        """Whether the backend answers any method."""
        return any(kind is Kind.RPC for kind, _ in self._members)

    def rpc(self, method: str) -> Proxy[msgspec.Raw] | None:
        """Return who is asked about *method*; `None` if nobody is."""
        namespace, boundary, _ = method.partition(self._rpc.namespace_boundary)
        if boundary:
            name = self._methods.get(namespace)
        else:
            name = self._rpc.without_namespace.proxy_name if self._rpc.without_namespace.proxy_enabled else None
        return None if name is None else self._members[Kind.RPC, name]

    def kept_of_request(self, headers: Iterable[tuple[str, str]]) -> ClientHeaders:
        """Return what of a request's *headers* may be forwarded some day; each byte of them is a character."""
        return ClientHeaders(of_request(headers, self._given))

    def kept_of_command(self, headers: Mapping[str, str], before: ClientHeaders) -> ClientHeaders:
        """Return what was kept *before*, and what of a connect command's *headers* may be forwarded some day."""
        return before._replace(emulated=of_command(headers, self._emulated))


def make_proxies(
    wishes: Wishes,
    *,
    make_backend: MakeBackend,
    counts: Counts,
    around: Around,
    before: Proxies | None = None,
) -> Proxies:
    """Return the proxies that *wishes* ask for; of those *before*, what has not changed goes on as it is.

    What *make_backend* raises goes through, and nothing has begun then.
    """
    kept = dict(before) if before is not None else {}
    members: dict[Key, Proxy[Any]] = {}
    for (kind, name), settings in wishes.wanted().items():
        old = kept.get((kind, name))
        if old is not None and old.settings == settings:
            members[kind, name] = old
        else:
            members[kind, name] = Proxy(
                kind,
                name,
                settings,
                reader=_READERS[kind],
                backend=make_backend(settings),
                counts=counts.proxy(kind, name),
                around=around,
            )
    return Proxies(members, wishes.rpc)


def _lowered(names: Iterable[str]) -> frozenset[str]:
    return frozenset(name.lower() for name in names)
