"""Tokens made by hand: any header, any claims, a signature by any key. Each key is generated once a run.

This is the oracle of the tests of tokens: nothing here comes from the library that the gateway reads them with.
"""

import base64
import hashlib
import hmac
import json
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, padding, rsa, x25519
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

HASHES: Final[dict[str, Callable[[], hashes.HashAlgorithm]]] = {
    "256": hashes.SHA256,
    "384": hashes.SHA384,
    "512": hashes.SHA512,
}
CURVES: Final = {
    "p256": ("P-256", ec.SECP256R1()),
    "p384": ("P-384", ec.SECP384R1()),
    "p521": ("P-521", ec.SECP521R1()),
    "secp256k1": ("secp256k1", ec.SECP256K1()),
    "brainpool": ("BP-256", ec.BrainpoolP256R1()),
}
ALGORITHMS: Final = {
    "rsa": ("RS256", "RS384", "RS512"),
    "p256": ("ES256",),
    "p384": ("ES384",),
    "p521": ("ES512",),
    "ed25519": ("EdDSA",),
}
"""What each kind of public key verifies."""
HMAC: Final = ("HS256", "HS384", "HS512")

Private = Any
"""A private key of `cryptography`, or the text or bytes of a secret."""


def private(kind: str, owner: str = "issuer") -> Private:
    """Return the private key of *kind* (`rsa`, `p256`, `ed25519` …) that *owner* holds."""
    return _generated(kind, owner)


@cache
def _generated(kind: str, owner: str) -> Private:
    del owner
    if kind in CURVES:
        return ec.generate_private_key(CURVES[kind][1])
    match kind:
        case "rsa":
            return rsa.generate_private_key(public_exponent=65537, key_size=2048)
        case "rsa1024":
            return rsa.generate_private_key(public_exponent=65537, key_size=1024)  # noqa: S505 - to be refused
        case "ed25519":
            return ed25519.Ed25519PrivateKey.generate()
        case "ed448":
            return ed448.Ed448PrivateKey.generate()
        case "x25519":
            return x25519.X25519PrivateKey.generate()
        case "dsa":
            return dsa.generate_private_key(key_size=2048)
        case _:
            raise AssertionError(f"no such kind of key: {kind}")


def public_pem(key: Private) -> str:
    """Return the public half in the form that the configuration takes."""
    pem: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return pem.decode()


def public_der(key: Private) -> bytes:
    """Return the same as DER."""
    der: bytes = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return der


def jwk(kind: str, owner: str = "issuer", **members: Any) -> dict[str, Any]:
    """Return the JSON Web Key of a public key, with *members* laid over it; `None` leaves one out."""
    key = private(kind, owner).public_key()
    entry: dict[str, Any]
    if kind in CURVES:
        name, curve = CURVES[kind]
        numbers, size = key.public_numbers(), (curve.key_size + 7) // 8
        entry = {"kty": "EC", "crv": name, "x": integer(numbers.x, size), "y": integer(numbers.y, size)}
    elif kind.startswith("rsa"):
        numbers = key.public_numbers()
        entry = {"kty": "RSA", "n": integer(numbers.n, key.key_size // 8), "e": "AQAB"}
    else:
        x = b64(key.public_bytes(Encoding.Raw, PublicFormat.Raw))
        entry = {"kty": "OKP", "crv": kind.capitalize(), "x": x}
    entry = {"kid": kind, **entry, **members}
    return {name: value for name, value in entry.items() if value is not None}


def integer(value: int, size: int) -> str:
    """Write *value* as a JSON Web Key does (RFC 7518 2, Base64urlUInt)."""
    return b64(value.to_bytes(size, "big"))


def b64(data: bytes) -> str:
    """Write *data* as base64url without padding (RFC 7515 2)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unb64(text: str) -> bytes:
    """Read it back."""
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def as_json(part: Any) -> bytes:
    """Return bytes as they are, a text in UTF-8, and any other value as JSON."""
    if isinstance(part, bytes):
        return part
    return part.encode() if isinstance(part, str) else json.dumps(part).encode()


def sign(signed: bytes, key: Private, algorithm: str) -> bytes:
    """Sign as *algorithm* says if *key* can do that at all, else in the nearest way that it can."""
    size = algorithm[2:5] if algorithm[2:5] in HASHES else "256"
    if isinstance(key, str | bytes):
        return hmac.digest(key.encode() if isinstance(key, str) else key, signed, getattr(hashlib, f"sha{size}"))
    digest = HASHES[size]()
    if isinstance(key, rsa.RSAPrivateKey):
        is_pss = algorithm.startswith("PS")
        scheme = padding.PSS(padding.MGF1(digest), digest.digest_size) if is_pss else padding.PKCS1v15()
        return key.sign(signed, scheme, digest)
    if isinstance(key, ec.EllipticCurvePrivateKey):
        r, s = decode_dss_signature(key.sign(signed, ec.ECDSA(digest)))
        return ecdsa_signature(r, s, key.curve)
    signature: bytes = key.sign(signed)
    return signature


def ecdsa_signature(r: int, s: int, curve: ec.EllipticCurve) -> bytes:
    """Put the two numbers of a signature together (RFC 7518 3.4); they may be any that have room."""
    size = (curve.key_size + 7) // 8
    return r.to_bytes(size, "big") + s.to_bytes(size, "big")


def token(
    claims: Any, key: Private, algorithm: str = "HS256", *, header: Mapping[str, Any] | str | bytes | None = None
) -> str:
    """Return a token of *claims*, signed by *key* as *algorithm* says.

    *claims* and *header* are values, or the text or bytes to put there. A header that is a mapping is laid over
    `{"alg": …, "typ": "JWT"}`.
    """
    if header is None or isinstance(header, Mapping):
        header = as_json({"alg": algorithm, "typ": "JWT", **(header or {})})
    return signed_text(f"{b64(as_json(header))}.{b64(as_json(claims))}", key, algorithm)


def signed_text(text: str, key: Private, algorithm: str = "HS256") -> str:
    """Put a signature behind *text*, whatever it is."""
    return f"{text}.{b64(sign(text.encode(), key, algorithm))}"
