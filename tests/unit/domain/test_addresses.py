"""Limits for each address, and what counts as one."""

import pytest

from gateway.domain import addresses
from gateway.domain.addresses import AddressLimits, address_key


@pytest.mark.parametrize(
    ("address", "key"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("a:name", "a:name"),
    ],
)
def test_an_ipv6_network_of_64_bits_counts_as_one_address(address: str, key: str) -> None:
    assert address_key(address) == key


def test_ipv4_clients_of_a_socket_for_both_do_not_share_one_limit() -> None:
    """With `http_server.address = "::"` that is how the kernel writes them, and all of them are in one /64."""
    assert [address_key(each) for each in ("::ffff:192.0.2.1", "::ffff:192.0.2.2")] == ["192.0.2.1", "192.0.2.2"]


def limits(*, count: int = 0, rate: int = 0) -> AddressLimits:
    made = AddressLimits()
    made.reconfigure(count=count, rate=rate)
    return made


def test_each_address_has_its_own_number_and_gets_it_back() -> None:
    made = limits(count=2)
    for name in "ab":
        assert made.refuse("203.0.113.7", now_s=0) is None
        made.enter(name, "203.0.113.7")
    assert made.refuse("203.0.113.7", now_s=0) == "connection_limit_per_address"
    assert made.refuse("203.0.113.8", now_s=0) is None
    made.leave("a")
    made.leave("a")
    assert (made.refuse("203.0.113.7", now_s=0), len(made)) == (None, 1)
    made.leave("b")
    made.leave("never seen")
    assert len(made) == 0


def test_each_address_has_its_own_rate() -> None:
    made = limits(rate=2)
    assert [made.refuse("2001:db8::1", now_s=10) for _ in range(3)] == [None, None, "connection_rate_limit_per_address"]
    assert made.refuse("2001:db8::ffff", now_s=10) == "connection_rate_limit_per_address"
    assert made.refuse("2001:db8:0:1::1", now_s=10) is None
    assert made.refuse("2001:db8::1", now_s=11) is None


def test_no_limit_counts_nothing_and_nobody_in_particular_is_not_limited() -> None:
    for made, address in ((limits(), "203.0.113.7"), (limits(count=1, rate=1), "")):
        for number in range(5):
            assert made.refuse(address, now_s=0) is None
            made.enter(number, address)
        assert len(made) == 0


def test_what_is_remembered_is_bounded_and_who_came_last_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "MAX_REMEMBERED", 3)
    made = limits(rate=1)
    for address in ("a", "b", "c", "a", "d"):
        made.refuse(address, now_s=0)
    over = "connection_rate_limit_per_address"
    assert [made.refuse(address, now_s=0) for address in ("a", "c", "d", "b")] == [over, over, over, None]


def test_a_limit_that_comes_later_counts_from_then_on() -> None:
    made = limits()
    made.enter("before", "203.0.113.7")
    made.reconfigure(count=1, rate=0)
    assert made.refuse("203.0.113.7", now_s=0) is None
    made.enter("after", "203.0.113.7")
    assert made.refuse("203.0.113.7", now_s=0) is not None
    made.leave("before")
    assert len(made) == 1
