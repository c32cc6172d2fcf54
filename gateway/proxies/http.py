"""Events over HTTP, by aiohttp: 60 to 120 µs of CPU for a call, where httpx takes 590, and 1,260 with 32 at once.

Measured on 2026-11-27 by tests/benchmarks/proxies, which is why this is not httpx although the gateway has that, too.
"""

import ssl
from typing import Final

import aiohttp
from yarl import URL

from gateway.proxies.port import Headers, Response, TooLongError, UnreachableError
from gateway.proxies.settings import ProxySettings, ProxyTLSSettings

_KEPT_ALIVE_S: Final = 4.0
"""How long an idle connection is used again; many servers close theirs after five seconds, and a request that crosses
that can't be sent a second time."""
_CONTENT_TYPE: Final = ("Content-Type", "application/json")
_AUTOMATIC: Final = ("Accept", "Accept-Encoding", "User-Agent")


class CertificateError(Exception):
    """A certificate or key that can't be used; the text says which and why."""


class HTTPBackend:
    """Posts to one endpoint, over as many connections as calls are under way, which are used again."""

    def __init__(self, settings: ProxySettings) -> None:
        """Read the certificates.

        Raises:
            CertificateError: if one can't be read, or is none.
        """
        self._url = URL(settings.endpoint)
        self._limit = settings.http.response_size_limit
        self._concurrency = settings.concurrency_limit
        tls = settings.http.tls
        self._context = tls_context(tls) if tls.enabled else None
        self._server_name = (tls.server_name or None) if tls.enabled else None
        self._session: aiohttp.ClientSession | None = None
        self._is_closed = False

    async def post(self, body: bytes, headers: Headers) -> Response:
        """Send *body*; see `Backend.post`."""
        session = self._open()
        try:
            async with session.post(
                self._url,
                data=body,
                headers=[*headers, _CONTENT_TYPE],
                allow_redirects=False,
                server_hostname=self._server_name,
            ) as response:
                return Response(response.status, await self._read(response))
        except (aiohttp.ClientError, OSError, ValueError) as error:
            # Of what is no HTTP at all, aiohttp's parsers raise this and that.
            raise UnreachableError(
                f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            ) from error

    async def close(self) -> None:
        """Release all connections; see `Backend.close`."""
        self._is_closed = True
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _open(self) -> aiohttp.ClientSession:
        if self._is_closed:
            raise UnreachableError("the node stops")
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=self._concurrency,
                    keepalive_timeout=_KEPT_ALIVE_S,
                    ssl=True if self._context is None else self._context,
                ),
                # One user's cookies are no other's, and the environment has no say in where events go.
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
                # The deadline is the caller's.
                timeout=aiohttp.ClientTimeout(total=None, connect=None, sock_connect=None, sock_read=None),
                auto_decompress=False,
                skip_auto_headers=_AUTOMATIC,
            )
        return self._session

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        if (response.content_length or 0) > self._limit:
            raise self._too_long(response)
        chunks, size = [], 0
        async for chunk in response.content.iter_any():
            chunks.append(chunk)
            size += len(chunk)
            if size > self._limit:
                raise self._too_long(response)
        return b"".join(chunks)

    def _too_long(self, response: aiohttp.ClientResponse) -> TooLongError:
        response.close()  # else the rest would be read to use the connection again
        return TooLongError(f"its answer is longer than {self._limit} bytes (http.response_size_limit)")


def tls_context(tls: ProxyTLSSettings) -> ssl.SSLContext:
    """Return what connections are encrypted by.

    Raises:
        CertificateError: for a file that can't be read, or is no certificate.
    """
    try:
        context = ssl.create_default_context(cafile=tls.server_ca_pem_file or None)
    except OSError as error:
        raise _unreadable("server_ca_pem_file", tls.server_ca_pem_file, error) from error
    if tls.cert_pem_file:
        try:
            context.load_cert_chain(tls.cert_pem_file, tls.key_pem_file)
        except OSError as error:
            raise _unreadable("cert_pem_file", f"{tls.cert_pem_file}, {tls.key_pem_file}", error) from error
    if tls.insecure_skip_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _unreadable(key: str, names: str, error: OSError) -> CertificateError:
    is_content = isinstance(error, ssl.SSLError)
    reason = "not a certificate with its key" if is_content else error.strerror
    return CertificateError(f"http.tls.{key} = {names}: {reason}")
