import hmac

import pytest
from pydantic import ValidationError

from gateway.api.keys import HTTPAPISettings, KeyHolder, KeyRing
from gateway.protocol.server_api import Scope

ALL = frozenset(Scope)
RING = KeyRing(
    HTTPAPISettings.model_validate(
        {
            "key": "the only one",
            "keys": [
                {"name": "shop", "key": "p" * 32, "scopes": ["publish"]},
                {"name": "page", "key": "r" * 32, "scopes": ["read"]},
                {"name": "both", "key": "b" * 32, "scopes": ["read", "publish"]},
                {"name": "boss", "key": "a" * 32, "scopes": ["admin"]},
                {"name": "unsaid", "key": "ключ"},
            ],
        }
    )
)


@pytest.mark.parametrize(
    ("shown", "holder"),
    [
        ("the only one", KeyHolder("http_api.key", ALL)),
        ("p" * 32, KeyHolder("shop", frozenset({Scope.PUBLISH}))),
        ("r" * 32, KeyHolder("page", frozenset({Scope.READ}))),
        ("b" * 32, KeyHolder("both", frozenset({Scope.READ, Scope.PUBLISH}))),
        ("a" * 32, KeyHolder("boss", ALL)),
        ("ключ", KeyHolder("unsaid", ALL)),
        ("", None),
        ("the only on", None),
        ("the only one ", None),
        ("the only one" * 1000, None),
    ],
)
def test_a_key_opens_what_its_scopes_say_and_a_wrong_one_nothing(shown: str, holder: KeyHolder | None) -> None:
    assert RING.holder(shown.encode()) == holder


def test_without_keys_nobody_is_let_in() -> None:
    ring = KeyRing(HTTPAPISettings())
    assert [ring.holder(shown) for shown in (b"", b"x")] == [None, None]


def test_the_admin_scope_includes_the_others() -> None:
    boss = RING.holder(b"a" * 32)
    assert boss is not None
    assert [boss.may(scope) for scope in Scope] == [True, True, True]


def test_keys_that_were_changed_are_no_longer_good() -> None:
    ring = KeyRing(HTTPAPISettings(key="old"))
    ring.change(HTTPAPISettings(key="new"))
    assert ring.holder(b"old") is None
    assert ring.holder(b"new") == KeyHolder("http_api.key", ALL)


def test_every_key_is_compared_whichever_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[bytes] = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append(one)
        return one == other

    monkeypatch.setattr(hmac, "compare_digest", compare)
    assert RING.holder(b"p" * 32) is not None
    assert len(compared) == 6


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"keys": [{"name": "a", "key": "1"}, {"name": "a", "key": "2"}]}, "each name once, please: a is the name"),
        ({"keys": [{"name": "a", "key": "1"}, {"name": "b", "key": "1"}]}, "the same key is listed more than once"),
        ({"key": "1", "keys": [{"name": "b", "key": "1"}]}, "the same key is listed more than once"),
        ({"keys": [{"name": "a", "key": ""}]}, "at least 1 character"),
        ({"keys": [{"name": "", "key": "1"}]}, "should match pattern"),
        ({"keys": [{"name": "a\nb", "key": "1"}]}, "should match pattern"),
        ({"keys": [{"key": "1"}]}, "Field required"),
        ({"keys": [{"name": "a", "key": "1", "scopes": []}]}, "at least 1 item"),
        ({"keys": [{"name": "a", "key": "1", "scopes": ["write"]}]}, "must be one of 'publish', 'read', 'admin'"),
        ({"error_mode": "http"}, "must be one of '', 'transport'"),
    ],
)
def test_a_table_that_can_not_be_meant_is_refused_with_what_is_wrong(table: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        HTTPAPISettings.model_validate(table)
