"""Hostile tokens at every door: a table of them, each with the answer that protocol.md documents.

Each token is shown at connect, refresh, subscribe, sub_refresh and to the plain protocol, in whole conversations. It
must be refused there with the documented answer (5.2, 5.3, 3.7) and without an exception in the log, while a good token
beside it is let in. The end of the run counts the answers.
"""
# ruff: noqa: RUF001 - letters that only look like others are among what is tested

import asyncio
import base64
import http.server
import json
import threading
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from functools import cache, partial
from typing import Any, Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.support.conversations import STARTED_AT_UNIX_S, Client, House, house
from tests.support.tokens import (
    ALGORITHMS,
    CURVES,
    as_json,
    b64,
    ecdsa_signature,
    jwk,
    private,
    public_der,
    public_pem,
    sign,
    signed_text,
    token,
    unb64,
)
from tests.support.waiting import until

Claims = dict[str, Any]
Make = Callable[[Claims], str]

NOW: Final = int(STARTED_AT_UNIX_S)
SECRET: Final = "the secret of these tests, of more than 64 bytes, so that HS512 is content too"
PREVIOUS: Final = "the secret before it, which is just as long and good for a while after rotation"
MAX_LENGTH: Final = 32768
CHANNEL: Final = "closed:x"
ATTACKER: Final = private("rsa", "attacker")


# Answers.


class Verdict(Enum):
    """What is wrong with a token, as protocol.md tells it apart."""

    INVALID = "invalid"
    EXPIRED = "expired"
    PASSED = "expire_at in the past"
    UNDECODABLE = "bad base64 in b64info"
    ANONYMOUS = "anonymous, where that is refused"
    MISMATCH = "of another channel, user or client"


def error(code: int, message: str, **more: bool) -> Claims:
    return {"code": code, "message": message, **more}


INTERNAL, DENIED = error(100, "internal server error", temporary=True), error(103, "permission denied")
EXPIRED, PASSED = error(109, "token expired"), error(110, "expired")
INVALID_TOKEN, CONNECTION_EXPIRED = (3500, "invalid token"), (3005, "connection expired")
PLAIN_INVALID, PLAIN_EXPIRED = (1008, "token invalid"), (1008, "token expired")

ANSWERS: Final[dict[Verdict, dict[str, Any]]] = {
    Verdict.INVALID: {
        "connect": INVALID_TOKEN,
        "refresh": INVALID_TOKEN,
        "subscribe": DENIED,
        "sub_refresh": INVALID_TOKEN,
        "plain": PLAIN_INVALID,
    },
    Verdict.EXPIRED: {
        "connect": EXPIRED,
        "refresh": CONNECTION_EXPIRED,
        "subscribe": EXPIRED,
        "sub_refresh": EXPIRED,
        "plain": PLAIN_EXPIRED,
    },
    Verdict.PASSED: {
        "connect": PASSED,
        "refresh": CONNECTION_EXPIRED,
        "subscribe": PASSED,
        "sub_refresh": PASSED,
        "plain": PLAIN_EXPIRED,
    },
    Verdict.UNDECODABLE: {
        "connect": INTERNAL,
        "refresh": INVALID_TOKEN,
        "subscribe": INTERNAL,
        "sub_refresh": INTERNAL,
        "plain": PLAIN_INVALID,
    },
    Verdict.ANONYMOUS: {
        "connect": (3507, "permission denied"),
        "refresh": INVALID_TOKEN,
        "subscribe": INVALID_TOKEN,
        "sub_refresh": INVALID_TOKEN,
        "plain": (1008, "permission denied"),
    },
    Verdict.MISMATCH: {
        "refresh": INVALID_TOKEN,
        "subscribe": INVALID_TOKEN,
        "sub_refresh": INVALID_TOKEN,
    },
}
CONNECTION: Final = ("connect", "refresh", "plain")
SUBSCRIPTION: Final = ("subscribe", "sub_refresh")
EVERYWHERE: Final = CONNECTION + SUBSCRIPTION


# Keys and settings: each realm is a `client.token` table, and the good claims there.


def keys(kind: str) -> dict[str, str]:
    name = {"rsa": "rsa", "ed25519": "ed25519"}.get(kind, "ecdsa")
    return {f"{name}_public_key": public_pem(private(kind))}


PUBLIC_KEYS: Final = {**keys("rsa"), **keys("p256"), **keys("ed25519")}
REALMS: Final[dict[str, dict[str, Any]]] = {
    "all keys": {"hmac_secret_key": SECRET, "hmac_previous_secret_key": PREVIOUS, **PUBLIC_KEYS},
    "public keys": {"hmac_secret_key": "", **PUBLIC_KEYS},
    "secret": {"hmac_secret_key": SECRET},
    "key set": {"hmac_secret_key": ""},
    "exact names": {"hmac_secret_key": SECRET, "audience": "me", "issuer": "them"},
    "patterns": {"hmac_secret_key": SECRET, "audience_regex": r"https://[a-z]+\.example", "issuer_regex": "iss-[0-9]+"},
    "leeway": {"hmac_secret_key": SECRET, "leeway": 10},
    "no anonymous": {"hmac_secret_key": SECRET},
    **{kind: {"hmac_secret_key": "", **keys(kind)} for kind in ALGORITHMS},
}
GOOD_CLAIMS: Final[dict[str, Claims]] = {
    "exact names": {"aud": "me", "iss": "them"},
    "patterns": {"aud": "https://a.example", "iss": "iss-1"},
}


def honest(claims: Any, algorithm: str = "HS256", **parts: Any) -> str:
    """Return a token that the issuer has signed."""
    kind = next((kind for kind, algorithms in ALGORITHMS.items() if algorithm in algorithms), "")
    return token(claims, private(kind) if kind else SECRET, algorithm, **parts)


@dataclass(frozen=True)
class Case:
    """A hostile token: *make* builds it over the claims that would be good."""

    group: str
    name: str
    make: Make
    verdict: Verdict = Verdict.INVALID
    realm: str = "all keys"
    doors: tuple[str, ...] = EVERYWHERE
    control: str = "HS256"

    def __str__(self) -> str:
        return f"{self.group}: {self.name}".encode("unicode_escape").decode()[:70]


CASES: list[Case] = []


# Makers.


def signed_by(key: Any, algorithm: str = "HS256", header: Claims | None = None) -> Make:
    """Tokens of good claims by any key."""
    return lambda claims: token(claims, key, algorithm, header=header)


def headed(header: Any, algorithm: str = "HS256") -> Make:
    """Tokens of the issuer with a header of ours."""
    return lambda claims: honest(claims, algorithm, header=header)


def claiming(**claimed: Any) -> Make:
    """Tokens of the issuer with claims of ours laid over the good ones."""
    return lambda claims: honest(claims | claimed)


def ending(text: str) -> Make:
    """Tokens of the issuer whose claims end in the JSON members *text*."""
    return lambda claims: honest(f"{json.dumps(claims)[:-1]},{text}}}")


def of_text(text: str | bytes) -> Make:
    """Tokens of the issuer with *text* for claims."""
    return lambda _: honest(text)


def without(name: str, header: Claims | None = None) -> Make:
    """Tokens of the issuer without the claim *name*."""
    return lambda claims: honest({each: claims[each] for each in claims if each != name}, header=header)


def resigned(change: Callable[[bytes], bytes], algorithm: str = "HS256") -> Make:
    """Tokens of the issuer with a changed signature."""

    def make(claims: Claims) -> str:
        signed, _, signature = honest(claims, algorithm).rpartition(".")
        return f"{signed}.{b64(change(unb64(signature)))}"

    return make


def unsigned(header: Claims | bytes, signature: bytes | None = b"") -> Make:
    """Tokens of any header, with *signature*; signed with the secret in spite of it if that is `None`."""

    def make(claims: Claims) -> str:
        text = f"{b64(as_json(header))}.{b64(as_json(claims))}"
        return signed_text(text, SECRET) if signature is None else f"{text}.{b64(signature)}"

    return make


def literally(text: str) -> Make:
    """*text* itself."""
    return lambda _: text


def add(group: str, cases: dict[str, Make], verdict: Verdict = Verdict.INVALID, **options: Any) -> None:
    CASES.extend(Case(group, name, make, verdict, **options) for name, make in cases.items())


# alg none, in all spellings.

NONES: Final[list[Any]] = [
    *("none", "None", "NONE", "nOnE", "none ", " none", "\tnone", "none\n", "none\0", "\0none", "nоnе", "ｎｏｎｅ"),
    *("n\u200bone", "no\u0301ne", "null", "", "HS256,none", "none,HS256", "none/HS256"),
    *(None, False, True, 0, [], ["none"], ["HS256"], {}, {"none": 1}),
]
for _none in NONES:
    for _how, _signature in {"": b"", " signed": None, " signed with zeros": b"\0" * 32}.items():
        add("alg none", {f"{_none!r}{_how}": unsigned({"alg": _none, "typ": "JWT"}, _signature)})
add(
    "alg none",
    {
        "no alg": headed(b'{"typ":"JWT"}'),
        "no alg, unsigned": unsigned({}),
        "none behind HS256": headed(b'{"alg":"HS256","alg":"none"}'),
        "none behind HS256, unsigned": unsigned(b'{"alg":"HS256","alg":"none"}'),
        "HS256 behind none, unsigned": unsigned(b'{"alg":"none","alg":"HS256"}'),
        "Alg": headed(b'{"Alg":"HS256"}'),
        "Alg none beside alg": unsigned(b'{"Alg":"none","ALG":"none","alg":"HS256"}'),
    },
)

# Algorithms that are not spoken, signed by whoever holds the key.

UNSPOKEN: Final = (
    *("hs256", "Hs256", "HS256 ", " HS256", "HS256\0", "HS256\n", "ＨＳ256", "HS２56", "H\u200bS256", "HS-256", "HS1"),
    *("HS224", "HS257", "HS", "HMAC", "SHA256", "sha256", "MD5", "dir", "A128KW", "A256GCM", "RSA-OAEP", "RSA1_5"),
    *("PBES2-HS256+A128KW", "ECDH-ES", "HS256\u0000none", "../HS256", "__class__", "S256", "RS1", "HS256K", "BLAKE2B"),
)
UNSPOKEN_BY: Final[dict[str, tuple[str, ...]]] = {
    "rsa": ("PS256", "PS384", "PS512", "rs256", "RS256 ", "RSA", "SHA256withRSA"),
    "p256": ("ES256K", "ES521", "es256", "ECDSA", "ES256 "),
    "ed25519": ("eddsa", "EDDSA", "EdDsa", "Ed448", "EdDSA "),
}
add("unspoken algorithm", {repr(name): headed({"alg": name}) for name in UNSPOKEN})
for _kind, _names in UNSPOKEN_BY.items():
    add("unspoken algorithm", {f"{name!r} by {_kind}": signed_by(private(_kind), name) for name in _names})

# Confusion of algorithms: what is public as a secret, and keys of one kind for the algorithms of another.


def public_forms() -> dict[str, bytes]:
    """Return the spellings of the public keys that somebody may try as a secret."""
    forms: dict[str, bytes] = {}
    for kind in ("rsa", "p256", "ed25519"):
        pem, public = public_pem(private(kind)).encode(), private(kind).public_key()
        forms |= {
            f"{kind} PEM": pem,
            f"{kind} PEM without its last line end": pem.rstrip(b"\n"),
            f"{kind} PEM with CRLF": pem.replace(b"\n", b"\r\n"),
            f"{kind} PEM in one line": b"".join(pem.splitlines()),
            f"{kind} PEM without armour": b"".join(pem.splitlines()[1:-1]),
            f"{kind} DER": public_der(private(kind)),
            f"{kind} OpenSSH": public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH),
            f"{kind} JWK": as_json(jwk(kind)),
            f"{kind} JWK without blanks": json.dumps(jwk(kind), separators=(",", ":")).encode(),
        }
        if kind == "rsa":
            modulus = unb64(jwk("rsa")["n"])
            forms |= {
                "rsa PKCS 1 PEM": public.public_bytes(Encoding.PEM, PublicFormat.PKCS1),
                "rsa PKCS 1 DER": public.public_bytes(Encoding.DER, PublicFormat.PKCS1),
                "rsa modulus": modulus,
                "rsa modulus in hex": modulus.hex().encode(),
                "rsa modulus in decimal": str(int.from_bytes(modulus)).encode(),
                "rsa modulus in base64": jwk("rsa")["n"].encode(),
            }
        else:
            forms |= {f"{kind} x": unb64(jwk(kind)["x"]), f"{kind} x in base64": jwk(kind)["x"].encode()}
    point = private("p256").public_key()
    forms["p256 point"] = point.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    forms["p256 compressed point"] = point.public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
    return forms


for _name, _form in public_forms().items():
    _kind = _name.split()[0]
    for _algorithm, _realm in (("HS256", "public keys"), ("HS384", "all keys"), ("HS512", _kind)):
        add(
            "confusion",
            {f"{_name} as {_algorithm}": signed_by(_form, _algorithm)},
            realm=_realm,
            control=ALGORITHMS[_kind][0],
        )

WEAK: Final = ("", "\0", " ", "secret", "your-256-bit-secret", "changeme", "null", "none", "undefined", "0", "{}", "[]")
add(
    "weak secret",
    {
        repr(weak): signed_by(weak)
        for weak in (*WEAK, SECRET + "\n", " " + SECRET, SECRET[:-1], SECRET.upper(), SECRET + PREVIOUS, b64(b"x"))
    },
)
SIGNERS: Final[dict[str, Any]] = {
    "the secret": SECRET,
    **{f"the {kind} key": private(kind) for kind in ("rsa", "p256", "p384", "p521", "ed25519", "ed448", "secp256k1")},
    **{f"an attacker's {kind} key": private(kind, "attacker") for kind in ALGORITHMS},
}
SPOKEN: Final = ("HS256", "RS256", "RS512", "ES256", "ES384", "ES512", "EdDSA")
for _who, _key in SIGNERS.items():
    for _algorithm in SPOKEN:
        _is_honest = _algorithm[:2] == {"the secret": "HS", "the rsa key": "RS"}.get(_who) or (
            _algorithm == {"the p256 key": "ES256", "the ed25519 key": "EdDSA"}.get(_who)
        )
        if not _is_honest:
            add("wrong kind of key", {f"{_algorithm} by {_who}": signed_by(_key, _algorithm)}, control="RS256")
for _kind in ("p256", "p384", "p521"):
    for _algorithm in ("ES256", "ES384", "ES512"):
        if _algorithm not in ALGORITHMS[_kind]:
            _made = {f"{_algorithm} by the {_kind} key alone": signed_by(private(_kind), _algorithm)}
            add("wrong curve", _made, realm=_kind, control=ALGORITHMS[_kind][0])

# Key ids, against a key set whose only keys are known by the ids rsa, p256 and ed25519.

KEY_IDS: Final[list[Any]] = [
    *("../../../../../../dev/null", "/dev/null", "..\\..\\windows\\win.ini", "file:///dev/null", "rsa/../attacker"),
    *(
        "http://127.0.0.1:{port}/kid",
        "//127.0.0.1:{port}/kid",
        "x' OR '1'='1",
        "x' UNION SELECT 'key' --",
        "; ls",
        "|id",
    ),
    *(
        "$(id)",
        "`id`",
        "${jndi:ldap://127.0.0.1:{port}/kid}",
        "{{7*7}}",
        "%00",
        "%s%s%n",
        "\0",
        "rsa\0",
        "rsa\0.pem",
    ),
    *("rsa ", " rsa", "RSA", "rsa\n", "ｒｓａ", "r\u200bsa", "rs\u0430", "*", "?", ".", "__proto__", "constructor"),
    *("kid", "0", "-1", "rsa,p256", "é" * 500, "k" * 20_000, "\ud800", "\U0001f511", "{}", "[]", "null"),
]
WRONG_KEY_IDS: Final[list[Any]] = [None, 0, 1, 5.5, True, False, [], ["rsa"], {}, {"kid": "rsa"}, [[["rsa"]]]]
KEY_SET: Final[Any] = {"realm": "key set", "control": "RS256"}


def ported(text: str) -> str:
    """Put in the port of the issuer's server, which is the attacker's too."""
    return text.replace("{port}", str(PORTS[0]))


def key_id(kid: str, key: Any = None, algorithm: str = "RS256") -> Make:
    """Tokens of any key, the issuer's if it is none, with a key id."""
    signer = private("rsa") if key is None else key
    return lambda claims: token(claims, signer, algorithm, header={"kid": ported(kid)})


for _kid in KEY_IDS:
    add("key id", {f"{_kid[:40]!r} by the issuer": key_id(_kid)}, **KEY_SET)
for _kid in (*KEY_IDS[:12], "rsa", "p256", ""):
    add("key id", {f"{_kid!r} by an empty secret": key_id(_kid, b"", "HS256")}, **KEY_SET)
    add("key id", {f"{_kid!r} by an attacker": key_id(_kid, ATTACKER)}, **KEY_SET)
for _kid in WRONG_KEY_IDS:
    add("key id", {f"{_kid!r} for RS256": headed({"kid": _kid}, "RS256")}, **KEY_SET)
    add("key id", {f"{_kid!r} for HS256": headed({"kid": _kid})})
add(
    "key id",
    {
        "of another key": key_id("p256"),
        "of another key and its algorithm": key_id("p256", algorithm="ES256"),
        "twice": headed(b'{"alg":"RS256","kid":"rsa","kid":"x"}', "RS256"),
    },
    **KEY_SET,
)

# Keys that the token brings along.


@cache
def attackers_certificate() -> str:
    """Return what the header `x5c` holds: a certificate, by nobody, for the attacker's key."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "issuer")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, ATTACKER.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now).not_valid_after(now + timedelta(days=1))
    return base64.b64encode(builder.sign(ATTACKER, hashes.SHA256()).public_bytes(Encoding.DER)).decode()


BROUGHT: Final[dict[str, Callable[[str], Claims]]] = {
    "jwk": lambda kind: {"jwk": jwk(kind, "attacker")},
    "jwk of the same key id": lambda kind: {"jwk": jwk(kind, "attacker"), "kid": kind},
    "jwk with its private part": lambda kind: {"jwk": jwk(kind, "attacker", d="AQAB")},
    "jku": lambda _: {"jku": ported("http://127.0.0.1:{port}/jku")},
    "jku of the same key id": lambda kind: {"jku": ported("http://127.0.0.1:{port}/jku"), "kid": kind},
    "jku beside the key set": lambda kind: {"jku": ported("http://127.0.0.1:{port}/keys/../jku"), "kid": kind},
    "x5u": lambda _: {"x5u": ported("http://127.0.0.1:{port}/x5u")},
    "x5c": lambda _: {"x5c": [attackers_certificate()]},
    "x5t": lambda _: {"x5t": b64(b"x" * 20), "x5t#S256": b64(b"x" * 32)},
    "all of them": lambda kind: {
        "jku": ported("http://127.0.0.1:{port}/jku"),
        "x5u": ported("http://127.0.0.1:{port}/x5u"),
        "jwk": jwk(kind, "attacker"),
        "x5c": [attackers_certificate()],
    },
}


def bringing(bring: Callable[[str], Claims], kind: str) -> Make:
    """Tokens of the attacker that bring the key to check them with."""
    return lambda claims: token(claims, private(kind, "attacker"), ALGORITHMS[kind][0], header=bring(kind))


for _name, _bring in BROUGHT.items():
    for _kind in ("rsa", "p256", "ed25519"):
        for _realm in ("key set", "public keys"):
            _made = {f"{_name}, {_kind}, {_realm}": bringing(_bring, _kind)}
            add("a key of its own", _made, realm=_realm, control=ALGORITHMS[_kind][0])
OCT: Final = {"kty": "oct", "k": b64(b"attacker")}
add(
    "a key of its own",
    {
        "jwk with a secret": signed_by(b"attacker", header={"jwk": OCT}),
        "k": signed_by(b"attacker", header={"k": b64(b"attacker")}),
        "typ at+jwt": signed_by(b"attacker", header={"typ": "at+jwt", "jwk": OCT}),
        "jwk in the claims": lambda claims: token(claims | {"jwk": OCT, "cnf": {"jwk": OCT}}, b"attacker"),
    },
)

# Headers that change how a token is read, signed by the issuer.

CRITICAL: Final[list[Any]] = [
    *([], ["exp"], ["b64"], ["alg"], ["kid"], ["x"], ["", "b64"], [5], [None], [["b64"]], ["http://example.invalid"]),
    *(None, "", "b64", "exp", 0, 5, True, False, {}, {"b64": 1}, ["b64", "exp"], ["B64"], ["zip"]),
]
for _critical in CRITICAL:
    for _more in ({}, {"b64": False}):
        add("crit", {f"{_critical!r} {_more or ''}": headed({"crit": _critical, **_more})})
add(
    "header",
    {
        "b64 false": headed({"b64": False}),
        "b64 false, detached": lambda claims: detached(claims, {"b64": False, "crit": ["b64"]}),
        "b64 false, detached, not critical": lambda claims: detached(claims, {"b64": False}),
        "b64 false, not encoded": lambda claims: signed_text(
            f"{b64(as_json({'alg': 'HS256', 'b64': False, 'crit': ['b64']}))}.{as_json(claims).decode()}", SECRET
        ),
        "zip": lambda claims: honest(zlib.compress(as_json(claims)), header={"zip": "DEF"}),
        "zip, raw": lambda claims: honest(zlib.compress(as_json(claims), wbits=-15), header={"zip": "DEF"}),
        "a bomb": lambda _: honest(zlib.compress(b" " * 10_000_000), header={"zip": "DEF"}),
        "a token within a token": lambda claims: honest(honest(claims), header={"cty": "JWT"}),
        "a token in a token, quoted": lambda claims: honest(json.dumps(honest(claims)), header={"cty": "JWT"}),
        "a token in an attacker's": lambda claims: token(honest(claims), b"attacker", header={"cty": "JWT"}),
        "enc": signed_by(b"attacker", header={"alg": "dir", "enc": "A128GCM"}),
        "typ JWE": signed_by(b"attacker", header={"typ": "JWE", "cty": "JWE"}),
        "typ none": signed_by(b"", header={"typ": "none"}),
    },
)
HEADERS: Final[dict[str, bytes]] = {
    "a list": b'["HS256"]',
    "a text": b'"HS256"',
    "null": b"null",
    "a number": b"1",
    "empty": b"",
    "a blank": b" ",
    "two objects": b'{"alg":"HS256"}{"alg":"HS256"}',
    "half an object": b'{"alg":"HS256"',
    "trailing garbage": b'{"alg":"HS256"}x',
    "a trailing NUL": b'{"alg":"HS256"}\0',
    "not UTF-8": b'{"alg":"HS256","x":"\xff"}',
    "single quotes": b"{'alg':'HS256'}",
    "nested deeply": b'{"alg":"HS256","x":' + b"[" * 12_000,
    "nested deeply and well": b'{"alg":"HS256","x":' + b"[" * 10_000 + b"]" * 10_000 + b"}",
    "nested too deeply to be looked at": b"[" * 30_000,
    "a number of five thousand digits": b'{"alg":"HS256","x":' + b"9" * 5000 + b"}",
}
add("header", {name: headed(text) for name, text in HEADERS.items()})


def detached(claims: Claims, header: Claims) -> str:
    """Sign as RFC 7797 has it, and leave the payload out."""
    head = b64(as_json({"alg": "HS256", **header}))
    return f"{head}..{b64(sign(f'{head}.'.encode() + as_json(claims), SECRET, 'HS256'))}"


# Audience and issuer.

WRONG_NAMES: Final[list[Any]] = [
    *(
        "you",
        "ME",
        "Me",
        "me ",
        " me",
        "me\n",
        "me\0",
        "ｍｅ",
        "m\u0435",
        "m",
        "mee",
        "",
        "me,you",
        "*",
        ".*",
    ),
    *(None, True, False, 0, 1, 5.5, [], ["you"], [""], [None], [["me"]], [["you", ["me"]]], [True], [5], ["ME", "me "]),
    *({}, {"me": 1}, {"0": "me"}, [{"aud": "me"}], "m\u200be", "me\u0301"),
]
for _claim, _name in (("aud", "me"), ("iss", "them")):
    for _value in WRONG_NAMES:
        _shape = json.loads(json.dumps(_value).replace("me", _name)) if _name != "me" else _value
        add(_claim, {repr(_shape): claiming(**{_claim: _shape})}, realm="exact names")
add(
    "iss",
    {
        "a list of the right one": claiming(iss=["them"]),
        "missing": without("iss"),
        "in capitals": lambda claims: honest({("ISS" if name == "iss" else name): claims[name] for name in claims}),
        "in the header": without("iss", {"iss": "them"}),
    },
    realm="exact names",
)
add(
    "aud",
    {
        "missing": without("aud"),
        "in the header": without("aud", {"aud": "me"}),
        "twice": ending('"aud":"you"'),
        "twice, escaped": ending('"\\u0061ud":"you"'),
        "a long list": claiming(aud=["you"] * 3000),
    },
    realm="exact names",
)
WRONG_PATTERNS: Final[dict[str, list[Any]]] = {
    "aud": [
        *("https://a.examples", "http://a.example", "https://A.example", "https://a_example", "https://.example"),
        *("x https://a.example", "https://a.example\n", "\nhttps://a.example", "https://a.example\0"),
        "https://a.b.example",
        *("https://a.example/", "https://a\n.example", "", None, 5, ["x"], [["https://a.example"]], {}, "a" * 20_000),
    ],
    "iss": ["iss-", "iss-1 ", "iss-1\n", "\niss-1", "xiss-1", "iss-1x", "ISS-1", "iss-x", None, 5, ["iss-1"], {}, ""],
}
for _claim, _values in WRONG_PATTERNS.items():
    for _value in _values:
        add(f"{_claim} by pattern", {repr(_value)[:40]: claiming(**{_claim: _value})}, realm="patterns")

# Times.


for _seconds in (NOW, f"{NOW}.0", f"{NOW - 0.001}", NOW - 1, NOW - 3600, 1, 0, "-0", "0.0", -1, "-1e15", -(2**53) + 1):
    add("expired", {f"exp {_seconds}": ending(f'"exp":{_seconds}')}, Verdict.EXPIRED)
for _seconds in (f"{NOW}.001", NOW + 1, NOW + 10**9, 2**53 - 1, f"{NOW + 1}.0", "1e15"):
    add("not yet valid", {f"nbf {_seconds}": ending(f'"nbf":{_seconds}')}, Verdict.EXPIRED)
for _seconds in (NOW, NOW - 1, f"{NOW - 0.5}", 1, -1, "-1e15", "0.5", "1e-9"):
    add("expire_at passed", {f"expire_at {_seconds}": ending(f'"expire_at":{_seconds}')}, Verdict.PASSED)
for _text in (
    f'"exp":{NOW - 10}',
    f'"exp":{NOW - 10.5}',
    f'"exp":{NOW - 11}',
    '"exp":0',
    f'"nbf":{NOW + 11}',
    f'"nbf":{NOW + 10.5}',
    f'"exp":{NOW - 10},"nbf":{NOW + 11}',
    f'"exp":{NOW - 10},"expire_at":{NOW + 60}',
    f'"exp":{NOW - 10},"expire_at":0',
):
    add("expired in spite of leeway", {_text: ending(_text)}, Verdict.EXPIRED, realm="leeway")
add("expire_at has no leeway", {"1 s ago": ending(f'"expire_at":{NOW - 1}')}, Verdict.PASSED, realm="leeway")
GOOD, PAST = NOW + 3600, NOW - 3600
TWICE: Final = {
    "exp twice": f'"exp":{GOOD},"exp":{PAST}',
    "exp twice, escaped": f'"exp":{GOOD},"\\u0065xp":{PAST}',
    "exp in capitals beside it": f'"exp":{PAST},"EXP":{GOOD},"Exp":{GOOD}',
    "exp in wide letters beside it": f'"exp":{PAST},"ｅｘｐ":{GOOD}',
    "exp with a blank beside it": f'"exp":{PAST},"exp ":{GOOD}',
    "exp with a NUL beside it": f'"exp":{PAST},"exp\\u0000":{GOOD}',
    "exp nested beside it": f'"exp":{PAST},"__proto__":{{"exp":{GOOD}}},"claims":{{"exp":{GOOD}}}',
    "exp good, nbf not": f'"exp":{GOOD},"nbf":{GOOD}',
    "nbf twice": f'"nbf":{PAST},"nbf":{GOOD}',
    "exp past, expire_at good": f'"exp":{PAST},"expire_at":{GOOD}',
    "exp past, expire_at never": f'"exp":{PAST},"expire_at":0',
    "exp past, expire_at past": f'"exp":{PAST},"expire_at":{PAST}',
    "exp past, iat in the future": f'"exp":{PAST},"iat":{GOOD}',
}
add("expired", {name: ending(text) for name, text in TWICE.items()}, Verdict.EXPIRED)
add("expire_at passed", {"exp good": ending(f'"exp":{GOOD},"expire_at":{PAST}')}, Verdict.PASSED)
NO_TIMES: Final = (
    *(f'"{GOOD}"', '"soon"', '""', '"1e99"', '"Infinity"', f'"{NOW + 1}\\u0000"', "true", "false", f"[{GOOD}]", "[]"),
    *("{}", f'{{"value":{GOOD}}}', "NaN", "Infinity", "-Infinity", "1e400", "-1e400", "1e300", "9" * 5000, "9" * 400),
    *(str(2**53), str(-(2**53)), str(2**63), str(2**64), '"2099-01-01T00:00:00Z"'),
)
for _claim in ("exp", "nbf", "expire_at"):
    for _text in NO_TIMES:
        add("a time that is none", {f"{_claim} {_text[:30]} ({len(_text)})": ending(f'"{_claim}":{_text}')})
    add("a time that is none", {f"{_claim} twice": ending(f'"{_claim}":{GOOD},"{_claim}":"{GOOD}"')})
add("not yet valid", {"nbf beside no exp": ending(f'"exp":null,"nbf":{GOOD}')}, Verdict.EXPIRED)

# Claims that are no JSON object, or no claims.

NO_CLAIMS: Final[dict[str, bytes]] = {
    **{repr(text): text for text in (b"", b" ", b"null", b"[]", b"5", b'"42"', b"true", b"{", b"}", b"[{}]", b"{}x")},
    "two objects": b'{"sub":"42"}{"sub":"42"}',
    "two lines": b'{"sub":"42"}\n{"sub":"42"}',
    "a trailing comma": b'{"sub":"42",}',
    "single quotes": b"{'sub':'42'}",
    "no quotes": b'{sub:"42"}',
    "a comment": b'{"sub":"42"/**/}',
    "a trailing NUL": b'{"sub":"42"}\0',
    "a raw line end in a text": b'{"sub":"4\n2"}',
    "not UTF-8": b'{"sub":"\xff"}',
    "UTF-8 of a surrogate": b'{"sub":"\xed\xa0\x80"}',
    "half a surrogate pair": b'{"sub":"42","info":"\\ud800"}',
    "half a surrogate pair as a key": b'{"sub":"42","\\udfff":1}',
    "too long a spelling": b'{"sub":"\xc0\xb4\xc0\xb2"}',
    "a bad escape": b'{"sub":"\\x34\\x32"}',
    "a leading zero": b'{"sub":"42","exp":02000000000}',
    "a plus sign": b'{"sub":"42","exp":+2000000000}',
    "hexadecimal": b'{"sub":"42","exp":0x77359400}',
    "URL-encoded": b"sub=42",
    "XML": b"<sub>42</sub>",
    "MessagePack": b"\x81\xa3sub\xa242",
    "lists nested deeply": b'{"sub":"42","info":' + b"[" * 12_000 + b"]" * 12_000 + b"}",
    "objects nested deeply": b'{"sub":"42","info":' + b'{"":' * 4_500 + b"1" + b"}" * 4_500 + b"}",
    "nested deeply and not closed": b'{"sub":"42","info":' + b"[" * 24_000,
    "nested thirty thousand deep": b'{"sub":"42","info":' + b"[" * 30_000 + b"]" * 30_000 + b"}",
    "deep from the start": b"[" * 24_000,
}
add("claims", {name: of_text(text) for name, text in NO_CLAIMS.items()})

# Who it is.

NO_USERS: Final[tuple[Any, ...]] = (42, 42.0, 0, True, False, [], ["42"], {}, {"id": "42"}, [[]], 10**30)
for _user in NO_USERS:
    add("no user", {repr(_user): claiming(sub=_user)})
add("no user", {"twice": ending('"sub":42'), "NaN": ending('"sub":NaN')})
for _user in ("", None):
    add("anonymous", {repr(_user): claiming(sub=_user)}, Verdict.ANONYMOUS, realm="no anonymous")
add(
    "anonymous",
    {"no sub": without("sub")},
    Verdict.ANONYMOUS,
    realm="no anonymous",
)
OTHER_USERS: Final = (
    *(
        "7",
        "42 ",
        " 42",
        "42\n",
        "42\0",
        "4２",
        "４２",
        "4\u200b2",
        "042",
        "42.0",
        "٤٢",
        "admin",
        "*",
        "%",
        "42,7",
        "4\u03012",
    ),
)
for _user in OTHER_USERS:
    add("another user", {repr(_user): claiming(sub=_user)}, Verdict.MISMATCH, doors=("refresh", *SUBSCRIPTION))
OTHER_CHANNELS: Final = (
    *(
        "closed:y",
        "CLOSED:x",
        "closed:x ",
        " closed:x",
        "closed:x\0",
        "closed:x\n",
        "$closed:x",
        "closed:*",
        "*",
        "closed:",
    ),
    *("closed：x", "closed:х", "closed%3Ax", "closed:x#42", "x", ".", "closed:x,closed:y"),
)
for _channel in OTHER_CHANNELS:
    add("another channel", {repr(_channel): claiming(channel=_channel)}, Verdict.MISMATCH, doors=SUBSCRIPTION)
for _client in ("client-0", "CLIENT-1", "client-1 ", "*", 5, True, ["client-1"], {"client": 1}):
    add("another client", {repr(_client): claiming(client=_client)}, Verdict.MISMATCH, doors=SUBSCRIPTION)
_CHANNELS: tuple[Any, ...] = (None, "", 0, 5, True, False, [], [CHANNEL], {}, {CHANNEL: {}})
for _claimed in _CHANNELS:
    _made = {repr(_claimed): claiming(channel=_claimed, channels=[CHANNEL], subs={CHANNEL: {}})}
    add("no channel", _made, doors=SUBSCRIPTION)
_SUBSCRIPTION_CHANNELS: tuple[Any, ...] = ("", CHANNEL, 0, False, [], {}, "x")
for _claimed in _SUBSCRIPTION_CHANNELS:
    add("a subscription token", {repr(_claimed): claiming(channel=_claimed)}, doors=CONNECTION)
add("no channel", {"a connection token": without("channel")}, doors=SUBSCRIPTION)
for _text in (
    *(
        '"channels":"x"',
        '"channels":[1]',
        '"channels":{"x":{}}',
        '"channels":[null]',
        '"channels":[["x"]]',
        '"channels":5',
    ),
    *('"subs":["x"]', '"subs":"x"', '"subs":5', '"subs":true', '"subs":{"x":5}', '"subs":{"x":[]}', '"subs":{"x":"y"}'),
    *('"subs":{"x":{"override":5}}', '"subs":{"x":{"override":{"presence":{"value":1}}}}'),
    *('"subs":{"x":{"b64info":"****"}}', '"subs":{"x":{"b64data":"e30"}}', '"subs":{"x":{"b64data":5}}'),
):
    add("server-side subscriptions", {_text: ending(_text)}, doors=("connect", "refresh"))
for _text in (
    '"override":5',
    '"override":[]',
    '"override":{"presence":true}',
    '"override":{"presence":{"value":"yes"}}',
):
    add("override", {_text: ending(_text)}, doors=SUBSCRIPTION)
for _text in ('"****"', '"e30"', '"e30=\\n"', '"é"', "5", "true", '["e30="]', '{"a":1}', '"bm8ganNvbg=="', '"/w=="'):
    add("b64info", {_text: ending(f'"b64info":{_text}')}, Verdict.UNDECODABLE)
for _text in ('"****"', '"bm8ganNvbg=="', "5"):
    add("b64data", {_text: ending(f'"b64data":{_text}')}, Verdict.UNDECODABLE, doors=SUBSCRIPTION)

# Signatures.

MUTATIONS: Final[dict[str, Callable[[bytes], bytes]]] = {
    "stripped": lambda _: b"",
    "first bit": lambda text: bytes([text[0] ^ 0x80]) + text[1:],
    "last bit": lambda text: text[:-1] + bytes([text[-1] ^ 1]),
    "middle bit": lambda text: text[: len(text) // 2] + bytes([text[len(text) // 2] ^ 8]) + text[len(text) // 2 + 1 :],
    "one byte short": lambda text: text[:-1],
    "one byte short in front": lambda text: text[1:],
    "one byte": lambda text: text[:1],
    "half": lambda text: text[: len(text) // 2],
    "one byte long": lambda text: text + b"\0",
    "one byte long in front": lambda text: b"\0" + text,
    "doubled": lambda text: text * 2,
    "backwards": lambda text: text[::-1],
    "halves swapped": lambda text: text[len(text) // 2 :] + text[: len(text) // 2],
    "zeros": lambda text: b"\0" * len(text),
    "ones": lambda text: b"\xff" * len(text),
    "in hex": lambda text: text.hex().encode(),
    "in base64": lambda text: b64(text).encode(),
}
KEY_KINDS: Final = {"HS256": "secret", "HS384": "secret", "HS512": "secret"} | {
    algorithm: kind for kind, algorithms in ALGORITHMS.items() for algorithm in algorithms
}
for _algorithm, _realm in KEY_KINDS.items():
    for _name, _mutate in MUTATIONS.items():
        add("signature", {f"{_algorithm} {_name}": resigned(_mutate, _algorithm)}, realm=_realm, control=_algorithm)

ORDERS: Final = {
    "p256": 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
    "p384": int("F" * 48 + "C7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973", 16),
    "p521": int("1" + "F" * 65 + "A51868783BF2F966B7FCC0148F709A5D03BB5C9B8899C47AEBB6FB71E91386409", 16),
}
Numbers = tuple[int, int]


def halves(raw: bytes) -> Numbers:
    """Return r and s."""
    return int.from_bytes(raw[: len(raw) // 2]), int.from_bytes(raw[len(raw) // 2 :])


def numbered(kind: str, change: Callable[[int, int], Numbers]) -> Make:
    """Tokens with other numbers r and s in the signature."""
    return resigned(lambda raw: ecdsa_signature(*change(*halves(raw)), CURVES[kind][1]), ALGORITHMS[kind][0])


def fixed(numbers: Numbers) -> Callable[[int, int], Numbers]:
    return lambda _r, _s: numbers


def always(raw: bytes) -> Callable[[bytes], bytes]:
    return lambda _: raw


def as_der(raw: bytes) -> bytes:
    return encode_dss_signature(*halves(raw))


def _plain(number: int, order: int) -> str:
    return str(number) if number < 2 else f"n{number - order:+}"


for _kind, _n in ORDERS.items():
    _only: Any = {"realm": _kind, "control": ALGORITHMS[_kind][0]}
    for _r, _s in ((0, 0), (0, 1), (1, 0), (1, 1), (_n, _n), (_n, 0), (0, _n), (_n - 1, _n - 1), (_n + 1, _n + 1)):
        add("ECDSA", {f"{_kind} {_plain(_r, _n)}, {_plain(_s, _n)}": numbered(_kind, fixed((_r, _s)))}, **_only)
    for _pair in ((0, 0), (1, 1)):
        _der = encode_dss_signature(*_pair)
        add("ECDSA", {f"{_kind} DER of {_pair}": resigned(always(_der), ALGORITHMS[_kind][0])}, **_only)
    add(
        "ECDSA",
        {
            f"{_kind} r = 0": numbered(_kind, lambda _, s: (0, s)),
            f"{_kind} s = 0": numbered(_kind, lambda r, _: (r, 0)),
            f"{_kind} r = n": numbered(_kind, partial(lambda n, _, s: (n, s), _n)),
            f"{_kind} s = n": numbered(_kind, partial(lambda n, r, _: (r, n), _n)),
            f"{_kind} r negated": numbered(_kind, partial(lambda n, r, s: (n - r, s), _n)),
            f"{_kind} both negated": numbered(_kind, partial(lambda n, r, s: (n - r, n - s), _n)),
            f"{_kind} swapped": numbered(_kind, lambda r, s: (s, r)),
            f"{_kind} as DER": resigned(as_der, ALGORITHMS[_kind][0]),
        },
        **_only,
    )
_n = ORDERS["p521"]  # that curve has room for r + n, which names the same point
add("ECDSA", {"p521 r + n": numbered("p521", lambda r, s: (r + _n, s))}, realm="p521", control="ES512")
add("ECDSA", {"p521 s + n": numbered("p521", lambda r, s: (r, s + _n))}, realm="p521", control="ES512")

ED25519_ORDER: Final = 2**252 + 27742317777372353535851937790883648493


def malleated(raw: bytes) -> bytes:
    """RFC 8032 5.1.7: S must be smaller than the order, else there would be a second signature for each."""
    larger = int.from_bytes(raw[32:], "little") + ED25519_ORDER
    return raw[:32] + larger.to_bytes(32, "little")


add(
    "EdDSA",
    {
        "S plus the order": resigned(malleated, "EdDSA"),
        "R of small order, S zero": resigned(lambda _: b"\1" + b"\0" * 63, "EdDSA"),
        "Ed448": signed_by(private("ed448"), "EdDSA"),
        "Ed448 cut to 64 bytes": lambda claims: token(claims, private("ed448"), "EdDSA")[:-67],
        "another key": signed_by(private("ed25519", "attacker"), "EdDSA"),
    },
    realm="ed25519",
    control="EdDSA",
)
MODULUS: Final = private("rsa").public_key().public_numbers().n
add(
    "RSA",
    {
        "PSS signature": lambda claims: signed_otherwise(claims, "PS256", "RS256"),
        "SHA-512 signature": lambda claims: signed_otherwise(claims, "RS512", "RS256"),
        "SHA-256 signature": lambda claims: signed_otherwise(claims, "RS256", "RS384"),
        "another key": signed_by(ATTACKER, "RS256"),
        "1024 bits": signed_by(private("rsa1024"), "RS256"),
        "the number 1": resigned(lambda _: (1).to_bytes(256, "big"), "RS256"),
        "the modulus": resigned(lambda _: MODULUS.to_bytes(256, "big"), "RS256"),
        "the modulus less 1": resigned(lambda _: (MODULUS - 1).to_bytes(256, "big"), "RS256"),
    },
    realm="rsa",
    control="RS256",
)
add(
    "HMAC",
    {
        "HS512 cut to 32 bytes": lambda claims: signed_otherwise(claims, "HS512", "HS256", length=32),
        "HS256 as HS512": lambda claims: signed_otherwise(claims, "HS256", "HS512"),
        "HS512 as HS256": lambda claims: signed_otherwise(claims, "HS512", "HS256"),
    },
)


def signed_otherwise(claims: Claims, signed_as: str, algorithm: str, *, length: int | None = None) -> str:
    """Sign a token of *algorithm* with the issuer's key as another one would."""
    text, _, _ = honest(claims, algorithm).rpartition(".")
    key = private("rsa") if algorithm.startswith("RS") else SECRET
    return f"{text}.{b64(sign(text.encode(), key, signed_as)[:length])}"


# Segments, and what stands between and around them.

OTHER_HEADER: Final = b64(b'{"alg":"HS256"}')


def arranged(arrange: Callable[[str, str, str], str]) -> Make:
    """Tokens of the issuer, taken apart and put together again."""
    return lambda claims: arrange(*honest(claims).split("."))


SEGMENTS: Final[dict[str, Callable[[str, str, str], str]]] = {
    "one": lambda h, _c, _s: h,
    "one, all together": lambda h, c, s: h + c + s,
    "two": lambda h, c, _s: f"{h}.{c}",
    "two, claims and signature": lambda _h, c, s: f"{c}.{s}",
    "three, the first empty": lambda _h, c, s: f".{c}.{s}",
    "three, the second empty": lambda h, _c, s: f"{h}..{s}",
    "three, the third empty": lambda h, c, _s: f"{h}.{c}.",
    "three empty": lambda _h, _c, _s: "..",
    "four": lambda h, c, s: f"{h}.{c}.{s}.{s}",
    "four, the last empty": lambda h, c, s: f"{h}.{c}.{s}.",
    "four, the first empty": lambda h, c, s: f".{h}.{c}.{s}",
    "four, an empty one within": lambda h, c, s: f"{h}..{c}.{s}",
    "five": lambda h, c, s: f"{h}.{c}.{s}.{c}.{s}",
    "five, as JWE": lambda h, c, s: f"{b64(b'{}')}..{h}.{c}.{s}",
    "six": lambda h, c, s: f"{h}.{c}.{s}.{h}.{c}.{s}",
    "only dots": lambda _h, _c, _s: "." * 30_000,
    "header and claims swapped": lambda h, c, s: f"{c}.{h}.{s}",
    "header and claims swapped, signed": lambda h, c, _s: signed_text(f"{c}.{h}", SECRET),
    "claims and signature swapped": lambda h, c, s: f"{h}.{s}.{c}",
    "backwards": lambda h, c, s: f"{s}.{c}.{h}",
    "header twice": lambda h, _c, _s: signed_text(f"{h}.{h}", SECRET) + "x",
    "claims of another token": lambda h, _c, s: f"{h}.{b64(b'{}')}.{s}",
    "header of another token": lambda _h, c, s: f"{OTHER_HEADER}.{c}.{s}",
    "signature of another token": lambda h, c, _s: f"{h}.{c}.{honest({'sub': '7'}).split('.')[2]}",
    "Bearer": lambda h, c, s: f"Bearer {h}.{c}.{s}",
    "quotes": lambda h, c, s: f'"{h}.{c}.{s}"',
    "a list": lambda h, c, s: json.dumps([f"{h}.{c}.{s}"]),
    "JSON serialization": lambda h, c, s: json.dumps({"protected": h, "payload": c, "signature": s}),
    "general JSON serialization": lambda h, c, s: json.dumps(
        {"payload": c, "signatures": [{"protected": h, "signature": s}]}
    ),
    "tilde, as SD-JWT": lambda h, c, s: f"{h}.{c}.{s}~",
    "token twice": lambda h, c, s: f"{h}.{c}.{s}" * 2,
    "percent-encoded dots": lambda h, c, s: f"{h}%2E{c}%2E{s}",
    "wide dots": lambda h, c, s: f"{h}．{c}．{s}",
    "commas": lambda h, c, s: f"{h},{c},{s}",
    "a wide dot and two dots": lambda h, c, s: f"{h}．.{c}.{s}",
    "wide letters": lambda h, c, s: f"{h}.{c}.{''.join(chr(ord(x) + 0xFEE0) for x in s)}",
    "an accent": lambda h, c, s: f"{h}.{c}.{s}\u0301",
    "a byte order mark": lambda h, c, s: f"\ufeff{h}.{c}.{s}",
    "right to left": lambda h, c, s: f"\u202e{h}.{c}.{s}",
    "base64 twice": lambda h, c, s: b64(f"{h}.{c}.{s}".encode()),
    "hex": lambda h, c, s: ".".join(unb64(part).hex() for part in (h, c, s)),
    "not encoded": lambda h, c, s: f"{unb64(h).decode()}.{unb64(c).decode()}.{s}",
}
add("segments", {name: arranged(arrange) for name, arrange in SEGMENTS.items()})
# The plain protocol answers "token missing": a message with half a surrogate pair is not the JSON it asks for.
_doors = tuple(door for door in EVERYWHERE if door != "plain")
add("segments", {"a surrogate": arranged(lambda h, c, s: f"{h}.{c}.{s}\ud800")}, doors=_doors)

# Base64: each segment spelt in another way, and signed by the issuer as it is spelt.

SPELLINGS: Final[dict[str, Callable[[str], str]]] = {
    "a blank in front": lambda text: " " + text,
    "a blank behind": lambda text: text + " ",
    "a line end behind": lambda text: text + "\n",
    "CRLF behind": lambda text: text + "\r\n",
    "a line end within": lambda text: text[:8] + "\n" + text[8:],
    "a tab within": lambda text: text[:8] + "\t" + text[8:],
    "a NUL within": lambda text: text[:8] + "\0" + text[8:],
    "a NUL behind": lambda text: text + "\0",
    "garbage behind": lambda text: text + "!!!!",
    "garbage within": lambda text: text[:8] + "!!!!" + text[8:],
    "letters beyond ASCII": lambda text: text[:8] + "éé" + text[8:],
    "a letter too much": lambda text: text + "A" * ((5 - len(text)) % 4 or 4),
    "one sign of padding too many": lambda text: text + "=" * (-len(text) % 4 + 1),
    "four signs of padding": lambda text: text + "====",
    "padding within": lambda text: text[:8] + "==" + text[8:],
    "padding in front": lambda text: "=" + text,
    "padding, percent-encoded": lambda text: text + "%3D",
    "the standard alphabet": lambda text: text[:4] + "+/+/" + text[4:],
    "the alphabets mixed": lambda text: text[:4] + "-_+/" + text[4:],
}


def other_last_bits(text: str) -> str:
    """Change the bits of the last letter that no byte is made of; a text that has none is spoilt."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    if len(text) % 4 in {2, 3}:
        return text[:-1] + alphabet[alphabet.index(text[-1]) ^ 1]
    return text + "AB"


def spelt(spell: Callable[[str], str], number: int) -> Make:
    """Tokens with one segment spelt in another way, the signature being of what is spelt."""

    def make(claims: Claims) -> str:
        header, payload, signature = honest(claims).split(".")
        if number == 0:
            return signed_text(f"{spell(header)}.{payload}", SECRET)
        return (
            signed_text(f"{header}.{spell(payload)}", SECRET)
            if number == 1
            else f"{header}.{payload}.{spell(signature)}"
        )

    return make


for _name, _spell in (*SPELLINGS.items(), ("other last bits", other_last_bits)):
    for _number, _segment in enumerate(("header", "claims", "signature")):
        add("base64", {f"{_segment}: {_name}": spelt(_spell, _number)})

# Length.

for _length in (MAX_LENGTH + 1, MAX_LENGTH + 2, 40_000, 60_000):
    add("length", {f"{_length}, good otherwise": partial(lambda length, claims: padded(claims, length), _length)})
for _length in (MAX_LENGTH - 1, MAX_LENGTH, MAX_LENGTH + 1, 60_000):
    add("length", {f"{_length} letters": literally("a" * _length)})
    add("length", {f"{_length}, most of it signature": literally(f"e30.e30.{'A' * (_length - 8)}")})
add("length", {repr(text): literally(text) for text in ("a", ".", " ", "\0", "0", "null", "{}")})


def padded(claims: Claims, length: int) -> str:
    """Return a good token of exactly *length* letters, or of one more where base64 has none of that length."""
    low = honest(claims | {"x": ""})
    size = (length - len(low)) * 3 // 4
    for more in range(size - 4, size + 8):
        for header in ({}, {"y": ""}, {"y": "1"}, {"y": "12"}):
            text = honest(claims | {"x": "x" * max(more - len(json.dumps(header)), 0)}, header=header)
            if len(text) == length:
                return text
    raise AssertionError(f"no token has {length} letters")


# Tokens that look odd and are good: what the issuer has signed is what is let in.

ODD: Final[dict[str, Case]] = {}


def let_in(name: str, make: Make, *, realm: str = "all keys") -> None:
    ODD[name] = Case("odd", name, make, realm=realm)


for _algorithm in (*ALGORITHMS["rsa"], "ES256", "EdDSA", "HS256", "HS384", "HS512"):
    let_in(_algorithm, headed({}, _algorithm))
let_in("the previous secret", signed_by(PREVIOUS, "HS512"))
let_in("no typ", headed(b'{"alg":"HS256"}'))
_HEADERS: tuple[Claims, ...] = (
    {"typ": "at+jwt"},
    {"typ": 5},
    {"cty": "text/plain"},
    {"kid": "x"},
    {"jku": "x", "x5u": 5},
    {"x": [[]]},
)
for _header in _HEADERS:
    let_in(f"header {_header}", headed(_header))
let_in("as long as may be", lambda claims: padded(claims, MAX_LENGTH))
let_in("sub twice, the issuer's last word", ending('"sub":"7","sub":"42"'))
for _text in (
    f'"exp":{NOW + 1}',
    f'"exp":{NOW}.5',
    f'"nbf":{NOW}',
    '"exp":null',
    f'"exp":{GOOD},"expire_at":0',
    '"iat":"x"',
):
    let_in(_text, ending(_text))
let_in("leeway of exp", ending(f'"exp":{NOW - 9}'), realm="leeway")
let_in("leeway of nbf", ending(f'"nbf":{NOW + 10}'), realm="leeway")
let_in("one of several audiences", ending('"aud":["you",5,"me"]'), realm="exact names")
let_in("null claims", ending('"info":null,"channels":null,"subs":null,"b64info":null,"meta":null,"override":null'))


# Of the two ECDSA signatures (r, s) and (r, n - s) each is good, and of the same claims.
let_in("s negated", numbered("p256", lambda r, s: (r, ORDERS["p256"] - s)))


# The doors.

PORTS: Final[list[int]] = []
"""The port of the issuer's server, once it runs."""
ASKED: Final[list[str]] = []
"""What was asked of it."""
TALLY: Final[Counter[str]] = Counter()


@pytest.fixture(scope="module", autouse=True)
def issuer() -> Iterator[None]:
    """Serve the issuer's key set at `/keys`; everything else there belongs to the attacker."""
    good = json.dumps({"keys": [jwk(kind) for kind in ("rsa", "p256", "ed25519")]}).encode()
    bad = json.dumps({"keys": [jwk(kind, "attacker") for kind in ("rsa", "p256", "ed25519")]}).encode()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            ASKED.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(good if self.path == "/keys" else bad)

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.01), daemon=True)
    thread.start()
    PORTS.append(server.server_port)
    yield
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module", autouse=True)
def _summary(request: pytest.FixtureRequest) -> None:
    """Have the end of the run say how many tokens got which answer."""

    class Summary:
        def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
            answers = ", ".join(f"{answer}: {count}" for answer, count in sorted(TALLY.items()))
            terminalreporter.write_line(f"hostile tokens: {len(CASES)}, shown {TALLY.total()} times; {answers}")

    request.config.pluginmanager.register(Summary(), "hostile tokens")


def table_of(realm: str) -> dict[str, Any]:
    keys = dict(REALMS[realm])
    if realm == "key set":
        keys["jwks_public_endpoint"] = f"http://127.0.0.1:{PORTS[0]}/keys"
    return {"client": {"token": keys, "disallow_anonymous_connection_tokens": realm == "no anonymous"}}


async def ask(client: Client, message: Any) -> Any:
    """Return the one answer to *message*: a result, an error, or the code and reason of the Close."""
    written = len(client.transport.writes)

    def has_answered() -> bool:
        return client.closing is not None or len(client.transport.writes) > written

    client.send(message)
    for _ in range(30):
        if not has_answered():
            await asyncio.sleep(0)
    await until(has_answered, "an answer")  # a key set may be on its way
    answers = client.take_values()
    if client.closing is not None:
        assert answers == []
        return client.closing
    [answer] = answers
    return answer.get("error", answer)


class Visit:
    """One token at each of the doors, and a good one beside it wherever the door is behind another."""

    def __init__(self, place: House, case: Case) -> None:
        self.place = place
        self.good: Claims = {"sub": "42"} | GOOD_CLAIMS.get(case.realm, {})
        self.control = case.control
        self.make = case.make
        self.sent: list[str] = []

    def hostile(self, **claims: Any) -> str:
        self.sent.append(self.make(self.good | claims))
        return self.sent[-1]

    def honest(self, **claims: Any) -> str:
        kid = KEY_KINDS[self.control]
        return honest(self.good | claims, self.control, header={"kid": kid})

    async def inside(self) -> Client:
        """Return a client that a good token has let in."""
        client = self.place.open()
        answer = await ask(client, {"id": 1, "connect": {"token": self.honest()}})
        assert set(answer) == {"id", "connect"}, f"the good token beside it was refused: {answer}"
        return client

    async def connect(self) -> Any:
        client = self.place.open()
        return await ask(client, {"id": 1, "connect": {"token": self.hostile()}})

    async def plain(self) -> Any:
        client = self.place.open_plain()
        return await ask(client, {"token": self.hostile()})

    async def refresh(self) -> Any:
        return await ask(await self.inside(), {"id": 2, "refresh": {"token": self.hostile()}})

    async def subscribe(self) -> Any:
        client = await self.inside()
        request = {"channel": CHANNEL, "token": self.hostile(channel=CHANNEL)}
        answer = await ask(client, {"id": 2, "subscribe": request})
        if "code" in answer or isinstance(answer, tuple):
            assert client.channels == set()
        return answer

    async def sub_refresh(self) -> Any:
        client = await self.inside()
        request = {"channel": CHANNEL, "token": self.honest(channel=CHANNEL)}
        answer = await ask(client, {"id": 2, "subscribe": request})
        assert answer == {"id": 2, "subscribe": {}}, "the good token beside it was refused"
        request["token"] = self.hostile(channel=CHANNEL)
        return await ask(client, {"id": 3, "sub_refresh": request})


def shown(answer: Any) -> str:
    code, text = answer if isinstance(answer, tuple) else (answer["code"], answer["message"])
    return f"{code} {text}"


@pytest.mark.parametrize("case", CASES, ids=str)
async def test_a_hostile_token_opens_no_door_and_gets_the_documented_answer(case: Case) -> None:
    expected = {door: ANSWERS[case.verdict][door] for door in case.doors}
    async with house(table_of(case.realm)) as place:
        visit = Visit(place, case)
        answers = {door: await getattr(visit, door)() for door in case.doors}
        assert answers == expected
        log = json.dumps(place.events)
        assert not [text for text in visit.sent if len(text) > 40 and text in log], "the token is in the log"
        await visit.inside()
    TALLY.update(shown(answer) for answer in answers.values())


@pytest.mark.parametrize("case", ODD.values(), ids=str)
async def test_an_odd_token_of_the_issuer_opens_every_door(case: Case) -> None:
    async with house(table_of(case.realm)) as place:
        visit = Visit(place, case)
        answers = {door: await getattr(visit, door)() for door in EVERYWHERE}
    assert answers["plain"] == {"status": "authenticated", "user": "42"}
    assert {door: set(answers[door]) - {"id"} for door in EVERYWHERE if door != "plain"} == {
        door: {door} for door in EVERYWHERE if door != "plain"
    }
    TALLY["let in, good in spite of their looks"] += len(answers)


def test_there_are_hundreds_of_hostile_tokens_and_no_two_alike() -> None:
    assert len(CASES) >= 300
    assert len({(case.group, case.name) for case in CASES}) == len(CASES)


def test_no_token_had_anything_fetched_but_the_configured_key_set() -> None:
    assert set(ASKED) <= {"/keys"}
