"""Keys from a JSON Web Key Set endpoint (RFC 7517), kept, and fetched again when a token names a key that is not there.

Theory of operation. At most one fetch runs at a time, in a thread, and all who need it wait for that one. After any
fetch, good or bad, the next one waits for the refresh interval, so that tokens with made-up key ids can't make the node
hammer the endpoint. A failed fetch is reported and leaves the kept keys in force; without any, nobody can be told yes
or no, and clients get a temporary error instead of a final one.
"""

import asyncio
import contextlib
import time
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable
from http.client import HTTPException, HTTPMessage
from typing import IO, Any, Final, Never

import jwt
import msgspec

from gateway.auth.keys import HMAC_ALGORITHMS, Key, KeysUnavailableError, jwk_key

MAX_DOCUMENT_BYTES: Final = 1 << 20

Fetch = Callable[[], Awaitable[bytes]]
"""Returns the document, or raises `OSError`."""


class KeySet:
    """The keys of one endpoint. *report* is told why a fetch failed, at most once a refresh interval."""

    def __init__(
        self, fetch: Fetch, *, refresh_interval_s: float, lifetime_s: float, report: Callable[[str], None]
    ) -> None:
        self._fetch = fetch
        self._report = report
        self._refresh_interval_s = refresh_interval_s
        self._lifetime_s = lifetime_s
        self._keys: list[Key] | None = None
        self._fetched_at_s = float("-inf")
        self._tried_at_s = float("-inf")
        self._fetching: asyncio.Task[None] | None = None

    async def keys_for(self, *, algorithm: str, key_id: str, now_s: float) -> list[Key]:
        """Return the suitable keys; see `KeySource.keys_for`."""
        if algorithm in HMAC_ALGORITHMS:
            return []  # a public document holds no secrets
        found = self._suitable(algorithm, key_id)
        is_old = now_s - self._fetched_at_s >= self._lifetime_s
        if (not found or is_old) and self._may_fetch(now_s):
            await asyncio.shield(self._refresh(now_s))  # one caller's cancel harms no other
            found = self._suitable(algorithm, key_id)
        if self._keys is None:
            raise KeysUnavailableError("the key set could not be fetched yet")
        return found

    def _suitable(self, algorithm: str, key_id: str) -> list[Key]:
        keys = [key for key in self._keys or () if algorithm in key.algorithms]
        return [key for key in keys if key.key_id == key_id] if key_id else keys

    def _may_fetch(self, now_s: float) -> bool:
        # The distance, not the difference: a clock that was set back must not stop fetching.
        return self._fetching is not None or abs(now_s - self._tried_at_s) >= self._refresh_interval_s

    def _refresh(self, now_s: float) -> asyncio.Task[None]:
        """Fetch, or join the fetch that is under way."""
        if self._fetching is None:
            self._tried_at_s = now_s
            self._fetching = asyncio.create_task(self._fetch_keys(now_s), name="key set")
            self._fetching.add_done_callback(self._fetched)
        return self._fetching

    def _fetched(self, _task: asyncio.Task[None]) -> None:
        self._fetching = None

    async def _fetch_keys(self, now_s: float) -> None:
        try:
            self._keys = read_key_set(await self._fetch())
            self._fetched_at_s = now_s
        except (OSError, ValueError) as error:
            self._report(str(error))


def read_key_set(document: bytes) -> list[Key]:
    """Return the keys of *document* that can verify tokens; others in it are left out.

    Raises:
        ValueError: if it is no key set.
    """
    try:
        entries = msgspec.json.decode(document, type=dict[str, Any])["keys"]
    except (msgspec.MsgspecError, KeyError, RecursionError):
        entries = None
    if not isinstance(entries, list):
        raise ValueError("not a JSON Web Key Set")  # noqa: TRY004 - the document is wrong, not the caller
    keys = []
    for entry in entries:
        # RFC 7517 5: entries that are not understood, or out of range, SHOULD be ignored. PyJWT tells them by whatever
        # its parsers run into, and one odd entry must not take the others down.
        with contextlib.suppress(Exception):
            keys.append(jwk_key(jwt.PyJWK(entry)))
    return keys


def http_fetch(url: str, *, timeout_s: float) -> Fetch:
    """Return a fetch of *url* in a thread: no redirects, no proxies, at most `MAX_DOCUMENT_BYTES` and *timeout_s*."""
    opener = urllib.request.build_opener(_NoRedirects, urllib.request.ProxyHandler({}))

    def get() -> bytes:
        deadline_s = time.monotonic() + timeout_s
        document = bytearray()
        try:
            with opener.open(url, timeout=timeout_s) as response:
                while chunk := response.read1(65536):
                    document += chunk
                    if len(document) > MAX_DOCUMENT_BYTES:
                        raise OSError(f"the key set is larger than {MAX_DOCUMENT_BYTES} bytes")
                    # urllib's time-out is for each read, and an endpoint that dribbles keeps within it for ever.
                    if time.monotonic() > deadline_s:
                        raise TimeoutError("the key set did not arrive in time")
        except HTTPException as error:
            raise OSError(str(error)) from error
        return bytes(document)

    async def fetch() -> bytes:
        return await asyncio.to_thread(get)

    return fetch


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Refuses redirects: keys come from the configured address or not at all."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> Never:
        raise urllib.error.HTTPError(req.full_url, code, f"redirects to {newurl}: {msg}", headers, fp)
