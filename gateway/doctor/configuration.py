"""What is suspicious in a configuration that is good as far as its own rules go. Values of secrets are never shown."""

import ipaddress
from collections.abc import Iterator
from typing import Final

from gateway.auth.tokens import TokenSettings
from gateway.config import Config
from gateway.doctor.finding import Finding, error, ok, warning
from gateway.domain.channels import ChannelOptions
from gateway.tables import BrokerType

_SECRET_BYTES: Final = 32
_API_KEY_BYTES: Final = 16
_BALANCERS_PATIENCE_S: Final = 60.0
"""How long common proxies let a silent connection live."""
_ALLOWING: Final = tuple(name for name in ChannelOptions.model_fields if name.startswith("allow_"))


def check_configuration(config: Config) -> Iterator[Finding]:
    """Look at what clients may do, who may reach what, and how long things take."""
    for check in (_tokens, _origins, _switches, _namespaces, _exposure, _api_keys, _times, _broker):
        yield from check(config)


def _tokens(config: Config) -> Iterator[Finding]:
    client = config.client
    tables = [("client.token", client.token)]
    if client.subscription_token.enabled:
        tables.append(("client.subscription_token", client.subscription_token))
    for name, table in tables:
        weak = [f"{name}.{key}" for key in _secrets(table) if len(getattr(table, key).encode()) < _SECRET_BYTES]
        for key in weak:
            advice = "take 32 random bytes or more (openssl rand -hex 32): a short one can be guessed from one token"
            yield warning("tokens", f"{key} is shorter than {_SECRET_BYTES} bytes", advice)
        if not table.configured_keys() and not table.jwks_public_endpoint:
            if name == "client.token" and (client.allow_anonymous_connect_without_token or client.insecure):
                continue
            advice = "set hmac_secret_key, a public key or jwks_public_endpoint"
            yield error("tokens", f"{name} has no key: no token is good", advice)
        elif not weak:
            yield ok("tokens", f"{name} has keys")
        if table.jwks_public_endpoint.startswith("http://"):
            advice = "use https: who answers in its place decides who is let in"
            yield warning("tokens", f"{name}.jwks_public_endpoint is fetched without TLS", advice)
    if client.token.hmac_previous_secret_key:
        advice = "take it out when the last token that it signed has expired"
        yield warning("tokens", "client.token.hmac_previous_secret_key is still good", advice)


def _secrets(table: TokenSettings) -> list[str]:
    return [key for key in ("hmac_secret_key", "hmac_previous_secret_key") if getattr(table, key)]


def _origins(config: Config) -> Iterator[Finding]:
    origins = config.client.allowed_origins
    if "*" in origins:
        advice = 'name your sites: ["https://app.example.com"]'
        yield warning(
            "origins", "client.allowed_origins lets pages of every site connect in their visitors' names", advice
        )
    elif origins:
        yield ok("origins", f"pages of {', '.join(origins)} may connect")
    else:
        yield ok("origins", "no browser may connect, only programs (client.allowed_origins is empty)")


def _switches(config: Config) -> Iterator[Finding]:
    client = config.client
    for key, text in (
        ("insecure", "lets everybody in, and everybody do everything"),
        ("insecure_skip_token_signature_verify", "takes tokens that anybody may have written"),
    ):
        if getattr(client, key):
            yield error("switches", f"client.{key} {text}", "for development only: take it out")
    if config.redis.tls.insecure_skip_verify:
        advice = "give redis.tls.server_ca_pem_file instead"
        yield warning("switches", "redis.tls.insecure_skip_verify takes any server for Redis", advice)
    if config.playground.enabled:
        yield warning("switches", "playground.enabled shows a page for trying things out to everybody", "switch it off")


def _namespaces(config: Config) -> Iterator[Finding]:
    channel = config.channel
    tables: list[tuple[str, ChannelOptions]] = [(each.name, each) for each in channel.namespaces]
    closed = [name for name, options in tables if not any(getattr(options, key) for key in _ALLOWING)]
    if not config.client.insecure and len(closed) == len(tables):
        options = channel.without_namespace
        if not any(getattr(options, key) for key in _ALLOWING):
            advice = "allow_subscribe_for_client = true in a namespace, or make subscription tokens"
            yield warning("namespaces", "none allows clients anything without a subscription token", advice)
            return
    if closed:
        advice = "well, if its clients have subscription tokens and your backend publishes"
        yield warning("namespaces", f"{', '.join(closed)}: allows clients nothing by itself", advice)
    else:
        yield ok("namespaces", f"{len(tables)} namespaces")


def _exposure(config: Config) -> Iterator[Finding]:
    server = config.http_server
    if not server.tls.enabled and not server.trusted_proxies and not _is_own(server.address):
        advice = "set http_server.tls, or have a proxy speak TLS and name it in http_server.trusted_proxies"
        yield warning("exposure", "tokens reach the public port in clear text", advice)
    if not _is_own(server.internal_address):
        advice = "keep it within your network: health, metrics and the server API are there"
        yield warning("exposure", f"the internal port listens on {server.internal_address}", advice)
    if {"0.0.0.0/0", "::/0"} & set(server.trusted_proxies):
        advice = "name the proxies' own networks"
        yield error("exposure", "http_server.trusted_proxies trusts everybody's word on their address", advice)


def _is_own(address: str) -> bool:
    """Tell whether only this machine can reach *address*."""
    if address.startswith("unix:"):
        return True
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"


def _api_keys(config: Config) -> Iterator[Finding]:
    api = config.http_api
    keys = [("http_api.key", api.key)] if api.key else []
    keys += [(f"http_api.keys[{each.name}]", each.key) for each in api.keys]
    for name, key in keys:
        if len(key.encode()) < _API_KEY_BYTES:
            advice = "take 16 random bytes or more (openssl rand -hex 32)"
            yield warning("api keys", f"{name} is shorter than {_API_KEY_BYTES} bytes", advice)
    if api.public and not config.http_server.tls.enabled and not config.http_server.trusted_proxies:
        yield warning("api keys", "http_api.public takes keys in clear text", "speak TLS, or keep it internal")


def _times(config: Config) -> Iterator[Finding]:
    shutdown, client = config.shutdown, config.client
    yield ok(
        "times",
        f"stopping takes up to {shutdown.timeout_s:g} s: give it as long before you kill it "
        "(terminationGracePeriodSeconds, TimeoutStopSec)",
    )
    if client.ping_interval_s >= _BALANCERS_PATIENCE_S or not client.ping_interval_s:
        advice = "below 60 s: many proxies cut a connection that is silent for so long"
        yield warning("times", f"client.ping_interval is {client.ping_interval_s:g} s", advice)


def _broker(config: Config) -> Iterator[Finding]:
    if config.broker.type is BrokerType.MEMORY:
        yield ok("broker", "in memory: one node, and what it holds ends with it")
