"""What the doctor finds suspicious in proxies, and what it has nothing against."""

from typing import Any

import pytest

from gateway.config import load, merge
from gateway.doctor.finding import Verdict
from gateway.doctor.proxies import check_proxies

CONNECT: dict[str, Any] = {
    "client": {
        "allowed_origins": ["https://app.example.com"],
        "proxy": {"connect": {"enabled": True, "endpoint": "http://backend/x", "http_headers": ["Cookie"]}},
    }
}


def connect(**settings: Any) -> dict[str, Any]:
    return {"client": {"proxy": {"connect": settings}}}


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ({}, []),
        (connect(enabled=False, timeout="10s"), []),
        (
            {"client": {"allowed_origins": ["*"]}},
            [("error", "pages of every site connect with their visitors' cookies")],
        ),
        ({"client": {"allowed_origins": ["*"], "proxy": {"connect": {"http_headers": ["Origin"]}}}}, []),
        (
            connect(emulated_headers=["X-Key"], http={"static_headers": {"x-key": "1"}}),
            [("warning", "connect proxy 'default': a client may put its own x-key in the place of the static one")],
        ),
        (
            connect(http_headers=["X-Key", "Cookie"], http={"static_headers": {"x-key": "1"}}),
            [("warning", "connect proxy 'default': a client may put its own x-key in the place of the static one")],
        ),
        (
            connect(emulated_headers=["X-Forwarded-For", "Authorization"]),
            [("warning", "connect proxy 'default': a client writes x-forwarded-for as it likes, by emulated_headers")],
        ),
        (connect(timeout="5s"), [("warning", "connect proxy 'default': timeout is 5 s")]),
        (
            connect(http={"tls": {"enabled": True, "insecure_skip_verify": True}}),
            [("warning", "connect proxy 'default': any server is taken for the backend")],
        ),
    ],
)
def test_what_is_suspicious_is_told_with_what_to_do(table: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    findings = list(check_proxies(load(base=merge(CONNECT, table))))
    assert all(each.advice and each.subject == "proxies" for each in findings)
    assert [(each.verdict.word, each.text) for each in findings if each.verdict is not Verdict.OK] == expected
