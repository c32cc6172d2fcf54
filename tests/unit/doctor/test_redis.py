"""What the doctor makes of what a Redis says of itself."""

from collections.abc import Mapping
from typing import Any, Final

import pytest

from gateway.doctor.finding import Verdict
from gateway.doctor.redis import Server, check_server

INFO: Final = {
    "redis_version": "7.2.4",
    "maxmemory": "0",
    "maxmemory_policy": "noeviction",
    "aof_enabled": "1",
    "aof_last_write_status": "ok",
    "role": "master",
    "connected_slaves": "0",
    "maxclients": "10000",
    "connected_clients": "5",
}


def found(info: Mapping[str, str], *, has_history: bool = True, **read: Any) -> list[tuple[str, str, str]]:
    findings = list(check_server(Server("redis r:6379", {**INFO, **info}, **read), has_history=has_history))
    assert all(each.advice for each in findings if each.verdict is not Verdict.OK)
    return [(each.verdict.word, each.subject, each.text) for each in findings if each.verdict is not Verdict.OK]


@pytest.mark.parametrize(
    ("info", "expected"),
    [
        ({}, []),
        ({"maxmemory": "104857600"}, []),
        ({"maxmemory_policy": "allkeys-lru"}, []),
        (
            {"maxmemory": "104857600", "maxmemory_policy": "allkeys-lru"},
            [("warning", "redis", "maxmemory-policy allkeys-lru evicts when 100 MiB are full")],
        ),
        (
            {"maxmemory": "104857600", "maxmemory_policy": "volatile-ttl"},
            [("warning", "redis", "maxmemory-policy volatile-ttl evicts when 100 MiB are full")],
        ),
        ({"aof_last_write_status": "err"}, [("error", "redis", "its last write to the append-only file failed")]),
        (
            {"aof_enabled": "0"},
            [("warning", "redis", "no append-only file, and there are namespaces with history")],
        ),
        (
            {"aof_enabled": "0", "rdb_last_bgsave_status": "err"},
            [("error", "redis", "its last snapshot failed")],
        ),
        ({"role": "slave"}, [("error", "redis", "it is a slave")]),
        ({"connected_slaves": "2"}, [("warning", "redis", "2 replicas that no write waits for")]),
        ({"connected_slaves": "2", "min_slaves_good_slaves": "2"}, []),
        ({"maxclients": "20"}, [("warning", "redis", "15 more clients are let in")]),
    ],
)
def test_what_a_server_says_of_itself_is_judged(info: dict[str, str], expected: list[tuple[str, str, str]]) -> None:
    assert found(info) == expected


@pytest.mark.parametrize(
    ("read", "expected"),
    [
        ({"ping_ms": 7.0}, [("warning", "redis", "an answer takes 7.0 ms")]),
        ({"ahead_s": 0.9}, []),
        ({"ahead_s": 2.0}, [("warning", "clock", "the clock of Redis is 2.0 s ahead of ours")]),
        ({"ahead_s": -40.0}, [("error", "clock", "the clock of Redis is 40.0 s behind ours")]),
        ({"pubsub_buffer_bytes": 0}, []),
        ({"pubsub_buffer_bytes": 33554432}, []),
        ({"pubsub_buffer_bytes": 65536}, [("warning", "redis", "a subscriber is cut when 64 KiB wait for it")]),
    ],
)
def test_what_was_measured_is_judged(read: dict[str, Any], expected: list[tuple[str, str, str]]) -> None:
    assert found({}, **read) == expected


def test_a_server_without_persistence_will_do_where_nothing_is_kept() -> None:
    assert found({"aof_enabled": "0"}, has_history=False) == []


def test_a_user_who_may_not_ask_is_told_where_to_look() -> None:
    findings = list(check_server(Server("redis r:6379", {}), has_history=True))
    assert {each.verdict for each in findings} == {Verdict.OK}
    assert "by hand" in findings[-1].text
