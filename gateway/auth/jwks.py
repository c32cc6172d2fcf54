"""Keys from a JSON Web Key Set endpoint (RFC 7517), kept, and fetched again when a token names a key that is not there.

Theory of operation. At most one fetch runs at a time, in a thread, and all who need it wait for that one. After any
fetch, good or bad, the next one waits for the refresh interval, so that tokens with made-up key ids can't make the node
hammer the endpoint. A failed fetch is reported and leaves the kept keys in force; without any, nobody can be told yes
or no, and clients get a temporary error instead of a final one.
"""

import asyncio
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable
from http.client import HTTPException, HTTPMessage
from typing import IO, Final, Never

import jwt
import msgspec

from gateway.auth.keys import Key, KeysUnavailableError, UnsuitableKeyError, jwk_key

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
        found = self._suitable(algorithm, key_id)
        is_old = now_s - self._fetched_at_s >= self._lifetime_s
        if (not found or is_old) and self._may_fetch(now_s):
            await self._refresh(now_s)
            found = self._suitable(algorithm, key_id)
        if self._keys is None:
            raise KeysUnavailableError("the key set could not be fetched yet")
        return found

    def _suitable(self, algorithm: str, key_id: str) -> list[Key]:
        keys = [key for key in self._keys or () if algorithm in key.algorithms]
        return [key for key in keys if key.key_id == key_id] if key_id else keys

    def _may_fetch(self, now_s: float) -> bool:
        return self._fetching is not None or now_s - self._tried_at_s >= self._refresh_interval_s

    async def _refresh(self, now_s: float) -> None:
        """Fetch, or join the fetch that is under way; one caller's cancel harms no other."""
        if self._fetching is None:
            self._tried_at_s = now_s
            self._fetching = asyncio.create_task(self._fetch_keys(now_s), name="key set")
            self._fetching.add_done_callback(self._fetched)
        await asyncio.shield(self._fetching)

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
        entries = msgspec.json.decode(document, type=dict[str, list[dict[str, object]]])["keys"]
    except (msgspec.MsgspecError, KeyError, RecursionError):
        raise ValueError("not a JSON Web Key Set") from None
    keys = []
    for entry in entries:
        try:
            keys.append(jwk_key(jwt.PyJWK(entry)))
        except (jwt.PyJWTError, UnsuitableKeyError, ValueError, TypeError):
            continue
    return keys


def http_fetch(url: str, *, timeout_s: float) -> Fetch:
    """Return a fetch of *url* in a thread: no redirects, at most `MAX_DOCUMENT_BYTES`."""
    opener = urllib.request.build_opener(_NoRedirects)

    def get() -> bytes:
        try:
            with opener.open(url, timeout=timeout_s) as response:
                document: bytes = response.read(MAX_DOCUMENT_BYTES + 1)
        except HTTPException as error:
            raise OSError(str(error)) from error
        if len(document) > MAX_DOCUMENT_BYTES:
            raise OSError(f"the key set is larger than {MAX_DOCUMENT_BYTES} bytes")
        return document

    async def fetch() -> bytes:
        return await asyncio.to_thread(get)

    return fetch


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Refuses redirects: keys come from the configured address or not at all."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> Never:
        raise urllib.error.HTTPError(req.full_url, code, f"redirects to {newurl}: {msg}", headers, fp)
