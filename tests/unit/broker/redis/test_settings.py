from typing import Any

import pytest
from pydantic import ValidationError

from gateway.broker.redis.settings import RedisSettings

SECRET = "s3cret/#@:"
ESCAPED = "s3cret%2F%23%40%3A"


def read(**values: Any) -> RedisSettings:
    return RedisSettings.model_validate(values, by_alias=True, by_name=False)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, ("127.0.0.1:6379", "", "", 0, False)),
        ({"address": "redis.internal:7000"}, ("redis.internal:7000", "", "", 0, False)),
        ({"address": "[::1]:7000", "db": 3}, ("[::1]:7000", "", "", 3, False)),
        ({"address": "unix:/run/redis.sock", "password": "p"}, ("unix:/run/redis.sock", "", "p", 0, False)),
        ({"address": "redis://h"}, ("h:6379", "", "", 0, False)),
        ({"address": "redis://h:7/2"}, ("h:7", "", "", 2, False)),
        ({"address": "redis://h:7?db=2"}, ("h:7", "", "", 2, False)),
        ({"address": "redis://h:7/2?db=2"}, ("h:7", "", "", 2, False)),
        ({"address": "rediss://[::1]"}, ("[::1]:6379", "", "", 0, True)),
        ({"address": f"redis://:{ESCAPED}@h"}, ("h:6379", "", SECRET, 0, False)),
        ({"address": f"rediss://ann:{ESCAPED}@h:7/1"}, ("h:7", "ann", SECRET, 1, True)),
        ({"address": "redis://ann@h", "password": "p"}, ("h:6379", "ann", "p", 0, False)),
        ({"address": "redis://ann:p@h", "user": "ann", "password": "p"}, ("h:6379", "ann", "p", 0, False)),
        ({"address": "unix://ann:p@/run/r.sock?db=4"}, ("unix:/run/r.sock", "ann", "p", 4, False)),
        ({"address": "redis://h", "tls": {"enabled": False}}, ("h:6379", "", "", 0, False)),
        ({"address": "rediss://h", "tls": {"server_name": "n"}}, ("h:6379", "", "", 0, True)),
        ({"address": "h:1", "tls": {"enabled": True}}, ("h:1", "", "", 0, True)),
    ],
)
def test_an_address_says_where_and_a_url_says_the_rest(values: dict[str, Any], expected: tuple[Any, ...]) -> None:
    found = read(**values)
    assert (found.address, found.user, found.password, found.db, found.tls.enabled) == expected


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"address": "localhost"}, "neither host:port"),
        ({"address": "localhost:0"}, "neither host:port"),
        ({"address": "localhost:65536"}, "neither host:port"),
        ({"address": "::1:6379"}, "neither host:port"),
        ({"address": "unix:run.sock"}, "neither host:port"),
        ({"address": f"ann:{SECRET}@h:6379"}, "neither host:port"),
        ({"address": f"http://:{ESCAPED}@h"}, "begins with redis://"),
        ({"address": f"redis://:{SECRET}@h"}, "written %2F or %23"),
        ({"address": "redis://h:port"}, "not a valid URL"),
        ({"address": "redis:///1"}, "name a host"),
        ({"address": "unix://h/run.sock"}, "a path and no host"),
        ({"address": "redis://h/one"}, "one number"),
        ({"address": "redis://h/1?db=2"}, "one number"),
        ({"address": "redis://h?timeout=1"}, r"\?db=<number>"),
        ({"address": f"redis://:{ESCAPED}@h", "password": "other"}, "password: the address says something else"),
        ({"address": "redis://ann:p@h", "user": "bob"}, "user: the address says something else"),
        ({"address": "redis://h/1", "db": 2}, "db: the address says something else"),
        ({"address": "rediss://h", "tls": {"enabled": False}}, "tls.enabled: the address says .* rediss://"),
        ({"address": "redis://h", "tls": {"enabled": True}}, "tls.enabled: the address says .* redis://"),
        ({"address": "unix:/r", "tls": {"enabled": True}}, "no TLS on a Unix socket"),
        ({"user": "ann"}, "needs a password"),
        ({"tls": {"cert_pem_file": "c"}}, "go together"),
        ({"tls": {"enabled": "yes"}}, "valid boolean"),
        ({"address": "redis://h", "tls": 7}, "valid dictionary"),
        ({"prefix": "a b"}, "match pattern"),
        ({"prefix": "{a}"}, "match pattern"),
        ({"prefix": ""}, "match pattern"),
        ({"timeout": 0}, "greater than 0"),
        ({"reconnect_max_delay": "10ms"}, "shorter than"),
        ({"queue_max_size": 0}, "greater than or equal to 1"),
        ({"address": 6379}, "valid string"),
    ],
)
def test_what_can_not_be_used_is_refused_without_a_secret(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message) as refused:
        read(**values)
    for secret in (SECRET, ESCAPED, "s3cret"):
        assert secret not in str(refused.value)


def test_a_password_is_not_shown() -> None:
    for settings in (read(password=SECRET), read(address=f"redis://ann:{ESCAPED}@h")):
        assert settings.password == SECRET
        assert "s3cret" not in repr(settings)
        assert "s3cret" not in str(settings)


def test_times_are_in_seconds() -> None:
    found = read(timeout="500ms", connect_timeout=3, reconnect_max_delay="1m")
    assert (found.timeout_s, found.connect_timeout_s, found.reconnect_max_delay_s) == (0.5, 3.0, 60.0)
