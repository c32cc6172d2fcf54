"""Session cookies: read by every node that has the key, and by none when anything about them is wrong."""

import base64
import hashlib
import itertools

import pytest
from itsdangerous import URLSafeSerializer

from gateway.api.admin.sessions import COOKIE, Sessions, Ticket, cookie_of

NOW_S = 1_700_000_000.25
KEYS = {"ops": b"digest of one key", "ci": b"digest of another"}


def sessions(keys: dict[str, bytes], *, ttl_s: float = 3600.0) -> Sessions:
    ids = itertools.count(1)
    return Sessions(lambda: keys, ttl_s=ttl_s, new_id=lambda: f"session {next(ids)}")


def test_a_session_is_read_by_every_node_that_has_its_key() -> None:
    cookie = sessions(KEYS).open("ops", unix_s=NOW_S)
    expected = Ticket("ops", "session 1", 1_700_003_600)
    assert sessions(KEYS).read(cookie, unix_s=NOW_S) == expected
    assert sessions({"ops": KEYS["ops"]}).read(cookie, unix_s=NOW_S + 3599) == expected


def test_a_session_ends_on_time() -> None:
    node = sessions(KEYS)
    cookie = node.open("ops", unix_s=NOW_S)
    assert node.read(cookie, unix_s=NOW_S + 3600) is None


@pytest.mark.parametrize(
    "keys",
    [
        pytest.param({"ops": b"digest of a new key"}, id="changed"),
        pytest.param({"ci": KEYS["ci"]}, id="taken away"),
        pytest.param({"former ops": KEYS["ops"]}, id="under another name"),
        pytest.param({}, id="no keys at all"),
    ],
)
def test_a_key_that_is_no_more_ends_its_sessions(keys: dict[str, bytes]) -> None:
    current = dict(KEYS)
    node = sessions(current)
    cookie = node.open("ops", unix_s=NOW_S)
    ticket = node.read(cookie, unix_s=NOW_S)
    assert ticket is not None
    current.clear()
    current.update(keys)
    assert node.read(cookie, unix_s=NOW_S) is None


def test_one_key_s_change_leaves_the_sessions_of_others() -> None:
    current = dict(KEYS)
    node = sessions(current)
    cookie = node.open("ci", unix_s=NOW_S)
    current["ops"] = b"digest of a new key"
    assert node.read(cookie, unix_s=NOW_S) == Ticket("ci", "session 1", 1_700_003_600)


def _signed(payload: object, *, secret: bytes = KEYS["ops"], salt: str = "gateway admin session") -> str:
    signer_kwargs = {"key_derivation": "hmac", "digest_method": hashlib.sha256}
    signed: str = URLSafeSerializer(secret, salt=salt, signer_kwargs=signer_kwargs).dumps(payload)
    return signed


GOOD = ["ops", "session 1", 1_700_003_600]


@pytest.mark.parametrize(
    "cookie",
    [
        pytest.param(None, id="none"),
        pytest.param("", id="empty"),
        pytest.param("nonsense", id="nonsense"),
        pytest.param("a.b.c.d", id="dots"),
        pytest.param("ü" * 10, id="not ASCII"),
        pytest.param("x" * 5000, id="too long"),
        pytest.param(base64.urlsafe_b64encode(b'["ops","s",99999999999]').decode() + ".", id="not signed"),
        pytest.param(_signed(GOOD)[:-2] + "AA", id="signature changed"),
        pytest.param("V" + _signed(GOOD)[1:], id="content changed"),
        pytest.param(_signed(GOOD, secret=b"guessed"), id="another secret"),
        pytest.param(_signed(GOOD, salt="something else"), id="signed for something else"),
        pytest.param(_signed(["ci", "session 1", 1_700_003_600]), id="another key's name"),
        pytest.param(_signed({"key": "ops"}), id="another form"),
        pytest.param(_signed(["ops", "session 1"]), id="no end"),
        pytest.param(_signed(["ops", "session 1", "2099"]), id="an end that is no number"),
    ],
)
def test_a_cookie_that_is_none_opens_nothing(cookie: str | None) -> None:
    assert sessions(KEYS).read(cookie, unix_s=NOW_S) is None


def test_the_forger_of_these_tests_could_sign_if_he_had_the_secret() -> None:
    assert sessions(KEYS).read(_signed(GOOD), unix_s=NOW_S) == Ticket("ops", "session 1", 1_700_003_600)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, None),
        ("", None),
        ("a=1; b=2", None),
        (f"{COOKIE}=x.y-z_", "x.y-z_"),
        (f"a=1;{COOKIE}=x; b=2", "x"),
        (f"a={COOKIE}; x{COOKIE}=1", None),
        (f"{COOKIE}", ""),
    ],
)
def test_the_cookie_is_found_among_others(header: str | None, expected: str | None) -> None:
    assert cookie_of(header) == expected
