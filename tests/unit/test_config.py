"""The configuration: where values come from, and what is said about a bad one."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from gateway.config import Config, ConfigError, development, load, merge
from tests.support.extensions import on_the_path, write_distribution

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(text: str | bytes, name: str = "gateway.toml") -> Path:
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def faults(path: Path | None = None, **sources: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(path, **sources)
    assert str(caught.value) == "\n".join(caught.value.faults)
    return caught.value.faults


def value_at(config: Config, key: str) -> Any:
    value: Any = config
    for part in key.split("."):
        value = value[int(part)] if isinstance(value, list) else getattr(value, part)
    return value


# Faults, one of each kind: a file, the beginning of the only line, and what the line must say is allowed.

FAULTS: list[tuple[str, str, str]] = [
    ("[clients]\ninsecure = true", "clients: ", "did you mean client?"),
    ("[zebra]\nstripes = 1", "zebra: ", "known are admin, broker, channel, client,"),
    ('[client]\nping_intervall = "9s"', "client.ping_intervall: ", "did you mean ping_interval?"),
    ('[client]\nping_interval_s = "9s"', "client.ping_interval_s: ", "did you mean ping_interval?"),
    ("[json_]\nmax_depth = 5", "json_: ", "did you mean json?"),
    ("[broker]\nzebra = 1", "broker.zebra: ", "known are catch_up_max_size"),
    (
        '[[channel.namespaces]]\nname = "chat"\nalow_publish_for_client = true',
        "channel.namespaces.0.alow_publish_for_client: ",
        "did you mean allow_publish_for_client?",
    ),
    ("[client.token]\naudiense = 'me'", "client.token.audiense: ", "did you mean audience?"),
    # Wrong types.
    ("client = 5", "client = 5: ", "must be a table"),
    ('[client]\ninsecure = "yes"', "client.insecure = 'yes': ", "boolean"),
    ("[client]\ninsecure = 1", "client.insecure = 1: ", "boolean"),
    ('[http_server]\nport = "8000"', "http_server.port = '8000': ", "integer"),
    ("[http_server]\nport = true", "http_server.port = True: ", "integer"),
    ("[http_server]\nport = 1.5", "http_server.port = 1.5: ", "integer"),
    ("[http_server]\naddress = 5", "http_server.address = 5: ", "string"),
    ('[client]\nallowed_origins = "*"', "client.allowed_origins = '*': ", "list"),
    ("[client]\nallowed_origins = [1]", "client.allowed_origins.0 = 1: ", "string"),
    ("[channel]\nnamespaces = 5", "channel.namespaces = 5: ", "list"),
    ('[channel]\nnamespaces = ["chat"]', "channel.namespaces.0 = 'chat': ", "must be a table"),
    ("[client]\nping_interval = true", "client.ping_interval = True: ", "number"),
    ("[client]\nping_interval = [5]", "client.ping_interval = (a list): ", "number"),
    # Out of range.
    ("[http_server]\nport = 65536", "http_server.port = 65536: ", "less than or equal to 65535"),
    ("[http_server]\ninternal_port = -1", "http_server.internal_port = -1: ", "greater than or equal to 0"),
    ("[channel]\nmax_length = 0", "channel.max_length = 0: ", "greater than or equal to 1"),
    ("[json]\nmax_depth = 501", "json.max_depth = 501: ", "less than or equal to 500"),
    ('[channel]\nnamespace_boundary = "::"', "channel.namespace_boundary = '::': ", "at most 1"),
    ('[plain]\ndefault_channel = ""', "plain.default_channel = '': ", "at least 1"),
    ("[client.token]\nleeway = 301", "client.token.leeway = 301: ", "less than or equal to 300"),
    # Durations.
    ('[client]\nping_interval = "soon"', "client.ping_interval = 'soon': ", '"25s", "10m", "1h30m", "500ms"'),
    ('[client]\nping_interval = ""', "client.ping_interval = '': ", '"25s", "10m", "1h30m", "500ms"'),
    ('[client]\nping_interval = "5 s"', "client.ping_interval = '5 s': ", '"25s", "10m", "1h30m", "500ms"'),
    ('[client]\nping_interval = "-5s"', "client.ping_interval = '-5s': ", '"25s", "10m", "1h30m", "500ms"'),
    ('[client]\nping_interval = "1h30"', "client.ping_interval = '1h30': ", '"25s", "10m", "1h30m", "500ms"'),
    ("[client]\nping_interval = -1", "client.ping_interval = -1: ", "greater than or equal to 0"),
    ("[client]\nping_interval = inf", "client.ping_interval = inf: ", "finite"),
    ('[client]\nping_interval = "inf"', "client.ping_interval = 'inf': ", '"25s", "10m", "1h30m", "500ms"'),
    # Patterns and names.
    ('[client.token]\naudience_regex = "("', "client.token.audience_regex = '(': ", "not a regular expression"),
    ('[client.token]\nuser_id_claim = "a b"', "client.token.user_id_claim = 'a b': ", "^[a-zA-Z0-9_.:/-]*$"),
    ('[channel.without_namespace]\nchannel_regex = "["', "channel.without_namespace.channel_regex = '[': ", "regular"),
    ('[[channel.namespaces]]\nname = "a"', "channel.namespaces.0.name = 'a': ", "^[-a-zA-Z0-9_.]{2,}$"),
    ('[[channel.namespaces]]\nname = "a:b"', "channel.namespaces.0.name = 'a:b': ", "^[-a-zA-Z0-9_.]{2,}$"),
    ('[[channel.namespaces]]\nname = "chat\\n"', "channel.namespaces.0.name = 'chat\\n': ", "^[-a-zA-Z0-9_.]{2,}$"),
    ("[[channel.namespaces]]\nhandler = ''", "channel.namespaces.0.name: ", "is missing"),
    # Choices.
    ('[log]\nlevel = "loud"', "log.level = 'loud': ", "debug"),
    ("[log]\nformat = 5", "log.format = 5: ", "json"),
    ('[broker]\ntype = "pigeon"', "broker.type = 'pigeon': ", "memory"),
    (
        '[[channel.namespaces]]\nname = "chat"\npublication_data_format = "xml"',
        "channel.namespaces.0.publication_data_format = 'xml': ",
        "json_object",
    ),
    ('[[channel.namespaces]]\nname = "chat"\nhandler = "x"', "channel.namespaces[chat].handler = 'x': ", "echo"),
    (
        '[channel.without_namespace]\nprocessors = ["server_time", "x"]',
        "channel.without_namespace.processors has 'x': ",
        "server_time",
    ),
    (
        '[channel.without_namespace]\nprocessors = ["scale"]\nprocessor_options.scale.factor = 1',
        "channel.without_namespace.processors has 'scale': ",
        "has no options of its own",
    ),
    ("[handlers]\nrpc_methods = ['x']", "handlers.rpc_methods has 'x': ", "echo"),
    ("[handlers]\ntimeout = 0", "handlers.timeout = 0: ", "greater than 0"),
    # Contradictions.
    ('[client]\nping_interval = "5s"', "client: ", "pong_timeout (8s) must be shorter than ping_interval (5s)"),
    ('[health]\nbroker_grace = "sometimes"', "health.broker_grace = 'sometimes': ", "a duration is"),
    ("[health]\nheartbeat_timeout = 0", "health.heartbeat_timeout = 0: ", "greater than 0"),
    ('[shutdown]\ntimeout = "30s"', "shutdown.timeout = 30 s: ", "drain.window (30 s) and 2 s to flush take 37 s"),
    ('[drain]\nwindow = "1m"', "shutdown.timeout = 45 s: ", "take 67 s; raise it, or lower those"),
    ("[http_server.tls]\nenabled = true", "http_server.tls: ", "cert_pem_file and key_pem_file"),
    (
        '[channel.without_namespace]\nhandler = "echo"\nprocessors = ["server_time"]',
        "channel.without_namespace: ",
        "handler and processors exclude each other",
    ),
    (
        '[channel.without_namespace]\npublication_data_format = "binary"\nprocessors = ["server_time"]',
        "channel.without_namespace: ",
        "can't be combined with publication_data_format 'binary'",
    ),
    (
        '[[channel.namespaces]]\nname = "chat"\n[[channel.namespaces]]\nname = "chat"',
        "channel: ",
        "chat is defined more than once",
    ),
    (
        '[client.subscribe_to_user_personal_channel]\nenabled = true\npersonal_channel_namespace = "own"',
        "client.subscribe_to_user_personal_channel.personal_channel_namespace = 'own': ",
        "no such namespace",
    ),
    # Paths.
    ('[http_stream]\nhandler_prefix = "stream"', "http_stream.handler_prefix = 'stream': ", "'^(/"),
    ('[emulation]\nhandler_prefix = "/say/"', "emulation.handler_prefix = '/say/': ", "'^(/"),
    ('[sse]\nhandler_prefix = "/a?b"', "sse.handler_prefix = '/a?b': ", "'^(/"),
    (
        '[http_stream]\nenabled = true\nhandler_prefix = "/connection/websocket"',
        "http_stream.handler_prefix = '/connection/websocket': ",
        "is taken by WebSocket clients",
    ),
    (
        '[http_stream]\nenabled = true\n[emulation]\nhandler_prefix = "/connection/http_stream"',
        "emulation.handler_prefix = '/connection/http_stream': ",
        "is taken by http_stream",
    ),
    ('[sse]\nenabled = true\nhandler_prefix = "/ws/x"', "sse.handler_prefix = '/ws/x': ", "is taken by plain"),
]


@pytest.mark.parametrize(("text", "beginning", "allowed"), FAULTS, ids=[row[1] for row in FAULTS])
def test_a_fault_is_one_line_with_the_key_its_value_and_what_is_allowed(
    text: str, beginning: str, allowed: str, write: Write
) -> None:
    [line] = faults(write(text))
    assert line.startswith(beginning)
    assert allowed in line
    assert "\n" not in line


@pytest.mark.parametrize("text", ["client = 5", '[log]\nlevel = "loud"', '[channel]\nnamespaces = ["chat"]'])
def test_a_fault_speaks_of_keys_and_not_of_the_classes_behind_them(text: str, write: Write) -> None:
    [line] = faults(write(text))
    assert "instance of" not in line


def test_a_path_is_taken_only_by_what_is_served_there(write: Write) -> None:
    load(write('[http_stream]\nhandler_prefix = "/a"\n[sse]\nenabled = true\nhandler_prefix = "/a"'))
    load(write('[plain]\nenabled = false\n[sse]\nenabled = true\nhandler_prefix = "/ws/x"'))
    load(write('[sse]\nenabled = true\nhandler_prefix = "/wsx"'))


def test_several_faults_are_several_lines(write: Write) -> None:
    text = """
        [client]
        insecure = "yes"
        zebra = 1
        ping_interval = "soon"
        [[channel.namespaces]]
        name = "a"
        [log]
        colour = "red"
        """
    assert [line.partition(":")[0] for line in faults(write(text))] == [
        "client.ping_interval = 'soon'",
        "client.insecure = 'yes'",
        "client.zebra",
        "channel.namespaces.0.name = 'a'",
        "log.colour",
    ]


def test_all_unknown_functions_and_namespaces_are_named_together(write: Write) -> None:
    text = """
        [client.subscribe_to_user_personal_channel]
        enabled = true
        personal_channel_namespace = "own"
        [channel.without_namespace]
        handler = "a"
        [[channel.namespaces]]
        name = "chat"
        processors = ["b", "c"]
        """
    assert faults(write(text)) == [
        "channel.without_namespace.handler = 'a': there is echo",
        "channel.namespaces[chat].processors has 'b': there is scale, server_time, statistics",
        "channel.namespaces[chat].processors has 'c': there is scale, server_time, statistics",
        "client.subscribe_to_user_personal_channel.personal_channel_namespace = 'own': no such namespace",
    ]


def test_faults_of_the_file_the_environment_and_the_flags_are_told_together(write: Write) -> None:
    found = faults(
        write("[client]\nzebra = 1"),
        environment={"GATEWAY_HTTP_SERVER__BACKLOG": "many", "GATEWAY_LOG__COLOUR": "red"},
        flags={"http_server.port": -1},
    )
    assert len(found) == 4, found
    for word in ("client.zebra", "GATEWAY_HTTP_SERVER__BACKLOG", "GATEWAY_LOG__COLOUR", "http_server.port = -1"):
        assert len([line for line in found if word in line]) == 1, found


HUSH = "hushhushhush"


@pytest.mark.parametrize(
    "text",
    [
        f'[client.token]\nhmac_secret_key = ["{HUSH}"]',
        f'[client.token]\nhmac_previous_secret_key = {{ value = "{HUSH}" }}',
        f'[client.token]\nhmac_secret = "{HUSH}"',
        f'[client.token]\naudience = 5\nhmac_secret_key = "{HUSH}"',
        f'[client.token]\nleeway = "301s"\nhmac_secret_key = "{HUSH}"',
        f'[client.subscription_token]\nenabled = 5\nhmac_secret_key = "{HUSH}"',
        f'[client]\nping_interval = "1s"\ntoken.hmac_secret_key = "{HUSH}"',
        f'[client]\ntoken = "{HUSH}"',
        f'[client]\ntoken = ["{HUSH}"]',
        f'[[client.token]]\nhmac_secret_key = "{HUSH}"',
        f'[http_api]\nkey = ["{HUSH}"]',
        f'[[http_api.keys]]\nkey = "{HUSH}"',
        f'[[http_api.keys]]\nname = "a"\nkey = ["{HUSH}"]',
        f'[[http_api.keys]]\nname = "a"\nkey = "{HUSH}"\n[[http_api.keys]]\nname = "b"\nkey = "{HUSH}"',
        f'client = ["{HUSH}"]',
    ],
)
def test_a_secret_is_never_shown(text: str, write: Write) -> None:
    assert HUSH not in "\n".join(faults(write(text)))


@pytest.mark.parametrize("text", [HUSH, f'["{HUSH}"]', f'{{"hmac_secret_key": ["{HUSH}"]}}', f'{{"x": "{HUSH}"'])
def test_a_secret_in_the_environment_is_never_shown(text: str) -> None:
    assert HUSH not in "\n".join(faults(environment={"GATEWAY_CLIENT__TOKEN": text}))


def test_the_configuration_itself_does_not_show_secrets() -> None:
    config = load(base={"client": {"token": {"hmac_secret_key": HUSH, "hmac_previous_secret_key": HUSH}}})
    assert HUSH not in repr(config)


# Files.

EXAMPLE: dict[str, Any] = {
    "node": {"name": "n1"},
    "http_server": {"port": 1234, "tls": {"enabled": True, "cert_pem_file": "c", "key_pem_file": "k"}},
    "client": {
        "allowed_origins": ["https://a.example", "https://*.b.example"],
        "ping_interval": "1m",
        "pong_timeout": 2.5,
        "token": {"hmac_secret_key": "s", "leeway": 5},
    },
    "channel": {"namespaces": [{"name": "chat", "processors": ["server_time"]}, {"name": "echo", "handler": "echo"}]},
    "json": {"max_depth": 9},
    "log": {"level": "debug", "format": "text"},
}
EXAMPLE_TOML = """
json.max_depth = 9
[node]
name = "n1"
[http_server]
port = 1234
tls = { enabled = true, cert_pem_file = "c", key_pem_file = "k" }
[client]
allowed_origins = ["https://a.example", "https://*.b.example"]
ping_interval = "1m"
pong_timeout = 2.5
[client.token]
hmac_secret_key = "s"
leeway = 5
[[channel.namespaces]]
name = "chat"
processors = ["server_time"]
[[channel.namespaces]]
name = "echo"
handler = "echo"
[log]
level = "debug"
format = "text"
"""


def test_toml_and_json_give_the_same(write: Write) -> None:
    from_toml, from_json = load(write(EXAMPLE_TOML)), load(write(json.dumps(EXAMPLE), "gateway.json"))
    assert from_toml == from_json == load(base=EXAMPLE)
    assert from_toml.client.ping_interval_s == 60.0
    assert [namespace.name for namespace in from_toml.channel.namespaces] == ["chat", "echo"]


def test_an_empty_file_is_the_defaults(write: Write) -> None:
    assert load(write("")) == load(write("{}", "gateway.json")) == load() == Config()


BROKEN: list[tuple[str, str | bytes, str]] = [
    ("x.toml", "a = ", "Invalid value"),
    ("x.toml", "[a\n", "line 1"),
    ("x.toml", "[a]\n[a]\n", "Cannot declare"),
    ("x.toml", b"\xff\xfe", "not UTF-8"),
    ("x.toml", "x = " + "[" * 50_000, ""),
    ("x.json", "{", "line 1"),
    ("x.json", "", "line 1"),
    ("x.json", "[]", "table"),
    ("x.json", "5", "table"),
    ("x.json", b"\xff\xfe", "not UTF-8"),
    ("x.json", "[" * 100_000, ""),
]


@pytest.mark.parametrize(("name", "text", "words"), BROKEN)
def test_a_broken_file_is_one_line_with_its_name(name: str, text: str | bytes, words: str, write: Write) -> None:
    path = write(text, name)
    [line] = faults(path)
    assert line.startswith(f"{path}: ")
    assert words in line


def test_a_missing_file_is_one_line_with_its_name(tmp_path: Path) -> None:
    assert faults(tmp_path / "none.toml") == [f"{tmp_path / 'none.toml'}: No such file or directory"]
    assert faults(tmp_path) == [f"{tmp_path}: Is a directory"]


# Environment.

_TIME = "server_time"
OVERRIDES: list[tuple[str, str, str, Any]] = [
    ("GATEWAY_NODE__NAME", "n7", "node.name", "n7"),
    ("GATEWAY_NODE__NAME", "5", "node.name", "5"),
    ("GATEWAY_NODE__NAME", "", "node.name", ""),
    ("GATEWAY_HTTP_SERVER__PORT", "1234", "http_server.port", 1234),
    ("GATEWAY_HTTP_SERVER__TLS__CERT_PEM_FILE", "/c", "http_server.tls.cert_pem_file", "/c"),
    ("GATEWAY_CLIENT__TOKEN__HMAC_SECRET_KEY", "12345", "client.token.hmac_secret_key", "12345"),
    ("GATEWAY_CLIENT__TOKEN__LEEWAY", "5", "client.token.leeway_s", 5.0),
    ("GATEWAY_CLIENT__PING_INTERVAL", "1m30s", "client.ping_interval_s", 90.0),
    ("GATEWAY_CLIENT__PING_INTERVAL", "90", "client.ping_interval_s", 90.0),
    ("GATEWAY_CLIENT__PING_INTERVAL", "90.5", "client.ping_interval_s", 90.5),
    ("GATEWAY_CLIENT__INSECURE", "true", "client.insecure", True),
    ("GATEWAY_CLIENT__INSECURE", "True", "client.insecure", True),
    ("GATEWAY_CLIENT__INSECURE", "1", "client.insecure", True),
    ("GATEWAY_PLAIN__ENABLED", "false", "plain.enabled", False),
    ("GATEWAY_PLAIN__ENABLED", "0", "plain.enabled", False),
    ("GATEWAY_CLIENT__ALLOWED_ORIGINS", "https://a", "client.allowed_origins", ["https://a"]),
    ("GATEWAY_CLIENT__ALLOWED_ORIGINS", "https://a, https://b,", "client.allowed_origins", ["https://a", "https://b"]),
    ("GATEWAY_CLIENT__ALLOWED_ORIGINS", '["https://a", "b,c"]', "client.allowed_origins", ["https://a", "b,c"]),
    ("GATEWAY_CLIENT__ALLOWED_ORIGINS", "", "client.allowed_origins", []),
    ("GATEWAY_CHANNEL__WITHOUT_NAMESPACE__PROCESSORS", _TIME, "channel.without_namespace.processors", [_TIME]),
    ("GATEWAY_CHANNEL__NAMESPACES", '[{"name": "chat"}]', "channel.namespaces.0.name", "chat"),
    ("GATEWAY_CLIENT__TOKEN", '{"audience": "me"}', "client.token.audience", "me"),
    ("GATEWAY_JSON__MAX_DEPTH", "9", "json_.max_depth", 9),
    ("GATEWAY_LOG__LEVEL", "debug", "log.level", "debug"),
    ("GATEWAY_BROKER__TYPE", "memory", "broker.type", "memory"),
]


@pytest.mark.parametrize(
    ("name", "text", "key", "expected"), OVERRIDES, ids=[f"{row[0]}={row[1]}" for row in OVERRIDES]
)
def test_a_variable_sets_its_key(name: str, text: str, key: str, expected: Any) -> None:
    config = load(environment={name: text})
    value = value_at(config, key)
    assert value == expected
    assert type(value) is type(expected) or isinstance(expected, str)


@pytest.mark.parametrize(
    "name",
    [
        "GATEWAY_PORT",
        "GATEWAY_SERVICE_HOST",
        "GATEWAY_PORT_8000_TCP_ADDR",
        "GATEWAY_CLIENT",
        "GATEWAY_HTTP_SERVER_PORT",
        "CLIENT__INSECURE",
        "OTHER_CLIENT__INSECURE",
        "gateway_client__insecure",
        "MY_GATEWAY_CLIENT__INSECURE",
    ],
)
def test_a_variable_of_another_form_is_ignored(name: str) -> None:
    assert load(environment={name: "tcp://10.0.0.1:8000"}) == Config()


ENVIRONMENT_FAULTS: list[tuple[str, str, str]] = [
    ("GATEWAY_HTTP_SERVER__PORT", "http", "integer"),
    ("GATEWAY_HTTP_SERVER__PORT", "", "integer"),
    ("GATEWAY_HTTP_SERVER__PORT", "70000", "65535"),
    ("GATEWAY_CLIENT__INSECURE", "maybe", "boolean"),
    ("GATEWAY_CLIENT__PING_INTERVAL", "soon", "25s"),
    ("GATEWAY_CLIENT__PING_INTERVAL", "-1", "greater than or equal to 0"),
    ("GATEWAY_LOG__LEVEL", "loud", "debug"),
    ("GATEWAY_CHANNEL__NAMESPACES", "[{", "line 1"),
    ("GATEWAY_CLIENT__ALLOWED_ORIGINS", '["a', "line 1"),
    ("GATEWAY_CLIENT__TOKEN", "x", "line 1"),
    ("GATEWAY_CLIENT__ZEBRA", "1", "known are"),
    ("GATEWAY_CLIENTS__INSECURE", "true", "client"),
    ("GATEWAY_CHANNEL__WITHOUT_NAMESPACE__HANDLER", "x", "echo"),
]


@pytest.mark.parametrize(("name", "text", "allowed"), ENVIRONMENT_FAULTS)
def test_a_bad_variable_is_one_line_that_names_it(name: str, text: str, allowed: str) -> None:
    [line] = faults(environment={name: text})
    assert name in line
    assert allowed in line


@pytest.mark.parametrize(
    ("name", "data", "key", "expected"),
    [
        ("GATEWAY_REDIS__PASSWORD_FILE", b"pass word\r\n", "redis.password", "pass word"),
        ("GATEWAY_REDIS__PASSWORD_FILE", b" x ", "redis.password", " x "),
        ("GATEWAY_HTTP_SERVER__PORT_FILE", b"7\n", "http_server.port", 7),
        (
            "GATEWAY_HTTP_API__KEYS_FILE",
            b'[{"name": "a", "key": "k", "scopes": ["read"]}]\n',
            "http_api.keys.0.key",
            "k",
        ),
        ("GATEWAY_HTTP_SERVER__TLS__CERT_PEM_FILE_FILE", b"/a.pem\n", "http_server.tls.cert_pem_file", "/a.pem"),
    ],
)
def test_a_variable_may_name_a_file_that_holds_the_value(
    tmp_path: Path, name: str, data: bytes, key: str, expected: Any
) -> None:
    path = tmp_path / "secret"
    path.write_bytes(data)
    found: Any = load(environment={name: str(path)})
    for part in key.split("."):
        found = found[int(part)] if part.isdigit() else getattr(found, part)
    assert found == expected


@pytest.mark.parametrize(
    ("data", "expected"),
    [(None, "No such file"), (b"\xff", "not UTF-8"), (b"x" * 65537, "longer than 65536 bytes")],
)
def test_a_file_that_holds_no_value_is_named_and_what_it_holds_is_not(
    tmp_path: Path, data: bytes | None, expected: str
) -> None:
    path = tmp_path / "secret"
    if data is not None:
        path.write_bytes(data)
    [line] = faults(environment={"GATEWAY_REDIS__PASSWORD_FILE": str(path)})
    assert line.startswith(f"GATEWAY_REDIS__PASSWORD_FILE: {path}: ")
    assert expected in line
    assert "xxx" not in line


def test_a_value_comes_from_a_variable_or_from_its_file_and_not_from_both(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("one", encoding="utf-8")
    [line] = faults(environment={"GATEWAY_REDIS__PASSWORD": "two", "GATEWAY_REDIS__PASSWORD_FILE": str(path)})
    assert line == "GATEWAY_REDIS__PASSWORD_FILE: GATEWAY_REDIS__PASSWORD says it, too; set one of them"


def test_flags_win_over_the_environment_and_that_over_the_file_and_that_over_the_base(write: Write) -> None:
    path = write("[http_server]\nport = 2\nbacklog = 2\ninternal_port = 2")
    config = load(
        path,
        base={"http_server": {"port": 1, "backlog": 1, "internal_port": 1, "address": "127.0.0.1"}},
        environment={"GATEWAY_HTTP_SERVER__PORT": "3", "GATEWAY_HTTP_SERVER__BACKLOG": "3"},
        flags={"http_server.port": 4},
    )
    server = config.http_server
    assert (server.port, server.backlog, server.internal_port, server.address) == (4, 3, 2, "127.0.0.1")


def test_a_variable_changes_one_key_of_a_table_and_leaves_its_neighbours(write: Write) -> None:
    path = write('[client.token]\naudience = "me"\nissuer = "them"')
    token = load(path, environment={"GATEWAY_CLIENT__TOKEN__AUDIENCE": "you"}).client.token
    assert (token.audience, token.issuer) == ("you", "them")


def test_loading_leaves_alone_what_it_was_given() -> None:
    base: dict[str, Any] = {"client": {"token": {"audience": "me"}}, "node": {"name": "a"}}
    load(base=base, environment={"GATEWAY_CLIENT__TOKEN__AUDIENCE": "you"}, flags={"node.name": "b"})
    assert base == {"client": {"token": {"audience": "me"}}, "node": {"name": "a"}}


# The rest.


@pytest.mark.parametrize(
    ("base", "over", "merged"),
    [
        ({}, {"a": 1}, {"a": 1}),
        ({"a": {"b": 1}}, {"a": {"c": 2}}, {"a": {"b": 1, "c": 2}}),
        ({"a": {"b": 1}}, {"a": 5}, {"a": 5}),
        ({"a": [1]}, {"a": [2]}, {"a": [2]}),
        ({"a": 1}, {"a": {"b": 2}}, {"a": {"b": 2}}),
    ],
)
def test_merging_lays_tables_over_tables(base: dict[str, Any], over: dict[str, Any], merged: dict[str, Any]) -> None:
    assert merge(base, over) == merged


def test_development_is_a_good_configuration_and_open_to_loopback_only() -> None:
    config = load(base=development())
    assert config.http_server.address == config.http_server.internal_address == "127.0.0.1"
    assert config.client.allow_anonymous_connect_without_token
    assert not config.client.insecure
    assert [each.name for each in config.channel.namespaces] == ["lobby", "echo", "binary"]


def test_the_defaults_let_nobody_in() -> None:
    config = Config()
    assert config.client.allowed_origins == []
    granted = config.channel.without_namespace.model_dump(
        include={"allow_subscribe_for_client", "allow_publish_for_client"}
    )
    assert granted == {"allow_subscribe_for_client": False, "allow_publish_for_client": False}
    switches = {name for name, value in config.client if value is True}
    assert switches == set()


def test_no_setting_can_be_changed_once_it_is_read() -> None:
    def tables(table: BaseModel) -> list[BaseModel]:
        inner = [value for _, value in table if isinstance(value, BaseModel)]
        return [table, *(each for one in inner for each in tables(one))]

    found = tables(Config())
    assert len(found) > len(Config.model_fields)
    assert all(table.model_config.get("frozen") for table in found)


# What other packages offer.

OFFERED = """
class Offset:
    def __init__(self, by):
        if not isinstance(by, float):
            raise ValueError("by is a number of degrees")
    def __call__(self, value, *, unix_s):
        return value

async def answer(request):
    return request.data
"""


@pytest.fixture
def offered(tmp_path: Path) -> Iterator[None]:
    (tmp_path / "offered_to_config.py").write_text(OFFERED)
    points = {"offset": "offered_to_config:Offset", "gone": "no_such_module:x"}
    handlers = {"answer": "offered_to_config:answer", "torn": "offered_to_config:torn"}
    write_distribution(tmp_path, {"gateway.processors": points, "gateway.handlers": handlers})
    with on_the_path(tmp_path):
        yield


@pytest.mark.usefixtures("offered")
def test_names_of_other_packages_are_good_names(write: Write) -> None:
    text = """
        [handlers]
        rpc_methods = ["answer", "echo"]
        [[channel.namespaces]]
        name = "warm"
        processors = ["offset", "statistics"]
        processor_options.offset.by = 1.5
        [[channel.namespaces]]
        name = "ask"
        handler = "answer"
        """
    config = load(write(text))
    assert config.channel.namespaces[0].processor_options == {"offset": {"by": 1.5}}
    assert config.handler_names == {"answer", "echo"}


@pytest.mark.usefixtures("offered")
@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('processors = ["gone"]', "processors has 'gone': no_such_module:x can't be loaded: ModuleNotFoundError: "),
        ('processors = ["nobody"]', "processors has 'nobody': there is gone, offset, scale, server_time, statistics"),
        ('processors = ["offset"]', "processors has 'offset': can't be made: TypeError: Offset.__init__() missing "),
        (
            'processors = ["offset"]\nprocessor_options.offset.by = "x"',
            "processors has 'offset': can't be made: ValueError: by is a number of degrees",
        ),
        ('handler = "torn"', "handler = 'torn': offered_to_config:torn can't be loaded: AttributeError: "),
        ('handler = "nobody"', "handler = 'nobody': there is answer, echo, torn"),
    ],
)
def test_a_broken_one_of_another_package_is_one_line(text: str, line: str, write: Write) -> None:
    [fault] = faults(write(f"[channel.without_namespace]\n{text}"))
    assert fault.startswith(f"channel.without_namespace.{line}")
    assert "\n" not in fault


@pytest.mark.usefixtures("offered")
def test_a_broken_one_that_nobody_names_harms_nobody(write: Write) -> None:
    assert load(write('[channel.without_namespace]\nhandler = "answer"')).handler_names == {"answer"}
