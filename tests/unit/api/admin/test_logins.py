"""Failed logins: a few at once, then one after the other; nobody pays for somebody else's."""

import pytest

from gateway.api.admin.logins import LoginLimit


def failing(limit: LoginLimit, address: str, *, times: int, now_s: float = 0.0) -> None:
    for _ in range(times):
        limit.note_failure(address, now_s=now_s)


def test_five_failures_are_free_and_then_ten_seconds_each() -> None:
    limit = LoginLimit()
    failing(limit, "192.0.2.1", times=4)
    assert limit.wait_s("192.0.2.1", now_s=0.0) == 0.0
    failing(limit, "192.0.2.1", times=1)
    assert limit.wait_s("192.0.2.1", now_s=0.0) == 10.0
    assert limit.wait_s("192.0.2.1", now_s=9.0) == 1.0
    assert limit.wait_s("192.0.2.1", now_s=10.0) == 0.0
    failing(limit, "192.0.2.1", times=1, now_s=10.0)
    assert limit.wait_s("192.0.2.1", now_s=10.0) == 10.0


def test_time_forgives_everything() -> None:
    limit = LoginLimit()
    failing(limit, "192.0.2.1", times=5)
    failing(limit, "192.0.2.1", times=4, now_s=1000.0)
    assert limit.wait_s("192.0.2.1", now_s=1000.0) == 0.0


@pytest.mark.parametrize(
    ("guilty", "asking", "is_same"),
    [
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8::1", "2001:db8::ffff:2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("", "", True),
    ],
)
def test_an_address_pays_for_its_site(guilty: str, asking: str, is_same: bool) -> None:  # noqa: FBT001
    limit = LoginLimit()
    failing(limit, guilty, times=5)
    assert (limit.wait_s(asking, now_s=0.0) > 0) is is_same


def test_what_is_remembered_is_bounded_and_the_quiet_are_forgotten_first() -> None:
    limit = LoginLimit()
    failing(limit, "192.0.2.1", times=5)
    failing(limit, "192.0.2.2", times=5)
    for number in range(4095):
        limit.note_failure(f"10.0.{number // 256}.{number % 256}", now_s=0.0)
    assert limit.wait_s("192.0.2.1", now_s=0.0) == 0.0
    assert limit.wait_s("192.0.2.2", now_s=0.0) > 0
