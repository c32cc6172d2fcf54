"""JSON Web Tokens to identities (protocol.md 5). Signatures are PyJWT's affair; what the claims mean is ours.

Time is an argument here, so PyJWT checks the signature and the claims' form only, and `exp`, `nbf` are compared below.
"""

import base64
import binascii
import contextlib
import re
import warnings
from collections.abc import Callable
from itertools import chain
from typing import Annotated, Any, Final, Never, Self

import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from pydantic import Field, model_validator

from gateway.auth.jwks import KeySet, http_fetch
from gateway.auth.keys import (
    ECDSA_ALGORITHMS,
    EDDSA_ALGORITHMS,
    HMAC_ALGORITHMS,
    RSA_ALGORITHMS,
    ConfiguredKeys,
    Key,
    KeySource,
    KeysUnavailableError,
    UnsuitableKeyError,
    public_key,
    secret_key,
)
from gateway.domain.identity import Grant, Identity, Overrides
from gateway.protocol import codes
from gateway.protocol.codes import Disconnect, ErrorCode
from gateway.protocol.json_codec import is_json
from gateway.protocol.messages import NOTHING
from gateway.settings import Pattern, Seconds, Settings

# A short secret is the operator's affair and said once, at start; PyJWT would say it for each token.
warnings.filterwarnings("ignore", category=jwt.InsecureKeyLengthWarning)

_ALGORITHMS: Final = frozenset(
    (*HMAC_ALGORITHMS, *RSA_ALGORITHMS, *EDDSA_ALGORITHMS, *chain.from_iterable(ECDSA_ALGORITHMS.values()))
)
KEYS_UNAVAILABLE: Final = "keys_unavailable"
"""The cause that says nothing about the token: it may be good, and a later try may succeed."""
MAX_TOKEN_LENGTH: Final = 32768
_PURE_CLAIM: Final = r"^[a-zA-Z0-9_.:/-]*$"


PublicKey = Annotated[str, Field(repr=False)]
_PUBLIC_KEYS: Final = {
    "rsa_public_key": RSAPublicKey,
    "ecdsa_public_key": EllipticCurvePublicKey,
    "ed25519_public_key": Ed25519PublicKey,
}


class TokenSettings(Settings):
    """Keys and claims that tokens are checked against: `client.token`, `client.subscription_token`."""

    hmac_secret_key: Annotated[str, Field(repr=False)] = ""
    """Secret of HS256, HS384 and HS512 tokens; at least 32 random bytes, please."""
    hmac_previous_secret_key: Annotated[str, Field(repr=False)] = ""
    """The secret before it, accepted too while keys are rotated."""
    rsa_public_key: PublicKey = ""
    """Public key of RS256, RS384 and RS512 tokens, as PEM text, 2048 bits or more."""
    ecdsa_public_key: PublicKey = ""
    """Public key of ES256, ES384 or ES512 tokens (its curve decides), as PEM text."""
    ed25519_public_key: PublicKey = ""
    """Public key of EdDSA tokens, as PEM text."""
    jwks_public_endpoint: Annotated[str, Field(pattern=r"^(https?://.+)?$")] = ""
    """URL of a JSON Web Key Set with RSA, ECDSA and Ed25519 keys; redirects are not followed."""
    jwks_timeout_s: Seconds = 5.0
    """How long the endpoint may take to answer."""
    jwks_refresh_interval_s: Seconds = 10.0
    """Shortest time between two fetches, whatever key ids tokens name."""
    jwks_lifetime_s: Seconds = 3600.0
    """How long fetched keys are used before they are fetched again; if that fails they stay in use."""
    audience: str = ""
    """What the claim `aud` must be, or contain."""
    audience_regex: Pattern = ""
    """A pattern for `aud` instead; it must match the whole claim."""
    issuer: str = ""
    """What the claim `iss` must be."""
    issuer_regex: Pattern = ""
    """A pattern for `iss` instead; it must match the whole claim."""
    user_id_claim: Annotated[str, Field(pattern=_PURE_CLAIM)] = ""
    """The claim that holds the user id, instead of `sub`."""
    leeway_s: Annotated[Seconds, Field(le=300)] = 0.0
    """How far clocks may differ when `exp` and `nbf` are checked."""

    @model_validator(mode="after")
    def _read_keys(self) -> Self:
        for name in ("hmac_secret_key", "hmac_previous_secret_key"):
            if "-----BEGIN" in getattr(self, name):
                raise ValueError(f"{name}: this is a key in PEM form, not a secret; public keys have keys of their own")
        for name, kind in _PUBLIC_KEYS.items():
            pem = getattr(self, name)
            if pem:
                try:
                    public_key(pem, kind=kind)
                except UnsuitableKeyError as error:
                    raise ValueError(f"{name}: {error}") from None
        return self

    def configured_keys(self) -> list[Key]:
        """Return the keys that stand in the table itself."""
        secrets = (self.hmac_secret_key, self.hmac_previous_secret_key)
        keys = [secret_key(secret) for secret in secrets if secret]
        pems = ((getattr(self, name), kind) for name, kind in _PUBLIC_KEYS.items())
        return keys + [public_key(pem, kind=kind) for pem, kind in pems if pem]


class TokenRefusedError(Exception):
    """A token that does not do: *answer* is what the client gets, *cause* a word of a fixed set for the metrics."""

    def __init__(self, answer: ErrorCode | Disconnect, cause: str) -> None:
        super().__init__(f"{answer.code} {cause}")
        self.answer = answer
        self.cause = cause

    @property
    def has_expired(self) -> bool:
        """Whether the token's time, or that of what it grants, is over."""
        return self.answer in {codes.TOKEN_EXPIRED, codes.EXPIRED}


class TokenVerifier:
    """Checks the tokens of one kind against one set of keys."""

    def __init__(
        self,
        settings: TokenSettings,
        *,
        is_signature_checked: bool = True,
        report: Callable[[str], None] = lambda _reason: None,
    ) -> None:
        """Read the keys. *report* is told why a key set could not be fetched."""
        self._settings = settings
        self._is_signature_checked = is_signature_checked
        self._sources: list[KeySource] = [ConfiguredKeys(settings.configured_keys())]
        if settings.jwks_public_endpoint:
            self._sources.append(
                KeySet(
                    http_fetch(settings.jwks_public_endpoint, timeout_s=settings.jwks_timeout_s),
                    refresh_interval_s=settings.jwks_refresh_interval_s,
                    lifetime_s=settings.jwks_lifetime_s,
                    report=report,
                )
            )
        self._jwt = jwt.PyJWT()

    def obeys(self, settings: TokenSettings, *, is_signature_checked: bool) -> bool:
        """Tell whether a verifier of *settings* would do the same; this one may have a key set that was fetched."""
        return self._settings == settings and self._is_signature_checked is is_signature_checked

    async def connection(self, token: str, *, unix_s: float) -> Identity:
        """Read a connection token (protocol.md 5.2).

        Raises:
            TokenRefusedError: with the answer that the table of 5.2 names.
        """
        claims = await self._claims(token, unix_s=unix_s, invalid=codes.INVALID_TOKEN)
        if claims.get("channel") is not None:
            _refuse(codes.INVALID_TOKEN, "channel_claim")
        expires_at_s = _expiry(claims, unix_s=unix_s, invalid=codes.INVALID_TOKEN)
        return Identity(
            user=self._user(claims, invalid=codes.INVALID_TOKEN),
            info=_info(claims, bad_base64=codes.INTERNAL_ERROR),
            expires_at_s=expires_at_s,
            grants=_grants(claims),
            meta=NOTHING if claims.get("meta") is None else msgspec.Raw(msgspec.json.encode(claims["meta"])),
        )

    async def subscription(self, token: str, *, channel: str, user: str, client: str, unix_s: float) -> Grant:
        """Read a subscription token (protocol.md 5.3) that *user* on connection *client* shows for *channel*.

        Raises:
            TokenRefusedError: with the answer that the table of 5.3 names.
        """
        claims = await self._claims(token, unix_s=unix_s, invalid=codes.PERMISSION_DENIED)
        claimed = claims.get("channel")
        if not claimed or not isinstance(claimed, str):
            _refuse(codes.PERMISSION_DENIED, "no_channel_claim")
        if claimed != channel:
            _refuse(codes.INVALID_TOKEN, "other_channel")
        if self._user(claims, invalid=codes.PERMISSION_DENIED) != user:
            _refuse(codes.INVALID_TOKEN, "other_user")
        if claims.get("client") and claims["client"] != client:
            _refuse(codes.INVALID_TOKEN, "other_client")
        expires_at_s = _expiry(claims, unix_s=unix_s, invalid=codes.PERMISSION_DENIED)
        return Grant(
            channel=channel,
            info=_info(claims, bad_base64=codes.INTERNAL_ERROR),
            data=_payload(claims, "data", bad_base64=codes.INTERNAL_ERROR),
            expires_at_s=expires_at_s,
            overrides=_overrides(claims.get("override"), invalid=codes.PERMISSION_DENIED),
        )

    async def _claims(self, token: str, *, unix_s: float, invalid: ErrorCode | Disconnect) -> dict[str, Any]:
        claims = await self._verified(token, unix_s, invalid)
        self._check_audience_and_issuer(claims, invalid)
        expires_at, not_before = (_seconds(claims, name, invalid) for name in ("exp", "nbf"))
        leeway_s = self._settings.leeway_s
        if expires_at is not None and expires_at + leeway_s <= unix_s:
            _refuse(codes.TOKEN_EXPIRED, "expired")
        if not_before is not None and not_before - leeway_s > unix_s:
            _refuse(codes.TOKEN_EXPIRED, "not_yet_valid")
        return claims

    async def _verified(self, token: str, unix_s: float, invalid: ErrorCode | Disconnect) -> dict[str, Any]:
        if not self._is_signature_checked:
            return self._decoded(token, "", [], invalid)
        if len(token) > MAX_TOKEN_LENGTH:
            _refuse(invalid, "too_long")
        try:
            header = jwt.get_unverified_header(token)
        except (jwt.PyJWTError, ValueError, RecursionError):
            _refuse(invalid, "malformed")
        algorithm, key_id = header.get("alg"), header.get("kid", "")
        if not isinstance(algorithm, str) or not isinstance(key_id, str):
            _refuse(invalid, "malformed")
        if algorithm not in _ALGORITHMS:
            _refuse(invalid, "algorithm")
        has_key = is_unavailable = False
        for source in self._sources:
            try:
                keys = await source.keys_for(algorithm=algorithm, key_id=key_id, now_s=unix_s)
            except KeysUnavailableError:
                is_unavailable = True
                continue
            for key in keys:
                has_key = True
                with contextlib.suppress(jwt.InvalidSignatureError):
                    return self._decoded(token, key.material, [algorithm], invalid)
        if is_unavailable:
            # Whether the token is good can't be known, and 3500 is final: a temporary error lets the client come back.
            _refuse(codes.INTERNAL_ERROR, KEYS_UNAVAILABLE)
        return _refuse(invalid, "signature" if has_key else "no_key")

    def _decoded(self, token: str, key: Any, algorithms: list[str], invalid: ErrorCode | Disconnect) -> dict[str, Any]:
        options: Any = {
            "verify_signature": bool(algorithms),
            "verify_exp": False,
            "verify_nbf": False,
            "verify_iat": False,
            "verify_aud": False,
            "verify_iss": False,
            "verify_jti": False,
            "verify_sub": False,
        }
        try:
            claims = self._jwt.decode(token, key, algorithms=algorithms, options=options)
            msgspec.json.encode(claims)  # half a surrogate pair can't be written, neither to clients nor to the log
        except jwt.InvalidSignatureError:
            raise
        except (jwt.PyJWTError, ValueError, RecursionError):
            _refuse(invalid, "malformed")
        return claims

    def _check_audience_and_issuer(self, claims: dict[str, Any], invalid: ErrorCode | Disconnect) -> None:
        settings = self._settings
        audience = claims.get("aud")
        audiences = [each for each in (audience if isinstance(audience, list) else [audience]) if isinstance(each, str)]
        if settings.audience and settings.audience not in audiences:
            _refuse(invalid, "audience")
        if settings.audience_regex and not any(re.fullmatch(settings.audience_regex, each) for each in audiences):
            _refuse(invalid, "audience")
        issuer = claims.get("iss")
        if settings.issuer and issuer != settings.issuer:
            _refuse(invalid, "issuer")
        if settings.issuer_regex and not (isinstance(issuer, str) and re.fullmatch(settings.issuer_regex, issuer)):
            _refuse(invalid, "issuer")

    def _user(self, claims: dict[str, Any], *, invalid: ErrorCode | Disconnect) -> str:
        # protocol.md 5.1: the user id is a string; a JSON number makes the token invalid.
        user = claims.get(self._settings.user_id_claim or "sub", "")
        if user is None:
            return ""
        if not isinstance(user, str):
            _refuse(invalid, "user_not_a_string")
        return user


def _refuse(answer: ErrorCode | Disconnect, cause: str) -> Never:
    raise TokenRefusedError(answer, cause)


def _seconds(claims: dict[str, Any], name: str, invalid: ErrorCode | Disconnect) -> float | None:
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 2**53:
        _refuse(invalid, f"{name}_not_a_time")
    return value


def _expiry(claims: dict[str, Any], *, unix_s: float, invalid: ErrorCode | Disconnect) -> int:
    """Return when the connection or subscription ends: `expire_at` wins over `exp`, and 0 in it means never."""
    expires_at_s = _seconds(claims, "expire_at", invalid)
    if expires_at_s is None:
        return int(_seconds(claims, "exp", invalid) or 0)
    if expires_at_s and expires_at_s <= unix_s:
        _refuse(codes.EXPIRED, "expire_at_passed")
    return int(expires_at_s)


def _info(claims: dict[str, Any], *, bad_base64: ErrorCode | Disconnect) -> msgspec.Raw:
    return _payload(claims, "info", bad_base64=bad_base64)


def _payload(claims: dict[str, Any], name: str, *, bad_base64: ErrorCode | Disconnect) -> msgspec.Raw:
    """Return the JSON of claim *name*, or the bytes of its `b64` twin, which wins."""
    encoded = claims.get(f"b64{name}")
    if encoded:
        try:
            payload = base64.b64decode(encoded, validate=True)
        except (binascii.Error, TypeError, ValueError):
            _refuse(bad_base64, f"b64{name}")
        if not is_json(payload):  # it would break every JSON frame that carries it
            _refuse(bad_base64, f"b64{name}")
        return msgspec.Raw(payload)
    if claims.get(name) is None:
        return NOTHING
    return msgspec.Raw(msgspec.json.encode(claims[name]))


def _overrides(claim: Any, *, invalid: ErrorCode | Disconnect) -> Overrides:
    if claim is None:
        return Overrides()
    try:
        wrapped = msgspec.convert(claim, dict[str, dict[str, bool]])
        values = {name: value.get("value") for name, value in wrapped.items() if name in Overrides.__struct_fields__}
    except msgspec.ValidationError:
        _refuse(invalid, "override")
    return Overrides(**values)


def _grants(claims: dict[str, Any]) -> tuple[Grant, ...]:
    """Return the server-side subscriptions of a connection token: `subs` if it has any, else `channels`."""
    invalid = codes.INVALID_TOKEN
    subs = claims.get("subs")
    if subs:
        try:
            subs = msgspec.convert(subs, dict[str, dict[str, Any] | None])
        except msgspec.ValidationError:
            _refuse(invalid, "subs")
        return tuple(
            Grant(
                channel=channel,
                info=_info(options or {}, bad_base64=invalid),
                data=_payload(options or {}, "data", bad_base64=invalid),
                overrides=_overrides((options or {}).get("override"), invalid=invalid),
            )
            for channel, options in subs.items()
        )
    try:
        channels = msgspec.convert(claims.get("channels") or [], list[str])
    except msgspec.ValidationError:
        _refuse(invalid, "channels")
    return tuple(Grant(channel=channel) for channel in dict.fromkeys(channels))
