import pytest

from loadtest.limits import LimitError, Machine, check_descriptors, is_loopback, local_addresses, this_machine

HERE = ["ws://127.0.0.1:8000/connection/websocket"]
LINUX = Machine(descriptors=20_000, ports=28_000, has_many_addresses=True)


def test_what_fits_is_let_through() -> None:
    check_descriptors(39_000, workers=2, machine=LINUX)
    assert local_addresses(19_000, HERE, LINUX) == []


def test_too_few_descriptors_are_told_with_what_fits_and_what_helps() -> None:
    with pytest.raises(LimitError, match=r"50000 connections do not fit: .* enough for 39872; use --workers 3"):
        check_descriptors(50_000, workers=2, machine=LINUX)


def test_beyond_the_ports_of_one_address_loopback_has_more() -> None:
    addresses = local_addresses(100_000, HERE, LINUX)
    assert len(addresses) == 6
    assert len(set(addresses)) == 6
    assert all(is_loopback(f"ws://{address}") for address in addresses)
    assert local_addresses(38_000, [*HERE, "ws://127.0.0.1:8001/x"], LINUX) == []


@pytest.mark.parametrize(
    ("addresses", "machine"),
    [
        (["ws://10.0.0.1:8000/x"], LINUX),
        (HERE, LINUX._replace(has_many_addresses=False)),
        (["ws://[::1]:8000/x"], LINUX),
    ],
)
def test_elsewhere_too_few_ports_are_told_with_what_fits(addresses: list[str], machine: Machine) -> None:
    with pytest.raises(LimitError, match=r"30000 connections do not fit: .* so 19600 fit; name more targets"):
        local_addresses(30_000, addresses, machine)


def test_this_machine_has_limits() -> None:
    machine = this_machine()
    assert machine.descriptors > 100
    assert machine.ports > 1000


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("ws://127.0.0.1:8000/x", True),
        ("ws://127.9.9.9/x", True),
        ("ws://[::1]:8000/x", True),
        ("ws://localhost:8000/x", True),
        ("ws://10.0.0.1/x", False),
        ("ws://127.0.0.1.example.com/x", False),
        ("ws://example.com/127.0.0.1", False),
        ("ws://user@example.com#@127.0.0.1/", False),
        ("nonsense", False),
    ],
)
def test_only_loopback_is_loopback(address: str, *, expected: bool) -> None:
    assert is_loopback(address) is expected
