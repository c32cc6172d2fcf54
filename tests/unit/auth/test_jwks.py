"""Key sets: fetched from a real HTTP server of the test's own, at times that the test decides."""

import asyncio
import contextlib
import json
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import trustme
from hypothesis import example, given, settings
from hypothesis import strategies as st
from websockets.asyncio.client import connect

from gateway.auth.jwks import MAX_DOCUMENT_BYTES, http_fetch, read_key_set
from gateway.auth.tokens import TokenRefusedError, TokenSettings, TokenVerifier
from gateway.protocol import codes
from tests.support.conversations import House, house
from tests.support.nodes import running_node
from tests.support.tokens import ALGORITHMS, jwk, private, token
from tests.support.waiting import PATIENCE_S, until

NOW_S = 1_800_000_000.0
SECRET = "a secret of these tests, of more than 32 bytes"
REFRESH_INTERVAL_S = 10
LIFETIME_S = 3600


def key_set(*keys: Any, **members: Any) -> bytes:
    return json.dumps({"keys": list(keys), **members}).encode()


class Endpoint:
    """An HTTP server in a thread. It answers with *status*, *headers* and *document*, once *gate* is open."""

    def __init__(self, *, is_up: bool = True, context: ssl.SSLContext | None = None) -> None:
        self.document = key_set(jwk("rsa"))
        self.status = 200
        self.headers: dict[str, str] = {}
        self.raw: Callable[[BaseHTTPRequestHandler], None] | None = None
        self.paths: list[str] = []
        self.gate = threading.Event()
        self.gate.set()
        self.ended = threading.Event()
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                endpoint.paths.append(self.path)
                endpoint.gate.wait(PATIENCE_S)
                with contextlib.suppress(OSError):  # who asked may have given up
                    if endpoint.raw is not None:
                        endpoint.raw(self)
                        return
                    self.send_response(endpoint.status)
                    for name, value in endpoint.headers.items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(endpoint.document)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler, bind_and_activate=False)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign]
        # Bound and not listening: connections are refused, and the port stays ours.
        self._server.server_bind()
        self.port = self._server.server_address[1]
        if context is not None:
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.url = f"{'https' if context else 'http'}://127.0.0.1:{self.port}/keys"
        self._thread: threading.Thread | None = None
        if is_up:
            self.come_up()

    @property
    def hits(self) -> int:
        return len(self.paths)

    def come_up(self) -> None:
        self._server.server_activate()
        self._thread = threading.Thread(target=lambda: self._server.serve_forever(poll_interval=0.01), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self.ended.set()
        self.gate.set()
        if self._thread is not None:
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    endpoint = Endpoint()
    yield endpoint
    endpoint.close()


@pytest.fixture
def silent_endpoint() -> Iterator[Endpoint]:
    """An endpoint that is down until it is told to come up."""
    endpoint = Endpoint(is_up=False)
    yield endpoint
    endpoint.close()


class Reader:
    """A verifier of one endpoint's keys, and a clock that the test moves."""

    def __init__(self, url: str, **options: Any) -> None:
        self.now_s = NOW_S
        self.reports: list[str] = []
        chosen = {"jwks_refresh_interval_s": REFRESH_INTERVAL_S, "jwks_lifetime_s": LIFETIME_S} | options
        self.verifier = TokenVerifier(TokenSettings(jwks_public_endpoint=url, **chosen), report=self.reports.append)

    async def answer(self, text: str) -> str:
        """Return the user who is let in, or the answer's code and the cause."""
        async with asyncio.timeout(PATIENCE_S):
            try:
                return (await self.verifier.connection(text, unix_s=self.now_s)).user
            except TokenRefusedError as refused:
                return str(refused)


def signed(kind: str = "rsa", owner: str = "issuer", *, kid: str | None = None, user: str = "42") -> str:
    """Return a token of *user*; its key id is *kind* unless told otherwise, and missing when it is empty."""
    key_id = kind if kid is None else kid
    header = {"kid": key_id} if key_id else {}
    return token({"sub": user}, private(kind, owner), ALGORITHMS[kind][0], header=header)


LET_IN = "42"
NO_KEY = "3500 no_key"
BAD_SIGNATURE = "3500 signature"
UNAVAILABLE = "100 keys_unavailable"


# What is in a key set.


@pytest.mark.parametrize("kind", ALGORITHMS)
@pytest.mark.parametrize("kid", ["", None], ids=["no kid in the token", "kid in the token"])
async def test_keys_of_each_kind_verify_the_algorithms_of_their_kind(
    endpoint: Endpoint, kind: str, kid: str | None
) -> None:
    endpoint.document = key_set(*(jwk(each) for each in ALGORITHMS))
    reader = Reader(endpoint.url)
    assert await reader.answer(signed(kind, kid=kid)) == LET_IN
    assert (await reader.answer(signed(kind, "attacker", kid=kid))) == BAD_SIGNATURE
    assert (endpoint.paths, reader.reports) == (["/keys"], [])


async def test_an_rsa_key_without_a_declared_algorithm_verifies_all_three(endpoint: Endpoint) -> None:
    reader = Reader(endpoint.url)
    for algorithm in ALGORITHMS["rsa"]:
        assert await reader.answer(token({"sub": "42"}, private("rsa"), algorithm, header={"kid": "rsa"})) == LET_IN


@pytest.mark.parametrize("declared", ALGORITHMS["rsa"])
async def test_a_declared_algorithm_is_the_only_one(endpoint: Endpoint, declared: str) -> None:
    endpoint.document = key_set(jwk("rsa", alg=declared))
    reader = Reader(endpoint.url)
    for algorithm in ALGORITHMS["rsa"]:
        text = token({"sub": "42"}, private("rsa"), algorithm, header={"kid": "rsa"})
        assert await reader.answer(text) == (LET_IN if algorithm == declared else NO_KEY)


P256_POINT = {name: jwk("p256")[name] for name in ("x", "y")}
SHORT = "AQAB"

UNSUITABLE: dict[str, Any] = {
    "a secret": {"kty": "oct", "kid": "rsa", "k": "c2VjcmV0IHNlY3JldCBzZWNyZXQgc2VjcmV0"},
    "a secret said to be RS256": {"kty": "oct", "kid": "rsa", "alg": "RS256", "k": "c2VjcmV0"},
    "a secret without a value": {"kty": "oct", "kid": "rsa"},
    "an empty secret": {"kty": "oct", "kid": "rsa", "k": ""},
    "a key for encryption": jwk("rsa", use="enc"),
    "a key of unknown use": jwk("rsa", use="tea"),
    "a key whose use is a list": jwk("rsa", use=["sig"]),
    "RSA said to be HS256": jwk("rsa", alg="HS256"),
    "RSA said to be ES256": jwk("rsa", alg="ES256"),
    "RSA said to be PS256": jwk("rsa", alg="PS256"),
    "RSA said to be RSA-OAEP": jwk("rsa", alg="RSA-OAEP"),
    "RSA said to be none": jwk("rsa", alg="none"),
    "RSA said to be nothing": jwk("rsa", alg=""),
    "RSA said to be a list": jwk("rsa", alg=["RS256"]),
    "RSA with 1024 bits": jwk("rsa1024", kid="rsa"),
    "RSA with an exponent of 1": jwk("rsa", e="AQ"),
    "RSA with an even exponent": jwk("rsa", e="Ag"),
    "RSA with a tiny modulus": jwk("rsa", n=SHORT),
    "RSA with an empty modulus": jwk("rsa", n=""),
    "RSA with a modulus that is a number": jwk("rsa", n=5),
    "RSA with a modulus that is no base64": jwk("rsa", n="****"),
    "RSA without a modulus": jwk("rsa", n=None),
    "RSA without an exponent": jwk("rsa", e=None),
    "RSA with a private exponent": jwk("rsa", d=SHORT),
    "P-256 said to be P-384": jwk("p256", kid="rsa", crv="P-384"),
    "P-256 said to be ES384": jwk("p256", kid="rsa", alg="ES384"),
    "P-256 off the curve": jwk("p256", kid="rsa", y=P256_POINT["x"]),
    "P-256 without y": jwk("p256", kid="rsa", y=None),
    "P-256 of a curve without a name": jwk("p256", kid="rsa", crv=None),
    "P-192": {"kty": "EC", "kid": "rsa", "crv": "P-192", "x": "A" * 32, "y": "A" * 32},
    "secp256k1": jwk("secp256k1", kid="rsa"),
    "secp256k1 said to be ES256": jwk("secp256k1", kid="rsa", alg="ES256"),
    "secp256k1 said to be P-256": jwk("secp256k1", kid="rsa", crv="P-256"),
    "a Brainpool curve": jwk("brainpool", kid="rsa"),
    "Ed448": jwk("ed448", kid="rsa"),
    "Ed448 said to be EdDSA": jwk("ed448", kid="rsa", alg="EdDSA"),
    "X25519": jwk("x25519", kid="rsa"),
    "X25519 said to be EdDSA": jwk("x25519", kid="rsa", alg="EdDSA"),
    "Ed25519 without a point": jwk("ed25519", kid="rsa", x=None),
    "Ed25519 of a wrong length": jwk("ed25519", kid="rsa", x=SHORT),
    "no kind": jwk("rsa", kty=None),
    "a kind in small letters": jwk("rsa", kty="rsa"),
    "a kind that is a list": jwk("rsa", kty=["RSA"]),
    "an unknown kind": jwk("rsa", kty="PQC"),
    "nothing": {},
}
for _kind, _number in (("p256", "private_value"), ("p384", "private_value"), ("p521", "private_value")):
    _size = (private(_kind).curve.key_size + 7) // 8
    _secret = getattr(private(_kind).private_numbers(), _number)
    UNSUITABLE[f"{_kind} with its private part"] = jwk(_kind, kid="rsa", d=_secret.to_bytes(_size, "big").hex())
"""Entries that no token may be verified with. Those of an RSA key have its modulus where that makes sense."""


@pytest.mark.parametrize("entry", UNSUITABLE.values(), ids=UNSUITABLE)
async def test_an_unsuitable_key_verifies_nothing_and_does_not_spoil_those_beside_it(
    endpoint: Endpoint, entry: Any
) -> None:
    for keys in ([entry, jwk("ed25519")], [jwk("ed25519"), entry]):
        endpoint.document = key_set(*keys)
        reader = Reader(endpoint.url)
        assert await reader.answer(signed("ed25519")) == LET_IN
        for kind, algorithms in ALGORITHMS.items():
            for algorithm in algorithms:
                text = token({"sub": "42"}, private(kind), algorithm, header={"kid": "rsa"})
                assert await reader.answer(text) == NO_KEY
        assert [key.key_id for key in read_key_set(endpoint.document)] == ["ed25519"]
        assert reader.reports == []


@pytest.mark.parametrize("kid", [None, "", 5, ["rsa"], {"a": 1}, True])
async def test_a_key_without_a_key_id_serves_tokens_that_name_none(endpoint: Endpoint, kid: Any) -> None:
    endpoint.document = key_set(jwk("rsa", kid=kid))
    reader = Reader(endpoint.url)
    assert await reader.answer(signed("rsa", kid="")) == LET_IN
    assert await reader.answer(signed("rsa", kid="rsa")) == NO_KEY
    assert await reader.answer(signed("rsa", kid="5")) == NO_KEY


async def test_a_token_without_a_key_id_is_tried_with_every_key_of_its_algorithm(endpoint: Endpoint) -> None:
    endpoint.document = key_set(*(jwk("rsa", owner, kid=owner) for owner in ("first", "second", "third")))
    reader = Reader(endpoint.url)
    for owner in ("first", "second", "third"):
        assert await reader.answer(signed("rsa", owner, kid="")) == LET_IN
    assert await reader.answer(signed("rsa", "attacker", kid="")) == BAD_SIGNATURE


async def test_two_keys_of_one_key_id_are_both_tried(endpoint: Endpoint) -> None:
    endpoint.document = key_set(jwk("rsa", "first", kid="x"), jwk("rsa", "second", kid="x"), jwk("p256", kid="x"))
    reader = Reader(endpoint.url)
    assert await reader.answer(signed("rsa", "first", kid="x")) == LET_IN
    assert await reader.answer(signed("rsa", "second", kid="x")) == LET_IN
    assert await reader.answer(signed("p256", kid="x")) == LET_IN
    assert await reader.answer(signed("rsa", "attacker", kid="x")) == BAD_SIGNATURE


async def test_a_key_of_another_key_id_is_not_tried(endpoint: Endpoint) -> None:
    endpoint.document = key_set(jwk("rsa", "first", kid="first"), jwk("rsa", "second", kid="second"))
    reader = Reader(endpoint.url)
    assert await reader.answer(signed("rsa", "first", kid="second")) == BAD_SIGNATURE


async def test_configured_keys_serve_beside_a_key_set(endpoint: Endpoint) -> None:
    reader = Reader(endpoint.url, hmac_secret_key=SECRET)
    assert await reader.answer(token({"sub": "42"}, SECRET)) == LET_IN
    assert endpoint.hits == 0, "the key set was asked for a token that a configured key verifies"
    assert await reader.answer(signed()) == LET_IN


async def test_members_of_a_key_set_that_are_not_understood_are_ignored(endpoint: Endpoint) -> None:
    """RFC 7517 5: additional members of the set MUST be ignored."""
    endpoint.document = key_set(jwk("rsa"), version=2, issuer="https://issuer.example", more=[1], nested={"a": None})
    reader = Reader(endpoint.url)
    assert (await reader.answer(signed()), reader.reports) == (LET_IN, [])


async def test_members_of_a_key_that_are_not_understood_are_ignored(endpoint: Endpoint) -> None:
    endpoint.document = key_set(jwk("rsa", x5c=["****"], x5t="****", use="sig", key_ops=["verify"], ext=True, nbf=1))
    assert await Reader(endpoint.url).answer(signed()) == LET_IN


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
_CLOSE = st.sampled_from(["RSA", "EC", "OKP", "oct", "P-256", "P-384", "Ed25519", "RS256", "EdDSA", "sig", "AQAB", "A"])
_MEMBERS = (*jwk("rsa"), "crv", "x", "y", "k", "alg", "use", "key_ops", "d", "p", "q", "dp", "dq", "qi", "oth")
ENTRIES = st.dictionaries(st.sampled_from(_MEMBERS), _CLOSE | JSON, max_size=8)


@given(st.lists(ENTRIES, max_size=3))
@example([{"kty": "oct"}])
@settings(deadline=None)
def test_whatever_entries_a_key_set_has_the_good_one_among_them_is_read(entries: list[Any]) -> None:
    good = jwk("p384", kid="the good one")
    document = json.dumps({"keys": [*entries, good]}).encode()
    assert "the good one" in [key.key_id for key in read_key_set(document)]


@given(st.binary() | JSON.map(lambda value: json.dumps(value).encode()))
@example(b"[" * 100_000)
@example(b'{"keys":[{"n":' + b"[" * 100_000)
@settings(deadline=None)
def test_whatever_document_comes_it_is_read_or_is_a_value_error(document: bytes) -> None:
    with contextlib.suppress(ValueError):
        assert read_key_set(document) == []


# When it is fetched.


async def test_keys_are_fetched_when_the_first_token_comes_and_then_kept(endpoint: Endpoint) -> None:
    reader = Reader(endpoint.url)
    assert endpoint.hits == 0
    for moved_s in (0, 1, REFRESH_INTERVAL_S, 60, LIFETIME_S - 1):
        reader.now_s = NOW_S + moved_s
        assert await reader.answer(signed()) == LET_IN
        assert await reader.answer(signed("rsa", "attacker")) == BAD_SIGNATURE
    assert endpoint.hits == 1


async def test_an_unknown_key_id_has_the_set_fetched_again_but_not_within_the_refresh_interval(
    endpoint: Endpoint,
) -> None:
    reader = Reader(endpoint.url)
    assert await reader.answer(signed()) == LET_IN
    expected = [(0, 1), (5, 1), (9.999, 1), (10, 2), (10, 2), (19.999, 2), (20, 3), (500, 4), (509, 4)]
    for moved_s, hits in expected:
        reader.now_s = NOW_S + moved_s
        assert await reader.answer(signed(kid=f"made up at {moved_s}")) == NO_KEY
        assert endpoint.hits == hits, moved_s
        assert await reader.answer(signed()) == LET_IN


async def test_a_thousand_made_up_key_ids_cost_one_fetch(endpoint: Endpoint) -> None:
    reader = Reader(endpoint.url)
    text = [signed(kid=f"{number}") for number in range(20)]
    answers = await asyncio.gather(*(reader.answer(each) for each in text * 50))
    assert (set(answers), endpoint.hits) == ({NO_KEY}, 1)


async def test_a_new_key_is_found_and_the_old_one_forgotten_once_the_refresh_interval_is_over(
    endpoint: Endpoint,
) -> None:
    reader = Reader(endpoint.url)
    old, new = signed("rsa", kid="rsa"), signed("rsa", "second", kid="second")
    assert await reader.answer(old) == LET_IN
    endpoint.document = key_set(jwk("rsa", "second", kid="second"))
    reader.now_s += REFRESH_INTERVAL_S - 1
    assert await reader.answer(new) == NO_KEY
    reader.now_s += 1
    assert await reader.answer(new) == LET_IN
    assert await reader.answer(old) == NO_KEY
    assert (endpoint.hits, reader.reports) == (2, [])


async def test_a_key_that_was_taken_away_is_in_force_until_the_lifetime_is_over(endpoint: Endpoint) -> None:
    reader = Reader(endpoint.url)
    assert await reader.answer(signed()) == LET_IN
    endpoint.document = key_set()
    reader.now_s += LIFETIME_S - 1
    assert (await reader.answer(signed()), endpoint.hits) == (LET_IN, 1)
    reader.now_s += 1
    assert (await reader.answer(signed()), endpoint.hits) == (NO_KEY, 2)


async def test_an_empty_key_set_is_an_answer_and_not_a_failure(endpoint: Endpoint) -> None:
    endpoint.document = key_set()
    reader = Reader(endpoint.url)
    assert (await reader.answer(signed()), reader.reports) == (NO_KEY, [])


async def test_keys_stay_in_force_beyond_their_lifetime_while_the_endpoint_fails(endpoint: Endpoint) -> None:
    reader = Reader(endpoint.url)
    assert await reader.answer(signed()) == LET_IN
    endpoint.status = 503
    for moved_s, hits in ((0, 2), (9, 2), (10, 3), (19, 3), (100_000, 4)):
        reader.now_s = NOW_S + LIFETIME_S + moved_s
        assert await reader.answer(signed()) == LET_IN
        assert await reader.answer(signed(kid="unknown")) == NO_KEY
        assert await reader.answer(signed("rsa", "attacker")) == BAD_SIGNATURE
        assert (endpoint.hits, len(reader.reports)) == (hits, hits - 1)
    endpoint.status, endpoint.document = 200, key_set(jwk("rsa", "second", kid="second"))
    reader.now_s += REFRESH_INTERVAL_S
    assert await reader.answer(signed("rsa", "second", kid="second")) == LET_IN
    assert await reader.answer(signed()) == NO_KEY


# One fetch at a time.


async def test_a_hundred_tokens_at_once_make_one_fetch(endpoint: Endpoint) -> None:
    reader = Reader(endpoint.url)
    endpoint.gate.clear()
    users = [f"user {number}" for number in range(100)]
    asking = [asyncio.create_task(reader.answer(signed(user=user))) for user in users]
    await until(lambda: endpoint.hits > 0, "the fetch")
    await asyncio.sleep(0)
    assert not any(each.done() for each in asking)
    endpoint.gate.set()
    assert (await asyncio.gather(*asking), endpoint.hits) == (users, 1)


@pytest.mark.parametrize("who", [[0], [1], [2], [0, 1], [1, 2], [0, 2]], ids=str)
async def test_one_who_no_longer_waits_harms_no_other(endpoint: Endpoint, who: list[int]) -> None:
    reader = Reader(endpoint.url)
    endpoint.gate.clear()
    asking = [asyncio.create_task(reader.answer(signed())) for _ in range(3)]
    await until(lambda: endpoint.hits > 0, "the fetch")
    for number in who:
        asking[number].cancel()
    endpoint.gate.set()
    answers = await asyncio.gather(*asking, return_exceptions=True)
    for number, answer in enumerate(answers):
        assert isinstance(answer, asyncio.CancelledError) if number in who else answer == LET_IN
    assert endpoint.hits == 1


async def test_a_fetch_that_nobody_waits_for_any_more_is_of_use_to_the_next(endpoint: Endpoint) -> None:
    reader = Reader(endpoint.url)
    endpoint.gate.clear()
    asking = [asyncio.create_task(reader.answer(signed())) for _ in range(3)]
    await until(lambda: endpoint.hits > 0, "the fetch")
    for each in asking:
        each.cancel()
    await asyncio.gather(*asking, return_exceptions=True)
    endpoint.gate.set()
    assert (await reader.answer(signed()), endpoint.hits) == (LET_IN, 1)


async def test_the_loop_goes_on_while_a_fetch_runs(endpoint: Endpoint) -> None:
    reader = Reader(endpoint.url)
    endpoint.gate.clear()
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    asking = asyncio.create_task(reader.answer(signed()))
    await until(lambda: endpoint.hits > 0, "the fetch")
    before = turns
    await until(lambda: turns > before + 1000, "a thousand turns of the loop")
    assert not asking.done()
    endpoint.gate.set()
    assert await asking == LET_IN
    counting.cancel()


async def test_tokens_of_known_keys_do_not_wait_for_a_fetch(endpoint: Endpoint) -> None:
    reader = Reader(endpoint.url)
    assert await reader.answer(signed()) == LET_IN
    endpoint.gate.clear()
    reader.now_s += REFRESH_INTERVAL_S
    asking = asyncio.create_task(reader.answer(signed(kid="unknown")))
    await until(lambda: endpoint.hits > 1, "the second fetch")
    assert await reader.answer(signed()) == LET_IN
    assert not asking.done()
    endpoint.gate.set()
    assert await asking == NO_KEY


# Endpoints that fail: nothing is known, so the answer is a temporary error and never "invalid token".

HTML = b"<html><body>Welcome to the portal. Please log in.</body></html>"


def cut_short(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b'HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n{"keys":[')


def hang_up(handler: BaseHTTPRequestHandler) -> None:
    handler.connection.shutdown(socket.SHUT_RDWR)


def speak_another_protocol(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"220 mail.example ESMTP ready\r\n")


def send_bad_chunks(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n")


def send_endless_headers(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n" + b"".join(b"X-%d: y\r\n" % each for each in range(500)) + b"\r\n")


def send_a_long_header(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n")


FAILING: dict[str, dict[str, Any]] = {
    **{f"status {status}": {"status": status} for status in (400, 401, 403, 404, 410, 429, 500, 502, 503)},
    "no content": {"status": 204, "document": b""},
    "nothing": {"document": b""},
    "a page": {"document": HTML},
    "not UTF-8": {"document": b'{"keys":[],"\xff":1}'},
    "half a document": {"document": key_set(jwk("rsa"))[:-3]},
    "two documents": {"document": key_set(jwk("rsa")) * 2},
    "a list": {"document": json.dumps([jwk("rsa")]).encode()},
    "one key": {"document": json.dumps(jwk("rsa")).encode()},
    "no keys": {"document": b"{}"},
    "keys that are no list": {"document": b'{"keys":{}}'},
    "null": {"document": b"null"},
    "nested deeply": {"document": b'{"keys":' + b"[" * 100_000},
    "too large by one byte": {"document": key_set(jwk("rsa")).ljust(MAX_DOCUMENT_BYTES + 1)},
    "far too large": {"document": key_set(jwk("rsa")).ljust(4 * MAX_DOCUMENT_BYTES)},
    "cut short": {"raw": cut_short},
    "a connection that is closed": {"raw": hang_up},
    "another protocol": {"raw": speak_another_protocol},
    "bad chunks": {"raw": send_bad_chunks},
    "endless headers": {"raw": send_endless_headers},
    "a long header": {"raw": send_a_long_header},
}


@pytest.mark.parametrize("fault", FAILING.values(), ids=FAILING)
async def test_an_endpoint_that_fails_means_try_again_later_and_is_reported_once_an_interval(
    endpoint: Endpoint, fault: dict[str, Any]
) -> None:
    good = dict(vars(endpoint))
    vars(endpoint).update(fault)
    reader = Reader(endpoint.url)
    for _ in range(3):
        assert await reader.answer(signed()) == UNAVAILABLE
    assert (endpoint.hits, len(reader.reports), "" in reader.reports) == (1, 1, False)
    vars(endpoint).update({name: good[name] for name in fault})
    reader.now_s += REFRESH_INTERVAL_S
    assert await reader.answer(signed()) == LET_IN


async def test_a_document_as_large_as_may_be_is_read(endpoint: Endpoint) -> None:
    endpoint.document = key_set(jwk("rsa")).ljust(MAX_DOCUMENT_BYTES)
    assert await Reader(endpoint.url).answer(signed()) == LET_IN


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("target", ["/moved", "{url}", "https://127.0.0.1:1/", "file:///etc/hostname", "", "//"])
async def test_a_redirect_is_not_followed(endpoint: Endpoint, status: int, target: str) -> None:
    endpoint.status, endpoint.headers = status, {"Location": target.format(url=endpoint.url)}
    reader = Reader(endpoint.url)
    assert await reader.answer(signed()) == UNAVAILABLE
    assert (endpoint.paths, len(reader.reports)) == (["/keys"], 1)


async def test_an_endpoint_that_says_nothing_is_given_up(endpoint: Endpoint) -> None:
    endpoint.gate.clear()
    reader = Reader(endpoint.url, jwks_timeout_s=0.05)
    assert await reader.answer(signed()) == UNAVAILABLE
    assert reader.reports == ["timed out"]


async def test_an_endpoint_that_dribbles_is_given_up_once_its_time_is_over(endpoint: Endpoint) -> None:
    """`jwks_timeout` is "how long the endpoint may take to answer", not how long between two bytes."""

    def dribble(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while not endpoint.ended.wait(0.01):
            handler.wfile.write(b" ")

    endpoint.raw = dribble
    reader = Reader(endpoint.url, jwks_timeout_s=0.1)
    asking = asyncio.create_task(reader.answer(signed()))
    done, _ = await asyncio.wait({asking}, timeout=1.5)
    endpoint.ended.set()
    assert await asking == UNAVAILABLE
    assert done, "fifteen times the time-out was not enough to give the endpoint up"


async def test_a_certificate_of_an_unknown_authority_is_not_trusted() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    endpoint = Endpoint(context=context)
    reader = Reader(endpoint.url)
    try:
        assert await reader.answer(signed()) == UNAVAILABLE
        assert "CERTIFICATE_VERIFY_FAILED" in reader.reports[0]
        assert endpoint.hits == 0
    finally:
        endpoint.close()


@pytest.mark.parametrize("url", ["http://[", "http://127.0.0.1:99999/", "http://a b/", "http://é/", "http://\0/"])
async def test_an_address_that_can_not_work_is_reported_and_breaks_nothing(url: str) -> None:
    reader = Reader(url)
    assert (await reader.answer(signed()), len(reader.reports)) == (UNAVAILABLE, 1)


async def test_a_fetch_returns_the_document_and_fails_with_an_os_error(endpoint: Endpoint) -> None:
    fetch = http_fetch(endpoint.url, timeout_s=5)
    assert await fetch() == endpoint.document
    endpoint.status = 500
    with pytest.raises(OSError, match="500"):
        await fetch()


async def test_without_keys_a_token_of_a_configured_key_is_still_read(silent_endpoint: Endpoint) -> None:
    reader = Reader(silent_endpoint.url, hmac_secret_key=SECRET)
    assert await reader.answer(token({"sub": "42"}, SECRET)) == LET_IN
    assert await reader.answer(signed()) == UNAVAILABLE
    assert await reader.answer("no token") == "3500 malformed"
    assert await reader.answer(token({"sub": "42"}, "", "none")) == "3500 algorithm"


# Through a node's conversations.


async def ask(place: House, client: Any, message: dict[str, Any]) -> list[Any]:
    """Send *message* and return what came, the Close last; a fetch may be on the way."""
    client.send(message)
    await place.settle()
    written = client.transport.writes
    before = client.transport._taken  # noqa: SLF001 - the conversation has no other sign of having answered
    await until(lambda: len(written) > before or client.closing is not None, f"an answer to {message}")
    return [*client.take_values(), *([client.closing] if client.closing else [])]


INTERNAL = {"code": 100, "message": "internal server error", "temporary": True}


@pytest.fixture
async def waiting_house(silent_endpoint: Endpoint) -> AsyncIterator[House]:
    """A house whose endpoint is down, and which knows a secret too."""
    table = {"client": {"token": {"jwks_public_endpoint": silent_endpoint.url}}}
    async with house(table) as place:
        yield place


async def test_while_the_endpoint_is_down_connecting_is_a_temporary_error(waiting_house: House) -> None:
    client = waiting_house.open()
    answers = await ask(waiting_house, client, {"id": 1, "connect": {"token": signed()}})
    assert answers == [{"id": 1, "error": INTERNAL}]
    assert waiting_house.services.counts.token_failures == {"keys_unavailable": 1}


async def test_while_the_endpoint_is_down_subscribing_is_a_temporary_error(waiting_house: House) -> None:
    client = await waiting_house.connect()
    text = token({"sub": "42", "channel": "closed:x"}, private("rsa"), "RS256")
    answers = await ask(waiting_house, client, {"id": 2, "subscribe": {"channel": "closed:x", "token": text}})
    assert answers == [{"id": 2, "error": INTERNAL}]


async def test_while_the_endpoint_is_down_a_refresh_does_not_end_the_connection_for_good(waiting_house: House) -> None:
    """4.1: after a temporary error SDKs refresh again; 3500 would be the end, of a client that did nothing wrong."""
    client = await waiting_house.connect()
    answers = await ask(waiting_house, client, {"id": 2, "refresh": {"token": signed()}})
    assert answers == [{"id": 2, "error": INTERNAL}]


async def test_while_the_endpoint_is_down_a_sub_refresh_does_not_end_the_connection_for_good(
    waiting_house: House,
) -> None:
    client = await waiting_house.connect("42", "open:x")
    text = token({"sub": "42", "channel": "open:x"}, private("rsa"), "RS256")
    answers = await ask(waiting_house, client, {"id": 9, "sub_refresh": {"channel": "open:x", "token": text}})
    assert answers == [{"id": 9, "error": INTERNAL}]


async def test_while_the_endpoint_is_down_a_plain_client_is_told_to_try_again_later(waiting_house: House) -> None:
    """RFC 6455 1013; 1008 "token invalid" would say of a token that may be good that it is bad."""
    client = waiting_house.open_plain()
    [(code, reason)] = await ask(waiting_house, client, {"token": signed()})
    assert (code, reason != "token invalid") == (1013, True)


async def test_a_client_connects_once_the_endpoint_that_was_down_at_the_start_is_up(silent_endpoint: Endpoint) -> None:
    table = {"client": {"token": {"jwks_public_endpoint": silent_endpoint.url}}}
    async with running_node(table) as node:
        request = json.dumps({"id": 1, "connect": {"token": signed()}})

        async def knock() -> Any:
            async with asyncio.timeout(PATIENCE_S), connect(node.client_url) as socket:
                await socket.send(request)
                return json.loads(await socket.recv())

        assert await knock() == {"id": 1, "error": INTERNAL}
        assert await knock() == {"id": 1, "error": INTERNAL}
        silent_endpoint.come_up()
        assert await knock() == {"id": 1, "error": INTERNAL}, "it asked again within the refresh interval"
        assert silent_endpoint.hits == 0
        node.clock.ahead_s += REFRESH_INTERVAL_S
        reply = await knock()
        assert set(reply) == {"id", "connect"}, reply
        reports = [event for event in node.events if event["event"] == "key set not fetched"]
        assert [event["level"] for event in reports] == ["warning"]
        assert node.node.counts.key_set_failures == 1
        assert node.node.counts.token_failures == {"keys_unavailable": 3}


async def test_a_node_that_stops_does_not_wait_for_a_fetch(endpoint: Endpoint) -> None:
    endpoint.gate.clear()
    table = {"client": {"token": {"jwks_public_endpoint": endpoint.url}}, "shutdown": {"timeout": 5}}
    async with running_node(table) as node, connect(node.client_url) as socket:
        await socket.send(json.dumps({"id": 1, "connect": {"token": signed()}}))
        await until(lambda: endpoint.hits > 0, "the fetch")
        node.node.stop()
        async with asyncio.timeout(PATIENCE_S):
            await socket.wait_closed()
        assert socket.close_code == codes.SHUTDOWN.code
    endpoint.gate.set()
