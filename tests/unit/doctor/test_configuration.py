"""What the doctor finds suspicious in a configuration, and what it has nothing against."""

from typing import Any, Final

import pytest

from gateway.config import load, merge
from gateway.doctor.configuration import check_configuration
from gateway.doctor.finding import Verdict

SECRET: Final = "0123456789abcdef0123456789abcdef"
GOOD: Final[dict[str, Any]] = {
    "client": {"token": {"hmac_secret_key": SECRET}, "allowed_origins": ["https://app.example.com"]},
    "channel": {"namespaces": [{"name": "chat", "allow_subscribe_for_client": True}]},
    "http_server": {"trusted_proxies": ["10.0.0.0/8"]},
}
OPEN: Final = {"name": "chat", "allow_subscribe_for_client": True}


def found(*tables: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Return what is not ok: how bad, about what, and the text."""
    values = GOOD
    for table in tables:
        values = merge(values, table)
    findings = list(check_configuration(load(base=values)))
    assert all(each.advice for each in findings if each.verdict is not Verdict.OK), "what is wrong comes with advice"
    assert not any(SECRET in each.text + each.advice for each in findings)
    return [(each.verdict.word, each.subject, each.text) for each in findings if each.verdict is not Verdict.OK]


def test_a_good_configuration_has_nothing_against_it() -> None:
    assert found() == []


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        (
            {"client": {"token": {"hmac_secret_key": "short"}}},
            ("warning", "tokens", "client.token.hmac_secret_key is shorter than 32 bytes"),
        ),
        (
            {"client": {"token": {"hmac_secret_key": ""}}},
            ("error", "tokens", "client.token has no key: no token is good"),
        ),
        (
            {"client": {"subscription_token": {"enabled": True}}},
            ("error", "tokens", "client.subscription_token has no key: no token is good"),
        ),
        (
            {"client": {"token": {"jwks_public_endpoint": "http://keys.example/"}}},
            ("warning", "tokens", "client.token.jwks_public_endpoint is fetched without TLS"),
        ),
        (
            {"client": {"token": {"hmac_previous_secret_key": SECRET[::-1]}}},
            ("warning", "tokens", "client.token.hmac_previous_secret_key is still good"),
        ),
        (
            {"client": {"allowed_origins": ["*"]}},
            (
                "warning",
                "origins",
                "client.allowed_origins lets pages of every site connect in their visitors' names",
            ),
        ),
        (
            {"client": {"insecure": True}},
            ("error", "switches", "client.insecure lets everybody in, and everybody do everything"),
        ),
        (
            {"client": {"insecure_skip_token_signature_verify": True}},
            (
                "error",
                "switches",
                "client.insecure_skip_token_signature_verify takes tokens that anybody may have written",
            ),
        ),
        (
            {"redis": {"tls": {"enabled": True, "insecure_skip_verify": True}}},
            ("warning", "switches", "redis.tls.insecure_skip_verify takes any server for Redis"),
        ),
        (
            {"playground": {"enabled": True}},
            ("warning", "switches", "playground.enabled shows a page for trying things out to everybody"),
        ),
        (
            {"channel": {"namespaces": []}},
            ("warning", "namespaces", "none allows clients anything without a subscription token"),
        ),
        (
            {"channel": {"namespaces": [{"name": "chat"}]}},
            ("warning", "namespaces", "none allows clients anything without a subscription token"),
        ),
        (
            {"channel": {"namespaces": [OPEN, {"name": "news"}]}},
            ("warning", "namespaces", "news: allows clients nothing by itself"),
        ),
        (
            {"http_server": {"trusted_proxies": []}},
            ("warning", "exposure", "tokens reach the public port in clear text"),
        ),
        (
            {"http_server": {"internal_address": "0.0.0.0"}},  # noqa: S104 - that is what is found
            ("warning", "exposure", "the internal port listens on 0.0.0.0"),
        ),
        (
            {"http_server": {"trusted_proxies": ["0.0.0.0/0"]}},
            ("error", "exposure", "http_server.trusted_proxies trusts everybody's word on their address"),
        ),
        ({"http_api": {"key": "k"}}, ("warning", "api keys", "http_api.key is shorter than 16 bytes")),
        (
            {"http_api": {"keys": [{"name": "backend", "key": "k"}]}},
            ("warning", "api keys", "http_api.keys[backend] is shorter than 16 bytes"),
        ),
        ({"client": {"ping_interval": "90s"}}, ("warning", "times", "client.ping_interval is 90 s")),
    ],
)
def test_each_suspicious_value_is_named(table: dict[str, Any], expected: tuple[str, str, str]) -> None:
    assert found(table) == [expected]


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "unix:/run/gateway.sock", "localhost"])
def test_what_only_this_machine_reaches_needs_no_tls(address: str) -> None:
    assert found({"http_server": {"trusted_proxies": [], "address": address}}) == []


def test_anonymous_access_needs_no_key() -> None:
    client = {"token": {"hmac_secret_key": ""}, "allow_anonymous_connect_without_token": True}
    assert found({"client": client}) == []
