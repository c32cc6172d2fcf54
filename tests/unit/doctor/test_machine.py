"""What the doctor makes of a machine."""

from typing import Any

import pytest

from gateway.config import load
from gateway.doctor.finding import Verdict
from gateway.doctor.machine import Machine, check_machine, check_ports, read_machine

MIB = 1048576
ROOMY = Machine(descriptors=100_000, accept_queue=4096, tracked_connections=0, memory_bytes=1000 * MIB)
WATERED = {"health": {"memory_watermark": 800 * MIB}}


def found(machine: Machine, table: dict[str, Any]) -> list[tuple[str, str, str]]:
    findings = list(check_machine(load(base=WATERED | table), machine))
    assert all(each.advice for each in findings if each.verdict is not Verdict.OK)
    return [(each.verdict.word, each.subject, each.text) for each in findings if each.verdict is not Verdict.OK]


@pytest.mark.parametrize(
    ("has", "table", "expected"),
    [
        ({}, {}, []),
        ({"descriptors": 0, "accept_queue": 0, "memory_bytes": 0}, {}, []),
        (
            {"descriptors": 1024},
            {},
            [("warning", "descriptors", "1024 open files: not many more connections than 924")],
        ),
        (
            {"descriptors": 1024},
            {"client": {"connection_limit": 1000}},
            [("error", "descriptors", "1024 open files are fewer than client.connection_limit = 1000 needs")],
        ),
        ({"descriptors": 1100}, {"client": {"connection_limit": 1000}}, []),
        (
            {"accept_queue": 128},
            {},
            [("warning", "kernel", "the kernel keeps 128 new connections, http_server.backlog asks for 4096")],
        ),
        (
            {"tracked_connections": 1999},
            {"client": {"connection_limit": 1000}},
            [("warning", "kernel", "the firewall tracks 1999 connections, client.connection_limit is 1000")],
        ),
        (
            {"memory_bytes": 500 * MIB},
            {},
            [("error", "memory", "health.memory_watermark is 800 MiB, and 500 MiB are all there is")],
        ),
        (
            {},
            {"health": {"memory_watermark": 0}},
            [("warning", "memory", "no health.memory_watermark, with 1000 MiB at hand")],
        ),
        (
            {"has_uvloop": False},
            {},
            [("warning", "speed", "uvloop is not there: a delivery takes twice the CPU")],
        ),
        (
            {"has_speedups": False},
            {},
            [("warning", "speed", "websockets has no C extension here: unmasking is slow")],
        ),
    ],
)
def test_what_a_machine_lacks_is_named(
    has: dict[str, Any], table: dict[str, Any], expected: list[tuple[str, str, str]]
) -> None:
    assert found(ROOMY._replace(**has), table) == expected


def test_this_machine_can_be_read() -> None:
    machine = read_machine()
    assert machine.descriptors >= 0
    assert machine.has_uvloop


def test_ports_that_are_chosen_when_a_node_starts_and_unix_sockets_are_not_tried() -> None:
    server = {"address": "unix:/nowhere/at/all", "internal_port": 0}
    assert list(check_ports(load(base={"http_server": server}))) == []
