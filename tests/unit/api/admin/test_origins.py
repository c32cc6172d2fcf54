"""Which requests a browser vouches for."""

import pytest
from starlette.datastructures import Headers

from gateway.api.admin.origins import is_from_own_page, is_secure

HERE = {"host": "gateway.internal:9000", "origin": "http://gateway.internal:9000"}


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        (HERE, True),
        (HERE | {"sec-fetch-site": "same-origin"}, True),
        (HERE | {"origin": "https://gateway.internal:9000"}, True),
        (HERE | {"origin": "http://Gateway.Internal:9000"}, True),
        (HERE | {"sec-fetch-site": "same-site"}, False),
        (HERE | {"sec-fetch-site": "cross-site"}, False),
        (HERE | {"sec-fetch-site": "none"}, False),
        (HERE | {"origin": "http://gateway.internal"}, False),
        (HERE | {"origin": "http://gateway.internal:9001"}, False),
        (HERE | {"origin": "http://evil.example"}, False),
        (HERE | {"origin": "http://gateway.internal:9000@evil.example"}, False),
        (HERE | {"origin": "null"}, False),
        (HERE | {"origin": "http://[::1"}, False),
        ({"host": "gateway.internal:9000"}, False),
        ({"host": "gateway.internal:9000", "sec-fetch-site": "same-origin"}, False),
        ({"origin": "http://gateway.internal:9000"}, False),
        ({"host": "", "origin": "file://"}, False),
        ({}, False),
    ],
)
def test_only_a_page_of_this_server_is_believed(headers: dict[str, str], expected: bool) -> None:  # noqa: FBT001
    assert is_from_own_page(Headers(headers)) is expected


@pytest.mark.parametrize(
    ("scheme", "origin", "expected"),
    [
        ("https", "https://here", True),
        ("http", "https://here", True),
        ("http", "http://here", False),
        ("http", None, False),
    ],
)
def test_tls_is_known_even_behind_a_proxy(scheme: str, origin: str | None, expected: bool) -> None:  # noqa: FBT001
    headers = Headers({"origin": origin} if origin else {})
    assert is_secure(headers, scheme=scheme) is expected
