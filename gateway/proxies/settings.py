"""Where the backend is, what it is sent, how long it is waited for, and what its answers mean to clients."""

import re
from typing import Annotated, Final, Self

from pydantic import AfterValidator, Field, model_validator
from yarl import URL

from gateway.domain.channels import DEFAULT_PROXY
from gateway.protocol.closing import closing_with
from gateway.settings import Limit, Seconds, ServerTLSSettings, Settings, Size, repeated

_NAME: Final = r"^[-a-zA-Z0-9_.]{2,}$"
_OK: Final = 200
_HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_KEPT_BACK: Final = frozenset(
    {
        # Between the gateway and the backend alone (RFC 9110 7.6.1), or decided by what is sent.
        *("connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade", "expect"),
        *("host", "content-length", "content-type", "content-encoding", "accept-encoding"),
    }
)
"""Headers that no client and no configuration has a say in."""


def _is_endpoint(text: str) -> str:
    if not text:
        return text
    if text.startswith("grpc://"):
        raise ValueError("there is no gRPC here: give an http:// or https:// address")
    try:
        url = URL(text)
        is_usable = url.scheme in {"http", "https"} and bool(url.host) and url.port != 0 and not url.fragment
    except ValueError:
        url, is_usable = URL(), False
    if not is_usable or not text.isprintable() or " " in text:
        raise ValueError("must be a URL such as http://127.0.0.1:3000/centrifugo/connect")
    if url.user is not None or url.password is not None:
        raise ValueError("holds a user or a password: give them as a header, in http.static_headers")
    return text


def _may_be_sent(name: str) -> str:
    if not _HEADER_NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name of a header")
    if name.lower() in _KEPT_BACK:
        raise ValueError(f"{name!r} belongs to the gateway's own request and can't be given")
    return name


def _are_headers(headers: dict[str, str]) -> dict[str, str]:
    for name, value in headers.items():
        if not (value.isascii() and value.isprintable()):
            raise ValueError(f"the value of {name!r} has other characters than printable ASCII")
    return headers


HeaderName = Annotated[str, AfterValidator(_may_be_sent)]
"""The name of a header that may be sent to a backend; upper and lower case are the same."""


class ToErrorSettings(Settings):
    """What a client is told, as an error."""

    code: Annotated[int, Field(ge=0, le=2**32 - 1)] = 0
    """Its code, 400 to 1999 for those of applications; 0: no error."""
    message: Annotated[str, Field(max_length=123)] = ""
    """Its words."""
    temporary: bool = False
    """Whether SDKs try again."""


class ToDisconnectSettings(Settings):
    """What a client is told, as the end of its connection."""

    code: Annotated[int, Field(ge=0)] = 0
    """Its code: 4000 to 4499 and SDKs come back, 4500 to 4999 and they do not; 0: no disconnect."""
    reason: str = ""
    """Its words."""


class StatusTransformSettings(Settings):
    """What an HTTP status other than 200 means to clients."""

    status_code: Annotated[int, Field(ge=100, le=599)]
    """The status."""
    to_error: ToErrorSettings = ToErrorSettings()
    """Answer with an error."""
    to_disconnect: ToDisconnectSettings = ToDisconnectSettings()
    """Or end the connection."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.status_code == _OK:
            message = "status_code: an answer with status 200 says itself what it means"
            raise ValueError(message)
        if bool(self.to_error.code) == bool(self.to_disconnect.code):
            message = f"status {self.status_code}: give to_error.code or to_disconnect.code, one of them"
            raise ValueError(message)
        if self.to_disconnect.code:
            closing_with(self.to_disconnect.code, self.to_disconnect.reason)
        return self


class ProxyTLSSettings(ServerTLSSettings):
    """TLS to an https:// endpoint, where it is not as usual."""

    enabled: bool = False
    """Go by these keys; else the system's authorities are believed, and no certificate is shown."""


class ProxyHTTPSettings(Settings):
    """How requests are sent, and what statuses mean."""

    static_headers: Annotated[dict[HeaderName, str], AfterValidator(_are_headers), Field(repr=False)] = Field(
        default={}
    )
    """Headers that every request has; one that is forwarded from a client under the same name takes its place."""
    status_to_code_transforms: list[StatusTransformSettings] = Field(default=[])
    """What statuses other than 200 mean to clients; one that is not listed is error 100."""
    response_size_limit: Size = 1048576
    """Longest answer, in bytes (error 100 beyond)."""
    tls: ProxyTLSSettings = ProxyTLSSettings()

    @model_validator(mode="after")
    def _reject_twins(self) -> Self:
        twins = repeated(each.status_code for each in self.status_to_code_transforms)
        if twins:
            message = f"status_to_code_transforms: {', '.join(map(str, twins))} is there more than once"
            raise ValueError(message)
        return self


class BreakerSettings(Settings):
    """When a backend that fails is left in peace, and for how long; meanwhile clients get error 100 at once."""

    failures: Limit = 10
    """Calls that fail in a row (no answer in time, no connection, a status of 500 or more that is not mapped) before it
    is; 0: never."""
    pause_s: Annotated[Seconds, Field(gt=0)] = 1.0
    """Upper bound of the first, random, wait before one call tries again; doubled each time that this fails."""
    max_pause_s: Annotated[Seconds, Field(gt=0)] = 30.0
    """Upper bound of all waits."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.max_pause_s < self.pause_s:
            message = "max_pause is shorter than pause"
            raise ValueError(message)
        return self


class ProxySettings(Settings):
    """One way to ask the backend."""

    endpoint: Annotated[str, AfterValidator(_is_endpoint)] = ""
    """The URL that events are posted to, http:// or https://; redirects are not followed."""
    timeout_s: Annotated[Seconds, Field(gt=0)] = 1.0
    """How long an answer may take, waiting for its turn included (error 100); below the 5 s after which SDKs give a
    command up."""
    http_headers: list[HeaderName] = Field(default=[])
    """Headers of the client's own request that are forwarded, such as `Cookie`."""
    emulated_headers: list[HeaderName] = Field(default=[])
    """Headers that a client gave in its connect command and that are forwarded, as browsers can give no others. A
    client writes there what it likes; a header of its request by the same name wins, if that is forwarded, too."""
    binary_encoding: bool = False
    """Send payloads in base64 (`b64data`), for what is no JSON."""
    include_connection_meta: bool = False
    """Send the `meta` of the connection, from its token or from the connect proxy's answer."""
    concurrency_limit: Size = 256
    """Calls that a node makes at the same time."""
    waiting_limit: Limit = 1024
    """Calls that wait for their turn at most (error 100 beyond)."""
    http: ProxyHTTPSettings = ProxyHTTPSettings()
    breaker: BreakerSettings = BreakerSettings()


class NamedProxySettings(ProxySettings):
    """A proxy that namespaces name, of channels (`subscribe_proxy_name` and so on) or of methods (`proxy_name`)."""

    name: Annotated[str, Field(pattern=_NAME)]
    """How they call it: two or more of letters, digits, `-`, `_`, `.`, and not `default`."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.name == DEFAULT_PROXY:
            message = f"name: {DEFAULT_PROXY!r} is what namespaces call the proxies that are set for all of them"
            raise ValueError(message)
        if not self.endpoint:
            message = f"proxy {self.name!r} has no endpoint"
            raise ValueError(message)
        return self


class EventProxySettings(ProxySettings):
    """A proxy for an event that is none of a channel."""

    enabled: bool = False
    """Use it."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.enabled and not self.endpoint:
            message = "enabled, but without an endpoint"
            raise ValueError(message)
        return self


class ClientProxySettings(Settings):
    """`client.proxy`: what the backend is asked about connections."""

    connect: EventProxySettings = EventProxySettings()
    """Who a client is that has no token."""
    refresh: EventProxySettings = EventProxySettings()
    """Whether a connection that expires may go on; clients then need not, and may not, refresh it themselves."""


class ChannelProxySettings(Settings):
    """`channel.proxy`: the proxies of namespaces that name none of their own."""

    subscribe: ProxySettings = ProxySettings()
    """Whether a client may subscribe (`subscribe_proxy_enabled`)."""
    publish: ProxySettings = ProxySettings()
    """Whether a client may publish, and what (`publish_proxy_enabled`)."""
    sub_refresh: ProxySettings = ProxySettings()
    """Whether a subscription that expires may go on (`sub_refresh_proxy_enabled`)."""


class RPCOptions(Settings):
    """`rpc` calls of methods without a namespace."""

    proxy_enabled: bool = False
    """Have the backend answer them; methods of `handlers.rpc_methods` and the built-in ones stay what they are."""
    proxy_name: str = DEFAULT_PROXY
    """By which of `proxies`; `default`: by `rpc.proxy`."""


class RPCNamespace(RPCOptions):
    """`rpc` calls of methods `name:…`."""

    name: Annotated[str, Field(pattern=_NAME)]
    """What precedes the first `:` of the methods that it is for."""


class RPCSettings(Settings):
    """`rpc`: calls of clients that the backend answers."""

    namespace_boundary: Annotated[str, Field(min_length=1, max_length=1)] = ":"
    """What ends the namespace in the name of a method."""
    proxy: ProxySettings = ProxySettings()
    """The proxy of namespaces that name none of their own."""
    without_namespace: RPCOptions = RPCOptions()
    namespaces: list[RPCNamespace] = Field(default=[])
    """Namespaces of methods, each a table with a `name`."""

    @model_validator(mode="after")
    def _reject_twins(self) -> Self:
        twins = repeated(namespace.name for namespace in self.namespaces)
        if twins:
            message = f"each namespace once, please: {', '.join(twins)} is defined more than once"
            raise ValueError(message)
        return self
