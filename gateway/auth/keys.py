"""Verification keys, each bound to the algorithms that its kind allows.

A token names an algorithm, but never chooses how a key is used: an RSA public key verifies RS256, RS384 and RS512 and
can't become the secret of an HS256 token.
"""

from typing import Any, Final, Protocol

import jwt
import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

HMAC_ALGORITHMS: Final = ("HS256", "HS384", "HS512")
RSA_ALGORITHMS: Final = ("RS256", "RS384", "RS512")
EDDSA_ALGORITHMS: Final = ("EdDSA",)
# RFC 7518 3.4: the curve belongs to the algorithm.
ECDSA_ALGORITHMS: Final = {"secp256r1": ("ES256",), "secp384r1": ("ES384",), "secp521r1": ("ES512",)}
_MIN_RSA_BITS: Final = 2048


class Key(msgspec.Struct, frozen=True):
    """One key: *material* as PyJWT takes it, and the only algorithms it may be used with."""

    material: Any
    algorithms: tuple[str, ...]
    key_id: str = ""


class UnsuitableKeyError(ValueError):
    """A key that can't verify tokens here; the message says why."""


class KeysUnavailableError(Exception):
    """Keys could not be had at the moment, so that nothing can be said about a token."""


class KeySource(Protocol):
    """Where keys come from."""

    async def keys_for(self, *, algorithm: str, key_id: str, now_s: float) -> list[Key]:
        """Return the keys that may have signed a token with this header, likeliest first; none if there is none.

        Raises:
            KeysUnavailableError: the source did not answer, and has nothing to go by.
        """


class ConfiguredKeys:
    """Keys that stand in the configuration."""

    def __init__(self, keys: list[Key]) -> None:
        self._keys = keys

    async def keys_for(self, *, algorithm: str, key_id: str, now_s: float) -> list[Key]:
        """Return the keys for *algorithm*, whatever the key id: configured keys have none."""
        del key_id, now_s
        return [key for key in self._keys if algorithm in key.algorithms]


def secret_key(secret: str) -> Key:
    """Return the key of HMAC tokens."""
    return Key(secret, HMAC_ALGORITHMS)


def public_key(pem: str, *, kind: type) -> Key:
    """Return the key of a PEM text that must be of *kind* (a public key class of `cryptography`).

    Raises:
        UnsuitableKeyError: if it is not, or can't be read.
    """
    try:
        material = load_pem_public_key(pem.encode())
    except (ValueError, UnsupportedAlgorithm):
        raise UnsuitableKeyError("not a public key in PEM form (-----BEGIN PUBLIC KEY-----)") from None
    if not isinstance(material, kind):
        raise UnsuitableKeyError(f"a {type(material).__name__.lstrip('_')}, where {kind.__name__} is wanted")
    return Key(material, suitable_algorithms(material))


def jwk_key(jwk: jwt.PyJWK) -> Key:
    """Return the key of one entry of a JSON Web Key Set.

    Raises:
        UnsuitableKeyError: for secrets, private use, and kinds that verify no token here.
    """
    if jwk.public_key_use not in (None, "sig"):
        raise UnsuitableKeyError(f"its use is {jwk.public_key_use!r}, not 'sig'")
    algorithms = suitable_algorithms(jwk.key)
    declared = jwk._jwk_data.get("alg")  # noqa: SLF001 - PyJWT guesses an algorithm where none is declared
    if declared is not None:
        algorithms = tuple(each for each in algorithms if each == declared)
    if not algorithms:
        raise UnsuitableKeyError(f"its algorithm {declared!r} does not fit its kind")
    return Key(jwk.key, algorithms, jwk.key_id or "")


def suitable_algorithms(material: Any) -> tuple[str, ...]:
    """Return the algorithms that a public key of this kind may verify.

    Raises:
        UnsuitableKeyError: if there is none.
    """
    match material:
        case RSAPublicKey():
            if material.key_size < _MIN_RSA_BITS:
                raise UnsuitableKeyError(f"an RSA key of {material.key_size} bits, where {_MIN_RSA_BITS} are needed")
            return RSA_ALGORITHMS
        case EllipticCurvePublicKey() if material.curve.name in ECDSA_ALGORITHMS:
            return ECDSA_ALGORITHMS[material.curve.name]
        case Ed25519PublicKey():
            return EDDSA_ALGORITHMS
        case _:
            raise UnsuitableKeyError("neither RSA, nor ECDSA on P-256, P-384 or P-521, nor Ed25519")
