"""Tokens: every row of protocol.md 5, and whatever else somebody may send in their place."""

import base64
import hashlib
import hmac
import json
from collections.abc import Awaitable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st
from jwt import encode
from msgspec import Raw
from pydantic import ValidationError

from gateway.auth.tokens import MAX_TOKEN_LENGTH, TokenRefusedError, TokenSettings, TokenVerifier
from gateway.domain.identity import Grant, Identity, Overrides
from gateway.protocol import codes
from gateway.protocol.codes import Disconnect, ErrorCode

SECRET = "the secret of these tests, of more than 64 bytes, so that HS512 is content too"
PREVIOUS = "the secret before it, which is just as long and good for a while after rotation"
DEEP = MAX_TOKEN_LENGTH // 2
NOW_S = 1_800_000_000.0
_DIGESTS = {"HS256": hashlib.sha256, "HS384": hashlib.sha384, "HS512": hashlib.sha512}

Answer = ErrorCode | Disconnect


def base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def token_of(
    payload: Any, *, secret: str = SECRET, header: Any = None, algorithm: str = "HS256", signature: bytes | None = None
) -> str:
    """Sign *payload* (claims, or bytes as they are) by hand: this is the oracle, and it signs what PyJWT would not."""
    head = {"alg": algorithm, "typ": "JWT"} if header is None else header
    parts = [part if isinstance(part, bytes) else json.dumps(part).encode() for part in (head, payload)]
    signed = ".".join(map(base64url, parts))
    if signature is None:
        signature = hmac.digest(secret.encode(), signed.encode(), _DIGESTS.get(algorithm, hashlib.sha256))
    return f"{signed}.{base64url(signature)}"


def verifier(**options: Any) -> TokenVerifier:
    return TokenVerifier(TokenSettings(**({"hmac_secret_key": SECRET} | options)))


async def connection(token: str, **options: Any) -> Identity:
    return await verifier(**options).connection(token, unix_s=NOW_S)


async def subscription(token: str, *, client: str = "c1", user: str = "42", **options: Any) -> Grant:
    return await verifier(**options).subscription(token, channel="news", user=user, client=client, unix_s=NOW_S)


async def refusal(reading: Awaitable[object]) -> tuple[Answer, str]:
    with pytest.raises(TokenRefusedError) as caught:
        await reading
    return caught.value.answer, caught.value.cause


FOR_NEWS = {"sub": "42", "channel": "news"}

FORGED = {
    "nothing": ("", "malformed"),
    "a blank": (" ", "malformed"),
    "a word": ("hello", "malformed"),
    "one dot": ("a.b", "malformed"),
    "two dots": ("..", "malformed"),
    "three dots": ("...", "malformed"),
    "four parts": (token_of(FOR_NEWS) + ".e30", "malformed"),
    "a doubled dot": (token_of(FOR_NEWS).replace(".", "..", 1), "malformed"),
    "a trailing dot": (token_of(FOR_NEWS) + ".", "malformed"),
    "letters beyond ASCII": ("é.é.é", "malformed"),
    "a null byte": ("\0", "malformed"),
    "a megabyte of letters": ("a" * 1_000_000, "too_long"),
    "a megabyte of dots": ("." * 1_000_000, "too_long"),
    "a header that is no JSON": (token_of(FOR_NEWS, header=b"{"), "malformed"),
    "a header that is no object": (token_of(FOR_NEWS, header=["HS256"]), "malformed"),
    "a token as long as it may be": ("a" * MAX_TOKEN_LENGTH, "malformed"),
    "a token one letter longer": ("a" * (MAX_TOKEN_LENGTH + 1), "too_long"),
    "a good token, but too long": (token_of(FOR_NEWS | {"info": "x" * MAX_TOKEN_LENGTH}), "too_long"),
    "a header that is nested deeply": (token_of(FOR_NEWS, header=b"[" * DEEP), "malformed"),
    "a key id that is no text": (token_of(FOR_NEWS, header={"alg": "HS256", "kid": 1}), "malformed"),
    "claims that are no JSON": (token_of(b"{"), "malformed"),
    "claims that are no object": (token_of(["news"]), "malformed"),
    "claims that are not UTF-8": (token_of(b'{"sub":"\xff"}'), "malformed"),
    "claims that are nested deeply": (token_of(b'{"info":' + b"[" * DEEP), "malformed"),
    "a number of five thousand digits": (token_of(b'{"exp":' + b"9" * 5000 + b"}"), "malformed"),
    "no algorithm": (token_of(FOR_NEWS, header={"typ": "JWT"}), "malformed"),
    "alg none": (token_of(FOR_NEWS, algorithm="none", signature=b""), "algorithm"),
    "alg none, signed": (token_of(FOR_NEWS, algorithm="none"), "algorithm"),
    "alg NONE": (token_of(FOR_NEWS, algorithm="NONE", signature=b""), "algorithm"),
    "alg in small letters": (token_of(FOR_NEWS, algorithm="hs256"), "algorithm"),
    "RS256, signed with the HMAC secret": (token_of(FOR_NEWS, algorithm="RS256"), "no_key"),
    "ES256, signed with the HMAC secret": (token_of(FOR_NEWS, algorithm="ES256"), "no_key"),
    "another secret": (token_of(FOR_NEWS, secret="x" * 64), "signature"),
    "an empty secret": (token_of(FOR_NEWS, secret=""), "signature"),
    "no signature": (token_of(FOR_NEWS, signature=b""), "signature"),
    "half a signature": (token_of(FOR_NEWS, signature=b"x" * 16), "signature"),
    "HS512 in the header of an HS256 signature": (
        token_of(FOR_NEWS, header={"alg": "HS512"}, algorithm="HS256"),
        "signature",
    ),
    "claims changed after signing": (
        token_of({"sub": "1"}).replace(base64url(b'{"sub": "1"}'), base64url(b'{"sub": "2"}')),
        "signature",
    ),
}
forged = pytest.mark.parametrize(("token", "cause"), FORGED.values(), ids=FORGED)


@forged
async def test_a_forged_connection_token_disconnects_as_invalid(token: str, cause: str) -> None:
    assert await refusal(connection(token)) == (codes.INVALID_TOKEN, cause)


@forged
async def test_a_forged_subscription_token_is_permission_denied(token: str, cause: str) -> None:
    assert await refusal(subscription(token)) == (codes.PERMISSION_DENIED, cause)


async def test_an_honest_rs256_token_is_refused_where_only_hmac_is_configured() -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    token = encode({"sub": "42"}, key, algorithm="RS256")
    assert await refusal(connection(token)) == (codes.INVALID_TOKEN, "no_key")


async def test_an_rsa_public_key_is_no_hmac_secret() -> None:
    """The classic confusion: the public key is public, so whoever has it could sign with it."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    honest = encode({"sub": "42"}, key, algorithm="RS256")
    assert await connection(honest, rsa_public_key=pem) == Identity(user="42")
    for options in ({"hmac_secret_key": ""}, {}):
        for algorithm in ("HS256", "RS256"):
            confused = token_of({"sub": "42"}, secret=pem, algorithm=algorithm)
            answer, cause = await refusal(connection(confused, rsa_public_key=pem, **options))
            assert (answer, cause in {"no_key", "signature"}) == (codes.INVALID_TOKEN, True)


@pytest.mark.parametrize("secret", ["", "x" * 64])
async def test_without_a_secret_no_token_is_good(secret: str) -> None:
    token = token_of({"sub": "42"}, secret=secret)
    assert await refusal(connection(token, hmac_secret_key="")) == (codes.INVALID_TOKEN, "no_key")


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
@pytest.mark.parametrize("secret", [SECRET, PREVIOUS])
async def test_each_hmac_algorithm_is_read_with_the_secret_and_the_one_before_it(algorithm: str, secret: str) -> None:
    token = token_of({"sub": "42"}, algorithm=algorithm, secret=secret)
    assert await connection(token, hmac_previous_secret_key=PREVIOUS) == Identity(user="42")


async def test_the_previous_secret_alone_is_a_secret() -> None:
    token = token_of({"sub": "42"}, secret=PREVIOUS)
    assert await connection(token, hmac_secret_key="", hmac_previous_secret_key=PREVIOUS) == Identity(user="42")


async def test_what_pyjwt_signs_is_read() -> None:
    assert await connection(encode({"sub": "42"}, SECRET, algorithm="HS384")) == Identity(user="42")


@pytest.mark.parametrize("token", [token_of({"sub": "42"}, secret="x"), token_of({"sub": "42"}, algorithm="none")])
async def test_with_the_signature_check_switched_off_anybody_may_sign(token: str) -> None:
    unchecked = TokenVerifier(TokenSettings(), is_signature_checked=False)
    assert await unchecked.connection(token, unix_s=NOW_S) == Identity(user="42")


async def test_with_the_signature_check_switched_off_claims_still_count() -> None:
    unchecked = TokenVerifier(TokenSettings(audience="me"), is_signature_checked=False)
    late, foreign = token_of({"aud": "me", "exp": NOW_S - 1}), token_of({"aud": "you"})
    assert await refusal(unchecked.connection(late, unix_s=NOW_S)) == (codes.TOKEN_EXPIRED, "expired")
    assert await refusal(unchecked.connection(foreign, unix_s=NOW_S)) == (codes.INVALID_TOKEN, "audience")
    assert await refusal(unchecked.connection("a.b.c", unix_s=NOW_S)) == (codes.INVALID_TOKEN, "malformed")


# Audience and issuer.

WHO: list[tuple[dict[str, str], dict[str, Any], str]] = [
    ({"audience": "me"}, {"aud": "me"}, ""),
    ({"audience": "me"}, {"aud": ["you", "me"]}, ""),
    ({"audience": "me"}, {}, "audience"),
    ({"audience": "me"}, {"aud": "you"}, "audience"),
    ({"audience": "me"}, {"aud": "ME"}, "audience"),
    ({"audience": "me"}, {"aud": "me "}, "audience"),
    ({"audience": "me"}, {"aud": []}, "audience"),
    ({"audience": "me"}, {"aud": ["you"]}, "audience"),
    ({"audience": "me"}, {"aud": [["me"]]}, "audience"),
    ({"audience": "me"}, {"aud": {"me": 1}}, "audience"),
    ({"audience": "5"}, {"aud": 5}, "audience"),
    ({"audience_regex": "https://.*"}, {"aud": "https://a.example"}, ""),
    ({"audience_regex": "https://.*"}, {"aud": ["x", "https://a.example"]}, ""),
    ({"audience_regex": "https://.*"}, {"aud": "http://a.example"}, "audience"),
    ({"audience_regex": "me"}, {"aud": "somebody like me"}, "audience"),
    ({"audience_regex": "me"}, {"aud": "me and others"}, "audience"),
    ({"audience_regex": "me"}, {}, "audience"),
    ({"audience_regex": "a|b"}, {"aud": "bc"}, "audience"),
    ({"audience_regex": "me"}, {"aud": "me\n"}, "audience"),
    ({"issuer": "them"}, {"iss": "them"}, ""),
    ({"issuer": "them"}, {"iss": "others"}, "issuer"),
    ({"issuer": "them"}, {"iss": ["them"]}, "issuer"),
    ({"issuer": "them"}, {}, "issuer"),
    ({"issuer_regex": "t.em"}, {"iss": "them"}, ""),
    ({"issuer_regex": "t.em"}, {"iss": "not them"}, "issuer"),
    ({"issuer_regex": "t.em"}, {"iss": ["them"]}, "issuer"),
    ({"issuer_regex": "t.em"}, {}, "issuer"),
    ({"audience": "me", "issuer": "them"}, {"aud": "me", "iss": "them"}, ""),
    ({"audience": "me", "issuer": "them"}, {"aud": "me", "iss": "others"}, "issuer"),
    ({}, {"aud": "whoever", "iss": 5}, ""),
]


@pytest.mark.parametrize(("options", "claims", "cause"), WHO)
async def test_audience_and_issuer_must_be_the_configured_ones(
    options: dict[str, str], claims: dict[str, Any], cause: str
) -> None:
    token = token_of(FOR_NEWS | claims)
    to_connect = token_of({"sub": "42"} | claims)
    if cause:
        assert await refusal(connection(to_connect, **options)) == (codes.INVALID_TOKEN, cause)
        assert await refusal(subscription(token, **options)) == (codes.PERMISSION_DENIED, cause)
    else:
        assert await connection(to_connect, **options) == Identity(user="42")
        assert await subscription(token, **options) == Grant("news")


@pytest.mark.parametrize("options", [{"audience_regex": "("}, {"issuer_regex": "["}, {"user_id_claim": "a b"}])
def test_settings_that_can_not_work_are_refused_at_birth(options: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        TokenSettings(**options)  # type: ignore[arg-type]


def test_settings_do_not_show_their_secrets() -> None:
    shown = repr(TokenSettings(hmac_secret_key=SECRET, hmac_previous_secret_key=PREVIOUS))
    assert SECRET not in shown
    assert PREVIOUS not in shown


# Time.

EXPIRED = (codes.TOKEN_EXPIRED, "expired")
NOT_YET = (codes.TOKEN_EXPIRED, "not_yet_valid")
PASSED = (codes.EXPIRED, "expire_at_passed")

TIMES: list[tuple[dict[str, Any], float, int | tuple[Answer, str]]] = [
    ({}, 0, 0),
    ({"exp": None}, 0, 0),
    ({"exp": NOW_S + 1}, 0, int(NOW_S) + 1),
    ({"exp": NOW_S + 1.5}, 0, int(NOW_S) + 1),
    ({"exp": NOW_S}, 0, EXPIRED),
    ({"exp": NOW_S - 1}, 0, EXPIRED),
    ({"exp": 1}, 0, EXPIRED),
    ({"exp": -1}, 0, EXPIRED),
    ({"exp": -1e15}, 0, EXPIRED),
    ({"exp": NOW_S - 9}, 10, int(NOW_S) - 9),
    ({"exp": NOW_S - 10}, 10, EXPIRED),
    ({"nbf": NOW_S}, 0, 0),
    ({"nbf": NOW_S - 1}, 0, 0),
    ({"nbf": NOW_S + 1}, 0, NOT_YET),
    ({"nbf": NOW_S + 10}, 10, 0),
    ({"nbf": NOW_S + 11}, 10, NOT_YET),
    ({"exp": NOW_S - 1, "nbf": NOW_S + 1}, 0, EXPIRED),
    ({"exp": NOW_S + 60, "expire_at": 0}, 0, 0),
    ({"exp": NOW_S + 60, "expire_at": None}, 0, int(NOW_S) + 60),
    ({"exp": NOW_S + 60, "expire_at": NOW_S + 5}, 0, int(NOW_S) + 5),
    ({"exp": NOW_S + 60, "expire_at": NOW_S + 500}, 0, int(NOW_S) + 500),
    ({"expire_at": NOW_S + 5}, 0, int(NOW_S) + 5),
    ({"expire_at": NOW_S - 1}, 0, PASSED),
    ({"expire_at": -1}, 0, PASSED),
    ({"exp": NOW_S - 1, "expire_at": NOW_S + 5}, 0, EXPIRED),
    ({"exp": NOW_S - 1, "expire_at": 0}, 0, EXPIRED),
    ({"iat": "whenever", "jti": 5}, 0, 0),
]


@pytest.mark.parametrize(("claims", "leeway_s", "expected"), TIMES)
async def test_expiry_is_read_as_the_specification_says(
    claims: dict[str, Any], leeway_s: float, expected: int | tuple[Answer, str]
) -> None:
    to_connect, token = token_of({"sub": "42"} | claims), token_of(FOR_NEWS | claims)
    if isinstance(expected, int):
        assert await connection(to_connect, leeway_s=leeway_s) == Identity(user="42", expires_at_s=expected)
        assert await subscription(token, leeway_s=leeway_s) == Grant("news", expires_at_s=expected)
    else:
        assert await refusal(connection(to_connect, leeway_s=leeway_s)) == expected
        assert await refusal(subscription(token, leeway_s=leeway_s)) == expected


@pytest.mark.parametrize("claim", ["exp", "nbf", "expire_at"])
@pytest.mark.parametrize(
    "value", ["1900000000", "soon", True, [1900000000], {"a": 1}, 1e300, -1e300, float("inf"), float("nan")]
)
async def test_a_time_that_is_no_number_makes_a_token_invalid(claim: str, value: Any) -> None:
    invalid = f"{claim}_not_a_time"
    assert await refusal(connection(token_of({claim: value}))) == (codes.INVALID_TOKEN, invalid)
    assert await refusal(subscription(token_of(FOR_NEWS | {claim: value}))) == (codes.PERMISSION_DENIED, invalid)


@pytest.mark.parametrize("value", ["", False, [], {}])
async def test_an_expiry_that_is_empty_or_false_does_not_make_a_token_eternal(value: Any) -> None:
    assert (await refusal(connection(token_of({"sub": "42", "exp": value}))))[0] == codes.INVALID_TOKEN


@pytest.mark.parametrize("value", [0, 0.0])
async def test_an_exp_of_zero_has_passed_long_ago(value: float) -> None:
    """protocol.md 5.1: `exp` ≤ now is "token expired"; it is `expire_at` for which 0 means never."""
    assert await refusal(connection(token_of({"sub": "42", "exp": value}))) == EXPIRED


async def test_the_signature_is_judged_before_the_claims_and_the_audience_before_the_time() -> None:
    late = {"exp": NOW_S - 1, "aud": "you"}
    assert await refusal(connection(token_of(late, secret="x"))) == (codes.INVALID_TOKEN, "signature")
    assert await refusal(connection(token_of(late), audience="me")) == (codes.INVALID_TOKEN, "audience")


# Who.

USERS: list[tuple[str, dict[str, Any], str | None]] = [
    ("", {"sub": "42"}, "42"),
    ("", {"sub": "Zoë ☃"}, "Zoë ☃"),
    ("", {"sub": ""}, ""),
    ("", {"sub": None}, ""),
    ("", {}, ""),
    ("", {"sub": 42}, None),
    ("", {"sub": 0}, None),
    ("", {"sub": True}, None),
    ("", {"sub": ["42"]}, None),
    ("uid", {"uid": "42", "sub": "7"}, "42"),
    ("uid", {"sub": "7"}, ""),
    ("uid", {"uid": 42}, None),
    ("https://example.com/user", {"https://example.com/user": "42"}, "42"),
]


@pytest.mark.parametrize(("claim", "claims", "user"), USERS)
async def test_the_user_is_the_text_of_its_claim(claim: str, claims: dict[str, Any], user: str | None) -> None:
    options = {"user_id_claim": claim}
    token, for_news = token_of(claims), token_of(claims | {"channel": "news"})
    if user is None:
        assert await refusal(connection(token, **options)) == (codes.INVALID_TOKEN, "user_not_a_string")
        assert await refusal(subscription(for_news, user="42", **options)) == (
            codes.PERMISSION_DENIED,
            "user_not_a_string",
        )
    else:
        assert await connection(token, **options) == Identity(user=user)
        assert await subscription(for_news, user=user, **options) == Grant("news")
        assert await refusal(subscription(for_news, user="somebody else", **options)) == (
            codes.INVALID_TOKEN,
            "other_user",
        )


# Connection tokens (5.2).


@pytest.mark.parametrize("channel", ["news", "", 5, False, []])
async def test_a_connection_token_with_a_channel_claim_is_invalid(channel: Any) -> None:
    assert await refusal(connection(token_of({"channel": channel}))) == (codes.INVALID_TOKEN, "channel_claim")


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


PAYLOADS: list[tuple[dict[str, Any], bytes]] = [
    ({"info": {"name": "Zoë"}}, '{"name":"Zoë"}'.encode()),
    ({"info": []}, b"[]"),
    ({"info": ""}, b'""'),
    ({"info": 0}, b"0"),
    ({"info": False}, b"false"),
    ({"info": None}, b""),
    ({"info": 2**70}, str(2**70).encode()),
    ({"b64info": encoded(b'{"a": 1}')}, b'{"a": 1}'),
    ({"b64info": encoded(b'{"a": 1}'), "info": {"b": 2}}, b'{"a": 1}'),
    ({"b64info": "", "info": {"b": 2}}, b'{"b":2}'),
    ({"b64info": None, "info": {"b": 2}}, b'{"b":2}'),
]


@pytest.mark.parametrize(("claims", "expected"), PAYLOADS)
async def test_info_is_json_or_base64_which_wins(claims: dict[str, Any], expected: bytes) -> None:
    assert await connection(token_of({"sub": "42"} | claims)) == Identity(user="42", info=Raw(expected))
    assert await subscription(token_of(FOR_NEWS | claims)) == Grant("news", info=Raw(expected))
    as_data = {name.replace("info", "data"): value for name, value in claims.items()}
    assert await subscription(token_of(FOR_NEWS | as_data)) == Grant("news", data=Raw(expected))


BAD_BASE64 = ["****", "e30", "e30=\n", "é", 5, True, ["e30="], {"a": 1}]


@pytest.mark.parametrize("value", BAD_BASE64)
async def test_bad_base64_is_an_internal_error_at_the_top_and_an_invalid_token_in_subs(value: Any) -> None:
    assert await refusal(connection(token_of({"b64info": value}))) == (codes.INTERNAL_ERROR, "b64info")
    assert await refusal(subscription(token_of(FOR_NEWS | {"b64info": value}))) == (codes.INTERNAL_ERROR, "b64info")
    assert await refusal(subscription(token_of(FOR_NEWS | {"b64data": value}))) == (codes.INTERNAL_ERROR, "b64data")
    for name in ("b64info", "b64data"):
        subs = {"subs": {"news": {name: value}}}
        assert await refusal(connection(token_of(subs))) == (codes.INVALID_TOKEN, name)


@pytest.mark.parametrize("data", [b"no json", b'{"a":1}\n{"b":2}', b"\xff", b'"\xff"'])
async def test_base64_that_holds_no_json_is_refused_since_it_would_break_the_frames_of_others(data: bytes) -> None:
    """`b64info` is "the same as" `info`, "any JSON" (5.2); it goes unchecked into the frames of JSON subscribers."""
    assert await refusal(connection(token_of({"b64info": encoded(data)}))) == (codes.INTERNAL_ERROR, "b64info")


GRANTS: list[tuple[dict[str, Any], tuple[Grant, ...]]] = [
    ({"channels": ["news", "chat:1"]}, (Grant("news"), Grant("chat:1"))),
    ({"channels": ["news", "news"]}, (Grant("news"),)),
    ({"channels": []}, ()),
    ({"channels": None}, ()),
    ({"subs": {"news": {}}}, (Grant("news"),)),
    ({"subs": {"news": None}}, (Grant("news"),)),
    ({"subs": {}, "channels": ["news"]}, (Grant("news"),)),
    ({"subs": None, "channels": ["news"]}, (Grant("news"),)),
    ({"subs": {"a": {}}, "channels": ["news"]}, (Grant("a"),)),
    ({"subs": {"a": {"info": {"x": 1}, "data": [2]}}}, (Grant("a", info=Raw(b'{"x":1}'), data=Raw(b"[2]")),)),
    (
        {"subs": {"a": {"b64info": encoded(b"1"), "b64data": encoded(b"2"), "info": 3, "data": 4}}},
        (Grant("a", info=Raw(b"1"), data=Raw(b"2")),),
    ),
    (
        {"subs": {"a": {"override": {"presence": {"value": True}}}, "b": {"unknown": 1}}},
        (Grant("a", overrides=Overrides(presence=True)), Grant("b")),
    ),
]


@pytest.mark.parametrize(("claims", "grants"), GRANTS)
async def test_server_side_subscriptions_are_subs_or_else_channels(
    claims: dict[str, Any], grants: tuple[Grant, ...]
) -> None:
    assert await connection(token_of({"sub": "42"} | claims)) == Identity(user="42", grants=grants)


@pytest.mark.parametrize(
    ("claims", "cause"),
    [
        ({"channels": "news"}, "channels"),
        ({"channels": [1]}, "channels"),
        ({"channels": {"news": {}}}, "channels"),
        ({"subs": ["news"]}, "subs"),
        ({"subs": "news"}, "subs"),
        ({"subs": {"news": 5}}, "subs"),
        ({"subs": {"news": {"override": 5}}}, "override"),
        ({"subs": {"news": {"override": {"presence": {"value": 1}}}}}, "override"),
    ],
)
async def test_server_side_subscriptions_of_a_wrong_form_make_the_token_invalid(
    claims: dict[str, Any], cause: str
) -> None:
    assert await refusal(connection(token_of({"sub": "42"} | claims))) == (codes.INVALID_TOKEN, cause)


async def test_all_claims_of_a_connection_token_together() -> None:
    claims = {
        "sub": "42",
        "exp": NOW_S + 600,
        "expire_at": NOW_S + 300,
        "iat": NOW_S,
        "nbf": NOW_S,
        "jti": "1",
        "aud": ["me"],
        "iss": "them",
        "info": {"name": "Zoë"},
        "channels": ["a"],
        "subs": {"b": {"data": 1}},
        "meta": {"hidden": True},
        "unknown": [1, 2],
    }
    assert await connection(token_of(claims), audience="me", issuer="them") == Identity(
        user="42",
        info=Raw('{"name":"Zoë"}'.encode()),
        expires_at_s=int(NOW_S) + 300,
        grants=(Grant("b", data=Raw(b"1")),),
        meta=Raw(b'{"hidden":true}'),
    )


# Subscription tokens (5.3).


@pytest.mark.parametrize(
    ("claims", "answer", "cause"),
    [
        ({"sub": "42"}, codes.PERMISSION_DENIED, "no_channel_claim"),
        ({"sub": "42", "channel": ""}, codes.PERMISSION_DENIED, "no_channel_claim"),
        ({"sub": "42", "channel": None}, codes.PERMISSION_DENIED, "no_channel_claim"),
        ({"sub": "42", "channel": 5}, codes.PERMISSION_DENIED, "no_channel_claim"),
        ({"sub": "42", "channel": ["news"]}, codes.PERMISSION_DENIED, "no_channel_claim"),
        ({"sub": "42", "channel": "other"}, codes.INVALID_TOKEN, "other_channel"),
        ({"sub": "42", "channel": "NEWS"}, codes.INVALID_TOKEN, "other_channel"),
        ({"sub": "42", "channel": "$news"}, codes.INVALID_TOKEN, "other_channel"),
        ({"sub": "7", "channel": "news"}, codes.INVALID_TOKEN, "other_user"),
        ({"channel": "news"}, codes.INVALID_TOKEN, "other_user"),
        (FOR_NEWS | {"client": "c2"}, codes.INVALID_TOKEN, "other_client"),
        (FOR_NEWS | {"client": 5}, codes.INVALID_TOKEN, "other_client"),
        (FOR_NEWS | {"override": 5}, codes.PERMISSION_DENIED, "override"),
        (FOR_NEWS | {"override": {"presence": True}}, codes.PERMISSION_DENIED, "override"),
        (FOR_NEWS | {"override": {"presence": {"value": "yes"}}}, codes.PERMISSION_DENIED, "override"),
    ],
)
async def test_a_subscription_token_for_something_else_is_refused(
    claims: dict[str, Any], answer: Answer, cause: str
) -> None:
    assert await refusal(subscription(token_of(claims))) == (answer, cause)


@pytest.mark.parametrize("client", ["c1", "", None])
async def test_the_client_claim_binds_a_subscription_token_only_when_it_is_set(client: str | None) -> None:
    assert await subscription(token_of(FOR_NEWS | {"client": client})) == Grant("news")


async def test_an_anonymous_connection_shows_a_token_without_a_user() -> None:
    assert await subscription(token_of({"channel": "news"}), user="") == Grant("news")


OVERRIDES: list[tuple[Any, Overrides]] = [
    (None, Overrides()),
    ({}, Overrides()),
    ({"presence": {}}, Overrides()),
    ({"presence": {"value": True}}, Overrides(presence=True)),
    ({"presence": {"value": False}}, Overrides(presence=False)),
    ({"unknown": {"value": True}}, Overrides()),
    (
        {name: {"value": True} for name in Overrides.__struct_fields__},
        Overrides(
            presence=True, join_leave=True, force_push_join_leave=True, force_positioning=True, force_recovery=True
        ),
    ),
]


@pytest.mark.parametrize(("claim", "overrides"), OVERRIDES)
async def test_overrides_say_true_false_or_nothing(claim: Any, overrides: Overrides) -> None:
    assert await subscription(token_of(FOR_NEWS | {"override": claim})) == Grant("news", overrides=overrides)


# Whatever comes.


@pytest.mark.parametrize(
    "token",
    [
        "\ud800",
        token_of({"sub": "\ud800"}),
        token_of({"sub": "42", "info": "\ud800"}),
        token_of({"sub": "42", "channels": ["\ud800"]}),
        token_of({"sub": "42", "subs": {"a": {"data": "\ud800"}}}),
    ],
    ids=["token", "sub", "info", "channels", "data"],
)
async def test_half_a_surrogate_pair_makes_a_token_invalid_since_it_can_not_be_encoded(token: str) -> None:
    assert (await refusal(connection(token)))[0] == codes.INVALID_TOKEN


async def survives(token: str) -> None:
    """Check that *token* is read or refused, by every kind of verifier."""
    verifiers = (
        verifier(),
        verifier(hmac_previous_secret_key=PREVIOUS, audience_regex="a+", issuer="b", user_id_claim="uid"),
        TokenVerifier(TokenSettings(hmac_secret_key=SECRET), is_signature_checked=False),
    )
    for each in verifiers:
        for reading in (
            each.connection(token, unix_s=NOW_S),
            each.subscription(token, channel="news", user="42", client="c1", unix_s=NOW_S),
        ):
            try:
                assert isinstance(await reading, Identity | Grant)
            except TokenRefusedError as refused:
                assert refused.answer in (*codes.ERRORS, *codes.DISCONNECTS)  # noqa: PT017 - being read is fine too
                assert refused.cause.replace("_", "").isalnum()  # noqa: PT017


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
_CLAIMS = "sub exp nbf iat jti expire_at aud iss info b64info data b64data channels subs channel client override uid"
CLAIMS = st.dictionaries(st.sampled_from(_CLAIMS.split()) | st.text(max_size=8), JSON, max_size=6)


@given(st.text() | st.from_regex(r"[\w+/=-]*\.[\w+/=-]*\.[\w+/=.-]*", fullmatch=True))
@settings(deadline=None)
async def test_no_text_does_more_than_being_refused(token: str) -> None:
    await survives(token)


@given(CLAIMS.flatmap(lambda claims: st.sampled_from([claims, claims | FOR_NEWS])))
@settings(deadline=None)
async def test_no_claims_do_more_than_being_refused(claims: dict[str, Any]) -> None:
    await survives(token_of(claims))


@given(
    JSON | st.fixed_dictionaries({"alg": JSON | st.sampled_from(["HS256", "none", "RS256"])}, optional={"kid": JSON})
)
@settings(deadline=None)
async def test_no_header_does_more_than_being_refused(header: Any) -> None:
    await survives(token_of(FOR_NEWS, header=b"null" if header is None else header))


@given(st.data())
@settings(deadline=None)
async def test_a_token_changed_anywhere_is_refused(data: st.DataObject) -> None:
    token = token_of({"sub": "42"})
    position = data.draw(st.integers(0, len(token) - 2))
    letter = data.draw(st.characters(exclude_characters=token[position], exclude_categories=["Cs"]))
    changed = token[:position] + letter + token[position + 1 :]
    assert (await refusal(connection(changed)))[0] == codes.INVALID_TOKEN
