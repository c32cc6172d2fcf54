"""Keys: what is said about one that can't be used, and that a key's kind alone decides what it verifies."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from gateway.auth.keys import ConfiguredKeys, Key, UnsuitableKeyError, public_key, secret_key
from gateway.auth.tokens import TokenRefusedError, TokenSettings, TokenVerifier
from gateway.config import ConfigError, load
from gateway.domain.identity import Identity
from gateway.protocol import codes
from tests.support.tokens import ALGORITHMS, HMAC, private, public_der, public_pem, token

NOW_S = 1_800_000_000.0
SECRET = "the secret of these tests, of more than 64 bytes, so that HS512 is content too"
PREVIOUS = "the secret before it, which is just as long and good for a while after rotation"
RSA, ECDSA, ED25519 = "rsa_public_key", "ecdsa_public_key", "ed25519_public_key"
NAMES = {"rsa": RSA, "p256": ECDSA, "p384": ECDSA, "p521": ECDSA, "ed25519": ED25519}
KINDS = {RSA: RSAPublicKey, ECDSA: EllipticCurvePublicKey, ED25519: Ed25519PublicKey}
EVERY_ALGORITHM = (*HMAC, "RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "EdDSA", "PS256", "ES256K", "none")


def private_pem(kind: str, form: PrivateFormat, *, password: bytes = b"") -> str:
    encryption = BestAvailableEncryption(password) if password else NoEncryption()
    pem: bytes = private(kind).private_bytes(Encoding.PEM, form, encryption)
    return pem.decode()


def pkcs1_pem() -> str:
    pem: bytes = private("rsa").public_key().public_bytes(Encoding.PEM, PublicFormat.PKCS1)
    return pem.decode()


def openssh_line(kind: str) -> str:
    line: bytes = private(kind).public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    return line.decode()


def certificate() -> str:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "issuer")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, private("rsa").public_key(), x509.random_serial_number())
    valid = builder.not_valid_before(now).not_valid_after(now + timedelta(days=1))
    return valid.sign(private("rsa"), hashes.SHA256()).public_bytes(Encoding.PEM).decode()


def signing_request() -> str:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "issuer")])
    builder = x509.CertificateSigningRequestBuilder(name)
    return builder.sign(private("rsa"), hashes.SHA256()).public_bytes(Encoding.PEM).decode()


# Faults, found at configuration.

NO_PEM = "not a public key in PEM form (-----BEGIN PUBLIC KEY-----)"
NO_CURVE = "neither RSA, nor ECDSA on P-256, P-384 or P-521, nor Ed25519"
ARMOUR = "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n"


def unusable() -> dict[str, tuple[str, str, str]]:
    good = public_pem(private("rsa"))
    no_pem = {
        "a word": "hello",
        "a blank": " ",
        "a path": "/etc/gateway/key.pem",
        "half a surrogate pair": "\ud800",
        "a null byte": "\0",
        "armour with nothing in it": ARMOUR.format(""),
        "armour around a word": ARMOUR.format("hello"),
        "armour around zeros": ARMOUR.format("AAAA" * 20),
        "a key cut short": good[: len(good) // 2],
        "a key without its last line": good.replace("-----END PUBLIC KEY-----", ""),
        "a key whose line ends are written as two letters": good.replace("\n", "\\n"),
        "a key's base64 without armour": "".join(good.splitlines()[1:-1]),
        "a JSON Web Key": '{"kty":"RSA","n":"AQAB","e":"AQAB"}',
        "an OpenSSH line": openssh_line("rsa"),
        "a certificate": certificate(),
        "a signing request": signing_request(),
        "a private key": private_pem("rsa", PrivateFormat.PKCS8),
        "a private key of the old form": private_pem("rsa", PrivateFormat.TraditionalOpenSSL),
        "a private key of OpenSSH": private_pem("rsa", PrivateFormat.OpenSSH),
        "an encrypted private key": private_pem("rsa", PrivateFormat.PKCS8, password=b"password"),
    }
    faults = {name: (RSA, text, NO_PEM) for name, text in no_pem.items()}
    faults |= {
        "a private P-256 key": (ECDSA, private_pem("p256", PrivateFormat.TraditionalOpenSSL), NO_PEM),
        "a private Ed25519 key": (ED25519, private_pem("ed25519", PrivateFormat.PKCS8), NO_PEM),
        "RSA with 1024 bits": (
            RSA,
            public_pem(private("rsa1024")),
            "an RSA key of 1024 bits, where 2048 are needed",
        ),
        "secp256k1": (ECDSA, public_pem(private("secp256k1")), NO_CURVE),
        "a Brainpool curve": (ECDSA, public_pem(private("brainpool")), NO_CURVE),
    }
    wrong = [(RSA, kind) for kind in ("p256", "ed25519", "ed448", "x25519", "dsa")]
    wrong += [(ECDSA, kind) for kind in ("rsa", "ed25519", "ed448", "x25519", "dsa")]
    wrong += [(ED25519, kind) for kind in ("rsa", "p256", "ed448", "x25519", "dsa")]
    for name, kind in wrong:
        wanted = f", where {KINDS[name].__name__} is wanted"
        faults[f"{kind} as {name}"] = (name, public_pem(private(kind)), wanted)
    return faults


UNUSABLE = unusable()


@pytest.mark.parametrize("table", ["token", "subscription_token"])
@pytest.mark.parametrize(("name", "text", "message"), UNUSABLE.values(), ids=UNUSABLE)
def test_a_key_that_can_not_be_used_is_one_clear_line_without_the_key(
    table: str, name: str, text: str, message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(base={"client": {table: {name: text, "hmac_secret_key": SECRET}}})
    [line] = caught.value.faults
    assert "\n" not in line
    assert line.startswith(f"client.{table}: {name}: ")
    assert line.endswith(message)
    assert SECRET not in line
    assert not [part for part in text.split() if len(part) > 30 and part in line], line


def test_a_bad_key_in_the_environment_is_told_with_the_variable_and_without_the_key() -> None:
    pem = private_pem("rsa", PrivateFormat.PKCS8)
    with pytest.raises(ConfigError) as caught:
        load(environment={"GATEWAY_CLIENT__TOKEN__RSA_PUBLIC_KEY": pem})
    [line] = caught.value.faults
    assert "GATEWAY_CLIENT__TOKEN__RSA_PUBLIC_KEY" in line
    assert NO_PEM in line
    assert not [part for part in pem.splitlines() if part in line]


def test_a_list_or_a_table_in_place_of_a_key_is_told_without_what_is_in_it() -> None:
    for value in ([SECRET], {"pem": SECRET}, 5):
        with pytest.raises(ConfigError) as caught:
            load(base={"client": {"token": {RSA: value}}})
        [line] = caught.value.faults
        assert line.startswith("client.token.rsa_public_key = ")
        assert SECRET not in line


def test_settings_do_not_show_their_keys() -> None:
    pem = public_pem(private("rsa"))
    assert pem.splitlines()[1] not in repr(TokenSettings(rsa_public_key=pem))


@pytest.mark.parametrize(
    "pem",
    [
        public_pem(private("rsa")),
        public_pem(private("rsa")).replace("\n", "\r\n"),
        "\n\n" + public_pem(private("rsa")) + "\n\n",
        public_pem(private("rsa")).strip(),
        "a comment\n" + public_pem(private("rsa")),
        pkcs1_pem(),
    ],
    ids=["as written", "CRLF", "blank lines", "no last newline", "a comment", "PKCS 1"],
)
async def test_a_pem_text_may_be_spelt_as_tools_spell_it(pem: str) -> None:
    verifier = TokenVerifier(TokenSettings(rsa_public_key=pem))
    good = token({"sub": "42"}, private("rsa"), "RS256")
    assert await verifier.connection(good, unix_s=NOW_S) == Identity(user="42")


# A key's kind decides the algorithm.


@pytest.mark.parametrize("kind", ALGORITHMS)
def test_each_kind_of_key_has_the_algorithms_of_its_kind_and_no_others(kind: str) -> None:
    key = public_key(public_pem(private(kind)), kind=KINDS[NAMES[kind]])
    assert (key.algorithms, key.key_id) == (ALGORITHMS[kind], "")
    assert isinstance(key.material, KINDS[NAMES[kind]])


def test_a_secret_has_the_hmac_algorithms_and_no_others() -> None:
    assert secret_key(SECRET) == Key(SECRET, HMAC)


def test_a_key_of_the_wrong_kind_is_unsuitable() -> None:
    with pytest.raises(UnsuitableKeyError, match="where RSAPublicKey is wanted"):
        public_key(public_pem(private("ed25519")), kind=RSAPublicKey)


async def test_configured_keys_are_offered_by_algorithm_whatever_the_key_id() -> None:
    secret, rsa = secret_key(SECRET), public_key(public_pem(private("rsa")), kind=RSAPublicKey)
    keys = ConfiguredKeys([secret, rsa])
    for algorithm, expected in {"HS256": [secret], "RS512": [rsa], "ES256": [], "none": [], "": []}.items():
        for key_id in ("", "x"):
            assert await keys.keys_for(algorithm=algorithm, key_id=key_id, now_s=NOW_S) == expected


async def answer(verifier: TokenVerifier, text: str) -> str:
    """Return the user who is let in, or why nobody is."""
    try:
        return (await verifier.connection(text, unix_s=NOW_S)).user
    except TokenRefusedError as refused:
        return refused.cause if refused.answer == codes.INVALID_TOKEN else str(refused)


@pytest.mark.parametrize("algorithm", EVERY_ALGORITHM)
@pytest.mark.parametrize("kind", ALGORITHMS)
async def test_a_public_key_verifies_its_own_algorithms_only_even_if_its_owner_signs(kind: str, algorithm: str) -> None:
    """The private half signs as the header says as far as it can: a P-256 key with SHA-384 as ES384, and so on."""
    options: dict[str, Any] = {NAMES[kind]: public_pem(private(kind))}
    verifier = TokenVerifier(TokenSettings(**options))
    expected = "42" if algorithm in ALGORITHMS[kind] else "algorithm" if algorithm in EVERY_ALGORITHM[-3:] else "no_key"
    assert await answer(verifier, token({"sub": "42"}, private(kind), algorithm)) == expected


@pytest.mark.parametrize("algorithm", EVERY_ALGORITHM)
async def test_a_secret_verifies_hmac_only(algorithm: str) -> None:
    verifier = TokenVerifier(TokenSettings(hmac_secret_key=SECRET))
    expected = "42" if algorithm in HMAC else "algorithm" if algorithm in EVERY_ALGORITHM[-3:] else "no_key"
    assert await answer(verifier, token({"sub": "42"}, SECRET, algorithm)) == expected


HOLDERS: dict[str, Any] = {
    "the secret": SECRET,
    "the previous secret": PREVIOUS,
    **{f"the {kind} key": private(kind) for kind in ("rsa", "p256", "ed25519")},
    "an attacker's secret": "x" * 64,
    **{f"an attacker's {kind} key": private(kind, "attacker") for kind in ("rsa", "p256", "ed25519")},
    "a P-384 key": private("p384"),
    "an RSA key as a secret": public_pem(private("rsa")),
    "an RSA key's DER as a secret": public_der(private("rsa")),
}
ALLOWED = {
    "the secret": HMAC,
    "the previous secret": HMAC,
    "the rsa key": ALGORITHMS["rsa"],
    "the p256 key": ALGORITHMS["p256"],
    "the ed25519 key": ALGORITHMS["ed25519"],
}


@pytest.mark.parametrize("holder", HOLDERS)
async def test_several_kinds_of_keys_together_let_in_what_each_would_alone(holder: str) -> None:
    options: dict[str, Any] = {NAMES[kind]: public_pem(private(kind)) for kind in ("rsa", "p256", "ed25519")}
    verifier = TokenVerifier(TokenSettings(hmac_secret_key=SECRET, hmac_previous_secret_key=PREVIOUS, **options))
    answers = {
        algorithm: await answer(verifier, token({"sub": "42"}, HOLDERS[holder], algorithm))
        for algorithm in EVERY_ALGORITHM
    }
    let_in = tuple(algorithm for algorithm, given in answers.items() if given == "42")
    assert let_in == ALLOWED.get(holder, ()), answers
    assert set(answers.values()) <= {"42", "signature", "no_key", "algorithm"}


async def test_a_key_id_in_the_token_changes_nothing_for_configured_keys() -> None:
    verifier = TokenVerifier(TokenSettings(hmac_secret_key=SECRET))
    assert await answer(verifier, token({"sub": "42"}, SECRET, header={"kid": "whatever"})) == "42"
