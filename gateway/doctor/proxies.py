"""The user's backend as proxies would meet it: whether anybody listens there, and what clients may write to it."""

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Final

from yarl import URL

from gateway.config import Config
from gateway.doctor.finding import Finding, error, ok, warning
from gateway.proxies.http import CertificateError, tls_context
from gateway.proxies.settings import ProxySettings

_SUBJECT: Final = "proxies"
_PATIENCE_S: Final = 3.0
_SDKS_PATIENCE_S: Final = 5.0
"""How long SDKs wait for a reply (protocol.md 4.1)."""
_ADDRESSES: Final = frozenset({"forwarded", "x-forwarded-for", "x-real-ip", "true-client-ip", "cf-connecting-ip"})


def check_proxies(config: Config) -> Iterator[Finding]:
    """Look at what proxies send, and how long they wait."""
    wanted = config.proxy_wishes.wanted()
    for (kind, name), settings in wanted.items():
        yield from _check(f"{kind} proxy {name!r}", settings)
    if config.client.proxy.connect.enabled and "*" in config.client.allowed_origins:
        listed = {header.lower() for header in config.client.proxy.connect.http_headers}
        if listed & {"cookie", "authorization"}:
            advice = "name your sites in client.allowed_origins, or have the backend look at Origin"
            yield error(_SUBJECT, "pages of every site connect with their visitors' cookies", advice)


def _check(place: str, settings: ProxySettings) -> Iterator[Finding]:
    static = {header.lower() for header in settings.http.static_headers}
    emulated = {header.lower() for header in settings.emulated_headers}
    given = {header.lower() for header in settings.http_headers}
    for header in sorted(static & (emulated | given)):
        advice = "take it out of http_headers and emulated_headers, if it is to tell the backend who asks"
        yield warning(_SUBJECT, f"{place}: a client may put its own {header} in the place of the static one", advice)
    for header in sorted(emulated & _ADDRESSES):
        advice = "list it in http_headers alone, where a balancer can see to it"
        yield warning(_SUBJECT, f"{place}: a client writes {header} as it likes, by emulated_headers", advice)
    if settings.timeout_s >= _SDKS_PATIENCE_S:
        advice = f"stay below {_SDKS_PATIENCE_S:g} s: SDKs have given the command up by then"
        yield warning(_SUBJECT, f"{place}: timeout is {settings.timeout_s:g} s", advice)
    if settings.http.tls.enabled and settings.http.tls.insecure_skip_verify:
        advice = "give http.tls.server_ca_pem_file instead"
        yield warning(_SUBJECT, f"{place}: any server is taken for the backend", advice)


async def examine_proxies(config: Config) -> list[Finding]:
    """Connect to every endpoint; nothing is sent, since what that would set off is the backend's affair."""
    wanted = config.proxy_wishes.wanted().values()
    endpoints = {(settings.endpoint, settings.http.tls): settings for settings in wanted}
    return list(await asyncio.gather(*(_examine(settings) for settings in endpoints.values())))


async def _examine(settings: ProxySettings) -> Finding:
    url, tls = URL(settings.endpoint), settings.http.tls
    place = url.with_query(None)  # which may hold a key
    try:
        context = tls_context(tls) if tls.enabled else url.scheme == "https"
        async with asyncio.timeout(_PATIENCE_S):
            _, writer = await asyncio.open_connection(
                url.host,
                url.port,
                ssl=context if url.scheme == "https" else None,
                server_hostname=(tls.server_name or None) if url.scheme == "https" else None,
            )
    except TimeoutError:
        return error(_SUBJECT, f"{place}: no connection within {_PATIENCE_S:g} s", "clients get error 100")
    except (OSError, CertificateError) as fault:
        return error(_SUBJECT, f"{place}: {fault}", "clients get error 100 until it can be reached")
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return ok(_SUBJECT, f"{place}: somebody listens there")
