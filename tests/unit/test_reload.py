"""What of a changed configuration can be put in force: what changes, what waits for a restart, what is impossible."""

from collections.abc import Callable
from typing import Any

import pytest

from gateway.config import Config, ConfigError, load
from gateway.reload import LivePart, plan

CHAT: dict[str, Any] = {"name": "chat", "allow_subscribe_for_client": True}
LIVE = ("log.level", "client", "channel.namespaces", "handlers")


def part(*keys: str, reads_files: bool = False) -> LivePart:
    return LivePart(keys, lambda _: None, reads_files=reads_files)


def namespaces(*tables: dict[str, Any]) -> dict[str, Any]:
    return {"channel": {"namespaces": list(tables)}}


@pytest.mark.parametrize(
    ("before", "after", "changed", "needs_restart"),
    [
        ({}, {}, [], []),
        ({}, {"log": {"level": "debug"}}, ["log.level"], []),
        ({}, {"log": {"format": "json"}}, [], ["log.format"]),
        ({}, {"log": {"level": "error", "format": "json"}}, ["log.level"], ["log.format"]),
        ({}, {"client": {"token": {"hmac_secret_key": "s" * 32}}}, ["client.token.hmac_secret_key"], []),
        ({}, {"client": {"allowed_origins": ["*"]}}, ["client.allowed_origins"], []),
        ({}, {"clients": {}}, None, None),
        ({}, namespaces(CHAT), ["channel.namespaces[chat]"], []),
        (namespaces(CHAT), {}, ["channel.namespaces[chat]"], []),
        (
            namespaces(CHAT),
            namespaces(CHAT | {"presence": True, "join_leave": True}),
            ["channel.namespaces[chat].presence", "channel.namespaces[chat].join_leave"],
            [],
        ),
        (
            namespaces(CHAT),
            namespaces(CHAT | {"name": "room"}),
            ["channel.namespaces[chat]", "channel.namespaces[room]"],
            [],
        ),
        ({}, {"channel": {"private_prefix": "!"}}, [], ["channel.private_prefix"]),
        (
            {},
            {"http_server": {"port": 1, "tls": {"cert_pem_file": "x"}}},
            [],
            ["http_server.port", "http_server.tls.cert_pem_file"],
        ),
        ({}, {"broker": {"type": "redis"}}, [], ["broker.type"]),
    ],
)
def test_each_changed_key_is_named_and_sorted_by_whether_it_can_change(
    before: dict[str, Any], after: dict[str, Any], changed: list[str] | None, needs_restart: list[str] | None
) -> None:
    if changed is None:
        with pytest.raises(ConfigError, match="no such key"):
            load(base=after)
        return
    planned = plan(load(base=before), load(base=after), [part(*LIVE)])
    assert (planned.changed, planned.needs_restart) == (changed, needs_restart)


def test_in_force_is_the_new_value_where_it_can_change_and_the_old_one_elsewhere() -> None:
    running = load(base={"http_server": {"port": 8000}, "log": {"format": "text"}})
    wanted = load(base={"http_server": {"port": 9}, "log": {"format": "json", "level": "debug"}, **namespaces(CHAT)})
    planned = plan(running, wanted, [part(*LIVE)])
    expected = {"http_server": {"port": 8000}, "log": {"format": "text", "level": "debug"}, **namespaces(CHAT)}
    assert planned.in_force == load(base=expected)
    # The port is still another one, and is named again.
    assert plan(planned.in_force, wanted, [part(*LIVE)]).needs_restart == ["http_server.port", "log.format"]


def test_values_that_are_written_in_their_own_way_are_kept_as_they_are() -> None:
    """What is in force is checked anew, and must come out of that as it went in."""
    tables: dict[str, Any] = {
        "redis": {"address": "rediss://ann:s3cret@r.example:6380/3"},
        "health": {"broker_grace": "never"},
        "http_server": {"trusted_proxies": ["unix:", "10.0.0.0/8"], "proxy_protocol": True},
        "channel": {"namespaces": [CHAT | {"publication_data_format": "binary"}]},
    }
    running, wanted = load(base=tables), load(base=tables | {"log": {"format": "json"}})
    assert plan(running, wanted, [part(*LIVE)]).in_force == running


def test_what_does_not_go_together_with_what_needs_a_restart_is_refused() -> None:
    """Here the personal channels' namespace is live, and the namespaces themselves are not."""
    personal = {
        "client": {"subscribe_to_user_personal_channel": {"enabled": True, "personal_channel_namespace": "chat"}}
    }
    with pytest.raises(ConfigError) as caught:
        plan(Config(), load(base=personal | namespaces(CHAT)), [part("client")])
    (fault,) = caught.value.faults
    assert fault.startswith("channel.namespaces[chat] can't change without a restart, and without that: client.sub")
    assert fault.endswith("no such namespace")


@pytest.mark.parametrize(
    ("after", "concerned"),
    [
        ({}, ["files"]),
        ({"log": {"level": "debug"}}, ["level", "files"]),
        ({"client": {"command_rate": 1}}, ["client", "rate", "files"]),
        ({"client": {"channel_limit": 1}}, ["client", "files"]),
    ],
)
def test_those_parts_prepare_whose_keys_have_changed_or_whose_files_may_have(
    after: dict[str, Any], concerned: list[str]
) -> None:
    asked: list[str] = []

    def note(name: str) -> Callable[[Config], None]:
        return lambda _: asked.append(name)

    parts = [
        LivePart(("log.level",), note("level")),
        LivePart(("client",), note("client")),
        LivePart(("client.command_rate",), note("rate")),
        LivePart(("http_server.tls",), note("files"), reads_files=True),
    ]
    assert plan(Config(), load(base=after), parts).prepare() == []
    assert asked == concerned


def test_keys_whose_files_have_changed_are_named_too() -> None:
    parts = [
        LivePart(("http_server.tls",), lambda _: None, reads_files=True),
        LivePart(("http_server.tls.key_pem_file",), lambda _: lambda: None, reads_files=True),
    ]
    planned = plan(Config(), Config(), parts)
    planned.prepare()
    assert planned.changed == ["http_server.tls.key_pem_file"]


def test_no_part_changes_when_one_can_not_and_all_faults_are_told() -> None:
    done: list[str] = []

    def refuse(fault: str) -> Callable[[Config], None]:
        def prepare(_: Config) -> None:
            raise ConfigError([fault])

        return prepare

    parts = [
        LivePart(("log.level",), lambda now: lambda: done.append(now.log.level)),
        LivePart(("log.level",), refuse("one")),
        LivePart(("log",), refuse("two")),
    ]
    planned = plan(Config(), load(base={"log": {"level": "error"}}), parts)
    with pytest.raises(ConfigError) as caught:
        planned.prepare()
    assert (caught.value.faults, done) == (["one", "two"], [])
    for change in planned._replace(concerned=parts[:1]).prepare():
        change()
    assert done == ["error"]
